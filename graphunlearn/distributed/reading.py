"""Reading of a folder of Parquet files by several ranks, each of which keeps the rows of its users."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphunlearn.data.vocabulary import Vocabulary
from graphunlearn.distributed.graph import ItemRows, Part, ShardGraph, cuts_of_items, cuts_of_users, made_part
from graphunlearn.distributed.ranks import RankError, Ranks
from graphunlearn.errors import ArgumentError, FileError

__all__ = ["read_part"]

LARGEST = 1 << 31
"""The largest id: the ranks count the rows of every id up to the largest."""


def read_part(
    folder: str | os.PathLike[str],
    ranks: Ranks,
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = None,
    time: str | None = None,
    label: str | None = None,
    own: bool = False,
    items: ItemRows = "replicated",
) -> ShardGraph:
    """Read the part of a rank from a folder of Parquet files.

    All ranks count the rows of every user together, each in some of the row groups, and divide the users into ranges
    with about the same number of rows. A rank then reads the row groups whose statistics do not rule out that they
    hold its users: sorted by user, each row is read by one rank. Users and items are numbered in the order of their
    ids. Repeated pairs count once, with the values of the last one.

    Args:
        folder: The folder, or one file.
        ranks: The ranks.
        user: Name of the column of users, whole numbers from 0.
        item: Name of the column of items, whole numbers from 0.
        rating: Name of the column of ratings.
        time: Name of the column of times.
        label: Name of the column of labels.
        own: Whether every rank passes a folder of its own, with the rows of its users alone; users of rank 0 are then
            numbered first, and those of rank 1 after them.
        items: Which rows of items a rank holds; see :func:`take_part`.

    Returns:
        The part.

    Raises:
        ArgumentError: The folder holds no rows, a column is missing, an id is not a whole number from 0 to 2**31, or
            there are more ranks than users; or ``items`` is neither of the two.
        RankError: With ``own``, two ranks hold rows of one user.
        ImportError: Pyarrow is not installed.

    Example:
        >>> import pathlib, tempfile, pandas as pd
        >>> from graphunlearn.distributed import Ranks, read_part
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> pd.DataFrame({"user": [7, 3, 7], "item": [1, 1, 4]}).to_parquet(folder / "a.parquet")
        >>> read_part(folder, Ranks()).pairs
        tensor([[1, 0, 1],
                [0, 0, 1]])
    """
    with ranks.guard():
        given = {"rating": rating, "time": time, "label": label}
        columns = {"user": user, "item": item} | {role: name for role, name in given.items() if name is not None}
        if not own:
            ranks.same(columns=columns, data=_names(Path(folder)))
        ranks.same(items=items)
        groups = _groups(Path(folder), columns)
        counted = groups if own else groups[ranks.rank :: ranks.world]
        seen = [np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)]
        for group in counted:
            for side, values in enumerate(_ids(group, folder, [user, item])):
                seen[side] = _added(seen[side], values)
        users, known_items = (_total(ranks, counts) for counts in seen)
        if not int(users.sum()):
            raise ArgumentError("folder", "hold at least one row", f"'{folder}', with none")
        cuts = cuts_of_items(int((known_items > 0).sum()), ranks, items)
        if own:
            part, low, numbers = _own_part(ranks, seen[0], len(users))
            part = replace(part, item_bounds=cuts)
        else:
            known = users.nonzero().view(-1)
            part = Part(ranks, cuts_of_users(users[known], ranks.world), cuts)
            numbers = (users > 0).cumsum(0) - 1 - part.first_user
            low = known[part.first_user : part.bounds[ranks.rank + 1]]
        item_numbers = (known_items > 0).cumsum(0) - 1
        found = list(_rows(groups, folder, columns, (int(low[0]), int(low[-1]))))
        offset = _before(ranks, sum(rows for _, rows, _ in groups)) if own else 0
        position = torch.cat([at for at, _ in found]) + offset
        table = {role: torch.cat([torch.from_numpy(values[role]) for _, values in found]) for role in columns}
        pairs = torch.stack([numbers[table.pop("user").long()], item_numbers[table.pop("item").long()]])
        last = _last_of_repeated(pairs, int(item_numbers[-1]) + 1)
        kept = {name: value[last].to(torch.get_default_dtype()) for name, value in table.items()}
        of_users, of_items = (Vocabulary(ids.tolist()) for ids in (low, known_items.nonzero().view(-1)))
        return made_part(part, pairs[:, last].contiguous(), position[last], of_users, of_items, kept)


Group = tuple[Any, int, int]
"""A row group: the fragment of it, its number of rows, and the position of the first one in the folder."""


def _names(folder: Path) -> list[list[Any]]:
    """Return the names and sizes of the files, by which ranks tell whether they read the same."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    return [[file.name, file.stat().st_size] for file in files]


