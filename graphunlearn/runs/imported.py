"""Models that another program trained, with their weights and their data, as runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from graphunlearn.errors import ArgumentError, FileError
from graphunlearn.nn import Encoded, encode
from graphunlearn.nn.origin import origin_of
from graphunlearn.nn.training.fitting import seeded
from graphunlearn.runs.code import CodeError
from graphunlearn.runs.run import Graph, ModelSpec

__all__ = ["built_with", "check_graph_use", "read_weights"]

NESTED = ("state_dict", "model_state_dict", "model")
"""Names under which a checkpoint may hold the ``state_dict``."""
CLOSE = 1e-4  # largest difference relative to the largest entry; sums differ in single precision


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a ``state_dict`` from a file, without running code from it.

    Args:
        path: A ``.safetensors`` file, or a file that ``torch.save`` wrote, which is read with ``weights_only=True``.

    Returns:
        The tensors by name.

    Raises:
        ArgumentError: The file does not exist, is broken, or holds something else than tensors, or a tensor has half
            precision, or NaN or infinity.
    """
    if not path.is_file():
        raise FileError("weights", "be an existing file", f"'{path}'")
    if path.suffix == ".safetensors":
        try:
            with safe_open(str(path), framework="pt") as file:
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ArgumentError("weights", "be a whole safetensors file", f"'{path}': {error}") from None
    else:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            hint = "save model.state_dict(), best with safetensors.torch.save_file; other pickles may run code"
            got = f"'{path}', which holds more or is broken"
            raise ArgumentError("weights", "hold tensors alone", got, hint) from error
        if isinstance(found, dict) and not any(isinstance(value, Tensor) for value in found.values()):
            found = next((found[name] for name in NESTED if isinstance(found.get(name), dict)), found)
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items())
    ):
        raise ArgumentError("weights", "hold a state_dict, tensors by their names", f"'{path}'")
    for name, value in found.items():
        _check_values(name, value)
    return dict(found)


