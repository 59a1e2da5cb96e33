"""What every recommender keeps that ``encode`` knows."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.nn.encoding import Encoded, encode, num_hops
from graphunlearn.testing.comparing import Before, content, difference, keeps_random_state, require

__all__ = ["check_encoder"]


def check_encoder(model: nn.Module, graph: InteractionGraph | SessionGraph) -> None:
    """Check that ``encode`` of a model keeps the contract of all recommenders; call it in a test of your own.

    The suite works on a copy of the model, in evaluation mode. It checks that

    - queries and items get one row each, all of one width and finite, and so do the rows before propagation, if any;
    - the model, the graph and the global random numbers stay as they were, and a second call gives the same rows;
    - gradients reach the parameters;
    - nothing is cached: a change of any parameter that has a gradient shows, and so does another graph, and a change of
      the graph in place;
    - inside inference mode the rows are the same, and outside it there are gradients afterwards.

    Args:
        model: The recommender.
        graph: A graph that it encodes, small and with several interactions or sessions.

    Raises:
        AssertionError: The encoding breaks the contract; the sentence says where.
        TypeError: ``encode`` does not know the model.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4)
        >>> gu.testing.check_encoder(torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2), graph)
    """
    name = f"encode of {type(model).__name__}"
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter.grad = None
    pristine = copy.deepcopy(model)  # has never encoded, as far as it depends on this suite
    before, passed = Before(model), graph.clone()
    with keeps_random_state(name):
        first = _frozen(_encoded(name, model, passed))
    _check_rows(name, first, graph)
    changed = before.change(model)
    require(changed is None, f"{name} must leave the model as it was (got {changed} changed)")
    changed = difference(content(graph), content(passed))
    require(changed is None, f"{name} must leave the graph as it was (got {changed} changed)")
    torch_state = torch.random.get_rng_state()
    try:
        torch.rand(7)
        require(_same(first, _encoded(name, model, passed)), f"{name} must give the same rows twice (got others)")
    finally:
        torch.random.set_rng_state(torch_state)
    _check_inference(name, model, passed, first)
    _check_parameters(name, model, passed, first)
    _check_graphs(name, model, pristine, passed, first)


def _encoded(name: str, model: nn.Module, graph: InteractionGraph | SessionGraph) -> Encoded:
    try:
        return encode(model, graph)
    except (ValueError, RuntimeError, IndexError) as error:
        raise AssertionError(f"{name} must give rows for this graph (got {error!r})") from error


def _frozen(encoded: Encoded) -> Encoded:
    """Return a copy of rows, which may be the parameters themselves."""
    return Encoded(*(None if rows is None else rows.detach().clone() for rows in encoded))  # type: ignore[arg-type]


def _tensors(encoded: Encoded) -> list[Tensor]:
    return [rows for rows in encoded if rows is not None]


def _same(a: Encoded, b: Encoded) -> bool:
    """Whether rows are the same up to the order of sums; what is cached or drawn differs by more."""
    return len(_tensors(a)) == len(_tensors(b)) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-5, atol=1e-6 * (1 + float(x.detach().abs().max())))
        for x, y in zip(_tensors(a), _tensors(b))
    )


def _check_rows(name: str, encoded: Encoded, graph: InteractionGraph | SessionGraph) -> None:
    named = {"queries": graph.num_queries, "items": graph.num_items, "item_base": graph.num_items}
    if encoded.query_base is not None:
        named["query_base"] = encoded.query_base.size(0) if graph.kind == "sessions" else graph.num_queries
    for part, count in named.items():
        rows = getattr(encoded, part)
        if rows is None:
            continue
        require(rows.is_floating_point(), f"{name} must give {part} of real numbers (got {rows.dtype})")
        shape = list(rows.shape)
        require(rows.dim() == 2 and shape[0] == count, f"{name} must give {count} rows of {part} (got {shape})")
        require(bool(torch.isfinite(rows).all()), f"{name} must give finite {part} (got NaN or infinity)")
    widths = encoded.queries.size(1), encoded.items.size(1)
    require(
        widths[0] == widths[1], f"{name} must give queries and items of one width (got {widths[0]} and {widths[1]})"
    )


def _check_inference(name: str, model: nn.Module, graph: InteractionGraph | SessionGraph, first: Encoded) -> None:
    with torch.inference_mode():
        inside = _encoded(name, model, graph)
        require(_same(first, inside), f"{name} must give the same rows inside inference mode (got others)")
    after = _encoded(name, model, graph)
    bound = any(rows.is_inference() for rows in _tensors(after))
    require(not bound, f"{name} must give ordinary rows after a call in inference mode (got those of that call)")


def _slopes(name: str, model: nn.Module, graph: InteractionGraph | SessionGraph) -> dict[str, Tensor]:
    """Return the gradients of a weighted sum of all rows, of those parameters that matter to it."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    encoded = _encoded(name, model, graph)
    rows = [part for part in (encoded.queries, encoded.items) if part.requires_grad]
    require(bool(rows), f"{name} must be differentiable (got rows without a gradient)")
    total = sum((part * torch.arange(part.numel()).to(part).view_as(part).cos()).sum() for part in rows)
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    try:
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise AssertionError(f"{name} must be differentiable (got {error!r})") from error
    slopes = {key: slope for key, slope in zip(parameters, found) if slope is not None and slope.numel()}
    finite = all(bool(torch.isfinite(slope).all()) for slope in slopes.values())
    require(finite, f"{name} must have finite gradients (got NaN or infinity)")
    steepest = max((float(slope.abs().max()) for slope in slopes.values()), default=0.0)
    require(steepest > 0, f"{name} must be differentiable in the parameters (got no gradient of any)")
    # the gradient of what cancels in exact arithmetic, such as a bias before a normalisation, is noise
    return {key: slope for key, slope in slopes.items() if float(slope.abs().max()) > 1e-4 * steepest}


