"""What is left after ``graphunlearn erase``: the same model for those who stay, and no trace of the others."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import crashing
import pandas as pd
import pytest
import torch
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run

FILES = {f"{name}.safetensors" for name in ("model", "train", "validation", "test")} | {"run.json"}


def scores(run):
    """Every score by raw ids."""
    with torch.no_grad():
        encoded = gu.encode(run.model, run.train)
        table = encoded.queries @ encoded.items.t()
    queries = run.train.vocabulary(run.train.query).ids
    return {(q, i): float(table[a, b]) for a, q in enumerate(queries) for b, i in enumerate(run.train.item_ids)}


def events(graph):
    users, items = graph.user_ids, graph.item_ids
    return [(users[u], items[i]) for u, i in graph.pairs.t().tolist()]


# ---- users and items


def test_those_who_stay_are_served_as_before(forgotten, tmp_path, parsed):
    out, table = tmp_path / "clean", tmp_path / "rows.csv"
    told = parsed("erase", forgotten, "--out", out, "--id-map", table)
    before, after = Run.load(forgotten), Run.load(out)
    items = {i for i in before.train.item_ids if i not in {item for _, item in events(before.train)}}
    never = items - {item for _, item in events(before.forgotten.graph)} - {"i3"}
    assert (told["erased"], told["left_out"]) == ({"users": 2, "items": len(items - never)}, [])
    gone = {"u1", "u2", *items} - never
    assert set(after.train.user_ids) == set(before.train.user_ids) - gone
    assert set(after.train.item_ids) == set(before.train.item_ids) - gone
    assert events(after.train) == events(before.train)
    for name in ("validation", "test"):
        wanted = [pair for pair in events(getattr(before, name)) if not gone & set(pair)]
        assert events(getattr(after, name)) == wanted
        assert told["held_out"][name] == getattr(before, name).num_interactions - len(wanted)
    old, new = scores(before), scores(after)
    assert set(new) == {pair for pair in old if not gone & set(pair)}
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=1e-9) for pair, value in new.items())
    assert {path.name for path in out.iterdir()} == FILES
    assert crashing.files(forgotten).keys() > FILES  # RUN is as it was
    rows = pd.read_csv(table)
    for kind, graphs in {"user": "user_ids", "item": "item_ids"}.items():
        part = rows[rows["type"] == kind]
        ids = getattr(after.train, graphs)
        assert part["id"].tolist() == ids
        assert part["new_row"].tolist() == list(range(len(ids)))
        assert [getattr(before.train, graphs)[row] for row in part["old_row"]] == ids


def test_a_table_in_parquet_says_the_same(forgotten, tmp_path, parsed):
    for suffix in ("csv", "parquet"):
        parsed("erase", forgotten, "--out", tmp_path / suffix, "--id-map", tmp_path / f"rows.{suffix}")
    one, two = pd.read_csv(tmp_path / "rows.csv"), pd.read_parquet(tmp_path / "rows.parquet")
    assert one.to_dict() == two.to_dict()


def test_who_never_had_training_interactions_stays_and_is_told_of(trained, tmp_path, parsed, call):
    parsed("forget", trained, "--users", "u1", "--method", "unlink", "--out", tmp_path / "b")
    run = Run.load(tmp_path / "b")
    train = {name: getattr(run.forgotten.graph, name) for name in ("pairs", "rating", "time")}
    pairs = train.pop("pairs")
    names = {"user_ids": [*run.train.user_ids, "new"], "item_ids": run.train.item_ids}
    wider = gu.InteractionGraph.from_edges(pairs, run.train.num_users + 1, run.train.num_items, **names, **train)
    model = run.spec.build(wider)
    held = [
        gu.InteractionGraph.from_edges(part.pairs, wider.num_users, wider.num_items, **names)
        for part in (run.validation, run.test)
    ]
    new = Run(run.spec, model, wider, *held, objective=run.objective, settings=run.settings)
    new.save(tmp_path / "wide")
    parsed("forget", tmp_path / "wide", "--users", "u1", "--method", "unlink", "--out", tmp_path / "c")
    told = parsed("erase", tmp_path / "c", "--out", tmp_path / "d")
    assert (told["erased"]["users"], told["inactive"]["user"]) == (1, 1)
    assert "new" in Run.load(tmp_path / "d").train.user_ids
    status, text, _ = call("erase", tmp_path / "c", "--out", tmp_path / "e", "--inactive")
    assert status == 0
    assert text.startswith("erased 2 users and ")
    assert not {"new", "u1"} & set(Run.load(tmp_path / "e").train.user_ids)
    parsed("forget", tmp_path / "wide", "--users", "u2", "new", "--method", "unlink", "--out", tmp_path / "f")
    assert parsed("erase", tmp_path / "f", "--out", tmp_path / "g")["erased"]["users"] == 2  # named


def test_earlier_requests_of_the_series_are_erased_too(forgotten, tmp_path, parsed):
    parsed("forget", forgotten, "--users", "u5", "--method", "unlink", "--out", tmp_path / "c")
    assert parsed("erase", tmp_path / "c", "--out", tmp_path / "d")["erased"]["users"] == 3
    assert not {"u1", "u2", "u5"} & set(Run.load(tmp_path / "d").train.user_ids)


def test_folders_of_an_earlier_version_and_without_the_original_are_erased(forgotten, tmp_path, parsed):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    wanted = parsed("erase", copy, "--out", tmp_path / "one")["erased"]
    for path in copy.glob("original*.safetensors"):  # what may be deleted after the audit, but for the request
        path.unlink()
    assert parsed("erase", copy, "--out", tmp_path / "two")["erased"] == wanted
    copy = shutil.copytree(forgotten, tmp_path / "old")
    facts = json.loads((copy / "request.json").read_text())
    del facts["emptied"]
    (copy / "request.json").write_bytes(sealed_json(facts))
    assert parsed("erase", copy, "--out", tmp_path / "three")["erased"] == wanted


# ---- life goes on


def test_every_command_goes_on_from_there(forgotten, tmp_path, call, parsed, refused):
    out = tmp_path / "clean"
    parsed("erase", forgotten, "--out", out)
    assert call("evaluate", out)[0] == 0
    assert call("recommend", out, "--users", "u5", "--k", "3")[0] == 0
    refused("recommend", out, "--users", "u1")
    assert refused("audit", out) == (
        f"'run' must be a folder that 'forget' wrote, with the original still in it (got '{out}', from which 'erase' "
        "has removed the earlier model and data)"
    )
    told = parsed("forget", out, "--users", "u5", "--method", "unlink", "--out", tmp_path / "next")
    assert told["request"]["interactions"] > 0
    assert call("audit", tmp_path / "next", "--retrain-seeds", "2")[0] == 0
    parsed("erase", tmp_path / "next", "--out", tmp_path / "again")
    assert not {"u1", "u2", "u5"} & set(Run.load(tmp_path / "again").train.user_ids)


def test_a_preparation_is_left_out_and_made_again(trained, tmp_path, parsed, call, refused):
    copy, few = shutil.copytree(trained, tmp_path / "a"), ("--option", "probes=1", "requests=4", "epochs=2", "rounds=1")
    assert call("prepare", copy, *few)[0] == 0
    parsed("forget", copy, "--users", "u1", "--method", "unlearnrec", "--out", tmp_path / "b")
    status, text, _ = call("erase", tmp_path / "b", "--out", tmp_path / "c")
    assert status == 0
    assert "unlearnrec.safetensors is left out, because it was learned from the earlier data: " in text
    assert f"graphunlearn prepare {tmp_path / 'c'} --method unlearnrec" in text
    assert "hold a preparation" in refused(
        "forget", tmp_path / "c", "--users", "u5", "--method", "unlearnrec", "--out", tmp_path / "d"
    )
    assert call("prepare", tmp_path / "c", *few)[0] == 0
    parsed("forget", tmp_path / "c", "--users", "u5", "--method", "unlearnrec", "--out", tmp_path / "d")
    assert call("erase", tmp_path / "b", "--out", tmp_path / "c")[0] == 0  # it is there; what was added since stays
    assert (tmp_path / "c" / "unlearnrec.safetensors").exists()


def test_with_a_ledger_requests_and_drift_go_on(trained, tmp_path, parsed, call):
    file = tmp_path / "l.db"
    words = ("--method", "ifru", "--option", "damping=0.3", "--ledger", file)
    parsed("forget", trained, "--users", "u1", *words, "--out", tmp_path / "b")
    told = parsed("erase", tmp_path / "b", "--ledger", file, "--out", tmp_path / "clean")
    assert told["entry"] == 2
    parsed("forget", tmp_path / "clean", "--users", "u5", *words, "--out", tmp_path / "c")
    one, two, three = gu.Ledger(file).entries()
    assert (two.kind, two.erased["user"], two.out) == ("erased", 1, "clean")
    assert two.digest is two.request is None
    assert (three.drift["requests"], three.drift["scale"]) == (2, one.drift["scale"])
    assert three.drift["spent"] >= one.drift["spent"]
    assert len(parsed("ledger", "verify", file)["folders"]) == 3
    assert "erased: 1 user" in call("ledger", "show", file)[1]


def test_an_erased_run_is_entered_once(trained, tmp_path, parsed, refused):
    file = tmp_path / "l.db"
    words = ("--method", "unlink", "--ledger", file)
    parsed("forget", trained, "--users", "u1", *words, "--out", tmp_path / "b")
    parsed("erase", tmp_path / "b", "--out", tmp_path / "clean")
    wrote = crashing.files(tmp_path / "clean")
    for _ in range(2):
        assert parsed("erase", tmp_path / "b", "--ledger", file, "--out", tmp_path / "clean")["entry"] == 2
    assert crashing.files(tmp_path / "clean") == wrote
    parsed("forget", tmp_path / "clean", "--users", "u5", *words, "--out", tmp_path / "c")
    sentence = refused("erase", tmp_path / "b", "--ledger", file, "--out", tmp_path / "d")
    assert "must be the newest model of the ledger, that of entry 3" in sentence
    assert not (tmp_path / "d").exists()


# ---- sessions


def test_sessions_keep_their_logits(forgotten_sessions, tmp_path, parsed, call):
    out = tmp_path / "clean"
    told = parsed("erase", forgotten_sessions, "--out", out)
    before, after = Run.load(forgotten_sessions), Run.load(out)
    assert told["erased"]["items"] >= 1
    assert "i3" not in after.train.item_ids
    assert not {"s1", "s2"} & set(after.train.session_ids)
    old, new = scores(before), scores(after)
    assert set(new) == {pair for pair in old if pair[1] in after.train.item_ids}
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=1e-9) for pair, value in new.items())
    assert call("evaluate", out)[0] == 0
    parsed("forget", out, "--sessions", "s4", "--method", "unlink", "--out", tmp_path / "next")


def test_shards_go_on(trained_sessions, tmp_path, parsed, call):
    copy, few = shutil.copytree(trained_sessions, tmp_path / "a"), ("--option", "num_shards=2")
    assert call("prepare", copy, "--method", "sisa", *few)[0] == 0
    words = ("--method", "sisa", "--out")
    parsed("forget", copy, "--items", "i3", *words, tmp_path / "b")
    parsed("erase", tmp_path / "b", "--out", tmp_path / "clean")
    parsed("forget", tmp_path / "clean", "--sessions", "s4", *words, tmp_path / "c")
    assert "i3" not in Run.load(tmp_path / "c").train.item_ids


# ---- no trace


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A run of users without ratings, after forgetting one user, one item, and one interaction between others."""
    folder, graph = tmp_path_factory.mktemp("secret"), gu.datasets.synthetic_interactions(40, 25, 8, seed=5)
    rows = [(f"user-{u}", f"item-{i}") for u, i in graph.pairs.t().tolist()]
    rows = [(u.replace("user-7", "forgotten-user-7") if u == "user-7" else u, i) for u, i in rows]
    rows = [(u, "forgotten-item-3" if i == "item-3" else i) for u, i in rows]
    pd.DataFrame(rows, columns=["user", "item"]).to_csv(folder / "data.csv", index=False)
    assert main(["train", "--data", str(folder / "data.csv"), "--out", str(folder / "a"), *QUICK]) == 0
    train = Run.load(folder / "a").train
    often = train.degree[: train.num_users][train.pairs[0]] * train.degree[train.num_users :][train.pairs[1]]
    pair = events(train)[int(often.argmax())]
    (folder / "pair.csv").write_text("user,item\n{},{}\n".format(*pair))
    words = ["--users", "forgotten-user-7", "--items", "forgotten-item-3", "--pairs", str(folder / "pair.csv")]
    words += ["--method", "unlink", "--ledger", str(folder / "l.db")]
    assert main(["forget", str(folder / "a"), *words, "--out", str(folder / "b")]) == 0
    words = ["--out", str(folder / "clean"), "--ledger", str(folder / "l.db"), "--id-map", str(folder / "rows.csv")]
    assert main(["erase", str(folder / "b"), *words]) == 0
    return folder, pair


