"""Work on several processes or machines under ``torchrun``: users are divided between them, and items may be."""

from graphunlearn.distributed.fitting import fit
from graphunlearn.distributed.graph import ShardGraph, take_part
from graphunlearn.distributed.measuring import audit, measure, recommend
from graphunlearn.distributed.model import build_part, model_part, whole_model
from graphunlearn.distributed.ranks import RankError, Ranks, started_by_torchrun
from graphunlearn.distributed.reading import read_part
from graphunlearn.distributed.unlearning import unlearn, whole_result

__all__ = [
    "RankError",
    "Ranks",
    "ShardGraph",
    "audit",
    "build_part",
    "fit",
    "measure",
    "model_part",
    "read_part",
    "recommend",
    "started_by_torchrun",
    "take_part",
    "unlearn",
    "whole_model",
    "whole_result",
]
