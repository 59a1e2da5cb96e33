"""Edge recovery: an attacker who has a part of the remaining edges searches for the others and for forgotten ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.attacks.evidence import Evidence, placements, units_of
from graphunlearn.eval.attacks.matching import matched_pairs
from graphunlearn.nn import Encoded

__all__ = ["EdgeRecovery", "logistic_weights"]

MOST = 2000
"""Largest number of known edges, of kept edges and of forgotten edges that the attack uses."""
PER_PAIR = 5
"""Number of never-seen controls per edge."""
RIDGE = 1e-2
"""Ridge of the logistic regression, on standardised features."""


class EdgeRecovery:
    r"""Distinguish edges from never-seen pairs of similar popularity by their scores and those of neighbouring pairs.

    Unlearning can make the score of a removed edge lower than the scores of similar pairs at the same nodes. With the
    The attacker has half of the remaining edges. With the
    score :math:`f^0 = s_{ui}`, the mean score :math:`f^1_u` of the known items of :math:`u` and the mean score
    :math:`f^1_i` of :math:`i` for its known users (each without the pair itself, 0 without any), the features of a pair
    are these three figures, the differences
    :math:`f^0 - f^1`, and the trend bits :math:`\operatorname{sign}(f^0 - f^1)`. The attacker fits a logistic
    regression on the known edges of the affected users against matched never-seen pairs. Its AUROC is
    reported for forgotten edges and, as the measure of its strength, for the other half of the remaining edges. Edges
    of users or items without remaining interactions are left out, because they have no neighbours.

    Args:
        graph: The training graph before forgetting.
        retained: The retained graph.
        forgotten: The forgotten pairs ``[2, num_forgotten]``.
        held: Held-out graphs, whose pairs are never used as controls.
        seed: Seed of the choice of edges and controls.

    Source: the idea of trends around unlearned edges is from TrendAttack, arXiv 2506.00808; features for recommenders
    and the regression are ours.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        retained: InteractionGraph,
        forgotten: Tensor,
        held: Sequence[InteractionGraph] = (),
        *,
        seed: int = 0,
    ) -> None:
        degree = retained.adjacency.degree
        alive = (degree[forgotten[0]] > 0) & (degree[forgotten[1] + graph.num_users] > 0)
        generator = torch.Generator().manual_seed(seed)
        gone = _some(forgotten[:, alive], MOST, generator)
        self.retained = retained
        self.applies = gone.size(1) > 0
        if not self.applies:
            return
        affected = torch.zeros(graph.num_users, dtype=torch.bool, device=degree.device)
        affected[forgotten[0]] = True
        theirs = affected[retained.pairs[0]]
        if int(theirs.sum()) < 20:
            theirs = torch.ones_like(theirs)
        order = torch.randperm(retained.num_interactions, generator=generator).to(degree.device)
        given = torch.zeros_like(theirs)
        given[order[0::2]] = True
        self.known = retained.select(given)
        halves = [_some(retained.pairs[:, half & theirs], MOST, generator) for half in (given, ~given)]
        self.parts = [
            matched_pairs(graph, part, held, per_pair=PER_PAIR, seed=seed + k) for k, part in enumerate((*halves, gone))
        ]

    @torch.no_grad()
    def __call__(self, encoded: Encoded) -> dict[str, Evidence]:
        """Attack one model.

        Args:
            encoded: The embeddings of the model on the retained graph.

        Returns:
            The evidence by user, under ``"edge_recovery_forgotten"`` and ``"edge_recovery_kept"``; empty if no
            forgotten edge has both ends left.
        """
        if not self.applies:
            return {}
        around = _neighbour_sums(encoded, self.known)
        known, kept, gone = [
            (_features(encoded, around, part.pairs, own), _features(encoded, around, part.controls, False))
            for part, own in zip(self.parts, (True, False, False))
        ]
        both = torch.cat(known)
        mean, sd = both.mean(0), both.std(0)
        sd = torch.where(sd > 1e-12, sd, 1.0)
        label = torch.cat([torch.ones(len(known[0])), torch.zeros(len(known[1]))]).double().to(both.device)
        weights = logistic_weights((both - mean) / sd, label, RIDGE)
        found = {}
        for name, (edges, others), part in zip(
            ("edge_recovery_kept", "edge_recovery_forgotten"), (kept, gone), self.parts[1:]
        ):
            scores = [((x - mean) / sd) @ weights for x in (edges, others)]
            found[name] = Evidence.of((placements(*scores), units_of(part.pairs[0])))
        return found


def logistic_weights(x: Tensor, y: Tensor, ridge: float, steps: int = 20) -> Tensor:
    r"""Return the weights that minimise the mean logistic loss plus :math:`\lambda \|w\|^2 / 2`, by Newton steps.

    Both classes get the same total weight, and the intercept, which no ranking needs, is left out of the result.

    Args:
        x: Standardised features ``[num, num_features]``.
        y: Labels 0 or 1 ``[num]``.
        ridge: The factor :math:`\lambda`.
        steps: Largest number of Newton steps.

    Returns:
        The weights ``[num_features]``.
    """
    x = torch.cat([x, x.new_ones(len(x), 1)], 1)
    share = torch.where(y > 0, 0.5 / y.sum().clamp(min=1), 0.5 / (1 - y).sum().clamp(min=1))
    penalty = torch.full((x.size(1),), ridge, dtype=x.dtype, device=x.device)
    penalty[-1] = 1e-9
    weights = x.new_zeros(x.size(1))
    for _ in range(steps):
        p = torch.sigmoid(x @ weights)
        gradient = x.t() @ (share * (p - y)) + penalty * weights
        curvature = (x.t() * (share * p * (1 - p))) @ x + torch.diag(penalty)
        step = torch.linalg.solve(curvature, gradient)
        weights = weights - step
        if float(step.norm()) < 1e-9 * (1 + float(weights.norm())):
            break
    return weights[:-1]


def _some(pairs: Tensor, most: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(pairs.size(1), generator=generator)[:most]
    return pairs[:, chosen.to(pairs.device)]


Around = tuple[Tensor, Tensor, Tensor, Tensor]


def _neighbour_sums(encoded: Encoded, graph: InteractionGraph) -> Around:
    """Return the sum of the item embeddings of every user's items, that of the user embeddings of every item's users,
    and the numbers of both.
    """
    user, item = graph.pairs
    queries, items = encoded.queries.double(), encoded.items.double()
    of_users = torch.zeros_like(queries).index_add_(0, user, items[item])
    of_items = torch.zeros_like(items).index_add_(0, item, queries[user])
    degree = graph.adjacency.degree.double()
    return of_users, of_items, degree[: graph.num_users], degree[graph.num_users :]


def _features(encoded: Encoded, around: Around, pairs: Tensor, known: bool) -> Tensor:
    """Return the features of pairs; ``known`` says that they are among the edges of ``around``, and are left out."""
    user, item = encoded.queries[pairs[0]].double(), encoded.items[pairs[1]].double()
    score = (user * item).sum(1)
    of_user, of_item, *degrees = (part[pairs[side]] for part, side in zip(around, (0, 1, 0, 1)))
    counts = [(degree - int(known)).clamp(min=1) for degree in degrees]
    means = [
        ((own * of).sum(1) - int(known) * score) / n for own, of, n in zip((user, item), (of_user, of_item), counts)
    ]
    trends = [score - mean for mean in means]
    return torch.stack([score, *means, *trends, *(trend.sign() for trend in trends)], 1)
