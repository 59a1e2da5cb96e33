"""Ensembles of the models of several shards, and the weights of shards of sessions."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.renumbering import clicks_of, keep_nodes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.renumbering import keep_rows
from graphunlearn.nn.tables import item_tables
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.preparation import Kept

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SessionEnsemble", "ShardEnsemble", "backbone_of", "learn_weights"]

SAMPLES = 512  # largest number of clicks used to learn the weights; fewer if their scores exceed SCORES
SCORES = 1 << 26  # largest number of scores held at a time
RIDGE = 1e-3


class ShardEnsemble(Kept):
    """The base class of recommenders that consist of the models of several shards.

    Args:
        shards: The models, all of the same class and sizes.
        members: Shard of every session, or of what the interactions are partitioned by.
        graph: Fingerprint of the training graph.
        seed: Seed of the first model; every further model has the seed of its predecessor plus one.
    """

    kind: ClassVar[Kind] = "sessions"

    def __init__(self, shards: list[nn.Module], members: Tensor, graph: str, seed: int) -> None:
        super().__init__()
        self.shards = nn.ModuleList(shards)
        self.members, self.graph, self.seed = members, graph, seed
        self.made_by: str | None = None  # the method whose partition this is; unknown in files of earlier versions
        self.left_out = torch.zeros(0, dtype=torch.bool)

    def extra_repr(self) -> str:
        return f"num_shards={len(self.shards)}"

    def shape(self) -> dict[str, Any]:
        shape = {"kind": self.kind, "num_shards": len(self.shards), "graph": self.graph, "seed": self.seed}
        return shape if self.made_by is None else {**shape, "made_by": self.made_by}

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters, the buffers, the members of the shards and the events left out, with their names."""
        return {**self.state_dict(), "members": self.members, "left_out": self.left_out}

    @classmethod
    def rebuilt(cls, shape: dict[str, Any], tensors: Mapping[str, Tensor], like: nn.Module | None = None) -> Self:
        """Build an ensemble from its shape and its tensors.

        Args:
            shape: The result of :meth:`shape`.
            tensors: The result of :meth:`tensors`.
            like: A model of the class and sizes of the shards, or an ensemble of such models.

        Returns:
            The ensemble, of the subclass for its kind of graph.

        Raises:
            ValueError: ``like`` is missing, or there is no ensemble for the kind of graph that the shape names.
            RuntimeError: The tensors do not fit such an ensemble.
        """
        if like is None:
            raise ArgumentError("like", "be a model of the class that the shards are of", "none")
        kind, known = shape.get("kind", "sessions"), {made.kind: made for made in ShardEnsemble.__subclasses__()}
        check(f"name an ensemble of {' or '.join(sorted(known))}", lambda value: value in known, shape=kind)
        shards = [copy.deepcopy(backbone_of(like)) for _ in range(shape["num_shards"])]
        state = dict(tensors)
        own, left_out = state.pop("members").clone(), state.pop("left_out").clone()
        made: Any = known[kind].empty(shards, own, shape, state)
        made.left_out, made.made_by = left_out, shape.get("made_by")
        made.to(next(iter(state.values())).device).load_state_dict(state)
        return cast("Self", made.eval())

    @classmethod
    @abstractmethod
    def empty(cls, shards: list[nn.Module], members: Tensor, shape: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """Return an ensemble with room for the tensors of ``state``; what is no tensor of its own is taken out."""

    @abstractmethod
    def shard_of(self, graph: Any) -> Tensor:
        """Return the shard of every click or interaction of ``graph``, -1 for none ``[num_events]``."""

    @abstractmethod
    def forget(self, graph: Any, forgotten: Tensor, missing: Tensor) -> None:
        """Delete what the ensemble holds of the ``forgotten`` events ``[num_events]`` besides its parameters.

        Args:
            graph: The training graph before forgetting.
            forgotten: Mask of the events to forget ``[num_events]``.
            missing: Mask of all events left out of training ``[num_events]``.
        """

    @abstractmethod
    def held_out(self, validation: Any, part: Any) -> Any:
        """Return the validation data for the training of one shard on ``part``."""

    @abstractmethod
    def aggregate(self, method: Any, graph: Any, parts: dict[int, Any], validation: Any) -> dict[str, Any]:
        """Set the weights of the shards, and return what is to be logged of it.

        Args:
            method: The method, for its objective, settings and aggregation.
            graph: The training graph without the events left out.
            parts: The training data of every shard just trained, by the number of the shard.
            validation: The validation data, or ``None``.
        """


class SessionEnsemble(ShardEnsemble):
    r"""A recommender whose scores are the weighted sum of the scores of the models of several shards of sessions.

    .. math::
        z_j(x) = \sum_k w_k(x) \langle s_k(x), e_{kj} \rangle, \qquad
        w(x) = \gamma\,\operatorname{softmax}_k\big(b_k + a \cos(s_k(x), c_k)\big)

    Here :math:`s_k` is the embedding of a session and :math:`e_{kj}` the embedding of an item in the model of shard
    :math:`k`, and :math:`c_k` is the mean direction of the embeddings of the sessions in that shard. With
    :math:`a = b = 0, \gamma = 1`, the ensemble takes the mean. The sum of dot products equals the dot product of the
    concatenated embeddings, so an ensemble is encoded like any other model.

    Args:
        shards: The models, all of the same class and sizes.
        members: Shard of every session of the training graph ``[num_sessions]``.
        graph: Fingerprint of the training graph.
        seed: Seed of the first model; every further model has the seed of its predecessor plus one.
    """

    def __init__(self, shards: list[nn.Module], members: Tensor, graph: str, seed: int) -> None:
        super().__init__(shards, members, graph, seed)
        like = next(self.shards.parameters())
        self.scale: Tensor
        self.sharpness: Tensor
        self.offset: Tensor
        self.centres: Tensor
        self.register_buffer("scale", like.new_ones(()))
        self.register_buffer("sharpness", like.new_zeros(()))
        self.register_buffer("offset", like.new_zeros(len(shards)))  # minus infinity for an empty shard
        self.register_buffer("centres", like.new_zeros(len(shards), 0))

    @classmethod
    def empty(cls, shards: list[nn.Module], members: Tensor, shape: dict[str, Any], state: dict[str, Tensor]) -> Self:
        made = cls(shards, members, shape["graph"], shape["seed"])
        made.centres = torch.empty_like(state["centres"])
        return made

    def shard_of(self, graph: SessionGraph) -> Tensor:
        return self.members.to(graph.device)[graph.session]

    def forget(self, graph: SessionGraph, forgotten: Tensor, missing: Tensor) -> None:
        stays = torch.bincount(graph.session[~forgotten], minlength=graph.num_sessions) > 0
        self.members, self.left_out = self.members.to(graph.device)[stays], missing[~forgotten]

    def held_out(self, validation: SessionGraph | None, part: SessionGraph) -> SessionGraph | None:
        return validation

    def aggregate(
        self, method: Any, graph: SessionGraph, parts: dict[int, SessionGraph], validation: SessionGraph | None
    ) -> dict[str, Any]:
        log: dict[str, Any] = {}
        self.settle(parts)
        if not bool(torch.isfinite(self.offset).any()):
            raise ArgumentError("graph", "hold something to learn from", "only sessions of one click")
        if method.aggregation != "mean" and validation is not None and len(CrossEntropy().samples(validation)):
            attention, seed = method.aggregation == "attention", method.fit_settings(graph).seed
            log["validation_loss"] = learn_weights(self, validation, attention=attention, seed=seed)
        weights = self.scale * self.offset.softmax(0)
        return log | {"weights": weights.tolist(), "sharpness": float(self.sharpness)}

    def weights(self, states: Tensor) -> Tensor:
        """Return the weights of the shards ``[num, num_shards]`` for states ``[num, num_shards, dim]``."""
        logits = self.offset.expand(states.shape[:2])
        if bool(self.sharpness != 0):
            logits = logits + self.sharpness * self.closeness(states)
        return self.scale * logits.softmax(1)

    def closeness(self, states: Tensor) -> Tensor:
        """Return the cosine of every state with the centre of its shard ``[num, num_shards]``."""
        return F.cosine_similarity(states, self.centres.unsqueeze(0), dim=2)

    def combine(self, parts: list[Encoded]) -> Encoded:
        """Concatenate the weighted embeddings of the shards.

        Args:
            parts: The encoding of the same queries and items by every shard.

        Returns:
            Embeddings whose dot products are the weighted sums of the scores of the shards.
        """
        states = torch.stack([part.queries for part in parts], 1)
        users = (states * self.weights(states).unsqueeze(2)).flatten(1)
        return Encoded(users, torch.cat([part.items for part in parts], 1))

    @torch.no_grad()
    def settle(self, graphs: dict[int, SessionGraph]) -> None:
        """Reset the weights to those of the mean, with weight zero for empty shards, and recompute the centres.

        Args:
            graphs: The training sessions of every trained shard, by the number of the shard.
        """
        self.scale.fill_(1.0)  # earlier weights were fitted to other models, and maybe to forgotten clicks
        self.sharpness.zero_()
        self.offset[torch.isfinite(self.offset)] = 0.0
        for number, graph in graphs.items():
            self.offset[number] = 0.0 if len(CrossEntropy().samples(graph)) else -torch.inf
            rows = encode(self.shards[number], graph).queries if graph.num_sessions else None
            if self.centres.size(1) == 0 and rows is not None:
                self.centres = self.centres.new_zeros(len(self.shards), rows.size(1))
            if rows is not None:
                self.centres[number] = F.normalize(rows, dim=1).mean(0)
            elif self.centres.size(1):
                self.centres[number] = 0.0  # the earlier centre was the mean of forgotten sessions


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the model of the first shard of an ensemble, or ``model`` itself if it is not an ensemble."""
    return model.shards[0] if isinstance(model, ShardEnsemble) else model


@encode.register
def _(model: SessionEnsemble, graph: SessionGraph) -> Encoded:
    return model.combine([encode(shard, graph) for shard in model.shards])


@encode_prefixes.register
def _(model: SessionEnsemble, graph: SessionGraph, ends: Tensor) -> Encoded:
    return model.combine([encode_prefixes(shard, graph, ends) for shard in model.shards])


@item_tables.register
def _(model: SessionEnsemble, num_items: int) -> list[Tensor]:
    return [table for shard in model.shards for table in item_tables(shard, num_items)]


@keep_rows.register
def _(model: SessionEnsemble, graph: SessionGraph, kept: Mapping[str, Tensor]) -> nn.Module:
    made = keep_rows.dispatch(nn.Module)(model, graph, kept)
    assert isinstance(made, SessionEnsemble)
    if "session" in kept:
        order = kept["session"].to(graph.device)
        made.members = made.members[order.to(made.members.device)]
        made.left_out = made.left_out[clicks_of(graph, order).to(made.left_out.device)]
    made.graph = keep_nodes(graph, kept).fingerprint()
    made.seed = int(fingerprint(made)[:8], 16)  # the earlier seed is a hash of the model before forgetting
    return made


def learn_weights(ensemble: SessionEnsemble, validation: SessionGraph, *, attention: bool, seed: int) -> float:
    r"""Fit :math:`\gamma, b` (and :math:`a`, with ``attention``) to clicks that no shard was trained on, in place.

    L-BFGS minimises the cross entropy over the whole catalogue with a small ridge, starting from the weights of the
    mean. On the clicks used, the result is never worse than the mean.

    Args:
        ensemble: The ensemble whose weights are fitted; empty shards keep weight zero.
        validation: Sessions that no shard was trained on.
        attention: Whether the weights depend on the session.
        seed: Seed of the choice of clicks from ``validation``.

    Returns:
        The cross entropy after the fit.
    """
    samples = CrossEntropy().samples(validation)
    alive = torch.isfinite(ensemble.offset).nonzero().flatten()
    room = SCORES // (len(alive) * validation.num_items)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    samples = samples.select(order[: max(1, min(SAMPLES, room))])
    with torch.no_grad():
        parts = [encode_prefixes(shard, validation, samples.ends) for shard in ensemble.shards]
        scores = torch.stack([parts[k].queries @ parts[k].items.t() for k in alive.tolist()], 1)
        near = scores.new_zeros(len(scores), len(alive))
        if attention:
            near = ensemble.closeness(torch.stack([part.queries for part in parts], 1))[:, alive]
    # log of the scale, sharpness, offsets: they start at the values of the mean, and the ridge pulls them back there,
    # because on few clicks they may diverge
    free = scores.new_zeros(2 + len(alive), requires_grad=True)
    search = torch.optim.LBFGS([free], max_iter=20, line_search_fn="strong_wolfe")
    best, least = free.detach().clone(), math.inf

    def closure() -> float:
        nonlocal best, least
        search.zero_grad()
        weights = free[0].exp() * (free[2:] + free[1] * near).softmax(1)
        loss = F.cross_entropy((weights.unsqueeze(1) @ scores).squeeze(1), samples.target)
        (loss + RIDGE * free.square().sum()).backward()
        value = float(loss.detach())
        if value < least:
            best, least = free.detach().clone(), value
        return value + RIDGE * float(free.detach().square().sum())

    search.step(closure)
    ensemble.scale.copy_(best[0].exp())
    ensemble.sharpness.copy_(best[1])
    ensemble.offset[alive] = best[2:]
    return least
