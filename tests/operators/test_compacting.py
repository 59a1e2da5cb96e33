"""Compacted models serve those who stay as before, and hold nothing of those who went."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_toys import CLASSES, session_model
from torch import nn
from torch_geometric.nn import GAT, GraphNorm, GraphSAGE, LightGCN
from toys import TwoTower

import graphunlearn as gu
from graphunlearn.adapters import BipartiteRecommender
from graphunlearn.data.renumbering import node_types
from graphunlearn.nn import NGCF, SGL, MatrixFactorization, SimGCL, encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.models.factorization import PositiveLightGCN
from graphunlearn.operators import Compacted


def interactions(num_users=9, num_items=8, seed=0):
    """Interactions in which the last user and the last item have none, and user 3 alone has item 6."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [(u, i) for u in range(num_users - 1) for i in range(num_items - 1) if (i == 6) == (u == 3 and i == 6)]
    chosen = [pair for pair in pairs if pair[1] == 6 or torch.rand((), generator=generator) < 0.6]
    label = torch.randint(0, 2, (len(chosen),), generator=generator).double()
    names = {"user_ids": [f"user {n}" for n in range(num_users)], "item_ids": [f"item {n}" for n in range(num_items)]}
    return gu.InteractionGraph.from_edges(torch.tensor(chosen).t(), num_users, num_items, label=label, **names)


def bipartite(encoder):
    return lambda graph: BipartiteRecommender(encoder(), graph.num_users, graph.num_items, dim=4)


MODELS = {
    "lightgcn": lambda graph: LightGCN(graph.num_nodes, 4, 2),
    "positives": lambda graph: PositiveLightGCN(graph.num_nodes, 4, 2),
    "mf": lambda graph: MatrixFactorization(graph.num_nodes, 4),
    "ngcf": lambda graph: NGCF(graph.num_nodes, 4, 2),
    "sgl": lambda graph: SGL(graph.num_nodes, 4, 2),
    "simgcl": lambda graph: SimGCL(graph.num_nodes, 4, 2),
    "graphsage": bipartite(lambda: GraphSAGE(4, 5, num_layers=2)),
    "gat": bipartite(lambda: GAT(4, 5, num_layers=2)),
    "two-tower": lambda graph: TwoTower(graph.num_users, graph.num_items),
}


def made(name, graph, seed=0):
    torch.manual_seed(seed)
    model = MODELS[name](graph).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def scores(model, graph):
    """The score of every pair, by raw ids."""
    with torch.no_grad():
        encoded = encode(model, graph)
        table = encoded.queries @ encoded.items.t()
    return {(u, i): float(table[a, b]) for a, u in enumerate(graph.user_ids) for b, i in enumerate(graph.item_ids)}


def unlink(model, graph, request):
    return gu.operators.UnlinkRedraw().unlearn(model, graph, request)


def expected(graph, requests):
    """Who goes, from lists of events: those who lost the last one, and those who are named and have none."""
    events = [(graph.user_ids[u], graph.item_ids[i]) for u, i in graph.pairs.t().tolist()]
    users, items = set(), set()
    for part in (part for request in requests for part in request.parts):
        if part.level == "interaction":
            users |= {u for u, _ in part.index}
            items |= {i for _, i in part.index}
        else:
            (users if part.level == "user" else items).update(part.index)
    gone = {
        (u, i)
        for part in (part for request in requests for part in request.parts)
        for u, i in events
        if (part.level == "interaction" and (u, i) in part.index)
        or (part.level == "user" and u in part.index)
        or (part.level == "item" and i in part.index)
    }
    left = [event for event in events if event not in gone]
    out = []
    for side, named in ((0, users), (1, items)):
        before, after = ({event[side] for event in part} for part in (events, left))
        out.append((before | named) - after)
    return out, left


