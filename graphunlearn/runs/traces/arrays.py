"""Search in safetensors files, NumPy arrays and pickles."""

from __future__ import annotations

import json
import math
import pickletools
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from graphunlearn.data.io.columns import plain
from graphunlearn.runs.traces.documents import json_hits, raw_bytes
from graphunlearn.runs.traces.ids import FIGURE, Hits, role_of
from graphunlearn.runs.traces.packed import MOST
from graphunlearn.runs.traces.sight import CHUNK, Sight, Watched

__all__ = ["arrays", "in_array"]

LONGEST_HEADER = 100_000_000
TYPES = {"I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}


def arrays(stream: Watched, head: bytes, name: str, inside: str, sight: Sight, path: Path | None, content: Any) -> bool:
    """Search safetensors, NumPy arrays or pickles; return whether the content is one. See :func:`packed`."""
    size = int.from_bytes(head[:8], "little")
    if len(head) > 8 and head[8:9] == b"{" and 2 <= size <= LONGEST_HEADER:
        _safetensors(stream, inside, sight)
        return True
    if head.startswith(b"\x93NUMPY"):
        _npy(stream, name.removesuffix(".npy"), inside, sight)
        return True
    if len(head) > 2 and head[0] == 0x80 and head[1] in range(2, 6):
        _pickle(stream, inside, sight)
        return True
    return False


def in_array(values: npt.NDArray[Any], name: str, sight: Sight, *, table: bool) -> Hits:
    """Return how often ids occur in an array.

    Args:
        values: The array, of numbers, texts or bytes.
        name: Its name, which says what the values are; see :func:`~graphunlearn.runs.traces.ids.role_of`.
        sight: What to search for.
        table: Whether whole numbers without a telling name are ids.
    """
    hits = Hits()
    if values.dtype.names:
        for field in values.dtype.names:
            hits.update(in_array(values[field], field, sight, table=table))
    elif values.dtype.kind in "US":
        for value, count in zip(*(part.tolist() for part in np.unique(values, return_counts=True))):
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            found = sight.ids.in_value(text, role_of(name))
            hits.update({kind: number * count for kind, number in found.items()})
    elif values.dtype.kind in "iuf":
        table = (table and values.dtype.kind != "f") or plain(name).endswith(("id", "ids"))
        hits = sight.ids.in_numbers(values, role_of(name), table=table)
    return hits


def _safetensors(stream: Watched, inside: str, sight: Sight) -> None:
    try:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        meta = header.pop("__metadata__", {})
        parts = sorted((*entry["data_offsets"], name, entry["dtype"], entry["shape"]) for name, entry in header.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sight.refuse("no whole safetensors file", inside)
        raw_bytes(stream, inside, sight)
        return
    sight.see("names of tensors", sight.ids.in_text("\n".join(header), prose=True), inside)
    sight.see("metadata", json_hits(meta, sight), inside)
    nodes = _numbered(meta, set(header))
    own = str(meta.get("format", "")).startswith("graphunlearn.") or bool({"graphunlearn", "shards"} & meta.keys())
    at = 0
    for start, stop, name, dtype, shape in parts:
        _pass(stream, start - at)
        at = stop
        if dtype == "U8" and len(shape) == 1 and stop - start <= MOST:
            _text(stream.exactly(stop - start), f"tensor {name}", name, inside, sight)
        elif dtype in TYPES and (name in nodes or not own):
            roles = nodes.get(name, (name,))
            for role in roles:
                _whole(stream, (stop - start) // len(roles), np.dtype(TYPES[dtype]), role, name, inside, sight)
        else:
            _pass(stream, stop - start)
    raw_bytes(stream, inside, sight)  # what comes after the last tensor


def _numbered(meta: dict[str, str], names: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the tensors of a graph file whose numbers are raw ids, with what they name.

    The numbers of nodes are raw ids only in a graph whose vocabulary was made from a number and has no tensor.
    """
    if meta.get("format") == "graphunlearn.InteractionGraph.1":
        sides = [FIGURE if f"{side}/vocabulary" in names else side for side in ("user", "item")]
        return {"user/interacts/item/edge_index": tuple(sides)}
    if meta.get("format") == "graphunlearn.SessionGraph.1":
        places = {"x": "item", "user": "user"}
        return {name: (side,) for name, side in places.items() if f"{side}_vocabulary" not in names}
    return {}


def _whole(stream: Watched, size: int, dtype: np.dtype[Any], role: str, name: str, inside: str, sight: Sight) -> None:
    """Search an integer tensor of ``size`` bytes."""
    while size > 0:
        data = stream.exactly(min(CHUNK, size))
        size -= len(data)
        values = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
        sight.see(f"tensor {name}", in_array(values, role, sight, table=False), inside)


def _pass(stream: Watched, size: int) -> None:
    """Read bytes that hold no ids; vectors are searched for in all that is read."""
    if size < 0:
        raise ValueError("its tensors overlap")
    while size > 0:
        size -= len(stream.exactly(min(CHUNK, size)))


def _text(data: bytes, place: str, name: str, inside: str, sight: Sight) -> None:
    """Search a tensor of bytes, which may hold JSON: the vocabularies of graphs do."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        sight.see(place, sight.ids.in_bytes(data), inside)
        return
    role = next(filter(None, map(role_of, reversed(name.split("/")))), None)
    sight.see(place, json_hits(value, sight, role=role, named=role is not None), inside)


def _npy(stream: Watched, name: str, inside: str, sight: Sight) -> None:
    file = cast(Any, stream)
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = reader(file)
    except (ValueError, SyntaxError) as error:
        sight.refuse(f"no whole NumPy file: {error}", inside)
        return
    if dtype.hasobject:
        _pickle(stream, inside, sight)
        return
    place, count = f"array {name}" if inside else "array", math.prod(shape)
    total = count * dtype.itemsize
    if by_column and len(shape) > 1 and dtype.kind == "f":
        if total > 4 * MOST:
            sight.refuse("an array in column order that is too large to be searched for vectors", inside)
        else:
            values = np.frombuffer(stream.exactly(total), dtype).reshape(shape, order="F")
            little = np.ascontiguousarray(values).astype(dtype.newbyteorder("<"), copy=False)
            vectors(little.tobytes(), inside, sight)
        return
    step = max(1, CHUNK // max(1, dtype.itemsize))
    for start in range(0, count, step):
        values = np.frombuffer(stream.exactly(min(step, count - start) * dtype.itemsize), dtype)
        sight.see(place, in_array(values, name, sight, table=len(shape) <= 2), inside)
        if dtype.kind == "f" and dtype.byteorder == ">":
            vectors(values.astype(dtype.newbyteorder("<")).tobytes(), inside, sight)
    raw_bytes(stream, inside, sight)  # what comes after the array


def vectors(data: bytes, inside: str, sight: Sight) -> None:
    """Search for vectors in values that a file holds in another order.

    Args:
        data: The bytes of the values in the usual order.
        inside: The member of the archive.
        sight: What to search for.
    """
    hits = Hits()
    hits.add(True, sight.rows.in_bytes(data))
    sight.see("row of the original model", hits, inside)


def _pickle(stream: Watched, inside: str, sight: Sight) -> None:
    """Search the texts, bytes and numbers of a pickle, without running it."""
    hits, numbers = Hits(), Counter[int]()
    try:
        for code, value, _ in pickletools.genops(cast(Any, stream)):
            if isinstance(value, str) and "GLOBAL" not in code.name:
                hits.update(sight.ids.in_value(value, None))
            elif isinstance(value, (bytes, bytearray)):
                hits.update(sight.ids.in_bytes(bytes(value)))
            elif isinstance(value, int) and 0 <= value < 2**64 and not code.name.endswith(("PUT", "GET")):
                numbers[value] += 1
    except (ValueError, OverflowError, UnicodeDecodeError) as error:
        sight.refuse(f"no whole pickle: {error}", inside)
        raw_bytes(stream, inside, sight)
    values = np.array(sorted(numbers.elements()), dtype=np.uint64)
    hits.update(sight.ids.in_numbers(values, None, table=False))
    sight.see("pickle", hits, inside)
