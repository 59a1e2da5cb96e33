"""Pre-training of the influence encoder: train probe models, simulate requests with known outcomes, fit the encoder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode, score
from graphunlearn.nn.training.fitting import FitSettings, fit, reset_parameters, validator
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings, InfluenceEncoder, pretrain_encoder
from graphunlearn.operators.unlearnrec.probe import Pool, Probe, design_probe

__all__ = ["Simulation", "learn_influence"]

_PROBE_SEED = 500_009  # added to seeds, so that a probe is unlikely to share its seed with another model
_GOOD_ENOUGH, _ATTEMPTS, _NEXT_SEED = 0.8, 3, 10_007


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Settings of the simulation that produces the training data of the encoder.

    Args:
        probes: Number of probe models, each trained like the original.
        share: Share of the interactions that a probe is trained without, in (0, 0.5].
        odd_users: Share of the users who get one unlikely interaction in the graph of a probe; 0 adds none.
        requests: Number of simulated requests per model and kind; half of them are large, the other half have 8 to 128
            interactions.
        held_out: Share of items whose interactions are held out for early stopping.
        seed: Seed of all random choices and of the parameters of the probes.

    Raises:
        ValueError: A setting is out of range.
    """

    probes: int = 1
    share: float = 0.1
    odd_users: float = 0.3
    requests: int = 40
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("probes", "requests"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, "be at least 1", getattr(self, name))
        if not 0 < self.share <= 0.5:
            raise ArgumentError("share", "be above 0 and at most 0.5", self.share)
        if not 0 <= self.odd_users <= 1:
            raise ArgumentError("odd_users", "be between 0 and 1", self.odd_users)
        if not 0 < self.held_out < 1:
            raise ArgumentError("held_out", "be between 0 and 1", self.held_out)