REQUESTS = {
    "users": gu.ForgetRequest("user", ["user 2", "user 5"]),
    "user-with-item-of-their-own": gu.ForgetRequest("user", ["user 3"]),
    "items": gu.ForgetRequest("item", ["item 0", "item 4"]),
    "levels": gu.ForgetRequest("user", ["user 0"])
    | gu.ForgetRequest("item", ["item 1"])
    | gu.ForgetRequest("interaction", [("user 3", "item 6")]),
    "one-without-interactions-too": gu.ForgetRequest("user", ["user 1", "user 8"]),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("name", MODELS)
def test_those_who_stay_are_served_as_before(name, request_name):
    graph, request = interactions(), REQUESTS[request_name]
    model = made(name, graph)
    result = unlink(model, graph, request)
    before = copy.deepcopy(result.model.state_dict()), result.graph.fingerprint()
    small = gu.compact(result)
    (users, items), left = expected(graph, [request])
    assert small.graph.user_ids == [u for u in graph.user_ids if u not in users]
    assert small.graph.item_ids == [i for i in graph.item_ids if i not in items]
    assert small.gone == {"user": len(users), "item": len(items)}
    pairs = [(small.graph.user_ids[u], small.graph.item_ids[i]) for u, i in small.graph.pairs.t().tolist()]
    assert pairs == left
    old, new = scores(result.model, result.graph), scores(small.model, small.graph)
    assert set(new) == {(u, i) for u, i in old if u not in users and i not in items}
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=1e-12) for pair, value in new.items())
    for part, state in before[0].items():  # bit for bit, whichever table the rows are in
        rows, now = state, small.model.state_dict()[part]
        kept = {len(graph.user_ids): small.kept["user"], len(graph.item_ids): small.kept["item"]}
        kept[graph.num_nodes] = torch.cat([small.kept["user"], small.kept["item"] + graph.num_users])
        is_table = part in ("embedding.weight", "user_table.weight", "item_table.weight")
        assert torch.equal(now, rows[kept[len(rows)]] if is_table else rows)
        assert torch.equal(result.model.state_dict()[part], state)
    assert result.graph.fingerprint() == before[1]


@st.composite
def cases(draw):
    """Interactions, and a request of one to three levels that leaves some of them."""
    num_users, num_items = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    every = [(u, i) for u in range(num_users) for i in range(num_items)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True, min_size=2))
    graph = gu.InteractionGraph.from_edges(torch.tensor(chosen).t(), num_users, num_items)
    names = [(graph.user_ids[u], graph.item_ids[i]) for u, i in chosen]
    sources = {"user": graph.user_ids, "item": graph.item_ids, "interaction": names}
    parts = {level: draw(st.lists(st.sampled_from(ids), unique=True)) for level, ids in sources.items()}
    requests = [gu.ForgetRequest(level, ids) for level, ids in parts.items() if ids]
    return graph, requests


@given(cases())
@settings(max_examples=60, deadline=None)
def test_who_goes_is_who_a_list_of_events_says(case):
    graph, requests = case
    (users, items), left = expected(graph, requests)
    if not requests or not left or len(left) == graph.num_interactions:
        return  # refused by every method
    request = requests[0]
    for part in requests[1:]:
        request = request | part
    model = made("lightgcn", graph)
    small = gu.compact(gu.Unlink().unlearn(model, graph, request))
    assert set(small.graph.user_ids) == set(graph.user_ids) - users
    assert set(small.graph.item_ids) == set(graph.item_ids) - items
    numbers = {text: n for n, text in enumerate(graph.user_ids)}
    assert {u: int(small.new("user")[n]) for u, n in numbers.items()} == {
        u: small.graph.user_ids.index(u) if u not in users else -1 for u in graph.user_ids
    }


def test_who_never_had_interactions_stays_unless_named_or_asked():
    graph = interactions()
    result = unlink(made("mf", graph), graph, REQUESTS["users"])
    assert {"user 8"} <= set(gu.compact(result).graph.user_ids)
    assert "item 7" in gu.compact(result).graph.item_ids
    both = gu.compact(result, inactive=True).graph
    assert not {"user 2", "user 5", "user 8"} & set(both.user_ids)
    assert "item 7" not in both.item_ids


