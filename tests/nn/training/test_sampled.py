"""Sampled losses of implicit data: plain loops, derivatives against autograd, draws, and use in operators."""

import dataclasses
import math

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from toys import Wrapped, factors, light_gcn, random_graph, two_tower

import graphunlearn as gu
from graphunlearn.data import InteractionGraph
from graphunlearn.nn import BPR, Encoded, InBatchSoftmax, LinearRisk, Risk, SampledBCE, SampledSoftmax, encode, risk_of
from graphunlearn.nn.training import negatives
from graphunlearn.nn.training.negatives import draw_popular
from graphunlearn.operators.shared.node_curvature import node_curvatures

EXACT = {"rtol": 1e-9, "atol": 1e-10}  # float64, sums over some hundred terms
LOOSE = {"rtol": 1e-5, "atol": 1e-6}  # offsets are stored in single precision

OBJECTIVES = {
    "bce": SampledBCE(weight_decay=0.3, negatives=3),
    "bce, weighted": SampledBCE(weight_decay=0.3, negatives=3, ratio=1.5),
    "softmax": SampledSoftmax(weight_decay=0.3, negatives=3, temperature=0.7),
    "softmax, popular": SampledSoftmax(weight_decay=0.3, negatives=3, proposal="popularity"),
    "softmax, uncorrected": SampledSoftmax(weight_decay=0.3, negatives=3, proposal="popularity", log_q=False),
    "in batch": InBatchSoftmax(weight_decay=0.3, negatives=3, batch_size=9, temperature=0.7),
    "in batch, uncorrected": InBatchSoftmax(weight_decay=0.3, negatives=3, batch_size=9, log_q=False),
}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


@pytest.fixture
def graph():
    return random_graph(7, 6, 20)


def naive_loss(objective, users, items, user_base, item_base, samples, graph):
    """The loss of every sample, written down for lists of numbers or for rows of tensors."""
    popularity = torch.bincount(graph.pairs[1], minlength=graph.num_items).tolist()
    out = []
    for s in range(len(samples)):
        u, i, negatives = int(samples.users[s]), int(samples.items[s]), samples.negatives[s].tolist()
        others = [j for j in negatives if j != i]
        score = {j: (users[u] * items[j]).sum() for j in {i, *others}}
        if isinstance(objective, SampledBCE):
            weight = (objective.ratio or objective.negatives) / objective.negatives
            loss = torch.log(1 + torch.exp(-score[i])) + weight * sum(
                torch.log(1 + torch.exp(score[j])) for j in others
            )
        else:
            in_batch = isinstance(objective, InBatchSoftmax)
            corrected = objective.log_q and (in_batch or objective.proposal == "popularity")
            q = [n / graph.num_interactions if corrected else 1.0 for n in popularity]
            stands = (objective.batch_size - 1) / objective.negatives if in_batch else 1.0
            own = torch.exp(score[i] / objective.temperature) / q[i]
            loss = -torch.log(
                own / (own + stands * sum(torch.exp(score[j] / objective.temperature) / q[j] for j in others))
            )
        penalty = user_base[u].square().sum() + item_base[i].square().sum()
        penalty = penalty + sum(item_base[j].square().sum() for j in others) / len(negatives)
        out.append(loss + objective.weight_decay / 2 * penalty)
    return torch.stack(out)


@pytest.mark.parametrize("model", [light_gcn, factors, two_tower])
def test_losses_are_the_plain_loop_and_not_reduced(objective, model, graph):
    encoded = encode(model(graph), graph)
    samples = objective.samples(graph)
    loss = objective(encoded, samples)
    assert loss.shape == (graph.num_interactions,)
    torch.testing.assert_close(loss, naive_loss(objective, *encoded, samples, graph), **LOOSE)


def test_the_loss_of_a_part_is_a_part_of_the_loss(objective, graph):
    encoded = encode(light_gcn(graph), graph)
    whole, mask = objective(encoded, objective.samples(graph)), torch.arange(20) % 3 == 0
    for part in (objective.samples(graph).select(mask), objective.samples(graph, mask=mask)):
        torch.testing.assert_close(objective(encoded, part), whole[mask], **EXACT)
    assert objective(encoded, objective.samples(graph).select(~mask & mask)).shape == (0,)


