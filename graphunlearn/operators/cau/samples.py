"""The training samples of a session recommender that a request to forget clicks removes or adds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from graphunlearn.data import SessionGraph
from graphunlearn.nn.training.next_click import PrefixSamples

__all__ = ["ForgetSamples", "Prefixes", "prefix_items", "together"]


def prefix_items(graph: SessionGraph, samples: PrefixSamples) -> tuple[Tensor, Tensor]:
    """Return the items of all prefixes, concatenated ``[num_clicks]``, and the length of each prefix ``[num]``."""
    start = graph.click_ptr[samples.session]
    length = samples.ends - start + 1
    start = start.repeat_interleave(length)
    offset = (length.cumsum(0) - length).repeat_interleave(length)
    clicks = start + torch.arange(offset.numel(), device=offset.device) - offset
    return graph.x[graph.alias[clicks]], length


@dataclass(frozen=True)
class ForgetSamples:
    r"""The training samples that a request removes, and those that it adds.

    The samples are defined for every forgotten click :math:`v_t` of a session :math:`v_1, \dots, v_n`:

    Args:
        forgotten: The predictions :math:`v_{1:t-1} \to v_t` in the graph before forgetting. The first click of a
            session has no prefix and therefore no prediction.
        deleted: The deleted transitions :math:`v_{1:t} \to v_{t+1}` with :math:`v_{t+1}` kept, in the graph before
            forgetting.
        joined: The predictions :math:`v_{<t} \to v_{t+1}` in the retained graph, which replace the deleted transitions.
        follower: For every forgotten click, the index in ``joined`` of the next kept click of its session; -1 if there
            is none ``[len(forgotten)]``.
        click: The number of the forgotten click that each of ``forgotten``, and then of ``deleted``, belongs to
            ``[len(forgotten) + len(deleted)]``.
        whole: Among the sessions with a forgotten prediction, the share that is forgotten entirely.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2, 3], [4, 5]])
        >>> request = gu.ForgetRequest.internal("click", torch.tensor([[0], [2]]))
        >>> samples = ForgetSamples.of(graph, graph.split(request)[0], request.mask(graph))
        >>> samples.forgotten.target, samples.deleted.target, samples.joined.target, samples.follower
        (tensor([2]), tensor([3]), tensor([3]), tensor([0]))
    """

    forgotten: PrefixSamples
    deleted: PrefixSamples
    joined: PrefixSamples
    follower: Tensor
    click: Tensor
    whole: float

    @classmethod
    def of(cls, graph: SessionGraph, retained: SessionGraph, mask: Tensor) -> ForgetSamples:
        """Return the samples that change if the clicks in ``mask`` are forgotten.

        Args:
            graph: The graph before forgetting.
            retained: The retained graph.
            mask: Mask of the forgotten clicks of ``graph`` ``[num_clicks]``.

        Returns:
            The :class:`ForgetSamples`.
        """
        items, session = graph.items, graph.session
        first = torch.zeros_like(mask)
        first[graph.click_ptr[:-1]] = True
        forgotten = (mask & ~first).nonzero().squeeze(1)
        after_forgotten = torch.zeros_like(mask)
        after_forgotten[1:] = mask[:-1]
        deleted = (~mask & after_forgotten & ~first).nonzero().squeeze(1)  # the first kept click after a forgotten one
        kept_before = (~mask).cumsum(0)
        number = kept_before - 1  # index of every kept click in the retained graph
        starts = torch.zeros(retained.num_clicks, dtype=torch.bool, device=mask.device)
        starts[retained.click_ptr[:-1]] = True
        joined = deleted[~starts[number[deleted]]]
        position = torch.searchsorted(joined, forgotten)
        follower = torch.full_like(forgotten, -1)
        if joined.numel():
            candidate = joined[position.clamp(max=joined.numel() - 1)]
            # the next joined click follows this one if both are in one session with no kept click between them
            near = (position < joined.numel()) & (session[candidate] == session[forgotten])
            near &= kept_before[candidate] - kept_before[forgotten] == 1
            follower = torch.where(near, position, follower)
        touched = torch.unique(session[forgotten])
        emptied = torch.bincount(session[~mask], minlength=graph.num_sessions)[touched] == 0
        return cls(
            PrefixSamples(forgotten - 1, items[forgotten], session[forgotten]),
            PrefixSamples(deleted - 1, items[deleted], session[deleted]),
            PrefixSamples(number[joined] - 1, items[joined], retained.session[number[joined]]),
            follower,
            torch.unique(torch.cat([forgotten, deleted - 1]), return_inverse=True)[1],
            float(emptied.double().mean()) if emptied.numel() else 0.0,
        )


class Prefixes(NamedTuple):
    """Prefixes of several graphs in one graph, where each is stored once, and inside of a longer one that it begins.

    Args:
        graph: The sessions that hold the prefixes.
        ends: Index of the last click of every different prefix ``[num_prefixes]``.
        prefix: The prefix of every sample ``[num]``.
        target: The item that follows it ``[num]``.
    """

    graph: SessionGraph
    ends: Tensor
    prefix: Tensor
    target: Tensor


def together(parts: list[tuple[SessionGraph, PrefixSamples]]) -> Prefixes:
    """Return all prefixes in one graph; a model that reads clicks in order then reads no click twice.

    Args:
        parts: Graphs with some of their samples.

    Returns:
        The :class:`Prefixes`, with the samples in the order of ``parts``.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [0, 3]])
        >>> found = together([(graph, gu.CrossEntropy().samples(graph))])
        >>> found.graph.num_sessions, found.ends.tolist(), found.prefix.tolist()
        (1, [0, 1], [0, 1, 0])
    """
    number: dict[tuple[int, ...], int] = {}
    prefix: list[int] = []
    for graph, samples in parts:
        items, length = prefix_items(graph, samples)
        clicks, start = items.tolist(), 0
        for size in length.tolist():
            prefix.append(number.setdefault(tuple(clicks[start : start + size]), len(number)))
            start += size
    hosts: list[tuple[int, ...]] = []
    place: dict[tuple[int, ...], int] = {}
    for own in sorted(number, reverse=True):  # whatever a prefix begins comes just before it
        if not hosts or hosts[-1][: len(own)] != own:
            hosts.append(own)
        place[own] = len(hosts) - 1
    device, starts = parts[0][0].device, [0, *accumulate(map(len, hosts))]
    ends = [starts[place[own]] + len(own) - 1 for own in number]
    clicks = [item for own in hosts for item in own]
    flat, ptr, ends_at, of = (torch.tensor(x, dtype=torch.long, device=device) for x in (clicks, starts, ends, prefix))
    graph = SessionGraph.from_sequences(flat, ptr, num_items=parts[0][0].num_items)
    return Prefixes(graph, ends_at, of, torch.cat([samples.target for _, samples in parts]))
