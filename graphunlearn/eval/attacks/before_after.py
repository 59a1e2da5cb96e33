"""Attacks that compare the models before and after forgetting, to find the forgotten users and pairs."""

from __future__ import annotations

from torch import Tensor

from graphunlearn.eval.attacks.evidence import Evidence, placements, units_of
from graphunlearn.nn import Encoded

__all__ = ["changed_rows", "score_drops"]


def score_drops(before: Encoded, after: Encoded, forgotten: Tensor, kept: Tensor) -> Evidence:
    r"""Distinguish forgotten pairs from kept pairs by the fall of their scores between two models.

    The value is the AUROC of :math:`s_{ui}^{before} - s_{ui}^{after}`. Anyone who has both models can compute it, so
    publishing both can reveal the request. A retrained model changes all scores, and hides the request better.

    Args:
        before: Embeddings of the model before forgetting.
        after: Embeddings of the model after forgetting.
        forgotten: Forgotten pairs ``[2, num_forgotten]``.
        kept: Kept pairs ``[2, num_kept]``.

    Returns:
        The evidence by user, or by pair if there are fewer than five users.
    """
    drops = [_score(before, pairs) - _score(after, pairs) for pairs in (forgotten, kept)]
    return Evidence.of((placements(*drops), units_of(forgotten[0])))


def changed_rows(before: Tensor, after: Tensor, forgotten: Tensor) -> float | None:
    r"""Distinguish forgotten users (or items) from all others by the change of their embeddings between two models.

    Args:
        before: Embeddings before forgetting ``[num, dim]``.
        after: Embeddings after forgetting ``[num, dim]``.
        forgotten: Mask of the nodes that the request names ``[num]``.

    Returns:
        The AUROC of :math:`\|z^{after} - z^{before}\|`; ``None`` if all or none are forgotten.

    Example:
        >>> import torch
        >>> changed_rows(torch.zeros(3, 1), torch.tensor([[2.0], [0.0], [1.0]]), torch.tensor([True, False, False]))
        1.0
    """
    if not 0 < int(forgotten.sum()) < len(forgotten):
        return None
    moved = (after.double() - before.double()).norm(dim=1)
    return float(placements(moved[forgotten], moved[~forgotten]).mean())


def _score(encoded: Encoded, pairs: Tensor) -> Tensor:
    return (encoded.queries[pairs[0]].double() * encoded.items[pairs[1]].double()).sum(1)