def test_the_derivatives_in_the_margins(objective, graph):
    samples = objective.samples(graph)
    margins = (4 * torch.randn(20, 4, dtype=torch.float64)).requires_grad_()
    value, first, second = objective.phi(margins, samples)
    torch.testing.assert_close(value, objective.loss(margins, samples), **EXACT)
    each = objective.loss(margins, samples).mean(1)
    slope = torch.autograd.grad(each.sum(), margins, create_graph=True)[0]
    torch.testing.assert_close(first / 4, slope, **EXACT)
    change = torch.randn_like(margins)
    product = torch.autograd.grad(slope, margins, change)[0]
    torch.testing.assert_close(objective.second(margins, samples)(change), product, **EXACT)
    for k in range(4):
        unit = torch.zeros_like(margins)
        unit[:, k] = 1.0
        torch.testing.assert_close(objective.second(margins, samples)(unit)[:, k], second[:, k] / 4, **EXACT)


def test_extreme_margins_stay_finite(objective, graph):
    samples = objective.samples(graph)
    margins = torch.randn(20, 4).sign() * 1e4
    for part in (*objective.phi(margins, samples), objective.loss(margins, samples)):
        assert torch.isfinite(part).all()


def test_margins_transposed_is_the_adjoint(objective, graph):
    samples = objective.samples(graph)
    scores = torch.randn(80, dtype=torch.float64)
    margins = objective.margins(scores, samples)
    values = torch.randn_like(margins)
    back = objective.margins_transposed(values, samples)
    torch.testing.assert_close((margins * values).sum(), (scores * back).sum(), **EXACT)


# ---- the risk


def as_matrix(product, size):
    return torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)], 1)


@pytest.mark.parametrize("model", [light_gcn, factors, two_tower])
def test_the_risk_its_gradient_and_both_curvatures(objective, model):
    graph = random_graph(5, 4, 8)
    inner = model(graph)
    linear = model is not two_tower
    risk, generic = risk_of(inner, graph, objective), Risk(inner, graph, objective)
    assert isinstance(risk, LinearRisk) == linear
    theta = torch.randn_like(risk.parameters)

    def naive(theta):
        encoded = generic.encode(theta)
        return naive_loss(objective, *encoded, risk.samples, graph).sum()

    assert risk.value(theta) == pytest.approx(float(naive(theta)), rel=1e-6)
    torch.testing.assert_close(risk.gradient(theta), torch.func.grad(naive)(theta), **LOOSE)
    dense = torch.autograd.functional.hessian(naive, theta)
    for which in (risk, generic):
        torch.testing.assert_close(
            as_matrix(which.curvature(theta, "hessian"), len(theta)), dense, rtol=1e-4, atol=1e-4
        )

    def margins(theta):
        encoded = generic.encode(theta)
        return objective.margins(risk.samples.pattern.dots(encoded.queries, encoded.items), risk.samples)

    jacobian = torch.autograd.functional.jacobian(margins, theta)  # [num_samples, n, num_parameters]
    second = objective.second(margins(theta), risk.samples)
    middle = torch.stack([second(jacobian[..., p]) for p in range(len(theta))], -1)
    expected = torch.einsum("skp,skq->pq", jacobian, middle)
    free = type(objective)(**{**vars(objective), "weight_decay": 0.0})
    for made in (risk_of, Risk):
        half = as_matrix(made(inner, graph, free).curvature(theta), len(theta))
        torch.testing.assert_close(half, expected, rtol=1e-6, atol=1e-6)
        assert torch.linalg.eigvalsh(half)[0] > -1e-9
    if linear:
        assert (risk.jacobi(theta) > 0).any()
        slope = float(generic.gradient(theta) @ theta)
        assert risk.radial_slope(theta) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", ["closed form", "autograd"])
def test_fewer_negatives_are_the_first_ones(kind):
    graph = random_graph(7, 40, 20)
    inner = light_gcn(graph)
    model = inner if kind == "closed form" else Wrapped(inner)
    for many, few in (
        (SampledBCE(negatives=5, ratio=5), SampledBCE(negatives=2, ratio=5)),
        (InBatchSoftmax(negatives=5, batch_size=9), InBatchSoftmax(negatives=2, batch_size=9)),
    ):
        risk, fewer = risk_of(model, graph, many), risk_of(model, graph, few)
        theta = torch.randn_like(risk.parameters)
        part = risk.with_negatives(2)
        assert part.value(theta) == pytest.approx(fewer.value(theta), rel=1e-6)
        torch.testing.assert_close(part.curvature(theta)(theta), fewer.curvature(theta)(theta), **LOOSE)
        assert risk.with_negatives(5) is risk


