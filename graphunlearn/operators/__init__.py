"""Unlearning methods. Each is an :class:`Unlearner`; none imports another."""

from graphunlearn.operators.base import Unlearner, UnlearningResult, registry
from graphunlearn.operators.baselines import FineTune, GradientAscent, Unlink
from graphunlearn.operators.calibrate import Calibrate
from graphunlearn.operators.cau import CAU
from graphunlearn.operators.drift import Drift
from graphunlearn.operators.encoder import EncoderSettings
from graphunlearn.operators.ifru import IFRU
from graphunlearn.operators.ledger import Ledger
from graphunlearn.operators.ledger_entry import LedgerEntry, PendingRequest
from graphunlearn.operators.problem import influence
from graphunlearn.operators.published_losses import PublishedSettings
from graphunlearn.operators.retrain import Retrain
from graphunlearn.operators.session_baselines import AscentFineTune, NegativeKL
from graphunlearn.operators.shards import SISA
from graphunlearn.operators.sru import SRU
from graphunlearn.operators.start import without_emptied_nodes
from graphunlearn.operators.tune import TuneSettings
from graphunlearn.operators.unlearnrec import UnlearnRec

__all__ = [
    "CAU",
    "IFRU",
    "SISA",
    "SRU",
    "AscentFineTune",
    "Calibrate",
    "Drift",
    "EncoderSettings",
    "FineTune",
    "GradientAscent",
    "Ledger",
    "LedgerEntry",
    "NegativeKL",
    "PendingRequest",
    "PublishedSettings",
    "Retrain",
    "TuneSettings",
    "UnlearnRec",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "influence",
    "registry",
    "without_emptied_nodes",
]
