"""Per-sample losses against plain loops, their derivatives against autograd, their linear maps against adjoints."""

import math
from dataclasses import dataclass

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from toys import factors, light_gcn, random_graph, two_tower

from graphunlearn.data import InteractionGraph
from graphunlearn.nn import BCE, BPR, Encoded, Samples, SquaredError, default_objective, encode
from graphunlearn.nn.training.negatives import draw_negatives

EXACT = {"rtol": 1e-11, "atol": 1e-12}  # float64, sums of a few terms

OBJECTIVES = {
    "bpr": BPR(weight_decay=0.3, negatives=3),
    "bce": BCE(weight_decay=0.3),
    "squared": SquaredError(weight_decay=0.3),
}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


def naive_loss(objective, encoded, samples):
    users, items = encoded.queries.tolist(), encoded.items.tolist()
    user_base = users if encoded.query_base is None else encoded.query_base.tolist()
    item_base = items if encoded.item_base is None else encoded.item_base.tolist()

    def dot(a, b):
        return math.fsum(x * y for x, y in zip(a, b))

    out = []
    for s in range(len(samples)):
        u, i = int(samples.users[s]), int(samples.items[s])
        m = dot(users[u], items[i])
        penalty = dot(user_base[u], user_base[u]) + dot(item_base[i], item_base[i])
        if isinstance(objective, BPR):
            negatives = samples.negatives[s].tolist()
            margins = [m - dot(users[u], items[j]) for j in negatives if j != i]  # the own item stands for none
            loss = sum(-math.log(1 / (1 + math.exp(-x))) for x in margins) / len(negatives)
            penalty += sum(dot(item_base[j], item_base[j]) for j in negatives if j != i) / len(negatives)
        elif isinstance(objective, BCE):
            p, y = 1 / (1 + math.exp(-m)), float(samples.target[s])
            loss = -(y * math.log(p) + (1 - y) * math.log(1 - p))
        else:
            loss = (m - float(samples.target[s])) ** 2 / 2
        out.append(loss + objective.weight_decay / 2 * penalty)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("model", [light_gcn, factors, two_tower])
def test_losses_are_the_plain_loop_and_not_reduced(objective, model):
    graph = random_graph()
    encoded = encode(model(graph), graph)
    samples = objective.samples(graph)
    loss = objective(encoded, samples)
    assert loss.shape == (graph.num_interactions,)
    torch.testing.assert_close(loss.detach(), naive_loss(objective, encoded, samples), **EXACT)


def test_rows_without_a_base_are_penalised_themselves(objective):
    graph = random_graph()
    encoded = Encoded(*encode(light_gcn(graph), graph)[:2])
    samples = objective.samples(graph)
    torch.testing.assert_close(objective(encoded, samples).detach(), naive_loss(objective, encoded, samples), **EXACT)


def test_the_loss_of_a_part_is_a_part_of_the_loss(objective):
    graph = random_graph()
    encoded = encode(light_gcn(graph), graph)
    samples = objective.samples(graph)
    index = torch.tensor([4, 0, 17])
    whole = objective(encoded, samples)
    torch.testing.assert_close(objective(encoded, samples.select(index)), whole[index], **EXACT)
    mask = torch.zeros(20, dtype=torch.bool)
    mask[[2, 9]] = True
    torch.testing.assert_close(objective(encoded, samples.select(mask)), whole[mask], **EXACT)
    torch.testing.assert_close(objective(encoded, objective.samples(graph, mask=mask)), whole[mask], **EXACT)
    assert objective(encoded, samples.select(~mask & mask)).shape == (0,)


def test_no_decay_no_penalty():
    graph = random_graph()
    encoded = encode(factors(graph), graph)
    for cls in (BPR, BCE, SquaredError):
        free = cls(weight_decay=0.0)
        samples = free.samples(graph)
        torch.testing.assert_close(free(encoded, samples).detach(), naive_loss(free, encoded, samples), **EXACT)


