"""Tests of forgetting where one knows what should be forgotten, and the bench that runs methods through them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import EDGE_TYPE, ForgetRequest, InteractionGraph
from graphunlearn.eval.audit import Audit, audit
from graphunlearn.nn import FitSettings, Objective, build_model, default_objective, fit, reset_parameters
from graphunlearn.operators import Unlearner

__all__ = ["Scenario", "bench", "flipped_labels", "removal"]


@dataclass
class Scenario:
    """What to train on, what to forget, and what to judge by.

    Args:
        name: As on the command line.
        train: The training graph, with whatever was injected into it.
        validation: Decides when training stops.
        test: Judges; never looked at before.
        request: What to forget.
        trained_labels: Whether the labels of the forgotten interactions were injected, and forgetting is telling them.
        notes: Sentences for the report.
    """

    name: str
    train: InteractionGraph
    validation: InteractionGraph
    test: InteractionGraph
    request: ForgetRequest
    trained_labels: bool = False
    notes: list[str] = field(default_factory=list)


def flipped_labels(
    graph: InteractionGraph,
    *,
    share: float = 0.02,
    threshold: float = 3.0,
    seed: int = 0,
) -> Scenario:
    """Flip a share of the training labels; the flipped interactions are to be forgotten.

    Ratings above ``threshold`` are positive, the split is 60/20/20. Forgetting the flips should undo them: the AUC of
    the flipped labels falls to what models have that never saw them.

    Args:
        graph: Rated interactions.
        share: Share of the training labels to flip, in (0, 1).
        threshold: Ratings above it are positive.
        seed: Seed of the split and of the choice.

    Raises:
        ValueError: There are no ratings, or the share flips nothing or is not a share.

    Source: the evaluation of Zhang et al., "Recommendation Unlearning via Influence Function", arXiv 2307.02147.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> scenario = flipped_labels(synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8))
        >>> len(scenario.request) == round(0.02 * scenario.train.num_interactions)
        True
    """
    if graph.rating is None and graph.label is None:
        raise ValueError("'graph' must carry ratings for the flipped-labels scenario (got none)")
    labelled = graph if graph.rating is None else graph.binarize(threshold)
    train, validation, test = labelled.random_split([0.6, 0.2, 0.2], seed=seed)
    chosen = _share(train.num_interactions, share, seed)
    assert train.label is not None
    flipped = train.label.clone()
    flipped[chosen] = 1 - flipped[chosen]
    train = copy.copy(train)
    train[EDGE_TYPE].label = flipped
    notes = [f"{len(chosen)} of {train.num_interactions} training labels were flipped, and are what is forgotten."]
    request = ForgetRequest.internal("interaction", train.pairs[:, chosen])
    return Scenario("flipped-labels", train, validation, test, request, trained_labels=True, notes=notes)


def removal(
    graph: InteractionGraph,
    level: str,
    *,
    share: float,
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario:
    """Forget a random share of the users, items or interactions.

    Args:
        graph: All interactions, or those to train on where ``test`` is given.
        level: ``"user"``, ``"item"`` or ``"interaction"``.
        share: Share to forget, in (0, 1); at least one.
        seed: Seed of the split and of the choice.
        test: Held-out interactions in the numbering of ``graph``; a part of ``graph`` otherwise.
        fractions: Shares of training, validation and test; the last one is unused where ``test`` is given.

    Raises:
        ValueError: The share is not a share, or nothing can be chosen.
    """
    if test is None:
        train, validation, test = graph.random_split(list(fractions), seed=seed)
    else:
        whole = fractions[0] + fractions[1]
        train, validation = graph.random_split([fractions[0] / whole, fractions[1] / whole], seed=seed)
    if level == "interaction":
        index: Tensor = train.pairs[:, _share(train.num_interactions, share, seed)]
    else:
        nodes = torch.unique(train.pairs[0 if level == "user" else 1])
        index = nodes[_share(len(nodes), share, seed)]
    request = ForgetRequest.internal(level, index)  # type: ignore[arg-type]
    notes = [f"A random {share:.2%} of the {level}s were chosen to be forgotten."]
    return Scenario(f"{level}s", train, validation, test, request, notes=notes)


def _share(size: int, share: float, seed: int) -> Tensor:
    if not 0 < share < 1:
        raise ValueError(f"'share' must be between 0 and 1 (got {share})")
    count = max(1, round(share * size))
    generator = torch.Generator().manual_seed(7_919 + seed)
    return torch.randperm(size, generator=generator)[:count].sort().values


def bench(
    scenario: Callable[[int], Scenario],
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
    progress: bool | None = None,
    command: str | None = None,
) -> Audit:
    """Run methods through a scenario, against retrained models, over several data and original seeds.

    Originals and retrained models go through the same training loop with the same settings; all their seeds differ.

    Args:
        scenario: Gives the scenario of a data seed.
        methods: The methods, configured; their ``objective`` is filled in where it is ``None``.
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
        progress: Show progress; by default on a terminal only.
        command: What was typed, for the report.

    Returns:
        The :class:`Audit`, means over all runs with standard deviations.

    Raises:
        ValueError: A count is not positive.
    """
    for name, count in (
        ("data_seeds", data_seeds),
        ("original_seeds", original_seeds),
        ("retrain_seeds", retrain_seeds),
    ):
        if count < 1:
            raise ValueError(f"'{name}' must be at least 1 (got {count})")
    base, audits = settings or FitSettings(), []
    quiet = None if progress is None else not progress
    steps = data_seeds * (retrain_seeds + original_seeds * (1 + len(methods)))
    with tqdm(total=steps, desc="bench", unit="model", disable=quiet, leave=False) as bar:
        for data_seed in range(seed, seed + data_seeds):
            case = _to(scenario(data_seed), device)
            loss = objective or default_objective(case.train)
            own = [_with_objective(method, loss) for method in methods]
            references: list[Any] = []
            for original_seed in range(original_seeds):
                trained = _build(model, case.train, dim, layers)
                start = replace(base, seed=100 * data_seed + original_seed)
                reset_parameters(trained, start.seed)
                bar.set_postfix_str("training the original")
                fit(trained, case.train, validation=case.validation, objective=loss, settings=start, progress=False)
                bar.update()
                run = audit(
                    trained,
                    case.train,
                    case.request,
                    own,
                    validation=case.validation,
                    test=case.test,
                    objective=loss,
                    settings=replace(base, seed=100 * data_seed + 50),
                    retrain_seeds=retrain_seeds,
                    references=references or None,
                    trained_labels=case.trained_labels,
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
        "notes": case.notes,
        "command": command,
    }
    return Audit.mean(audits, about)


def _with_objective(method: Unlearner, objective: Objective) -> Unlearner:
    """Return the method with the objective filled in where it has one and none was given."""
    if getattr(method, "objective", objective) is not None:
        return method
    filled = copy.copy(method)
    filled.objective = objective  # type: ignore[attr-defined]
    return filled


def _advance(bar: tqdm[Any], what: str) -> None:
    bar.set_postfix_str(what)
    bar.update()


def _to(case: Scenario, device: str) -> Scenario:
    graphs = (case.train.to(device), case.validation.to(device), case.test.to(device))
    return replace(case, train=graphs[0], validation=graphs[1], test=graphs[2])


def _build(
    model: str | Callable[[InteractionGraph], nn.Module], graph: InteractionGraph, dim: int, layers: int
) -> nn.Module:
    return build_model(model, graph, dim, layers) if isinstance(model, str) else model(graph)
