"""CEU and IDEA: one Newton step with a certificate where the assumptions hold, and an influence step elsewhere."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.func import conjugate_gradients
from graphunlearn.nn.risk import Risk
from graphunlearn.nn.training.objective import BCE, BPR, Objective, SquaredError
from graphunlearn.operators.published.influence_step import InfluenceStep, difference
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.right_hand_side import Problem

__all__ = ["CEU", "IDEA", "strong_convexity"]

_SAME = {torch.float64: 1e-8, torch.float32: 1e-3}  # largest relative difference that rounding explains


@dataclass(kw_only=True)
class _NewtonStep(InfluenceStep):
    """One Newton step whose remaining gradient is measured."""

    tol: float = 1e-6
    epsilon: float = 0.1
    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check("be positive", lambda value: value > 0, tol=self.tol)
        check("be between 0 and 1", lambda value: 0 < value < 1, epsilon=self.epsilon, delta=self.delta)

    def _step(
        self, problem: Problem, model: nn.Module, graph: Any, retained: Any, removed: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        (rhs, tilt), damping = difference(problem), self._damping(problem, graph)
        product = problem.new.curvature(problem.start, self.curvature)
        solved = conjugate_gradients(product, rhs, damping=damping, tol=self.tol, max_iter=self.max_iter)
        theta = problem.start + solved.x
        left = float((problem.new.gradient(theta) - tilt).norm())
        convexity, missing = strong_convexity(problem.new, problem.gone)
        theta, log = self._certify(theta, problem.gone, left, convexity, missing)
        log = {"epsilon": self.epsilon, "delta": self.delta, "gradient_left": left} | log
        return theta, {"iterations": solved.iterations, "residual": solved.residual, "certificate": log}

    @abstractmethod
    def _certify(
        self, theta: Tensor, gone: Tensor | None, left: float, convexity: float, missing: list[str]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the parameters to serve, and what is certified of them."""


@dataclass(kw_only=True)
class CEU(_NewtonStep):
    r"""Make one Newton step against the change of the gradient, with the certificate of noise in the training loss.

    .. math::
        \theta' = \theta + (H + \delta I)^{-1}[\nabla R(\theta; D, G) - \nabla R(\theta; D_k, G_k)]

    The certificate is one of :math:`(\epsilon, \delta)`: the corrected model cannot be told from a retrained one if the
    training loss contained a term :math:`\langle b, \theta\rangle` with normal :math:`b` of standard deviation at
    least :math:`\sigma = c\,\epsilon' / \epsilon`, where :math:`c = \sqrt{2\ln(1.5/\delta)}` and :math:`\epsilon'` is
    the norm of the gradient that the step leaves. It holds only for a strongly convex risk, and for training that has
    converged. Recommenders whose scores are products of two learned embeddings are not convex, so there the method is
    an influence step and ``log["certificate"]["holds"]`` is false, with the reasons in ``"missing"``.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        curvature: ``"gauss-newton"``, which is positive semi-definite, or ``"hessian"``, which is exact and indefinite
            at a model that was stopped early; the two are equal where the assumptions of the certificate hold.
        damping: The damping in the system, which is not part of the training loss; ``None`` selects .01 for
            interactions and, for sessions, .01 per prediction that remains, which is .01 for the mean loss.
        tol: Relative residual at which conjugate gradients stop.
        max_iter: Largest number of curvature products.
        epsilon: The :math:`\epsilon` of the certificate.
        delta: The :math:`\delta` of the certificate.
        training_noise: Standard deviation of :math:`b` in the loss that the model was trained with.
        hessian_samples: For sessions, largest number of predictions that the curvature is computed from.
        seed: Seed of these predictions and of redrawn embeddings.

    Source: Wu et al., "Certified Edge Unlearning for Graph Neural Networks", KDD 2023, from its abstract and a port.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = CEU().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["certificate"]["holds"], result.log["certificate"]["missing"][0]
        (False, 'scores are not linear in the parameters')
    """

    name: ClassVar[str] = "ceu"
    training_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("be finite and not negative", lambda value: 0 <= value < math.inf, training_noise=self.training_noise)

    def _certify(
        self, theta: Tensor, gone: Tensor | None, left: float, convexity: float, missing: list[str]
    ) -> tuple[Tensor, dict[str, Any]]:
        needed = math.sqrt(2 * math.log(1.5 / self.delta)) * left / self.epsilon
        if self.training_noise < needed or self.training_noise == 0:
            missing = [*missing, f"the training loss must contain noise of {needed:.3g} (got {self.training_noise:g})"]
        log = {"sigma": self.training_noise, "sigma_needed": needed, "strong_convexity": convexity}
        return theta, log | {"holds": not missing, "missing": missing}


