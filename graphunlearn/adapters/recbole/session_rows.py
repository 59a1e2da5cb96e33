"""Conversion between the rows of RecBole's sequential data sets and their clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data import SessionGraph
from graphunlearn.data.vocabulary import preview
from graphunlearn.errors import ArgumentError

__all__ = ["Clicks", "kept_clicks", "windows"]


def windows(values: Tensor, ends: Tensor, length: Tensor, width: int) -> Tensor:
    """Return windows of the ``length`` values up to and including each end, padded with zeros at the end.

    Args:
        values: The values ``[num_values, ...]``.
        ends: Position of the last value of each window ``[num]``.
        length: Number of values of each window, at least 1 and at most ``width`` ``[num]``.
        width: Width of all windows, including padding.

    Returns:
        The windows ``[num, width, ...]``.

    Example:
        >>> windows(torch.tensor([5, 6, 7]), torch.tensor([1, 2]), torch.tensor([2, 1]), 3)
        tensor([[5, 6, 0],
                [7, 0, 0]])
    """
    place = torch.arange(width, device=ends.device)
    filled = place < length.unsqueeze(1)
    index = (ends - length + 1).unsqueeze(1) + place
    out = values[index.where(filled, 0)]
    out[~filled] = 0
    return out


@dataclass(frozen=True)
class Clicks:
    """All clicks of the rows of some data sets, each click once, sorted by RecBole's sequence id and by time.

    A row holds a history and the click that follows it, its target. RecBole makes one row for every click of a sequence
    but the first, and divides these rows among training, validation and test data by time.

    Args:
        datasets: The data sets in the order of time.
        uid: RecBole's id of every sequence ``[num_sequences]``.
        length: Number of clicks of every sequence ``[num_sequences]``.
        row: The row whose target the click is, counted over all data sets; for the first click of a sequence, the row
            of the second one ``[num_clicks]``.
        part: Number of the data set of that row ``[num_clicks]``.
        first: Whether the click is the first of its sequence ``[num_clicks]``.
    """

    datasets: Sequence[Any]
    uid: Tensor
    length: Tensor
    row: Tensor
    part: Tensor
    first: Tensor

    @classmethod
    def of(cls, datasets: Sequence[Any]) -> Clicks:
        """Return the clicks of the rows of some data sets.

        Args:
            datasets: RecBole's sequential data sets in the order of time.

        Raises:
            ValueError: The data sets hold no histories, or their rows do not form whole sequences.
        """
        columns = datasets[0].inter_feat.columns
        wanted = {_list_field(datasets[0], datasets[0].iid_field), datasets[0].item_list_length_field}
        if not wanted <= set(columns):
            missing = ", ".join(sorted(wanted - set(columns)))
            raise ArgumentError("train", "hold histories, as RecBole's SequentialDataset does", f"no column {missing}")
        row_uid = _column(datasets, datasets[0].uid_field)
        order = torch.argsort(row_uid, stable=True)
        uid, rows = torch.unique_consecutive(row_uid[order], return_counts=True)
        length = rows + 1
        first = torch.zeros(int(length.sum()), dtype=torch.bool)
        first[length.cumsum(0) - length] = True
        row = torch.empty(first.numel(), dtype=torch.long)
        row[~first] = order
        row[first] = order[rows.cumsum(0) - rows]
        part = torch.repeat_interleave(torch.tensor([len(dataset) for dataset in datasets]))[row]
        clicks = cls(datasets, uid, length, row, part, first)
        clicks._check()
        return clicks

    @cached_property
    def item(self) -> Tensor:
        """RecBole's item id of every click ``[num_clicks]``."""
        return self.values(self.datasets[0].iid_field)

    @cached_property
    def sequence(self) -> Tensor:
        """Sequence of every click ``[num_clicks]``."""
        return torch.repeat_interleave(self.length)

    def values(self, field: str) -> Tensor:
        """Return the value of RecBole's column ``field`` for every click.

        The value of a click is read from the end of the history of the next click. The last click of a sequence is in
        no history; its value is read from the column itself, or it is 0 if RecBole was configured to drop the column
        and to keep only the histories.

        Args:
            field: Name of the column.

        Returns:
            Values ``[num_clicks, ...]``.
        """
        following = self.row.roll(-1)
        place = _column(self.datasets, self.datasets[0].item_list_length_field)[following] - 1
        out = _column(self.datasets, _list_field(self.datasets[0], field))[following, place]
        last = self.first.roll(-1)
        known = field in self.datasets[0].inter_feat.columns
        out[last] = _column(self.datasets, field)[self.row[last]] if known else 0
        return out

    def rows_without(self, forgotten: Tensor) -> list[dict[str, Tensor]]:
        """Build the rows of every data set again without some clicks; their neighbours become adjacent.

        Args:
            forgotten: Mask of the clicks to drop ``[num_clicks]``.

        Returns:
            The columns of the rows, one dictionary per data set; the rows keep their order.
        """
        kept = (~forgotten).nonzero().flatten()
        sequence = self.sequence[kept]
        place = torch.arange(kept.numel())
        starts = torch.ones(kept.numel(), dtype=torch.bool)
        starts[1:] = sequence[1:] != sequence[:-1]
        before = place - place[starts][starts.long().cumsum(0) - 1]  # number of kept clicks before it in its sequence
        targets = ((before > 0) & ~self.first[kept]).nonzero().flatten()
        targets = targets[torch.argsort(self.row[kept[targets]])]
        width = self._histories.size(1)
        length = before[targets].clamp(max=width)
        row, part = self.row[kept[targets]], self.part[kept[targets]]
        dataset, columns = self.datasets[0], {}
        names = dataset.inter_feat.columns
        for name in names:
            base = name.removesuffix(dataset.config["LIST_SUFFIX"])
            if name == dataset.item_list_length_field:
                columns[name] = length
            elif base != name and (base in names or _list_field(dataset, name) not in names):
                columns[name] = windows(self.values(base)[kept], targets - 1, length, width)
            else:
                columns[name] = _column(self.datasets, name)[row]
        return [
            {name: value[part == number] for name, value in columns.items()} for number in range(len(self.datasets))
        ]

    @cached_property
    def _histories(self) -> Tensor:
        return _column(self.datasets, _list_field(self.datasets[0], self.datasets[0].iid_field))

    def _check(self) -> None:
        """Check that every row equals the row that RecBole would make from the sequences."""
        histories, targets = self._histories, (~self.first).nonzero().flatten()
        place = torch.arange(self.first.numel())
        start = (self.length.cumsum(0) - self.length)[self.sequence]
        length = (place - start)[targets].clamp(max=histories.size(1))
        row = self.row[targets]
        same = _column(self.datasets, self.datasets[0].item_list_length_field)[row] == length
        same &= (histories[row] == windows(self.item, targets - 1, length, histories.size(1))).all(1)
        if not bool(same.all()):
            wrong = self.uid[self.sequence[targets[~same]][:1]]
            token = self.datasets[0].id2token(self.datasets[0].uid_field, wrong)[0]
            raise ValueError(
                "in the data loaders, every click of a sequence except the first must be the target of one row whose "
                "history is all earlier clicks, as RecBole's augmentation makes them "
                f"(got {int((~same).sum())} other rows, the first of '{token}')"
            )


