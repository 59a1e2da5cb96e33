"""CAU: forget clicks from session recommenders by gradient ascent with a curriculum."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.cau.curriculum import Curriculum, Order
from graphunlearn.operators.cau.descent import Descent, StepSettings
from graphunlearn.operators.cau.samples import ForgetSamples, all_predictions
from graphunlearn.operators.cau.targets import click_targets, settle_emptied

__all__ = ["CAU"]


@dataclass(kw_only=True)
class CAU(StepSettings, Unlearner):
    r"""Curriculum approximate unlearning: ascend what is to be forgotten, descend what is to be kept, at a Pareto mix.

    For a forgotten click :math:`v_t` after :math:`v_{1:t-1}`, and the original parameters :math:`\hat\theta`:

    .. math::
        L_\text{unlearn} &= \log P_\theta(v_t \mid v_{1:t-1}) \\
        L_\text{normal} &= -\log P_\theta(v_{t+1} \mid v_{1:t-1}) \\
        L_\text{KL} &= \mathrm{KL}\big(P_{\hat\theta}(\cdot \mid v_{1:t-1}) \,\|\, P_\theta(\cdot \mid v_{1:t-1})\big)

    Every step goes along :math:`\sum_k \alpha_k g_k`, with :math:`\alpha` the exact minimiser of its norm on the
    simplex, over gradients of norm 1. At :math:`\theta = \hat\theta` the gradient of :math:`L_\text{KL}` is zero, and
    the exact solution would put all weight on it and never start: a gradient that is zero, as this one in the first
    step, takes no part.

    What differs from the text by default, because it measured better, and can be changed:

    * ``loss="target"``: every sample has a level :math:`\tau_i`, an estimate of its :math:`\log p` under retraining,
      from validation clicks and a simulated request (:func:`~graphunlearn.operators.cau.targets.click_targets`).
      :math:`L_\text{unlearn}` is the Huber loss of :math:`\log p_i - \tau_i` and vanishes there, from either side;
      ``"ascent"`` ascends until the level is reached, and freezes the sample then. :math:`L_\text{normal}` has levels
      likewise.
    * ``transitions``: the deleted :math:`v_{1:t} \to v_{t+1}` is to be forgotten as well.
    * ``kl_without_target``: the divergence leaves :math:`v_t` out, which it would otherwise oppose forgetting; and
      ``kept_batch`` kept clicks add theirs.
    * ``gradients="output"``: the mix is found from the gradients of the item rows, which need no backward pass;
      ``"all"`` takes those of all parameters, at three backward passes a step.
    * An item that loses all its clicks takes after items that never had any
      (:func:`~graphunlearn.operators.cau.targets.settle_emptied`).
    * ``order="random"``: a curriculum (``"hard"``, ``"soft"``) by ``difficulty`` did not measure better.

    Args:
        validation: Sessions that the model was not trained on; the levels are learned from them.
        loss: ``"target"`` or ``"ascent"``.
        transitions: Forget the deleted transitions, too.
        kl_without_target: Leave what is to be forgotten out of the divergence.
        kept_batch: Kept clicks per step; 0 for none.
        mix: ``"pareto"``, or ``"sum"`` for equal weights.
        gradients: ``"output"`` or ``"all"``.
        floor: Least weight of :math:`L_\text{unlearn}` in the mix, another way out of the first step.
        order: ``"random"``, ``"hard"`` or ``"soft"``; see :class:`Curriculum`.
        difficulty: ``"gradient"`` (conflict of forgetting and keeping) or ``"embedding"`` (closeness of session and
            item).
        start: The share of samples that a hard order begins with.
        temperature: Of a soft order, in its first and last pass.
        freeze: Never draw a sample again once it reached its level (``tolerance`` from it, or below with
            ``"ascent"``); ``None`` freezes with ``"ascent"`` alone. Without freezing, all steps are made.
        tolerance: In natural logarithms.
        carry: Share of what is particular to a sample that its level keeps.
        lr: Adam's learning rate.
        batch_size: Samples to forget per step.
        steps: At least so many steps.
        epochs: Passes over the samples to forget, where those take more steps.
        seed: Seed of the levels, and of the order of samples.

    Raises:
        ValueError: A setting is out of range.

    Source: arXiv 2508.15263, from its abstract and summaries; see above for what differs.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.datasets.synthetic_sessions(num_sessions=60, num_items=20, seed=1)
        >>> train, validation, test = graph.time_split([0.8, 0.1, 0.1])
        >>> model = gu.nn.GRU4Rec(train.num_items, 8)
        >>> request = gu.ForgetRequest("session", train.session_ids[:2])
        >>> result = gu.CAU(validation=validation, steps=5).unlearn(model, train, request)
        >>> result.graph.num_sessions == train.num_sessions - 2
        True
    """

    name: ClassVar[str] = "cau"
    kinds: ClassVar[tuple[str, ...]] = ("sessions",)
    validation: SessionGraph | None = field(default=None, repr=False)
    order: Order = "random"
    start: float = Curriculum.start
    temperature: tuple[float, float] = Curriculum.temperature
    carry: float = 0.75
    batch_size: int = 128
    steps: int = 40
    epochs: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "steps", "epochs"):
            number = getattr(self, name)
            if not isinstance(number, int) or number < 1:
                raise ArgumentError(name, "be a whole number of at least 1", f"{number!r}")
        if not 0 <= self.carry <= 1:
            raise ArgumentError("carry", "be between 0 and 1", f"{self.carry!r}")
        self._curriculum()

    def _curriculum(self) -> Curriculum:
        first, last = self.temperature
        return Curriculum(order=self.order, start=self.start, temperature=(first, last))

    def _validate(self, model: nn.Module, graph: SessionGraph, request: ForgetRequest) -> None:
        held = self.validation
        if held is None or not _predicts(held):
            got = "none" if held is None else "sessions of one click"
            raise ArgumentError("validation", "be sessions that the model was not trained on", got)
        if held.num_items != graph.num_items:
            raise ArgumentError("validation", f"have the items of 'graph', {graph.num_items}", held.num_items)
        if held.device != graph.device:
            raise ArgumentError("validation", f"be on the device of 'graph', {graph.device}", held.device)
        if held is graph or held.fingerprint() == graph.fingerprint():
            raise ArgumentError("validation", "be sessions that the model was not trained on", "those of 'graph'")
        if not any(p.requires_grad for p in model.parameters()):
            raise ArgumentError("model", "have a parameter that is trained", f"{type(model).__name__} with none")

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        assert self.validation is not None
        started = time.perf_counter()
        samples = ForgetSamples.of(graph, retained, request.mask(graph))
        log: dict[str, Any] = {
            "order": self.order,
            "difficulty": self.difficulty,
            "forgotten": len(samples.forgotten),
            "deleted_transitions": len(samples.deleted),
            "joined": len(samples.joined),
        }
        if not len(samples.forgotten) and not len(samples.deleted):
            return log | {"steps": []}  # nothing was learned of them
        held = self.validation.without_emptied(graph, retained)
        held = held if _predicts(held) else self.validation
        targets = click_targets(model, graph, retained, held, samples, carry=self.carry, seed=self.seed)
        targets, log["emptied_items"] = settle_emptied(model, graph, retained, samples, targets, self.seed)
        log["seconds_of_levels"] = time.perf_counter() - started
        descent = Descent(model, graph, retained, samples, targets, self, self.seed)
        return log | descent.run(self._curriculum(), self.batch_size, self.steps, self.epochs)


def _predicts(sessions: SessionGraph) -> bool:
    """Whether any session has two clicks or more, so that there is a next click to predict."""
    return len(all_predictions(sessions)) > 0
