"""Every model that the command line offers: trained, kept in a run folder, forgotten from."""

from typing import get_args, get_type_hints

import pytest
import torch
from quick import QUICK

from graphunlearn.cli._options import EXACT, Learning
from graphunlearn.nn import MODELS, encode, kind_of
from graphunlearn.runs.run import Run

OFFERED = [name for name in get_args(get_type_hints(Learning)["model"]) if name not in EXACT]


def test_what_is_offered_can_be_built():
    assert set(OFFERED) <= set(MODELS)
    assert {"lightgcn", "mf", "sgl", "simgcl", "ngcf", "srgnn", "gru4rec", "sasrec"} <= set(OFFERED)


@pytest.mark.parametrize("model", OFFERED)
def test_train_load_and_forget(model, ratings, clicks, tmp_path, parsed):
    out, after, of_sessions = tmp_path / "a", tmp_path / "b", kind_of(model) == "sessions"
    said = parsed("train", "--data", clicks if of_sessions else ratings, "--model", model, "--out", out, *QUICK)
    assert said["model"] == {"name": model, "dim": 4, "layers": 1}
    run = Run.load(out)
    again = Run.load(out)
    for ours, theirs in zip(encode(run.model, run.train)[:2], encode(again.model, again.train)[:2]):
        assert torch.equal(ours, theirs)
    parsed("forget", out, "--items", "i1", "--method", "unlink", "--out", after)
    forgotten = Run.load(after)
    assert type(forgotten.model) is type(run.model)
    items = forgotten.train.items if of_sessions else forgotten.train.pairs[1]
    assert not bool((items == run.train.item_ids.index("i1")).any())


def test_training_again_gives_the_same_model(ratings, clicks, tmp_path, parsed):
    for model in ("sgl", "simgcl", "srgnn"):
        runs = []
        for name in ("a", "b"):
            out = tmp_path / model / name
            data = clicks if model == "srgnn" else ratings
            parsed("train", "--data", data, "--model", model, "--out", out, *QUICK)
            runs.append(Run.load(out).model.embedding.weight)
        assert torch.equal(*runs)
