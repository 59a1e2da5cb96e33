"""Runs of checkpoints that RecBole wrote: the same scores, unlearned and audited on the command line."""

import sys

import pytest
import torch

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge, run_of_checkpoint
from graphunlearn.cli import main
from graphunlearn.runs import Run

SMALL = {"embedding_size": 8, "hidden_size_list": [8, 6], "n_layers": 2, "metrics": ["Recall"], "topk": [5]}
SMALL |= {"valid_metric": "Recall@5"}


def checkpoint(recbole, name):
    """The file of a model that RecBole trained, with its configuration, its loaders and the model."""
    config, loaders = recbole.prepare(name, **SMALL)
    from recbole.utils import get_model

    model = get_model(name)(config, loaders[0]._dataset)
    trainer = recbole.trainer(config, model)
    trainer.fit(loaders[0], None, saved=True)
    return trainer.saved_model_file, loaders, model


@pytest.mark.parametrize("name", ["LightGCN", "NGCF", "SGL", "BPR"])
def test_a_checkpoint_becomes_a_run(recbole, tmp_path, capsys, name):
    file, loaders, model = checkpoint(recbole, name)
    out = tmp_path / "runs" / "a"
    assert main(["import", "--recbole", str(file), "--trust-pickle", "--out", str(out)]) == 0
    run, bridge = Run.load(out), Bridge(model, *loaders)
    parts = zip((run.train, run.validation, run.test), (bridge.graph, bridge.validation, bridge.test))
    assert all(own.fingerprint() == theirs.fingerprint() for own, theirs in parts)
    assert run.objective == bridge.objective
    for own, theirs in zip(gu.encode(run.model, run.train)[:2], gu.encode(bridge.model, bridge.graph)[:2]):
        torch.testing.assert_close(own, theirs)
    user = run.train.user_ids[0]
    assert main(["forget", str(out), "--users", user, "--out", str(tmp_path / "b")]) == 0
    assert main(["audit", str(tmp_path / "b"), "--retrain-seeds", "2", "--no-cache"]) == 0
    assert "GRAPHUNLEARN_TRUST_CODE" not in capsys.readouterr().out  # these models are of this package


def test_reading_a_pickle_is_asked_for(tmp_path, monkeypatch):
    file = tmp_path / "a.pth"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"'trust_pickle' must be given to read a checkpoint of RecBole, a pickle"):
        run_of_checkpoint(file)
    with pytest.raises(FileNotFoundError, match="'recbole' must be an existing file"):
        run_of_checkpoint(tmp_path / "none.pth", trust_pickle=True)
    for name in ("recbole", "recbole.data", "recbole.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=r"needs RecBole, which is not installed .*pip install graphunlearn\[recbole\]"
    ):
        run_of_checkpoint(file, trust_pickle=True)


def test_a_broken_checkpoint_is_refused(recbole, tmp_path):
    file = tmp_path / "a.pth"
    for content in ({"state_dict": {}}, [1, 2]):
        torch.save(content, file)
        with pytest.raises(ValueError, match="'recbole' must be a checkpoint of RecBole"):
            run_of_checkpoint(file, trust_pickle=True)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    file = tmp_path / "a.pth"
    file.write_bytes(b"")
    for words, expected in (
        (["--out", str(tmp_path / "a")], "'--trust-pickle' must be given to read a checkpoint"),
        (
            ["--trust-pickle", "--data", "x.csv", "--out", str(tmp_path / "a")],
            "'--data' must be left out with --recbole",
        ),
    ):
        assert main(["import", "--recbole", str(file), *words]) == 2
        assert expected in capsys.readouterr().err
