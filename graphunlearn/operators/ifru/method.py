"""IFRU: influence-function unlearning that includes the spillover through neighbourhood aggregation."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import KrylovSpace, conjugate_gradients, lanczos
from graphunlearn.nn.encoding import linear_form, num_hops
from graphunlearn.nn.risk import LinearRisk
from graphunlearn.nn.training.objective import Objective, Sampled, default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.ifru.active_rows import Step, step_on_rows
from graphunlearn.operators.ifru.nearby import AROUND, Nearby
from graphunlearn.operators.ifru.prepared import Prepared, Stopping
from graphunlearn.operators.ifru.pruning import error_in_full, local_problem, pruned_nodes, write
from graphunlearn.operators.ifru.settling import kept_tilt, partly_kept, settled
from graphunlearn.operators.shared.checks import check, check_choices
from graphunlearn.operators.shared.correction import (
    Tilted,
    adam_quadratic,
    equivalent_ridge,
    inverse_diagonal,
    sampled_ridge,
)
from graphunlearn.operators.shared.noise import SHARE
from graphunlearn.operators.shared.refit import refit_neighbours
from graphunlearn.operators.shared.right_hand_side import Problem, global_problem, with_affordable
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["IFRU"]

CURVATURES, SOLVERS = ("gauss-newton", "absolute", "hessian"), ("auto", "cg", "krylov", "adam")
_HARDER = (5.0, 25.0)  # factors of the damping, if a step is not accepted
_RULES: WeakKeyDictionary[nn.Module, Stopping] = WeakKeyDictionary()  # of models until their neighbours are fitted


@dataclass(kw_only=True)
class IFRU(Unlearner):
    r"""Correct the parameters by the influence of the forget set, both direct and through the graph.

    Let :math:`R(\theta; D, G) = \sum_{z \in D}\ell(z; \theta, G)` be the training risk, :math:`\hat\theta` the trained
    parameters, :math:`D_k` the retained interactions and :math:`G_k` the retained graph. The corrected parameters are

    .. math::
        \theta' = \theta_0 - (H + \delta I)^{-1}\,\nabla\Phi(\theta_0), \qquad
        \Phi(\theta) = R(\theta; D_k, G_k) - \langle\nabla R(\hat\theta; D, G), \theta\rangle .

    For :math:`\theta_0 = \hat\theta`, the right-hand side is the sum of the *direct* influence
    :math:`\sum_{z \in D_r}\nabla\ell(z; \hat\theta, G)` of the forget set :math:`D_r` and the *spillover*
    :math:`\sum_{z \in D_c}[\nabla\ell(z; \hat\theta, G) - \nabla\ell(z; \hat\theta, G_k)]` over the retained
    interactions :math:`D_c` whose scores change with the graph. :math:`H` is the curvature of the retained risk at
    :math:`\theta_0` on :math:`G_k`, including the propagation.

    Where the source leaves a choice open, this implementation decides as follows:

    * The default curvature is Gauss–Newton, because the Hessian is indefinite at an early-stopped model.
    * The damping is the ridge that is equivalent to early stopping,
      :math:`\delta = \max(\delta_{\min}, -\langle\nabla R(\hat\theta), \hat\theta\rangle/\|\hat\theta\|^2)`. For
      a loss of labels (one without drawn negatives) and a model that propagates linearly, it is the larger ratio
      :math:`\|\nabla R(\hat\theta)\|/\|\hat\theta\|`. For a model that does not propagate linearly, the ridge is
      raised until :math:`\Phi` falls by at least half of the predicted decrease.
      If the step is not accepted (:class:`~graphunlearn.operators.shared.acceptance.Acceptance`), the start
      is not scaled, and :math:`\delta` is raised by factors of three until the norm of :math:`\nabla\Phi` after the
      step no longer falls. If that is not accepted either, 5 and 25 times the first damping are tried.
    * The embeddings of the start :math:`\theta_0` are scaled by the share of interactions that each node keeps.
    * The tilt holds what forgotten users pulled their items to, so the step leaves a part of it; these items are then
      fitted to what remains.
    * What is left to do is left out where it moves probabilities by less than a share of the noise of training
      (:class:`~graphunlearn.operators.ifru.prepared.Stopping`).
    * The gradients use more negatives than one training epoch draws, because training that redraws its negatives every
      epoch minimises the expected loss.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        curvature: ``"gauss-newton"``; ``"absolute"``, the Hessian with its eigenvalues replaced by their absolute
            values; or ``"hessian"``, the unmodified Hessian.
        damping: The damping :math:`\delta`; ``None`` chooses it automatically.
        min_damping: The smallest damping that the automatic choice may return.
        spillover: Whether the right-hand side includes the spillover in addition to the direct influence.
        propagation: Whether the curvature accounts for the propagation of the embedding table.
        warm_start: Whether to start from embeddings scaled by the share of interactions kept. Embeddings of nodes
            without any retained interaction are redrawn in either case.
        refit: Whether to fit the items of emptied users, and the users of emptied items, to what remains after an
            accepted step (:func:`~graphunlearn.operators.shared.refit.refit_neighbours`), unless ``prune`` is given.
        settle: Whether partly forgotten nodes take more steps (:func:`~graphunlearn.operators.ifru.settling.settled`).
        negatives: Negatives per interaction in the gradients; ``None`` takes up to 64 within a budget of two million
            draws. The curvature uses the first 16 of them.
        prune: Share of the nodes within reach of the removed interactions whose embeddings are not corrected; ``None``
            corrects all embeddings. Nodes that lose interactions always count as corrected, so that at least as many
            embeddings as such nodes may change. Which ones do is decided by their residual: those with the largest
            right-hand side first, then those with the largest residual of the full system.
            The quadratic model falls with every embedding that is added, and the step is shortened, or not taken,
            unless :math:`\Phi` falls. ``log["relative_error"]`` tells how much of the full system is left unsolved.
        min_degree_change: With ``prune``, nodes that lose no more than this share of their interactions do not count
            towards the number of embeddings that may change.
        max_steps: Largest number of linearisations. A further one is made only while the decrease of :math:`\Phi`
            is at least the predicted decrease and the norm of its gradient keeps falling.
        within_noise: Share of the noise of training in probabilities that the linear solver and the fit of the
            neighbours of emptied nodes may leave; 0 solves every system to ``tol``. It applies to losses that draw
            negatives, models that propagate linearly, and the default solver without ``prune``.
        solver: ``"cg"`` (preconditioned conjugate gradients), ``"krylov"`` (Lanczos) or ``"adam"`` (a fixed number of
            steps). ``"auto"`` selects ``"krylov"`` for the ``"absolute"`` curvature, which has no matrix-vector
            product, and ``"cg"`` otherwise.
        tol: Relative residual at which the linear solver stops; half of it where ``within_noise`` applies, since that
            solver is preconditioned in other axes and leaves more movement at the same residual.
        max_iter: Largest number of curvature products per linearisation.
        solver_lr: Step size of Adam, as a multiple of one over the number of retained interactions.
        seed: Seed of redrawn embeddings.

    Source: Zhang et al., "Recommendation Unlearning via Influence Function", arXiv 2307.02147.

    Example:
        >>> import torch, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> _ = gu.fit(model, graph, epochs=5)
        >>> result = gu.IFRU().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> int((result.graph.pairs[0] == 3).sum())
        0
    """

    name: ClassVar[str] = "ifru"
    checks_loss: ClassVar[bool] = True
    solves_tilted: ClassVar[bool] = True
    _by_importance: ClassVar[bool] = False
    objective: Objective | None = None
    curvature: Literal["gauss-newton", "absolute", "hessian"] = "gauss-newton"
    damping: float | None = None
    min_damping: float = 0.01
    spillover: bool = True
    propagation: bool = True
    warm_start: bool = True
    refit: bool = True
    settle: bool = False
    negatives: int | None = None
    prune: float | None = None
    min_degree_change: float = 0.0
    max_steps: int = 1
    within_noise: float = SHARE
    solver: Literal["auto", "cg", "krylov", "adam"] = "auto"
    tol: float = 0.05
    max_iter: int = 40
    solver_lr: float = 1e4
    seed: int = 0
    _least_gradient: bool = field(default=False, init=False, repr=False, compare=False)
    _prepared: Prepared | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choices(CURVATURES, curvature=self.curvature)
        check_choices(SOLVERS, solver=self.solver)
        dampings = {"damping": self.damping, "min_damping": self.min_damping}
        check("not be negative", lambda value: value is None or 0 <= value < math.inf, **dampings)
        check("be a quantile in [0, 1)", lambda value: value is None or 0 <= value < 1, prune=self.prune)
        shares = {"min_degree_change": self.min_degree_change, "within_noise": self.within_noise}
        check("be a share in [0, 1)", lambda value: 0 <= value < 1, **shares)
        check("be positive", lambda value: 0 < value < math.inf, tol=self.tol, solver_lr=self.solver_lr)
        if self.curvature == "absolute" and self.solver in ("cg", "adam"):
            raise ArgumentError("solver", "be 'krylov' for curvature 'absolute'", f"{self.solver!r}")
        conjugate = self.curvature != "absolute" and self.solver in ("auto", "cg")
        if self.prune is not None and not self._by_importance and not conjugate:
            got = f"{self.prune} with curvature {self.curvature!r} and solver {self.solver!r}"
            raise ArgumentError("prune", "be None unless conjugate gradients solve the system", got)
        check("be False unless one default step is made", lambda value: not value or self._default, settle=self.settle)
        counts = {"max_steps": self.max_steps, "max_iter": self.max_iter, "negatives": self.negatives}
        check("be at least 1", lambda value: value is None or value >= 1, **counts)

    def _prepare(
        self, model: nn.Module, graph: InteractionGraph, checkpoint: Path | None, progress: bool | None
    ) -> None:
        """Compute the samples and the gradient at the trained model, which do not depend on the request."""
        self._prepared = Prepared.of(model, graph, self._objective(graph), self.min_damping)

    def _objective(self, graph: InteractionGraph) -> Objective:
        objective = self.objective or default_objective(graph)
        if self.negatives and isinstance(objective, Sampled):
            return objective.with_negatives(self.negatives)
        return with_affordable(objective, graph.num_interactions)

    def _problem(
        self,
        model: nn.Module,
        graph: InteractionGraph,
        retained: InteractionGraph,
        request: ForgetRequest,
    ) -> tuple[Problem, nn.Module, Tensor, Stopping | None, dict[str, Any]]:
        """Return the problem, the model that the correction starts from, the tilt, the stopping rule and the log."""
        objective, removed = self._objective(graph), request.mask(graph)
        started = copy.deepcopy(model)
        log: dict[str, Any] = {}
        log["touched_rows"] = warm_start(started, graph, retained, self.seed, scale=self.warm_start)
        log["emptied_nodes"] = int(graph.emptied(retained).sum())
        kept = None
        if self.prune is not None:
            hops = num_hops(model, graph)
            kept, log["pruning"] = pruned_nodes(graph, removed, hops, self.prune, self.min_degree_change)
            if len(kept) == 0:
                warnings.warn("pruning left no node to correct; lower 'prune' or 'min_degree_change'", stacklevel=5)
            if self._by_importance and linear_form(model, graph) is not None:
                problem = local_problem(model, started, graph, retained, removed, objective, kept)
                if self.damping is None:
                    log["ridge"] = sampled_ridge(model, graph, objective)
                return problem, started, problem.tilt(), None, log
            if not self._by_importance and len(kept):
                kept = None  # this limits the number of embeddings; the residual decides which
                del log["pruning"]["importance_kept"]
        prepared = self._known(model, graph, objective)
        samples = objective.samples(graph) if prepared is None else prepared.samples
        problem = global_problem(model, started, graph, retained, removed, objective, kept, samples)
        if prepared is None:
            return problem, started, problem.tilt(), None, log
        share = self.within_noise if self._measures else 0.0
        rule = Stopping.of(problem, prepared, graph, retained, removed, share)
        return problem, started, problem.tilt(prepared.tilt.clone()), rule, log

    def _known(self, model: nn.Module, graph: InteractionGraph, objective: Objective) -> Prepared | None:
        """Return what is known of the trained model; it is computed, and kept, where it saves work."""
        prepared = self._prepared
        if prepared is not None and prepared.serves(model, graph, objective):
            return prepared
        if not self._measures:
            return None
        self._prepared = prepared = Prepared.of(model, graph, objective, self.min_damping)
        return prepared

    def _nearby(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor
    ) -> dict[str, Any] | None:
        """Correct the rows around a small request, and return the log; ``None`` if the whole system is solved."""
        if not self._measures or self._least_gradient or len(self._settling(graph, retained, removed)):
            return None
        prepared = self._known(model, graph, self._objective(graph))
        assert prepared is not None  # what is left to do is measured
        dampings, start = (self.damping, self.min_damping), (self.warm_start, self.refit)
        near = Nearby(prepared, self.within_noise, *dampings, *start, self.max_iter, self.seed)
        return near.correct(model, graph, retained, removed)

    @property
    def _measures(self) -> bool:
        """Whether what is left to do is measured in probabilities, so that the solver may stop."""
        return bool(self.within_noise) and self._default and self.solver in ("auto", "cg")

    @property
    def _default(self) -> bool:
        """Whether one step with the default curvature is made in all embeddings."""
        once = self.curvature == "gauss-newton" and self.max_steps == 1 and self.prune is None
        return once and self.propagation and self.spillover

    def _settling(self, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor) -> Tensor:
        """Return the nodes in whose embeddings further steps are made."""
        taken = self.settle and self._default
        return partly_kept(graph, retained, removed, self.refit) if taken else graph.pairs.new_empty(0)

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        _ = _RULES.pop(model, None), AROUND.pop(model, None)  # a step that was refused, or not judged, leaves its own
        if (log := self._nearby(model, graph, retained, request.mask(graph))) is not None:
            return log
        tilted, started, slope, damping, rule, log = self._settle(model, graph, retained, request)
        problem, theta = tilted.problem, tilted.problem.start
        most = 0 if self.prune is None or self._by_importance else log["pruning"]["nodes_kept"]
        steps: list[dict[str, float]] = []
        done: Step | None = None
        value = tilted.value(theta) if self.max_steps > 1 or most else 0.0
        for _ in range(self.max_steps):
            if float((rhs := -slope if self.spillover or steps else problem.direct_gradient()).norm()) == 0:
                break
            if most:
                product = problem.product(theta, self.curvature, propagation=self.propagation)
                limits: dict[str, Any] = {"tol": self.tol, "max_iter": self.max_iter, "line_search": self.spillover}
                done, chosen = step_on_rows(tilted, product, theta, rhs, damping, most, value, **limits)
                log["pruning"]["nodes_kept"] = len(chosen)
            else:
                done = self._step(problem, theta, rhs, damping, rule)
            steps.append(dict(done.log))
            moved = theta + done.x
            if self.max_steps == 1:
                theta = moved
                break
            gradient, after = tilted.gradient(moved), tilted.value(moved)
            rho, fall = (value - after) / max(done.predicted, 1e-30), float(gradient.norm() / slope.norm())
            steps[-1] |= {"rho": rho, "tilted_residual": fall}
            if len(steps) > 1 and (after > value or fall >= 1):
                break  # the last step did not help: keep the previous parameters
            theta, slope, value = moved, gradient, after
            if rho < 1 or fall >= 1:
                break
        if done is not None:
            log |= {"relative_error": done.log["residual"], "relative_error_estimated": self.curvature == "absolute"}
            if self._by_importance:
                whole = global_problem(
                    model, started, graph, retained, request.mask(graph), self._objective(graph), None
                )
                rhs = -Tilted(whole, whole.tilt()).gradient(whole.start) if self.spillover else whole.direct_gradient()
                product = whole.product(whole.start, self.curvature)
                log["relative_error"] = error_in_full(whole, problem, theta - problem.start, product, rhs, damping)
        if done is not None and len(nodes := self._settling(graph, retained, request.mask(graph))):
            theta, log["settled"] = settled(tilted, theta, nodes, damping, self.tol, self.max_iter, rule)
        if rule is not None:
            log["within_noise"] = {"noise": rule.prepared.noise, "limit": rule.limit}
        if rule is not None and log["emptied_nodes"]:
            _RULES[model] = rule
        write(model, started, graph, problem, theta)
        if done is not None and not done.converged and self.solver != "adam":
            warnings.warn(
                f"the influence system was solved to a relative residual of {done.log['residual']:.2g}, not "
                f"{self.tol:g}, in {done.log['iterations']} products; raise 'max_iter' or 'damping'",
                stacklevel=3,
            )
        return log | {"curvature": self.curvature, "steps": steps}

    def _finish(self, model: Any, before: Any, graph: Any, retained: Any, request: Any, journal: Any) -> Any:
        if not self.refit or self.prune is not None or not bool(graph.emptied(retained).any()):
            return {}
        removed, rule, around = request.mask(graph), _RULES.pop(model, None), AROUND.pop(model, None)
        given = model, before, graph, retained, removed, self._objective(graph)
        if rule is None:
            return {"refit": refit_neighbours(*given, around=around, noise="judged", journal=journal)}
        if (movement := rule.of_refit(model, graph, retained, removed)) <= rule.limit:
            return {"refit": {"skipped": "it would move probabilities by less than the noise", "movement": movement}}
        options: dict[str, Any] = {"samples": rule.problem.new.samples, "enough": rule.enough}
        return {"refit": refit_neighbours(*given, **options, noise="judged", journal=journal)}

    def milder(self, log: dict[str, Any]) -> Iterator[tuple[str, Unlearner]]:
        """Yield variants that start from embeddings that are not scaled, with more and more damping.

        Args:
            log: The log of the step.
        """
        plain = copy.copy(self)
        plain.warm_start = False
        if self.damping is None and self.prune is None and self.spillover and self.solver != "adam":
            least = copy.copy(plain)
            least._least_gradient = True
            yield "without the scaled start, damping by the least gradient", least
        elif self.warm_start:
            yield "without the scaled start", plain
        for factor in _HARDER:
            other = copy.copy(plain)
            other.damping = factor * max(log["damping"], self.min_damping)
            yield f"without the scaled start, damping {other.damping:.3g}", other

    def _settle(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> tuple[Tilted, nn.Module, Tensor, float, Stopping | None, dict[str, Any]]:
        r"""Return what the first step needs: :math:`\Phi`, start, gradient, damping and stopping rule; and the log."""
        problem, started, tilt, rule, log = self._problem(model, graph, retained, request)
        tilted = Tilted(problem, tilt)
        slope = tilted.gradient(problem.start)
        damping, log = self._damping(tilted, slope, log)
        if len(nodes := self._settling(graph, retained, request.mask(graph))):
            kept = kept_tilt(problem, tilt, graph, retained, nodes)
            tilted, slope = Tilted(problem, kept), slope + tilt - kept
        if self._least_gradient and float(slope.norm()) > 0:
            space = self._space(problem, problem.start, -slope, damping)
            damping, left = tilted.least_gradient(problem.start, slope, space, damping, self.curvature == "absolute")
            log |= {"damping": damping, "damping_rule": "gradient", "gradient_left": left}
        return tilted, started, slope, damping, rule, log

    def _damping(self, tilted: Tilted, slope: Tensor, log: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        if self.damping is not None:
            return self.damping, log | {"damping": self.damping, "damping_rule": "given"}
        if "ridge" not in log:
            log["ridge"], log["ridge_cosine"] = equivalent_ridge(tilted.problem, tilted.tilt)
        damping = max(self.min_damping, log["ridge"])
        curved = tilted.problem.curved
        if isinstance(curved, LinearRisk) and not isinstance(curved.objective, Sampled) and log["ridge_cosine"] > 0:
            damping = max(damping, log["ridge"] / log["ridge_cosine"])  # the ratio of both norms
            return damping, log | {"damping": damping, "damping_rule": "norms"}
        if isinstance(curved, LinearRisk) or float(slope.norm()) == 0:
            return damping, log | {"damping": damping, "damping_rule": "ridge"}
        space = self._space(tilted.problem, tilted.problem.start, -slope, damping)
        damping, rho = tilted.trusted(tilted.problem.start, space, damping, self.curvature == "absolute")
        return damping, log | {"damping": damping, "damping_rule": "trust", "rho": rho}

    def _space(self, problem: Problem, theta: Tensor, rhs: Tensor, damping: float) -> KrylovSpace:
        """Return the Krylov space that contains the steps from ``theta`` for ``damping`` and every larger damping."""
        product = problem.product(theta, self.curvature, propagation=self.propagation)
        absolute = self.curvature == "absolute"
        return lanczos(product, rhs, damping=damping, tol=self.tol, max_iter=self.max_iter, absolute=absolute)

    def _step(self, problem: Problem, theta: Tensor, rhs: Tensor, damping: float, rule: Stopping | None = None) -> Step:
        """Return the step in all free parameters."""
        absolute = self.curvature == "absolute"
        if absolute or self.solver == "krylov":
            space = self._space(problem, theta, rhs, damping)
            decrease = space.predicted_decrease(damping, absolute=absolute)
            return Step.of(space.solve(damping, self.tol, absolute=absolute), decrease)
        product = problem.product(theta, self.curvature, propagation=self.propagation)
        if self.solver == "adam":
            lr = self.solver_lr / max(len(problem.new.samples), 1)
            solution = adam_quadratic(product, rhs, damping, lr, self.max_iter)
        else:
            solution = conjugate_gradients(
                product,
                rhs,
                damping=damping,
                preconditioner=inverse_diagonal(problem, theta, damping) if rule is None else rule.inverse(damping),
                tol=self.tol if rule is None else self.tol / 2,  # rotated axes leave more at the same residual
                max_iter=self.max_iter,
                enough=None if rule is None else rule.seldom(),
            )
        along, square = float(rhs.double() @ solution.x.double()), float(solution.x.double().square().sum())
        return Step.of(solution, 0.5 * (along + damping * square))  # at the solution, x'Hx = b'x - damping x'x

    def figures(
        self, model: nn.Module, graph: InteractionGraph | SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        """Return the curve that the automatic choice of the damping is based on.

        Args:
            model: The trained model; it is not changed.
            graph: The training graph of the model.
            request: The request to forget.

        Returns:
            ``{"damping": curve}`` with the curve of :meth:`damping_curve`; empty if the damping was given or the
            solver is ``"adam"``.
        """
        if self.damping is not None or self.solver == "adam":
            return {}
        assert isinstance(graph, InteractionGraph)
        return {"damping": self.damping_curve(model, graph, request)}

    def damping_curve(
        self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest, dampings: list[float] | None = None
    ) -> dict[str, Any]:
        r"""Return :math:`\rho` and both residuals as functions of the damping, and the damping chosen automatically.

        Args:
            model: The trained model; it is not changed.
            graph: The training graph of the model.
            request: The request to forget.
            dampings: Dampings to evaluate; by default nine values from a tenth to ten times the chosen damping.

        Returns:
            The lists ``"damping"``, ``"rho"``, ``"residual"`` and ``"plain_residual"``, and the number ``"chosen"``.
            The lists are empty if the gradient is zero.
        """
        retained, _ = graph.split(request)
        tilted, _, slope, chosen, _, _ = self._settle(model, graph, retained, request)
        problem, absolute = tilted.problem, self.curvature == "absolute"
        dampings = dampings or [chosen * 10 ** (k / 4) for k in range(-4, 5)]
        if float(slope.norm()) == 0:
            return {"damping": [], "rho": [], "residual": [], "plain_residual": [], "chosen": chosen}
        space = self._space(problem, problem.start, -slope, min(dampings))
        return tilted.curve(problem.start, space, dampings, absolute) | {"chosen": chosen}
