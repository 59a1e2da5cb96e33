"""Items that a request leaves without any click: retraining would never show them to the model."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.session_models import SessionModel
from graphunlearn.operators.click_samples import ForgetSamples, Predictions
from graphunlearn.operators.click_targets import CHUNK, ClickTargets, log_probabilities
from graphunlearn.operators.residuals import predict

__all__ = ["item_tables", "settle_emptied"]


@singledispatch
def item_tables(model: nn.Module, num_items: int) -> list[Tensor]:
    """Return the parameters of ``model`` with one row per item; by default its embeddings of ``num_items`` rows.

    Register a function for your own class where it keeps items elsewhere.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return [module.weight for module in embeddings if module.num_embeddings == num_items]


@item_tables.register
def _(model: SessionModel, num_items: int) -> list[Tensor]:
    tables = [model.embedding.weight, None if model.output is None else model.output.weight, model.bias]
    return [table for table in tables if table is not None]


@torch.no_grad()
def settle_emptied(
    model: nn.Module,
    graph: SessionGraph,
    retained: SessionGraph,
    samples: ForgetSamples,
    targets: ClickTargets,
    seed: int,
) -> tuple[ClickTargets, int]:
    r"""Let the rows of emptied items take after items that were never clicked, in place; return levels, and how many.

    Training only ever pushes such an item down, which no regression over items with clicks can tell. Each emptied item
    gets the row of one that the sessions never held, drawn at random, and its level is the ``log p`` of that one after
    the same prefix; what followed an emptied item gets the level that it then has. Where every item had clicks there is
    nothing to take after: the level of an emptied item is then that of the least probable item after the same prefix.
    Tables that are not trained stay as they are.

    Args:
        model: Changed in place.
        graph: The graph before.
        retained: The graph after.
        samples: What is forgotten.
        targets: The levels so far.
        seed: Seed of the draw.
    """
    held, kept = (torch.bincount(g.items, minlength=graph.num_items) > 0 for g in (graph, retained))
    emptied, never = held & ~kept, (~held).nonzero().squeeze(1)
    lost = emptied.nonzero().squeeze(1)
    if not lost.numel():
        return targets, 0
    stands_for = torch.arange(graph.num_items, device=lost.device)
    if never.numel():
        drawn = torch.randint(never.numel(), (lost.numel(),), generator=torch.Generator().manual_seed(seed))
        stands_for[lost] = never[drawn.to(never.device)]
        for table in item_tables(model, graph.num_items):
            if table.requires_grad:
                table[lost] = table[stands_for[lost]]
    levels = []
    for part, level in ((samples.forgotten, targets.forgotten), (samples.deleted, targets.deleted)):
        concerned = emptied[part.target]
        if never.numel():
            concerned = concerned | emptied[graph.items[part.ends]]
        index, level = concerned.nonzero().squeeze(1), level.clone()
        wanted = Predictions(part.ends[index], stands_for[part.target[index]])
        level[index] = log_probabilities(model, graph, wanted) if never.numel() else _least(model, graph, wanted)
        levels.append(level)
    return targets._replace(forgotten=levels[0], deleted=levels[1]), lost.numel()


def _least(model: nn.Module, graph: SessionGraph, predictions: Predictions) -> Tensor:
    """Return the log probability of the least probable item after every prefix ``[num]``, in float64."""
    parts = [torch.zeros(0, dtype=torch.float64, device=predictions.ends.device)]
    for part in predictions.chunks(CHUNK):
        encoded = encode_prefixes(model, graph, part.ends)
        least = (encoded.users @ encoded.items.t()).argmin(1)
        parts.append(predict(encoded.users, encoded.items, least).log_p.double())
    return torch.cat(parts)
