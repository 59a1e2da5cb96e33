r"""Acceptance of a correction: it must not be worse than deleting the edges and redrawing emptied embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError, RejectedError
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective, Sampled
from graphunlearn.operators.shared.levels import Levels, never_seen
from graphunlearn.operators.shared.own_loss import fitting_loss, pass_on_loss
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["Acceptance", "Judged", "accept"]

RISE = 0.04
"""Largest accepted rise of the risk of what remains over deleting the edges, besides its standard error."""
STEEPER = 3.0
"""A rising risk is not accepted if the gradient of the tilted risk is this many times that of deleting the edges."""
SAMPLED = {"interactions": (16_384, 8_192), "sessions": (1_024, 1_024)}
"""Most samples of affected users and items, and of all others, that are looked at first."""
FEWEST_NEGATIVES = 16  # with fewer, the gradients of the deleted and the corrected model differ by the draw
CHUNK = 1 << 17  # samples whose losses are computed at once
SHORTER = (0.5, 0.25)  # shares of a rejected step that are tried


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
    """

    risk: float | None
    tilted: float | None
    gradient: float | None
    accepted: bool
    reason: str = ""
    levels: Levels | None = None


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
    :math:`\Phi` or the norm of its gradient. For any other method, that norm may be three times as high as at
    :math:`\theta_d` if the risk has risen. A seeded sample of the interactions is looked at first: those of users and
    items that lost interactions, and others; all are looked at only if the sample leaves the answer open.

    Args:
        criterion: The loss that the model was trained with.
        before: The trained model.
        deleted: The model with emptied embeddings redrawn.
        graph: The graph before forgetting.
        retained: The retained graph.
        request: The request.
        solves: Whether the method minimises the tilted risk.
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
        solves: bool = False,
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
        plain = isinstance(criterion, Objective) and type(criterion).losses is Objective.losses
        self.embeds: Any = criterion if plain else None  # a loss that is a function of embeddings
        self._encoded: tuple[Any, Any] = (None, None)
        self._reference()

    def _reference(self) -> None:
        """Measure the deleted model on what is chosen."""
        self.samples = [self.draw(index) for index in self.chosen.split(CHUNK)]
        self.losses = self._losses(self.deleted, self.retained)
        self.risk = float((self.losses * self.weight).sum() / max(self.number, 1))
        spread = ((self.losses - self.risk).square() * self.weight).sum() / max(self.number, 1)
        self.error = float((spread / max(self.number, 1)).sqrt())
        trains = any(p.requires_grad for p in self.before.parameters())
        self.tilt = self._tilt() if trains and self.graph.kind == "interactions" else None
        self.tilted, self.steepness = self._slope(self.deleted, self.risk)
        if isinstance(self.criterion, Sampled):
            self.pairs = self.retained.pairs[:, self.chosen]
            self.unseen = never_seen(self.graph, self.pairs, seed=0)
        self.levels = self._levels(self.deleted)

    def judge(self, model: nn.Module) -> Judged:
        """Return whether a model is accepted, with its figures.

        Args:
            model: The corrected model.
        """
        bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            return Judged(None, None, None, False, f"{bad[0]} holds NaN or infinity")
        losses = self._losses(model, self.retained)
        risk = float((losses * self.weight).sum() / self.number)
        change = (losses - self.losses) * self.weight / self.number
        margin = 0.0 if self.whole else 2 * float(change.std() * len(change) ** 0.5) if len(change) > 1 else 0.0
        tilted, steepness = self._slope(model, risk)
        levels = self._levels(model)
        near = abs(risk - self.limit) <= margin
        if steepness is not None and self.steepness:
            near |= 0.9 <= steepness / self.steepness / (1.0 if self.solves else STEEPER) <= 1.1
        if near and not self.whole:
            self._look_at_all()
            return self.judge(model)
        reason = ""
        if not risk <= self.limit:
            reason = f"the mean loss of what remains is {risk:.4g}, above the limit of {self.limit:.4g}"
        elif tilted is not None and steepness is not None and self.tilted is not None and self.steepness is not None:
            most = self.steepness * (1.0 if self.solves else STEEPER) * (1 + 1e-6)
            rises = not tilted <= self.tilted if self.solves else risk > self.risk
            if not steepness <= most and rises:
                reason = f"the gradient of the tilted risk has norm {steepness:.3g}, above the limit of {most:.3g}"
        if not reason and levels is not None and self.levels is not None:
            reason = levels.objection(self.levels)
        return Judged(risk, tilted, steepness, not reason, reason, levels)

    def _levels(self, model: nn.Module) -> Levels | None:
        if not isinstance(self.criterion, Sampled):
            return None
        return Levels.of(self._encode(model, self.retained), self.pairs, self.weight, self.unseen)

    @property
    def limit(self) -> float:
        """The largest accepted mean loss of what remains."""
        return self.risk + RISE * abs(self.risk) + 2 * self.error

    def _look_at_all(self) -> None:
        self.chosen, self.whole = torch.arange(self.number, device=self.chosen.device), True
        self.weight = torch.ones(self.number, dtype=torch.float64, device=self.weight.device)
        self._reference()

    def _encode(self, model: nn.Module, graph: Any) -> Encoded:
        """Return the embeddings, differentiable; those of the latest model and parameters are kept."""
        key = (model, graph, [(p, p._version) for p in model.parameters()])
        known, encoded = self._encoded
        if known is None or known[0] is not model or known[1] is not graph or not _same(known[2], key[2]):
            with torch.enable_grad():
                encoded = encode(model, graph)
            self._encoded = (key, encoded)
        return encoded

    def _losses(self, model: nn.Module, graph: Any) -> Tensor:
        with torch.no_grad():
            if self.embeds is not None:
                encoded = self._encode(model, graph)
                parts = [self.embeds(encoded, samples) for samples in self.samples]
            else:
                parts = [self.criterion.losses(model, graph, samples) for samples in self.samples]
        return torch.cat(parts).double() if parts else self.weight.new_zeros(0)

    def _gradient(self, model: nn.Module, graph: Any, parts: Iterable[tuple[Any, Tensor]]) -> list[Tensor]:
        """Return the gradient of the weighted sum of the losses of some samples, one tensor per parameter."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        total = [torch.zeros_like(p) for p in parameters]
        with torch.enable_grad():
            if self.embeds is None:
                for samples, weight in parts:
                    losses = self.criterion.losses(model, graph, samples)
                    _backward((losses * weight.to(losses.dtype)).sum(), parameters, total)
                return total
            encoded = self._encode(model, graph)  # one propagation serves all parts
            named = {name: value for name, value in encoded._asdict().items() if value is not None}
            leaves = {name: value.detach().requires_grad_() for name, value in named.items() if value.requires_grad}
            inputs, outputs = list(leaves.values()), [named[name] for name in leaves]
            given, free = [torch.zeros_like(value) for value in inputs], encoded._replace(**leaves)
            for samples, weight in parts:
                losses = self.embeds(free, samples)
                _backward((losses * weight.to(losses.dtype)).sum(), inputs, given)
            _backward(outputs, parameters, total, given)
        return total

    def _tilt(self) -> list[Tensor]:
        r"""Return :math:`\nabla R(\hat\theta; D, G)`, zero in the embeddings of emptied nodes."""
        removed = self.request.mask(self.graph)
        kept = (~removed).nonzero().view(-1)
        gone, weight = _some(removed, sum(SAMPLED["interactions"]), torch.Generator().manual_seed(0))
        ours = [(kept[part], w) for part, w in zip(self.chosen.split(CHUNK), self.weight.split(CHUNK))]
        theirs = [(part, torch.full_like(part, weight, dtype=torch.float64)) for part in gone.split(CHUNK)]
        drawn = (
            (self.criterion.samples(self.graph, mask=_mask(index, self.graph.num_interactions)), own)
            for index, own in (*ours, *theirs)
        )
        total = self._gradient(self.before, self.graph, drawn)
        emptied = self.graph.emptied(self.retained)
        for name, nodes in node_rows(self.before, self.graph).items():
            names = [n for n, p in self.before.named_parameters() if p.requires_grad]
            if name in names:
                total[names.index(name)][emptied[nodes]] = 0
        return total

    def _slope(self, model: nn.Module, risk: float) -> tuple[float | None, float | None]:
        r"""Return :math:`\Phi` and the norm of its gradient, both per retained interaction."""
        if self.tilt is None:
            return None, None
        total = self._gradient(model, self.retained, zip(self.samples, self.weight.split(CHUNK)))
        square = sum(float((own - tilt).double().square().sum()) for own, tilt in zip(total, self.tilt))
        parameters = [p.detach() for p in model.parameters() if p.requires_grad]
        along = sum(float(tilt.double().flatten() @ p.double().flatten()) for tilt, p in zip(self.tilt, parameters))
        return risk - along / self.number, float(square**0.5) / self.number


def _backward(
    outputs: Tensor | list[Tensor],
    inputs: Sequence[Tensor],
    total: list[Tensor],
    given: list[Tensor] | None = None,
) -> None:
    """Add the derivatives of ``outputs``, weighted by ``given``, in every input to ``total``."""
    found = torch.autograd.grad(outputs, inputs, given, allow_unused=True, retain_graph=given is not None)
    for own, derivative in zip(total, found):
        if derivative is not None:
            own += derivative


def _same(known: Sequence[tuple[Tensor, int]], now: Sequence[tuple[Tensor, int]]) -> bool:
    """Return whether two lists hold the same tensors with the same version counters."""
    return len(known) == len(now) and all(p is q and v == w for (p, v), (q, w) in zip(known, now))


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
        log: The log of the step, which is changed if a milder step is accepted.
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
        steps = _again(method, log, model, before, deleted, graph, retained, request, judging)
        for outcome, words, found, own_log in steps:  # noqa: B007
            tried.append({"what": words} | _figures(found) | {"accepted": found.accepted})
            if found.accepted:
                log.update(own_log)
                break
        else:
            outcome, found = "unlink-redraw", first
            model.load_state_dict(deleted.state_dict())
    if not found.accepted and method.on_rejection != "keep":
        _complain(method, first)
    if found.accepted or outcome == "kept":
        kept = copy.deepcopy(model.state_dict())
        more = method._finish(model, before, graph, retained, request)
        judging.solves = False  # the tilt of a neighbour of emptied nodes holds what is forgotten
        same = all(torch.equal(value, kept[name]) for name, value in model.state_dict().items() if _is_float(value))
        if more and not same and method.on_rejection != "keep" and not (after := judging.judge(model)).accepted:
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
    return {"risk": found.risk, "tilted": found.tilted, "gradient": found.gradient}


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
    for share in SHORTER:
        mixed = {n: torch.lerp(start[n], v, share) if _is_float(v) else v for n, v in step.items()}
        model.load_state_dict(mixed)
        yield "shortened", f"{share:g} of the step", judging.judge(model), {}


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _complain(method: Any, found: Judged) -> None:
    """Warn that no correction was accepted, or raise an error if the method asks for it."""
    said = f"{method.name} made a step that is worse than deleting the edges: {found.reason}"
    advice = "check that 'objective' is the loss that the model was trained with, or retrain"
    if method.on_rejection == "raise":
        raise RejectedError(f"{said}; {advice}")
    warn(f"{said}; the edges are deleted, and nothing is corrected; {advice}")
