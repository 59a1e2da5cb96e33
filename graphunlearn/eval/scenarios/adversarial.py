"""Scenario of data poisoning: injected interactions that a clean model scores lowest are to be forgotten."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.pairs import lowest_ranked
from graphunlearn.eval.scenarios.cases import SHARES, Scenario, counted, draw_share, split_up, were
from graphunlearn.eval.scenarios.injection import with_interactions
from graphunlearn.nn import encode

__all__ = ["Side", "adversarial_edges"]

Side = Literal["user", "item", "both"]


def adversarial_edges(
    graph: InteractionGraph,
    clean: Callable[[InteractionGraph, InteractionGraph], nn.Module],
    *,
    share: float = SHARES["adversarial-edges"],
    side: Side = "user",
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Inject the interactions that a clean model scores lowest; the request is to forget them.

    For a random share of the users, an interaction is injected with the item that a clean model, which was trained
    without the injected interactions, scores lowest. Only items with training interactions are considered, and no item
    that the user has in training, validation or test. With ``side="item"``, a random share of the items get an
    interaction with the user who scores lowest; ``"both"`` does both. Injected interactions have label 1, and the
    highest rating and the latest time of the training data.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        clean: Function of the training and the validation interactions that returns a model trained on the training
            interactions. Its seed should differ from those of all audited models; :func:`bench` passes such a
            function.
        share: Share of the users (or items) that get an injected interaction, in (0, 1).
        side: ``"user"``, ``"item"`` or ``"both"``.
        seed: Seed of the split and of the choice of users and items.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario, on the device of the clean model.

    Raises:
        ValueError: The side is unknown, the share is not in (0, 1), or there is no interaction to inject.

    Source: the evaluation of UnlearnRec, arXiv 2505.22649.

    Example:
        >>> import graphunlearn as gu
        >>> def clean(train, validation):
        ...     model = gu.nn.MatrixFactorization(train.num_nodes, 4)
        ...     result = gu.fit(model, train, epochs=2)
        ...     return model
        >>> graph = gu.datasets.synthetic_interactions(num_users=50, num_items=40, interactions_per_user=8)
        >>> scenario = adversarial_edges(graph, clean)
        >>> len(scenario.request), int(scenario.request.mask(scenario.train).sum())
        (14, 14)
    """
    if side not in get_args(Side):
        raise ArgumentError("side", f"be one of {', '.join(get_args(Side))}", f"{side!r}")
    train, validation, test = split_up(graph, test, fractions, seed)
    chosen = {}
    for number, name in enumerate(("user", "item")):
        nodes = torch.unique(train.pairs[number])
        if side in (name, "both"):
            chosen[name] = nodes[draw_share(len(nodes), share, seed + 104_729 * number, leave=0).to(nodes.device)]
    model = clean(train, validation)
    device = next(model.parameters()).device
    train, validation, test = (copy.copy(part).to(device) for part in (train, validation, test))
    encoded, known = encode(model, train), (train.adjacency.degree > 0).split([train.num_users, train.num_items])
    found = [
        lowest_ranked(encoded, name, nodes.to(device), known[name == "user"], [train, validation, test])
        for name, nodes in chosen.items()
    ]
    pairs = torch.unique(torch.cat(found, 1), dim=1)
    if not pairs.size(1):
        full = "item is held by every user" if side == "item" else "user holds every item"
        raise ArgumentError("graph", "leave a pair to inject", f"none: every chosen {full}")
    who = " and ".join(counted(len(nodes), name) for name, nodes in chosen.items())
    injected = f"{counted(pairs.size(1), 'interaction')} {were(pairs.size(1))} injected for {who}"
    notes = [f"{injected}. A model trained without them scores them lowest. The request is to forget them."]
    polluted = with_interactions(train, pairs)
    request = ForgetRequest.internal("interaction", pairs)
    return Scenario("adversarial-edges", polluted, validation, test, request, notes=notes)
