"""Recommenders for user-item graphs and for sessions."""

from graphunlearn.nn.models.build import MODELS, build_model, kind_of
from graphunlearn.nn.models.contrast import SGL, SimGCL
from graphunlearn.nn.models.factorization import MatrixFactorization
from graphunlearn.nn.models.ngcf import NGCF
from graphunlearn.nn.models.sasrec import SASRec
from graphunlearn.nn.models.session import GRU4Rec
from graphunlearn.nn.models.srgnn import SRGNN

__all__ = [
    "MODELS",
    "NGCF",
    "SGL",
    "SRGNN",
    "GRU4Rec",
    "MatrixFactorization",
    "SASRec",
    "SimGCL",
    "build_model",
    "kind_of",
]
