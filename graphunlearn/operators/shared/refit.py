r"""Fit the items of emptied users (and the users of emptied items) to what remains, without the trace left in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import conjugate_gradients
from graphunlearn.func.blocks import inner
from graphunlearn.func.solve import Dot
from graphunlearn.nn.encoding import Encoded, linear_form
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.objective import Objective, Sampled, Samples
from graphunlearn.operators.shared.journal import Journal
from graphunlearn.operators.shared.local import Local, known_of
from graphunlearn.operators.shared.ridge import CURVATURE_NEGATIVES, Ridges, restricted
from graphunlearn.operators.shared.right_hand_side import retained_samples, with_affordable
from graphunlearn.operators.shared.span import moments, without_span
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = [
    "Noise",
    "first_step",
    "fit_rows",
    "minimise",
    "neighbours_of_emptied",
    "redrawn_risk",
    "refit_neighbours",
    "whole_noise",
]

Noise = Literal["projected", "whole", "judged"]

_LENGTHS = (1.0, 0.5, 0.25, 0.125)  # lengths of a step, of which the first that lowers the objective is taken
_STEPS, _PRODUCTS, _TOLERANCE = 2, 40, 0.03
_RISE = 0.0125  # largest rise of the risk of other negatives, as a share of it, with which a fit is taken
_OTHERS = 16_384  # most interactions with other negatives


@torch.no_grad()
def refit_neighbours(
    model: nn.Module,
    trained: nn.Module,
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    objective: Objective,
    *,
    negatives: int = 32,
    samples: Samples | None = None,
    enough: Callable[[Tensor], bool] | None = None,
    around: Local | None = None,
    noise: Noise = "projected",
    journal: Journal | None = None,
) -> dict[str, Any]:
    r"""Fit the items of emptied users, and the users of emptied items, to the retained interactions, in place.

    Redrawing the embedding of a forgotten user removes what the model knows in that embedding. The items of the user
    were pulled towards it, and keep this trace. With all other layer-0 embeddings fixed, the embeddings :math:`e_i` of
    these items :math:`T` are the minimiser of

    .. math::
        R(e; D_k, G_k) + \frac\delta2 \sum_{i \in T}\|e_i\|^2 - \sum_{i \in T} \langle\nu_i, e_i\rangle, \qquad
        \nu_i = s_i^2\,(I - \Pi_i)\,(\nabla_i R(\hat\theta; D, G) + \delta \hat e_i) .

    * :math:`\delta`, one for all items, is the ridge that is equivalent to early stopping
      (:class:`~graphunlearn.operators.shared.ridge.Ridges`).
    * :math:`\nu_i` is what remains of the part of the trained gradient that the ridge does not explain. If all of it
      were kept (:math:`\nu_i = \nabla_i R + \delta\hat e_i`), the first step would be that of
      :class:`~graphunlearn.IFRU`, and the trace in it would be kept, too.
    * :math:`\Pi_i` projects on the span of the final embeddings of the emptied users of :math:`i`
      (:func:`~graphunlearn.operators.shared.span.without_span`), the directions in which these users pulled.
    * :math:`s_i` is the share of interactions that :math:`i` keeps: the gradient is a sum over interactions. Its square
      was chosen on MovieLens-100K; with :math:`s_i`, an eighth of the trace of the most active users was left.
    * Where many users with few interactions leave, their span is that of nearly all embeddings, and what is projected
      is the noise of users who stay. With ``noise="judged"``, a fit that raises the risk of the retained interactions
      of :math:`T` with other negatives by more than 1.25 % is therefore repeated with :math:`\Pi_i = 0`. Where the fit
      is that of a small request, whose samples are those of :math:`T` alone, it is the risk that is minimised which
      must not rise. This is for corrected models: from one that was not corrected, a fit without harm raises the risk
      as well, since it takes away the trace, and ``"projected"`` and ``"whole"`` (:math:`\Pi_i = 0`) do not compare.

    The minimiser is computed by two Gauss–Newton steps, each solved by conjugate gradients. A step that does not lower
    the objective is halved up to three times, and left out after that. The curvature includes the propagation, so that
    items with common users do not correct the same trace twice. For emptied items the roles of users and items are
    exchanged. Models that do not propagate one table linearly are left unchanged, and so are models whose loss cannot
    be computed on the retained graph.

    Args:
        model: The model, after the embeddings of emptied nodes were redrawn; it is changed in place.
        trained: The trained model.
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        objective: The loss that the model was trained with.
        negatives: Negatives per interaction, if the objective draws negatives and draws fewer; less where they would
            be more than two million in total.
        samples: The retained samples of the loss as it is given, if they are known.
        enough: Whether a step in the table ``[num_parameters]`` is small enough to be left out.
        around: The risk around these embeddings, if it may be known.
        noise: Whether the noise is projected, whole, or judged.
        journal: Where the rows that change are kept.

    Returns:
        A log: for each side with neighbours of emptied nodes, the number of embeddings, the ridge :math:`\delta`, the
        lengths and numbers of products of the steps and, if it is judged, the rise of the risk that must not rise
        as a share of it, and whether the noise was projected; or the reason why nothing was changed under
        ``"skipped"``.
        Empty if no node was emptied.

    Example:
        >>> import copy, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> request = gu.ForgetRequest("user", [graph.user_ids[3]])
        >>> retained, _ = graph.split(request)
        >>> log = refit_neighbours(model, copy.deepcopy(model), graph, retained, request.mask(graph), gu.BPR())
        >>> log["users"], log["items"] > 0
        (0, True)
    """
    emptied = graph.emptied(retained)
    if not bool(emptied.any()):
        return {}
    old, new = linear_form(trained, graph), linear_form(model, retained)
    if old is None or new is None:
        return {"skipped": f"{type(model).__name__} does not propagate one table linearly"}
    given, objective = objective, with_affordable(objective, graph.num_interactions, negatives)
    samples = samples if objective == given else None
    parameter = model.get_parameter(new.parameter)
    risk: LinearRisk | None = None
    try:
        objective.samples(retained, mask=removed.nonzero().view(-1)[:0])  # an error if there is no loss of what remains
        known = known_of(trained, graph, objective)
        if known is None:
            before = LinearRisk(trained.get_parameter(old.parameter), old, objective, objective.samples(graph))
            gradient, encoded = before.gradient(before.parameters), before.at(before.parameters)[0]
            gradient = gradient.view_as(before.table)
            terms = before.table, gradient, encoded, Ridges(before, gradient)
        else:
            terms = known.risk.table, known.gradient, known.encoded, known.ridges
        log: dict[str, Any] = {"users": 0, "items": 0}
        for side, rows, ridge, noises in _linear_terms(graph, retained, removed, *terms, noise):
            log[side] = len(rows)
            local = around if around is not None and around.starts_at(objective, parameter, rows) else None
            if known is not None and local is None:
                local = Local.of(known, model, graph, retained, removed, rows)
            if known is None or local is None:
                if risk is None:
                    if known is not None and samples is None:
                        samples = retained_samples(objective, known.samples, graph, retained, removed)
                    samples = objective.samples(retained) if samples is None else samples
                    risk = LinearRisk(parameter, new, objective, samples)
                own = int(side == "items")
                others = redrawn_risk(risk, retained, own, rows - graph.sides[own].start) if len(noises) > 1 else None
                fitted, steps = fit_rows(risk, parameter, rows, ridge, noises, others, enough)
            else:
                part = local.problem.new
                assert isinstance(part, LinearRisk)
                rest = local.tilt.view_as(part.table)[local.rows] - known.gradient[rows]
                pulls = [rest + one for one in noises]
                fitted, steps = fit_rows(part, part.table, local.rows, ridge, pulls)
                steps["samples"] = len(part.samples)
            if journal is not None:
                journal.keep(parameter, rows)
            parameter[rows] = fitted
            log |= {f"ridge_{side}": ridge} | {f"{name}_{side}": steps[name] for name in steps}
    except ArgumentError as error:
        return {"skipped": f"the retained graph must {error.expected} (got {error.got})"}
    return log


def whole_noise(method: Any, log: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a method with a description, if its rejected step fitted neighbours of emptied nodes: all noise is kept.

    Args:
        method: The method, whose field ``_noise`` is passed to :func:`refit_neighbours`.
        log: The log of the step.
    """
    fitted = log.get("refit", {})
    if method._noise == "projected" and (fitted.get("users") or fitted.get("items")):
        other = copy.copy(method)
        other._noise = "whole"
        yield "the fit that keeps the noise of training", other


