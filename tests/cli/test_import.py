"""A model of the user's own on the command line: imported, unlearned, audited, served and exported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from user_project import facts_of, make_project, make_sessions, words_of, write_csv, write_module

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.jobs.job import utc_now
from graphunlearn.runs import Run, code

BUILD = ("--model", "own_towers:build", "--encode", "own_towers:encode", "--objective", "bpr")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a user's module, data and weights; not to be changed."""
    folder = tmp_path_factory.mktemp("project")
    return folder, make_project(folder, "own_towers")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    return folder, make_sessions(folder, "own_sessions")


@pytest.fixture(autouse=True)
def at_home(project, sessions, monkeypatch):
    """Modules are found in these folders, and nothing is trusted from an earlier test."""
    monkeypatch.syspath_prepend(str(project[0]))
    monkeypatch.syspath_prepend(str(sessions[0]))
    monkeypatch.setattr(code, "_trusted", set())
    monkeypatch.delenv(code.TRUST, raising=False)


@pytest.fixture(scope="module")
def imported(project, tmp_path_factory):
    """A run folder of the imported model; not to be changed."""
    from graphunlearn.cli import main

    out = tmp_path_factory.mktemp("runs") / "a"
    sys.path.insert(0, str(project[0]))
    try:
        assert main(["import", *BUILD, *words_of(project[1]), "--out", str(out)]) == 0
    finally:
        sys.path.remove(str(project[0]))
    return out


