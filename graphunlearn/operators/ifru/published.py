"""IFRU with the choices of its public code, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphunlearn.operators.base import Rejection
from graphunlearn.operators.ifru.method import IFRU

__all__ = ["PublishedIFRU"]


@dataclass(kw_only=True)
class PublishedIFRU(IFRU):
    """IFRU with the choices of the method's public code, for comparison.

    The curvature is the undamped Hessian of matrix factorisation, without propagation. The solver is Adam with a
    learning rate of 10,000 over the number of interactions. Endpoints that lose at most 1 % of their interactions are
    ignored, and the least important 40 % of the reached nodes are pruned: the system is restricted to the other nodes
    and to their interactions, whatever it leaves unsolved elsewhere. How much that is in the full system, with
    propagation, is ``log["relative_error"]``; above 1, the step is further from solving the full system than no step.
    Computing it costs one gradient and one product on the whole graph. There is no warm start. The public code keeps
    the step with the best validation AUC, a signal unrelated to forgetting, and stops ten steps after the best one;
    here the number of steps, ``max_iter``, is fixed.

    Source: Zhang et al., "Recommendation Unlearning via Influence Function", arXiv 2307.02147, and its public code.
    """

    name: ClassVar[str] = "ifru-published"
    on_rejection: Rejection = "keep"  # it is here to be compared
    _by_importance: ClassVar[bool] = True
    curvature: Literal["gauss-newton", "absolute", "hessian"] = "hessian"
    damping: float | None = 0.0
    propagation: bool = False
    warm_start: bool = False
    prune: float | None = 0.4
    min_degree_change: float = 0.01
    solver: Literal["auto", "cg", "krylov", "adam"] = "adam"
    max_iter: int = 10
