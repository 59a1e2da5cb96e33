"""The tilted risk around a small request against dense propagation, naive loops and the whole problem."""

import copy
import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from toys import dense_normalized, factors, light_gcn, naive_encode, random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.func import Adjacency, csr
from graphunlearn.nn import BCE, BPR, LinearForm, linear_form, risk_of
from graphunlearn.nn.training import InBatchSoftmax, SampledBCE
from graphunlearn.operators.shared import local
from graphunlearn.operators.shared.correction import Tilted
from graphunlearn.operators.shared.local import Local, known_of
from graphunlearn.operators.shared.refit import _linear_terms, neighbours_of_emptied, refit_neighbours
from graphunlearn.operators.shared.ridge import Ridges
from graphunlearn.operators.shared.right_hand_side import global_problem
from graphunlearn.operators.shared.warm_start import warm_start

OBJECTIVES = {
    "bpr": BPR(weight_decay=0.1, negatives=2),
    "bce": BCE(weight_decay=0.1),
    "sampled": SampledBCE(negatives=3),
}
EDGE = ("user", "interacts", "item")
MODELS = {"lightgcn": light_gcn, "mf": factors}


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


@pytest.fixture(params=list(MODELS))
def model_of(request):
    return MODELS[request.param]


@pytest.fixture
def everything(monkeypatch):
    """No request concerns too many samples."""
    monkeypatch.setattr(local, "SMALL", 1.0)


def setting(model_of, objective, removed=None, scale=True):
    graph = random_graph(40, 50, 120)
    model = model_of(graph)
    removed = (torch.arange(120) % 37 == 5) if removed is None else removed(graph)
    retained = graph.select(~removed)
    started = copy.deepcopy(model)
    warm_start(started, graph, retained, seed=1, scale=scale)
    rows = ((graph.degree != retained.degree) & ~graph.emptied(retained)).nonzero().view(-1)
    return model, started, graph, retained, removed, rows, known_of(model, graph, objective)


def test_what_is_known_is_the_gradient(model_of, objective):
    graph = random_graph(9, 8, 30)
    model = model_of(graph)
    known = known_of(model, graph, objective)
    risk = risk_of(model, graph, objective)
    torch.testing.assert_close(known.gradient.flatten(), risk.gradient(risk.parameters))
    users, items = (rows.detach().requires_grad_() for rows in known.encoded[:2])
    dots = known.risk.samples.pattern.dots(users, items)
    losses = objective.loss(objective.margins(dots, known.risk.samples), known.risk.samples).mean(-1).sum()
    torch.testing.assert_close(known.back, torch.cat(torch.autograd.grad(losses, (users, items))))
    every = torch.arange(30)
    there = torch.stack([known.risk.samples.users, known.risk.samples.items]).long()
    assert torch.equal(graph.pairs[:, known.interactions_of(every)], there)
    for some in (every, torch.tensor([3, 7, 8, 29]), torch.tensor([11]), every[:0]):
        assert torch.equal(known.interactions_of(known.samples_of(some, graph.pairs[0, some])), some)
    ordered = torch.stack([known.samples.users, known.samples.items]).long()
    assert torch.equal(ordered, graph.pairs)


@dataclass(frozen=True)
class Halved(BPR):
    """A loss that leaves out every other interaction."""

    def samples(self, graph, generator=None):
        return super().samples(graph).select(torch.arange(0, graph.num_interactions, 2))


def test_nothing_is_known_where_samples_are_not_one_per_interaction():
    graph = random_graph(9, 8, 30)
    assert known_of(light_gcn(graph), graph, Halved()) is None


def test_what_is_known_is_computed_once_per_table_graph_and_loss():
    graph = random_graph(9, 8, 30)
    model, objective = light_gcn(graph), BPR(negatives=2)
    known = known_of(model, graph, objective)
    assert known_of(copy.deepcopy(model), graph, objective) is known
    other = known_of(model, graph, BPR(negatives=3))
    assert other is not known
    assert known_of(model, graph, objective) is known
    assert known_of(model, graph, BPR(negatives=3)) is other
    with torch.no_grad():
        model.embedding.weight[0] += 1
    changed = known_of(model, graph, objective)
    assert changed is not known
    assert not torch.equal(changed.gradient, known.gradient)
    graph.pairs[1, 0] = (graph.pairs[1, 0] + 1) % 8
    assert not torch.equal(known_of(model, graph, objective).gradient, changed.gradient)


