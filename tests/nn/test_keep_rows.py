"""Models with fewer rows: what is cut, what is kept, and what nobody can cut."""

import pytest
import torch
from torch import nn
from toys import TwoTower, light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.nn import keep_rows

KEPT = {"user": torch.tensor([0, 2, 3, 6]), "item": torch.tensor([1, 2, 5])}


@pytest.fixture
def graph():
    return random_graph(7, 6, 20)


def test_the_rows_of_one_table_are_those_of_users_then_items(graph):
    model = light_gcn(graph)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = keep_rows(model, graph, KEPT)
    assert torch.equal(made.embedding.weight, before["embedding.weight"][[0, 2, 3, 6, 8, 9, 12]])
    assert (made.num_nodes, made.embedding.num_embeddings) == (7, 7)
    assert torch.equal(made.alpha, before["alpha"])
    assert (model.num_nodes, len(model.embedding.weight)) == (13, 13)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_tables_are_cut_each_on_its_side(graph):
    model = TwoTower(7, 6)
    made = keep_rows(model, graph, KEPT)
    assert torch.equal(made.user_table.weight, model.user_table.weight[KEPT["user"]])
    assert torch.equal(made.item_table.weight, model.item_table.weight[KEPT["item"]])
    assert made.tower.weight is not model.tower.weight
    assert torch.equal(made.tower.weight, model.tower.weight)


def test_rows_are_in_the_order_that_is_asked_for(graph):
    kept = {"user": torch.tensor([3, 0, 6, 2]), "item": torch.tensor([5, 1, 2])}
    one, two = light_gcn(graph), TwoTower(7, 6)
    made = keep_rows(one, graph, kept)
    assert torch.equal(made.embedding.weight, one.embedding.weight[[3, 0, 6, 2, 12, 8, 9]])
    made = keep_rows(two, graph, kept)
    assert torch.equal(made.user_table.weight, two.user_table.weight[kept["user"]])
    assert torch.equal(made.item_table.weight, two.item_table.weight[kept["item"]])


def test_what_else_has_an_entry_per_node_is_refused_where_rows_only_move(graph):
    kept = {"user": torch.arange(7), "item": torch.arange(6).flip(0)}
    model = TwoTower(7, 6)
    assert torch.equal(keep_rows(model, graph, kept).item_table.weight, model.item_table.weight.flip(0))
    model.register_buffer("popularity", torch.zeros(6))
    with pytest.raises(gu.ArgumentError, match="'popularity' of 6 entries"):
        keep_rows(model, graph, kept)
    model = TwoTower(7, 6)
    model.item_table = nn.Embedding(30, 3)
    with pytest.raises(gu.ArgumentError, match="no table of items that is found"):
        keep_rows(model, graph, kept)


def test_tied_tables_stay_tied_and_frozen_ones_frozen(graph):
    model = TwoTower(7, 6)
    model.again_item = nn.Embedding(6, 3)
    model.again_item.weight = model.item_table.weight
    model.user_table.weight.requires_grad_(False)
    made = keep_rows(model, graph, KEPT)
    assert made.again_item.weight is made.item_table.weight
    assert (made.again_item.num_embeddings, made.item_table.num_embeddings) == (3, 3)
    assert not made.user_table.weight.requires_grad
    assert made.item_table.weight.requires_grad


def refused(model, graph, what):
    with pytest.raises(gu.ArgumentError) as error:
        keep_rows(model, graph, KEPT)
    assert str(error.value).startswith("'model' must hold nothing but embedding tables with an entry per user or item")
    assert what in str(error.value)
    assert f"keep_rows.register({type(model).__name__})" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("norm_adj", torch.eye(13).to_sparse(), "'norm_adj' of 13 × 13 entries"),
        ("cached", torch.zeros(7, 3), "'cached' of 7 × 3 entries"),
        ("names", [str(n) for n in range(7)], "'names' of 7 entries"),
        ("degrees", torch.zeros(6).numpy(), "'degrees' of 6 entries"),
        ("graph", random_graph(2, 2, 3), "a graph as 'graph'"),
    ],
)
def test_what_else_has_an_entry_per_node_is_refused(graph, name, value, what):
    model = TwoTower(7, 6)
    setattr(model, name, value)
    refused(model, graph, what)


def test_buffers_and_bare_parameters_are_refused(graph):
    model = TwoTower(7, 6)
    model.register_buffer("seen", torch.zeros(6))
    refused(model, graph, "'seen' of 6 entries")
    model = TwoTower(7, 6)
    model.bias = nn.Parameter(torch.zeros(7))
    refused(model, graph, "'bias' of 7 entries")


