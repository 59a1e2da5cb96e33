"""Work on several processes or machines under ``torchrun``: users are divided between them, items are on all."""

from graphunlearn.distributed.fitting import fit
from graphunlearn.distributed.graph import ShardGraph, take_part
from graphunlearn.distributed.model import build_part, model_part, whole_model
from graphunlearn.distributed.ranks import RankError, Ranks, started_by_torchrun
from graphunlearn.distributed.unlearning import unlearn, whole_result

__all__ = [
    "RankError",
    "Ranks",
    "ShardGraph",
    "build_part",
    "fit",
    "model_part",
    "started_by_torchrun",
    "take_part",
    "unlearn",
    "whole_model",
    "whole_result",
]
