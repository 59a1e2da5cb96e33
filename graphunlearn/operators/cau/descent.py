"""The optimisation of CAU: the gradients of its three losses, their weights, and the steps of Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.func import gram_matrix, min_norm_weights
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.softmax import catalogue_loss
from graphunlearn.operators.cau.curriculum import Curriculum, Difficulty, embedding_difficulty, gradient_difficulty
from graphunlearn.operators.cau.gradients import Before, Buffers, Catalogue
from graphunlearn.operators.cau.losses import predict
from graphunlearn.operators.cau.samples import ForgetSamples, together
from graphunlearn.operators.cau.targets import ClickTargets
from graphunlearn.operators.shared.checks import check, check_choices, check_positive

__all__ = ["Descent", "StepSettings", "mixed"]

OBJECTIVES = ("unlearn", "retain", "kl")
HUBER = 2.0  # absolute difference of log p above which the Huber loss is linear
ZERO = 1e-6  # a gradient whose norm is below this share of the largest norm counts as zero
SHOWN = 500  # largest number of samples whose log p is logged
CHUNK = 1024  # prefixes encoded at a time
KEPT_BATCHES = 4  # at least this many different batches of kept clicks are used,
KEPT_PER_SAMPLE = 2  # and this many kept clicks per sample to forget
EPS = 1e-8  # the usual constant in the denominators of Adam
ROUNDING = 1e-4  # with ascent, a log p at most this much above its target has reached it, as after a copied embedding
LISTED = 16  # largest number of sample indices logged per step


@dataclass(kw_only=True)
class StepSettings:
    """The settings of :class:`~graphunlearn.CAU` that a single step depends on; they are described there.

    Raises:
        ValueError: A setting is out of range.
    """

    loss: Literal["target", "ascent"] = "target"
    transitions: bool = True
    kl_without_target: bool = True
    kept_batch: int = 32
    mix: Literal["pareto", "sum"] = "pareto"
    gradients: Literal["output", "all"] = "output"
    floor: float = 0.0
    difficulty: Difficulty = "gradient"
    freeze: bool | None = None
    tolerance: float = 0.25
    lr: float = 0.006
    betas: tuple[float, float] = (0.8, 0.98)  # a few dozen steps are too few for longer averages
    damping: float = 1.0

    def __post_init__(self) -> None:
        check_choices(("target", "ascent"), loss=self.loss)
        check_choices(("pareto", "sum"), mix=self.mix)
        check_choices(("output", "all"), gradients=self.gradients)
        check_choices(get_args(Difficulty), difficulty=self.difficulty)
        whole = "be a whole number of at least 0"
        check(whole, lambda value: isinstance(value, int) and value >= 0, kept_batch=self.kept_batch)
        check_positive(lr=self.lr)
        check("not be negative, and finite", _is_measure, tolerance=self.tolerance, damping=self.damping)
        check("be two numbers of at least 0 and below 1", _are_decays, betas=self.betas)
        check("be between 0 and 1", lambda value: 0 <= value <= 1, floor=self.floor)

    @property
    def freezes(self) -> bool:
        """Whether a sample that has reached its target is excluded from later steps."""
        return self.loss == "ascent" if self.freeze is None else self.freeze


class Descent:
    r"""The optimisation of one model, which changes the parameters in place.

    The samples are numbered: first those to forget (the forgotten clicks and, with ``transitions``, the deleted
    transitions), then the joined predictions, then the kept clicks.

    Args:
        model: The original model.
        graph: The graph before forgetting.
        retained: The retained graph.
        samples: The samples that the request removes and adds.
        targets: The target :math:`\log p` of every sample, and the kept clicks.
        settings: Settings of the steps.
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
        most = max(KEPT_BATCHES * settings.kept_batch, KEPT_PER_SAMPLE * self.num_forget) if settings.kept_batch else 0
        kept_graph, kept = targets.kept
        kept = kept.select(torch.arange(min(most, len(kept))))
        self.first_kept, self.num_kept = self.num_forget + len(samples.joined), len(kept)
        found = together([*parts, (retained, samples.joined), (kept_graph, kept)])
        self.sessions, self.ends, self.prefix, self.target = found
        with torch.no_grad():
            rows = [self._encode_prefixes(chunk) for chunk in self._numbers(len(self.ends)).split(CHUNK)]
            self.before = Before(torch.cat([states for states, _ in rows]), rows[0][1].clone())
        dtype = self.before.states.dtype
        self.level = torch.cat([*levels, targets.joined]).to(dtype)
        self.log_p_before = torch.cat(targets.before)[: self.num_forget]
        none = samples.follower.new_full((self.num_forget - len(samples.follower),), -1)
        self.follower = torch.cat([samples.follower, none])
        self.click = samples.click[: self.num_forget]
        self.frozen = torch.zeros(self.num_forget, dtype=torch.bool, device=self.target.device)
        self.reached = self._reached_before()  # and, for each sample, measured again in every step that holds it
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": [p]} for p in self.parameters]
        self.optimizer = torch.optim.Adam(groups, lr=settings.lr, betas=settings.betas, fused=True)
        self.largest = [0.0] * len(groups)  # largest entry of the gradients of every parameter so far
        self.kept_order = torch.empty(0, dtype=torch.long)
        self.buffers = Buffers()

    def run(self, curriculum: Curriculum, batch_size: int, steps: int, epochs: int) -> dict[str, Any]:
        r"""Make steps until their number is reached, or every sample has reached its target or is frozen.

        Args:
            curriculum: The order of the samples.
            batch_size: Samples to forget per step.
            steps: Least number of steps.
            epochs: Least number of passes over the samples to forget.

        Returns:
            A log with one record per step, and with the :math:`\log p` of some samples before and after, and its
            target.
        """
        total = max(steps, epochs * math.ceil(self.num_forget / batch_size))
        records: list[dict[str, Any]] = []
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN's recurrent layers have no gradients in evaluation mode
            while len(records) < total and not self._done():
                active = (~self.frozen).nonzero().squeeze(1)
                hard = torch.zeros(active.numel()) if curriculum.order == "random" else self.difficulty(active)
                before_last = max(1, total - math.ceil(active.numel() / batch_size))  # steps before the last pass
                progress = min(1.0, len(records) / before_last)
                group = self.click[active]
                batches = curriculum.batches(hard, batch_size, progress=progress, generator=self.generator, group=group)
                for place in batches[: total - len(records)]:
                    index = active[place.to(active.device)]
                    index = index[~self.frozen[index]]
                    if not index.numel():
                        continue
                    if self._done():
                        break
                    record = {"step": len(records) + 1, **self.step(index, first=not records)}
                    record |= {"samples": index[:LISTED].tolist(), "remaining": int((~self.reached).sum())}
                    if curriculum.order != "random":
                        record["difficulty"] = float(hard[place.to(hard.device)].mean())
                    records.append(record)
        shown = torch.arange(self.num_forget)[:: max(1, self.num_forget // SHOWN)].to(self.level.device)
        values = {"before": self.log_p_before[shown], "after": self._log_p(shown), "target": self.level[shown]}
        log_p = {name: [round(x, 4) for x in value.tolist()] for name, value in values.items()}
        return {"steps": records, "log_p": log_p}

    def step(self, index: Tensor, first: bool) -> dict[str, Any]:
        """Make one step on some samples to forget, with the joined predictions that replace them and some kept clicks.

        Args:
            index: Numbers of the samples to forget ``[num]``.
            first: Whether this is the first step. The parameters are then the original ones, at which the gradient of
                the divergence is zero.

        Returns:
            The weights and the values of the three losses.
        """
        follower = self.follower[index]
        index = index[(follower < 0).int().argsort(stable=True)]  # the gradient of the joined ones needs few rows
        joined = torch.unique(follower[follower >= 0]) + self.num_forget
        kept = self._draw_kept()
        of_forget, of_joined = self.prefix[index], self.prefix[joined]
        same = of_joined.unsqueeze(1) == of_forget  # a joined prediction often has the prefix of a forgotten one
        has_row = same.any(1)
        row_of_joined = torch.where(has_row, same.int().argmax(1), index.numel() + (~has_row).cumsum(0) - 1)
        rows = torch.cat([of_forget, of_joined[~has_row], self.prefix[kept]])
        used, place = torch.unique(rows, return_inverse=True)
        with torch.enable_grad():
            encoded = self._encode_prefixes(used)
            encoded = (encoded[0].index_select(0, place), encoded[1])
        states, items = (x.detach() for x in encoded)
        losses, parts = self._gradients(index, joined, row_of_joined, rows, kept.numel(), states, items)
        outputs = [x for x in encoded if x.requires_grad]
        chosen = [k for k, x in enumerate(encoded) if x.requires_grad]
        self.optimizer.zero_grad(set_to_none=True)
        if self.settings.gradients == "all":
            last = len(parts) - 1
            whole = [self._to_parameters(outputs, [g[k] for k in chosen], keep=n < last) for n, g in enumerate(parts)]
            weights, scale = self._mix(whole, first)
            for n, parameter in enumerate(self.parameters):
                parameter.grad = _combined(scale, [gradients[n] for gradients in whole])
        else:
            weights, scale = self._mix([[to_items] for _, to_items in parts], first)
            torch.autograd.backward(outputs, [_combined(scale, [g[k] for g in parts]) for k in chosen])
        self._damp()
        self.optimizer.step()
        return {"weights": dict(zip(OBJECTIVES, weights)), "losses": losses}

    def difficulty(self, index: Tensor) -> Tensor:
        """Return the present difficulty of the samples to forget at ``index`` ``[num]``; see :class:`Curriculum`."""
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
                parts.append(
                    gradient_difficulty(now, self.before.probabilities(self.prefix[chunk]), self.target[chunk], item)
                )
        return torch.cat(parts)

    def _gradients(
        self,
        index: Tensor,
        joined: Tensor,
        row_of_joined: Tensor,
        prefixes: Tensor,
        num_kept: int,
        states: Tensor,
        items: Tensor,
    ) -> tuple[dict[str, float], list[tuple[Tensor, Tensor]]]:
        """Return the values of the three losses, and their gradients with respect to states and items.

        Args:
            index: Numbers of the samples to forget; they have the first rows of the batch ``[num]``.
            joined: Numbers of the joined predictions ``[num_joined]``.
            row_of_joined: The rows of the joined predictions ``[num_joined]``.
            prefixes: The prefix of every row ``[num_rows]``.
            num_kept: Number of kept clicks, which have the last rows.
            states: The states of the rows ``[num_rows, dim]``.
            items: Embeddings of the items ``[num_items, dim]``.
        """
        settings, target, count = self.settings, self.target[index], index.numel()
        row = torch.arange(count, device=index.device)
        without = prefixes.new_full((len(prefixes),), -1)
        if settings.kl_without_target:
            without[:count] = target
        now = Catalogue(states, items, self.before.shift[prefixes], without, self.buffers)
        log_p = now.log_p(torch.cat([row, row_of_joined]), torch.cat([target, self.target[joined]]))
        off = log_p - self.level[torch.cat([index, joined])]
        reached = self._reached(off[:count])
        if settings.loss == "target":
            slope, value = _huber(off)
            counted = max(count, 1)
            unlearn = float(value[:count].mean())
        else:
            counted = max(int((~reached).sum()), 1)
            slope = torch.cat([(~reached).to(off.dtype), -torch.ones_like(off[count:])])
            value = log_p * slope
            unlearn = float(value[:count].sum()) / counted
        retain = float(value[count:].mean()) if joined.numel() else 0.0
        self.reached[index] = reached
        if settings.freezes:
            self.frozen[index[reached]] = True
        to_items = self.buffers.take("gradients", items, len(OBJECTIVES), *items.shape)
        of_forget = now.of_targets(row, target, slope[:count] / counted, to_items[0])
        slope_of_joined = slope[count:] / max(joined.numel(), 1)
        of_joined = now.of_targets(row_of_joined, self.target[joined], slope_of_joined, to_items[1])
        share = states.new_zeros(len(prefixes))
        share[:count] = 1 / max(count, 1)
        share[len(prefixes) - num_kept :] = 1 / max(num_kept, 1)
        original = self.before.without(prefixes, without, self.buffers)
        divergence, of_kl = now.of_divergence(original, share, to_items[2])
        losses = dict(zip(OBJECTIVES, (unlearn, retain, float(divergence))))
        return losses, list(zip((of_forget, of_joined, of_kl), to_items))

    def _damp(self) -> None:
        """Raise the constant in the denominators of Adam, so that entries with much smaller gradients hardly move.

        Adam moves every entry by about the learning rate, whatever the size of its gradient. The softmax gives every
        item a gradient, so a request of a single click would move all items as far as its own. The constant of a
        parameter is its largest gradient so far, divided by the number of samples to forget.
        """
        if not self.settings.damping:
            return
        grads = [p.grad if p.grad is not None and p.numel() else p.new_zeros(1) for p in self.parameters]
        norms = torch.stack([torch.linalg.vector_norm(grad, math.inf) for grad in grads]).tolist()
        self.largest = [max(pair) for pair in zip(self.largest, norms)]
        for group, largest in zip(self.optimizer.param_groups, self.largest):
            group["eps"] = max(EPS, self.settings.damping * largest / self.num_forget)

    def _reached_before(self) -> Tensor:
        """Return whether samples to forget have reached their targets before the first step ``[num]``.

        Where an item is emptied, its new embedding brings the samples to their targets, but not the joined predictions
        that follow: with targets, a sample has only reached its own if that prediction has as well.
        """
        last = self.first_kept
        scores = (self.before.states[self.prefix[:last]] * self.before.items[self.target[:last]]).sum(1)
        reached = self._reached(scores - self.before.shift[self.prefix[:last]] - self.level)
        found, joined = reached[: self.num_forget].clone(), reached[self.num_forget :]
        if self.settings.loss == "target":
            follows = self.follower >= 0
            found[follows] &= joined[self.follower[follows]]
        return found

    def _reached(self, off: Tensor) -> Tensor:
        """Return whether samples to forget have reached their targets, given their differences from these ``[num]``."""
        return off.abs() <= self.settings.tolerance if self.settings.loss == "target" else off <= ROUNDING

    def _mix(self, gradients: list[list[Tensor]], first: bool) -> tuple[list[float], list[float]]:
        """Return the weight of every loss, and the factor that its gradient is multiplied by.

        The weights are those of gradients of norm 1. Their sum is multiplied by the norm of the gradient of the
        unlearning loss, so the mix shrinks as the samples reach their targets.
        """
        if self.settings.mix == "sum":
            return [1 / 3] * 3, [1.0] * 3
        gram: list[list[float]] = gram_matrix(gradients).tolist()
        norms = [math.sqrt(max(row[n], 0.0)) for n, row in enumerate(gram)]
        used = [n for n, size in enumerate(norms) if size > ZERO * max(norms) and not (first and OBJECTIVES[n] == "kl")]
        weights, scale = [0.0] * 3, [0.0] * 3
        if used:
            unit = torch.tensor([[gram[n][m] / (norms[n] * norms[m]) for m in used] for n in used], dtype=torch.float64)
            found = mixed(unit, used.index(0) if 0 in used else None, self.settings.floor)
            for n, weight in zip(used, found):
                weights[n], scale[n] = weight, weight * norms[0] / norms[n]
        return weights, scale

    def _to_parameters(self, outputs: list[Tensor], grads: list[Tensor], keep: bool) -> list[Tensor]:
        """Return the gradients of all parameters, given those of the outputs; zeros for parameters without any."""
        found = torch.autograd.grad(outputs, self.parameters, grads, retain_graph=keep, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters)]

    def _done(self) -> bool:
        """Return whether every sample is frozen or had reached its target when it was last measured."""
        return bool((self.reached | self.frozen).all())

    def _numbers(self, count: int) -> Tensor:
        return torch.arange(count, device=self.target.device)

    def _encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the prefixes of the samples ``rows`` ``[num, dim]`` and of all items."""
        return self._encode_prefixes(self.prefix[rows])

    def _encode_prefixes(self, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of ``prefixes`` ``[num, dim]`` and of all items."""
        encoded = encode_prefixes(self.model, self.sessions, self.ends[prefixes])
        return encoded.queries, encoded.items

    @torch.no_grad()
    def _log_p(self, rows: Tensor) -> Tensor:
        """Return the present log probability of samples ``[num]``."""
        parts = [-catalogue_loss(*self._encode(chunk), self.target[chunk]) for chunk in rows.split(CHUNK)]
        return torch.cat(parts)

    def _draw_kept(self) -> Tensor:
        """Return the numbers of the next kept clicks, in a random order that visits all of them before it repeats."""
        size = min(self.settings.kept_batch, self.num_kept)
        if self.kept_order.numel() < size:
            self.kept_order = torch.randperm(self.num_kept, generator=self.generator)
        drawn, self.kept_order = self.kept_order[:size], self.kept_order[size:]
        return (drawn + self.first_kept).to(self.target.device)


def mixed(gram: Tensor, unlearn: int | None, floor: float) -> list[float]:
    r"""Return the weights :math:`\alpha` that minimise :math:`\|\sum_k \alpha_k g_k\|` on the simplex, with one floor.

    If the weight of the unlearning loss is below ``floor``, it is raised to ``floor``, and the other weights are scaled
    so that their sum is the rest.

    Args:
        gram: Inner products of the gradients ``[num, num]``.
        unlearn: Index of the gradient of the unlearning loss; ``None`` if it is not among them.
        floor: Smallest weight of the unlearning loss.

    Returns:
        The weights.

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


def _is_measure(value: float) -> bool:
    return 0 <= value < math.inf


def _are_decays(value: tuple[float, float]) -> bool:
    return len(value) == 2 and all(0 <= rate < 1 for rate in value)


def _huber(off: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope and the value of the Huber loss."""
    size = off.abs()
    value = torch.where(size <= HUBER, 0.5 * off.square(), HUBER * (size - 0.5 * HUBER))
    return off.clamp(-HUBER, HUBER), value


def _combined(scale: list[float], gradients: list[Tensor]) -> Tensor:
    """Return the weighted sum of the gradients of the three losses."""
    total = scale[0] * gradients[0]
    for factor, gradient in zip(scale[1:], gradients[1:]):
        total.add_(gradient, alpha=factor)
    return total
