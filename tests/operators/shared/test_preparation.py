"""A preparation in memory and on disk: what it serves, and that it comes back as it was."""

import pytest
import torch
from toys import factors, random_graph

from graphunlearn.operators.shared.preparation import Kept, Preparation


class Scale(Kept):
    """A module with one number per entry."""

    def __init__(self, size):
        super().__init__()
        self.size, self.factor = size, torch.nn.Parameter(torch.zeros(size))

    def shape(self):
        return {"size": self.size}


def made():
    module = Scale(3)
    torch.nn.init.normal_(module.factor)
    return Preparation("scale", module, "model", "graph", {"steps": [1, 2], "best": 0.5}, 1.5)


def test_what_was_saved_comes_back(tmp_path):
    before = made()
    before.served.add(("other", "less"))
    path = before.save(tmp_path / "kept")
    assert path == tmp_path / "kept.safetensors"
    after = Preparation.load(path, Scale, kind="scale")
    assert torch.equal(after.module.factor, before.module.factor)
    for name in ("kind", "model", "graph", "log", "seconds", "served"):
        assert getattr(after, name) == getattr(before, name)
    assert Preparation.log_of(path) == before.log
    with pytest.raises(ValueError, match=r"'path' must hold a preparation of kind 'other' \(got 'scale'\)"):
        Preparation.load(path, Scale, kind="other")


def test_it_serves_what_it_was_made_for_and_what_came_of_that():
    kept, graph = made(), random_graph()
    model = factors(graph)
    assert kept.objection("model", "graph") is None
    assert kept.objection("another", "graph") == "model"
    assert kept.objection("model", "another") == "graph"
    kept.note(model, graph)
    ((name, of),) = kept.served
    assert kept.objection(name, of) is None
    assert kept.objection(name, "another") == "graph"


@pytest.mark.parametrize("content", [b"", b"no preparation"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="'path' must be a preparation"):
        Preparation.log_of(path)
