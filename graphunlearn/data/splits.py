"""Which events or sessions go to which part of the data: at random, by time, or within every user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from graphunlearn.data.schema import cuts_of
from graphunlearn.errors import ArgumentError

__all__ = ["By", "divided"]

By = Literal["random", "time", "loo", "user"]


def divided(
    by: By,
    fractions: Sequence[float],
    num: int,
    *,
    user: Tensor | None = None,
    time: Tensor | None = None,
    seed: int = 0,
) -> list[Tensor]:
    r"""Return the positions of interactions or sessions in every part.

    With ``n`` of them, of a user or altogether, sorted by time, and shares :math:`s_1, \dots, s_k`, part ``j`` gets the
    positions from :math:`\mathrm{round}(n \sum_{i<j} s_i)` to :math:`\mathrm{round}(n \sum_{i \le j} s_i)`.

    Args:
        by: ``"random"`` draws; ``"time"`` puts the latest into the last part; ``"user"`` divides those of every user by
            time; ``"loo"`` (leave one out) puts the last one of every user into the last part, the one before into the
            part before, and so on, as long as one is left for the first part. Without times, those of a user are in
            random order.
        fractions: Share of every part; they add up to 1. ``"loo"`` uses their number alone.
        num: Number of interactions or sessions.
        user: User of every one, -1 where unknown ``[num]``.
        time: Time of every one ``[num]``.
        seed: Seed of what is drawn.

    Returns:
        Positions per part in ascending order, random ones as they were drawn.

    Raises:
        ArgumentError: ``by`` is unknown or needs times or users that are not there, or the fractions are not positive
            or do not add up to 1.

    Example:
        >>> user, time = torch.tensor([0, 0, 0, 1]), torch.tensor([5, 9, 7, 1])
        >>> [part.tolist() for part in divided("loo", [0.8, 0.1, 0.1], 4, user=user, time=time)]
        [[0, 3], [2], [1]]
    """
    if by not in get_args(By):
        raise ArgumentError("by", f"be {', '.join(get_args(By)[:-1])} or {get_args(By)[-1]}", f"{by!r}")
    cuts = cuts_of(fractions, num)
    drawn = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    if by == "random":
        return list(drawn.tensor_split(cuts))
    if by == "time":
        if time is None:
            raise ArgumentError("by", "be 'random' or 'user' for data without times", "'time'")
        return [part.sort().values for part in torch.argsort(time.cpu(), stable=True).tensor_split(cuts)]
    if user is None:
        raise ArgumentError("by", "be 'random' or 'time' for data without users", f"'{by}'")
    order = drawn if time is None else torch.argsort(time.cpu(), stable=True)
    order = order[torch.argsort(user.cpu()[order], stable=True)]
    _, counts = torch.unique_consecutive(user.cpu()[order], return_counts=True)
    size = counts.repeat_interleave(counts)
    place = torch.arange(num) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    if by == "loo":
        last = len(fractions) - 1
        part = (last - (size - 1 - place)).clamp(min=0)
        part[place == 0] = 0
    else:
        limits = torch.tensor(fractions, dtype=torch.float64).cumsum(0)[:-1]
        part = (place.unsqueeze(1) >= (limits * size.unsqueeze(1)).round()).sum(1)
    part[user.cpu()[order] < 0] = 0
    return [order[part == number].sort().values for number in range(len(fractions))]
