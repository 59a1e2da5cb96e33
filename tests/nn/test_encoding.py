"""Encoding against PyG and dense propagation; scores and recommendations against plain loops."""

import copy
import math

import pytest
import torch
from data.strategies import graphs
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import LGConv, LightGCN
from torch_geometric.utils import to_undirected
from toys import TwoTower, Wrapped, dense_normalized, factors, light_gcn, naive_encode, random_graph, two_tower

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.nn import (
    BPR,
    MODELS,
    Encoded,
    LinearForm,
    LinearRisk,
    MatrixFactorization,
    build_model,
    encode,
    fit,
    kind_of,
    linear_form,
    num_hops,
    recommend,
    risk_of,
    score,
    stationarity,
)
from graphunlearn.nn.encoding import best_items

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, a few layers of sums of a dozen terms


def both_directions(graph):
    user, item = graph.pairs
    return to_undirected(torch.stack([user, item + graph.num_users]), num_nodes=graph.num_nodes)


# ---- LightGCN


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [None, 0.3, "tensor"], ids=str)
def test_lightgcn_is_encoded_as_it_encodes_itself(layers, alpha):
    graph = random_graph()
    weights = torch.rand(layers + 1, dtype=torch.float64) if alpha == "tensor" else alpha
    model = light_gcn(graph, layers=layers, alpha=weights)
    expected = model.get_embedding(both_directions(graph))
    users, items, user_base, item_base = encode(model, graph)
    torch.testing.assert_close(torch.cat([users, items]), expected, **EXACT)
    assert torch.equal(torch.cat([user_base, item_base]), model.embedding.weight)
    naive = naive_encode(model.embedding.weight, model.alpha, dense_normalized(graph), graph.num_users)
    torch.testing.assert_close((users, items), naive, **EXACT)


@given(graphs(), st.integers(1, 4))
def test_lightgcn_on_any_graph(graph, layers):
    model = light_gcn(graph, layers=layers)
    users, items, *_ = encode(model, graph)
    naive = naive_encode(model.embedding.weight, model.alpha, dense_normalized(graph), graph.num_users)
    torch.testing.assert_close((users, items), naive, **EXACT)


def test_neighbours_matter_in_both_directions():
    # edges in one direction only would silently make the model a scaled matrix factorisation
    graph = random_graph()
    model = light_gcn(graph, layers=2)
    before = encode(model, graph)
    user, item = graph.pairs[:, 0].tolist()
    with torch.no_grad():
        model.embedding.weight[graph.num_users + item] += 1.0
    after = encode(model, graph)
    assert not torch.allclose(after.queries[user], before.queries[user])
    with torch.no_grad():
        model.embedding.weight[user] += 1.0
    again = encode(model, graph)
    assert not torch.allclose(again.items[item], after.items[item])
    base = model.embedding.weight / (model.num_layers + 1)
    assert not torch.allclose(torch.cat(again[:2]), base)


def test_lightgcn_trains_through_encode_as_through_itself():
    graph = random_graph()
    model = light_gcn(graph)
    weights = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    (torch.cat(encode(model, graph)[:2]) * weights).sum().backward()
    got, model.embedding.weight.grad = model.embedding.weight.grad, None
    (model.get_embedding(both_directions(graph)) * weights).sum().backward()
    torch.testing.assert_close(got, model.embedding.weight.grad, **EXACT)


def test_what_is_passed_is_what_propagates():
    graph = random_graph()
    model = light_gcn(graph)
    less = graph.select(torch.arange(10))
    assert not torch.allclose(encode(model, graph).queries, encode(model, less).queries)
    naive = naive_encode(model.embedding.weight, model.alpha, dense_normalized(less), graph.num_users)
    torch.testing.assert_close(tuple(encode(model, less)[:2]), naive, **EXACT)


def test_encoding_leaves_the_model_alone():
    graph = random_graph()
    model = light_gcn(graph)
    keys, values = list(model.state_dict()), [v.clone() for v in model.state_dict().values()]
    encode(model, graph)
    assert list(model.state_dict()) == keys
    assert all(torch.equal(a, b) for a, b in zip(values, model.state_dict().values()))
    assert model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_models(dtype):
    graph = random_graph()
    assert encode(light_gcn(graph).to(dtype), graph).queries.dtype == dtype


