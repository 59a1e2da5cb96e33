"""An ensemble of the models of several shards of interactions, and the module that combines their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.renumbering import keep_nodes, new_numbers
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.renumbering import keep_rows
from graphunlearn.nn.training.fitting import fit, reset_parameters
from graphunlearn.operators.shards.ensemble import ShardEnsemble

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["By", "Combiner", "InteractionEnsemble", "members_of", "units_of"]

By = Literal["user", "item", "interaction"]
EPOCHS = 50
"""Largest number of epochs in which a combiner is trained, as in the source of RecEraser."""
SLOWER = 0.4
"""Learning rate of a combiner, relative to that of the shards; it starts from aligned shards."""
UNKNOWN = -1e9  # the logit of a shard that does not know a node; finite, so that a node known nowhere has a gradient


def units_of(graph: InteractionGraph, by: By) -> Tensor:
    """Return the number of what every interaction is partitioned by: its user, its item, or its pair.

    Args:
        graph: The graph.
        by: ``"user"``, ``"item"`` or ``"interaction"``.

    Returns:
        The numbers ``[num_interactions]``; that of a pair is ``user * num_items + item``.
    """
    user, item = graph.pairs
    return {"user": user, "item": item}.get(by, user * graph.num_items + item)


def members_of(graph: InteractionGraph, by: By, shards: Tensor) -> Tensor:
    """Return the members of an :class:`InteractionEnsemble` from the shards of what has interactions.

    Args:
        graph: The training graph.
        by: ``"user"``, ``"item"`` or ``"interaction"``.
        shards: Shard of every user, item or pair with interactions, in ascending order ``[num]``.

    Returns:
        Shard of every user or item, -1 without interactions, or of every pair ``[num]``.
    """
    if by == "interaction":
        return shards
    size = graph.num_users if by == "user" else graph.num_items
    return shards.new_full((size,), -1).index_copy(0, units_of(graph, by).unique(), shards)


class Combiner(nn.Module):
    r"""Combine the embeddings that the models of several shards give to the same node.

    .. math::
        e_v = \sum_k \alpha_{kv} (e_{kv} W_k + b_k), \qquad
        \alpha_{kv} = \operatorname{softmax}_k\, h^\top \operatorname{relu}\big(V (e_{kv} W_k + b_k) + c\big)

    Users and items have parameters of their own. The softmax is over the shards that hold an interaction of the node;
    a node without interactions has the zero embedding. Without ``attention``, the logits are one number per shard.
    Training starts at :math:`b_k = 0` and at rotations :math:`W_k` that align the shards; see :meth:`align`.

    Args:
        num_shards: Number of shards.
        width: Width of the embeddings.
        attention: Whether the weights of the shards depend on the node.

    Source: Chen et al., "Recommendation Unlearning", WWW 2022. The softmax over the shards that know a node, and the
    aligned start, are choices of this package.

    Example:
        >>> import torch
        >>> combiner = Combiner(2, 3, attention=False)
        >>> rows, known = torch.ones(2, 1, 3), torch.tensor([[True], [False]])
        >>> combiner(0, rows, known).detach()
        tensor([[1., 1., 1.]])
    """

    def __init__(self, num_shards: int, width: int, attention: bool) -> None:
        super().__init__()
        self.attention, hidden = attention, max(1, width // 2)
        self.matrix = nn.Parameter(torch.empty(2, num_shards, width, width))
        self.bias = nn.Parameter(torch.empty(2, num_shards, 1, width))
        if attention:
            self.inner = nn.Parameter(torch.empty(2, width, hidden))
            self.shift = nn.Parameter(torch.empty(2, 1, hidden))
            self.outer = nn.Parameter(torch.empty(2, hidden, 1))
        else:
            self.logit = nn.Parameter(torch.empty(2, num_shards, 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reinitialise the parameters."""
        self.matrix.copy_(torch.eye(self.matrix.size(-1)).expand_as(self.matrix))
        self.bias.zero_()
        if self.attention:
            for side in range(2):
                nn.init.xavier_uniform_(self.inner[side])
                nn.init.xavier_uniform_(self.outer[side])
            self.shift.zero_()
        else:
            self.logit.zero_()

    @torch.no_grad()
    def align(self, side: int, rows: Tensor, known: Tensor, rounds: int = 3) -> None:
        r"""Set every :math:`W_k` to the rotation that brings the embeddings of its shard closest to the mean.

        .. math:: \min_{W_k^\top W_k = I} \|E_k W_k - M\|_F

        Here :math:`M` is the mean of the rotated embeddings, at first those of the first shard that knows a
        node. A rotation changes no
        score within a shard, and makes embeddings of different shards comparable, which training leaves arbitrary.

        Args:
            side: The side that all shards share, whose embeddings are compared: 0 for users and 1 for items.
            rows: The embeddings of that side in every shard ``[num_shards, num, width]``.
            known: Whether the shard holds an interaction of the node ``[num_shards, num]``.
            rounds: Number of rounds.

        Source: Gower, "Generalized Procrustes Analysis", Psychometrika 1975.
        """
        held = rows * known.unsqueeze(2)
        centre = held[int(known.any(1).int().argmax())]
        for _ in range(rounds):
            u, _, v = torch.linalg.svd(held.transpose(1, 2) @ centre)
            rotation = u @ v
            centre = (held @ rotation).sum(0) / known.sum(0).clamp(min=1).unsqueeze(1)
        self.matrix.copy_(rotation.expand_as(self.matrix))

    def forward(self, side: int, rows: Tensor, known: Tensor) -> Tensor:
        """Return the combined embeddings of all users or of all items.

        Args:
            side: 0 for users and 1 for items.
            rows: The embeddings of every shard ``[num_shards, num, width]``.
            known: Whether the shard holds an interaction of the node ``[num_shards, num]``.

        Returns:
            The embeddings ``[num, width]``.
        """
        rows = torch.baddbmm(self.bias[side], rows, self.matrix[side])
        if self.attention:
            hidden = torch.relu(rows @ self.inner[side] + self.shift[side])
            logits = (hidden @ self.outer[side]).squeeze(2)
        else:
            logits = self.logit[side].expand(known.shape)
        weights = logits.masked_fill(~known, UNKNOWN).softmax(0) * known
        combined: Tensor = (weights.unsqueeze(2) * rows).sum(0)
        return combined