def graphunlearn(folder, *words, trust=None):
    """Run a command as a user does, in a folder of their own."""
    environment = {**os.environ, "GRAPHUNLEARN_CACHE": str(folder / "cache")}
    environment |= {} if trust is None else {code.TRUST: trust}
    environment["PYTHONPATH"] = str(Path(gu.__file__).parents[1])
    script = [
        sys.executable,
        "-c",
        "import sys; from graphunlearn.cli import main; sys.path.remove(''); sys.exit(main())",
    ]
    return subprocess.run(
        [*script, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_user_imports_forgets_audits_recommends_and_exports(tmp_path, monkeypatch, call):
    files = {name: path.name for name, path in make_project(tmp_path, "towers").items()}
    words = ["--model", "towers:build", "--encode", "towers:encode", "--retrain", "towers:train", "--objective", "bpr"]
    done = graphunlearn(tmp_path, "import", *words, *words_of(files), "--objective-option", "negatives=1", "--out", "a")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported towers:build: 41 users, 25 items, 320 interactions\nloss BPR: ")
    after = done.stdout.splitlines()[-1]
    assert after.startswith("next: GRAPHUNLEARN_TRUST_CODE=towers graphunlearn forget a --users u")
    refused = graphunlearn(tmp_path, "forget", "a", "--users", "u3", "--out", "b")
    assert refused.returncode == 2
    assert "if you trust it, set GRAPHUNLEARN_TRUST_CODE=towers" in refused.stderr
    ledger = ("--ledger", "ledger.db")
    done = graphunlearn(tmp_path, "forget", "a", "--users", "u3", "u4", "--out", "b", *ledger, trust="towers")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)  # the rest in this process, which is faster
    monkeypatch.setenv(code.TRUST, "towers")
    for command in (
        ["ledger", "verify", "ledger.db"],
        ["audit", "b", "--retrain-seeds", "2", *ledger],
        ["recommend", "b", "--users", "u7", "--k", "3", "--out", "lists.csv"],
        ["evaluate", "b"],
        ["export", "b", "--out", "model"],
    ):
        status, _, err = call(*command)
        assert status == 0, err
    assert (tmp_path / "lists.csv").read_text().count("u7,") == 3
    exported = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (exported["architectures"], exported["module"]) == (["TwoTower"], "towers")
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert "Models were retrained by towers:train, the training of the original." in report["notes"]
    assert {method["name"] for method in report["methods"]} >= {"original", "retrain", "ifru"}
    status, _, err = call("recommend", "b", "--users", "u3")
    assert status == 2
    assert "forgotten" in err


def test_rows_belong_to_the_ids_of_the_files(project, imported):
    folder, files = project
    code.trust("own_towers")
    run = Run.load(imported)
    assert run.train.user_ids == [f"u{n}" for n in reversed(range(40))] + ["u-new"]
    assert run.train.item_ids[-1] == "i-new"
    assert run.train.degree[40] == run.train.degree[-1] == 0  # ids without interactions keep their rows
    weights = load_file(files["weights"])
    assert all(torch.equal(value, weights[name]) for name, value in run.model.state_dict().items())
    towers = write_module(folder, "own_towers")
    model = towers.TwoTower(41, 25)
    model.load_state_dict(weights)
    rows = [line.split(",") for line in files["data"].read_text().split()[1:]]
    users = torch.tensor([39 - int(user[1:]) for user, _ in rows])
    items = torch.tensor([int(item[1:]) for _, item in rows])
    for own, expected in zip(gu.encode(run.model, run.train), model(users, items)):
        torch.testing.assert_close(own, expected)


def test_the_folder_names_the_code_and_holds_no_other_sizes(imported):
    facts = facts_of(imported)
    names = {"build": "own_towers:build", "encode": "own_towers:encode", "retrain": None}
    own = {**names, "arguments": {}, "kind": "interactions"}
    assert facts["model"] == {"name": "own_towers:build", "dim": None, "layers": None, "code": own}
    assert facts["about"]["imported"]["weights"] == "towers.safetensors"
    assert facts["about"]["imported"]["loss"]["verdict"] in ("near stationary", "undecided")


def test_a_class_gets_sizes_by_name_and_options_as_json(project, tmp_path, parsed):
    words = ("--model", "own_towers:TwoTower", "--encode", "own_towers:encode", "--objective", "sampled-bce")
    told = parsed("import", *words, *words_of(project[1]), "--model-option", "dim=8", "--out", tmp_path / "a")
    assert told["model"]["code"]["arguments"] == {"dim": 8}
    assert told["trust"] == ["own_towers"]
    assert told["loss"]["verdict"] in ("near stationary", "undecided", "far from stationary")
    assert set(told["test"]) == {"recall@20", "ndcg@20", "mrr@20"}


def test_weights_of_torch_save_are_read_as_tensors_alone(project, tmp_path, parsed, refused, imported):
    folder, files = project
    changed = {"weights": folder / "towers.pt"}
    parsed("import", *BUILD, *words_of(files, **changed), "--out", tmp_path / "a")
    assert facts_of(tmp_path / "a")["fingerprints"] == facts_of(imported)["fingerprints"]
    torch.save({"epoch": 3, "state_dict": torch.load(folder / "towers.pt", weights_only=True)}, tmp_path / "nested.pth")
    parsed("import", *BUILD, *words_of(files, weights=tmp_path / "nested.pth"), "--out", tmp_path / "b")
    assert facts_of(tmp_path / "b")["fingerprints"] == facts_of(imported)["fingerprints"]
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    sentence = refused("import", *BUILD, *words_of(files, weights=tmp_path / "model.pt"), "--out", tmp_path / "c")
    assert sentence.startswith("'--weights' must hold tensors alone")


def test_retraining_without_a_training_of_its_own_uses_this_package(project, imported, tmp_path, parsed, monkeypatch):
    monkeypatch.setenv(code.TRUST, "own_towers")
    parsed("forget", imported, "--users", "u3", "--method", "retrain", "--out", tmp_path / "b")
    run = Run.load(tmp_path / "b")
    log = run.forgotten.result.log
    assert log["epochs"] == run.settings.epochs  # there are no validation data
    told = parsed("audit", tmp_path / "b", "--retrain-seeds", 3)
    assert any(note.startswith("The original was trained by another program") for note in told["notes"])


def test_own_training_retrains_by_seed_on_what_remains(project, tmp_path, parsed, monkeypatch):
    monkeypatch.setenv(code.TRUST, "own_towers")
    parsed("import", *BUILD, "--retrain", "own_towers:train", *words_of(project[1]), "--out", tmp_path / "a")
    words = ("--users", "u3", "--method", "retrain", "--seed", 4)
    parsed("forget", tmp_path / "a", *words, "--out", tmp_path / "b")
    run = Run.load(tmp_path / "b")
    import own_towers

    expected = own_towers.train(run.train, 4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in run.model.state_dict().items())


def test_the_split_of_the_training_is_made_again(project, tmp_path, parsed):
    parsed("import", *BUILD, *words_of(project[1], test=None), "--split", 0.5, 0.25, 0.25, "--out", tmp_path / "a")
    code.trust("own_towers")
    run = Run.load(tmp_path / "a")
    graph = gu.InteractionGraph.from_file(project[1]["data"], like=run.train)
    parts = graph.random_split([0.5, 0.25, 0.25], seed=0)
    assert [part.num_interactions for part in parts] == [160, 80, 80]
    assert [part.fingerprint() for part in parts] == [g.fingerprint() for g in (run.train, run.validation, run.test)]


def test_without_held_out_data_everything_but_measuring_works(project, tmp_path, parsed, refused, call, monkeypatch):
    status, _, err = call("import", *BUILD, *words_of(project[1], test=None), "--out", tmp_path / "a")
    assert status == 0
    assert "there is no test part to measure on" in err
    monkeypatch.setenv(code.TRUST, "own_towers")
    parsed("forget", tmp_path / "a", "--users", "u3", "--out", tmp_path / "b")
    assert refused("evaluate", tmp_path / "a") == "'run' must have a test part with interactions to measure (got none)"


def test_validation_data_come_from_a_file(project, tmp_path, parsed):
    parsed("import", *BUILD, *words_of(project[1], validation=project[1]["test"], test=None), "--out", tmp_path / "a")
    code.trust("own_towers")
    run = Run.load(tmp_path / "a")
    assert (run.validation.num_interactions, run.test.num_interactions) == (40, 0)


def test_a_model_by_name_needs_no_code(project, tmp_path, parsed, monkeypatch):
    _, files = project
    graph = torch.empty(66, 4)
    torch.nn.init.normal_(graph, generator=torch.Generator().manual_seed(0))
    save_file({"embedding.weight": graph, "alpha": torch.full((3,), 1 / 3)}, tmp_path / "w.safetensors")
    words = ("--model", "lightgcn", "--model-option", "dim=4", "layers=2", "--objective", "bpr")
    told = parsed("import", *words, *words_of(files, weights=tmp_path / "w.safetensors"), "--out", tmp_path / "a")
    assert told["model"] == {"name": "lightgcn", "dim": 4, "layers": 2}
    assert told["trust"] == []
    run = Run.load(tmp_path / "a")
    assert torch.equal(run.model.embedding.weight, graph)


def test_ids_that_are_row_numbers_need_no_files(tmp_path, parsed, refused):
    write_csv(tmp_path / "d.csv", ("user", "item"), [(2, 0), (0, 3), (1, 1), (2, 3)])
    save_file({"embedding.weight": torch.arange(14.0).view(7, 2)}, tmp_path / "w.safetensors")
    words = ("--model", "mf", "--model-option", "dim=2", "--objective", "bpr", "--data", tmp_path / "d.csv")
    words += ("--weights", tmp_path / "w.safetensors")
    parsed("import", *words, "--out", tmp_path / "a")
    run = Run.load(tmp_path / "a")
    assert (run.train.user_ids, run.train.item_ids) == (["0", "1", "2"], ["0", "1", "2", "3"])
    write_csv(tmp_path / "d.csv", ("user", "item"), [("b", 0), ("a", 3), ("c", 1), ("b", 3)])
    sentence = refused("import", *words, "--out", tmp_path / "b")
    assert sentence == (
        "'--ids-users' must name the file of users in the order of the rows (got none, and ids that are no row "
        "numbers, such as 'b' and 2 more); '--rows appearance' takes the order in which ids appear in '--data'"
    )
    told = refused("import", *words, "--rows", "appearance", "--out", tmp_path / "b")
    assert "3 users and 3 items" in told  # three items appear, and the table has rows for four
    (tmp_path / "items.txt").write_text("0\n1\n2\n3\n")
    parsed("import", *words, "--rows", "appearance", "--ids-items", tmp_path / "items.txt", "--out", tmp_path / "b")
    run = Run.load(tmp_path / "b")
    assert (run.train.user_ids, run.train.item_ids) == (["b", "a", "c"], ["0", "1", "2", "3"])


def test_a_module_may_register_its_encoding(project, tmp_path, parsed, refused):
    folder, files = project
    text = (folder / "own_towers.py").read_text()
    words = ("--objective", "bpr", *words_of(files))
    (folder / "own_bare.py").write_text(text)
    sentence = refused("import", "--model", "own_bare:build", *words, "--out", tmp_path / "a")
    assert sentence.startswith("'--encode' must name the encoding of the model (got none for TwoTower)")
    registered = "import graphunlearn as gu\n\ngu.encode.register(TwoTower, encode)\n"
    (folder / "own_registered.py").write_text(f"{text}\n\n{registered}")
    parsed("import", "--model", "own_registered:build", *words, "--out", tmp_path / "a")
    assert facts_of(tmp_path / "a")["model"]["code"]["encode"] is None


def test_another_loss_is_told(tmp_path, call):
    graph = gu.datasets.synthetic_interactions(num_users=100, num_items=60, interactions_per_user=12)
    torch.manual_seed(0)
    model = gu.nn.MatrixFactorization(graph.num_nodes, 16)
    gu.fit(model, graph, objective=gu.BPR(), epochs=120)
    graph.to_frame().to_csv(tmp_path / "d.csv", index=False)
    for side in ("user", "item"):
        (tmp_path / f"{side}s.txt").write_text("\n".join(graph.vocabulary(side).ids))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    words = ["--model", "mf", "--model-option", "dim=16", "--data", tmp_path / "d.csv", "--out", tmp_path / "a"]
    words += ["--weights", tmp_path / "w.safetensors", "--ids-users", tmp_path / "users.txt"]
    words += ["--ids-items", tmp_path / "items.txt", "--objective"]
    status, out, err = call("import", *words, "sampled-bce", "--objective-option", "negatives=4")
    assert status == 0
    assert "loss SampledBCE(negatives=4): far from stationary" in out
    told = err.partition("the model was plainly trained with another loss; losses that fit: ")[2]
    assert "BPR (" in told
    status, out, err = call("forget", tmp_path / "a", "--users", "u3", "--method", "ifru", "--out", tmp_path / "b")
    assert status == 0
    assert "not corrected: the edges are deleted; the model was trained with another loss" in out
    assert err.count("the model does not look trained with SampledBCE(negatives=4)") == 1
    assert not Run.load(tmp_path / "b").forgotten.result.accepted
    status, out, err = call("import", *words, "bpr", "--overwrite")
    assert "near stationary" in out
    assert "another loss" not in err


def test_a_model_of_sessions(sessions, tmp_path, parsed, monkeypatch, refused):
    _, files = sessions
    words = ["--model", "own_sessions:SessionGRU", "--kind", "sessions", "--encode", "own_sessions:encode_sessions"]
    told = parsed("import", *words, *words_of(files), "--out", tmp_path / "a")
    assert told["model"]["code"]["kind"] == "sessions"
    assert told["test"]["recall@20"] == 1.0  # of 13 items
    assert told["test"]["mrr@20"] > 0.8
    monkeypatch.setenv(code.TRUST, "own_sessions")
    parsed("forget", tmp_path / "a", "--sessions", "s1", "s2", "--method", "finetune", "--out", tmp_path / "b")
    told = parsed("recommend", tmp_path / "b", "--sessions", "s7", "--k", 3)
    assert len(told["lists"][0]["items"]) == 3
    parsed("audit", tmp_path / "b", "--retrain-seeds", 2)
    parsed("export", tmp_path / "b", "--out", tmp_path / "model")
    parsed("prepare", tmp_path / "a", "--method", "sisa", "--option", "num_shards=2")
    parsed("forget", tmp_path / "a", "--sessions", "s1", "--method", "sisa", "--out", tmp_path / "c")
    assert Run.load(tmp_path / "c").model is not None
    sentence = refused("import", *words, *words_of(files), "--objective", "bpr", "--out", tmp_path / "d")
    assert sentence == "'--objective' must be cross-entropy for sessions (got bpr)"


def test_a_folder_from_somebody_else_runs_no_code(imported, tmp_path, refused, monkeypatch):
    copy = shutil.copytree(imported, tmp_path / "a")
    facts = facts_of(copy)
    for name, trusted, expected in (
        ("os:system", "own_towers", "must name code of modules that you trust (got os:system)"),
        ("own_towers:torch.hub.load", "own_towers", "must name a function or a class of own_towers itself"),
        ("own_towers:nn.Linear", "own_towers", "must name a function or a class of own_towers itself"),
        ("own_towers:__builtins__", "own_towers", "must be of the form module:name"),
        ("own_towers:build()", "own_towers", "must be of the form module:name"),
        ("own_towers", "own_towers", "must be of the form module:name"),
        ("../own_towers:build", "own_towers", "must be of the form module:name"),
    ):
        facts["model"]["code"]["build"] = name
        (copy / "run.json").write_bytes(sealed_json(facts))
        monkeypatch.setenv(code.TRUST, trusted)
        sentence = refused("forget", copy, "--users", "u3", "--out", tmp_path / "b")
        assert sentence.startswith("'run' ")
        assert expected in sentence, sentence


def test_a_module_that_ends_the_program_gives_a_sentence(project, tmp_path, refused, monkeypatch):
    (tmp_path / "own_script.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "own_exit.py").write_text("def build(num_users, num_items):\n    raise SystemExit('no table')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [*words_of(project[1]), "--objective", "bpr", "--out", tmp_path / "a"]
    assert "which raised SystemExit: 3" in refused("import", "--model", "own_script:build", *words)
    assert "which raised SystemExit: no table" in refused("import", "--model", "own_exit:build", *words)
    assert not (tmp_path / "a").exists()


def test_what_a_module_prints_is_not_in_the_json(project, tmp_path, call, monkeypatch):
    (tmp_path / "own_noise.py").write_text(
        "from own_towers import encode\n\ndef build(graph):\n    import own_towers\n    print('building')\n"
        "    return own_towers.build(graph)\n\ndef rows(model, graph):\n    return encode(model, graph)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--model", "own_noise:build", "--encode", "own_towers:encode", "--objective", "bpr"]
    status, out, err = call("import", *words, *words_of(project[1]), "--out", tmp_path / "a", "--json")
    assert (status, json.loads(out)["trust"]) == (0, ["own_noise", "own_towers"])
    assert "building" in err


def test_ids_in_another_order_than_the_rows_are_told(project, tmp_path, call):
    from graphunlearn.data.io.files import read_ids

    ids = read_ids(project[1]["ids-users"], "user")
    rows = reversed(list(enumerate(ids)))
    (tmp_path / "users.csv").write_text("row,user\n" + "".join(f"{n},{name}\n" for n, name in rows))
    words = [*BUILD, *words_of(project[1], ids_users=tmp_path / "users.csv"), "--out", tmp_path / "a"]
    status, _, err = call("import", *words)
    assert status == 0
    assert "a column was not used ('row')" in err


def test_weights_whose_scores_overflow_are_refused(project, tmp_path, refused):
    weights = load_file(project[1]["weights"])
    weights["user.weight"], weights["item.weight"] = 1e25 * weights["user.weight"], 1e25 * weights["item.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    words = words_of(project[1], weights=tmp_path / "w.safetensors")
    told = refused("import", *BUILD, *words, "--out", tmp_path / "a")
    assert told.startswith("'--weights' must give finite scores (got norms of embeddings up to ")
    assert not (tmp_path / "a").exists()


def test_options_that_no_run_may_have_are_refused(project, tmp_path, refused):
    words = [*words_of(project[1]), "--out", tmp_path / "a"]
    told = refused("import", *BUILD, "--objective-option", "negatives=1000000000", *words)
    assert told == "'--objective-option negatives' must be a number from 0 to 65,536 (got 1000000000)"
    told = refused("import", *BUILD, "--model-option", f"dim={'[' * 3000}", *words)
    assert "which raised TypeError" in told


def test_a_model_that_fits_no_loss_is_told(project, tmp_path, call):
    weights = load_file(project[1]["weights"])
    torch.manual_seed(0)
    weights["user.weight"] = weights["user.weight"][torch.randperm(len(weights["user.weight"]))]
    save_file(weights, tmp_path / "w.safetensors")
    status, out, err = call(
        "import", *BUILD, *words_of(project[1], weights=tmp_path / "w.safetensors"), "--out", tmp_path / "a"
    )
    assert status == 0
    assert ("far from stationary" in out) == ("check them, and the order of the ids of its rows" in err)
    assert "far from stationary" in out


def test_sessions_without_validation_are_told_what_they_lack(sessions, tmp_path, call, monkeypatch):
    words = ["--model", "own_sessions:SessionGRU", "--kind", "sessions", "--encode", "own_sessions:encode_sessions"]
    changed = {"validation": None, "split": None}
    status, _, err = call("import", *words, *words_of(sessions[1], **changed), "--out", tmp_path / "a")
    assert status == 0
    assert "there are no validation sessions, which 'cau' needs: '--validation' or '--split' gives some" in err
    monkeypatch.setenv(code.TRUST, "own_sessions")
    status, _, err = call("forget", tmp_path / "a", "--sessions", "s1", "--out", tmp_path / "b")
    assert status == 2
    assert "'--validation' or '--split'; other methods need none" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--model", "no_such:build"],
            "'--model' must name a module that can be imported (got no_such:build, and there",
        ),
        (["--model", "own_towers:biuld"], "and own_towers has no 'biuld'); did you mean 'build'?"),
        (["--model", "own_towers:number"], "'--model' must name a function or a class (got own_towers:number, a int)"),
        (["--model", "own_towers:broken"], "(got own_towers:broken, which raised KeyError: 'no such table')"),
        (
            ["--model", "own_towers:no_model"],
            "must build a torch.nn.Module (got own_towers:no_model, which returns a dict",
        ),
        (["--model", "own_towers.build"], "'--model' must be MODULE:NAME, or one of lightgcn"),
        (["--model", "ligthgcn"], "did you mean 'lightgcn'?"),
        (
            ["--model-option", "width=3"],
            "'--model-option' must be arguments of the model (got 'width', and own_towers:",
        ),
        (["--model-option", "dim"], "'--model-option' must be NAME=VALUE (got 'dim')"),
        (["--model-option", 'dim="wide"'], "which raised"),
        (["--model-option", "dim=9"], "'scale' of shape [8] in the file and [9] in the model"),
        (["--encode", "own_towers:wide"], "'--encode' must give embeddings of one width (got own_towers:wide, with 8"),
        (
            ["--encode", "own_towers:short"],
            "must return 41 user embeddings for this graph (got a tensor of shape [40, 8]",
        ),
        (["--encode", "own_towers:single"], "'--encode' must give two tables of embeddings (got own_towers:single"),
        (["--encode", "own_towers:three_words"], "'--encode' must give two tables of embeddings"),
        (["--encode", "own_towers:detached"], "'--encode' must give embeddings that are differentiable"),
        (["--encode", "own_towers:infinite"], "with NaN or infinity in 41 of 41 user embeddings"),
        (["--encode", "own_towers:failing"], "which raised AttributeError"),
        (["--objective", "hinge"], "'--objective' must be one of "),
        (["--objective", "cross-entropy"], "'--objective' must be a loss of interactions (got cross-entropy)"),
        (["--objective-option", "negative=3"], "did you mean 'negatives'?"),
        (["--objective-option", "negatives=0"], "'--objective-option negatives' must"),
        (
            ["--objective-option", "negatives=many"],
            "'--objective-option negatives' must be a whole number (got 'many')",
        ),
        (["--trust-pickle"], "'--trust-pickle' must go with --recbole (got it without)"),
        (
            ["--validation", "x.csv", "--split", "0.8", "0.1", "0.1"],
            "'--validation' must be left out where the data are",
        ),
        (["--threshold", "3"], "'--threshold' must go with data that have ratings"),
        (["--collapse-repeats"], "'--collapse-repeats' must go with sessions (got it with interactions)"),
    ],
)
def test_bad_options_are_one_sentence(project, tmp_path, refused, words, expected):
    fresh = f"own_{abs(hash(tuple(words)))}"  # a class keeps the encoding that it was registered with
    (project[0] / f"{fresh}.py").write_text((project[0] / "own_towers.py").read_text())
    own = [word.replace("own_towers", fresh) for word in [*BUILD, *words]]
    sentence = refused("import", *words_of(project[1]), *own, "--out", tmp_path / "a")
    assert expected.replace("own_towers", fresh) in sentence, sentence
    assert not (tmp_path / "a").exists()


