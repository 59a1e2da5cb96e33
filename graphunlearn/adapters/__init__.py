"""Recommenders of other libraries, made to fit."""

from graphunlearn.adapters.pyg import BipartiteRecommender

__all__ = ["BipartiteRecommender"]
