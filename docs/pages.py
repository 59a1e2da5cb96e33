"""The pages that are made and not typed: reference, command line, data sets, results, and copies from elsewhere.

``python docs/pages.py`` writes them to ``docs/generated``; Sphinx does so by itself. Sphinx is not needed for it.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import textwrap
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import cards  # noqa: E402
import reference  # noqa: E402
import results  # noqa: E402
import tables  # noqa: E402

from graphunlearn import cli  # noqa: E402

ROOT = HERE.parent
TERMINAL = {"COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb"}


def pages() -> dict[str, str]:
    """Return the text of every made page by its name below ``generated``."""
    decisions = decision_table().table(lambda name: f"{{ref}}`{name} <result-{name}>`")
    made = {
        "command-line.md": command_line(),
        "datasets.md": cards.page(),
        "benchmarks.md": results.page(),
        "which-method.md": results.unparted(decisions) + "\n",
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    made |= {f"tables/{name}.md": f"{text}\n" for name, text in tables.tables().items()}
    return made | {f"api/{name}.rst": text for name, text in reference.pages().items()}


def write(folder: Path) -> list[Path]:
    """Write all pages, the notebooks and the pictures, and remove what is no longer made.

    Args:
        folder: Where to. Files that would stay as they are are not touched, so that Sphinx need not read them again.

    Returns:
        The files.
    """
    contents = {folder / name: text.encode() for name, text in pages().items()}
    contents |= {folder / "tutorials" / path.name: path.read_bytes() for path in (ROOT / "tutorials").glob("*.ipynb")}
    contents |= {folder / "pictures" / path.name: path.read_bytes() for path in results.RESULTS.glob("*.png")}
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    for path in folder.rglob("*"):
        if path.is_file() and path not in contents:
            path.unlink()
    return sorted(contents)


def figures() -> dict[str, str]:
    """Return the figures that the text of other pages quotes, by the names that it quotes them with."""
    made = decision_table()
    labels = {row["method"]: row for row in made.results("flipped_labels")["rows"]}
    last = {row["method"]: row for row in made.results("sequential")["rows"] if row["requests"] == 50}
    quoted = {
        "ifru_dp": labels["ifru"]["dp_forget_over_floor"],
        "direct_dp": labels["ifru-direct-only"]["dp_forget_over_floor"],
        "published_dp": labels["ifru-published"]["dp_forget_over_floor"],
        "published_auroc": labels["ifru-published"]["utility"]["auroc"],
        "retrained_auroc": labels["retrain"]["utility"]["auroc"],
        "fifty_dp": last["unlearnrec"]["dp_forget_over_floor"],
        "at_once_dp": last["unlearnrec, all in one request"]["dp_forget_over_floor"],
    }
    return {name: made.number(value) for name, value in quoted.items()}


def decision_table() -> ModuleType:
    """Return ``benchmarks/decision_table.py``, which no package holds, as a module."""
    spec = importlib.util.spec_from_file_location("decision_table", ROOT / "benchmarks" / "decision_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def command_line() -> str:
    """Return the page with the ``--help`` of every command."""
    parts = ["# Command line", "What every command answers to `--help`.", "## graphunlearn", console(["--help"])]
    for verb in cli.VERBS:
        parts += [f"## graphunlearn {verb}", console([verb, "--help"])]
    return "\n\n".join(parts) + "\n"


def console(words: list[str]) -> str:
    """Return what a command prints, as a block of code."""
    said = io.StringIO()
    with patch.dict(os.environ, TERMINAL), redirect_stdout(said), suppress(SystemExit):  # which the parser ends with
        cli.main(words)
    lines = [line for text in said.getvalue().rstrip().splitlines() for line in wrapped(text)]
    return "\n".join(["```text", *lines, "```"])


def wrapped(line: str) -> list[str]:
    """Return a line of the help in pieces that fit the page; examples are left whole."""
    if len(line) <= 96 or line.startswith("  graphunlearn"):
        return [line]
    return textwrap.wrap(line, 96, subsequent_indent=" " * (len(line) - len(line.lstrip())))


if __name__ == "__main__":
    write(HERE / "generated")
