"""EASE, a linear item-to-item model with a closed form, which forgets exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.data.events import Kind
from graphunlearn.data.schema import check
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.floors.base import Floor, positives, rows_of

__all__ = ["EASE"]

HELD = 3  # matrices of items by items that are held at once
BATCH = 512  # users whose rows are dense at a time
DRIFT = 1e-8  # largest error of the inverse before it is computed anew


@dataclass(kw_only=True)
class EASE(Floor):
    r"""A linear item-to-item model, the minimum of :math:`\|X - XB\|^2 + \lambda \|B\|^2` without a diagonal.

    With the users' rows :math:`X` of zeros and ones,

    .. math::
        P = (X^\top X + \lambda I)^{-1}, \qquad B_{ij} = -P_{ij} / P_{jj}, \qquad B_{jj} = 0, \qquad s_u = x_u B

    :meth:`forget` updates :math:`P` in closed form and returns what fitting the retained interactions returns; where
    the update is no inverse to 1e-8, it fits anew. Everything is in double precision.

    Source: Steck, *Embarrassingly shallow autoencoders for sparse data*, WWW 2019; the updates are the
    Sherman–Morrison–Woodbury identity and the Schur complement.

    Args:
        l2: The penalty :math:`\lambda`.
        max_gib: Largest memory of the matrices of items by items, in GiB, of which :meth:`forget` holds three at once;
            larger data are refused.

    Raises:
        ValueError: ``l2`` is not positive and finite, or ``max_gib`` is not positive.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=20, interactions_per_user=5)
        >>> request = gu.ForgetRequest("user", ["u3"])
        >>> forgotten = EASE(l2=20).fit(graph).forget(request)
        >>> again = EASE(l2=20).fit(graph.split(request)[0])
        >>> torch.allclose(forgotten.weights, again.weights, rtol=0, atol=1e-10)
        True
    """

    name: ClassVar[str] = "ease"
    kinds: ClassVar[tuple[Kind, ...]] = ("interactions",)
    stored: ClassVar[tuple[str, ...]] = ("inverse",)
    l2: float = 250.0
    max_gib: float = 4.0

    def __post_init__(self) -> None:
        check("be positive and finite", lambda value: 0 < value < math.inf, l2=self.l2)
        check("be positive", lambda value: value > 0, max_gib=self.max_gib)

    @torch.no_grad()
    def fit(self, graph: InteractionGraph) -> EASE:
        """Compute the inverse :math:`P` of the training interactions.

        Args:
            graph: The training graph.

        Returns:
            The floor itself.

        Raises:
            ValueError: The graph is of sessions, or has so many items that the matrices exceed ``max_gib``.
        """
        self._check(graph)
        size = HELD * 8 * graph.num_items**2 / 2**30
        if size > self.max_gib:
            most = int((self.max_gib * 2**30 / (8 * HELD)) ** 0.5)
            got = f"{graph.num_items:,}, which take {size:.1f} GiB"
            raise ArgumentError("graph", f"have at most {most:,} items for EASE with max_gib={self.max_gib:g}", got)
        self.graph = graph
        gram = self.l2 * torch.eye(graph.num_items, dtype=torch.double, device=graph.device)
        known, users = positives(graph), torch.arange(graph.num_users, device=graph.device)
        for part in users.split(BATCH):
            rows = rows_of(known, part, torch.double)
            gram.addmm_(rows.t(), rows)
        self.__dict__.pop("inverse", None)  # so that no more than three matrices are held
        torch.linalg.cholesky(gram, out=gram)
        self.inverse = torch.cholesky_inverse(gram)
        return self

    @property
    def weights(self) -> Tensor:
        """The matrix :math:`B` from the items that a user has to the scores ``[num_items, num_items]``."""
        self._check_fitted()
        diagonal = self.inverse.diagonal()
        return (-self.inverse / diagonal).fill_diagonal_(0)

    @torch.no_grad()
    def scores(self, graph: InteractionGraph, queries: Tensor) -> Tensor:
        """Return :math:`x_u B` for some users.

        Args:
            graph: The graph with the interactions of the users.
            queries: The users ``[num]``.

        Returns:
            The scores ``[num, num_items]`` (float64).
        """
        self._check_fitted()
        rows = rows_of(positives(graph), queries, torch.double)
        return rows - rows @ self.inverse / self.inverse.diagonal()

    def _forget(self, other: EASE, retained: InteractionGraph, forgotten: Tensor) -> EASE:
        r"""Update the inverse.

        Items that lose all interactions are taken out by the Schur complement
        :math:`P_{kk} - P_{ks} P_{ss}^{-1} P_{sk}`. The rows :math:`V_0` of users that change are then replaced by
        :math:`V_1`: with :math:`V = [V_0; V_1]` and :math:`C = \text{diag}(-1, \dots, 1, \dots)`,
        :math:`P \leftarrow P - P V^\top (C + V P V^\top)^{-1} V P`. If the result is no inverse to 1e-8, which the
        rounding of thousands of requests can cause, or if the request changes more rows than there are items, the
        model is fitted anew.
        """
        before, after = positives(self.graph), positives(retained)
        other.graph = retained
        users = before.num_users
        lost = before.adjacency.degree - after.adjacency.degree
        gone = ((lost > 0) & (after.adjacency.degree == 0))[users:]
        changed = (lost[:users] > 0).nonzero().flatten()
        if 2 * changed.numel() >= before.num_items and not bool(gone.any()):
            return other.fit(retained)
        inverse = self.inverse.clone()
        if bool(gone.any()):
            cross = inverse[:, gone]
            inverse.addmm_(cross, torch.linalg.solve(inverse[gone][:, gone], cross.t()), alpha=-1)
            inverse[gone], inverse[:, gone] = 0, 0
            inverse[gone, gone] = 1 / self.l2
        old, new = (rows_of(part, changed, torch.double) for part in (before, after))
        old[:, gone] = 0  # these columns are taken out already
        differ = (old != new).any(1)
        rows = torch.cat([old[differ], new[differ]])
        if len(rows) >= before.num_items:
            return other.fit(retained)
        if len(rows):
            sign = torch.ones(len(rows), dtype=torch.double, device=rows.device)
            sign[: len(rows) // 2] = -1
            right = rows @ inverse
            inverse.addmm_(right.t(), torch.linalg.solve(torch.diag(sign) + right @ rows.t(), right), alpha=-1)
        other.inverse = inverse.t().add(inverse).div_(2)
        del inverse
        return other.fit(retained) if other.residual() > DRIFT else other

    @torch.no_grad()
    def residual(self) -> float:
        r"""Return the largest entry of :math:`(X^\top X + \lambda I) P z - z` for four random signs :math:`z`.

        Returns:
            The error of the inverse, without forming :math:`X^\top X` again.
        """
        self._check_fitted()
        generator = torch.Generator().manual_seed(0)
        probe = torch.randint(0, 2, (self.graph.num_items, 4), generator=generator).to(self.inverse) * 2 - 1
        product = self.inverse @ probe
        user, item = positives(self.graph).pairs
        sums = torch.zeros(self.graph.num_users, 4, dtype=torch.double, device=user.device)
        sums.index_add_(0, user, product[item])
        out = (self.l2 * product - probe).index_add_(0, item, sums[user])
        return float(out.abs().max()) if out.numel() else 0.0
