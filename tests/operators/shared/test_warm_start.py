"""Where a correction starts: scaled rows, emptied nodes drawn anew, and which parameters are rows of nodes at all."""

import copy

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from session_toys import session_graph, session_model
from torch import nn
from toys import Wrapped, factors, light_gcn, random_graph, two_tower

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn import GRU4Rec, MatrixFactorization, encode, reset_parameters
from graphunlearn.nn.tables import node_rows
from graphunlearn.operators.shared import warm_start as module
from graphunlearn.operators.shared.warm_start import fresh_seed, kept_share, warm_start


def removal(graph, removed):
    keep = torch.ones(graph.num_interactions, dtype=torch.bool)
    keep[removed] = False
    return graph.select(keep)


@given(graphs(min_interactions=1), st.data())
def test_shares_and_emptied_nodes_are_counted(graph, data):
    count = graph.num_interactions
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    retained = graph.select(keep)
    share, emptied = kept_share(graph, retained), graph.emptied(retained)
    for node in range(graph.num_nodes):
        mine = (graph.pairs[0] == node) | (graph.pairs[1] + graph.num_users == node)
        before, after = int(mine.sum()), int((mine & keep).sum())
        assert float(share[node]) == pytest.approx(after / before if before else 1.0)
        assert bool(emptied[node]) == (before > 0 and after == 0)


@pytest.mark.parametrize("model_of", [light_gcn, factors, lambda g: Wrapped(light_gcn(g)), two_tower])
def test_rows_are_scaled_by_what_their_nodes_keep(model_of):
    graph = random_graph()
    retained = removal(graph, [0, 1, 2])
    assert not graph.emptied(retained).any()
    model = model_of(graph)
    before = [p.detach().clone() for p in model.parameters()]
    touched = warm_start(model, graph, retained, seed=0)
    share = kept_share(graph, retained).double().unsqueeze(1)
    assert touched == int((share < 1).sum()) > 0
    after = list(model.parameters())
    tables = [share * before[0]] if len(after) == 1 else [share[:7] * before[0], share[7:] * before[1]]
    expected = [*tables, *before[2:]]  # a tower belongs to no node
    for got, wanted in zip(after, expected):
        torch.testing.assert_close(got.detach(), wanted, rtol=1e-6, atol=0)  # shares are single precision


def test_without_scaling_only_emptied_rows_move():
    graph = random_graph()
    mine = (graph.pairs[0] == 2).nonzero().view(-1)
    retained = removal(graph, mine)
    model, fresh = light_gcn(graph), light_gcn(graph)
    before = model.embedding.weight.detach().clone()
    reset_parameters(fresh, fresh_seed(7))
    warm_start(model, graph, retained, seed=7, scale=False)
    emptied = graph.emptied(retained)
    assert emptied[2]
    assert torch.equal(model.embedding.weight[emptied], fresh.embedding.weight[emptied])
    assert torch.equal(model.embedding.weight[~emptied], before[~emptied])


def test_emptied_rows_are_drawn_from_the_models_own_initialisation():
    graph = random_graph()
    retained = removal(graph, (graph.pairs[0] == 2).nonzero().view(-1))
    for model, fresh in ((light_gcn(graph), light_gcn(graph)), (two_tower(graph), two_tower(graph))):
        state = torch.random.get_rng_state()
        warm_start(model, graph, retained, seed=3)
        assert torch.equal(state, torch.random.get_rng_state())
        reset_parameters(fresh, fresh_seed(3))
        assert torch.equal(encode(model, retained).query_base[2], encode(fresh, retained).query_base[2])
    again = light_gcn(graph)
    warm_start(again, graph, retained, seed=4)
    other = light_gcn(graph)
    warm_start(other, graph, retained, seed=3)
    assert not torch.equal(again.embedding.weight[2], other.embedding.weight[2])


class Scaled(MatrixFactorization):
    std = 1.0

    def reset_parameters(self):
        nn.init.normal_(self.embedding.weight, std=self.std)


def test_what_is_redrawn_is_remembered_for_the_same_nodes_and_seed_alone(monkeypatch):
    graph = random_graph()
    retained = removal(graph, (graph.pairs[0] == 1).nonzero().view(-1))
    more = removal(graph, (graph.pairs[0] <= 1).nonzero().view(-1))
    resets = []
    monkeypatch.setattr(module, "reset_parameters", lambda *a: resets.append(a) or reset_parameters(*a))

    def redrawn(left, seed, model_of=light_gcn):
        model = model_of(graph)
        warm_start(model, graph, left, seed, scale=False)
        return model.state_dict()

    calls = [(retained, 0), (retained, 0), (retained, 1), (more, 0), (retained, 1, factors)]
    tables = [redrawn(*call) for call in calls]
    assert len(resets) == 4
    module._REDRAWN.clear()
    for one, other in zip(tables, [redrawn(*call) for call in calls]):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not torch.equal(*(t["embedding.weight"] for t in (tables[0], tables[2])))
    for std, least, most in ((100.0, 1.0, 1e4), (0.01, 0.0, 0.1)):
        model = Scaled(graph.num_nodes, 4)
        model.std = std
        warm_start(model, graph, retained, 0, scale=False)
        assert least < float(model.embedding.weight[1].detach().norm()) < most


