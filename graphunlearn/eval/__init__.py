"""Judging the forgotten: metrics against retrained models, audits and reports."""

from graphunlearn.eval.adversarial import adversarial_edges
from graphunlearn.eval.audit import Audit, audit
from graphunlearn.eval.bench import bench
from graphunlearn.eval.cases import SHARES, Scenario
from graphunlearn.eval.environment import environment
from graphunlearn.eval.forgetting import (
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
from graphunlearn.eval.pairs import exposure, never_seen_pairs
from graphunlearn.eval.report import aggregate, terminal_table, write_report
from graphunlearn.eval.scenarios import flipped_labels, removal, requested
from graphunlearn.eval.session_measure import u_score
from graphunlearn.eval.session_scenarios import session_clicks

__all__ = [
    "SHARES",
    "Audit",
    "KSDistance",
    "Scenario",
    "adversarial_edges",
    "aggregate",
    "audit",
    "bench",
    "distance_to_retrain",
    "environment",
    "exposure",
    "flipped_label_auc",
    "flipped_labels",
    "forgetting_entry",
    "gap_closed",
    "ks_distance",
    "membership_auroc",
    "mi_bf",
    "mi_ng",
    "never_seen_pairs",
    "noise_floor",
    "privacy_leakage",
    "removal",
    "requested",
    "session_clicks",
    "terminal_table",
    "u_score",
    "write_report",
    "z_score",
]
