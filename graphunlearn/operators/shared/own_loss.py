"""The check of the loss that a method is given: was the model plainly trained with another one?"""

from __future__ import annotations

from typing import Any

from torch import nn

from graphunlearn.data.schema import warn
from graphunlearn.errors import RejectedError
from graphunlearn.nn.identity import checksums
from graphunlearn.nn.loss_fit import DRAWS, FAR, NEAR, Stationarity, losses_by_fit, stationarity
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.objective import Objective, default_objective

__all__ = ["check_loss", "fitting_loss", "losses_apart", "name_of_loss", "objection_to_loss"]

_FEWEST = 1_000  # with fewer interactions, the gradients of any two losses can agree by chance
_BETTER = 0.5  # share of the residual that a better fit must stay below
_SEEN = "_losses_checked"  # where a method keeps what it has checked


def check_loss(method: Any, model: nn.Module, graph: Any) -> None:
    """Warn or raise if a model is far from stationary for the loss of a method and near stationary for another loss.

    Only methods with a true ``checks_loss`` are checked, each once per loss and model; a corrected model counts as
    checked. A model that is not near stationary for any loss, such as an untrained one, gives no warning. Graphs with
    fewer than 1,000 interactions are not checked. The warning is repeated in every call, unless ``on_rejection`` of the
    method is ``"keep"``.

    Args:
        method: The unlearning method.
        model: The model that it is given.
        graph: The graph that it is given.

    Raises:
        RejectedError: Another loss fits plainly better, and ``on_rejection`` of the method is ``"raise"``.
    """
    if not getattr(method, "checks_loss", False) or graph.kind != "interactions":
        return
    objective = method.objective or default_objective(graph)
    if not isinstance(objective, Objective) or not any(p.requires_grad for p in model.parameters()):
        return
    key, seen = _key(model, objective), method.__dict__.setdefault(_SEEN, {})
    known = key in seen
    if not known:
        if graph.num_interactions < _FEWEST:
            return
        seen[key] = _another(method, model, graph, objective)
    if seen[key] is None or (known and method.on_rejection == "keep"):
        return
    advice = "pass the loss that the model was trained with as 'objective'"
    if method.on_rejection == "raise":
        raise RejectedError(f"{seen[key][1]}; {advice}")
    unlinks = f"; {method.name} then only deletes the edges" if method.on_rejection == "unlink" else ""
    warn(f"{seen[key][1]}{unlinks}; {advice}")


def _another(method: Any, model: nn.Module, graph: Any, objective: Objective) -> tuple[Criterion, str] | None:
    """Return the loss that fits best and a sentence about it, if it fits plainly better than that of the method."""
    if stationarity(model, graph, objective).residual <= FAR:
        return None
    given, near = losses_apart(model, graph, objective)
    if not near:
        return None
    names = ", ".join(f"{name_of_loss(fit.objective)} ({fit.residual:.0%})" for fit in near)
    return near[0].objective, (
        f"the model does not look trained with {name_of_loss(objective)}, the loss that {method.name} uses: the "
        f"gradient is {given.residual:.0%} of that of shuffled pairs; losses that fit better: {names}, among "
        "which the order does not tell"
    )


def losses_apart(model: nn.Module, graph: Any, objective: Objective) -> tuple[Stationarity, list[Stationarity]]:
    """Return the fit of a loss, and of the losses that fit plainly better.

    Args:
        model: The model.
        graph: The graph that it was trained on; with fewer than 1,000 interactions, no loss counts as better.
        objective: The loss.

    Returns:
        The fit of the loss, and the better ones by ascending residual; none if the loss is not far from stationary, or
        if the best residual is above half of its residual.
    """
    given = stationarity(model, graph, objective, draws=DRAWS)
    if given.residual <= FAR or graph.num_interactions < _FEWEST:
        return given, []
    near = [fit for fit in losses_by_fit(model, graph) if fit.residual < NEAR]
    return given, near if near and near[0].residual < _BETTER * given.residual else []


def fitting_loss(method: Any, model: nn.Module, graph: Any) -> Criterion:
    """Return the loss that the risk of a model is measured with.

    Args:
        method: The unlearning method.
        model: The trained model.
        graph: Its training graph.

    Returns:
        The loss of the method, or the shared default; if the check of the method's loss found that the model was
        trained with another one, that loss.
    """
    found = _found(method, model, graph)
    return found[0] if found else getattr(method, "objective", None) or default_objective(graph)


def objection_to_loss(method: Any, model: nn.Module, graph: Any) -> str:
    """Return why a step with the loss of a method is not accepted: :func:`check_loss` found one that fits better.

    Args:
        method: The method.
        model: The trained model.
        graph: Its training graph.

    Returns:
        The reason; empty if there is none.
    """
    found = _found(method, model, graph)
    return found[1] if found else ""


def _found(method: Any, model: nn.Module, graph: Any) -> tuple[Criterion, str] | None:
    seen: dict[Any, tuple[Criterion, str] | None] = method.__dict__.get(_SEEN, {})
    return seen.get(_key(model, getattr(method, "objective", None) or default_objective(graph))) if seen else None


def pass_on_loss(method: Any, before: nn.Module, after: nn.Module, graph: Any) -> None:
    """Let a corrected model count as checked, with what was found for the model that it comes from.

    Args:
        method: The unlearning method.
        before: The model before the correction.
        after: The corrected model.
        graph: The training graph of the model before.
    """
    seen: dict[Any, Any] = method.__dict__.get(_SEEN, {})
    objective = getattr(method, "objective", None) or default_objective(graph)
    if seen and (key := _key(before, objective)) in seen:
        seen[_key(after, objective)] = seen[key]


def _key(model: nn.Module, objective: Any) -> tuple[Any, str]:
    return checksums(model), repr(objective)


def name_of_loss(objective: Objective) -> str:
    """Return the class of a loss, with the number of negatives where the loss depends on it.

    Args:
        objective: The loss.
    """
    negatives, name = getattr(objective, "negatives", None), type(objective).__name__
    return f"{name}(negatives={negatives})" if name == "SampledBCE" else name
