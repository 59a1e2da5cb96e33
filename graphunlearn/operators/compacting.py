"""Removal of the rows and ids of users and items that forgetting has emptied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data.renumbering import active_nodes, keep_nodes, named_nodes, new_numbers, node_types
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.nn.renumbering import keep_rows
from graphunlearn.operators.base import UnlearningResult
from graphunlearn.operators.shared.evaluating import evaluating

__all__ = ["Compacted", "compact", "emptied_by"]

SESSIONS = 256  # number of sessions whose states are compared
CLOSE = 1e-5  # largest difference between embeddings, relative to the largest entry; sums differ in single precision


@dataclass(frozen=True)
class Compacted:
    """A model and its graph without some users and items, whose rows and ids are gone.

    Args:
        model: The model, with fewer rows.
        graph: The graph, with fewer users and items, which are numbered anew.
        kept: For every new number, the number before ``[num_new]``, by node type: ``"user"`` (in a graph of sessions,
            only if sessions have users) and ``"item"``, and ``"session"`` if the sessions are in another order.
        gone: Number of users or items that went, by node type.
    """

    model: nn.Module
    graph: Any
    kept: dict[str, Tensor]
    gone: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module, graph: Any, kept: Mapping[str, Tensor]) -> Compacted:
        """Keep some users and items of a model and its graph.

        Args:
            model: The model; it is not changed.
            graph: The graph of the model; it is not changed.
            kept: Numbers of the users and items that stay, in their new order ``[num_new]``, by node type; a type that
                is missing stays as it is. In a graph of sessions, ``"session"`` may hold the numbers of all sessions in
                their new order.

        Returns:
            The smaller model and graph.

        Raises:
            ValueError: A user or an item that is to go has events in the graph, the rows of the model cannot be told
                apart, or the embeddings of those who stay depend on the rows that go.
        """
        sizes = {name: len(graph.vocabulary(name)) for name in node_types(graph)}
        whole = {name: kept.get(name, torch.arange(size)).to(graph.device) for name, size in sizes.items()}
        if graph.kind == "sessions" and "session" in kept:
            whole["session"] = kept["session"].to(graph.device)
        small = keep_nodes(graph, whole)
        if small.num_interactions != graph.num_interactions:
            got = f"{graph.num_interactions - small.num_interactions} {graph.unit}s of others"
            raise ArgumentError("kept", f"hold every user and item with {graph.unit}s in the graph", got)
        made = keep_rows(model, graph, whole)
        _check_same(model, graph, made, small, whole)
        return cls(made, small, whole, {name: size - len(whole[name]) for name, size in sizes.items()})

    def new(self, node_type: str) -> Tensor:
        """Return the new number of every user or item, and -1 for those who went.

        Args:
            node_type: ``"user"`` or ``"item"``.

        Returns:
            The numbers ``[num_before]``.

        Raises:
            ValueError: The graph has no such nodes.
        """
        if node_type not in self.gone:
            expected = f"be {' or '.join(map(repr, self.gone))}"
            raise ArgumentError("node_type", expected, repr(node_type))
        return new_numbers(self.kept[node_type], self.kept[node_type].numel() + self.gone[node_type])

    def renumber(self, graph: Any) -> Any:
        """Return another graph without the users and items that went, for validation and test data.

        Args:
            graph: A graph with the users and items that the training graph had before; it is not changed.

        Raises:
            ValueError: The graph has other users or items.
        """
        nodes = {name: self.kept[name] for name in self.gone}
        for name, kept in nodes.items():
            ids, size = graph.vocabulary(name), kept.numel() + self.gone[name]
            if len(ids) != size or ids.take(kept) != self.graph.vocabulary(name):
                raise ArgumentError("graph", f"have the {size} {name}s of the graph before", f"{len(ids)} {name}s")
        return keep_nodes(graph, nodes)


def compact(result: UnlearningResult, *earlier: UnlearningResult, inactive: bool = False) -> Compacted:
    """Remove the users and items that a request has emptied from the model, the graph and the vocabulary.

    Forgetting deletes events; the users and items keep their rows and their ids, and one without events that had some
    before was forgotten. Here their rows, their ids and their numbers go. Those are removed who lost all of their
    training events by the request, and those whom the request names and who have no training event. A user or an item
    that never had one, and is not named, stays. The model of those who stay is the same: the rows of its tables bit for
    bit, and its scores up to the rounding of sums. Those who stay keep their order, and so do the events. In data that
    were read from a file, this is the order of the file, from which one may infer where in the file something is
    missing; :func:`graphunlearn.runs.erase` also sorts users, items and events.

    Sessions without clicks are gone from the graph already. The softmax of a session model is over fewer items, so its
    probabilities change, and its logits do not.

    Args:
        result: The result of an unlearning method; it is not changed.
        *earlier: The results of earlier requests on the same numbers, whose users and items are still in the graph.
        inactive: Whether all users and items without training events go, whatever emptied them.

    Returns:
        The smaller model and graph, and which number became which.

    Raises:
        ValueError: The result does not tell what its request emptied, an earlier result has other numbers of users or
            items, the rows of the model cannot be told apart, or the embeddings of those who stay depend on the rows
            that go.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = gu.nn.MatrixFactorization(graph.num_nodes, 8)
        >>> result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["u3", "u7"]))
        >>> small = gu.compact(result)
        >>> small.graph.num_users, "u3" in small.graph.user_ids, small.gone
        (28, False, {'user': 2, 'item': 0})
        >>> small.new("user")[:6]
        tensor([ 0,  1,  2, -1,  3,  4])
    """
    for argument, each in (("result", result), *(("earlier", each) for each in earlier)):
        if not isinstance(each, UnlearningResult):
            raise ArgumentError(argument, "be the result of an unlearning method", type(each).__name__)
    graph, kept = result.graph, {}
    for name in node_types(graph):
        active = active_nodes(graph, name)
        stays = active.clone() if inactive else torch.ones_like(active)
        for each in () if inactive else (result, *earlier):
            if len(each.graph.vocabulary(name)) != active.numel():
                got = f"{len(each.graph.vocabulary(name))}"
                raise ArgumentError("earlier", f"have the {active.numel()} {name}s of the result", got)
            stays[emptied_by(each)[name].to(stays.device)] = False
        kept[name] = (stays | active).nonzero().flatten()
    return Compacted.of(result.model, graph, kept)


def emptied_by(result: UnlearningResult) -> dict[str, Tensor]:
    """Return the users and items that a request has emptied, and those that it names and that have no events.

    Args:
        result: The result of an unlearning method.

    Returns:
        Their numbers ``[num]``, by node type.

    Raises:
        ValueError: The result does not tell what its request emptied.
    """
    if result.emptied is None:
        got, hint = "one that was read from a ledger", "inactive=True removes all without events"
        raise ArgumentError("result", "tell which users and items its request emptied", got, hint)
    found = {}
    for name, named in named_nodes(result.graph, result.request).items():
        nodes = torch.cat([result.emptied[name], named.to(result.emptied[name].device)]).unique()
        found[name] = nodes[~active_nodes(result.graph, name)[nodes]]
    return found


def _check_same(model: nn.Module, graph: Any, made: nn.Module, small: Any, kept: Mapping[str, Tensor]) -> None:
    """Raise ArgumentError if the embeddings of those who stay are not the same in the smaller model."""
    rows = kept.get("user")
    if graph.kind == "sessions":  # a few suffice: they share all tables with the others
        few = torch.arange(min(SESSIONS, graph.num_sessions), device=graph.device)
        chosen = kept["session"][few] if "session" in kept else few
        graph, small, rows = graph.select(chosen), small.select(few), chosen.argsort().argsort()
    with torch.no_grad(), evaluating(model, made):
        before = encode(model, graph)
        try:
            after = encode(made, small)
        except (ValueError, IndexError, RuntimeError) as error:
            got = f"{type(model).__name__}, which fails without them: {' '.join(str(error).split())}"
            raise ArgumentError("model", "encode the graph without the rows that go", got) from error
        for one, two, index in ((before.queries, after.queries, rows), (before.items, after.items, kept["item"])):
            one = one[index]
            most, scale = (float(part.abs().max()) if one.numel() else 0.0 for part in (one - two, one))
            if not most <= CLOSE * scale:
                got = f"{type(model).__name__}, where they move by {most:.1g}"
                expected = "compute the embeddings of those who stay without the rows that go"
                raise ArgumentError("model", expected, got)