class _Combined(nn.Module):
    """A recommender with the embeddings of all shards fixed, of which only the combiner is trained."""

    def __init__(self, combiner: Combiner, rows: list[Tensor], known: list[Tensor]) -> None:
        super().__init__()
        self.combiner, self.rows, self.known = combiner, rows, known


@encode.register
def _(model: _Combined, graph: InteractionGraph) -> Encoded:
    users, items = (model.combiner(side, model.rows[side], model.known[side]) for side in range(2))
    return Encoded(users, items)


class InteractionEnsemble(ShardEnsemble):
    r"""A recommender that combines the embeddings of the models of several shards of interactions.

    Every model encodes the interactions of its own shard. Without a combiner, a user's scores are the mean of the
    scores of those shards that hold an interaction of the user:

    .. math:: s_{ui} = \frac{1}{|K_u|} \sum_{k \in K_u} \langle e_{ku}, e_{ki} \rangle

    With a :class:`Combiner`, a score is the dot product of combined embeddings. A user without interactions has the
    zero embedding. Interactions whose user, item or pair is in no shard are not used.

    Args:
        shards: The models, all of the same class and sizes.
        members: Shard of every user, item or pair, -1 for none ``[num]``.
        graph: Fingerprint of the training graph.
        seed: Seed of the first model; every further model has the seed of its predecessor plus one.
        by: What the interactions are partitioned by: ``"user"``, ``"item"`` or ``"interaction"``.
        pairs: The pairs in ascending order, as :func:`units_of` numbers them, for ``by="interaction"``.
        combiner: The combiner; ``None`` for the mean.
    """

    kind: ClassVar[Kind] = "interactions"

    def __init__(
        self,
        shards: list[nn.Module],
        members: Tensor,
        graph: str,
        seed: int,
        by: By = "user",
        pairs: Tensor | None = None,
        combiner: Combiner | None = None,
    ) -> None:
        super().__init__(shards, members, graph, seed)
        self.by, self.pairs, self.combiner = by, pairs, combiner

    @classmethod
    def of(
        cls, shards: list[nn.Module], members: Tensor, data: InteractionGraph, by: By, how: str, **shape: Any
    ) -> Self:
        """Return an untrained ensemble.

        Args:
            shards: The models.
            members: The shard of every user, item, or distinct pair in ascending order ``[num]``.
            data: The training graph.
            by: What the interactions are partitioned by.
            how: ``"mean"``, ``"learned"`` or ``"attention"``.
            **shape: Fingerprint of the graph and seed.
        """
        pairs, combiner = None, None
        if by == "interaction":
            pairs = units_of(data, by).unique()
        if how != "mean":
            with torch.no_grad():
                like = encode(shards[0], data).items
            combiner = Combiner(len(shards), like.size(1), how == "attention").to(like)
        return cls(shards, members, shape["graph"], shape["seed"], by, pairs, combiner)

    def shape(self) -> dict[str, Any]:
        return super().shape() | {
            "by": self.by,
            "attention": None if self.combiner is None else self.combiner.attention,
        }

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | ({} if self.pairs is None else {"pairs": self.pairs})

    @classmethod
    def empty(cls, shards: list[nn.Module], members: Tensor, shape: dict[str, Any], state: dict[str, Tensor]) -> Self:
        combiner, pairs = None, state.pop("pairs").clone() if shape["by"] == "interaction" else None
        if shape["attention"] is not None:
            like = state["combiner.matrix"]
            combiner = Combiner(len(shards), like.size(-1), shape["attention"]).to(like)
        return cls(shards, members, shape["graph"], shape["seed"], shape["by"], pairs, combiner)

    def shard_of(self, graph: InteractionGraph) -> Tensor:
        units, members = units_of(graph, self.by), self.members.to(graph.device)
        if self.pairs is None:
            return members[units]
        pairs = self.pairs.to(graph.device)
        place = torch.searchsorted(pairs, units).clamp(max=max(0, len(pairs) - 1))
        return torch.where(pairs[place] == units, members[place], -1)

    def forget(self, graph: InteractionGraph, forgotten: Tensor, missing: Tensor) -> None:
        gone = ~torch.isin(units_of(graph, self.by), units_of(graph.keep(~forgotten), self.by))
        gone = units_of(graph, self.by)[gone].unique()
        if self.pairs is None:
            self.members = self.members.to(graph.device).index_fill(0, gone, -1)
        else:
            stays = ~torch.isin(self.pairs.to(graph.device), gone)
            self.pairs, self.members = self.pairs.to(graph.device)[stays], self.members.to(graph.device)[stays]
        self.left_out = missing[~forgotten]

    def held_out(self, validation: InteractionGraph | None, part: InteractionGraph) -> InteractionGraph | None:
        """Return the held-out interactions of what the shard knows; ``None`` if they measure nothing."""
        if validation is None:
            return None
        known = part.adjacency.degree > 0
        user, item = validation.pairs
        held = validation.select(known[user] & known[item + part.num_users])
        label = held.label
        if label is not None and 0 < float(label.mean()) < 1:
            return held
        positive = held if label is None else held.select(label == 1)
        fresh = ~torch.isin(units_of(positive, "interaction"), units_of(part, "interaction"))
        return held if bool(fresh.any()) else None

    def parts(self, graph: InteractionGraph) -> tuple[list[Tensor], list[Tensor]]:
        """Return the embeddings of every shard, and whether it holds an interaction of the node.

        Args:
            graph: The graph, of which every shard encodes its own interactions.

        Returns:
            The embeddings of users and of items ``[num_shards, num, width]``, and the masks ``[num_shards, num]``.
        """
        own = self.shard_of(graph)
        graphs = [graph.keep(own == k) for k in range(len(self.shards))]
        encoded = [encode(shard, part) for shard, part in zip(self.shards, graphs, strict=True)]
        known = torch.stack([part.adjacency.degree > 0 for part in graphs])
        rows = [torch.stack([part.queries for part in encoded]), torch.stack([part.items for part in encoded])]
        return rows, [known[:, : graph.num_users], known[:, graph.num_users :]]

    def aggregate(
        self, method: Any, graph: InteractionGraph, parts: dict[int, Any], validation: InteractionGraph | None
    ) -> dict[str, Any]:
        own = self.shard_of(graph)
        counts = torch.bincount(own[own >= 0], minlength=len(self.shards)).tolist()
        log: dict[str, Any] = {"interactions_per_shard": counts}
        if self.combiner is None:
            return log
        settings = method.fit_settings(graph)
        settings = replace(settings, epochs=min(settings.epochs, EPOCHS), lr=SLOWER * settings.lr)
        with torch.no_grad():
            rows, known = self.parts(graph)
        reset_parameters(self.combiner, settings.seed)
        side = 0 if self.by == "item" else 1  # the side whose nodes are in several shards
        self.combiner.align(side, rows[side], known[side])
        combined = _Combined(self.combiner, rows, known)
        known_held = self.held_out(validation, graph)  # without what an earlier request emptied
        options = {"validation": known_held, "objective": method.objective, "progress": False}
        result = fit(combined, graph, settings=settings, fresh=True, **options)
        return log | {"epochs_of_weights": len(result.history)}