def learn_influence(
    encoder: InfluenceEncoder,
    model: nn.Module,
    graph: InteractionGraph,
    objective: Objective,
    simulation: Simulation,
    settings: EncoderSettings,
    *,
    training: FitSettings,
    validation: InteractionGraph | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train ``encoder`` in place for a model and its graph, without any real request.

    A probe has the architecture of the original and other initial parameters. It is trained on a graph from which some
    interactions were removed and to which some unlikely ones were added
    (:func:`~graphunlearn.operators.unlearnrec.probe.design_probe`). If the original forgets the removed interactions,
    their target scores are those of the probe. If the probe forgets the added interactions, their target scores are
    those of the original. Simulated requests are drawn from both sets.

    Args:
        encoder: The encoder; it is trained in place.
        model: The original model; it is not changed.
        graph: The training graph of the original.
        objective: The training loss of the original.
        simulation: Settings of the simulation.
        settings: Settings of the training of the encoder.
        training: Training settings of the original; the probes use them with other seeds.
        validation: Interactions for early stopping of the probes; without them, a probe trains for all epochs.
        checkpoint: File for the state of an interrupted training of a probe; it is removed at the end.
        progress: Whether to show progress; ``None`` shows it on a terminal only.

    Returns:
        A log with sizes, the largest forgotten share, the training of the probes and the history of the encoder.

    Raises:
        ValueError: The shares leave no interaction to train on, or none to simulate requests with.
    """
    learned: list[list[tuple[Tensor, Tensor]]] = []
    judged: list[list[tuple[Tensor, Tensor]]] = []
    log: dict[str, Any] = {"probes": [], "largest_share": 0.0, "seconds_before_a_break": 0.0}
    log["settings"] = asdict(training)
    states: list[Path] = []
    for number in range(simulation.probes):
        seed = 101 * simulation.seed + _PROBE_SEED + number
        seed += seed == training.seed  # a probe must not share the initialisation of the original
        generator = torch.Generator().manual_seed(seed)
        design = design_probe(model, graph, share=simulation.share, odd_users=simulation.odd_users, seed=seed)
        probe, trainings, files = _trained_probe(
            model, graph, design, objective, replace(training, seed=seed), validation, checkpoint, progress
        )
        states += files
        log["seconds_before_a_break"] += sum(entry.pop("before_a_break") for entry in trainings)
        log["probes"] += trainings
        pools = _pools(model, graph, probe, design, simulation.held_out, generator)
        for into, part, count in zip((learned, judged), pools, (simulation.requests, max(4, simulation.requests // 4))):
            for pool in part:
                into.append(list(_described(pool, _sizes(count, generator), generator, log, progress)))
    if not any(judged) or not any(learned):
        raise ArgumentError(
            "share",
            "leave out enough to learn from and to choose by",
            f"{simulation.share} of {graph.num_interactions} interactions",
        )
    steps = tqdm(total=settings.steps, desc="encoder", unit="step", disable=_quiet(progress), leave=False)

    def on_step(step: int, loss: float) -> None:
        steps.update(step - steps.n)
        steps.set_postfix(held_out=f"{loss:.4f}")

    with steps:
        log["encoder"] = pretrain_encoder(encoder, learned, judged, settings, on_step)
    for state in states:
        state.unlink(missing_ok=True)
    for name, kinds in (("learned", learned), ("held_out", judged)):
        counts = [len(target) for kind in kinds for _, target in kind]
        log[name] = {"requests": len(counts), "interactions": sum(counts)}
    return log


def _trained_probe(
    model: nn.Module,
    graph: InteractionGraph,
    design: Probe,
    objective: Objective,
    training: FitSettings,
    validation: InteractionGraph | None,
    checkpoint: Path | None,
    progress: bool | None,
) -> tuple[nn.Module, list[dict[str, Any]], list[Path]]:
    """Return a trained probe, the logs of its training runs and their checkpoint files.

    Early stopping occasionally ends a training run far too early. If a probe is much worse than the original on the
    validation interactions, another one is trained from other initial parameters, and the best probe is returned.
    """
    watch, _ = validator(graph, validation)
    with torch.no_grad():
        wanted = -math.inf if watch is None else _GOOD_ENOUGH * watch(model)
    best, kept, trainings, files = -math.inf, model, [], []
    for attempt in range(_ATTEMPTS):
        settings = replace(training, seed=training.seed + attempt * _NEXT_SEED)
        probe = copy.deepcopy(model)
        reset_parameters(probe, settings.seed)
        if checkpoint is not None:
            files.append(checkpoint.with_name(f"{checkpoint.name}.{settings.seed}.safetensors"))
        start = time.perf_counter()
        result = fit(
            probe,
            design.graph,
            validation=validation,
            objective=objective,
            settings=settings,
            checkpoint=files[-1] if files else None,
            progress=progress,
        )
        passed = time.perf_counter() - start
        about = {"seconds": result.seconds, "best_epoch": result.best_epoch, "best": result.best}
        trainings.append(about | {"before_a_break": max(0.0, result.seconds - passed)})
        reached = 0.0 if result.best is None else result.best
        if reached > best:
            best, kept = reached, probe
        if reached >= wanted:
            break
    return kept, trainings, files


@torch.no_grad()
def _pools(
    model: nn.Module, graph: InteractionGraph, probe: nn.Module, design: Probe, share: float, generator: torch.Generator
) -> list[list[Pool]]:
    """Return the pools of interactions that either model can forget with a known outcome, for training and held out.

    The interactions that the probe left out form three kinds of pool: the scattered ones, the bundled ones, and both
    together, as in large requests.
    """
    unseen, natural = encode(probe, design.graph), encode(model, graph)
    single = design.scattered.size(1)
    group = torch.cat([torch.arange(single, device=graph.pairs.device), single + design.bundle])
    parts: list[list[Pool]] = [[], []]
    for into, whole in zip(
        parts, Pool(model, graph, design.left_out, score(unseen, design.left_out), group).split(share, generator)
    ):
        into += [whole.only(whole.group < single), whole.only(whole.group >= single), whole]
    for odd in (design.lowest, design.others):
        for into, part in zip(
            parts, Pool(probe, design.graph, odd, score(natural, odd), odd[1]).split(share, generator)
        ):
            into.append(part)
    return [[pool for pool in part if pool.pairs.size(1)] for part in parts]


def _sizes(count: int, generator: torch.Generator) -> list[float]:
    """Return ``count`` request sizes that alternate between shares of the pool (.3 to 1) and counts (8 to 128)."""
    draws = torch.rand(count, generator=generator).tolist()
    return [0.3 + 0.7 * u if k % 4 < 2 else round(8 * 16**u) for k, u in enumerate(draws)]


def _described(
    pool: Pool, sizes: list[float], generator: torch.Generator, log: dict[str, Any], progress: bool | None
) -> Iterable[tuple[Tensor, Tensor]]:
    requests = tqdm(
        pool.requests(sizes, generator),
        total=len(sizes),
        desc="simulating",
        unit="request",
        disable=_quiet(progress),
        leave=False,
    )
    for removal, target in requests:
        share = len(removal.kept) / pool.graph.num_interactions
        log["largest_share"] = max(log["largest_share"], share)
        if removal.pairs.size(1):
            yield removal.features(), target


def _quiet(progress: bool | None) -> bool | None:
    """Return the ``disable`` argument of tqdm; ``None`` shows the bar on a terminal only."""
    return None if progress is None else not progress
