"""Forget interactions, users and items, or clicks and whole sessions, from a GNN recommender without training it again.

commands:
  demo      run all steps on synthetic ratings or sessions, without any file
  read      show how a file is understood: columns, counts, first rows and warnings
  train     train a recommender on a file of ratings, or of clicks in sessions
  import    make a run of a model that another program trained
  prepare   prepare a method for a trained recommender once, for many requests
  forget    forget users, items, interactions, sessions or clicks from a trained recommender
  extend    add new data to a run, and go on training from its model
  erase     remove the rows and ids of forgotten users and items from a run
  recommend list the best items for users, or the next items for sessions
  evaluate  measure the ranking of a model on held-out data
  audit     compare an unlearned model with retrained models
  export    hand a model over: a folder without ids, embeddings by raw id, an index, a record in MLflow
  changed   list the users and items whose best items differ before and after forgetting
  ledger    show or verify the record of all requests, or continue an interrupted one
  job       collect deletion requests with a due date, and work off what is due
  bench     compare methods with retrained models in a scenario
  leaderboard  score methods, or weights of another program, against stored models of a fixed request
  purge     delete the originals and all else that would undo a forgotten request
  search-traces  search files for forgotten ids and for what the original model had learned about them
  datasets  list the named data sets and show which are on this machine, or download them

first steps:
  graphunlearn demo
  graphunlearn read ratings.csv
  graphunlearn train --data ratings.csv --out runs/a
  graphunlearn forget runs/a --users 196 186 --out runs/b
  graphunlearn audit runs/b
  graphunlearn recommend runs/b --users 22

sessions (clicks.csv: session,item,time; forget.csv: session,position):
  graphunlearn demo --kind sessions
  graphunlearn train --data clicks.csv --model srgnn --out runs/s
  graphunlearn forget runs/s --clicks forget.csv --out runs/t
  graphunlearn audit runs/t

many requests, with a method that is prepared for them:
  graphunlearn prepare runs/a --method unlearnrec
  graphunlearn forget runs/a --users 196 --method unlearnrec --out runs/c
  graphunlearn forget runs/c --users 186 --method unlearnrec --out runs/d

requests one after another, none lost and none applied twice:
  graphunlearn forget runs/a --users 196 --ledger runs/ledger.db --out runs/e
  graphunlearn forget runs/e --users 186 --ledger runs/ledger.db --out runs/f
  graphunlearn ledger show runs/ledger.db
  graphunlearn ledger verify runs/ledger.db
  graphunlearn erase runs/f --ledger runs/ledger.db --out runs/clean

deletion requests with a due date, worked off by a daily call:
  graphunlearn job submit --ids users.csv --due 2026-12-20 --run runs/live --ledger runs/ledger.db
  graphunlearn job run --ledger runs/ledger.db
  graphunlearn job report runs/ledger.db

nothing left behind:
  graphunlearn purge runs/f --also runs/e runs/a --ledger runs/ledger.db --dry-run
  graphunlearn search-traces runs exports --ids users.csv

options of all commands:
  -h, --help     describe a command, with examples (graphunlearn train --help)
  --json         print JSON, and nothing else, on standard output
  --version      print the version

exit status: 0, or 2 with one sentence about the error, or 130 after an interruption; 'search-traces' has 1 for traces
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from graphunlearn._version import __version__
from graphunlearn.cli._streams import open_streams, put, silence, tell
from graphunlearn.errors import ArgumentError

__all__ = ["main"]

VERBS = {
    "demo": "Demo",
    "read": "Read",
    "train": "Train",
    "import": "Import",
    "prepare": "Prepare",
    "forget": "Forget",
    "extend": "Extend",
    "erase": "Erase",
    "recommend": "Recommend",
    "evaluate": "Evaluate",
    "audit": "RunAudit",
    "export": "Export",
    "changed": "Changed",
    "ledger": "ShowLedger",
    "job": "DeletionJob",
    "bench": "Bench",
    "leaderboard": "Leaderboard",
    "purge": "Purge",
    "search-traces": "SearchTraces",
    "datasets": "Datasets",
}
"""Every command, whose name is that of its module with - for _, and its class."""
PRINTING = frozenset({"read", "recommend", "evaluate", "changed", "ledger", "search-traces", "datasets"})
"""The commands that only print, unless an option says what they write."""

HELP = f"usage: graphunlearn COMMAND [OPTIONS]\n\n{__doc__}"
REPHRASED = (
    (r"\{None\}\|", ""),
    (r"Error parsing (--\S+): no type matching INT .+ from \[(.*)\]", r"'\1' must be a whole number (got \2)"),
    (r"Error parsing (--\S+): no type matching FLOAT .+ from \[(.*)\]", r"'\1' must be a number (got \2)"),
    (r"Error parsing (--\S+): invalid literal for int.+: (.+)", r"'\1' must be a whole number (got \2)"),
    (r"Error parsing (--\S+): could not convert string to float: (.+)", r"'\1' must be a number (got \2)"),
    (r"'None', |, 'None'", ""),
    (r"invalid choice (.+) for argument '(.+)'\. Expected one of \((.+)\)", r"'\2' must be one of \3 (got \1)"),
    (r"\. ", "; "),
)
"""Patterns of the errors of `tyro`, and the sentences that the command prints in their place."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    With ``GRAPHUNLEARN_DEBUG`` set, errors are raised, so that Python prints their traceback.

    Args:
        argv: The words of the command line; by default those of the process.

    Returns:
        The exit status: 0; 1 if traces were found; 2 for bad input, with one sentence on standard error; 130 after an
        interruption.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # PyTorch reads it at its first allocation. Without large pages, getting memory can take a third of the time of a
    # command on millions of interactions.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    open_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if not sys.warnoptions:
                warnings.simplefilter("default", UserWarning)
            return _run(words)
    except KeyboardInterrupt as error:
        return _failed(f"interrupted{f': {error}' if str(error) else ''}", 130, error)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        return _failed(_sentence(error), 2, error)
    except Exception as error:
        what = _sentence(error).partition(". ")[0]
        if "memory" in what:
            return _failed(what, 2, error)
        return _failed(f"unexpected {type(error).__name__}: {what} (GRAPHUNLEARN_DEBUG=1 shows where)", 2, error)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if words:
            put(HELP, done=False)
        else:
            tell(HELP)
        return 0 if words else 2
    if words[0] == "--version":
        put(f"graphunlearn {__version__}\n", done=False)
        return 0
    verb, *rest = words
    if verb not in VERBS:
        from graphunlearn.cli._text import meant

        raise ValueError(f"the command must be one of {', '.join(VERBS)} (got {verb!r}{meant(verb, VERBS)})")
    try:
        command = _parse(verb, rest)
    except BrokenPipeError:  # the reader of the help has stopped
        silence(sys.stdout)
        return 0
    from graphunlearn.cli._ranks import several_ranks

    try:
        with redirect_stdout(sys.stderr):  # what a module of the user prints is no part of the result
            if several_ranks():
                from graphunlearn.cli._ranks import run_on_ranks

                answer = run_on_ranks(verb, command)
            else:
                answer = command.run()
    except ArgumentError as error:
        from graphunlearn.cli._wording import naming_option

        raise naming_option(error, command) from error
    if answer is None:  # another rank prints
        return 0
    text = answer.text
    if command.running.json:
        from graphunlearn.data.io.plain import json_ready

        text = json.dumps(json_ready(answer.data), indent=2, ensure_ascii=False)
    put(f"{text}\n", done=_writes(verb, command))
    return answer.status