class Weighted(torch.nn.Module):
    """A table that is propagated once, along the edges of a graph with its items in another order."""

    def __init__(self, graph, weight=1.0, order=None):
        super().__init__()
        self.embedding = torch.nn.Embedding(graph.num_nodes, 3).double()
        self.weight, self.order = weight, torch.arange(graph.num_items) if order is None else order


@linear_form.register
def _(model: Weighted, graph):
    user, item = graph.pairs
    adjacency = Adjacency.from_pairs(torch.stack([user, model.order[item]]), graph.num_users, graph.num_items)
    m = adjacency.normalized(torch.float64)
    return LinearForm(
        "embedding.weight", (0.5, 0.5), csr(m.crow_indices(), m.col_indices(), model.weight * m.values(), m.shape)
    )


def test_what_is_known_of_a_model_is_not_taken_for_one_that_propagates_otherwise():
    graph = random_graph(9, 8, 30)
    model, objective = Weighted(graph), BPR(negatives=2)
    known = known_of(model, graph, objective)
    assert known_of(copy.deepcopy(model), graph, objective) is known
    model.weight = 2.0
    risk = risk_of(model, graph, objective)
    found = known_of(model, graph, objective).gradient.flatten()
    torch.testing.assert_close(found, risk.gradient(risk.parameters))
    assert not torch.allclose(found, known.gradient.flatten())


def test_what_is_known_has_the_type_of_the_table():
    graph = random_graph(9, 8, 30)
    model, objective = light_gcn(graph).float(), BPR(negatives=2)
    assert known_of(model, graph, objective).gradient.dtype == torch.float32
    assert known_of(model.double(), graph, objective).gradient.dtype == torch.float64


def test_other_labels_are_noticed_wherever_they_lie():
    graph = random_graph(9, 8, 30)
    model = light_gcn(graph)
    known = known_of(model, graph, BCE())
    memory = graph.label.data_ptr()
    label = graph.label.clone()
    del graph[EDGE].label
    gc.collect()
    others = [1 - label for _ in range(50)]  # one of them may lie where the labels were
    graph[EDGE].label = next((other for other in others if other.data_ptr() == memory), others[0])
    assert not torch.equal(known_of(model, graph, BCE()).gradient, known.gradient)


@pytest.mark.parametrize("objective", [BPR(negatives=2), BCE()], ids=["bpr", "bce"])
def test_a_graph_is_freed_with_what_is_known_of_its_models(objective):
    graph = random_graph(9, 8, 30)
    known_of(light_gcn(graph), graph, objective)
    gc.collect()
    number, pairs = len(local._KNOWN), weakref.ref(graph.pairs)
    del graph
    gc.collect()
    assert pairs() is None
    assert len(local._KNOWN) == number - 1


@dataclass(frozen=True, kw_only=True)
class Doubled(BPR):
    """A loss that is more than a function of the margins."""

    def __call__(self, encoded, samples):
        return 2 * super().__call__(encoded, samples)


def test_nothing_is_known_of_a_loss_that_is_not_that_of_its_margins():
    graph = random_graph(9, 8, 30)
    assert known_of(light_gcn(graph), graph, Doubled()) is None


def test_a_matrix_with_entries_elsewhere_is_left_to_the_whole_problem(everything):
    graph = random_graph(40, 50, 120)
    removed = torch.arange(120) == 5
    retained = graph.select(~removed)
    rows = ((graph.degree != retained.degree) & ~graph.emptied(retained)).nonzero().view(-1)
    for order, fits in ((None, True), (torch.arange(50).flip(0), False)):
        model = Weighted(graph, order=order)
        known = known_of(model, graph, BPR(negatives=2))
        assert (Local.of(known, model, graph, retained, removed, rows) is not None) == fits


def test_nothing_is_known_where_samples_depend_on_others_or_more_is_trained():
    graph = random_graph(9, 8, 30)
    assert known_of(light_gcn(graph), graph, InBatchSoftmax()) is None
    model = light_gcn(graph)
    model.bias = torch.nn.Parameter(torch.zeros(1))
    assert known_of(model, graph, BPR()) is None


def test_the_samples_around_nodes_are_those_of_a_loop(objective):
    *_, graph, _, _, rows, known = setting(light_gcn, objective)
    samples, found = known.risk.samples, known.around(rows, graph.num_users)
    wanted = []
    for s in range(len(samples)):
        nodes = {int(samples.users[s]), int(samples.items[s]) + graph.num_users}
        if samples.negatives is not None:
            nodes |= {int(j) + graph.num_users for j in samples.negatives[s]}
        if nodes & set(rows.tolist()):
            wanted.append(s)
    assert found.tolist() == wanted
    assert 0 < len(wanted) < len(samples)


