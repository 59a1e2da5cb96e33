import json

import pytest
import torch
from quick import QUICK

import graphunlearn as gu
from graphunlearn.nn import build_model, reset_parameters
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run


def test_is_fit_on_a_random_split(ratings, trained):
    graph = gu.InteractionGraph.from_file(ratings)
    train, validation, test = graph.random_split([0.8, 0.1, 0.1], seed=0)
    model = build_model("lightgcn", train, dim=4, layers=1)
    reset_parameters(model, 0)
    result = gu.fit(model, train, validation=validation, objective=gu.BPR(), epochs=3, batch_size=4096)
    run = Run.load(trained)
    assert fingerprint(run.model) == fingerprint(model)
    assert run.test.fingerprint() == test.fingerprint()
    assert run.about["fit"]["best"] == result.best
    assert run.about["dataset"] == "ratings"


def test_seeds(ratings, trained, tmp_path, parsed):
    for seed, same in ((0, True), (1, False)):
        out = tmp_path / str(seed)
        parsed("train", "--data", ratings, "--out", out, "--seed", seed, *QUICK)
        assert (fingerprint(Run.load(out).model) == fingerprint(Run.load(trained).model)) is same
        assert (Run.load(out).train.fingerprint() == Run.load(trained).train.fingerprint()) is same


def test_says_what_it_did(ratings, tmp_path, call, parsed):
    status, out, err = call("train", "--data", ratings, "--out", tmp_path / "a", *QUICK)
    assert status == 0
    assert "trained lightgcn" in out
    assert f"wrote {tmp_path / 'a'}" in out
    assert "next: graphunlearn forget" in out
    assert "50 users, 30 items" in err
    told = parsed("train", "--data", ratings, "--model", "mf", "--out", tmp_path / "b", *QUICK)
    assert told["model"] == {"name": "mf", "dim": 4, "layers": 1}
    assert told["fit"]["epochs"] == 3
    assert 0 <= told["test"]["recall@20"] <= 1


def test_threshold_makes_labels_or_picks_what_is_liked(ratings, tmp_path, parsed):
    graph = gu.InteractionGraph.from_file(ratings)
    told = parsed("train", "--data", ratings, "--threshold", 3, "--out", tmp_path / "a", *QUICK)
    run = Run.load(tmp_path / "a")
    assert type(run.objective) is gu.BCE
    assert torch.equal(run.train.label, (run.train.rating > 3).float())
    assert 0 <= told["test"]["auroc"] <= 1
    parsed("train", "--data", ratings, "--threshold", 3, "--objective", "bpr", "--out", tmp_path / "b", *QUICK)
    run = Run.load(tmp_path / "b")
    assert type(run.objective) is gu.BPR
    assert sum(run.dataset[part] for part in ("train", "validation", "test")) == int((graph.rating > 3).sum())
    assert float(run.train.rating.min()) > 3


def test_objective_options(ratings, tmp_path, parsed):
    words = ("--weight-decay", 0.25, "--negatives", 2)
    parsed("train", "--data", ratings, "--out", tmp_path / "a", *words, *QUICK)
    assert Run.load(tmp_path / "a").objective == gu.BPR(weight_decay=0.25, negatives=2)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("sampled-bce", gu.SampledBCE(negatives=2)),
        ("sampled-softmax", gu.SampledSoftmax(negatives=2)),
        ("in-batch-softmax", gu.InBatchSoftmax(negatives=2)),
    ],
)
def test_sampled_losses(ratings, tmp_path, call, parsed, name, objective):
    words = ("--objective", name, "--negatives", 2, "--threshold", 3)
    parsed("train", "--data", ratings, "--out", tmp_path / "a", *words, *QUICK)
    run = Run.load(tmp_path / "a")
    assert run.objective == objective
    assert float(run.train.rating.min()) > 3
    words = ("--method", "ifru", "--users", run.train.user_ids[0], "--out", tmp_path / "b")
    assert call("forget", tmp_path / "a", *words)[0] == 0
    assert Run.load(tmp_path / "b").objective == objective


