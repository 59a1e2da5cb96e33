"""Recognition of forgotten embeddings, and of fingerprints, in bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from graphunlearn.nn import encode
from graphunlearn.nn.tables import node_rows

__all__ = ["WantedPrints", "WantedRows", "rows_of"]

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PREFIX = 8
"""Bytes by which a row is looked up; a row of fewer bytes occurs by chance."""
STRIDE = 40503  # odd, so that the product spreads the low bits of a prefix


def rows_of(model: nn.Module, graph: object, level: str, nodes: Tensor) -> list[Tensor]:
    """Return all vectors that a model has for some users, items or sessions.

    These are the rows of its embedding tables and, for users and items, those of its encoding.

    Args:
        model: The model.
        graph: Its graph.
        level: What the nodes are.
        nodes: Numbers of the users, items or sessions ``[num]``.

    Returns:
        Tensors with one vector per row.
    """
    offset = graph.num_users if level == "item" and graph.kind == "interactions" else 0  # type: ignore[attr-defined]
    if graph.kind == "sessions" and level != "item":  # type: ignore[attr-defined]
        return []
    found = []
    for name, part in node_rows(model, graph).items():  # type: ignore[arg-type]
        at = nodes + offset - part.start
        table = model.get_parameter(name).detach()
        found.append(table[at[(at >= 0) & (at < len(table))]])
    with torch.no_grad():
        encoded = encode(model, graph)  # type: ignore[arg-type]
    found.append((encoded.items if level == "item" else encoded.queries)[nodes])
    return [rows for rows in found if rows.ndim == 2 and len(rows)]


class WantedRows:
    """Vectors to search for, each in float64, float32, float16 and bfloat16.

    A vector of which fewer than two entries differ from zero, or that would take fewer than eight bytes, is not
    searched for, since it occurs by chance.

    Args:
        tables: Tensors with one vector per row.

    Example:
        >>> import torch
        >>> rows = WantedRows([torch.tensor([[1.5, 2.5, 3.5]])])
        >>> rows.in_bytes(b"x" + torch.tensor([0.0, 1.5, 2.5, 3.5]).numpy().tobytes())
        1
    """

    def __init__(self, tables: Iterable[Tensor]) -> None:
        self.rows: dict[int, list[bytes]] = {}
        self.skipped = 0
        for table in tables:
            distinct = (table != 0).sum(1) > 1
            self.skipped += int((~distinct).sum())
            for dtype in TYPES:
                held = table[distinct].cpu().to(dtype).contiguous()
                if held.numel() == 0 or held[0].numel() * held.element_size() < PREFIX:
                    continue
                for row in held.view(torch.uint8).numpy():
                    content = row.tobytes()
                    key = int.from_bytes(content[:PREFIX], "little")
                    if content not in self.rows.setdefault(key, []):
                        self.rows[key].append(content)
        self._keys: npt.NDArray[np.uint64] = np.array(sorted(self.rows), dtype=np.uint64)
        self._known = np.zeros(1 << 16, dtype=bool)
        self._known[_hashed(self._keys)] = True
        self.longest = max((len(row) for rows in self.rows.values() for row in rows), default=0)

    def in_bytes(self, data: bytes, stop: int | None = None) -> int:
        """Return how many of the vectors begin in ``data`` and are whole in it, at any position.

        Args:
            data: The bytes.
            stop: The first position at which a vector does not count; by default the end.
        """
        if not self.rows:
            return 0
        stop, count = len(data) if stop is None else stop, 0
        for shift in range(min(PREFIX, len(data))):
            size = (len(data) - shift) // PREFIX
            words = np.frombuffer(data, dtype="<u8", count=size, offset=shift)
            maybe = np.flatnonzero(self._known[_hashed(words)])
            for place in maybe[np.isin(words[maybe], self._keys)].tolist():
                start = shift + place * PREFIX
                if start < stop:
                    count += any(data.startswith(row, start) for row in self.rows[int(words[place])])
        return count


def _hashed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = words ^ (words >> np.uint64(32))
    return ((mixed * np.uint64(STRIDE)) >> np.uint64(8)) & np.uint64(0xFFFF)


class WantedPrints:
    """SHA-256 fingerprints to search for, as 64 hexadecimal digits and as 32 bytes.

    Args:
        prints: The fingerprints in hexadecimal.
    """

    def __init__(self, prints: Iterable[str]) -> None:
        self.prints = set(prints)
        forms = [form for text in self.prints for form in (text.encode(), text.upper().encode(), bytes.fromhex(text))]
        self._pattern = re.compile(b"|".join(map(re.escape, forms))) if forms else None

    def in_bytes(self, data: bytes, stop: int | None = None) -> int:
        """Return how many of the fingerprints begin in ``data`` and are whole in it.

        Args:
            data: The bytes.
            stop: The first position at which a fingerprint does not count; by default the end.
        """
        if self._pattern is None:
            return 0
        stop = len(data) if stop is None else stop
        return sum(match.start() < stop for match in self._pattern.finditer(data))
