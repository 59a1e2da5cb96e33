"""The examples in the documentation of every module run, and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import graphunlearn

MODULES = sorted(m.name for m in pkgutil.walk_packages(graphunlearn.__path__, "graphunlearn."))
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.mark.parametrize("name", [m for m in MODULES if not m.endswith("__main__")])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # whatever an example writes
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    failures = []
    for test in FINDER.find(module, name):
        report = []
        runner.run(test, out=report.append)
        failures += report
    assert not failures, "".join(failures)


def test_examples_are_found():
    # a finder that finds nothing would pass everything
    found = {
        test.name
        for name in ("graphunlearn.func.solve", "graphunlearn.nn.encoding", "graphunlearn.operators.ifru.method")
        for test in FINDER.find(importlib.import_module(name), name)
        if test.examples
    }
    assert {
        "graphunlearn.func.solve.lanczos",
        "graphunlearn.nn.encoding.recommend",
        "graphunlearn.operators.ifru.method.IFRU",
    } <= found
