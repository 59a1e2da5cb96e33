"""Recommendation lists and margins on one fixed sample; margins compare pairs with the whole catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from graphunlearn.nn import Encoded

__all__ = ["margins", "top_lists"]

BATCH = 256
"""Number of queries scored at a time, which bounds the memory at ``BATCH * num_items`` scores."""


@torch.no_grad()
def margins(queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    r"""Return the margin of every target: its score less the log-sum-exp of the scores of all other items.

    Args:
        queries: Embedding of the query of every target ``[num, dim]``.
        items: Item embeddings ``[num_items, dim]``.
        targets: Internal item ids ``[num]``.

    Returns:
        The margins ``[num]``.

    Example:
        >>> margins(torch.ones(1, 1), torch.tensor([[1.0], [0.0], [-100.0]]), torch.tensor([0]))
        tensor([1.], dtype=torch.float64)
    """
    out = []
    for rows, wanted in zip(queries.split(BATCH), targets.split(BATCH)):
        scores = (rows @ items.t()).double()
        own = scores.gather(1, wanted.unsqueeze(1))
        out.append((own - scores.scatter(1, wanted.unsqueeze(1), -torch.inf).logsumexp(1, keepdim=True)).squeeze(1))
    return torch.cat(out).cpu() if out else torch.zeros(0, dtype=torch.float64)


@torch.no_grad()
def top_lists(encoded: Encoded, seen: tuple[Tensor, Tensor], k: int = 20) -> Tensor:
    """Return the best items of every query, without the items that the query has seen.

    Args:
        encoded: Embeddings of the queries ``[num, dim]`` and of all items.
        seen: Rows and items to leave out, as ``graph.seen`` returns them for the queries.
        k: Length of the lists.

    Returns:
        Items ``[num, min(k, num_items)]``, best first; -1 stands for no item.

    Example:
        >>> encoded = Encoded(torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]]))
        >>> top_lists(encoded, (torch.tensor([0]), torch.tensor([0])), k=2)
        tensor([[1, 2]])
    """
    row, item = seen
    order = row.argsort(stable=True)
    row, item = row[order], item[order]
    k, out = min(k, len(encoded.items)), []
    for start in range(0, len(encoded.queries), BATCH):
        scores = encoded.queries[start : start + BATCH] @ encoded.items.t()
        bounds = torch.tensor([start, start + len(scores)], device=row.device)
        here = slice(*torch.searchsorted(row, bounds).tolist())
        scores[row[here] - start, item[here]] = -torch.inf
        best, items = scores.topk(k)
        out.append(items.masked_fill(best == -torch.inf, -1))
    return torch.cat(out).cpu() if out else torch.zeros(0, k, dtype=torch.long)
