"""Further steps in embeddings that lose a part of their interactions, against autograd of their objective."""

from dataclasses import replace

import pytest
import torch
from toys import factors, light_gcn, random_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.func.solve import Solution
from graphunlearn.nn import BPR, encode
from graphunlearn.operators import IFRU
from graphunlearn.operators.ifru import settling
from graphunlearn.operators.ifru.settling import partly_kept
from graphunlearn.operators.shared.right_hand_side import retained_samples

OBJECTIVE = BPR(negatives=2, weight_decay=0.0)
DAMPING = 2.0


def setting(model_of):
    graph = random_graph(60, 50, 400)
    removed = torch.zeros(400, dtype=torch.bool)
    removed[::40] = True
    retained = graph.select(~removed)
    request = ForgetRequest("interaction", tuple(map(tuple, graph.pairs[:, removed].t().tolist())), raw=False)
    return model_of(graph, scale=1.0), graph, retained, removed, request


def unlearned(model, graph, request, **options):
    method = IFRU(objective=OBJECTIVE, damping=DAMPING, negatives=2, on_rejection="keep", refit=False, **options)
    return method.unlearn(model, graph, request)


def risk(model, table, graph, samples):
    """The sum of the losses, as a function of the table."""
    (name,) = (name for name, p in model.named_parameters() if p.requires_grad)
    z = torch.func.functional_call(_Encodes(model, graph), {f"model.{name}": table}, ())
    user, item = z[samples.users], z[samples.items + graph.num_users]
    negative = z[samples.negatives + graph.num_users]
    margin = (user * item).sum(1, keepdim=True) - (user.unsqueeze(1) * negative).sum(2)
    return torch.nn.functional.softplus(-margin).mean(1).sum()


class _Encodes(torch.nn.Module):
    def __init__(self, model, graph):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self):
        encoded = encode(self.model, self.graph)
        return torch.cat([encoded.queries, encoded.items])


@pytest.mark.parametrize("model_of", [factors, light_gcn])
def test_the_gradient_vanishes_in_what_was_partly_forgotten_and_the_rest_keeps_the_first_step(model_of, monkeypatch):
    model, graph, retained, removed, request = setting(model_of)
    (trained,) = (p.detach().clone() for p in model.parameters() if p.requires_grad)
    monkeypatch.setattr(settling, "_MOST", 0)
    (first,) = (
        p.detach() for p in unlearned(model, graph, request, settle=True, within_noise=0, tol=1e-6).model.parameters()
    )
    monkeypatch.setattr(settling, "_MOST", 60)
    result = unlearned(model, graph, request, settle=True, within_noise=0, tol=1e-6)
    (found,) = (p.detach() for p in result.model.parameters())

    share = (retained.degree / graph.degree.clamp(min=1)).where(graph.degree > 0, 1.0).unsqueeze(1)
    rows = (share < 1).view(-1) & (share > 0).view(-1)
    before = OBJECTIVE.samples(graph)
    after = retained_samples(OBJECTIVE, before, graph, retained, removed)

    def gradient(table, on, samples):
        table = table.clone().requires_grad_()
        return torch.autograd.grad(risk(model, table, on, samples), table)[0]

    tilt = gradient(trained, graph, before) * share
    slope = [
        (gradient(table, retained, after) - tilt + DAMPING * (table - trained * share))[rows]
        for table in (first, found)
    ]
    assert torch.equal(first[~rows], found[~rows])
    assert float(slope[1].norm()) < 1e-4 * float(slope[0].norm())
    log = result.log["settled"]
    assert log["rows"] == int(rows.sum())
    torch.testing.assert_close(log["gradient"][0], float(slope[0].norm()), rtol=1e-4, atol=0)


def test_a_step_that_raises_the_gradient_is_not_taken_and_a_small_one_is_the_last(monkeypatch):
    model, graph, _, _, request = setting(factors)
    monkeypatch.setattr(settling, "_MOST", 0)
    first = unlearned(model, graph, request, settle=True, within_noise=0)
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(settling, "conjugate_gradients", lambda product, b, **_: Solution(-100 * b, 0.0, 1, True))
        kept = unlearned(model, graph, request, settle=True, within_noise=0)
    assert kept.log["settled"]["steps"] == 0
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), kept.model.parameters()))
    many = unlearned(model, graph, request, settle=True, within_noise=0).log["settled"]["steps"]
    one = unlearned(model, graph, request, settle=True, within_noise=0.999).log["settled"]["steps"]
    assert one < many


def test_neighbours_of_emptied_nodes_are_left_to_their_fit():
    graph = random_graph(60, 50, 400)
    request = ForgetRequest.internal("user", torch.tensor([4]))
    retained, _ = graph.split(request)
    removed = request.mask(graph)
    items = (graph.pairs[1, removed] + graph.num_users).unique()
    items = items[retained.degree[items] > 0]
    assert partly_kept(graph, retained, removed, refits=False).equal(items)
    assert len(partly_kept(graph, retained, removed, refits=True)) == 0


@pytest.mark.parametrize(
    "options", [{"prune": 0.5}, {"max_steps": 2}, {"propagation": False}, {"curvature": "hessian"}]
)
def test_other_steps_do_not_settle(options):
    with pytest.raises(ValueError, match="'settle' must be False unless one default step is made"):
        IFRU(settle=True, **options)


@pytest.mark.parametrize(("factor", "lengths"), [(3.0, [1.0, 0.5]), (-1.0, [1.0, 0.5, 0.25])])
def test_a_step_is_halved_until_the_gradient_is_lower(monkeypatch, factor, lengths):
    model, graph, _, _, request = setting(factors)
    solve, starts, steps = settling.conjugate_gradients, [], []

    def wrong(*args, **options):
        found = solve(*args, **options)
        steps.append(factor * found.x)
        return replace(found, x=steps[-1])

    class Watched(settling.Tilted):
        def gradient(self, theta):
            starts.append(theta)
            return super().gradient(theta)

    monkeypatch.setattr(settling, "conjugate_gradients", wrong)
    monkeypatch.setattr(settling, "Tilted", Watched)
    log = unlearned(model, graph, request, settle=True).log["settled"]
    tried = [at - starts[0] for at in starts[1 : 1 + len(lengths)]]
    for at, length in zip(tried, lengths, strict=True):
        torch.testing.assert_close(at, length * steps[0])
    assert (log["stopped"] == "not lower") is (factor < 0)
    assert (log["steps"] == 0) is (factor < 0)
