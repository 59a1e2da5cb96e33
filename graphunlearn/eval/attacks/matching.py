"""Never-seen pairs that match given pairs in their user and in the popularity of their item."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph

__all__ = ["Matched", "drawn", "match_of", "matched_pairs", "windows"]

WINDOW = 100
"""Largest number of items of similar popularity among which a control is drawn."""
SHARE = 5
"""The window holds at most one item of this many."""
LEAST = 5
"""Number of items on either side that are in the window even if their popularity differs more; at most one of 20."""
TOLERATED = 0.25
"""Largest difference in popularity, relative to that of the item."""
ROUNDS = 20
"""Number of attempts to draw a control that was never seen; in the second half, popularity may differ further."""


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
    this. A control is drawn among the items whose number of training interactions is closest to that of the pair's
    item; see :func:`windows`. Controls that were seen in any graph are drawn again, after half of the attempts from a
    wider window; a control that cannot be found is left out.

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
    close, wide = windows(degree[order]), windows(degree[order], math.inf)
    for attempt in range(ROUNDS):
        open_ = (chosen < 0).nonzero().flatten()
        if not len(open_):
            break
        at = place[pairs[side, owner[open_]]]
        node = order[drawn(at, close if attempt < ROUNDS // 2 else wide, generator)]
        other = pairs[1 - side, owner[open_]]
        code = other * graph.num_items + node if side else node * graph.num_items + other
        free = ~torch.isin(code, known)
        chosen[open_[free]] = node[free]
    found = chosen >= 0
    owner, chosen = owner[found], chosen[found]
    kept = pairs[1 - side, owner]
    return Matched(pairs, torch.stack([kept, chosen] if side else [chosen, kept]), owner)


def windows(popularity: Tensor, tolerated: float = TOLERATED) -> tuple[Tensor, Tensor]:
    """Return the range of places around every place among which its controls are drawn.

    The range is symmetric, so that controls are as popular as the item on average: it ends where the list does, and
    at most 50 places (and a tenth of the list) away. Popularity in it differs by at most a quarter, or by one. At the
    ends of the list, and among the most popular items, which differ most, five places on either side are kept (fewer in
    lists of fewer than 100).

    Args:
        popularity: Numbers of interactions in ascending order ``[num]``.
        tolerated: Largest relative difference in popularity; infinity gives the whole window, moved into the list.

    Returns:
        First and last place of every range ``[num]``.

    Example:
        >>> first, last = windows(torch.tensor([1, 1, 1, 2, 9, 9]))
        >>> first.tolist(), last.tolist()
        ([0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 5])
    """
    num = len(popularity)
    place = torch.arange(num, device=popularity.device)
    least = max(1, min(LEAST, num // 20))
    half = max(least, min(WINDOW, num // SHARE) // 2)
    if math.isinf(tolerated):
        width = min(max(WINDOW, 2 * LEAST + 1), num)
        first = (place - width // 2).clamp(0, num - width)
        return first, first + width - 1
    ordered = popularity.double().contiguous()
    furthest = (tolerated * ordered).clamp(min=1.0)
    below = place - torch.searchsorted(ordered, ordered - furthest)
    above = torch.searchsorted(ordered, ordered + furthest, right=True) - 1 - place
    ends = torch.minimum(place, num - 1 - place)
    around = torch.stack([below, above, ends, torch.full_like(place, half)]).amin(0).clamp(min=least)
    return (place - around).clamp(min=0), (place + around).clamp(max=num - 1)


def drawn(at: Tensor, window: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
    """Draw a place from the window of every given place.

    Args:
        at: Places ``[num_draws]``.
        window: First and last place of the windows, by place.
        generator: Source of the draws.

    Returns:
        The places ``[num_draws]``.
    """
    first, last = (end[at] for end in window)
    share = torch.rand(len(at), generator=generator, dtype=torch.float64).to(at.device)
    return first + (share * (last - first + 1)).long()


def match_of(popularity: Tensor, items: Tensor, controls: Tensor, owner: Tensor) -> dict[str, float] | None:
    """Return how well controls match their items in popularity.

    Args:
        popularity: Number of interactions of every item ``[num_items]``.
        items: Items ``[num]``.
        controls: Controls ``[num_controls]``.
        owner: Index of the item that every control belongs to ``[num_controls]``.

    Returns:
        Mean popularity of the items (each as often as it has controls) and of the controls, and ``"auroc"``, how often
        an item is more popular than its control; 0.5 is a perfect match. ``None`` without controls.

    Example:
        >>> match_of(torch.tensor([4, 3, 5]), torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([0, 0]))
        {'forgotten': 4.0, 'controls': 4.0, 'auroc': 0.5}
    """
    if not len(controls):
        return None
    own, other = popularity[items[owner]].double(), popularity[controls].double()
    won = (own > other).double() + (own == other).double() / 2
    return {"forgotten": float(own.mean()), "controls": float(other.mean()), "auroc": float(won.mean())}
