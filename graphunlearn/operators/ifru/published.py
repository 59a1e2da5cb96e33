"""IFRU as its public code has it, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphunlearn.operators.ifru.method import IFRU

__all__ = ["PublishedIFRU"]


@dataclass(kw_only=True)
class PublishedIFRU(IFRU):
    """IFRU with the choices of the method's public code, for comparison.

    The Hessian of matrix factorisation (no propagation), undamped; Adam with a learning rate of 10,000 over the number
    of interactions; endpoints that lose at most 1 % of their interactions are ignored, and the less important 40 % of
    the reached nodes are pruned; no warm start. The public code keeps the step with the best validation AUC, so that an
    unrelated signal decides, and gives up ten steps after the best; here the number of steps, ``max_iter``, is fixed.
    """

    name: ClassVar[str] = "ifru-published"
    curvature: Literal["gauss-newton", "absolute", "hessian"] = "hessian"
    damping: float | None = 0.0
    propagation: bool = False
    warm_start: bool = False
    prune: float | None = 0.4
    min_degree_change: float = 0.01
    solver: Literal["auto", "cg", "krylov", "adam"] = "adam"
    max_iter: int = 10
