"""The measures that an audit takes of session recommenders."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.eval.attacks.sessions import SessionAttacks
from graphunlearn.eval.measure import SAMPLE, Measured, compared_by_ks, held_against
from graphunlearn.eval.served import margins, top_lists
from graphunlearn.eval.targets import last_prefixes, session_target_figures
from graphunlearn.metrics.forgetting import gap_closed
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn import Encoded
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = ["SessionJudge", "candidates", "ranks_among", "u_score"]

BATCH = 512
"""Number of prefixes scored at a time, which bounds the memory at ``BATCH * num_items`` scores."""
RIVALS = 500
"""Number of random items among which a forgotten item is ranked."""
HITS = (1, 5, 10, 20)


class SessionJudge:
    r"""Measures all models of one audit of sessions in the same way.

    Utility is Recall, MRR and NDCG at 20, 10 and 5 over all prefixes of the test sessions, against the whole catalogue
    including items already clicked. Every prefix has one next click, so the hit rate equals the recall.

    Forgetting is measured on every forgotten click :math:`v_t` with a prefix :math:`v_{1:t-1}` in the session that was
    trained on. The first click of a session has no prefix; it is left out and counted.

    - ``log_p_forgotten``: mean of :math:`\log p(v_t \mid v_{1:t-1})`;
    - ``rank_forgotten``: mean of :math:`\log_2` of the rank of :math:`v_t` in the whole catalogue; the logarithm keeps
      a few large ranks from dominating the mean;
    - ``hit_u@k``: share of forgotten clicks that rank among the :math:`k` best of themselves and 500 random items; the
      items are drawn from the training sessions, are not in the prefix, and are the same for all models;
    - ``log_p_deleted_transition``: mean of :math:`\log p(v_{t+1} \mid v_{1:t})` over the clicks whose successor
      :math:`v_{t+1}` is retained;
    - ``u_score``: see :func:`u_score`;
    - ``ks_statistic``: KS distance between the distributions of :math:`\log p(v_t \mid v_{1:t-1})`.

    Args:
        graph: The training sessions before forgetting.
        request: The forget request.
        validation: Held-out sessions for early stopping, or ``None``.
        test: All held-out test sessions. Clicks on items that have no training clicks or that are forgotten everywhere
            are left out and their neighbours are joined; the sessions of users whose training sessions are all
            forgotten are left out. These clicks, and those dropped on reading, are counted in ``left_out``.
        targets: Items that the forgotten sessions were made to promote ``[num_targets]``, or ``None``.
        real: Mask of the real sessions ``[num_sessions]``, after which the targets are measured.

    Attributes:
        distance_unit: ``"log p"``; distances between models are differences of log probabilities.
        left_out: Numbers of clicks that are not measured, by reason.

    Source of the protocol of ``hit_u``: SRU, arXiv 2312.14447.
    """

    distance_unit: ClassVar[str] = "log p"

    def __init__(
        self,
        graph: SessionGraph,
        request: ForgetRequest,
        validation: SessionGraph | None,
        test: SessionGraph,
        targets: Tensor | None = None,
        real: Tensor | None = None,
    ) -> None:
        self.graph = graph
        forgotten = request.mask(graph)
        retained, _ = graph.split(request)
        known, emptied = graph.active, graph.emptied(retained)
        of_known = test.without_unseen(retained)
        self.test = of_known.without_emptied(graph, retained)
        held = [] if validation is None else [validation]
        stopped = [v.without_emptied(graph, retained).num_clicks for v in held]
        of_items = sum(int(emptied[v.items].sum()) for v in held)
        first = forgotten & (graph.position == 0)
        self.left_out = {
            "test clicks of items that training never saw": int((~known)[test.items].sum()) + test.num_left_out,
            "test clicks of items forgotten everywhere": int(emptied[test.items].sum()),
            "test clicks of users forgotten entirely": of_known.num_clicks - self.test.num_clicks,
            "validation clicks of items forgotten everywhere": of_items,
            "validation clicks of users forgotten entirely": sum(v.num_clicks for v in held) - sum(stopped) - of_items,
            "forgotten clicks that start their session, and follow nothing": int(first.sum()),
        }
        self.clicks = (forgotten & ~first).nonzero().flatten()
        follows = torch.zeros_like(forgotten)
        follows[1:] = forgotten[:-1] & (graph.position[1:] > 0) & ~forgotten[1:]
        self.after = follows.nonzero().flatten()  # retained clicks whose predecessor is forgotten
        self.rivals = candidates(graph, self.clicks, RIVALS)
        follows = self.test.position > 0
        self.next = follows.nonzero().flatten()
        self.all_test = test.without_unseen(graph)
        if real is None:
            real = torch.bincount(graph.session[~forgotten], minlength=graph.num_sessions) == graph.length
        self.targets, self.prefixes = targets, last_prefixes(graph, real)
        levels = [part.level for part in request.parts]
        self.attacks = SessionAttacks(graph, retained, forgotten, self.test, targets=targets, real=real, levels=levels)
        generator = torch.Generator().manual_seed(0)
        kept = (~forgotten & (graph.position > 0)).nonzero().flatten()
        self.margin_clicks = {
            name: index[torch.randperm(len(index), generator=generator)[:SAMPLE].to(index.device)]
            for name, index in (("forget", self.clicks), ("retain", kept))
        }
        self.listed = torch.randperm(len(self.next), generator=generator)[:SAMPLE].to(self.next.device)

    @torch.no_grad()
    def measure(self, model: nn.Module, graph: SessionGraph, before: Measured | None = None) -> Measured:
        """Return utility, forgetting and log probabilities of one model.

        Args:
            model: The model.
            graph: Unused. All models are measured on prefixes of the graph before forgetting and of the test sessions.
            before: Measures of the original model; ``None`` for the original itself.

        Returns:
            Metrics by name under ``"utility"`` and ``"forgetting"``, and the log probabilities of the forgotten clicks
            ``"forget"`` ``[num_forgotten]`` and of the test clicks ``"test"`` ``[num_test]``.
        """
        num, items = self.clicks.numel(), self.graph.items
        asked = torch.cat([self.clicks, self.after])
        encoded = encode_prefixes(model, self.graph, asked - 1)
        log_p = _log_p(encoded.queries, encoded.items, items[asked])
        queries, targets = encoded.queries[:num], items[self.clicks]
        ranks = target_ranks(queries, encoded.items, targets, BATCH)
        among = ranks_among(queries, encoded.items, targets, self.rivals)
        forgetting: dict[str, Any] = {
            "log_p_forgotten": float(log_p[:num].double().mean()),
            "log_p_deleted_transition": float(log_p[num:].double().mean()),
            "rank_forgotten": float(ranks.log2().mean()),
        }
        forgetting |= {f"hit_u@{k}": float((among <= k).double().mean()) for k in HITS}
        answered = encode_prefixes(model, self.test, self.next - 1)
        wanted = self.test.items[self.next]
        return {
            "utility": _quality(answered, wanted),
            **({"own": self._own(model)} if before is None else {}),
            "forgetting": forgetting,
            "forget": log_p[:num].cpu(),
            "test": _log_p(answered.queries, answered.items, wanted).cpu(),
            "observed": self.attacks.observe(model, None if before is None else before["observed"]),
            "target": self._target(model),
            "margins": {name: self._margins(model, clicks) for name, clicks in self.margin_clicks.items()},
            "lists": {
                "test": top_lists(Encoded(answered.queries[self.listed], answered.items), (self.listed[:0],) * 2)
            },
        }

    def _own(self, model: nn.Module) -> dict[str, float]:
        """Return the quality of the original on all test clicks on known items, as it was measured after training."""
        after = (self.all_test.position > 0).nonzero().flatten()
        if not len(after):
            return {}
        return _quality(encode_prefixes(model, self.all_test, after - 1), self.all_test.items[after])

    def _target(self, model: nn.Module) -> dict[str, float] | None:
        if self.targets is None:
            return None
        return session_target_figures(encode_prefixes(model, self.graph, self.prefixes), self.targets)

    def _margins(self, model: nn.Module, clicks: Tensor) -> Tensor:
        encoded = encode_prefixes(model, self.graph, clicks - 1)
        return margins(encoded.queries, encoded.items, self.graph.items[clicks])

    def compare(self, models: Sequence[Measured], retrained: Sequence[Measured]) -> None:
        """Add the forgetting metrics that compare a model with its original or with the retrained models.

        Args:
            models: Measures of originals and methods; ``"original"`` of each holds the measures of its original model.
            retrained: Measures of the retrained models; each is compared with the other ones.
        """
        for m, others in held_against(models, retrained):
            score = None
            if others:
                recall, hits = (
                    statistics.fmean(o[part][name] for o in others)
                    for part, name in (("utility", "recall@20"), ("forgetting", "hit_u@10"))
                )
                gap = gap_closed(m["original"]["forgetting"]["hit_u@10"], m["forgetting"]["hit_u@10"], hits)
                score = None if gap is None else u_score(m["utility"]["recall@20"], recall, gap)
            m["forgetting"] |= {"u_score": score, "ks_statistic": compared_by_ks(m, others)}

    def plots(self, named: Mapping[str, Measured], retrained: Sequence[Measured]) -> dict[str, Any]:
        """Return the data of the figures; see :func:`graphunlearn.eval.report.plots.draw`.

        Args:
            named: Measures of the original model and of the audited methods, by name.
            retrained: Measures of the retrained models.
        """
        scores: dict[str, Any] = {name: m["forget"] for name, m in named.items()}
        scores["retrain"] = [m["forget"] for m in retrained]
        return {"scores": scores, "scores_label": "log p of a forgotten click"}


def u_score(recall: float, retrained_recall: float, gap: float) -> float | None:
    r"""Return a score of utility and forgetting together: 1 for retraining, 0 for the original model.

    .. math::
        U = \frac{2ab}{a + b}, \qquad a = \min\Big(1, \frac{R}{R_r}\Big), \quad b = \max(0, 1 - |1 - \gamma|)

    where :math:`R` is the Recall@20 of the model, :math:`R_r` the mean Recall@20 of the retrained models, and
    :math:`\gamma` the share of the gap in ``hit_u@10`` that is closed. Forgetting twice as much as retraining scores as
    low as forgetting nothing. The formula is our choice and does not reproduce a published one.

    Args:
        recall: Recall@20 of the model, :math:`R`.
        retrained_recall: Mean Recall@20 of the retrained models, :math:`R_r`.
        gap: Share of the gap in ``hit_u@10`` that is closed, :math:`\gamma`.

    Returns:
        The score, or ``None`` if the recall of the retrained models is 0.

    Example:
        >>> u_score(0.5, 0.5, 1.0), u_score(0.5, 0.5, 1.5), u_score(0.5, 0.5, 0.0)
        (1.0, 0.6666666666666666, 0.0)
    """
    if not retrained_recall > 0:
        return None
    kept, close = min(1.0, recall / retrained_recall), max(0.0, 1 - abs(1 - gap))
    return 2 * kept * close / (kept + close) if kept + close else 0.0


def candidates(graph: SessionGraph, clicks: Tensor, count: int, seed: int = 0, batch_size: int = BATCH) -> Tensor:
    """Draw random items for every click, without repetition, that its session has not clicked up to that click.

    The items are drawn uniformly from all items of the sessions except those of the click and of its prefix.

    Args:
        graph: The sessions; only items with at least one click are drawn.
        clicks: Positions of the clicks in the graph ``[num]``.
        count: Number of items per click.
        seed: Seed of the draw.
        batch_size: Number of clicks at a time, which bounds the memory at ``batch_size * num_items`` numbers.

    Returns:
        Items ``[num, min(count, num_items)]``, filled up with -1 if fewer items are possible.

    Example:
        >>> graph = SessionGraph.from_sequences([[0, 1, 2], [3, 4]])
        >>> candidates(graph, torch.tensor([1, 4]), 5).sort().values
        tensor([[-1, -1,  2,  3,  4],
                [-1, -1,  0,  1,  2]])
    """
    generator = torch.Generator().manual_seed(seed)
    absent = ~graph.active
    drawn = [clicks.new_empty(0, min(count, graph.num_items))]
    for batch in clicks.split(batch_size):
        keys = torch.rand(batch.numel(), graph.num_items, generator=generator).to(clicks.device)
        keys[:, absent] = -1
        length = graph.position[batch] + 1
        row = torch.repeat_interleave(torch.arange(batch.numel(), device=batch.device), length)
        back = torch.arange(row.numel(), device=batch.device) - (length.cumsum(0) - length)[row]
        keys[row, graph.items[batch[row] - back]] = -1
        best = keys.topk(min(count, graph.num_items))
        drawn.append(best.indices.masked_fill(best.values < 0, -1))
    return torch.cat(drawn)


def ranks_among(queries: Tensor, items: Tensor, targets: Tensor, rivals: Tensor, batch_size: int = BATCH) -> Tensor:
    r"""Return the rank of the target of every query among its rivals; 1 is the best, and ties get their mean rank.

    Args:
        queries: Embeddings of the prefixes, one per prediction ``[num, dim]``.
        items: Embeddings of all items ``[num_items, dim]``.
        targets: The item to rank, per query ``[num]``.
        rivals: The items that the target is compared with; -1 is ignored ``[num, num_rivals]``.
        batch_size: Number of queries scored at a time, which bounds the memory at ``batch_size * num_items`` scores.

    Returns:
        Ranks ``[num]`` (float64).

    Example:
        >>> items = torch.tensor([[3.0], [1.0], [2.0], [1.0]])
        >>> ranks_among(torch.ones(2, 1), items, torch.tensor([1, 1]), torch.tensor([[0, 2], [3, -1]]))
        tensor([3.0000, 1.5000], dtype=torch.float64)
    """
    ranks = [queries.new_zeros(0, dtype=torch.double)]
    for query, target, others in zip(*(part.split(batch_size) for part in (queries, targets, rivals))):
        scores = query @ items.t()
        own = scores.gather(1, target.unsqueeze(1))
        theirs = scores.gather(1, others.clamp(min=0)).masked_fill(others < 0, -torch.inf)
        ranks.append(1 + (theirs > own).sum(1).double() + (theirs == own).sum(1).double() / 2)
    return torch.cat(ranks)


def _log_p(queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    parts = zip(queries.split(BATCH), targets.split(BATCH))
    return torch.cat([queries.new_zeros(0), *(-catalogue_loss(query, items, target) for query, target in parts)])


def _quality(encoded: Encoded, wanted: Tensor) -> dict[str, float]:
    """Return the ranking metrics of the next clicks after prefixes."""
    found = next_item_metrics(target_ranks(encoded.queries, encoded.items, wanted, BATCH), ks=(20, 10, 5))
    return {name: value for name, value in found.items() if not name.startswith("hit_rate")}
