"""The quality of the recommendations of a model on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from graphunlearn.runs.run import Graph


def quality(
    model: nn.Module, train: Graph, held_out: Graph, ks: Sequence[int]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the ranking metrics of a model on held-out data; for sessions, of the click after every prefix.

    Args:
        model: The model.
        train: The training graph, whose interactions are not ranked.
        held_out: The held-out data; for sessions, with a session of two clicks or more on items that are trained on.
        ks: Lengths of the recommendation list.

    Returns:
        The metrics, for users and items after the AUROC of the labels if there are both kinds of them, and the numbers
        of users and pairs, or of sessions and predictions, that were measured and that were left out.

    Raises:
        ArgumentError: A length is not positive, or an embedding is not finite.
    """
    import torch

    from graphunlearn.data import SessionGraph
    from graphunlearn.metrics.next_item import next_item_metrics, target_ranks
    from graphunlearn.metrics.ranking import Ranker, auroc
    from graphunlearn.nn import CrossEntropy, encode, encode_prefixes, score

    with torch.no_grad():
        if isinstance(held_out, SessionGraph):
            sessions = held_out.without_unseen(train)
            samples = CrossEntropy().samples(sessions)
            states, items, *_ = encode_prefixes(model, sessions, samples.ends)
            scores = next_item_metrics(target_ranks(states, items, samples.target), ks)
            counts = {
                "num_sessions": int((sessions.length > 1).sum()),
                "num_predictions": len(samples),
                "num_clicks_left_out": sessions.num_left_out,
            }
            return scores, counts
        ranker = Ranker(train, held_out, ks)
        encoded = encode(model, train)
        scores = ranker(encoded.queries, encoded.items)
        if held_out.label is not None and 0 < float(held_out.label.mean()) < 1:
            scores = {"auroc": auroc(score(encoded, held_out.pairs), held_out.label)} | scores
        return scores, {**ranker.counts, "num_rows_left_out": held_out.num_left_out}
