"""RecBole data sets and loaders of the retained data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph

__all__ = ["named_nodes", "rebuilt", "retained_datasets"]


def retained_datasets(
    datasets: tuple[Any, ...], graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
) -> tuple[tuple[Any, ...], int]:
    """Return RecBole data sets (training first, then held-out data) without the forgotten data.

    The training data keep the interactions of ``retained``. The held-out data lose the forgotten pairs, if they contain
    any, and the rows of users and items that must not be used for measurements: those that the request names, with or
    without training data, and those that forgetting left without interactions.

    Args:
        datasets: The RecBole data sets, which are not changed.
        graph: The training graph before forgetting.
        retained: The retained graph.
        request: The forget request.

    Returns:
        The new data sets, and the number of held-out rows that were dropped.
    """
    before, codes = ((side.pairs[0] * graph.num_items + side.pairs[1]).cpu() for side in (graph, retained))
    forgotten = before[~torch.isin(before, codes)]
    emptied = graph.emptied(retained).cpu()
    emptied[named_nodes(request, "user", graph)] = True
    emptied[named_nodes(request, "item", graph) + graph.num_users] = True
    parts, gone = [], 0
    for place, dataset in enumerate(datasets):
        users, items = (_numbers(dataset, field) - 1 for field in (dataset.uid_field, dataset.iid_field))
        own = users * graph.num_items + items
        if place == 0:
            keep = torch.isin(own, codes)
        else:
            keep = ~(torch.isin(own, forgotten) | emptied[users] | emptied[items + graph.num_users])
            gone += int((~keep).sum())
        parts.append(dataset.copy(dataset.inter_feat[keep.nonzero().flatten()]))
    return tuple(parts), gone


def named_nodes(request: ForgetRequest, level: str, graph: InteractionGraph | SessionGraph) -> Tensor:
    """Return the users or items that a request names at their own level, with or without interactions in the graph.

    Args:
        request: The forget request.
        level: ``"user"`` or ``"item"``.
        graph: The graph with their raw ids.

    Returns:
        Node numbers ``[num_nodes]``; -1 for raw ids that the graph does not contain.
    """
    known = graph.vocabulary(level)
    parts = [part for part in request.parts if part.level == level]
    found = [known.lookup(part.index) if part.raw else torch.tensor(part.index) for part in parts]
    return torch.cat([torch.zeros(0, dtype=torch.long), *found])


def _numbers(dataset: Any, field: str) -> Tensor:
    return torch.as_tensor(dataset.inter_feat[field]).long()


def rebuilt(loaders: tuple[Any, ...], datasets: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return RecBole loaders with the settings of ``loaders`` over other data sets.

    Negatives and seen items follow from the data sets passed, so a forgotten interaction no longer masks its item.

    Args:
        loaders: The loaders of training, validation and test data; ``None`` for missing ones.
        datasets: One data set per loader that is not ``None``.

    Returns:
        The new loaders; ``None`` where there was no loader or the data set is empty.
    """
    left = iter(datasets)
    own = [None if loader is None else next(left) for loader in loaders]
    samplers = _samplers(loaders, own)
    return tuple(
        None
        if dataset is None or not len(dataset)
        else type(loader)(loader.config, dataset, sampler, shuffle=loader.shuffle)
        for loader, dataset, sampler in zip(loaders, own, samplers)
    )


def _samplers(loaders: tuple[Any, ...], datasets: list[Any]) -> tuple[Any, ...]:
    """Return RecBole's samplers of negatives and of seen items for training, validation and test."""
    from recbole.data.interaction import cat_interactions
    from recbole.data.utils import create_samplers

    present = [dataset for dataset in datasets if dataset is not None]
    config = next(loader.config for loader in loaders if loader is not None)
    empty = present[0].copy(present[0].inter_feat[:0])
    three = [empty if dataset is None else dataset for dataset in datasets]
    whole = present[0].copy(cat_interactions([dataset.inter_feat for dataset in present]))
    return tuple(create_samplers(config, whole, three))
