"""Synthetic ratings that resemble real ones: a long tail of items, uneven activity, and tastes that can be learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.data.interaction import InteractionGraph
from graphunlearn.errors import ArgumentError

__all__ = ["synthetic_interactions"]

_CANDIDATES = 10  # items that a user meets for each one chosen
_BATCH = 1_000_000  # candidates processed at once; bounds the memory for any number of users and items
_FEWEST = 5  # interactions of the least active users
_YEAR = 365 * 24 * 3600
START = 1_577_836_800  # 2020-01-01, in epoch seconds


def synthetic_interactions(
    num_users: int = 1000,
    num_items: int = 600,
    interactions_per_user: float = 40,
    *,
    latent_dim: int = 8,
    popularity_exponent: float = 1.0,
    activity_spread: float = 0.8,
    taste: float = 2.5,
    seed: int = 0,
) -> InteractionGraph:
    r"""Draw users, items, and the ratings that users give to the items they choose.

    Users and items have normal latent factors :math:`p_u, q_i` with affinity :math:`a_{ui} = \langle p_u, q_i \rangle /
    \sqrt{k}`. A user with log-normal activity :math:`n_u` meets :math:`10\, n_u` items, the one of popularity rank
    :math:`r` with probability :math:`\propto r^{-\gamma}` and some repeatedly (:math:`m_{ui}` times), and chooses
    :math:`n_u` of them without repetition, :math:`\propto m_{ui} \exp(\tau a_{ui})` (Gumbel top-:math:`n_u`). The
    rating is a sum of the affinity, the user's mildness, the item's quality and noise, rounded to 1–5 stars; slightly
    more than half of the ratings exceed 3.

    The running time grows with the number of interactions only: a million take a few seconds.

    Args:
        num_users: Number of users; their raw ids are ``"u0"``, ``"u1"``, …
        num_items: Number of items; their raw ids are ``"i0"``, ``"i1"``, … Unpopular ones may have no interaction.
        interactions_per_user: Mean number of interactions; lower in the graph if it is not far below ``num_items``.
        latent_dim: Number :math:`k` of latent factors.
        popularity_exponent: The exponent :math:`\gamma`; 0 makes all items equally popular. With all
            defaults, more than half of the users choose the most popular item, as in MovieLens; 0.5 resembles Gowalla
            at 30,000 users, 40,000 items and 34 per user.
        activity_spread: Standard deviation of the logarithm of the users' activity.
        taste: Influence :math:`\tau` of a user's taste on the choice; with 0, only popularity counts.
        seed: The same seed gives the same graph.

    Returns:
        A graph with ``rating`` (float, 1–5) and ``time`` (epoch seconds within one year, int64), ordered by time.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> graph = synthetic_interactions(num_users=100, num_items=50, interactions_per_user=10, seed=1)
        >>> graph.num_users, graph.num_items, graph.user_ids[17], graph.item_ids[3]
        (100, 50, 'u17', 'i3')
    """
    check_counts(num_users=num_users, num_items=num_items, latent_dim=latent_dim)
    if not 1 <= interactions_per_user <= num_items:
        expected = f"be between 1 and the number of items, {num_items}"
        raise ArgumentError("interactions_per_user", expected, interactions_per_user)
    check_weights(popularity_exponent=popularity_exponent, activity_spread=activity_spread, taste=taste)
    random = torch.Generator().manual_seed(seed)

    taste_of_user = torch.randn(num_users, latent_dim, generator=random)
    kind_of_item = torch.randn(num_items, latent_dim, generator=random) / latent_dim**0.5
    popularity = Popularity(num_items, popularity_exponent, random)
    activity = torch.randn(num_users, generator=random) * activity_spread - activity_spread**2 / 2
    activity = (interactions_per_user * activity.exp()).round().long()
    activity.clamp_(min=min(_FEWEST, int(interactions_per_user)), max=num_items)

    users, items, affinities = [], [], []
    for batch in torch.split(torch.arange(num_users), max(1, int(_BATCH / (_CANDIDATES * interactions_per_user)))):
        user = batch.repeat_interleave(_CANDIDATES * activity[batch])
        item = popularity.draw(user.numel())
        pair, times_met = torch.unique(user * num_items + item, return_counts=True)
        user, item = pair // num_items, pair % num_items
        affinity = (taste_of_user[user] * kind_of_item[item]).sum(1)
        chosen = _top_per_user(user, times_met.log() + taste * affinity + gumbel(affinity, random), activity)
        users.append(user[chosen])
        items.append(item[chosen])
        affinities.append(affinity[chosen])
    user, item, affinity = torch.cat(users), torch.cat(items), torch.cat(affinities)

    mildness = torch.randn(num_users, generator=random)
    quality = torch.randn(num_items, generator=random)
    noise = torch.randn(user.numel(), generator=random)
    rating = _stars(affinity + 0.2 * (mildness[user] + quality[item]) + 0.45 * noise)

    # A user arrives at a random moment of the year and interacts from then until its end.
    arrival = torch.rand(num_users, generator=random, dtype=torch.double)[user]
    moment = arrival + (1 - arrival) * torch.rand(user.numel(), generator=random, dtype=torch.double)
    time = START + (moment * _YEAR).long()
    order = torch.argsort(time, stable=True)
    return InteractionGraph.from_edges(
        torch.stack([user, item])[:, order],
        num_users,
        num_items,
        user_ids=[f"u{index}" for index in range(num_users)],
        item_ids=[f"i{index}" for index in range(num_items)],
        rating=rating[order],
        time=time[order],
    )


def check_counts(**counts: int) -> None:
    """Raise ArgumentError if one of the arguments is not a positive integer."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ArgumentError(name, "be a positive integer", value)


