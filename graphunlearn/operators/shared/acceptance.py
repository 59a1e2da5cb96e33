r"""Acceptance of a correction: it must not be worse than deleting the edges and redrawing emptied embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError, RejectedError
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Sampled
from graphunlearn.operators.shared.checks import not_finite
from graphunlearn.operators.shared.levels import Levels, never_seen
from graphunlearn.operators.shared.own_loss import fitting_loss, pass_on_loss
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["Acceptance", "Judged", "accept", "lowest"]

RISE = 0.04
"""Largest accepted rise of the risk of what remains over deleting the edges, besides its standard error."""
BEYOND = 0.0025
"""Largest accepted rise of the tilted risk behind its minimum along a step, as a share of the risk of what remains."""
SAMPLED = {"interactions": (16_384, 8_192), "sessions": (1_024, 1_024)}
"""Most samples of affected users and items, and of all others, that are looked at first."""
FEWEST_NEGATIVES = 16  # with fewer, the gradients of the deleted and the corrected model differ by the draw
CHUNK = 1 << 17  # samples whose losses are computed at once
SHORTER = (0.5, 0.25)  # what is tried of a rejected step, as shares of the part up to the minimum of the tilted risk
SHORTEST = 0.1  # a smaller share of the step is not worth taking


@dataclass(frozen=True)
class Judged:
    r"""What is known about one model.

    Args:
        risk: Mean loss per retained interaction or click.
        tilted: :math:`\Phi`, divided by the number of retained interactions; ``None`` for sessions.
        gradient: :math:`\|\nabla\Phi\|`, divided in the same way; ``None`` for sessions.
            Also ``None`` without trainable parameters; all figures are ``None`` if parameters are not finite.
        accepted: Whether the model is accepted.
        reason: Why it is not accepted; empty otherwise.
        levels: Mean probabilities of retained and of never-seen pairs; ``None`` if the loss samples no negatives.
        share: The share of the step from deleting the edges at which :math:`\Phi` is lowest (:func:`lowest`).
        beyond: The rise of :math:`\Phi` behind that share, per retained interaction.
    """

    risk: float | None
    tilted: float | None
    gradient: float | None
    accepted: bool
    reason: str = ""
    levels: Levels | None = None
    share: float | None = None
    beyond: float | None = None


def lowest(first: float, last: float) -> tuple[float, float]:
    r"""Return where a function is lowest along a step, and how much it rises from there to the end of the step.

    The function is taken to be quadratic, :math:`q(t) = at + (b - a)t^2/2` with the slopes :math:`a` and :math:`b` at
    the start and the end.

    Args:
        first: The slope :math:`a` at the start, :math:`t = 0`.
        last: The slope :math:`b` at the end, :math:`t = 1`.

    Returns:
        The share :math:`t^* \in [0, 1]` that minimises :math:`q`, and :math:`q(1) - q(t^*)`.

    Example:
        >>> lowest(-1.0, 1.0), lowest(-1.0, -0.5), lowest(1.0, 2.0)
        ((0.5, 0.5), (1.0, 0.0), (0.0, 1.5))
    """
    curve = last - first
    share = min(max(-first / curve, 0.0), 1.0) if curve > 0 else float(first + last <= 0)
    return share, (1 - share) * (first + curve * (1 + share) / 2)


class Acceptance:
    r"""Compares a corrected model with the one that only has its edges deleted, without labels of the request.

    Let :math:`\theta_d` be the trained parameters with the embeddings of emptied nodes redrawn, and :math:`\theta'` the
    corrected ones. :math:`\theta'` is accepted if the mean loss :math:`r` of what remains satisfies

    .. math:: r(\theta') \le 1.04\; r(\theta_d) + 2\,\mathrm{se}(r(\theta_d))

    Losses of differences, such as BPR, do not see that all scores of a user move. If the loss samples negatives, the
    mean of :math:`1 - \sigma(s)` over retained interactions and that of :math:`\sigma(s)` over pairs that were never
    seen must therefore stay within 20 % of their values at :math:`\theta_d`, or within 0.005.

    A method that minimises the tilted risk
    :math:`\Phi(\theta) = R(\theta; D_k, G_k) - \langle\nabla R(\hat\theta; D, G), \theta\rangle` must also lower
    :math:`\Phi` or the norm of its gradient. Any other method must not step far beyond the minimum of :math:`\Phi`
    along its step (:func:`lowest`) if the risk has risen: :math:`\Phi` may rise behind it by 0.25 % of
    :math:`r(\theta_d)` per retained interaction. A seeded sample of the interactions is looked at first: those of users
    and items that lost interactions, and others; all are looked at only if the sample leaves the answer open.

    Args:
        criterion: The loss that the model was trained with.
        before: The trained model.
        deleted: The model with emptied embeddings redrawn.
        graph: The graph before forgetting.
        retained: The retained graph.
        request: The request.
        solves: Whether the method minimises the tilted risk; ``None`` judges without the tilted risk.
        seed: Seed of the sample.
    """

    def __init__(
        self,
        criterion: Criterion,
        before: nn.Module,
        deleted: nn.Module,
        graph: Any,
        retained: Any,
        request: ForgetRequest,
        *,
        solves: bool | None = False,
        seed: int = 0,
    ) -> None:
        if isinstance(criterion, Sampled) and criterion.negatives < FEWEST_NEGATIVES:
            criterion = criterion.with_negatives(FEWEST_NEGATIVES)
        self.criterion, self.before, self.deleted = criterion, before, deleted
        self.graph, self.retained, self.request, self.solves = graph, retained, request, solves
        self.touched = graph.degree != retained.degree
        self.number, affected, self.draw = _population(criterion, retained, self.touched)
        generator = torch.Generator().manual_seed(seed)
        parts = [_some(part, most, generator) for part, most in zip((affected, ~affected), SAMPLED[graph.kind])]
        self.chosen, order = torch.cat([index for index, _ in parts]).sort()
        self.weight = torch.cat([torch.full_like(i, w, dtype=torch.float64) for i, w in parts])[order]
        self.whole = len(self.chosen) == self.number
        self._reference()

    def _reference(self) -> None:
        """Measure the deleted model on what is chosen."""
        self.losses = self._losses(self.deleted, self.retained)
        self.risk = float((self.losses * self.weight).sum() / max(self.number, 1))
        spread = ((self.losses - self.risk).square() * self.weight).sum() / max(self.number, 1)
        self.error = float((spread / max(self.number, 1)).sqrt())
        trains = any(p.requires_grad for p in self.before.parameters())
        self.tilt = self._tilt() if trains and self.graph.kind == "interactions" else None
        self.tilted, self.slope = self._tilted(self.deleted, self.risk), self._slope(self.deleted)
        self.steepness = None if self.slope is None else _norm(self.slope)
        if isinstance(self.criterion, Sampled):
            self.pairs = self.retained.pairs[:, self.chosen]
            self.unseen = never_seen(self.graph, self.pairs, seed=0)
        self.levels = self._levels(self.deleted)

    def judge(self, model: nn.Module) -> Judged:
        """Return whether a model is accepted, with its figures.

        Args:
            model: The corrected model.
        """
        bad = not_finite(model)
        if bad:
            return Judged(None, None, None, False, f"{bad[0]} holds NaN or infinity")
        losses = self._losses(model, self.retained)
        risk = float((losses * self.weight).sum() / self.number)
        change = (losses - self.losses) * self.weight / self.number
        margin = 0.0 if self.whole else 2 * float(change.std() * len(change) ** 0.5) if len(change) > 1 else 0.0
        tilted, slope, levels = self._tilted(model, risk), self._slope(model), self._levels(model)
        steepness = None if slope is None else _norm(slope)
        share, beyond = (None, None) if slope is None else self._along(model, slope)
        most = BEYOND * abs(self.risk)
        near = abs(risk - self.limit) <= margin
        if self.solves and steepness is not None and self.steepness:
            near |= 0.9 <= steepness / self.steepness <= 1.1
        elif self.solves is False and beyond is not None:
            near |= 0.8 * most <= beyond <= 1.25 * most
        if near and not self.whole:
            self._look_at_all()
            return self.judge(model)
        reason = ""
        if not risk <= self.limit:
            reason = f"the mean loss of what remains is {risk:.4g}, above the limit of {self.limit:.4g}"
        elif self.solves and self._steeper(tilted, steepness):
            reason = (
                f"the gradient of the tilted risk has norm {steepness:.3g}, above the limit of {self.steepness:.3g}"
            )
        elif self.solves is False and beyond is not None and not beyond <= most and risk > self.risk:
            rises = f"is lowest after {share:.2g} of the step, and rises by {beyond:.3g} behind"
            reason = f"the tilted risk {rises}, above the limit of {most:.3g}"
        if not reason and levels is not None and self.levels is not None:
            reason = levels.objection(self.levels)
        return Judged(risk, tilted, steepness, not reason, reason, levels, share, beyond)

    def _levels(self, model: nn.Module) -> Levels | None:
        if not isinstance(self.criterion, Sampled):
            return None
        return Levels.of(model, self.retained, self.pairs, self.weight, self.unseen)

    @property
    def limit(self) -> float:
        """The largest accepted mean loss of what remains."""
        return self.risk + RISE * abs(self.risk) + 2 * self.error

    def _look_at_all(self) -> None:
        self.chosen, self.whole = torch.arange(self.number, device=self.chosen.device), True
        self.weight = torch.ones(self.number, dtype=torch.float64, device=self.weight.device)
        self._reference()

    def _losses(self, model: nn.Module, graph: Any) -> Tensor:
        with torch.no_grad():
            parts = [self.criterion.losses(model, graph, self.draw(index)) for index in self.chosen.split(CHUNK)]
        return torch.cat(parts).double() if parts else self.weight.new_zeros(0)

    def _tilt(self) -> list[Tensor]:
        r"""Return :math:`\nabla R(\hat\theta; D, G)`, zero in the embeddings of emptied nodes."""
        removed = self.request.mask(self.graph)
        kept = (~removed).nonzero().view(-1)
        gone, weight = _some(removed, sum(SAMPLED["interactions"]), torch.Generator().manual_seed(0))
        ours = [(kept[part], w) for part, w in zip(self.chosen.split(CHUNK), self.weight.split(CHUNK))]
        theirs = [(part, torch.full_like(part, weight, dtype=torch.float64)) for part in gone.split(CHUNK)]
        total = _summed(_gradient(self.criterion, self.before, self.graph, *part) for part in (*ours, *theirs))
        emptied = self.graph.emptied(self.retained)
        for name, nodes in node_rows(self.before, self.graph).items():
            names = [n for n, p in self.before.named_parameters() if p.requires_grad]
            if name in names:
                total[names.index(name)][emptied[nodes]] = 0
        return total

    def _tilted(self, model: nn.Module, risk: float) -> float | None:
        r"""Return :math:`\Phi` per retained interaction."""
        if self.tilt is None:
            return None
        return risk - _dot(self.tilt, _trained(model)) / self.number

    def _slope(self, model: nn.Module) -> list[Tensor] | None:
        r"""Return :math:`\nabla\Phi` per retained interaction."""
        if self.tilt is None:
            return None
        parts = zip(self.chosen.split(CHUNK), self.weight.split(CHUNK))
        total = _summed(_gradient(self.criterion, model, self.retained, *part) for part in parts)
        return [(own - tilt) / self.number for own, tilt in zip(total, self.tilt)]

    def _steeper(self, tilted: float | None, steepness: float | None) -> bool:
        r"""Return whether neither :math:`\Phi` nor the norm of its gradient is as low as with edges deleted."""
        if tilted is None or steepness is None or self.tilted is None or self.steepness is None:
            return False
        return not tilted <= self.tilted and not steepness <= self.steepness * (1 + 1e-6)

    def _along(self, model: nn.Module, slope: list[Tensor]) -> tuple[float, float]:
        """Return what :func:`lowest` says of the step from the deleted model."""
        assert self.slope is not None
        step = [own - start for own, start in zip(_trained(model), _trained(self.deleted))]
        return lowest(_dot(self.slope, step), _dot(slope, step))


def _trained(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters() if p.requires_grad]


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return sum(float(a.double().flatten() @ b.double().flatten()) for a, b in zip(left, right))


def _norm(parts: list[Tensor]) -> float:
    return float(sum(float(part.double().square().sum()) for part in parts) ** 0.5)


def _population(criterion: Criterion, graph: Any, touched: Tensor) -> tuple[int, Tensor, Callable[[Tensor], Any]]:
    """Return the number of samples, a mask of those with a touched user or item, and what draws a part of them."""
    if graph.kind == "sessions":
        every = criterion.samples(graph)
        return len(every), touched[every.target], every.select

    def draw(index: Tensor) -> Any:
        return criterion.samples(graph, mask=_mask(index, graph.num_interactions))

    return graph.num_interactions, touched[graph.pairs[0]] | touched[graph.pairs[1] + graph.num_users], draw


def _mask(index: Tensor, size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool, device=index.device)
    mask[index] = True
    return mask


def _some(mask: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return at most so many positions of a mask, in order, and how many positions each stands for."""
    index = mask.nonzero().view(-1)
    if len(index) <= most:
        return index, 1.0
    drawn = torch.randperm(len(index), generator=generator)[:most].sort().values.to(index.device)
    return index[drawn], len(index) / most


def _gradient(criterion: Criterion, model: nn.Module, graph: Any, index: Tensor, weight: Tensor) -> list[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        losses = criterion.losses(model, graph, criterion.samples(graph, mask=_mask(index, graph.num_interactions)))
        found = torch.autograd.grad((losses * weight.to(losses.dtype)).sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def _summed(parts: Iterator[list[Tensor]]) -> list[Tensor]:
    total = next(parts)
    for part in parts:
        total = [a + b for a, b in zip(total, part)]
    return total


def accept(
    method: Any,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    graph: Any,
    retained: Any,
    request: ForgetRequest,
) -> dict[str, Any]:
    """Replace a correction that is worse than deleting the edges, and return a record of what was found.

    A rejected step is taken again with what the method offers (:meth:`~graphunlearn.Unlearner.milder`), and then made
    shorter. If nothing is accepted, the model is left with emptied embeddings redrawn, or an error is raised if
    ``on_rejection`` of the method is ``"raise"``. With ``"keep"``, nothing else is tried and the step is kept.

    Args:
        method: The method that made the step.
        log: The log of the step. If another step is accepted, or none, it moves to the entry ``"refused_step"``; if the
            step is only shortened, it stays.
        model: The corrected model, which is changed if the step is rejected.
        before: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.
        request: The request.

    Returns:
        The record: ``"accepted"``, ``"outcome"`` (``"corrected"``, ``"milder"``, ``"shortened"``, ``"unlink-redraw"``,
        ``"kept"`` or ``"not judged"``), the figures of the deleted and the corrected model, the limit, the
        ``"levels"`` of both models, and ``"tried"``.

    Raises:
        RejectedError: Nothing is accepted and ``on_rejection`` is ``"raise"``.
    """
    seed = getattr(method, "seed", 0) or 0
    deleted = before
    if bool(graph.emptied(retained).any()):
        deleted = copy.deepcopy(before)
        with suppress(TypeError):  # a model that cannot be reset keeps the embeddings of emptied nodes
            warm_start(deleted, graph, retained, seed, scale=False)
    criterion = fitting_loss(method, before, graph)
    solves = type(method).solves_tilted
    try:
        judging = Acceptance(criterion, before, deleted, graph, retained, request, solves=solves, seed=seed)
    except ArgumentError as error:  # such as a loss of labels, if what remains has a single label
        return {"accepted": True, "outcome": "not judged", "reason": str(error)}
    if not judging.number:
        return {"accepted": True, "outcome": "not judged", "reason": "no click that remains has a click before it"}
    first = found = judging.judge(model)
    tried: list[dict[str, Any]] = []
    outcome = "corrected"
    if not first.accepted and method.on_rejection == "keep":
        outcome = "kept"
    elif not first.accepted:
        steps = _again(method, log, model, before, deleted, graph, retained, request, judging, first)
        for outcome, words, found, own_log in steps:  # noqa: B007
            tried.append({"what": words} | _figures(found) | {"accepted": found.accepted})
            if found.accepted:
                break
        else:
            outcome, found, own_log = "unlink-redraw", first, {}
            model.load_state_dict(deleted.state_dict())
        if outcome != "shortened":  # what was logged is not about the model that is returned
            refused = dict(log)
            log.clear()
            log |= own_log | {"refused_step": refused}
    if not found.accepted and method.on_rejection != "keep":
        _complain(method, first)
    if found.accepted or outcome == "kept":
        kept = copy.deepcopy(model.state_dict())
        more = method._finish(model, before, graph, retained, request)
        judging.solves = None  # the tilt of a neighbour of emptied nodes holds what is forgotten
        if more and method.on_rejection != "keep" and not (after := judging.judge(model)).accepted:
            model.load_state_dict(kept)
            more = {name: {"skipped": after.reason} for name in more}
        log.update(more)
    pass_on_loss(method, before, model, graph)
    return {
        "accepted": found.accepted,
        "outcome": outcome,
        "deleted": {"risk": judging.risk, "tilted": judging.tilted, "gradient": judging.steepness},
        "corrected": _figures(first),
        "limit": judging.limit,
        "levels": [None if found is None else asdict(found) for found in (judging.levels, first.levels)],
        "reason": first.reason,
        "samples": len(judging.chosen),
        "of": judging.number,
        "tried": tried,
    }


def _figures(found: Judged) -> dict[str, Any]:
    names = ("risk", "tilted", "gradient", "share", "beyond")
    return {name: getattr(found, name) for name in names}


def _again(
    method: Any,
    log: dict[str, Any],
    model: nn.Module,
    before: nn.Module,
    deleted: nn.Module,
    graph: Any,
    retained: Any,
    request: ForgetRequest,
    judging: Acceptance,
    first: Judged,
) -> Iterator[tuple[str, str, Judged, dict[str, Any]]]:
    """Leave milder and then shorter steps in the model, and yield what is known about each."""
    step = copy.deepcopy(model.state_dict())
    for words, other in method.milder(log):
        model.load_state_dict(before.state_dict())
        try:
            own_log = other._unlearn(model, graph, retained, request)
        except FloatingPointError as error:
            yield "milder", words, Judged(None, None, None, False, str(error)), {}
            continue
        yield "milder", words, judging.judge(model), own_log
    start = deleted.state_dict()
    best = 1.0 if first.share is None else first.share
    for share in (part * best for part in SHORTER if part * best >= SHORTEST):
        mixed = {n: torch.lerp(start[n], v, share) if _is_float(v) else v for n, v in step.items()}
        model.load_state_dict(mixed)
        yield "shortened", f"{share:.3g} of the step", judging.judge(model), {}


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _complain(method: Any, found: Judged) -> None:
    """Warn that no correction was accepted, or raise an error if the method asks for it."""
    said = f"{method.name} made a step that is worse than deleting the edges: {found.reason}"
    advice = "check that 'objective' is the loss that the model was trained with, or retrain"
    if method.on_rejection == "raise":
        raise RejectedError(f"{said}; {advice}")
    warn(f"{said}; the edges are deleted, and nothing is corrected; {advice}")
