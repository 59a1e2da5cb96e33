"""The lists of a run on the command line, against plain loops over its model, and all who get none."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from click_files import as_lists, rows_of, write_rows
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.runs.run import Run

PARTS = ("train", "validation", "test")


@torch.no_grad()
def naive_lists(run, users, k):
    """Item ids and scores, best first, by one product per user and item."""
    queries, items, *_ = gu.encode(run.model, run.train)
    pairs = set(zip(*run.train.pairs.tolist()))
    learned = {item for _, item in pairs}
    found = []
    for user in run.train.vocabulary("user").lookup(users).tolist():
        scored = [
            (-float(sum(queries[user] * items[item])), run.train.item_ids[item])
            for item in learned
            if (user, item) not in pairs
        ]
        found.append([(item, -score) for score, item in sorted(scored)[:k]])
    return found


def check_lists(told, query, names, expected):
    assert [entry[query] for entry in told["lists"]] == names
    for entry, pairs in zip(told["lists"], expected):
        assert entry["items"] == [item for item, _ in pairs]
        assert entry["scores"] == pytest.approx([score for _, score in pairs], rel=1e-4, abs=1e-6)


def test_lists_of_users_are_those_of_a_plain_loop(trained, parsed):
    run = Run.load(trained)
    told = parsed("recommend", trained, "--users", "u7", "u3", "--k", 6)
    assert (told["k"], told["out"]) == (6, None)
    check_lists(told, "user", ["u7", "u3"], naive_lists(run, ["u7", "u3"], 6))
    users = run.train.vocabulary("user").lookup(["u7", "u3"])
    best = gu.recommend(run.model, run.train, k=6, users=users).tolist()
    assert [entry["items"] for entry in told["lists"]] == [[run.train.item_ids[item] for item in row] for row in best]


def test_after_forgetting_no_list_has_what_was_forgotten(forgotten, parsed, refused):
    run = Run.load(forgotten)
    item = int(run.train.vocabulary("item").lookup(["i3"]))
    assert int(gu.recommend(run.model, run.train, k=20).eq(item).sum()) > 0  # the model alone would list it
    left = run.train.active[: run.train.num_users].nonzero().flatten().tolist()
    users = [run.train.user_ids[user] for user in left]
    told = parsed("recommend", forgotten, "--users", *users, "--k", 30)
    check_lists(told, "user", users, naive_lists(run, users, 30))
    assert not any("i3" in entry["items"] for entry in told["lists"])
    assert refused("recommend", forgotten, "--users", "u4", "u2", "u1", "u2") == (
        "'--users' must name users that the model learned from "
        "(got 'u2', 'u1', without interactions in the training part: forgotten, or only held out)"
    )
    told = refused("recommend", forgotten, "--users", "u4", "zz", "--json")
    assert told == "'--users' must name users of the run (got 'zz', not among its users)"


def test_users_of_a_file_are_written_as_csv(trained, tmp_path, call, parsed, refused):
    users, out = tmp_path / "users.csv", tmp_path / "lists.csv"
    users.write_text("who\nu5\nu3\nu5\n")
    words = ("recommend", trained, "--users", "u9", "--users-file", users, "--user-column", "who", "--k", 4)
    status, told, err = call(*words, "--out", out)
    assert (status, told) == (0, f"wrote {out}: 12 items for 3 users\n")
    assert err == "1 repeated entry counts once\n"
    rows = list(csv.reader(out.open()))
    lists = parsed(*words)["lists"]
    assert [entry["user"] for entry in lists] == ["u9", "u5", "u3"]
    expected = [
        [entry["user"], item, str(rank), repr(score)]
        for entry in lists
        for rank, (item, score) in enumerate(zip(entry["items"], entry["scores"]), 1)
    ]
    assert rows == [["user", "item", "rank", "score"], *expected]
    assert refused(*words, "--out", out) == (
        f"'--out' must be a new file (got '{out}', which exists); '--overwrite' replaces it"
    )
    assert parsed(*words, "--out", out, "--overwrite")["out"] == str(out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    users.write_text("who\nu5\nnobody\n")
    told = refused(*words, "--out", out, "--overwrite")
    assert told == "'--users-file' must name users of the run (got 'nobody', not among its users)"
    assert list(csv.reader(out.open())) == rows


def test_a_failed_write_leaves_the_earlier_file(trained, tmp_path, refused, monkeypatch):
    out = tmp_path / "lists.csv"
    out.write_text("earlier")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    words = ("recommend", trained, "--users", "u3", "--out", out, "--overwrite")
    assert refused(*words) == f"'{out}' could not be written: No space left on device (an earlier file is unchanged)"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("lists.csv", "earlier")]


def test_the_table_and_lists_longer_than_the_catalogue(trained, call, parsed):
    run = Run.load(trained)
    user = int(run.train.vocabulary("user").lookup(["u3"]))
    learned = int(run.train.active[run.train.num_users :].sum())
    left = learned - int(run.train.degree[user])
    status, out, err = call("recommend", trained, "--users", "u3", "--k", 1000)
    assert (status, err) == (0, "the run has 30 items, so that lists are shorter than 1000\n")
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["user", "item", "rank", "score"]
    entry = parsed("recommend", trained, "--users", "u3", "--k", 30)["lists"][0]
    assert [row[:3] for row in rows] == [["u3", item, str(n)] for n, item in enumerate(entry["items"], 1)]
    assert len(rows) == left > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "who gets a list must be given with '--users', '--users-file', '--sessions' or '--clicks' (got none"),
        (("--users", "u3", "--k", "0"), "'--k' must be at least 1 (got 0)"),
        (("--users", "u3", "--out", "nowhere/x.csv"), "'--out' must be a file in an existing folder (got 'nowhere/x"),
        (("--users", "u3", "--out", "."), "'--out' must be a file in an existing folder (got '.', which is a folder)"),
        (("--sessions", "s1"), "'--sessions' must go with a model of sessions (got it with lightgcn, one of users"),
        (("--clicks", "x.csv"), "'--clicks' must go with a model of sessions (got it with lightgcn, one of users"),
        (("--users-file", "x.csv"), "'--users-file' must be an existing file (got 'x.csv')"),
    ],
)
def test_refused(words, sentence, trained, refused):
    assert refused("recommend", trained, *words).startswith(sentence)


def test_an_empty_file_is_refused(trained, trained_sessions, tmp_path, refused):
    empty = tmp_path / "empty.csv"
    empty.touch()
    for run, option in ((trained, "--users-file"), (trained_sessions, "--clicks")):
        assert "'" + str(empty) + "' must hold at least one row" in refused("recommend", run, option, empty)


# ---- sessions


@torch.no_grad()
def naive_next(run, sessions, k):
    """Item ids and scores after every list of item ids, one session at a time."""
    learned = set(run.train.items.tolist())
    found = []
    for names in sessions:
        items = run.train.vocabulary("item").lookup(names).tolist()
        graph = gu.SessionGraph.from_sequences([items], num_items=run.train.num_items)
        query, table, *_ = gu.encode(run.model, graph)
        scored = sorted((-float(sum(query[0] * table[item])), run.train.item_ids[item]) for item in learned)
        found.append([(item, -score) for score, item in scored[:k]])
    return found


def test_lists_of_sessions_of_the_run(trained_sessions, parsed, refused, call):
    run = Run.load(trained_sessions)
    names = [getattr(run, part).session_ids[0] for part in ("test", "train", "validation")]
    clicked = {name: items for part in PARTS for name, items in as_lists(getattr(run, part)).items()}
    told = parsed("recommend", trained_sessions, "--sessions", *names, "--k", 5)
    assert sorted(entry["session"] for entry in told["lists"]) == sorted(names)
    order = [entry["session"] for entry in told["lists"]]
    check_lists(told, "session", order, naive_next(run, [clicked[name] for name in order], 5))
    status, out, err = call("recommend", trained_sessions, "--sessions", names[0], names[0], "--k", 1)
    assert (status, err, len(out.splitlines())) == (0, "1 repeated entry counts once\n", 2)
    assert refused("recommend", trained_sessions, "--sessions", "s0", "q") == (
        "'--sessions' must name sessions of the run (got 'q', not among its sessions)"
    )
    assert "'--users' must go with a model of users and items" in refused("recommend", trained_sessions, "--users", "a")
    both = refused("recommend", trained_sessions, "--sessions", "s0", "--clicks", "x.csv")
    assert both == "'--clicks' must be left out with --sessions (got both)"


def test_forgotten_sessions_and_items_are_not_served(forgotten_sessions, parsed, refused):
    assert refused("recommend", forgotten_sessions, "--sessions", "s0", "s1", "s2") == (
        "'--sessions' must name sessions of the run (got 's1', 's2', not among its sessions)"
    )
    told = parsed("recommend", forgotten_sessions, "--sessions", "s0", "--k", 20)
    assert len(told["lists"][0]["items"]) == 19
    assert "i3" not in told["lists"][0]["items"]


def test_a_session_in_several_parts_goes_on_with_its_last_clicks(trained_sessions, tmp_path, parsed):
    folder = tmp_path / "run"
    shutil.copytree(trained_sessions, folder)
    run = Run.load(folder)
    name = run.train.session_ids[0]
    run.test = gu.SessionGraph.from_sequences([[4, 7]], item_ids=run.train.item_ids, session_ids=[name])
    run.save(folder, overwrite=True)
    told = parsed("recommend", folder, "--sessions", name, "--k", 4)
    items = [*as_lists(run.train)[name], run.train.item_ids[4], run.train.item_ids[7]]
    check_lists(told, "session", [name], naive_next(run, [items], 4))


def test_lists_of_new_sessions(trained_sessions, tmp_path, call, parsed, refused):
    run = Run.load(trained_sessions)
    path = write_rows(tmp_path / "new.csv", [("x", "i2", 1), ("x", "new", 3), ("x", "i5", 4), ("y", "new", 2)])
    told = parsed("recommend", trained_sessions, "--clicks", path, "--k", 3)
    check_lists(told, "session", ["x"], naive_next(run, [["i2", "i5"]], 3))
    err = call("recommend", trained_sessions, "--clicks", path)[2]
    assert err == (
        "graphunlearn: note: 2 of 4 clicks of '--clicks' were left out: the run does not contain their items\n"
        "1 of 2 sessions gets no list: all clicks were left out ('y')\n"
    )
    out = tmp_path / "next.csv"
    assert call("recommend", trained_sessions, "--clicks", path, "--k", 3, "--out", out)[0] == 0
    assert [row[:3] for row in csv.reader(out.open())] == [
        ["session", "item", "rank"],
        *(["x", item, str(rank)] for rank, item in enumerate(told["lists"][0]["items"], 1)),
    ]
    write_rows(path, [("y", "new", 2)])
    assert refused("recommend", trained_sessions, "--clicks", path) == (
        "'--clicks' must hold some of the items of the run (got 1 clicks, all on unknown ones)"
    )


def test_clicks_on_forgotten_items_are_left_out(forgotten_sessions, tmp_path, call, parsed, refused):
    run = Run.load(forgotten_sessions)
    path = write_rows(tmp_path / "new.csv", [("x", "i2", 1), ("x", "i3", 2), ("x", "i5", 3), ("y", "i3", 1)])
    told = parsed("recommend", forgotten_sessions, "--clicks", path, "--k", 3)
    check_lists(told, "session", ["x"], naive_next(run, [["i2", "i5"]], 3))
    assert call("recommend", forgotten_sessions, "--clicks", path)[2] == (
        "2 clicks on items without training clicks left out; neighbours are joined\n"
        "1 of 2 sessions gets no list: all clicks were left out ('y')\n"
    )
    write_rows(path, [("y", "i3", 2)])
    sentence = "'--clicks' must hold clicks on items that the model learned from (got none)"
    assert refused("recommend", forgotten_sessions, "--clicks", path) == sentence


def test_new_sessions_are_collapsed_as_those_of_training_were(tmp_path, parsed):
    sessions = [[0, 1, 1, 2], [1, 2, 2], [2, 0, 1], [0, 0, 1, 2], [1, 2, 0], [2, 1, 0]] * 4
    data, run = write_rows(tmp_path / "c.csv", rows_of(sessions)), tmp_path / "run"
    words = ["train", "--data", str(data), "--model", "gru4rec", "--collapse-repeats", "--out", str(run), *QUICK]
    assert main(words) == 0
    path = write_rows(tmp_path / "new.csv", [("x", "i2", 1), ("x", "i2", 2), ("x", "i0", 3)])
    loaded = Run.load(run)
    told = parsed("recommend", run, "--clicks", path, "--k", 3)
    check_lists(told, "session", ["x"], naive_next(loaded, [["i2", "i0"]], 3))
    other = naive_next(loaded, [["i2", "i2", "i0"]], 3)
    assert not torch.allclose(torch.tensor(told["lists"][0]["scores"]), torch.tensor([s for _, s in other[0]]))


def test_a_memory_mapped_run_is_the_same_and_its_file_stays(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    content = (folder / "model.safetensors").read_bytes()
    plain, mapped = Run.load(folder), Run.load(folder, memory_map=True)
    for one, other in zip(plain.model.state_dict().items(), mapped.model.state_dict().items()):
        assert one[0] == other[0]
        assert one[1].equal(other[1])
    assert gu.recommend(mapped.model, mapped.train).equal(gu.recommend(plain.model, plain.train))
    table = mapped.model.embedding.weight
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines if "model.safetensors" in line]
    assert any(start <= table.data_ptr() < end for start, end in spans)
    with torch.no_grad():
        table.zero_()
    assert (folder / "model.safetensors").read_bytes() == content
    assert Run.load(folder).model.embedding.weight.equal(plain.model.embedding.weight)


def test_only_a_cpu_maps_a_run(trained):
    with pytest.raises(
        ValueError, match=r"'memory_map' must be False for a device other than the CPU \(got True for cuda"
    ):
        Run.load(trained, "cuda", memory_map=True)
