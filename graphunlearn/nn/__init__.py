"""Models, what they are trained on, and the one training loop."""

from graphunlearn.nn.auxiliary import auxiliary_loss, info_nce
from graphunlearn.nn.contrast import SGL, SimGCL
from graphunlearn.nn.criterion import Criterion
from graphunlearn.nn.encode import Encoded, LinearForm, encode, linear_form, num_hops, recommend, score
from graphunlearn.nn.fit import FitResult, FitSettings, default_settings, fit, reset_parameters
from graphunlearn.nn.models import MODELS, MatrixFactorization, build_model, kind_of
from graphunlearn.nn.ngcf import NGCF
from graphunlearn.nn.objective import BCE, BPR, Objective, Samples, SquaredError, default_objective
from graphunlearn.nn.prefixes import CrossEntropy, PrefixSamples, encode_prefixes, prefix_states
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of
from graphunlearn.nn.sasrec import SASRec
from graphunlearn.nn.session_models import GRU4Rec
from graphunlearn.nn.softmax import catalogue_loss
from graphunlearn.nn.srgnn import SRGNN

__all__ = [
    "BCE",
    "BPR",
    "MODELS",
    "NGCF",
    "SGL",
    "SRGNN",
    "Criterion",
    "CrossEntropy",
    "Encoded",
    "FitResult",
    "FitSettings",
    "GRU4Rec",
    "LinearForm",
    "LinearRisk",
    "MatrixFactorization",
    "Objective",
    "PrefixSamples",
    "Risk",
    "SASRec",
    "Samples",
    "SimGCL",
    "SquaredError",
    "auxiliary_loss",
    "build_model",
    "catalogue_loss",
    "default_objective",
    "default_settings",
    "encode",
    "encode_prefixes",
    "fit",
    "info_nce",
    "kind_of",
    "linear_form",
    "num_hops",
    "prefix_states",
    "recommend",
    "reset_parameters",
    "risk_of",
    "score",
]
