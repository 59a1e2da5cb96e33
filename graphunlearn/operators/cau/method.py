"""CAU: forget clicks from session recommenders by gradient ascent with a curriculum."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from graphunlearn.data import ForgetRequest, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.cau.curriculum import Curriculum, Order
from graphunlearn.operators.cau.descent import Descent, StepSettings
from graphunlearn.operators.cau.levels import Estimates
from graphunlearn.operators.cau.samples import ForgetSamples
from graphunlearn.operators.cau.targets import click_targets, settle_emptied
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.heldout import validation_left

__all__ = ["CAU"]

WHOLE = (0.0, 1.0)  # single clicks, and entire sessions: the kinds of request that a preparation is made for


@dataclass(kw_only=True)
class CAU(StepSettings, Unlearner):
    r"""Forget clicks by gradient steps that unlearn them, keep the next clicks and preserve all other predictions.

    For a forgotten click :math:`v_t` after :math:`v_{1:t-1}`, and the original parameters :math:`\hat\theta`, the
    method minimises three losses:

    .. math::
        L_\text{unlearn} &= \log P_\theta(v_t \mid v_{1:t-1}) \\
        L_\text{normal} &= -\log P_\theta(v_{t+1} \mid v_{1:t-1}) \\
        L_\text{KL} &= \mathrm{KL}\big(P_{\hat\theta}(\cdot \mid v_{1:t-1}) \,\|\, P_\theta(\cdot \mid v_{1:t-1})\big)

    Let :math:`g_k` be their gradients, scaled to norm 1. Every step of Adam descends along
    :math:`-\sum_k \alpha_k g_k`, where :math:`\alpha` minimises the norm of the sum exactly, over non-negative weights
    with sum 1. A gradient that is zero is left out: at :math:`\theta = \hat\theta`, the gradient of
    :math:`L_\text{KL}` is zero, and the exact minimiser would give it all the weight, so that no step changes anything.

    The defaults differ from the source in the following points, because this was better in measurements; fields restore
    the choices of the source:

    * ``loss="target"``: every sample has a target :math:`\tau_i`, the estimated :math:`\log p_i` under retraining. It
      is estimated from validation clicks and from a simulated request
      (:func:`~graphunlearn.operators.cau.targets.click_targets`). :math:`L_\text{unlearn}` is the Huber loss of
      :math:`\log p_i - \tau_i`, which vanishes at the target and penalises deviations to both sides. With ``"ascent"``,
      :math:`\log p_i` is lowered to the target, and the sample is then left out of further steps.
      :math:`L_\text{normal}` is treated in the same way.
    * ``transitions``: the deleted transitions :math:`v_{1:t} \to v_{t+1}` are forgotten as well.
    * ``kl_without_target``: the divergence leaves out :math:`v_t`; otherwise it would oppose forgetting. It also covers
      ``kept_batch`` kept clicks per step.
    * ``gradients="output"``: the weights are computed from the gradients with respect to the item embeddings, in closed
      form. With ``"all"``, they are computed from the gradients of all parameters, with three backward passes per step.
    * The embedding of an item that loses all its clicks is replaced by that of an item that was never clicked
      (:func:`~graphunlearn.operators.cau.targets.settle_emptied`).
    * The steps end as soon as every sample has reached its target, so a request of a few clicks costs accordingly; if
      all have reached theirs before the first step, with the predictions that replace them, none is made.
    * ``damping``: an entry :math:`j` of a parameter moves by :math:`\eta \hat m_j / (\sqrt{\hat v_j} + \epsilon)` with
      :math:`\epsilon = \max(10^{-8}, \delta \max_i |g_i| / n)`, for the damping :math:`\delta`, the largest entry of
      the gradients so far and :math:`n` samples to forget. With :math:`\delta = 0`, which is plain Adam, every entry
      moves by about the learning rate, those of all items included, however few clicks are forgotten.
    * ``order="random"``: a curriculum (``"hard"`` or ``"soft"``) by ``difficulty`` was not better in measurements.

    Counts and regressions of the targets need not be computed for every request: :meth:`prepare` computes them once
    for a model, and a request then only changes what it touches. The preparation is optional, is kept in memory with
    the training sessions, and is used only for the model and the sessions that it was made for.

    Args:
        validation: Sessions that the model was not trained on; the targets are estimated from them.
        loss: ``"target"`` or ``"ascent"``.
        transitions: Whether to forget the deleted transitions as well.
        kl_without_target: Whether the divergence leaves out the item to forget.
        kept_batch: Kept clicks per step; 0 uses none.
        mix: ``"pareto"``, or ``"sum"`` for the plain sum of the three losses.
        gradients: ``"output"`` or ``"all"``.
        floor: Smallest weight of :math:`L_\text{unlearn}` in the Pareto mix.
        order: ``"random"``, ``"hard"`` or ``"soft"``; see :class:`~graphunlearn.operators.cau.curriculum.Curriculum`.
        difficulty: ``"gradient"`` (conflict between forgetting a sample and keeping the others) or ``"embedding"``
            (dot product of the embeddings of prefix and item).
        start: Share of the samples with which the hard order begins.
        temperature: Temperature of the soft order in the first and in the last pass.
        freeze: Whether to leave out a sample of all further steps once it has reached its target (within ``tolerance``,
            or from below with ``"ascent"``); ``None`` does so with ``"ascent"`` only.
        tolerance: Largest difference from the target, in natural logarithms, at which a sample has reached it.
        carry: Share of the sample-specific part of :math:`\log p_i` that the target keeps.
        lr: Learning rate of Adam.
        betas: Decay rates of Adam's averages of the gradient and of its square.
        damping: Multiple of the largest gradient of each parameter that, divided by the number of samples to forget,
            is added to the denominators of Adam; 0 for plain Adam.
        batch_size: Samples to forget per step.
        steps: Least number of steps, unless all samples reach their targets earlier.
        epochs: Least number of passes over the samples to forget, unless all samples reach their targets earlier.
        seed: Seed of the targets, of the embeddings of emptied items and of the order of samples.

    Raises:
        ValueError: A setting is out of range.

    Source: arXiv 2508.15263, from its abstract and summaries.

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
    batch_size: int = 192
    steps: int = 20
    epochs: int = 5
    seed: int = 0
    _known: tuple[str, dict[float, Estimates]] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"batch_size": self.batch_size, "steps": self.steps, "epochs": self.epochs}
        whole = "be a whole number of at least 1"
        check(whole, lambda value: isinstance(value, int) and value >= 1, **counts)
        check("be between 0 and 1", lambda value: 0 <= value <= 1, carry=self.carry)
        self._curriculum()

    def _curriculum(self) -> Curriculum:
        return Curriculum(order=self.order, start=self.start, temperature=self.temperature)

    def _prepare(self, model: nn.Module, graph: SessionGraph, checkpoint: Path | None, progress: bool | None) -> None:
        held = self._checked(model, graph)
        self._known = (fingerprint(model), {})
        for whole in WHOLE:
            self._known[1][whole] = Estimates(model, graph, held, whole, self.seed)
            self._known[1][whole].solve()

    def _estimates(
        self, model: nn.Module, graph: SessionGraph, held: SessionGraph, samples: ForgetSamples
    ) -> Estimates | None:
        """Return the prepared estimates, if they fit the model, the graph, the validation sessions and the request."""
        known = None if self._known is None else self._known[1].get(samples.whole)
        if known is None or self._known is None or known.validation is not held or known.seed != self.seed:
            return None
        same = self._known[0] == fingerprint(model) and known.graph.fingerprint() == graph.fingerprint()
        return known if same else None

    def _validate(self, model: nn.Module, graph: SessionGraph, request: ForgetRequest) -> None:
        self._checked(model, graph)

    def _checked(self, model: nn.Module, graph: SessionGraph) -> SessionGraph:
        """Return the validation sessions; raise an error if they or the model do not fit."""
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
        return held

    def _unlearn(
        self, model: nn.Module, graph: SessionGraph, retained: SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        assert self.validation is not None
        started = time.perf_counter()
        mask = request.mask(graph)
        samples = ForgetSamples.of(graph, retained, mask)
        log: dict[str, Any] = {
            "order": self.order,
            "difficulty": self.difficulty,
            "forgotten": len(samples.forgotten),
            "deleted_transitions": len(samples.deleted),
            "joined": len(samples.joined),
        }
        if not len(samples.forgotten) and not len(samples.deleted):
            return log | {"steps": []}  # the model was not trained to predict any forgotten click
        left = validation_left(self.validation, graph, retained)
        held = self.validation if left is None else left
        known = self._estimates(model, graph, held, samples)
        targets = click_targets(
            model, graph, retained, held, samples, mask, carry=self.carry, seed=self.seed, estimates=known
        )
        log["prepared"] = known is not None
        targets, log["emptied_items"] = settle_emptied(model, graph, retained, samples, targets, self.seed)
        log["seconds_of_levels"] = time.perf_counter() - started
        descent = Descent(model, graph, retained, samples, targets, self, self.seed)
        return log | descent.run(self._curriculum(), self.batch_size, self.steps, self.epochs)


def _predicts(sessions: SessionGraph) -> bool:
    """Return whether a session has at least two clicks, so that a next click can be predicted."""
    return len(CrossEntropy().samples(sessions)) > 0
