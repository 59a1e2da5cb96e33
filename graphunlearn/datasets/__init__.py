"""Data to start with: named public sets, and a generator that needs no file."""

from graphunlearn.datasets.registry import Card, Split, available, load
from graphunlearn.datasets.synthetic import synthetic_interactions
from graphunlearn.datasets.synthetic_sessions import synthetic_sessions

__all__ = ["Card", "Split", "available", "load", "synthetic_interactions", "synthetic_sessions"]
