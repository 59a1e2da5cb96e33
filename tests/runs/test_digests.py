"""What was forgotten cannot be guessed from a run folder whose originals are gone."""

import json
from dataclasses import replace

import pytest
import torch
from attack import candidates, recognised
from safetensors import safe_open
from safetensors.torch import save_file

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.shared.preparation import Kept, Preparation
from graphunlearn.runs import Forgotten, ModelSpec, Run, plan_purge

GONE = ("original.safetensors", "original_train.safetensors", "request.json")
PAIR = (2, 5)


@pytest.fixture
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


class Scale(Kept):
    """A module to be prepared."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(2))

    def shape(self):
        return {}


def prepared(run, path):
    """Write a preparation that was made for the original and has served the request."""
    before = run.forgotten
    made = Preparation("probe", Scale(), fingerprint(before.original), before.graph.fingerprint())
    made.note(run.model, run.train)
    made.save(path)


def as_preparation_before(path, run):
    """Rewrite a preparation as earlier versions did, with the fingerprints of the original."""
    before = run.forgotten
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["graphunlearn"])
    facts["served"] = [[facts["model"], facts["graph"]]]
    facts |= {"model": fingerprint(before.original), "graph": before.graph.fingerprint(), "format": 1}
    save_file({"factor": torch.ones(2)}, path, {"graphunlearn": json.dumps(facts)})


def test_a_preparation_does_not_give_the_pair_back(run, tmp_path):
    path = tmp_path / "a" / "unlearnrec.safetensors"
    run.save(tmp_path / "a", also=lambda folder: prepared(run, folder / path.name))
    for name in GONE:
        (tmp_path / "a" / name).unlink()
    assert recognised(tmp_path / "a", run.train) == []
    as_preparation_before(path, run)
    assert recognised(tmp_path / "a", run.train) == [PAIR]


@pytest.mark.parametrize("old", [False, True])
def test_after_a_purge_nothing_gives_the_pair_back(old, run, tmp_path):
    path = tmp_path / "a" / "unlearnrec.safetensors"
    run.about = {"dataset": "toy", "fit": {"best": 0.5, "original": run.forgotten.graph.fingerprint()}}
    run.save(tmp_path / "a", also=lambda folder: prepared(run, folder / path.name))
    if old:
        as_before(tmp_path / "a", run)
        as_preparation_before(path, run)
    assert recognised(tmp_path / "a", run.train) == [PAIR]
    plan_purge(tmp_path / "a").carry_out()
    assert recognised(tmp_path / "a", run.train) == []
    assert path.exists() and Run.load(tmp_path / "a").about == {"dataset": "toy"}


def test_an_export_does_not_give_the_pair_back(run, tmp_path):
    before = run.forgotten
    gu.export(before.result, tmp_path / "a", model=before.original, graph=before.graph)
    assert recognised(tmp_path / "a", run.train) == []
