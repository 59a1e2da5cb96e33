"""Never-seen pairs that match given pairs in their user and in the popularity of their item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph

__all__ = ["Matched", "matched_pairs"]

WINDOW = 100
"""Number of items of similar popularity among which a control is drawn."""
ROUNDS = 20
"""Number of attempts to draw a control that was never seen."""


class Matched:
    """Pairs and their controls.

    Args:
        pairs: Pairs ``[2, num_pairs]``.
        controls: Controls ``[2, num_controls]``.
        owner: Index of the pair that every control belongs to ``[num_controls]``.
    """

    def __init__(self, pairs: Tensor, controls: Tensor, owner: Tensor) -> None:
        self.pairs, self.controls, self.owner = pairs, controls, owner


def matched_pairs(
    graph: InteractionGraph,
    pairs: Tensor,
    held: Sequence[InteractionGraph] = (),
    *,
    per_pair: int = 5,
    by: str = "user",
    seed: int = 0,
) -> Matched:
    """Draw never-seen pairs with the same user (so the same degree) and an item of about the same popularity.

    Popularity alone distinguishes forgotten pairs from pairs drawn at random; controls of similar popularity prevent
    this. A control is drawn among the ``WINDOW`` items whose number of training interactions is closest to that of the
    pair's item. Controls that were seen in any graph are drawn again; a control that cannot be found is left out.

    Args:
        graph: The training graph before forgetting, which counts interactions.
        pairs: Users and items ``[2, num_pairs]``.
        held: Further graphs whose pairs are never drawn, such as validation and test.
        per_pair: Number of controls per pair.
        by: ``"user"`` keeps the user and draws the item; ``"item"`` keeps the item and draws a user.
        seed: Seed of the draw.

    Returns:
        The pairs with their controls.
    """
    device, side = pairs.device, 1 if by == "user" else 0
    num = graph.num_items if side else graph.num_users
    start = graph.num_users if side else 0
    degree = graph.adjacency.degree[start : start + num]
    generator = torch.Generator().manual_seed(seed)
    order = (degree.cpu().double() + torch.rand(num, generator=generator, dtype=torch.float64) / 2).argsort().to(device)
    place = torch.empty_like(order)
    place[order] = torch.arange(num, device=device)
    seen = torch.cat([g.pairs for g in (graph, *held)], 1)
    known = (seen[0] * graph.num_items + seen[1]).unique()
    owner = torch.arange(pairs.size(1), device=device).repeat_interleave(per_pair)
    chosen = torch.full_like(owner, -1)
    width = min(WINDOW, num)
    for _ in range(ROUNDS):
        open_ = (chosen < 0).nonzero().flatten()
        if not len(open_):
            break
        at = place[pairs[side, owner[open_]]]
        first = (at - width // 2).clamp(0, num - width)
        draw = torch.randint(width, (len(open_),), generator=generator).to(device)
        node = order[first + draw]
        other = pairs[1 - side, owner[open_]]
        code = other * graph.num_items + node if side else node * graph.num_items + other
        free = ~torch.isin(code, known)
        chosen[open_[free]] = node[free]
    found = chosen >= 0
    owner, chosen = owner[found], chosen[found]
    kept = pairs[1 - side, owner]
    return Matched(pairs, torch.stack([kept, chosen] if side else [chosen, kept]), owner)