@torch.no_grad()
def first_step(
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    trained: tuple[Tensor, Tensor, Encoded, Ridges],
    now: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    r"""Return the step with which :func:`refit_neighbours` starts, with the diagonal of the curvature alone.

    .. math:: e_i \leftarrow e_i - (\operatorname{diag} H + \delta)^{-1}(\nabla_i R + \delta e_i - \nu_i)

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
        trained: The trained table and the gradient of its risk ``[num_nodes, dim]``, the final embeddings, and the
            ridges.
        now: The corrected table, the gradient of the retained risk and the diagonal of the curvature
            ``[num_nodes, dim]``.

    Returns:
        The step, zero in all rows that are not fitted ``[num_nodes, dim]``.
    """
    table, gradient, diagonal = now
    step = torch.zeros_like(table)
    for _, rows, ridge, (noise,) in _linear_terms(graph, retained, removed, *trained):
        step[rows] = (noise - gradient[rows] - ridge * table[rows]) / (diagonal[rows] + ridge)
    return step


def _linear_terms(
    graph: InteractionGraph,
    retained: InteractionGraph,
    removed: Tensor,
    table: Tensor,
    gradient: Tensor,
    encoded: Encoded,
    ridges: Ridges,
    noise: Noise = "projected",
) -> Iterator[tuple[str, Tensor, float, list[Tensor]]]:
    r"""Yield each side with neighbours of emptied nodes: rows, :math:`\delta`, and :math:`\nu`, projected first."""
    share = kept_share(graph, retained)
    for side, own, nodes, lost in _sides(graph, retained, removed):
        place = graph.sides[own]
        ridge = ridges(own, place)
        rows = nodes + place.start
        whole = gradient[rows] + ridge * table[rows]
        other, found = (encoded.items, encoded.queries)[own], [whole] if noise != "projected" else []
        if noise != "whole":
            parts = [without_span(whole[part], moment) for part, moment in moments(lost, own, nodes, other)]
            found.insert(0, torch.cat(parts))
        square = share[rows].to(table.dtype).square().unsqueeze(1)
        yield side, rows, ridge, [square * one for one in found]


def _sides(
    graph: InteractionGraph, retained: InteractionGraph, removed: Tensor
) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """Yield each side with neighbours of emptied nodes: its name and place, the neighbours, and what they lost."""
    gone = graph.emptied(retained).split([graph.num_users, graph.num_items])
    pairs = graph.pairs[:, removed.nonzero().view(-1)]
    for side, own in (("users", 0), ("items", 1)):
        lost = pairs[:, gone[1 - own][pairs[1 - own]]]
        nodes = lost[own].unique()
        nodes = nodes[~gone[own][nodes]]
        if len(nodes):
            yield side, own, nodes, lost


def neighbours_of_emptied(graph: InteractionGraph, retained: InteractionGraph, removed: Tensor) -> Tensor:
    """Return the nodes whose embeddings :func:`refit_neighbours` fits, ascending ``[num]``.

    Args:
        graph: The graph before forgetting.
        retained: The retained graph.
        removed: Mask of the forgotten interactions ``[num_interactions]``.
    """
    parts = [nodes + graph.sides[own].start for _, own, nodes, _ in _sides(graph, retained, removed)]
    return torch.cat(parts) if parts else graph.pairs.new_empty(0)


def redrawn_risk(
    risk: LinearRisk, retained: InteractionGraph, own: int, nodes: Tensor, total: Callable[[float], float] = float
) -> LinearRisk:
    """Return the risk of the retained interactions of some nodes, with other negatives than those of a risk.

    Args:
        risk: The risk.
        retained: The retained graph.
        own: The side of the nodes: 0 for users, 1 for items.
        nodes: The nodes, in the numbering of their side ``[num]``.
        total: A function that adds up a number over all processes that hold interactions.

    Returns:
        The risk of about 16,384 of these interactions, evenly spaced, or of all if there are fewer; the risk itself if
        its loss draws no negatives.
    """
    if not isinstance(risk.objective, Sampled):
        return risk
    inside = torch.zeros((retained.num_users, retained.num_items)[own], dtype=torch.bool, device=nodes.device)
    inside[nodes] = True
    chosen = inside[retained.pairs[own]].nonzero().view(-1)
    chosen = chosen[:: max(1, -(-int(total(len(chosen))) // _OTHERS))]
    return risk.of(risk.objective, risk.objective.samples(retained, mask=chosen, epoch=0))


def fit_rows(
    risk: LinearRisk,
    table: Tensor,
    rows: Tensor,
    ridge: float,
    noises: Sequence[Tensor],
    others: LinearRisk | None = None,
    enough: Callable[[Tensor], bool] | None = None,
    dot: Dot | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return the rows of :func:`minimise` with the first linear term, or with another where the first does harm.

    Without another term, the first is taken. Otherwise, if a risk rises by more than 1.25 % with the first fit, the
    fit with which it rises least is taken.

    Args:
        risk: The risk.
        table: The table, whose other rows are fixed ``[num_nodes, dim]``.
        rows: The numbers of the rows ``[num]``.
        ridge: The ridge.
        noises: The linear terms, each ``[num, dim]``: one or two.
        others: The risk that must not rise (:func:`redrawn_risk`); by default the one that is minimised.
        enough: As in :func:`minimise`.
        dot: As in :func:`minimise`.

    Returns:
        The rows ``[num, dim]``; and the log of :func:`minimise`, which has the rise as a share of the risk and whether
        the first linear term was taken if there are two.
    """
    if len(noises) == 1:
        return minimise(risk, table, rows, ridge, noises[0], enough, dot)
    others, before = others or risk, table.detach()
    first = others.value(before.flatten())
    tried: list[tuple[Tensor, dict[str, Any]]] = []
    for noise, projected in zip(noises, (True, False)):
        found, log = minimise(risk, table, rows, ridge, noise, enough, dot)
        rise = (others.value(before.index_copy(0, rows, found).flatten()) - first) / max(abs(first), 1e-30)
        tried.append((found, log | {"rise": rise, "projected": projected}))
        if rise <= _RISE:
            break
    return min(tried, key=lambda one: one[1]["rise"])


def minimise(
    risk: LinearRisk,
    table: Tensor,
    rows: Tensor,
    ridge: float,
    noise: Tensor,
    enough: Callable[[Tensor], bool] | None = None,
    dot: Dot | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Return the rows that minimise the risk with a ridge and a linear term, from those of ``table``; and a log.

    Args:
        risk: The risk.
        table: The table, whose other rows are fixed ``[num_nodes, dim]``.
        rows: The numbers of the rows ``[num]``.
        ridge: The ridge.
        noise: The linear term ``[num, dim]``.
        enough: Whether a solution may stop at a residual above the tolerance, called with what the table lacks.
        dot: Inner product of two vectors of these rows, if several processes hold them.
    """
    whole, curved = table.detach().clone(), risk.with_negatives(CURVATURE_NEGATIVES)
    total = dot or inner

    def place(v: Tensor) -> Tensor:
        return torch.zeros_like(whole).index_copy_(0, rows, v.view_as(noise)).flatten()

    def own(v: Tensor) -> Tensor:
        return v.view_as(whole)[rows].flatten()

    def at(x: Tensor) -> Tensor:
        return whole.index_copy(0, rows, x.view_as(noise)).flatten()

    def value(x: Tensor, theta: Tensor) -> float:
        return risk.value(theta) + 0.5 * ridge * total(x, x) - total(noise.flatten(), x)

    x = own(whole)
    theta = at(x)
    lengths: list[float] = []
    products: list[int] = []
    best = value(x, theta)
    for _ in range(_STEPS):
        slope = own(risk.gradient(theta)) + ridge * x - noise.flatten()  # with the margins of its value
        curvature, inverse = curved.curvature(theta), 1 / (own(curved.jacobi(theta)) + ridge)
        product = partial(restricted, curvature, place, own)
        solved = conjugate_gradients(
            product,
            -slope,
            damping=ridge,
            preconditioner=partial(torch.mul, inverse),
            tol=_TOLERANCE,
            max_iter=_PRODUCTS,
            dot=dot,
            enough=None if enough is None else lambda left: enough(place(left)),
        )
        if enough is not None and not solved.iterations:
            break
        products.append(solved.iterations)
        lengths.append(0.0)
        for length in _LENGTHS:
            moved = x + length * solved.x
            there = at(moved)
            reached = value(moved, there)
            if reached < best:
                x, theta, best, lengths[-1] = moved, there, reached, length
                break
        if not lengths[-1]:
            break
    return x.view_as(noise), {"lengths": lengths, "products": products}
