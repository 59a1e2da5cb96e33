"""Evaluation of forgetting: metrics against retrained models, audits, benchmarks and reports."""

from graphunlearn.eval.auditing import Audit, audit
from graphunlearn.eval.comparison import bench
from graphunlearn.eval.machine import environment
from graphunlearn.eval.pairs import exposure, never_seen_pairs
from graphunlearn.eval.report.writing import aggregate, terminal_table, write_report
from graphunlearn.eval.scenarios.adversarial import adversarial_edges
from graphunlearn.eval.scenarios.cases import SHARES, Scenario
from graphunlearn.eval.scenarios.groups import core_users, edge_users, items_of_category, sensitive
from graphunlearn.eval.scenarios.injected import click_fraud, mislabelled_popular, shilling
from graphunlearn.eval.scenarios.interactions import flipped_labels, removal, requested
from graphunlearn.eval.scenarios.sessions import session_clicks
from graphunlearn.eval.scenarios.spam import spam_sessions
from graphunlearn.eval.scenarios.stream import Stream, arriving
from graphunlearn.eval.session_measure import u_score
from graphunlearn.eval.streaming import Lane, follow
from graphunlearn.eval.targets import last_prefixes, session_target_figures, target_figures
from graphunlearn.metrics.forgetting import (
    KSDistance,
    distance_to_retrain,
    flipped_label_auc,
    forgetting_entry,
    gap_closed,
    ks_distance,
    membership_auroc,
    mi_bf,
    mi_ng,
    noise_floor,
    privacy_leakage,
    z_score,
)

__all__ = [
    "SHARES",
    "Audit",
    "KSDistance",
    "Lane",
    "Scenario",
    "Stream",
    "adversarial_edges",
    "aggregate",
    "arriving",
    "audit",
    "bench",
    "click_fraud",
    "core_users",
    "distance_to_retrain",
    "edge_users",
    "environment",
    "exposure",
    "flipped_label_auc",
    "flipped_labels",
    "follow",
    "forgetting_entry",
    "gap_closed",
    "items_of_category",
    "ks_distance",
    "last_prefixes",
    "membership_auroc",
    "mi_bf",
    "mi_ng",
    "mislabelled_popular",
    "never_seen_pairs",
    "noise_floor",
    "privacy_leakage",
    "removal",
    "requested",
    "sensitive",
    "session_clicks",
    "session_target_figures",
    "shilling",
    "spam_sessions",
    "target_figures",
    "terminal_table",
    "u_score",
    "write_report",
    "z_score",
]
