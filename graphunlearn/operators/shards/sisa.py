"""SISA: train one model per shard of the sessions, and retrain only the shards that hold a forgotten click."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, default_settings, fit, reset_parameters
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.shards.ensemble import ShardEnsemble, backbone_of, learn_weights
from graphunlearn.operators.shared.checks import check, check_counts
from graphunlearn.operators.shared.heldout import validation_left
from graphunlearn.operators.shared.preparation import Kept

__all__ = ["SISA", "Aggregation", "Sharded"]

Aggregation = Literal["mean", "learned", "attention"]


@dataclass(kw_only=True)
class Sharded(Unlearner):
    """The base class of sharded methods: one model per shard, and retraining of the shards with forgotten clicks.

    A subclass defines how sessions are assigned to shards (:meth:`_partition`). It may leave further clicks out of
    training (:meth:`_extra`).

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: How the scores of the shards are combined.
        validation: Sessions for early stopping of every shard and for learned weights.
        settings: Training settings of every shard; ``None`` selects :func:`~graphunlearn.nn.default_settings`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    needs_preparation: ClassVar[bool] = True
    judged: ClassVar[bool] = False
    keeps: ClassVar[type[Kept] | None] = ShardEnsemble
    objective: Criterion | None = None
    num_shards: int = 5
    aggregation: Aggregation = "mean"
    validation: SessionGraph | None = field(default=None, repr=False)
    settings: FitSettings | None = None

    def __post_init__(self) -> None:
        check_counts(num_shards=self.num_shards)
        known = get_args(Aggregation)
        check("be mean, learned or attention", lambda value: value in known, aggregation=self.aggregation)

    @abstractmethod
    def _partition(self, model: nn.Module, graph: SessionGraph, seed: int) -> Tensor:
        """Return the shard of every session ``[num_sessions]``."""

    def _extra(self, ensemble: ShardEnsemble, graph: SessionGraph, forgotten: Tensor) -> Tensor:
        """Return a mask of further clicks to leave out of training ``[num_clicks]``; empty by default."""
        return torch.zeros_like(forgotten)

    def asks_preparation(self, model: nn.Module) -> bool:
        """Return whether a request on ``model`` needs a preparation; an ensemble of shards needs none.

        Args:
            model: The model to unlearn from.

        Returns:
            Whether ``model`` needs a preparation.
        """
        return not isinstance(model, ShardEnsemble)

    def _prepare(self, model: nn.Module, graph: SessionGraph, checkpoint: Path | None, progress: bool | None) -> None:
        self._check_validation(graph)
        if self.num_shards > graph.num_sessions:
            most = f"not be larger than the number of sessions, {graph.num_sessions}"
            raise ArgumentError("num_shards", most, self.num_shards)
        seed = self._settings(graph).seed + int(fingerprint(model)[:8], 16)  # the shards depend on the original
        members = self._partition(model, graph, seed)
        shards = [copy.deepcopy(backbone_of(model)) for _ in range(self.num_shards)]
        ensemble = ShardEnsemble(shards, members, graph.fingerprint(), seed)
        ensemble.left_out = torch.zeros(graph.num_clicks, dtype=torch.bool, device=graph.device)
        files: dict[int, Path] = {}
        if checkpoint is not None:
            files = {k: checkpoint.with_name(f"{checkpoint.name}.{k}.safetensors") for k in range(self.num_shards)}
        log = self._train(ensemble, graph, ensemble.left_out, range(self.num_shards), self.validation, files, progress)
        for path in files.values():
            path.unlink(missing_ok=True)
        self._keep(ensemble.eval(), model, graph, log)

    def _validate(self, model: nn.Module, graph: SessionGraph, request: ForgetRequest) -> None:
        self._check_validation(graph)
        if self.asks_preparation(model):
            self._check_prepared(model, graph)
        elif model.graph != graph.fingerprint():
            wanted = f"be the one that the shards of {self.name} were trained on"
            raise ArgumentError("graph", wanted, "another", "prepare again")

    def _original(self, model: nn.Module, graph: SessionGraph) -> nn.Module:
        return self._prepared_first().module.to(graph.device) if self.asks_preparation(model) else model

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        assert isinstance(model, ShardEnsemble)
        start, forgotten = time.perf_counter(), request.mask(graph)
        model.members, model.left_out = model.members.to(graph.device), model.left_out.to(graph.device)
        touched = torch.unique(model.members[graph.session[forgotten]]).tolist()
        extra = self._extra(model, graph, forgotten) & ~forgotten & ~model.left_out
        if not bool((torch.bincount(graph.session[~(forgotten | extra | model.left_out)]) > 1).any()):
            extra = torch.zeros_like(extra)  # otherwise no shard would have a sample left
        missing = forgotten | extra | model.left_out
        validation = validation_left(self.validation, graph, retained)
        before = time.perf_counter() - start
        log = self._train(model, graph, missing, touched, validation)
        del log["seconds_before_a_break"]
        alone = before + log["seconds_of_weights"]
        self._check_finite(model)  # the attributes set below are not restored on failure
        stays = torch.bincount(graph.session[~forgotten], minlength=graph.num_sessions) > 0
        model.graph = retained.fingerprint()
        model.members, model.left_out = model.members[stays], missing[~forgotten]
        return log | {
            "num_shards": len(model.shards),
            "retrained": touched,
            "extra_clicks": int(extra.sum()),
            "seconds_sum": alone + sum(log["seconds_per_shard"]),
            "seconds_slowest_shard": alone + max(log["seconds_per_shard"]),
        }

    def _train(
        self,
        ensemble: ShardEnsemble,
        graph: SessionGraph,
        missing: Tensor,
        numbers: Any,
        validation: SessionGraph | None,
        files: dict[int, Path] | None = None,
        progress: bool | None = None,
    ) -> dict[str, Any]:
        """Train the shards ``numbers`` from scratch without the ``missing`` clicks, and set the weights of all shards.

        Returns:
            The log.
        """
        settings, objective = self._settings(graph), self.objective or default_objective(graph)
        options: dict[str, Any] = {"validation": validation, "objective": objective, "progress": progress}
        own = ensemble.members[graph.session]
        parts = {k: graph.keep(~(missing | (own != k))) for k in numbers}
        log: dict[str, Any] = {"seconds_per_shard": [], "epochs": [], "best_epoch": [], "seconds_before_a_break": 0.0}
        for number, part in parts.items():
            start, shard = time.perf_counter(), ensemble.shards[number]
            seeded = replace(settings, seed=ensemble.seed + number)
            reset_parameters(shard, seeded.seed)
            epochs, best, earlier = 0, 0, 0.0
            if len(objective.samples(part)):
                result = fit(shard, part, settings=seeded, checkpoint=(files or {}).get(number), fresh=True, **options)
                epochs, best, earlier = len(result.history), result.best_epoch, result.seconds
            passed = time.perf_counter() - start
            log["seconds_per_shard"].append(passed)
            log["epochs"].append(epochs)
            log["best_epoch"].append(best)
            log["seconds_before_a_break"] += max(0.0, earlier - passed)
        start = time.perf_counter()
        ensemble.settle(parts)
        if not bool(torch.isfinite(ensemble.offset).any()):
            raise ArgumentError("graph", "hold something to learn from", "only sessions of one click")
        if self.aggregation != "mean" and validation is not None and len(CrossEntropy().samples(validation)):
            attention = self.aggregation == "attention"
            log["validation_loss"] = learn_weights(ensemble, validation, attention=attention, seed=settings.seed)
        weights = ensemble.scale * ensemble.offset.softmax(0)
        log |= {"weights": weights.tolist(), "sharpness": float(ensemble.sharpness), "settings": asdict(settings)}
        return log | {"seconds_of_weights": time.perf_counter() - start}

    def _settings(self, graph: SessionGraph) -> FitSettings:
        return self.settings or default_settings(graph)

    def _check_validation(self, graph: SessionGraph) -> None:
        held = self.validation
        if self.aggregation != "mean" and (held is None or not len(CrossEntropy().samples(held))):
            wanted = f"hold sessions of two clicks or more for aggregation {self.aggregation!r}"
            raise ArgumentError("validation", wanted, "none" if held is None else "shorter ones")


