"""SRU: shards of like sessions, weighed by attention, and more deleted than was asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shards.ensemble import ShardEnsemble
from graphunlearn.operators.shards.sisa import Aggregation, Sharded

__all__ = ["SRU", "balanced_clusters"]

Extra = Literal["collaborative", "neighbour", "random", "none"]
CHUNK = 1024  # sessions compared with all others at a time


@dataclass(kw_only=True)
class SRU(Sharded):
    r"""Session recommendation unlearning: shards of like sessions, and extra deletion.

    :meth:`prepare` parts the sessions by the rows that the original gives them: k-means on their directions, with
    clusters of equal size. A model is trained on every shard, and their scores are added up with weights that
    follow from how close a session is to those of the shard. A request is served by training the shards that hold a
    forgotten click again, without the forgotten clicks and without some that could give them away:

    - ``"collaborative"``: the session of the same shard that is most similar to one with a forgotten click, by the
      cosine of their rows in the model of that shard;
    - ``"neighbour"``: the kept clicks next to a forgotten one in its session, on either side;
    - ``"random"``: as many kept clicks of the session as are forgotten of it;
    - ``"none"``.

    Extra clicks are left out of training alone; the sessions that are served still hold them. None are where no shard
    would have anything left to learn. What comes out is no longer what training without the forgotten clicks would
    give. See :class:`~graphunlearn.operators.shards.sisa.SISA` for the log and the rest.

    Args:
        objective: The loss; the shared default where ``None``.
        num_shards: Number of shards.
        aggregation: ``"attention"``, ``"learned"`` or ``"mean"``.
        validation: Sessions for early stopping of every shard, and for learned weights.
        settings: How every shard is trained; its seed, with the original, decides on shards, initialisation and random
            deletion. Where ``None`` :func:`~graphunlearn.nn.default_settings`.
        extra: What is deleted besides.

    Raises:
        ValueError: A setting is out of range, weights are to be learned without validation sessions, or the method is
            not prepared for the model and the graph.

    Source: Xin et al., "On the Effectiveness of Unlearning in Session-Based Recommendation", WSDM 2024, arXiv
    2312.14447, from its abstract and summaries: how clusters are balanced, how weights follow from closeness, and what
    exactly each strategy deletes are choices of ours.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 1], [3, 0, 1], [1, 2, 3]])
        >>> method = gu.SRU(num_shards=2, aggregation="mean", extra="neighbour", settings=gu.nn.FitSettings(epochs=2))
        >>> model = gu.nn.GRU4Rec(graph.num_items, 4)
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest.internal("click", torch.tensor([[0], [1]])))
        >>> result.log["extra_clicks"], result.graph.num_clicks
        (2, 10)
    """

    name: ClassVar[str] = "sru"
    anew: ClassVar[tuple[str, ...]] = ("extra",)
    aggregation: Aggregation = "attention"
    extra: Extra = "collaborative"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.extra not in get_args(Extra):
            raise ArgumentError("extra", f"be one of {', '.join(get_args(Extra))}", f"{self.extra!r}")

    @torch.no_grad()
    def _partition(self, model: nn.Module, graph: SessionGraph, seed: int) -> Tensor:
        return balanced_clusters(F.normalize(encode(model, graph).queries, dim=1), self.num_shards, seed)

    def _extra(self, ensemble: ShardEnsemble, graph: SessionGraph, forgotten: Tensor) -> Tensor:
        if self.extra == "none":
            return torch.zeros_like(forgotten)
        if self.extra == "collaborative":
            return _similar_sessions(ensemble, graph, forgotten)[graph.session]
        if self.extra == "neighbour":
            return _neighbours(graph, forgotten)
        return _random_clicks(graph, forgotten, ensemble.seed)


def balanced_clusters(rows: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Return clusters of like rows whose sizes differ by one at most ``[num]``.

    K-means finds the centres. Then every row asks for the nearest centre that has room left, each centre takes the
    nearest of those who ask as long as there is room, and who is left asks again.

    Args:
        rows: What is to be parted ``[num, dim]``.
        num_clusters: Number of clusters.
        seed: Seed of the centres that k-means starts from.

    Example:
        >>> import torch
        >>> balanced_clusters(torch.tensor([[0.0], [5.0], [0.1], [5.1]]), 2, seed=0).diff().abs()
        tensor([1, 1, 1])
    """
    data = rows.detach().cpu().double().numpy()
    # kmeans2 warns of, and leaves in place, a centre that nobody is near: here it takes what is left over
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(data, num_clusters, minit="++", seed=seed % 2**32, missing="warn")
    distance = torch.cdist(torch.from_numpy(data), torch.from_numpy(centres))
    members = torch.full((len(data),), -1)
    room = torch.full((num_clusters,), len(data) // num_clusters)
    room[: len(data) % num_clusters] += 1
    while bool((members < 0).any()):
        waiting = (members < 0).nonzero().flatten()
        near, wanted = distance[waiting].masked_fill(room == 0, torch.inf).min(1)
        for cluster in wanted.unique().tolist():
            asking = waiting[wanted == cluster]
            taken = asking[near[wanted == cluster].argsort(stable=True)[: int(room[cluster])]]
            members[taken] = cluster
            room[cluster] -= taken.numel()
    return members.to(rows.device)


@torch.no_grad()
def _similar_sessions(ensemble: ShardEnsemble, graph: SessionGraph, forgotten: Tensor) -> Tensor:
    """Return the sessions most similar to one with a forgotten click, in the same shard ``[num_sessions]``."""
    touched = torch.zeros(graph.num_sessions, dtype=torch.bool, device=graph.device)
    touched[graph.session[forgotten]] = True
    found = torch.zeros_like(touched)
    for number in torch.unique(ensemble.members[touched]).tolist():
        own = (ensemble.members == number).nonzero().flatten()
        rows = F.normalize(encode(ensemble.shards[number], graph.select(own)).queries, dim=1)
        asked = touched[own]
        if bool(asked.all()):
            continue
        others = own[~asked]
        for part in rows[asked].split(CHUNK):
            found[others[(part @ rows[~asked].t()).argmax(1)]] = True
    return found


def _neighbours(graph: SessionGraph, forgotten: Tensor) -> Tensor:
    """Return the clicks next to a forgotten one in its session ``[num_clicks]``."""
    beside = torch.zeros_like(forgotten)
    together = graph.session[1:] == graph.session[:-1]
    beside[1:] |= forgotten[:-1] & together
    beside[:-1] |= forgotten[1:] & together
    return beside & ~forgotten


def _random_clicks(graph: SessionGraph, forgotten: Tensor, seed: int) -> Tensor:
    """Return of every session as many kept clicks as are forgotten of it, where it has them ``[num_clicks]``."""
    session = graph.session
    count = torch.bincount(session[forgotten], minlength=graph.num_sessions)
    kept = (~forgotten & (count[session] > 0)).nonzero().flatten()
    draw = torch.rand(kept.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = (session[kept] + draw.to(kept.device)).argsort()  # by session, at random within
    kept = kept[order]
    own = torch.bincount(session[kept], minlength=graph.num_sessions)
    place = torch.arange(kept.numel(), device=kept.device) - (own.cumsum(0) - own)[session[kept]]
    chosen = torch.zeros_like(forgotten)
    chosen[kept[place < count[session[kept]]]] = True
    return chosen