def test_earlier_requests_are_erased_with_the_last_and_who_returned_stays():
    graph = interactions()
    one = unlink(made("lightgcn", graph), graph, REQUESTS["users"])
    two = unlink(one.model, one.graph, REQUESTS["user-with-item-of-their-own"])
    assert {"user 2", "user 5"} <= set(gu.compact(two).graph.user_ids)
    small = gu.compact(two, one)
    assert not {"user 2", "user 5", "user 3"} & set(small.graph.user_ids)
    assert "item 6" not in small.graph.item_ids
    back = copy.copy(two)
    pairs = torch.cat([two.graph.pairs, torch.tensor([[2], [0]])], 1)
    names = {"user_ids": graph.user_ids, "item_ids": graph.item_ids}
    back.graph = gu.InteractionGraph.from_edges(pairs, graph.num_users, graph.num_items, **names)
    assert "user 2" in gu.compact(back, one).graph.user_ids
    again = unlink(small.model, small.graph, gu.ForgetRequest("user", ["user 0"]))
    with pytest.raises(gu.ArgumentError, match="'earlier' must have the 6 users of the result"):
        gu.compact(again, one)


def test_requests_go_on_after_compaction():
    graph = interactions()
    small = gu.compact(unlink(made("lightgcn", graph), graph, REQUESTS["users"]))
    result = gu.IFRU(damping=1.0).unlearn(small.model, small.graph, gu.ForgetRequest("user", ["user 0"]))
    smaller = gu.compact(result)
    assert "user 0" not in smaller.graph.user_ids
    with pytest.raises(gu.ArgumentError, match="'index' must hold users of the graph"):
        gu.Unlink().unlearn(smaller.model, smaller.graph, gu.ForgetRequest("user", ["user 2"]))


# ---- sessions

ROWS = [[0, 1, 2], [2, 1], [3, 0, 1], [1, 2, 3, 5], [5, 1], [0, 4]]


def sessions(**values):
    names = {"item_ids": [f"item {n}" for n in range(7)], "session_ids": [f"session {n}" for n in range(len(ROWS))]}
    return gu.SessionGraph.from_sequences(ROWS, num_items=7, **names, **values)


def logits(model, graph):
    """The logits of every session, by raw ids."""
    with torch.no_grad():
        encoded = encode(model, graph)
        table = encoded.queries @ encoded.items.t()
    return {(s, i): float(table[a, b]) for a, s in enumerate(graph.session_ids) for b, i in enumerate(graph.item_ids)}


@st.composite
def session_cases(draw):
    """Sessions with users, and a request of one to four levels."""
    row = st.lists(st.integers(0, 4), min_size=1, max_size=5)
    rows = draw(st.lists(row, min_size=2, max_size=6))
    users = draw(st.lists(st.integers(-1, 2), min_size=len(rows), max_size=len(rows)))
    values = {"user": torch.tensor(users), "user_ids": ["ann", "bob", "eve"]}
    graph = gu.SessionGraph.from_sequences(rows, num_items=6, **values)
    clicks = [(str(s), p) for s, session in enumerate(rows) for p in range(len(session))]
    sources = {"click": clicks, "session": graph.session_ids, "item": graph.item_ids, "user": ["ann", "bob", "eve"]}
    parts = {level: draw(st.lists(st.sampled_from(ids), unique=True, max_size=3)) for level, ids in sources.items()}
    return graph, rows, users, {level: ids for level, ids in parts.items() if ids}