def test_more_negatives_keep_the_expectation():
    assert SampledBCE(negatives=2).with_negatives(64) == SampledBCE(negatives=64, ratio=2.0)
    assert SampledBCE(negatives=2, ratio=1.0).with_negatives(3) == SampledBCE(negatives=3, ratio=1.0)
    assert InBatchSoftmax(negatives=4, batch_size=9).with_negatives(64) == InBatchSoftmax(negatives=8, batch_size=9)
    assert SampledSoftmax(negatives=4).with_negatives(64) == SampledSoftmax(negatives=4)
    assert gu.BPR().with_negatives(9) == gu.BPR(negatives=9)
    graph = random_graph(7, 400, 20)
    encoded = encode(factors(graph), graph)
    loss = [SampledBCE(negatives=2, ratio=2.0, seed=seed) for seed in range(200)]
    few = torch.stack([o(encoded, o.samples(graph)).detach().sum() for o in loss])
    many = SampledBCE(negatives=2).with_negatives(2000)
    assert float(few.mean()) == pytest.approx(float(many(encoded, many.samples(graph)).detach().sum()), rel=0.02)


# ---- draws


def test_draws_are_fixed_and_epochs_draw_anew(objective):
    graph = random_graph(7, 40, 60)
    stored, again = objective.samples(graph), objective.samples(graph)
    assert torch.equal(stored.negatives, again.negatives)
    fresh = [objective.samples(graph, epoch=epoch).negatives for epoch in (1, 2, 2)]
    assert torch.equal(fresh[1], fresh[2])
    assert not torch.equal(fresh[0], fresh[1])
    assert not torch.equal(stored.negatives, fresh[0])


def test_a_removal_changes_only_the_draws_that_took_what_was_removed():
    graph = random_graph(20, 30, 200)
    keep = torch.arange(200) >= 6
    gone = set(graph.pairs[1, ~keep].tolist())
    before, after = (draw_popular(g, *graph.pairs[:, keep], 8, seed=3) for g in (graph, graph.select(keep)))
    assert (before != after).any()
    assert set(before[before != after].tolist()) <= gone
    assert (before == after).double().mean() > 0.9


@given(graphs(min_interactions=2), st.randoms(use_true_random=False))
def test_popular_draws_do_not_depend_on_order(graph, random):
    order = list(range(graph.num_interactions))
    random.shuffle(order)
    shuffled = InteractionGraph.from_edges(graph.pairs[:, order], graph.num_users, graph.num_items)
    for avoid in (False, True):
        here, there = (draw_popular(g, *g.pairs, 3, 0, avoid=avoid) for g in (graph, shuffled))
        assert torch.equal(there, here[order])


def test_popular_draws_follow_the_popularity():
    items = torch.cat([torch.full((n,), i) for i, n in enumerate((40, 20, 10, 5))])
    graph = InteractionGraph.from_edges(torch.stack([torch.cat([torch.arange(n) for n in (40, 20, 10, 5)]), items]))
    got = [draw_popular(graph, torch.tensor([0]), torch.tensor([0]), 1, seed) for seed in range(2000)]  # fixed: no luck
    count = torch.bincount(torch.cat(got).flatten(), minlength=4)
    assert chisquare(count, torch.tensor([40.0, 20.0, 10.0, 5.0]).double() * 2000 / 75).pvalue > 0.01


def spread(draws, share):
    """The variance of the counts over that of independent draws, which is 1 on average."""
    count = torch.bincount(draws.flatten(), minlength=len(share)).double()
    expected = share * draws.numel()
    return float((count - expected).square().sum() / (expected * (1 - share)).sum())