def some_margins(objective, samples):
    width = samples.negatives.size(1) if samples.negatives is not None else 1
    return 4 * torch.randn(len(samples), width, dtype=torch.float64)


def test_phi_and_its_derivatives(objective):
    samples = objective.samples(random_graph())
    margins = some_margins(objective, samples).requires_grad_()
    value, first, second = objective.phi(margins, samples)
    assert value.shape == first.shape == second.shape == margins.shape
    slope = torch.autograd.grad(objective.loss(margins, samples).sum(), margins, create_graph=True)[0]
    torch.testing.assert_close(value, objective.loss(margins, samples), **EXACT)
    torch.testing.assert_close(first, slope, **EXACT)
    torch.testing.assert_close(second, torch.autograd.grad(slope.sum(), margins)[0], **EXACT)
    assert (second >= 0).all()


def test_phi_where_the_exponential_overflows(objective):
    samples = objective.samples(random_graph())
    margins = some_margins(objective, samples).sign().float() * 1e4
    for part in (*objective.phi(margins, samples), objective.loss(margins, samples)):
        assert torch.isfinite(part).all()


def test_margins_transposed_is_the_adjoint(objective):
    samples = objective.samples(random_graph())
    scores = torch.randn(len(samples.pattern.rows), dtype=torch.float64)
    margins = objective.margins(scores, samples)
    values = torch.randn_like(margins)
    back = objective.margins_transposed(values, samples)
    assert back.shape == scores.shape
    torch.testing.assert_close((margins * values).sum(), (scores * back).sum(), **EXACT)


def test_the_pattern_lists_what_is_scored(objective):
    graph = random_graph()
    samples = objective.samples(graph)
    encoded = encode(light_gcn(graph), graph)
    margins = objective.margins(samples.pattern.dots(encoded.queries, encoded.items), samples)
    for s in range(len(samples)):
        own = encoded.queries[samples.users[s]] @ encoded.items[samples.items[s]]
        if samples.negatives is None:
            expected = own[None]
        else:
            expected = own - torch.stack(
                [encoded.queries[samples.users[s]] @ encoded.items[j] for j in samples.negatives[s]]
            )
        torch.testing.assert_close(margins[s], expected, **EXACT)


def test_row_counts_are_the_curvature_of_the_penalty(objective):
    graph = random_graph()
    samples = objective.samples(graph)
    table = torch.randn(graph.num_nodes, 1, dtype=torch.float64)
    zeros = torch.zeros(graph.num_nodes, 1, dtype=torch.float64)

    def penalty(table):
        base, flat = table.split([7, 6]), zeros.split([7, 6])
        return objective(Encoded(*flat, *base), samples).sum()

    hessian = torch.autograd.functional.hessian(penalty, table).view(graph.num_nodes, graph.num_nodes)
    expected = objective.weight_decay * objective.row_counts(samples)
    torch.testing.assert_close(torch.diag(hessian), expected.double(), rtol=1e-12, atol=0.0)
    assert torch.equal(hessian, torch.diag(torch.diag(hessian)))


def test_a_subclass_that_changes_phi_changes_the_loss():
    @dataclass(frozen=True, kw_only=True)
    class SquaredHinge(BPR):
        def phi(self, margins, samples):
            short = (1 - margins).clamp(min=0)
            return 0.5 * short.square(), -short, (margins < 1).to(margins.dtype)

    graph = random_graph()
    hinge, encoded = SquaredHinge(weight_decay=0.0), encode(factors(graph), graph)
    samples = hinge.samples(graph)
    scores = hinge.margins(samples.pattern.dots(encoded.queries, encoded.items), samples)
    torch.testing.assert_close(hinge(encoded, samples), 0.5 * (1 - scores).clamp(min=0).square().mean(1), **EXACT)
    assert BPR.loss is not SquaredHinge.loss


# ---- samples


