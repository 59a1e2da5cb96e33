"""The risk's gradient and curvature: closed form, autograd path and dense Hessians all agree."""

import pytest
import torch
from toys import Wrapped, dense_normalized, factors, light_gcn, random_graph, two_tower

from graphunlearn.func import csr
from graphunlearn.nn import BCE, BPR, LinearForm, LinearRisk, Risk, SquaredError, encode, linear_form, risk_of

# float64, sums over some hundred terms of size up to 10
EXACT = {"rtol": 1e-9, "atol": 1e-9}

OBJECTIVES = {
    "bpr": BPR(weight_decay=0.2, negatives=3),
    "bce": BCE(weight_decay=0.2),
    "squared": SquaredError(weight_decay=0.2),
}
MODELS = {"lightgcn": light_gcn, "lightgcn 3 layers": lambda g: light_gcn(g, layers=3), "mf": factors}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


@pytest.fixture(params=list(MODELS))
def model(request, graph):
    return MODELS[request.param](graph)


@pytest.fixture
def graph():
    return random_graph(5, 4, 11)


def naive_risk(objective, samples, model, graph):
    """The whole loss, written down for one flat table, with a dense matrix."""
    alpha = getattr(model, "alpha", torch.ones(1, dtype=torch.float64))
    matrix = dense_normalized(graph)

    def value(theta):
        table = theta.view(graph.num_nodes, -1)
        layer = table
        z = alpha[0] * table
        for weight in alpha[1:]:
            layer = matrix @ layer
            z = z + weight * layer
        user, item = samples.users, samples.items + graph.num_users
        margin = (z[user] * z[item]).sum(-1)
        penalty = table[user].square().sum(-1) + table[item].square().sum(-1)
        if samples.negatives is not None:
            negative = samples.negatives + graph.num_users
            margin = margin[:, None] - (z[user][:, None] * z[negative]).sum(-1)
            there = negative != item[:, None]  # the own item stands for no negative
            loss = (torch.log1p(torch.exp(-margin)) * there).mean(-1)
            penalty = penalty + (table[negative].square().sum(-1) * there).mean(-1)
        elif isinstance(objective, BCE):
            p = torch.sigmoid(margin)
            loss = -(samples.target * p.log() + (1 - samples.target) * (1 - p).log())
        else:
            loss = (margin - samples.target).square() / 2
        return (loss + objective.weight_decay / 2 * penalty).sum()

    return value


def as_matrix(product, size):
    return torch.stack([product(column) for column in torch.eye(size, dtype=torch.float64)], 1)


def test_value_and_gradient_are_those_of_the_plain_loss(model, graph, objective):
    for risk in (risk_of(model, graph, objective), Risk(model, graph, objective)):
        naive = naive_risk(objective, risk.samples, model, graph)
        theta = torch.randn_like(risk.parameters)
        assert risk.value(theta) == pytest.approx(float(naive(theta)), rel=1e-12)
        torch.testing.assert_close(risk.gradient(theta), torch.func.grad(naive)(theta), **EXACT)


def test_both_hessians_are_the_dense_one(model, graph, objective):
    linear, generic = risk_of(model, graph, objective), Risk(model, graph, objective)
    assert isinstance(linear, LinearRisk)
    assert not isinstance(generic, LinearRisk)
    theta = torch.randn_like(linear.parameters)
    dense = torch.autograd.functional.hessian(naive_risk(objective, linear.samples, model, graph), theta)
    for risk in (linear, generic):
        torch.testing.assert_close(as_matrix(risk.curvature(theta, "hessian"), len(theta)), dense, **EXACT)
    half = as_matrix(linear.curvature(theta), len(theta))
    assert (half - dense).abs().max() > 0.05  # the two kinds are not the same thing here


