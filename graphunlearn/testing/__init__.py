"""Contract suites for those who write methods, models and graphs of their own: call them in your tests."""

from graphunlearn.testing.encoders import check_encoder
from graphunlearn.testing.graphs import check_graph
from graphunlearn.testing.unlearners import check_unlearner

__all__ = ["check_encoder", "check_graph", "check_unlearner"]
