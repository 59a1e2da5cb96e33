"""What help texts say of the library is so."""

import inspect

import pytest

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.cli._methods import BENCHED, DEFAULT, method_names, preparable, serving
from graphunlearn.cli._options import HEADS, WIDTH
from graphunlearn.cli._text import listed
from graphunlearn.nn.training.fitting import DEFAULT_SETTINGS

OWN = [name for name in method_names() if gu.operators.registry[name].__module__.startswith("graphunlearn.")]


@pytest.fixture
def told(capsys, monkeypatch):
    """The help of a command as one line."""
    monkeypatch.setenv("COLUMNS", "96")

    def helped(verb):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    return helped


def test_methods(told):
    assert {name for name in serving() if name in OWN} == set(OWN)
    forget = f"{listed(OWN, 'or')} (default: {DEFAULT['interactions']}, for sessions {DEFAULT['sessions']})."
    assert forget in told("forget")
    assert f"{listed([name for name in preparable() if name in OWN], 'or')}. (default: unlearnrec)" in told("prepare")
    compared = listed([name for name in OWN if name != "retrain"], "and")
    defaults = f"(default: {' '.join(BENCHED['interactions'])}; for sessions {' '.join(BENCHED['sessions'])})"
    bench = told("bench")
    assert f"Any of {compared}; " in bench
    assert defaults in bench


def test_settings(told):
    text = told("train")
    for name in ("epochs", "lr", "batch_size", "patience"):
        one, other = (getattr(DEFAULT_SETTINGS[kind], name) for kind in ("interactions", "sessions"))
        assert f"(default: {one}, for sessions {other})" in text
    assert f"(default: {WIDTH['interactions']}, for sessions {WIDTH['sessions']})" in text
    assert f"(default: {gu.BPR().weight_decay:g}, of bce {gu.BCE().weight_decay:g})" in text
    ease, als = gu.nn.floors.EASE(), gu.nn.floors.ALS()
    assert f"or number of factors of als (default: {als.dim})" in text
    assert f"of ease and als, on the whole model (default: {ease.l2:g} and {als.l2:g})" in text
    softmax = {gu.SampledSoftmax().negatives, gu.InBatchSoftmax().negatives}
    assert softmax == {64}
    assert (
        f"(default: {gu.BPR().negatives}, of sampled-bce {gu.SampledBCE().negatives}, of the softmax losses 64)" in text
    )
    assert inspect.signature(gu.nn.SASRec).parameters["heads"].default == HEADS


def test_shares(told):
    shares = gu.eval.SHARES
    text = told("bench")
    for name in ("adversarial-edges", "session-clicks"):
        assert f"{name}: {shares[name]}" in text
    assert f"random-edges, core-users, edge-users: {shares['random-edges']}" in text
    assert shares["random-edges"] == shares["core-users"] == shares["edge-users"]
    named = {"adversarial-edges", "session-clicks", "sensitive", "random-edges", "core-users", "edge-users"}
    assert {share for name, share in shares.items() if name not in named} == {0.02}
    assert f"sensitive: {shares['sensitive']} of the users" in text
    assert "the others: 0.02" in text
