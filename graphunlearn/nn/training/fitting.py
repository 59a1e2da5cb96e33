"""The training loop, which trains original models and retrained models in the same way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import EventGraph, InteractionGraph, SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check, is_whole, warn
from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn.connecting import connect
from graphunlearn.nn.encoding import encode, score
from graphunlearn.nn.floors.popularity import PopularItems
from graphunlearn.nn.origin import origin_of
from graphunlearn.nn.precision import check_precision
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.auxiliary import auxiliary_loss
from graphunlearn.nn.training.checkpoint import FitResult, TrainingState
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import default_objective

__all__ = ["FitResult", "FitSettings", "default_settings", "fit", "reset_parameters"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Training settings.

    Args:
        epochs: Largest number of epochs over the interactions, or over the prefixes of all sessions.
        batch_size: Interactions or prefixes per step.
        lr: Learning rate of Adam.
        patience: Stop after this many epochs without a better validation metric (only with ``validation``). An epoch
            of patience is at least ``0.1 / lr`` optimizer steps, ten at the default ``lr``, since on small data an
            epoch is few steps. A model that is not yet better than before the first step has five times the patience,
            counted from the first step. See :func:`epochs_of_patience`.
        refresh_negatives: Whether to draw new negatives every epoch instead of keeping the stored ones.
        seed: Seed of the order of interactions or sessions, of dropout, and of redrawn parameters.

    Raises:
        ValueError: A setting is out of range.
    """

    epochs: int = 300
    batch_size: int = 8192
    lr: float = 0.01
    patience: int = 10
    refresh_negatives: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "batch_size": self.batch_size, "patience": self.patience}
        check("be a positive integer", lambda value: is_whole(value) and value >= 1, **counts)
        check("be positive and finite", lambda value: 0 < value < math.inf, lr=self.lr)


PATH = 0.1
"""The least sum of the learning rates of the steps that count as one epoch of patience."""


def epochs_of_patience(settings: FitSettings, num_samples: int) -> int:
    r"""Return after how many epochs without a better validation metric a training stops.

    .. math::
        \max\Bigl(p, \Bigl\lceil \frac{0.1\,p}{\eta\,\lceil n / b \rceil} \Bigr\rceil\Bigr)

    for patience :math:`p`, learning rate :math:`\eta`, :math:`n` samples and batches of :math:`b`. A step of Adam moves
    a parameter by about :math:`\eta`, so :math:`p` epochs of few steps say little: at the default settings, data of
    25,000 interactions need about 50 steps to get past the quality of recommending popular items.

    Args:
        settings: Training settings.
        num_samples: Number of training samples.

    Returns:
        The number of epochs, at least ``settings.patience``.

    Example:
        >>> epochs_of_patience(FitSettings(), 80_000), epochs_of_patience(FitSettings(), 25_000)
        (10, 25)
    """
    steps = math.ceil(num_samples / settings.batch_size)
    wanted = PATH * settings.patience / (settings.lr * steps)
    # beyond any number of epochs the exact value says nothing; the rounding keeps .1 / .01 at ten steps
    return max(settings.patience, math.ceil(min(wanted, 1e9) - 1e-9))


FIRST = 5
"""How many times the patience a training has to beat the parameters that it started from."""


DEFAULT_SETTINGS: dict[Kind, FitSettings] = {
    "interactions": FitSettings(),
    "sessions": FitSettings(epochs=50, batch_size=512, lr=0.005, patience=3),
}
"""The default settings of :func:`fit`, by kind of graph."""


def default_settings(graph: EventGraph) -> FitSettings:
    """Return the default settings of :func:`fit`; those for sessions have smaller steps and less patience.

    Args:
        graph: The training graph.

    Returns:
        The settings.
    """
    return DEFAULT_SETTINGS[graph.kind]


def reset_parameters(model: nn.Module, seed: int) -> None:
    """Reinitialise all parameters of ``model`` without changing the global random state.

    A model with an :class:`~graphunlearn.nn.origin.Origin` gets the parameters of a model built anew.

    Args:
        model: The model; it is changed in place.
        seed: Seed of the parameters.

    Raises:
        TypeError: A trainable parameter belongs to no module with a ``reset_parameters`` method.
    """
    origin = origin_of(model)
    if origin is not None:
        with seeded(model, seed):
            model.load_state_dict(origin.build().state_dict())
        return
    with seeded(model, seed):
        covered = _reset(model)
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]
    if missing:
        raise TypeError(
            f"'model' must have a reset_parameters() method to be retrained "
            f"(got {type(model).__name__}, with {', '.join(missing[:3])} that no method resets)"
        )


def _reset(module: nn.Module) -> set[int]:
    """Reset a module, and return the identities of the parameters that were reset."""
    own = getattr(module, "reset_parameters", None)
    if callable(own):  # it also resets its submodules, possibly in another way than they would themselves
        own()
        return {id(p) for p in module.parameters()}
    return set().union(*map(_reset, module.children()))


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of ``model`` that require a gradient.

    Args:
        model: The model.

    Raises:
        ValueError: No parameter requires a gradient.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ArgumentError("model", "have a parameter that is trained", "none")
    return parameters


