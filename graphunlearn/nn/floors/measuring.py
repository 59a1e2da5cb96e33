"""The quality of floors on held-out data, by the metrics of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.events import Kind
from graphunlearn.errors import ArgumentError
from graphunlearn.metrics.next_item import next_item_metrics, score_ranks
from graphunlearn.metrics.ranking import METRICS, Ranker, auroc
from graphunlearn.nn.floors.als import ALS
from graphunlearn.nn.floors.base import Floor
from graphunlearn.nn.floors.ease import EASE
from graphunlearn.nn.floors.markov import Markov
from graphunlearn.nn.floors.neighbours import ItemKNN, SessionKNN
from graphunlearn.nn.floors.popularity import Popularity

__all__ = ["default_floors", "floor_metrics", "measure_floor"]

BATCH = 256  # users or prefixes whose scores are held at a time


def default_floors(kind: Kind) -> list[Floor]:
    """Return the floors of one kind of graph, with their default options.

    Args:
        kind: ``"interactions"`` or ``"sessions"``.

    Returns:
        Floors that are not fitted yet.

    Example:
        >>> [floor.name for floor in default_floors("interactions")]
        ['popularity', 'item-knn', 'ease', 'als']
    """
    if kind == "interactions":
        return [Popularity(), ItemKNN(), EASE(), ALS()]
    return [Popularity(), Markov(), SessionKNN()]


def measure_floor(
    floor: Floor,
    train: InteractionGraph | SessionGraph,
    held_out: InteractionGraph | SessionGraph,
    ks: Sequence[int] = (20,),
) -> dict[str, float]:
    """Return the ranking metrics of a fitted floor on held-out data, by the metrics that models are measured by.

    Items of ``train`` are masked for users. For sessions, the click after every prefix is ranked among all items.
    The scores are computed for 256 users or prefixes at a time.

    Args:
        floor: The fitted floor.
        train: The training graph.
        held_out: Validation or test data, without clicks on items that have no training clicks.
        ks: Lengths of the recommendation list.

    Returns:
        The metrics of :class:`~graphunlearn.metrics.Ranker`, and ``"auroc"`` if the held-out labels are of both kinds;
        for sessions those of :func:`~graphunlearn.metrics.next_item_metrics`.

    Raises:
        ValueError: The graphs differ in kind or size.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=20, interactions_per_user=5)
        >>> train, test = graph.random_split([0.8, 0.2])
        >>> sorted(measure_floor(Popularity().fit(train), train, test))
        ['hit_rate@20', 'mrr@20', 'ndcg@20', 'recall@20']
    """
    if held_out.kind != train.kind or held_out.num_items != train.num_items:
        expected = f"be of the kind of 'train', with its {train.num_items} items"
        raise ArgumentError("held_out", expected, f"{type(held_out).__name__} of {held_out.num_items}")
    if isinstance(held_out, SessionGraph):
        from graphunlearn.nn.training.next_click import CrossEntropy  # training itself imports the floors

        samples = CrossEntropy().samples(held_out)
        ranks = score_ranks(lambda part: floor.scores(held_out, samples.ends[part]), samples.target, BATCH)
        return next_item_metrics(ranks, ks)
    assert isinstance(train, InteractionGraph)
    found = Ranker(train, held_out, ks, tuple(METRICS), BATCH).scored(lambda users: floor.scores(train, users))
    label = held_out.label
    if label is not None and 0 < float(label.mean()) < 1:
        found = {"auroc": auroc(_pair_scores(floor, train, held_out.pairs), label)} | found
    return found


def _pair_scores(floor: Floor, train: InteractionGraph, pairs: Tensor) -> Tensor:
    """Return the scores of pairs of users and items ``[num_pairs]``."""
    users, row = torch.unique(pairs[0], return_inverse=True)
    out = torch.empty(pairs.size(1), dtype=torch.double, device=pairs.device)
    for first in range(0, users.numel(), BATCH):
        part = (row >= first) & (row < first + BATCH)
        scores = floor.scores(train, users[first : first + BATCH])
        out[part] = scores[row[part] - first, pairs[1, part]].double()
    return out


def floor_metrics(
    train: InteractionGraph | SessionGraph,
    held_out: Mapping[str, InteractionGraph | SessionGraph],
    ks: Sequence[int] = (20,),
    floors: Sequence[Floor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit floors and return their metrics on held-out data; see :func:`measure_floor`.

    Args:
        train: The training graph.
        held_out: Validation and test data by name.
        ks: Lengths of the recommendation list.
        floors: The floors; :func:`default_floors` by default.

    Returns:
        For every floor by name, the metrics by the name of the held-out data; for a floor that refuses the graph,
        ``{"refused": reason}``.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=20, interactions_per_user=5)
        >>> train, test = graph.random_split([0.8, 0.2])
        >>> found = floor_metrics(train, {"test": test}, ks=(5,), floors=[Popularity(), EASE(max_gib=1e-9)])
        >>> sorted(found["popularity"]["test"]), list(found["ease"])
        (['hit_rate@5', 'mrr@5', 'ndcg@5', 'recall@5'], ['refused'])
    """
    out: dict[str, dict[str, Any]] = {}
    for floor in default_floors(train.kind) if floors is None else floors:
        try:
            floor.fit(train)
        except ArgumentError as error:
            out[floor.name] = {"refused": str(error)}
            continue
        out[floor.name] = {name: measure_floor(floor, train, part, ks) for name, part in held_out.items()}
    return out
