"""All parts of a run lose what its request has emptied or names."""

import json
from dataclasses import replace

import pytest
import torch
from session_toys import session_model

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn import FitSettings, build_model
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs import Forgotten, ModelSpec, Run, erase
from graphunlearn.runs.erasing import id_map


def pairs(graph):
    return {(graph.user_ids[u], graph.item_ids[i]) for u, i in graph.pairs.t().tolist()}


def unlearned(spec, model, parts, request):
    """A run after a request, as a program makes it: nothing is dropped from validation and test data."""
    train, validation, test = parts
    result = gu.Unlink().unlearn(model, train, request)
    loss = gu.CrossEntropy() if spec.kind == "sessions" else gu.BPR()
    about = {"dataset": "toys", "split": [0.8, 0.1, 0.1], "fit": {"best_epoch": 3}, "path": "/home/ann/ann.csv"}
    run = Run(spec, result.model, result.graph, validation, test, loss, FitSettings(), about)
    run.forgotten = Forgotten(model, train, result, {})
    return run


def saved(run, folder):
    run.save(folder)
    return Run.load(folder)


@pytest.fixture
def run(tmp_path):
    train = torch.tensor([[0, 0, 1, 1, 2, 2, 3], [0, 1, 1, 2, 0, 3, 2]])
    held = torch.tensor([[0, 1, 2, 2, 4], [2, 0, 3, 1, 0]])  # the pair of users 2 and item 3 is in training as well
    graphs = [gu.InteractionGraph.from_edges(edges, 5, 4) for edges in (train, held, held.flip(1))]
    request = gu.ForgetRequest("user", ["0"]) | gu.ForgetRequest("interaction", [("2", "3"), ("3", "2")])
    spec = ModelSpec("mf", 4, 2)
    return saved(unlearned(spec, build_model("mf", graphs[0], 4), graphs, request), tmp_path / "b")


def test_users_items_and_named_pairs_leave_all_parts(run):
    found = erase(run)
    assert found.compacted.gone == {"user": 2, "item": 1}  # 0 and 3, and item 3
    assert found.run.train.user_ids == ["1", "2", "4"]
    assert pairs(found.run.train) == {("1", "1"), ("1", "2"), ("2", "0")}
    assert pairs(found.run.validation) == pairs(found.run.test) == {("1", "0"), ("2", "1"), ("4", "0")}
    assert found.held_out == {"validation": 2, "test": 2}
    assert found.inactive == {"user": 1, "item": 0}
    assert found.run.about == {"dataset": "toys", "split": [0.8, 0.1, 0.1], "erased": True}
    assert found.run.forgotten is None
    assert found.run.emptied == {}
    assert run.train.num_users == 5


def test_a_named_pair_leaves_the_held_out_data_even_if_both_ends_stay(tmp_path):
    train = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    graphs = [gu.InteractionGraph.from_edges(edges, 2, 2) for edges in (train, train[:, :2], train[:, 2:])]
    request = gu.ForgetRequest("interaction", [("0", "1")])
    run = saved(unlearned(ModelSpec("mf", 4, 2), build_model("mf", graphs[0], 4), graphs, request), tmp_path / "b")
    found = erase(run)
    assert found.compacted.gone == {"user": 0, "item": 0}
    assert pairs(found.run.validation) == {("0", "0")}
    assert found.held_out == {"validation": 1, "test": 0}


def test_the_table_names_those_who_stay(run):
    table = id_map(erase(run).compacted)
    rows = list(zip(*table.values()))
    assert rows == [
        ("user", "1", 1, 0),
        ("user", "2", 2, 1),
        ("user", "4", 4, 2),
        ("item", "0", 0, 0),
        ("item", "1", 1, 1),
        ("item", "2", 2, 2),
    ]
    assert list(table) == ["type", "id", "old_row", "new_row"]


