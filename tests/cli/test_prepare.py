"""Prepare, and forget with what was prepared: on disk, again and again, and with everything that can go wrong."""

import errno
import json
import shutil
from dataclasses import replace

import pytest
import torch
from quick import QUICK
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.cli._methods import build_method, method_names, options_of, preparable
from graphunlearn.cli.prepare import file_of
from graphunlearn.data.io.sealed import sealed_tensors
from graphunlearn.nn import FitSettings
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import PublishedSettings, registry
from graphunlearn.operators.shared.preparation import Preparation
from graphunlearn.operators.unlearnrec import method as redesign
from graphunlearn.operators.unlearnrec import published as described
from graphunlearn.runs.folder import WRITTEN
from graphunlearn.runs.run import Run

NAMES = ("unlearnrec", "unlearnrec-published")
SMALL = ("--option", "requests=4")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Pre-training of a few steps."""
    learn, pretrain = redesign.learn_influence, described.pretrain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            redesign,
            "learn_influence",
            lambda *args, **keywords: learn(*args[:-1], replace(args[-1], steps=60), **keywords),
        )
        patch.setattr(
            described,
            "pretrain",
            lambda *args, **keywords: pretrain(*args[:-1], replace(args[-1], epochs=3), **keywords),
        )
        yield


@pytest.fixture(scope="module")
def ready(trained, tmp_path_factory):
    """A run folder with both preparations; not to be changed."""
    out = shutil.copytree(trained, tmp_path_factory.mktemp("prepared") / "a")
    assert main(["prepare", str(out), "--method", NAMES[0], *SMALL, "share=0.2", "--seed", "3"]) == 0
    assert main(["prepare", str(out), "--method", NAMES[1]]) == 0
    return out


@pytest.fixture
def own(ready, tmp_path):
    """A prepared run folder to change."""
    return shutil.copytree(ready, tmp_path / "own")


def tensors(folder, name=NAMES[0]):
    return load_file(folder / file_of(name))


def kept(folder, name=NAMES[0]):
    return Preparation.load(folder / file_of(name), registry[name].keeps)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def forget(call, source, out, user="u1", *words, method=NAMES[0]):
    status, _, err = call("forget", source, "--users", user, "--method", method, "--out", out, *words)
    assert status == 0, err
    return Run.load(out)


def test_the_file_holds_what_was_asked_for(ready):
    found = kept(ready)
    run = Run.load(ready)
    method = gu.UnlearnRec(requests=4, share=0.2, seed=3)
    assert found.log["options"] == options_of(method)
    assert found.objection(fingerprint(run.model), run.train.fingerprint()) is None
    assert (found.kind, kept(ready, NAMES[1]).kind) == ("probe", "published")
    assert found.seconds > 0
    assert {path.name for path in ready.iterdir()} <= WRITTEN


def test_is_the_method_on_the_run(ready):
    run = Run.load(ready)
    given = {"objective": run.objective, "validation": run.validation, "settings": run.settings}
    method = gu.UnlearnRec(**given, requests=4, share=0.2, seed=3)
    method.prepare(run.model, run.train)
    assert same(tensors(ready), dict(method.preparation.module.state_dict()))
    published = gu.UnlearnRec.as_published(run.objective)
    published.prepare(run.model, run.train)
    assert same(tensors(ready, NAMES[1]), dict(published.preparation.module.state_dict()))


@pytest.mark.parametrize("name", NAMES)
def test_forgets_with_the_options_it_was_prepared_with(name, ready, tmp_path, parsed):
    run, words = Run.load(ready), ("--users", "u1", "--method", name, "--out", tmp_path / "x")
    told = parsed("forget", ready, *words)
    method = build_method(name, run.objective, options=["requests=4", "share=0.2"] if name == NAMES[0] else [])
    method = replace(method, seed=3 if name == NAMES[0] else 0).load(ready / file_of(name))
    result = method.unlearn(run.model, run.train, gu.ForgetRequest("user", ["u1"]))
    after = Run.load(tmp_path / "x")
    assert fingerprint(after.model) == fingerprint(result.model)
    assert told["options"] == options_of(method) == after.forgotten.options
    assert told["prepare_seconds"] == method.preparation.seconds == after.forgotten.result.prepare_seconds
    assert after.forgotten.result.method == name
    other = next(other for other in NAMES if other != name)
    assert not (tmp_path / "x" / file_of(other)).exists()  # it was not prepared for this model


def test_what_can_be_told_anew_with_every_request(ready, tmp_path, call, parsed):
    words = ("--users", "u1", "--method", "unlearnrec", "--option", "epochs=1", "rounds=1", "share=0.2", "--seed", 8)
    told = parsed("forget", ready, *words, "--out", tmp_path / "x")
    assert {name: told["options"][name] for name in ("epochs", "rounds", "seed")} == {
        "epochs": 1,
        "rounds": 1,
        "seed": 8,
    }
    assert len(told["log"]["tuning"]) == 1
    found = kept(tmp_path / "x").log["options"]
    assert found == kept(ready).log["options"]
    assert set(gu.UnlearnRec.anew) <= set(found)


def test_one_preparation_serves_one_request_after_another(own, tmp_path, call):
    source, before = own, (own / "unlearnrec.safetensors").read_bytes()
    for number in range(4, 9):
        out = tmp_path / f"t{number}"
        run = forget(call, source, out, f"u{number}")
        found = kept(out)
        assert (found.model, found.graph, found.served) == (fingerprint(run.model), run.train.fingerprint(), set())
        assert same(tensors(own), tensors(out))
        assert run.forgotten.result.prepare_seconds == found.seconds
        source = out
    left = set(run.train.to_frame()["user"].astype(str))
    assert not left & {f"u{number}" for number in range(4, 9)}
    assert (own / "unlearnrec.safetensors").read_bytes() == before
    forget(call, source, source, "u20", "--overwrite")  # onto itself
    forget(call, source, tmp_path / "last", "u21")


def test_prepared_again_where_requests_have_led_to(ready, tmp_path, call, refused):
    forget(call, ready, tmp_path / "x")
    sentence = refused("prepare", tmp_path / "x")
    assert sentence == (
        f"'run' must be without a preparation (got '{tmp_path / 'x' / 'unlearnrec.safetensors'}'); "
        "'--overwrite' replaces it"
    )
    assert call("prepare", tmp_path / "x", "--overwrite", *SMALL)[0] == 0
    assert not same(tensors(tmp_path / "x"), tensors(ready))
    forget(call, tmp_path / "x", tmp_path / "y", "u2")


def test_audit_knows_what_the_preparation_took(ready, tmp_path, call, parsed):
    forget(call, ready, tmp_path / "x")
    report = parsed("audit", tmp_path / "x", "--retrain-seeds", 2)
    seconds = kept(ready).seconds
    assert {m["name"]: m["prepare_seconds"] for m in report["methods"]}["unlearnrec"] == seconds
    forget(call, tmp_path / "x", tmp_path / "x", "u2", "--overwrite")
    assert not (tmp_path / "x" / "report.json").exists()


@pytest.mark.parametrize("model", ["mf", "sgl", "simgcl", "ngcf"])
def test_every_backbone(model, ratings, tmp_path, call):
    out = tmp_path / "a"
    assert call("train", "--data", ratings, "--model", model, "--out", out, *QUICK)[0] == 0
    for name in NAMES:
        words = SMALL if name == NAMES[0] else ()
        status, _, err = call("prepare", out, "--method", name, *words)
        assert status == 0, err
        run = forget(call, out, tmp_path / name, method=name)
        assert not (run.train.to_frame()["user"] == "u1").any()


def test_says_what_it_did(run_copy, call, parsed):
    status, out, err = call("prepare", run_copy, *SMALL)
    assert status == 0
    assert out.startswith("prepared unlearnrec in ")
    assert f"wrote {run_copy / 'unlearnrec.safetensors'}\n" in out
    assert f"next: graphunlearn forget {run_copy} --users" in out
    run = Run.load(run_copy)
    assert f"preparing unlearnrec for lightgcn on {run.train.num_interactions} interactions" in err
    told = parsed("prepare", run_copy, "--method", "unlearnrec-published", "--seed", 4)
    assert (told["method"], told["file"]) == ("unlearnrec-published", "unlearnrec-published.safetensors")
    assert told["options"]["seed"] == 4
    assert told["seconds"] > 0
    assert len(told["log"]["pretraining"]) == 4  # before any training, and three epochs


def test_seeds(ready, run_copy, call):
    for seed, expected in ((3, True), (4, False)):
        assert call("prepare", run_copy, *SMALL, "share=0.2", "--seed", seed, "--overwrite")[0] == 0
        assert same(tensors(ready), tensors(run_copy)) is expected


def interrupt_at(epoch, monkeypatch, error, times=1):
    """Let training fail at the start of an epoch, the ``times``-th time that one is reached."""
    draw, left = gu.BPR.samples, [times]

    def draw_or_fail(self, graph, **keywords):
        if keywords.get("epoch") == epoch:
            left[0] -= 1
            if not left[0]:
                raise error
        return draw(self, graph, **keywords)

    monkeypatch.setattr(gu.BPR, "samples", draw_or_fail)


@pytest.mark.parametrize(
    ("name", "options", "times"),
    [
        ("unlearnrec", ("probes=1",), 1),
        ("unlearnrec", ("probes=2",), 2),  # in the second probe
        ("unlearnrec-published", (), 1),
    ],
)
def test_an_interrupted_preparation_goes_on(name, options, times, trained, run_copy, tmp_path, call, monkeypatch):
    words = ("--method", name, "--option", *options, *(SMALL[1:] if options else ("epochs=5",)))
    whole = shutil.copytree(trained, tmp_path / "whole")
    assert call("prepare", whole, *words)[0] == 0
    interrupt_at(2, monkeypatch, KeyboardInterrupt(), times)
    status, out, err = call("prepare", run_copy, *words)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "graphunlearn: interrupted: the same command continues from there"
    assert not (run_copy / file_of(name)).exists()
    kept = [path.name for path in tmp_path.iterdir() if path.name.startswith(".copy.")]
    assert len(kept) == times
    monkeypatch.undo()
    status, out, err = call("prepare", run_copy, *words)
    assert status == 0
    assert "continuing an interrupted preparation" in err
    assert same(tensors(run_copy, name), tensors(whole, name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "whole"]


def test_interrupted_before_there_was_anything_to_keep(run_copy, tmp_path, call, monkeypatch):
    monkeypatch.setattr(gu.UnlearnRec, "_prepare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    status, _, err = call("prepare", run_copy)
    assert (status, err.splitlines()[-1]) == (130, "graphunlearn: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_an_interrupted_preparation_is_not_mistaken_for_another(run_copy, tmp_path, call, monkeypatch):
    def left():
        return sorted(path.name.split(".")[3] for path in tmp_path.iterdir() if path.name.startswith(".copy."))

    neighbour = tmp_path / ".copy.b.01234567.unlearnrec.0.safetensors"  # of a folder that is called copy.b
    neighbour.write_bytes(b"")
    interrupt_at(2, monkeypatch, KeyboardInterrupt())
    assert call("prepare", run_copy, *SMALL)[0] == 130
    monkeypatch.undo()
    interrupt_at(2, monkeypatch, KeyboardInterrupt())
    assert call("prepare", run_copy, "--method", "unlearnrec-published")[0] == 130
    monkeypatch.undo()
    assert left() == ["01234567", "unlearnrec", "unlearnrec-published"]
    status, _, err = call("prepare", run_copy, *SMALL, "--seed", 7)
    assert status == 0
    assert "going on" not in err
    assert left() == ["01234567", "unlearnrec-published"]
    assert neighbour.exists()


def test_a_loss_that_blows_up_leaves_nothing(run_copy, tmp_path, refused, monkeypatch):
    interrupt_at(2, monkeypatch, FloatingPointError("the training loss became nan"))
    assert refused("prepare", run_copy, *SMALL) == "the training loss became nan"
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert not (run_copy / "unlearnrec.safetensors").exists()


def test_a_full_disk_keeps_the_earlier_preparation(own, tmp_path, refused, monkeypatch):
    before = (own / "unlearnrec.safetensors").read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("graphunlearn.operators.shared.preparation.write_atomic", full)
    assert "No space left on device" in refused("prepare", own, "--overwrite", *SMALL)
    assert (own / "unlearnrec.safetensors").read_bytes() == before
    words = ("--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "x")
    assert refused("forget", own, *words) == f"'{tmp_path / 'x'}' could not be written: No space left on device"
    assert not (tmp_path / "x").exists()


def test_a_new_model_has_no_old_preparation(own, ratings, tmp_path, call, refused):
    assert call("train", "--data", ratings, "--out", own, "--overwrite", "--seed", 1, *QUICK)[0] == 0
    sentence = refused("forget", own, "--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "x")
    assert sentence == (
        "'run' must hold a preparation for unlearnrec "
        f"(got none); prepare it first: graphunlearn prepare {own} --method unlearnrec"
    )


def test_a_method_without_preparation_leaves_none(ready, tmp_path, call):
    forget(call, ready, tmp_path / "x", method="unlink")
    assert not {path.name for path in (tmp_path / "x").iterdir()} & {file_of(name) for name in NAMES}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--method", "ifru"),
            "'--method' must be one with a preparation, receraser, sisa, sru, ultrare, unlearnrec or "
            "unlearnrec-published "
            "(got 'ifru', which has none to save)",
        ),
        (("--method", "calibrate"), "(got 'calibrate', which has none to save)"),
        (("--method", "unlearnrek"), "(got 'unlearnrek'; did you mean 'unlearnrec'?)"),
        (("--option", "probe=2"), "'--option' must be an option of unlearnrec, "),
        (("--option", "probe=2"), "(got 'probe'; did you mean 'probes'?)"),
        (("--option", "share=0.9"), "'share' must be above 0 and at most 0.5 (got 0.9)"),
        (("--option", "share=some"), "'--option share' must be a number (got 'some')"),
        (("--device", "abacus"), "'--device' must be a device of this machine"),
    ],
)
def test_bad_options(words, sentence, run_copy, tmp_path, refused):
    before = sorted(path.name for path in run_copy.iterdir())
    assert sentence in refused("prepare", run_copy, *words)
    assert sorted(path.name for path in run_copy.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_folders_that_cannot_be_prepared(run_copy, tmp_path, refused, monkeypatch):
    assert "which is no folder" in refused("prepare", tmp_path / "nowhere")
    assert "without a run.json" in refused("prepare", tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert refused("prepare", run_copy) == f"'run' must be a folder that can be written to (got '{run_copy}')"


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "share=0.1",
            "'--option share' must be 0.2, as the method was prepared with (got 0.1); to change it: graphunlearn "
            "prepare {run} --method unlearnrec --option share=0.1 --overwrite",
        ),
        ("context=false", "'--option context' must be true, as the method was prepared with (got false); "),
        ("epochs=-1", "'epochs' must not be negative (got -1)"),
        ("epoch=1", "did you mean 'epochs'?"),
    ],
)
def test_options_that_belong_to_the_preparation(option, sentence, ready, tmp_path, refused):
    words = ("--users", "u1", "--method", "unlearnrec", "--option", option, "--out", tmp_path / "x")
    assert sentence.format(run=ready) in refused("forget", ready, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_preparation_for_another_model(name, ready, ratings, tmp_path, call, refused):
    other = tmp_path / "other"
    assert call("train", "--data", ratings, "--out", other, *QUICK, "--lr", 0.5)[0] == 0
    shutil.copy(ready / file_of(name), other)
    words = ("--users", "u1", "--method", name, "--out", tmp_path / "x")
    assert refused("forget", other, *words) == (
        f"'run' must hold a preparation for its own model (got '{other / file_of(name)}', for another); prepare it "
        f"again: graphunlearn prepare {other} --method {name} --overwrite; or use it all the same with "
        "--option adapt=true"
    )
    assert not (tmp_path / "x").exists()
    forget(call, other, tmp_path / "x", "u1", "--option", "adapt=true", method=name)
    forget(call, tmp_path / "x", tmp_path / "y", "u2", method=name)  # from where it was used, it goes on


def test_a_preparation_for_another_graph(ready, tmp_path, refused):
    run = Run.load(ready)
    run.train = run.train.select(torch.arange(run.train.num_interactions) > 0)
    run.save(tmp_path / "a")
    shutil.copy(ready / "unlearnrec.safetensors", tmp_path / "a")
    words = ("--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "x")
    assert "'run' must hold a preparation for its own graph (got '" in refused("forget", tmp_path / "a", *words)


def facts(path, **changes):
    """Write other facts into a preparation; ``None`` takes one out."""
    with safe_open(str(path), framework="pt") as file:
        known = json.loads(file.metadata()["graphunlearn"])
    known = {key: value for key, value in (known | changes).items() if value is not None}
    path.write_bytes(sealed_tensors(load_file(path), {"graphunlearn": json.dumps(known)}))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.write_bytes(b""), "must be a preparation (got '"),
        (lambda path: path.write_bytes(b"\0\1" * 50), "must be a preparation (got '"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "must be a preparation (got '"),
        (lambda path: save_file({"x": torch.zeros(1)}, path), "which is none"),
        (lambda path: facts(path, format=99), "of format 99"),
        (lambda path: facts(path, log={}), "it lacks 'options'"),
        (lambda path: facts(path, encoder=None), "it lacks 'encoder'"),
        (lambda path: facts(path, encoder={"hidden": 3, "context": True}), "size mismatch"),
        (lambda path: facts(path, encoder={"width": 3}), "width"),
        (lambda path: facts(path, colour="red"), "colour"),
        (lambda path: facts(path, log={"options": {"share": 7}}), "'share' must be above 0"),
        (lambda path: facts(path, log={"options": [1]}), ""),
        (lambda path: (path.unlink(), path.mkdir()), ""),
    ],
)
def test_a_broken_preparation_is_one_sentence(harm, reason, own, tmp_path, refused):
    path = own / "unlearnrec.safetensors"
    harm(path)
    sentence = refused("forget", own, "--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "x")
    assert sentence.startswith(f"'run' must hold a whole preparation (got '{path}': ")
    assert reason in sentence
    assert sentence.endswith(f"; prepare it again: graphunlearn prepare {own} --method unlearnrec --overwrite")
    assert not (tmp_path / "x").exists()


def test_a_preparation_of_the_other_kind(own, tmp_path, refused):
    shutil.copy(own / "unlearnrec-published.safetensors", own / "unlearnrec.safetensors")
    facts(own / "unlearnrec.safetensors", log={"options": {}})
    sentence = refused("forget", own, "--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "x")
    assert "must hold a preparation of kind 'probe' (got 'published')" in sentence


def test_a_request_larger_than_any_simulated_one_is_told(ready, tmp_path, call):
    users = [f"u{number}" for number in range(30)]
    words = ("--users", *users, "--method", "unlearnrec", "--out", tmp_path / "x")
    status, _, err = call("forget", ready, *words)
    assert status == 0
    assert "note: the request takes " in err


def test_the_methods_that_can_be_prepared():
    assert preparable() == ["receraser", "sisa", "sru", "ultrare", *NAMES]
    assert {file_of(name) for name in preparable()} <= WRITTEN
    assert {"calibrate", *NAMES} <= set(method_names())
    assert gu.UnlearnRec.name == "unlearnrec"


def test_the_published_choices():
    method, expected = build_method("unlearnrec-published", gu.BCE()), gu.UnlearnRec.as_published(gu.BCE())
    assert method.name == "unlearnrec-published"
    assert options_of(method) == options_of(expected)
    assert (method.published, method.epochs) == (expected.published, expected.epochs) == (PublishedSettings(), 5)


def test_probes_are_trained_like_the_original():
    graph = gu.datasets.synthetic_interactions(num_users=9, num_items=9, interactions_per_user=3)
    method = build_method("unlearnrec", gu.BCE(), validation=graph, settings=FitSettings(lr=0.5), seed=4)
    assert method.validation is graph
    assert (method.objective, method.settings.lr, method.seed) == (gu.BCE(), 0.5, 4)
