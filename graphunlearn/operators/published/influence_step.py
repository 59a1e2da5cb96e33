"""What the published influence steps share: one linear system at the trained parameters, and one step."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from graphunlearn.data import ForgetRequest
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.risk import Curvature
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.shared.checks import check, check_choices, check_counts
from graphunlearn.operators.shared.right_hand_side import Problem, global_problem, session_problem
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["InfluenceStep", "difference"]

_DAMPING = 0.01


@dataclass(kw_only=True)
class InfluenceStep(Unlearner):
    r"""The base class of one step :math:`\theta' = \theta + (H + \delta I)^{-1} g` from the trained parameters.

    Embeddings of users and items without a retained interaction are redrawn, as by ``UnlinkRedraw``: no retained loss
    depends on them, so no system determines them.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        curvature: ``"gauss-newton"``, which is positive semi-definite, or ``"hessian"``, which is exact and indefinite
            at a model that was stopped early.
        damping: The damping :math:`\delta`; ``None`` selects .01 for interactions and, for sessions, .01 per prediction
            that remains, which is .01 for the mean loss.
        max_iter: Largest number of curvature products.
        hessian_samples: For sessions, largest number of predictions that the curvature is computed from.
        seed: Seed of these predictions and of redrawn embeddings.
    """

    kinds: ClassVar[tuple[str, ...]] = ("interactions", "sessions")
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Criterion | None = None
    curvature: Curvature = "gauss-newton"
    damping: float | None = None
    max_iter: int = 100
    hessian_samples: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(("gauss-newton", "hessian"), curvature=self.curvature)
        check("be finite and not negative", lambda value: value is None or 0 <= value < math.inf, damping=self.damping)
        check_counts(max_iter=self.max_iter, hessian_samples=self.hessian_samples)

    def _damping(self, problem: Problem, graph: Any) -> float:
        """Return the damping."""
        if self.damping is not None:
            return self.damping
        return _DAMPING * (max(len(problem.new.samples), 1) if graph.kind == "sessions" else 1)

    def _loss(self, graph: Any) -> Any:
        """Return the loss; raise an error if its curvature is not known."""
        objective = self.objective or default_objective(graph)
        known = Objective if graph.kind == "interactions" else CrossEntropy
        if not isinstance(objective, known):
            expected = f"be an {known.__name__}, whose curvature is known" if known is Objective else "be CrossEntropy"
            raise ArgumentError("objective", expected, type(objective).__name__)
        return objective

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        objective, removed = self._loss(graph), request.mask(graph)
        started = copy.deepcopy(model)
        warm_start(started, graph, retained, self.seed, scale=False)
        args = (model, started, graph, retained, removed, objective)
        if graph.kind == "interactions":
            problem = global_problem(*args, None)
        else:
            problem = session_problem(*args, most=self.hessian_samples, seed=self.seed)
        theta, log = self._step(problem, model, graph, retained, removed)
        vector_to_parameters(theta, [p for p in model.parameters() if p.requires_grad])
        return log | {
            "emptied_nodes": int(graph.emptied(retained).sum()),
            "curvature": self.curvature,
            "damping": self._damping(problem, graph),
        }

    @abstractmethod
    def _step(
        self, problem: Problem, model: nn.Module, graph: Any, retained: Any, removed: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the corrected parameters and the log."""


def difference(problem: Problem) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\nabla R(\hat\theta; D, G) - \nabla R(\theta; D_k, G_k)`, old minus new, and its first term.

    Samples that do not change cancel, so this is the sum over the affected samples that the sources write. The first
    term vanishes where training has converged, and the step leads to the minimiser of the retained risk.

    Args:
        problem: The problem; :math:`\theta` is its start.

    Returns:
        The difference and the first term, each ``[num_parameters]``.
    """
    tilt = problem.tilt()
    return tilt - problem.new.gradient(problem.start), tilt
