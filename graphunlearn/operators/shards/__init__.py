"""Shards of sessions: forget by training again only the shards that hold what is forgotten."""

from graphunlearn.operators.shards.sisa import SISA
from graphunlearn.operators.shards.sru import SRU

__all__ = ["SISA", "SRU"]
