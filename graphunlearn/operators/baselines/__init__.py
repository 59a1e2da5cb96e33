"""Baselines: retraining, which is the reference, and simple methods for comparison."""

from graphunlearn.operators.baselines.ascent import AscentFineTune, GradientAscent, NegativeKL
from graphunlearn.operators.baselines.popularity import PopularityKL
from graphunlearn.operators.baselines.retrain import Retrain
from graphunlearn.operators.baselines.simple import FineTune, Unlink, UnlinkRedraw

__all__ = [
    "AscentFineTune",
    "FineTune",
    "GradientAscent",
    "NegativeKL",
    "PopularityKL",
    "Retrain",
    "Unlink",
    "UnlinkRedraw",
]
