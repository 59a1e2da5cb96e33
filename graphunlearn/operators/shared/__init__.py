"""Parts that several operators use: right-hand side and corrections of influence, targets, warm starts."""

from graphunlearn.operators.shared.right_hand_side import influence
from graphunlearn.operators.shared.tune import TuneSettings

__all__ = ["TuneSettings", "influence"]