@pytest.mark.parametrize("which", ["interactions", "user", "item"])
def test_the_gradient_is_the_formula_with_dense_matrices(model_of, objective, which, everything):
    """P and P' with the edges of the chosen rows alone; W by automatic differentiation of sums over samples."""
    removed = {"interactions": None, "user": lambda g: g.pairs[0] == 2, "item": lambda g: g.pairs[1] == 3}[which]
    model, started, graph, retained, removed, rows, known = setting(model_of, objective, removed)
    found = Local.of(known, started, graph, retained, removed, rows)
    theta = found.problem.start + 0.1 * torch.randn_like(found.problem.start) * found.problem.free
    table, start = (torch.zeros(graph.num_nodes, 3, dtype=torch.float64) for _ in range(2))
    table[found.problem.nodes] = theta.view(-1, 3)
    start[found.problem.nodes] = found.problem.start.view(-1, 3)
    alpha = known.risk.form.alpha
    own = torch.zeros(graph.num_nodes, dtype=torch.bool)
    own[rows] = True

    def incident(side):
        matrix = dense_normalized(side) if len(alpha) > 1 else torch.zeros(graph.num_nodes, graph.num_nodes).double()
        return matrix * (own[:, None] | own)

    def whole(side):
        return dense_normalized(side) if len(alpha) > 1 else incident(side)

    def propagated(x, matrix):
        return torch.cat(naive_encode(x, alpha, matrix, graph.num_users))

    def back(final, samples):
        users, items = (z.requires_grad_() for z in final.detach().split([graph.num_users, graph.num_items]))
        margins = objective.margins(samples.pattern.dots(users, items), samples)
        return torch.cat(torch.autograd.grad(objective.loss(margins, samples).mean(-1).sum(), (users, items)))

    trained, moved = (
        model.get_parameter(known.risk.form.parameter).detach(),
        started.get_parameter(known.risk.form.parameter),
    )
    before, after = objective.samples(graph), objective.samples(retained)
    sides = own.split([graph.num_users, graph.num_items])
    kept, gone = before.select(~removed), before.select(removed)
    # a sample whose redrawn negatives alone are chosen belongs to a user who lost interactions, and is chosen as well
    chosen = kept.touching(*sides)
    final = propagated(trained, whole(graph))
    now = propagated(moved.detach(), whole(retained)) + propagated(table - start, incident(retained))
    rest = back(final, before) - back(final, kept.select(chosen)) - back(final, gone)
    wanted = propagated(back(now, after.select(chosen)) + rest, incident(retained))
    wanted -= propagated(back(final, before), incident(graph))
    count = [objective.row_counts(s).unsqueeze(1) for s in (after.select(chosen), before)]
    wanted += objective.weight_decay * (count[0] * table - count[1] * trained)
    mine = (found.problem.new.gradient(theta) - found.tilt).view(-1, 3)
    assert torch.equal(found.problem.nodes[found.rows], rows)
    torch.testing.assert_close(mine[found.rows], wanted[rows], rtol=1e-9, atol=1e-11)


def test_in_matrix_factorisation_it_is_the_whole_problem_in_these_rows(objective):
    model, started, graph, retained, removed, rows, known = setting(factors, objective)
    local.SMALL, old = 1.0, local.SMALL
    found = Local.of(known, started, graph, retained, removed, rows)
    local.SMALL = old
    problem = global_problem(model, started, graph, retained, removed, objective, None)
    tilted = Tilted(problem, problem.tilt())
    step = torch.zeros_like(problem.start).view(-1, 3)
    step[rows] = torch.randn(len(rows), 3, dtype=torch.float64)
    part = step[found.problem.nodes].flatten()
    for theta, inner in (
        (problem.start, found.problem.start),
        (problem.start + step.flatten(), found.problem.start + part),
    ):
        mine = (found.problem.new.gradient(inner) - found.tilt).view(-1, 3)[found.rows]
        torch.testing.assert_close(mine, tilted.gradient(theta).view(-1, 3)[rows], rtol=1e-9, atol=1e-11)
    product = problem.product(problem.start, "gauss-newton")(step.flatten()).view(-1, 3)[rows]
    mine = found.problem.product(found.problem.start, "gauss-newton")(part).view(-1, 3)[found.rows]
    torch.testing.assert_close(mine, product, rtol=1e-9, atol=1e-11)
    falls = Tilted(found.problem, found.tilt)
    change = falls.value(found.problem.start + part) - falls.value(found.problem.start)
    assert change == pytest.approx(tilted.value(problem.start + step.flatten()) - tilted.value(problem.start), rel=1e-8)


