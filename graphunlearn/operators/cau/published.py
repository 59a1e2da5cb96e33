"""CAU close to its description, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphunlearn.operators.cau.curriculum import Order
from graphunlearn.operators.cau.method import CAU

__all__ = ["PublishedCAU"]


@dataclass(kw_only=True)
class PublishedCAU(CAU):
    """CAU close to its text: ascent on the forgotten clicks alone, with a hard curriculum by gradients.

    The three losses at the forgotten prefixes, mixed over the gradients of all parameters. Samples are frozen at their
    levels, as the text that was at hand does not say when to stop.
    """

    name: ClassVar[str] = "cau-published"
    loss: Literal["target", "ascent"] = "ascent"
    transitions: bool = False
    kl_without_target: bool = False
    kept_batch: int = 0
    gradients: Literal["output", "all"] = "all"
    order: Order = "hard"
    lr: float = 0.001
