"""The baselines do what they say and nothing else."""

import copy

import pytest
import torch
from session_toys import session_graph
from toys import light_gcn, random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn import BCE, BPR, SRGNN, FitSettings, encode, fit, reset_parameters
from graphunlearn.operators import FineTune, GradientAscent, Retrain, Unlink, UnlinkRedraw
from graphunlearn.operators.shared.warm_start import fresh_seed


@pytest.fixture
def graph():
    return random_graph()


@pytest.fixture
def model(graph):
    return light_gcn(graph)


@pytest.fixture
def some(graph):
    return ForgetRequest.internal("interaction", graph.pairs[:, :4])


def test_unlinking_changes_the_graph_alone(graph, model, some):
    result = Unlink().unlearn(model, graph, some)
    assert torch.equal(result.model.embedding.weight, model.embedding.weight)
    assert result.log == {}
    before, after = encode(model, graph), encode(result.model, result.graph)
    assert not torch.allclose(before.queries, after.queries)  # which is enough to move what is propagated


def test_redrawing_changes_the_rows_of_emptied_nodes_alone(graph, model):
    result = UnlinkRedraw(seed=3).unlearn(model, graph, ForgetRequest.internal("user", torch.tensor([2, 4])))
    emptied = graph.emptied(result.graph)
    assert emptied[[2, 4]].all()
    assert result.log == {"emptied_nodes": int(emptied.sum())}
    fresh = copy.deepcopy(model)
    reset_parameters(fresh, fresh_seed(3))
    before, after = model.embedding.weight, result.model.embedding.weight
    assert torch.equal(after[~emptied], before[~emptied])
    assert torch.equal(after[emptied], fresh.embedding.weight[emptied])  # no node without interactions to take after
    assert not torch.equal(UnlinkRedraw().unlearn(model, graph, result.request).model.embedding.weight, after)


def test_without_emptied_nodes_redrawing_is_unlinking(graph, model, some):
    result = UnlinkRedraw().unlearn(model, graph, some)
    assert not graph.emptied(result.graph).any()
    assert torch.equal(result.model.embedding.weight, model.embedding.weight)


@pytest.mark.parametrize("num_items", [5, 12])
def test_items_that_lose_all_clicks_are_redrawn(num_items):
    sessions = session_graph([[0, 1, 2], [3, 1, 4], [0, 2, 3]], num_items)
    model = SRGNN(num_items, 4)
    result = UnlinkRedraw(seed=1).unlearn(model, sessions, ForgetRequest("item", ["1"]))
    assert result.log == {"emptied_nodes": 1}
    fresh = copy.deepcopy(model)
    reset_parameters(fresh, fresh_seed(1))
    for (name, before), after in zip(model.named_parameters(), result.model.parameters()):
        if len(before) != num_items or name not in {"embedding.weight", "output.weight", "bias"}:
            assert torch.equal(before, after), name
            continue
        others = [item for item in range(num_items) if item != 1]
        assert torch.equal(before[others], after[others])
        never = before[5:].mean(0) if num_items == 12 else 0.0  # items that no session has, if there are enough
        torch.testing.assert_close(after[1], fresh.get_parameter(name)[1] + never)


@pytest.mark.parametrize("objective", [None, BPR(negatives=2)])
def test_fine_tuning_is_training_on(graph, model, some, objective):
    operator = FineTune(objective=objective, epochs=3, lr=0.02, batch_size=7, seed=5)
    result = operator.unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    retained, _ = graph.split(some)
    settings = FitSettings(epochs=3, lr=0.02, batch_size=7, seed=5)
    fitted = fit(reference, retained, objective=objective, settings=settings)
    assert torch.equal(result.model.embedding.weight, reference.embedding.weight)
    result.log.pop("acceptance")
    assert result.log == {"epochs": 3, "loss": [record["loss"] for record in fitted.history]}


@pytest.mark.parametrize("objective", [None, BPR(negatives=2, weight_decay=0.5)])
def test_ascent_climbs_the_loss_of_what_is_forgotten(graph, model, some, objective):
    result = GradientAscent(objective=objective, steps=8, lr=0.05).unlearn(model, graph, some)
    losses = result.log["loss"]
    assert len(losses) == 8
    assert losses == sorted(losses)
    plain = BCE(weight_decay=0.0) if objective is None else BPR(negatives=2, weight_decay=0.0)
    samples = plain.samples(graph, mask=some.mask(graph))
    first = float(plain(encode(model, result.graph), samples).detach().mean())
    last = float(plain(encode(result.model, result.graph), samples).detach().mean())
    assert losses[0] == pytest.approx(first)  # without the penalty, on the graph that remains
    assert last > losses[-1]


def test_one_step_of_ascent_is_one_step_of_adam(graph, model, some):
    result = GradientAscent(objective=BCE(), steps=1, lr=0.05).unlearn(model, graph, some)
    reference = copy.deepcopy(model)
    retained, _ = graph.split(some)
    plain = BCE(weight_decay=0.0)
    loss = plain(encode(reference, retained), plain.samples(graph, mask=some.mask(graph))).mean()
    (-loss).backward()
    torch.optim.Adam(reference.parameters(), lr=0.05).step()
    torch.testing.assert_close(result.model.embedding.weight, reference.embedding.weight)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (lambda: FineTune(epochs=0), "epochs"),
        (lambda: FineTune(lr=-1.0), "lr"),
        (lambda: FineTune(batch_size=0), "batch_size"),
        (lambda: GradientAscent(steps=0), "steps"),
        (lambda: GradientAscent(lr=0.0), "lr"),
        (lambda: GradientAscent(lr=float("nan")), "lr"),
    ],
)
def test_settings_out_of_range_are_refused(graph, model, some, operator, name):
    before = model.embedding.weight.clone()
    with pytest.raises(ValueError, match=f"'{name}' must be (a )?positive"):
        operator().unlearn(model, graph, some, inplace=True)
    assert torch.equal(model.embedding.weight, before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": "x"}, r"'lr' must be positive and finite \(got 'x'\)"),
        ({"epochs": 1.5}, r"'epochs' must be a positive integer \(got 1.5\)"),
        ({"batch_size": 0}, r"'batch_size' must be a positive integer \(got 0\)"),
    ],
)
def test_settings_of_fine_tuning(setting, message):
    with pytest.raises(ValueError, match=message):
        FineTune(**setting)


@pytest.mark.parametrize("method", [FineTune(objective=BCE()), Retrain(objective=BCE())], ids=["finetune", "retrain"])
def test_a_request_that_leaves_nothing_to_train_on_is_named(method):
    pairs = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
    graph = InteractionGraph.from_edges(pairs, label=torch.tensor([0.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"'request' must leave a graph that BCE can be trained on \(got only label"):
        method.unlearn(light_gcn(graph), graph, ForgetRequest.internal("user", torch.tensor([0])))
