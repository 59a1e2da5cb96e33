"""Graphs as safetensors files, which hold tensors and plain values and run no code when they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData

from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.sealed import check_seal, parse_json, sealed_tensors
from graphunlearn.data.io.text import check_file
from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self


class Stored(BaseData):
    """A graph that can be saved to a safetensors file and loaded from it."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph to a safetensors file atomically; values other than tensors are in its header as JSON.

        Args:
            path: The file; an existing file is replaced.

        Returns:
            The path.

        Raises:
            OSError: The file cannot be written.
            ValueError: An attribute of the graph is neither a tensor nor a plain value.
        """
        return write_atomic(path, self.packed())

    def packed(self, about: Mapping[str, str] | None = None) -> bytes:
        """Return the content of the file that :meth:`save` writes.

        Args:
            about: Further metadata of the file.

        Raises:
            ValueError: An attribute of the graph is neither a tensor nor a plain value.
        """
        tensors: dict[str, Tensor] = {}
        header = []
        for store in self.stores:
            values, vocabularies = {}, {}
            for name, value in store.items():
                key = _name(store._key, name)
                if isinstance(value, Vocabulary):
                    vocabularies[name] = len(value)
                    if not value.is_range:
                        tensors[key] = torch.frombuffer(bytearray(json.dumps(value.ids).encode()), dtype=torch.uint8)
                elif isinstance(value, Tensor):
                    tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
                else:
                    values[name] = value
            header.append({"key": store._key, "values": values, "vocabularies": vocabularies})
        try:
            text = json.dumps(header)
        except TypeError as error:
            raise ValueError(f"a graph must hold tensors and plain values to be saved (got: {error})") from None
        metadata = {"format": _format(self), "stores": text, "fingerprint": self.fingerprint()}
        return sealed_tensors(tensors, {**(about or {}), **metadata})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a graph that was written by :meth:`save`.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file does not hold a graph of this kind, or is truncated or modified.

        Example:
            >>> import pathlib, tempfile, graphunlearn as gu
            >>> graph = gu.SessionGraph.from_sequences([[1, 0], [1]])
            >>> path = graph.save(pathlib.Path(tempfile.mkdtemp(), "graph.safetensors"))
            >>> gu.SessionGraph.load(path).fingerprint() == graph.fingerprint()
            True
        """
        graph, path = cls(), Path(path)
        check_file(path)
        data = path.read_bytes()
        try:
            check_seal(data)
            tensors = load_tensors(data)
            metadata = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
            if metadata.get("format") != _format(graph):
                raise ValueError(f"its format is {metadata.get('format')!r}")
            for part in parse_json(metadata["stores"]):
                _fill_store(graph, part, tensors)
            whole = graph.validate() and graph.fingerprint() == metadata["fingerprint"]
            reason = "" if whole else "its content has changed"
        except (SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error) or type(error).__name__
        if reason:
            raise ArgumentError(path, f"be a whole file written by '{_kind(graph)}.save'", f"a broken one: {reason}")
        return graph


def _fill_store(graph: BaseData, part: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    key = tuple(part["key"]) if isinstance(part["key"], list) else part["key"]
    store = graph.stores[0] if key is None else graph[key]
    store.update(part["values"])
    prefix = _name(key, "")
    for name, tensor in tensors.items():
        if name.startswith(prefix) and "/" not in name[len(prefix) :]:
            store[name[len(prefix) :]] = tensor
    known = {"vocabulary": store.num_nodes} if isinstance(key, str) else {}
    for name, size in part.get("vocabularies", known).items():  # earlier versions stored only the number of nodes
        ids = store.get(name)
        store[name] = Vocabulary(size if ids is None else parse_json(ids.numpy().tobytes()))


def _kind(graph: BaseData) -> str:
    return "InteractionGraph" if isinstance(graph, HeteroData) else "SessionGraph"


def _format(graph: BaseData) -> str:
    return f"graphunlearn.{_kind(graph)}.1"


def _name(key: Any, attribute: str) -> str:
    parts = () if key is None else (key,) if isinstance(key, str) else key
    return "/".join((*parts, attribute))
