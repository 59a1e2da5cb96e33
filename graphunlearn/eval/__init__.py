"""Judging the forgotten: metrics against retrained models, audits and reports."""

from graphunlearn.eval.audit import Audit, audit
from graphunlearn.eval.environment import environment
from graphunlearn.eval.forgetting import (
    KSDistance,
    distance_to_retrain,
    flipped_label_auc,
    forgetting_entry,
    gap_closed,
    ks_distance,
    membership_auroc,
    never_seen_pairs,
    noise_floor,
    privacy_leakage,
    z_score,
)
from graphunlearn.eval.report import aggregate, terminal_table, write_report
from graphunlearn.eval.scenarios import Scenario, bench, flipped_labels, removal

__all__ = [
    "Audit",
    "KSDistance",
    "Scenario",
    "aggregate",
    "audit",
    "bench",
    "distance_to_retrain",
    "environment",
    "flipped_label_auc",
    "flipped_labels",
    "forgetting_entry",
    "gap_closed",
    "ks_distance",
    "membership_auroc",
    "never_seen_pairs",
    "noise_floor",
    "privacy_leakage",
    "removal",
    "terminal_table",
    "write_report",
    "z_score",
]
