"""Code shared by several unlearning methods: the two-risk problem, corrections, score targets and warm starts."""

from graphunlearn.operators.shared.problem import influence
from graphunlearn.operators.shared.tune import TuneSettings

__all__ = ["TuneSettings", "influence"]
