"""SGL and SimGCL: views, noise and losses against dense algebra and plain loops at the same weights."""

import copy
import math

import pytest
import torch
from torch import nn
from torch_geometric.nn import LightGCN
from toys import dense_normalized, naive_encode, random_graph, two_tower

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.func import Adjacency
from graphunlearn.nn import (
    BPR,
    SGL,
    LinearRisk,
    Samples,
    SimGCL,
    auxiliary_loss,
    encode,
    fit,
    info_nce,
    linear_form,
    num_hops,
    reset_parameters,
    risk_of,
)
from graphunlearn.nn.training import auxiliary as module

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, sums of a few dozen terms
VIEWS = ("edge-drop", "node-drop", "random-walk")
KEY = {"seed": 3, "epoch": 2, "step": 1}


def make(cls, graph, dim=3, layers=2, scale=1.0, **options):
    torch.manual_seed(0)
    model = cls(graph.num_nodes, dim, layers, **options).double()
    nn.init.normal_(model.embedding.weight, std=scale)
    return model


def kinds(**options):
    return [*((SGL, {"view": view, "drop": 0.3, **options}) for view in VIEWS), (SimGCL, {"eps": 0.3, **options})]


def names(value):
    return value.get("view", "noise") if isinstance(value, dict) else value.__name__


def masked(graph, mask):
    """Dense normalised adjacency of the interactions in a mask."""
    return dense_normalized(graph.select(mask))


def naive_views(model, graph, monkeypatch):
    """Dense matrices per layer of both views of SGL, from the masks that were really drawn."""
    drawn = []
    select = Adjacency.select

    def watch(self, mask):
        drawn.append(mask.clone())
        return select(self, mask)

    monkeypatch.setattr(Adjacency, "select", watch)
    module._VIEWS.clear()
    loss = auxiliary_loss(model, graph, BPR().samples(graph), **KEY)
    monkeypatch.undo()
    if model.view == "random-walk":
        half = len(drawn) // 2
        layers = drawn[:half], drawn[half:]
    else:
        layers = [drawn[0]] * model.num_layers, [drawn[1]] * model.num_layers
    return loss, drawn, [[masked(graph, mask) for mask in view] for view in layers]


def naive_info_nce(first, second, nodes, temperature):
    """The mean over nodes, by a double loop."""
    total = 0.0
    for i in nodes:
        terms = []
        for j in nodes:
            cosine = first[i] @ second[j] / (first[i].norm() * second[j].norm())
            terms.append(math.exp(float(cosine) / temperature))
        own = float(first[i] @ second[i] / (first[i].norm() * second[i].norm())) / temperature
        total += math.log(sum(terms)) - own
    return total / len(nodes)


def naive_loss(model, first, second, samples):
    users = sorted(set(samples.users.tolist()))
    items = sorted({samples.size[0] + item for item in samples.items.tolist()})
    first, second = first.detach(), second.detach()
    return model.weight * sum(naive_info_nce(first, second, nodes, model.temperature) for nodes in (users, items))


