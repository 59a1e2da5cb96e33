"""Unlearning methods. Each is an :class:`Unlearner`; none imports another."""

from graphunlearn.operators.base import Unlearner, UnlearningResult, registry
from graphunlearn.operators.baselines import FineTune, GradientAscent, Unlink
from graphunlearn.operators.ifru import IFRU
from graphunlearn.operators.problem import influence
from graphunlearn.operators.retrain import Retrain, without_emptied_users

__all__ = [
    "IFRU",
    "FineTune",
    "GradientAscent",
    "Retrain",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "influence",
    "registry",
    "without_emptied_users",
]