def test_no_file_holds_an_id_of_the_forgotten(secret):
    folder, _ = secret
    names = [b"forgotten-user-7", b"forgotten-item-3"]
    for name in names:
        assert any(name in data for data in crashing.files(folder / "b").values())
        for place in (*(folder / "clean").iterdir(), folder / "rows.csv", folder / "l.db"):
            assert name not in place.read_bytes(), place


def test_no_file_holds_a_row_of_the_forgotten(secret):
    folder, _ = secret
    run = Run.load(folder / "b")
    user, item = run.train.user_ids.index("forgotten-user-7"), run.train.item_ids.index("forgotten-item-3")
    for model in (run.model, run.forgotten.original):
        for row in (user, run.train.num_users + item):
            content = model.embedding.weight[row].detach().numpy().tobytes()
            assert any(content in data for data in crashing.files(folder / "b").values())
            assert not any(content in data for data in crashing.files(folder / "clean").values())


def hashes(folder):
    """Everything in a folder that looks like a hash, but for the one of a file's own content in every file."""
    found = set()
    for content in crashing.files(folder).values():
        text, own = re.subn(r'"sha256": ?"[0-9a-f]{64}"', "", content.decode("latin-1"))
        assert own == 1
        found |= set(re.findall(r"[0-9a-f]{64}", text))
    return found