def test_a_test_file_is_the_test_part(ratings, tmp_path, parsed):
    graph = gu.InteractionGraph.from_file(ratings)
    train, test = graph.random_split([0.7, 0.3])
    for name, part in (("train", train), ("test", test)):
        part.to_frame().to_csv(tmp_path / f"{name}.csv", index=False)
    words = ("--data", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--split", 0.6, 0.2, 0.2)
    told = parsed("train", *words, "--out", tmp_path / "a", *QUICK)
    known = Run.load(tmp_path / "a")
    assert told["dataset"]["train"] == round(0.75 * train.num_interactions)
    assert told["dataset"]["train"] + told["dataset"]["validation"] == train.num_interactions
    pairs = {(user, item) for user, item, *_ in test.to_frame().itertuples(index=False)}
    assert {(user, item) for user, item, *_ in known.test.to_frame().itertuples(index=False)} <= pairs


def interrupt_at(epoch, monkeypatch, error):
    """Let the training loop fail at the start of an epoch."""
    draw = gu.BPR.samples

    def draw_or_fail(self, graph, **keywords):
        if keywords.get("epoch") == epoch:
            raise error
        return draw(self, graph, **keywords)

    monkeypatch.setattr(gu.BPR, "samples", draw_or_fail)


def test_an_interrupted_training_goes_on(ratings, trained, tmp_path, call, monkeypatch):
    words = ("train", "--data", ratings, "--out", tmp_path / "a", *QUICK)
    interrupt_at(3, monkeypatch, KeyboardInterrupt())
    status, out, err = call(*words)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "graphunlearn: interrupted: the same command continues from there"
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]  # what it goes on from, and no run folder
    monkeypatch.undo()
    status, out, err = call(*words)
    assert status == 0
    assert "continuing an interrupted training" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    run = Run.load(tmp_path / "a")
    assert run.about["fit"]["epochs"] == 3
    assert fingerprint(run.model) == fingerprint(Run.load(trained).model)


def test_an_interrupted_training_is_not_mistaken_for_another(ratings, tmp_path, call, monkeypatch):
    words = ("train", "--data", ratings, "--out", tmp_path / "a", *QUICK)
    interrupt_at(3, monkeypatch, KeyboardInterrupt())
    call(*words)
    monkeypatch.undo()
    status, _, err = call(*words, "--lr", 0.5)
    assert status == 0
    assert "going on" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_at_the_end_keeps_the_earlier_run(ratings, trained, tmp_path, refused, monkeypatch):
    import errno
    import shutil

    import graphunlearn.runs.folder as folders

    out = shutil.copytree(trained, tmp_path / "a")

    def full(tensors, about):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "sealed_tensors", full)
    sentence = refused("train", "--data", ratings, "--out", out, "--overwrite", "--seed", 5, *QUICK)
    assert sentence == f"'{out}' could not be written: No space left on device (the earlier one is unchanged)"
    assert Run.load(out).settings.seed == 0
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "a"]


def test_a_loss_that_blows_up_leaves_nothing(ratings, tmp_path, refused, monkeypatch):
    interrupt_at(3, monkeypatch, FloatingPointError("the training loss became nan"))
    assert refused("train", "--data", ratings, "--out", tmp_path / "a", *QUICK) == "the training loss became nan"
    assert list(tmp_path.iterdir()) == []


def bad(tmp_path, text, name="bad.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("user,item,rating\na,b,3\na,c,nan\n", "line 3: the rating must be a finite number"),
        ("user,item,rating\n1,2,3\n-5,2,3\n", "line 3: user ids must be whole and not negative in a column of numbers"),
        ("user,item,rating\n1,2,3\n1.5,2,3\n", "line 3: user ids must be whole and not negative"),
        ("user,item,rating\n1,2,3\n1,4\n", "line 3: must have 3 fields"),
        ("", "got an empty file"),
    ],
)
def test_malformed_files(text, sentence, tmp_path, refused):
    assert sentence in refused("train", "--data", bad(tmp_path, text), "--out", tmp_path / "a", *QUICK)
    assert not (tmp_path / "a").exists()


