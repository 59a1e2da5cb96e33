"""A baseline that moves the predictions at forgotten data to the popularity of items, or to uniform ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.encoding import encode
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.objective import default_objective
from graphunlearn.operators.base import Rejection, Unlearner
from graphunlearn.operators.baselines.ascent import adam, endless_batches
from graphunlearn.operators.baselines.simple import BOTH
from graphunlearn.operators.shared.checks import check_choices, check_counts, check_positive, naming_request

__all__ = ["PopularityKL", "kept_items", "prior_divergence"]

_LR = {"interactions": 0.01, "sessions": 0.001}  # by kind of graph


@dataclass(kw_only=True)
class PopularityKL(Unlearner):
    r"""Minimise the KL divergence from popularity to the predictions at forgotten data, and train on what remains.

    Adam minimises the loss of a batch of what remains plus

    .. math::
        \lambda\,\mathrm{KL}\big(\pi \,\|\, P_\theta(\cdot \mid q)\big), \qquad
        P_\theta(i \mid q) \propto e^{s_{qi}}, \qquad \pi_i \propto 1 + \deg_k(i)

    at the user or the prefix :math:`q` of every forgotten interaction or click; :math:`\deg_k` counts what remains. For
    interactions, both distributions leave out the items that the user keeps, so that these are not unlearned. The
    divergence has a minimum, unlike that of :class:`~graphunlearn.operators.NegativeKL`. A uniform :math:`\pi` makes
    popular items as improbable as all others; it is the choice of an entry to the NeurIPS 2023 unlearning challenge,
    which was about few classes of equal size.

    Args:
        objective: The training loss; ``None`` selects the shared default.
        prior: ``"popularity"`` or ``"uniform"``.
        steps: Number of steps.
        lr: Learning rate of Adam; ``None`` selects .01 for interactions and .001 for sessions.
        weight: The weight :math:`\lambda` of the divergence.
        batch_size: Samples of what remains per step, and largest number of forgotten ones per step.
        seed: Seed of the order of the samples.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = PopularityKL().unlearn(model, graph, gu.ForgetRequest("user", [graph.user_ids[3]]))
        >>> result.log["kl"][-1] < result.log["kl"][0]
        True
    """

    name: ClassVar[str] = "popularity-kl"
    kinds: ClassVar[tuple[str, ...]] = BOTH
    on_rejection: Rejection = "keep"  # it is here to be compared
    objective: Criterion | None = None
    prior: Literal["popularity", "uniform"] = "popularity"
    steps: int = 40
    lr: float | None = None
    weight: float = 1.0
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(("popularity", "uniform"), prior=self.prior)
        check_counts(steps=self.steps, batch_size=self.batch_size)
        check_positive(weight=self.weight, **({} if self.lr is None else {"lr": self.lr}))

    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        objective, removed = self.objective or default_objective(graph), request.mask(graph)
        sessions = graph.kind == "sessions"
        queries = CrossEntropy().samples(graph, mask=removed).ends if sessions else graph.pairs[0, removed]
        log: dict[str, Any] = {"kl": [], "loss": []}
        if not queries.numel():
            return log  # no forgotten click has a prefix
        degree = retained.degree[-graph.num_items :]
        counts = torch.ones_like(degree) if self.prior == "uniform" else degree + 1
        with naming_request(self.objective):
            kept = endless_batches(retained, objective, self.batch_size, self.seed)
        optimizer = adam(model, self.lr or _LR[graph.kind])
        generator = torch.Generator().manual_seed(self.seed)
        with torch.backends.cudnn.flags(enabled=False):  # cuDNN's recurrent layers have no gradients in evaluation mode
            for _ in range(self.steps):
                drawn = torch.randperm(queries.numel(), generator=generator)[: self.batch_size].to(queries.device)
                if sessions:
                    now = encode_prefixes(model, graph, queries[drawn])
                    divergence = prior_divergence(now.queries @ now.items.t(), counts)
                else:
                    now = encode(model, retained)
                    scores = now.queries[queries[drawn]] @ now.items.t()
                    divergence = prior_divergence(scores, counts, kept_items(retained, queries[drawn]))
                kl, batch = divergence.mean(), next(kept, None)
                loss = kl.new_zeros(()) if batch is None else objective.losses(model, retained, batch).mean()
                optimizer.zero_grad()
                (loss + self.weight * kl).backward()
                optimizer.step()
                log["kl"].append(float(kl.detach()))
                log["loss"].append(float(loss.detach()))
        return log


def prior_divergence(scores: Tensor, counts: Tensor, excluded: Tensor | None = None) -> Tensor:
    r"""Return :math:`\mathrm{KL}(\pi \| \mathrm{softmax}(s))` for every row of scores, with :math:`\pi` from counts.

    Args:
        scores: The scores ``[num, num_items]``.
        counts: Positive counts, to which :math:`\pi` is proportional ``[num_items]``.
        excluded: Mask of the items that neither distribution contains ``[num, num_items]``; at least one item per row
            must remain.

    Returns:
        The divergences ``[num]``.

    Example:
        >>> prior_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([1, 1]))
        tensor([0.])
    """
    logits = counts.to(scores.dtype).log().expand_as(scores)
    if excluded is not None:
        lowest = torch.finfo(scores.dtype).min
        logits, scores = logits.masked_fill(excluded, lowest), scores.masked_fill(excluded, lowest)
    log_prior, log_p = logits.log_softmax(1), scores.log_softmax(1)
    terms = log_prior.exp() * (log_prior - log_p)
    return (terms if excluded is None else terms.masked_fill(excluded, 0.0)).sum(1)


def kept_items(graph: InteractionGraph, users: Tensor) -> Tensor:
    """Return the mask of the items of every user.

    Args:
        graph: The graph.
        users: Internal user ids ``[num]``.

    Returns:
        The mask ``[num, num_items]``.

    Example:
        >>> kept_items(InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]])), torch.tensor([1, 0]))
        tensor([[False,  True],
                [ True, False]])
    """
    mask = torch.zeros(len(users), graph.num_items, dtype=torch.bool, device=users.device)
    row = torch.arange(len(users), device=users.device).repeat_interleave(graph.adjacency.degree[users].long())
    mask[row, graph.adjacency.neighbors(users) - graph.num_users] = True
    return mask
