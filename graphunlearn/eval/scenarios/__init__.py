"""Scenarios: data and a forget request whose effect is known."""

from graphunlearn.eval.scenarios.adversarial import adversarial_edges
from graphunlearn.eval.scenarios.cases import SHARES, Scenario
from graphunlearn.eval.scenarios.groups import core_users, edge_users, items_of_category, sensitive
from graphunlearn.eval.scenarios.injected import click_fraud, mislabelled_popular, shilling
from graphunlearn.eval.scenarios.interactions import flipped_labels, removal, requested
from graphunlearn.eval.scenarios.published import cure4rec
from graphunlearn.eval.scenarios.sessions import session_clicks
from graphunlearn.eval.scenarios.spam import spam_sessions
from graphunlearn.eval.scenarios.stream import Stream, arriving

__all__ = [
    "SHARES",
    "Scenario",
    "Stream",
    "adversarial_edges",
    "arriving",
    "click_fraud",
    "core_users",
    "cure4rec",
    "edge_users",
    "flipped_labels",
    "items_of_category",
    "mislabelled_popular",
    "removal",
    "requested",
    "sensitive",
    "session_clicks",
    "shilling",
    "spam_sessions",
]