@given(session_cases())
@settings(max_examples=60, deadline=None)
def test_which_items_and_users_of_sessions_go_is_what_lists_say(case):
    graph, rows, users, parts = case
    names = ["ann", "bob", "eve"]
    left = [
        [
            item
            for p, item in enumerate(row)
            if (str(s), p) not in parts.get("click", ())
            and str(s) not in parts.get("session", ())
            and str(item) not in parts.get("item", ())
            and (users[s] < 0 or names[users[s]] not in parts.get("user", ()))
        ]
        for s, row in enumerate(rows)
    ]
    before, after = ({str(item) for row in part for item in row} for part in (rows, left))
    owners = [{names[user] for user, row in zip(users, part) if row and user >= 0} for part in (rows, left)]
    if not parts or left == rows or not any(left):
        return  # refused by every method
    request = None
    for level, ids in parts.items():
        one = gu.ForgetRequest(level, ids)
        request = one if request is None else request | one
    model = session_model("gru4rec", 6)
    small = gu.compact(gu.Unlink().unlearn(model, graph, request))
    assert set(graph.item_ids) - set(small.graph.item_ids) == (before | set(parts.get("item", ()))) - after
    gone = set(names) - set(small.graph.vocabulary("user").ids)
    assert gone == (owners[0] | set(parts.get("user", ()))) - owners[1]
    assert [[small.graph.item_ids[i] for i in row] for row in rows_of(small.graph)] == [
        [str(item) for item in row] for row in left if row
    ]


def rows_of(graph):
    return [part.tolist() for part in graph.items.split(graph.length.tolist())]


@pytest.mark.parametrize("options", [{}, {"tied": False, "bias": True}])
@pytest.mark.parametrize("name", CLASSES)
def test_sessions_keep_their_logits(name, options):
    graph = sessions()
    model = session_model(name, 7, **options)
    request = gu.ForgetRequest("session", ["session 5"]) | gu.ForgetRequest("item", ["item 3"])
    result = gu.Unlink().unlearn(model, graph, request)
    small = gu.compact(result)
    assert small.graph.item_ids == ["item 0", "item 1", "item 2", "item 5", "item 6"]  # item 6 never had a click
    assert small.graph.session_ids == result.graph.session_ids
    old, new = logits(result.model, result.graph), logits(small.model, small.graph)
    assert set(new) == {(s, i) for s, i in old if i not in ("item 3", "item 4")}
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=1e-12) for pair, value in new.items())
    rows = torch.tensor([0, 1, 2, 5, 6])
    for part, state in result.model.state_dict().items():
        is_table = part in ("embedding.weight", "output.weight", "bias")
        if part in ("neighbours", "strength"):  # numbers of items, for which the logits speak
            continue
        assert torch.equal(small.model.state_dict()[part], state[rows] if is_table else state)
    assert (small.model.num_items, result.model.num_items) == (5, 7)


def test_positions_are_no_items_where_there_are_as_many():
    model = session_model("sasrec", 7, max_length=7)
    result = gu.Unlink().unlearn(model, sessions(), gu.ForgetRequest("item", ["item 3"]))
    assert len(gu.compact(result).model.position.weight) == 7


def test_users_of_sessions_leave_the_vocabulary():
    users = {"user": torch.tensor([0, 0, 1, 1, 2, -1]), "user_ids": ["ann", "bob", "eve", "never"]}
    result = gu.Unlink().unlearn(session_model("srgnn", 7), sessions(**users), gu.ForgetRequest("user", ["bob"]))
    small = gu.compact(result)
    assert small.graph.vocabulary("user").ids == ["ann", "eve", "never"]
    assert small.graph.user.tolist() == [0, 0, 1, -1]
    assert small.gone == {"user": 1, "item": 1}  # item 3 was clicked by bob alone


def test_shards_are_cut_one_by_one_and_forget_their_seed():
    graph = sessions()
    model = session_model("gru4rec", 7, bias=True).float()
    method = gu.SISA(num_shards=2, settings=gu.nn.FitSettings(epochs=1))
    method.prepare(model, graph)
    result = method.unlearn(model, graph, gu.ForgetRequest("item", ["item 3"]))
    small = gu.compact(result)
    old, new = logits(result.model, result.graph), logits(small.model, small.graph)
    assert {i for _, i in new} == set(graph.item_ids) - {"item 3"}
    assert all(value == pytest.approx(old[pair], rel=1e-6, abs=1e-6) for pair, value in new.items())
    assert (small.model.graph, result.model.graph) == (small.graph.fingerprint(), result.graph.fingerprint())
    assert small.model.seed not in (result.model.seed, result.original.seed)
    assert torch.equal(small.model.members, result.model.members)
    again = method.unlearn(small.model, small.graph, gu.ForgetRequest("session", ["session 0"]))
    assert again.graph.num_sessions == small.graph.num_sessions - 1


