"""COVA: correct a low-rank factorisation of scores and interactions, without the user-by-item matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import PairPattern
from graphunlearn.nn.encoding import Encoded, encode, linear_form, score
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.shared.checks import check, check_counts
from graphunlearn.operators.shared.pull_back import pull_back
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["COVA"]

_USERS = 1024  # users scored at a time


@dataclass(kw_only=True)
class COVA(Unlearner):
    r"""Replace the scores by a combination of scores and interactions, in their common low-rank space.

    Three matrices of users and items are stacked: :math:`A_1` holds the user's mean score of interacted items where the
    user has an interaction, and the mean score of all other items elsewhere; :math:`A_2` is the same with the user's
    lowest score at forgotten interactions; :math:`A_3` are the scores of the model. With the :math:`q` largest right
    singular vectors :math:`V` of the stack, the new scores are

    .. math::
        \big[A_3 - \alpha(A_1 - A_2) - \beta(A_3 - A_1)\big] V V^\top

    :math:`A_1` and :math:`A_2` are of rank one plus sparse and :math:`A_3` is a product of embeddings, so no matrix of
    users and items is built. The source serves the new rows without propagation. Here they are written into the model:
    :math:`q` is at most the width of its embeddings, and where embeddings are propagated, the table is moved so that
    its propagation on the retained graph gives them (``log["left_by_propagation"]`` tells what is not reached).
    Embeddings of users and items without a retained interaction are redrawn.

    With the weights of the source, scores of single forgotten interactions end far below those of a retrained model on
    MovieLens-100K: the source ranks them last, and does not ask for the scores that retraining gives.

    Args:
        alpha: The weight :math:`\alpha` of what is forgotten.
        beta: The weight :math:`\beta` of the interactions against the scores.
        rank: The rank :math:`q`; ``None`` takes the width of the embeddings. The source takes 48.
        rounds: Number of rounds of the power iteration for :math:`V`.
        seed: Seed of its start and of redrawn embeddings.

    Source: "COVA", 2025, from its public code (Yeo-Jun-Choi/COVA).

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> COVA().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]])).log["rank"]
        8
    """

    name: ClassVar[str] = "cova"
    on_rejection: Rejection = "keep"  # it is here to be compared
    alpha: float = 35.0
    beta: float = 0.9
    rank: int | None = None
    rounds: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check("be finite and not negative", lambda value: 0 <= value < math.inf, alpha=self.alpha, beta=self.beta)
        check_counts(rounds=self.rounds, **({} if self.rank is None else {"rank": self.rank}))

    def _validate(self, model: nn.Module, graph: Any, request: ForgetRequest) -> None:
        form = linear_form(model, graph)
        if form is None:
            raise ArgumentError("model", f"propagate one table linearly for {self.name}", type(model).__name__)
        width = model.get_parameter(form.parameter).size(1)
        if self.rank is not None and self.rank > width:
            raise ArgumentError("rank", f"be at most the width of the embeddings, {width}", self.rank)

    @torch.no_grad()
    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        form = linear_form(model, retained)
        assert form is not None
        scores = _Scores(encode(model, graph), graph, request.mask(graph))
        warm_start(model, graph, retained, self.seed, scale=False)
        table, emptied = model.get_parameter(form.parameter), graph.emptied(retained)
        rank = min(self.rank or table.size(1), graph.num_items, 3 * graph.num_users)
        generator = torch.Generator().manual_seed(self.seed)
        start = torch.randn(graph.num_items, rank, generator=generator, dtype=torch.float64).to(table)
        basis = torch.linalg.qr(start).Q
        for _ in range(self.rounds):
            basis = torch.linalg.qr(scores.transposed(scores.stacked(basis))).Q
        stack = scores.stacked(basis)
        together = torch.cat(stack)
        values, vectors = torch.linalg.eigh(together.t() @ together)
        largest = values.clamp(min=0).sqrt().clamp(min=torch.finfo(table.dtype).eps * float(values.max().sqrt()))
        first, second, third = (part @ vectors for part in stack)
        combined = third - self.alpha * (first - second) - self.beta * (third - first)
        rows = torch.cat([combined / largest.sqrt(), basis @ vectors * largest.sqrt()])
        target = form.propagate(table)
        target[~emptied] = nn.functional.pad(rows, (0, table.size(1) - rank))[~emptied]
        moved, left = pull_back(form, table, target)
        table.copy_(moved)
        return {"rank": rank, "left_by_propagation": left, "emptied_nodes": int(emptied.sum())}


class _Scores:
    """The stack of the three matrices, as products with it."""

    def __init__(self, encoded: Encoded, graph: InteractionGraph, removed: Tensor) -> None:
        self.users, self.items = encoded.queries, encoded.items
        size = (graph.num_users, graph.num_items)
        degree = graph.degree[: graph.num_users].to(self.users.dtype)
        own = torch.zeros_like(degree).index_add(0, graph.pairs[0], score(encoded, graph.pairs))
        total = self.users @ self.items.sum(0)
        liked = own / degree.clamp(min=1)
        self.other = (total - own) / (graph.num_items - degree).clamp(min=1)
        lowest = torch.cat([(part @ self.items.t()).amin(1) for part in self.users.split(_USERS)])
        user, gone = graph.pairs[0], graph.pairs[:, removed]
        self.known, self.forgotten = PairPattern(user, graph.pairs[1], size), PairPattern(gone[0], gone[1], size)
        self.above, self.below = (liked - self.other)[user], (lowest - liked)[gone[0]]

    def stacked(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the product of each of the matrices and ``v`` ``[num_items, n]``."""
        first = torch.outer(self.other, v.sum(0)) + self.known.matmul(self.above, v)
        return first, first + self.forgotten.matmul(self.below, v), self.users @ (self.items.t() @ v)

    def transposed(self, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the sum of the products of the transposed matrices and ``parts`` ``[num_users, n]``."""
        first, second, third = parts
        both = first + second
        out = (self.other @ both).expand(len(self.items), -1) + self.known.transposed.matmul(self.above, both)
        out = out + self.forgotten.transposed.matmul(self.below, second)
        return out + self.items @ (self.users.t() @ third)