def _groups(folder: Path, columns: dict[str, str]) -> list[Group]:
    """Return the row groups of all files in the order of their names."""
    try:
        from pyarrow import dataset
    except ImportError:
        hint = "python -m pip install 'graphunlearn[parquet]'"
        raise ImportError(f"'{folder}' needs pyarrow to be read: {hint}") from None
    if not folder.exists():
        raise FileError("folder", "be a folder of Parquet files", f"'{folder}', which does not exist")
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        raise ArgumentError("folder", "hold Parquet files", f"'{folder}', with none")
    try:
        whole = dataset.dataset([str(file) for file in files], format="parquet")
        missing = [name for name in columns.values() if name not in whole.schema.names]
        parts = [part for fragment in whole.get_fragments() for part in fragment.split_by_row_group()]
        sizes = [part.row_groups[0].num_rows for part in parts]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ArgumentError("folder", "hold whole Parquet files", f"'{folder}': {reason}") from None
    if missing:
        raise ArgumentError("folder", f"have a column '{missing[0]}'", ", ".join(whole.schema.names))
    starts = np.cumsum([0, *sizes])
    return [(part, size, int(start)) for part, size, start in zip(parts, sizes, starts)]


def _ids(group: Group, folder: Any, names: list[str]) -> list[np.ndarray[Any, Any]]:
    """Return the ids in two columns of a row group, checked."""
    table, found = group[0].to_table(columns=names), []
    for name in names:
        values = table.column(name)
        ids = values.to_numpy() if not values.null_count else np.zeros(1)
        if not np.issubdtype(ids.dtype, np.integer) or (len(ids) and not 0 <= ids.min() <= ids.max() < LARGEST):
            raise ArgumentError("folder", f"hold whole numbers from 0 to 2**31 in '{name}'", f"others in '{folder}'")
        found.append(ids)
    return found


def _rows(
    groups: list[Group], folder: Any, columns: dict[str, str], users: tuple[int, int]
) -> Iterator[tuple[Tensor, dict[str, np.ndarray[Any, Any]]]]:
    """Yield the positions and the values of the rows of a range of users, by row group."""
    name = columns["user"]
    for part, _, start in groups:
        known = (part.row_groups[0].statistics or {}).get(name)
        if known is not None and (known["max"] < users[0] or known["min"] > users[1]):
            continue
        table = part.to_table(columns=list(dict.fromkeys(columns.values())))
        ids = table.column(name).to_numpy()
        mine = (ids >= users[0]) & (ids <= users[1])
        at = torch.from_numpy(np.flatnonzero(mine)) + start
        yield at, {role: np.ascontiguousarray(table.column(own).to_numpy()[mine]) for role, own in columns.items()}


def _own_part(ranks: Ranks, counts: np.ndarray[Any, Any], size: int) -> tuple[Part, Tensor, Tensor]:
    """Return the part of a rank that holds all rows of its users, the ids of these users and their numbers by id."""
    here = torch.zeros(size, dtype=torch.int64)
    here[: len(counts)] = torch.from_numpy(counts > 0).long()
    shared = (ranks.total(here) > 1).nonzero().view(-1)
    if len(shared):
        raise RankError(f"no two ranks may hold rows of one user (got {len(shared)} such users, such as {shared[0]})")
    ids = here.nonzero().view(-1)
    sizes = ranks.objects(len(ids))
    if not all(sizes):
        raise ArgumentError("folder", "hold rows of a user on every rank", f"none on rank {sizes.index(0)}")
    bounds = tuple(int(bound) for bound in np.cumsum([0, *sizes]))
    return Part(ranks, bounds), ids, here.cumsum(0) - 1


def _before(ranks: Ranks, rows: int) -> int:
    """Return how many rows the ranks before this one have."""
    return sum(ranks.objects(rows)[: ranks.rank])


def _added(counts: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    more = np.bincount(ids, minlength=len(counts))
    more[: len(counts)] += counts
    return more


def _total(ranks: Ranks, counts: np.ndarray[Any, Any]) -> Tensor:
    """Return the number of rows of every id on all ranks ``[largest id + 1]``."""
    whole = torch.zeros(max(ranks.objects(len(counts))), dtype=torch.int64)
    whole[: len(counts)] = torch.from_numpy(counts)
    return ranks.total_(whole)


def _last_of_repeated(pairs: Tensor, num_items: int) -> Tensor:
    """Return the positions of the pairs, of which repeated ones count once, as the last one, ascending."""
    codes = pairs[0] * num_items + pairs[1]
    ordered, order = codes.sort(stable=True)
    keep = torch.ones(len(codes), dtype=torch.bool)
    keep[:-1] = ordered[1:] != ordered[:-1]
    return order[keep].sort().values
