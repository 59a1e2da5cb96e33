"""UnlearnRec as described: pre-train an influence encoder on simulated requests, apply it to requests and fine-tune."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.tables import initial_table, write_table
from graphunlearn.nn.training.fitting import _quiet
from graphunlearn.nn.training.objective import Objective, Samples, default_objective
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.evaluating import evaluating
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.operators.unlearnrec.published_encoder import (
    MOST_ROWS,
    FrozenBackbone,
    Losses,
    PublishedEncoder,
    PublishedSettings,
    Request,
    check_finite,
    contrastive_loss,
    seeded,
    simulate,
)

__all__ = ["PublishedEncoder", "PublishedSettings", "PublishedUnlearnRec", "finetune", "pretrain"]

_JUDGED = 32768  # number of retained interactions on which a held-out request is evaluated
_COLUMNS = ("epoch", "share", "loss", "model", "unlearn", "preserve", "contrast", "held_out")
Report = Callable[[dict[str, Any]], None]


@dataclass(kw_only=True)
class PublishedUnlearnRec(Unlearner):
    """UnlearnRec close to its description, with one influence embedding per node and a few epochs of fine-tuning.

    :meth:`prepare` trains a :class:`~graphunlearn.operators.unlearnrec.published_encoder.PublishedEncoder` on simulated
    requests (:func:`pretrain`). A request is served by revising the layer-0 embeddings with the encoder and fine-tuning
    them (:func:`finetune`).

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        epochs: Epochs of fine-tuning over the retained interactions; 0 applies the encoder alone.
        published: Settings of pre-training and fine-tuning, including the weight of every loss term; its ``seed`` is
            replaced by the one given here.
        adapt: Whether to accept models and graphs other than those the method was prepared for.
        seed: Seed of all random draws.

    Raises:
        ValueError: ``epochs`` is negative.

    Source: Chen, Xia and Huang, "Pre-training for Recommendation Unlearning", 2025, arXiv 2505.22649 (UnlearnRec), from
    its abstract, summaries and public code.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2)
        >>> method = gu.UnlearnRec.as_published(epochs=1, published=PublishedSettings(epochs=2))
        >>> method.prepare(model, graph)
        >>> len(method.unlearn(model, graph, gu.ForgetRequest("user", ["u3"])).log["tuning"])
        1
    """

    name: ClassVar[str] = "unlearnrec-published"
    needs_preparation: ClassVar[bool] = True
    keeps: ClassVar[type[Kept] | None] = PublishedEncoder
    kept_as: ClassVar[str | None] = "published"
    anew: ClassVar[tuple[str, ...]] = ("adapt", "epochs", "seed")
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Objective | None = None
    epochs: int = 5
    published: PublishedSettings = field(default_factory=PublishedSettings)
    adapt: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check("not be negative", lambda value: value >= 0, epochs=self.epochs)

    def _validate(self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest) -> None:
        self._check_prepared(model, graph)

    def _prepare(
        self, model: nn.Module, graph: InteractionGraph, checkpoint: Path | None, progress: bool | None
    ) -> None:
        table, objective = initial_table(model, graph), self.objective or default_objective(graph)
        with torch.random.fork_rng(devices=[]):
            encoder = PublishedEncoder(*table.shape, lr=self.published.lr).to(table)
        settings = replace(self.published, seed=self.seed)
        path = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.safetensors")
        state = load_file(path) if path is not None and path.exists() else None
        quiet = _quiet(progress)
        with tqdm(total=settings.epochs, desc="pre-training", unit="epoch", disable=quiet, leave=False) as bar:

            def on_epoch(record: dict[str, Any]) -> None:
                bar.update(int(record["epoch"]) - bar.n)
                if path is not None:
                    write_atomic(path, save({name: t.contiguous() for name, t in record["state"].items()}))

            history = pretrain(encoder, model, graph, objective, settings, on_epoch=on_epoch, state=state)
        if path is not None:
            path.unlink(missing_ok=True)
        self._keep(encoder.requires_grad_(False), model, graph, {"pretraining": history})

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        encoder, pairs = self._prepared_first().module, graph.pairs[:, request.mask(graph)]
        assert isinstance(encoder, PublishedEncoder)
        objective, settings = self.objective or default_objective(graph), replace(self.published, seed=self.seed)
        history = finetune(encoder, model, graph, retained, pairs, objective, settings, self.epochs)
        return {"encoder": self.kept_as, "tuning": history}


def _contrast(
    encoder: PublishedEncoder, settings: PublishedSettings, matrix: Tensor, pairs: Tensor, num_users: int, *key: int
) -> dict[str, Tensor]:
    """Return the weighted contrastive loss between a request and a view of it without some of its interactions."""
    if not settings.lambda_contrast:
        return {}
    generator = seeded("view", settings.seed, *key)
    kept = torch.rand(pairs.size(1), generator=generator) >= settings.drop
    nodes = torch.cat([pairs[0].unique(), num_users + pairs[1].unique()])
    nodes = nodes[torch.randperm(len(nodes), generator=generator)[:MOST_ROWS].to(nodes.device)]
    views = matrix, encoder.request_matrix(pairs[:, kept.to(pairs.device)], num_users)
    first, second = (encoder.layers_of(view, nodes) for view in views)
    return {"contrast": settings.lambda_contrast * contrastive_loss(first, second, settings.temperature)}


class _Progress:
    """The state of pre-training, which converts to and from a flat dictionary of tensors."""

    def __init__(self, encoder: PublishedEncoder, lr: float) -> None:
        self.learned = {"influence": encoder.influence, "withdraw": encoder.withdraw}
        self.optimizer = torch.optim.Adam(self.learned.values(), lr=lr, fused=True)
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []

    @property
    def best_epoch(self) -> int:
        return min(range(len(self.history)), key=lambda epoch: self.history[epoch]["held_out"])

    def record(self, record: dict[str, float]) -> None:
        check_finite(record)
        self.history.append(record)
        if self.best_epoch == len(self.history) - 1:
            self.best = {name: value.detach().clone() for name, value in self.learned.items()}

    def tensors(self) -> dict[str, Tensor]:
        out = {f"encoder.{name}": value.detach() for name, value in self.learned.items()}
        out |= {f"best.{name}": value for name, value in self.best.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            out |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        rows = [[record.get(name, math.nan) for name in _COLUMNS] for record in self.history]
        return out | {"history": torch.tensor(rows, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name, value in self.learned.items():
            found = state.get(f"encoder.{name}")
            if found is None or found.shape != value.shape:
                shape = "none" if found is None else list(found.shape)
                raise ArgumentError("state", f"hold 'encoder.{name}' of the shape {list(value.shape)}", shape)
            value.data.copy_(found)
            self.best[name] = state[f"best.{name}"].to(value.device, copy=True)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = tensor.clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        for row in state["history"].tolist():
            self.history.append({name: v for name, v in zip(_COLUMNS, row) if not math.isnan(v)})


@torch.inference_mode(False)
@torch.enable_grad()
def pretrain(
    encoder: PublishedEncoder,
    model: nn.Module,
    graph: InteractionGraph,
    objective: Objective,
    settings: PublishedSettings,
    *,
    on_epoch: Report = lambda record: None,
    state: dict[str, Tensor] | None = None,
) -> list[dict[str, float]]:
    r"""Train :math:`H^0` and :math:`w` of ``encoder`` on simulated requests, and keep the values of the best epoch.

    The best epoch has the lowest total loss, averaged over held-out simulated requests.

    Args:
        encoder: The encoder; it is trained in place and must be on the device of the model.
        model: The trained recommender; it is not changed.
        graph: The training graph of the model.
        objective: The training loss of the model.
        settings: Settings of the pre-training.
        on_epoch: Called after every epoch with the record of the epoch. The entry ``"state"`` holds the tensors to
            resume from; they change in the next epoch, so the callback must write or clone them before it returns.
        state: Tensors from an earlier ``"state"``; pre-training resumes from them and ends with the same result as
            without the interruption.

    Returns:
        One record per epoch with its number, the forgotten share, the mean loss per step (in total and for each
        weighted term) and the loss on held-out requests. Record 0 holds only the held-out loss before training.

    Raises:
        ValueError: The initial embeddings of the model are not accessible, or the encoder, model, settings and state
            do not fit each other.
        FloatingPointError: The loss became NaN or infinite.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=20, num_items=15, interactions_per_user=5)
        >>> model, encoder = gu.nn.MatrixFactorization(graph.num_nodes, 4), PublishedEncoder(graph.num_nodes, 4)
        >>> history = pretrain(encoder, model, graph, gu.BPR(), PublishedSettings(epochs=2))
        >>> len(history)
        3
    """
    with evaluating(model):
        backbone = FrozenBackbone(model, graph)
        encoder.check(backbone.table)
        losses, progress = Losses(backbone, objective, settings), _Progress(encoder, settings.lr)
        users, final = graph.num_users, backbone.final

        def loss_terms(request: Request, matrix: Tensor, batch: Samples, pairs: Tensor, *key: int) -> dict[str, Tensor]:
            table = backbone.table + encoder.mlp(encoder.estimate(final, matrix))
            terms = losses.terms(table, request.retained, batch, pairs, *key)
            return terms | _contrast(encoder, settings, matrix, request.pairs, users, *key)

        judges = []
        for number in range(3):
            request = simulate(graph, settings, number, held_out=True)
            samples = objective.samples(request.retained)
            chosen = torch.randperm(len(samples), generator=seeded("judged", settings.seed, number))[:_JUDGED]
            matrix = encoder.request_matrix(request.pairs, users)
            judges.append((request, matrix, samples.select(chosen.to(final.device)), request.pairs, 0, number))

        @torch.no_grad()
        def held_out() -> float:
            return sum(float(sum(loss_terms(*judge).values())) for judge in judges) / len(judges)

        if state is None:
            progress.record({"epoch": 0.0, "held_out": held_out()})
        else:
            progress.restore(state)
        serving = -1
        for epoch in range(len(progress.history), settings.epochs + 1):
            if epoch - 1 - progress.best_epoch >= settings.patience:
                break
            number = (epoch - 1) // settings.refresh
            if number != serving:
                serving, request = number, simulate(graph, settings, number)
                matrix = encoder.request_matrix(request.pairs, users)
            sums: Counter[str] = Counter()
            for step, batch, pairs in losses.batches(request.retained, request.pairs, epoch):
                _step(loss_terms(request, matrix, batch, pairs, epoch, step), progress.optimizer, sums)
            progress.record({"epoch": float(epoch), "share": request.share, **_means(sums), "held_out": held_out()})
            on_epoch({**progress.history[-1], "state": progress.tensors()})
        progress.optimizer.zero_grad()
        encoder.load_state_dict(progress.best, strict=False)
    return progress.history


@torch.inference_mode(False)
@torch.enable_grad()
def finetune(
    encoder: PublishedEncoder,
    model: nn.Module,
    graph: InteractionGraph,
    retained: InteractionGraph,
    pairs: Tensor,
    objective: Objective,
    settings: PublishedSettings,
    epochs: int,
) -> list[dict[str, float]]:
    r"""Train :math:`E_0` and a copy of the MLP for ``epochs`` epochs, then write the revised table into ``model``.

    The encoder, which serves the next request as well, and all other parameters of the model remain unchanged.

    Args:
        encoder: A pre-trained encoder; it is not changed.
        model: The model; its layer-0 embeddings are changed in place.
        graph: The graph before forgetting.
        retained: The retained graph.
        pairs: The forgotten interactions ``[2, num_forgotten]``.
        objective: The training loss of the model.
        settings: Settings of the fine-tuning.
        epochs: Epochs over the retained interactions; 0 applies the encoder alone.

    Returns:
        One record per epoch with its number and the mean loss per step, in total and for each weighted term.

    Raises:
        ValueError: The initial embeddings of the model are not accessible, the encoder does not fit the model,
            ``epochs`` is negative, or all loss terms used in fine-tuning have weight 0.
        FloatingPointError: The loss became NaN or infinite; the model is unchanged.
    """
    check("be an integer of at least 0", lambda value: isinstance(value, int) and value >= 0, epochs=epochs)
    if epochs and not (settings.lambda_model or settings.lambda_unlearn or settings.lambda_preserve):
        raise ArgumentError("settings", "give lambda_model, lambda_unlearn or lambda_preserve to fine-tune", "0")
    history = []
    with evaluating(model):
        backbone = FrozenBackbone(model, graph)
        encoder.check(backbone.table)
        losses, mlp = Losses(backbone, objective, settings), copy.deepcopy(encoder.mlp).requires_grad_()
        table = backbone.table.clone().requires_grad_()
        with torch.no_grad():
            estimate = encoder.estimate(backbone.final, encoder.request_matrix(pairs, graph.num_users))
        optimizer = torch.optim.Adam([table, *mlp.parameters()], lr=settings.lr, fused=True)
        for epoch in range(1, epochs + 1):
            sums: Counter[str] = Counter()
            for step, batch, some in losses.batches(retained, pairs, epoch):
                _step(losses.terms(table + mlp(estimate), retained, batch, some, epoch, step), optimizer, sums)
            history.append({"epoch": float(epoch), **_means(sums)})
            check_finite(history[-1])
    with torch.no_grad():
        write_table(model, graph, table + mlp(estimate))
    return history


def _step(terms: dict[str, Tensor], optimizer: torch.optim.Optimizer, sums: Counter[str]) -> None:
    optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    sums.update({"steps": 1, **{name: value.detach() for name, value in terms.items()}})  # converted once per epoch


def _means(sums: Counter[str]) -> dict[str, float]:
    means = {name: float(value) / sums["steps"] for name, value in sums.items() if name != "steps"}
    return {"loss": sum(means.values()), **means}