# ---- what is encoded


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_sgl_recommends_as_lightgcn_does(layers):
    graph = random_graph()
    model = make(SGL, graph, layers=layers)
    plain = LightGCN(graph.num_nodes, 3, layers).double()
    plain.load_state_dict(model.state_dict())
    for ours, theirs in zip(encode(model, graph), encode(plain, graph)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_simgcl_leaves_the_table_out_of_its_rows(layers):
    graph = random_graph()
    model = make(SimGCL, graph, layers=layers)
    alpha = [0.0] + [1 / layers] * layers
    naive = naive_encode(model.embedding.weight, alpha, dense_normalized(graph), graph.num_users)
    # alpha is a float32 buffer, as LightGCN's is
    torch.testing.assert_close(tuple(encode(model, graph)[:2]), naive, rtol=1e-7, atol=1e-7)
    user, item = graph.pairs
    both = torch.stack([torch.cat([user, item + graph.num_users]), torch.cat([item + graph.num_users, user])])
    torch.testing.assert_close(torch.cat(encode(model, graph)[:2]), model.get_embedding(both), **EXACT)


@pytest.mark.parametrize("cls", [SGL, SimGCL])
def test_they_are_linear_and_their_parameters_are_lightgcns(cls):
    graph = random_graph()
    model = make(cls, graph, layers=3)
    form = linear_form(model, graph)
    assert form.parameter == "embedding.weight"
    assert num_hops(model, graph) == 3
    assert isinstance(risk_of(model, graph, BPR()), LinearRisk)
    assert list(model.state_dict()) == list(LightGCN(graph.num_nodes, 3, 3).state_dict())
    assert [name for name, _ in model.named_parameters()] == ["embedding.weight"]


# ---- the contrastive loss


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_info_nce_is_the_double_loop(temperature):
    first, second = torch.randn(2, 6, 4, dtype=torch.float64)
    expected = naive_info_nce(first, second, range(6), temperature)
    assert float(info_nce(first, second, temperature).mean()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("layers", [1, 3])
def test_sgl_is_dense_propagation_over_the_masks_drawn(view, layers, monkeypatch):
    graph = random_graph()
    model = make(SGL, graph, layers=layers, view=view, drop=0.3, weight=0.7)
    loss, drawn, matrices = naive_views(model, graph, monkeypatch)
    assert len(drawn) == (2 * layers if view == "random-walk" else 2)
    assert len({tuple(mask.tolist()) for mask in drawn}) == len(drawn)  # no two are alike
    rows = []
    for view_matrices in matrices:
        layer, out = model.embedding.weight, model.embedding.weight / (layers + 1)
        for matrix in view_matrices:
            layer = matrix @ layer
            out = out + layer / (layers + 1)
        rows.append(out)
    samples = BPR().samples(graph)
    assert float(loss.detach()) == pytest.approx(naive_loss(model, *rows, samples), rel=1e-6)  # alpha is float32


def test_simgcl_is_dense_propagation_with_the_noise_drawn(monkeypatch):
    graph = random_graph()
    model = make(SimGCL, graph, layers=3, eps=0.4, weight=0.7, temperature=0.3)
    drawn, rand = [], torch.rand

    def watch(*args, **kwargs):
        drawn.append(rand(*args, **kwargs))
        return drawn[-1].clone()

    monkeypatch.setattr(torch, "rand", watch)
    samples = BPR().samples(graph)
    loss = auxiliary_loss(model, graph, samples, **KEY)
    monkeypatch.undo()
    assert len(drawn) == 3
    matrix, rows = dense_normalized(graph), []
    for view in range(2):
        layer, out = model.embedding.weight.detach(), 0.0
        for noise in drawn:
            uniform = noise[:, view]
            layer = matrix @ layer
            delta = torch.stack([0.4 * torch.sign(z) * u / u.norm() for z, u in zip(layer, uniform)])
            assert torch.allclose(delta.norm(dim=1), torch.full((graph.num_nodes,), 0.4, dtype=torch.float64))
            layer = layer + delta
            out = out + layer / 3
        rows.append(out)
    assert not torch.allclose(*rows)
    assert float(loss.detach()) == pytest.approx(naive_loss(model, *rows, samples), rel=1e-6)  # alpha is float32


@pytest.mark.parametrize("view", VIEWS)
def test_views_lose_the_share_they_are_told_to(view, monkeypatch):
    graph = random_graph(60, 50, 1500, values=False)
    model = make(SGL, graph, layers=2, view=view, drop=0.2)
    _, drawn, _ = naive_views(model, graph, monkeypatch)
    expected = 0.8**2 if view == "node-drop" else 0.8
    kept = torch.stack(drawn).double().mean()
    assert float(kept) == pytest.approx(expected, abs=0.05)
    if view == "node-drop":
        user, item = graph.pairs
        for mask in drawn:  # an interaction goes if and only if one of its ends does
            lost_users = {u for u in range(60) if not mask[user == u].any()}
            lost_items = {i for i in range(50) if not mask[item == i].any()}
            ends = [u in lost_users or i in lost_items for u, i in graph.pairs.t().tolist()]
            assert torch.equal(~mask, torch.tensor(ends))


@pytest.mark.parametrize(("cls", "options"), kinds(weight=0.5), ids=names)
def test_the_gradient_is_that_of_finite_differences(cls, options):
    graph = random_graph()
    model = make(cls, graph, **options)
    samples = BPR().samples(graph)
    weight = model.embedding.weight

    def loss():
        return auxiliary_loss(model, graph, samples, **KEY)

    (gradient,) = torch.autograd.grad(loss(), weight)
    assert float(gradient.abs().max()) > 1e-3
    step, estimate = 1e-6, torch.zeros_like(gradient)
    with torch.no_grad():
        for cell in range(weight.numel()):
            flat = weight.view(-1)
            before = float(flat[cell])
            flat[cell] = before + step
            up = float(loss())
            flat[cell] = before - step
            estimate.view(-1)[cell] = (up - float(loss())) / (2 * step)
            flat[cell] = before
    torch.testing.assert_close(gradient, estimate, rtol=1e-6, atol=1e-8)


def test_short_rows_count_less_until_they_have_grown():
    graph = random_graph()
    samples = BPR().samples(graph)
    for scale, full_at in ((0.1, 1.0), (0.1, 50.0), (2.0, 1.0)):
        model = make(SimGCL, graph, scale=scale, full_at=full_at)
        published = make(SimGCL, graph, scale=scale, full_at=0.0)
        square = float(model.embedding.weight.detach().square().sum(1).mean())
        expected = min(1.0, square / full_at) * auxiliary_loss(published, graph, samples, **KEY)
        torch.testing.assert_close(auxiliary_loss(model, graph, samples, **KEY), expected, **EXACT)


# ---- which nodes are told apart


def contrasted(model, graph, samples, monkeypatch, **key):
    seen = []

    def watch(first, second, temperature):
        seen.append(first.detach().clone())
        return info_nce(first, second, temperature)

    monkeypatch.setattr(module, "info_nce", watch)
    auxiliary_loss(model, graph, samples, **(KEY | key))
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("cls", [SGL, SimGCL])
def test_at_most_as_many_nodes_as_asked(cls, monkeypatch):
    graph = random_graph(30, 20, 300, values=False)
    samples = BPR().samples(graph).select(torch.arange(100))
    distinct = samples.users.unique().numel(), samples.items.unique().numel()
    assert min(distinct) > 7
    for contrast in (7, 1000):
        users, items = contrasted(make(cls, graph, contrast=contrast), graph, samples, monkeypatch)
        assert (len(users), len(items)) == tuple(min(contrast, count) for count in distinct)
        assert len(users.unique(dim=0)) == len(users)
    model = make(cls, graph, contrast=7)
    first, again = (contrasted(model, graph, samples, monkeypatch, step=0)[0] for _ in range(2))
    other = contrasted(model, graph, samples, monkeypatch, step=5)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("cls", "options"), kinds(), ids=names)
def test_one_sample_or_none_is_nothing_to_tell_apart(cls, options):
    graph = random_graph()
    model = make(cls, graph, **options)
    samples = BPR().samples(graph)
    for count in (0, 1):
        loss = auxiliary_loss(model, graph, samples.select(torch.arange(count)), **KEY)
        assert abs(float(loss.detach())) < 1e-12
    one = InteractionGraph.from_edges(torch.tensor([[0], [0]]), 3, 2)
    model = make(cls, one, **options)
    fit(model, one, epochs=3, objective=BPR(negatives=1))
    assert bool(model.embedding.weight.isfinite().all())


@pytest.mark.parametrize(("cls", "options"), kinds(), ids=names)
def test_nodes_without_interactions_do_no_harm(cls, options):
    graph = random_graph(7, 6, 20, values=False)
    few = graph.select(torch.arange(3))
    model = make(cls, graph, **options)
    everything = BPR().samples(graph)  # supervises nodes that the graph leaves isolated
    loss = auxiliary_loss(model, few, everything, **KEY)
    (gradient,) = torch.autograd.grad(loss, model.embedding.weight)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


def test_a_view_may_be_empty():
    graph = random_graph(3, 2, 2, values=False)
    model = make(SGL, graph, drop=0.999)
    loss = auxiliary_loss(model, graph, BPR().samples(graph), **KEY)
    assert bool(loss.isfinite())


# ---- randomness


@pytest.mark.parametrize(("cls", "options"), kinds(), ids=names)
def test_randomness_is_a_function_of_seed_epoch_and_step(cls, options):
    graph = random_graph(20, 15, 100, values=False)
    model = make(cls, graph, contrast=5, **options)
    samples = BPR().samples(graph)

    def loss(**key):
        return float(auxiliary_loss(model, graph, samples, **(KEY | key)).detach())

    state = torch.random.get_rng_state()
    first = loss()
    assert torch.equal(state, torch.random.get_rng_state())
    others = [loss(seed=4), loss(epoch=3), loss(step=2)]
    torch.randn(3)
    assert loss() == first
    assert len({first, *others}) == 4


def test_views_last_for_an_epoch(monkeypatch):
    graph = random_graph(20, 15, 100, values=False)
    model, samples, drawn = make(SGL, graph, drop=0.3), BPR().samples(graph), []
    view = module._view
    monkeypatch.setattr(module, "_view", lambda *args: drawn.append(1) or view(*args))
    for epoch, step, expected in ((1, 0, 2), (1, 1, 2), (1, 2, 2), (2, 0, 4), (1, 0, 6)):
        auxiliary_loss(model, graph, samples, seed=0, epoch=epoch, step=step)
        assert len(drawn) == expected
    auxiliary_loss(model, graph.select(torch.arange(50)), samples, seed=0, epoch=1, step=0)
    assert len(drawn) == 8  # of another graph
    model.drop = 0.5
    auxiliary_loss(model, graph, samples, seed=0, epoch=1, step=0)
    assert len(drawn) == 10


def test_views_made_in_inference_mode_serve_training():
    graph = random_graph()
    model, samples = make(SGL, graph), BPR().samples(graph)
    with torch.inference_mode():
        first = auxiliary_loss(model, graph, samples, **KEY).item()
    loss = auxiliary_loss(model, graph, samples, **KEY)
    loss.backward()
    assert float(loss.detach()) == first


def test_copies_take_no_views_with_them():
    graph = random_graph()
    model = make(SGL, graph, view="random-walk", drop=0.4)
    auxiliary_loss(model, graph, BPR().samples(graph), **KEY)
    other = copy.deepcopy(model)
    assert list(other.state_dict()) == list(model.state_dict())
    assert (other.view, other.drop, other.contrast) == ("random-walk", 0.4, model.contrast)


# ---- training


@pytest.fixture(scope="module")
def graphs():
    whole = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=0)
    return whole.random_split([0.8, 0.2], seed=0)