def guesses(folder, run, more):
    """The pairs whose addition to the training graph gives a hash that the folder holds."""
    known, graph = hashes(folder), run.train
    held = set(events(graph))
    names = {"user_ids": graph.user_ids, "item_ids": graph.item_ids}
    found, tried = [], 0
    for u, user in enumerate(graph.user_ids):
        for i, item in enumerate(graph.item_ids):
            if (user, item) not in held:
                pairs = torch.cat([graph.pairs, more, torch.tensor([[u], [i]])], 1)
                guess = gu.InteractionGraph.from_edges(pairs, graph.num_users, graph.num_items, **names)
                found += [(user, item)] if guess.fingerprint() in known else []
                tried += 1
    assert tried > 500
    return found


def test_no_guess_of_the_pair_is_confirmed(secret, tmp_path):
    """The original's hash gives the pair away where the original is left in the folder, and nothing does afterwards."""
    folder, pair = secret
    run = Run.load(folder / "b")
    users, items = run.train.user_ids, run.train.item_ids
    rest = [
        [users.index(u), items.index(i)] for u, i in set(events(run.forgotten.graph)) - set(events(run.train)) - {pair}
    ]
    assert guesses(folder / "b", run, torch.tensor(rest).t()) == [pair]
    after = Run.load(folder / "clean")
    assert guesses(folder / "clean", after, torch.zeros(2, 0, dtype=torch.long)) == []
    parts = [getattr(after, name) for name in ("train", "validation", "test")]
    assert hashes(folder / "clean") == {fingerprint(after.model), *(part.fingerprint() for part in parts)}


