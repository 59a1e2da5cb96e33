"""Clicks that a request names by position and item: the items say whether the positions are those of the graph."""

from __future__ import annotations

from typing import Any

import torch

from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError

__all__ = ["placed"]


def placed(graph: Any, part: ForgetRequest) -> ForgetRequest:
    """Return a request for clicks with positions from 0, checked against the items that it names.

    Positions that do not fit the items count from 1 if all of them fit then, which is said in a warning. Clicks of
    sessions that the graph does not contain are not checked.

    Args:
        graph: A graph of sessions.
        part: A request of one level.

    Raises:
        ValueError: Other items are at these positions.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[4, 2, 5]])
        >>> placed(graph, gu.ForgetRequest("click", [(0, 1)]).naming({("0", 1): "2"}))
        ForgetRequest('click', [('0', 1)])
    """
    if not part.items:
        return part
    clicks = [(*click, item) for click, item in part.items.items()]
    names, positions, items = zip(*clicks)
    sessions = graph.vocabulary("session").lookup(names)
    item = graph.vocabulary("item").lookup(items)
    position = torch.tensor(positions, dtype=torch.long)
    known = sessions >= 0
    length, start, there = (values.cpu() for values in (graph.length, graph.click_ptr, graph.items))
    wrong = []
    for first in (0, 1):
        at = position - first
        inside = known & (at >= 0) & (at < length[sessions])
        fits = ~known
        fits[inside] = there[start[sessions[inside]] + at[inside]] == item[inside]
        if fits.all():
            if first:
                warn("the positions of the request count from 1, as the items that it names show")
            return ForgetRequest("click", tuple((session, at - first) for session, at in part.index))
        wrong.append(clicks[int((~fits).nonzero()[0])])
    got = f"{wrong[0]}, where another item or none is"
    raise ArgumentError("index", "name the item of every click, at its position counted from 0", got)