def _check_values(name: str, value: Tensor) -> None:
    """Raise ArgumentError if a tensor of the file has half precision, or NaN or infinity."""
    if not value.is_floating_point():
        return
    if torch.finfo(value.dtype).bits < 32:
        hint = "save model.float().state_dict(), and convert the result back"
        raise ArgumentError("weights", "have single or double precision", f"{_kind(value)} in '{name}'", hint)
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        got = f"NaN or infinity in {bad:,} of the {value.numel():,} entries of '{name}'"
        raise ArgumentError("weights", "be finite", got)


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def built_with(spec: ModelSpec, graph: Graph, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the model of a description with the given weights, in evaluation mode.

    Args:
        spec: The description of the model.
        graph: The training graph.
        weights: The tensors by name.

    Returns:
        The model.

    Raises:
        ArgumentError: A tensor is missing, is one too many, or has another shape or type than in the model.
        CodeError: The user's code failed.
    """
    model = spec.build(graph)
    own = model.state_dict()
    made = f"the model that {spec.name} makes for {_sizes(graph)}"
    expected = f"fit {made}"
    for name, value in own.items():
        given = weights.get(name)
        if given is None:
            raise ArgumentError("weights", expected, f"no '{name}', which is {list(value.shape)} in the model")
        if given.shape != value.shape:
            got = f"'{name}' of shape {list(given.shape)} in the file and {list(value.shape)} in the model"
            rows = given.dim() == value.dim() > 1 and given.shape[1:] == value.shape[1:]
            hint = "every user and item needs its row, those without interactions as well" if rows else ""
            raise ArgumentError("weights", expected, got, hint)
        if given.dtype != value.dtype:
            got = f"'{name}' of type {_kind(given)} in the file and {_kind(value)} in the model"
            raise ArgumentError("weights", expected, got)
    more = [name for name in weights if name not in own]
    if more:
        names = ", ".join(f"'{name}'" for name in more[:3]) + (f" and {len(more) - 3} more" if len(more) > 3 else "")
        raise ArgumentError("weights", expected, f"{names}, which the model lacks")
    model.load_state_dict(dict(weights))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ArgumentError("model", "have a parameter that is trained", "none")
    return model.eval()


def _sizes(graph: Graph) -> str:
    counts = {name: graph.sizes[name] for name in ("users", "items") if name in graph.sizes and name != graph.unit}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items())


def check_graph_use(spec: ModelSpec, graph: Graph, model: nn.Module) -> None:
    """Check that a model of one's own computes from the graph that it is given, and keeps nothing of another one.

    The model is built and encoded for the training graph, and for every second interaction or click of it.

    Args:
        spec: The description of the model.
        graph: The training graph.
        model: The model with its weights.

    Raises:
        ArgumentError: The embeddings are so large that their inner products may be infinite.
        CodeError: The code failed, an embedding has a wrong shape, is not finite or not differentiable, or the model
            keeps something of the graph that it was built for.
    """
    if spec.code is None:
        _check_scores(encode(model, graph))
        return
    _check_scores(_encoded(spec, model, graph))
    half = torch.arange(graph.num_interactions, device=graph.device) % 2 == 0
    part: Graph = graph.keep(half)
    own, again, other = (_seeded_build(spec, model, of) for of in (graph, graph, part))
    _check_state(spec, own.state_dict(), again.state_dict(), other.state_dict(), dict(model.named_parameters()))
    other.load_state_dict(model.state_dict())
    fresh, reused = _encoded(spec, other.eval(), part), _encoded(spec, model, part)
    for name, one, two in zip(("query", "item"), fresh, reused):
        assert one is not None
        assert two is not None
        scale = max(float(one.detach().abs().max()) if one.numel() else 0.0, 1e-12)
        if not torch.allclose(one, two, rtol=0, atol=CLOSE * scale):
            expected = "give the embeddings of the graph that it is given"
            got = f"other {name} embeddings for a part of the data than a model built for that part has"
            raise CodeError("encode", expected, got, "the model must keep nothing of the graph that it was built for")


def _encoded(spec: ModelSpec, model: nn.Module, graph: Graph) -> Encoded:
    """Return the embeddings, after a check of their form."""
    name = (spec.code.encode if spec.code is not None else None) or f"the encoding of {type(model).__name__}"
    try:
        encoded = encode(model, graph)
        queries, items = encoded.queries, encoded.items
        width = queries.size(1), items.size(1)
    except CodeError:
        raise
    except TypeError as error:
        if "that 'encode' supports" in str(error):
            hint = "a function (model, graph) -> (queries, items)"
            got = f"none for {type(model).__name__}"
            raise CodeError("encode", "name the encoding of the model", got, hint) from None
        raise CodeError("encode", "give two tables of embeddings", f"{name}, {_told(error)}") from error
    except Exception as error:
        raise CodeError("encode", "give two tables of embeddings", f"{name}, {_told(error)}") from error
    if width[0] != width[1]:
        got = f"{name}, with {width[0]} for {graph.query}s and {width[1]} for items"
        raise CodeError("encode", "give embeddings of one width", got)
    for what, rows in ((graph.query, queries), ("item", items)):
        bad = int((~torch.isfinite(rows).all(1)).sum())
        if bad:
            got = f"{name}, with NaN or infinity in {bad:,} of {len(rows):,} {what} embeddings"
            raise CodeError("encode", "give finite embeddings", got)
    if torch.is_grad_enabled() and not (queries.requires_grad or items.requires_grad):
        got = f"{name}, whose embeddings have no gradient"
        raise CodeError("encode", "give embeddings that are differentiable in the parameters", got)
    return encoded


def _check_scores(encoded: Encoded) -> None:
    """Raise ArgumentError if an inner product of embeddings may overflow."""
    norms = [float(rows.detach().double().norm(dim=1).max()) for rows in encoded[:2] if rows.numel()]
    if len(norms) == 2 and not norms[0] * norms[1] < torch.finfo(encoded.queries.dtype).max:
        got = f"norms of embeddings up to {norms[0]:.3g} and {norms[1]:.3g}"
        raise ArgumentError("weights", "give finite scores", got)


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"which raised {type(error).__name__}{f': {text}' if text else ''}"


def _seeded_build(spec: ModelSpec, model: nn.Module, graph: Graph) -> nn.Module:
    with seeded(model, 0):
        built = spec.build(graph)
        origin = origin_of(built)
        return built if origin is None else origin.build()


def _check_state(
    spec: ModelSpec,
    own: Mapping[str, Tensor],
    again: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
) -> None:
    """Raise CodeError if a tensor depends on the interactions that the model is built for."""
    for name, value in own.items():
        if name in other and other[name].shape == value.shape:
            if not torch.equal(value, again[name]) or torch.equal(value, other[name]):
                continue  # drawn without a seed, or the same for both graphs
            if name in parameters and spec.code is not None and spec.code.retrain is not None:
                continue  # the first values are of no use: the retraining sets its own
        what = "parameter" if name in parameters else "buffer"
        hint = "make it in 'encode', from the graph that it is given"
        if what == "buffer":
            hint += ", or register it with persistent=False"
        elif name in other and other[name].shape == value.shape:
            hint = "a training of its own can set it"
        expected = "build a model whose tensors follow from the numbers of users and items"
        got = f"{spec.name}, of which the {what} '{name}' depends on the interactions"
        raise CodeError("model", expected, got, hint)