@dataclass(kw_only=True)
class SISA(Sharded):
    r"""Sharded, isolated, aggregated training: every session is used to train exactly one of several models.

    :meth:`prepare` assigns the sessions at random to shards of equal size and trains a model of the class of the
    original on each shard, with the training settings of the original. A request retrains the shards that hold a
    forgotten click from the same initialisation on their retained clicks. The result equals that of a :meth:`prepare`
    without the forgotten clicks, given the same assignment to shards; the other shards keep the early stopping of the
    time when they were trained, with the validation sessions given then. The served model sums the scores of all
    shards. It differs from the original and becomes less accurate with more shards. Forgetting is therefore measured
    relative to the ensemble before the request (``result.original``), not relative to the original.

    The log holds the seconds of each shard (``seconds_per_shard``), of all shards in sequence (``seconds_sum``), and
    of the shards in parallel (``seconds_slowest_shard``); the last two include the time that is not training. Shards
    are not divided into slices: a shard is retrained from its initialisation.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: ``"mean"``, the mean of the scores; ``"learned"``, one weight per shard, fitted to validation
            clicks; or ``"attention"``, weights that also depend on the closeness of the session to the sessions of the
            shard. See :class:`~graphunlearn.operators.shards.ensemble.ShardEnsemble`.
        validation: Sessions for early stopping of every shard and for learned weights.
        settings: Training settings of every shard; their seed and the original model determine the assignment to
            shards and the initialisation. ``None`` selects :func:`~graphunlearn.nn.default_settings`.

    Raises:
        ValueError: A setting is out of range, weights are to be learned without validation sessions, or the method is
            not prepared for the model and the graph.

    Source: Bourtoule et al., "Machine Unlearning", IEEE S&P 2021.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 1], [3, 0, 1], [1, 2, 3]])
        >>> model = gu.nn.GRU4Rec(graph.num_items, 4)
        >>> method = gu.SISA(num_shards=2, settings=gu.nn.FitSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest.internal("click", torch.tensor([[0], [1]])))
        >>> type(result.model).__name__, len(result.log["retrained"])
        ('ShardEnsemble', 1)
    """

    name: ClassVar[str] = "sisa"

    def _partition(self, model: nn.Module, graph: SessionGraph, seed: int) -> Tensor:
        order = torch.randperm(graph.num_sessions, generator=torch.Generator().manual_seed(seed))
        members = torch.empty_like(order)
        members[order] = torch.arange(graph.num_sessions) % self.num_shards
        return members.to(graph.device)
