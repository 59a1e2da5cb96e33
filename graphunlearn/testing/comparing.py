"""What a model, a graph and the random numbers are like, to be compared with what they are like later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphunlearn.data.events import EventGraph

__all__ = ["Before", "content", "difference", "keeps_random_state", "random_state", "require", "same_value"]


def require(condition: bool, sentence: str) -> None:
    """Raise an ``AssertionError`` that says ``sentence``, unless the condition holds.

    Raises:
        AssertionError: It does not.

    Example:
        >>> require(1 > 2, "'a' must be larger than 'b' (got 1 and 2)")
        Traceback (most recent call last):
        AssertionError: 'a' must be larger than 'b' (got 1 and 2)
    """
    if not condition:
        raise AssertionError(sentence)


def same_value(a: Any, b: Any) -> bool:
    """Return whether two values are the same, tensors bit for bit and of one dtype.

    Example:
        >>> same_value(torch.tensor([1]), torch.tensor([1])), same_value(torch.tensor([1]), torch.tensor([1.0]))
        (True, False)
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and a.shape == b.shape and _bits_equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _bits_equal(a: Tensor, b: Tensor) -> bool:
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    return torch.equal(a.detach().isnan(), b.detach().isnan()) and torch.equal(a.nan_to_num(0), b.nan_to_num(0))


class Before:
    """A model as it is now.

    Args:
        model: The model; what is noted of it is a copy.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = Before(model)
        >>> _ = model.eval()
        >>> before.change(model)
        'the training mode of the model'
    """

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.requires_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        self.modes = {name: module.training for name, module in model.named_modules()}
        self.grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}

    def change(self, model: nn.Module, *, grads: bool = True) -> str | None:
        """Return in words what is no longer as it was, ``None`` where all is.

        Args:
            model: The model to compare.
            grads: Whether its gradients are compared too.
        """
        state = model.state_dict()
        if list(state) != list(self.state):
            return "the names in the state_dict"
        for name, value in self.state.items():
            if not same_value(value, state[name].detach()):
                return f"'{name}'"
        for name, parameter in model.named_parameters():
            if parameter.requires_grad != self.requires_grad[name]:
                return f"requires_grad of '{name}'"
            if grads and not same_value(self.grads[name], parameter.grad):
                return f"the gradient of '{name}'"
        for name, module in model.named_modules():
            if module.training != self.modes.get(name):
                return f"the training mode of {f'{name!r}' if name else 'the model'}"
        return None


def content(graph: EventGraph) -> dict[tuple[Any, str], Any]:
    """Return all that a graph holds, by the store that it is in and its name; tensors are copied.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 0]]))
        >>> [name for store, name in content(graph) if store == ("user", "interacts", "item")]
        ['edge_index']
    """
    held = {(store._key, name): value for store in graph.stores for name, value in store.items()}
    return {key: value.detach().clone() if isinstance(value, Tensor) else value for key, value in held.items()}


def difference(a: EventGraph | dict[tuple[Any, str], Any], b: EventGraph | dict[tuple[Any, str], Any]) -> str | None:
    """Return the name of what two graphs (or contents of graphs) do not share, ``None`` where they are the same.

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
    """Return the state of the global random numbers of torch (on every device in use), NumPy and Python.

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
def keeps_random_state(who: str) -> Iterator[None]:
    """Raise where the block draws from global random numbers, and take them back to where they were in any case.

    Args:
        who: What runs in the block, as the sentence of the error names it.

    Raises:
        AssertionError: Global random numbers were drawn or seeded.

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
    require(
        not changed, f"{who} must leave the global random numbers alone, and use a generator (got {changed} changed)"
    )
