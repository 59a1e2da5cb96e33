"""The users and items whose lists differ between two models, for caches and indices that must be refreshed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import best_items, finite_encoding
from graphunlearn.operators.shared.evaluating import evaluating
from graphunlearn.serving.embeddings import raw_ids

if TYPE_CHECKING:
    from graphunlearn.data.vocabulary import Vocabulary

__all__ = ["ChangedLists", "changed_lists"]

CHANGED, REMOVED, NEW = "changed", "removed", "new"


@dataclass(frozen=True)
class ChangedLists:
    """The users and items whose best ``k`` differ between two models.

    Args:
        k: Length of the lists.
        users: A row per user whose list differs, with the columns ``id`` (raw), ``status`` (``changed``, ``removed`` or
            ``new``) and ``places``, the number of places with another item; ``None`` for sessions.
        items: A row per item that is affected, with the columns ``id``, ``status`` and ``places`` of its list of most
            similar items and, for users, ``entered`` and ``left``, the numbers of users' lists with it that had it not
            before, and that had it before and have it no more.
        compared: Number of users and of items that have events before or after, by ``"users"`` and ``"items"``.
    """

    k: int
    users: pd.DataFrame | None
    items: pd.DataFrame
    compared: dict[str, int]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many users and items are compared, changed, removed and new."""
        counts = {}
        for side, frame in {"users": self.users, "items": self.items}.items():
            if frame is not None:
                found = frame["status"].value_counts()
                counts[side] = {"compared": self.compared[side]}
                counts[side] |= {status: int(found.get(status, 0)) for status in (CHANGED, REMOVED, NEW)}
        return counts


@dataclass(frozen=True)
class _Side:
    """Users or items of two graphs under common numbers: those of the first graph, then those only in the second."""

    ids: list[Any]
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, before: Vocabulary, after: Vocabulary) -> _Side:
        every = torch.arange(len(before))
        ids = raw_ids(before, every)
        if before == after:
            return cls(ids, every, every)
        second = before.lookup(after.ids)
        fresh = second < 0
        second[fresh] = len(before) + torch.arange(int(fresh.sum()))
        return cls(ids + raw_ids(after, fresh), every, second)

    def spread(self, values: Tensor, numbers: Tensor, fill: Any) -> Tensor:
        """Return values of the nodes of one graph under the common numbers; ``fill`` for the others."""
        out = values.new_full((len(self.ids), *values.shape[1:]), fill)
        out[numbers] = values
        return out


@torch.no_grad()
def changed_lists(
    before: nn.Module,
    before_graph: InteractionGraph | SessionGraph,
    after: nn.Module,
    after_graph: InteractionGraph | SessionGraph,
    k: int = 20,
    batch_size: int = 1024,
) -> ChangedLists:
    r"""Return the users and items whose best ``k`` items differ between two models, as before and after forgetting.

    The list of a user holds the best items by :math:`\langle e_u, e_i\rangle` without those that the user has in the
    graph of the model; the list of an item holds the other items with the largest :math:`\langle e_i, e_j\rangle`. Only
    users and items with events in the graph have a list or are in one. A user who was forgotten is listed as
    ``removed``. Scores are computed in batches, never as a whole matrix. A list with fewer than ``k`` items counts its
    empty places as places.

    Args:
        before: The earlier model.
        before_graph: The graph of the earlier model.
        after: The later model.
        after_graph: The graph of the later model; its users and items may have other numbers, but the same raw ids.
        k: Length of the lists; at most the number of items counts.
        batch_size: Users or items scored at a time.

    Returns:
        The users and items to refresh.

    Raises:
        ArgumentError: ``k`` is not positive, the graphs are of different kinds, or an embedding is not finite.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> changed = gu.serving.changed_lists(model, graph, result.model, result.graph, k=5)
        >>> changed.users[changed.users["status"] == "removed"].values.tolist()
        [['u3', 'removed', 5]]
    """
    if k < 1:
        raise ArgumentError("k", "be at least 1", k)
    if before_graph.kind != after_graph.kind:
        raise ArgumentError("after_graph", f"be of the kind of before_graph, {before_graph.kind}", after_graph.kind)
    items = _Side.of(before_graph.vocabulary("item"), after_graph.vocabulary("item"))
    k = min(k, len(items.ids))
    with evaluating(before), evaluating(after):
        near = _compare(
            items,
            _renamed(_similar(before, before_graph, k, batch_size), items.first),
            _renamed(_similar(after, after_graph, k, batch_size), items.second),
            _active(before_graph, "item"),
            _active(after_graph, "item"),
        )
        if before_graph.kind == "sessions":
            return ChangedLists(k, None, _table(items, near), {"items": int((near[1] | near[2]).sum())})
        users = _Side.of(before_graph.vocabulary("user"), after_graph.vocabulary("user"))
        lists = [
            side.spread(_renamed(_best(model, graph, k, batch_size), to), numbers, -1)
            for model, graph, side, to, numbers in (
                (before, before_graph, users, items.first, users.first),
                (after, after_graph, users, items.second, users.second),
            )
        ]
    had, has = (
        users.spread(_active(graph, "user"), numbers, False)
        for graph, numbers in ((before_graph, users.first), (after_graph, users.second))
    )
    entered, left = (torch.zeros(len(items.ids), dtype=torch.long) for _ in range(2))
    for first, second in zip(lists[0].split(batch_size), lists[1].split(batch_size)):
        same = first.unsqueeze(2) == second.unsqueeze(1)
        entered += _count(second[~same.any(1) & (second >= 0)], len(entered))
        left += _count(first[~same.any(2) & (first >= 0)], len(left))
    found = (lists[0] != lists[1]).sum(1), had, has
    compared = {"users": int((had | has).sum()), "items": int((near[1] | near[2]).sum())}
    return ChangedLists(k, _table(users, found), _table(items, near, entered, left), compared)


