"""Recommenders for user-item graphs and for sessions."""

from graphunlearn.nn.models.bert4rec import BERT4Rec
from graphunlearn.nn.models.build import MODELS, build_model, kind_of
from graphunlearn.nn.models.contrast import SGL, SimGCL
from graphunlearn.nn.models.factorization import MatrixFactorization
from graphunlearn.nn.models.gcegnn import GCEGNN
from graphunlearn.nn.models.narm import NARM
from graphunlearn.nn.models.ngcf import NGCF
from graphunlearn.nn.models.sasrec import SASRec
from graphunlearn.nn.models.session import GRU4Rec
from graphunlearn.nn.models.srgnn import SRGNN

__all__ = [
    "GCEGNN",
    "MODELS",
    "NARM",
    "NGCF",
    "SGL",
    "SRGNN",
    "BERT4Rec",
    "GRU4Rec",
    "MatrixFactorization",
    "SASRec",
    "SimGCL",
    "build_model",
    "kind_of",
]
