"""Unlearning methods. Each is an independent subclass of :class:`Unlearner`."""

from graphunlearn.operators.base import Unlearner, UnlearningResult, registry
from graphunlearn.operators.baselines.ascent import AscentFineTune, GradientAscent, NegativeKL
from graphunlearn.operators.baselines.popularity import PopularityKL
from graphunlearn.operators.baselines.retrain import Retrain
from graphunlearn.operators.baselines.simple import FineTune, Unlink, UnlinkRedraw
from graphunlearn.operators.calibrate import Calibrate
from graphunlearn.operators.cau.method import CAU
from graphunlearn.operators.compacting import Compacted, compact
from graphunlearn.operators.ifru.method import IFRU
from graphunlearn.operators.published.alteraser import AltEraser
from graphunlearn.operators.published.certified import CEU, IDEA
from graphunlearn.operators.published.cova import COVA
from graphunlearn.operators.published.gif import GIF
from graphunlearn.operators.published.gnndelete import GNNDelete
from graphunlearn.operators.published.scif import SCIF
from graphunlearn.operators.shards.receraser import RecEraser
from graphunlearn.operators.shards.sisa import SISA
from graphunlearn.operators.shards.sru import SRU
from graphunlearn.operators.shards.ultrare import UltraRE
from graphunlearn.operators.shared.right_hand_side import influence
from graphunlearn.operators.shared.tune import TuneSettings
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings
from graphunlearn.operators.unlearnrec.method import UnlearnRec
from graphunlearn.operators.unlearnrec.published_encoder import PublishedSettings

__all__ = [
    "CAU",
    "CEU",
    "COVA",
    "GIF",
    "IDEA",
    "IFRU",
    "SCIF",
    "SISA",
    "SRU",
    "AltEraser",
    "AscentFineTune",
    "Calibrate",
    "Compacted",
    "EncoderSettings",
    "FineTune",
    "GNNDelete",
    "GradientAscent",
    "NegativeKL",
    "PopularityKL",
    "PublishedSettings",
    "RecEraser",
    "Retrain",
    "TuneSettings",
    "UltraRE",
    "UnlearnRec",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "UnlinkRedraw",
    "compact",
    "influence",
    "registry",
]
