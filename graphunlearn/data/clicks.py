"""Tables of clicks, put in the order of their sessions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphunlearn.data.schema import warn
from graphunlearn.data.vocabulary import Vocabulary

__all__ = ["Clicks", "arrange", "known_clicks"]

Array = np.ndarray[Any, Any]


class Clicks(NamedTuple):
    """Clicks by session, sessions in order of first appearance, and in order within each."""

    session: Tensor
    item: Tensor
    time: Tensor | None
    user: Tensor | None
    vocabularies: dict[str, Vocabulary]


def arrange(frame: pd.DataFrame, source: str) -> Clicks:
    """Return the clicks of a tidy table, sorted by session, and by position, time, or the order of the rows within."""
    session = frame["session"].cat.codes.to_numpy(dtype=np.int64)
    inner = [name for name in ("position", "time") if name in frame]
    order = np.lexsort([*(frame[name].to_numpy() for name in reversed(inner)), session])  # the last key counts most
    if (np.diff(order) < 0).any():
        by = " and ".join(["session", *inner[:1]])
        warn(f"{source}: the clicks were not in order, and were sorted by {by}")
    vocabularies = {
        role: Vocabulary(frame[role].cat.categories) for role in ("session", "item", "user") if role in frame
    }
    item = frame["item"].cat.codes.to_numpy(dtype=np.int64)
    user = None
    if "user" in frame and len(vocabularies["user"]):
        user = _users(frame["user"].cat.codes.to_numpy(dtype=np.int64), session, len(vocabularies["session"]), source)
    time = torch.tensor(frame["time"].to_numpy()[order]) if "time" in frame else None
    return Clicks(torch.from_numpy(session[order]), torch.from_numpy(item[order]), time, user, vocabularies)


def _users(user: Array, session: Array, num_sessions: int, source: str) -> Tensor:
    """The user of every session, -1 where no click has one, or some have different ones."""
    known = user >= 0
    users = np.full(num_sessions, -1)
    users[session[known]] = user[known]
    several = np.unique(session[known & (users[session] != user)])
    if several.size:
        warn(f"{source}: {several.size} sessions have clicks of several users; their user counts as unknown")
    users[several] = -1
    return torch.from_numpy(users)


def known_clicks(clicks: Clicks, items: Vocabulary) -> tuple[Clicks, int]:
    """Return the clicks on items of ``items``, by its numbers, and how many others were left out.

    Raises:
        ValueError: If it knows none of them.
    """
    item = items.lookup(clicks.vocabularies["item"].ids)[clicks.item]
    known = item >= 0
    left_out = int((~known).sum())
    if left_out == known.numel():
        raise ValueError(f"'like' must know some of the items (got {left_out} clicks, all on unknown ones)")
    if left_out:
        warn(f"{left_out} of {known.numel()} clicks were left out: 'like' does not know their items")
    time = None if clicks.time is None else clicks.time[known]
    vocabularies = {**clicks.vocabularies, "item": items}
    return Clicks(clicks.session[known], item[known], time, clicks.user, vocabularies), left_out
