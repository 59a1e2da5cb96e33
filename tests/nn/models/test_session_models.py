"""Session recommenders against torch's own layers and naive loops, session by session."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_toys import CLASSES, NAIVE, random_sessions, sequences, session_graph, session_model
from toys import light_gcn, random_graph

from graphunlearn.nn import (
    MODELS,
    SRGNN,
    build_model,
    encode,
    encode_prefixes,
    kind_of,
    prefix_states,
    recommend,
    reset_parameters,
)
from graphunlearn.nn.models.session import dropped

NAMES = tuple(CLASSES)
DEEPER = {
    "srgnn": {"num_layers": 3},
    "gru4rec": {"num_layers": 2, "hidden": 7},
    "sasrec": {"num_layers": 3, "heads": 4},
    "narm": {"num_layers": 2, "hidden": 7},
    "bert4rec": {"num_layers": 3, "heads": 4, "max_length": 5},
    "gcegnn": {"num_layers": 2, "most": 2, "max_length": 3},
}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def naive(name, model, rows):
    return torch.stack([NAIVE[name](model, row) for row in rows])


# ---- what they compute


@pytest.mark.parametrize("name", NAMES)
@given(sequences(), st.booleans())
def test_every_session_as_alone(name, rows, deeper):
    model = session_model(name, 6, **(DEEPER[name] if deeper else {}))
    encoded = encode(model, session_graph(rows, 6))
    close(encoded.queries, naive(name, model, rows))
    assert encoded.items is model.embedding.weight


@pytest.mark.parametrize("name", NAMES)
@given(sequences(), st.randoms(use_true_random=False))
def test_every_prefix_as_a_session_of_its_own(name, rows, random):
    model, graph = session_model(name, 6, num_layers=2), session_graph(rows, 6)
    ends = random.choices(range(graph.num_clicks), k=random.randint(1, 12))  # any order, some twice
    session, start = graph.session.tolist(), graph.click_ptr.tolist()
    wanted = [rows[session[end]][: end - start[session[end]] + 1] for end in ends]
    ends = torch.tensor(ends)
    close(prefix_states(model, graph, ends), naive(name, model, wanted))
    close(prefix_states(model, graph, ends), encode_prefixes.dispatch(object)(model, graph, ends).queries)


@pytest.mark.parametrize("name", NAMES)
def test_no_prefix_at_all(name):
    model, graph = session_model(name, 6), session_graph([[0, 1], [2]], 6)
    assert prefix_states(model, graph, torch.empty(0, dtype=torch.long)).shape == (0, 4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_naive_loop(name):
    rows = [[0, 1, 0, 2, 2], [3], [1, 4, 1, 4, 5, 1], [5, 3]]
    model = session_model(name, 6)
    weight = torch.randn(4, 4, dtype=torch.float64)
    ours = torch.autograd.grad(
        (encode(model, session_graph(rows, 6)).queries * weight).sum(), tuple(model.parameters())
    )
    if name in ("gru4rec", "narm", "bert4rec"):  # the copy inside the naive loop has parameters of its own
        table = model.embedding.weight
        close(ours[0], torch.autograd.grad((naive(name, model, rows) * weight).sum(), table)[0])
        return
    if name == "gcegnn":
        rows_of = (model.embedding.weight, model.position.weight, model.kinds.weight, model.gather[0].into.weight)
    elif name == "srgnn":
        rows_of = (model.embedding.weight, model.last.weight, model.each.weight, model.attention.weight)
    else:
        rows_of = (model.embedding.weight, model.position.weight, model.norm.weight)
    by_id = {id(p): g for p, g in zip(model.parameters(), ours)}
    theirs = torch.autograd.grad((naive(name, model, rows) * weight).sum(), rows_of)
    for parameter, gradient in zip(rows_of, theirs):
        close(by_id[id(parameter)], gradient)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_against_finite_differences(name):
    model, graph = session_model(name, 3, dim=2), session_graph([[0, 1, 0], [2, 2, 1], [1]], 3)
    names, values = zip(*model.named_parameters())

    def states(*parameters):
        return torch.func.functional_call(
            _States(model), {f"model.{n}": p for n, p in zip(names, parameters)}, (graph,)
        )

    assert torch.autograd.gradcheck(states, tuple(v.detach().requires_grad_() for v in values), atol=1e-6)


class _States(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, graph):
        return encode(self.model, graph).queries


def test_srgnn_is_that_of_recbole():
    # skipped where RecBole is not installed; benchmarks/session_throughput.py checks the same
    theirs_class = pytest.importorskip("recbole.model.sequential_recommender.srgnn").SRGNN
    config = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_"}
    config |= {"ITEM_LIST_LENGTH_FIELD": "length", "MAX_ITEM_LIST_LENGTH": 9, "device": "cpu"}
    config |= {"embedding_size": 4, "step": 2, "loss_type": "CE"}
    theirs = theirs_class(config, type("Data", (), {"num": lambda self, field: 7})())
    ours = SRGNN(6, 4, num_layers=2).eval()
    gnn = theirs.gnn
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.item_embedding.weight[1:])
        theirs.item_embedding.weight[0] = 0
        edges = gnn.linear_edge_in, gnn.linear_edge_out
        ours.conv.into.weight.copy_(torch.cat([edges[0].weight, edges[1].weight, gnn.w_hh]))
        ours.conv.into.bias.copy_(torch.cat([edges[0].bias, edges[1].bias, gnn.b_hh]))
        ours.conv.gates.weight.copy_(gnn.w_ih)
        ours.conv.gates.bias.copy_(gnn.b_ih + gnn.w_ih @ torch.cat([gnn.b_iah, gnn.b_ioh]))
        ours.last.weight.copy_(theirs.linear_one.weight)
        ours.last.bias.copy_(theirs.linear_one.bias + theirs.linear_two.bias)
        ours.each.weight.copy_(theirs.linear_two.weight)
        ours.attention.weight.copy_(theirs.linear_three.weight)
        ours.dense.load_state_dict(theirs.linear_transform.state_dict())
    rows = random_sessions(60, 6, max_length=9)
    padded = torch.tensor([[item + 1 for item in row] + [0] * (9 - len(row)) for row in rows])
    expected = theirs(padded, torch.tensor([len(row) for row in rows]))
    torch.testing.assert_close(encode(ours, session_graph(rows, 6)).queries, expected, rtol=1e-5, atol=1e-6)


# ---- how scores are made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_scores_with_a_table_and_a_bias_of_their_own(name, tied, bias):
    rows = [[0, 1, 0, 5], [3], [1, 4]]
    model, graph = session_model(name, 6, tied=tied, bias=bias), session_graph(rows, 6)
    table = model.embedding.weight if tied else model.output.weight
    expected = naive(name, model, rows) @ table.t() + (model.bias if bias else 0)
    users, items, *_ = encode(model, graph)
    close(users @ items.t(), expected)
    assert torch.equal(recommend(model, graph, k=3), expected.topk(3).indices)
    assert torch.equal(recommend(model, graph, k=6, users=torch.tensor([2])), expected[2:].topk(6).indices)


@pytest.mark.parametrize("name", NAMES)
def test_every_item_has_a_row_and_nothing_else_has(name):
    model = build_model(name, session_graph([[0, 1], [2]], 6), dim=4)
    assert model.embedding.weight.shape == (6, 4)
    assert model.embedding.padding_idx is None


# ---- sizes


@pytest.mark.parametrize("name", NAMES)
def test_large_graphs_are_encoded_in_parts(name, monkeypatch):
    rows = random_sessions(50)
    model, graph = session_model(name, 12), session_graph(rows, 12)
    whole, ends = encode(model, graph).queries, torch.arange(graph.num_clicks)
    every = prefix_states(model, graph, ends)
    seen = []
    monkeypatch.setattr("graphunlearn.nn.models.session.CHUNK", 16)
    monkeypatch.setattr("graphunlearn.nn.models.srgnn.CHUNK", 16)
    monkeypatch.setattr("graphunlearn.nn.models.bert4rec.CHUNK", 16)
    monkeypatch.setattr("graphunlearn.nn.prefixes.CHUNK", 16)
    model.register_forward_hook(lambda *given: seen.append(given[2].size(0)))
    close(encode(model, graph).queries, whole)
    assert len(seen) > 5
    assert max(seen) <= 16 + 8  # clicks, or sessions
    close(prefix_states(model, graph, ends), every)


def test_places_beyond_the_last_share_its_row():
    model = session_model("sasrec", 6, max_length=3)
    row = [0, 1, 2, 3, 4, 5, 0, 1]
    close(encode(model, session_graph([row], 6)).queries[0], NAIVE["sasrec"](model, row))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_for_training_alone(name):
    model, graph = CLASSES[name](6, 16, dropout=0.5), session_graph([[0, 1, 0, 5], [3], [1, 4]], 6)
    model.eval()
    assert torch.equal(encode(model, graph).queries, encode(model, graph).queries)
    model.train()
    assert not torch.equal(encode(model, graph).queries, encode(model, graph).queries)
    still = CLASSES[name](6, 16, dropout=0.0)
    assert torch.equal(encode(still, graph).queries, encode(still.eval(), graph).queries)


def test_dropout_keeps_the_mean():
    rows = torch.ones(400, 500)
    out = dropped(rows, 0.3, training=True)
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert float((out == 0).double().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert dropped(rows, 0.3, training=False) is rows


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_drawn_anew_all_of_them(name):
    first, second = (CLASSES[name](60, 16, tied=False, bias=True) for _ in range(2))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7)
    for model in (first, second):
        reset_parameters(model, 3)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values()):
        assert torch.equal(a, b), key
        assert not (a == 7).any(), key
    assert not first.bias.any()
    length = first.embedding.weight.detach().norm(dim=1).mean()
    assert float(length) == pytest.approx(first.row_length, rel=0.1)


# ---- what does not fit


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_of_the_other_kind(name):
    graph, sessions = random_graph(), session_graph([[0, 1], [2]], 6)
    with pytest.raises(ValueError, match=r"'model' must be a user–item recommender for an InteractionGraph \(got "):
        encode(build_model(name, sessions, dim=4), graph)
    with pytest.raises(
        ValueError, match=rf"'model' must be one of lightgcn.* for an InteractionGraph \(got '{name}'\)"
    ):
        build_model(name, graph)
    with pytest.raises(ValueError, match=r"'model' must be a session recommender for a SessionGraph \(got LightGCN\)"):
        encode(light_gcn(graph), sessions)


@pytest.mark.parametrize("name", [n for n in MODELS if kind_of(n) == "interactions"])
def test_models_of_interactions_refuse_sessions(name):
    sessions = session_graph([[0, 1], [2]], 6)
    with pytest.raises(ValueError, match=rf"'model' must be one of srgnn, .* for a SessionGraph \(got '{name}'\)"):
        build_model(name, sessions)
    graph = random_graph()
    with pytest.raises(ValueError, match=r"'model' must be a session recommender for a SessionGraph \(got "):
        encode(build_model(name, graph, dim=4), sessions)


@pytest.mark.parametrize("name", NAMES)
def test_an_item_without_a_row(name):
    model = CLASSES[name](5, 4)
    with pytest.raises(
        ValueError, match=rf"'graph' must have as many items as {type(model).__name__} has embeddings, 5 \(got 6"
    ):
        encode(model, session_graph([[0, 1]], 6))
    with pytest.raises(ValueError, match=r"'graph' must have as many items"):
        prefix_states(model, session_graph([[0, 1]], 6), torch.tensor([0]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_items": 0}, r"'num_items' must be at least 1 \(got 0\)"),
        ({"dim": 0}, r"'dim' must be at least 1 \(got 0\)"),
        ({"num_layers": 0}, r"'num_layers' must be at least 1 \(got 0\)"),
        ({"dropout": 1.0}, r"'dropout' must be at least 0 and less than 1 \(got 1.0\)"),
        ({"dropout": -0.1}, r"'dropout' must be at least 0"),
    ],
)
def test_options_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        CLASSES[name](**({"num_items": 5, "dim": 4} | options))


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match=r"'heads' must divide 'dim', 6 \(got 4\)"):
        CLASSES["sasrec"](5, 6, heads=4)
    with pytest.raises(ValueError, match=r"'hidden' must be at least 1 \(got 0\)"):
        CLASSES["gru4rec"](5, 6, hidden=0)


def test_kinds():
    assert {name: kind_of(name) for name in NAMES} == dict.fromkeys(NAMES, "sessions")
    assert kind_of("ngcf") == "interactions"
    with pytest.raises(ValueError, match=r"'model' must be one of lightgcn.*gcegnn \(got 'bert'\)"):
        kind_of("bert")


@pytest.mark.parametrize(("name", "layers"), [(n, 2 if n in ("sasrec", "bert4rec") else 1) for n in NAMES])
def test_layers_by_default(name, layers):
    graph = session_graph([[0, 1], [2]], 6)
    assert repr(build_model(name, graph, dim=4)) == repr(CLASSES[name](6, 4, layers))
    assert repr(build_model(name, graph, 4, 3)) == repr(CLASSES[name](6, 4, 3))
