"""Implicit alternating least squares, which forgets by further sweeps from its current factors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check, check_sizes, is_whole, warn
from graphunlearn.func.adjacency import Adjacency
from graphunlearn.nn.floors.base import Floor, positives

__all__ = ["ALS"]

ENTRIES = 1 << 15  # rows of the other side, or of matrices of factors by factors, that are held at a time
INITIAL = 0.1  # standard deviation of the first factors


@dataclass(kw_only=True)
class ALS(Floor):
    r"""Weighted matrix factorisation of implicit feedback, solved by alternating least squares.

    .. math::
        \min_{X, Y} \sum_{u, i} c_{ui} (p_{ui} - x_u^\top y_i)^2
        + \lambda \Big(\sum_u \|x_u\|^2 + \sum_i \|y_i\|^2\Big)

    with :math:`p_{ui} = 1` and :math:`c_{ui} = 1 + \alpha` for interactions, and 0 and 1 for all other pairs. A sweep
    solves for all users, then for all items:

    .. math::
        x_u = \Big(Y^\top Y + \alpha \sum_{i \in I_u} y_i y_i^\top + \lambda I\Big)^{-1}
        (1 + \alpha) \sum_{i \in I_u} y_i

    Sweeps end when the item factors change by no more than ``tolerance``, :math:`\|Y' - Y\| \le \epsilon \|Y\|`. The
    scores of a user are solved for from the interactions in the graph that is given, so only item factors are stored.

    :meth:`forget` continues with sweeps over the retained interactions, from the current factors and to the same
    tolerance. The result satisfies the equations of the retained data as well as a model that is fitted to them. The
    objective has many stationary points, so it need not be the one that other first factors lead to.

    Source: Hu, Koren and Volinsky, *Collaborative filtering for implicit feedback datasets*, ICDM 2008; warm sweeps as
    in Xu et al., *Netflix and forget*, arXiv 2302.06676.

    Args:
        dim: Number of factors.
        l2: The penalty :math:`\lambda`.
        alpha: The weight :math:`\alpha` of an interaction.
        tolerance: Relative change of the item factors below which the sweeps end.
        max_sweeps: Largest number of sweeps; if it is reached, a warning tells the change of the last one.
        seed: Seed of the first factors.

    Attributes:
        items: The item factors :math:`Y` ``[num_items, dim]`` (float64).
        sweeps: Number of sweeps of the last fit or request.
        change: Relative change of the item factors in the last sweep.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=20, interactions_per_user=5)
        >>> model = ALS(dim=4, tolerance=1e-3).fit(graph)
        >>> forgotten = model.forget(gu.ForgetRequest("user", ["u3"]))
        >>> forgotten.sweeps < model.sweeps and forgotten.change <= 1e-3
        True
    """

    name: ClassVar[str] = "als"
    kinds: ClassVar[tuple[Kind, ...]] = ("interactions",)
    stored: ClassVar[tuple[str, ...]] = ("items",)
    dim: int = 64
    l2: float = 30.0
    alpha: float = 5.0
    tolerance: float = 1e-2
    max_sweeps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(dim=self.dim, max_sweeps=self.max_sweeps)
        numbers = {"l2": self.l2, "alpha": self.alpha, "tolerance": self.tolerance}
        check("be positive and finite", lambda value: 0 < value < math.inf, **numbers)
        check("be a whole number of at least 0", lambda value: is_whole(value) and value >= 0, seed=self.seed)

    @torch.no_grad()
    def fit(self, graph: InteractionGraph) -> ALS:
        """Draw item factors, and sweep until they change little.

        Args:
            graph: The training graph.

        Returns:
            The floor itself.

        Raises:
            ValueError: The graph is of sessions.
        """
        self._check(graph)
        drawn = torch.randn(
            graph.num_items, self.dim, dtype=torch.double, generator=torch.Generator().manual_seed(self.seed)
        )
        return self._sweep(graph, (INITIAL * drawn).to(graph.device))

    def _forget(self, other: ALS, retained: InteractionGraph, forgotten: Tensor) -> ALS:
        """Sweep over the retained interactions, from the current factors."""
        return other._sweep(retained, self.items)

    def _sweep(self, graph: InteractionGraph, items: Tensor) -> ALS:
        """Sweep from some item factors until they change little, and store them."""
        adjacency, users = positives(graph).adjacency, graph.num_users
        nodes = torch.arange(graph.num_nodes, device=graph.device)
        for sweep in range(1, self.max_sweeps + 1):
            by_user = self._solved(adjacency, nodes[:users], items, users)
            new = self._solved(adjacency, nodes[users:], by_user, 0)
            change = float((new - items).norm() / items.norm().clamp(min=1e-300))
            items, sweeps = new, sweep
            if change <= self.tolerance:
                break
        self.graph, self.items, self.sweeps, self.change = graph, items, sweeps, change
        if not change <= self.tolerance:
            warn(
                f"als stopped after {self.max_sweeps} sweeps with a change of {change:.1e}, above the tolerance "
                f"of {self.tolerance:g} (max_sweeps allows more)"
            )
        return self

    def _solved(self, adjacency: Adjacency, nodes: Tensor, others: Tensor, first: int) -> Tensor:
        """Return the least squares solution for some nodes, given the factors of the nodes on the other side.

        Args:
            adjacency: The adjacency, in which the nodes of the other side are numbered from ``first``.
            nodes: The nodes ``[num]``.
            others: The factors of the other side ``[num_others, dim]``.
            first: Number of the first node of the other side.
        """
        eye = torch.eye(self.dim, dtype=torch.double, device=others.device)
        base = others.t() @ others + self.l2 * eye
        out = others.new_zeros(nodes.numel(), self.dim)
        padded = torch.cat([others, others.new_zeros(1, self.dim)])
        degree = adjacency.degree[nodes].long()
        for part in _alike(degree, self.dim):
            widest = int(degree[part].max())
            neighbours = adjacency.neighbors(nodes[part]) - first
            row = torch.repeat_interleave(torch.arange(part.numel(), device=part.device), degree[part])
            start = degree[part].cumsum(0) - degree[part]
            place = torch.arange(row.numel(), device=part.device) - start[row]
            index = neighbours.new_full((part.numel(), widest), others.size(0))
            index[row, place] = neighbours
            held = padded[index]
            left = torch.baddbmm(base.expand(part.numel(), -1, -1), held.mT, held, alpha=self.alpha)
            right = (1 + self.alpha) * held.sum(1)
            out[part] = torch.cholesky_solve(right.unsqueeze(2), torch.linalg.cholesky(left)).squeeze(2)
        return out

    @torch.no_grad()
    def scores(self, graph: InteractionGraph, queries: Tensor) -> Tensor:
        r"""Return :math:`x_u^\top y_i`, with :math:`x_u` solved from the interactions of the user in ``graph``.

        Args:
            graph: The graph with the interactions of the users.
            queries: The users ``[num]``.

        Returns:
            The scores ``[num, num_items]`` (float64).
        """
        self._check_fitted()
        return self._solved(positives(graph).adjacency, queries, self.items, graph.num_users) @ self.items.t()


def _alike(degree: Tensor, dim: int) -> Iterator[Tensor]:
    """Yield the positions of nodes that have neighbours, in groups of similar degree and of bounded size."""
    order = degree.argsort(descending=True)
    order = order[degree[order] > 0]
    while order.numel():
        size = max(1, ENTRIES // max(dim, int(degree[order[0]])))
        yield order[:size]
        order = order[size:]
