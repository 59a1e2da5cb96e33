"""Estimates of what retraining would do to log probabilities, made once per model and updated for a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples
from graphunlearn.nn.training.softmax import catalogue_loss
from graphunlearn.operators.cau.counts import ClickCounts, click_features
from graphunlearn.operators.cau.samples import ForgetSamples, prefix_items

__all__ = ["Estimates", "Regression", "log_probabilities", "simulated_request"]

SIMULATED = 2000  # expected number of sessions in the simulated request, at most; never more than half of all sessions
UNSEEN = 5000  # largest number of validation clicks used
KEPT = 1024  # number of kept clicks
HIDDEN = 128  # number of random features of the regressions
RIDGE = 100.0
CONSTANT = 1e-6

Predict = Callable[[Tensor], Tensor]


class Regression:
    r"""A ridge regression on standardised features and :data:`HIDDEN` random rectified features.

    After a change of fewer than half of the rows, the normal equations are changed, with the mean and the spread of the
    first rows; after a larger change, the regression is fitted anew.

    Args:
        features: The features ``[num, num_features]``, in float64.
        values: The values to predict ``[num]``.
        seed: Seed of the random features.

    Source: random features as in Rahimi and Recht, "Weighted Sums of Random Kitchen Sinks", NIPS 2008.

    Example:
        >>> x = torch.linspace(-1, 1, 2000, dtype=torch.float64).unsqueeze(1)
        >>> predicted = Regression(x, x.squeeze(1).abs()).fitted()(x)
        >>> bool((predicted - x.squeeze(1).abs()).abs().mean() < 0.1)
        True
    """

    def __init__(self, features: Tensor, values: Tensor, seed: int = 0) -> None:
        self.features, self.values, self.seed = features, values, seed
        generator, size = torch.Generator().manual_seed(seed), features.size(1)
        weight = torch.randn(size, HIDDEN, generator=generator, dtype=torch.float64) / size**0.5
        self.weight = weight.to(features.device)
        self.offset = torch.randn(HIDDEN, generator=generator, dtype=torch.float64).to(features.device)
        self.mean = features.sum(0) / max(len(features), 1)
        spread = ((features - self.mean).square().sum(0) / max(len(features), 1)).sqrt()
        self.spread = torch.where(spread > CONSTANT, spread, torch.inf)  # constant features are ignored
        self._all: Tensor | None = None

    def expand(self, features: Tensor) -> Tensor:
        """Return standardised and random features ``[num, num_features + HIDDEN]``."""
        return self._rows(features)

    def gram(self) -> Tensor:
        """Return the inner products of all columns, among them the values and a column of ones; computed once."""
        if self._all is None:
            self._all = self._gram(self.features, self.values)
        return self._all

    def _gram(self, features: Tensor, values: Tensor) -> Tensor:
        rows = self._rows(features, 2)
        rows[:, -2], rows[:, -1] = values, 1
        return rows.t() @ rows

    def _rows(self, features: Tensor, more: int = 0) -> Tensor:
        """Return standardised and random features, with more columns of arbitrary values after them."""
        size = features.size(1)
        rows = features.new_empty(len(features), size + HIDDEN + more)
        x = torch.sub(features, self.mean).div_(self.spread)
        rows[:, :size] = x
        rows[:, size : size + HIDDEN] = torch.addmm(self.offset, x, self.weight).relu_()
        return rows

    def fitted(self, lost: Tensor | None = None, stale: Tensor | None = None, fresh: Tensor | None = None) -> Predict:
        """Return the fitted function, after a change of the rows.

        Args:
            lost: Mask of the rows to take out ``[num]``.
            stale: Mask of other rows whose features have changed ``[num]``.
            fresh: The new features of these ``[num_stale, num_features]``.

        Returns:
            A function that maps features ``[num, num_features]`` to predicted values ``[num]``.
        """
        if lost is None or stale is None or fresh is None:
            return self._solved(self.gram())
        changed = lost | stale
        few = 2 * int(changed.sum()) < len(changed)
        if few and self._all is not None:
            gram = self._all - self._gram(self.features[changed], self.values[changed])
            return self._solved(gram + self._gram(fresh, self.values[stale]))
        kept = ~changed
        features, values = torch.cat([self.features[kept], fresh]), torch.cat([self.values[kept], self.values[stale]])
        return self._solved(self._gram(features, values)) if few else Regression(features, values, self.seed).fitted()

    def _solved(self, gram: Tensor) -> Predict:
        size, count = len(gram) - 2, gram[-1, -1].clamp(min=1)
        centre, level = gram[-1, :size] / count, gram[-1, size] / count
        left = gram[:size, :size] - count * torch.outer(centre, centre)
        left = left + RIDGE * torch.eye(size, dtype=gram.dtype, device=gram.device)
        solution = torch.linalg.solve(left, gram[:size, size] - count * level * centre)
        return lambda x: (self.expand(x) - centre) @ solution + level


class Sampled(NamedTuple):
    """Predictions with their features and log probabilities, from which a regression is learned."""

    graph: SessionGraph
    clicks: PrefixSamples
    regression: Regression

    def fitted(self, counts: ClickCounts, lost: Tensor, items: Tensor) -> Predict | None:
        """Return the regression after a change of the counts; ``None`` without any prediction left.

        Args:
            counts: The new counts.
            lost: Mask of the predictions to leave out ``[len(clicks)]``.
            items: Mask of the items whose counts have changed ``[num_items]``.
        """
        if bool(lost.all()):
            return None
        read, length = prefix_items(self.graph, self.clicks)
        row = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
        stale = items[self.clicks.target] | (torch.zeros_like(length).index_add_(0, row, items[read].long()) > 0)
        stale &= ~lost
        fresh = click_features(counts, self.graph, self.clicks.select(stale))
        return self.regression.fitted(lost, stale, fresh)


class Estimates:
    r"""Log probabilities of clicks that a model has and has not learned, as functions of counts.

    Clicks that were not learned are those of the validation sessions. Learned ones are those of a simulated request,
    whose clicks are not counted either. For an actual request, the sessions that it touches leave the simulated
    request and the kept clicks, and all counts become those of the retained graph.

    Args:
        model: The trained model.
        graph: Its training graph.
        validation: Sessions that the model was not trained on.
        whole: The share of the simulated sessions that are forgotten entirely.
        seed: Seed of the simulated request and of the kept clicks.
    """

    def __init__(
        self, model: nn.Module, graph: SessionGraph, validation: SessionGraph, whole: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.graph, self.validation, self.whole, self.seed = graph, validation, whole, seed
        self.simulated = simulated_request(graph, whole, generator)
        self.counts = ClickCounts.of(graph, ~self.simulated)
        learned = ForgetSamples.of(graph, graph.keep(~self.simulated), self.simulated)
        untouched = torch.ones(graph.num_sessions, dtype=torch.bool, device=graph.device)
        untouched[graph.session[self.simulated]] = False
        kept = CrossEntropy().samples(graph)
        order = torch.rand(graph.num_clicks, generator=generator).to(graph.device)[kept.ends]
        order[~untouched[kept.session]] = torch.inf
        order = order.argsort(stable=True)[: min(KEPT, int(untouched[kept.session].sum()))]
        self.kept = kept.select(order)
        unseen = CrossEntropy().samples(validation)
        if len(unseen) > UNSEEN:
            unseen = unseen.select(torch.randperm(len(unseen), generator=generator)[:UNSEEN])
        parts = [(validation, unseen), (graph, learned.forgotten), (graph, learned.deleted), (graph, self.kept)]
        self.parts = [Sampled(of, clicks, self._regression(model, of, clicks)) for of, clicks in parts]

    def _regression(self, model: nn.Module, graph: SessionGraph, clicks: PrefixSamples) -> Regression:
        features = click_features(self.counts, graph, clicks)
        return Regression(features, log_probabilities(model, graph, clicks), self.seed)

    def solve(self) -> None:
        """Compute all normal equations, so that a request only has to change them."""
        for part in self.parts:
            part.regression.gram()

    def after(self, mask: Tensor) -> tuple[ClickCounts, list[Predict | None], PrefixSamples]:
        """Return what is known after a request.

        Args:
            mask: Mask of the forgotten clicks ``[num_clicks]``.

        Returns:
            The counts; the log probability of a prediction by its features, for a click that was not learned, for one
            that is forgotten, for one whose transition is deleted and for one that is kept (``None`` without any
            example); and the kept clicks, in the graph before forgetting.
        """
        graph = self.graph
        session = graph.session
        touched = torch.zeros(graph.num_sessions, dtype=torch.bool, device=graph.device)
        touched[session[mask]] = True
        clicks = touched[session]
        items = torch.zeros(graph.num_items, dtype=torch.bool, device=graph.device)
        items[graph.items[clicks]] = True
        lost, gained = (ClickCounts.of(graph, clicks & ~gone) for gone in (self.simulated, mask))
        counts = self.counts.changed(lost, gained)
        fitted = []
        for n, part in enumerate(self.parts):
            out = touched[part.clicks.session] if n else touched.new_zeros(len(part.clicks))
            fitted.append(part.fitted(counts, out, items))
        return counts, fitted, self.kept.select(~touched[self.kept.session])


def simulated_request(graph: SessionGraph, whole: float, generator: torch.Generator) -> Tensor:
    """Return the mask of a simulated request: one click of each chosen session, or all clicks for a share ``whole``.

    Every session is drawn by itself, so that no session decides about another.

    Args:
        graph: The sessions.
        whole: The share of the chosen sessions that are forgotten entirely.
        generator: Generator of the draws, on the CPU.

    Returns:
        The mask ``[num_clicks]``.
    """
    length, start = graph.length.cpu(), graph.click_ptr[:-1].cpu()
    drawn = torch.rand(graph.num_sessions, 3, generator=generator)
    share = min(0.5, SIMULATED / max(int((length > 1).sum()), 1))
    chosen = (length > 1) & (drawn[:, 0] < share)
    mask = torch.zeros(graph.num_clicks, dtype=torch.bool)
    mask[(start + 1 + (drawn[:, 1] * (length - 1)).long())[chosen]] = True
    entire = chosen & (drawn[:, 2] < whole)
    return mask.to(graph.device) | entire.to(graph.device)[graph.session]


@torch.no_grad()
def log_probabilities(model: nn.Module, graph: SessionGraph, predictions: PrefixSamples) -> Tensor:
    """Return the model's ``log p`` of every prediction ``[num]``, in float64."""
    if not len(predictions):
        return torch.zeros(0, dtype=torch.float64, device=predictions.ends.device)
    encoded = encode_prefixes(model, graph, predictions.ends)
    return -catalogue_loss(encoded.queries, encoded.items, predictions.target).double()
