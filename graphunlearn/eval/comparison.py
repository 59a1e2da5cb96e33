"""The benchmark: compare methods with retrained models in one scenario, over several data and original seeds."""

from __future__ import annotations

import copy
import inspect
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from graphunlearn.data.events import part_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.auditing import Audit, audit
from graphunlearn.eval.cache import trained
from graphunlearn.eval.scenarios.cases import G, Scenario, counted
from graphunlearn.nn import (
    Criterion,
    FitSettings,
    build_model,
    default_objective,
    default_settings,
)
from graphunlearn.nn.floors import floor_metrics
from graphunlearn.operators import Unlearner, UnlearningResult

__all__ = ["bench", "on_device", "prepared"]

RETRAINED, CLEAN = 50, 99
"""Every data seed has a block of a hundred seeds: originals use those from 0, retrained models those from 50, the clean
model 99.
"""


def bench(
    scenario: Callable[..., Scenario[Any]],
    methods: Sequence[Unlearner],
    *,
    model: str | Callable[[Any], nn.Module] = "lightgcn",
    dim: int | None = None,
    layers: int | None = None,
    objective: Criterion | None = None,
    settings: FitSettings | None = None,
    data_seeds: int = 1,
    original_seeds: int = 1,
    retrain_seeds: int = 5,
    seed: int = 0,
    dataset: str = "",
    device: str = "cpu",
    cache: str | Path | None = None,
    progress: bool | None = None,
    command: str | None = None,
    floors: bool = False,
    original: nn.Module | None = None,
    other_training: bool = False,
) -> Audit:
    """Compare methods with retrained models in one scenario, over several data and original seeds.

    Original and retrained models use the same training loop and settings; all their seeds differ.

    Args:
        scenario: Function that returns the scenario of a data seed, ``scenario(seed)``. If it has a parameter
            ``clean``, it also receives a function that trains a model like the originals, with a seed of its own; see
            :func:`adversarial_edges`. The graphs of the scenario must be of the kind that the model takes,
            interactions or sessions.
        methods: The configured methods. Their ``objective``, ``validation`` and ``settings`` are filled in if they are
            ``None``. A method that needs preparation is prepared for every original, before it receives the request.
        model: Name of a model, or a function that builds a model for a graph.
        dim: Width of the embedding tables; by default 32 for users and items, 64 for sessions.
        layers: Number of layers; by default that of :func:`build_model`.
        objective: The loss of all models; by default :func:`default_objective`.
        settings: Training settings; by default :func:`default_settings`.
        data_seeds: Number of data seeds; a data seed decides the split and the request.
        original_seeds: Number of original models per data seed.
        retrain_seeds: Number of retrained models per data seed. The noise floor needs at least two; five are better.
        seed: The first data seed.
        dataset: Name of the data set in the report.
        device: Device of all computations.
        cache: Folder of trained models, which are reused if they are found there. ``None`` keeps nothing on disk.
        progress: Whether to show progress; by default only on a terminal.
        command: The command line, for the report.
        floors: Whether to measure recommenders that need no training on the training data before forgetting; see
            :func:`graphunlearn.nn.floors.floor_metrics`. Their means over the data seeds are ``report["floors"]``.
        original: A trained model to take as the original of every request, instead of training one; the training data
            of the scenario must be those that it was trained on, and ``model`` be its name.
        other_training: Whether ``original`` was trained by another program; see :func:`audit`.

    Returns:
        The :class:`Audit` with means and standard deviations over all runs.

    Raises:
        ValueError: A number of seeds is not positive, or so large that seeds would coincide.

    Example:
        >>> import graphunlearn as gu
        >>> from graphunlearn.eval import adversarial_edges
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8)
        >>> result = bench(
        ...     lambda seed, clean: adversarial_edges(graph, clean, seed=seed),
        ...     [gu.Unlink()],
        ...     settings=gu.nn.FitSettings(epochs=2),
        ...     retrain_seeds=2,
        ... )
        >>> [method["name"] for method in result.report["methods"]]
        ['original', 'retrain', 'unlink', 'unlink-redraw']
    """
    for name, count, most in (
        ("data_seeds", data_seeds, math.inf),
        ("original_seeds", original_seeds, RETRAINED if original is None else 1),
        ("retrain_seeds", retrain_seeds, CLEAN - RETRAINED),
    ):
        if not 1 <= count <= most:
            raise ArgumentError(name, f"be at {'least 1' if count < 1 else f'most {most}'}", count)
    audits, measured = [], []
    trainer = _Trainer(model, dim, layers, objective, settings, device, None if cache is None else Path(cache))
    quiet = None if progress is None else not progress
    steps = data_seeds * (retrain_seeds + original_seeds * (1 + len(methods)))
    with tqdm(total=steps, desc="bench", unit="model", disable=quiet, leave=False) as bar:
        for data_seed in range(seed, seed + data_seeds):
            first = 100 * data_seed
            bar.set_postfix_str("making the scenario")
            case = on_device(_scenario(scenario, data_seed, partial(trainer, "clean", seed=first + CLEAN)), device)
            loss, base = trainer.learning(case.train)
            held_out = case.validation if case.validation.num_interactions else None
            own = [method.filled(objective=loss, validation=held_out, settings=base) for method in methods]
            if floors:
                measured.append(floor_metrics(case.train, _seen(case)))
            references: list[UnlearningResult] = []
            for original_seed in range(original_seeds):
                bar.set_postfix_str("training the original")
                trained = original or trainer("original", case.train, held_out, seed=first + original_seed)
                bar.update()
                bar.set_postfix_str("preparing")
                run = audit(
                    trained,
                    case.train,
                    case.request,
                    [prepared(method, trained, case.train) for method in own],
                    validation=held_out,
                    test=case.test,
                    objective=loss,
                    settings=replace(base, seed=first + RETRAINED),
                    retrain_seeds=retrain_seeds,
                    references=references or None,
                    trained_labels=case.trained_labels,
                    targets=case.targets,
                    real=case.real,
                    category=case.category,
                    cache=cache,
                    other_training=other_training,
                    on_step=lambda what: _advance(bar, what),
                )
                references = run.references
                audits.append(run)
    about = {
        "dataset": {"name": dataset, **_facts(case)},
        "model": {
            "name": model if isinstance(model, str) else type(trained).__name__,
            "dim": trainer.width(case.train) if original is None else dim,
            "layers": getattr(trained, "num_layers", layers),
            "objective": repr(loss),
            "settings": repr(base),
        },
        "scenario": case.name,
        "seeds": {"data": data_seeds, "original": original_seeds, "retrain": retrain_seeds},
        "notes": [*case.notes, *trainer.notes()],
        "command": command,
        **({"floors": _mean(measured)} if floors else {}),
    }
    return Audit.mean(audits, about)