def test_a_request_that_concerns_many_samples_is_left_to_the_whole_problem(objective):
    _, started, graph, retained, removed, rows, known = setting(light_gcn, objective)
    share = len(known.around(rows, graph.num_users)) / len(known.risk.samples)
    assert (Local.of(known, started, graph, retained, removed, rows) is None) == (share > local.SMALL)
    every = graph.active.nonzero().view(-1)
    assert Local.of(known, started, graph, retained, removed, every) is None
    assert Local.of(known, started, graph, retained, removed, rows[:0]) is None


@pytest.mark.parametrize("level", ["user", "item"])
def test_neighbours_of_emptied_nodes_are_those_of_a_loop(level):
    graph = random_graph(12, 10, 40)
    request = ForgetRequest.internal(level, torch.tensor([3]))
    retained, _ = graph.split(request)
    own, place = ("user", "item").index(level), 1 - ("user", "item").index(level)
    wanted = {int(p[place]) for p in graph.pairs.t() if int(p[own]) == 3}
    wanted = {n + (graph.num_users if place else 0) for n in wanted}
    wanted = sorted(n for n in wanted if int(retained.degree[n]) > 0)
    assert neighbours_of_emptied(graph, retained, request.mask(graph)).tolist() == wanted


@pytest.mark.parametrize("level", ["user", "item"])
def test_neighbours_fitted_from_their_samples_are_those_fitted_from_all(model_of, objective, level, monkeypatch):
    """Exactly so without propagation; with it, some paths are left out, and the objective falls nearly as far."""
    graph = random_graph(60, 50, 700)
    trained = model_of(graph, scale=0.5)
    request = ForgetRequest.internal(level, torch.tensor([3]))
    retained, _ = graph.split(request)
    removed = request.mask(graph)
    started = copy.deepcopy(trained)
    warm_start(started, graph, retained, 0, scale=False)
    before, after = risk_of(trained, graph, objective), risk_of(started, retained, objective)
    gradient = before.gradient(before.parameters).view_as(before.table)
    trained_terms = before.table, gradient, before.at(before.parameters)[0], Ridges(before, gradient)
    terms = _linear_terms(graph, retained, removed, *trained_terms)
    ((side, rows, ridge, (noise,)),) = list(terms)

    def value(table):
        own = table[rows]
        return after.value(table.flatten()) + 0.5 * ridge * float(own.square().sum()) - float((noise * own).sum())

    fitted, logs = [], []
    for small in (1.0, 0.0):
        monkeypatch.setattr(local, "SMALL", small)
        model = copy.deepcopy(started)
        logs.append(refit_neighbours(model, trained, graph, retained, removed, objective, negatives=2))
        fitted.append(next(model.parameters()).detach())
    assert f"samples_{side}" in logs[0]
    assert f"samples_{side}" not in logs[1]
    start = value(next(started.parameters()).detach())
    falls = [start - value(table) for table in fitted]
    assert falls[1] > 0
    assert falls[0] >= 0.9 * falls[1]
    if model_of is factors:
        torch.testing.assert_close(fitted[0], fitted[1], rtol=1e-8, atol=1e-9)
    moved = (fitted[0] != next(started.parameters()).detach()).any(1).nonzero().view(-1)
    assert set(moved.tolist()) <= set(rows.tolist())


def test_neighbours_are_not_fitted_where_no_loss_of_what_remains_is_defined(everything):
    graph = random_graph(30, 20, 60)
    request = ForgetRequest.internal("user", torch.tensor([3]))
    graph[EDGE].label = (~request.mask(graph)).double()
    trained = factors(graph)
    model = copy.deepcopy(trained)
    retained, _ = graph.split(request)
    log = refit_neighbours(model, trained, graph, retained, request.mask(graph), BCE())
    assert "only label 1" in log["skipped"]
    assert torch.equal(model.embedding.weight, trained.embedding.weight)


def test_a_graph_of_labels_keeps_its_targets():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), label=torch.tensor([1.0, 0, 1, 0]))
    known = known_of(light_gcn(graph), graph, BCE())
    assert known.risk.samples.target.tolist() == [1.0, 0.0, 1.0, 0.0]
