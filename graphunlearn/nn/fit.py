"""The one training loop: originals and retrained references go through it alike."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import InteractionGraph
from graphunlearn.data.io import write_atomic
from graphunlearn.nn.auxiliary import auxiliary_loss
from graphunlearn.nn.encode import Encoded, encode, score
from graphunlearn.nn.objective import Objective, default_objective
from graphunlearn.utils.ranking import Ranker, auroc

__all__ = ["FitResult", "FitSettings", "fit", "reset_parameters"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to train.

    Args:
        epochs: At most this many passes over the interactions.
        batch_size: Interactions per step.
        lr: Adam's learning rate.
        patience: Stop after this many epochs without a better validation metric (with ``validation`` only).
        refresh_negatives: Draw new negatives every epoch instead of keeping the stored ones.
        seed: Seed of the order of interactions, and of the parameters where they are drawn anew.
    """

    epochs: int = 300
    batch_size: int = 8192
    lr: float = 0.01
    patience: int = 10
    refresh_negatives: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"'{name}' must be a positive integer (got {value!r})")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"'lr' must be positive and finite (got {self.lr!r})")


@dataclass
class FitResult:
    """What happened: the metric that was watched, its best value and epoch, the curve, wall seconds."""

    metric: str | None
    best: float | None
    best_epoch: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def reset_parameters(model: nn.Module, seed: int) -> None:
    """Draw all parameters of ``model`` anew from its own initialisation, leaving global random state alone.

    Raises:
        TypeError: A trainable parameter belongs to no module with a ``reset_parameters`` method.
    """
    covered: set[int] = set()

    def reset(module: nn.Module) -> None:
        own = getattr(module, "reset_parameters", None)
        if callable(own):  # it answers for its parts too: their own initialisation need not be its
            own()
            covered.update(id(p) for p in module.parameters())
        else:
            for child in module.children():
                reset(child)

    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        reset(model)
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]
    if missing:
        raise TypeError(
            f"'model' must have a reset_parameters() method to be trained anew "
            f"(got {type(model).__name__}, whose {', '.join(missing[:3])} nothing resets)"
        )


def fit(
    model: nn.Module,
    graph: InteractionGraph,
    *,
    validation: InteractionGraph | None = None,
    objective: Objective | None = None,
    settings: FitSettings | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    **changes: Any,
) -> FitResult:
    r"""Train ``model`` in place on ``graph`` and keep the parameters of its best validation epoch.

    Every step propagates over the whole graph and averages the per-sample losses of one batch, to which it adds the
    model's :func:`auxiliary_loss` where it has one; Adam updates. The validation metric is AUROC where the validation
    interactions carry labels, else Recall@20 with the interactions of ``graph`` masked.

    Args:
        model: The recommender; it is left with its best parameters.
        graph: Training interactions; they propagate and they are supervised.
        validation: Interactions that decide when to stop. Without them all ``epochs`` are run.
        objective: The loss; :func:`default_objective` by default.
        settings: How to train; single fields can be given by name instead (``fit(..., lr=0.005)``).
        checkpoint: File to write the training state to after every epoch, atomically (``.safetensors`` is added
            where it is missing). Where it exists, training resumes and ends with the same parameters as without the
            break; with more ``epochs`` than before it goes on.
        progress: Show a progress bar; by default only where one is likely to be read.
        **changes: Fields of ``settings`` to change.

    Returns:
        The :class:`FitResult`.

    Raises:
        ValueError: A setting is out of range, the graph does not fit the model, the graph is empty, ``validation``
            holds nothing to judge by, or a checkpoint belongs to another training.
        FloatingPointError: The loss became NaN or infinite.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 2], [0, 1, 2]]), num_users=3, num_items=4)
        >>> result = gu.fit(gu.MatrixFactorization(7, 4), graph, epochs=2)
        >>> result.best_epoch
        2
    """
    settings = replace(settings or FitSettings(), **changes)
    objective = objective or default_objective(graph)
    if graph.num_interactions == 0:
        raise ValueError("'graph' must hold at least one interaction to train on (got none)")
    samples = objective.samples(graph)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=settings.lr, fused=True)
    watch, metric = validator(graph, validation)
    state = _State(checkpoint, lambda: _identity(model, graph, validation, objective, settings))
    result, best = state.restore(model, optimizer, metric, settings.epochs)
    model.train()
    start, before = time.perf_counter(), result.seconds
    done = len(result.history)
    bar = tqdm(
        range(done + 1, settings.epochs + 1), desc="training", unit="epoch", disable=_quiet(progress), leave=False
    )
    for epoch in bar:
        if metric is not None and epoch - result.best_epoch > settings.patience and result.best_epoch:
            break
        if settings.refresh_negatives and epoch > 1:
            samples = objective.samples(graph, epoch=epoch)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(samples), generator=generator).to(graph.pairs.device)
        total = torch.zeros((), device=order.device)
        for step, index in enumerate(order.split(settings.batch_size)):
            batch = samples.select(index)
            loss = objective(encode(model, graph), batch).mean()
            extra = auxiliary_loss(model, graph, batch, seed=settings.seed, epoch=epoch, step=step)
            loss = loss if extra is None else loss + extra
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
        record = {"epoch": float(epoch), "loss": float(total) / len(order)}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                f"the training loss became {record['loss']} in epoch {epoch}; lower 'lr' or check the data"
            )
        if watch is not None and metric is not None:
            model.eval()
            with torch.no_grad():
                record[metric] = watch(encode(model, graph))
            model.train()
        result.history.append(record)
        if metric is None or result.best is None or record[metric] > result.best:
            result.best, result.best_epoch = record.get(metric or ""), epoch
            best = None if metric is None else _snapshot(model)
        result.seconds = before + time.perf_counter() - start
        state.write(model, optimizer, result, best)
        bar.set_postfix({k: f"{v:.4f}" for k, v in record.items() if k != "epoch"})
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return result