def fit(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    *,
    validation: InteractionGraph | SessionGraph | None = None,
    objective: Criterion | None = None,
    settings: FitSettings | None = None,
    checkpoint: str | Path | TrainingState | None = None,
    progress: bool | None = None,
    fresh: bool = False,
    **changes: Any,
) -> FitResult:
    r"""Train ``model`` in place on ``graph`` and keep the parameters of its best validation epoch.

    Every step of Adam minimises the mean per-sample loss of one batch, plus the :func:`auxiliary_loss` of the model if
    it has one. On interactions, a step propagates over the whole graph; on sessions, it reads the sessions of the
    batch. The validation metric is the AUROC for interactions with labels, Recall@20 of the next click over all
    prefixes for sessions, and otherwise Recall@20 with the interactions of ``graph`` masked.

    With ``validation``, training stops early by the rules of ``patience`` in :class:`FitSettings`. If every epoch has a
    lower validation metric than the parameters given, such as those of a trained model, these are kept, with a warning.
    It also warns if it ends with a lower validation metric than recommending the items with the most interactions has.

    Args:
        model: The recommender; it is left with its best parameters.
        graph: Training interactions or sessions, used for propagation and as training samples.
        validation: Interactions or sessions for early stopping; without them, training runs for all ``epochs``.
        objective: The loss; :func:`default_objective` by default.
        settings: Training settings, :func:`default_settings` by default; single fields can be given as keyword
            arguments instead (``fit(..., lr=0.005)``).
        checkpoint: File to which the training state is written atomically after every epoch; the suffix
            ``.safetensors`` is added if it is missing. If the file exists, training resumes from it and ends with the
            same parameters as without the interruption. With more ``epochs`` than before, training continues.
        progress: Whether to show a progress bar; ``None`` shows it on a terminal only.
        fresh: Whether the parameters given are newly drawn, so that the best epoch is returned in any case.
        **changes: Fields of ``settings`` to change.

    Returns:
        The :class:`FitResult`.

    Raises:
        ValueError: A setting is out of range, the graph does not fit the model, the graph is empty, ``validation``
            holds nothing to evaluate, no parameter requires a gradient, or a checkpoint belongs to another training.
        FloatingPointError: The loss became NaN or infinite.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_users=3, num_items=4)
        >>> result = gu.fit(gu.nn.MatrixFactorization(7, 4), graph, epochs=2)
        >>> result.best_epoch
        2
    """
    settings = replace(settings or default_settings(graph), **changes)
    check_precision(model)
    objective = objective or default_objective(graph)
    if graph.num_interactions == 0:
        raise ArgumentError("graph", "hold at least one interaction to train on", "none")
    connect(model, graph)
    samples = objective.epoch_samples(graph, None)
    if len(samples) == 0:
        raise ArgumentError("graph", "hold something to learn from", "only sessions of one click")
    parameters = trained_parameters(model)
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, fused=True)
    watch, metric = validator(graph, validation)
    patience = epochs_of_patience(settings, len(samples))
    state = checkpoint
    if not isinstance(state, TrainingState):
        state = TrainingState(state, lambda: training_identity(model, graph, validation, objective, settings))
    result, best = state.restore(model, optimizer, metric, settings.epochs)
    start, before = time.perf_counter(), result.seconds
    done = len(result.history)
    if watch is not None and not done:
        result.untrained = _measured(model, watch)
        if not fresh:
            result.best, best = result.untrained, _copied(model)
    model.train()
    epochs = range(done + 1, settings.epochs + 1)
    bar = tqdm(epochs, desc="training", unit="epoch", disable=_quiet(progress), leave=False)
    for epoch in bar:
        if metric is not None and _stalled(result, metric, patience):
            break
        if settings.refresh_negatives and epoch > 1:
            samples = objective.epoch_samples(graph, epoch)
        seed = settings.seed * 1_000_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros((), device=parameters[0].device)
        with seeded(model, seed):
            for step, batch in enumerate(objective.batches(samples, settings.batch_size, generator)):
                loss = objective.losses(model, graph, batch).mean()
                extra = auxiliary_loss(model, graph, batch, seed=settings.seed, epoch=epoch, step=step)
                loss = loss if extra is None else loss + extra
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch)
        record = {"epoch": float(epoch), "loss": float(total) / len(samples)}
        if not math.isfinite(record["loss"]):
            problem = f"the training loss became {record['loss']} in epoch {epoch}"
            raise FloatingPointError(f"{problem}; lower 'lr' or check the data")
        if watch is not None and metric is not None:
            record[metric] = _measured(model, watch)
            model.train()
        result.history.append(record)
        if metric is None or _better(record[metric], result):
            result.best, result.best_epoch = record.get(metric or ""), epoch
            best = None if metric is None else _copied(model)
        result.seconds = before + time.perf_counter() - start
        state.write(model, optimizer, result, best)
        bar.set_postfix({k: f"{v:.4f}" for k, v in record.items() if k != "epoch"})
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    if watch is not None:
        result.popularity = _measured(PopularItems(graph), watch)
        if result.history and not result.best_epoch:
            highest = max(record[str(metric)] for record in result.history)
            warn(
                f"every epoch had a lower {metric} on the validation data, {highest:.4f} at most, than the parameters "
                f"that training started from, {result.best:.4f}: these were kept. Lower 'lr' for a trained model, or "
                "train for longer"
            )
        if result.best is not None and result.best < result.popularity:
            warn(
                f"training ended with {metric} {result.best:.4f} on the validation data, below the "
                f"{result.popularity:.4f} of recommending the items with the most interactions: train for longer, "
                "change 'lr', 'batch_size' or the penalty, or use a simpler model"
            )
    return result


