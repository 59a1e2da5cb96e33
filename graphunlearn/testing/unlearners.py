"""The contract of unlearning methods."""

from __future__ import annotations

import copy
import json
import math
import sys
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import nn

from graphunlearn import data, operators
from graphunlearn import nn as models
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.events import EventGraph
from graphunlearn.data.io.plain import json_ready
from graphunlearn.data.request import LEVELS, PAIRS
from graphunlearn.operators.base import Unlearner, UnlearningResult
from graphunlearn.testing import comparing
from graphunlearn.testing.comparing import Before, Graph, difference, refuses, require, reseeded, unchanged

__all__ = ["check_unlearner"]


def check_unlearner(method: Unlearner, model: nn.Module, graph: Graph, request: ForgetRequest) -> None:
    """Check that a method meets the contract of unlearning methods; call it in your own tests.

    The suite works on copies, so the method, the model and the graph do not change. It checks that

    - the method is a dataclass with keyword-only fields, and evaluating its ``repr`` gives an equal method;
    - a call does not change the model (its state, gradients, ``requires_grad`` and training modes), the graph, the
      configuration of the method, and the global random generators;
    - the result contains the graph without the request, a log of JSON values, and a model with finite numbers, the same
      names, shapes, types and training modes, and no memory shared with the original model;
    - a second call gives the same model, also after other draws of global random numbers and in inference mode, and so
      does ``inplace=True``, which corrects the model that is passed;
    - an error during the correction leaves the model unchanged, in place or not;
    - graphs and requests that the method does not serve raise a ``ValueError``.

    The suite runs the method four times; use a small graph. A method that needs a preparation and has none is prepared.

    Args:
        method: The method, with options that make it fast.
        model: A model that the method serves, trained on ``graph`` if the method needs that.
        graph: A graph that the method serves.
        request: A request for events of the graph that the method serves.

    Raises:
        AssertionError: The method does not meet the contract; the message names the violation.
        ValueError: The arguments do not fit together, as in any call of the method.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=12, num_items=9, interactions_per_user=4)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 4, num_layers=2)
        >>> gu.testing.check_unlearner(gu.Unlink(), model, graph, gu.ForgetRequest("user", ["u3"]))
    """
    _check_configuration(method)
    model, made = _with_gradients(model), copy.deepcopy(method)
    if made.needs_preparation and made.preparation is None:
        before = Before(model)
        made.prepare(model, graph.clone())
        unchanged(f"preparing {method.name}", before.change(model), "the model")
    first = _check_call(made, model, graph, request)
    _check_result(first, made, model, graph, request)
    _check_repeated(first, made, model, graph, request)
    _check_inplace(first, made, model, graph, request)
    start = model if first.original is None else first.original
    _check_failure(made, start, graph, request)
    _check_refusals(made, start, graph)


def _with_gradients(model: nn.Module) -> nn.Module:
    """Return a copy of a model with gradients and with different training modes of its modules."""
    model = copy.deepcopy(model)
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    return model


def _check_configuration(method: Unlearner) -> None:
    cls = type(method)
    require(isinstance(method, Unlearner), f"a method must be an Unlearner (got {cls.__name__})")
    name = getattr(cls, "name", None)
    require(isinstance(name, str) and bool(name), f"{cls.__name__} must have a name (got {name!r})")
    own = "__dataclass_fields__" in vars(cls)
    require(own, f"{cls.__name__} must be a dataclass: put @dataclass(kw_only=True) above it (got none)")
    positional = [f.name for f in fields(cls) if f.init and not f.kw_only]
    require(not positional, f"{cls.__name__} must have keyword-only fields (got {', '.join(positional)} by position)")
    kinds, levels = set(cls.kinds), set(cls.levels)
    require(bool(kinds) and kinds <= {"interactions", "sessions"}, f"{name} must serve known kinds (got {cls.kinds})")
    require(bool(levels) and levels <= set(LEVELS), f"{name} must serve known levels (got {cls.levels})")
    text = repr(method)
    try:
        again = eval(*_expression(method))
        for field in fields(cls):
            if not field.repr and field.init:
                object.__setattr__(again, field.name, getattr(method, field.name))
        same = type(again) is cls and again == method
    except Exception as error:
        raise AssertionError(f"the repr of {name} must make it again (got {text}, which raises {error!r})") from error
    require(same, f"the repr of {name} must make it again (got {text}, which makes another)")


