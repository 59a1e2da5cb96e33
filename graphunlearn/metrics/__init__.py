"""Metrics of recommendation and of forgetting, as functions of tensors, independent of any model."""

from graphunlearn.metrics.ensembles import klom, klom_if_equal, top_k_overlap
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
from graphunlearn.metrics.groups import activity_gap
from graphunlearn.metrics.next_item import next_item_metrics, score_ranks, target_ranks
from graphunlearn.metrics.ranking import Ranker, auroc, rank_metrics

__all__ = [
    "KSDistance",
    "Ranker",
    "activity_gap",
    "auroc",
    "distance_to_retrain",
    "flipped_label_auc",
    "forgetting_entry",
    "gap_closed",
    "klom",
    "klom_if_equal",
    "ks_distance",
    "membership_auroc",
    "mi_bf",
    "mi_ng",
    "next_item_metrics",
    "noise_floor",
    "privacy_leakage",
    "rank_metrics",
    "score_ranks",
    "target_ranks",
    "top_k_overlap",
    "z_score",
]