def test_samples_are_the_interactions(objective):
    graph = random_graph()
    samples = objective.samples(graph)
    assert len(samples) == graph.num_interactions
    assert torch.equal(torch.stack([samples.users, samples.items]), graph.pairs)
    assert samples.size == (7, 6)


def test_targets_are_labels_and_ratings():
    graph = random_graph()
    assert torch.equal(BCE().samples(graph).target, graph.label)
    assert torch.equal(SquaredError().samples(graph).target, graph.rating)
    assert BPR().samples(graph).target is None


def test_stored_negatives_are_those_of_the_graph_and_epochs_draw_new_ones():
    graph = random_graph(num_items=40)
    objective = BPR(negatives=3, seed=5)
    stored = objective.samples(graph).negatives
    assert torch.equal(stored, draw_negatives(graph, *graph.pairs, 3, 5))
    assert torch.equal(stored, objective.samples(graph).negatives)
    fresh = [objective.samples(graph, epoch=epoch).negatives for epoch in (1, 2, 2)]
    assert torch.equal(fresh[1], fresh[2])
    assert not torch.equal(fresh[0], fresh[1])
    assert not torch.equal(stored, fresh[0])
    assert not torch.equal(stored, BPR(negatives=3, seed=6).samples(graph).negatives)
    for other in (BCE(), SquaredError()):
        assert torch.equal(other.samples(graph, epoch=3).target, other.samples(graph).target)


def test_the_same_objective_is_the_same_function_after_a_removal():
    graph = random_graph(20, 15, 100)
    keep = torch.ones(100, dtype=torch.bool)
    keep[:4] = False
    untouched = ~torch.isin(graph.pairs[0, keep], graph.pairs[0, ~keep])
    objective = BPR(negatives=4)
    before, after = objective.samples(graph).select(keep), objective.samples(graph.select(keep))
    assert torch.equal(before.negatives[untouched], after.negatives[untouched])


@given(graphs(min_interactions=1), st.data())
def test_touching_is_the_plain_loop(graph, data):
    samples = BPR(negatives=2).samples(graph)
    users = torch.tensor(data.draw(st.lists(st.booleans(), min_size=graph.num_users, max_size=graph.num_users)))
    items = torch.tensor(data.draw(st.lists(st.booleans(), min_size=graph.num_items, max_size=graph.num_items)))
    expected = [
        bool(users[samples.users[s]] or items[samples.items[s]] or items[samples.negatives[s]].any())
        for s in range(len(samples))
    ]
    assert samples.touching(users, items).tolist() == expected
    plain = Samples(samples.users, samples.items, samples.size)
    expected = [bool(users[u] or items[i]) for u, i in graph.pairs.t().tolist()]
    assert plain.touching(users, items).tolist() == expected


# ---- defaults and errors


def test_the_default_objective_follows_the_labels():
    graph = random_graph()
    assert default_objective(graph) == BCE()
    assert default_objective(random_graph(values=False)) == BPR()


@pytest.mark.parametrize("cls", [BPR, BCE, SquaredError])
@pytest.mark.parametrize("weight_decay", [-1e-9, float("nan"), float("inf"), "2"])
def test_a_negative_penalty_is_refused(cls, weight_decay):
    with pytest.raises(ValueError, match=r"'weight_decay' must be finite and not negative \(got"):
        cls(weight_decay=weight_decay)


def test_bpr_needs_a_negative():
    with pytest.raises(ValueError, match=r"'negatives' must be at least 1 \(got 0\)"):
        BPR(negatives=0)


def test_graphs_that_lack_what_is_supervised():
    bare = InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    with pytest.raises(ValueError, match=r"'graph' must carry a 'label'.*got none.*binarize"):
        BCE().samples(bare)
    with pytest.raises(ValueError, match=r"'graph' must carry a 'rating'.*got none"):
        SquaredError().samples(bare)


def test_a_misspelt_option_is_refused():
    for cls in (BPR, BCE, SquaredError):
        with pytest.raises(TypeError, match="wieght_decay"):
            cls(wieght_decay=0.1)
