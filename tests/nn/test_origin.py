"""Models that are built anew by a function, and encodings that installed packages offer."""

import copy
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.nn import encoding
from graphunlearn.nn.origin import Origin, give_origin, origin_of
from graphunlearn.nn.training.fitting import reset_parameters


class Tables(nn.Module):
    """A model whose parameters no method resets."""

    def __init__(self, users, items):
        super().__init__()
        self.user, self.item = (nn.Parameter(torch.rand(count, 3)) for count in (users, items))


def test_parameters_are_those_of_a_model_built_with_the_seed():
    model = Tables(4, 5)
    with pytest.raises(TypeError, match="must have a reset_parameters"):
        reset_parameters(model, 7)
    give_origin(model, Origin(lambda: Tables(4, 5)))
    before = torch.random.get_rng_state()
    for other in (model, copy.deepcopy(model)):
        reset_parameters(other, 7)
        assert torch.equal(torch.random.get_rng_state(), before)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            expected = Tables(4, 5)
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), expected.parameters()))
    assert origin_of(copy.deepcopy(model)) is origin_of(model)
    assert list(model.state_dict()) == ["user", "item"]


@pytest.mark.parametrize("form", ["function", "module"])
def test_an_installed_package_offers_an_encoding(monkeypatch, tmp_path, form):
    cls = type(f"Offered{form}", (Tables,), {"__module__": "offered"})
    name = f"encoding_of_{form}"
    line = "\n\ngu.encode.register(offered_class, rows)\n" if form == "module" else "\n"
    start = "import graphunlearn as gu\nimport offered_class_holder\n\noffered_class = offered_class_holder.cls\n\n\n"
    (tmp_path / f"{name}.py").write_text(f"{start}def rows(model, graph):\n    return model.user, model.item\n{line}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "offered_class_holder", type("Holder", (), {"cls": cls}))
    points = [EntryPoint(f"offered.{cls.__name__}", name if form == "module" else f"{name}:rows", encoding.ENCODERS)]

    def entry_points(group, name):
        assert group == "graphunlearn.encoders"
        return [point for point in points if point.name == name]

    monkeypatch.setattr(encoding, "entry_points", entry_points)
    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), 2, 3)
    model = cls(2, 3)
    assert gu.encode(model, graph).items is model.item
    with pytest.raises(TypeError, match="must be a recommender that 'encode' supports"):
        gu.encode(Tables(2, 3), graph)


def test_models_of_other_sizes_are_built_for_their_graphs():
    """New rows are those of a model that is built for the larger graph, and both can be trained anew."""

    def build(graph):
        return nn.ModuleDict({"user": nn.Embedding(graph.num_users, 3), "item": nn.Embedding(graph.num_items, 3)})

    graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]]), 4, 3)
    new = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]), user_ids=["4", "5"], item_ids=["3"])
    model = build(graph)
    give_origin(model, Origin(lambda: build(graph), on_graph=build))
    extended = gu.extend(model, graph, new, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = build(extended.graph)
    assert torch.equal(extended.model["user"].weight, torch.cat([model["user"].weight, expected["user"].weight[4:]]))
    assert torch.equal(extended.model["item"].weight, torch.cat([model["item"].weight, expected["item"].weight[3:]]))
    small = gu.nn.keep_rows(model, graph, {"user": torch.tensor([1, 3]), "item": torch.tensor([1, 2])})
    for one, sizes in ((extended.model, (6, 4)), (small, (2, 2))):
        reset_parameters(one, 1)
        assert (len(one["user"].weight), len(one["item"].weight)) == sizes