def check_weights(**weights: float) -> None:
    """Raise ArgumentError if one of the arguments is negative or not finite."""
    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise ArgumentError(name, "be a finite number of at least 0", value)


class Popularity:
    r"""Items to draw; the one of popularity rank :math:`r` has probability :math:`\propto r^{-\gamma}`.

    Args:
        num_items: Number of items.
        exponent: The exponent :math:`\gamma`.
        random: Generator of the ranks, which are in random order, and of all draws.
    """

    def __init__(self, num_items: int, exponent: float, random: torch.Generator) -> None:
        rank = torch.randperm(num_items, generator=random) + 1.0
        self._total, self._random = torch.cumsum(rank.double() ** -exponent, 0), random

    def draw(self, *size: int) -> Tensor:
        """Return items, drawn independently ``[*size]``."""
        draw = torch.rand(*size, generator=self._random, dtype=torch.double) * self._total[-1]
        return torch.searchsorted(self._total, draw).clamp_(max=self._total.numel() - 1)


def gumbel(like: Tensor, random: torch.Generator) -> Tensor:
    """Return Gumbel noise of the shape of ``like``."""
    return -torch.empty_like(like).exponential_(generator=random).log()


def _top_per_user(user: Tensor, key: Tensor, count: Tensor) -> Tensor:
    """Return the positions of the ``count[u]`` largest keys of every user; ``user`` is sorted, and may omit users."""
    by_key = torch.argsort(key, descending=True, stable=True)
    order = by_key[torch.argsort(user[by_key], stable=True)]
    present, size = torch.unique_consecutive(user, return_counts=True)
    first = torch.cumsum(size, 0) - size
    place = torch.arange(user.numel()) - first.repeat_interleave(size)
    return order[place < count[present].repeat_interleave(size)]


def _stars(liking: Tensor) -> Tensor:
    """Scale to the mean and standard deviation that star ratings usually have, and round to 1–5."""
    return (3.6 + 1.13 * (liking - liking.mean()) / liking.std(correction=0).clamp(min=1e-6)).round().clamp_(1, 5)
