"""What is left after ``graphunlearn erase``: the same model for those who stay, and no trace of the others."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import crashing
import pandas as pd
import pytest
import torch

import graphunlearn as gu
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


def number(text):
    """The number in an id such as u12."""
    return int(text[1:])


def in_order(pairs):
    """Pairs by user and item, as an erased folder has them."""
    return sorted(pairs, key=lambda pair: (number(pair[0]), number(pair[1])))


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
    assert events(after.train) == in_order(events(before.train))  # the order of the file is gone
    assert after.train.user_ids == sorted(after.train.user_ids, key=number)
    for name in ("validation", "test"):
        wanted = [pair for pair in events(getattr(before, name)) if not gone & set(pair)]
        assert events(getattr(after, name)) == in_order(wanted)
        assert told["held_out"][name] == getattr(before, name).num_interactions - len(wanted)
    old, new = scores(before), scores(after)
    assert set(new) == {pair for pair in old if not gone & set(pair)}
    close = 1e-6 * max(map(abs, old.values()))  # sums over neighbours are in another order, in single precision
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=close) for pair, value in new.items())
    before_rows, after_rows = before.model.embedding.weight, after.model.embedding.weight
    nodes = [before.train.user_ids.index(user) for user in after.train.user_ids]
    nodes += [before.train.num_users + before.train.item_ids.index(item) for item in after.train.item_ids]
    assert torch.equal(after_rows, before_rows[nodes])
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
    assert (told["erased"]["users"], told["inactive"]["users"]) == (1, 1)
    assert "new" in Run.load(tmp_path / "d").train.user_ids
    status, text, _ = call("erase", tmp_path / "c", "--out", tmp_path / "e", "--inactive")
    assert status == 0
    assert text.startswith("erased 2 users and ")
    assert not {"new", "u1"} & set(Run.load(tmp_path / "e").train.user_ids)
    parsed("forget", tmp_path / "wide", "--users", "u2", "new", "--method", "unlink", "--out", tmp_path / "f")
    assert parsed("erase", tmp_path / "f", "--out", tmp_path / "g")["erased"]["users"] == 2  # named


def test_who_is_named_by_a_held_out_pair_and_has_no_other_goes(trained, tmp_path, parsed):
    """The pair is dropped from the held-out data; of its user and item, only the ids would be left."""
    run = Run.load(trained)
    names = {"user_ids": [*run.train.user_ids, "solo"], "item_ids": [*run.train.item_ids, "rare", "never"]}
    edges = {name: getattr(run, name).pairs for name in ("train", "validation", "test")}
    users, items = run.train.num_users, run.train.num_items
    edges["test"] = torch.cat([edges["test"], torch.tensor([[users], [items]])], 1)
    sizes = users + 1, items + 2
    graphs = {name: gu.InteractionGraph.from_edges(part, *sizes, **names) for name, part in edges.items()}
    model = run.spec.build(graphs["train"])
    Run(run.spec, model, **graphs, objective=run.objective, settings=run.settings).save(tmp_path / "wide")
    user, item = events(run.train)[0]
    (tmp_path / "p.csv").write_text(f"user,item\nsolo,rare\n{user},{item}\n")
    words = ("--pairs", tmp_path / "p.csv", "--method", "unlink", "--out")
    parsed("forget", tmp_path / "wide", *words, tmp_path / "b")
    parsed("erase", tmp_path / "b", "--out", tmp_path / "c")
    after = Run.load(tmp_path / "c").train
    assert "solo" not in after.user_ids
    assert "rare" not in after.item_ids
    assert {user} <= set(after.user_ids)
    assert {item, "never"} <= set(after.item_ids)


def test_a_series_whose_request_was_deleted_asks_for_inactive(forgotten, tmp_path, parsed, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    for path in (*copy.glob("original*.safetensors"), copy / "request.json"):
        path.unlink()
    parsed("forget", copy, "--users", "u5", "--method", "unlink", "--out", tmp_path / "c")
    sentence = refused("erase", tmp_path / "c", "--out", tmp_path / "d")
    assert sentence.startswith("'run' must tell whom all requests of its series have emptied")
    assert "--inactive" in sentence
    parsed("erase", tmp_path / "c", "--out", tmp_path / "d", "--inactive")
    assert not {"u1", "u2", "u5"} & set(Run.load(tmp_path / "d").train.user_ids)


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
    (copy / "request.json").write_bytes(sealed_json({name: value for name, value in facts.items() if name != "sha256"}))
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


def test_an_erased_run_that_is_not_entered_asks_for_erase(trained, tmp_path, parsed, refused):
    words = ("--method", "unlink", "--ledger", tmp_path / "l.db", "--out")
    parsed("forget", trained, "--users", "u1", *words, tmp_path / "b")
    parsed("erase", tmp_path / "b", "--out", tmp_path / "clean")
    sentence = refused("forget", tmp_path / "clean", "--users", "u5", *words, tmp_path / "c")
    assert "if 'erase' wrote this run, the same 'erase' with '--ledger' enters it" in sentence
    assert "older model" not in sentence
    parsed("erase", tmp_path / "b", "--ledger", tmp_path / "l.db", "--out", tmp_path / "clean")
    parsed("forget", tmp_path / "clean", "--users", "u5", *words, tmp_path / "c")


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
    other = refused("erase", forgotten, "--out", out, "--id-map", trained / "x.csv")
    assert other.startswith("'--id-map' must be outside of run folders")
    (tmp_path / "folder.csv").mkdir()
    folder = refused("erase", forgotten, "--out", out, "--id-map", tmp_path / "folder.csv")
    assert folder.startswith("'--id-map' must be a file (got ")
    inside = refused("erase", forgotten, "--out", forgotten / "x")
    assert inside.startswith("'--out' must be another folder than the run (got ")
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


def test_a_refused_call_deletes_nothing_and_others_delete_what_is_theirs(trained, forgotten, tmp_path, refused, parsed):
    out, table = shutil.copytree(trained, tmp_path / "s"), tmp_path / "m.csv"
    own, left = tmp_path / ".s.personal.new", tmp_path / ".s.0123abcd.new"
    note, part = tmp_path / ".m.csv.my.part", tmp_path / ".m.csv.77.part"
    for folder in (own, left):
        folder.mkdir()
    for file in (note, part):
        file.write_text("mine")
    assert refused("erase", forgotten, "--out", out, "--id-map", table).startswith("'--out' must be a new folder")
    assert all(path.exists() for path in (own, left, note, part))
    parsed("erase", forgotten, "--out", out, "--id-map", table, "--overwrite")
    assert [path.exists() for path in (own, left, note, part)] == [True, False, True, False]


def test_the_table_is_replaced_after_the_folder(forgotten, tmp_path, parsed, call, monkeypatch):
    out, table = tmp_path / "s", tmp_path / "m.csv"
    parsed("erase", forgotten, "--out", out, "--id-map", table)
    parsed("forget", out, "--users", "u5", "--method", "unlink", "--out", tmp_path / "c")
    kept, words = table.read_bytes(), ("erase", tmp_path / "c", "--out", out, "--id-map", table, "--overwrite")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        assert call(*words)[0] != 0
    assert table.read_bytes() == kept
    parsed(*words)
    assert pd.read_csv(table).query("type == 'user'")["id"].tolist() == Run.load(out).train.user_ids


def test_a_clean_folder_of_equal_graphs_and_another_model_is_not_taken_for_it(forgotten, tmp_path, parsed, refused):
    """Nor is one that holds the original beside an equal model, or one that tells other things."""
    out = tmp_path / "clean"
    parsed("erase", forgotten, "--out", out)
    for change in ("model", "about", "forgotten"):
        run = Run.load(out)
        if change == "model":
            with torch.no_grad():
                run.model.embedding.weight.add_(1.0)
        elif change == "about":
            run.about = {}
        else:
            run.forgotten = Run.load(forgotten).forgotten
        other = tmp_path / change
        run.save(other)
        assert refused("erase", forgotten, "--out", other).startswith("'--out' must be a new folder"), change
        parsed("erase", forgotten, "--out", other, "--overwrite")
        again = Run.load(other)
        assert fingerprint(again.model) == fingerprint(Run.load(out).model)
        assert again.forgotten is None


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