def test_tables_of_either_side_are_refused_where_both_have_as_many_rows():
    graph, model = random_graph(6, 6, 20), TwoTower(6, 6)
    model.first, model.second = nn.Embedding(6, 3), nn.Embedding(6, 3)
    kept = {"user": torch.arange(5), "item": torch.arange(6)}
    with pytest.raises(gu.ArgumentError, match=r"'first.weight' of 6 × 3 entries"):
        keep_rows(model, graph, kept)
    del model.first, model.second
    assert len(keep_rows(model, graph, kept).user_table.weight) == 5


def test_padding_is_refused(graph):
    model = TwoTower(7, 6)
    model.user_table = nn.Embedding(7, 3, padding_idx=0)
    refused(model, graph, "an embedding with a row for padding")


def test_tables_with_one_row_more_are_refused(graph):
    """Row 0 for padding: what is cut by number would be the row of another user, or would stay."""
    model = TwoTower(7, 6)
    model.user_table = nn.Embedding(8, 3)
    refused(model, graph, "'user_table.weight' of 8 × 3 entries")


def test_lists_of_parameters_and_layers_as_wide_as_the_items_are_refused(graph):
    model = TwoTower(7, 6)
    model.biases = nn.ParameterDict({"user": nn.Parameter(torch.zeros(7))})
    refused(model, graph, "'biases.user' of 7 entries")
    model = TwoTower(7, 6)
    model.decoder = nn.Sequential(nn.Linear(3, 6))
    refused(model, graph, "'decoder.0.weight' of 6 × 3 entries")


def test_sides_without_a_table_are_refused_if_some_of_them_go(graph):
    model = TwoTower(7, 6)
    model.user_table = nn.Embedding(30, 3)  # such as one of buckets
    refused(model, graph, "no table of users that is found")
    kept = {"user": torch.arange(7), "item": KEPT["item"]}
    assert len(keep_rows(model, graph, kept).item_table.weight) == 3


def test_matrices_of_all_pairs_are_refused_even_if_nobody_goes(graph):
    """They hold the interactions from before."""
    everybody = {"user": torch.arange(7), "item": torch.arange(6)}
    model = TwoTower(7, 6)
    keep_rows(model, graph, everybody)
    model.register_buffer("seen", torch.zeros(7, 6))
    with pytest.raises(gu.ArgumentError, match="'seen' of 7 × 6 entries"):
        keep_rows(model, graph, everybody)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.zeros(2, 25, dtype=torch.long), "'held' of 2 × 25 entries"),  # all pairs before some were deleted
        (torch.zeros(19, 2, dtype=torch.int32), "'held' of 19 × 2 entries"),
        (torch.zeros(40, dtype=torch.long), "'held' of 40 entries"),  # both directions
        (torch.zeros(25, dtype=torch.long).numpy(), "'held' of 25 entries"),
        ({"train": {"graph": random_graph(2, 2, 3)}}, "a graph as 'held['train']['graph']'"),
        ([(0, 1)] * 20, "'held' of 20 entries"),
        (("first", [torch.zeros(6)]), "'held[1][0]' of 6 entries"),
    ],
)
def test_what_may_hold_the_events_is_refused(graph, value, what):
    model = TwoTower(7, 6)
    model.held = value
    refused(model, graph, what)


def test_integers_that_are_no_events_stay(graph):
    model = TwoTower(7, 6)
    model.sizes, model.options = torch.tensor([3, 2, 9]), {"lr": [0.1], "mask": torch.ones(50, dtype=torch.bool)}
    model.register_buffer("steps", torch.zeros((), dtype=torch.long))
    made = keep_rows(model, graph, KEPT)
    assert torch.equal(made.sizes, model.sizes)
    assert made.options.keys() == model.options.keys()


def test_layers_of_known_models_may_be_as_wide_as_the_items(graph):
    model = gu.nn.NGCF(13, 6, 2)
    assert keep_rows(model, graph, KEPT).layers[0].sum.weight.shape == (6, 6)


def test_a_registered_function_decides(graph):
    class Own(nn.Module):
        def __init__(self, users, items):
            super().__init__()
            self.users, self.items = nn.Parameter(users), nn.Parameter(items)

    @keep_rows.register
    def _(model: Own, graph, kept):
        return Own(model.users.detach()[kept["user"]], model.items.detach()[kept["item"]])

    model = Own(torch.randn(7, 3), torch.randn(6, 3))
    assert torch.equal(keep_rows(model, graph, KEPT).users, model.users[KEPT["user"]])
