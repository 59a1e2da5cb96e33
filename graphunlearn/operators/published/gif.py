"""GIF: the graph influence function, solved by a fixed-point iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from graphunlearn.errors import ArgumentError
from graphunlearn.func import largest_eigenvalue, lissa
from graphunlearn.nn.risk import Curvature
from graphunlearn.operators.published.influence_step import InfluenceStep, difference
from graphunlearn.operators.shared.checks import check, check_choices
from graphunlearn.operators.shared.right_hand_side import Problem

__all__ = ["GIF", "PublishedGIF"]

_MARGIN = 1.1  # power iteration estimates the largest eigenvalue from below


@dataclass(kw_only=True)
class GIF(InfluenceStep):
    r"""Add the influence of the removed interactions on the graph, from a fixed number of iterations.

    .. math::
        \theta' = \theta + h / s, \qquad h \leftarrow v + h - (H + \delta I)h / s, \qquad
        v = \nabla L_A(\theta; G) - \nabla L_{A \setminus D_r}(\theta; G_k)

    :math:`A` are the interactions whose prediction changes, and losses are summed. The limit of :math:`h / s` is
    :math:`(H + \delta I)^{-1} v` if the scale :math:`s` is above half the largest eigenvalue. Directions whose
    eigenvalue is below :math:`s` over the number of iterations are cut short; ``log["residual"]`` tells how much of
    :math:`v` is left. The default :math:`H` is that of the retained data: that of all training data, which the source
    takes, leaves a bias even on least squares.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        curvature: ``"gauss-newton"``, which is positive semi-definite, or ``"hessian"``, which is exact and indefinite
            at a model that was stopped early.
        damping: The damping :math:`\delta`; ``None`` selects .01 for interactions and, for sessions, .01 per prediction
            that remains, which is .01 for the mean loss.
        max_iter: Number of iterations, of one curvature product each.
        scale: The scale :math:`s`; ``None`` takes a little more than the largest eigenvalue, from ten products.
        system: ``"retained"`` takes :math:`H` of the retained data on the retained graph, ``"original"`` that of all
            training data on the graph before forgetting.
        hessian_samples: For sessions, largest number of predictions that the curvature is computed from.
        seed: Seed of these predictions and of redrawn embeddings.

    Source: Wu et al., "GIF: A General Graph Unlearning Strategy via Influence Function", WWW 2023, and its public code.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = GIF().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["iterations"]
        100
    """

    name: ClassVar[str] = "gif"
    _least_scale: ClassVar[float] = 0.0
    scale: float | None = None
    system: Literal["retained", "original"] = "retained"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(("retained", "original"), system=self.system)
        check("be positive and finite", lambda value: value is None or 0 < value < math.inf, scale=self.scale)

    def _step(
        self, problem: Problem, model: nn.Module, graph: Any, retained: Any, removed: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        (rhs, _), damping = difference(problem), self._damping(problem, graph)
        if self.system == "retained":
            product = problem.new.curvature(problem.start, self.curvature)
        else:
            product = problem.old.curvature(problem.trained, self.curvature)
            if problem.gone is not None:  # forgotten data must not move redrawn embeddings
                keep, whole = (~problem.gone).to(rhs.dtype), product
                rhs, product = keep * rhs, lambda v: keep * whole(keep * v)
        largest = largest_eigenvalue(product, rhs, seed=self.seed) + damping
        scale = self.scale or max(self._least_scale, _MARGIN * largest) or 1.0
        if scale <= largest / 2:
            expected = f"be above {largest / 2:.4g}, half the largest eigenvalue, for the iteration to converge"
            raise ArgumentError("scale", expected, scale)
        solved = lissa(product, rhs, scale, damping=damping, iterations=self.max_iter)
        log = {"iterations": solved.iterations, "residual": solved.residual}
        return problem.start + solved.x, log | {"scale": scale, "largest_eigenvalue": largest}


@dataclass(kw_only=True)
class PublishedGIF(GIF):
    """GIF with the choices of its public code: the undamped Hessian of all training data, scale 500, 100 iterations.

    The code divides by a scale of 50 or 500 per data set. Where 500 is below the largest eigenvalue, which it is for
    sessions, a little more than that is taken, as the iteration would otherwise diverge.
    """

    name: ClassVar[str] = "gif-published"
    _least_scale: ClassVar[float] = 500.0
    curvature: Curvature = "hessian"
    damping: float | None = 0.0
    system: Literal["retained", "original"] = "original"
