"""Targets of CAU: the estimated log probability of every sample under retraining."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.tables import item_tables
from graphunlearn.nn.training.next_click import PrefixSamples
from graphunlearn.nn.training.softmax import catalogue_loss
from graphunlearn.operators.cau.counts import click_features
from graphunlearn.operators.cau.levels import Estimates, Predict, log_probabilities
from graphunlearn.operators.cau.samples import ForgetSamples

__all__ = ["ClickTargets", "click_targets", "settle_emptied"]

CHUNK = 1024  # prefixes whose scores of all items are held at a time


class ClickTargets(NamedTuple):
    """The target ``log p`` of every sample of a :class:`ForgetSamples`, and kept clicks that should not change.

    Args:
        forgotten: Targets of the forgotten predictions ``[len(samples.forgotten)]``.
        deleted: Targets of the deleted transitions ``[len(samples.deleted)]``.
        joined: Targets of the joined predictions ``[len(samples.joined)]``.
        before: The present ``log p`` of the forgotten and of the deleted predictions.
        kept: A sample of kept predictions, in sessions that the request does not touch, and the graph that holds them.
    """

    forgotten: Tensor
    deleted: Tensor
    joined: Tensor
    before: tuple[Tensor, Tensor]  # present log p of the forgotten and deleted predictions
    kept: tuple[SessionGraph, PrefixSamples]


def click_targets(
    model: nn.Module,
    graph: SessionGraph,
    retained: SessionGraph,
    validation: SessionGraph,
    samples: ForgetSamples,
    mask: Tensor,
    *,
    carry: float = 0.75,
    seed: int = 0,
    estimates: Estimates | None = None,
) -> ClickTargets:
    r"""Return the target of every sample: its estimated ``log p`` under retraining, without any retrained model.

    Args:
        model: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.
        validation: Sessions that the model was not trained on.
        samples: The samples that the request removes and adds.
        mask: Mask of the forgotten clicks ``[num_clicks]``.
        carry: The share :math:`\rho` of the sample-specific part of ``log p`` that the target keeps.
        seed: Seed of the simulated request and of the kept clicks.
        estimates: The estimates of this model, if they were made before; they are then not made anew.

    Returns:
        The :class:`ClickTargets`.
    """
    if estimates is None:
        estimates = Estimates(model, graph, validation, samples.whole, seed)
    counts, (never_seen, of_forgotten, of_deleted, of_kept), kept = estimates.after(mask)
    assert never_seen is not None  # the operator has checked this

    def level(clicks: PrefixSamples, own: Tensor, of_learned: Predict | None) -> Tensor:
        features = click_features(counts, graph, clicks)
        unseen = never_seen(features)
        unseen = unseen if of_learned is None else unseen + carry * (own - of_learned(features))
        return unseen.clamp(max=0)

    joined = log_probabilities(model, retained, samples.joined)
    if of_kept is not None:
        joined = (joined + of_kept(click_features(counts, retained, samples.joined))) / 2
    gone = (samples.forgotten, samples.deleted)
    both = PrefixSamples(*(torch.cat(parts) for parts in zip(*((p.ends, p.target, p.session) for p in gone))))
    before = log_probabilities(model, graph, both).split([len(part) for part in gone])
    return ClickTargets(
        level(samples.forgotten, before[0], of_forgotten),
        level(samples.deleted, before[1], of_deleted),
        joined.clamp(max=0),
        (before[0], before[1]),
        (graph, kept),
    )


@torch.no_grad()
def settle_emptied(
    model: nn.Module,
    graph: SessionGraph,
    retained: SessionGraph,
    samples: ForgetSamples,
    targets: ClickTargets,
    seed: int,
) -> tuple[ClickTargets, int]:
    r"""Replace the embeddings of emptied items by those of items that were never clicked, and adjust their targets.

    Training only lowers the scores of an item without clicks, which a regression over items with clicks cannot
    predict. Each emptied item therefore gets the embedding of a random item that occurs in no session, and its target
    is the ``log p`` of that item after the same prefix. The target of a click that followed an emptied item is its
    ``log p`` after this replacement. If every item has clicks, no embedding can be copied; the target of an emptied
    item is then the ``log p`` of the least probable item after the same prefix. Tables that are not trained remain
    unchanged.

    Args:
        model: The model; it is changed in place.
        graph: The graph before forgetting.
        retained: The retained graph.
        samples: The samples that the request removes and adds.
        targets: The targets before the adjustment.
        seed: Seed of the random choice of items.

    Returns:
        The adjusted targets, and the number of emptied items.
    """
    held, kept = graph.active, retained.active
    emptied, never = held & ~kept, (~held).nonzero().squeeze(1)
    lost = emptied.nonzero().squeeze(1)
    if not lost.numel():
        return targets, 0
    stands_for = torch.arange(graph.num_items, device=lost.device)
    if never.numel():
        # one draw per item: with one per request, many small requests would all copy the same items
        drawn = torch.rand(graph.num_items, generator=torch.Generator().manual_seed(seed)).to(never.device)[lost]
        stands_for[lost] = never[(drawn * never.numel()).long()]
        for table in item_tables(model, graph.num_items):
            if table.requires_grad:
                table[lost] = table[stands_for[lost]]
    levels = []
    for part, level in ((samples.forgotten, targets.forgotten), (samples.deleted, targets.deleted)):
        concerned = emptied[part.target]
        if never.numel():
            concerned = concerned | emptied[graph.items[part.ends]]
        index, level = concerned.nonzero().squeeze(1), level.clone()
        wanted = PrefixSamples(part.ends[index], stands_for[part.target[index]], part.session[index])
        level[index] = log_probabilities(model, graph, wanted) if never.numel() else _least(model, graph, wanted)
        levels.append(level)
    return targets._replace(forgotten=levels[0], deleted=levels[1]), lost.numel()


def _least(model: nn.Module, graph: SessionGraph, predictions: PrefixSamples) -> Tensor:
    """Return the log probability of the least probable item after every prefix ``[num]``, in float64."""
    if not len(predictions):
        return log_probabilities(model, graph, predictions)
    queries, items, *_ = encode_prefixes(model, graph, predictions.ends)
    least = torch.cat([(some @ items.t()).argmin(1) for some in queries.split(CHUNK)])
    return -catalogue_loss(queries, items, least).double()
