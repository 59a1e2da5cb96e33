"""Targets of CAU: the estimated log probability of every sample under retraining, and the counts they are based on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.encoding import Encoded
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.tables import item_tables
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples
from graphunlearn.nn.training.softmax import catalogue_loss
from graphunlearn.operators.cau.losses import predict
from graphunlearn.operators.cau.samples import ForgetSamples, prefix_items

__all__ = [
    "ClickCounts",
    "ClickTargets",
    "click_features",
    "click_targets",
    "log_probabilities",
    "regression",
    "settle_emptied",
]


@dataclass(frozen=True)
class ClickCounts:
    """Counts of items and item pairs in the sessions of a graph, stored sparsely.

    Args:
        popularity: Number of clicks of every item ``[num_items]``.
        followed: Ascending codes of the pairs ``(item, next item)`` that occur, and their counts.
        together: Ascending codes of the unordered pairs of items within ``window`` clicks of one session, and their
            counts.

    Example:
        >>> import graphunlearn as gu
        >>> counts = ClickCounts.of(gu.SessionGraph.from_sequences([[0, 1, 2], [0, 1]]), window=2)
        >>> counts.transitions(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2]))
        tensor([2., 0., 1.])
        >>> counts.company(torch.tensor([2, 1]), torch.tensor([0, 0]))
        tensor([1., 2.])
    """

    popularity: Tensor
    followed: tuple[Tensor, Tensor]
    together: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, graph: SessionGraph, window: int = 10) -> ClickCounts:
        """Count the items and item pairs in the sessions of ``graph``.

        The cost is proportional to ``window`` times the number of clicks.

        Args:
            graph: The sessions.
            window: Largest distance in clicks at which two items count as occurring together.

        Returns:
            The :class:`ClickCounts`.
        """
        items, session, size = graph.items, graph.session, graph.num_items
        followed, pairs = items.new_empty(0), []
        for distance in range(1, min(window, int(graph.length.max()) - 1) + 1):
            same = session[distance:] == session[:-distance]
            early, late = items[:-distance][same], items[distance:][same]
            if distance == 1:
                followed = early * size + late
            pairs.append(torch.minimum(early, late) * size + torch.maximum(early, late))
        company = torch.cat(pairs) if pairs else items.new_empty(0)
        popularity = torch.bincount(items, minlength=size).to(torch.get_default_dtype())
        return cls(popularity, _counted(followed), _counted(company))

    def transitions(self, item: Tensor, after: Tensor) -> Tensor:
        """Return how often ``after`` directly follows ``item`` ``[num]``."""
        return _look_up(self.followed, item * self.popularity.numel() + after)

    def company(self, item: Tensor, other: Tensor) -> Tensor:
        """Return how often ``item`` and ``other`` occur within the window in one session ``[num]``."""
        return _look_up(
            self.together, torch.minimum(item, other) * self.popularity.numel() + torch.maximum(item, other)
        )


def _counted(codes: Tensor) -> tuple[Tensor, Tensor]:
    known, count = torch.unique(codes, return_counts=True)
    return known, count.to(torch.get_default_dtype())


def _look_up(table: tuple[Tensor, Tensor], codes: Tensor) -> Tensor:
    known, count = table
    if not known.numel():
        return codes.new_zeros(codes.shape, dtype=count.dtype)
    place = torch.searchsorted(known, codes).clamp(max=known.numel() - 1)
    return torch.where(known[place] == codes, count[place], 0.0)


CHUNK = 1024  # predictions scored at a time; memory is bounded by this times the number of items
SIMULATED = 2000  # largest number of sessions in the simulated request, which takes at most half of all sessions
UNSEEN = 5000  # largest number of validation clicks used
HIDDEN = 128  # number of random features of the regressions
RIDGE = 100.0
CONSTANT = 1e-6


class ClickTargets(NamedTuple):
    """The target ``log p`` of every sample of a :class:`ForgetSamples`, and kept clicks that should not change.

    Args:
        forgotten: Targets of the forgotten predictions ``[len(samples.forgotten)]``.
        deleted: Targets of the deleted transitions ``[len(samples.deleted)]``.
        joined: Targets of the joined predictions ``[len(samples.joined)]``.
        before: The present ``log p`` of the forgotten and of the deleted predictions.
        kept: A sample of kept predictions in the retained graph.
    """

    forgotten: Tensor
    deleted: Tensor
    joined: Tensor
    before: tuple[Tensor, Tensor]  # present log p of the forgotten and deleted predictions
    kept: PrefixSamples  # in the retained graph


def click_targets(
    model: nn.Module,
    graph: SessionGraph,
    retained: SessionGraph,
    validation: SessionGraph,
    samples: ForgetSamples,
    *,
    carry: float = 0.75,
    num_kept: int = 1024,
    seed: int = 0,
) -> ClickTargets:
    r"""Return the target of every sample: its estimated ``log p`` under retraining, without any retrained model.

    Args:
        model: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.
        validation: Sessions that the model was not trained on.
        samples: The samples that the request removes and adds.
        carry: The share :math:`\rho` of the sample-specific part of ``log p`` that the target keeps.
        num_kept: Number of kept clicks to draw.
        seed: Seed of the simulated request and of the kept clicks.

    Returns:
        The :class:`ClickTargets`.
    """
    generator = torch.Generator().manual_seed(seed)
    joining = torch.zeros(retained.num_sessions, dtype=torch.bool, device=graph.device)
    joining[retained.session[samples.joined.ends]] = True  # these sessions are not forgotten in the simulation
    simulated = _simulated_request(retained, ~joining, samples.whole, generator)
    left = retained.keep(~simulated)
    learned = ForgetSamples.of(retained, left, simulated)
    untouched = torch.ones(retained.num_sessions, dtype=torch.bool, device=simulated.device)
    untouched[retained.session[simulated]] = False
    kept = CrossEntropy().samples(retained)
    kept = kept.select(untouched[retained.session[kept.ends]].nonzero().squeeze(1))
    order = torch.randperm(len(kept), generator=generator)[:num_kept]
    kept = kept.select(order.to(simulated.device))

    counts, unseen = ClickCounts.of(left), CrossEntropy().samples(validation)
    if len(unseen) > UNSEEN:
        unseen = unseen.select(torch.randperm(len(unseen), generator=generator)[:UNSEEN].to(unseen.ends.device))

    def fitted(sessions: SessionGraph, clicks: PrefixSamples) -> Callable[[Tensor], Tensor] | None:
        if not len(clicks):
            return None
        return regression(click_features(counts, sessions, clicks), log_probabilities(model, sessions, clicks), seed)

    never_seen = fitted(validation, unseen)
    assert never_seen is not None  # the operator has checked this

    def forgotten(clicks: PrefixSamples, own: Tensor, of_learned: Callable[[Tensor], Tensor] | None) -> Tensor:
        features = click_features(counts, graph, clicks)
        level = never_seen(features)
        level = level if of_learned is None else level + carry * (own - of_learned(features))
        return level.clamp(max=0)

    joined = log_probabilities(model, retained, samples.joined)
    of_kept = fitted(retained, kept)
    if of_kept is not None:
        joined = (joined + of_kept(click_features(counts, retained, samples.joined))) / 2
    before = (log_probabilities(model, graph, samples.forgotten), log_probabilities(model, graph, samples.deleted))
    return ClickTargets(
        forgotten(samples.forgotten, before[0], fitted(retained, learned.forgotten)),
        forgotten(samples.deleted, before[1], fitted(retained, learned.deleted)),
        joined.clamp(max=0),
        before,
        kept,
    )


def _simulated_request(graph: SessionGraph, allowed: Tensor, whole: float, generator: torch.Generator) -> Tensor:
    """Return the mask of a simulated request: one click of each chosen session, or all clicks for a share ``whole``."""
    long = ((graph.length > 1) & allowed).nonzero().squeeze(1).cpu()
    chosen = long[torch.randperm(long.numel(), generator=generator)[: min(SIMULATED, long.numel() // 2)]]
    length, start = graph.length.cpu()[chosen], graph.click_ptr.cpu()[chosen]
    mask = torch.zeros(graph.num_clicks, dtype=torch.bool)
    place = 1 + (torch.rand(chosen.numel(), generator=generator) * (length - 1)).long()
    mask[start + place] = True
    entire = torch.zeros(graph.num_sessions, dtype=torch.bool)
    entire[chosen[: round(whole * chosen.numel())]] = True
    return mask.to(graph.device) | entire.to(graph.device)[graph.session]


def log_probabilities(model: nn.Module, graph: SessionGraph, predictions: PrefixSamples) -> Tensor:
    """Return the model's ``log p`` of every prediction ``[num]``, in float64."""
    return _scored(model, graph, predictions, lambda encoded, target: -catalogue_loss(*encoded[:2], target))