def test_emptied_items_of_two_tables_are_drawn_from_the_table_of_items():
    graph = random_graph()
    retained = removal(graph, (graph.pairs[1] == 3).nonzero().view(-1))
    model, fresh = two_tower(graph), two_tower(graph)
    before = model.item_table.weight.detach().clone()
    warm_start(model, graph, retained, seed=3, scale=False)
    reset_parameters(fresh, fresh_seed(3))
    assert torch.equal(model.item_table.weight[3], fresh.item_table.weight[3])
    others = torch.arange(6) != 3
    assert torch.equal(model.item_table.weight[others], before[others])


def test_frozen_rows_stay():
    # what is not trained is not corrected either: the correction would be solved for rows that the model never gets
    graph = random_graph()
    retained = removal(graph, (graph.pairs[0] == 2).nonzero().view(-1))
    model = two_tower(graph)
    model.user_table.weight.requires_grad_(False)
    before = model.user_table.weight.clone(), model.item_table.weight.detach().clone()
    warm_start(model, graph, retained, seed=0)
    assert torch.equal(model.user_table.weight, before[0])
    assert not torch.equal(model.item_table.weight, before[1])


def test_which_parameters_are_rows_of_nodes():
    graph = random_graph()
    assert node_rows(light_gcn(graph), graph) == {"embedding.weight": slice(0, 13)}
    assert node_rows(factors(graph), graph) == {"embedding.weight": slice(0, 13)}
    assert node_rows(Wrapped(light_gcn(graph)), graph) == {"inner.embedding.weight": slice(0, 13)}
    assert node_rows(two_tower(graph), graph) == {"user_table.weight": slice(0, 7), "item_table.weight": slice(7, 13)}


def test_as_many_users_as_items_are_told_apart_by_name():
    square = InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), 3, 3)
    assert node_rows(two_tower(square), square) == {"user_table.weight": slice(0, 3), "item_table.weight": slice(3, 6)}

    class Nameless(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.bias = nn.Embedding(3, 2), nn.Embedding(3, 2), nn.Embedding(9, 1)

    encode.register(Nameless, lambda model, graph: (model.first.weight, model.second.weight))
    assert node_rows(Nameless(), square) == {}  # which side is which cannot be known
    assert node_rows(nn.Embedding(6, 2), square) == {"weight": slice(0, 6)}


def test_the_seed_of_training_is_not_the_seed_of_fresh_rows():
    """A forgotten user must not get back the row that the others were trained against."""
    graph = random_graph()
    model = light_gcn(graph)
    reset_parameters(model, 0)
    initial = model.embedding.weight.detach().clone()
    retained, _ = graph.split(ForgetRequest.internal("user", torch.tensor([2])))
    warm_start(model, graph, retained, seed=0)
    assert not torch.allclose(model.embedding.weight[2], initial[2])
    assert all(0 <= fresh_seed(seed) < 2**63 and fresh_seed(seed) != seed for seed in range(-3, 100))


def test_emptied_items_take_after_items_that_never_had_an_interaction():
    pairs = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 2]])
    graph = InteractionGraph.from_edges(pairs, 3, 9)  # items 3 to 8 have none
    model = light_gcn(graph, dim=4)
    retained = graph.select(pairs[1] != 2)  # item 2 loses its only one
    before = model.embedding.weight.detach().clone()
    plain = copy.deepcopy(model)
    with torch.no_grad():
        plain.embedding.weight[6:] = 0  # nothing to take after
    for each in (model, plain):
        warm_start(each, graph, retained, seed=0)
    drift = model.embedding.weight[5] - plain.embedding.weight[5]
    torch.testing.assert_close(drift, before[6:12].mean(0))
    few = InteractionGraph.from_edges(pairs, 3, 6)  # three such items are too few for a mean
    small = light_gcn(few, dim=4)
    other = copy.deepcopy(small)
    with torch.no_grad():
        other.embedding.weight[6:] = 0
    for each in (small, other):
        warm_start(each, few, few.select(pairs[1] != 2), seed=0)
    assert torch.equal(small.embedding.weight[5], other.embedding.weight[5])


def test_clicks_are_the_interactions_of_items_in_sessions():
    graph = session_graph([[0, 1, 2], [3, 1, 1]], 5)
    retained = graph.keep(torch.tensor([True, True, False, True, True, False]))
    assert kept_share(graph, retained).tolist() == pytest.approx([1, 2 / 3, 0, 1, 1])
    model = GRU4Rec(5, 4)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert warm_start(model, graph, retained, seed=2) == 2
    rows = node_rows(model, graph)
    for name, parameter in model.named_parameters():
        expected = before[name]
        if name in rows:
            expected = expected.clone()
            expected[1] *= 2 / 3
            expected[2] = parameter[2].detach()
        torch.testing.assert_close(parameter.detach(), expected)


def test_the_first_item_of_sessions_is_drawn_anew_as_any_other():
    graph = session_graph([[0, 1, 2], [3, 1, 0], [2, 3, 1]], 4)
    retained = graph.keep(graph.items != 0)
    model = session_model("gru4rec", 4)
    fresh = copy.deepcopy(model)
    reset_parameters(fresh, fresh_seed(7))
    after = copy.deepcopy(model)
    assert warm_start(after, graph, retained, 7) == 1
    assert torch.equal(after.embedding.weight[0], fresh.embedding.weight[0])
    assert torch.equal(after.embedding.weight[1:], model.embedding.weight[1:])