def fresh(cls, graph, seed=0, **options):
    model = cls(graph.num_nodes, 8, 2, contrast=16, **options)
    reset_parameters(model, seed)
    return model


def weights(model):
    return model.embedding.weight.detach()


@pytest.mark.parametrize(("cls", "options"), kinds(weight=0.1), ids=names)
def test_training_lowers_both_losses(graphs, cls, options):
    train, _ = graphs
    model = fresh(cls, train, **options | ({"full_at": 0.0} if cls is SimGCL else {}))
    samples = BPR().samples(train)

    def losses():
        ranking = float(BPR()(encode(model, train), samples).detach().mean())
        return ranking, float(auxiliary_loss(model, train, samples, **KEY).detach())

    before = losses()
    result = fit(model, train, epochs=30, lr=0.02, batch_size=128)
    after = losses()
    assert after[0] < 0.95 * before[0]
    assert after[1] < 0.95 * before[1]
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]


def test_the_recorded_loss_is_the_one_minimised(graphs):
    train, _ = graphs
    model = fresh(SGL, train, weight=0.3)
    ranking = float(BPR()(encode(model, train), BPR().samples(train)).detach().mean())
    order = torch.arange(train.num_interactions)
    extra = auxiliary_loss(model, train, BPR().samples(train).select(order), seed=0, epoch=1, step=0)
    result = fit(model, train, epochs=1, lr=1e-12, batch_size=10**6)
    assert result.history[0]["loss"] == pytest.approx(ranking + float(extra.detach()), rel=1e-5)  # float32 sums