def test_sessions_leave_by_id_and_by_user(tmp_path):
    names = {"user_ids": ["ann", "bob", "eve"], "num_items": 5}

    def graph(rows, ids, users, order=(0, 1, 2)):
        numbers = torch.tensor([list(order).index(user) for user in users])
        own = names | {"user_ids": [names["user_ids"][user] for user in order]}
        return gu.SessionGraph.from_sequences(rows, session_ids=ids, user=numbers, **own)

    train = graph([[0, 1, 2], [3, 1], [2, 1, 0]], ["a", "b", "c"], [0, 1, 0])
    held = graph([[0, 1, 3], [2, 0], [1, 2], [1, 4]], ["a", "x", "y", "z"], [0, 1, 2, 0], order=(2, 0, 1))
    request = gu.ForgetRequest("session", ["a", "b"])
    model = session_model("gru4rec", 5, tied=True).float()
    run = unlearned(ModelSpec("gru4rec", 4, 1), model, (train, held, held), request)
    found = erase(saved(run, tmp_path / "b"))
    assert found.compacted.gone == {"user": 1, "item": 1}  # bob had session b alone, and item 3 was clicked in it
    for part in (found.run.validation, found.run.test):
        assert part.session_ids == ["y", "z"]
        assert part.item_ids == ["0", "1", "2", "4"]
        assert [part.vocabulary("user")[user] for user in part.user.tolist()] == ["eve", "ann"]
        assert "bob" not in part.vocabulary("user").ids
        assert [part.item_ids[item] for item in part.items.tolist()] == ["1", "2", "1", "4"]


def test_a_run_that_does_not_tell_is_refused_unless_all_go(run):
    run.emptied = None
    with pytest.raises(gu.ArgumentError, match="'run' must tell whom all requests of its series have emptied"):
        erase(run)
    clean = erase(run, inactive=True)
    assert clean.compacted.gone == {"user": 3, "item": 1}
    with pytest.raises(gu.ArgumentError, match=r"be one that 'forget' wrote, .* one that is already erased"):
        erase(clean.run)


def test_a_series_with_a_request_that_is_lost_does_not_tell(run, tmp_path):
    """The later run names those of its own request; the earlier ones cannot be told from others without events."""
    for lost in ("request.json", "original_train.safetensors"):
        (tmp_path / "b" / lost).unlink()
    after = Run.load(tmp_path / "b")
    assert after.emptied is None
    result = gu.Unlink().unlearn(after.model, after.train, gu.ForgetRequest("user", ["1"]))
    later = replace(after, model=result.model, train=result.graph)
    later.forgotten = Forgotten(after.model, after.train, result, {})
    again = saved(later, tmp_path / "c")
    assert again.emptied is None
    assert saved(replace(again, forgotten=None), tmp_path / "d").emptied is None
    with pytest.raises(gu.ArgumentError, match="'run' must tell whom all requests of its series have emptied"):
        erase(again)


@pytest.mark.parametrize("emptied", ["abc", ["user"], {"user": 5}, {"user": [None]}, {"users": []}])
def test_a_request_with_other_content_is_refused(emptied, run, tmp_path):
    path = tmp_path / "b" / "request.json"
    facts = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"}
    path.write_bytes(sealed_json(facts | {"emptied": emptied}))
    with pytest.raises(gu.ArgumentError, match=r"'run' must be a whole run folder .* lists of ids of users and items"):
        Run.load(tmp_path / "b")


def test_who_had_held_out_events_alone_goes_with_them(tmp_path):
    """Item 3 occurs in a held-out interaction of user 0 alone, and nowhere after user 0 is forgotten."""
    train = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]])
    held = torch.tensor([[0, 1], [3, 4]])
    graphs = [gu.InteractionGraph.from_edges(edges, 3, 6) for edges in (train, held, held[:, :0])]
    run = unlearned(ModelSpec("mf", 4, 2), build_model("mf", graphs[0], 4), graphs, gu.ForgetRequest("user", ["0"]))
    found = erase(saved(run, tmp_path / "b"))
    assert found.run.train.item_ids == ["0", "1", "2", "4", "5"]  # 2 and 5 never had any
    assert pairs(found.run.validation) == {("1", "4")}


def test_users_of_held_out_sessions_alone_go_with_their_sessions(tmp_path):
    names = {"num_items": 3}
    train = gu.SessionGraph.from_sequences(
        [[0, 1], [1, 2], [2, 0]],
        session_ids=["a", "b", "c"],
        user=torch.tensor([0, 1, 1]),
        user_ids=["ann", "bob"],
        **names,
    )
    held = gu.SessionGraph.from_sequences(
        [[0, 1], [1, 0]], session_ids=["x", "y"], user=torch.tensor([0, 1]), user_ids=["eve", "bob"], **names
    )
    request = gu.ForgetRequest("user", ["ann"]) | gu.ForgetRequest("session", ["a"])
    run = unlearned(
        ModelSpec("gru4rec", 4, 1), session_model("gru4rec", 3, tied=True).float(), (train, held, held), request
    )
    run.test = run.test.select(torch.tensor([1]))  # eve has left, and her name is still there
    found = erase(saved(run, tmp_path / "b"))
    assert found.run.validation.vocabulary("user").ids == ["bob", "eve"]
    assert found.run.test.vocabulary("user").ids == ["bob"]