# ---- what is refused


def test_embeddings_that_depend_on_all_rows_are_refused():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.sage, self.norm = GraphSAGE(4, 4, num_layers=1), GraphNorm(4)

        def forward(self, x, edge_index):
            return self.norm(self.sage(x, edge_index))

    graph = interactions()
    torch.manual_seed(0)
    model = BipartiteRecommender(Normed(), graph.num_users, graph.num_items, dim=4, num_hops=1).double()
    result = gu.Unlink().unlearn(model, graph, REQUESTS["users"])
    with pytest.raises(gu.ArgumentError, match="'model' must compute the embeddings of those who stay without"):
        gu.compact(result)


def test_nodes_with_events_cannot_go():
    graph = interactions()
    with pytest.raises(gu.ArgumentError, match=r"'kept' must hold every user and item with interactions .* of others"):
        Compacted.of(made("mf", graph), graph, {"user": torch.arange(3)})


def test_results_that_do_not_tell_whom_they_emptied_are_refused():
    graph = interactions()
    result = unlink(made("mf", graph), graph, REQUESTS["users"])
    result.emptied = None
    with pytest.raises(gu.ArgumentError, match="'result' must tell which users and items its request emptied"):
        gu.compact(result)
    assert "user 2" not in gu.compact(result, inactive=True).graph.user_ids


def test_what_is_no_result_and_what_is_no_node_type_are_refused():
    graph = interactions()
    model = made("mf", graph)
    result = unlink(model, graph, REQUESTS["users"])
    with pytest.raises(gu.ArgumentError, match="'result' must be the result of an unlearning method"):
        gu.compact(model)
    with pytest.raises(gu.ArgumentError, match="'earlier' must be the result of an unlearning method"):
        gu.compact(result, graph)
    for name in ("users", "session"):
        with pytest.raises(gu.ArgumentError, match=f"'node_type' must be 'user' or 'item' .*'{name}'"):
            gu.compact(result).new(name)


# ---- other graphs, and the original


def test_held_out_graphs_lose_the_rows_of_those_who_went():
    graph = interactions()
    train, test = graph.random_split([0.7, 0.3], seed=1)
    result = unlink(made("mf", graph), train, gu.ForgetRequest("user", ["user 0", "user 1"]))
    small = gu.compact(result)
    part = small.renumber(test)
    gone = {"user 0", "user 1", *set(graph.item_ids) - set(small.graph.item_ids)}
    wanted = [(test.user_ids[u], test.item_ids[i]) for u, i in test.pairs.t().tolist()]
    wanted = [pair for pair in wanted if not set(pair) & gone]
    assert [(part.user_ids[u], part.item_ids[i]) for u, i in part.pairs.t().tolist()] == wanted
    assert len(wanted) < test.num_interactions
    with pytest.raises(gu.ArgumentError, match="'graph' must have the 9 users of the graph before"):
        small.renumber(part)


def test_the_original_is_not_changed_and_nothing_is_shared():
    graph = interactions()
    model = made("lightgcn", graph)
    print_before = fingerprint(model), graph.fingerprint()
    result = unlink(model, graph, REQUESTS["users"])
    small = gu.compact(result)
    with torch.no_grad():
        for parameter in small.model.parameters():
            parameter.fill_(7.0)
    assert (fingerprint(model), graph.fingerprint()) == print_before
    assert not any(bool((parameter == 7.0).all()) for parameter in result.model.parameters())
    assert node_types(small.graph) == ("user", "item")
