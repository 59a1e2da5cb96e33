"""What is to be forgotten."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from graphunlearn.data.io import read_ids
from graphunlearn.data.vocabulary import Vocabulary, canonical_id, preview

if TYPE_CHECKING:
    from graphunlearn.data.interaction import InteractionGraph

__all__ = ["LEVELS", "ForgetRequest", "Level"]

Level = Literal["interaction", "user", "item", "mixed"]
LEVELS = ("interaction", "user", "item")


@dataclass(frozen=True, repr=False)
class ForgetRequest:
    r"""The interactions to forget, by interaction, user or item; requests add up with ``|``.

    Ids are raw ids, as in the file the graph came from: ``196``, ``"196"`` and ``numpy.int64(196)`` are the same.
    For internal ids there is :meth:`internal`.

    Args:
        level: ``"user"`` or ``"item"`` (all of their interactions) or ``"interaction"``.
        index: Raw ids; at level ``"interaction"`` pairs of user and item. Repeated ones count once.

    Raises:
        ValueError: If the level is unknown, an id is not an id, or there are none.

    Example:
        >>> request = ForgetRequest("user", ["196", 186]) | ForgetRequest("interaction", [("22", "377")])
        >>> [part.level for part in request.parts]
        ['user', 'interaction']
    """

    level: Level
    index: tuple[Any, ...]
    raw: bool = True
    num_duplicates: int = field(default=0, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.level == "mixed" and all(isinstance(part, ForgetRequest) for part in self.index):
            return  # made by `|`
        if self.level not in LEVELS:
            close = difflib.get_close_matches(str(self.level), LEVELS, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"'level' must be one of {preview(LEVELS)} (got {self.level!r}{hint})")
        entries = [self._entry(value) for value in _as_list(self.index)]
        unique = tuple(dict.fromkeys(entries))
        if not unique:
            raise ValueError(f"'index' must name at least one {self.level} to forget (got none)")
        object.__setattr__(self, "index", unique)
        object.__setattr__(self, "num_duplicates", len(entries) - len(unique))

    def _entry(self, value: Any) -> Any:
        try:
            if self.level != "interaction":
                return canonical_id(value) if self.raw else int(value)
            pair = _as_list(value)
            if len(pair) != 2 or isinstance(value, str):
                raise ValueError(f"an interaction is a pair of user and item (got {value!r})")
            return tuple(canonical_id(end) if self.raw else int(end) for end in pair)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'index' must hold {self.level} ids: {error}") from None

    @classmethod
    def internal(cls, level: Level, index: Tensor) -> ForgetRequest:
        """Return a request by the graph's own node numbers instead of raw ids.

        Args:
            level: ``"user"``, ``"item"`` or ``"interaction"``.
            index: Users ``[n]``, items ``[n]``, or pairs of user and item ``[2, n]``; both are numbered from 0.

        Raises:
            ValueError: If the shape does not fit the level, or it is empty.

        Example:
            >>> import torch
            >>> ForgetRequest.internal("interaction", torch.tensor([[0, 1], [5, 2]]))
            ForgetRequest.internal('interaction', [(0, 5), (1, 2)])
        """
        index = torch.as_tensor(index)
        wanted = "[2, n]" if level == "interaction" else "[n]"
        if index.dtype == torch.bool or index.is_floating_point():
            raise ValueError(f"'index' must hold whole numbers (got {index.dtype})")
        if index.dim() != (2 if level == "interaction" else 1) or (level == "interaction" and index.size(0) != 2):
            raise ValueError(f"'index' must have shape {wanted} at level '{level}' (got {list(index.shape)})")
        entries = [tuple(pair) for pair in index.t().tolist()] if level == "interaction" else index.tolist()
        return cls(level, tuple(entries), raw=False)

    @classmethod
    def from_file(cls, path: str | Path, level: Level = "interaction") -> ForgetRequest:
        """Return the request in a file: rows of ``user,item`` (a header is optional), or one id per line.

        Args:
            path: The file, in any format that a graph can be read from.
            level: What the rows name; of rows with several columns, users and items take theirs.

        Raises:
            ValueError: If the file is malformed (with its line number) or empty.
        """
        return cls(level, tuple(read_ids(path, level)))

    @property
    def parts(self) -> tuple[ForgetRequest, ...]:
        """The requests of one level that this one is made of."""
        return self.index if self.level == "mixed" else (self,)

    def __len__(self) -> int:
        return sum(len(part.index) for part in self.parts)

    def __or__(self, other: ForgetRequest) -> ForgetRequest:
        if not isinstance(other, ForgetRequest):
            return NotImplemented
        merged: dict[tuple[Level, bool], ForgetRequest] = {}
        for part in (*self.parts, *other.parts):
            key = (part.level, part.raw)
            known = merged.get(key)
            merged[key] = part if known is None else ForgetRequest(part.level, known.index + part.index, part.raw)
        parts = tuple(merged.values())
        return parts[0] if len(parts) == 1 else ForgetRequest("mixed", parts)

    def mask(self, graph: InteractionGraph) -> Tensor:
        """Return which interactions of ``graph`` are to be forgotten ``[num_interactions]``.

        Raises:
            ValueError: If the graph does not know an id or a pair, or if nothing or all of it would be forgotten.

        Example:
            >>> import torch, graphunlearn as gu
            >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1, 1], [0, 0, 1]]))
            >>> ForgetRequest("item", ["0"]).mask(graph)
            tensor([ True,  True, False])
        """
        mask = torch.zeros(graph.num_interactions, dtype=torch.bool, device=graph.pairs.device)
        for part in self.parts:
            mask[part._interactions(graph)] = True
        count = int(mask.sum())
        if count == 0:
            raise ValueError(f"'request' must match an interaction of the graph (got {self!r}, which matches none)")
        if count == mask.numel():
            raise ValueError(f"'request' must leave some interactions (got one that removes all {count})")
        return mask

    def _interactions(self, graph: InteractionGraph) -> Tensor:
        """Positions of the part's interactions in the graph."""
        adjacency = graph.adjacency
        if self.level != "interaction":
            nodes = self._nodes(self.level, self.index, graph) + (graph.num_users if self.level == "item" else 0)
            return adjacency.interaction[adjacency.entries(nodes)].long()
        users, items = (self._nodes(side, ends, graph) for side, ends in zip(("user", "item"), zip(*self.index)))
        order = adjacency.interaction[: graph.num_interactions].long()
        known = graph.pairs[0, order] * graph.num_items + graph.pairs[1, order]  # ascending
        wanted = users * graph.num_items + items
        position = torch.searchsorted(known, wanted).clamp(max=max(known.numel() - 1, 0))
        missing = known[position] != wanted if known.numel() else torch.ones_like(wanted, dtype=torch.bool)
        if missing.any():
            unknown = [self.index[i] for i in missing.nonzero().flatten().tolist()]
            raise ValueError(
                f"'index' must hold interactions of the graph (got {preview(unknown)}, which "
                f"{'is' if len(unknown) == 1 else 'are'} not among its {graph.num_interactions} interactions)"
            )
        return order[position]

    def _nodes(self, side: str, ids: Iterable[Any], graph: InteractionGraph) -> Tensor:
        ids = list(ids)
        vocabulary = graph.vocabulary(side)
        nodes = vocabulary.lookup(ids) if self.raw else torch.tensor(ids, dtype=torch.long)
        outside = (nodes < 0) | (nodes >= len(vocabulary))
        if outside.any():
            unknown = dict.fromkeys(ids[i] for i in outside.nonzero().flatten().tolist())
            kind = f"{side}s" if self.raw else f"internal {side} ids"
            raise ValueError(
                f"'index' must hold {kind} of the graph (got {preview(unknown)}; {_holds(side, vocabulary)})"
            )
        return nodes.to(graph.pairs.device)

    def describe(self, graph: InteractionGraph) -> dict[str, Any]:
        """Return level, number of ids and number of interactions, as JSON holds it."""
        summary: dict[str, Any] = {"level": self.level, "size": len(self), "interactions": int(self.mask(graph).sum())}
        if self.level == "mixed":
            summary["parts"] = [{"level": part.level, "size": len(part)} for part in self.parts]
        return summary

    def fingerprint(self) -> str:
        """Return a SHA-256 of what is asked, in whatever order it was asked."""
        content = sorted(
            [part.level, part.raw, sorted(map(list, part.index) if part.level == "interaction" else part.index)]
            for part in self.parts
        )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def __repr__(self) -> str:
        if self.level == "mixed":
            return " | ".join(map(repr, self.parts))
        shown = ", ".join(map(repr, self.index[:3])) + (f", ... {len(self) - 3} more" if len(self) > 3 else "")
        return f"ForgetRequest{'' if self.raw else '.internal'}({self.level!r}, [{shown}])"


def _as_list(values: Any) -> list[Any]:
    if isinstance(values, (Tensor, np.ndarray)):
        return list(values.tolist()) if values.ndim else [values.item()]
    return [values] if isinstance(values, (str, int, float, np.generic)) else list(values)


def _holds(side: str, vocabulary: Vocabulary) -> str:
    if len(vocabulary) == 0:
        return f"the graph has no {side}s"
    shown = ", ".join(repr(vocabulary[i]) for i in range(min(3, len(vocabulary))))
    return f"the graph has {len(vocabulary)} {side}s, such as {shown}"