@dataclass(kw_only=True)
class IDEA(_NewtonStep):
    r"""Make one Newton step against the change of the gradient, and add noise where the distance can be bounded.

    The step is that of :class:`CEU`; the source writes it with mean losses. If the risk is strongly convex with the
    constant :math:`\mu`, the step ends at most :math:`\|\nabla\Phi(\theta')\| / \mu` from the retrained parameters,
    where :math:`\nabla\Phi` is the gradient that it leaves. Normal noise of the standard deviation

    .. math::
        \sigma = \frac{\|\nabla\Phi(\theta')\|}{\mu\,\epsilon} \sqrt{2\ln(1.25/\delta)}

    then hides the difference (Gaussian mechanism). Where the risk is not strongly convex there is no bound: no noise
    is added, nothing is certified, and the method is the influence step alone.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        curvature: ``"gauss-newton"``, which is positive semi-definite, or ``"hessian"``, which is exact and indefinite
            at a model that was stopped early; the two are equal where the assumptions of the certificate hold.
        damping: The damping in the system, which is not part of the training loss; ``None`` selects .01 for
            interactions and, for sessions, .01 per prediction that remains, which is .01 for the mean loss.
        tol: Relative residual at which conjugate gradients stop.
        max_iter: Largest number of curvature products.
        epsilon: The :math:`\epsilon` of the certificate.
        delta: The :math:`\delta` of the certificate.
        noise: Standard deviation :math:`\sigma` of the noise; ``None`` takes it from the bound, and 0 without a bound.
        hessian_samples: For sessions, largest number of predictions that the curvature is computed from.
        seed: Seed of these predictions, of redrawn embeddings and of the noise.

    Source: Dong et al., "IDEA: A Flexible Framework of Certified Unlearning for Graph Neural Networks", KDD 2024, from
    its abstract and a port; the bound is our own.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = IDEA().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["certificate"]["holds"], result.log["certificate"]["sigma"]
        (False, 0.0)
    """

    name: ClassVar[str] = "idea"
    noise: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check("be finite and not negative", lambda value: value is None or 0 <= value < math.inf, noise=self.noise)

    def _certify(
        self, theta: Tensor, gone: Tensor | None, left: float, convexity: float, missing: list[str]
    ) -> tuple[Tensor, dict[str, Any]]:
        bound = None if missing else left / convexity
        needed = None if bound is None else bound / self.epsilon * math.sqrt(2 * math.log(1.25 / self.delta))
        sigma = (needed or 0.0) if self.noise is None else self.noise
        if needed is not None and sigma < needed:
            missing = [*missing, f"the noise must be at least {needed:.3g} (got {sigma:g})"]
        generator = torch.Generator().manual_seed(self.seed)
        theta = theta + sigma * torch.randn(theta.numel(), generator=generator, dtype=torch.float64).to(theta)
        log = {"bound": bound, "sigma": sigma, "sigma_needed": needed, "strong_convexity": convexity}
        return theta, log | {"holds": not missing, "missing": missing}


def strong_convexity(risk: Risk, gone: Tensor | None = None) -> tuple[float, list[str]]:
    r"""Return a constant :math:`\mu` with :math:`\nabla^2 R \ge \mu I` everywhere, and what the proof of it lacks.

    The proof has three parts: the loss is convex in the scores, the scores are linear in the parameters, and every
    parameter is in the L2 penalty. The second is tested at a random point: the Hessian and the Gauss–Newton matrix
    agree on a random vector.

    Args:
        risk: The risk.
        gone: Mask of parameters that no sample depends on ``[num_parameters]``.

    Returns:
        The constant, 0 if there is no proof; and the assumptions that fail.
    """
    generator = torch.Generator().manual_seed(0)
    theta = risk.parameters
    point, v = torch.randn(2, theta.numel(), generator=generator, dtype=torch.float64).to(theta)
    exact, linearised = risk.curvature(point, "hessian")(v), risk.curvature(point, "gauss-newton")(v)
    missing = []
    if float((exact - linearised).norm()) > _SAME[theta.dtype] * float(exact.norm()):
        missing.append("scores are not linear in the parameters")
    objective, least = risk.objective, 0.0
    if isinstance(objective, Objective):
        if type(objective) not in (BPR, BCE, SquaredError):
            missing.append(f"{type(objective).__name__} is not known to be convex in the scores")
        least = _least_penalty(risk, objective, point, gone)
    if least == 0:
        missing.append("a parameter has no L2 penalty")
    return (0.0 if missing else least), missing


def _least_penalty(risk: Risk, objective: Objective, point: Tensor, gone: Tensor | None) -> float:
    """Return the smallest curvature of the L2 penalty in a parameter; 0 if the parameters are not what it acts on."""
    encoded = risk.encode(point)
    users = encoded.queries if encoded.query_base is None else encoded.query_base
    items = encoded.items if encoded.item_base is None else encoded.item_base
    penalised = torch.cat([users.flatten(), items.flatten()])
    if not torch.equal(penalised, point):
        return 0.0
    width = point.numel() // (users.size(0) + items.size(0))
    counts = objective.row_counts(risk.samples).repeat_interleave(width)
    return objective.weight_decay * float((counts if gone is None else counts[~gone]).min())
