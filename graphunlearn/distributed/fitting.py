"""Training on several ranks: the training loop of one process, with samples, losses and metrics of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.distributed.checkpoint import ShardState
from graphunlearn.distributed.graph import ShardGraph
from graphunlearn.distributed.model import check_items, form_of
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.distributed.sums import fetched, shared, summed
from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.nn.floors.popularity import PopularItems
from graphunlearn.nn.training import fitting
from graphunlearn.nn.training.checkpoint import FitResult
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, default_settings, training_identity
from graphunlearn.nn.training.objective import Objective, Samples, default_objective

__all__ = ["ShardObjective", "check_objective", "fit", "places"]


@dataclass(frozen=True)
class ShardSamples:
    """The samples of one rank, and how many all ranks have.

    Args:
        own: The samples of this rank.
        number: The number of samples of all ranks.
        place: The position of every own sample among those of all ranks ``[num_samples]``.
    """

    own: Samples
    number: int
    place: Tensor

    def __len__(self) -> int:
        return self.number


def check_objective(objective: Any) -> None:
    """Check that the samples of a loss depend on the interactions of their user alone, so that a rank can draw them.

    Args:
        objective: The loss.

    Raises:
        ArgumentError: They depend on other users too, such as draws by popularity.
    """
    if not isinstance(objective, Objective) or not objective.private:
        expected = "be a loss whose draws depend on one user alone, on several ranks, such as BPR or BCE"
        raise ArgumentError("objective", expected, type(objective).__name__)


class ShardObjective(Criterion):
    """A loss over all ranks, for the training loop of one process.

    A batch has the same interactions as that of one process, each with the same negatives: both are functions of seeds,
    epoch, user and item. :meth:`losses` returns one number, the mean loss of the batch over all ranks.

    Args:
        objective: The loss.
        ranks: The ranks.
    """

    def __init__(self, objective: Objective, ranks: Ranks) -> None:
        check_objective(objective)
        self.objective, self.ranks = objective, ranks

    def __repr__(self) -> str:
        return repr(self.objective)

    def samples(self, graph: ShardGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> ShardSamples:
        own = self.objective.samples(graph, mask=mask, epoch=epoch)
        position = graph.position if mask is None else graph.position[mask]
        number = int(self.ranks.number(len(own)))
        return ShardSamples(own, number, places(position.cpu(), number, self.ranks))

    def batches(self, samples: ShardSamples, size: int, generator: torch.Generator) -> Iterator[ShardSamples]:
        turn = torch.empty(samples.number, dtype=torch.long)
        turn[torch.randperm(samples.number, generator=generator)] = torch.arange(samples.number)
        turns, order = turn[samples.place].sort()
        starts = torch.arange(0, samples.number + size, size)
        ends = torch.searchsorted(turns, starts).tolist()
        for step in range(math.ceil(samples.number / size)):
            own = samples.own.select(order[ends[step] : ends[step + 1]])
            yield ShardSamples(own, min(size, samples.number - step * size), samples.place[:0])

    def losses(self, model: nn.Module, graph: ShardGraph, samples: ShardSamples) -> Tensor:
        losses = self.objective(*fetched(graph.item_rows, encode(model, graph), samples.own))
        return summed(self.ranks, losses.sum().view(1) / samples.number)


def places(position: Tensor, number: int, ranks: Ranks) -> Tensor:
    """Return the place of every position among those of all ranks.

    Args:
        position: Positions in the whole graph before any interaction was forgotten, on the CPU, ascending ``[num]``.
        number: Number of positions of all ranks.
        ranks: The ranks.
    """
    ends = (int(position[0]), int(position[-1])) if len(position) else None
    held = ranks.objects((ends, len(position)))
    ranges = [found for found, _ in held if found is not None]
    if all(one[1] < other[0] for one, other in pairwise(ranges)):  # in the order of the ranks
        return torch.arange(len(position)) + sum(size for _, size in held[: ranks.rank])
    there = torch.zeros(max(last for _, last in ranges) + 1, dtype=torch.int32)
    there[position] = 1
    return (ranks.total_(there).cumsum(0) - 1)[position]


def fit(
    model: nn.Module,
    graph: ShardGraph,
    *,
    validation: ShardGraph | None = None,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    fresh: bool = False,
    **changes: Any,
) -> FitResult:
    """Train the part of a model on every rank; together, the parts are what :func:`~graphunlearn.fit` makes of a whole.

    Every step has the interactions and negatives of one process; sums are added up in another order, so that
    parameters agree up to rounding errors, which grow with the number of steps. All ranks must call this with the same
    settings.

    Args:
        model: The part of the model; it is left with the rows of its best parameters.
        graph: The part of the training graph.
        validation: The part of the validation data, of the same users.
        objective: The loss, whose draws depend on one user alone; by default that of one process.
        settings: Training settings.
        checkpoint: Start of the names of the checkpoints, one per rank. If all ranks have one, training resumes.
        progress: Whether rank 0 shows a progress bar; ``None`` shows it on a terminal only.
        fresh: Whether the parameters given are newly drawn.
        **changes: Fields of ``settings`` to change.

    Returns:
        The result, the same on all ranks but for its seconds.

    Raises:
        ValueError: As in :func:`~graphunlearn.fit`, or the loss or the model cannot be divided.
        RankError: Another rank failed, died, or was given other settings.

    Example:
        >>> import torch, graphunlearn as gu
        >>> from graphunlearn.distributed import Ranks, build_part, fit, take_part
        >>> graph = take_part(gu.datasets.synthetic_interactions(30, 20, interactions_per_user=6), Ranks())
        >>> len(fit(build_part("lightgcn", graph, 8), graph, epochs=2).history)
        2
    """
    ranks = graph.ranks
    with ranks.guard():
        settings = replace(settings or default_settings(graph), **changes)
        loss = ShardObjective(objective or default_objective(graph), ranks)
        form_of(model, graph)
        size = [list(p.shape)[1:] for p in model.parameters()]
        kind = [type(model).__name__, model.extra_repr(), size]
        given = [asdict(settings), checkpoint is None, validation is None, fresh]
        ranks.same(settings=given, objective=repr(loss), model=kind)
        check_items(model, graph)
        identity = training_identity(model, graph, validation, loss, settings)
        state = ShardState(checkpoint, ranks, lambda: identity)
        shown = progress if ranks.first else False
        return fitting.fit(
            model,
            graph,
            validation=validation,
            objective=loss,
            settings=settings,
            checkpoint=state,
            progress=shown,
            fresh=fresh,
        )


@fitting.validator.register
def _(graph: ShardGraph, validation: ShardGraph | None) -> tuple[Callable[[nn.Module], float] | None, str | None]:
    ranks = graph.ranks
    if validation is None or not validation.count():
        return None, None
    label = validation.label
    if label is not None and 0 < ranks.number(float(label.sum())) / validation.count() < 1:
        return lambda model: _auroc(model, graph, validation), "auroc"
    ranker = Ranker(graph, validation, ks=(20,), metrics=("recall",))
    own = ranker.counts["num_users"]
    users = ranks.number(own)
    if not users:
        raise ArgumentError("validation", "hold a positive interaction that 'graph' does not hold", "none")

    def watch(model: nn.Module) -> float:
        rows, items, *_ = _embeddings(model, graph)
        return ranks.number(ranker(rows, items)["recall@20"] * own if own else 0.0) / users

    return watch, "recall@20"


def _embeddings(model: nn.Module, graph: ShardGraph) -> Encoded:
    """Return the embeddings of the users of this rank and of all items, without gradients."""
    if isinstance(model, PopularItems):
        counts = graph.ranks.total(model.counts)
        return Encoded(counts.new_ones(graph.num_users, 1), counts.unsqueeze(1))
    return shared(graph.item_rows, encode(model, graph))


def _auroc(model: nn.Module, graph: ShardGraph, pairs: ShardGraph) -> float:
    """Return the AUROC of the pairs of all ranks, the same on all ranks."""
    ranks, label = graph.ranks, pairs.label
    assert label is not None
    found = [ranks.gather(x) for x in (score(_embeddings(model, graph), pairs.pairs), label)]
    return ranks.number(0.0 if found[0] is None or found[1] is None else auroc(found[0], found[1]))
