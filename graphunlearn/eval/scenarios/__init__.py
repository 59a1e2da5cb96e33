"""Scenarios: data and a forget request whose effect is known."""

from graphunlearn.eval.scenarios.adversarial import adversarial_edges
from graphunlearn.eval.scenarios.cases import SHARES, Scenario
from graphunlearn.eval.scenarios.interactions import flipped_labels, removal, requested
from graphunlearn.eval.scenarios.sessions import session_clicks

__all__ = ["SHARES", "Scenario", "adversarial_edges", "flipped_labels", "removal", "requested", "session_clicks"]