# ---- which classes are known


class Plain(LightGCN):
    """Computes what LightGCN computes."""


class Bent(LightGCN):
    def get_embedding(self, edge_index, edge_weight=None):
        return super().get_embedding(edge_index, edge_weight).tanh()


class BentChild(Bent):
    """Says nothing of its own: what it computes is what its parent computes."""


class BentFactors(MatrixFactorization):
    def forward(self, edge_label_index):
        return super().forward(edge_label_index).tanh()


class Scaled(LightGCN):
    """Computes something else only for `encode`."""


@encode.register
def _(model: Scaled, graph):
    users, items, *_ = encode(model.inner, graph)
    return 2 * users, items


def test_a_subclass_that_changes_nothing_is_encoded():
    graph = random_graph()
    torch.manual_seed(0)
    model = Plain(graph.num_nodes, 3, 2)
    torch.testing.assert_close(
        torch.cat(encode(model, graph)[:2]), model.get_embedding(both_directions(graph)), rtol=1e-5, atol=1e-6
    )  # float32


@pytest.mark.parametrize("cls", [Bent, BentChild, BentFactors])
def test_a_subclass_that_computes_something_else_is_refused(cls):
    graph = random_graph()
    model = cls(graph.num_nodes, 3, *([2] if issubclass(cls, LightGCN) else []))
    assert linear_form(model, graph) is None
    with pytest.raises(TypeError, match=rf"got {cls.__name__}\).*encode.register\({cls.__name__}\)"):
        encode(model, graph)


def test_a_registered_encoding_overrules_the_linear_form_of_the_parent_class():
    graph = random_graph()
    model = Scaled(graph.num_nodes, 3, 2).double()
    model.inner = light_gcn(graph)
    assert linear_form(model, graph) is None
    assert not isinstance(risk_of(model, graph, BPR()), LinearRisk)


def test_an_unknown_module_is_refused():
    with pytest.raises(TypeError, match=r"'model' must be a recommender that 'encode' supports \(got Linear\)"):
        encode(nn.Linear(2, 2), random_graph())


def test_a_registered_module_is_encoded():
    graph = random_graph()
    model = two_tower(graph)
    users, items, _, item_base = encode(model, graph)
    table = model.user_table.weight
    torch.testing.assert_close(users, table + (table @ model.tower.weight.t() + model.tower.bias).tanh(), **EXACT)
    assert items is item_base
    assert linear_form(model, graph) is None
    assert list(model.state_dict()) == ["user_table.weight", "item_table.weight", "tower.weight", "tower.bias"]


def test_registering_by_call_and_for_subclasses():
    class Bare(nn.Module):
        pass

    class BareChild(Bare):
        pass

    graph = random_graph()
    rows = torch.ones(7, 2), torch.ones(6, 2)
    encode.register(Bare, lambda model, graph: rows)
    encoded = encode(BareChild(), graph)
    assert encoded.queries is rows[0]
    assert encoded.query_base is None


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (([6, 2], [6, 2]), r"must return 7 user embeddings for this graph \(got a tensor of shape \[6, 2\]\)"),
        (([7, 2], [7, 2]), r"must return 6 item embeddings for this graph \(got a tensor of shape \[7, 2\]\)"),
        (([7], [6]), "must return 7 user embeddings"),
    ],
    ids=["users", "items", "vectors"],
)
def test_a_registered_function_that_returns_something_else(shapes, message):
    class Wrong(nn.Module):
        pass

    encode.register(Wrong, lambda model, graph: tuple(torch.ones(shape) for shape in shapes))
    with pytest.raises(ValueError, match=f"'encode' of Wrong {message}"):
        encode(Wrong(), random_graph())


