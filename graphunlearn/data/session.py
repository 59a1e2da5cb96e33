"""Sessions of clicks as one PyTorch Geometric object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphunlearn.data.io.sessions import SessionConversions
from graphunlearn.data.schema import as_mask, cuts_of
from graphunlearn.data.session_build import build
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

    from graphunlearn.data.request import ForgetRequest

__all__ = ["SessionGraph"]


class SessionGraph(SessionConversions):
    r"""Sessions of clicks, each the graph of its items, all of them as one disjoint graph.

    A session :math:`(c_1, \dots, c_n)` has one node for every distinct item in it, and one edge :math:`u \to v` where a
    click on the item of :math:`u` is somewhere followed by one on that of :math:`v` (a self loop where an item is
    clicked twice in a row). Nodes lie by session, then by item; edges by source, then by target. It holds

    - ``x``: item of every node ``[num_nodes]``,
    - ``edge_index``: transitions, each once per session ``[2, num_edges]``,
    - ``alias``: node of every click ``[num_clicks]``, so that no order is lost,
    - ``batch``: session of every node ``[num_nodes]``,
    - ``length``: number of clicks of every session, at least 1 ``[num_sessions]``,
    - ``time``: time of every click ``[num_clicks]``, or none,
    - ``user``: user of every session, -1 where unknown ``[num_sessions]``, or none,
    - ``target``: on graphs of prefixes alone, the item clicked next, or -1 ``[num_sessions]``,

    and equals PyTorch Geometric's :class:`~torch_geometric.data.Batch` of the graphs of the single sessions. All of
    :class:`~torch_geometric.data.Data` works. Items keep their numbers and their count never shrinks, so that embedding
    tables keep their shape whatever is forgotten; sessions are numbered anew, and their raw ids go with them.

    Example:
        >>> graph = SessionGraph.from_sequences([[4, 2, 4, 4], [2]], session_ids=["a", "b"])
        >>> graph.x, graph.alias, graph.batch
        (tensor([2, 4, 2]), tensor([1, 0, 1, 1, 2]), tensor([0, 0, 1]))
        >>> graph.edge_index
        tensor([[0, 1, 1],
                [1, 0, 1]])
    """

    def select(self, index: Tensor) -> Self:
        """Return the graph of some of the sessions: same items and numbers, fewer sessions.

        Args:
            index: Boolean mask ``[num_sessions]``, or the indices to keep; they stay in the order of the graph.

        Raises:
            ValueError: If the mask has another length or an index is out of range.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2, 2, 3], [1]])
            >>> part = graph.select(torch.tensor([1, 2]))
            >>> part.items, part.length, part.session_ids, part.num_items
            (tensor([2, 2, 3, 1]), tensor([3, 1]), ['1', '2'], 4)
        """
        keep = as_mask(index, self.num_sessions, self.device, "sessions")
        return self._clicks(keep.repeat_interleave(self.length, output_size=self.num_clicks))

    @torch.inference_mode(False)  # what is cut in inference mode is for use outside it as well
    def _clicks(self, keep: Tensor) -> Self:
        """The graph of some of the clicks ``[num_clicks]``: their neighbours join, sessions without any are dropped."""
        count = torch.bincount(self.session[keep], minlength=self.num_sessions)
        left = count > 0
        sessions = self.vocabulary("session")
        return build(
            self._kind,
            self.items[keep],
            count[left],
            self.vocabulary("item"),
            sessions if left.all() else sessions.take(left),
            None if self.user is None else self.vocabulary("user"),
            time=None if self.time is None else self.time[keep],
            user=None if self.user is None else self.user[left],
            target=None if self.target is None else self.target[left],
            num_left_out=self.num_left_out or None,
        )

    def split(self, *requests: ForgetRequest) -> tuple[Self, Self]:
        r"""Return the sessions without the clicks that the requests name, and these clicks alone.

        Of a session :math:`(c_1, \dots, c_n)` without its click :math:`c_k`, there remains

        .. math::
            (c_1, \dots, c_{k-1}, c_{k+1}, \dots, c_n):

        the click is dropped and its neighbours join, so that :math:`c_{k-1} \to c_{k+1}` is now a transition (a self
        loop where both are clicks on one item: joined repeats are not collapsed), while an item that is clicked
        elsewhere in the session stays a node of it. Later clicks move up one position. A session with one click left
        stays, though there is nothing to learn from it: neither a transition nor a click to predict. A session
        with no click left is dropped, and the sessions after it move up; raw ids go with their sessions.

        The second graph holds, of every session with a click named, these clicks alone, likewise joined.

        Args:
            requests: One request or several.

        Returns:
            The retained and the forgotten clicks, as two graphs with the same items.

        Raises:
            ValueError: If a request does not fit the graph, or every session would be emptied.

        Example:
            >>> import graphunlearn as gu
            >>> graph = SessionGraph.from_sequences([[0, 1, 2], [3, 1], [1]])
            >>> retain, forget = graph.split(gu.ForgetRequest("item", [1]))
            >>> retain.items, retain.length, retain.session_ids
            (tensor([0, 2, 3]), tensor([2, 1]), ['0', '1'])
            >>> forget.items, forget.length, forget.session_ids
            (tensor([1, 1, 1]), tensor([1, 1, 1]), ['0', '1', '2'])
        """
        if not requests:
            raise ArgumentError("requests", "hold at least one request", "none")
        forget = reduce(or_, requests).mask(self)
        return self._clicks(~forget), self._clicks(forget)

    @torch.inference_mode(False)
    def prefixes(self, ends: Tensor | None = None) -> Self:
        """Return one session per click in ``ends``: its session up to and including it; ``target`` is the next click.

        Training needs hundreds of these per step: they carry no times, users and raw ids of sessions.

        Args:
            ends: Clicks, in any order, some maybe repeated ``[n]`` (default: all that have a successor).

        Returns:
            A graph of ``n`` sessions with ``target`` ``[n]``, the item of the next click, -1 where there is none.

        Raises:
            ValueError: If ``ends`` holds no clicks of the graph.

        Example:
            >>> import torch
            >>> part = SessionGraph.from_sequences([[0, 1, 2], [3]]).prefixes(torch.tensor([1, 3]))
            >>> part.items, part.length, part.target
            (tensor([0, 1, 3]), tensor([2, 1]), tensor([ 2, -1]))
        """
        ptr = self.click_ptr
        if ends is None:
            last = torch.zeros(self.num_clicks, dtype=torch.bool, device=self.device)
            last[ptr[1:] - 1] = True
            ends = (~last).nonzero().flatten()
        ends = self._check_ends(ends)
        session = torch.searchsorted(ptr, ends, right=True) - 1
        length = ends - ptr[session] + 1
        shift = ends - length.cumsum(0) + 1  # from a click of the prefixes to that of the graph
        click = shift.repeat_interleave(length)
        click += torch.arange(click.numel(), device=self.device)
        is_last = ends + 1 == ptr[session + 1]
        target = self.x[self.alias[ends + ~is_last]].masked_fill(is_last, -1)
        return build(self._kind, self.x[self.alias[click]], length, self.vocabulary("item"), target=target)

    def _check_ends(self, ends: Tensor) -> Tensor:
        ends = torch.as_tensor(ends, device=self.device)
        if ends.dim() != 1 or ends.dtype == torch.bool or ends.is_floating_point():
            raise ArgumentError("ends", "be a list of clicks", f"{ends.dtype}, shape {list(ends.shape)}")
        if ends.numel() and not 0 <= int(ends.min()) <= int(ends.max()) < self.num_clicks:
            low, high = int(ends.min()), int(ends.max())
            raise ArgumentError("ends", f"lie between 0 and {self.num_clicks - 1}", f"{low} to {high}")
        return ends.long()

    def collapse(self) -> Self:
        """Return the graph without the clicks on the item of the click before; of a run, the first stays.

        Example:
            >>> SessionGraph.from_sequences([[0, 0, 1, 0], [0, 0]]).collapse().items
            tensor([0, 1, 0, 0])
        """
        items, session = self.items, self.session
        keep = torch.ones(self.num_clicks, dtype=torch.bool, device=self.device)
        keep[1:] = (items[1:] != items[:-1]) | (session[1:] != session[:-1])
        return self._clicks(keep)

    def without_unseen(self, train: SessionGraph) -> Self:
        """Return the graph without the clicks on items that ``train`` holds no click on; their neighbours join.

        No model can have learnt these items. What is left out adds to :attr:`num_left_out`.

        Raises:
            ValueError: If ``train`` has other items.

        Example:
            >>> train, test = SessionGraph.from_sequences([[0, 1], [0, 2, 1]]).time_split([0.5, 0.5])
            >>> part = test.without_unseen(train)
            >>> part.items, part.num_left_out
            (tensor([0, 1]), 1)
        """
        if train.vocabulary("item") != self.vocabulary("item"):
            raise ArgumentError("train", f"have the same {self.num_items} items", f"others, {train.num_items}")
        seen = torch.zeros(self.num_items, dtype=torch.bool, device=self.device)
        seen[train.x.to(self.device)] = True
        keep = seen[self.items]
        graph = self._clicks(keep)
        graph._store.num_left_out = self.num_left_out + int((~keep).sum())
        return graph

    def time_split(self, fractions: Sequence[float]) -> tuple[Self, ...]:
        """Return disjoint graphs of whole sessions, one per fraction, the later ones last.

        Sessions are ordered by the time of their last click, and where there are no times, or equal ones, as they lie.
        Items keep their numbers in all parts; see :meth:`without_unseen`.

        Args:
            fractions: Share of the sessions in every part; they add up to 1.

        Raises:
            ValueError: If the fractions are not positive or do not add up to 1.

        Example:
            >>> import torch
            >>> graph = SessionGraph.from_sequences([[0, 1], [2], [1]], time=torch.tensor([5, 9, 7, 8]))
            >>> [part.session_ids for part in graph.time_split([0.67, 0.33])]
            [['1', '2'], ['0']]
        """
        cuts = cuts_of(fractions, self.num_sessions)
        order = torch.arange(self.num_sessions, device=self.device)
        if self.time is not None:
            order = torch.argsort(self.time[self.click_ptr[1:] - 1], stable=True)
        return tuple(self.select(part) for part in order.tensor_split(cuts))

    def subgraph(self, subset: Tensor) -> Self:
        """Return the graph of the clicks on some nodes (a mask or indices ``[n]``); their neighbours join."""
        return self._clicks(as_mask(subset, self.x.numel(), self.device, "nodes")[self.alias])
