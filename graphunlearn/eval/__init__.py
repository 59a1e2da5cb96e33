"""Judging the forgotten: metrics against retrained models, audits and reports."""

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

__all__ = [
    "KSDistance",
    "aggregate",
    "distance_to_retrain",
    "environment",
    "flipped_label_auc",
    "forgetting_entry",
    "gap_closed",
    "ks_distance",
    "membership_auroc",
    "never_seen_pairs",
    "noise_floor",
    "privacy_leakage",
    "terminal_table",
    "write_report",
    "z_score",
]