@pytest.mark.parametrize("make", [lambda n: LightGCN(n, 3, 2), lambda n: MatrixFactorization(n, 3)], ids=["gcn", "mf"])
@pytest.mark.parametrize("num_nodes", [12, 14])
def test_a_graph_of_another_size_is_refused(make, num_nodes):
    message = rf"'graph' must have as many nodes as \w+ has embeddings, {num_nodes} \(got 7 users \+ 6 items = 13\)"
    with pytest.raises(ValueError, match=message):
        encode(make(num_nodes), random_graph())


# ---- linear forms


def test_matrix_factorisation_does_not_propagate():
    graph = random_graph()
    model = factors(graph)
    assert torch.equal(torch.cat(encode(model, graph)[:2]), model.embedding.weight)
    user, item = graph.pairs
    torch.testing.assert_close(
        model(torch.stack([user, item + graph.num_users])), score(encode(model, graph), graph.pairs), **EXACT
    )


def test_propagating_is_symmetric():
    graph = random_graph()
    form = linear_form(light_gcn(graph, layers=3), graph)
    x, y = torch.randn(2, graph.num_nodes, 2, dtype=torch.float64)
    torch.testing.assert_close((form.propagate(x) * y).sum(), (x * form.propagate(y)).sum(), **EXACT)


def test_one_weight_without_a_matrix_scales():
    x = torch.randn(4, 2)
    assert torch.equal(LinearForm("w", (0.5,), None).propagate(x), 0.5 * x)


def test_num_hops_counts_layers():
    graph = random_graph()
    assert [num_hops(light_gcn(graph, layers=k), graph) for k in (1, 2, 4)] == [1, 2, 4]
    assert num_hops(Wrapped(light_gcn(graph, layers=3)), graph) == 3
    assert num_hops(nn.Sequential(LGConv(), nn.Linear(2, 2)), graph) == 1
    assert num_hops(factors(graph), graph) == num_hops(two_tower(graph), graph) == 0


# ---- scores and recommendations


