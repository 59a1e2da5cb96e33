"""IFRU: influence functions with the spillover through neighbourhood aggregation."""

from graphunlearn.operators.ifru.method import IFRU
from graphunlearn.operators.ifru.published import PublishedIFRU
from graphunlearn.operators.ifru.right_hand_side import influence

__all__ = ["IFRU", "PublishedIFRU", "influence"]
