import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save

import graphunlearn as gu
from graphunlearn.data.io.sealed import sealed_json, sealed_tensors
from graphunlearn.nn import FitSettings, build_model, encode, score
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import ModelSpec, Run


@pytest.fixture
def run():
    graph = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4, seed=1).binarize(3)
    train, validation, test = graph.random_split([0.6, 0.2, 0.2])
    model = build_model("lightgcn", train, dim=3, layers=2)
    objective = gu.BCE(weight_decay=0.25)
    spec, settings = ModelSpec("lightgcn", 3, 2), FitSettings(lr=0.5, seed=7)
    return Run(spec, model, train, validation, test, objective, settings, {"dataset": "é"})


def test_round_trip(run, tmp_path):
    run.save(tmp_path / "a")
    again = Run.load(tmp_path / "a")
    assert (again.spec, again.objective, again.settings, again.about) == (
        run.spec,
        run.objective,
        run.settings,
        run.about,
    )
    assert again.forgotten is None
    for name in ("train", "validation", "test"):
        assert getattr(again, name).fingerprint() == getattr(run, name).fingerprint()
    before, after = (score(encode(r.model, r.train), r.test.pairs) for r in (run, again))
    assert torch.equal(before, after)
    assert again.dataset == {"name": "é", "users": 12, "items": 9} | {
        name: getattr(run, name).num_interactions for name in ("train", "validation", "test")
    }


def test_every_loss_of_the_package_goes_into_a_run(run, tmp_path):
    for number, loss in enumerate((gu.SquaredError(), gu.SampledBCE(ratio=2.0), gu.InBatchSoftmax(batch_size=9))):
        run.objective = loss
        run.save(tmp_path / str(number))
        assert Run.load(tmp_path / str(number)).objective == loss


def test_a_loss_of_the_users_own_does_not(run, tmp_path):
    class Own(gu.BPR):
        pass

    run.objective = Own()
    with pytest.raises(ValueError, match=r"'objective' must be a loss that run folders know: bpr, .* \(got Own, which"):
        run.save(tmp_path / "own")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_pickled(trained, forgotten):
    for folder in (trained, forgotten):
        assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_forgotten_run_brings_all_an_audit_needs(trained, forgotten, tmp_path):
    alone = shutil.copytree(forgotten, tmp_path / "alone")  # the run it came from is not beside it
    run, parent = Run.load(alone), Run.load(trained)
    before = run.forgotten
    assert fingerprint(before.original) == fingerprint(parent.model)
    assert before.graph.fingerprint() == parent.train.fingerprint()
    assert [(part.level, part.index) for part in before.result.request.parts] == [
        ("user", ("u1", "u2")),
        ("item", ("i3",)),
    ]
    assert before.result.graph is run.train
    assert before.result.model is run.model
    retained, _ = before.graph.split(before.result.request)
    assert retained.fingerprint() == run.train.fingerprint()


def test_pairs_survive_as_pairs(trained, tmp_path, call):
    pair = next(iter(Run.load(trained).train.to_frame()[["user", "item"]].itertuples(index=False, name=None)))
    (tmp_path / "pairs.csv").write_text(f"user,item\n{pair[0]},{pair[1]}\n")
    words = ("--pairs", tmp_path / "pairs.csv", "--method", "unlink", "--out", tmp_path / "x")
    status, _, err = call("forget", trained, *words)
    assert status == 0, err
    assert Run.load(tmp_path / "x").forgotten.result.request.index == (pair,)


