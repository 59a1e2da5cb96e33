"""Sharded unlearning of sessions: only the shards that hold a forgotten click are retrained."""

from graphunlearn.operators.shards.sisa import SISA
from graphunlearn.operators.shards.sru import SRU

__all__ = ["SISA", "SRU"]
