"""The fold-in attack: the item embeddings alone can reveal the items of a forgotten user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.attacks.evidence import FEWEST_UNITS, Evidence
from graphunlearn.eval.attacks.matching import matched_pairs
from graphunlearn.nn import Encoded

__all__ = ["NEEDED", "WHOLE", "FoldIn"]

PER_FORGOTTEN = 5
"""Number of remaining nodes of similar degree with which every forgotten node is compared."""
FEWEST = 100
"""Least number of remaining nodes."""
PER_PAIR = 5
"""Number of never-seen controls per hidden pair."""
LONGEST = 200
"""Largest number of interactions of one node that is used."""
NEEDED = {
    "fold_in": f"at least {FEWEST_UNITS} forgotten users of two interactions or more",
    "fold_in_items": f"at least {FEWEST_UNITS} forgotten items of two interactions or more",
}
"""What the attacks on users and items that are forgotten entirely need."""
WHOLE = 0.1
"""Share of the forgotten events in emptied users or items from which the attack on these is needed."""


class FoldIn:
    r"""Rank one half of a forgotten user's items with the other half, from the item embeddings alone.

    The attacker folds a user :math:`u` in, as services do with new users: the query :math:`q_A` is the mean of the item
    embeddings :math:`z_i`, less the mean of all items, over one half :math:`A_u` of the items of :math:`u`. The items
    of the other half :math:`B_u` are ranked against never-seen items :math:`N_i` of similar popularity. Every item has
    the weight :math:`w_i = 1 / \deg(i)` in both halves, because one user leaves a larger trace in an item of few users:

    .. math::
        q_A = \sum_{i \in A_u} w_i (z_i - \bar z), \qquad
        a_u = \frac{\sum_{i \in B_u} w_i\, P_{j \in N_i}(\langle q_A, z_i \rangle > \langle q_A, z_j \rangle)}
        {\sum_{i \in B_u} w_i}, \qquad
        v = \mathbb{E}_{u\,\text{forgotten}}[a_u] - \mathbb{E}_{u\,\text{remaining}}[a_u]

    The halves change roles, and both results count. The same figure for remaining users of similar degree is
    subtracted, because longer training changes both. The attack needs neither the embedding of the forgotten user nor
    the model before forgetting. With ``side="item"`` the roles of users and items are exchanged. The weights and the
    centring are our choice: on MovieLens-100K they separated models that kept a trace in the item embeddings best.

    Args:
        graph: The training graph before forgetting.
        retained: The retained graph.
        held: Held-out graphs, whose pairs are never used as controls.
        side: ``"user"`` for users that are forgotten entirely, ``"item"`` for items.
        seed: Seed of the halves and of the controls.

    Attributes:
        forgotten: Number of forgotten nodes that the attack can use: those with two interactions or more.
        left_out: Number of forgotten nodes with a single interaction, which cannot be divided into two halves.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        retained: InteractionGraph,
        held: Sequence[InteractionGraph] = (),
        *,
        side: str = "user",
        seed: int = 0,
    ) -> None:
        start, num = (0, graph.num_users) if side == "user" else (graph.num_users, graph.num_items)
        degree = graph.adjacency.degree[start : start + num].long()
        gone = graph.emptied(retained)[start : start + num]
        targets = (gone & (degree >= 2)).nonzero().flatten()
        self.side, self.forgotten, self.left_out = side, len(targets), int((gone & (degree == 1)).sum())
        if not self.forgotten:
            return
        generator = torch.Generator().manual_seed(seed)
        others = self._remaining(degree, gone, targets, generator)
        self.nodes = torch.cat([targets, others])
        row = 0 if side == "user" else 1
        place = torch.full((num,), -1, device=degree.device)
        place[self.nodes] = torch.arange(len(self.nodes), device=degree.device)
        own = place[graph.pairs[row]] >= 0
        pairs = graph.pairs[:, own]
        order = torch.randperm(pairs.size(1), generator=generator).to(pairs.device)
        pairs = pairs[:, order]
        unit = place[pairs[row]]
        order = unit.argsort(stable=True)
        pairs, unit = pairs[:, order], unit[order]
        first = torch.searchsorted(unit, torch.arange(len(self.nodes), device=unit.device))
        position = torch.arange(len(unit), device=unit.device) - first[unit]
        kept = position < LONGEST
        self.pairs, self.unit = pairs[:, kept], unit[kept]
        self.half = position[kept] % 2
        other = graph.adjacency.degree[graph.num_users :] if side == "user" else graph.adjacency.degree
        self.weight = 1 / other[self.pairs[1 - row]].double()
        matched = matched_pairs(graph, self.pairs, held, per_pair=PER_PAIR, by=side, seed=seed)
        self.controls, self.owner = matched.controls, matched.owner

    @staticmethod
    def _remaining(degree: Tensor, gone: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return remaining nodes whose degrees are like those of the targets, without repeats."""
        free = (~gone & (degree >= 2)).nonzero().flatten()
        free = free[torch.randperm(len(free), generator=generator).to(free.device)]
        free = free[degree[free].argsort(stable=True)]
        wanted = min(len(free), max(FEWEST, PER_FORGOTTEN * len(targets)))
        if not wanted:
            return free
        quantiles = degree[targets].sort().values
        quantiles = quantiles[torch.arange(wanted, device=free.device) * len(targets) // wanted]
        taken = torch.zeros(len(free), dtype=torch.bool)
        at = torch.searchsorted(degree[free].contiguous(), quantiles.contiguous()).clamp(max=len(free) - 1).tolist()
        chosen = []
        for position in at:  # the nearest free node above, then below
            up = position
            while up < len(free) and taken[up]:
                up += 1
            if up == len(free):
                up = position
                while taken[up]:
                    up -= 1
            taken[up] = True
            chosen.append(up)
        return free[torch.tensor(chosen, device=free.device)]

    @torch.no_grad()
    def __call__(self, encoded: Encoded) -> Evidence | None:
        """Attack one model.

        Args:
            encoded: The embeddings of the model; only one side is read.

        Returns:
            The evidence by node; ``None`` if no forgotten node has two interactions.
        """
        if not self.forgotten:
            return None
        rows = (encoded.items if self.side == "user" else encoded.queries).double()
        rows = rows - rows.mean(0)
        other = 1 if self.side == "user" else 0
        own, num = self.pairs[other], len(self.nodes)
        half = 2 * self.unit + self.half
        query = rows.new_zeros(2 * num, rows.size(1)).index_add_(0, half, self.weight.unsqueeze(1) * rows[own])
        asked = query[2 * self.unit + 1 - self.half]  # each half in turn is the query for the other
        score = (asked * rows[own]).sum(1)
        against = (asked[self.owner] * rows[self.controls[other]]).sum(1)
        won = (score[self.owner] > against).double() + (score[self.owner] == against).double() / 2
        unit, weight = self.unit[self.owner], self.weight[self.owner]
        total = weight.new_zeros(num).index_add_(0, unit, weight)
        auroc = weight.new_zeros(num).index_add_(0, unit, weight * won) / total.clamp(min=1e-12)
        there = total > 0
        forgotten = torch.arange(num, device=rows.device) < self.forgotten
        groups = [(auroc[part], part.nonzero().flatten()) for part in (there & forgotten, there & ~forgotten)]
        return Evidence.of(*groups)
