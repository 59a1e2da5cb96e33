"""The metrics of a run on the command line, against plain loops over its model and against what ``train`` told."""

import math

import pytest
import torch
from click_files import as_lists, rows_of, write_rows
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.metrics import auroc, next_item_metrics, rank_metrics, target_ranks
from graphunlearn.runs.run import Run


@torch.no_grad()
def naive_metrics(run, pairs, k):
    """Means over users of the metrics of the pairs that are not in training, one user at a time."""
    queries, items, *_ = gu.encode(run.model, run.train)
    seen = set(zip(*run.train.pairs.tolist()))
    wanted = {}
    for user, item in set(pairs) - seen:
        wanted.setdefault(user, set()).add(item)
    sums = dict.fromkeys(("recall", "ndcg", "mrr", "hit_rate"), 0.0)
    for user, targets in wanted.items():
        order = sorted(range(len(items)), key=lambda item: -float(queries[user] @ items[item]))
        best = [item for item in order if (user, item) not in seen][:k]
        hits = [rank for rank, item in enumerate(best, 1) if item in targets]
        sums["recall"] += len(hits) / len(targets)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(targets)) + 1))
        sums["ndcg"] += sum(1 / math.log2(rank + 1) for rank in hits) / ideal
        sums["mrr"] += 1 / hits[0] if hits else 0.0
        sums["hit_rate"] += bool(hits)
    return {f"{name}@{k}": total / len(wanted) for name, total in sums.items()}, len(wanted)


def test_the_own_test_part(trained, forgotten, parsed, call):
    for folder in (trained, forgotten):
        run = Run.load(folder)
        told = parsed("evaluate", folder, "--ks", "3", "10")
        assert (told["test"], told["ks"]) == (None, [3, 10])
        pairs = list(zip(*run.test.pairs.tolist()))
        for k in (3, 10):
            expected, users = naive_metrics(run, pairs, k)
            assert {name: told["metrics"][name] for name in expected} == pytest.approx(expected, rel=1e-5)
            assert told["counts"]["num_users"] == users
        with torch.no_grad():
            encoded = gu.encode(run.model, run.train)
        same = rank_metrics(encoded.queries, encoded.items, run.train, run.test, ks=(3, 10))
        assert told["metrics"] | told["counts"] == same | {"num_rows_left_out": 0}
    status, out, _ = call("evaluate", trained)
    header, *rows, last = out.splitlines()
    assert (status, header.split(), [row.split()[0] for row in rows]) == (
        0,
        ["@10", "@20"],
        ["recall", "ndcg", "mrr", "hit_rate"],
    )
    assert last == "measured: 33 users, 59 test pairs"


def test_is_what_training_told(ratings, tmp_path, parsed):
    words = ("--data", ratings, "--threshold", 3, "--objective", "bce", "--out", tmp_path / "x", *QUICK)
    told = parsed("train", *words)["test"]
    found = parsed("evaluate", tmp_path / "x", "--ks", 20)["metrics"]
    assert {"auroc", "recall@20", "ndcg@20"} == set(told)
    assert told == {name: found[name] for name in told}


def test_a_file_with_unknown_ids(forgotten, tmp_path, call, parsed, refused):
    run = Run.load(forgotten)
    path = tmp_path / "test.csv"
    rows = [("u4", "i1"), ("u4", "i5"), ("u9", "i7"), ("nobody", "i1"), ("u9", "nothing"), ("u1", "i2")]
    path.write_text("user|thing\n" + "".join(f"{user}|{item}\n" for user, item in rows))
    words = ("evaluate", forgotten, "--test", path, "--sep", "|", "--item-column", "thing", "--ks", 8)
    told = parsed(*words)
    users, items = (run.train.vocabulary(kind) for kind in ("user", "item"))
    pairs = list(zip(*(v.lookup(ids).tolist() for v, ids in zip((users, items), zip(*[*rows[:3], rows[5]])))))
    expected, count = naive_metrics(run, pairs, 8)
    assert told["metrics"] == pytest.approx(expected, rel=1e-5)
    seen = set(zip(*run.train.pairs.tolist()))
    assert told["counts"]["num_pairs_left_out"] == len(set(pairs) & seen)
    assert (told["counts"]["num_users"], told["counts"]["num_rows_left_out"]) == (count, 2)
    _, out, err = call(*words)
    assert "2 rows with unknown users or items" in out
    assert "2 of 6 rows of '--test' were left out: the run does not contain their user or item" in err
    assert "1 of the 4 test interactions has a user or an item without training interactions" in err
    path.write_text("user|thing\nnobody|i1\n")
    assert "'--test' must hold some of the users and items of the run (got 1 rows, all" in refused(*words)


