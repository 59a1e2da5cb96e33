import itertools
import os
import stat

import pytest
import torch

import graphunlearn as gu
from graphunlearn.cli._methods import build_method, method_names, options_of, rebuild_method
from graphunlearn.nn import FitSettings
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run


def test_is_the_method_on_the_run(trained, tmp_path, parsed):
    words = ("--users", "u1", "--method", "ifru", "--option", "damping=0.3", "max_iter=5")
    told = parsed("forget", trained, *words, "--out", tmp_path / "x")
    run, after = Run.load(trained), Run.load(tmp_path / "x")
    method = gu.IFRU(objective=run.objective, damping=0.3, max_iter=5)
    result = method.unlearn(run.model, run.train, gu.ForgetRequest("user", ["u1"]))
    assert fingerprint(after.model) == fingerprint(result.model)
    assert after.train.fingerprint() == result.graph.fingerprint()
    assert told["log"]["damping"] == 0.3
    assert told["options"]["max_iter"] == 5
    assert told["request"]["interactions"] == run.train.num_interactions - after.train.num_interactions
    assert after.forgotten.options == options_of(method)


@pytest.mark.parametrize("name", ["ifru", "ifru-published", "unlink", "finetune", "ascent", "retrain", "calibrate"])
def test_every_method_serves(name, trained, tmp_path, parsed):
    told = parsed("forget", trained, "--items", "i1", "--method", name, "--out", tmp_path / "x")
    assert told["method"] == name
    after = Run.load(tmp_path / "x")
    assert not (after.train.to_frame()["item"] == "i1").any()
    assert after.forgotten.result.method == name


def test_several_kinds_add_up_in_whatever_order_they_are_given(trained, tmp_path, parsed):
    train = Run.load(trained).train
    frame = train.to_frame()
    pairs = frame[~frame["user"].isin(["u1", "u2", "u3"]) & (frame["item"] != "i3")][["user", "item"]].astype(str)
    (tmp_path / "one.csv").write_text(pairs[:2].to_csv(index=False))
    (tmp_path / "two.csv").write_text(pairs[2:5].to_csv(index=False))
    files = ("--pairs", tmp_path / "one.csv", "--pairs", tmp_path / "two.csv")
    words = ("--users", "u1", "u2", *files, "--items", "i3", "--users", "u3", "--method", "unlink")
    told = parsed("forget", trained, *words, "--out", tmp_path / "x")
    gone = frame["user"].isin(["u1", "u2", "u3"]) | (frame["item"] == "i3")
    kept = frame[~gone].drop(index=pairs.index[:5])
    left = Run.load(tmp_path / "x").train.to_frame()
    assert left[["user", "item"]].astype(str).values.tolist() == kept[["user", "item"]].astype(str).values.tolist()
    assert told["request"]["level"] == "mixed"
    assert told["request"]["interactions"] == len(frame) - len(kept)


def test_forgetting_goes_on_from_a_forgotten_run(forgotten, tmp_path, parsed):
    parsed("forget", forgotten, "--users", "u4", "--method", "unlink", "--out", tmp_path / "x")
    after, before = Run.load(tmp_path / "x"), Run.load(forgotten)
    assert after.forgotten.graph.fingerprint() == before.train.fingerprint()
    users = set(after.train.to_frame()["user"].astype(str))
    assert not users & {"u1", "u2", "u4"}


def test_onto_itself_with_overwrite(run_copy, parsed):
    before = Run.load(run_copy)
    parsed("forget", run_copy, "--users", "u4", "--method", "unlink", "--out", run_copy, "--overwrite")
    assert fingerprint(Run.load(run_copy).forgotten.original) == fingerprint(before.model)


def test_repeated_entries_count_once_and_are_told(trained, tmp_path, call):
    status, out, err = call("forget", trained, "--users", "u1", "u1", "u1", "--out", tmp_path / "x")
    assert status == 0
    assert "2 repeated entries count once" in err
    assert Run.load(tmp_path / "x").forgotten.result.request.index == ("u1",)
    assert f"next: graphunlearn audit {tmp_path / 'x'}" in out


def write_pairs(path, *graphs):
    rows = itertools.chain(*(graph.to_frame()[["user", "item"]].astype(str).values.tolist()[:2] for graph in graphs))
    path.write_text("user,item\n" + "".join(f"{user},{item}\n" for user, item in rows))
    return path


