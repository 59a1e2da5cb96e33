"""CAU: unlearning of clicks and sessions by gradient ascent with a curriculum."""

from graphunlearn.operators.cau.method import CAU
from graphunlearn.operators.cau.published import PublishedCAU

__all__ = ["CAU", "PublishedCAU"]
