"""The features by which the influence encoder describes a forgotten interaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.operators.shared.neighbours import neighbour_means, random_walk
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = ["LARGE_LOSS", "NUM_FEATURES", "Removal"]

LARGE_LOSS = 0.5
"""Share of its interactions from which on an item's scores for other users are predicted, too."""
_OTHERS, _PAIRS = 64, 16_384  # most other users per item, and most pairs with other users

NUM_FEATURES = 21
"""Number of features of one forgotten interaction; see :meth:`Removal.features`."""


@dataclass(frozen=True)
class Removal:
    """The forgotten interactions whose user and item both keep some interaction, and the encodings of the model.

    Interactions of an emptied user or item are excluded: no neighbourhood is left to estimate their score from, and
    the embedding of the emptied node is redrawn.

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.
        pairs: The forgotten interactions, without the excluded ones ``[2, num_forgotten]``.
        label: Their labels ``[num_forgotten]``; ``None`` if the interactions have no labels.
        kept: Mask of the requested interactions that are not excluded ``[num_requested]``.
        before: The encoding of the model on ``graph``.
        after: The encoding of the same parameters on ``retained``.
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
        """Return the :class:`Removal` of a set of interactions from ``graph``.

        Args:
            model: The trained model; it is not changed.
            graph: The graph before forgetting.
            retained: The retained graph.
            removed: Mask of the forgotten interactions ``[num_interactions]``; those of emptied users and items are
                excluded from the result.
            before: ``encode(model, graph)``, if already computed.

        Returns:
            The :class:`Removal`.
        """
        pairs, degree = graph.pairs[:, removed], retained.adjacency.degree
        kept = (degree[pairs[0]] > 0) & (degree[pairs[1] + graph.num_users] > 0)
        before = encode(model, graph) if before is None else before
        label = None if graph.label is None else graph.label[removed][kept]
        return cls(graph, retained, pairs[:, kept], label, kept, before, encode(model, retained))

    @cached_property
    def removed_share(self) -> Tensor:
        """The share of interactions that every node loses ``[num_nodes]``."""
        return 1 - kept_share(self.graph, self.retained)

    def with_others(self, items: Tensor, generator: torch.Generator) -> Removal:
        """Return the removal with pairs of some items and other users, in place of the forgotten interactions.

        The other users are the ends of random walks of three steps on the retained graph, so that they are in the same
        connected component.

        Args:
            items: Mask of the items; those without retained interactions are left out ``[num_items]``.
            generator: Generator of the walks, on the CPU.

        Returns:
            The removal. No pair is in ``graph``, and no pair is repeated.
        """
        users = self.graph.num_users
        chosen = (items & (self.retained.adjacency.degree[users:] > 0)).nonzero().view(-1)
        start = chosen.repeat_interleave(max(1, min(_OTHERS, _PAIRS // max(1, len(chosen)))))
        other = random_walk(self.retained, start + users, 3, generator)
        keys = torch.unique(other * self.graph.num_items + start)
        held = self.graph.pairs[0] * self.graph.num_items + self.graph.pairs[1]
        keys = keys[~torch.isin(keys, held)]
        pairs = torch.stack([keys // self.graph.num_items, keys % self.graph.num_items])
        return replace(self, pairs=pairs, label=None)

    @torch.no_grad()
    def features(self) -> Tensor:
        r"""Return features that are invariant to the numbering of the nodes and to rotations of the embeddings.

        Let :math:`z` be the embeddings on the retained graph, :math:`m_v` the mean embedding of the neighbours of
        :math:`v`, and :math:`m^2_v` the mean of their means. The features of an interaction are its score before
        forgetting; the dot products of :math:`z, m, m^2` of the user with those of the item; the norms of :math:`z` and
        :math:`m`; the logarithms of the retained degrees; the shares of interactions removed at the user and at the
        item; the cosines between :math:`z_v` and :math:`m_v`; and the label (1 if the interactions have no labels).

        Returns:
            The features ``[num_forgotten, NUM_FEATURES]``.
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