def changed_weights(files, path, change):
    weights = load_file(files["weights"])
    change(weights)
    save_file(weights, path)
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda w: w.update({"user.weight": w["user.weight"][1:].clone()}),
            "'user.weight' of shape [40, 8] in the file",
        ),
        (
            lambda w: w.pop("scale"),
            "fit the model that own_towers:build makes for 41 users and 25 items (got no 'scale', wh",
        ),
        (lambda w: w.update(extra=torch.ones(2)), "(got 'extra', which the model lacks)"),
        (
            lambda w: w["scale"].__setitem__(0, torch.nan),
            "'--weights' must be finite (got NaN or infinity in 1 of the 8",
        ),
        (
            lambda w: w.update(scale=w["scale"].half()),
            "'--weights' must have single or double precision (got float16 in",
        ),
        (lambda w: w.update(scale=w["scale"].double()), "'scale' of type float64 in the file and float32 in the model"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(project, tmp_path, refused, change, expected):
    path = changed_weights(project[1], tmp_path / "w.safetensors", change)
    sentence = refused("import", *BUILD, *words_of(project[1], weights=path), "--out", tmp_path / "a")
    assert sentence.startswith("'--weights' must ")
    assert expected in sentence, sentence


def test_wrong_files_are_one_sentence(project, tmp_path, refused):
    _, files = project
    (tmp_path / "few.txt").write_text("\n".join(f"u{n}" for n in range(38)))
    sentence = refused("import", *BUILD, *words_of(files, ids_users=tmp_path / "few.txt"), "--out", tmp_path / "a")
    assert sentence.startswith(
        "'--ids-users' must give every user of '--data' a row (got 38 rows and 2 of 40 users of '--data' without one: "
    )
    (tmp_path / "twice.txt").write_text("\n".join([*(f"u{n}" for n in range(40)), "u3", "u5"]))
    sentence = refused("import", *BUILD, *words_of(files, ids_users=tmp_path / "twice.txt"), "--out", tmp_path / "a")
    assert sentence == (
        "'--ids-users' must hold every id once (got 2 rows of 42 with an id that is there before: 'u3', 'u5')"
    )
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    for change, option in (
        ({"weights": tmp_path / "w.safetensors"}, "--weights"),
        ({"weights": tmp_path / "none.safetensors"}, "--weights"),
        ({"weights": None}, "--weights"),
        ({"data": None}, "--data"),
        ({"data": tmp_path / "none.csv"}, "--data"),
        ({"ids_items": tmp_path / "none.txt"}, "--ids-items"),
    ):
        sentence = refused("import", *BUILD, *words_of(files, **change), "--out", tmp_path / "a")
        assert option in sentence or "none.txt" in sentence, sentence


def test_a_model_that_keeps_interactions_is_refused(project, tmp_path, refused, parsed):
    _, files = project
    for build, encoding, expected in (
        ("keeping", "encode_kept", "'--encode' must give the embeddings of the graph that it is given"),
        ("storing", "encode", "no 'pairs', which is"),
    ):
        words = ("--model", f"own_towers:{build}", "--encode", f"own_towers:{encoding}", "--objective", "bpr")
        assert expected in refused("import", *words, *words_of(files), "--out", tmp_path / "a")


def test_a_bench_takes_the_model_and_the_data_of_the_run(imported, project, tmp_path, parsed, refused, monkeypatch):
    monkeypatch.setenv(code.TRUST, "own_towers")
    quick = ("--retrain-seeds", 2, "--methods", "unlink")
    told = parsed("bench", "users", "--run", imported, "--share", 0.1, *quick, "--out", tmp_path / "a")
    run = Run.load(imported)
    request = gu.eval.removal(run.train, "user", share=0.1, test=run.test, fractions=(1, 0, 0)).request
    assert told["request"]["size"] == len(request)
    assert told["dataset"]["train"] == run.train.num_interactions
    assert told["model"]["name"] == "own_towers:build"
    assert told["notes"][0].startswith("The original was trained by another program")
    result = gu.Unlink().unlearn(run.model, run.train, request)
    quality = gu.metrics.Ranker(result.graph, run.test.without(request), (20,))(*gu.encode(run.model, result.graph)[:2])
    found = next(method for method in told["methods"] if method["name"] == "unlink")
    assert found["utility"]["recall@20"] == pytest.approx(quality["recall@20"], rel=1e-6)
    for words, expected in (
        (("shilling",), "'--run' must go with random-edges, users"),
        (("users", "--data", "x.csv"), "'--data' must be left out with --run, which has its own (got x.csv)"),
        (("users", "--epochs", 3), "'--epochs' must be left out with --run"),
        (("users", "--original-seeds", 2), "'--original-seeds' must be 1 with --run"),
        (("sessions",), "the scenario must be"),
        (("users", "--methods", "cau"), "'--methods' must be one for models of users and items such as own_towers"),
    ):
        assert expected in refused("bench", *words, "--run", imported, "--out", tmp_path / "b")
    assert refused("bench", "users", "--out", tmp_path / "b").startswith("'--data' must name a file or a data set")


def test_a_request_file_is_benched_on_a_run_of_this_package(trained_sessions, tmp_path, parsed):
    (tmp_path / "f.csv").write_text("s1\ns2\n")
    words = ("--request", tmp_path / "f.csv", "--level", "session", "--methods", "unlink", "--retrain-seeds", 2)
    told = parsed("bench", "file", "--run", trained_sessions, *words, "--out", tmp_path / "a")
    assert told["request"]["size"] == 2
    assert not any("another program" in note for note in told["notes"])
    told = parsed("bench", "session-clicks", "--run", trained_sessions, *words[4:], "--out", tmp_path / "b")
    assert told["dataset"]["train_clicks"] == Run.load(trained_sessions).train.num_clicks


def test_jobs_and_new_data_go_on_from_an_imported_run(project, imported, tmp_path, parsed, monkeypatch):
    monkeypatch.setenv(code.TRUST, "own_towers")
    live, ledger = shutil.copytree(imported, tmp_path / "live"), tmp_path / "l.db"
    (tmp_path / "ids.txt").write_text("u3\nu5\n")
    write_csv(tmp_path / "more.csv", ["user", "item"], [(name, f"i{k}") for name in ("u3", "new") for k in range(6)])
    due = ("--ids", tmp_path / "ids.txt", "--due", utc_now().date().isoformat(), "--ledger", ledger)
    parsed("job", "submit", *due, "--run", live)
    assert parsed("job", "run", "--ledger", ledger)["jobs"][0]["numDeleted"] == 2
    words = ("--epochs", "2", "--ledger", ledger)
    told = parsed("extend", live, "--data", tmp_path / "more.csv", *words, "--out", tmp_path / "b")
    assert told["added"]["users"] == 2
    parsed("job", "submit", *due, "--run", tmp_path / "b")
    (job,) = parsed("job", "run", "--ledger", ledger)["jobs"]
    assert (job["numDeleted"], job["returned"], job["alreadyDeleted"]) == (1, 1, 1)
    assert parsed("ledger", "verify", ledger)["entries"] == 5
    users = Run.load(tmp_path / "b").train.user_ids
    assert "new" in users
    assert not {"u3", "u5"} & set(users)
