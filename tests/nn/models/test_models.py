"""Models by name, and LightGCN over positive labels only."""

import pytest
import torch

import graphunlearn as gu
from graphunlearn.nn import MODELS, build_model, encode, kind_of


def labelled() -> gu.InteractionGraph:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(5)).t()[:, torch.randperm(30, generator=generator)[:20]]
    return gu.InteractionGraph.from_edges(pairs, 6, 5, label=(torch.rand(20, generator=generator) > 0.5).float())


def test_positives_only_propagates_over_positive_labels():
    graph = labelled()
    model = build_model("lightgcn-positives", graph, dim=4, layers=2).double()
    plain = build_model("lightgcn", graph, dim=4, layers=2).double()
    plain.load_state_dict(model.state_dict())
    only = graph.select(graph.label == 1)
    for ours, theirs in zip(encode(model, graph)[:2], encode(plain, only)[:2]):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(encode(model, graph).queries, encode(plain, graph).queries)


def test_positives_only_follows_changed_labels():
    graph = labelled()
    model = build_model("lightgcn-positives", graph, dim=4, layers=2)
    before = encode(model, graph).queries.detach()
    graph.label[:10] = 1 - graph.label[:10]
    assert not torch.allclose(before, encode(model, graph).queries)


def test_positives_only_needs_labels():
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]))
    with pytest.raises(ValueError, match="'graph' must carry a 'label'"):
        encode(build_model("lightgcn-positives", graph, dim=2, layers=1), graph)


@pytest.mark.parametrize("name", [name for name in MODELS if kind_of(name) == "interactions"])
def test_every_model_can_be_built_trained_and_forgotten_from(name):
    graph = labelled()
    model = build_model(name, graph, dim=4, layers=2)
    gu.fit(model, graph, epochs=2)
    result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", ["2"]))
    assert int((result.graph.pairs[0] == 2).sum()) == 0


def test_unknown_names_and_sizes():
    with pytest.raises(ValueError, match="'model' must be one of lightgcn"):
        build_model("gcn", labelled())
    with pytest.raises(ValueError, match="'layers' must be at least 1"):
        build_model("lightgcn", labelled(), layers=0)
