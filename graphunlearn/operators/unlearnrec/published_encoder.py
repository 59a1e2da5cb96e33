"""The influence encoder of UnlearnRec as described in its source, and its training losses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Adjacency, spmm
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.nn.training.auxiliary import auxiliary_loss, info_nce
from graphunlearn.nn.training.objective import Objective, Samples
from graphunlearn.operators.shared.checks import check, check_counts, check_positive
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.operators.shared.table_model import TableModel

__all__ = [
    "FrozenBackbone",
    "Losses",
    "PublishedEncoder",
    "PublishedSettings",
    "contrastive_loss",
    "preservation_loss",
    "unlearning_loss",
]


class PublishedEncoder(Kept):
    r"""Revise the table of initial embeddings for a set of forgotten interactions, as described for UnlearnRec.

    .. math::
        \tilde E_0 = E_0 + \mathrm{MLP}\Big(\sum_{l=0}^L \hat A^l H^0 - 0.1\,\hat A^L (w \odot E_f)\Big)

    :math:`\hat A` is the symmetric adjacency of the forgotten interactions *alone*, normalised by its own degrees.
    :func:`pretrain` learns the influence :math:`H^0` (one row per node, initially zero) and the weights :math:`w` (one
    number per node, initially ``2 * lr``). :func:`finetune` alone trains the MLP, which consists of two linear layers
    without bias, initially the identity, each followed by LeakyReLU(0.99). The term :math:`l = 0` does not depend on
    the request; a pre-trained encoder therefore changes the table even for an empty request.

    Args:
        num_nodes: Number of users plus items; users come first.
        dim: Width of an embedding.
        layers: Number of layers :math:`L`.
        lr: Learning rate of pre-training; it sets the initial value of :math:`w`.

    Raises:
        ValueError: A size or ``lr`` is not positive.

    Source: Chen, Xia and Huang, "Pre-training for Recommendation Unlearning", 2025, arXiv 2505.22649 (UnlearnRec), from
    summaries and public code; details may differ.

    Example:
        >>> encoder, rows = PublishedEncoder(4, 2, layers=1, lr=0.05), torch.ones(4, 2)
        >>> encoder(rows, rows, torch.tensor([[0], [1]]), num_users=2).detach()
        tensor([[0.9902, 0.9902],
                [1.0000, 1.0000],
                [1.0000, 1.0000],
                [0.9902, 0.9902]])
    """

    def __init__(self, num_nodes: int, dim: int, layers: int = 3, *, lr: float = 1e-3) -> None:
        super().__init__()
        check_counts(num_nodes=num_nodes, dim=dim, layers=layers)
        check_positive(lr=lr)
        self.layers = layers
        self.influence = nn.Parameter(torch.zeros(num_nodes, dim))
        self.withdraw = nn.Parameter(torch.full((num_nodes, 1), 2 * lr))
        # without the random initialisation, which would change the global random state
        linear = [nn.utils.skip_init(nn.Linear, dim, dim, bias=False) for _ in range(2)]
        for part in linear:
            nn.init.eye_(part.weight)
        self.mlp = nn.Sequential(linear[0], nn.LeakyReLU(0.99), linear[1], nn.LeakyReLU(0.99)).requires_grad_(False)

    def shape(self) -> dict[str, Any]:
        return {"num_nodes": len(self.influence), "dim": self.influence.size(1), "layers": self.layers}

    def forward(self, initial: Tensor, final: Tensor, pairs: Tensor, num_users: int) -> Tensor:
        r"""Return the revised table :math:`\tilde E_0` ``[num_nodes, dim]``.

        Args:
            initial: :math:`E_0` ``[num_nodes, dim]``.
            final: :math:`E_f`, the final embeddings of the trained model ``[num_nodes, dim]``.
            pairs: The forgotten interactions, as internal user and item ids ``[2, num_forgotten]``.
            num_users: Number of users.

        Returns:
            The revised table ``[num_nodes, dim]``.

        Raises:
            ValueError: ``pairs`` has another shape, or an id is out of range.
        """
        revised: Tensor = initial + self.mlp(self.estimate(final, self.request_matrix(pairs, num_users)))
        return revised

    def request_matrix(self, pairs: Tensor, num_users: int) -> Tensor:
        r"""Return :math:`\hat A` of ``pairs`` ``[2, num]`` in CSR ``[num_nodes, num_nodes]``.

        Raises:
            ValueError: ``pairs`` has another shape, or an id is out of range.
        """
        sizes = (num_users, len(self.influence) - num_users)
        if pairs.dim() != 2 or len(pairs) != 2:
            raise ArgumentError("pairs", "have the shape [2, num]", list(pairs.shape))
        for name, ids, size in zip(("user", "item"), pairs, sizes):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                got = f"{int(ids.min())} to {int(ids.max())}"
                raise ArgumentError("pairs", f"name {name}s from 0 to {size - 1}", got)
        return Adjacency.from_pairs(pairs, *sizes).normalized(self.influence.dtype)

    def estimate(self, final: Tensor, matrix: Tensor) -> Tensor:
        r"""Return :math:`\sum_l \hat A^l H^0 - 0.1\,\hat A^L (w \odot E_f)` ``[num_nodes, dim]``, before the MLP."""
        out: Tensor = self.influence - 0.1 * self.withdraw * final
        for _ in range(self.layers):  # Horner's scheme: one product per layer, including the withdraw term
            out = spmm(matrix, out) + self.influence
        return out

    def layers_of(self, matrix: Tensor, nodes: Tensor) -> list[Tensor]:
        r"""Return the embeddings of ``nodes`` in :math:`H^1, \dots, H^L`.

        :math:`H^0` is left out because it does not depend on the request and so is the same in all views.

        Args:
            matrix: :math:`\hat A`, from :meth:`request_matrix`.
            nodes: Ids of the nodes ``[num]``.

        Returns:
            One tensor per layer, each ``[num, dim]``.
        """
        layer: Tensor = self.influence
        out = []
        for _ in range(self.layers):
            layer = spmm(matrix, layer)
            out.append(layer[nodes])
        return out

    def check(self, table: Tensor) -> None:
        """Raise a ``ValueError`` if the shape, dtype or device of ``table`` differs from that of this encoder."""
        own = self.influence
        if own.shape != table.shape or own.dtype != table.dtype or own.device != table.device:
            mine, wanted = (f"{list(x.shape)} of {x.dtype} on {x.device}" for x in (own, table))
            raise ArgumentError("encoder", f"be made for the model's initial embeddings, {wanted}", mine)


MOST_ROWS = 512  # largest number of rows compared with each other in one step, for preservation and contrast


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    r"""Settings of the pre-training and fine-tuning of a :class:`PublishedEncoder`.

    The loss is :math:`\lambda_m L_M + \lambda_u L_U + \lambda_p L_P + \lambda_c L_C`; a term with weight 0 is not
    computed.

    Args:
        lambda_model: Weight of the training loss of the backbone on the retained interactions.
        lambda_unlearn: Weight of :func:`unlearning_loss` on the forgotten interactions.
        lambda_preserve: Weight of :func:`preservation_loss`.
        lambda_contrast: Weight of :func:`contrastive_loss`, in pre-training only.
        temperature: Temperature of the preservation and contrastive losses.
        shares: Smallest and largest share of the interactions in a simulated request.
        refresh: Number of epochs for which a simulated request is used.
        drop: Share of the interactions of a request that its view leaves out, for the contrastive loss.
        epochs: Largest number of epochs over the retained interactions.
        patience: Stop after this many epochs without a lower loss on the held-out simulated requests.
        batch_size: Interactions per step.
        lr: Learning rate of Adam.
        seed: Seed of requests, sample order and views.

    Raises:
        ValueError: A setting is out of range.
    """

    lambda_model: float = 1.0
    lambda_unlearn: float = 0.1
    lambda_preserve: float = 0.01
    lambda_contrast: float = 1e-3
    temperature: float = 1.0
    shares: tuple[float, float] = (0.03, 0.3)
    refresh: int = 3
    drop: float = 0.05
    epochs: int = 100
    patience: int = 10
    batch_size: int = 2048
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name.startswith("lambda_")}
        check("be finite and not negative", lambda value: 0 <= value < math.inf, **weights)
        if not any(weights.values()):
            raise ValueError(f"one of {', '.join(weights)} must be above 0 (got 0 for all)")
        check_positive(temperature=self.temperature, lr=self.lr)
        check_counts(refresh=self.refresh, epochs=self.epochs, patience=self.patience, batch_size=self.batch_size)
        two = "be two ascending shares between 0 and 1"
        check(two, lambda value: len(value) == 2 and 0 < value[0] <= value[1] < 1, shares=self.shares)
        check("be at least 0 and less than 1", lambda value: 0 <= value < 1, drop=self.drop)


class Request(NamedTuple):
    """A simulated request."""

    share: float  # of the interactions, forgotten
    retained: InteractionGraph
    pairs: Tensor  # forgotten, [2, num_forgotten]


def simulate(graph: InteractionGraph, settings: PublishedSettings, number: int, *, held_out: bool = False) -> Request:
    """Return simulated request number ``number``, a random share of the interactions.

    For training, the share is drawn uniformly from ``settings.shares``. The three held-out requests, used for early
    stopping, have the smallest share, the geometric mean of both shares and the largest share; they are drawn with
    separate seeds.

    Args:
        graph: The training graph.
        settings: Settings with the shares and the seed.
        number: Number of the request; 0 to 2 if ``held_out``.
        held_out: Whether to return a held-out request.

    Returns:
        The :class:`Request`.

    Raises:
        ValueError: The share amounts to no interaction of the graph, or to all of them.
    """
    generator, (low, high) = seeded("held out" if held_out else "request", settings.seed, number), settings.shares
    drawn = low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
    share = (low, math.sqrt(low * high), high)[number] if held_out else drawn
    count = graph.num_interactions
    taken = round(share * count)
    if not 0 < taken < count:
        raise ArgumentError("shares", f"take at least one of {count} interactions and leave one", f"{share:.3g}")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator)[:taken]] = True
    mask = mask.to(graph.pairs.device)
    return Request(share, graph.select(~mask), graph.pairs[:, mask])


def seeded(*key: str | int) -> torch.Generator:
    """Return a generator seeded by ``key``, so that its draws do not depend on any earlier draws."""
    return torch.Generator().manual_seed(int(hashlib.sha256(repr(key).encode()).hexdigest()[:15], 16))


def check_finite(record: dict[str, float]) -> None:
    """Raise a ``FloatingPointError`` if a loss in ``record`` is not finite."""
    if not math.isfinite(sum(record.values())):
        raise FloatingPointError(f"the loss became NaN or infinite in epoch {record['epoch']:.0f}; lower 'lr'")


def unlearning_loss(scores: Tensor) -> Tensor:
    r"""Return the unlearning loss :math:`-\frac1n\sum_s \log\sigma(-s)` of the scores of forgotten pairs.

    The loss has no target: lower scores always give a lower loss.

    Args:
        scores: Scores of the forgotten pairs ``[num_forgotten]``.

    Returns:
        The loss, a scalar; 0 without pairs.

    Example:
        >>> unlearning_loss(torch.tensor([0.0, 0.0]))
        tensor(0.6931)
    """
    return F.softplus(scores).sum() / max(scores.numel(), 1)


def preservation_loss(before: Encoded, after: Encoded, users: Tensor, items: Tensor, temperature: float) -> Tensor:
    r"""Return the mean squared change of the log softmax of the scores of users over the items of a batch.

    .. math::
        \frac1{nm}\sum_{u, i} \big(\log\mathrm{softmax}_i(s_{ui} / \tau) - \log\mathrm{softmax}_i(s'_{ui} / \tau)\big)^2

    Args:
        before: The encoding before forgetting, with scores :math:`s`.
        after: The present encoding, with scores :math:`s'`.
        users: Users of the batch ``[n]``; repeats are allowed.
        items: Items of the batch ``[m]``; repeats are allowed. The softmax runs over these items, not the catalogue.
        temperature: The temperature :math:`\tau`.

    Returns:
        The loss, a scalar.

    Example:
        >>> rows = Encoded(torch.eye(2), torch.eye(2))
        >>> preservation_loss(rows, rows, torch.tensor([0, 1]), torch.tensor([0, 1]), temperature=1.0)
        tensor(0.)
    """
    old, new = (
        F.log_softmax(rows.queries[users] @ rows.items[items].t() / temperature, dim=1) for rows in (before, after)
    )
    return F.mse_loss(new, old)


def contrastive_loss(first: Sequence[Tensor], second: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the mean over layers of the mean :func:`~graphunlearn.nn.info_nce` between two views of the same nodes.

    Args:
        first: The embeddings of the first view, one tensor ``[num, dim]`` per layer.
        second: The embeddings of the second view, with the same shapes.
        temperature: Divisor of the cosines.

    Returns:
        The loss, a scalar.

    Example:
        >>> contrastive_loss([torch.eye(2)], [torch.eye(2)], temperature=1.0)
        tensor(0.3133)
    """
    losses = [info_nce(a, b, temperature).mean() for a, b in zip(first, second, strict=True)]
    return torch.stack(losses).mean()


class FrozenBackbone(TableModel):
    """A trained recommender that can be evaluated with another layer-0 table; the model itself is never changed.

    Args:
        model: The recommender.
        graph: The training graph of the recommender.

    Attributes:
        before: The encoding of ``graph`` by the model.

    Raises:
        ValueError: The initial embeddings of the model are not accessible.
    """

    def __init__(self, model: nn.Module, graph: InteractionGraph) -> None:
        super().__init__(model, graph)
        with torch.no_grad():
            self.before: Encoded = encode(model, graph)

    @property
    def final(self) -> Tensor:
        """The final embeddings ``[num_nodes, dim]``; the mean over layers if the model concatenates layers.

        Raises:
            ValueError: The width of the final embeddings is not a multiple of the width of the table.
        """
        rows, dim = torch.cat([self.before.queries, self.before.items]), self.table.size(1)
        if rows.size(1) % dim:
            wanted = f"have final embeddings of width {dim}, like the initial ones, or of a multiple of it"
            raise ArgumentError("model", wanted, f"{rows.size(1)} from {type(self.model).__name__}")
        return rows.view(len(rows), -1, dim).mean(1)


class Losses:
    """The weighted loss terms of a revised table; terms with weight 0 are left out.

    Args:
        backbone: The trained recommender.
        objective: The training loss of the recommender.
        settings: Settings with the weights of the terms.
    """

    def __init__(self, backbone: FrozenBackbone, objective: Objective, settings: PublishedSettings) -> None:
        self.backbone, self.objective, self.settings = backbone, objective, settings

    def terms(
        self, table: Tensor, retained: InteractionGraph, batch: Samples, pairs: Tensor, epoch: int, step: int
    ) -> dict[str, Tensor]:
        """Return the weighted loss terms of one batch, with their names; each term is a scalar.

        Args:
            table: The revised table ``[num_nodes, dim]``.
            retained: The retained graph.
            batch: A batch of retained samples.
            pairs: Forgotten pairs ``[2, num]``.
            epoch: Number of the epoch.
            step: Number of the step within the epoch.
        """
        return self.backbone.run(table, lambda model: self._terms(model, retained, batch, pairs, epoch, step))

    def _terms(
        self, model: nn.Module, retained: InteractionGraph, batch: Samples, pairs: Tensor, epoch: int, step: int
    ) -> dict[str, Tensor]:
        settings, encoded, terms = self.settings, encode(model, retained), {}
        if settings.lambda_model:
            loss = self.objective(encoded, batch).mean()
            extra = auxiliary_loss(model, retained, batch, seed=settings.seed, epoch=epoch, step=step)
            terms["model"] = settings.lambda_model * (loss if extra is None else loss + extra)
        if settings.lambda_unlearn:
            terms["unlearn"] = settings.lambda_unlearn * unlearning_loss(score(encoded, pairs))
        if settings.lambda_preserve:
            rows = batch.users[:MOST_ROWS], batch.items[:MOST_ROWS]
            loss = preservation_loss(self.backbone.before, encoded, *rows, settings.temperature)
            terms["preserve"] = settings.lambda_preserve * loss
        return terms

    def batches(self, retained: InteractionGraph, pairs: Tensor, epoch: int) -> Iterator[tuple[int, Samples, Tensor]]:
        """Yield the step number, the batch of retained samples and the forgotten pairs ``[2, num]`` for every step.

        The forgotten pairs are repeated cyclically, at most ``batch_size`` of them per step.
        """
        samples = self.objective.samples(retained, epoch=epoch)
        generator, size = seeded("order", self.settings.seed, epoch), self.settings.batch_size
        order, turn = (torch.randperm(n, generator=generator).to(pairs.device) for n in (len(samples), pairs.size(1)))
        for step, index in enumerate(order.split(size)):
            window = turn if len(turn) <= size else turn.roll(-step * size)[:size]
            yield step, samples.select(index), pairs[:, window]
