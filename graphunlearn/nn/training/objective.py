"""Training objectives that return one loss per interaction, so that the loss of any subset is a sum."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.schema import check, check_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.negatives import draw_negatives
from graphunlearn.nn.training.next_click import CrossEntropy
from graphunlearn.nn.training.samples import Samples, SelectedSamples

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BCE", "BPR", "Criterion", "Objective", "Sampled", "Samples", "SquaredError", "default_objective"]


@dataclass(frozen=True, kw_only=True)
class Objective(Criterion):
    r"""A per-sample loss :math:`\ell_s = \frac1n\sum_k \varphi(m_{sk}) + \frac\lambda2\sum_{v \in s}\|e_v\|^2`.

    The margins :math:`m_{sk}` are linear in the scores. The L2 penalty with weight :math:`\lambda` acts on the layer-0
    embeddings of the nodes of the sample (negatives count :math:`1/n` each), not on the whole table.

    A subclass defines the samples (:meth:`samples`) and :math:`\varphi` with its first two derivatives (:meth:`phi`).
    Curvature products use these derivatives. If the loss of a sample couples its margins, as a softmax does, the
    subclass also defines :meth:`second`.

    Attributes:
        private: Whether the samples of a user depend on the graph only through the interactions of this user. If so,
            forgetting leaves the samples of all other users unchanged.

    Args:
        weight_decay: Weight :math:`\lambda` of the L2 penalty.
    """

    private: ClassVar[bool] = True
    weight_decay: float = 0.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "phi" in vars(cls):  # a loss or second derivative that is inherited would belong to another function
            for name in ("loss", "second"):
                if name not in vars(cls):
                    setattr(cls, name, vars(Objective)[name])
        if "samples" in vars(cls) and "epoch_samples" not in vars(cls):  # these need not be one per interaction
            cls.epoch_samples = Criterion.epoch_samples  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        expected = "be finite and not negative"
        check(expected, lambda value: 0 <= value < math.inf, weight_decay=self.weight_decay)

    @abstractmethod
    def samples(self, graph: InteractionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> Samples:
        """Return the training samples of ``graph``: all of its interactions, or those in a boolean ``mask``.

        Args:
            graph: The training graph.
            mask: Mask of the interactions to include ``[num_interactions]``, or their positions.
            epoch: Epoch for which to draw new negatives; ``None`` keeps the stored ones.

        Returns:
            The samples.
        """

    @abstractmethod
    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return :math:`\varphi` and its first two derivatives.

        Args:
            margins: The margins ``[num_samples, n]``.
            samples: The samples.

        Returns:
            :math:`\varphi, \varphi', \varphi''`, each ``[num_samples, n]``.
        """

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        r"""Return :math:`\varphi` alone, in a numerically stable and differentiable form.

        Args:
            margins: The margins ``[num_samples, n]``.
            samples: The samples.

        Returns:
            The losses ``[num_samples, n]``.
        """
        return self.phi(margins, samples)[0]

    def second(self, margins: Tensor, samples: Samples) -> Callable[[Tensor], Tensor]:
        r"""Return the product with the second derivative of every sample's loss in its margins.

        By default, the second derivative is the diagonal :math:`\varphi''_{sk} / n`.

        Args:
            margins: The margins ``[num_samples, n]``.
            samples: The samples.

        Returns:
            A function that maps a change of the margins to the change of the derivative of the loss, both
            ``[num_samples, n]``.
        """
        weight = self.phi(margins, samples)[2] / margins.size(1)
        return lambda change: weight * change

    def with_negatives(self, num: int) -> Self:
        """Return this loss with another number of stored negatives, and as nearly as possible the same expectation.

        Args:
            num: Number of negatives per interaction.

        Returns:
            The loss; the same loss if it has no negatives or depends on their number.
        """
        return self

    def first_negatives(self, samples: Samples, most: int) -> tuple[Self, Samples]:
        """Return this loss and its samples with only the first negatives, for a cheaper and less precise curvature.

        Args:
            samples: The samples.
            most: Largest number of negatives per sample.

        Returns:
            The loss and the samples; both are unchanged if there are no more negatives than that.
        """
        return self, samples

    def margins(self, scores: Tensor, samples: Samples) -> Tensor:
        """Return the margins, which by default are the scores of the interactions.

        Args:
            scores: The scores of ``samples.pattern``.
            samples: The samples.

        Returns:
            The margins ``[num_samples, n]``.
        """
        return scores.view(-1, 1)

    def margins_transposed(self, values: Tensor, samples: Samples) -> Tensor:
        """Return the product of ``values`` and the transpose of the linear map :meth:`margins`.

        Args:
            values: One value per margin ``[num_samples, n]``.
            samples: The samples.

        Returns:
            One value per pair of ``samples.pattern``.
        """
        return values.flatten()

    def losses(self, model: nn.Module, graph: InteractionGraph, samples: Samples) -> Tensor:
        """Return the loss of every sample, differentiable in the parameters of ``model``.

        Args:
            model: The recommender.
            graph: The graph to propagate on.
            samples: Samples of that graph.

        Returns:
            The losses ``[num_samples]``.
        """
        return self(encode(model, graph), samples)

    def __call__(self, encoded: Encoded, samples: Samples) -> Tensor:
        """Return the loss of every sample.

        Args:
            encoded: The embeddings.
            samples: The samples.

        Returns:
            The losses ``[num_samples]``.
        """
        scores = samples.pattern.dots(encoded.queries, encoded.items)
        loss = self.loss(self.margins(scores, samples), samples).mean(-1)
        if self.weight_decay:
            loss = loss + 0.5 * self.weight_decay * self._squared_norms(encoded, samples)
        return loss

    def _squared_norms(self, encoded: Encoded, samples: Samples) -> Tensor:
        users = encoded.queries if encoded.query_base is None else encoded.query_base
        items = encoded.items if encoded.item_base is None else encoded.item_base
        user_norm, item_norm = users.square().sum(-1), items.square().sum(-1)
        norms = user_norm[samples.users] + item_norm[samples.items]
        if samples.negatives is None:
            return norms
        return norms + samples.without_missing(item_norm[samples.negatives]).mean(-1)

    def row_counts(self, samples: Samples) -> Tensor:
        r"""Return the weight of every node in the L2 term, users first; times :math:`\lambda`, it is the curvature.

        Args:
            samples: The samples.

        Returns:
            The weights ``[num_nodes]`` (float64).
        """
        users, items = samples.size
        count = torch.bincount(samples.users, minlength=users), torch.bincount(samples.items, minlength=items)
        if samples.negatives is None:
            return torch.cat(count).double()
        drawn = torch.bincount(samples.negatives.flatten(), minlength=items)
        missing = samples.negatives == samples.items.unsqueeze(1)  # not kept: it may never be needed again
        none = torch.bincount(samples.negatives[missing], minlength=items)
        return torch.cat([count[0].double(), count[1] + (drawn - none).double() / samples.negatives.size(1)])


