"""The sketches of CONTRIBUTING.md run as they stand, and what is written in two places is the same."""

import configparser
import re
from pathlib import Path

import pytest
import torch

import graphunlearn as gu
from graphunlearn.operators import registry

ROOT = Path(__file__).parents[1]
PATH = ROOT / "CONTRIBUTING.md"
TEXT = PATH.read_text(encoding="utf-8") if PATH.exists() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="CONTRIBUTING.md is not part of this installation")


@pytest.fixture(scope="module")
def sketches():
    """The names that the sketches leave behind; a method that they add is taken away again."""
    before = dict(registry)
    names = {"__name__": "contributing"}
    try:
        for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.M | re.S):
            line = TEXT[: match.start(1)].count("\n")
            exec(compile("\n" * line + match.group(1), str(PATH), "exec"), names)
    finally:
        registry.clear()
        registry.update(before)
    return names


def test_the_sketches_run(sketches):
    assert {"TwoTables", "Blank", "SquaredHinge", "heaviest_user"} <= set(sketches)
    named = [method["name"] for method in sketches["audit"].report["methods"]]
    assert named == ["original", "retrain", "unlink", "unlink-redraw"]


def test_the_operator_changes_the_row_of_the_forgotten_user_alone(sketches):
    model, request = sketches["model"], gu.ForgetRequest("user", ["u3"])
    after = sketches["Blank"]().unlearn(model, sketches["graph"], request).model
    changed = (after.user.weight != model.user.weight).any(1)
    assert changed.nonzero().flatten().tolist() == [3]
    assert after.item.weight.equal(model.item.weight)


def test_the_loss_has_the_derivatives_that_it_gives(sketches):
    margins = torch.tensor([[-2.0, 0.5], [0.9, 3.0]], dtype=torch.double, requires_grad=True)
    objective = sketches["SquaredHinge"]()
    value, first, second = objective.phi(margins, None)
    torch.testing.assert_close(value, objective.loss(margins, None))
    torch.testing.assert_close(value.detach(), torch.tensor([[4.5, 0.125], [0.005, 0.0]], dtype=torch.double))
    (slope,) = torch.autograd.grad(objective.loss(margins, None).sum(), margins, create_graph=True)
    torch.testing.assert_close(first, slope)
    (bend,) = torch.autograd.grad(slope.sum(), margins)
    torch.testing.assert_close(second, bend)
    assert isinstance(objective, gu.Objective)


def test_the_version_to_cite_is_the_version():
    assert f"\nversion: {gu.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_oldest_versions_are_those_that_are_allowed():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    floors = dict(line.split(">=") for line in config["options"]["install_requires"].split())
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.replace("-", "_").split("==") for line in lines if not line.startswith("#"))
    assert set(floors) <= set(pins)
    for name, floor in floors.items():
        assert f"{pins[name]}.".startswith(f"{floor}."), name