def kept_clicks(graph: SessionGraph, retained: SessionGraph) -> Tensor:
    """Return which clicks of ``graph`` were kept in ``retained``.

    If several choices of clicks give the same retained session, the one with the earliest clicks is returned.

    Args:
        graph: The sessions before forgetting.
        retained: The retained sessions.

    Returns:
        Mask of the kept clicks ``[num_clicks]``.

    Raises:
        ValueError: A retained session is not a session of the graph with some clicks removed.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [3]])
        >>> kept_clicks(graph, graph.split(gu.ForgetRequest("item", [1]))[0])
        tensor([ True, False,  True,  True])
    """
    number = graph.vocabulary("session").lookup(retained.session_ids)
    keep = torch.zeros(graph.num_clicks, dtype=torch.bool)
    wrong = [name for name, found in zip(retained.session_ids, number.tolist()) if found < 0]
    before, after = _events(graph), _events(retained)
    starts, ends = graph.click_ptr[:-1].tolist(), graph.click_ptr[1:].tolist()
    bounds = zip(number.tolist(), retained.click_ptr[:-1].tolist(), retained.click_ptr[1:].tolist())
    for session, start, end in bounds:
        if session < 0:
            continue
        place, stop = starts[session], ends[session]
        for event in after[start:end]:
            while place < stop and before[place] != event:
                place += 1
            if place == stop:
                wrong.append(graph.session_ids[session])
                break
            keep[place] = True
            place += 1
    if wrong:
        raise ArgumentError("retained", "hold sessions of 'graph' without some clicks", f"{preview(wrong)} besides")
    return keep


def _events(graph: SessionGraph) -> list[Any]:
    items = graph.items.tolist()
    return items if graph.time is None else list(zip(items, graph.time.tolist()))


def _list_field(dataset: Any, field: str) -> str:
    return f"{field}{dataset.config['LIST_SUFFIX']}"


def _column(datasets: Sequence[Any], name: str) -> Tensor:
    return torch.cat([torch.as_tensor(dataset.inter_feat[name]) for dataset in datasets])
