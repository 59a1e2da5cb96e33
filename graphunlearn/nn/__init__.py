"""Models, what they are trained on, and the one training loop."""

from graphunlearn.nn.encode import Encoded, LinearForm, encode, linear_form, num_hops, recommend, score
from graphunlearn.nn.fit import FitResult, FitSettings, fit, reset_parameters
from graphunlearn.nn.models import MODELS, MatrixFactorization, build_model
from graphunlearn.nn.objective import BCE, BPR, Objective, Samples, SquaredError, default_objective
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of

__all__ = [
    "BCE",
    "BPR",
    "MODELS",
    "Encoded",
    "FitResult",
    "FitSettings",
    "LinearForm",
    "LinearRisk",
    "MatrixFactorization",
    "Objective",
    "Risk",
    "Samples",
    "SquaredError",
    "build_model",
    "default_objective",
    "encode",
    "fit",
    "linear_form",
    "num_hops",
    "recommend",
    "reset_parameters",
    "risk_of",
    "score",
]