@pytest.mark.parametrize(("cls", "options"), kinds(), ids=names)
def test_the_same_seed_gives_the_same_model(graphs, cls, options):
    train, validation = graphs
    state = torch.random.get_rng_state()
    models = [fresh(cls, train, **options) for _ in range(3)]
    torch.random.set_rng_state(state)
    for model, seed in zip(models, (0, 0, 1)):
        fit(model, train, validation=validation, epochs=3, batch_size=128, seed=seed)
        assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


@pytest.mark.parametrize(("cls", "options"), kinds(weight=0.1), ids=names)
def test_resuming_ends_where_an_unbroken_training_ends(graphs, cls, options, tmp_path):
    train, validation = graphs
    whole, parts = fresh(cls, train, **options), fresh(cls, train, **options)
    settings = {"validation": validation, "batch_size": 128, "lr": 0.03}
    expected = fit(whole, train, epochs=5, **settings)
    for epochs in (2, 5):
        module._VIEWS.clear()  # as in a new process
        result = fit(parts, train, epochs=epochs, checkpoint=tmp_path / "state", **settings)
    assert result.history == expected.history
    assert torch.equal(weights(whole), weights(parts))


@pytest.mark.parametrize(
    ("cls", "options"),
    [(SGL, {"drop": 0.2}), (SGL, {"view": "node-drop"}), (SGL, {"weight": 0.2}), (SimGCL, {}), (LightGCN, {})],
    ids=str,
)
def test_the_checkpoint_of_a_model_with_other_options_is_refused(graphs, cls, options, tmp_path):
    train, _ = graphs
    fit(SGL(train.num_nodes, 8, 2), train, epochs=1, checkpoint=tmp_path / "state")
    with pytest.raises(ValueError, match=r"'checkpoint' must come from the same.*with another options"):
        fit(cls(train.num_nodes, 8, 2, **options), train, epochs=2, checkpoint=tmp_path / "state")