def read(pairs):
    """A graph of text ids that are numbered as they come in a list of pairs, as a reader numbers them."""
    users, items = (list(dict.fromkeys(ids)) for ids in zip(*pairs))
    edges = torch.tensor([[users.index(u) for u, _ in pairs], [items.index(i) for _, i in pairs]])
    time = torch.arange(len(pairs))
    return gu.InteractionGraph.from_edges(edges, len(users), len(items), user_ids=users, item_ids=items, time=time)


def in_full(graph):
    """Everything that a folder tells of a graph, in the order in which it tells it."""
    return graph.user_ids, graph.item_ids, graph.pairs.tolist()


@pytest.mark.parametrize("place", range(6))
def test_the_order_does_not_tell_where_something_is_missing(place, tmp_path):
    """Wherever the forgotten pair stood in the file, the run is the same."""
    rows = [("u4", "i7"), ("u4", "i2"), ("u1", "i9"), ("u1", "i2"), ("u3", "i7")]
    whole = [*rows[:place], ("u1", "i7"), *rows[place:]]
    made = []
    for number, pairs_of_file in enumerate((whole, [*whole[::-1]])):
        graph = read(pairs_of_file)
        parts = graph, graph.select(torch.arange(3)), graph.select(torch.arange(3, 6))
        parts = (graph, *(part.without(gu.ForgetRequest("interaction", [("u1", "i7")])) for part in parts[1:]))
        model = build_model("mf", graph, 4)
        with torch.no_grad():  # a row depends on the id alone
            rows_of = [*graph.user_ids, *graph.item_ids]
            model.embedding.weight.copy_(torch.tensor([[ord(c) for c in text] * 2 for text in rows_of]).float())
        request = gu.ForgetRequest("interaction", [("u1", "i7")])
        run = unlearned(ModelSpec("mf", 4, 2), model, parts, request)
        made.append(erase(saved(run, tmp_path / str(number))).run)
    one, two = made
    assert in_full(one.train) == in_full(two.train)
    assert one.train.user_ids == ["u1", "u3", "u4"]
    assert one.train.item_ids == ["i2", "i7", "i9"]
    assert torch.equal(one.model.embedding.weight, two.model.embedding.weight)
    for part in (one.train, one.validation, one.test):
        codes = (part.pairs[0] * 3 + part.pairs[1]).tolist()
        assert codes == sorted(codes)
        assert (part.user_ids, part.item_ids) == (one.train.user_ids, one.train.item_ids)


def test_sessions_and_items_are_sorted_by_id(tmp_path):
    names = {"item_ids": ["i3", "i1", "i2", "i0"], "session_ids": ["s9", "s2", "s5"]}
    train = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 1], [1, 0]], **names)
    model = session_model("gru4rec", 4, tied=True).float()
    request = gu.ForgetRequest("click", [("s9", 2)])
    run = unlearned(ModelSpec("gru4rec", 4, 1), model, (train, train, train), request)
    run = saved(run, tmp_path / "b")
    found = erase(run)
    graph = found.run.train
    assert graph.session_ids == found.run.test.session_ids == ["s2", "s5", "s9"]
    assert graph.item_ids == ["i0", "i1", "i2", "i3"]  # the first was never clicked
    assert [graph.item_ids[n] for n in graph.items.tolist()] == ["i2", "i1", "i1", "i3", "i3", "i1"]
    assert graph.length.tolist() == [2, 2, 2]
    table = id_map(found.compacted)
    assert (table["type"], table["old_row"]) == (["item"] * 4, [3, 1, 2, 0])
    with torch.no_grad():
        before, after = gu.encode(run.model, run.train), gu.encode(found.run.model, graph)
    assert torch.allclose(after.queries, before.queries[[1, 2, 0]], rtol=1e-6)
    assert torch.equal(after.items, before.items[[3, 1, 2, 0]])


def test_the_seed_of_the_training_is_left_out(run):
    """With the seed, whoever guesses what was forgotten could train again and compare."""
    for seed in (0, 7):
        run.settings = FitSettings(epochs=5, seed=seed)
        found = erase(run).run
        assert found.settings.seed == int(fingerprint(found.model)[:8], 16)
        assert found.settings.epochs == 5
    assert erase(run).run.settings == found.settings  # an interrupted call is finished by the same call


def test_who_returned_stays(run):
    run.emptied = {"user": ["0", "1"], "item": []}
    assert erase(run).run.train.user_ids == ["1", "2", "3", "4"]
