"""IFRU: influence functions with the spillover through neighbourhood aggregation."""

from graphunlearn.operators.ifru.method import IFRU
from graphunlearn.operators.ifru.published import PublishedIFRU

__all__ = ["IFRU", "PublishedIFRU"]
