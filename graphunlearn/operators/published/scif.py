"""SCIF: replace the labels of forgotten interactions by neutral ones, in selected embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import conjugate_gradients
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.risk import Curvature, Risk, risk_of
from graphunlearn.nn.session_risk import SessionRisk
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples
from graphunlearn.nn.training.objective import BCE, BPR, Samples, SquaredError
from graphunlearn.nn.training.sampled import SampledBCE
from graphunlearn.operators.published.influence_step import InfluenceStep
from graphunlearn.operators.shared.checks import check, check_choices
from graphunlearn.operators.shared.correction import adam_quadratic
from graphunlearn.operators.shared.right_hand_side import Problem
from graphunlearn.operators.shared.warm_start import kept_share

__all__ = ["SCIF", "PublishedSCIF", "neutral_labels"]


@dataclass(kw_only=True)
class SCIF(InfluenceStep):
    r"""Replace the labels of forgotten interactions by neutral ones, by a step in selected embeddings.

    .. math::
        \theta' = \theta + (H + \delta I)^{-1} \sum_{(u,i) \in D_r}
            [\nabla\ell(\hat y_{ui}, y_{ui}) - \nabla\ell(\hat y_{ui}, \bar y_{ui})]

    :math:`H` is the curvature of the training risk on the graph before forgetting, since no interaction leaves it. The
    neutral label :math:`\bar y_{ui}` is the mean label of what the user keeps, else of what the item keeps, else of all
    that remains. For BPR it is a margin of 0, as likely as not; for sessions it is the frequency of every item among
    the retained next clicks. Both the gradient and the system are restricted to the embeddings of the selected nodes;
    parameters that belong to no node are always free.

    The source is about matrix factorisation. With propagation, more embeddings change than lose interactions, and the
    change of the graph itself is ignored; IFRU accounts for it.

    Args:
        objective: The loss that the model was trained with: BPR, BCE or SquaredError, and CrossEntropy for sessions;
            ``None`` selects the shared default.
        curvature: ``"gauss-newton"``, which is positive semi-definite, or ``"hessian"``, which is exact and indefinite
            at a model that was stopped early.
        damping: The damping :math:`\delta`; ``None`` selects .01 for interactions and, for sessions, .01 per prediction
            that remains, which is .01 for the mean loss.
        quantile: Nodes are selected whose share of removed interactions is at least this quantile of the shares of the
            nodes that lose any; ``None`` selects all nodes.
        solver: ``"cg"`` for conjugate gradients, or ``"adam"`` for a fixed number of Adam steps.
        tol: Relative residual at which conjugate gradients stop.
        max_iter: Largest number of curvature products.
        solver_lr: Step size of Adam, as a multiple of one over the number of samples.
        hessian_samples: For sessions, largest number of predictions that the curvature is computed from.
        seed: Seed of these predictions and of redrawn embeddings.

    Source: Li et al., "Selective and Collaborative Influence Function for Efficient Recommendation Unlearning", arXiv
    2304.10199, and its port in the public code of arXiv 2307.02147.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = SCIF().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["selected_nodes"]
        9
    """

    name: ClassVar[str] = "scif"
    quantile: float | None = 0.0
    solver: Literal["cg", "adam"] = "cg"
    tol: float = 1e-4
    solver_lr: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(("cg", "adam"), solver=self.solver)
        check("be a quantile in [0, 1)", lambda value: value is None or 0 <= value < 1, quantile=self.quantile)
        check("be positive", lambda value: value > 0, tol=self.tol, solver_lr=self.solver_lr)

    def _loss(self, graph: Any) -> Any:
        objective = super()._loss(graph)
        if type(objective) not in (BPR, BCE, SampledBCE, SquaredError, CrossEntropy):
            expected = "be BPR, BCE, SampledBCE or SquaredError, for which a neutral label is defined"
            raise ArgumentError("objective", expected, type(objective).__name__)
        return objective

    def _step(
        self, problem: Problem, model: nn.Module, graph: Any, retained: Any, removed: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        assert problem.rows is not None
        selected = _selected(graph, retained, self.quantile)
        free = torch.isin(problem.rows, selected.nonzero().view(-1)) | (problem.rows < 0)
        free = free.to(problem.trained.dtype)
        forgotten, theta = problem.direct(), problem.trained
        neutral = _neutral_risk(forgotten, model, graph, retained, removed)
        rhs = free * (forgotten.gradient(theta) - neutral.gradient(theta))
        product, damping = problem.old.curvature(theta, self.curvature), self._damping(problem, graph)
        restricted = lambda v: free * product(free * v)  # noqa: E731
        if self.solver == "adam":
            lr = self.solver_lr / max(len(problem.old.samples), 1)
            solved = adam_quadratic(restricted, rhs, damping, lr, self.max_iter) if rhs.any() else None
        else:
            options: dict[str, Any] = {"damping": damping, "tol": self.tol, "max_iter": self.max_iter}
            solved = conjugate_gradients(restricted, rhs, **options)
        after = theta if solved is None else theta + solved.x
        if problem.gone is not None:
            after = torch.where(problem.gone, problem.start, after)
        log: dict[str, Any] = {"selected_nodes": int(selected.sum())}
        if solved is not None:
            log |= {"iterations": solved.iterations, "residual": solved.residual}
        return after, log


@dataclass(kw_only=True)
class PublishedSCIF(SCIF):
    """SCIF with the choices of its public port: 60 % of the touched nodes, the undamped Hessian, and Adam.

    The port is about matrix factorisation, and its step size too large for the layers of session models, which are
    refused.

    The port keeps the step with the best validation AUC; here the number of steps, ``max_iter``, is fixed.
    """

    name: ClassVar[str] = "scif-published"
    kinds: ClassVar[tuple[str, ...]] = ("interactions",)
    quantile: float | None = 0.4
    curvature: Curvature = "hessian"
    damping: float | None = 0.0
    solver: Literal["cg", "adam"] = "adam"
    max_iter: int = 10


def _selected(graph: Any, retained: Any, quantile: float | None) -> Tensor:
    """Return the mask of the nodes whose embeddings may change ``[num_rows]``."""
    removed = 1 - kept_share(graph, retained)
    if quantile is None:
        return torch.ones_like(removed, dtype=torch.bool)
    touched = removed > 0
    return touched & (removed >= torch.quantile(removed[touched], quantile))


def neutral_labels(graph: InteractionGraph, labels: Tensor, removed: Tensor) -> Tensor:
    """Return the neutral labels of forgotten interactions.

    Args:
        graph: The graph before forgetting.
        labels: The label of every interaction ``[num_interactions]``.
        removed: Mask of the forgotten interactions ``[num_interactions]``.

    Returns:
        For every forgotten interaction, the mean label of what its user keeps; if that is nothing, of what its item
        keeps; if that is nothing either, of all that remains ``[num_forgotten]``.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 0, 1], [0, 1, 2, 1]]))
        >>> neutral_labels(graph, torch.tensor([5.0, 1.5, 4.0, 1.0]), torch.tensor([True, False, False, True]))
        tensor([2.7500, 1.5000])
    """
    kept = labels[~removed]
    neutral = kept.mean().expand(int(removed.sum())).clone()
    for side, size in ((1, graph.num_items), (0, graph.num_users)):  # the mean of the user is preferred
        owner = graph.pairs[side]
        count = torch.bincount(owner[~removed], minlength=size)
        total = labels.new_zeros(size).index_add(0, owner[~removed], kept)
        mine = owner[removed]
        neutral = torch.where(count[mine] > 0, total[mine] / count[mine].clamp(min=1), neutral)
    return neutral


def _neutral_risk(forgotten: Risk, model: nn.Module, graph: Any, retained: Any, removed: Tensor) -> Risk:
    """Return the risk of the forgotten samples with neutral labels, at the same model."""
    if isinstance(forgotten, SessionRisk):
        targets = CrossEntropy().samples(retained).target
        count = torch.bincount(targets, minlength=graph.num_items).double()
        share = count / count.sum() if count.any() else torch.full_like(count, 1 / len(count))
        return SessionRisk(model, graph, _NeutralClick(share), forgotten.samples)
    objective, samples = forgotten.objective, forgotten.samples
    if isinstance(objective, BPR):
        objective = _NeutralBPR(**{name: getattr(objective, name) for name in ("weight_decay", "negatives", "seed")})
    elif isinstance(objective, SampledBCE):
        fields = ("weight_decay", "negatives", "seed", "ratio")
        objective = _NeutralSampledBCE(**{name: getattr(objective, name) for name in fields})
    else:
        labels = graph.label if isinstance(objective, BCE) else graph.rating
        samples = replace(objective.samples(graph, mask=removed), target=neutral_labels(graph, labels, removed))
    return risk_of(model, graph, objective, samples)


@dataclass(frozen=True, kw_only=True)
class _NeutralBPR(BPR):
    """BPR whose label is ½ instead of 1: the user prefers neither item."""

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        p, present = torch.sigmoid(margins), samples.without_missing
        return self.loss(margins, samples), present(p - 0.5), present(p * (1 - p))

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        return samples.without_missing(F.softplus(-margins) + margins / 2)


@dataclass(frozen=True, kw_only=True)
class _NeutralSampledBCE(SampledBCE):
    """Sampled BCE with the mean label of the interaction and its negatives as the label of each of them."""

    def _weights(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        weight, target = super()._weights(margins, samples)
        mean = (weight * target).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return weight, mean.expand_as(target)


@dataclass(frozen=True)
class _NeutralClick(CrossEntropy):
    """The cross entropy to a fixed distribution over all items."""

    share: Tensor

    def losses(self, model: nn.Module, graph: SessionGraph, samples: PrefixSamples) -> Tensor:
        encoded = encode_prefixes(model, graph, samples.ends)
        log_p = (encoded.queries @ encoded.items.t()).log_softmax(1)
        return -(log_p * self.share.to(log_p.dtype)).sum(1)
