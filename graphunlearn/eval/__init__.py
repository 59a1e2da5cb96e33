"""Evaluation of forgetting: metrics against retrained models, audits, benchmarks and reports."""

from graphunlearn.eval.auditing import Audit, audit
from graphunlearn.eval.comparison import bench
from graphunlearn.eval.machine import environment
from graphunlearn.eval.pairs import exposure, never_seen_pairs
from graphunlearn.eval.report.writing import aggregate, terminal_table, write_report
from graphunlearn.eval.scenarios.adversarial import adversarial_edges
from graphunlearn.eval.scenarios.cases import SHARES, Scenario
from graphunlearn.eval.scenarios.interactions import flipped_labels, removal, requested
from graphunlearn.eval.scenarios.sessions import session_clicks
from graphunlearn.eval.session_measure import u_score
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
