r"""The noise of training in probabilities, and how far a step moves probabilities, both without a retrained model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import Encoded, LinearForm
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.negatives import draw_negatives
from graphunlearn.nn.training.objective import Sampled, Samples
from graphunlearn.operators.shared.propagation import Rows, propagated, propagated_at, spread

__all__ = ["Movement", "noise_of_draws", "pairs_near"]

SHARE = 0.05
"""Share of the noise below which a movement is left out."""
LARGEST = 0.01
"""The largest noise that is assumed. Retrained models differ by 0.009 to 0.019 on test pairs in what was measured."""
DRAWS = 64  # draws per interaction of the two models that are compared
_PAIRS = 8_192  # most pairs of each kind
_FEWER = 512  # about so many pairs of each kind where rows are propagated one by one


@dataclass(frozen=True)
class Movement:
    r"""How far a step in a linearly propagated table moves probabilities, to first order.

    A step :math:`x` in the table moves the final embeddings by :math:`t = \sum_l \alpha_l \hat A^l x` and the
    probability :math:`p = \sigma(s)` of a pair by :math:`p(1 - p)(\langle t_u, z_i\rangle + \langle z_u, t_i\rangle)`.

    Args:
        form: The propagation of the step.
        encoded: The final embeddings :math:`z`.
        pairs: Groups of pairs of users and items, each ``[2, num]``.
    """

    form: LinearForm
    encoded: Encoded
    pairs: tuple[Tensor, ...]

    @torch.no_grad()
    def __call__(self, step: Tensor) -> float:
        """Return the mean absolute movement in the group that moves most.

        Args:
            step: The step in the table ``[num_nodes * dim]``.
        """
        moved = self.form.propagate(step.view(-1, self.encoded.items.size(1)))
        return self._mean(lambda nodes: moved.index_select(0, nodes))

    @torch.no_grad()
    def of_rows(self, step: Rows, graph: InteractionGraph) -> float:
        """Return the same for a step in some rows, propagated by the normalised adjacency of a graph.

        In a large graph, where it would cost much to propagate the step, the mean is estimated from fewer pairs.

        Args:
            step: The step.
            graph: The graph.
        """
        moved, some = spread(self.form, graph, step), self
        if moved is None:
            some = replace(
                self, pairs=tuple(pairs[:, :: max(1, pairs.size(1) // _FEWER)].contiguous() for pairs in self.pairs)
            )
            nodes = torch.cat([(pairs + pairs.new_tensor([[0], [graph.num_users]])).flatten() for pairs in some.pairs])
            moved = propagated_at(self.form, graph, step, nodes.unique())
        if moved is None:
            some, moved = self, propagated(self.form, graph, step)
        return some._mean(lambda nodes: moved.at(nodes, graph.num_nodes))

    def _mean(self, moved: Callable[[Tensor], Tensor]) -> float:
        """Return the largest mean, given what moves the final embeddings of nodes."""
        z_u, z_i = self.encoded.queries, self.encoded.items
        means = [0.0]
        for user, item in self.pairs:
            z = z_u.index_select(0, user), z_i.index_select(0, item)
            t = moved(user), moved(item + len(z_u))
            p = torch.sigmoid((z[0] * z[1]).sum(1))
            change = p * (1 - p) * (t[0] * z[1] + z[0] * t[1]).sum(1)
            means.append(float(change.abs().mean()) if len(user) else 0.0)
        return math.nan if any(map(math.isnan, means)) else max(means)  # max may pass over NaN


@torch.no_grad()
def noise_of_draws(
    risk: LinearRisk, theta: Tensor, diagonal: Tensor, damping: float, graph: InteractionGraph
) -> float | None:
    r"""Return an estimate, from below, of how far two trained models differ in probabilities.

    Two trainings on the same interactions draw other negatives. Let :math:`g_k` be the gradient of the :math:`k`-th of
    :math:`K` draws per interaction, and :math:`\epsilon_k = \pm 1` alternate. The difference of the mean gradients of
    two times 64 draws has the variance of :math:`\sqrt{2K/64}\,\frac1K\sum_k \epsilon_k g_k`. Two minimisers of these
    risks differ by about :math:`(\operatorname{diag} H + \delta)^{-1}` times this vector, and the estimate is the mean
    absolute movement of probabilities (:class:`Movement`) by this step. The initial values and the order of
    the interactions differ as well, so that trained models are further apart: the estimate is 0.93 and 0.84 of the
    distance of retrained models on Last.fm and MovieLens-100K. It is too large for models whose training ended far
    too soon, so that the rule of IFRU assumes at most :data:`LARGEST`.

    Args:
        risk: The risk of the trained model, with at least two draws per interaction.
        theta: The trained parameters ``[num_parameters]``.
        diagonal: The diagonal of the curvature ``[num_parameters]``.
        damping: The damping :math:`\delta`.
        graph: The training graph.

    Returns:
        The mean absolute difference of probabilities of pairs that were never seen; ``None`` if the loss draws no
        negatives, or only one per interaction.
    """
    samples, objective = risk.samples, risk.objective
    if not isinstance(objective, Sampled) or samples.negatives is None or samples.negatives.size(1) < 2:
        return None
    encoded, one = risk.final(theta), samples.select(torch.zeros(1, dtype=torch.long))
    signs = torch.ones_like(objective.margins(theta.new_zeros(one.num_pairs), one)[0])
    signs[::2] = -1
    if len(signs) % 2:
        signs[-1] = 0
    draws = len(signs) - len(signs) % 2

    def weight(margins: Tensor, part: Samples) -> Tensor:
        return objective.margins_transposed(objective.phi(margins, part)[1] * signs / draws, part)

    step = risk.form.propagate(risk.gathered(encoded, weight, encoded.queries, encoded.items)).flatten()
    step.mul_((2 * draws / DRAWS) ** 0.5).div_(diagonal + damping)
    chosen = torch.arange(0, graph.num_interactions, max(1, graph.num_interactions // _PAIRS), device=step.device)
    return Movement(risk.form, encoded, (_never_seen(graph, graph.pairs[:, chosen]),))(step)


def pairs_near(graph: InteractionGraph, retained: InteractionGraph, removed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return forgotten pairs, retained pairs of users and items that lost interactions, and as many never seen.

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.

    Returns:
        Three groups of pairs, each ``[2, num]`` and evenly spaced where there are more than 8,192.
    """
    near = graph.adjacency.interactions((graph.degree != retained.degree).nonzero().view(-1))
    near = near[~removed[near]]
    forgotten, kept = (graph.pairs[:, _some(index)] for index in (removed.nonzero().view(-1), near))
    return forgotten, kept, _never_seen(graph, kept)


def _some(index: Tensor) -> Tensor:
    return index[:: max(1, -(-len(index) // _PAIRS))]


def _never_seen(graph: InteractionGraph, pairs: Tensor) -> Tensor:
    """Return a pair that is not in the graph for every pair, with the same user; itself where there is none."""
    return torch.stack([pairs[0], draw_negatives(graph, pairs[0], pairs[1], 1, seed=1)[:, 0]])