@dataclass(frozen=True, kw_only=True)
class Sampled(Objective):
    """The base class of losses that compare an interaction with sampled items.

    The negatives are a fixed function of (``seed``, user, item, k) that avoids the items of the user in the graph. A
    negative that equals the item of its sample stands for no negative: the user holds all items. It counts neither in
    the loss nor in the L2 penalty; see :attr:`Samples.missing`. Training draws the negatives of one batch at a time.

    Args:
        weight_decay: Weight of the L2 penalty on the layer-0 embeddings of the sample.
        negatives: Negatives per interaction.
        seed: Seed of the negatives.
    """

    negatives: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(negatives=self.negatives)

    def samples(self, graph: InteractionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> Samples:
        samples = _samples(graph, mask)
        seed = self.seed if epoch is None else (self.seed + 1) * 1_000_003 + epoch
        return replace(samples, negatives=self.draw(graph, samples.users, samples.items, seed))

    def epoch_samples(self, graph: InteractionGraph, epoch: int | None) -> SelectedSamples:
        device = graph.device

        def select(index: Tensor) -> Samples:
            return self.samples(graph, mask=index.to(device), epoch=epoch)

        return SelectedSamples(graph.num_interactions, select)

    def draw(self, graph: InteractionGraph, users: Tensor, items: Tensor, seed: int) -> Tensor:
        """Return the negatives of every pair of user and item.

        Args:
            graph: The training graph.
            users: Internal user ids ``[num_pairs]``.
            items: Internal item ids ``[num_pairs]``.
            seed: Seed of the draw.

        Returns:
            Internal item ids ``[num_pairs, negatives]``.
        """
        return draw_negatives(graph, users, items, self.negatives, seed)

    def with_negatives(self, num: int) -> Self:
        return replace(self, negatives=num)

    def first_negatives(self, samples: Samples, most: int) -> tuple[Self, Samples]:
        if self.negatives <= most or samples.negatives is None:
            return self, samples
        return self.with_negatives(most), samples.with_first(most)


@dataclass(frozen=True, kw_only=True)
class BPR(Sampled):
    r"""Bayesian personalised ranking: :math:`\varphi(m) = \log(1 + e^{-m})` of :math:`m_{sk} = s_{ui} - s_{uj_k}`.

    The negatives are a fixed function of (``seed``, user, item, k) that avoids the items of the user in the graph. The
    objective is therefore deterministic, and forgetting does not change the negatives of other users.

    Args:
        weight_decay: Weight :math:`\lambda` of the L2 penalty on the layer-0 embeddings of the sample.
        negatives: Negatives per interaction.
        seed: Seed of the negatives.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> objective = BPR(negatives=2)
        >>> samples = objective.samples(graph)
        >>> objective(gu.Encoded(torch.zeros(2, 4), torch.zeros(3, 4)), samples)
        tensor([0.6931, 0.6931])
    """

    weight_decay: float = 1e-3

    def margins(self, scores: Tensor, samples: Samples) -> Tensor:
        scores = scores.view(len(samples), 1 + self.negatives)
        return scores[:, :1] - scores[:, 1:]

    def margins_transposed(self, values: Tensor, samples: Samples) -> Tensor:
        return torch.cat([values.sum(1, keepdim=True), -values], 1).flatten()

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        p, present = torch.sigmoid(margins), samples.without_missing
        return self.loss(margins, samples), present(p - 1), present(p * (1 - p))

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        return samples.without_missing(F.softplus(-margins))


@dataclass(frozen=True, kw_only=True)
class BCE(Objective):
    r"""Binary cross entropy of the label: :math:`\varphi(m) = \log(1 + e^m) - y m` with :math:`m = s_{ui}`.

    Args:
        weight_decay: Weight :math:`\lambda` of the L2 penalty on the layer-0 embeddings of the sample.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), label=torch.tensor([1.0, 0.0]))
        >>> BCE()(gu.Encoded(torch.zeros(2, 4), torch.zeros(2, 4)), BCE().samples(graph))
        tensor([0.6931, 0.6931])
    """

    weight_decay: float = 3e-3

    def samples(self, graph: InteractionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> Samples:
        if graph.label is None:
            expected = "carry a 'label' for every interaction to be trained with BCE"
            hint = "make one with graph.binarize(threshold), or train with BPR"
            raise ArgumentError("graph", expected, "none", hint)
        if graph.num_interactions > 1 and bool((graph.label == 1).all()):  # every pair would end at a high score
            hint = "train with SampledBCE or BPR, which draw negatives"
            raise ArgumentError(
                "graph", "hold an interaction with label 0 to be trained with BCE", "only label 1", hint
            )
        return _samples(graph, mask, graph.label)

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        p = torch.sigmoid(margins)
        target = _target(margins, samples)
        return F.softplus(margins) - target * margins, p - target, p * (1 - p)

    def loss(self, margins: Tensor, samples: Samples) -> Tensor:
        return F.softplus(margins) - _target(margins, samples) * margins


@dataclass(frozen=True, kw_only=True)
class SquaredError(Objective):
    r"""Squared error of the rating: :math:`\varphi(m) = \frac12 (m - y)^2` with :math:`m = s_{ui}`.

    Args:
        weight_decay: Weight :math:`\lambda` of the L2 penalty on the layer-0 embeddings of the sample.

    Example:
        >>> import torch, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0], [0]]), rating=torch.tensor([3.0]))
        >>> SquaredError()(gu.Encoded(torch.ones(1, 2), torch.ones(1, 2)), SquaredError().samples(graph))
        tensor([0.5000])
    """

    def samples(self, graph: InteractionGraph, *, mask: Tensor | None = None, epoch: int | None = None) -> Samples:
        if graph.rating is None:
            raise ArgumentError("graph", "carry a 'rating' for every interaction to be trained on", "none")
        return _samples(graph, mask, graph.rating)

    def phi(self, margins: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
        error = margins - _target(margins, samples)
        return 0.5 * error.square(), error, torch.ones_like(margins)


def _samples(graph: InteractionGraph, mask: Tensor | None, target: Tensor | None = None) -> Samples:
    """Return the interactions in ``mask`` (all if it is ``None``) as samples, with their values in ``target``."""
    user, item = graph.pairs if mask is None else graph.pairs[:, mask]
    target = target if target is None or mask is None else target[mask]
    return Samples(user, item, (graph.num_users, graph.num_items), target=target)


def _target(margins: Tensor, samples: Samples) -> Tensor:
    assert samples.target is not None
    return samples.target.to(margins.dtype).view(-1, 1)


@overload
def default_objective(graph: InteractionGraph) -> Objective: ...


@overload
def default_objective(graph: SessionGraph) -> CrossEntropy: ...


def default_objective(graph: InteractionGraph | SessionGraph) -> Objective | CrossEntropy:
    """Return the default objective for a graph.

    Args:
        graph: The training graph.

    Returns:
        :class:`CrossEntropy` for sessions, :class:`BCE` for interactions with labels, else :class:`BPR`.
    """
    if graph.kind == "sessions":
        return CrossEntropy()
    return BPR() if graph.label is None else BCE()