@dataclass
class _Trainer:
    """Trains original and clean models in the same way, or loads them from the cache.

    Args:
        model: Name of a model, or a function that builds a model for a graph.
        dim: Width of the embedding tables, or ``None`` for the default of the kind of graph.
        layers: Number of layers, or ``None`` for the default.
        objective: The loss, or ``None`` for the default of the kind of graph.
        settings: Training settings, or ``None`` for the default of the kind of graph.
        device: Device of the models.
        cache: Folder of trained models, or ``None``.
        trained: Number of models trained so far.
        found: Number of models loaded from the cache so far.
    """

    model: str | Callable[[Any], nn.Module]
    dim: int | None
    layers: int | None
    objective: Criterion | None
    settings: FitSettings | None
    device: str
    cache: Path | None
    trained: int = 0
    found: int = 0

    def learning(self, graph: Any) -> tuple[Criterion, FitSettings]:
        """Return the loss and the training settings; those not given are the defaults of the kind of graph."""
        return self.objective or default_objective(graph), self.settings or default_settings(graph)

    def width(self, graph: Any) -> int:
        """Return the width of the embedding tables."""
        return (64 if graph.kind == "sessions" else 32) if self.dim is None else self.dim

    def __call__(self, role: str, graph: G, validation: G | None, *, seed: int) -> nn.Module:
        graph = copy.copy(graph).to(self.device)
        validation = None if validation is None else copy.copy(validation).to(self.device)
        objective, settings = self.learning(graph)
        settings = replace(settings, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = self._build(graph)
        found = trained(role, built, graph, validation, objective, settings, self.cache)
        self.found += found
        self.trained += not found
        return built

    def _build(self, graph: Any) -> nn.Module:
        if isinstance(self.model, str):
            return build_model(self.model, graph, self.width(graph), self.layers)
        return self.model(graph)

    def notes(self) -> list[str]:
        """Return the report's notes on models from the cache."""
        both = counted(self.found + self.trained, "model")
        return [f"{self.found} of {both} before forgetting came from the cache."] if self.found else []


def _facts(case: Scenario[Any]) -> dict[str, int]:
    """Return the sizes of the training, validation and test data, under the names of their kind of graph."""
    return part_sizes({"train": case.train, "validation": case.validation, "test": case.test})


def _seen(case: Scenario[Any]) -> dict[str, Any]:
    """Return the validation and test data; without clicks on items that have no training clicks."""
    parts = {"validation": case.validation, "test": case.test}
    if case.train.kind == "sessions":
        return {name: part.without_unseen(case.train) for name, part in parts.items()}
    return parts


def _mean(found: Sequence[Any]) -> Any:
    """Return the means of numbers in dictionaries that have the same keys; of text, the first one."""
    if isinstance(found[0], dict):
        return {name: _mean([entry[name] for entry in found]) for name in found[0]}
    return found[0] if isinstance(found[0], str) else statistics.fmean(found)


def _scenario(make: Callable[..., Scenario[Any]], seed: int, clean: Callable[..., nn.Module]) -> Scenario[Any]:
    return make(seed, clean=clean) if "clean" in inspect.signature(make).parameters else make(seed)


def prepared(method: Unlearner, model: nn.Module, graph: Any) -> Unlearner:
    """Return a copy of the method that is prepared for this original; a preparation is never shared by originals."""
    if not method.needs_preparation:
        return method
    own = replace(method)
    own.prepare(model, graph, progress=False)
    return own


def _advance(bar: tqdm[Any], what: str) -> None:
    bar.set_postfix_str(what)
    bar.update()


def on_device(case: Scenario[Any], device: torch.device | str) -> Scenario[Any]:
    """Return a scenario whose graphs are on a device."""
    graphs = [copy.copy(graph).to(device) for graph in (case.train, case.validation, case.test)]
    return replace(case, train=graphs[0], validation=graphs[1], test=graphs[2])