@pytest.mark.parametrize("popularity", ["equal", "long tail"])
def test_popular_draws_are_multinomial(popularity):
    count = torch.ones(2000) if popularity == "equal" else (400 / torch.arange(1, 2001)).ceil()
    items = torch.arange(2000).repeat_interleave(count.long())
    within = torch.arange(len(items)) - (count.long().cumsum(0) - count.long())[items]
    graph = InteractionGraph.from_edges(torch.stack([within, items]), 400, 2000)
    pairs = torch.stack([torch.arange(10_000) // 2000, torch.arange(10_000) % 2000])
    got = draw_popular(graph, *pairs, 64, 0)
    share = count.double() / count.sum()
    assert chisquare(torch.bincount(got.flatten(), minlength=2000), share * got.numel()).pvalue > 0.01
    assert spread(got, share) == pytest.approx(1, abs=0.15)
    # neither the draws of a pair nor those of neighbouring pairs agree more often than independent ones
    equal = float(share.square().sum())
    for first, second in ((got[:, :-1], got[:, 1:]), (got[:-1], got[1:]), (got[:-2000], got[2000:])):
        wanted, agree = equal * first.numel(), int((first == second).sum())
        assert abs(agree - wanted) < 4 * math.sqrt(wanted)


@pytest.mark.parametrize("proposals", [0, 2, 256])
@pytest.mark.parametrize("avoid", [False, True])
def test_popular_draws_move_with_what_they_took_only(monkeypatch, proposals, avoid):
    monkeypatch.setattr(negatives, "_PROPOSALS", proposals)
    graph = random_graph(40, 30, 500)
    held = torch.ones(500, dtype=torch.bool)
    rare = graph.pairs[1] > 11  # so that some items are more popular
    held[rare] = torch.rand(int(rare.sum()), generator=torch.Generator().manual_seed(0)) < 0.4
    graph = graph.select(held)
    keep = torch.rand(graph.num_interactions, generator=torch.Generator().manual_seed(1)) > 0.05
    retained, pairs = graph.select(keep), graph.pairs[:, keep]
    degree = [part.adjacency.degree[40:] for part in (graph, retained)]
    levels = [negatives._Popular(part, 3).levels for part in (graph, retained)]
    assert levels[0] == levels[1]  # otherwise all draws are new
    before, after = (draw_popular(part, *pairs, 40, 3, avoid=avoid) for part in (graph, retained))
    changed = before != after
    moved, share = float(changed.double().mean()), 1 - float(keep.double().mean())
    if avoid:  # a draw that passed over a removed interaction changes as well
        assert share / 3 < moved < 5 * share
        return
    assert set(before[changed].tolist()) <= set((degree[0] > degree[1]).nonzero().flatten().tolist())
    assert moved == pytest.approx(share, abs=0.02 if proposals else 0.06)


def test_popular_draws_can_avoid_the_items_of_the_user():
    graph = random_graph(60, 50, 600)
    held = set(map(tuple, graph.pairs.t().tolist()))
    for (user, _), row in zip(graph.pairs.t().tolist(), draw_popular(graph, *graph.pairs, 9, 0, avoid=True).tolist()):
        assert not held & {(user, item) for item in row}
    none = torch.empty(0, dtype=torch.long)
    assert draw_popular(graph, none, none, 3, 0).shape == (0, 3)


def test_a_user_with_all_items_has_no_negative():
    pairs = torch.stack([torch.zeros(5, dtype=torch.long), torch.arange(5)])
    graph = InteractionGraph.from_edges(pairs)
    model = factors(graph)
    encoded = encode(model, graph)
    for objective in (SampledBCE(weight_decay=0.0), SampledSoftmax(weight_decay=0.0, proposal="popularity"), gu.BPR()):
        penalised = dataclasses.replace(objective, weight_decay=0.5)
        samples = objective.samples(graph)
        norms = (encoded.queries[0].square().sum() + encoded.items.square().sum(1))[samples.items]
        free = dataclasses.replace(objective, weight_decay=0.0)
        torch.testing.assert_close(penalised(encoded, samples), free(encoded, samples) + 0.25 * norms, **EXACT)
        assert penalised.row_counts(samples).tolist() == [5.0] + [1.0] * 5
        if isinstance(objective, gu.BPR):
            assert not free(encoded, samples).any()
            for own, nodes in ((0, torch.tensor([0])), (1, torch.arange(5))):
                for _, blocks in node_curvatures(free, samples, Encoded(*encoded[:2]), own, nodes):
                    assert not blocks.any()
            assert not risk_of(model, graph, free).jacobi(model.embedding.weight.detach().flatten()).any()
            continue
        assert torch.equal(samples.negatives, samples.items.unsqueeze(1).expand_as(samples.negatives))
        loss = objective(encoded, samples)
        scores = (encoded.queries[0] * encoded.items).sum(1)
        alone = torch.nn.functional.softplus(-scores) if isinstance(objective, SampledBCE) else torch.zeros_like(scores)
        torch.testing.assert_close(loss, alone, **EXACT)


# ---- training and forgetting


@pytest.fixture(scope="module")
def small():
    return gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)


def test_training_lowers_the_loss_and_every_operator_runs(objective, small):
    model = light_gcn(small, dim=8).float()
    history = gu.fit(model, small, objective=objective, epochs=15, lr=0.05).history
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    request = gu.ForgetRequest("interaction", [(small.user_ids[u], small.item_ids[i]) for u, i in small.pairs.t()[:5]])
    for method in (gu.IFRU(objective=objective), gu.Calibrate(objective=objective, epochs=1)):
        result = method.unlearn(model, small, request)
        assert all(torch.isfinite(p).all() for p in result.model.parameters())
        assert result.graph.num_interactions == small.num_interactions - 5
    for curvature in ("hessian", "absolute"):
        gu.IFRU(objective=objective, curvature=curvature, damping=30.0, tol=0.5).unlearn(model, small, request)
    gu.IFRU(objective=objective, prune=0.3).unlearn(model, small, request)


def test_the_influence_is_the_difference_of_the_two_risks(objective):
    from graphunlearn.operators.shared.right_hand_side import global_problem, influence

    graph = random_graph(20, 15, 100)
    removed = torch.arange(100) < 5
    retained, model = graph.select(~removed), light_gcn(graph)
    direct, spillover, size = influence(model, graph, retained, removed, objective)
    problem = global_problem(model, model, graph, retained, removed, objective, None)
    difference = problem.old.gradient(problem.trained) - problem.new.gradient(problem.trained)
    torch.testing.assert_close(direct + spillover, difference, rtol=1e-6, atol=1e-6)
    whole = risk_of(model, retained, objective)
    torch.testing.assert_close(problem.new.gradient(problem.trained), whole.gradient(problem.trained), **EXACT)
    assert 0 < size <= 95


# ---- arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SampledBCE(ratio=0.0), "'ratio' must be positive and finite"),
        (lambda: SampledBCE(negatives=0), "'negatives' must"),
        (lambda: SampledBCE(negatives=2.5), r"'negatives' must be a whole number \(got 2.5\)"),
        (lambda: SampledBCE(ratio="2"), r"'ratio' must be positive and finite \(got '2'\)"),
        (lambda: SampledBCE(weight_decay=math.inf), r"'weight_decay' must be finite and not negative \(got inf\)"),
        (lambda: InBatchSoftmax(temperature="1"), r"'temperature' must be positive and finite \(got '1'\)"),
        (lambda: SampledSoftmax(temperature=0.0), "'temperature' must be positive and finite"),
        (lambda: SampledSoftmax(proposal="batch"), "'proposal' must be one of uniform, popularity"),
        (lambda: InBatchSoftmax(temperature=math.inf), "'temperature' must be positive and finite"),
        (lambda: InBatchSoftmax(batch_size=1), "'batch_size' must be at least 2"),
        (lambda: InBatchSoftmax(weight_decay=-1.0), "'weight_decay' must be finite and not negative"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("epoch", [None, 3])
@pytest.mark.parametrize("objective", [BPR(), *OBJECTIVES.values()], ids=["bpr", *OBJECTIVES])
def test_the_samples_of_an_epoch_are_drawn_for_what_is_selected(objective, epoch):
    graph = random_graph()
    every, lazy = objective.samples(graph, epoch=epoch), objective.epoch_samples(graph, epoch)
    index = torch.randperm(graph.num_interactions, generator=torch.Generator().manual_seed(1))[:9]
    assert len(lazy) == graph.num_interactions
    for name, value in vars(lazy.select(index)).items():
        wanted = getattr(every.select(index), name)
        assert torch.equal(value, wanted) if isinstance(wanted, torch.Tensor) else value == wanted


def test_a_loss_with_samples_of_its_own_is_trained_on_these():
    class Half(BPR):
        def samples(self, graph, *, mask=None, epoch=None):
            return super().samples(graph, mask=mask, epoch=epoch).select(torch.arange(graph.num_interactions // 2))

    graph = random_graph()
    assert len(Half().epoch_samples(graph, 1)) == graph.num_interactions // 2
