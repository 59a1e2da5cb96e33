"""What was forgotten cannot be guessed from a run folder whose originals are gone."""

import json
from dataclasses import replace

import pytest
import torch
from attack import candidates, recognised

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs import Forgotten, ModelSpec, Run

GONE = ("original.safetensors", "original_train.safetensors", "request.json")
PAIR = (2, 5)


@pytest.fixture(scope="module")
def run():
    """A run of 8 users and 9 items that has forgotten one pair, which is one of 57 that it does not hold."""
    spec = ModelSpec("mf", 4, 1)
    pairs = torch.tensor([PAIR, *((user, (3 * user + k) % 9) for user in range(8) for k in range(2))])
    graph = gu.InteractionGraph.from_edges(pairs.unique(dim=0).t(), 8, 9)
    model = spec.build(graph)
    result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest.internal("interaction", torch.tensor([PAIR]).t()))
    held = graph.keep(torch.arange(graph.num_interactions) < 3)
    settings, forgotten = gu.nn.FitSettings(epochs=1), Forgotten(model, graph, result, {})
    return Run(spec, result.model, result.graph, held, held, gu.BPR(), settings, forgotten=forgotten)


def test_a_pair_cannot_be_recognised_once_the_originals_are_deleted(run, tmp_path):
    run.save(tmp_path / "a")
    assert 50 <= len(list(candidates(run.train))) <= 60
    assert recognised(tmp_path / "a", run.train) == [PAIR]  # the original is there: the attack works
    for name in GONE:
        (tmp_path / "a" / name).unlink()
    assert recognised(tmp_path / "a", run.train) == []


def test_plain_hashes_would_give_the_pair_back(run, tmp_path):
    run.save(tmp_path / "a")
    as_before(tmp_path / "a", run)
    for name in GONE:
        (tmp_path / "a" / name).unlink()
    assert recognised(tmp_path / "a", run.train) == [PAIR]


def as_before(folder, run):
    """Rewrite unlearning.json as earlier versions did, with plain hashes."""
    facts = json.loads((folder / "unlearning.json").read_text())
    del facts["digests"]
    before = run.forgotten
    facts["fingerprints"] = {"original": fingerprint(before.original), "original_train": before.graph.fingerprint()}
    (folder / "unlearning.json").write_bytes(sealed_json(facts))


def test_a_folder_of_an_earlier_version_is_loaded_with_a_warning(run, tmp_path):
    run.save(tmp_path / "a")
    as_before(tmp_path / "a", run)
    with pytest.warns(UserWarning, match="holds plain hashes .* a purge removes them"):
        loaded = Run.load(tmp_path / "a")
    assert loaded.forgotten.graph.fingerprint() == run.forgotten.graph.fingerprint()
    (tmp_path / "a" / "request.json").unlink()
    with pytest.warns(UserWarning, match="holds plain hashes"):
        assert Run.load(tmp_path / "a").forgotten is None


def test_two_folders_of_the_same_request_have_other_digests(run, tmp_path):
    digests = []
    for name in "ab":
        run.save(tmp_path / name)
        digests += json.loads((tmp_path / name / "unlearning.json").read_text())["digests"].values()
    assert len(set(digests)) == 4


@pytest.mark.parametrize("name", ["original", "original_train"])
def test_an_original_that_was_exchanged_is_refused(name, run, tmp_path):
    run.save(tmp_path / "a")
    other = replace(run, forgotten=replace(run.forgotten, original=run.spec.build(run.train), graph=run.train))
    torch.nn.init.ones_(next(other.forgotten.original.parameters()))
    other.save(tmp_path / "b")
    (tmp_path / "b" / f"{name}.safetensors").replace(tmp_path / "a" / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"fingerprint of|does not fit"):
        Run.load(tmp_path / "a")
