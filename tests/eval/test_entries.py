"""Entries of the report on one model, from measures that are written down."""

import pytest
import torch

from graphunlearn.eval.decision import Verdict
from graphunlearn.eval.entries import model_entry
from graphunlearn.eval.report.tables import forgetting_table


def measured(u_score, original=None):
    found = {
        "utility": {"recall@20": 0.5},
        "forgetting": {"u_score": u_score, "mrr_u": 0.25},
        "test": torch.tensor([0.1, 0.3]),
        "forget": torch.tensor([0.2]),
        "attacks": {},
        "topk_overlap": None,
        "target": None,
        "verdict": Verdict("like", "as written"),
    }
    return found | {"original": found if original is None else original}


def test_a_metric_that_the_original_has_not_keeps_its_value():
    # the score compares with the other retrained models, so that it can be defined for them alone
    original = measured(None)
    retrained = [measured(0.0, original), measured(0.5, original)]
    entry = model_entry("retrain", retrained[0], retrained, None, 1.0)["forgetting"]
    expected = {"value": 0.0, "original": None, "retrain_mean": 0.25, "retrain_sd": 0.5**1.5, "z": -(0.5**0.5)}
    assert entry["u_score"] == pytest.approx(expected | {"gap_closed": None})
    assert entry["mrr_u"]["original"] == 0.25
    assert "u_score" not in model_entry("original", original, retrained, None, 1.0)["forgetting"]
    page = forgetting_table({"methods": [{"name": "retrain", "forgetting": entry}]})
    assert "<td>–</td>" in page
