"""GNNDelete: one matrix on the embeddings near the removed edges, folded into the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import LinearForm, encode, linear_form, num_hops
from graphunlearn.nn.tables import write_table
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.shared.checks import check, check_choices, check_counts, check_positive
from graphunlearn.operators.shared.table_model import TableModel
from graphunlearn.operators.shared.warm_start import warm_start
from graphunlearn.utils import k_hop_ball

__all__ = ["GNNDelete", "PublishedGNNDelete"]


@dataclass(kw_only=True)
class GNNDelete(Unlearner):
    r"""Multiply the initial embeddings near removed edges by one matrix, so that their ends look like random pairs.

    The rows :math:`S` within as many hops of the removed edges as the model has layers, at least one, become
    :math:`e_v \leftarrow e_v W`, where :math:`W` minimises

    .. math::
        \frac{\alpha}{|D_r|} \sum_{(u,i) \in D_r} \big(\|z_u - \hat z_p\|^2 + \|z_i - \hat z_q\|^2\big)
        + \frac{1 - \alpha}{|N|} \sum_{v \in N} \|z_v - \hat z_v\|^2

    :math:`z` are the final embeddings on the retained graph, :math:`\hat z` those of the trained model on the graph
    before forgetting, :math:`(p, q)` a random user and item without an interaction, drawn once per forgotten
    interaction, and :math:`N` the rows of :math:`S` that are no end of a removed edge. All other parameters stay.

    The source learns a matrix after every layer and keeps them as modules that change the architecture. Here one matrix
    acts on the initial embeddings, where it can be multiplied in: the result is an ordinary model, and requests can
    follow one another. If the model propagates one table linearly, the loss is quadratic in :math:`W` and solved
    exactly. One matrix serves all rows of :math:`S`, and the first term moves an end of a removed edge away from all
    that it is connected to, so that what is kept suffers as well: on MovieLens-100K, about as much as what is forgotten
    where single interactions are. Ends without a retained interaction are redrawn and not part of the loss.

    Args:
        alpha: The weight :math:`\alpha` of the first term.
        solver: ``"exact"`` solves the linear system; ``"adam"`` starts at the identity and takes ``steps`` steps;
            ``"auto"`` is exact where the model propagates linearly.
        steps: Number of steps of Adam.
        lr: Learning rate of Adam.
        seed: Seed of the random pairs and of redrawn embeddings.

    Source: Cheng et al., "GNNDelete: A General Strategy for Unlearning in Graph Neural Networks", ICLR 2023, and its
    public code.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = GNNDelete().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["loss"][1] < result.log["loss"][0]
        True
    """

    name: ClassVar[str] = "gnndelete"
    on_rejection: Rejection = "keep"  # it is here to be compared
    alpha: float = 0.5
    solver: Literal["auto", "exact", "adam"] = "auto"
    steps: int = 600
    lr: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        check("be between 0 and 1", lambda value: 0 <= value <= 1, alpha=self.alpha)
        check_choices(("auto", "exact", "adam"), solver=self.solver)
        check_counts(steps=self.steps)
        check_positive(lr=self.lr)

    def _validate(self, model: nn.Module, graph: Any, request: ForgetRequest) -> None:
        TableModel(model, graph)  # raises an error if the initial embeddings are not accessible
        if self.solver == "exact" and linear_form(model, graph) is None:
            got = f"'exact' for {type(model).__name__}"
            raise ArgumentError("solver", "be 'auto' or 'adam' where no table is propagated linearly", got)

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        removed, emptied = request.mask(graph), graph.emptied(retained)
        with torch.no_grad():
            before = torch.cat(encode(model, graph)[:2])
        warm_start(model, graph, retained, self.seed, scale=False)
        near = torch.zeros_like(emptied)
        ends = (graph.pairs[:, removed] + graph.pairs.new_tensor([[0], [graph.num_users]])).flatten()
        near[k_hop_ball(graph, ends.unique(), max(1, num_hops(model, graph)))] = True
        near &= ~emptied
        target = self._target(graph, ends, emptied, near, before)
        form, tabled = linear_form(model, retained), TableModel(model, retained)
        identity = torch.eye(tabled.table.size(1), dtype=before.dtype, device=before.device)

        def moved(matrix: Tensor) -> Tensor:
            return torch.where(near.unsqueeze(1), tabled.table @ matrix, tabled.table)

        def loss(matrix: Tensor) -> Tensor:
            rows = tabled.run(moved(matrix), lambda other: torch.cat(encode(other, retained)[:2]))
            return (target.weight * (rows[target.nodes] - target.rows).square().sum(1)).sum()

        if form is not None and self.solver != "adam":
            matrix = identity + _least_squares(form, tabled.table, near, target)
        else:
            matrix = identity.clone().requires_grad_()
            optimizer = torch.optim.Adam([matrix], lr=self.lr)
            for _ in range(self.steps):
                optimizer.zero_grad()
                loss(matrix).backward()
                optimizer.step()
        with torch.no_grad():
            losses = [float(loss(identity)), float(loss(matrix))]
            write_table(model, retained, moved(matrix))
        return {"loss": losses, "changed_rows": int(near.sum()), "emptied_nodes": int(emptied.sum())}

    def _target(self, graph: InteractionGraph, ends: Tensor, emptied: Tensor, near: Tensor, before: Tensor) -> _Target:
        """Return the embeddings that the final ones are to approach, with weights."""
        random = _random_pairs(graph, len(ends) // 2, self.seed) + ends.new_tensor([[0], [graph.num_users]])
        others = near.clone()
        others[ends] = False
        stay = others.nonzero().view(-1)
        weight = before.new_full((len(ends),), 2 * self.alpha / len(ends)).masked_fill(emptied[ends], 0.0)
        rest = before.new_full((len(stay),), (1 - self.alpha) / max(len(stay), 1))
        return _Target(torch.cat([ends, stay]), before[torch.cat([random.flatten(), stay])], torch.cat([weight, rest]))


@dataclass(kw_only=True)
class PublishedGNNDelete(GNNDelete):
    """GNNDelete with the steps of its public code: Adam with learning rate .001 for 600 steps, also where it is linear.

    The code starts from a matrix of constants; here the start is the identity. There is still one matrix only.
    """

    name: ClassVar[str] = "gnndelete-published"
    solver: Literal["auto", "exact", "adam"] = "adam"


class _Target(NamedTuple):
    nodes: Tensor
    rows: Tensor
    weight: Tensor


@torch.no_grad()
def _least_squares(form: LinearForm, table: Tensor, near: Tensor, target: _Target) -> Tensor:
    """Return the smallest change of the matrix from the identity with the least loss ``[dim, dim]``."""
    scale = target.weight.sqrt().unsqueeze(1)
    left = scale * form.propagate(table * near.unsqueeze(1))[target.nodes]
    right = scale * (target.rows - form.propagate(table)[target.nodes])
    inverse = torch.linalg.pinv((left.t() @ left).double(), hermitian=True)
    return (inverse @ (left.t() @ right).double()).to(table.dtype)


def _random_pairs(graph: InteractionGraph, num: int, seed: int) -> Tensor:
    """Return users and items without an interaction, or any if few draws find none ``[2, num]``."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.sort(graph.pairs[0] * graph.num_items + graph.pairs[1]).values
    pairs = torch.zeros(2, num, dtype=torch.long, device=graph.device)
    again = torch.ones(num, dtype=torch.bool, device=graph.device)
    for _ in range(20):
        drawn = [torch.randint(size, (num,), generator=generator) for size in (graph.num_users, graph.num_items)]
        pairs = torch.where(again, torch.stack(drawn).to(pairs), pairs)
        code = pairs[0] * graph.num_items + pairs[1]
        again = torch.isin(code, known, assume_unique=False)
        if not bool(again.any()):
            break
    return pairs
