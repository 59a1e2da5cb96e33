"""A preparation in memory and on disk: what it serves, and that it comes back as it was."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from toys import factors, random_graph

from graphunlearn.data.io.sealed import sealed_tensors
from graphunlearn.nn.identity import fingerprint
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
    path = before.save(tmp_path / "kept")
    assert path == tmp_path / "kept.safetensors"
    after = Preparation.load(path, Scale, kind="scale")
    assert torch.equal(after.module.factor, before.module.factor)
    for name in ("kind", "model", "graph", "log", "seconds", "served"):
        assert getattr(after, name) == getattr(before, name)
    assert Preparation.log_of(path) == before.log
    with pytest.raises(ValueError, match=r"'path' must hold a preparation of kind 'other' \(got 'scale'\)"):
        Preparation.load(path, Scale, kind="other")


def test_a_file_tells_of_the_latest_request_alone(tmp_path):
    kept, graph = made(), random_graph()
    models = [factors(graph) for _ in range(3)]
    for number, model in enumerate(models):
        torch.nn.init.constant_(model.embedding.weight, number)
        kept.note(model, graph)
    path = kept.save(tmp_path / "kept")
    after = Preparation.load(path, Scale)
    assert (after.model, after.graph, after.served) == (fingerprint(models[-1]), graph.fingerprint(), set())
    assert after.objection(fingerprint(models[0]), graph.fingerprint()) == "model"
    assert after.objection("model", "graph") == "model"
    content = path.read_bytes()
    for gone in (b'"model": "model"', b'"graph": "graph"', *(fingerprint(model).encode() for model in models[:-1])):
        assert gone not in content


def test_a_file_of_an_earlier_version_serves_all_that_it_tells_of_and_warns(tmp_path):
    path = made().save(tmp_path / "kept")
    with safe_open(path, "pt") as file:
        facts, tensors = json.loads(file.metadata()["graphunlearn"]), {"factor": file.get_tensor("factor")}
    facts |= {"served": [["other", "less"]], "format": 1}
    save_file(tensors, path, {"graphunlearn": json.dumps(facts)})
    with pytest.warns(UserWarning, match="holds plain hashes .* a purge removes them"):
        after = Preparation.load(path, Scale)
    assert after.objection("other", "less") is None and after.objection("model", "graph") is None


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


def test_a_changed_byte_anywhere_is_one_sentence(tmp_path):
    path = made().save(tmp_path / "kept")
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="'path' must be a preparation") as caught:
            Preparation.load(path, Scale)
        assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(data)
    Preparation.load(path, Scale)


def facts_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["graphunlearn"]), {"factor": file.get_tensor("factor")}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(value, tmp_path):
    path = made().save(tmp_path / "kept")
    facts, tensors = facts_of(path)
    tensors["factor"].fill_(value)
    path.write_bytes(sealed_tensors(tensors, {"graphunlearn": json.dumps(facts)}))
    with pytest.raises(ValueError, match=r"'path' must be a preparation .* values of 'factor' are not finite"):
        Preparation.load(path, Scale)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"hidden": 10**9}, "its 'hidden' is 1000000000, and its tensors allow at most"),
        ({"hidden": [2, 10**9]}, "its 'hidden' is 1000000000"),
        ({"hidden": -1}, "its 'hidden' is -1"),
        ({"layers": 65}, "its 'layers' is 65, and its tensors allow at most 64"),
        ({"warp": 1}, "warp"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(shape, reason, tmp_path):
    path = made().save(tmp_path / "kept")
    facts, tensors = facts_of(path)
    path.write_bytes(sealed_tensors(tensors, {"graphunlearn": json.dumps(facts | {"encoder": shape})}))
    with pytest.raises(ValueError, match="'path' must be a preparation") as caught:
        Preparation.load(path, Scale)
    assert reason in str(caught.value)


def test_nesting_is_bounded(tmp_path):
    path = made().save(tmp_path / "kept")
    path.write_bytes(sealed_tensors(facts_of(path)[1], {"graphunlearn": "[" * 200_000}))
    with pytest.raises(ValueError, match="it is nested more than 64 levels deep"):
        Preparation.load(path, Scale)
