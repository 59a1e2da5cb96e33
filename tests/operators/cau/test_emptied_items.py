import copy
from dataclasses import replace

import pytest
import torch
from session_toys import random_sessions, session_model
from torch import nn

from graphunlearn import CAU, ForgetRequest, SessionGraph, encode, fit
from graphunlearn.nn import GRU4Rec
from graphunlearn.nn.tables import item_tables
from graphunlearn.operators.cau.levels import log_probabilities
from graphunlearn.operators.cau.samples import ForgetSamples
from graphunlearn.operators.cau.targets import click_targets, settle_emptied

ITEMS = 12


def case(num_items, name="gru4rec", **options):
    """Sessions of twelve items in a catalogue of ``num_items``, and a request for one of them, everywhere."""
    graph, validation = (
        SessionGraph.from_sequences([r for r in random_sessions(n, ITEMS, seed=n) if len(r) > 2], num_items=num_items)
        for n in (60, 20)
    )
    request = ForgetRequest.internal("item", torch.tensor([3]))
    retained, _ = graph.split(request)
    samples = ForgetSamples.of(graph, retained, request.mask(graph))
    model = session_model(name, num_items, **options)
    return (
        model,
        graph,
        retained,
        samples,
        click_targets(model, graph, retained, validation, samples, request.mask(graph)),
    )


@pytest.mark.parametrize("options", [{}, {"tied": False, "bias": True}])
@pytest.mark.parametrize("name", ["gru4rec", "srgnn", "sasrec"])
def test_an_emptied_item_takes_after_one_that_never_had_a_click(name, options):
    model, graph, retained, samples, targets = case(ITEMS + 2, name, **options)
    before = copy.deepcopy(model)
    levels, count = settle_emptied(model, graph, retained, samples, targets, seed=0)
    assert count == 1
    for old, new in zip(item_tables(before, ITEMS + 2), item_tables(model, ITEMS + 2)):
        assert any(torch.equal(new[3], old[donor]) for donor in (ITEMS, ITEMS + 1))
        others = torch.arange(ITEMS + 2) != 3
        assert torch.equal(new[others], old[others])
    unlike = {id(p) for p in item_tables(model, ITEMS + 2)}
    for old, new in zip(before.parameters(), model.parameters()):
        assert id(new) in unlike or torch.equal(old, new)
    torch.testing.assert_close(levels.forgotten, log_probabilities(model, graph, samples.forgotten))
    torch.testing.assert_close(levels.deleted, log_probabilities(model, graph, samples.deleted))
    assert levels.before is targets.before


def test_an_emptied_item_takes_after_the_same_one_whatever_else_the_request_empties():
    found = []
    for emptied in ([3], [3, 5], [1, 3, 7]):
        model, graph, *_ = case(ITEMS + 40)
        request = ForgetRequest.internal("item", torch.tensor(emptied))
        retained, _ = graph.split(request)
        samples = ForgetSamples.of(graph, retained, request.mask(graph))
        validation = SessionGraph.from_sequences(random_sessions(20, ITEMS, seed=20), num_items=ITEMS + 40)
        targets = click_targets(model, graph, retained, validation, samples, request.mask(graph))
        settle_emptied(model, graph, retained, samples, targets, seed=0)
        found.append(item_tables(model, ITEMS + 40)[0][emptied].detach().clone())
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][0], found[2][1])
    assert not torch.equal(found[1][0], found[1][1])


@pytest.mark.parametrize("loss", ["target", "ascent"])
def test_no_step_is_made_where_new_embeddings_are_enough(loss):
    """A whole session of items that no other one has: nothing is left to predict."""
    others = [r for r in random_sessions(60, ITEMS, seed=60) if len(r) > 2]
    graph = SessionGraph.from_sequences([*others, [ITEMS, ITEMS + 1, ITEMS]], num_items=ITEMS + 4)
    validation = SessionGraph.from_sequences(random_sessions(20, ITEMS, seed=20), num_items=ITEMS + 4)
    model = session_model("gru4rec", ITEMS + 4)
    request = ForgetRequest.internal("session", torch.tensor([len(others)]))
    result = CAU(validation=validation, loss=loss, on_rejection="keep").unlearn(model, graph, request)
    assert (result.log["emptied_items"], result.log["steps"]) == (2, [])
    tables = {id(p) for p in item_tables(result.model, ITEMS + 4)}
    untouched = torch.arange(ITEMS + 4) < ITEMS
    for old, new in zip(model.parameters(), result.model.parameters()):
        if id(new) in tables:
            assert torch.equal(old[untouched], new[untouched])
            assert not torch.equal(old[ITEMS : ITEMS + 2], new[ITEMS : ITEMS + 2])
        else:
            assert torch.equal(old, new)


