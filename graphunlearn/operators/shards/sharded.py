"""The base class of sharded methods, which train one model per shard and retrain the shards with forgotten data."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitSettings, default_settings, fit, reset_parameters
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.shards.ensemble import SessionEnsemble, ShardEnsemble, backbone_of
from graphunlearn.operators.shards.interactions import By, InteractionEnsemble, units_of
from graphunlearn.operators.shared.checks import check, check_counts
from graphunlearn.operators.shared.heldout import validation_left
from graphunlearn.operators.shared.preparation import Kept

__all__ = ["Aggregation", "Sharded"]

Aggregation = Literal["mean", "learned", "attention"]
Graph = InteractionGraph | SessionGraph


@dataclass(kw_only=True)
class Sharded(Unlearner):
    """The base class of sharded methods: one model per shard, and retraining of the shards with forgotten data.

    A subclass defines how sessions, or the users, items or pairs of interactions, are assigned to shards
    (:meth:`_partition`). For sessions, it may leave further clicks out of training (:meth:`_extra`).

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: How the scores of the shards are combined.
        validation: Data for early stopping of every shard and for learned weights.
        settings: Training settings of every shard; ``None`` selects :func:`~graphunlearn.nn.default_settings`.
    """

    needs_preparation: ClassVar[bool] = True
    judged: ClassVar[bool] = False
    keeps: ClassVar[type[Kept] | None] = ShardEnsemble
    objective: Criterion | None = None
    num_shards: int = 5
    aggregation: Aggregation = "mean"
    validation: InteractionGraph | SessionGraph | None = field(default=None, repr=False)
    settings: FitSettings | None = None

    def __post_init__(self) -> None:
        check_counts(num_shards=self.num_shards)
        known = get_args(Aggregation)
        check("be mean, learned or attention", lambda value: value in known, aggregation=self.aggregation)

    @abstractmethod
    def _partition(self, model: nn.Module, graph: Any, seed: int) -> Tensor:
        """Return the shard of every session, or of every unit of interactions ``[num]``; -1 for an inactive node."""

    def _by(self) -> By:
        """Return what interactions are partitioned by."""
        return "user"

    def _extra(self, ensemble: Any, graph: Any, forgotten: Tensor) -> Tensor:
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

    def _prepare(self, model: nn.Module, graph: Graph, checkpoint: Path | None, progress: bool | None) -> None:
        self._check_validation(graph)
        most, what = self._most(graph)
        if self.num_shards > most:
            raise ArgumentError("num_shards", f"not be larger than the number of {what}, {most}", self.num_shards)
        seed = self.fit_settings(graph).seed + int(fingerprint(model)[:8], 16)  # the shards depend on the original
        members = self._partition(model, graph, seed)
        shards = [copy.deepcopy(backbone_of(model)) for _ in range(self.num_shards)]
        ensemble: ShardEnsemble
        if graph.kind == "sessions":
            ensemble = SessionEnsemble(shards, members, graph.fingerprint(), seed)
        else:
            by, shape = self._by(), {"graph": graph.fingerprint(), "seed": seed}
            whole = cast(InteractionGraph, graph)
            ensemble = InteractionEnsemble.of(shards, members, whole, by, self.aggregation, **shape)
        ensemble.made_by = self.name
        ensemble.left_out = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.device)
        files: dict[int, Path] = {}
        if checkpoint is not None:
            files = {k: checkpoint.with_name(f"{checkpoint.name}.{k}.safetensors") for k in range(self.num_shards)}
        log = self._train(ensemble, graph, ensemble.left_out, range(self.num_shards), self.validation, files, progress)
        for path in files.values():
            path.unlink(missing_ok=True)
        self._keep(ensemble.eval(), model, graph, log)

    def _validate(self, model: nn.Module, graph: Graph, request: ForgetRequest) -> None:
        self._check_validation(graph)
        if self.asks_preparation(model):
            self._check_prepared(model, graph)
        elif model.made_by not in (None, self.name):
            raise ArgumentError("model", f"have shards of {self.name}", f"those of {model.made_by}, which serves them")
        elif model.graph != graph.fingerprint():
            wanted = f"be the one that the shards of {self.name} were trained on"
            raise ArgumentError("graph", wanted, "another", "prepare again")

    def _original(self, model: nn.Module, graph: Graph) -> nn.Module:
        return self._prepared_first().module.to(graph.device) if self.asks_preparation(model) else model

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        assert isinstance(model, ShardEnsemble)
        start, forgotten = time.perf_counter(), request.mask(graph)
        left_out = model.left_out.to(graph.device)
        touched = torch.unique(model.shard_of(graph)[forgotten]).tolist()
        extra = self._extra(model, graph, forgotten) & ~forgotten & ~left_out
        if bool(extra.any()) and not bool((torch.bincount(graph.session[~(forgotten | extra | left_out)]) > 1).any()):
            extra = torch.zeros_like(extra)  # otherwise no shard would have a sample left
        missing = forgotten | extra | left_out
        validation = validation_left(self.validation, graph, retained)
        before = time.perf_counter() - start
        log = self._train(model, graph, missing, touched, validation)
        del log["seconds_before_a_break"]
        alone = before + log["seconds_of_weights"]
        self._check_finite(model)  # the attributes set below are not restored on failure
        model.graph = retained.fingerprint()
        model.forget(graph, forgotten, missing)
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
        graph: Any,
        missing: Tensor,
        numbers: Any,
        validation: Any,
        files: dict[int, Path] | None = None,
        progress: bool | None = None,
    ) -> dict[str, Any]:
        """Train the shards ``numbers`` from scratch without the ``missing`` events, and set the weights of all shards.

        Returns:
            The log.
        """
        settings, objective = self.fit_settings(graph), self.objective or default_objective(graph)
        own = ensemble.shard_of(graph)
        parts = {k: graph.keep(~(missing | (own != k))) for k in numbers}
        log: dict[str, Any] = {"seconds_per_shard": [], "epochs": [], "best_epoch": [], "seconds_before_a_break": 0.0}
        for number, part in parts.items():
            start, shard = time.perf_counter(), ensemble.shards[number]
            seeded = replace(settings, seed=ensemble.seed + number)
            reset_parameters(shard, seeded.seed)
            epochs, best, earlier = 0, 0, 0.0
            try:
                learns = part.num_interactions > 0 and len(objective.samples(part)) > 0
            except ArgumentError as error:  # such as BCE for nothing but positive labels
                if error.argument != "graph":
                    raise
                cause, name = "request" if files is None else "num_shards", type(objective).__name__
                hint = f"the data of a shard must {error.expected}"
                raise ArgumentError(
                    cause, f"leave shards that {name} can be trained on", f"{error.got} in shard {number}", hint
                ) from None
            if learns:
                options: dict[str, Any] = {"objective": objective, "progress": progress, "fresh": True}
                options |= {"validation": ensemble.held_out(validation, part)}
                result = fit(shard, part, settings=seeded, checkpoint=(files or {}).get(number), **options)
                epochs, best, earlier = len(result.history), result.best_epoch, result.seconds
            elif graph.kind == "interactions":
                warn(f"shard {number} of {self.name} holds no interactions: it is not trained and has no weight")
            passed = time.perf_counter() - start
            log["seconds_per_shard"].append(passed)
            log["epochs"].append(epochs)
            log["best_epoch"].append(best)
            log["seconds_before_a_break"] += max(0.0, earlier - passed)
        start = time.perf_counter()
        log |= ensemble.aggregate(self, graph.keep(~missing), parts, validation)
        log |= {"settings": asdict(settings)}
        return log | {"seconds_of_weights": time.perf_counter() - start}

    def fit_settings(self, graph: Graph) -> FitSettings:
        """Return the training settings of every shard.

        Args:
            graph: The training graph.
        """
        return self.settings or default_settings(graph)

    def _most(self, graph: Graph) -> tuple[int, str]:
        """Return the largest possible number of shards, and what limits it."""
        if graph.kind == "sessions":
            return cast(SessionGraph, graph).num_sessions, "sessions"
        by = self._by()
        what = {"user": "users", "item": "items"}.get(by, "pairs")
        return units_of(cast(InteractionGraph, graph), by).unique().numel(), f"{what} in 'graph'"

    def _check_validation(self, graph: Graph) -> None:
        held = self.validation
        if graph.kind == "interactions" or self.aggregation == "mean":
            return
        if held is None or not len(CrossEntropy().samples(held)):
            wanted = f"hold sessions of two clicks or more for aggregation {self.aggregation!r}"
            raise ArgumentError("validation", wanted, "none" if held is None else "shorter ones")
