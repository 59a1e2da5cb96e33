"""Errors about arguments: one sentence, fields, another name, and no word of the command line in the library."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest

import graphunlearn
from graphunlearn.data.io.columns import ColumnError
from graphunlearn.data.vocabulary import IdError
from graphunlearn.errors import ArgumentError, ExistsError, FileError
from graphunlearn.ledger.entry import PendingError

ERRORS = [
    ArgumentError("k", "be at least 1", 0),
    FileError("path", "be an existing file", "'a.csv'", "make one"),
    ExistsError("folder", "be a new folder", "'a'", "overwrite=True replaces it"),
    ColumnError("a.csv", "have a column of users", "2 columns", "name it", role="user", names=("a", "b")),
    IdError("ids", "be text", None, position=3),
    PendingError("ledger", "have no other pending request", "one", path=Path("ledger.db")),
]


def test_the_sentence_names_the_argument_what_it_must_be_and_what_was_received() -> None:
    assert str(ArgumentError("k", "be at least 1", 0)) == "'k' must be at least 1 (got 0)"
    assert str(ArgumentError("k", "be positive", -1, "leave it out")) == "'k' must be positive (got -1); leave it out"
    assert str(ArgumentError(Path("a.csv"), "hold rows", "none")) == "'a.csv' must hold rows (got none)"


def test_the_parts_of_the_sentence_are_fields() -> None:
    error = ArgumentError("k", "be positive", -1, "leave it out")
    assert (error.argument, error.expected, error.got, error.hint) == ("k", "be positive", -1, "leave it out")
    assert ArgumentError(Path("a.csv"), "hold rows", "none").argument == "a.csv"
    assert ArgumentError("k", "be positive", -1).hint == ""


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_renamed_error_is_the_same_but_for_the_name(error: ArgumentError) -> None:
    before = str(error)
    other = error.renamed("--other")
    assert type(other) is type(error) and str(error) == before
    assert str(other) == before.replace(f"'{error.argument}'", "'--other'", 1)
    assert vars(other) == vars(error) | {"argument": "--other"}
    hinted = error.renamed(hint="try it")
    assert vars(hinted) == vars(error) | {"hint": "try it"} and str(hinted).endswith("; try it")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_copies_and_pickles(error: ArgumentError) -> None:
    for first in (error, error.renamed("--other", hint="try it")):
        for same in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            assert type(same) is type(first) and str(same) == str(first) and vars(same) == vars(first)


def test_errors_are_the_builtin_ones_too() -> None:
    assert all(isinstance(error, ValueError) for error in ERRORS)
    assert issubclass(FileError, FileNotFoundError) and issubclass(ExistsError, FileExistsError)


def test_the_library_names_no_command_and_no_option_of_the_command_line() -> None:
    root = Path(graphunlearn.__file__).parent
    told = re.compile(
        r"graphunlearn (demo|train|prepare|forget|audit|ledger|bench|purge|search-traces|datasets)\b|'--[a-z]"
    )
    found = [
        f"{path.relative_to(root)}:{node.lineno}: {node.value!r}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and told.search(node.value)
    ]
    assert found == []