@torch.no_grad()
def _scored(
    model: nn.Module, graph: SessionGraph, predictions: PrefixSamples, score: Callable[[Encoded, Tensor], Tensor]
) -> Tensor:
    """Return ``score(encoded, target)`` of every prediction ``[num]``, in float64, computed in chunks."""
    starts = range(0, len(predictions), CHUNK)
    parts = [predictions.select(torch.arange(start, min(start + CHUNK, len(predictions)))) for start in starts]
    scores = [score(encode_prefixes(model, graph, part.ends), part.target).double() for part in parts]
    return torch.cat([torch.zeros(0, dtype=torch.float64, device=predictions.ends.device), *scores])


def click_features(counts: ClickCounts, graph: SessionGraph, predictions: PrefixSamples) -> Tensor:
    """Return features of each prediction that are computed from the click counts.

    The features are logarithms of counts: the popularity of the item and of the last click, the transitions between
    the two, the co-occurrences of the item with the prefix, and the numbers of clicks of the session before and after
    the item. They also include indicators of zero counts, and products of features.

    Args:
        counts: The counts, from :meth:`ClickCounts.of`.
        graph: The graph that holds the prefixes.
        predictions: The predictions.

    Returns:
        The features ``[num, 23]``, in float64.
    """
    items, length = prefix_items(graph, predictions)
    target, last = predictions.target, graph.items[predictions.ends]
    row = torch.repeat_interleave(torch.arange(len(predictions), device=items.device), length)
    company, popular = counts.company(items, target[row]), counts.popularity[items]
    zero = company.new_zeros(len(predictions))
    total = zero.index_add(0, row, company)
    share = zero.index_add(0, row, company / (popular + 5))
    again = zero.index_add(0, row, (items == target[row]).to(zero.dtype)).clamp(max=1)
    forward, backward = counts.transitions(last, target), counts.transitions(target, last)
    near, of_last, own = counts.company(last, target), counts.popularity[last], counts.popularity[target]
    a, b, c, d = (x.log1p() for x in (own, forward, total, of_last))
    rates = [(share + 1e-3).log(), ((forward + 0.3) / (of_last + 5)).log(), ((near + 0.3) / (of_last + 5)).log()]
    columns = [a, b, backward.log1p(), near.log1p(), c, *rates, d, length.to(zero.dtype).log1p()]
    behind = (graph.click_ptr[predictions.session + 1] - predictions.ends - 2).clamp(min=0).to(zero.dtype)
    columns += [behind.log1p(), (behind == 0).to(zero.dtype), 1 / (own + 1)]
    columns += [(forward == 0).to(zero.dtype), (total == 0).to(zero.dtype), again]
    columns += [a * a, b * b, c * c, d * d, a * c, b * d, c * d]
    return torch.stack(columns, 1).double()


