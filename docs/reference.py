"""The reference's pages: one per package, and every public name in one place alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import graphunlearn

TITLES = {
    "graphunlearn.data": "Graphs and requests",
    "graphunlearn.data.io": "Files",
    "graphunlearn.nn": "Encoding and scoring",
    "graphunlearn.nn.models": "Models",
    "graphunlearn.nn.training": "Losses and training",
    "graphunlearn.nn.floors": "Floors",
    "graphunlearn.operators": "Operators",
    "graphunlearn.operators.ifru": "IFRU",
    "graphunlearn.operators.unlearnrec": "UnlearnRec",
    "graphunlearn.operators.cau": "CAU",
    "graphunlearn.operators.shards": "Shards",
    "graphunlearn.operators.baselines": "Baselines",
    "graphunlearn.operators.published": "Published operators",
    "graphunlearn.operators.shared": "What operators share",
    "graphunlearn.ledger": "Ledger",
    "graphunlearn.runs": "Runs and exports",
    "graphunlearn.serving": "Serving",
    "graphunlearn.jobs": "Deletion jobs",
    "graphunlearn.distributed": "Several processes",
    "graphunlearn.adapters": "Adapters",
    "graphunlearn.adapters.recbole": "RecBole",
    "graphunlearn.eval": "Audits and benchmarks",
    "graphunlearn.eval.scenarios": "Scenarios",
    "graphunlearn.eval.report": "Reports",
    "graphunlearn.metrics": "Metrics",
    "graphunlearn.utils": "Neighbourhoods",
    "graphunlearn.func": "Numerics",
    "graphunlearn.datasets": "Data sets",
    "graphunlearn.errors": "Errors",
    "graphunlearn.testing": "Contract suites",
}
"""The packages that are public, in the order in which one needs them."""


def packages() -> list[ModuleType]:
    """Return all public packages; those within one that have no title of their own are public as well."""
    names: dict[str, None] = {}
    for name in TITLES:
        path = getattr(importlib.import_module(name), "__path__", [])  # a module has none
        names |= dict.fromkeys([name, *(m.name for m in pkgutil.walk_packages(path, f"{name}.") if m.ispkg)])
    return [importlib.import_module(name) for name in names]


def entries() -> dict[str, dict[str, Any]]:
    """Return what every package's page documents, by the name it is imported under.

    A name is on the page of the innermost package around its module that exports it, under the shortest path that it
    can be imported by: ``graphunlearn.SRU`` is on the page of shards, and ``graphunlearn.nn.SGL`` on that of models.
    """
    top = {name: getattr(graphunlearn, name) for name in graphunlearn.__all__}
    pages: dict[str, dict[str, Any]] = {package.__name__: {} for package in packages()}
    seen: set[int] = set()
    for package in packages():
        for name in sorted(package.__all__, key=str.lower):
            value = getattr(package, name)
            if id(value) in seen or inspect.ismodule(value):
                continue
            seen.add(id(value))
            around = exporting(package, name)
            path = f"graphunlearn.{name}" if top.get(name) is value else home(around[0], name)
            pages[around[-1].__name__][path] = value
    return {page: dict(sorted(found.items(), key=order)) for page, found in pages.items() if found}


def exporting(package: ModuleType, name: str) -> list[ModuleType]:
    """Return the packages around a name's module that export it, the outermost first."""
    value = getattr(package, name)
    module = home(package, name).rpartition(".")[0] if not named(value) else value.__module__
    found = [
        other
        for other in packages()
        if f"{module}.".startswith(f"{other.__name__}.") and getattr(other, name, None) is value
    ]
    found = [other for other in found if name in other.__all__]
    return sorted(found, key=lambda other: len(other.__name__)) or [package]


def named(value: Any) -> bool:
    """Return whether a value knows its module: a class or a function."""
    return inspect.isclass(value) or inspect.isroutine(value)


def order(entry: tuple[str, Any]) -> tuple[int, str]:
    """Return where a page has an entry: names of ``graphunlearn`` itself come first."""
    return entry[0].count(".") > 1, entry[0].rpartition(".")[2].lower()


def home(package: ModuleType, name: str) -> str:
    """Return the name to document something under: a constant by the module whose source says what it is."""
    if named(getattr(package, name)):
        return f"{package.__name__}.{name}"
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    module = next((node.module for node in imports if any(alias.name == name for alias in node.names)), None)
    return f"{module or package.__name__}.{name}"


def pages() -> dict[str, str]:
    """Return the text of every page of the reference by its name."""
    documented = entries()
    made = {name: page(name, found) for name, found in documented.items()}
    return made | {"index": index(documented)}


def page(package: str, found: dict[str, Any]) -> str:
    """Return the page of a package."""
    title = TITLES.get(package, package.rpartition(".")[2].capitalize())
    parts = [title, "=" * len(title), "", f"``{package}``", "", f".. automodule:: {package}", "   :no-members:", ""]
    for name, value in found.items():
        parts += [f".. {directive(value)}:: {name}"]
        if inspect.isclass(value):
            parts += ["   :members:"]
        elif not callable(value):
            parts += ["   :no-value:"]
        parts += [""]
    return "\n".join(parts)


def directive(value: Any) -> str:
    """Return the directive that documents a value."""
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if callable(value) else "autodata"


def index(documented: dict[str, dict[str, Any]]) -> str:
    """Return the first page: every name of ``graphunlearn``, and the packages."""
    title = "Reference"
    lines = [title, "=" * len(title), "", ".. module:: graphunlearn", "", inspect.cleandoc(str(graphunlearn.__doc__))]
    lines += ["", ".. data:: __version__", "   :type: str", "", "   The version of the package.", ""]
    lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in documented), ""]
    heading = "Names of ``graphunlearn``"
    lines += [heading, "-" * len(heading), "", ".. list-table::", "   :widths: 30 70", ""]
    for path, value in sorted(top_level(documented).items(), key=lambda entry: entry[0].lower()):
        lines += [f"   * - :py:obj:`~{path}`", f"     - {summary(value)}"]
    heading = "Packages"
    lines += ["", heading, "-" * len(heading), "", ".. list-table::", "   :widths: 40 60", ""]
    for package in packages():
        if package.__name__ in documented:
            lines += [f"   * - :py:mod:`{package.__name__}`", f"     - {summary(package)}"]
    return "\n".join(lines) + "\n"


def top_level(documented: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the names of ``graphunlearn`` itself among all."""
    return {path: value for found in documented.values() for path, value in found.items() if path.count(".") == 1}


def summary(value: Any) -> str:
    """Return the first line of what is said about something."""
    said = value.__doc__ if named(value) or inspect.ismodule(value) else type(value).__call__.__doc__
    return inspect.cleandoc(str(said)).splitlines()[0]
