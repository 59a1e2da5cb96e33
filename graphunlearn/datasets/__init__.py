"""Public data sets by name, and generators of synthetic data."""

from graphunlearn.datasets.card import Card, available
from graphunlearn.datasets.downloading import DownloadError, download
from graphunlearn.datasets.registry import SessionSplit, Split, load
from graphunlearn.datasets.synthetic import synthetic_interactions
from graphunlearn.datasets.synthetic_clicks import synthetic_sessions

__all__ = [
    "Card",
    "DownloadError",
    "SessionSplit",
    "Split",
    "available",
    "download",
    "load",
    "synthetic_interactions",
    "synthetic_sessions",
]