def _expression(method: Unlearner) -> tuple[str, dict[str, Any]]:
    """Return the ``repr`` of a method, and the names that its evaluation may need."""
    classes = {type(value) for value in [method, *(getattr(method, f.name) for f in fields(method))]}
    text, names = repr(method), dict[str, Any](inf=math.inf, nan=math.nan)
    for package in (data, models, operators):
        names |= {name: getattr(package, name) for name in package.__all__}
    names |= vars(sys.modules[type(method).__module__])
    for cls in classes:
        text = text.replace(f"{cls.__qualname__}(", f"{cls.__name__}(")
        names[cls.__name__] = cls
    return text, names


def _check_call(method: Unlearner, model: nn.Module, graph: Graph, request: ForgetRequest) -> UnlearningResult:
    """Call the method once, and check that the call does not change its arguments."""
    passed, before = graph.clone(), Before(model)
    named, configured, shown = graph.fingerprint(), copy.copy(method), repr(method)
    with comparing.keeps_random_state(method.name):
        result = method.unlearn(model, passed, request)
    unchanged(method.name, before.change(model), "the model passed")
    unchanged(method.name, difference(graph, passed), "the graph passed")
    require(passed.fingerprint() == named, f"{method.name} must leave the graph passed as it was (got another)")
    same = method == configured and repr(method) == shown
    require(same, f"{method.name} must not change its configuration (got {method!r}, which was {shown})")
    return result


def _check_result(
    result: UnlearningResult, method: Unlearner, model: nn.Module, graph: EventGraph, request: ForgetRequest
) -> None:
    name, after = method.name, result.model
    got = type(result).__name__
    require(isinstance(result, UnlearningResult), f"{name} must return an UnlearningResult (got {got})")
    require(result.method == name, f"the result of {name} must name the method (got {result.method!r})")
    require(result.request is request, f"the result of {name} must hold the request (got {result.request!r})")
    other = difference(graph.split(request)[0], result.graph)
    require(other is None, f"{name} must return the graph without the request (got another '{other}')")
    start = model if result.original is None else result.original
    require(type(after) is type(start), f"{name} must return a {type(start).__name__} (got {type(after).__name__})")
    old, new = start.state_dict(), after.state_dict()
    require(list(old) == list(new), f"{name} must return a model of the same names (got {', '.join(new)})")
    for key, value in new.items():
        was = f"{old[key].dtype} {list(old[key].shape)}"
        got = f"{value.dtype} {list(value.shape)}"
        require(was == got, f"{name} must return '{key}' in its shape and type, {was} (got {got})")
        finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        require(finite, f"{name} must return finite numbers (got NaN or infinity in '{key}')")
    for (key, p), q in zip(start.named_parameters(), after.parameters()):
        same = p.requires_grad == q.requires_grad
        require(same, f"{name} must keep requires_grad of '{key}' (got {q.requires_grad})")
        require(p.device == q.device, f"{name} must keep '{key}' on {p.device} (got {q.device})")
        require(q.grad is None, f"{name} must return a model without gradients (got one of '{key}')")
        require(p.data_ptr() != q.data_ptr() or not p.numel(), f"{name} must return a copy (got '{key}' shared)")
    _same_modes(name, start, after)
    _check_log(name, result.log)


def _same_modes(name: str, start: nn.Module, after: nn.Module) -> None:
    modes = {key: module.training for key, module in start.named_modules()}
    changed = [key or "the model" for key, module in after.named_modules() if module.training != modes.get(key)]
    require(not changed, f"{name} must keep the training mode of every part (got another of {', '.join(changed)})")