def test_a_truncated_gzip_file(ratings, tmp_path, refused):
    import gzip

    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(ratings.read_bytes())[:-20])
    assert "truncated" in refused("train", "--data", tmp_path / "r.csv.gz", "--out", tmp_path / "a", *QUICK)


def test_repeated_and_cut_off_rows_are_notes(ratings, tmp_path, call):
    text = ratings.read_text()
    path = bad(tmp_path, text + text.splitlines()[1])
    status, _, err = call("train", "--data", path, "--out", tmp_path / "a", *QUICK)
    assert status == 0
    assert "note: 1 repeated (user, item) pairs were collapsed" in err
    assert "no newline at its end" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--data", "nothing.csv"), "'--data' must be an existing file, or one of lastfm, ml-100k, ml-1m, gowalla"),
        (("--objective", "bce"), "'--objective' must be bpr for data without labels"),
        (("--threshold", 5, "--objective", "bpr"), "must leave interactions to learn from"),
        (("--split", 0.5, 0.1, 0.1), "'--split' must be positive and add up to 1 (got 0.5 0.1 0.1)"),
        (("--dim", 0), "'--dim' must be at least 1"),
        (("--lr", -1), "'--lr' must be positive"),
        (("--epochs", 0), "'--epochs' must be a positive integer"),
        (("--negatives", 0), "'--negatives' must be at least 1"),
        (("--weight-decay", -1), "'--weight-decay' must be finite and not negative"),
        (("--device", "abacus"), "'--device' must be a device of this machine"),
        (("--test", "nothing.csv"), "'--test' must be an existing file (got 'nothing.csv')"),
    ],
)
def test_bad_options(words, sentence, ratings, tmp_path, refused):
    start = () if "--data" in words else ("--data", ratings)
    assert sentence in refused("train", *start, "--out", tmp_path / "a", *QUICK, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_below_all_ratings(ratings, tmp_path, refused):
    said = refused("train", "--data", ratings, "--out", tmp_path / "a", *QUICK, "--threshold", 0)
    assert "'--threshold' must be at least the lowest rating" in said
    assert "(got 0, which gives only label 1)" in said


def test_threshold_without_ratings(tmp_path, refused):
    path = bad(tmp_path, "user,item\na,b\nc,d\n")
    assert "'--threshold' must go with data that have ratings" in refused(
        "train", "--data", path, "--threshold", 3, "--out", tmp_path / "a"
    )


def test_an_existing_folder_is_refused_before_any_work(trained, tmp_path, refused):
    before = json.loads((trained / "run.json").read_text())
    assert "'--overwrite' replaces it" in refused("train", "--data", tmp_path / "not even read", "--out", trained)
    assert json.loads((trained / "run.json").read_text()) == before


def test_named_data_set_that_is_not_there(tmp_path, refused, monkeypatch):
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    assert "grouplens" in refused("train", "--data", "ml-100k", "--out", tmp_path / "a")


def test_real_ratings_by_name(data_root, tmp_path, parsed, monkeypatch):
    if not any(card.name == "ml-100k" and card.is_found(data_root) for card in gu.datasets.available()):
        pytest.skip("ml-100k is not in GRAPHUNLEARN_DATA")
    told = parsed("train", "--data", "ml-100k", "--out", tmp_path / "a", "--epochs", 1, "--dim", 8)
    assert told["dataset"] == {
        "name": "ml-100k",
        "train": 80_000,
        "validation": 10_000,
        "test": 10_000,
        "users": 943,
        "items": 1682,
    }
    told = parsed("forget", tmp_path / "a", "--users", 196, 186, "--out", tmp_path / "b")
    assert told["request"]["level"] == "user"
    (tmp_path / "forget.csv").write_text("user,item\n186,302\n22,377\n")
    told = parsed("forget", tmp_path / "a", "--pairs", tmp_path / "forget.csv", "--out", tmp_path / "d")
    assert told["request"]["interactions"] == 2
