import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_toys import random_sessions, session_model
from toys import ConstantItems, factors, light_gcn, random_graph, two_tower

import graphunlearn as gu
from graphunlearn.ledger import Drift
from graphunlearn.ledger.drift import distance, gradient_scale

SESSIONS = gu.SessionGraph.from_sequences(random_sessions(14, 9), num_items=9)
KINDS = {
    "bce": (lambda: random_graph(), light_gcn, gu.BCE(weight_decay=0.1)),
    "squared": (lambda: random_graph(), two_tower, gu.SquaredError(weight_decay=0.1)),
    "factors": (lambda: random_graph(), factors, gu.BCE()),
    "bpr": (lambda: random_graph(values=False), light_gcn, gu.BPR(negatives=2)),
    "gru4rec": (lambda: SESSIONS, lambda g: session_model("gru4rec", g.num_items), gu.CrossEntropy()),
    "srgnn": (lambda: SESSIONS, lambda g: session_model("srgnn", g.num_items), gu.CrossEntropy()),
}
EPOCHS = (1 << 20, (1 << 20) + 1)


@pytest.fixture(params=KINDS)
def trained(request):
    graph, model, objective = KINDS[request.param]
    graph = graph()
    return model(graph), graph, objective


def requested(graph):
    """A request that empties nothing, and one that does."""
    if isinstance(graph, gu.SessionGraph):
        some = gu.ForgetRequest.internal("session", torch.tensor([int(graph.length.argmax())]))
        return some, gu.ForgetRequest.internal("item", graph.items[:1])
    return gu.ForgetRequest.internal("interaction", graph.pairs[:, :2]), gu.ForgetRequest.internal(
        "user", graph.pairs[0, :1]
    )


def per_sample(model, graph, objective, epoch):
    """The gradient of every sample by itself ``[num_samples, num_parameters]``, one backward pass each."""
    samples, parameters = objective.samples(graph, epoch=epoch), [p for p in model.parameters() if p.requires_grad]
    rows = []
    for k in range(len(samples)):
        loss = objective.losses(model, graph, samples.select(torch.tensor([k]))).sum()
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, parts)]))
    return torch.stack(rows)


