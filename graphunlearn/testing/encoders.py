"""The contract of the recommenders that ``encode`` accepts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graphunlearn.nn.encoding import Encoded, encode, num_hops
from graphunlearn.testing.comparing import Before, Graph, difference, keeps_random_state, require, reseeded, unchanged

__all__ = ["check_encoder"]


def check_encoder(model: nn.Module, graph: Graph) -> None:
    """Check that a model meets the contract of the models that ``encode`` accepts; call it in your own tests.

    The suite works on a copy of the model in evaluation mode. It checks that

    - every query and every item has one embedding, all embeddings are finite and have the same width, and the same
      holds for the embeddings before propagation, if any;
    - the model, the graph and the global random generators do not change, and a second call gives the same embeddings;
    - the embeddings are differentiable in the parameters;
    - nothing is cached: the embeddings change with every parameter that has a gradient, with another graph, and with a
      change of the graph in place;
    - calls in inference mode give the same embeddings, and calls after it give differentiable ones.

    Args:
        model: The recommender.
        graph: A small graph that the model encodes, with several interactions or sessions.

    Raises:
        AssertionError: The model does not meet the contract; the message names the violation.
        TypeError: ``encode`` does not accept the model.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4)
        >>> gu.testing.check_encoder(torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2), graph)
    """
    name = f"encode of {type(model).__name__}"
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter.grad = None
    pristine = copy.deepcopy(model)  # this suite never encodes with it, so it has no cache
    before, passed = Before(model), graph.clone()
    with keeps_random_state(name):
        first = _frozen(_encoded(name, model, passed))
    _check_rows(name, first, graph)
    unchanged(name, before.change(model), "the model")
    unchanged(name, difference(graph, passed), "the graph")
    with reseeded():
        require(_same(first, _encoded(name, model, passed)), f"{name} must give the same embeddings twice (got others)")
    _check_inference(name, model, passed, first)
    _check_parameters(name, model, passed, first)
    _check_graphs(name, model, pristine, passed, first)


def _encoded(name: str, model: nn.Module, graph: Graph) -> Encoded:
    try:
        return encode(model, graph)
    except (ValueError, RuntimeError, IndexError) as error:
        raise AssertionError(f"{name} must give embeddings for this graph (got {error!r})") from error


def _frozen(encoded: Encoded) -> Encoded:
    """Return copies of embeddings, since embeddings may be the parameters themselves."""
    return Encoded(*(None if rows is None else rows.detach().clone() for rows in encoded))  # type: ignore[arg-type]


def _tensors(encoded: Encoded) -> list[Tensor]:
    return [rows for rows in encoded if rows is not None]


def _same(a: Encoded, b: Encoded) -> bool:
    """Return whether embeddings are equal up to rounding; cached or random embeddings differ by more."""
    return len(_tensors(a)) == len(_tensors(b)) and all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-5, atol=1e-6 * (1 + float(x.detach().abs().max())))
        for x, y in zip(_tensors(a), _tensors(b))
    )


def _check_rows(name: str, encoded: Encoded, graph: Graph) -> None:
    named = {"queries": graph.num_queries, "items": graph.num_items, "item_base": graph.num_items}
    if encoded.query_base is not None:
        named["query_base"] = encoded.query_base.size(0) if graph.kind == "sessions" else graph.num_queries
    for part, count in named.items():
        rows = getattr(encoded, part)
        if rows is None:
            continue
        require(rows.is_floating_point(), f"{name} must give {part} of real numbers (got {rows.dtype})")
        shape = list(rows.shape)
        require(rows.dim() == 2 and shape[0] == count, f"{name} must give {count} embeddings of {part} (got {shape})")
        require(bool(torch.isfinite(rows).all()), f"{name} must give finite {part} (got NaN or infinity)")
    one, other = encoded.queries.size(1), encoded.items.size(1)
    require(one == other, f"{name} must give queries and items of one width (got {one} and {other})")


def _check_inference(name: str, model: nn.Module, graph: Graph, first: Encoded) -> None:
    with torch.inference_mode():
        inside = _encoded(name, model, graph)
        require(_same(first, inside), f"{name} must give the same embeddings in inference mode (got others)")
    after = _encoded(name, model, graph)
    bound = any(rows.is_inference() for rows in _tensors(after))
    require(not bound, f"{name} must give ordinary tensors after a call in inference mode (got inference tensors)")


def _slopes(name: str, model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Return the gradients of a weighted sum of all embeddings, for the parameters on which the sum depends."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    encoded = _encoded(name, model, graph)
    rows = [part for part in (encoded.queries, encoded.items) if part.requires_grad]
    require(bool(rows), f"{name} must be differentiable (got embeddings without a gradient)")
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
    # gradients that are zero in exact arithmetic, such as those of a bias before a normalisation, are only noise
    return {key: slope for key, slope in slopes.items() if float(slope.abs().max()) > 1e-4 * steepest}


def _check_parameters(name: str, model: nn.Module, graph: Graph, first: Encoded) -> None:
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
        require(not still, f"{name} must not cache: a change of '{key}' must change the embeddings (got the same)")
        require(_same(first, again), f"{name} must not cache: the former '{key}' must give the same again (got others)")


def _check_graphs(name: str, model: nn.Module, pristine: nn.Module, graph: Graph, first: Encoded) -> None:
    sentence = f"{name} must not cache: the embeddings must be those of the graph passed"
    mask = torch.arange(graph.num_interactions, device=graph.device) % 3 != 0
    less = graph.keep(mask)
    with torch.no_grad():
        got = _frozen(_encoded(name, model, less))
        fresh = _encoded(name, copy.deepcopy(pristine), less)
        require(_same(fresh, got), f"{sentence} (got those of another graph)")
        if graph.kind != "interactions":
            return
        moves = num_hops(model, graph) > 0 and bool(mask.any()) and not bool(mask.all())
        same = all(torch.equal(a, b) for a, b in zip(got[:2], first[:2]))
        require(not (moves and same), f"{sentence} (got those of the graph with all interactions)")
        graph.pairs[1] = graph.num_items - 1 - graph.pairs[1]  # in place and without repeated pairs
        fresh = _encoded(name, copy.deepcopy(pristine), graph.clone())
        got = _encoded(name, model, graph)
        require(_same(fresh, got), f"{sentence}, also after a change in place (got those before the change)")