@encode.register
def _(model: InteractionEnsemble, graph: InteractionGraph) -> Encoded:
    rows, known = model.parts(graph)
    if model.combiner is not None:
        return Encoded(*(model.combiner(side, rows[side], known[side]) for side in range(2)))
    weight = known[0].to(rows[0].dtype)
    weight = weight / weight.sum(0).clamp(min=1)
    users = (rows[0] * weight.unsqueeze(2)).transpose(0, 1).flatten(1)
    return Encoded(users, rows[1].transpose(0, 1).flatten(1))


@keep_rows.register
def _(model: InteractionEnsemble, graph: InteractionGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    made = keep_rows.dispatch(nn.Module)(model, graph, kept)
    assert isinstance(made, InteractionEnsemble)
    small = keep_nodes(graph, kept)
    if made.pairs is None:
        made.members = made.members[kept[made.by].to(made.members.device)]
    else:
        user, item = made.pairs // graph.num_items, made.pairs % graph.num_items
        new = [new_numbers(kept[name].to(user.device), len(graph.vocabulary(name))) for name in ("user", "item")]
        made.pairs, order = (new[0][user] * small.num_items + new[1][item]).sort()
        made.members = made.members[order]
    made.left_out = torch.zeros(small.num_interactions, dtype=torch.bool, device=graph.device)
    made.graph = small.fingerprint()
    made.seed = int(fingerprint(made)[:8], 16)  # the earlier seed is a hash of the model before forgetting
    return made
