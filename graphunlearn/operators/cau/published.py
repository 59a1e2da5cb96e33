"""CAU close to its description, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphunlearn.operators.base import Rejection
from graphunlearn.operators.cau.curriculum import Order
from graphunlearn.operators.cau.method import CAU

__all__ = ["PublishedCAU"]


@dataclass(kw_only=True)
class PublishedCAU(CAU):
    """CAU close to its description: ascent on the forgotten clicks alone, with a hard curriculum by gradients.

    The three losses are evaluated at the forgotten prefixes, and their gradients with respect to all parameters are
    mixed. Samples are frozen once they reach their targets, because the available description does not give a stopping
    rule.

    Source: arXiv 2508.15263, from its abstract and summaries.
    """

    name: ClassVar[str] = "cau-published"
    on_rejection: Rejection = "keep"  # it is here to be compared
    loss: Literal["target", "ascent"] = "ascent"
    transitions: bool = False
    kl_without_target: bool = False
    kept_batch: int = 0
    gradients: Literal["output", "all"] = "all"
    order: Order = "hard"
    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    damping: float = 0.0
    batch_size: int = 128
    steps: int = 40
    epochs: int = 6