def _identity(
    model: nn.Module,
    graph: InteractionGraph,
    validation: InteractionGraph | None,
    objective: Objective,
    settings: FitSettings,
) -> dict[str, Any]:
    """Return what makes two trainings the same but for how long they go on, as JSON holds it."""
    return {
        **{name: value for name, value in asdict(settings).items() if name != "epochs"},
        "model": {name: list(value.shape) for name, value in model.state_dict().items()},
        "options": f"{type(model).__name__}({model.extra_repr()})",
        "objective": repr(objective),
        "graph": graph.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
    }


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _quiet(progress: bool | None) -> bool | None:
    """tqdm's ``disable``: ``None`` shows the bar on a terminal only."""
    return None if progress is None else not progress


def validator(
    graph: InteractionGraph, validation: InteractionGraph | None
) -> tuple[Callable[[Encoded], float] | None, str | None]:
    """Return what training on ``graph`` watches on ``validation``, and its name; nothing where there is nothing."""
    if validation is None or validation.num_interactions == 0:
        return None, None
    size, wanted = (validation.num_users, validation.num_items), (graph.num_users, graph.num_items)
    if size != wanted:
        raise ValueError(f"'validation' must have the users and items of 'graph', {wanted} (got {size})")
    label = validation.label
    if label is not None and 0 < float(label.mean()) < 1:
        return lambda encoded: auroc(score(encoded, validation.pairs), label), "auroc"
    ranker = Ranker(graph, validation, ks=(20,), metrics=("recall",))
    if ranker.counts["num_users"] == 0:
        raise ValueError("'validation' must hold a positive interaction that 'graph' does not hold (got none)")
    return lambda encoded: ranker(encoded.users, encoded.items)["recall@20"], "recall@20"


class _State:
    """The training state on disk; without a path it does nothing."""

    def __init__(self, path: str | Path | None, identity: Callable[[], dict[str, Any]]) -> None:
        self.path = None
        if path is not None:
            path, self.identity = Path(path), identity()
            self.path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, metric: str | None, epochs: int
    ) -> tuple[FitResult, dict[str, Tensor] | None]:
        fresh = FitResult(metric, None, 0, 0.0)
        if self.path is None or not self.path.exists():
            return fresh, None
        tensors = load_file(self.path)
        meta = json.loads(bytes(tensors.pop("meta").tolist()).decode())
        if meta["identity"] != self.identity:
            changed = [k for k, v in self.identity.items() if meta["identity"].get(k) != v]
            raise ValueError(
                f"'checkpoint' must come from the same training run "
                f"(got {self.path.name} with another {', '.join(changed)})"
            )
        done = len(meta["result"]["history"])
        if done > epochs:
            raise ValueError(f"'epochs' must not be below the {done} epochs in {self.path.name} (got {epochs})")
        part = {
            key: {name.removeprefix(f"{key}."): t for name, t in tensors.items() if name.startswith(f"{key}.")}
            for key in ("model", "best", "optimizer")
        }
        model.load_state_dict(part["model"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, t in part["optimizer"].items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = t
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return FitResult(**meta["result"]), part["best"] or None

    def write(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, result: FitResult, best: dict[str, Tensor] | None
    ) -> None:
        if self.path is None:
            return
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (best or {}).items()}
        for index, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        # one file, so that parameters and their history can never be of different epochs
        meta = json.dumps({"identity": self.identity, "result": asdict(result)}).encode()
        tensors["meta"] = torch.tensor(list(meta), dtype=torch.uint8)
        write_atomic(self.path, save({k: v.contiguous() for k, v in tensors.items()}))
