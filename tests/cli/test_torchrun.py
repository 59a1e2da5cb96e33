"""The commands that ``torchrun`` starts as several processes, in processes with the environment that it gives them."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from quick import QUICK
from safetensors.torch import load_file

from graphunlearn import distributed
from graphunlearn.cli import _ranks, main
from graphunlearn.runs import run as runs


def _rank(rank, world, port, words, folder, spoil):
    torch.set_num_threads(1)
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in given.items()})
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    if spoil is not None:
        spoil(rank)
    try:
        status = main(words(rank) if callable(words) else words)
    except BaseException:
        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    (folder / f"{rank}.status").write_text(str(status))


def torchrun(folder, world, words, spoil=None):
    """The status, what was printed, and the messages, by rank."""
    folder = folder / f"ranks-{len(list(folder.iterdir()))}"
    folder.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(rank, world, port, words, folder, spoil)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    read = [[(folder / f"{rank}.{name}").read_text() for name in ("status", "out", "err")] for rank in range(world)]
    return [(int(status), out, err) for status, out, err in read]


def own_messages(text):
    """The messages of the package among those of the processes."""
    return [line for line in text.splitlines() if line.startswith("graphunlearn:")]


def table(folder):
    return load_file(folder / "model.safetensors")["embedding.weight"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rows_of_items_are_divided_where_the_environment_says_so(ratings, trained, tmp_path, monkeypatch):
    monkeypatch.setenv(_ranks.ITEM_ROWS, "sharded")

    def spoil(rank):
        take = distributed.take_part

        def told(*given, **options):
            part = take(*given, **options)
            (tmp_path / f"bounds-{rank}").write_text(str(part.part.item_bounds))
            return part

        distributed.take_part = told

    first, second = torchrun(
        tmp_path, 2, ["train", "--data", str(ratings), "--out", str(tmp_path / "a"), *QUICK], spoil
    )
    assert (first[0], second[0]) == (0, 0)
    number = runs.Run.load(tmp_path / "a").train.num_items
    bounds = {(tmp_path / f"bounds-{rank}").read_text() for rank in range(2)}
    assert bounds == {str((0, number // 2, number))}
    torch.testing.assert_close(table(tmp_path / "a"), table(trained), rtol=1e-5, atol=1e-6)
    words = ["forget", str(tmp_path / "a"), "--users", "u1", "u2", "--option", "within_noise=0"]
    assert [status for status, *_ in torchrun(tmp_path, 2, [*words, "--out", str(tmp_path / "b")])] == [0, 0]
    assert main([*words, "--out", str(tmp_path / "c")]) == 0
    torch.testing.assert_close(table(tmp_path / "b"), table(tmp_path / "c"), rtol=1e-4, atol=1e-5)


def test_other_rows_of_items_are_refused_on_all_ranks(trained, tmp_path, monkeypatch):
    monkeypatch.setenv(_ranks.ITEM_ROWS, "half")
    for status, out, err in torchrun(tmp_path, 2, ["recommend", str(trained), "--users", "u1"]):
        assert (status, out) == (2, "")
        assert f"'{_ranks.ITEM_ROWS}' must be 'replicated' or 'sharded' (got 'half')" in err


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_training_and_forgetting_write_the_folders_of_one_process(ratings, trained, tmp_path):
    first, second = torchrun(tmp_path, 2, ["train", "--data", str(ratings), "--out", str(tmp_path / "a"), *QUICK])
    assert (first[0], second[0], second[1], own_messages(second[2])) == (0, 0, "", [])
    assert "trained lightgcn" in first[1]
    torch.testing.assert_close(table(tmp_path / "a"), table(trained), rtol=1e-5, atol=1e-6)
    whole = runs.Run.load(tmp_path / "a")
    assert whole.train.fingerprint() == runs.Run.load(trained).train.fingerprint()
    assert not list(tmp_path.glob(".*.safetensors"))  # no checkpoint is left

    words = ["forget", str(trained), "--users", "u1", "u2", "--items", "i3"]
    first, second = torchrun(tmp_path, 2, [*words, "--out", str(tmp_path / "b")])
    forgotten = tmp_path / "c"
    assert main([*words, "--option", "within_noise=0", "--out", str(forgotten)]) == 0
    assert (first[0], second[0], second[1]) == (0, 0, "")
    torch.testing.assert_close(table(tmp_path / "b"), table(forgotten), rtol=1e-4, atol=1e-5)
    run, wanted = runs.Run.load(tmp_path / "b"), runs.Run.load(forgotten)
    assert run.train.fingerprint() == wanted.train.fingerprint()
    assert run.emptied == wanted.emptied
    assert run.forgotten.options == wanted.forgotten.options  # what was done, not the default of one process
    assert run.forgotten.result.log["acceptance"]["outcome"] == wanted.forgotten.result.log["acceptance"]["outcome"]

    words = ["recommend", str(tmp_path / "b"), "--users", "u9", "u40", "u5", "--k", "4", "--json"]
    first, second = torchrun(tmp_path, 2, words)
    assert (first[0], second[0], second[1]) == (0, 0, "")
    lists = json.loads(first[1])["lists"]
    (alone,) = torchrun(tmp_path, 1, words)
    assert [found["items"] for found in lists] == [found["items"] for found in json.loads(alone[1])["lists"]]
    assert [found["user"] for found in lists] == ["u9", "u40", "u5"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate", "RUN"], "'torchrun' must start train, forget, recommend (others run as one process)"),
        (
            ["forget", "RUN", "--users", "u1", "--out", "OUT", "--ledger", "l.db"],
            "'--ledger' must be left out on several",
        ),
        (
            ["forget", "RUN", "--users", "u1", "--out", "OUT", "--method", "cova"],
            "'--method' must be one of calibrate,",
        ),
        (
            ["train", "--data", "FILE", "--model", "ngcf", "--out", "OUT"],
            "'--model' must be lightgcn, lightgcn-positives",
        ),
    ],
)
def test_what_has_no_form_on_several_ranks_is_refused_on_all(words, sentence, ratings, trained, tmp_path):
    known = {"RUN": str(trained), "OUT": str(tmp_path / "out"), "FILE": str(ratings)}
    for status, out, err in torchrun(tmp_path, 2, [known.get(word, word) for word in words]):
        assert (status, out) == (2, "")
        assert [line[: len(sentence) + 14] for line in own_messages(err)] == [f"graphunlearn: {sentence}"]
    assert not (tmp_path / "out").exists()


def test_ranks_with_other_requests_are_refused(trained, tmp_path):
    def words(rank):
        return ["forget", str(trained), "--users", f"u{rank}", "--out", str(tmp_path / "out")]

    for status, _, err in torchrun(tmp_path, 2, words):
        assert status == 2
        assert own_messages(err) == [
            "graphunlearn: all ranks must be given the same options (got others on rank 1 than on rank 0)"
        ]
    assert not (tmp_path / "out").exists()


def full_disk(rank):
    def fails(*_):
        raise OSError(28, "No space left on device", "train.safetensors")

    if rank == 0:
        runs.write_parts = fails


def test_a_full_disk_is_an_error_on_all_ranks_and_leaves_nothing(trained, tmp_path):
    words = ["forget", str(trained), "--users", "u1", "--method", "unlink", "--out", str(tmp_path / "out")]
    first, second = torchrun(tmp_path, 2, words, full_disk)
    assert (first[0], second[0]) == (2, 2)
    sentence = f"'{tmp_path / 'out'}' could not be written: No space left on device"
    assert own_messages(first[2]) == [f"graphunlearn: {sentence}"]
    assert own_messages(second[2]) == [f"graphunlearn: rank 0 failed: {sentence}"]
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("ranks-")] == []


def no_folder(rank):
    save = runs.Run.save

    def fails(self, out, overwrite=False, also=None):
        def told(folder):
            also(folder)
            raise OSError(28, "No space left on device", "run.json")

        save(self, out, overwrite, told)

    if rank == 0:
        runs.Run.save = fails


def test_checkpoints_of_all_ranks_stay_until_the_folder_has_its_name(ratings, tmp_path):
    words = ["train", "--data", str(ratings), "--out", str(tmp_path / "a"), *QUICK]
    first, second = torchrun(tmp_path, 2, words, no_folder)
    assert (first[0], second[0]) == (2, 2)
    kept = [file.name.partition(".rank-")[2] for file in tmp_path.glob(".a.*.safetensors")]
    assert sorted(name[:6] for name in kept) == ["0-of-2", "1-of-2"]
    assert len({name[6:] for name in kept}) == 1  # of one epoch
    first, second = torchrun(tmp_path, 2, words)
    assert (first[0], second[0]) == (0, 0)
    assert "continuing an interrupted training" in first[2]
    assert not list(tmp_path.glob(".a.*.safetensors"))


@pytest.mark.slow
def test_torchrun_itself(ratings, tmp_path):
    starter = Path(sys.executable).with_name("torchrun")
    command = [str(starter), "--standalone", "--nproc-per-node", "2", "-m", "graphunlearn"]
    told = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*command, "train", "--data", str(ratings), "--out", "a", *QUICK], **told)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command, "forget", "a", "--users", "u1", "--out", "b"], **told)
    assert done.returncode == 0, done.stderr
    assert runs.Run.load(tmp_path / "b").forgotten is not None


@pytest.mark.parametrize("given", ["soon", "0", "nan"])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(monkeypatch, given):
    monkeypatch.setenv(_ranks.LIMIT, given)
    with pytest.raises(ValueError, match=f"'{_ranks.LIMIT}' must be a positive number of seconds .got '{given}'"):
        _ranks.run_on_ranks("train", None)
