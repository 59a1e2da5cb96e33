"""Adapters for recommenders of other libraries."""

from graphunlearn.adapters.pyg import BipartiteRecommender

__all__ = ["BipartiteRecommender"]
