"""What an erased run folder does not tell: ids, rows, hashes, splits and the course of the training."""

import json
import re
import shutil

import crashing
import pandas as pd
import pytest
import torch
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run


def events(graph):
    users, items = graph.user_ids, graph.item_ids
    return [(users[u], items[i]) for u, i in graph.pairs.t().tolist()]


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
    """Everything in a folder that looks like a hash, but for the one in each file of the other content of the file."""
    seal = rb'"sha256": ?"[0-9a-f]{64}"'
    text = b"".join(re.sub(seal, b"", data) for data in crashing.files(folder).values()).decode("latin-1")
    return set(re.findall(r"[0-9a-f]{64}", text))


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
    nothing = torch.zeros(2, 0, dtype=torch.long)
    assert guesses(folder / "clean", after, nothing) == []
    copy, (user, item) = shutil.copytree(folder / "clean", tmp_path / "c"), pair  # a hash of it would be found
    added = torch.tensor([[after.train.user_ids.index(user)], [after.train.item_ids.index(item)]])
    ids = {"user_ids": after.train.user_ids, "item_ids": after.train.item_ids}
    again = gu.InteractionGraph.from_edges(torch.cat([after.train.pairs, added], 1), **ids)
    (copy / "report.json").write_text(json.dumps({"of": again.fingerprint()}))
    assert guesses(copy, after, nothing) == [pair]
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
def test_splits_by_time_fit_any_guess_of_a_training_interaction(by):
    """Adding any guess to what is left, at any time of training, gives the same split; at random, most guesses do not.

    The parts are what a run folder holds after one training interaction was forgotten. It shows nothing of requests
    that take held-out interactions away.
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


def test_a_split_by_loo_tells_whose_last_item_was_forgotten():
    """What the documentation warns of: the users without a test interaction are those whose last item it was."""
    test = gu.datasets.synthetic_interactions(12, 10, 6, seed=2).split_by("loo", [0.8, 0.1, 0.1])[2]
    item = int(test.pairs[1].mode().values)
    whose = set(test.pairs[0, test.pairs[1] == item].tolist())
    left = test.without(gu.ForgetRequest("item", [test.item_ids[item]]))
    assert set(range(12)) - set(left.pairs[0].tolist()) == whose
    assert 0 < len(whose) < 12
