"""Recommenders that others wrote: how they come in, and how they go out again."""

from graphunlearn.adapters.folder import Exported, export, load_export
from graphunlearn.adapters.pyg import BipartiteRecommender

__all__ = ["BipartiteRecommender", "Exported", "export", "load_export"]