def _writes(verb: str, command: Any) -> bool:
    """Return whether a command leaves more than what it prints."""
    idle = {"out": (None,), "download": ((),), "action": ("show", "verify")}
    return verb not in PRINTING or any(getattr(command, name, none[0]) not in none for name, none in idle.items())


def _parse(verb: str, words: list[str]) -> Any:
    """Return the command with its options; `tyro` prints the help itself, and its errors are raised as `ValueError`."""
    import tyro

    cls = getattr(importlib.import_module(f"{__name__}.{verb.replace('-', '_')}"), VERBS[verb])
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            config, about = (tyro.conf.FlagCreatePairsOff,), inspect.getdoc(cls)
            return tyro.cli(cls, prog=f"graphunlearn {verb}", description=about, args=words, config=config)
    except SystemExit as error:
        if not error.code:
            raise
        raise ValueError(f"{_unboxed(printed.getvalue())} ('graphunlearn {verb} --help' lists the options)") from None


def _unboxed(text: str) -> str:
    """Return the errors that `tyro` printed, without the box around them and the excerpts of the help."""
    rows = [line.strip("╭╮╰╯│+|\n") for line in text.splitlines()][1:]
    found = " ".join(row.strip() for row in rows if not row.startswith(" " * 8))
    parts = [part.strip() for part in re.split("[─-]{5,}", found.partition("Got errors:")[0])]
    found = "; ".join(part.rstrip(".") for part in parts if part and not part.startswith(("For full", "Argument help")))
    for pattern, phrase in REPHRASED:
        found = re.sub(pattern, phrase, found)
    return " ".join(found.split())


def _sentence(error: BaseException) -> str:
    """Return the message of an error as one line; for an error of the operating system, with the name of the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _failed(sentence: str, status: int, error: BaseException) -> int:
    if os.environ.get("GRAPHUNLEARN_DEBUG"):
        raise error
    tell(f"graphunlearn: {sentence}\n")
    return status


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        tell(f"graphunlearn: note: {' '.join(str(message).split())}\n")
