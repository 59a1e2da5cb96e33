"""Synthetic click sessions that resemble real ones: an intent, habitual transitions between items, and repeats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphunlearn.data.session import SessionGraph
from graphunlearn.datasets.synthetic import START, Popularity, check_counts, check_weights, gumbel
from graphunlearn.errors import ArgumentError

__all__ = ["synthetic_sessions"]

_CANDIDATES = 30  # items that a visitor meets for each one chosen
_SUCCESSORS = 10  # items that one item leads to
_LONGEST = 50
_BATCH = 100_000  # sessions or items processed at once; bounds the memory
_MONTH = 30 * 24 * 3600
_GAP = 60.0  # mean number of seconds between two clicks


def synthetic_sessions(
    num_sessions: int = 4000,
    num_items: int = 500,
    clicks_per_session: float = 4.5,
    *,
    num_users: int = 1500,
    latent_dim: int = 8,
    popularity_exponent: float = 0.6,
    taste: float = 4.0,
    transition: float = 0.6,
    repeat: float = 0.1,
    seed: int = 0,
) -> SessionGraph:
    r"""Draw items, users, and sessions in which visitors go from item to item.

    Items and users have normal latent factors :math:`q_i, p_u`, and every session an intent :math:`z_s = (p_u +
    \varepsilon_s) / \sqrt{2}`. To choose an item for factors :math:`z`, a visitor meets thirty items, the one of
    popularity rank :math:`r` with probability :math:`\propto r^{-\gamma}`, and takes one of them with probability
    :math:`\propto \exp(\tau \langle z, q_i \rangle / \sqrt{k})`. Every item has ten successors, chosen in this way
    for :math:`z = q_i`; a transition goes to the :math:`j`-th of them with probability :math:`\propto 1 / j`. The
    first click of a session is chosen for the intent :math:`z = z_s`. Every further click

    - repeats one of the earlier clicks, all equally likely, with probability :math:`\rho`,
    - or else follows a transition from the item clicked last with probability :math:`\pi`,
    - or else is chosen for the intent.

    The number of clicks is two plus a geometric number, at most 50. A model can learn the transitions from all sessions
    but must memorise the clicks that an intent chose; therefore forgetting such a click changes the model.

    Args:
        num_sessions: Number of sessions; their raw ids are ``"s0"``, ``"s1"``, …, in order of time.
        num_items: Number of items; their raw ids are ``"i0"``, ``"i1"``, … Unpopular ones may have no click.
        clicks_per_session: Mean number of clicks, at least 2.
        num_users: Number of users; their raw ids are ``"u0"``, ``"u1"``, … Each session belongs to one of them.
        latent_dim: Number :math:`k` of latent factors.
        popularity_exponent: The exponent :math:`\gamma`; 0 makes all items equally popular.
        taste: Influence :math:`\tau` of the factors :math:`z` on the choice; with 0, only popularity counts.
        transition: Probability :math:`\pi` of following a transition.
        repeat: Probability :math:`\rho` of a repeat.
        seed: The same seed gives the same graph.

    Returns:
        A graph with ``time`` (epoch seconds within one month, int64) and ``user``.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> graph = synthetic_sessions(num_sessions=100, num_items=50, num_users=20, seed=1)
        >>> graph.num_sessions, graph.num_items, graph.session_ids[17], graph.item_ids[3]
        (100, 50, 's17', 'i3')
    """
    check_counts(num_sessions=num_sessions, num_items=num_items, num_users=num_users, latent_dim=latent_dim)
    if not 2 <= clicks_per_session <= _LONGEST / 5:
        raise ArgumentError("clicks_per_session", f"be between 2 and {_LONGEST // 5}", clicks_per_session)
    check_weights(popularity_exponent=popularity_exponent, taste=taste)
    for name, value in {"transition": transition, "repeat": repeat}.items():
        if not 0 <= value <= 1:
            raise ArgumentError(name, "be a probability", value)
    random = torch.Generator().manual_seed(seed)

    kind = torch.randn(num_items, latent_dim, generator=random)
    popularity = Popularity(num_items, popularity_exponent, random)

    def choose(wish: Tensor) -> Tensor:
        """Return one item ``[n]`` for each row of factors ``[n, latent_dim]``."""
        item = popularity.draw(wish.size(0), _CANDIDATES)
        liking = (kind[item] * wish.unsqueeze(1)).sum(2) * (taste / latent_dim**0.5)
        return item.gather(1, (liking + gumbel(liking, random)).argmax(1, keepdim=True)).flatten()

    leads_to = torch.stack([_in_parts(choose, kind) for _ in range(_SUCCESSORS)], 1)
    habit = torch.cumsum(1 / torch.arange(1.0, _SUCCESSORS + 1), 0)

    user = torch.randint(num_users, (num_sessions,), generator=random)
    intent = torch.randn(num_users, latent_dim, generator=random)[user]
    intent = (intent + torch.randn(num_sessions, latent_dim, generator=random)) / 2**0.5
    length = _lengths(num_sessions, clicks_per_session, random)

    clicks = torch.empty(num_sessions, int(length.max()), dtype=torch.long)
    for position in range(clicks.size(1)):
        rows = (length > position).nonzero().flatten()
        clicks[rows, position] = _in_parts(choose, intent[rows])
        if position == 0:
            continue
        kinds = torch.rand(rows.numel(), generator=random)
        step = torch.rand(rows.numel(), generator=random)
        earlier = clicks[rows, (step * position).long().clamp_(max=position - 1)]
        place = torch.searchsorted(habit, step * habit[-1]).clamp_(max=_SUCCESSORS - 1)
        following = leads_to[clicks[rows, position - 1], place]
        chosen = torch.where(kinds < repeat + (1 - repeat) * transition, following, clicks[rows, position])
        clicks[rows, position] = torch.where(kinds < repeat, earlier, chosen)

    begin = (torch.rand(num_sessions, generator=random, dtype=torch.double) * _MONTH).sort().values
    gap = torch.empty(clicks.shape, dtype=torch.double).exponential_(generator=random) * _GAP
    time = START + (begin.unsqueeze(1) + gap.cumsum(1)).long()
    present = torch.arange(clicks.size(1)) < length.unsqueeze(1)
    return SessionGraph.from_sequences(
        clicks[present],
        torch.cat([length.new_zeros(1), length.cumsum(0)]),
        item_ids=[f"i{index}" for index in range(num_items)],
        session_ids=[f"s{index}" for index in range(num_sessions)],
        time=time[present],
        user=user,
        user_ids=[f"u{index}" for index in range(num_users)],
    )


def _in_parts(choose: Callable[[Tensor], Tensor], wishes: Tensor) -> Tensor:
    """Call ``choose`` on batches of ``wishes``, and concatenate the results."""
    return torch.cat([choose(part) for part in wishes.split(_BATCH)])


def _lengths(num_sessions: int, mean: float, random: torch.Generator) -> Tensor:
    """Return the numbers of clicks ``[num_sessions]``: two plus a geometric number, at most ``_LONGEST``."""
    stay = 1 - 1 / (mean - 1)  # probability of one more click
    if stay <= 0:
        return torch.full((num_sessions,), 2)
    draw = torch.rand(num_sessions, generator=random, dtype=torch.double)
    more = torch.log1p(-draw) / torch.log(torch.tensor(stay, dtype=torch.double))
    return (2 + more.long()).clamp_(max=_LONGEST)
