"""Pre-training of the influence encoder: train probe models, simulate requests with known outcomes, fit the encoder."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.nn.training.fitting import FitSettings, _quiet, fit, reset_parameters, validator
from graphunlearn.nn.training.negatives import draw_negatives
from graphunlearn.nn.training.objective import Objective
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings, InfluenceEncoder, pretrain_encoder
from graphunlearn.operators.unlearnrec.features import LARGE_LOSS
from graphunlearn.operators.unlearnrec.probe import Pool, Probe, check_shares, design_probe

__all__ = ["Simulation", "learn_influence"]

_PROBE_SEED = 500_009  # added to seeds, so that a probe is unlikely to share its seed with another model
_GOOD_ENOUGH, _ATTEMPTS, _NEXT_SEED = 0.8, 3, 10_007
_COMPARED = 20_000  # most interactions by which the levels of two models are compared
_HELD_OUT = 0.2  # share of the groups of interactions that only simulate requests for early stopping


@dataclass(kw_only=True)
class Simulation:
    """Settings of the simulation that produces the training data of the encoder.

    Args:
        probes: Number of probe models, each trained like the original.
        share: Share of the interactions that a probe is trained without, in (0, 0.5].
        odd_users: Number of pairs that two of the rules add to the graph of a probe together, as a share of the users;
            0 adds none.
        requests: Number of simulated requests per model and kind; half of them are large, the other half have 8 to 128
            interactions.
        seed: Seed of all random choices and of the parameters of the probes.

    Raises:
        ValueError: A setting is out of range.
    """

    probes: int = 1
    share: float = 0.1
    odd_users: float = 0.3
    requests: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        check("be at least 1", lambda value: value >= 1, probes=self.probes, requests=self.requests)
        check_shares(self.share, self.odd_users)


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
    interactions were removed and to which some pairs were added
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
    files: list[Path] = []
    options = {"validation": validation, "objective": objective, "progress": progress}
    for number in range(simulation.probes):
        seed = 101 * simulation.seed + _PROBE_SEED + number
        seed += seed == training.seed  # a probe must not share the initialisation of the original
        generator = torch.Generator().manual_seed(seed)
        design = design_probe(graph, share=simulation.share, odd_users=simulation.odd_users, seed=seed)
        probe = _trained_probe(model, graph, design, replace(training, seed=seed), checkpoint, files, log, options)
        pools = _pools(model, graph, probe, design, _HELD_OUT, generator)
        for into, part, count in zip((learned, judged), pools, (simulation.requests, max(4, simulation.requests // 4))):
            others: list[tuple[Tensor, Tensor]] = []
            for pool in part:
                into.append(list(_described(pool, _sizes(count, generator), generator, log, progress, others)))
            into.append(others)
    if not any(judged) or not any(learned):
        got = f"{simulation.share} of {graph.num_interactions} interactions"
        raise ArgumentError("share", "leave out enough to learn from and to choose by", got)
    steps = tqdm(total=settings.steps, desc="encoder", unit="step", disable=_quiet(progress), leave=False)

    def on_step(step: int, loss: float) -> None:
        steps.update(step - steps.n)
        steps.set_postfix(held_out=f"{loss:.4f}")

    with steps:
        log["encoder"] = pretrain_encoder(encoder, learned, judged, settings, on_step)
    for file in files:
        file.unlink(missing_ok=True)
    for name, kinds in (("learned", learned), ("held_out", judged)):
        counts = [len(target) for kind in kinds for _, target in kind]
        log[name] = {"requests": len(counts), "interactions": sum(counts)}
    return log


def _trained_probe(
    model: nn.Module,
    graph: InteractionGraph,
    design: Probe,
    training: FitSettings,
    checkpoint: Path | None,
    files: list[Path],
    log: dict[str, Any],
    options: dict[str, Any],
) -> nn.Module:
    """Return a trained probe; add the training runs to ``log`` and their checkpoint files to ``files``.

    Early stopping occasionally ends a training run far too early. If a probe is much worse than the original on the
    validation interactions, another one is trained from other initial parameters, and the best probe is returned.
    ``options`` are further arguments of :func:`~graphunlearn.fit`.
    """
    watch, _ = validator(graph, options["validation"])
    with torch.no_grad():
        wanted = -math.inf if watch is None else _GOOD_ENOUGH * watch(model)
    best, kept = -math.inf, model
    for attempt in range(_ATTEMPTS):
        settings, probe, file = replace(training, seed=training.seed + attempt * _NEXT_SEED), copy.deepcopy(model), None
        reset_parameters(probe, settings.seed)
        if checkpoint is not None:
            file = checkpoint.with_name(f"{checkpoint.name}.{settings.seed}.safetensors")
            files.append(file)
        start = time.perf_counter()
        result = fit(probe, design.graph, settings=settings, checkpoint=file, **options)
        passed = time.perf_counter() - start
        log["probes"].append({"seconds": result.seconds, "best_epoch": result.best_epoch, "best": result.best})
        log["seconds_before_a_break"] += max(0.0, result.seconds - passed)
        reached = 0.0 if result.best is None else result.best
        if reached > best:
            best, kept = reached, probe
        if reached >= wanted:
            break
    return kept


@torch.no_grad()
def _pools(
    model: nn.Module, graph: InteractionGraph, probe: nn.Module, design: Probe, share: float, generator: torch.Generator
) -> list[list[Pool]]:
    """Return the pools of interactions that either model can forget with a known outcome, for training and held out.

    Every kind of left out interactions and every rule of added pairs is a pool, and so are all left out interactions
    together and all added pairs together.
    """
    unseen, natural = encode(probe, design.graph), encode(model, graph)
    parts: list[list[Pool]] = [[], []]
    some = torch.randperm(graph.num_interactions, generator=generator)[:_COMPARED].to(graph.pairs.device)
    users, items = graph.pairs[:, some]
    items = torch.cat([items, draw_negatives(graph, users, items, 1, 0).view(-1)])
    compared = torch.stack([users.repeat(2), items])
    as_original, as_probe = _matched(unseen, natural, compared), _matched(natural, unseen, compared)
    sides = ((model, graph, as_original, design.removed), (probe, design.graph, as_probe, design.injected))
    for forgetting, on, judge, kinds in sides:
        split: list[list[Pool]] = [[], []]
        for drawn in kinds.values():
            if drawn.pairs.size(1):
                pool = Pool(forgetting, on, drawn.pairs, judge(drawn.pairs), drawn.group, judge)
                for into, part in zip(split, pool.split(share, generator)):
                    into.append(part)
        for into, pools in zip(parts, split):
            pools = [pool for pool in pools if pool.pairs.size(1)]
            into += [*pools, Pool.joined(pools)] if pools else []
    return parts


def _matched(encoded: Encoded, wanted: Encoded, pairs: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of pairs that gives their scores by ``encoded``, at the level of the scores by ``wanted``.

    One of two models is trained for longer, by chance, and its scores are larger. The scores are shifted and scaled so
    that mean and standard deviation over ``pairs`` agree.
    """
    own, other = score(encoded, pairs), score(wanted, pairs)
    scale = other.std() / own.std().clamp(min=torch.finfo(own.dtype).eps)

    @torch.no_grad()
    def answer(asked: Tensor) -> Tensor:
        return other.mean() + scale * (score(encoded, asked) - own.mean())

    return answer


