"""What an audit measures of every session recommender, the same for all of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.eval.measure import Measured, compared_by_ks, held_against
from graphunlearn.metrics.forgetting import gap_closed
from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = ["SessionJudge", "candidates", "ranks_among", "u_score"]

BATCH = 512
"""Prefixes scored at a time, which bounds the memory at ``BATCH * num_items`` scores."""
RIVALS = 500
"""Random items among which a forgotten one is ranked."""
HITS = (1, 5, 10, 20)


class SessionJudge:
    r"""Everything that is the same for all models of one audit of sessions.

    Utility: Recall, MRR and NDCG at 20, 10 and 5 over every prefix of the test sessions, against the whole catalogue,
    items already clicked included. There is one next click per prefix, so that the hit rate is the recall.

    Forgetting, of every forgotten click :math:`v_t` that has a prefix :math:`v_{1:t-1}` (in the session as it was
    trained on; the first click of a session follows nothing, and is left out and counted):

    - ``log_p_forgotten``: mean :math:`\log p(v_t \mid v_{1:t-1})`;
    - ``rank_forgotten``: mean :math:`\log_2` of its rank in the whole catalogue, which no tail dominates;
    - ``hit_u@k``: share of those among the :math:`k` best of themselves and 500 random items of the training sessions
      that are not in the prefix, the same for all models;
    - ``log_p_deleted_transition``: mean :math:`\log p(v_{t+1} \mid v_{1:t})` where :math:`v_{t+1}` is kept;
    - ``u_score``: :func:`u_score`; ``ks_statistic``: the distance between distributions of
      :math:`\log p(v_t \mid v_{1:t-1})`.

    Args:
        graph: The sessions before forgetting.
        request: What is forgotten.
        validation: What decided when training stopped.
        test: Held-out sessions, all of them. Clicks of items that training never saw or that are forgotten everywhere
            are left out and counted, with those that it was read without; their neighbours join. So are the sessions of
            users of whom every session that was trained on is forgotten.

    Source of the protocol of ``hit_u``: SRU, arXiv 2312.14447.
    """

    distance_unit: ClassVar[str] = "log p"

    def __init__(
        self, graph: SessionGraph, request: ForgetRequest, validation: SessionGraph | None, test: SessionGraph
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
        self.after = follows.nonzero().flatten()  # kept clicks that followed a forgotten one
        self.rivals = candidates(graph, self.clicks, RIVALS)
        follows = self.test.position > 0
        self.next = follows.nonzero().flatten()

    @torch.no_grad()
    def measure(self, model: nn.Module, graph: SessionGraph) -> Measured:
        """Return utility, forgetting and log probabilities of a model; what is asked of it needs no other ``graph``."""
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
        found = next_item_metrics(target_ranks(answered.queries, answered.items, wanted, BATCH), ks=(20, 10, 5))
        return {
            "utility": {name: value for name, value in found.items() if not name.startswith("hit_rate")},
            "forgetting": forgetting,
            "forget": log_p[:num].cpu(),
            "test": _log_p(answered.queries, answered.items, wanted).cpu(),
        }

    def compare(self, models: Sequence[Measured], retrained: Sequence[Measured]) -> None:
        """Add to every measured model what takes another one: its original, or the retrained ones.

        Args:
            models: Originals and methods; what each is measured from is its ``"original"``.
            retrained: The retrained models; each is held against the others.
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
        """Return what the figures are drawn from; see :func:`graphunlearn.eval.report.plots.draw`."""
        scores: dict[str, Any] = {name: m["forget"] for name, m in named.items()}
        scores["retrain"] = [m["forget"] for m in retrained]
        return {"scores": scores, "scores_label": "log p of a forgotten click"}


def u_score(recall: float, retrained_recall: float, gap: float) -> float | None:
    r"""Return one number for utility and forgetting, 1 for retraining, 0 for the original.

    .. math::
        U = \frac{2ab}{a + b}, \qquad a = \min\Big(1, \frac{R}{R_r}\Big), \quad b = \max(0, 1 - |1 - \gamma|)

    with :math:`R` the Recall@20 of the model, :math:`R_r` the mean of the retrained models, and :math:`\gamma` the
    share of the gap in ``hit_u@10`` that is closed: forgetting twice as much as retraining does is worth as little as
    forgetting nothing. The formula is our choice; no published one is reproduced.

    Returns:
        The score; ``None`` where retrained models recall nothing.

    Example:
        >>> u_score(0.5, 0.5, 1.0), u_score(0.5, 0.5, 1.5), u_score(0.5, 0.5, 0.0)
        (1.0, 0.6666666666666666, 0.0)
    """
    if not retrained_recall > 0:
        return None
    kept, close = min(1.0, recall / retrained_recall), max(0.0, 1 - abs(1 - gap))
    return 2 * kept * close / (kept + close) if kept + close else 0.0


def candidates(graph: SessionGraph, clicks: Tensor, count: int, seed: int = 0, batch_size: int = BATCH) -> Tensor:
    """Draw distinct items for every click that neither it nor its session up to it holds, uniform over those it can be.

    Args:
        graph: The sessions; only items that they hold are drawn.
        clicks: Numbers of the clicks ``[num]``.
        count: Items per click.
        seed: Same seed, same items.
        batch_size: Clicks at a time, which bounds the memory at ``batch_size * num_items`` numbers.

    Returns:
        Items ``[num, at most count]``; -1 where there are fewer.

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
    r"""Return the rank of one item per query among itself and its own rivals, 1 for the best; ties share the mean.

    Args:
        queries: One row per prediction ``[num, dim]``.
        items: Rows of the catalogue ``[num_items, dim]``.
        targets: The item that is ranked ``[num]``.
        rivals: Items it is ranked among; -1 counts for nothing ``[num, num_rivals]``.
        batch_size: Queries scored at a time, which bounds the memory at ``batch_size * num_items`` scores.

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
