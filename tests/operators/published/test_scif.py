"""SCIF against a refit with neutral labels where that is a linear system, and its neutral labels against loops."""

from dataclasses import replace

import pytest
import torch
from toys import dense_normalized, factors, light_gcn, naive_encode, normal_equations, parameters, random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn import BCE, BPR, SampledBCE, SampledSoftmax, SquaredError, encode, risk_of
from graphunlearn.nn.session_risk import SessionRisk
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.operators import SCIF
from graphunlearn.operators.published.scif import neutral_labels

LOSS = SquaredError(weight_decay=0.2)
SOLVED = SCIF(objective=LOSS, damping=0.0, tol=1e-13, max_iter=500, quantile=None)


def naive_labels(graph, labels, removed):
    """The neutral label of every forgotten interaction, one at a time."""
    out, rows = [], list(zip(*graph.pairs.tolist(), labels.tolist(), removed.tolist(), strict=True))
    for user, item, _, gone in rows:
        if not gone:
            continue
        kept = [(u, i, y) for u, i, y, away in rows if not away]
        for few in ([y for u, _, y in kept if u == user], [y for _, i, y in kept if i == item], [y for *_, y in kept]):
            if few:
                out.append(sum(few) / len(few))
                break
    return torch.tensor(out, dtype=labels.dtype)


def with_neutral(graph, request):
    """The graph with neutral ratings in place of those of the request."""
    removed, ratings = request.mask(graph), graph.rating.clone()
    ratings[removed] = naive_labels(graph, ratings, removed)
    return InteractionGraph.from_edges(graph.pairs, graph.num_users, graph.num_items, rating=ratings)


def test_neutral_labels_are_those_of_a_loop(make_request):
    graph = random_graph()
    removed = make_request(graph).mask(graph)
    got = neutral_labels(graph, graph.rating, removed)
    torch.testing.assert_close(got, naive_labels(graph, graph.rating, removed))


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_one_step_is_the_refit_with_neutral_labels(quadratic, make_request, curvature):
    model, graph = quadratic
    request = make_request(graph)
    retained, _ = graph.split(request)
    expected = torch.linalg.solve(*normal_equations(model, with_neutral(graph, request), 0.2))
    got = parameters(replace(SOLVED, curvature=curvature).unlearn(model, graph, request).model)
    rows = ~graph.emptied(retained).repeat_interleave(2)  # the others are redrawn
    assert float((got - expected)[rows].norm() / expected[rows].norm()) < 1e-8
    before = float((parameters(model) - expected)[rows].norm())
    assert before > 1e-2
    wrong_sign = 2 * parameters(model) - got
    assert float((wrong_sign - expected)[rows].norm()) == pytest.approx(2 * before, rel=1e-6)


def test_in_selected_rows_it_is_the_restricted_refit(quadratic):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    share = 1 - retained.degree / graph.degree.clamp(min=1)
    shares = sorted(share[share > 0].tolist())
    for quantile in (0.0, 0.5):
        limit = torch.quantile(torch.tensor(shares), quantile)
        rows = ((share > 0) & (share >= limit)).repeat_interleave(2)
        hessian, rhs = normal_equations(model, with_neutral(graph, request), 0.2)
        expected = parameters(model).clone()
        expected[rows] += torch.linalg.solve(hessian[rows][:, rows], (rhs - hessian @ parameters(model))[rows])
        result = replace(SOLVED, quantile=quantile).unlearn(model, graph, request)
        torch.testing.assert_close(parameters(result.model), expected, rtol=1e-9, atol=1e-9)
        assert result.log["selected_nodes"] == int(rows.sum()) // 2