def _sizes(count: int, generator: torch.Generator) -> list[float]:
    """Return ``count`` request sizes that alternate between shares of the pool (.3 to 1) and counts (8 to 128)."""
    draws = torch.rand(count, generator=generator).tolist()
    return [0.3 + 0.7 * u if k % 4 < 2 else round(8 * 16**u) for k, u in enumerate(draws)]


def _described(
    pool: Pool,
    sizes: list[float],
    generator: torch.Generator,
    log: dict[str, Any],
    progress: bool | None,
    others: list[tuple[Tensor, Tensor]],
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield features and target scores of simulated requests; record the largest share of a request in ``log``.

    Features and target scores of items that lose a large share, for other users, are added to ``others``.
    """
    simulated, quiet = pool.requests(sizes, generator), _quiet(progress)
    requests = tqdm(simulated, total=len(sizes), desc="simulating", unit="request", disable=quiet, leave=False)
    for removal, target in requests:
        share = len(removal.kept) / pool.graph.num_interactions
        log["largest_share"] = max(log["largest_share"], share)
        if removal.pairs.size(1):
            yield removal.features(), target
        if pool.judge is not None:
            rest = removal.with_others(removal.removed_share[removal.graph.num_users :] >= LARGE_LOSS, generator)
            if rest.pairs.size(1):
                others.append((rest.features(), pool.judge(rest.pairs)))
