"""A corrected model as a folder that others can load: weights, configuration, what was forgotten, and a model card."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import secrets
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
from graphunlearn.operators.base import Unlearner, UnlearningResult
from graphunlearn.runs.card import model_card
from graphunlearn.runs.folder import FORMAT, FolderReader, packed, write_parts

__all__ = ["Exported", "export", "load_export"]

CARD = "README.md"
EXPORTED = frozenset({"model.safetensors", "config.json", "unlearning.json", CARD})
"""Every file of an export; a folder that holds anything else is never replaced."""


@dataclass(frozen=True)
class Exported:
    """Where a model was exported to, and the key that its digests were made with: keep it apart from the folder."""

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
    """Write a corrected model as a folder in the manner of Hugging Face; it is written whole or not at all.

    ``model.safetensors`` holds the weights, ``config.json`` the class, the shapes and the sizes of the graph,
    ``unlearning.json`` what was forgotten and how, and ``README.md`` the same as a model card. None of them names a
    forgotten id: there are counts, and digests that say nothing to anyone without the key. Parameters and buffers are
    written as they are: a model that keeps its training graph in a buffer must be given the retained one first.

    Args:
        result: What an unlearning method handed back; ``result.model`` may be replaced by a model of another library
            with the same weights first, as the adapters do.
        folder: The folder to write.
        model: The model before, whose fingerprint is recorded.
        graph: The graph before: how many interactions or clicks were removed is recorded, and a keyed fingerprint.
        unlearner: The method, whose options are recorded.
        audit: Figures of an audit to record, as JSON holds them.
        key: At least 16 secret bytes for the digests; drawn anew by default.
        overwrite: Replace an earlier export.

    Returns:
        The folder and the key. With the key, ``request.digest(key)`` proves later what the request was.

    Raises:
        ValueError: The folder must not be written, the key is short, ``graph`` is not the one before, ``unlearner``
            is another method, ``audit`` is not JSON or names a forgotten id, or a tensor of the model cannot be saved.
        OSError: Something could not be written, as on a full disk; an earlier folder is as it was.

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
    if unlearner is not None and unlearner.name != result.method:
        raise ArgumentError("unlearner", f"be the method of 'result', {result.method}", unlearner.name)
    try:
        weights = packed(result.model.state_dict(), {"format": "pt"})
    except (SafetensorError, RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
        raise ArgumentError("result", "hold a model of dense tensors", f"one that cannot be saved: {error}") from None
    config, facts = _config(result), _facts(result, model, graph, unlearner, audit, key)
    with replaced_folder(folder) as new:
        write_parts(new, {"model": weights}, {"config": config, "unlearning": facts})
        (new / CARD).write_bytes(model_card(config, facts).encode())
    return Exported(folder, key)


def load_export(model: nn.Module, folder: str | Path) -> dict[str, Any]:
    """Load the weights of an exported folder into ``model``.

    Nothing is changed unless all of it fits: the class, the names, shapes and types of all tensors, the fingerprint.

    Args:
        model: A model made as the exported one was.
        folder: The folder.

    Returns:
        What ``unlearning.json`` says.

    Raises:
        ValueError: It is no whole export, its weights are not the ones that it tells of, or it is of another model.

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
    with FolderReader.whole(folder, "folder", "export") as reader:
        config, facts, (weights, _) = reader.versioned("config"), reader.facts("unlearning"), reader.tensors("model")
        reader.check({"model": fingerprint(weights)}, {"model": facts["model"]["after"]}, by="unlearning")
        cls = config["architectures"][0]
    if cls != type(model).__name__:
        raise ArgumentError("model", f"be of the class of the export, {cls}", type(model).__name__)
    wanted, given = _tensors(weights), _tensors(model.state_dict())
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise ArgumentError(
                "model",
                f"have the tensors of the export, of which '{name}' is {_shown(wanted.get(name))}",
                _shown(given.get(name)),
            )
    model.load_state_dict(weights)
    return dict(facts)


def _tensors(state: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    return {name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")} for name, t in state.items()}


def _shown(tensor: dict[str, Any] | None) -> str:
    return "none" if tensor is None else f"{tensor['dtype']} {tensor['shape']}"


def _config(result: UnlearningResult) -> dict[str, Any]:
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


def _facts(
    result: UnlearningResult,
    model: nn.Module | None,
    graph: InteractionGraph | SessionGraph | None,
    unlearner: Unlearner | None,
    audit: Mapping[str, Any] | None,
    key: bytes,
) -> dict[str, Any]:
    request, after = result.request, result.graph
    ids: dict[str, int] = {}
    for part in request.parts:
        ids[part.level] = ids.get(part.level, 0) + len(part)
    removed = None if graph is None else _removed(graph, after, request)
    model = result.original if model is None else model
    try:
        told = {
            "options": None if unlearner is None else _options(unlearner),
            "audit": None if audit is None else dict(audit),
        }
        told = json.loads(json.dumps(told, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArgumentError("audit", "be as JSON holds it", error) from None
    for name in ("options", "audit"):
        if _tells(_names(told[name]), _forgotten(request, after if graph is None else graph)):
            raise ArgumentError(name, "not name what was forgotten", "something that does")
    return {
        "format": FORMAT,
        "request": {
            "ids": ids,
            "removed": removed,
            "kept": after.num_interactions,
            "unit": f"{after.unit}s",
            "digest": request.digest(key),
            "digest_is": "HMAC-SHA256 with a key that is kept apart",
        },
        "method": {"name": result.method, "options": told["options"], "seconds": round(result.seconds, 4)},
        "model": {"before": None if model is None else fingerprint(model), "after": fingerprint(result.model)},
        # a plain hash of a graph tells whoever holds its pairs whether a guess at the rest, or at an id, is right
        "graph": {
            "before_keyed": None if graph is None else keyed(graph.fingerprint(), key),
            "after_keyed": keyed(after.fingerprint(), key),
        },
        "audit": told["audit"],
        "versions": {
            "graphunlearn": __version__,
            "torch": str(torch.__version__),
            "torch_geometric": torch_geometric.__version__,
            "python": platform.python_version(),
        },
    }


def _removed(graph: Any, after: Any, request: ForgetRequest) -> int:
    removed = int(request.mask(graph).sum())
    if type(graph) is not type(after) or graph.split(request)[0].fingerprint() != after.fingerprint():
        raise ArgumentError("graph", "be the one before, which the request makes that of 'result'", "another")
    return removed


def _options(value: Any) -> Any:
    """Return the fields of a configuration as JSON holds them; data and models by their class alone."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _options(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return fields if isinstance(value, Unlearner) else {"class": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [_options(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _options(part) for name, part in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def _names(value: Any) -> set[str]:
    """Return every string in JSON data, the names of fields included."""
    if isinstance(value, dict):
        return set(value).union(*map(_names, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_names, value))
    return {value} if isinstance(value, str) else set()


def _tells(texts: set[str], ids: set[str]) -> bool:
    """Whether some text is one of the ids, or has one in it that is more than a number, which may be any figure's."""
    if texts & ids:
        return True
    whole = "\n".join(texts)
    found = (name for name in ids if not name.isdecimal() and name in whole)
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", whole) for name in found)


def _forgotten(request: ForgetRequest, graph: InteractionGraph | SessionGraph) -> set[str]:
    """Return every raw id of users, items and sessions that a request names; of a click, the session's.

    Numbers of an internal request are those of ``graph``, the one before; of sessions the one after has others.
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
