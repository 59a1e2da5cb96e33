"""The steps of CAU: three residuals at the logits, their mix, and one backward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import min_norm_weights
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.operators.cau.curriculum import Curriculum, Difficulty, embedding_difficulty, gradient_difficulty
from graphunlearn.operators.cau.losses import at_target, kl, kl_without, predict
from graphunlearn.operators.cau.samples import ForgetSamples, together
from graphunlearn.operators.cau.targets import CHUNK, ClickTargets

__all__ = ["Descent", "StepSettings", "mixed"]

OBJECTIVES = ("unlearn", "retain", "kl")
HUBER = 2.0  # differences of log p beyond which the loss is linear
ZERO = 1e-6  # a gradient this small beside the largest is none: its direction would be rounding errors
SHOWN = 500  # samples whose log p the log tells
LISTED = 16  # samples of a step that the log names, in their order


@dataclass(kw_only=True)
class StepSettings:
    """The settings of :class:`~graphunlearn.CAU` that its steps follow; see there.

    Raises:
        ValueError: A setting is out of range.
    """

    loss: Literal["target", "ascent"] = "target"
    transitions: bool = True
    kl_without_target: bool = True
    kept_batch: int = 64
    mix: Literal["pareto", "sum"] = "pareto"
    gradients: Literal["output", "all"] = "output"
    floor: float = 0.0
    difficulty: Difficulty = "gradient"
    freeze: bool | None = None
    tolerance: float = 0.25
    lr: float = 0.004

    def __post_init__(self) -> None:
        known = {
            "loss": ("target", "ascent"),
            "mix": ("pareto", "sum"),
            "gradients": ("output", "all"),
            "difficulty": get_args(Difficulty),
        }
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ArgumentError(name, f"be one of {', '.join(choices)}", f"{getattr(self, name)!r}")
        if not isinstance(self.kept_batch, int) or self.kept_batch < 0:
            raise ArgumentError("kept_batch", "be a whole number of at least 0", f"{self.kept_batch!r}")
        if not 0 < self.lr < math.inf:
            raise ArgumentError("lr", "be positive and finite", f"{self.lr!r}")
        if not 0 <= self.floor <= 1:
            raise ArgumentError("floor", "be between 0 and 1", f"{self.floor!r}")
        if not 0 <= self.tolerance < math.inf:
            raise ArgumentError("tolerance", "not be negative, and finite", f"{self.tolerance!r}")

    @property
    def freezes(self) -> bool:
        """Whether a sample that reached its level is never drawn again."""
        return self.loss == "ascent" if self.freeze is None else self.freeze


class Descent:
    """The parameters of one model on their way; they are changed in place.

    Args:
        model: The model, which is the original one still.
        graph: The graph before.
        retained: The graph after.
        samples: What is forgotten and joined.
        targets: The levels of ``log p``.
        settings: How steps are made.
        seed: Seed of the order of samples.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: SessionGraph,
        retained: SessionGraph,
        samples: ForgetSamples,
        targets: ClickTargets,
        settings: StepSettings,
        seed: int,
    ) -> None:
        self.model, self.settings = model, settings
        self.generator = torch.Generator().manual_seed(seed)
        parts, levels = [(graph, samples.forgotten)], [targets.forgotten]
        if settings.transitions:
            parts.append((graph, samples.deleted))
            levels.append(targets.deleted)
        self.num_forget = sum(len(part) for _, part in parts)
        kept = targets.kept.select(torch.arange(len(targets.kept) if settings.kept_batch else 0))
        self.first_kept = self.num_forget + len(samples.joined)
        self.num_kept = len(kept)
        self.sessions, self.target = together([*parts, (retained, samples.joined), (retained, kept)])
        with torch.no_grad():
            chunks = torch.arange(len(self.target)).split(CHUNK)
            rows = [self._encode(chunk.to(self.target.device)) for chunk in chunks]
            self.states_before, self.items_before = torch.cat([states for states, _ in rows]), rows[0][1].clone()
        dtype = self.states_before.dtype
        self.level = torch.cat([*levels, targets.joined]).to(dtype)
        self.log_p_before = torch.cat(targets.before)[: self.num_forget]
        nobody = samples.follower.new_full((self.num_forget - len(samples.follower),), -1)
        self.follower = torch.cat([samples.follower, nobody])
        self.frozen = torch.zeros(self.num_forget, dtype=torch.bool, device=self.target.device)
        self.reached = torch.zeros_like(self.frozen)  # as each was when a step last held it
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, fused=True)
        self.kept_order = torch.empty(0, dtype=torch.long)

    def run(self, curriculum: Curriculum, batch_size: int, steps: int, epochs: int) -> dict[str, Any]:
        """Go on until the steps are made, or every sample is frozen; return what happened."""
        with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers refuse gradients in evaluation mode
            return self._run(curriculum, batch_size, steps, epochs)

    def _run(self, curriculum: Curriculum, batch_size: int, steps: int, epochs: int) -> dict[str, Any]:
        total = max(steps, epochs * math.ceil(self.num_forget / batch_size))
        records: list[dict[str, Any]] = []
        while len(records) < total and not bool(self.frozen.all()):
            active = (~self.frozen).nonzero().squeeze(1)
            hard = torch.zeros(active.numel()) if curriculum.order == "random" else self.difficulty(active)
            passes = max(1, total - math.ceil(active.numel() / batch_size))  # steps before the last pass
            progress = min(1.0, len(records) / passes)
            batches = curriculum.batches(hard, batch_size, progress=progress, generator=self.generator)
            for place in batches[: total - len(records)]:
                index = active[place.to(active.device)]
                index = index[~self.frozen[index]]
                if index.numel():
                    record = self.step(index, first=not records)
                    told: dict[str, Any] = {"samples": index[:LISTED].tolist(), "remaining": int((~self.reached).sum())}
                    records.append({"step": len(records) + 1, **record, **told})
                    if curriculum.order != "random":
                        records[-1]["difficulty"] = float(hard[place.to(hard.device)].mean())
        shown = torch.arange(self.num_forget)[:: max(1, self.num_forget // SHOWN)].to(self.level.device)
        told = {"before": self.log_p_before, "after": self._log_p(), "target": self.level[: self.num_forget]}
        log_p = {name: [round(x, 4) for x in value[shown].tolist()] for name, value in told.items()}
        return {"steps": records, "log_p": log_p}

    def step(self, index: Tensor, first: bool) -> dict[str, Any]:
        """Make one step on the samples to forget at ``index``; return weights and losses.

        Args:
            index: Samples to forget ``[num]``.
            first: Whether the model is the original one still, where the divergence has no gradient.
        """
        follower = self.follower[index]
        joined = torch.unique(follower[follower >= 0]) + self.num_forget
        rows = torch.cat([index, joined, self._draw_kept()])
        with torch.enable_grad():
            states, items = self._encode(rows)
        residuals, losses = self._residuals(rows, index.numel(), joined.numel(), states.detach(), items.detach())
        at, fixed = states.detach(), items.detach()
        outputs = [(x, part) for x, part in ((states, 0), (items, 1)) if x.requires_grad]
        back = []  # the gradient of every objective with respect to states and items
        for part, residual in residuals:
            to_states = torch.zeros_like(at).index_add_(0, part, residual @ fixed)
            back.append((to_states, residual.t() @ at[part]))
        wanted: list[list[Tensor]]
        if self.settings.gradients == "all":
            wanted = [
                self._gradients([x for x, _ in outputs], [grads[k] for _, k in outputs], keep=n < len(back) - 1)
                for n, grads in enumerate(back)
            ]
        else:
            wanted = [[grads[1]] for grads in back]
        weights, scale = self._mix(wanted, first)
        if self.settings.gradients == "all":
            for n, parameter in enumerate(self.parameters):
                parameter.grad = sum((c * grads[n] for c, grads in zip(scale, wanted)), torch.zeros_like(parameter))
        else:
            self.optimizer.zero_grad(set_to_none=True)
            total = [
                sum((c * grads[k] for c, grads in zip(scale[1:], back[1:])), scale[0] * back[0][k]) for _, k in outputs
            ]
            torch.autograd.backward([x for x, _ in outputs], total)
        self.optimizer.step()
        return {"weights": dict(zip(OBJECTIVES, weights)), "losses": losses}

    def difficulty(self, index: Tensor) -> Tensor:
        """Return how hard the samples at ``index`` are now ``[num]``; see :class:`Curriculum`."""
        parts = []
        with torch.no_grad():
            for chunk in index.split(CHUNK):
                states, items = self._encode(chunk)
                if self.settings.difficulty == "embedding":
                    parts.append(embedding_difficulty(states, items, self.target[chunk]))
                    continue
                follower = self.follower[chunk]
                item = torch.where(follower < 0, -1, self.target[(follower + self.num_forget) * (follower >= 0)])
                now = predict(states, items, self.target[chunk])
                parts.append(gradient_difficulty(now, self._before(chunk), self.target[chunk], item))
        return torch.cat(parts)

    def _residuals(
        self, rows: Tensor, forget: int, joined: int, states: Tensor, items: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], dict[str, float]]:
        """Return the residuals of the three objectives with the rows of the batch they belong to, and the losses."""
        settings, target = self.settings, self.target[rows]
        now = predict(states, items, target)
        place = torch.arange(rows.numel(), device=rows.device)
        here, behind, rest = place.split([forget, joined, rows.numel() - forget - joined])
        off = now.log_p[: forget + joined] - self.level[rows[: forget + joined]]
        if settings.loss == "target":
            slope, value = _huber(off)
            reached = off[:forget].abs() <= settings.tolerance
            counts = [max(forget, 1), max(joined, 1)]
            unlearn = float(value[:forget].mean())
            retain = float(value[forget:].mean()) if joined else 0.0
        else:
            reached = off[:forget] <= 0
            counts = [max(int((~reached).sum()), 1), max(joined, 1)]
            slope = torch.cat([(~reached).to(off.dtype), -torch.ones_like(off[forget:])])
            unlearn = float((now.log_p[:forget] * slope[:forget]).sum()) / counts[0]
            retain = -float(now.log_p[here.numel() : here.numel() + joined].mean()) if joined else 0.0
        self.reached[rows[:forget]] = reached
        if settings.freezes:
            self.frozen[rows[:forget][reached]] = True
        before = self._before(rows[here])
        if settings.kl_without_target:
            divergence, residual = kl_without(before, now.p[here], target[here])
        else:
            divergence, residual = kl(before, now.p[here])
        if rest.numel():
            more, kept = kl(self._before(rows[rest]), now.p[rest])
            divergence, residual = divergence + more, torch.cat([residual, kept])
        return [
            (here, at_target(now.p[here], target[here], slope[:forget] / counts[0])),
            (behind, at_target(now.p[behind], target[behind], slope[forget:] / counts[1])),
            (torch.cat([here, rest]), residual),
        ], dict(zip(OBJECTIVES, (unlearn, retain, float(divergence))))

    def _mix(self, gradients: list[list[Tensor]], first: bool) -> tuple[list[float], list[float]]:
        """Return the weights of the objectives, and by what each gradient is to be multiplied.

        The step has the length of the gradient of what is to be unlearned: it shrinks as the levels are reached.
        """
        flat = [torch.cat([g.flatten() for g in grads]).double() for grads in gradients]
        norms = [float(g.norm()) for g in flat]
        if self.settings.mix == "sum":
            return [1 / 3] * 3, [1.0] * 3
        used = [n for n, size in enumerate(norms) if size > ZERO * max(norms) and not (first and OBJECTIVES[n] == "kl")]
        weights, scale = [0.0] * 3, [0.0] * 3
        if used:
            rows = torch.stack([flat[n] / norms[n] for n in used])
            found = mixed(rows @ rows.t(), used.index(0) if 0 in used else None, self.settings.floor)
            for n, weight in zip(used, found):
                weights[n], scale[n] = weight, weight * norms[0] / norms[n]
        return weights, scale

    def _gradients(self, outputs: list[Tensor], grads: list[Tensor], keep: bool) -> list[Tensor]:
        found = torch.autograd.grad(outputs, self.parameters, grads, retain_graph=keep, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters)]

    def _encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        encoded = encode_prefixes(self.model, self.sessions, self.sessions.click_ptr[rows + 1] - 1)
        return encoded.queries, encoded.items

    def _before(self, rows: Tensor) -> Tensor:
        """What the original model predicts ``[num, num_items]``."""
        return torch.softmax(self.states_before[rows] @ self.items_before.t(), 1)

    @torch.no_grad()
    def _log_p(self) -> Tensor:
        parts = []
        for chunk in torch.arange(self.num_forget, device=self.target.device).split(CHUNK):
            states, items = self._encode(chunk)
            parts.append(predict(states, items, self.target[chunk]).log_p)
        return torch.cat(parts)

    def _draw_kept(self) -> Tensor:
        """Return the next kept clicks, all of them in turn."""
        size = min(self.settings.kept_batch, self.num_kept)
        if self.kept_order.numel() < size:
            self.kept_order = torch.randperm(self.num_kept, generator=self.generator)
        drawn, self.kept_order = self.kept_order[:size], self.kept_order[size:]
        return (drawn + self.first_kept).to(self.target.device)


def mixed(gram: Tensor, unlearn: int | None, floor: float) -> list[float]:
    r"""Return the weights that minimise :math:`\|\sum_k \alpha_k g_k\|`, that of unlearning at least ``floor``.

    Args:
        gram: Inner products of the gradients ``[num, num]``.
        unlearn: Which gradient is that of unlearning, if any.
        floor: Its least weight; the others share the rest as they did.

    Example:
        >>> mixed(torch.diag(torch.tensor([3.0, 1.0])), 0, floor=0.5)
        [0.5, 0.5]
    """
    weights: list[float] = min_norm_weights(gram).tolist()
    if unlearn is not None and weights[unlearn] < floor:
        others = sum(weights) - weights[unlearn]
        weights = [w * (1 - floor) / others if others else w for w in weights]
        weights[unlearn] = floor if others else 1.0
    return weights


def _huber(off: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and value of the Huber loss."""
    size = off.abs()
    value = torch.where(size <= HUBER, 0.5 * off.square(), HUBER * (size - 0.5 * HUBER))
    return off.clamp(-HUBER, HUBER), value