def _measured(model: nn.Module, watch: Callable[[nn.Module], float]) -> float:
    """Return the validation metric of a model, which is left in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return watch(model)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters and buffers of a model."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _better(value: float, result: FitResult) -> bool:
    """Return whether an epoch replaces the best one; where it equals the parameters given, it does."""
    return result.best is None or value > result.best or (value == result.best and not result.best_epoch)


def _stalled(result: FitResult, metric: str, patience: int) -> bool:
    """Return whether training stops: enough epochs without a better one, and the parameters given are beaten.

    Without that, it stops after :data:`FIRST` times as many epochs, counted from the start.
    """
    curve = [record[metric] for record in result.history]
    if not curve or len(curve) - curve.index(max(curve)) - 1 < patience:
        return False
    return result.untrained is None or max(curve) > result.untrained or len(curve) >= FIRST * patience


def training_identity(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None,
    objective: Criterion,
    settings: FitSettings,
) -> dict[str, Any]:
    """Return a JSON-serialisable description of a training, by which its checkpoint is recognised.

    The number of epochs is not part of the description, so that a finished training can be continued.
    """
    return {
        **{name: value for name, value in asdict(settings).items() if name != "epochs"},
        "model": {name: list(value.shape) for name, value in model.state_dict().items()},
        "options": f"{type(model).__name__}({model.extra_repr()})",
        "objective": repr(objective),
        "graph": graph.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
    }


def _quiet(progress: bool | None) -> bool | None:
    """Return the ``disable`` argument of tqdm; ``None`` shows the bar on a terminal only."""
    return None if progress is None else not progress


@singledispatch
def validator(
    graph: InteractionGraph | SessionGraph, validation: InteractionGraph | SessionGraph | None
) -> tuple[Callable[[nn.Module], float] | None, str | None]:
    """Return the validation metric of a training on ``graph``; a subclass of graph may register another.

    Args:
        graph: The training graph.
        validation: The validation interactions or sessions.

    Returns:
        A function that maps a model to the metric, and the name of the metric; ``None`` twice without validation.

    Raises:
        ValueError: ``validation`` does not fit ``graph``, or holds nothing to evaluate.
    """
    if validation is None or validation.num_interactions == 0:
        return None, None
    if validation.kind != graph.kind:
        got = f"{type(graph).__name__} and {type(validation).__name__}"
        raise ArgumentError("validation", "be of the kind of 'graph'", got)
    if isinstance(validation, SessionGraph):
        return _next_click(graph, validation), "recall@20"
    assert isinstance(graph, InteractionGraph)
    size, wanted = (validation.num_users, validation.num_items), (graph.num_users, graph.num_items)
    if size != wanted:
        raise ArgumentError("validation", f"have the users and items of 'graph', {wanted}", size)
    label = validation.label
    if label is not None and 0 < float(label.mean()) < 1:
        return lambda model: auroc(score(encode(model, graph), validation.pairs), label), "auroc"
    ranker = Ranker(graph, validation, ks=(20,), metrics=("recall",))
    if ranker.counts["num_users"] == 0:
        raise ArgumentError("validation", "hold a positive interaction that 'graph' does not hold", "none")

    def watch(model: nn.Module) -> float:
        users, items, *_ = encode(model, graph)
        return ranker(users, items)["recall@20"]

    return watch, "recall@20"


def _next_click(graph: EventGraph, validation: SessionGraph) -> Callable[[nn.Module], float]:
    """Return a function for the Recall@20 of the next click over all prefixes of the validation sessions."""
    if validation.num_items != graph.num_items:
        raise ArgumentError("validation", f"have the items of 'graph', {graph.num_items}", validation.num_items)
    samples = CrossEntropy().samples(validation)
    if len(samples) == 0:
        raise ArgumentError("validation", "hold a session of two clicks or more", "none")

    def watch(model: nn.Module) -> float:
        states, items, *_ = encode_prefixes(model, validation, samples.ends)
        return next_item_metrics(target_ranks(states, items, samples.target), ks=(20,))["recall@20"]

    return watch


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed the random draws in a block, such as those of dropout, and restore the global random state after it.

    Args:
        model: The model, whose devices are seeded.
        seed: The seed.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