def summed(model, graph, objective, epoch):
    """The gradient of all samples at once ``[num_parameters]``."""
    loss = objective.losses(model, graph, objective.samples(graph, epoch=epoch)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def other(model, seed=1):
    """The model with other parameters."""
    import copy

    torch.manual_seed(seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return moved


def test_the_distance_is_that_of_gradients_summed_one_by_one(trained):
    model, graph, objective = trained
    corrected, retained = other(model), graph.split(requested(graph)[0])[0]
    left = [
        per_sample(corrected, retained, objective, epoch).sum(0) - per_sample(model, graph, objective, epoch).sum(0)
        for epoch in EPOCHS
    ]
    if not isinstance(objective, gu.BPR):
        assert torch.equal(*left)
    expected = math.sqrt(max(0.0, float(left[0] @ left[1])))
    assert distance(model, graph, corrected, retained, objective) == pytest.approx(expected, rel=1e-9)
    assert distance(model, graph, model, graph, objective) == 0.0


def test_the_scale_is_the_root_of_the_summed_squares_of_all_samples(trained):
    model, graph, objective = trained
    expected = float(per_sample(model, graph, objective, EPOCHS[0]).norm())
    seeds = 60
    found = math.sqrt(sum(gradient_scale(model, graph, objective, seed) ** 2 for seed in range(seeds)) / seeds)
    assert found == pytest.approx(expected, rel=0.15)
    assert gradient_scale(model, graph, objective) == gradient_scale(model, graph, objective)


def test_rows_of_emptied_nodes_say_nothing(trained):
    model, graph, objective = trained
    retained = graph.split(requested(graph)[1])[0]
    if isinstance(graph, gu.SessionGraph):
        gone = (torch.bincount(graph.items, minlength=9) > 0) & (torch.bincount(retained.items, minlength=9) == 0)
        tables = {"embedding.weight": gone}
    else:
        gone = (graph.adjacency.degree > 0) & (retained.adjacency.degree == 0)
        users, items = gone.split([graph.num_users, graph.num_items])
        tables = {"embedding.weight": gone, "user_table.weight": users, "item_table.weight": items}
    assert bool(gone.any())
    zero = torch.cat(
        [
            tables[name].unsqueeze(1).expand_as(p).flatten() if name in tables else torch.zeros(p.numel()).bool()
            for name, p in model.named_parameters()
        ]
    )
    left = []
    for epoch in EPOCHS:
        before = per_sample(model, graph, objective, epoch).sum(0)
        if isinstance(graph, gu.SessionGraph):  # some models keep items in more than one table
            before = before.where(~(zero | _of_items(model, gone)), 0.0)
        else:
            before = before.where(~zero, 0.0)
        left.append(per_sample(other(model), retained, objective, epoch).sum(0) - before)
    expected = math.sqrt(max(0.0, float(left[0] @ left[1])))
    assert distance(model, graph, other(model), retained, objective) == pytest.approx(expected, rel=1e-9)


def _of_items(model, gone):
    masks = []
    for p in model.parameters():
        rows = gone if p.size(0) == gone.numel() else torch.zeros(p.size(0)).bool()
        masks.append(rows.view(-1, *[1] * (p.dim() - 1)).expand_as(p).flatten())
    return torch.cat(masks)


def test_a_request_followed_exactly_leaves_nothing():
    """Where the risk is quadratic, one undamped step is retraining to the same leftover gradient."""
    torch.manual_seed(3)
    graph, objective = random_graph(), gu.SquaredError(weight_decay=0.2)
    model = ConstantItems(graph).double()
    ledger = [None]
    for pair in range(3):
        request = gu.ForgetRequest.internal("interaction", graph.pairs[:, pair : pair + 1])
        exact = gu.IFRU(objective=objective, damping=0.0, tol=1e-12, max_iter=500, warm_start=False)
        result = exact.unlearn(model, graph, request)
        nothing = Drift.after(ledger[-1], model, graph, model, result.graph, objective, 1.0)
        drift = Drift.after(ledger[-1], model, graph, result.model, result.graph, objective, 1.0)
        assert drift.residual < 1e-7 < 1e-2 < nothing.residual
        ledger.append(drift)
        model, graph = result.model, result.graph
    assert ledger[-1].spent < 1e-6
    assert not ledger[-1].exhausted


@settings(max_examples=30)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.floats(0.1, 50))
def test_what_is_spent_is_the_root_of_the_summed_squares(residuals, budget):
    drift, spent = None, 0.0
    model, graph, objective = factors(random_graph()), random_graph(), gu.BCE()
    scale = gradient_scale(model, graph, objective)
    with pytest.MonkeyPatch.context() as patch:
        for left in residuals:
            patch.setattr("graphunlearn.ledger.drift.distance", lambda *_, left=left: left * scale)
            drift = Drift.after(drift, model, graph, model, graph, objective, budget)
            spent += left**2
    assert drift.spent == pytest.approx(math.sqrt(spent))
    assert drift.requests == len(residuals)
    assert drift.scale == pytest.approx(scale)
    assert drift.exhausted == (drift.spent > budget)


def test_for_negatives_the_noise_of_the_draws_does_not_count():
    """The squared distance is right on average; with one draw it would be too large by the noise of the draws."""
    graph = random_graph(14, 60, 120, values=False)
    model, objective = light_gcn(graph, scale=0.5), gu.BPR(negatives=1)
    corrected, retained = other(model), graph.split(requested(graph)[0])[0]

    def left(epoch):
        return summed(corrected, retained, objective, epoch) - summed(model, graph, objective, epoch)

    many = torch.stack([left(epoch) for epoch in range(30)])
    products = (many @ many.t())[~torch.eye(30, dtype=torch.bool)]
    assert float(many.square().sum(1).mean()) > 1.2 * float(products.mean())
    found = distance(model, graph, corrected, retained, objective) ** 2
    assert found == pytest.approx(max(0.0, float(left(EPOCHS[0]) @ left(EPOCHS[1]))))


def test_in_pieces_it_is_the_same(trained, monkeypatch):
    model, graph, objective = trained
    retained = graph.split(requested(graph)[0])[0]
    whole = distance(model, graph, other(model), retained, objective)
    monkeypatch.setattr("graphunlearn.ledger.drift._CHUNK", {"interactions": 3, "sessions": 3})
    assert distance(model, graph, other(model), retained, objective) == pytest.approx(whole, rel=1e-9)


def test_models_are_left_as_they_are(trained):
    model, graph, objective = trained
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        distance(model, graph, model, graph, objective)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_without_a_gradient_has_no_scale():
    graph = random_graph()
    model = factors(graph)
    with torch.no_grad():
        model.embedding.weight.zero_()
    drift = Drift.after(None, model, graph, model, graph, gu.BCE(weight_decay=0.0), 1.0)
    assert (drift.scale, drift.residual, drift.spent) == (1.0, 0.0, 0.0)


def test_what_is_not_finite_is_told():
    graph = random_graph()
    model = factors(graph, scale=1e200)
    with pytest.raises(FloatingPointError, match="the drift is not finite"):
        Drift.after(None, model, graph, factors(graph), graph, gu.SquaredError(), 1.0)
