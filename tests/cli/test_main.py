import importlib
import os
import subprocess
import sys

import pytest

from graphunlearn import __version__
from graphunlearn.cli import VERBS, main
from graphunlearn.cli._methods import method_names
from graphunlearn.runs.run import OBJECTIVES


def test_overview_and_version(call):
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert call("--version") == (0, f"graphunlearn {__version__}\n", "")
    status, out, err = call()
    assert (status, out) == (2, "")
    assert "usage" in err


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_with_examples(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    out = capsys.readouterr().out
    assert f"examples:\n  graphunlearn {verb}" in out
    assert "--json" in out
    assert "None" not in out


@pytest.mark.parametrize("verb", ["forget", "bench"])
def test_help_names_every_method(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    words = capsys.readouterr().out.replace(",", " ").replace(".", " ").replace(";", " ").split()
    own = ("graphunlearn.",)  # methods that other tests register do not count
    builtin = [n for n in method_names() if _module(n).startswith(own)]
    unserved = set() if verb == "forget" else {"retrain"}
    assert set(builtin) & set(words) >= set(builtin) - unserved


def _module(name):
    from graphunlearn.operators import registry

    return registry[name].__module__


def test_examples_in_the_help_are_whole_commands():
    """Every example parses: no option in it is made up."""
    import shlex

    import graphunlearn.cli as cli

    for module, name in VERBS.items():
        text = getattr(importlib.import_module(f"graphunlearn.cli.{module.replace('-', '_')}"), name).__doc__
        lines = [line.strip() for line in text.partition("examples:")[2].splitlines() if line.strip()]
        assert lines
        for line in lines:
            program, verb, *words = shlex.split(line, comments=True)
            assert program == "graphunlearn"
            cli._parse(verb, words)


def test_unknown_command_is_one_sentence_with_a_hint(refused):
    assert refused("trian") == (f"the command must be one of {', '.join(VERBS)} (got 'trian'; did you mean 'train'?)")


@pytest.mark.parametrize(
    "words", [["train", "--dat", "x"], ["forget"], ["bench", "flips", "--data", "x", "--out", "y"]]
)
def test_wrong_options_exit_with_status_2(words, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("graphunlearn: ")
    assert err.endswith(f" ('graphunlearn {words[0]} --help' lists the options)\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--last-sessions", "1.5"), "'--last-sessions' must be a whole number (got '1.5')"),
        (("--seed", "1.5"), "'--seed' must be a whole number (got '1.5')"),
        (("--lr", "fast"), "'--lr' must be a number (got 'fast')"),
        (("--model", "SRGNN"), "'--model' must be one of 'lightgcn', "),
        (("--objective", "x"), "'--objective' must be one of '"),
        (("--splits", "1"), "--splits"),
        (("--split", "0.5"), "--split"),
    ],
)
def test_a_wrong_value_is_one_sentence(words, sentence, refused):
    assert sentence in refused("train", "--data", "x", "--out", "y", *words)


def test_every_loss_is_named_for_a_loss_that_is_not_known(refused):
    told = refused("train", "--data", "x", "--out", "y", "--objective", "x")
    assert told.endswith("(got 'x') ('graphunlearn train --help' lists the options)")
    assert all(f"'{name}'" in told for name in OBJECTIVES if name not in ("cross-entropy", "squared-error"))


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (ValueError("'a' must\n be b"), 2, "graphunlearn: 'a' must be b\n"),
        (OSError(28, "No space left on device", "x"), 2, "graphunlearn: No space left on device: 'x'\n"),
        (ImportError("needs pyarrow"), 2, "graphunlearn: needs pyarrow\n"),
        (FloatingPointError("NaN"), 2, "graphunlearn: NaN\n"),
        (MemoryError(), 2, "graphunlearn: MemoryError\n"),
        (RuntimeError("CUDA out of memory. Tried to"), 2, "graphunlearn: CUDA out of memory\n"),
        (KeyboardInterrupt(), 130, "graphunlearn: interrupted\n"),
        (KeyboardInterrupt("go on"), 130, "graphunlearn: interrupted: go on\n"),
    ],
)
def test_every_failure_is_one_sentence(error, status, sentence, call, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr("graphunlearn.cli.datasets.Datasets.run", fail)
    assert call("datasets") == (status, "", sentence)
    monkeypatch.setenv("GRAPHUNLEARN_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["datasets"])


def test_a_bug_is_one_sentence_that_says_how_to_find_it(call, monkeypatch):
    def fail(self):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("graphunlearn.cli.datasets.Datasets.run", fail)
    sentence = "graphunlearn: unexpected RuntimeError: shapes do not match (GRAPHUNLEARN_DEBUG=1 shows where)\n"
    assert call("datasets") == (2, "", sentence)
    monkeypatch.setenv("GRAPHUNLEARN_DEBUG", "1")
    with pytest.raises(RuntimeError, match="shapes"):
        main(["datasets"])


def test_warnings_are_one_line(call, monkeypatch):
    import warnings

    from graphunlearn.cli._text import Answer

    def warn(self):
        warnings.warn("two\nlines", stacklevel=2)
        return Answer([], "done")

    monkeypatch.setattr("graphunlearn.cli.datasets.Datasets.run", warn)
    assert call("datasets") == (0, "done\n", "graphunlearn: note: two lines\n")


def test_as_a_process_whose_reader_goes_away():
    code = "import sys; from graphunlearn.cli import main; sys.exit(main(['datasets', '--json']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("chosen", [None, "0"])
def test_large_pages_are_asked_for_unless_the_user_chose(chosen, monkeypatch, capsys):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", chosen or "")  # so that it is restored, also where it was not set
    if chosen is None:
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    assert main(["datasets"]) == 0
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == (chosen or "1")