def regression(features: Tensor, values: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    r"""Fit a ridge regression on standardised features and :data:`HIDDEN` random rectified features.

    Args:
        features: The features ``[num, num_features]``, in float64.
        values: The values to predict ``[num]``.
        seed: Seed of the random features.

    Returns:
        A function that maps features ``[num, num_features]`` to predicted values ``[num]``.

    Source: random features as in Rahimi and Recht, "Weighted Sums of Random Kitchen Sinks", NIPS 2008.

    Example:
        >>> x = torch.linspace(-1, 1, 2000, dtype=torch.float64).unsqueeze(1)
        >>> predicted = regression(x, x.squeeze(1).abs())(x)
        >>> bool((predicted - x.squeeze(1).abs()).abs().mean() < 0.1)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    size = features.size(1)
    weight = (torch.randn(size, HIDDEN, generator=generator, dtype=torch.float64) / size**0.5).to(features.device)
    offset = torch.randn(HIDDEN, generator=generator, dtype=torch.float64).to(features.device)
    mean, spread = features.mean(0), features.std(0, correction=0)
    spread = torch.where(spread > CONSTANT, spread, torch.inf)  # constant features are ignored

    def expand(x: Tensor) -> Tensor:
        x = (x - mean) / spread
        return torch.cat([x, torch.relu(x @ weight + offset)], 1)

    rows = expand(features)
    centre, level = rows.mean(0), values.mean()
    rows = rows - centre
    gram = rows.t() @ rows + RIDGE * torch.eye(rows.size(1), dtype=rows.dtype, device=rows.device)
    solution = torch.linalg.solve(gram, rows.t() @ (values - level))
    return lambda x: (expand(x) - centre) @ solution + level


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
        wanted = PrefixSamples(part.ends[index], stands_for[part.target[index]], part.session[index])
        scored = log_probabilities(model, graph, wanted) if never.numel() else _scored(model, graph, wanted, _least)
        level[index] = scored
        levels.append(level)
    return targets._replace(forgotten=levels[0], deleted=levels[1]), lost.numel()


def _least(encoded: Encoded, target: Tensor) -> Tensor:
    """Return the log probability of the least probable item after every prefix ``[num]``."""
    least = (encoded.queries @ encoded.items.t()).argmin(1)
    return predict(encoded.queries, encoded.items, least).log_p
