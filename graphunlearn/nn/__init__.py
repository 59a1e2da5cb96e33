"""Models, training objectives and the training loop."""

from graphunlearn.nn.connecting import connect
from graphunlearn.nn.encoding import Encoded, LinearForm, encode, linear_form, num_hops, recommend, score
from graphunlearn.nn.extending import Extended, add_rows, extend
from graphunlearn.nn.loss_fit import Stationarity, losses_by_fit, stationarity
from graphunlearn.nn.models import (
    GCEGNN,
    NARM,
    NGCF,
    SGL,
    SRGNN,
    BERT4Rec,
    GRU4Rec,
    MatrixFactorization,
    SASRec,
    SimGCL,
)
from graphunlearn.nn.models.build import MODELS, build_model, kind_of
from graphunlearn.nn.prefixes import encode_prefixes, prefix_states
from graphunlearn.nn.renumbering import keep_rows
from graphunlearn.nn.risk import LinearRisk, Risk, risk_of
from graphunlearn.nn.training.auxiliary import auxiliary_loss, info_nce
from graphunlearn.nn.training.cloze import Cloze
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitResult, FitSettings, default_settings, fit, reset_parameters
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples
from graphunlearn.nn.training.objective import BCE, BPR, Objective, Sampled, Samples, SquaredError, default_objective
from graphunlearn.nn.training.sampled import InBatchSoftmax, SampledBCE, SampledSoftmax
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = [
    "BCE",
    "BPR",
    "GCEGNN",
    "MODELS",
    "NARM",
    "NGCF",
    "SGL",
    "SRGNN",
    "BERT4Rec",
    "Cloze",
    "Criterion",
    "CrossEntropy",
    "Encoded",
    "Extended",
    "FitResult",
    "FitSettings",
    "GRU4Rec",
    "InBatchSoftmax",
    "LinearForm",
    "LinearRisk",
    "MatrixFactorization",
    "Objective",
    "PrefixSamples",
    "Risk",
    "SASRec",
    "Sampled",
    "SampledBCE",
    "SampledSoftmax",
    "Samples",
    "SimGCL",
    "SquaredError",
    "Stationarity",
    "add_rows",
    "auxiliary_loss",
    "build_model",
    "catalogue_loss",
    "connect",
    "default_objective",
    "default_settings",
    "encode",
    "encode_prefixes",
    "extend",
    "fit",
    "info_nce",
    "keep_rows",
    "kind_of",
    "linear_form",
    "losses_by_fit",
    "num_hops",
    "prefix_states",
    "recommend",
    "reset_parameters",
    "risk_of",
    "score",
    "stationarity",
]