# ---- other models


def test_models_without_an_auxiliary_loss_have_none():
    graph = random_graph()
    samples = BPR().samples(graph)
    for model in (
        LightGCN(graph.num_nodes, 3, 2),
        two_tower(graph),
        SGL(13, 3, 2, weight=0),
        SimGCL(13, 3, 2, weight=0),
    ):
        assert auxiliary_loss(model, graph, samples, **KEY) is None


def test_foreign_models_bring_their_own(graphs):
    train, _ = graphs
    calls = []

    class Own(LightGCN):
        pass

    @auxiliary_loss.register
    def _(model: Own, graph, samples, *, seed, epoch, step):
        calls.append((seed, epoch, step, len(samples)))
        return model.embedding.weight.square().sum()

    model, plain = Own(train.num_nodes, 8, 2), LightGCN(train.num_nodes, 8, 2)
    fit(model, train, epochs=2, batch_size=400, seed=5)
    fit(plain, train, epochs=2, batch_size=400, seed=5)
    sizes = [400, train.num_interactions - 400]
    assert calls == [(5, epoch, step, sizes[step]) for epoch in (1, 2) for step in (0, 1)]
    assert weights(model).norm() < 0.9 * weights(plain).norm()


# ---- bad input


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SGL, {"view": "edge"}, "'view' must be one of edge-drop, node-drop, random-walk (got 'edge')"),
        (SGL, {"drop": 1.0}, "'drop' must be at least 0 and less than 1 (got 1.0)"),
        (SGL, {"drop": -0.1}, "'drop' must be at least 0 and less than 1 (got -0.1)"),
        (SimGCL, {"eps": 0.0}, "'eps' must be positive and finite (got 0.0)"),
        (SimGCL, {"full_at": -1.0}, "'full_at' must be finite and not negative (got -1.0)"),
        (SGL, {"temperature": 0.0}, "'temperature' must be positive and finite (got 0.0)"),
        (SimGCL, {"temperature": math.inf}, "'temperature' must be positive and finite (got inf)"),
        (SGL, {"weight": -1.0}, "'weight' must be finite and not negative (got -1.0)"),
        (SimGCL, {"weight": math.nan}, "'weight' must be finite and not negative (got nan)"),
        (SimGCL, {"contrast": 0}, "'contrast' must be at least 1 (got 0)"),
        (SGL, {"num_layers": 0}, "'num_layers' must be at least 1 (got 0)"),
        (SimGCL, {"num_layers": 0}, "'num_layers' must be at least 1 (got 0)"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(cls, options, message):
    with pytest.raises(ValueError) as error:
        cls(**({"num_nodes": 4, "embedding_dim": 2, "num_layers": 2} | options))
    assert str(error.value) == message


@pytest.mark.parametrize("cls", [SGL, SimGCL])
def test_a_graph_of_another_size_is_refused(cls):
    graph = random_graph()
    samples = Samples(torch.tensor([0]), torch.tensor([0]), (7, 6))
    with pytest.raises(ValueError, match=f"'graph' must have as many nodes as {cls.__name__} has embeddings, 12"):
        auxiliary_loss(cls(12, 3, 2), graph, samples, **KEY)


def test_their_options_are_shown():
    assert repr(SGL(4, 2, 1)).startswith("SGL(4, 2, num_layers=1, view='edge-drop', drop=")
    assert repr(SimGCL(4, 2, 1, eps=0.3)).startswith("SimGCL(4, 2, num_layers=1, eps=0.3, full_at=")


# ---- devices


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("cls", "options"), kinds(), ids=names)
def test_on_cuda(cls, options):
    graph = random_graph(20, 15, 100, values=False)
    model = make(cls, graph, contrast=5, **options)
    there, moved = copy.deepcopy(model).cuda(), copy.copy(graph).to("cuda")
    here = auxiliary_loss(model, graph, BPR().samples(graph), **KEY)
    other = auxiliary_loss(there, moved, BPR().samples(moved), **KEY)
    assert other.is_cuda
    if cls is SGL:  # masks are the same on every device, noise is not
        torch.testing.assert_close(other.cpu(), here, rtol=1e-9, atol=1e-9)
    fit(there, moved, epochs=2, progress=False)
    assert bool(weights(there).isfinite().all())
