"""CAU: gradient ascent on sessions with a curriculum."""

from graphunlearn.operators.cau.method import CAU
from graphunlearn.operators.cau.published import PublishedCAU

__all__ = ["CAU", "PublishedCAU"]