def test_both_gauss_newtons_are_the_explicit_one(model, graph, objective):
    linear, generic = risk_of(model, graph, objective), Risk(model, graph, objective)
    theta = torch.randn_like(linear.parameters)
    samples = linear.samples

    def margins(theta):
        encoded = generic.encode(theta)
        users, items = encoded.queries, encoded.items
        own = (users[samples.users] * items[samples.items]).sum(-1, keepdim=True)
        if samples.negatives is None:
            return own
        return own - (users[samples.users][:, None] * items[samples.negatives]).sum(-1)

    jacobian = torch.autograd.functional.jacobian(margins, theta).flatten(0, 1)
    value = margins(theta)
    second = torch.ones_like(value)  # of the loss in each margin
    if not isinstance(objective, SquaredError):
        second = torch.sigmoid(value) * torch.sigmoid(-value)
    expected = jacobian.t() @ ((second / value.size(1)).view(-1, 1) * jacobian)
    counts = torch.zeros(graph.num_nodes, dtype=torch.float64)
    for s in range(len(samples)):
        counts[samples.users[s]] += 1
        counts[graph.num_users + samples.items[s]] += 1
        for j in [] if samples.negatives is None else samples.negatives[s].tolist():
            counts[graph.num_users + j] += (j != int(samples.items[s])) / samples.negatives.size(1)
    expected += torch.diag(objective.weight_decay * counts.repeat_interleave(len(theta) // graph.num_nodes))
    for risk in (linear, generic):
        dense = as_matrix(risk.curvature(theta), len(theta))
        torch.testing.assert_close(dense, expected, **EXACT)
        assert torch.linalg.eigvalsh(dense)[0] > -1e-9


def test_a_model_known_by_its_encoding_alone(graph, objective):
    inner = light_gcn(graph)
    known, foreign = risk_of(inner, graph, objective), risk_of(Wrapped(inner), graph, objective)
    assert isinstance(known, LinearRisk)
    assert type(foreign) is Risk
    theta, v = known.parameters, torch.randn_like(known.parameters)
    assert torch.equal(foreign.parameters, theta)
    assert foreign.value(theta) == pytest.approx(known.value(theta), rel=1e-12)
    torch.testing.assert_close(foreign.gradient(theta), known.gradient(theta), **EXACT)
    for kind in ("gauss-newton", "hessian"):
        torch.testing.assert_close(foreign.curvature(theta, kind)(v), known.curvature(theta, kind)(v), **EXACT)


def test_a_nonlinear_model_with_shared_weights(graph, objective):
    model = two_tower(graph, dim=2)
    risk = risk_of(model, graph, objective)
    assert type(risk) is Risk
    theta = torch.randn_like(risk.parameters)
    samples = risk.samples

    def loss(theta):
        sizes = [p.numel() for p in model.parameters()]
        users, items, weight, bias = (x.view_as(p) for x, p in zip(theta.split(sizes), model.parameters()))
        z = users + torch.tanh(users @ weight.t() + bias)
        margin = (z[samples.users] * items[samples.items]).sum(-1)
        penalty = users[samples.users].square().sum(-1) + items[samples.items].square().sum(-1)
        if isinstance(objective, BPR):
            margin = margin[:, None] - (z[samples.users][:, None] * items[samples.negatives]).sum(-1)
            there = samples.negatives != samples.items[:, None]
            penalty = penalty + (items[samples.negatives].square().sum(-1) * there).mean(-1)
            terms = (torch.log1p(torch.exp(-margin)) * there).mean(-1)
        elif isinstance(objective, BCE):
            terms = torch.log1p(torch.exp(margin)) - samples.target * margin
        else:
            terms = (margin - samples.target).square() / 2
        return (terms + objective.weight_decay / 2 * penalty).sum()

    torch.testing.assert_close(risk.gradient(theta), torch.func.grad(loss)(theta), **EXACT)
    dense = torch.autograd.functional.hessian(loss, theta)
    torch.testing.assert_close(as_matrix(risk.curvature(theta, "hessian"), len(theta)), dense, **EXACT)
    half = as_matrix(risk.curvature(theta), len(theta))
    torch.testing.assert_close(half, half.t(), **EXACT)
    assert torch.linalg.eigvalsh(half)[0] > -1e-9


def test_the_gradient_is_the_sum_over_batches(model, graph, objective):
    samples = objective.samples(graph)
    whole = risk_of(model, graph, objective, samples)
    theta, v = torch.randn_like(whole.parameters), torch.randn_like(whole.parameters)
    parts = [risk_of(model, graph, objective, samples.select(index)) for index in torch.randperm(11).split(3)]
    assert sum(part.value(theta) for part in parts) == pytest.approx(whole.value(theta), rel=1e-12)
    torch.testing.assert_close(sum(part.gradient(theta) for part in parts), whole.gradient(theta), **EXACT)
    for kind in ("gauss-newton", "hessian"):
        summed = sum(part.curvature(theta, kind)(v) for part in parts)
        torch.testing.assert_close(summed, whole.curvature(theta, kind)(v), **EXACT)


def test_no_sample_no_risk(model, graph, objective):
    none = objective.samples(graph).select(torch.zeros(11, dtype=torch.bool))
    risk = risk_of(model, graph, objective, none)
    theta = risk.parameters
    assert risk.value(theta) == 0
    assert torch.equal(risk.gradient(theta), torch.zeros_like(theta))
    assert torch.equal(risk.curvature(theta, "hessian")(theta), torch.zeros_like(theta))


def test_the_curvature_is_taken_where_it_is_asked_for(model, graph, objective):
    risk = risk_of(model, graph, objective)
    theta = torch.randn_like(risk.parameters)
    v = torch.randn_like(theta)
    step = 1e-6  # central differences: an error of 1e-12 relative, and rounding of 1e-16 / 1e-6 in the gradient
    slope = (risk.gradient(theta + step * v) - risk.gradient(theta - step * v)) / (2 * step)
    torch.testing.assert_close(risk.curvature(theta, "hessian")(v), slope, rtol=1e-6, atol=1e-6)


# ---- what only the linear risk knows


def test_the_radial_slope_is_the_gradient_along_the_parameters(model, graph, objective):
    risk = risk_of(model, graph, objective)
    theta = torch.randn_like(risk.parameters)
    assert risk.radial_slope(theta) == pytest.approx(float(risk.gradient(theta) @ theta), rel=1e-10)


def part_of_a_table(model, graph, objective):
    """Users 0-2 and items 0-1 vary; what the other rows send to them is a constant."""
    nodes = torch.tensor([0, 1, 2, 5, 6])
    form = linear_form(model, graph)
    table = model.embedding.weight.detach()
    matrix = None
    if form.matrix is not None:
        inner = form.matrix.to_dense()[nodes][:, nodes].to_sparse_csr()
        matrix = csr(inner.crow_indices().int(), inner.col_indices().int(), inner.values(), (5, 5))
    inner = LinearForm(form.parameter, form.alpha, matrix)
    offset = torch.randn(5, table.size(1), dtype=torch.float64)
    samples = objective.samples(random_graph(3, 2, 4))
    return LinearRisk(table[nodes], inner, objective, samples, offset), inner, offset


def test_an_offset_is_added_to_what_propagates(model, graph, objective):
    risk, form, offset = part_of_a_table(model, graph, objective)
    theta = torch.randn_like(risk.parameters)

    dense = torch.zeros(5, 5, dtype=torch.float64) if form.matrix is None else form.matrix.to_dense()

    def loss(theta):
        table = theta.view(5, -1)
        z = sum(a * torch.linalg.matrix_power(dense, k) for k, a in enumerate(form.alpha)) @ table + offset
        samples, penalty = risk.samples, 0
        margin = (z[samples.users] * z[3 + samples.items]).sum(-1, keepdim=True)
        penalty = table[samples.users].square().sum() + table[3 + samples.items].square().sum()
        if samples.negatives is not None:
            margin = margin - (z[samples.users][:, None] * z[3 + samples.negatives]).sum(-1)
            there = samples.negatives != samples.items[:, None]
            penalty = penalty + (table[3 + samples.negatives].square().sum(-1) * there).mean(-1).sum()
        return objective.loss(margin, samples).mean(-1).sum() + objective.weight_decay / 2 * penalty

    assert risk.value(theta) == pytest.approx(float(loss(theta)), rel=1e-12)
    torch.testing.assert_close(risk.gradient(theta), torch.func.grad(loss)(theta), **EXACT)
    hessian = torch.autograd.functional.hessian(loss, theta)
    torch.testing.assert_close(as_matrix(risk.curvature(theta, "hessian"), len(theta)), hessian, **EXACT)


@pytest.mark.parametrize("name", ["bce", "squared"])
def test_the_preconditioner_is_the_diagonal_without_propagation(graph, name):
    risk = risk_of(factors(graph), graph, OBJECTIVES[name])
    theta = torch.randn_like(risk.parameters)
    diagonal = as_matrix(risk.curvature(theta), len(theta)).diagonal()
    torch.testing.assert_close(risk.jacobi(theta), diagonal, **EXACT)


def test_the_preconditioner_is_positive_and_near_the_diagonal(model, graph, objective):
    risk = risk_of(model, graph, objective)
    theta = torch.randn_like(risk.parameters)
    estimate = risk.jacobi(theta)
    diagonal = as_matrix(risk.curvature(theta), len(theta)).diagonal()
    assert (estimate > 0).all()
    # an estimate by design: it must follow the diagonal, not equal it
    assert torch.corrcoef(torch.stack([estimate.log(), diagonal.log()]))[0, 1] > 0.6


@pytest.mark.parametrize("kind", ["closed form", "autograd"])
def test_fewer_negatives_are_the_first_ones(graph, kind):
    inner = light_gcn(graph)
    model = inner if kind == "closed form" else Wrapped(inner)
    risk, fewer = (risk_of(model, graph, BPR(weight_decay=0.2, negatives=k)) for k in (5, 2))
    theta = torch.randn_like(risk.parameters)
    part = risk.with_negatives(2)
    assert part.value(theta) == pytest.approx(fewer.value(theta), rel=1e-12)
    v = torch.randn_like(theta)
    for curvature in ("gauss-newton", "hessian"):
        torch.testing.assert_close(part.curvature(theta, curvature)(v), fewer.curvature(theta, curvature)(v), **EXACT)
    assert risk.samples.negatives.size(1) == risk.objective.negatives == 5  # the risk itself keeps them all
    assert risk.with_negatives(5) is risk
    plain = risk_of(model, graph, BCE())
    assert plain.with_negatives(1) is plain


# ---- which risk


def test_risk_of_chooses(graph, objective):
    gcn = light_gcn(graph)
    assert isinstance(risk_of(gcn, graph, objective), LinearRisk)
    gcn.extra = torch.nn.Linear(2, 2).double()  # something else to train: the table is not all there is
    assert type(risk_of(gcn, graph, objective)) is Risk
    for p in gcn.extra.parameters():
        p.requires_grad_(False)
    assert isinstance(risk_of(gcn, graph, objective), LinearRisk)


def test_frozen_parameters_are_not_variables(graph, objective):
    model = two_tower(graph)
    model.item_table.weight.requires_grad_(False)
    risk = risk_of(model, graph, objective)
    assert risk.parameters.numel() == sum(p.numel() for p in model.parameters() if p.requires_grad)
    theta = torch.randn_like(risk.parameters)
    assert torch.equal(risk.encode(theta).items, model.item_table.weight)


def test_nothing_to_train_is_refused(graph, objective):
    model = light_gcn(graph)
    model.embedding.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'model' must have trainable parameters \(got LightGCN with none\)"):
        risk_of(model, graph, objective)


def test_a_risk_never_writes_to_its_model(model, graph, objective):
    before = [p.clone() for p in model.parameters()]
    for risk in (risk_of(model, graph, objective), Risk(model, graph, objective)):
        theta = torch.randn_like(risk.parameters)
        risk.value(theta), risk.gradient(theta), risk.curvature(theta, "hessian")(theta), risk.curvature(theta)(theta)
        torch.testing.assert_close(risk.parameters, torch.cat([p.flatten() for p in model.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(p.grad is None for p in model.parameters())


def test_the_risk_at_its_parameters_is_the_models(model, graph, objective):
    risk = risk_of(model, graph, objective)
    expected = float(objective(encode(model, graph), objective.samples(graph)).sum().detach())
    assert risk.value(risk.parameters) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("objective", [BPR(weight_decay=0.1, negatives=2), BCE(weight_decay=0.1)], ids=["bpr", "bce"])
def test_the_rotated_diagonal_is_that_of_a_rotated_model(objective):
    """Scores do not change if the rows are rotated, and the axes diagonalise the sum of the curvatures of one side."""
    graph = random_graph(9, 8, 30)
    model = factors(graph)
    risk = risk_of(model, graph, objective)
    found = risk.rotated(risk.parameters)
    encoded, margins = risk.at(risk.parameters)
    second = objective.phi(margins, risk.samples)[2] / margins.size(1)
    weight = objective.margins_transposed(second, risk.samples).abs()
    sides = [torch.zeros(3, 3, dtype=torch.float64) for _ in range(2)]
    rows = torch.zeros(graph.num_nodes, 3, dtype=torch.float64)
    for w, u, i in zip(weight, risk.samples.pattern.rows.tolist(), risk.samples.pattern.cols.tolist()):
        zu, zi = encoded.queries[u], encoded.items[i]
        sides[0] += w * torch.outer(zi, zi)
        sides[1] += w * torch.outer(zu, zu)
        rows[u] += w * (zi @ found.users).square()
        rows[graph.num_users + i] += w * (zu @ found.items).square()
    for total, axes in zip(sides, (found.users, found.items)):
        turned = axes.t() @ total @ axes
        torch.testing.assert_close(turned, turned.diagonal().diag(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(axes.t() @ axes, torch.eye(3, dtype=torch.float64))
    penalty = objective.weight_decay * objective.row_counts(risk.samples).unsqueeze(1)
    torch.testing.assert_close(found.diagonal, rows + penalty)
    share = torch.rand(graph.num_nodes, 1, dtype=torch.float64) + 0.5
    axes = [found.users] * graph.num_users + [found.items] * graph.num_items
    dense = torch.block_diag(*(q @ (d * s + 0.3).diag() @ q.t() for q, d, s in zip(axes, found.diagonal, share)))
    r = torch.randn(graph.num_nodes * 3, dtype=torch.float64)
    torch.testing.assert_close(found.inverse(graph.num_users, 0.3, share)(r), torch.linalg.solve(dense, r))