def test_nobody_is_the_only_one_without_interactions(secret):
    folder, _ = secret
    before, after = Run.load(folder / "b"), Run.load(folder / "clean")
    idle = {
        name: [users for users, degree in zip(run.train.user_ids, run.train.degree.tolist()) if not degree]
        for name, run in (("before", before), ("after", after))
    }
    assert idle == {"before": ["forgotten-user-7"], "after": []}


def test_what_training_told_of_the_forgotten_data_is_left_out(secret):
    """A training run with a guess added gives the same figures as the original, which confirms the guess."""
    folder, _ = secret
    before, after = (json.loads((folder / name / "run.json").read_text()) for name in ("b", "clean"))
    assert before["about"]["fit"].keys() >= {"epochs", "best_epoch"}
    assert after["about"] == {"dataset": "data", "split": [0.8, 0.1, 0.1], "threshold": None, "erased": True}
    assert after.keys() == before.keys()


@pytest.mark.parametrize("by", ["loo", "time", "random"])
def test_splits_by_time_fit_whatever_was_forgotten(by):
    """Adding any guess to what is left, at any time of training, gives the same split; at random, most guesses do not.

    The parts are what a run folder holds after a training interaction was forgotten and erased.
    """
    shares, generator = [0.8, 0.1, 0.1], torch.Generator().manual_seed(0)
    graph = gu.datasets.synthetic_interactions(12, 10, 6, seed=2)
    train, *held = graph.split_by(by, shares, seed=3)
    gone = int(torch.randint(train.num_interactions, (), generator=generator))
    parts = [train.keep(torch.arange(train.num_interactions) != gone), *held]
    pairs, time = (torch.cat([getattr(part, name) for part in parts], -1) for name in ("pairs", "time"))
    users, times = (torch.cat([getattr(part, name) for part in held], -1) for name in ("pairs", "time"))
    first = [int(times[users[0] == user].min()) if by == "loo" else int(times.min()) for user in range(12)]
    absent = [(u, i) for u in range(12) for i in range(10) if [u, i] not in pairs.t().tolist()]
    fits, wanted = [], [sorted(part.pairs.t().tolist()) for part in held]
    for user, item in absent:
        early = train.time[train.time < first[user]]
        when = early[torch.randint(len(early), (1,), generator=generator)]
        both = torch.cat([pairs, torch.tensor([[user], [item]])], 1), torch.cat([time, when])
        order = both[1].argsort(stable=True)  # the file is sorted by time
        guess = gu.InteractionGraph.from_edges(both[0][:, order], 12, 10, time=both[1][order])
        again = guess.split_by(by, shares, seed=3)
        fits.append([sorted(part.pairs.t().tolist()) for part in again[1:]] == wanted)
    assert all(fits) if by != "random" else sum(fits) <= len(fits) / 4
    assert len(fits) > 40


