"""Models, what they are trained on, and the one training loop."""

from graphunlearn.nn.auxiliary import auxiliary_loss, info_nce
from graphunlearn.nn.contrast import SGL, SimGCL
from graphunlearn.nn.encode import Encoded, LinearForm, encode, linear_form, num_hops, recommend, score
from graphunlearn.nn.fit import FitResult, FitSettings, fit, reset_parameters
from graphunlearn.nn.models import MODELS, MatrixFactorization, build_model
from graphunlearn.nn.ngcf import NGCF
from graphunlearn.nn.objective import BCE, BPR, Objective, Samples, SquaredError, default_objective
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of

__all__ = [
    "BCE",
    "BPR",
    "MODELS",
    "NGCF",
    "SGL",
    "Encoded",
    "FitResult",
    "FitSettings",
    "LinearForm",
    "LinearRisk",
    "MatrixFactorization",
    "Objective",
    "Risk",
    "Samples",
    "SimGCL",
    "SquaredError",
    "auxiliary_loss",
    "build_model",
    "default_objective",
    "encode",
    "fit",
    "info_nce",
    "linear_form",
    "num_hops",
    "recommend",
    "reset_parameters",
    "risk_of",
    "score",
]
