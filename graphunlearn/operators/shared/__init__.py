"""What two unlearning systems need: the two-risk problem, corrections, targets for scores, warm starts."""

from graphunlearn.operators.shared.problem import influence
from graphunlearn.operators.shared.tune import TuneSettings

__all__ = ["TuneSettings", "influence"]