def test_steps_are_made_for_joined_predictions_that_new_embeddings_do_not_reach():
    model, graph, *_ = case(ITEMS + 2)
    validation = SessionGraph.from_sequences(random_sessions(20, ITEMS, seed=20), num_items=ITEMS + 2)
    request = ForgetRequest.internal("item", torch.tensor([3]))
    result = CAU(validation=validation, on_rejection="keep").unlearn(model, graph, request)
    assert result.log["joined"] and result.log["steps"]
    far = CAU(validation=validation, on_rejection="keep", tolerance=100.0).unlearn(model, graph, request)
    assert far.log["steps"] == []


def test_without_any_to_take_after_the_level_is_that_of_the_least_probable_item():
    model, graph, retained, samples, targets = case(ITEMS)
    before = copy.deepcopy(model.state_dict())
    levels, count = settle_emptied(model, graph, retained, samples, targets, seed=0)
    assert count == 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    items = torch.arange(ITEMS)
    for k in range(len(samples.forgotten)):
        one = samples.forgotten.select(torch.tensor([k]))
        every = [log_probabilities(model, graph, replace(one, target=item.view(1))) for item in items]
        assert float(levels.forgotten[k]) == pytest.approx(min(map(float, every)))
    assert torch.equal(levels.deleted, targets.deleted)


def test_a_request_that_empties_no_item_changes_nothing():
    model, graph, _, _, _ = case(ITEMS + 2)
    request = ForgetRequest.internal("click", torch.tensor([[0], [1]]))
    retained, _ = graph.split(request)
    samples = ForgetSamples.of(graph, retained, request.mask(graph))
    levels = object()
    assert settle_emptied(model, graph, retained, samples, levels, seed=0) == (levels, 0)


def test_tables_of_a_foreign_model_are_its_embeddings_of_that_size():
    model = nn.ModuleDict(
        {"catalogue": nn.Embedding(ITEMS, 4), "places": nn.Embedding(50, 4), "square": nn.Linear(ITEMS, ITEMS)}
    )
    assert [id(t) for t in item_tables(model, ITEMS)] == [id(model["catalogue"].weight)]


class Foreign(nn.Module):
    """Knows how to be encoded, no more: the last click's row, and a map of its own to the catalogue."""

    def __init__(self, num_items, padded):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(num_items + padded, 8)
        self.out = nn.Linear(8, num_items, bias=False)


@encode.register
def _(model: Foreign, graph):
    last = graph.items[graph.click_ptr[1:] - 1]
    if not len(last):
        raise ValueError("no session")  # some models cannot encode nothing
    return model.table.weight[last], model.out.weight


@pytest.mark.parametrize(
    "make", [lambda n: Foreign(n, 0), lambda n: Foreign(n, 1), lambda n: GRU4Rec(n, 8, dropout=0.0)]
)
def test_cau_forgets_an_item_everywhere(make):
    _, graph, _, samples, _ = case(ITEMS + 2)
    validation = SessionGraph.from_sequences(
        [r for r in random_sessions(20, ITEMS, seed=20) if len(r) > 2], num_items=ITEMS + 2
    )
    model = make(ITEMS + 2)
    fit(model, graph, epochs=60, lr=0.02, batch_size=64, progress=False)
    result = CAU(validation=validation, steps=150, lr=0.02).unlearn(model, graph, ForgetRequest("item", ["3"]))
    never = [replace(samples.forgotten, target=torch.full_like(samples.forgotten.target, i)) for i in (12, 13)]
    level = max(float(log_probabilities(model, graph, one).mean()) for one in never)
    before, after = (float(log_probabilities(m, graph, samples.forgotten).mean()) for m in (model, result.model))
    assert result.log["emptied_items"] == 1
    assert level < before - 1
    assert after < before - 0.5 * (before - level)


def test_whole_sessions_need_no_row_of_an_empty_graph():
    _, graph, *_ = case(ITEMS + 2)
    validation = SessionGraph.from_sequences([[0, 1, 2], [4, 5, 6]], num_items=ITEMS + 2)
    result = CAU(validation=validation, steps=2).unlearn(
        Foreign(ITEMS + 2, 0), graph, ForgetRequest("session", graph.session_ids[:2])
    )
    assert result.log["joined"] == 0


def test_a_table_that_is_not_trained_stays():
    model, graph, *_ = case(ITEMS + 2)
    model.embedding.weight.requires_grad_(False)
    validation = SessionGraph.from_sequences([[0, 1, 2], [4, 5, 6]], num_items=ITEMS + 2)
    result = CAU(validation=validation, steps=2).unlearn(model, graph, ForgetRequest("item", ["3"]))
    assert torch.equal(result.model.embedding.weight, model.embedding.weight)
    assert not torch.equal(result.model.dense.weight, model.dense.weight)