def _active(graph: InteractionGraph | SessionGraph, side: str) -> Tensor:
    """Return which users or items have events ``[num]``."""
    return graph.active[graph.sides[-1 if side == "item" else 0]].cpu()


def _best(model: nn.Module, graph: InteractionGraph | SessionGraph, k: int, batch_size: int) -> Tensor:
    """Return the best items of every user, -1 for empty places and for users without events ``[num_users, k]``."""
    some = min(k, graph.num_items)
    users, candidates = _active(graph, "user"), _active(graph, "item")
    queries = users.nonzero().flatten().to(graph.device)
    found, _ = best_items(model, graph, some, queries, candidates.to(graph.device), batch_size)
    out = torch.full((len(users), k), -1)
    out[users, :some] = found.cpu()
    return out


def _similar(model: nn.Module, graph: InteractionGraph | SessionGraph, k: int, batch_size: int) -> Tensor:
    """Return the most similar other items of every item; -1 for empty places and items without events."""
    rows, active = finite_encoding(model, graph).items, _active(graph, "item").to(graph.device)
    out = torch.full((len(rows), k), -1)
    some = min(k, len(rows))
    for batch in active.nonzero().flatten().split(batch_size):
        scores = rows[batch] @ rows.t()
        scores[:, ~active] = -torch.inf
        scores.scatter_(1, batch.unsqueeze(1), -torch.inf)
        values, found = scores.topk(some)
        out[batch.cpu(), :some] = found.masked_fill(values == -torch.inf, -1).cpu()
    return out


def _renamed(lists: Tensor, numbers: Tensor) -> Tensor:
    """Return lists of items under the common numbers; -1 stays."""
    return torch.where(lists >= 0, numbers[lists.clamp(min=0)], lists)


def _compare(items: _Side, first: Tensor, second: Tensor, had: Tensor, has: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of different places, and which items had and have events, under the common numbers."""
    first, second = items.spread(first, items.first, -1), items.spread(second, items.second, -1)
    had, has = items.spread(had, items.first, False), items.spread(has, items.second, False)
    return (first != second).sum(1), had, has


def _count(numbers: Tensor, size: int) -> Tensor:
    return torch.bincount(numbers, minlength=size)


def _table(
    side: _Side, found: tuple[Tensor, Tensor, Tensor], entered: Tensor | None = None, left: Tensor | None = None
) -> pd.DataFrame:
    """Return the rows of the users or items that must be refreshed, in the order of their numbers."""
    places, had, has = found
    shown = (places > 0) & (had | has) | (had != has)
    columns = {}
    if entered is not None and left is not None:
        shown |= (entered > 0) | (left > 0)
        columns = {"entered": entered, "left": left}
    chosen = shown.nonzero().flatten()
    status = [NEW if not old else CHANGED if now else REMOVED for old, now in zip(had[chosen].tolist(), has[chosen])]
    frame = {"id": [side.ids[number] for number in chosen.tolist()], "status": status, "places": places[chosen]}
    return pd.DataFrame(frame | {name: values[chosen] for name, values in columns.items()})
