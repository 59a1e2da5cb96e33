"""RecBole's data loaders of what remains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.operators.start import emptied_nodes

__all__ = ["rebuilt", "retained_datasets", "samplers_for"]


def retained_datasets(
    datasets: tuple[Any, ...], graph: InteractionGraph, retained: InteractionGraph
) -> tuple[tuple[Any, ...], int]:
    """Return RecBole datasets (training, and any held out) without what was forgotten.

    The training part keeps the interactions of ``retained``. Held-out parts lose what was forgotten, should a pair be
    in both, and the rows of users and items that forgetting left without any interaction: nothing is to be measured on
    them.

    Returns:
        The datasets, which share nothing that is changed with those passed, and how many held-out rows went.
    """
    before, codes = ((side.pairs[0] * graph.num_items + side.pairs[1]).cpu() for side in (graph, retained))
    forgotten = before[~torch.isin(before, codes)]
    emptied = emptied_nodes(graph, retained).cpu()
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


def _numbers(dataset: Any, field: str) -> Tensor:
    return torch.as_tensor(dataset.inter_feat[field]).long()


def rebuilt(loaders: tuple[Any, ...], datasets: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return RecBole loaders like ``loaders`` over other datasets; ``None`` where there was none, or is nothing left.

    Negatives and seen items are those of the datasets passed: a forgotten item is masked for nobody.
    """
    out: list[Any] = []
    samplers = samplers_for(loaders, datasets)
    left = iter(zip(datasets, samplers))
    for loader in loaders:
        if loader is None:
            out.append(None)
            continue
        dataset, sampler = next(left)
        out.append(type(loader)(loader.config, dataset, sampler, shuffle=loader.shuffle) if len(dataset) else None)
    return tuple(out)


def samplers_for(loaders: tuple[Any, ...], datasets: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return RecBole's samplers of negatives and of seen items, for every dataset."""
    from recbole.data.utils import create_samplers

    config = next(loader.config for loader in loaders if loader is not None)
    three = list(datasets) + [datasets[-1]] * (3 - len(datasets))  # RecBole makes them for three phases
    return tuple(create_samplers(config, datasets[0], three)[: len(datasets)])
