"""The bench: methods through a scenario, against retrained models, over several data and original seeds."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.audit import Audit, audit
from graphunlearn.eval.cache import facts_of_training, recall, remember
from graphunlearn.eval.scenarios import Scenario
from graphunlearn.nn import FitSettings, Objective, build_model, default_objective, fit, reset_parameters
from graphunlearn.operators import Unlearner, UnlearningResult

__all__ = ["bench"]

RETRAINED, CLEAN = 50, 99
"""The seeds of a data seed, out of a hundred: originals from 0, retrained models from here, and the clean one."""


def bench(
    scenario: Callable[..., Scenario],
    methods: Sequence[Unlearner],
    *,
    model: str | Callable[[InteractionGraph], nn.Module] = "lightgcn",
    dim: int = 32,
    layers: int = 2,
    objective: Objective | None = None,
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
) -> Audit:
    """Run methods through a scenario, against retrained models, over several data and original seeds.

    Originals and retrained models go through the same training loop with the same settings; all their seeds differ.

    Args:
        scenario: Gives the scenario of a data seed, ``scenario(seed)``. One with a parameter ``clean`` is also given a
            function that trains a model as originals are trained, with a seed of its own; see
            :func:`adversarial_edges`.
        methods: The methods, configured; ``objective``, ``validation`` and ``settings`` are filled in where they are
            ``None``. One that needs a preparation is prepared for every original, before it is told the request.
        model: Name of a model, or a function that builds one for a graph.
        dim: Width of a row.
        layers: Propagation layers.
        objective: The loss; the shared default otherwise.
        settings: How to train.
        data_seeds: Number of data seeds (split and request).
        original_seeds: Number of original models per data seed.
        retrain_seeds: Number of retrained models per data seed; at least two for a noise floor, better five.
        seed: The first data seed.
        dataset: Name for the report.
        device: Where to run.
        cache: Folder of trained models; those that are there are not trained again. Nothing is kept where ``None``.
        progress: Show progress; by default on a terminal only.
        command: What was typed, for the report.

    Returns:
        The :class:`Audit`, means over all runs with standard deviations.

    Raises:
        ValueError: A count is not positive, or so large that seeds would meet.

    Example:
        >>> import graphunlearn as gu
        >>> from graphunlearn.eval import adversarial_edges
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8)
        >>> result = bench(
        ...     lambda seed, clean: adversarial_edges(graph, clean, seed=seed),
        ...     [gu.Unlink()],
        ...     settings=gu.FitSettings(epochs=2),
        ...     retrain_seeds=2,
        ... )
        >>> [method["name"] for method in result.report["methods"]]
        ['original', 'retrain', 'unlink']
    """
    for name, count, most in (
        ("data_seeds", data_seeds, math.inf),
        ("original_seeds", original_seeds, RETRAINED),
        ("retrain_seeds", retrain_seeds, CLEAN - RETRAINED),
    ):
        if not 1 <= count <= most:
            raise ValueError(f"'{name}' must be at {'least 1' if count < 1 else f'most {most}'} (got {count})")
    base, audits = settings or FitSettings(), []
    trainer = _Trainer(model, dim, layers, objective, base, device, None if cache is None else Path(cache))
    quiet = None if progress is None else not progress
    steps = data_seeds * (retrain_seeds + original_seeds * (1 + len(methods)))
    with tqdm(total=steps, desc="bench", unit="model", disable=quiet, leave=False) as bar:
        for data_seed in range(seed, seed + data_seeds):
            first = 100 * data_seed
            bar.set_postfix_str("making the scenario")
            case = _to(_scenario(scenario, data_seed, partial(trainer, "clean", seed=first + CLEAN)), device)
            loss = objective or default_objective(case.train)
            own = [_filled(method, loss, case.validation, base) for method in methods]
            references: list[UnlearningResult] = []
            for original_seed in range(original_seeds):
                bar.set_postfix_str("training the original")
                trained = trainer("original", case.train, case.validation, seed=first + original_seed)
                bar.update()
                bar.set_postfix_str("preparing")
                run = audit(
                    trained,
                    case.train,
                    case.request,
                    [_prepared(method, trained, case.train) for method in own],
                    validation=case.validation,
                    test=case.test,
                    objective=loss,
                    settings=replace(base, seed=first + RETRAINED),
                    retrain_seeds=retrain_seeds,
                    references=references or None,
                    trained_labels=case.trained_labels,
                    cache=cache,
                    on_step=lambda what: _advance(bar, what),
                )
                references = run.references
                audits.append(run)
    about = {
        "dataset": {
            "name": dataset,
            "train": case.train.num_interactions,
            "validation": case.validation.num_interactions,
            "test": case.test.num_interactions,
            "users": case.train.num_users,
            "items": case.train.num_items,
        },
        "model": {
            "name": model if isinstance(model, str) else type(trained).__name__,
            "dim": dim,
            "layers": layers,
            "objective": repr(loss),
            "settings": repr(base),
        },
        "scenario": case.name,
        "seeds": {"data": data_seeds, "original": original_seeds, "retrain": retrain_seeds},
        "notes": [*case.notes, *trainer.notes()],
        "command": command,
    }
    return Audit.mean(audits, about)


@dataclass
class _Trainer:
    """Trains originals and clean models alike, or finds them in the cache."""

    model: str | Callable[[InteractionGraph], nn.Module]
    dim: int
    layers: int
    objective: Objective | None
    settings: FitSettings
    device: str
    cache: Path | None
    trained: int = 0
    found: int = 0

    def __call__(self, role: str, graph: InteractionGraph, validation: InteractionGraph, *, seed: int) -> nn.Module:
        graph, validation = (copy.copy(part).to(self.device) for part in (graph, validation))
        settings, objective = replace(self.settings, seed=seed), self.objective or default_objective(graph)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = _build(self.model, graph, self.dim, self.layers)
        facts = {}
        if self.cache is not None:
            facts = facts_of_training(role, built, graph, validation, objective, settings)
            if recall(self.cache, facts, built) is not None:
                self.found += 1
                return built
        reset_parameters(built, seed)
        result = fit(built, graph, validation=validation, objective=objective, settings=settings, progress=False)
        self.trained += 1
        if self.cache is not None:
            remember(self.cache, facts, built, asdict(result))
        return built

    def notes(self) -> list[str]:
        """What the report says of it."""
        both = self.found + self.trained
        return [f"{self.found} of {both} models before forgetting came from the cache."] if self.found else []


def _scenario(make: Callable[..., Scenario], seed: int, clean: Callable[..., nn.Module]) -> Scenario:
    return make(seed, clean=clean) if "clean" in inspect.signature(make).parameters else make(seed)


def _prepared(method: Unlearner, model: nn.Module, graph: InteractionGraph) -> Unlearner:
    """Return the method ready for this original; a copy, so that nothing of it reaches another one."""
    if not getattr(method, "needs_preparation", False):
        return method
    own = replace(method)
    own.prepare(model, graph, progress=False)
    return own


def _filled(method: Unlearner, objective: Objective, validation: InteractionGraph, settings: FitSettings) -> Unlearner:
    """Return the method with what it asks for and was not given: how the originals were trained."""
    known = {"objective": objective, "validation": validation, "settings": settings}
    missing: dict[str, Any] = {name: value for name, value in known.items() if getattr(method, name, value) is None}
    return replace(method, **missing) if missing else method


def _advance(bar: tqdm[Any], what: str) -> None:
    bar.set_postfix_str(what)
    bar.update()


def _to(case: Scenario, device: str) -> Scenario:
    graphs = [copy.copy(graph).to(device) for graph in (case.train, case.validation, case.test)]
    return replace(case, train=graphs[0], validation=graphs[1], test=graphs[2])


def _build(
    model: str | Callable[[InteractionGraph], nn.Module], graph: InteractionGraph, dim: int, layers: int
) -> nn.Module:
    return build_model(model, graph, dim, layers) if isinstance(model, str) else model(graph)
