"""Comparison of models, graphs and random numbers before and after a call."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.events import EventGraph

__all__ = [
    *("Before", "Graph", "content", "difference", "keeps_random_state", "reseeded", "random_state"),
    *("refuses", "require", "same_value", "unchanged"),
]

Graph: TypeAlias = InteractionGraph | SessionGraph


def require(condition: bool, sentence: str) -> None:
    """Raise an ``AssertionError`` if a condition does not hold.

    Args:
        condition: The condition.
        sentence: The message of the error.

    Raises:
        AssertionError: The condition does not hold.

    Example:
        >>> require(1 > 2, "'a' must be larger than 'b' (got 1 and 2)")
        Traceback (most recent call last):
        AssertionError: 'a' must be larger than 'b' (got 1 and 2)
    """
    if not condition:
        raise AssertionError(sentence)


def unchanged(who: str, change: str | None, what: str) -> None:
    """Raise an ``AssertionError`` if something has changed.

    Args:
        who: The cause of the change, as the error names it.
        change: The change; ``None`` if there is none.
        what: The object that must not change.

    Raises:
        AssertionError: There is a change.
    """
    require(change is None, f"{who} must leave {what} as it was (got {change} changed)")


def refuses(call: Callable[[], object], sentence: str) -> None:
    """Raise an ``AssertionError`` if a call does not raise a ``ValueError``.

    Args:
        call: The call.
        sentence: The requirement, for the message of the error.

    Raises:
        AssertionError: The call raises no error, or an error of another type.
    """
    try:
        call()
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"{sentence} (got {error!r})") from error
    raise AssertionError(f"{sentence} (got no error)")


def same_value(a: Any, b: Any) -> bool:
    """Return whether two values are equal; tensors must have the same bits, dtype, shape and device.

    Args:
        a: A value.
        b: Another value.

    Example:
        >>> same_value(torch.tensor([1]), torch.tensor([1])), same_value(torch.tensor([1]), torch.tensor([1.0]))
        (True, False)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and bool(a == b)
    if a.dtype != b.dtype or a.device != b.device or a.shape != b.shape:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


class Before:
    """A copy of the state of a model, for a comparison after a call.

    Args:
        model: The model.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = Before(model)
        >>> _ = model.eval()
        >>> before.change(model)
        'the training mode of the model'
    """

    def __init__(self, model: nn.Module) -> None:
        self.facts = _facts(model)

    def change(self, model: nn.Module, *, grads: bool = True) -> str | None:
        """Return the first difference between the copied state and the state of a model.

        Args:
            model: The model to compare.
            grads: Whether gradients are compared too.

        Returns:
            The difference in words; ``None`` if there is none.
        """
        now = _facts(model)
        for what in {**self.facts, **now}:
            compared = grads or not what.startswith("the gradient of")
            if compared and not same_value(self.facts.get(what), now.get(what)):
                return what
        return None


def _facts(model: nn.Module) -> dict[str, Any]:
    """Return copies of the state, the gradients and the modes of a model, by their names in error messages."""
    state = model.state_dict()
    facts: dict[str, Any] = {"the names in the state_dict": list(state)}
    facts |= {f"'{name}'": value.detach().clone() for name, value in state.items()}
    for name, parameter in model.named_parameters():
        facts[f"requires_grad of '{name}'"] = parameter.requires_grad
        facts[f"the gradient of '{name}'"] = None if parameter.grad is None else parameter.grad.clone()
    for name, module in model.named_modules():
        facts[f"the training mode of {f'{name!r}' if name else 'the model'}"] = module.training
    return facts


def content(graph: EventGraph) -> dict[tuple[Any, str], Any]:
    """Return copies of all attributes of a graph.

    Args:
        graph: The graph.

    Returns:
        The attributes by the key of their store and their name.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]))
        >>> [name for store, name in content(graph) if store == ("user", "interacts", "item")]
        ['edge_index']
    """
    held = {(store._key, name): value for store in graph.stores for name, value in store.items()}
    return {key: value.detach().clone() if isinstance(value, Tensor) else value for key, value in held.items()}


def difference(a: EventGraph | dict[tuple[Any, str], Any], b: EventGraph | dict[tuple[Any, str], Any]) -> str | None:
    """Return the name of the first attribute in which two graphs differ.

    Args:
        a: A graph, or its :func:`content`.
        b: Another graph, or its content.

    Returns:
        The name; ``"class"`` for graphs of different classes, and ``None`` for equal graphs.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1], [1]])
        >>> difference(graph, graph.clone()), difference(graph, graph.keep(graph.items == 1))
        (None, 'x')
    """
    if not isinstance(a, dict) and not isinstance(b, dict) and type(a) is not type(b):
        return "class"
    first, second = (side if isinstance(side, dict) else content(side) for side in (a, b))
    for key in [*first, *(key for key in second if key not in first)]:
        if key not in first or key not in second or not same_value(first[key], second[key]):
            return key[1]
    return None


def random_state() -> list[Any]:
    """Return the states of the global random generators of PyTorch (on every device in use), NumPy and Python.

    Example:
        >>> before = random_state()
        >>> _ = torch.rand(1)
        >>> bool((random_state()[0] == before[0]).all())
        False
    """
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.random.get_rng_state(), np.random.get_state(), random.getstate(), devices]  # noqa: NPY002


def _set_random_state(state: list[Any]) -> None:
    torch.random.set_rng_state(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
    random.setstate(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])


@contextmanager
def reseeded() -> Iterator[None]:
    """Change the state of PyTorch's global random generator within a block.

    Example:
        >>> before = random_state()
        >>> with reseeded():
        ...     bool((random_state()[0] == before[0]).all())
        False
        >>> bool((random_state()[0] == before[0]).all())
        True
    """
    before = random_state()
    try:
        torch.rand(7)
        yield
    finally:
        _set_random_state(before)


@contextmanager
def keeps_random_state(who: str) -> Iterator[None]:
    """Raise an ``AssertionError`` if the block uses the global random generators; restore their states in any case.

    Args:
        who: Name of the code in the block, for the error.

    Raises:
        AssertionError: The block drew global random numbers or seeded a global generator.

    Example:
        >>> with keeps_random_state("the draw"):
        ...     _ = torch.rand(1)
        Traceback (most recent call last):
        AssertionError: the draw must leave the global random numbers alone, and use a generator (got torch's changed)
    """
    before = random_state()
    try:
        yield
        after = random_state()
    finally:
        _set_random_state(before)
    same = {
        "torch": torch.equal(before[0], after[0]),
        "NumPy": bool((before[1][1] == after[1][1]).all()) and before[1][2:] == after[1][2:],
        "Python": before[2] == after[2],
        "CUDA": not before[3] or all(torch.equal(a, b) for a, b in zip(before[3], after[3])),
    }
    changed = ", ".join(f"{name}'s" for name, kept in same.items() if not kept)
    sentence = f"{who} must leave the global random numbers alone, and use a generator"
    require(not changed, f"{sentence} (got {changed} changed)")
