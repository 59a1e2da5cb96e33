"""Verdicts where the original comes from another training than the retrained models."""

import math

import pytest
import torch

from graphunlearn.eval.decision import Verdict
from graphunlearn.eval.other_training import discount


def measured(shift, status="under", size=200):
    """Measures whose test probabilities are a common base, noise, and a shift."""
    generator = torch.Generator().manual_seed(int(1000 * shift) + len(status))
    return {
        "test": 0.5 + 0.01 * torch.randn(size, generator=generator) + shift,
        "verdict": Verdict(status, "a membership attack"),
    }


def references(count, size=200):
    generator = torch.Generator().manual_seed(1)
    return [{"test": 0.5 + 0.01 * torch.randn(size, generator=generator)} for _ in range(count)]


def test_like_trainings_leave_the_verdicts():
    models = [measured(0.1, status) for status in ("under", "over", "like", "undecided")]
    sentence = discount(measured(0.0), references(5), models)
    assert [model["verdict"].status for model in models] == ["under", "over", "like", "undecided"]
    assert sentence.endswith("so that the trainings count as alike.")
    ratio = float(sentence.partition("it is ")[2].partition(" ×")[0])
    assert ratio == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("case", ["far", "few references", "no test pairs"])
def test_what_another_training_could_explain_is_undecided(case):
    models = [measured(0.1, status) for status in ("under", "over", "like", "undecided")]
    size = 0 if case == "no test pairs" else 200
    original = measured(0.1 if case == "far" else 0.0, size=size)
    sentence = discount(original, references(2 if case == "few references" else 5, size), models)
    assert [model["verdict"].status for model in models] == ["undecided", "undecided", "like", "undecided"]
    assert models[0]["verdict"].rule.startswith("the original was trained by another program than the retrained models")
    assert "an import can name it" in models[0]["verdict"].needs
    assert models[3]["verdict"].rule == "a membership attack"
    if case == "far":  # the shift over the mean of |a - b| of two normal numbers
        ratio = float(sentence.partition("original is ")[2].partition(" ×")[0])
        assert ratio == pytest.approx(0.1 / (0.01 * 2 / math.pi**0.5), rel=0.1)
    assert ("cannot be told" in sentence) == (case != "far")
