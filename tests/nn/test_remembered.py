"""What is remembered of the tensors of a model is what they would give now, whatever changed them."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.nn import identity
from graphunlearn.nn.encoding import check_fit
from graphunlearn.nn.identity import checksums, fingerprint, remembered
from graphunlearn.nn.precision import not_finite


def by_a_fused_step(model):
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    version = model.weight._version
    optimizer.step()
    assert model.weight._version in (version, version + 1)  # the counter may not tell


def by_replacing(model):
    model.weight = nn.Parameter(model.weight.detach() + 1)


CHANGES = {
    "in place": lambda model: nn.init.constant_(model.weight, 3.0),
    "data": lambda model: model.weight.data[0, 0].add_(1),
    "order": lambda model: model.weight.data.copy_(model.weight.data.flip(0)),
    "numpy": lambda model: model.weight.detach().numpy().__setitem__((1, 1), 7.0),
    "state_dict": lambda model: model.load_state_dict(nn.Linear(4, 4).state_dict()),
    "fused": by_a_fused_step,
    "replaced": by_replacing,
    "converted": lambda model: model.double(),
    "buffer": lambda model: model.register_buffer("more", torch.ones(1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(change):
    torch.manual_seed(0)
    model, calls = nn.Linear(4, 4), []

    def counted(model):
        calls.append(1)
        return fingerprint(model)

    before = [remembered(model, "counted", counted) for _ in range(3)]
    assert (set(before), len(calls)) == ({fingerprint(model)}, 1)
    change(model)
    after = remembered(model, "counted", counted)
    assert (after, len(calls)) == (fingerprint(model), 2)
    assert after != before[0]


def test_contents_are_compared_once_where_a_model_does_not_change(monkeypatch):
    model, other, compared, content = nn.Linear(4, 4), nn.Linear(4, 4), [], identity._content
    monkeypatch.setattr(identity, "_content", lambda value: compared.append(1) or content(value))
    remembered(model, "fingerprint", fingerprint)
    compared.clear()
    with identity.unchanging(model):
        for _ in range(3):
            assert remembered(model, "fingerprint", fingerprint) == fingerprint(model)
            assert checksums(model) == checksums(model)
        assert len(compared) == 2  # the weight and the bias
        with torch.no_grad():
            model.weight.add_(1)  # a change that the version tells is seen all the same
        assert remembered(model, "fingerprint", fingerprint) == fingerprint(model)
        assert len(compared) == 4
        for _ in range(2):
            remembered(other, "fingerprint", fingerprint)
        assert len(compared) == 8
    model.weight.data += 1
    assert remembered(model, "fingerprint", fingerprint) == fingerprint(model)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.parametrize("persistent", [True, False])
def test_a_sparse_buffer_does_not_prevent_an_answer(layout, persistent):
    def made(matrix):
        model = nn.Linear(3, 3)
        for p in model.parameters():
            nn.init.ones_(p)
        model.register_buffer("adjacency", matrix.to_sparse(layout=layout), persistent=persistent)
        return model

    model, other, moved = made(torch.eye(3)), made(2 * torch.eye(3)), made(torch.eye(3)[[1, 0, 2]])
    assert remembered(model, "fingerprint", fingerprint) == fingerprint(model)
    assert checksums(model) == checksums(made(torch.eye(3)))
    assert len({checksums(kind) for kind in (model, other, moved)}) == 3
    assert len({fingerprint(kind) for kind in (model, other, moved)}) == (3 if persistent else 1)


def test_layouts_of_sparse_buffers_are_told_apart():
    matrix = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    models = [nn.Module(), nn.Module()]
    models[0].register_buffer("matrix", matrix.to_sparse_csr())
    models[1].register_buffer("matrix", matrix.t().to_sparse_csc())  # made of the same three tensors
    assert checksums(models[0]) != checksums(models[1])
    assert fingerprint(models[0]) != fingerprint(models[1])


class WithMatrix(nn.Module):
    """A recommender that holds a sparse matrix as a buffer."""

    def __init__(self, graph):
        super().__init__()
        self.sizes, self.table = [graph.num_users, graph.num_items], nn.Embedding(graph.num_nodes, 8)
        self.register_buffer("matrix", graph.adjacency.normalized().to_sparse_coo(), persistent=False)


@gu.encode.register
def _(model: WithMatrix, graph: gu.InteractionGraph):
    return (model.table.weight + model.matrix @ model.table.weight).split(model.sizes)


def test_a_model_with_a_sparse_buffer_forgets():
    graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=10, seed=0)
    model = WithMatrix(graph)
    gu.fit(model, graph, epochs=10, progress=False)
    request = gu.ForgetRequest("user", [graph.user_ids[3]])
    result = gu.IFRU(on_rejection="keep").unlearn(model, graph, request)
    assert not torch.equal(result.model.table.weight, model.table.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_parameters_that_are_not_finite_are_named(value):
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.bias.fill_(value)  # three times 3e38 is no finite sum, though each is
    wanted = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    assert not_finite(model) == wanted


@pytest.mark.parametrize("make", [LightGCN, lambda n, d, layers: gu.nn.NGCF(n, d, layers)], ids=["lightgcn", "ngcf"])
def test_the_check_refuses_what_encode_refuses(make):
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=8, interactions_per_user=3, seed=0)
    model = make(graph.num_nodes, 4, 2).eval()
    for _ in range(2):
        check_fit(model, graph)
    other = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=3, seed=0)
    messages = []
    for check in (check_fit, gu.encode):
        with pytest.raises(ValueError) as error:
            check(model, other)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


class Told(nn.Module):
    """A model whose fit depends on a number of its own and on features of the items, not on its tensors alone."""

    def __init__(self, graph):
        super().__init__()
        self.num_users, self.table = graph.num_users, nn.Embedding(graph.num_users, 4)
        self.features = nn.Linear(3, 4)


@gu.encode.register
def _(model: Told, graph: gu.InteractionGraph):
    return model.table.weight[: model.num_users], model.features(graph["item"].x)


def of_features(graph, width):
    other = graph.select(torch.arange(graph.num_interactions))
    other["item"].x = torch.ones(graph.num_items, width)
    other["user", "interacts", "item"].edge_index = graph.pairs  # the same tensor of pairs
    return other


def test_a_fit_is_checked_again_when_the_model_or_the_features_say_something_else():
    graph = of_features(gu.datasets.synthetic_interactions(num_users=12, num_items=8, interactions_per_user=3), 3)
    model = Told(graph).eval()
    check_fit(model, graph)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        check_fit(model, of_features(graph, 2))
    check_fit(model, graph)
    model.num_users = 5
    with pytest.raises(ValueError, match="'encode' of Told must return 12 user embeddings"):
        check_fit(model, graph)
    model.num_users = 12
    check_fit(model, graph)
    model.table = nn.Embedding(11, 4)
    with pytest.raises(ValueError, match="must return 12 user embeddings"):
        check_fit(model, graph)


def test_checksums_tell_names_types_shapes_and_values_apart():
    def layer(**values):
        module = nn.Module()
        for name, value in values.items():
            module.register_buffer(name, value)
        return module

    ones = torch.ones(4, 3)
    other = ones.clone()
    other[2, 1] = 0
    swapped = other[[2, 1, 0, 3]]
    kinds = [layer(a=ones), layer(b=ones), layer(a=ones.double()), layer(a=ones.view(3, 4)), layer(a=other)]
    kinds += [layer(a=swapped), layer(a=ones, b=ones), layer()]
    assert len({checksums(kind) for kind in kinds}) == len(kinds)
    assert checksums(layer(a=ones)) == checksums(layer(a=ones.clone()))
    with torch.inference_mode():
        made_there = ones.clone()
    assert checksums(layer(a=made_there)) == checksums(layer(a=ones))
