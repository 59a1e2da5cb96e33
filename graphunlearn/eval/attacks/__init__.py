"""Attacks that try to identify the forgotten data, and the comparison of their success with retraining."""

from graphunlearn.eval.attacks.before_after import changed_rows, score_drops
from graphunlearn.eval.attacks.edges import EdgeRecovery
from graphunlearn.eval.attacks.evidence import Comparison, Evidence, compare
from graphunlearn.eval.attacks.fold_in import FoldIn
from graphunlearn.eval.attacks.interactions import InteractionAttacks
from graphunlearn.eval.attacks.matching import matched_pairs
from graphunlearn.eval.attacks.membership import lira, rmia, true_positive_rate
from graphunlearn.eval.attacks.sessions import SessionAttacks

__all__ = [
    "Comparison",
    "EdgeRecovery",
    "Evidence",
    "FoldIn",
    "InteractionAttacks",
    "SessionAttacks",
    "changed_rows",
    "compare",
    "lira",
    "matched_pairs",
    "rmia",
    "score_drops",
    "true_positive_rate",
]