def test_pairs_that_were_held_out_are_dropped(trained, tmp_path, call, refused):
    run = Run.load(trained)
    file = write_pairs(tmp_path / "pairs.csv", run.train, run.validation, run.test)
    status, _, err = call("forget", trained, "--pairs", file, "--out", tmp_path / "x", "--method", "unlink")
    assert status == 0
    assert "4 of the pairs were held out" in err
    after = Run.load(tmp_path / "x")
    for name in ("train", "validation", "test"):
        assert getattr(after, name).num_interactions == getattr(run, name).num_interactions - 2
    assert len(after.forgotten.result.request) == 2
    file = write_pairs(tmp_path / "held.csv", run.test)
    sentence = refused("forget", trained, "--pairs", file, "--out", tmp_path / "y")
    assert sentence.startswith("'--pairs' must hold an interaction that the model learned from (got 2, all of them")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "must be given with '--users', '--items', '--pairs', '--sessions' or '--clicks' (got none of them)"),
        (("--users",), "what to forget must be given"),
        (
            ("--users", "u1", "x1", "x2", "x3", "x4"),
            "'--users' must hold users of the graph (got 'x1', 'x2', 'x3' and 1 more; the graph has 50 users, such as",
        ),
        (("--items", "x1"), "'--items' must hold items of the graph (got 'x1'; the graph has 30 items"),
        (("--items", *(f"i{n}" for n in range(30))), "'--items' must leave some interactions (got all"),
        (("--pairs", "nothing.csv"), "'--pairs' must be an existing file (got 'nothing.csv')"),
        (("--users", "u1", "--method", "irfu"), "(got 'irfu'; did you mean 'ifru'?)"),
        (("--users", "u1", "--option", "dampin=1"), "(got 'dampin'; did you mean 'damping'?)"),
        (("--users", "u1", "--option", "damping"), "'--option' must be NAME=VALUE (got 'damping')"),
        (("--users", "u1", "--option", "damping=much"), "'--option damping' must be a number or none (got 'much')"),
        (("--users", "u1", "--option", "damping=-1"), "'damping' must not be negative"),
        (("--users", "u1", "--option", "max_iter=2.5"), "'--option max_iter' must be a whole number (got '2.5')"),
        (("--users", "u1", "--option", "spillover=1"), "'--option spillover' must be true or false (got '1')"),
        (("--users", "u1", "--option", "solver=lu"), "'--option solver' must be "),
        (("--users", "u1", "--option", "objective=x"), "'--option' must be an option of ifru"),
        (
            ("--users", "u1", "--method", "unlink", "--option", "x=1"),
            "must be left out, since unlink has none",
        ),
        (("--users", "u1", "--device", "abacus"), "'--device' must be a device of this machine"),
    ],
)
def test_bad_input(words, sentence, trained, tmp_path, refused):
    assert sentence in refused("forget", trained, *words, "--out", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def _not_of(folder, user):
    run = Run.load(folder)
    frames = [graph.to_frame() for graph in (run.train, run.validation, run.test)]
    known = {item for frame in frames for item in frame[frame["user"] == user]["item"]}
    return next(item for item in run.train.item_ids if item not in known)


def test_pairs_that_are_not_there(trained, tmp_path, refused):
    (tmp_path / "pairs.csv").write_text("user,item\nu1,i999\n")
    sentence = refused("forget", trained, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "x")
    assert "'--pairs' must hold items of the graph (got 'i999'" in sentence
    (tmp_path / "pairs.csv").write_text(f"user,item\nu1,{_not_of(trained, 'u1')}\n")
    sentence = refused("forget", trained, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "x")
    assert "'--pairs' must hold interactions of the graph (got ('u1'" in sentence
    (tmp_path / "one.csv").write_text("u1\nu2\n")
    assert "one column" in refused("forget", trained, "--pairs", tmp_path / "one.csv", "--out", tmp_path / "x")


def test_nan_in_the_parameters(trained, tmp_path, refused):
    run = Run.load(trained)
    with torch.no_grad():
        run.model.embedding.weight[2, 1] = torch.nan
    run.save(tmp_path / "a")
    sentence = refused("forget", tmp_path / "a", "--users", "u1", "--out", tmp_path / "x")
    assert sentence.startswith("'run' must be a whole run folder")
    assert "model.safetensors is broken: 1 of" in sentence
    assert "of 'embedding.weight' are not finite" in sentence


def test_a_method_that_cannot_serve_the_level(trained, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(gu.Unlink, "levels", ("interaction",))
    sentence = refused("forget", trained, "--users", "u1", "--method", "unlink", "--out", tmp_path / "x")
    assert sentence == "'request' must be of a level that unlink serves, interaction (got user)"


def test_ctrl_c_leaves_no_folder(trained, tmp_path, call, monkeypatch):
    def interrupted(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gu.Unlink, "_unlearn", interrupted)
    status, out, err = call("forget", trained, "--users", "u1", "--method", "unlink", "--out", tmp_path / "x")
    assert (status, out, err.splitlines()[-1]) == (130, "", "graphunlearn: interrupted")
    assert list(tmp_path.iterdir()) == []


def test_options_are_those_of_the_dataclass():
    options = ["damping=none", "spillover=FALSE", "curvature=hessian", "tol=1e-3", "max_steps=3"]
    method = build_method("ifru", gu.BCE(), options=options, seed=9)
    assert method == gu.IFRU(
        objective=gu.BCE(), damping=None, spillover=False, curvature="hessian", tol=1e-3, max_steps=3, seed=9
    )


def test_the_published_choices():
    method = build_method("ifru-published", gu.BCE(), options=["max_iter=7"])
    own, expected = options_of(method), options_of(gu.IFRU.as_published(gu.BCE(), max_iter=7))
    assert own == expected
    assert method.name == "ifru-published"
    assert gu.IFRU.name == "ifru"


def test_retraining_is_that_of_the_run():
    settings = FitSettings(lr=0.5, seed=3)
    method = build_method("retrain", gu.BCE(), settings=settings)
    assert (method.objective, method.settings) == (gu.BCE(), settings)
    assert build_method("retrain", gu.BCE(), settings=settings, seed=8).settings == FitSettings(lr=0.5, seed=8)


@pytest.mark.parametrize("name", ["ifru", "ifru-published", "finetune", "ascent", "unlink", "calibrate"])
def test_a_method_is_built_again_from_its_options(name):
    method = build_method(name, gu.BPR())
    assert rebuild_method(name, gu.BPR(), options_of(method)) == method


def test_rebuilding_knows_its_limits():
    assert rebuild_method("retrain", gu.BPR(), {}) == gu.Retrain(objective=gu.BPR())
    assert rebuild_method("of another package", gu.BPR(), {}) is None
    assert "ifru-published" in method_names()


WRECKING = ("--method", "ifru", "--option", "solver=adam", "solver_lr=1e9", "max_iter=3")


def test_a_bad_correction_is_refused_and_the_edges_are_deleted(trained, tmp_path, call, parsed):
    ledger = tmp_path / "ledger.db"
    words = ("forget", trained, "--users", "u1", *WRECKING, "--ledger", ledger, "--out", tmp_path / "x")
    status, out, err = call(*words)
    assert status == 0
    assert "not corrected: the edges are deleted, and no correction was better than that" in out
    assert "worse than deleting the edges: the mean loss of what remains is" in err
    run, after = Run.load(trained), Run.load(tmp_path / "x")
    deleted = gu.operators.UnlinkRedraw().unlearn(run.model, run.train, gu.ForgetRequest("user", ["u1"]))
    assert fingerprint(after.model) == fingerprint(deleted.model)
    assert not after.forgotten.result.accepted
    assert after.forgotten.result.log["acceptance"]["outcome"] == "unlink-redraw"
    assert parsed("ledger", "show", ledger)["entries"][0]["accepted"] is False
    told = parsed("audit", tmp_path / "x", "--retrain-seeds", "2", "--out", tmp_path / "report")
    (method,) = [m for m in told["methods"] if m["name"] == "ifru"]
    assert method["accepted"] is False
    assert method["acceptance"]["limit"] < method["acceptance"]["corrected"]["risk"]
    assert any(note.startswith("No correction by ifru was accepted") for note in told["notes"])


def test_a_bad_correction_can_be_kept_or_be_an_error(trained, tmp_path, call, refused):
    words = ("forget", trained, "--users", "u1", *WRECKING)
    sentence = refused(*words, "on_rejection=raise", "--out", tmp_path / "x")
    assert "worse than deleting the edges" in sentence
    assert not (tmp_path / "x").exists()
    status, out, _ = call(*words, "on_rejection=keep", "--out", tmp_path / "y")
    assert status == 0
    assert "it is kept, since on_rejection is keep" in out
    assert not Run.load(tmp_path / "y").forgotten.result.accepted


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_run_folders_are_for_their_owner_alone(trained, forgotten):
    for folder in (trained, forgotten):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
