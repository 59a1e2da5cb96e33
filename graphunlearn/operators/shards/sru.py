"""SRU: shards of similar sessions, aggregation by attention, and deletion of clicks beyond the request."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.encoding import encode
from graphunlearn.operators.shards.ensemble import SessionEnsemble
from graphunlearn.operators.shards.sharded import Aggregation, Sharded
from graphunlearn.operators.shared.checks import check_choices

__all__ = ["SRU", "balanced_clusters"]

Extra = Literal["collaborative", "neighbour", "random", "none"]
CHUNK = 1024  # number of sessions compared with all others at a time


@dataclass(kw_only=True)
class SRU(Sharded):
    r"""Session recommendation unlearning: shards of similar sessions, and extra deletion.

    :meth:`prepare` clusters the sessions by the directions of their embeddings in the original, with k-means and
    clusters of equal size. One model is trained on every shard, and their scores are summed with weights that depend on
    the closeness of a session to the sessions of the shard. A request retrains the shards that hold a forgotten click,
    without the forgotten clicks and without some further clicks from which the forgotten ones could be inferred:

    - ``"collaborative"``: for each session with a forgotten click, the most similar session of the same shard, by the
      cosine of their embeddings in the model of that shard;
    - ``"neighbour"``: the kept clicks directly before and after a forgotten click in its session;
    - ``"random"``: as many random kept clicks of a session as are forgotten in it;
    - ``"none"``: no further clicks.

    Extra clicks are left out of training only; the retained graph still holds them. If no shard would have a training
    sample left, no extra clicks are deleted. With extra deletion, the result differs from training without the
    forgotten clicks alone. See :class:`~graphunlearn.operators.shards.sisa.SISA` for the log and other details.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        num_shards: Number of shards.
        aggregation: ``"attention"``, ``"learned"`` or ``"mean"``.
        validation: Sessions for early stopping of every shard and for learned weights.
        settings: Training settings of every shard; their seed and the original model determine the shards, the
            initialisation and the random deletion. ``None`` selects :func:`~graphunlearn.nn.default_settings`.
        extra: The strategy of extra deletion.

    Raises:
        ValueError: A setting is out of range, weights are to be learned without validation sessions, or the method is
            not prepared for the model and the graph.

    Source: Xin et al., "On the Effectiveness of Unlearning in Session-Based Recommendation", WSDM 2024, arXiv
    2312.14447, from its abstract and summaries. The balancing of the clusters, the dependence of the weights on
    closeness and the exact deletions of each strategy are choices of this package.

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
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    anew: ClassVar[tuple[str, ...]] = ("extra",)
    aggregation: Aggregation = "attention"
    extra: Extra = "collaborative"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(get_args(Extra), extra=self.extra)

    @torch.no_grad()
    def _partition(self, model: nn.Module, graph: SessionGraph, seed: int) -> Tensor:
        return balanced_clusters(F.normalize(encode(model, graph).queries, dim=1), self.num_shards, seed)

    def _extra(self, ensemble: SessionEnsemble, graph: SessionGraph, forgotten: Tensor) -> Tensor:
        if self.extra == "none":
            return torch.zeros_like(forgotten)
        if self.extra == "collaborative":
            return _similar_sessions(ensemble, graph, forgotten)[graph.session]
        if self.extra == "neighbour":
            return _neighbours(graph, forgotten)
        return _random_clicks(graph, forgotten, ensemble.seed)


def balanced_clusters(rows: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Cluster rows into clusters whose sizes differ by at most one.

    K-means finds the centres. In each round, every unassigned row proposes to the nearest centre with free places, and
    each centre accepts the nearest of its proposing rows up to its capacity. Rounds repeat until all rows are assigned.

    Args:
        rows: The rows to cluster ``[num, dim]``.
        num_clusters: Number of clusters.
        seed: Seed of the initial centres of k-means.

    Returns:
        The cluster of every row ``[num]``.

    Example:
        >>> import torch
        >>> balanced_clusters(torch.tensor([[0.0], [5.0], [0.1], [5.1]]), 2, seed=0).diff().abs()
        tensor([1, 1, 1])
    """
    from scipy.cluster.vq import kmeans2  # here, since no other method needs it

    data = rows.detach().cpu().double().numpy()
    # kmeans2 warns about a centre without rows and keeps it; here such a centre receives the rows left over
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
def _similar_sessions(ensemble: SessionEnsemble, graph: SessionGraph, forgotten: Tensor) -> Tensor:
    """Return a mask of the sessions most similar to one with a forgotten click in their shard ``[num_sessions]``."""
    members = ensemble.members.to(graph.device)
    touched = torch.zeros(graph.num_sessions, dtype=torch.bool, device=graph.device)
    touched[graph.session[forgotten]] = True
    found = torch.zeros_like(touched)
    for number in torch.unique(members[touched]).tolist():
        own = (members == number).nonzero().flatten()
        rows = F.normalize(encode(ensemble.shards[number], graph.select(own)).queries, dim=1)
        asked = touched[own]
        if bool(asked.all()):
            continue
        others = own[~asked]
        for part in rows[asked].split(CHUNK):
            found[others[(part @ rows[~asked].t()).argmax(1)]] = True
    return found


def _neighbours(graph: SessionGraph, forgotten: Tensor) -> Tensor:
    """Return a mask of the clicks directly before or after a forgotten click of their session ``[num_clicks]``."""
    beside = torch.zeros_like(forgotten)
    together = graph.session[1:] == graph.session[:-1]
    beside[1:] |= forgotten[:-1] & together
    beside[:-1] |= forgotten[1:] & together
    return beside & ~forgotten


def _random_clicks(graph: SessionGraph, forgotten: Tensor, seed: int) -> Tensor:
    """Return a mask of random kept clicks: per session up to the number of its forgotten clicks ``[num_clicks]``."""
    session = graph.session
    count = torch.bincount(session[forgotten], minlength=graph.num_sessions)
    kept = (~forgotten & (count[session] > 0)).nonzero().flatten()
    draw = torch.rand(kept.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = (session[kept] + draw.to(kept.device)).argsort()  # by session, in random order within a session
    kept = kept[order]
    own = torch.bincount(session[kept], minlength=graph.num_sessions)
    place = torch.arange(kept.numel(), device=kept.device) - (own.cumsum(0) - own)[session[kept]]
    chosen = torch.zeros_like(forgotten)
    chosen[kept[place < count[session[kept]]]] = True
    return chosen
