"""Cache of trained models on disk, keyed by everything that determines the training."""

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
from graphunlearn.func import adjacency, kept, sparse
from graphunlearn.nn import (
    Criterion,
    FitSettings,
    auxiliary_loss,
    encode_prefixes,
    linear_form,
)
from graphunlearn.nn.encoding import _encode
from graphunlearn.nn.origin import origin_of
from graphunlearn.nn.training.anew import train_anew
from graphunlearn.operators import Retrain, UnlearningResult
from graphunlearn.operators.shared.heldout import validation_left

__all__ = ["earlier_models", "facts_of_training", "recall", "remember", "retrained", "trained"]

FORMAT = 1
_FOREIGN = ("torch", "torch_geometric", "builtins", "abc", "graphunlearn")  # identified by version, not by source
_MACHINE = ("graphunlearn", "torch", "torch_geometric", "cpu", "threads", "device")
_FUNCTIONS = (_encode, encode_prefixes, linear_form, auxiliary_loss)  # functions that custom models register with


def _code() -> str:
    """Return the SHA-256 of the training code at import, since edited code may keep its version number."""
    digest = hashlib.sha256()
    own = [Path(module.__file__ or "") for module in (adjacency, kept, sparse)]
    folders = (own[0].parents[1] / folder for folder in ("data", "metrics", "nn", "utils"))
    used = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    for path in (*own, *used):
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
    """Return everything that determines the result of a training, in JSON types.

    Two trainings with equal facts give the same model. The facts are the classes of the model with their options,
    shapes and untrained values, the objective, the settings with their seed, both graphs in their order, the code, and
    the versions. The hardware is included because the cache also records times.

    Args:
        role: Purpose of the model; models with different roles are never exchanged.
        model: The model. The values of its trainable parameters do not count.
        graph: The training graph.
        validation: Held-out data for early stopping, or ``None``.
        objective: The loss.
        settings: Training settings.

    Returns:
        The facts, which serve as the key of :func:`recall` and :func:`remember`.
    """
    state = {name: [list(value.shape), str(value.dtype)] for name, value in model.state_dict().items()}
    fixed = dict(model.named_buffers()) | {n: p for n, p in model.named_parameters() if not p.requires_grad}
    here, origin = environment(next(model.parameters()).device), origin_of(model)
    own = {} if origin is None else {"origin": origin.identity}
    return own | {
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
    """Load a cached model into ``model`` and return its record.

    A file that is broken or that does not match its name is ignored.

    Args:
        cache: Folder of the cache.
        facts: The facts of the training; see :func:`facts_of_training`.
        model: The model that receives the parameters; it is set to evaluation mode.

    Returns:
        The record that was written with the model, or ``None`` if the cache does not contain the model.
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
    """Write a trained model and its record to the cache, atomically; a failure to write only gives a warning.

    Args:
        cache: Folder of the cache, which is created if it does not exist.
        facts: The facts of the training; see :func:`facts_of_training`.
        model: The trained model.
        record: Results of the training, in JSON types.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    meta = {"facts": facts, "digest": _digest(_values(tensors)), "record": record}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(_path(cache, facts), save(tensors, {"graphunlearn": json.dumps(meta)}))
    except OSError as error:
        warn(f"a trained model could not be kept for later: {error}")


def earlier_models(cache: Path, models: Iterable[nn.Module], graph: InteractionGraph | SessionGraph) -> list[Path]:
    """Return the cached models of the sizes of some models that were trained on other data than a graph.

    Args:
        cache: Folder of the cache, which need not exist.
        models: The models of a lineage.
        graph: The newest training graph; models that were trained on it may stay.

    Returns:
        The files.
    """
    states = [{name: [list(value.shape), str(value.dtype)] for name, value in m.state_dict().items()} for m in models]
    found, newest = [], graph.fingerprint()
    for path in sorted(cache.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["graphunlearn"])["facts"]
            if facts["state"] in states and facts["graph"][0] != newest:
                found.append(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError):
            continue
    return found


def retrained(
    method: Retrain,
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    cache: Path | None,
) -> UnlearningResult:
    """Return a retrained model, from the cache if it contains the model.

    Args:
        method: The retraining method.
        model: The model to train from new parameters.
        graph: The training graph before forgetting.
        request: The forget request.
        cache: Folder of the cache; ``None`` to retrain without a cache.

    Returns:
        The result of ``method``. If it comes from the cache, its log has the entry ``cached``; seconds, memory and the
        rest of the log are those of the original training.
    """
    if cache is None or method.objective is None or method.settings is None:
        return method.unlearn(model, graph, request)
    retained, _ = graph.split(request)
    validation = validation_left(method.validation, graph, retained)
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


def trained(
    role: str,
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None,
    objective: Criterion,
    settings: FitSettings,
    cache: Path | None,
) -> bool:
    """Train a model from new parameters, in place, or load it from the cache.

    Args:
        role: Purpose of the model; see :func:`facts_of_training`.
        model: The model; its parameters are redrawn with the seed of the settings.
        graph: The training graph.
        validation: Held-out data for early stopping, or ``None``.
        objective: The loss.
        settings: Training settings.
        cache: Folder of the cache; ``None`` to train without a cache.

    Returns:
        Whether the model came from the cache.
    """
    facts: dict[str, Any] = {}
    if cache is not None:
        facts = facts_of_training(role, model, graph, validation, objective, settings)
        if recall(cache, facts, model) is not None:
            return True
    given: dict[str, Any] = {"validation": validation, "objective": objective, "settings": settings}
    result = train_anew(model, graph, **given, progress=False)
    if cache is not None:
        remember(cache, facts, model, dataclasses.asdict(result))
    return False


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
    """Return fingerprints of a graph's content in its order, which matters as batches are drawn by position."""
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
    """Return an option of a module in JSON types: plain values and tensors exactly, other objects by their type."""
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
    """Return fingerprints of the source code of a class and its parents, except classes identified by a version."""
    return [_source(parent) for parent in kind.__mro__ if parent.__module__.partition(".")[0] not in _FOREIGN]


def _source(thing: Any) -> str:
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
    except (OSError, TypeError):
        return f"{thing.__module__}.{thing.__qualname__}"