def test_losses_of_interactions_take_the_gradient_of_the_difference_to_the_neutral_label():
    for loss in (BPR(weight_decay=0.1), BCE(weight_decay=0.1), SampledBCE(weight_decay=0.1, negatives=2)):
        labelled = isinstance(loss, BCE)
        graph = random_graph(values=labelled)
        model = light_gcn(graph)
        request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
        removed, risk = request.mask(graph), risk_of(model, graph, loss)
        table = model.embedding.weight.detach().clone().requires_grad_()
        users, items = naive_encode(table, model.alpha.tolist(), dense_normalized(graph), graph.num_users)
        samples = loss.samples(graph, mask=removed)
        scores = (users[samples.users].unsqueeze(1) * items[samples.pattern.cols.view(3, -1)]).sum(2)
        if labelled:  # the derivative is σ(s) - y, so that of the difference is ȳ - y
            away = (naive_labels(graph, graph.label, removed) - graph.label[removed]) * scores[:, 0]
        elif isinstance(loss, SampledBCE):  # labels 1, 0, 0, whose mean is 1/3
            away = (scores / 3).sum(1) - scores[:, 0]
        else:  # σ(m) - 1 against σ(m) - 1/2
            away = -0.5 * (scores[:, :1] - scores[:, 1:]).mean(1)
        g = torch.autograd.grad(away.sum(), table)[0].flatten()
        product = risk.curvature(risk.parameters)
        matrix = torch.stack([product(column) for column in torch.eye(len(g), dtype=torch.float64)], 1)
        expected = risk.parameters + torch.linalg.solve(matrix + 0.3 * torch.eye(len(g), dtype=torch.float64), g)
        method = SCIF(objective=loss, damping=0.3, tol=1e-12, max_iter=500, quantile=None)
        got = parameters(method.unlearn(model, graph, request).model)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


def test_sessions_take_the_frequencies_of_next_clicks_for_the_neutral_label(sessions):
    model, graph, request = sessions
    retained, _ = graph.split(request)
    parts = [part.tolist() for part in retained.items.split(retained.length.tolist())]
    after = [item for part in parts for item in part[1:]]
    share = torch.tensor([after.count(item) / len(after) for item in range(5)], dtype=torch.float64)
    risk, samples = SessionRisk(model, graph, CrossEntropy()), CrossEntropy().samples(graph, mask=request.mask(graph))
    named = [p for p in model.parameters() if p.requires_grad]
    total = 0
    for end, target in zip(samples.ends.tolist(), samples.target.tolist(), strict=True):
        start = int(graph.click_ptr[graph.session[end]])
        encoded = encode(model, graph.from_sequences([graph.items[start : end + 1].tolist()], num_items=5))
        logits = (encoded.queries @ encoded.items.t())[0]
        total = total + share @ logits - logits[target]
    g = torch.cat([x.flatten() for x in torch.autograd.grad(total, named)])
    product = risk.curvature(risk.parameters)
    matrix = torch.stack([product(column) for column in torch.eye(len(g), dtype=torch.float64)], 1)
    expected = risk.parameters + torch.linalg.solve(matrix + torch.eye(len(g), dtype=torch.float64), g)
    result = SCIF(damping=1.0, tol=1e-12, max_iter=500, quantile=None).unlearn(model, graph, request)
    torch.testing.assert_close(parameters(result.model), expected, rtol=1e-7, atol=1e-8)


def test_only_selected_rows_change():
    graph = random_graph(values=False)
    model = factors(graph)
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5]])
    for method in (SCIF(), SCIF.as_published()):
        after = method.unlearn(model, graph, request).model
        changed = (after.embedding.weight != model.embedding.weight).any(1).nonzero().flatten().tolist()
        ends = graph.pairs[:, [0, 5]] + torch.tensor([[0], [graph.num_users]])
        assert set(changed) <= set(ends.flatten().tolist())
        assert changed


def test_as_published_takes_steps_of_adam(quadratic):
    model, graph = quadratic
    request = ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    result = SCIF.as_published(LOSS, quantile=None, max_iter=1, solver_lr=0.2).unlearn(model, graph, request)
    hessian, rhs = normal_equations(model, with_neutral(graph, request), 0.2)
    g = rhs - hessian @ parameters(model)  # one step of Adam is its sign
    moved = parameters(result.model) - parameters(model)
    large = g.abs() > 1e-6
    torch.testing.assert_close(moved[large], 0.2 / graph.num_interactions * g[large].sign(), rtol=1e-1, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCIF(quantile=1.0), r"'quantile' must be a quantile in \[0, 1\)"),
        (lambda: SCIF(solver="lissa"), "'solver' must be one of cg, adam"),
        (lambda: SCIF(tol=0.0), "'tol' must be positive"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_losses_without_a_neutral_label_are_refused():
    graph = random_graph(values=False)
    with pytest.raises(
        ValueError, match=r"'objective' must be BPR, BCE, SampledBCE or SquaredError, .*\(got SampledSoftmax\)"
    ):
        SCIF(objective=SampledSoftmax()).unlearn(
            factors(graph), graph, ForgetRequest.internal("interaction", graph.pairs[:, [0, 5]])
        )
