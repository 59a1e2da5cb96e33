"""Sharded unlearning: only the shards that hold forgotten data are retrained."""

from graphunlearn.operators.shards.receraser import RecEraser
from graphunlearn.operators.shards.sisa import SISA
from graphunlearn.operators.shards.sru import SRU
from graphunlearn.operators.shards.ultrare import UltraRE

__all__ = ["SISA", "SRU", "RecEraser", "UltraRE"]
