"""What describes a forgotten interaction to the influence encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.operators.shared.neighbours import neighbour_means
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = ["NUM_FEATURES", "Removal"]

NUM_FEATURES = 21
"""Numbers that describe one forgotten interaction; see :meth:`Removal.features`."""


@dataclass(frozen=True)
class Removal:
    """A trained model, and the forgotten interactions whose two ends keep something.

    An interaction of an emptied user or item is left out: there is nothing to estimate it from, and its row is drawn
    anew.

    Args:
        graph: The graph before.
        retained: The graph after.
        pairs: The forgotten interactions ``[2, num_forgotten]``.
        label: Their labels ``[num_forgotten]``, where interactions carry them.
        kept: Which of the interactions asked for these are ``[num_asked]``.
        before: The model on ``graph``.
        after: The same parameters on ``retained``.
    """

    graph: InteractionGraph
    retained: InteractionGraph
    pairs: Tensor
    label: Tensor | None
    kept: Tensor
    before: Encoded
    after: Encoded

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: nn.Module,
        graph: InteractionGraph,
        retained: InteractionGraph,
        removed: Tensor,
        before: Encoded | None = None,
    ) -> Removal:
        """Return what taking interactions out of ``graph`` does to ``model``.

        Args:
            model: The trained model; it is not changed.
            graph: The graph before.
            retained: The graph after.
            removed: Which interactions are forgotten ``[num_interactions]``; those with an emptied end are left out.
            before: ``encode(model, graph)``, where it is known.
        """
        pairs, degree = graph.pairs[:, removed], retained.adjacency.degree
        kept = (degree[pairs[0]] > 0) & (degree[pairs[1] + graph.num_users] > 0)
        before = encode(model, graph) if before is None else before
        label = None if graph.label is None else graph.label[removed][kept]
        return cls(graph, retained, pairs[:, kept], label, kept, before, encode(model, retained))

    @cached_property
    def removed_share(self) -> Tensor:
        """The share of its interactions that every node loses ``[num_nodes]``."""
        return 1 - kept_share(self.graph, self.retained)

    @torch.no_grad()
    def features(self) -> Tensor:
        r"""Describe every forgotten interaction by what does not depend on how nodes are numbered or rows are rotated.

        With :math:`z` the rows on the retained graph, :math:`m_v` the mean of :math:`v`'s neighbours and :math:`m^2_v`
        the mean of their means: the score before; the products of :math:`z, m, m^2` of one end with those of the
        other; the norms of :math:`z` and :math:`m`; the logarithm of what is left of both degrees; the shares removed
        at both ends; the cosines between :math:`z_v` and :math:`m_v`; and the label (1 where there are none).

        Returns:
            ``[num_forgotten, NUM_FEATURES]``.
        """
        users, (u, i) = self.graph.num_users, self.pairs
        z = torch.cat([self.after.queries, self.after.items])
        mean = neighbour_means(self.retained, z)
        second = neighbour_means(self.retained, mean)
        left = torch.log1p(self.retained.adjacency.degree.to(z.dtype))
        share = self.removed_share.to(z.dtype)
        zu, mu, su = (rows[u] for rows in (z, mean, second))
        zi, mi, si = (rows[i + users] for rows in (z, mean, second))
        norms = [rows.norm(dim=-1) for rows in (zu, zi, mu, mi)]
        columns = [score(self.before, self.pairs)]
        columns += [_dots(a, b) for a, b in ((zu, zi), (mu, mi), (mu, zi), (zu, mi), (su, si))]
        columns += [_dots(a, b) for a, b in ((su, zi), (zu, si), (su, mi), (mu, si))]
        columns += [*norms, left[u], left[i + users], share[u], share[i + users]]
        columns += [_dots(zu, mu) / (norms[0] * norms[2] + 1e-6), _dots(zi, mi) / (norms[1] * norms[3] + 1e-6)]
        columns.append(torch.ones_like(share[u]) if self.label is None else self.label.to(z.dtype))
        return torch.stack(columns, 1)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)
