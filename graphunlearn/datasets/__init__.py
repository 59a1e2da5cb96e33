"""Data to start with: named public sets, and a generator that needs no file."""

from graphunlearn.datasets.card import Card, available
from graphunlearn.datasets.fetch import download
from graphunlearn.datasets.registry import SessionSplit, Split, load
from graphunlearn.datasets.synthetic import synthetic_interactions
from graphunlearn.datasets.synthetic_sessions import synthetic_sessions
from graphunlearn.datasets.transfer import DownloadError

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
