r"""Acceptance of a correction: it must not be worse than deleting the edges and redrawing emptied embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.precision import not_finite
from graphunlearn.nn.tables import node_rows
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective, Sampled
from graphunlearn.operators.shared.levels import Levels, never_seen

__all__ = ["Acceptance", "Judged", "lowest", "objection", "subset", "undecided"]

RISE = 0.04
"""Largest accepted rise of the risk of what remains over deleting the edges, besides its standard error."""
BEYOND = 0.0025
"""Largest accepted rise of the tilted risk behind its minimum along a step, as a share of the risk of what remains."""
SAMPLED = {"interactions": (16_384, 8_192), "sessions": (1_024, 512)}
"""Most samples of affected users and items, and of all others, that are looked at first."""
MORE = 4
"""How many times as many are looked at next while the answer is open; this halves the standard errors."""
FEWEST_NEGATIVES = 16  # with fewer, the gradients of the deleted and the corrected model differ by the draw
CHUNK = 1 << 17  # samples whose losses are computed at once
_MANY = 100  # above so many numbers per drawn one, they are drawn one by one and rarely twice


@dataclass(frozen=True)
class Judged:
    r"""What is known about one model.

    Args:
        risk: Mean loss per retained interaction or click.
        tilted: :math:`\Phi`, divided by the number of retained interactions; ``None`` for sessions, and where
            the method has found that its step does not raise :math:`\Phi`.
        gradient: :math:`\|\nabla\Phi\|`, divided in the same way; ``None`` for sessions.
            Also ``None`` without trainable parameters, and for models that propagate one table linearly if the graph
            has more than half a million interactions and the method does not minimise :math:`\Phi`; all figures are
            ``None`` if parameters are not finite.
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