def _check_log(name: str, log: Any) -> None:
    sentence = f"the log of {name} must be a dictionary that JSON holds"
    require(isinstance(log, dict), f"{sentence} (got a {type(log).__name__})")
    try:
        again = json.loads(json.dumps(log, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{sentence} (got {log}: {error})") from error
    require(again == log == json_ready(log), f"{sentence} as it is (got {log}, which comes back as {again})")


def _same_state(result: nn.Module, first: nn.Module, sentence: str) -> None:
    new = result.state_dict()
    other = [key for key, value in first.state_dict().items() if key not in new or not _same_tensor(value, new[key])]
    require(not other, f"{sentence} (got another '{', '.join(other)}')")


def _same_tensor(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors are equal; on other devices than the CPU up to rounding, since sums vary there."""
    if a.device.type == "cpu" or not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _check_repeated(
    first: UnlearningResult, method: Unlearner, model: nn.Module, graph: Graph, request: ForgetRequest
) -> None:
    with reseeded():
        second = copy.deepcopy(method).unlearn(copy.deepcopy(model), graph.clone(), request)
    sentence = f"{method.name} must give the same model for the same call"
    _same_state(second.model, first.model, sentence)
    with torch.inference_mode():
        third = copy.deepcopy(method).unlearn(model, graph, request)
    _same_state(third.model, first.model, f"{sentence} inside inference mode")
    bound = any(p.is_inference() for p in third.model.parameters())
    require(not bound, f"{method.name} must return ordinary parameters inside inference mode (got inference tensors)")


def _check_inplace(
    first: UnlearningResult, method: Unlearner, model: nn.Module, graph: Graph, request: ForgetRequest
) -> None:
    name = method.name
    if first.original is not None:
        sentence = f"{name} serves a model of its own, and must refuse inplace=True with a ValueError"
        refuses(partial(copy.deepcopy(method).unlearn, model, graph, request, inplace=True), sentence)
    start = _with_gradients(model if first.original is None else first.original)
    parameters, modes = list(start.parameters()), copy.deepcopy(start)
    result = copy.deepcopy(method).unlearn(start, graph.clone(), request, inplace=True)
    require(result.model is start, f"{name} must return the model passed with inplace=True (got another)")
    kept = all(a is b for a, b in zip(parameters, start.parameters()))
    require(kept, f"{name} must correct the parameters themselves with inplace=True (got new ones)")
    _same_state(start, first.model, f"{name} must make the same correction with inplace=True")
    _same_modes(name, modes, start)


class _OnTheWayError(RuntimeError):
    """The error of a hook that fails on purpose."""


def _fail(model: nn.Module, *_: Any) -> dict[str, Any]:
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    raise _OnTheWayError("on the way")


def _check_failure(method: Unlearner, start: nn.Module, graph: Graph, request: ForgetRequest) -> None:
    failing = copy.deepcopy(method)
    object.__setattr__(failing, "_unlearn", _fail)  # in place of the hook
    for inplace in (True, False):
        model = copy.deepcopy(start)
        before = Before(model)
        try:
            failing.unlearn(model, graph.clone(), request, inplace=inplace)
        except _OnTheWayError:
            pass
        else:
            raise AssertionError(f"{method.name} must pass on what its hook '_unlearn' raises (got a result)")
        who = f"{method.name} with inplace={inplace} whose hook fails"
        unchanged(who, before.change(model, grads=False), "the model")


def _check_refusals(method: Unlearner, start: nn.Module, graph: Graph) -> None:
    name, model = method.name, copy.deepcopy(start)
    before = Before(model)
    for level in LEVELS:
        if level in method.levels and level in graph.levels:
            continue
        other = ForgetRequest.internal(level, _an_event(graph, level))  # type: ignore[arg-type]
        sentence = f"{name} must refuse the level '{level}', which it does not serve, with a ValueError"
        refuses(partial(copy.deepcopy(method).unlearn, model, graph, other), sentence)
    strange: dict[str, Any] = {
        "interactions": InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]])),
        "sessions": SessionGraph.from_sequences([[0, 1, 0], [1, 0]]),
    }
    for kind in strange.keys() - set(method.kinds):
        moved, item = strange[kind].to(graph.device), ForgetRequest("item", ("1",))
        sentence = f"{name} must refuse a graph of the kind '{kind}', which it does not serve, with a ValueError"
        refuses(partial(copy.deepcopy(method).unlearn, model, moved, item), sentence)
        refuses(partial(copy.deepcopy(method).prepare, model, moved), sentence)
    unchanged(f"{name}, where it refuses,", before.change(model), "the model")


def _an_event(graph: EventGraph, level: str) -> torch.Tensor:
    """Return the internal numbers of the first event at a level; zeros if the graph does not have the level."""
    names = {"interaction": ("user", "item"), "click": ("session",)}.get(level, (level,))
    ends = []
    for name in names:
        try:
            ends.append(int(graph.ends(name)[0]))
        except (ValueError, KeyError):
            ends.append(0)
    return torch.tensor([*ends, 0][:2]).view(2, 1) if level in PAIRS else torch.tensor(ends).clamp(min=0)
