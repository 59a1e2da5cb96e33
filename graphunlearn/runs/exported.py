"""Exports of corrected models: folders of weights, configuration, facts about the unlearning, and a model card."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch_geometric
from safetensors import SafetensorError
from torch import Tensor, nn

from graphunlearn._version import __version__
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.folders import check_folder, replaced_folder
from graphunlearn.data.request import PAIRS
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.nn.precision import check_finite
from graphunlearn.operators.base import Unlearner, UnlearningResult
from graphunlearn.runs.card import model_card
from graphunlearn.runs.folder import FORMAT, FolderReader, packed, whole, write_parts
from graphunlearn.runs.run import Graph

__all__ = ["Exported", "export", "load_export"]

CARD = "README.md"
EXPORTED = frozenset({"model.safetensors", "config.json", "unlearning.json", CARD})
"""Names of all files of an export; a folder with any other file is never replaced."""


@dataclass(frozen=True)
class Exported:
    """The folder of an export, and the secret key of its digests, which must be kept outside the folder.

    Args:
        folder: The folder.
        key: The key.
    """

    folder: Path
    key: bytes = field(repr=False)


def export(
    result: UnlearningResult,
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    graph: InteractionGraph | SessionGraph | None = None,
    unlearner: Unlearner | None = None,
    audit: Mapping[str, Any] | None = None,
    key: bytes | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a corrected model as a folder in the manner of Hugging Face.

    ``model.safetensors`` contains the weights, ``config.json`` the class of the model, the shapes of its tensors and
    the sizes of the graph, ``unlearning.json`` facts about the request and the method, and ``README.md`` the same as a
    model card. None of the files contains a forgotten id: they contain counts, and digests that reveal nothing without
    the key. All parameters and buffers are written. If the model has its training graph in a buffer, put the retained
    graph there first. If writing fails, an existing folder stays unchanged.

    Args:
        result: The result of an unlearning method. Its ``model`` may be replaced before by a model of another library
            with the same weights, as the adapters do.
        folder: The folder to write.
        model: The original model, of which a keyed fingerprint is recorded.
        graph: The original graph, of which the number of removed interactions or clicks and a keyed fingerprint are
            recorded.
        unlearner: The method, of which the options are recorded.
        audit: Figures of an audit to record, as JSON values.
        key: At least 16 secret bytes for the digests; by default drawn at random.
        overwrite: Whether an earlier export may be replaced.

    Returns:
        The folder and the key. With the key, ``request.digest(key)`` proves later which request was forgotten.

    Raises:
        ArgumentError: The folder must not be written, the key is too short, ``graph`` is not the original graph,
            ``unlearner`` is another method, ``audit`` is not JSON or contains a forgotten id, or a tensor of the model
            cannot be saved.
        OSError: A file could not be written, for example on a full disk.

    Example:
        >>> import pathlib, tempfile, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> exported = gu.export(result, pathlib.Path(tempfile.mkdtemp(), "a"), model=model, graph=graph)
        >>> sorted(path.name for path in exported.folder.iterdir())
        ['README.md', 'config.json', 'model.safetensors', 'unlearning.json']
    """
    folder, key = Path(folder), secrets.token_bytes(32) if key is None else key
    check_folder(folder, EXPORTED, overwrite=overwrite)
    try:
        weights = packed(result.model.state_dict(), {"format": "pt"})
    except (SafetensorError, RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
        raise ArgumentError("result", "hold a model of dense tensors", f"one that cannot be saved: {error}") from None
    config, facts = described(result, model, graph, unlearner, audit, key)
    with replaced_folder(folder) as new:
        write_parts(new, {"model": weights}, {"config": config, "unlearning": facts})
        (new / CARD).write_bytes(model_card(config, facts).encode())
    return Exported(folder, key)


def described(
    result: UnlearningResult,
    model: nn.Module | None,
    graph: Graph | None,
    unlearner: Unlearner | None,
    audit: Mapping[str, Any] | None,
    key: bytes,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of ``config.json`` and of ``unlearning.json``, which contain no forgotten id.

    Args:
        result: The result.
        model: The original model.
        graph: The original graph.
        unlearner: The method.
        audit: Figures of an audit, as JSON values.
        key: The key of the digests.

    Raises:
        ArgumentError: See :func:`export`.
    """
    if unlearner is not None and unlearner.name != result.method:
        raise ArgumentError("unlearner", f"be the method of 'result', {result.method}", unlearner.name)
    options = None if unlearner is None else _options(unlearner)
    try:
        options, audit = json.loads(json.dumps([options, None if audit is None else dict(audit)], allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArgumentError("audit", "be as JSON holds it", error) from None
    config, facts = _config(result), _facts(result, model, graph, key)
    for name, value in {"options": options, "audit": audit}.items():
        check_names_nobody(name, value, result.request, result.graph if graph is None else graph)
    facts["method"]["options"], facts["audit"] = options, audit
    return config, facts


def check_names_nobody(argument: str, value: Any, request: ForgetRequest, graph: Graph) -> None:
    """Check that JSON data do not contain a forgotten id.

    Args:
        argument: Name of the argument in the error.
        value: The data.
        request: The request.
        graph: The original graph.

    Raises:
        ArgumentError: They do.
    """
    if _tells(_names(value), _forgotten(request, graph)):
        raise ArgumentError(argument, "not name what was forgotten", "something that does")


def load_export(model: nn.Module, folder: str | Path) -> dict[str, Any]:
    """Load the weights of an export into a model.

    The model is changed only if its class, the names, shapes and types of all its tensors, and the fingerprint of the
    weights match the export.

    Args:
        model: A model built with the same arguments as the exported one; changed in place.
        folder: The folder.

    Returns:
        The content of ``unlearning.json``.

    Raises:
        ArgumentError: A file of the export is missing, broken or has been changed, or the export is of another model.

    Example:
        >>> import pathlib, tempfile, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> exported = gu.export(result, pathlib.Path(tempfile.mkdtemp(), "a"))
        >>> other = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> gu.load_export(other, exported.folder)["request"]["ids"]
        {'user': 1}
    """
    folder = Path(folder)
    reader = FolderReader(folder)
    with whole("folder", "be a whole export", folder):
        config, facts, (weights, _) = reader.versioned("config"), reader.facts("unlearning"), reader.tensors("model")
        reader.check({"model": fingerprint(weights)}, {"model": facts["model"]["after"]}, by="unlearning")
        cls = config["architectures"][0]
    if cls != type(model).__name__:
        raise ArgumentError("model", f"be of the class of the export, {cls}", type(model).__name__)
    wanted, given = _tensors(weights), _tensors(model.state_dict())
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            expected = f"have the tensors of the export, of which '{name}' is {_shown(wanted.get(name))}"
            raise ArgumentError("model", expected, _shown(given.get(name)))
    with whole("folder", "be a whole export", folder):
        check_finite(model, weights)
    model.load_state_dict(weights)
    return dict(facts)


def _tensors(state: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for name, t in state.items()}


def _shown(tensor: dict[str, Any] | None) -> str:
    return "none" if tensor is None else f"{tensor['dtype']} {tensor['shape']}"


def _config(result: UnlearningResult) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    graph, cls = result.graph, type(result.model)
    sizes = {f"num_{name}": size for name, size in graph.sizes.items()}
    return {
        "format": FORMAT,
        "library_name": "graphunlearn",
        "architectures": [cls.__name__],
        "module": cls.__module__,
        "graph": {"kind": graph.kind, **sizes},
        "tensors": _tensors(result.model.state_dict()),
    }


def _facts(result: UnlearningResult, model: nn.Module | None, graph: Graph | None, key: bytes) -> dict[str, Any]:
    """Return the content of ``unlearning.json`` without the options of the method and the audit."""
    request, after = result.request, result.graph
    ids: Counter[str] = Counter()
    for part in request.parts:
        ids[part.level] += len(part)
    model = result.original if model is None else model
    return {
        "format": FORMAT,
        "request": {
            "ids": ids,
            "removed": None if graph is None else _removed(graph, after, request),
            "kept": after.num_interactions,
            "unit": f"{after.unit}s",
            "digest": request.digest(key),
            "digest_is": "HMAC-SHA256 with a key that is kept apart",
        },
        "method": {"name": result.method, "seconds": round(result.seconds, 4)},
        # keyed, since a plain hash of a graph or of a model trained on it would confirm a guess of what was forgotten
        "model": {
            "before_keyed": None if model is None else keyed(fingerprint(model), key),
            "after": fingerprint(result.model),
        },
        "graph": {
            "before_keyed": None if graph is None else keyed(graph.fingerprint(), key),
            "after_keyed": keyed(after.fingerprint(), key),
        },
        "versions": {
            "graphunlearn": __version__,
            "torch": str(torch.__version__),
            "torch_geometric": torch_geometric.__version__,
            "python": platform.python_version(),
        },
    }


def _removed(graph: Any, after: Any, request: ForgetRequest) -> int:
    """Return the number of removed interactions or clicks, after a check that the two graphs belong together."""
    removed = int(request.mask(graph).sum())
    if type(graph) is not type(after) or graph.split(request)[0].fingerprint() != after.fingerprint():
        raise ArgumentError(
            "graph", "be the graph before forgetting, from which the request gives the graph of 'result'", "another"
        )
    return removed


def _options(value: Any) -> Any:
    """Return the fields of a configuration as JSON values; graphs and models become the names of their classes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _options(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return fields if isinstance(value, Unlearner) else {"class": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [_options(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _options(part) for name, part in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def _names(value: Any) -> set[str]:
    """Return all strings in JSON data, including the names of fields."""
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_names, value))
    return {value} if isinstance(value, str) else set()


def _tells(texts: set[str], ids: set[str]) -> bool:
    """Return whether a text is one of the ids, or contains one that is not a number; a number may be a figure."""
    if texts & ids:
        return True
    whole = "\n".join(texts)
    found = (name for name in ids if not name.isdecimal() and name in whole)
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", whole) for name in found)


def _forgotten(request: ForgetRequest, graph: Graph) -> set[str]:
    """Return the raw ids of all users, items and sessions in a request; for clicks, those of their sessions.

    Args:
        request: The request.
        graph: The original graph, to which the numbers in a request without raw ids refer.
    """
    ids: set[str] = set()
    for part in request.parts:
        sides = {"interaction": ("user", "item"), "click": ("session",)}.get(part.level, (part.level,))
        columns = zip(*part.index) if part.level in PAIRS else [part.index]
        for side, column in zip(sides, columns):
            if part.raw:
                ids.update(column)
                continue
            names = graph.vocabulary(side)
            ids.update(names[number] for number in column if number < len(names))
    return ids