@pytest.mark.parametrize("name", ["original.safetensors", "original_train.safetensors", "request.json"])
def test_what_was_forgotten_can_be_deleted(name, forgotten, tmp_path, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    (copy / name).unlink()
    assert Run.load(copy).forgotten is None
    assert "with the original still in it" in refused("audit", copy)


def test_fingerprint_tells_models_apart(run):
    before = fingerprint(run.model)
    with torch.no_grad():
        run.model.embedding.weight[3, 1] += 1e-6
    assert fingerprint(run.model) != before


FILES = ["model.safetensors", "train.safetensors", "validation.safetensors", "test.safetensors", "run.json"]
FILES_AFTER = [*FILES, "original.safetensors", "original_train.safetensors", "request.json", "unlearning.json"]


@pytest.mark.parametrize("name", FILES_AFTER)
@pytest.mark.parametrize("harm", ["cut off", "empty", "missing", "garbage"])
def test_a_broken_folder_is_one_sentence(name, harm, forgotten, tmp_path, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    data = (copy / name).read_bytes()
    if harm == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes({"cut off": data[: len(data) // 2], "empty": b"", "garbage": b"\0\1" * 50}[harm])
    sentence = refused("audit", copy)
    assert "'run' must be a" in sentence
    assert str(copy) in sentence


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "it names nothing to forget"),
        ([{"level": "user", "ids": ["nobody"]}], "nobody"),
        ([{"level": "user", "ids": []}], "at least one user"),
        ([{"level": "user"}], "ids"),
        ("u1", "string"),
    ],
)
def test_an_edited_request_is_one_sentence_that_names_the_file(parts, reason, forgotten, tmp_path, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    (copy / "request.json").write_bytes(sealed_json({"parts": parts}))
    sentence = refused("audit", copy)
    assert f"'{copy}': request.json does not fit original_train.safetensors: " in sentence
    assert reason in sentence
    assert len(sentence.splitlines()) == 1


def test_bits_that_rotted_are_noticed(run_copy, refused, tmp_path):
    data = bytearray((run_copy / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (run_copy / "model.safetensors").write_bytes(data)
    sentence = refused("forget", run_copy, "--users", "u1", "--out", tmp_path / "x")
    assert "model.safetensors has been changed: its content does not fit the hash in it" in sentence


def test_a_model_that_does_not_fit_the_graph(run_copy, refused, tmp_path):
    other = gu.datasets.synthetic_interactions(num_users=9, num_items=9, interactions_per_user=3)
    other.save(run_copy / "train.safetensors")
    sentence = refused("forget", run_copy, "--users", "u1", "--out", tmp_path / "x")
    assert "size mismatch" in sentence


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 3}, "its format is 3, and this version reads 2"),
        ({"settings": {"lr": -1}}, "'lr' must be a number from 0 to 1,000.0 (got -1)"),
        ({"settings": {"lr": 0}}, "'lr' must be positive"),
        ({"settings": {"lr": 1e30}}, "'lr' must be a number from 0 to 1,000.0 (got 1e+30)"),
        ({"settings": {"epochs": True}}, "'epochs' must be a number from 0"),
        ({"settings": {"seed": 10**30}}, "'seed' must be a number from 0"),
        ({"objective": {"name": "bpr", "negatives": 10**9}}, "'negatives' must be a number from 0 to 65,536"),
        ({"objective": {"name": "bpr", "weight_decay": "much"}}, "'weight_decay' must be a number from 0"),
        ({"model": {"name": "lightgcn", "dim": 32, "layers": 65}}, "'layers' must be at most 64 (got 65)"),
        ({"model": {"name": "lightgcn", "dim": 10**12, "layers": 2}}, "'dim' must be at most 65,536 (got 1"),
        ({"model": {"name": "lightgcn", "dim": "32", "layers": 2}}, "'dim' must be a whole number"),
        ({"model": {"name": "lightgcn", "dim": 31, "layers": 2}}, "no table of model.safetensors has the width"),
        ({"settings": {"warp": 9}}, "warp"),
        ({"model": {"name": "transformer", "dim": 1, "layers": 1}}, "transformer"),
        ({"objective": {"name": "hinge"}}, "it lacks 'hinge'"),
        ({"fingerprints": {}}, "it lacks"),
    ],
)
def test_a_run_json_of_something_else(change, reason, run_copy, refused, tmp_path):
    facts = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_bytes(sealed_json(facts | change))
    assert reason in refused("forget", run_copy, "--users", "u1", "--out", tmp_path / "x")


def test_a_folder_that_is_no_run(tmp_path, refused):
    assert "which is no folder" in refused("audit", tmp_path / "nowhere")
    assert "without a run.json" in refused("audit", tmp_path)


@pytest.mark.parametrize("name", FILES_AFTER)
def test_a_changed_byte_anywhere_is_one_sentence(name, forgotten, tmp_path):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    data = (copy / name).read_bytes()
    places = {*range(0, len(data), max(1, len(data) // 40)), *range(0, len(data), 7 * max(1, len(data) // 300))}
    for place in places | {len(data) - 1}:
        (copy / name).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="'run' must be a whole run folder") as caught:
            Run.load(copy)
        assert len(str(caught.value).splitlines()) == 1
    (copy / name).write_bytes(data)
    assert Run.load(copy).forgotten is not None


@pytest.mark.parametrize("name", ["run.json", "request.json", "unlearning.json"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_bounded(name, opening, forgotten, tmp_path, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    (copy / name).write_text(opening * 200_000)
    sentence = refused("audit", copy)
    assert f"{name} is broken: it is nested more than 64 levels deep" in sentence


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model", "original"])
def test_weights_that_are_no_numbers_are_refused(name, value, forgotten, tmp_path, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    tensors = load_file(copy / f"{name}.safetensors")
    tensors["embedding.weight"][3, 1] = value
    (copy / f"{name}.safetensors").write_bytes(sealed_tensors(tensors))
    sentence = refused("audit", copy)
    assert f"{name}.safetensors is broken: 1 of 320 values of 'embedding.weight' are not finite" in sentence


def test_a_file_without_its_hash_is_refused_in_a_folder_that_has_them(run_copy, refused):
    tensors = load_file(run_copy / "model.safetensors")
    (run_copy / "model.safetensors").write_bytes(save(tensors))
    assert "model.safetensors lacks the hash of its content" in refused("prepare", run_copy, "--method", "unlearnrec")


def test_a_folder_of_the_first_version_has_no_hashes(run_copy):
    facts = json.loads((run_copy / "run.json").read_text())
    del facts["sha256"]
    (run_copy / "run.json").write_text(json.dumps(facts | {"format": 1}))
    (run_copy / "model.safetensors").write_bytes(save(load_file(run_copy / "model.safetensors")))
    assert Run.load(run_copy).forgotten is None


def test_more_layers_than_any_model_has_are_refused_before_training(ratings, tmp_path, refused):
    told = refused("train", "--data", ratings, "--out", tmp_path / "x", "--layers", 65)
    assert told == "'--layers' must be at most 64 (got 65)"


def test_validation_data_lack_those_whom_requests_emptied(run):
    held = run.validation.pairs
    user, item = int(held[0, 0]), int(held[1, -1])
    before, pairs = run.train, run.train.pairs
    never = run.validation.select((held[0] != user) & (held[1] != item))
    run.emptied = {"user": [before.user_ids[user]], "item": [before.item_ids[item]]}
    run.train = before.select((pairs[0] != user) & (pairs[1] != item))
    assert run.early_stopping(run.train).fingerprint() == never.fingerprint()
    assert run.early_stopping(before).fingerprint() == run.validation.fingerprint()  # before any request
    run.emptied = None  # not known
    assert run.early_stopping(run.train).fingerprint() == run.validation.fingerprint()
