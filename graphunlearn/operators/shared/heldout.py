"""What of held-out data can still be used after a request."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.operators.shared.warm_start import emptied_nodes

__all__ = ["clicked_items", "judges_left", "without_emptied_nodes"]


@overload
def without_emptied_nodes(
    heldout: InteractionGraph, graph: InteractionGraph, retained: InteractionGraph
) -> InteractionGraph: ...


@overload
def without_emptied_nodes(heldout: SessionGraph, graph: SessionGraph, retained: SessionGraph) -> SessionGraph: ...


def without_emptied_nodes(heldout: Any, graph: Any, retained: Any) -> Any:
    """Return ``heldout`` without the users and items that forgetting left without any interaction.

    Of sessions those of such users go, who are the same where their raw ids are, and the clicks on such items, as if
    they were to be forgotten: their neighbours join. A prefix that such a click follows goes.
    """
    if isinstance(heldout, SessionGraph):
        heldout = _without_emptied_users(heldout, graph, retained)
        emptied = clicked_items(graph) & ~clicked_items(retained)
        if heldout.target is not None:
            gone = (heldout.target >= 0) & emptied[heldout.target]
            heldout = heldout.select(~gone) if bool(gone.any()) else heldout
        clicked = clicked_items(heldout)
        emptied = emptied & clicked
        if not bool(emptied.any()):
            return heldout
        if not bool((clicked & ~emptied).any()):
            return heldout.select(torch.zeros_like(heldout.length, dtype=torch.bool))
        return heldout.split(ForgetRequest.internal("item", emptied.nonzero().flatten()))[0]
    emptied = emptied_nodes(graph, retained)
    return heldout.select(~(emptied[heldout.pairs[0]] | emptied[heldout.pairs[1] + graph.num_users]))


def judges_left(heldout: Any, graph: Any, retained: Any) -> Any:
    """Return what training again is stopped by: ``heldout`` :func:`without_emptied_nodes`.

    ``None`` where there is none, or where forgetting leaves no session of two clicks of it, and so nothing to predict.
    """
    if heldout is None:
        return None
    left = without_emptied_nodes(heldout, graph, retained)
    if isinstance(left, SessionGraph) and left is not heldout and not len(CrossEntropy().samples(left)):
        return None
    return left


def clicked_items(graph: SessionGraph) -> Tensor:
    """Return which items are clicked at all ``[num_items]``."""
    return torch.bincount(graph.x, minlength=graph.num_items) > 0


def _without_emptied_users(heldout: SessionGraph, graph: SessionGraph, retained: SessionGraph) -> SessionGraph:
    """Return ``heldout`` without the sessions of users whom forgetting left without any session."""
    if heldout.user is None or graph.user is None or retained.user is None:
        return heldout
    emptied = torch.unique(graph.user[~torch.isin(graph.user, retained.user)])
    names, known = graph.vocabulary("user"), heldout.vocabulary("user")
    gone = known.lookup(names[number] for number in emptied.tolist() if number >= 0)
    gone = torch.isin(heldout.user, gone[gone >= 0].to(heldout.device))
    return heldout.select(~gone) if bool(gone.any()) else heldout
