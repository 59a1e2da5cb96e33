"""The function ``encode(model, graph)``, which computes the embeddings of any recommender."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric.nn import LightGCN, MessagePassing

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import spmm
from graphunlearn.func.largest import GROUP, largest
from graphunlearn.nn.identity import remembered
from graphunlearn.nn.precision import check_precision

__all__ = [
    "Encoded",
    "LinearForm",
    "best_items",
    "check_fit",
    "encode",
    "finite_encoding",
    "linear_form",
    "num_hops",
    "recommend",
    "score",
]

SCORES = 1 << 23
"""The most scores that are held at a time: as many users are scored at once, at least one."""

ENCODERS = "graphunlearn.encoders"
"""The group of entry points by which installed packages offer encodings of their models."""


class Encoded(NamedTuple):
    """The embeddings of queries (users or sessions) and items; a score is a dot product of two of them.

    Args:
        queries: Final embeddings of the queries ``[num_users, dim]`` or ``[num_sessions, dim]``.
        items: Final embeddings of the items ``[num_items, dim]``.
        query_base: Layer-0 embeddings of the queries, before propagation ``[num_users, base_dim]``. The L2 penalty of
            an objective acts on the layer-0 embeddings; if they are ``None``, it acts on the final embeddings.
        item_base: Layer-0 embeddings of the items ``[num_items, base_dim]``.
    """

    queries: Tensor
    items: Tensor
    query_base: Tensor | None = None
    item_base: Tensor | None = None


@dataclass(frozen=True)
class LinearForm:
    r"""A model that propagates one embedding table linearly: :math:`Z = \sum_l \alpha_l \hat A^l E`.

    For such a model with dot-product scores, curvature products have a closed form.

    Args:
        parameter: Name of the table in ``model.named_parameters()``; its rows are users, then items.
        alpha: Layer weights :math:`\alpha_0, \dots, \alpha_L`.
        matrix: The symmetric CSR matrix :math:`\hat A` ``[num_nodes, num_nodes]``; ``None`` if no layer propagates.
    """

    parameter: str
    alpha: tuple[float, ...]
    matrix: Tensor | None

    def propagate(self, x: Tensor) -> Tensor:
        r"""Return :math:`\sum_l \alpha_l \hat A^l x`; the operator is symmetric and equals its transpose.

        Args:
            x: Embeddings of all nodes ``[num_nodes, dim]``.

        Returns:
            The propagated embeddings ``[num_nodes, dim]``.
        """
        if self.matrix is None:
            return self.alpha[0] * x
        for out in self.sums(x):  # noqa: B007
            pass
        return out

    def sums(self, x: Tensor) -> Iterator[Tensor]:
        r"""Yield the sums of Horner's scheme, :math:`o_L = \alpha_L x` and :math:`o_l = \hat A o_{l+1} + \alpha_l x`.

        The last one, :math:`o_0`, is what :meth:`propagate` returns.

        Args:
            x: Embeddings of all nodes ``[num_nodes, dim]``.
        """
        out = self.alpha[-1] * x
        yield out
        for weight in reversed(self.alpha[:-1]):
            assert self.matrix is not None
            out = spmm(self.matrix, out)
            out = out.add(x, alpha=weight) if torch.is_grad_enabled() else out.add_(x, alpha=weight)
            yield out


@singledispatch
def linear_form(model: nn.Module, graph: InteractionGraph) -> LinearForm | None:
    """Return the :class:`LinearForm` of ``model`` on ``graph``.

    If your own model class propagates linearly, register a function for it. Curvature products then use the closed
    form.

    Args:
        model: The recommender.
        graph: The graph to propagate on.

    Returns:
        The linear form, or ``None`` if the model does not propagate one table linearly.
    """
    return None


@linear_form.register
def _(model: LightGCN, graph: InteractionGraph) -> LinearForm | None:
    if not _computes_as(model, LightGCN):
        return None
    _check_size(model.num_nodes, model, graph)
    dtype = model.embedding.weight.dtype
    return LinearForm("embedding.weight", tuple(model.alpha.tolist()), graph.adjacency.normalized(dtype))


def _computes_as(model: nn.Module, base: type[nn.Module]) -> bool:
    """Return whether ``model`` inherits the encoding of ``base``; a class that overrides it is registered itself."""
    names = ("forward", "get_embedding", "predict_link", "recommend")
    same = all(getattr(type(model), name, None) is getattr(base, name, None) for name in names)
    return same and _encode.dispatch(type(model)) is _encode.dispatch(object)


@singledispatch
def _encode(model: nn.Module, graph: InteractionGraph) -> Encoded | tuple[Tensor, ...]:
    form = linear_form(model, graph)
    if form is None:
        name = type(model).__name__
        if load_encoder(type(model)) and _encode.dispatch(type(model)) is not _encode.dispatch(object):
            return _encode(model, graph)
        raise TypeError(
            f"'model' must be a recommender that 'encode' supports (got {name}); register one with "
            f"@graphunlearn.encode.register({name}), a function (model, graph) -> (user embeddings, item embeddings)"
        )
    table = attrgetter(form.parameter)(model)  # get_parameter rejects the plain tensors of torch.func
    sizes = [graph.num_users, graph.num_item_rows]
    return Encoded(*form.propagate(table).split(sizes), *table.split(sizes))


def load_encoder(cls: type[nn.Module]) -> bool:
    """Load the encoding that an installed package offers for a model class.

    A package offers one as an entry point of the group ``graphunlearn.encoders``, named as the class with its module,
    such as ``towers.models.TwoTower``. Its value is the function, or a module that registers it when it is imported.

    Args:
        cls: The model class.

    Returns:
        Whether there is such an entry point.
    """
    for base in cls.__mro__:
        for point in entry_points(group=ENCODERS, name=f"{base.__module__}.{base.__qualname__}"):
            found = point.load()
            if callable(found):
                _encode.register(base, found)
            return True
    return False


class _Encode:
    """The type of ``encode``: a function to which :meth:`register` adds model classes."""

    def __call__(self, model: nn.Module, graph: InteractionGraph | SessionGraph) -> Encoded:
        r"""Return the embeddings of all users and items of ``graph``.

        For a graph of sessions, the queries are sessions instead of users; the embedding of a session encodes all of
        its clicks.

        Args:
            model: A ``torch_geometric.nn.LightGCN``, a model of this package, or any module registered with
                ``@encode.register``.
            graph: The graph to propagate on; nothing is cached between calls.

        Returns:
            The embeddings of the users ``[num_users, dim]`` or sessions ``[num_sessions, dim]``, and of the items
            ``[num_items, dim]``.

        Raises:
            TypeError: No encoding is registered for the class of the model.
            ValueError: The model is made for the other kind of graph, its tables do not fit the graph, or the
                registered function returned a value of the wrong form.

        Example:
            >>> import torch, torch_geometric, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_users=2, num_items=2)
            >>> users, items, *_ = gu.encode(torch_geometric.nn.LightGCN(4, 8, num_layers=2), graph)
            >>> users.shape, items.shape
            (torch.Size([2, 8]), torch.Size([2, 8]))
        """
        encoded = Encoded(*_encode(model, graph))
        wanted = ((encoded.queries, graph.query, graph.num_queries), (encoded.items, "item", graph.num_item_rows))
        for rows, name, count in wanted:
            if rows.dim() != 2 or rows.size(0) != count:
                got = f"a tensor of shape {list(rows.shape)}"
                raise ValueError(
                    f"'encode' of {type(model).__name__} must return {count} {name} embeddings for this graph "
                    f"(got {got})"
                )
        return encoded

    @staticmethod
    def register(cls: Any, func: Callable[..., Any] | None = None) -> Any:
        """Register an encoding function for a model class.

        Args:
            cls: The model class, or the function itself if its first argument is annotated with the class.
            func: A function ``func(model, graph) -> (users, items[, user_base, item_base])``; if it is ``None``,
                ``register`` acts as a decorator.

        Returns:
            The function, or the decorator.
        """
        return _encode.register(cls, func) if func is not None else _encode.register(cls)


encode = _Encode()


def check_fit(model: nn.Module, graph: InteractionGraph | SessionGraph) -> None:
    """Raise the error that ``encode`` raises if a model does not fit a graph.

    A ``LightGCN`` is not propagated for that, and nothing is computed again for a model and a graph of interactions
    that were found to fit, until tensors or numbers of the model, or sizes of the graph, change.

    Args:
        model: The recommender.
        graph: The graph.

    Raises:
        TypeError: No encoding is registered for the class of the model.
        ValueError: See ``encode``.
    """
    if (
        isinstance(model, LightGCN)
        and linear_form.dispatch(type(model)) is linear_form.dispatch(LightGCN)
        and _computes_as(model, LightGCN)
        and model.embedding.weight.size(0) == model.num_nodes
    ):
        _check_size(model.num_nodes, model, graph)
        return
    pairs, state = getattr(graph, "pairs", None), getattr(graph, "_state", None)
    fitting = remembered(model, "fits", lambda _: WeakTensorKeyDictionary())
    if pairs is None or state is None:
        encode(model, graph)
    elif fitting.get(pairs) != (facts := (state, _plain_facts(model, graph))):
        encode(model, graph)
        fitting[pairs] = facts


def _plain_facts(model: nn.Module, graph: InteractionGraph) -> list[tuple[Any, ...]]:
    """Return what a fit depends on besides parameters, buffers and pairs: plain attributes, and shapes of tensors."""
    plain = (bool, int, float, str, Tensor)
    found: list[tuple[Any, ...]] = [
        (name, type(module), key, value.shape if isinstance(value, Tensor) else value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and key != "training"
    ]
    stored = ((str(store._key), key, value) for store in graph.stores for key, value in store.items())
    return found + [(*names, value.shape) for *names, value in stored if isinstance(value, Tensor)]


def _check_size(num_nodes: int, model: nn.Module, graph: InteractionGraph) -> None:
    """Raise ArgumentError if a user–item recommender for ``num_nodes`` nodes cannot encode ``graph``."""
    if graph.kind == "sessions":
        raise ArgumentError("model", "be a session recommender for a SessionGraph", type(model).__name__)
    if num_nodes != graph.num_rows:
        got = f"{graph.num_users} users + {graph.num_item_rows} items = {graph.num_rows}"
        raise ArgumentError("graph", f"have as many nodes as {type(model).__name__} has embeddings, {num_nodes}", got)


def _check_sessions(num_items: int, model: nn.Module, graph: SessionGraph) -> None:
    """Raise ArgumentError if a session recommender for ``num_items`` items cannot encode ``graph``."""
    name = type(model).__name__
    if graph.kind == "interactions":
        raise ArgumentError("model", f"be a user–item recommender for an {type(graph).__name__}", name)
    if num_items != graph.num_items:
        raise ArgumentError("graph", f"have as many items as {name} has embeddings, {num_items}", graph.num_items)


@singledispatch
def num_hops(model: nn.Module, graph: InteractionGraph) -> int:
    """Return the number of hops within which the removal of an interaction changes embeddings.

    This is the number of layers of the linear form or, without one, the number of message-passing layers. Register a
    function for your own model class if it propagates in another way.

    Args:
        model: The recommender.
        graph: The graph to propagate on.

    Returns:
        The number of hops.
    """
    form = linear_form(model, graph)
    if form is not None:
        return 0 if form.matrix is None else len(form.alpha) - 1
    return sum(isinstance(module, MessagePassing) for module in model.modules())


def score(encoded: Encoded, pairs: Tensor) -> Tensor:
    """Return the scores of user-item pairs.

    Args:
        encoded: The embeddings.
        pairs: Internal user and item ids ``[2, num_pairs]``.

    Returns:
        The scores ``[num_pairs]``.
    """
    user, item = pairs
    chunks = zip(user.split(65536), item.split(65536))  # so that the gathered rows fit into the cache
    scores = [(encoded.queries.index_select(0, u) * encoded.items.index_select(0, i)).sum(-1) for u, i in chunks]
    return torch.cat(scores) if scores else encoded.queries.new_zeros(0)


@torch.no_grad()
def finite_encoding(model: nn.Module, graph: InteractionGraph | SessionGraph) -> Encoded:
    """Return the embeddings of a model, after a check that all are finite.

    Args:
        model: The recommender.
        graph: The graph to propagate on.

    Raises:
        ArgumentError: An embedding contains NaN or infinity, or the model has half precision.
    """
    check_precision(model)
    encoded = encode(model, graph)
    for name, rows in ((graph.query, encoded.queries), ("item", encoded.items)):
        bad = int((~torch.isfinite(rows).all(1)).sum())
        if bad:
            got = f"NaN or infinity in {bad} of {len(rows)} {name} embeddings"
            raise ArgumentError("model", "give finite embeddings", got)
    return encoded


@torch.no_grad()
def recommend(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    k: int = 10,
    users: Tensor | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """Return the ``k`` best items for every user or session.

    For users, the items that they interacted with in ``graph`` are excluded. For sessions, the items are candidates for
    the next click; the items of the session are not excluded, because users often return to items.

    Args:
        model: The recommender.
        graph: The graph to propagate on, whose interactions are excluded. Pass the *retained* graph after unlearning.
        k: Number of items per user.
        users: Internal user ids or session indices ``[num]``; all by default.
        batch_size: Most users scored at a time; fewer are if their scores would be more than eight million.

    Returns:
        Internal item ids ``[num, k]``, best first. If fewer than ``k`` items remain for a user, places are ``-1``.

    Raises:
        ValueError: ``k`` is not between 1 and the number of items, the model has half precision, or an embedding is not
            finite.

    Example:
        >>> import torch, torch_geometric, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> gu.recommend(torch_geometric.nn.LightGCN(5, 8, num_layers=1), graph, k=2).shape
        torch.Size([2, 2])
        >>> sessions = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> gu.recommend(gu.nn.SRGNN(sessions.num_items, 8), sessions, k=2).shape
        torch.Size([2, 2])
    """
    return best_items(model, graph, k, users, batch_size=batch_size)[0]


@torch.no_grad()
def best_items(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    k: int,
    queries: Tensor | None = None,
    candidates: Tensor | None = None,
    batch_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    r"""Return the ``k`` best items for every user or session together with their scores.

    .. math::
        s_{qi} = \langle e_q, e_i \rangle

    Args:
        model: The recommender.
        graph: The graph to propagate on; see :func:`recommend`, which returns the items alone.
        k: Number of items per query.
        queries: Internal user ids or session indices ``[num]``; all by default.
        candidates: Mask of the items that may be returned ``[num_items]``; all by default.
        batch_size: Most queries scored at a time; see :func:`recommend`.

    Returns:
        Internal item ids and scores ``[num, k]``, best first. If fewer than ``k`` items remain for a query, places are
        ``-1`` with a score of minus infinity.

    Raises:
        ValueError: See :func:`recommend`.

    Example:
        >>> import torch, torch_geometric, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> model = torch_geometric.nn.LightGCN(5, 8, num_layers=1)
        >>> best_items(model, graph, 2, torch.tensor([0]), candidates=torch.tensor([True, False, True]))[0]
        tensor([[ 2, -1]])
    """
    if not 1 <= k <= graph.num_items:
        raise ArgumentError("k", f"be between 1 and the number of items, {graph.num_items}", k)
    encoded = finite_encoding(model, graph)
    queries = torch.arange(encoded.queries.size(0), device=encoded.queries.device) if queries is None else queries
    norms = [float(rows.norm()) for rows in encoded[:2]]
    safe = norms[0] * norms[1] < torch.finfo(encoded.items.dtype).max  # otherwise products may overflow
    left_out = None if candidates is None else ~candidates
    found = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    values = encoded.items.new_empty(len(queries), k, dtype=None if safe else torch.double)
    # the same memory for all scores: fresh memory costs more than the products
    size, width = max(1, min(batch_size, SCORES // graph.num_items, len(queries))), -(-graph.num_items // GROUP) * GROUP
    space = encoded.items.new_full((size, width), -torch.inf)
    items = encoded.items.t()
    for start in range(0, len(queries), size):
        batch = queries[start : start + size]
        every = space[: len(batch)]
        scores = every[:, : graph.num_items]
        torch.mm(encoded.queries[batch], items, out=scores)
        if not safe and not bool(torch.isfinite(scores).all()):
            every = scores = (encoded.queries[batch].double() @ items.double()).nan_to_num()
        scores[graph.seen(batch)] = -torch.inf
        if left_out is not None:
            scores.masked_fill_(left_out, -torch.inf)
        best, places = largest(every, k)
        found[start : start + size] = places.masked_fill_(best == -torch.inf, -1)
        values[start : start + size] = best
    return found, values