def test_ratings_of_a_file_become_labels_as_in_training(ratings, tmp_path, parsed, refused):
    for objective in ("bce", "bpr"):
        run = tmp_path / objective
        words = ["train", "--data", str(ratings), "--threshold", "3", "--objective", objective, "--out", str(run)]
        assert main([*words, *QUICK]) == 0
    path = tmp_path / "test.csv"
    path.write_text("user,item,rating\nu4,i1,5\nu4,i5,1\nu9,i7,4\nu9,i8,2\nu8,i8,3\n")
    loaded = Run.load(tmp_path / "bce")
    graph = gu.InteractionGraph.from_file(path, like=loaded.train).binarize(3)
    with torch.no_grad():
        encoded = gu.encode(loaded.model, loaded.train)
    told = parsed("evaluate", tmp_path / "bce", "--test", path)["metrics"]
    assert told.pop("auroc") == auroc(gu.score(encoded, graph.pairs), graph.label)
    same = rank_metrics(encoded.queries, encoded.items, loaded.train, graph)
    assert told == {name: same[name] for name in told}
    loaded = Run.load(tmp_path / "bpr")
    told = parsed("evaluate", tmp_path / "bpr", "--test", path)
    positive = graph.pairs[:, graph.label > 0]
    pairs = list(zip(*positive.tolist()))
    expected = naive_metrics(loaded, pairs, 10)[0] | naive_metrics(loaded, pairs, 20)[0]
    assert told["metrics"] == pytest.approx(expected, rel=1e-5)
    path.write_text("user,item\nu4,i1\n")
    assert refused("evaluate", tmp_path / "bce", "--test", path) == (
        "'--test' must have ratings, because the run was trained with '--threshold 3' (got none)"
    )
    path.write_text("user,item,rating\nu4,i1,1\n")
    assert refused("evaluate", tmp_path / "bpr", "--test", path) == (
        "'--test' must hold interactions to measure (got none)"
    )


def test_bad_options(trained, tmp_path, refused):
    assert refused("evaluate", trained, "--ks", "0") == "'--ks' must be list lengths of at least 1 (got 0)"
    empty = tmp_path / "empty.csv"
    empty.touch()
    assert f"'{empty}' must hold at least one row" in refused("evaluate", trained, "--test", empty)
    assert "which is no folder" in refused("evaluate", tmp_path / "nowhere")


# ---- sessions


@torch.no_grad()
def naive_next_item(run, sessions, ks):
    """Metrics of every click after the first one, one prefix at a time, with clicks on unlearned items left out."""
    learned = set(run.train.items.tolist())
    ranks = []
    for names in sessions:
        items = [item for item in run.train.vocabulary("item").lookup(names).tolist() if item in learned]
        for end in range(1, len(items)):
            graph = gu.SessionGraph.from_sequences([items[:end]], num_items=run.train.num_items)
            query, table, *_ = gu.encode(run.model, graph)
            ranks.append(target_ranks(query, table, torch.tensor(items[end : end + 1])))
    return next_item_metrics(torch.cat(ranks), ks), len(ranks)


def test_the_own_test_part_of_sessions(trained_sessions, forgotten_sessions, clicks, tmp_path, parsed):
    for folder in (trained_sessions, forgotten_sessions):
        run = Run.load(folder)
        told = parsed("evaluate", folder, "--ks", 5, 20)
        expected, count = naive_next_item(run, as_lists(run.test).values(), (5, 20))
        assert told["metrics"] == pytest.approx(expected, rel=1e-5)
        assert told["counts"]["num_predictions"] == count
    words = ("--data", clicks, "--model", "gru4rec", "--out", tmp_path / "x", *QUICK)
    told = parsed("train", *words)["test"]
    found = parsed("evaluate", tmp_path / "x")["metrics"]
    assert told == {name: found[name] for name in ("recall@20", "mrr@20", "ndcg@20")}


def test_a_file_of_sessions(forgotten_sessions, tmp_path, call, parsed, refused):
    run = Run.load(forgotten_sessions)
    rows = [*rows_of([[0, 1, 3, 2], [5, 6, 7], [4, 4]], start=500), ("s9999", "new", 1), ("s9999", "i1", 2)]
    path = write_rows(tmp_path / "test.csv", rows)
    told = parsed("evaluate", forgotten_sessions, "--test", path, "--ks", 4)
    expected, count = naive_next_item(run, [["i0", "i1", "i2"], ["i5", "i6", "i7"], ["i4", "i4"], ["i1"]], (4,))
    assert told["metrics"] == pytest.approx(expected, rel=1e-5)
    assert told["counts"] == {"num_sessions": 3, "num_predictions": count, "num_clicks_left_out": 2}
    err = call("evaluate", forgotten_sessions, "--test", path)[2]
    assert "1 of 11 clicks of '--test' was left out: the run does not contain their items" in err
    assert "1 test click on items without training clicks left out; neighbours are joined" in err
    write_rows(path, [("a", "i1", 1), ("a", "i3", 2), ("b", "i2", 1)])
    assert refused("evaluate", forgotten_sessions, "--test", path) == (
        "'--test' must hold a session of two clicks or more, on items that are trained on (got none)"
    )
