r"""How probable would a forgotten click be, had the model never seen it? Estimated without any retrained model.

Three regressions of the model's own :math:`\log p` on what the kept sessions say of a click (popularity, transitions,
company; :func:`click_features`): :math:`f_u` over validation clicks, which the model never saw; :math:`f_s` over clicks
of a *simulated* request, which it did learn, described as if they had been forgotten; :math:`f_k` over kept clicks.
What retraining would give is then

.. math::
    \tau = f_u(x) + \rho\,(\log p - f_s(x))

for what is forgotten: the level of an unseen click, with a share :math:`\rho` of what is particular to this one; and
:math:`\tau = (f_k(x) + \log p) / 2` for what is newly joined, which retraining learns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.softmax import catalogue_loss
from graphunlearn.operators.click_counts import ClickCounts
from graphunlearn.operators.click_samples import ForgetSamples, Predictions, all_predictions, without_clicks

__all__ = ["ClickTargets", "click_features", "click_targets", "log_probabilities", "regression"]

CHUNK = 1024  # predictions scored at a time, which bounds the memory at that times the number of items
SIMULATED = 2000  # sessions that the simulated request touches, and no more than half of all
UNSEEN = 5000  # validation clicks that are looked at, at most
HIDDEN = 128  # random features of the regressions
RIDGE = 100.0
CONSTANT = 1e-6


class ClickTargets(NamedTuple):
    """Where ``log p`` should come to, for every sample of a :class:`ForgetSamples`, and kept clicks to hold on to."""

    forgotten: Tensor
    deleted: Tensor
    joined: Tensor
    before: tuple[Tensor, Tensor]  # what it is now, for the forgotten and the deleted ones
    kept: Predictions  # in the graph after


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
    r"""Return the level of ``log p`` that retraining would bring every sample to, as estimated from the model alone.

    Args:
        model: The trained model.
        graph: The graph before.
        retained: The graph after.
        validation: Sessions that the model was not trained on.
        samples: What is forgotten and joined.
        carry: The share :math:`\rho`.
        num_kept: How many kept clicks to draw.
        seed: Seed of the simulated request and of the kept clicks.
    """
    generator = torch.Generator().manual_seed(seed)
    joining = torch.zeros(retained.num_sessions, dtype=torch.bool, device=graph.device)
    joining[retained.session[samples.joined.ends]] = True  # these stay as they are, to be described as learned
    simulated = _simulated_request(retained, ~joining, samples.whole, generator)
    left = without_clicks(retained, simulated)
    learned = ForgetSamples.of(retained, left, simulated)
    untouched = torch.ones(retained.num_sessions, dtype=torch.bool, device=simulated.device)
    untouched[retained.session[simulated]] = False
    kept = all_predictions(retained)
    kept = kept.select(untouched[retained.session[kept.ends]].nonzero().squeeze(1))
    order = torch.randperm(len(kept), generator=generator)[:num_kept]
    kept = kept.select(order.to(simulated.device))

    counts, unseen = ClickCounts.of(left), all_predictions(validation)
    if len(unseen) > UNSEEN:
        unseen = unseen.select(torch.randperm(len(unseen), generator=generator)[:UNSEEN].to(unseen.ends.device))

    def fitted(sessions: SessionGraph, clicks: Predictions) -> Callable[[Tensor], Tensor] | None:
        if not len(clicks):
            return None
        return regression(click_features(counts, sessions, clicks), log_probabilities(model, sessions, clicks), seed)

    never_seen = fitted(validation, unseen)
    assert never_seen is not None  # the operator has seen to that

    def forgotten(clicks: Predictions, own: Tensor, of_learned: Callable[[Tensor], Tensor] | None) -> Tensor:
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
    """Return the clicks of a simulated request: one of some sessions each, the ``whole`` share of those entire."""
    long = ((graph.length > 1) & allowed).nonzero().squeeze(1).cpu()
    chosen = long[torch.randperm(long.numel(), generator=generator)[: min(SIMULATED, long.numel() // 2)]]
    length, start = graph.length.cpu()[chosen], graph.click_ptr.cpu()[chosen]
    mask = torch.zeros(graph.num_clicks, dtype=torch.bool)
    place = 1 + (torch.rand(chosen.numel(), generator=generator) * (length - 1)).long()
    mask[start + place] = True
    entire = torch.zeros(graph.num_sessions, dtype=torch.bool)
    entire[chosen[: round(whole * chosen.numel())]] = True
    return mask.to(graph.device) | entire.to(graph.device)[graph.session]


@torch.no_grad()
def log_probabilities(model: nn.Module, graph: SessionGraph, predictions: Predictions) -> Tensor:
    """Return the model's ``log p`` of every prediction ``[num]``, in float64."""
    parts = [torch.zeros(0, dtype=torch.float64, device=predictions.ends.device)]
    for part in predictions.chunks(CHUNK):
        encoded = encode_prefixes(model, graph, part.ends)
        parts.append(-catalogue_loss(encoded.users, encoded.items, part.target).double())
    return torch.cat(parts)


def click_features(counts: ClickCounts, graph: SessionGraph, predictions: Predictions) -> Tensor:
    """Return what the counted sessions say of each prediction ``[num, 23]``, in float64.

    Logarithms of the popularity of the item and of the last click, of the transitions between the two, of the company
    that the item keeps with the prefix, of the clicks before and behind; whether there are any; products of these.

    Args:
        counts: From :meth:`ClickCounts.of`.
        graph: Where the prefixes lie.
        predictions: The predictions.
    """
    items, length = predictions.sequences(graph)
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
    session = torch.searchsorted(graph.click_ptr, predictions.ends, right=True)
    behind = (graph.click_ptr[session] - predictions.ends - 2).clamp(min=0).to(zero.dtype)
    columns += [behind.log1p(), (behind == 0).to(zero.dtype), 1 / (own + 1)]
    columns += [(forward == 0).to(zero.dtype), (total == 0).to(zero.dtype), again]
    columns += [a * a, b * b, c * c, d * d, a * c, b * d, c * d]
    return torch.stack(columns, 1).double()


def regression(features: Tensor, values: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    r"""Return a ridge regression on standardised features and :data:`HIDDEN` random rectified ones.

    Args:
        features: ``[num, num_features]``, in float64.
        values: What they are to predict ``[num]``.
        seed: Seed of the random features.

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
    spread = torch.where(spread > CONSTANT, spread, torch.inf)  # what never varied tells nothing of what does

    def expand(x: Tensor) -> Tensor:
        x = (x - mean) / spread
        return torch.cat([x, torch.relu(x @ weight + offset)], 1)

    rows = expand(features)
    centre, level = rows.mean(0), values.mean()
    rows = rows - centre
    gram = rows.t() @ rows + RIDGE * torch.eye(rows.size(1), dtype=rows.dtype, device=rows.device)
    solution = torch.linalg.solve(gram, rows.t() @ (values - level))
    return lambda x: (expand(x) - centre) @ solution + level
