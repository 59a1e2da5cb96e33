"""Trained models on disk, found again by all that went into them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.schema import warn
from graphunlearn.eval.machine import environment
from graphunlearn.func import sparse
from graphunlearn.nn import Criterion, FitSettings, auxiliary_loss, encode_prefixes, linear_form
from graphunlearn.nn.encoding import _encode
from graphunlearn.operators import Retrain, UnlearningResult

__all__ = ["facts_of_training", "recall", "remember", "retrained"]

FORMAT = 1
_FOREIGN = ("torch", "torch_geometric", "builtins", "abc", "graphunlearn")  # told apart by their versions
_MACHINE = ("graphunlearn", "torch", "torch_geometric", "cpu", "threads", "device")
_FUNCTIONS = (_encode, encode_prefixes, linear_form, auxiliary_loss)  # what a model of one's own may register with


def _code() -> str:
    """A SHA-256 of the code that trains, as it was loaded: a version number lags behind those who edit."""
    digest = hashlib.sha256()
    here = Path(sparse.__file__)
    folders = (here.parents[1] / folder for folder in ("data", "metrics", "nn", "utils"))
    used = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    for path in (here, *used):
        digest.update(path.read_bytes())
    return digest.hexdigest()


CODE = _code()


def facts_of_training(
    role: str,
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None,
    objective: Criterion,
    settings: FitSettings,
) -> dict[str, Any]:
    """Return all that decides what training gives, as JSON holds it: two trainings with equal facts are one.

    These are the model's classes with their options, shapes and whatever is not trained, the objective, the settings
    with their seed, both graphs in their order, the code, the versions, and the machine, since times are kept as well.

    Args:
        role: What the model is trained for; models of different roles are not exchanged.
        model: The model; its trained parameters do not matter.
        graph: What it is trained on.
        validation: What decides when training stops.
        objective: The loss.
        settings: How it is trained.
    """
    state = {name: [list(value.shape), str(value.dtype)] for name, value in model.state_dict().items()}
    fixed = dict(model.named_buffers()) | {n: p for n, p in model.named_parameters() if not p.requires_grad}
    here = environment(next(model.parameters()).device)
    return {
        "format": FORMAT,
        "role": role,
        "code": CODE,
        "machine": {name: here[name] for name in _MACHINE},
        "model": [[name, *_description(module)] for name, module in model.named_modules()],
        "functions": [_source(function.dispatch(type(model))) for function in _FUNCTIONS],
        "state": state,
        "fixed": {name: _digest([value]) for name, value in fixed.items()},
        "objective": [repr(objective), *_sources(type(objective))],
        "settings": dataclasses.asdict(settings),
        "graph": _content(graph),
        "validation": None if validation is None else _content(validation),
    }


def recall(cache: Path, facts: Mapping[str, Any], model: nn.Module) -> dict[str, Any] | None:
    """Load the model of these facts into ``model`` and return what was recorded of it, or ``None``.

    A file that is broken, or not what its name says, counts as none.
    """
    try:
        with safe_open(_path(cache, facts), "pt") as file:
            meta = json.loads((file.metadata() or {})["graphunlearn"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if meta["facts"] != _plain(facts) or meta["digest"] != _digest(_values(tensors)):
            return None
        record = dict(meta["record"])
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    model.eval()
    return record


def remember(cache: Path, facts: Mapping[str, Any], model: nn.Module, record: Mapping[str, Any]) -> None:
    """Write a trained model and what is recorded of it, whole or not at all; a failure is only warned of."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    meta = {"facts": facts, "digest": _digest(_values(tensors)), "record": record}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(_path(cache, facts), save(tensors, {"graphunlearn": json.dumps(meta)}))
    except OSError as error:
        warn(f"a trained model could not be kept for later: {error}")


def retrained(
    method: Retrain,
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    cache: Path | None,
) -> UnlearningResult:
    """Return what ``method`` gives, from the cache where it is there; its log then says so (``cached``).

    Seconds, memory and the rest of the log are those of when it was trained.
    """
    if cache is None or method.objective is None or method.settings is None:
        return method.unlearn(model, graph, request)
    retained, _ = graph.split(request)
    validation = None if method.validation is None else method.validation.without_emptied(graph, retained)
    facts = facts_of_training("retrain", model, retained, validation, method.objective, method.settings)
    found = copy.deepcopy(model)
    record = recall(cache, facts, found)
    if record is not None:
        record["log"]["cached"] = True
        return UnlearningResult(found, retained, request, method.name, prepare_seconds=None, **record)
    result = method.unlearn(model, graph, request)
    kept = ("seconds", "cpu_seconds", "peak_memory", "log")
    remember(cache, facts, result.model, {name: getattr(result, name) for name in kept})
    return result


def _path(cache: Path, facts: Mapping[str, Any]) -> Path:
    return cache / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}.safetensors"


def _plain(facts: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(facts))


def _values(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors)]


def _digest(values: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for value in values:
        value = value.detach().cpu().contiguous()
        digest.update(f"{value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _content(graph: InteractionGraph | SessionGraph) -> list[str]:
    """What a graph holds, and the order it lies in: training draws its batches by position."""
    stores = [(str(store._key), store) for store in graph.stores]
    named = sorted(
        ((kind, name, value) for kind, store in stores for name, value in store.items() if _is_dense(value)),
        key=lambda entry: entry[:2],
    )
    return [graph.fingerprint(), *(f"{kind} {name} {_digest([value])}" for kind, name, value in named)]


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _description(module: nn.Module) -> list[Any]:
    options = {name: value for name, value in sorted(vars(module).items()) if not name.startswith("_")}
    options.pop("training", None)
    kind = type(module)
    return [f"{kind.__module__}.{kind.__qualname__}", *_sources(kind), {k: _fact(v) for k, v in options.items()}]


def _fact(value: Any) -> Any:
    """An option of a module as JSON holds it: exact for plain values and tensors, else what kind of thing it is."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if _is_dense(value):
        return _digest([value])
    if isinstance(value, (list, tuple)):
        return [_fact(entry) for entry in value]
    if isinstance(value, Mapping):
        return sorted([str(key), _fact(entry)] for key, entry in value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_fact(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    kind: Any = value if isinstance(value, (type, Callable)) else type(value)  # type: ignore[arg-type]
    return getattr(kind, "__qualname__", type(kind).__qualname__)


def _sources(kind: type) -> list[str]:
    """The code of a class and its parents, as far as no version number tells of it."""
    return [_source(parent) for parent in kind.__mro__ if parent.__module__.partition(".")[0] not in _FOREIGN]


def _source(thing: Any) -> str:
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
    except (OSError, TypeError):
        return f"{thing.__module__}.{thing.__qualname__}"