def _check_parameters(name: str, model: nn.Module, graph: InteractionGraph | SessionGraph, first: Encoded) -> None:
    parameters = dict(model.named_parameters())
    for key, slope in _slopes(name, model, graph).items():
        parameter, kept = parameters[key], parameters[key].detach().clone()
        with torch.no_grad():
            size = 0.1 * max(1.0, float(kept.abs().max())) / float(slope.abs().max())
            parameter.add_(slope, alpha=size)
            moved = _frozen(_encoded(name, model, graph))
            parameter.copy_(kept)
            again = _encoded(name, model, graph)
        still = all(torch.equal(a, b) for a, b in zip(moved[:2], first[:2]))
        require(not still, f"{name} must not cache: a change of '{key}' must show (got the rows of before)")
        require(_same(first, again), f"{name} must not cache: '{key}' taken back must show (got other rows)")


def _check_graphs(
    name: str,
    model: nn.Module,
    pristine: nn.Module,
    graph: InteractionGraph | SessionGraph,
    first: Encoded,
) -> None:
    sentence = f"{name} must not cache: what is passed must be what propagates"
    mask = torch.arange(graph.num_interactions, device=graph.device) % 3 != 0
    less = graph.keep(mask)
    with torch.no_grad():
        got = _frozen(_encoded(name, model, less))
        require(_same(_encoded(name, copy.deepcopy(pristine), less), got), f"{sentence} (got rows of another graph)")
        if graph.kind != "interactions":
            return
        moves = num_hops(model, graph) > 0 and bool(mask.any()) and not bool(mask.all())
        same = all(torch.equal(a, b) for a, b in zip(got[:2], first[:2]))
        require(not (moves and same), f"{sentence} (got the rows of the graph with all interactions)")
        graph.pairs[1] = graph.num_items - 1 - graph.pairs[1]  # in place, and still without a repeated pair
        fresh = _encoded(name, copy.deepcopy(pristine), graph.clone())
        got = _encoded(name, model, graph)
        require(_same(fresh, got), f"{sentence}, changed in place or not (got rows of the graph before the change)")