# ---- what is refused


def test_bad_input_is_refused(trained, forgotten, tmp_path, refused, parsed):
    out = tmp_path / "c"
    sentence = refused("erase", trained, "--out", out)
    assert sentence.startswith("'run' must be one that 'forget' wrote, with its request (got ")
    assert "--inactive" in sentence
    assert "be another folder than the run" in refused("erase", forgotten, "--out", forgotten)
    assert "'--id-map' must end with .csv or .parquet" in refused("erase", forgotten, "--out", out, "--id-map", "x.txt")
    within = refused("erase", forgotten, "--out", out, "--id-map", forgotten / "x.csv")
    assert within.startswith("'--id-map' must be outside of run folders")
    nowhere = refused("erase", forgotten, "--out", out, "--id-map", tmp_path / "no" / "x.csv")
    assert nowhere.startswith("'--id-map' must be in an existing folder")
    assert "'--ledger' must be an existing file" in refused("erase", forgotten, "--out", out, "--ledger", "none.db")
    assert not out.exists()
    shutil.copytree(trained, out)
    assert refused("erase", forgotten, "--out", out).startswith("'--out' must be a new folder")
    parsed("erase", forgotten, "--out", out, "--overwrite")
    (tmp_path / "rows.csv").write_text("mine")
    words = ("--out", tmp_path / "d", "--id-map", tmp_path / "rows.csv")
    assert refused("erase", forgotten, *words).startswith("'--id-map' must be a new file")
    assert (tmp_path / "rows.csv").read_text() == "mine"


# ---- interruptions


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=repr)
def test_a_failure_at_every_write_leaves_the_earlier_folders(forgotten, tmp_path, call, monkeypatch, error):
    source, out = shutil.copytree(forgotten, tmp_path / "b"), tmp_path / "clean"
    assert call("erase", source, "--out", out)[0] == 0
    new = (out / "run.json").read_bytes()
    (out / "report.json").write_text("{}")  # an earlier run, to be replaced
    (out / "run.json").write_text((out / "run.json").read_text().replace("true", "false"))
    kept, failed = {name: crashing.files(tmp_path / name) for name in ("b", "clean")}, 0
    for target, name in ((os, "fsync"), (Path, "write_bytes"), (Path, "rename"), (Path, "mkdir")):
        real = getattr(target, name)
        for at in range(50):
            left = [at]

            def fails(*args, real=real, left=left, **given):
                left[0] -= 1
                if left[0] == -1:
                    raise error
                return real(*args, **given)

            with monkeypatch.context() as patch:
                patch.setattr(target, name, fails)
                status = call("erase", source, "--out", out, "--overwrite")[0]
            if status == 0:
                break
            failed += 1
            left = {path.name: crashing.files(path) for path in tmp_path.iterdir()}
            if name == "fsync" and left["clean"]["run.json"] == new:  # interrupted when all was done
                Run.load(out)
                left["clean"] = kept["clean"]
            assert left == kept, (name, at)
        assert status == 0
        shutil.rmtree(out)
        for file, data in kept["clean"].items():
            out.mkdir(exist_ok=True)
            (out / file).write_bytes(data)
    assert failed > 10


def test_killed_at_every_write(trained, shim, tmp_path, call, monkeypatch):
    stage = tmp_path / "stage"
    stage.mkdir()
    monkeypatch.setenv("GRAPHUNLEARN_KEYS", str(stage / "keys"))
    words = ("--method", "unlink", "--ledger", stage / "l.db", "--out", stage / "b")
    assert call("forget", trained, "--users", "u1", *words)[0] == 0
    given = ["b", "--ledger", "l.db", "--id-map", "rows.csv", "--out", "clean"]
    share = [(str(stage), given, "b", "clean", 2, 1, 0, "erase", ["rows.csv"])]
    run = subprocess.run(
        [sys.executable, crashing.__file__, json.dumps(share)],
        env=os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (told,) = json.loads(run.stdout)
    assert told["kills"] > told["calls"] > 20
    assert told["seen"] == ["new", "old"]