class Measured(NamedTuple):
    """What was computed of one model.

    Args:
        losses: The losses of the chosen samples ``[num]``.
        encoded: The final embeddings that levels are computed from; ``None`` if they are not known.
        slope: The gradient of the weighted sum of the losses, and what else slopes follow from; ``None`` without a
            tilt.
    """

    losses: Tensor
    encoded: Any
    slope: Any


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
        ((0.5, 0.25), (1.0, 0.0), (0.0, 1.5))
    """
    curve = last - first
    share = min(max(-first / curve, 0.0), 1.0) if curve > 0 else float(first + last <= 0)
    return share, (1 - share) * (first + curve * (1 + share) / 2) + 0.0  # without a negative zero


def objection(found: Judged, deleted: Judged, limit: float, solves: bool | None) -> str:
    """Return why a model is not accepted, or nothing.

    Args:
        found: The figures of the corrected model.
        deleted: Those of the model with edges deleted.
        limit: The largest accepted risk.
        solves: Whether the method minimises the tilted risk; ``None`` judges without the tilted risk.
    """
    assert found.risk is not None
    assert deleted.risk is not None
    if not found.risk <= limit:
        return f"the mean loss of what remains is {found.risk:.4g}, above the limit of {limit:.4g}"
    if solves and _steeper(found, deleted):
        own, most = found.gradient, deleted.gradient
        return f"the gradient of the tilted risk has norm {own:.3g}, above the limit of {most:.3g}"
    farthest = BEYOND * abs(deleted.risk)
    if solves is False and found.beyond is not None and not found.beyond <= farthest and found.risk > deleted.risk:
        rises = f"is lowest after {found.share:.2g} of the step, and rises by {found.beyond:.3g} behind"
        return f"the tilted risk {rises}, above the limit of {farthest:.3g}"
    known = found.levels is not None and deleted.levels is not None
    return found.levels.objection(deleted.levels) if known else ""  # type: ignore[union-attr, arg-type]


def undecided(found: Judged, deleted: Judged, limit: float, margin: float, solves: bool | None, times: int = 1) -> bool:
    """Return whether figures of a sample are so near to a limit that more interactions have to be looked at.

    Args:
        found: The figures of the corrected model.
        deleted: Those of the model with edges deleted.
        limit: The largest accepted risk.
        margin: Two standard errors of the change of the risk.
        solves: Whether the method minimises the tilted risk; ``None`` judges without the tilted risk.
        times: How many times as many samples as at first the figures are of; their errors fall with its square root.
    """
    assert found.risk is not None
    assert deleted.risk is not None
    near, error = abs(found.risk - limit) <= margin, times**-0.5
    if solves and found.gradient is not None and deleted.gradient:
        near |= abs(found.gradient / deleted.gradient - 1) <= 0.1 * error
    elif solves is False and found.beyond is not None:
        near |= 0.8**error <= found.beyond / max(BEYOND * abs(deleted.risk), 1e-300) <= 1.25**error
    return near


def _steeper(found: Judged, deleted: Judged) -> bool:
    r"""Return whether neither :math:`\Phi` nor the norm of its gradient is as low as with edges deleted."""
    if None in (found.tilted, found.gradient, deleted.tilted, deleted.gradient):
        return False
    lower = found.tilted <= deleted.tilted  # type: ignore[operator]
    return not lower and not found.gradient <= deleted.gradient * (1 + 1e-6)  # type: ignore[operator]


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
    and items that lost interactions, and others; four times as many, up to all, are looked at while the sample leaves
    the answer open.

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
        self.number, self.affected, self._every = self._population()
        self.seed, self.times = seed, 1
        self._look()

    def _look(self) -> None:
        """Choose :attr:`times` as many samples as are looked at first, and measure the deleted model on them."""
        affected, generator = self.affected, torch.Generator().manual_seed(self.seed)
        most, others = (self.times * some for some in SAMPLED[self.graph.kind])
        chosen, weight = _some(len(affected), most, generator, affected.device)
        rank, other = _some(self.number - len(affected), others, generator, affected.device)
        parts = (affected[chosen], weight), (_outside(affected, rank), other)
        self.chosen, order = torch.cat([index for index, _ in parts]).sort()
        self.weight = torch.cat([torch.full_like(i, w, dtype=torch.float64) for i, w in parts])[order]
        self.whole = len(self.chosen) == self.number
        self._reference()

    def _population(self) -> tuple[int, Tensor, Any]:
        """Return the number of samples, those with a touched user or item, ascending, and those of sessions."""
        if self.graph.kind == "sessions":
            every, touched = self.criterion.samples(self.retained), self.graph.degree != self.retained.degree
            return len(every), touched[every.target].nonzero().view(-1), every
        touched, removed = (self.graph.degree != self.retained.degree).nonzero().view(-1), self.request.mask(self.graph)
        found = self.graph.adjacency.interactions(touched)
        found, gone = found[~removed[found]], removed.nonzero().view(-1)
        return self.retained.num_interactions, found - torch.searchsorted(gone, found), None

    def _draw(self, index: Tensor) -> Any:
        """Return some samples of what remains, given by their ascending positions."""
        return self._samples(self.retained, index) if self._every is None else self._every.select(index)

    def _samples(self, graph: Any, index: Tensor) -> Any:
        """Return the samples of some interactions, given by their ascending positions."""
        if isinstance(self.criterion, Objective):
            return self.criterion.samples(graph, mask=index)
        mask = torch.zeros(graph.num_interactions, dtype=torch.bool, device=index.device)  # others take masks alone
        mask[index] = True
        return self.criterion.samples(graph, mask=mask)

    def _reference(self) -> None:
        """Measure the deleted model on what is chosen."""
        self._drawn: list[tuple[Any, Tensor]] | None = None
        trains = any(p.requires_grad for p in self.before.parameters())
        tilts = trains and self.graph.kind == "interactions" and self.solves is not None
        self.tilt = self._tilt() if tilts else None
        measured = self._measured(self.deleted)
        self.losses, self.slope = measured.losses, measured.slope
        self.risk = float((self.losses * self.weight).sum() / max(self.number, 1))
        spread = ((self.losses - self.risk).square() * self.weight).sum() / max(self.number, 1)
        self.error = float((spread / max(self.number, 1)).sqrt())
        self.tilted, self.steepness = self._tilted(self.deleted, self.risk, self.slope), self._steepness(self.slope)
        if isinstance(self.criterion, Sampled):
            self.pairs = self.retained.pairs[:, self.chosen]
            self.unseen = never_seen(self.graph, self.pairs, seed=0)
        self.levels = self._levels(self.deleted, measured.encoded)

    def judge(self, model: nn.Module) -> Judged:
        """Return whether a model is accepted, with its figures.

        Args:
            model: The corrected model.
        """
        if bad := not_finite(model):
            return Judged(None, None, None, False, f"{bad[0]} holds NaN or infinity")
        measured = self._measured(model)
        risk = float((measured.losses * self.weight).sum() / self.number)
        change = (measured.losses - self.losses) * self.weight / self.number
        margin = 0.0 if self.whole else 2 * float(change.std() * len(change) ** 0.5) if len(change) > 1 else 0.0
        tilted, steepness = self._tilted(model, risk, measured.slope), self._steepness(measured.slope)
        share, beyond = (None, None) if measured.slope is None else lowest(*self._slopes(model, measured.slope))
        levels = self._levels(model, measured.encoded)
        found = Judged(risk, tilted, steepness, True, "", levels, share, beyond)
        deleted = Judged(self.risk, self.tilted, self.steepness, True, "", self.levels)
        if not self.whole and undecided(found, deleted, self.limit, margin, self.solves, self.times):
            self.times *= MORE
            self._look()
            return self.judge(model)
        reason = objection(found, deleted, self.limit, self.solves)
        return replace(found, accepted=not reason, reason=reason)

    def record(self, first: Judged) -> dict[str, Any]:
        """Return what is recorded of the deleted model, and of the model that was judged first.

        Args:
            first: The figures of that model.
        """
        return {
            "deleted": {"risk": self.risk, "tilted": self.tilted, "gradient": self.steepness},
            "limit": self.limit,
            "levels": [None if found is None else asdict(found) for found in (self.levels, first.levels)],
            "samples": len(self.chosen),
            "of": self.number,
        }

    def _levels(self, model: nn.Module, encoded: Any) -> Levels | None:
        if not isinstance(self.criterion, Sampled):
            return None
        return Levels.of(model, self.retained, self.pairs, self.weight, self.unseen, encoded=encoded)

    @property
    def limit(self) -> float:
        """The largest accepted mean loss of what remains."""
        return self.risk + RISE * abs(self.risk) + 2 * self.error

    def _parts(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield samples of what is chosen, with their weights; few samples are drawn once for all models."""
        if self._drawn is not None:
            yield from self._drawn
            return
        if len(self.chosen) <= CHUNK:
            self._drawn = [(self._draw(self.chosen), self.weight)] if len(self.chosen) else []
            yield from self._drawn
            return
        for index, weight in zip(self.chosen.split(CHUNK), self.weight.split(CHUNK)):
            yield self._draw(index), weight

    def _parts_before(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield samples of what is chosen and of what is forgotten before forgetting, with their weights."""
        removed = self.request.mask(self.graph).nonzero().view(-1)
        most, generator = self.times * sum(SAMPLED["interactions"]), torch.Generator().manual_seed(0)
        rank, weight = _some(len(removed), most, generator, removed.device)
        gone = removed[rank]
        index, order = torch.cat([_outside(removed, self.chosen), gone]).sort()
        weights = torch.cat([self.weight, torch.full_like(gone, weight, dtype=torch.float64)])[order]
        for part, own in zip(index.split(CHUNK), weights.split(CHUNK)):
            yield self._samples(self.graph, part), own

    def _measured(self, model: nn.Module) -> Measured:
        """Return what is computed of a model."""
        losses, total, encoded = [self.weight.new_zeros(0)], None, None
        for samples, weight in self._parts():
            tilts = self.tilt is not None and self.solves is not None
            with torch.set_grad_enabled(tilts):
                own, encoded = _losses(self.criterion, model, self.retained, samples)
                if tilts:
                    total = _added(total, _gradient(own, weight, model))
            losses.append(own.detach().double())
        if encoded is not None:
            base = [None if rows is None else rows.detach() for rows in encoded[2:]]
            encoded = Encoded(encoded.queries.detach(), encoded.items.detach(), *base)
        return Measured(torch.cat(losses), encoded, total)

    def _tilt(self) -> Any:
        r"""Return :math:`\nabla R(\hat\theta; D, G)`, zero in the embeddings of emptied nodes."""
        total = None
        for samples, own_weight in self._parts_before():
            with torch.enable_grad():
                losses, _ = _losses(self.criterion, self.before, self.graph, samples)
                total = _added(total, _gradient(losses, own_weight, self.before))
        assert total is not None
        emptied = self.graph.emptied(self.retained)
        for name, nodes in node_rows(self.before, self.graph).items():
            names = [n for n, p in self.before.named_parameters() if p.requires_grad]
            if name in names:
                total[names.index(name)][emptied[nodes]] = 0
        return total

    def _tilted(self, model: nn.Module, risk: float, slope: Any) -> float | None:
        r"""Return :math:`\Phi` per retained interaction."""
        if self.tilt is None:
            return None
        return risk - _dot(self.tilt, _trained(model)) / self.number

    def _steepness(self, slope: Any) -> float | None:
        r"""Return :math:`\|\nabla\Phi\|` per retained interaction, given the gradient of the risk."""
        return None if self.tilt is None or slope is None else _norm(self._slope(slope))

    def _slope(self, slope: list[Tensor]) -> list[Tensor]:
        return [(own - tilt) / self.number for own, tilt in zip(slope, self.tilt or [])]

    def _slopes(self, model: nn.Module, slope: Any) -> tuple[float, float]:
        r"""Return the slopes of :math:`\Phi` along the step from the deleted model, at its start and at its end."""
        step = [own - start for own, start in zip(_trained(model), _trained(self.deleted))]
        return _dot(self._slope(self.slope), step), _dot(self._slope(slope), step)


def _trained(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters() if p.requires_grad]


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return sum(float(a.double().flatten() @ b.double().flatten()) for a, b in zip(left, right))


def _norm(parts: list[Tensor]) -> float:
    return float(sum(float(part.double().square().sum()) for part in parts) ** 0.5)


def _outside(index: Tensor, rank: Tensor) -> Tensor:
    """Return the numbers with some ranks among those that are not in an ascending index."""
    below = index - torch.arange(len(index), device=index.device)  # how many of them are below each
    return rank + torch.searchsorted(below, rank, right=True)


def _some(size: int, most: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, float]:
    """Return at most so many of the numbers below a size, ascending, and how many of them each stands for."""
    if size <= most:
        return torch.arange(size, device=device), 1.0
    return subset(size, most, generator).to(device), size / most


def subset(size: int, most: int, generator: torch.Generator) -> Tensor:
    """Return a random subset of the numbers below ``size``, ascending, at the cost of what is drawn if that is few.

    Args:
        size: The number of numbers.
        most: How many to draw.
        generator: The source of randomness.
    """
    if size <= _MANY * most:
        return torch.randperm(size, generator=generator)[:most].sort().values
    drawn = torch.empty(0, dtype=torch.int64)
    while len(drawn) < most:
        drawn = torch.cat([drawn, torch.randint(size, (most - len(drawn),), generator=generator)]).unique()
    return drawn


def _losses(criterion: Criterion, model: nn.Module, graph: Any, samples: Any) -> tuple[Tensor, Encoded | None]:
    """Return the losses of samples, and the encoding that they were computed from if the loss takes one."""
    if isinstance(criterion, Objective) and type(criterion).losses is Objective.losses:
        encoded = encode(model, graph)
        return criterion(encoded, samples), encoded
    return criterion.losses(model, graph, samples), None


def _gradient(losses: Tensor, weight: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad((losses * weight.to(losses.dtype)).sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def _added(total: list[Tensor] | None, more: list[Tensor]) -> list[Tensor]:
    return more if total is None else [a.add_(b) for a, b in zip(total, more)]