@given(st.integers(0, 30), st.integers(0, 99))
def test_score_is_the_dot_product_of_each_pair(count, seed):
    torch.manual_seed(seed)
    users, items = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    pairs = torch.stack([torch.randint(0, 5, (count,)), torch.randint(0, 4, (count,))])
    got = score(Encoded(users, items), pairs)
    expected = torch.tensor([float(users[u] @ items[i]) for u, i in pairs.t().tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, expected, **EXACT)


def test_score_in_chunks_keeps_the_order():
    users, items = torch.randn(50, 2, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)
    pairs = torch.stack([torch.randint(0, 50, (70_000,)), torch.randint(0, 40, (70_000,))])
    torch.testing.assert_close(score(Encoded(users, items), pairs), (users @ items.t())[tuple(pairs)], **EXACT)


@torch.no_grad()
def naive_recommend(model, graph, k):
    encoded = encode(model, graph)
    seen = set(map(tuple, graph.pairs.t().tolist()))
    out = []
    for user in range(graph.num_users):
        scored = [(float(encoded.queries[user] @ encoded.items[i]), i) for i in range(graph.num_items)]
        best = [i for _, i in sorted(scored, reverse=True) if (user, i) not in seen][:k]
        out.append(best + [-1] * (k - len(best)))
    return torch.tensor(out).view(-1, k)


@given(graphs(values=False), st.data())
def test_recommend_is_the_plain_loop(graph, data):
    model = light_gcn(graph, seed=data.draw(st.integers(0, 9)))
    k = data.draw(st.integers(1, graph.num_items))
    got = recommend(model, graph, k, batch_size=data.draw(st.integers(1, 7)))
    assert torch.equal(got, naive_recommend(model, graph, k))


def test_recommend_never_returns_what_was_seen():
    graph = random_graph(30, 20, 400, values=False)
    top = recommend(light_gcn(graph), graph, k=20, batch_size=7)
    seen = set(map(tuple, graph.pairs.t().tolist()))
    for user, row in enumerate(top.tolist()):
        offered = [item for item in row if item >= 0]
        assert not seen & {(user, item) for item in offered}
        assert len(offered) == 20 - int((graph.pairs[0] == user).sum()) == len(set(offered))
        assert row[len(offered) :] == [-1] * (20 - len(offered))


def test_recommend_to_some_users_in_the_order_asked():
    graph = random_graph()
    model = factors(graph)
    users = torch.tensor([5, 0, 5])
    assert torch.equal(recommend(model, graph, 3, users=users), recommend(model, graph, 3)[users])
    assert recommend(model, graph, 3, users=users[:0]).shape == (0, 3)


@torch.no_grad()
def test_best_items_are_candidates_with_their_scores():
    graph = random_graph()
    model, candidates = factors(graph), torch.tensor([True, False, True, True, False, True])
    items, scores = best_items(model, graph, 6, candidates=candidates, batch_size=2)
    encoded = encode(model, graph)
    every = recommend(model, graph, 6)
    for user, (row, values) in enumerate(zip(items.tolist(), scores.tolist())):
        expected = [item for item in every[user].tolist() if item >= 0 and candidates[item]]
        assert row == expected + [-1] * (6 - len(expected))
        products = [float(encoded.queries[user] @ encoded.items[item]) for item in expected]
        assert values == pytest.approx(products + [-math.inf] * (6 - len(expected)))


@pytest.mark.parametrize("k", [0, -1, 7])
def test_recommend_refuses_lists_longer_than_the_catalogue(k):
    graph = random_graph()
    with pytest.raises(ValueError, match=rf"'k' must be between 1 and the number of items, 6 \(got {k}\)"):
        recommend(factors(graph), graph, k)


def test_recommend_needs_no_gradient():
    graph = random_graph()
    model = light_gcn(graph)
    recommend(model, graph, 2)
    assert model.embedding.weight.grad is None


def test_items_whose_scores_overflow_remain():
    graph = random_graph(7, 6, 20)
    model = factors(graph).float()
    with torch.no_grad():
        model.embedding.weight *= 1e25  # finite; products of two of them are not
    exact = copy.deepcopy(model).double()
    got, wanted = (recommend(m, graph, 6) for m in (model, exact))
    assert torch.equal(got, wanted)
    held = graph.adjacency.degree[:7]
    assert torch.equal((got >= 0).sum(1), 6 - held)
    with torch.no_grad():
        exact.embedding.weight *= 1e170  # nor are they in double precision
    assert torch.equal((recommend(exact, graph, 6) >= 0).sum(1), 6 - held)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision_is_refused_in_one_sentence(name, dtype):
    sessions = kind_of(name) == "sessions"
    graph = SessionGraph.from_sequences([[0, 1, 2], [2, 1]]) if sessions else random_graph()
    model = build_model(name, graph, dim=4).to(dtype)
    kind = str(dtype).removeprefix("torch.")
    uses = [lambda: recommend(model, graph, 2), lambda: fit(model, graph, epochs=1)]
    uses += [] if sessions else [lambda: stationarity(model, graph)]
    for use in uses:
        with pytest.raises(ValueError, match=rf"'model' must have parameters in single .* \(got {kind}"):
            use()


# ---- models by name


def test_models_by_name():
    graph = random_graph()
    assert isinstance(build_model("lightgcn", graph, dim=5, layers=4), LightGCN)
    assert isinstance(build_model("mf", graph, dim=5), MatrixFactorization)
    for name in (name for name in MODELS if kind_of(name) == "interactions"):
        users, items, *_ = encode(build_model(name, graph, dim=5), graph)
        columns = 15 if name == "ngcf" else 5  # the table and two layers, side by side
        assert (users.shape, items.shape) == ((7, columns), (6, columns))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gcn"}, r"'model' must be one of lightgcn, mf, lightgcn-positives, sgl, simgcl, ngcf \(got 'gcn'\)"),
        ({"name": "mf", "dim": 0}, r"'dim' must be at least 1 \(got 0\)"),
        ({"name": "lightgcn", "layers": 0}, r"'layers' must be at least 1 \(got 0\)"),
    ],
    ids=["name", "dim", "layers"],
)
def test_models_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(graph=random_graph(), **arguments)


def test_a_foreign_class_keeps_its_state_dict():
    graph = InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
    model = TwoTower(2, 2)
    other = TwoTower(2, 2)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(encode(model, graph), encode(other, graph)))
