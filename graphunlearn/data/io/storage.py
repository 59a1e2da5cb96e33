"""Graphs as safetensors files: tensors and plain values, nothing that runs when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from typing_extensions import Self


class Stored(BaseData):
    """A graph with a file format of its own."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph to a safetensors file, whole or not at all.

        Args:
            path: The file; an earlier one is replaced.

        Returns:
            The path.
        """
        return write_atomic(path, to_bytes(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a graph written by :meth:`save`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no graph of this kind, cut off or changed.

        Example:
            >>> import pathlib, tempfile, graphunlearn as gu
            >>> graph = gu.SessionGraph.from_sequences([[1, 0], [1]])
            >>> path = graph.save(pathlib.Path(tempfile.mkdtemp(), "graph.safetensors"))
            >>> gu.SessionGraph.load(path).fingerprint() == graph.fingerprint()
            True
        """
        graph = cls()
        fill(graph, Path(path))
        return graph


def to_bytes(graph: BaseData) -> bytes:
    """Return a graph as the bytes of a safetensors file; values that are no tensors go into its header as JSON.

    Raises:
        ValueError: If a value is neither a tensor nor plain.
    """
    tensors: dict[str, Tensor] = {}
    header = []
    for store in graph.stores:
        values, vocabularies = {}, {}
        for name, value in store.items():
            if isinstance(value, Vocabulary):
                vocabularies[name] = len(value)
                if not value.is_range:
                    tensors[_name(store._key, name)] = torch.frombuffer(
                        bytearray(json.dumps(value.ids).encode()), dtype=torch.uint8
                    )
            elif isinstance(value, Tensor):
                tensors[_name(store._key, name)] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            else:
                values[name] = value
        header.append({"key": store._key, "values": values, "vocabularies": vocabularies})
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise ValueError(f"a graph must hold tensors and plain values to be saved (got: {error})") from None
    return save_tensors(tensors, {"format": _format(graph), "stores": text, "fingerprint": graph.fingerprint()})


def fill(graph: BaseData, path: Path) -> None:
    """Fill an empty graph from a file written from :func:`to_bytes`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a whole graph.
    """
    if not path.is_file():
        raise FileError("path", "be an existing file", f"'{path}'")
    data = path.read_bytes()
    try:
        tensors = load_tensors(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        if metadata.get("format") != _format(graph):
            raise ValueError(f"its format is {metadata.get('format')!r}")
        for part in json.loads(metadata["stores"]):
            _fill_store(graph, part, tensors)
        whole = graph.validate() and graph.fingerprint() == metadata["fingerprint"]
        reason = "" if whole else "its content has changed"
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
    if reason:
        raise ArgumentError(path, f"be a whole file written by '{_kind(graph)}.save'", f"a broken one: {reason}")


def _fill_store(graph: BaseData, part: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    key = tuple(part["key"]) if isinstance(part["key"], list) else part["key"]
    store = graph.stores[0] if key is None else graph[key]
    store.update(part["values"])
    prefix = _name(key, "")
    for name, tensor in tensors.items():
        if name.startswith(prefix) and "/" not in name[len(prefix) :]:
            store[name[len(prefix) :]] = tensor
    known = {"vocabulary": store.num_nodes} if isinstance(key, str) else {}
    for name, size in part.get("vocabularies", known).items():  # earlier versions wrote their sizes as numbers of nodes
        ids = store.get(name)
        store[name] = Vocabulary(size if ids is None else json.loads(ids.numpy().tobytes()))


def _kind(graph: BaseData) -> str:
    return "InteractionGraph" if isinstance(graph, HeteroData) else "SessionGraph"


def _format(graph: BaseData) -> str:
    return f"graphunlearn.{_kind(graph)}.1"


def _name(key: Any, attribute: str) -> str:
    parts = () if key is None else (key,) if isinstance(key, str) else key
    return "/".join((*parts, attribute))
