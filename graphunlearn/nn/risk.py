r"""The training risk :math:`R(\theta; D, G)` of a model on a graph, with its value, gradient and curvature."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.func import Product, csr, gauss_newton_product, hessian_product
from graphunlearn.func.memory import trim
from graphunlearn.nn.calling import call_with
from graphunlearn.nn.encoding import Encoded, LinearForm, encode, linear_form
from graphunlearn.nn.rotated import Rotated
from graphunlearn.nn.training.objective import Objective, Samples

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Curvature", "LinearRisk", "Risk", "risk_of"]

Curvature = Literal["gauss-newton", "hessian"]

_PAIRS = 4_000_000  # with more pairs of samples, half as many are scored at a time, and nothing is kept of them


class Risk:
    r"""The sum :math:`R(\theta; D, G) = \sum_{s \in D} \ell_s(\theta, G)` as a function of one flat parameter vector.

    This class differentiates through ``encode`` and works for every model. For models that propagate linearly,
    :class:`LinearRisk` is faster because it uses closed forms.

    Args:
        model: The recommender; its trainable parameters are the variables. The model is never changed.
        graph: The graph :math:`G` to propagate on.
        objective: The per-sample loss.
        samples: The samples :math:`D`; all interactions of ``graph`` by default.

    Example:
        >>> import torch, torch_geometric, graphunlearn as gu
        >>> graph = gu.InteractionGraph.from_edges(torch.tensor([[0, 1], [0, 1]]), num_users=2, num_items=3)
        >>> risk = Risk(torch_geometric.nn.LightGCN(5, 8, num_layers=1), graph, gu.BPR())
        >>> risk.gradient(risk.parameters).shape
        torch.Size([40])
    """

    _counts: Tensor | None = None

    def __init__(
        self, model: nn.Module, graph: InteractionGraph, objective: Objective, samples: Samples | None = None
    ) -> None:
        self.model, self.graph, self.objective = model, graph, objective
        self.samples = (objective.samples(graph) if samples is None else samples).by_user()
        self._named = self._trainable(model)

    @staticmethod
    def _trainable(model: nn.Module) -> list[tuple[str, Tensor]]:
        named = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ArgumentError("model", "have trainable parameters", f"{type(model).__name__} with none")
        return named

    @cached_property
    def parameters(self) -> Tensor:
        """The current trainable parameters of the model as one flat vector ``[num_parameters]``."""
        return torch.cat([p.flatten() for _, p in self._named])

    def encode(self, theta: Tensor) -> Encoded:
        """Return the embeddings at ``theta``, differentiable in ``theta``.

        Args:
            theta: The parameters ``[num_parameters]``.

        Returns:
            The embeddings of users and items.
        """
        parts = zip(self._named, theta.split([p.numel() for _, p in self._named]), strict=True)
        values = {name: part.view_as(p) for (name, p), part in parts}
        return call_with(self.model, values, lambda model: encode(model, self.graph))

    def value(self, theta: Tensor) -> float:
        """Return the risk at ``theta``, summed in float64 so that differences are accurate.

        Args:
            theta: The parameters ``[num_parameters]``.
        """
        with torch.no_grad():
            return float(self.objective(self.encode(theta), self.samples).double().sum())

    def gradient(self, theta: Tensor) -> Tensor:
        """Return the gradient of the risk at ``theta``.

        Args:
            theta: The parameters ``[num_parameters]``.

        Returns:
            The gradient ``[num_parameters]``.
        """
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.objective(self.encode(theta), self.samples).sum()
            return torch.autograd.grad(loss, theta)[0]

    def curvature(self, theta: Tensor, kind: Curvature = "gauss-newton") -> Product:
        r"""Return the curvature product :math:`v \mapsto Hv` at ``theta``.

        Args:
            theta: The parameters ``[num_parameters]``.
            kind: ``"gauss-newton"``, which is :math:`\sum_s J_s^\top \varphi''_s J_s` plus the L2 term and positive
                semi-definite; or ``"hessian"``, which is exact and may be indefinite.

        Returns:
            A function that maps a vector to its product, both ``[num_parameters]``.
        """
        theta = theta.detach()
        if kind == "hessian":
            return hessian_product(lambda t: self.objective(self.encode(t), self.samples).sum(), theta)

        def outputs(t: Tensor) -> tuple[Tensor, ...]:
            encoded = self.encode(t)
            users = encoded.queries if encoded.query_base is None else encoded.query_base
            items = encoded.items if encoded.item_base is None else encoded.item_base
            scores = self.samples.pattern.dots(encoded.queries, encoded.items)
            return self.objective.margins(scores, self.samples), users, items

        with torch.no_grad():
            margins = outputs(theta)[0]
            second = self.objective.second(margins, self.samples)
        return gauss_newton_product(outputs, (second, *self._l2(theta).split(list(self.samples.size))), theta)

    def with_negatives(self, most: int) -> Self:
        """Return a risk with fewer negatives, which is cheaper and less precise.

        Args:
            most: Largest number of negatives per sample; the first ones are kept.

        Returns:
            The risk, or this risk if its samples have no more negatives than that.
        """
        objective, samples = self.objective.first_negatives(self.samples, most)
        return self if samples is self.samples else self.of(objective, samples)

    def of(self, objective: Objective, samples: Samples) -> Self:
        """Return the risk of other samples of the same model and graph; what is known of the embeddings is shared.

        Args:
            objective: The per-sample loss.
            samples: The samples, sorted by user.
        """
        other = copy.copy(self)
        other.objective, other.samples, other._counts = objective, samples, None
        return other

    def _l2(self, theta: Tensor) -> Tensor:
        """Return the curvature of the L2 term for every node ``[num_nodes, 1]``."""
        if self._counts is None:
            self._counts = self.objective.row_counts(self.samples)
        return self.objective.weight_decay * self._counts.to(theta.dtype).unsqueeze(1)


class LinearRisk(Risk):
    r"""The risk of one linearly propagated table, :math:`Z = \sum_l \alpha_l \hat A^l E + C`, with dot-product scores.

    Curvature products have a closed form in sparse products. With :math:`t = \sum_l \alpha_l \hat A^l v`, the change of
    a score is :math:`\dot s_{ui} = \langle t_u, z_i\rangle + \langle z_u, t_i\rangle`. The changes are weighted by
    :math:`\varphi''`, summed into the embeddings of the nodes by the transposed map, and propagated.

    Args:
        table: The table :math:`E` ``[num_users + num_items, dim]``.
        form: The linear propagation of the table.
        objective: The per-sample loss.
        samples: The samples, in the numbering of ``table``.
        offset: A constant :math:`C` ``[num_users + num_items, dim]``: the contribution of nodes that are not in
            ``table``.
    """

    def __init__(
        self, table: Tensor, form: LinearForm, objective: Objective, samples: Samples, offset: Tensor | None = None
    ) -> None:
        self.table, self.form, self.objective, self.samples = table.detach(), form, objective, samples.by_user()
        self.offset = offset
        self._latest: tuple[Tensor, int, Tensor, Tensor] | None = None
        self._margins: Tensor | None = None

    @cached_property
    def parameters(self) -> Tensor:
        return self.table.flatten()

    @property
    def closed(self) -> bool:
        """Whether the loss is that of the margins, so that gradients have a closed form."""
        return type(self.objective).__call__ is Objective.__call__

    def take(self, final: Tensor) -> None:
        """Take the final embeddings at :attr:`parameters` from elsewhere.

        Args:
            final: The final embeddings, users first ``[num_nodes, dim]``.
        """
        theta = self.parameters
        version = -1 if theta.is_inference() else theta._version
        self._latest = (theta, version, *final.split(list(self.samples.size)))
        self._margins = None

    def _rows(self, theta: Tensor) -> Tensor:
        z = self._propagated(theta.view_as(self.table))
        return z if self.offset is None else z + self.offset

    def _propagated(self, table: Tensor) -> Tensor:
        """Return the propagated rows of all users and items of the samples; a subclass may hold a part of a table."""
        return self.form.propagate(table)

    def of(self, objective: Objective, samples: Samples) -> Self:
        other = super().of(objective, samples)
        other._margins = None  # the embeddings are those of this risk, and the margins are not
        return other

    @torch.no_grad()
    def at(self, theta: Tensor) -> tuple[Encoded, Tensor]:
        """Return the final embeddings at ``theta`` and the margins, without gradients; the latest are kept.

        Args:
            theta: The parameters ``[num_parameters]``.

        Returns:
            The final embeddings of users and items, and the margins ``[num_samples, n]``.
        """
        zu, zi, margins = self._at(theta)
        return Encoded(zu, zi), margins

    @torch.no_grad()
    def final(self, theta: Tensor) -> Encoded:
        """Return the final embeddings at ``theta``, without gradients; the latest are kept.

        Args:
            theta: The parameters ``[num_parameters]``.
        """
        version = -1 if theta.is_inference() else theta._version  # tensors made in inference mode have none
        if self._latest is None or version < 0 or self._latest[0] is not theta or self._latest[1] != version:
            zu, zi = (part.contiguous() for part in self._rows(theta).split(list(self.samples.size)))
            self._latest, self._margins = (theta, version, zu, zi), None
        return Encoded(*self._latest[2:])

    def _at(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        final = self.final(theta)
        return final.queries, final.items, self._margins_of(final)

    def _margins_of(self, final: Encoded) -> Tensor:
        """Return the margins of the latest final embeddings; they are kept."""
        if self._margins is None:
            dots = self.samples.pattern.dots(final.queries, final.items)
            self._margins = self.objective.margins(dots, self.samples)
        return self._margins

    @torch.no_grad()
    def value(self, theta: Tensor) -> float:
        if not self.closed:
            return super().value(theta)
        losses = self.objective.loss(self._at(theta)[2], self.samples).mean(-1).double().sum()
        return float(losses + 0.5 * self._penalty(theta))

    def _penalty(self, theta: Tensor) -> Tensor:
        """Return twice the L2 terms of the samples, in float64."""
        return (super()._l2(theta) * theta.view_as(self.table).square()).double().sum()

    @torch.no_grad()
    def gradient(self, theta: Tensor) -> Tensor:
        if not self.closed:
            with torch.enable_grad():
                return super().gradient(theta)
        return self.propagated(self.back(theta), theta)

    @torch.no_grad()
    def propagated(self, back: Tensor, theta: Tensor) -> Tensor:
        """Return the gradient in the table, given that in the final embeddings.

        Args:
            back: The gradient in the final embeddings, :meth:`back` ``[num_nodes, dim]``.
            theta: The parameters ``[num_parameters]``.

        Returns:
            The gradient ``[num_parameters]``.
        """
        return (self.form.propagate(back) + self._l2(theta) * theta.view_as(back)).flatten()

    @torch.no_grad()
    def back(self, theta: Tensor) -> Tensor:
        """Return the gradient in the final embeddings, without the L2 term, which depends on the table.

        Args:
            theta: The parameters ``[num_parameters]``.

        Returns:
            The gradient ``[num_nodes, dim]``.
        """
        objective, final = self.objective, self.final(theta)

        def slope(margins: Tensor, samples: Samples) -> Tensor:
            return objective.margins_transposed(objective.phi(margins, samples)[1] / margins.size(1), samples)

        return self.gathered(final, slope, final.queries, final.items)

    @torch.no_grad()
    def gathered(
        self, final: Encoded, weight: Callable[[Tensor, Samples], Tensor], users: Tensor, items: Tensor
    ) -> Tensor:
        r"""Return the sum of the rows of the other side over the pairs of every node, :math:`\sum_s y_s b_{c_s}`.

        Many pairs are scored in parts, of which nothing is kept.

        Args:
            final: The latest final embeddings (:meth:`final`).
            weight: A function of margins and their samples that returns the weight :math:`y_s` of every pair.
            users: A row per user, which items receive ``[num_users, k]``.
            items: A row per item, which users receive ``[num_items, k]``.

        Returns:
            The sums, users first ``[num_nodes, k]``.
        """
        samples = self.samples
        if samples.num_pairs <= _PAIRS or "pattern" in vars(samples):
            pattern, values = samples.pattern, weight(self._margins_of(final), samples)
            of_users, of_items = pattern.both(values, users, items)
            return torch.cat([of_users, self._summed(of_items)])
        of_users, of_items = users.new_zeros(len(users), items.size(1)), items.new_zeros(len(items), users.size(1))
        for place, part in samples.parts(_PAIRS // 2):
            pattern = part.pattern
            values = weight(self.objective.margins(pattern.dots(final.queries[place], final.items), part), part)
            own, other = pattern.both(values, users[place], items)
            of_users[place] += own
            of_items += other
        if not of_users.is_cuda:
            trim()
        return torch.cat([of_users, self._summed(of_items)])

    def encode(self, theta: Tensor) -> Encoded:
        sizes = list(self.samples.size)
        return Encoded(*self._rows(theta).split(sizes), *theta.view_as(self.table).split(sizes))

    @torch.no_grad()
    def radial_slope(self, theta: Tensor) -> float:
        r"""Return :math:`\langle\nabla R(\theta), \theta\rangle` without computing a gradient.

        Without an offset, scores are homogeneous of degree two in the table. By Euler's identity, the slope along
        :math:`\theta` is then :math:`\sum_s \frac1n\sum_k 2\,\varphi'(m_{sk})\,m_{sk} + \lambda\|e\|^2_s`. Since it is
        a sum over samples, it can be estimated from a subset of them.

        Args:
            theta: The parameters ``[num_parameters]``.
        """
        margins = self._at(theta)[2]
        slope = 2 * (self.objective.phi(margins, self.samples)[1] * margins).double().mean(1).sum()
        return float(slope + self._penalty(theta))

    @torch.no_grad()
    def jacobi(self, theta: Tensor) -> Tensor:
        r"""Return an estimate of the Gauss–Newton diagonal for preconditioning ``[num_parameters]``.

        The estimate neglects products of the two scores of one margin, and different paths between the same two nodes:
        the matrix :math:`\sum_l \alpha_l^2 (\hat A \circ \hat A)^l` maps the diagonal with respect to the final
        embeddings to the diagonal with respect to the table.

        Args:
            theta: The parameters ``[num_parameters]``.
        """
        final = self.final(theta)
        return self._diagonal(theta, final, final.queries, final.items).flatten()

    @torch.no_grad()
    def rotated(self, theta: Tensor) -> Rotated:
        r"""Return :meth:`jacobi` in axes in which the curvature of users, and that of items, is diagonal on average.

        The curvature of a user is about :math:`\sum_i w_i z_i z_i^\top` over the items of the samples. Most final
        embeddings have a common direction, so that its diagonal says little; the eigenvectors of the sum over all users
        are better axes, and likewise for items. Scores do not change if all embeddings are rotated.

        Args:
            theta: The parameters ``[num_parameters]``.
        """
        final, sizes = self.final(theta), list(self.samples.size)
        ones = [torch.ones_like(rows[:, :1]) for rows in (final.queries, final.items)]
        totals = self.gathered(final, self._weight, *ones).split(sizes)
        axes = [
            torch.linalg.eigh(rows.t() @ (total * rows)).eigenvectors
            for rows, total in zip((final.items, final.queries), reversed(totals))
        ]
        return Rotated(axes[0], axes[1], self._diagonal(theta, final, final.queries @ axes[1], final.items @ axes[0]))

    def _weight(self, margins: Tensor, samples: Samples) -> Tensor:
        """Return the second derivative of the loss in the score of every pair, without products of two scores."""
        second = self.objective.phi(margins, samples)[2] / margins.size(1)
        return self.objective.margins_transposed(second, samples).abs()

    def _diagonal(self, theta: Tensor, final: Encoded, zu: Tensor, zi: Tensor) -> Tensor:
        """Return the estimate of the diagonal for final embeddings in given axes ``[num_nodes, dim]``."""
        rows = self.gathered(final, self._weight, zu.square(), zi.square())
        squared = LinearForm(self.form.parameter, tuple(a * a for a in self.form.alpha), self._squared())
        return squared.propagate(rows) + self._l2(theta)

    def _summed(self, items: Tensor) -> Tensor:
        """Return rows of items summed over all samples, of which a subclass may hold a part ``[num_items, dim]``."""
        return items

    def _squared(self) -> Tensor | None:
        """Return the matrix of the linear form with squared entries."""
        m = self.form.matrix
        if m is None:
            return None
        return csr(m.crow_indices(), m.col_indices(), m.values().square(), (m.size(0), m.size(1)))

    @torch.no_grad()
    def curvature(self, theta: Tensor, kind: Curvature = "gauss-newton") -> Product:
        samples, objective, pattern, form = self.samples, self.objective, self.samples.pattern, self.form
        sizes, exact = list(samples.size), kind == "hessian"
        zu, zi, margins = self._at(theta)
        second, l2 = objective.second(margins, samples), self._l2(theta)
        if exact:
            first = objective.phi(margins, samples)[1]
            slope = objective.margins_transposed(first / margins.size(1), samples)
            slopes = pattern.matrix(slope), pattern.transposed.matrix(slope)

        @torch.no_grad()
        def product(v: Tensor) -> Tensor:
            v = v.view_as(self.table)
            tu, ti = self._propagated(v).split(sizes)
            # d<z_u, z_i> = <dz_u, z_i> + <z_u, dz_i> is one dot product of concatenated embeddings.
            ds = pattern.dots(torch.cat([tu, zu], 1), torch.cat([zi, ti], 1))
            y = objective.margins_transposed(second(objective.margins(ds, samples)), samples)
            back_u, back_i = pattern.both(y, zu, zi)
            if exact:
                back_u, back_i = back_u + slopes[0] @ ti, back_i + slopes[1] @ tu
            return (form.propagate(torch.cat([back_u, self._summed(back_i)])) + l2 * v).flatten()

        return product


def risk_of(model: nn.Module, graph: InteractionGraph, objective: Objective, samples: Samples | None = None) -> Risk:
    """Return the risk of ``model``.

    Args:
        model: The recommender.
        graph: The graph to propagate on.
        objective: The per-sample loss.
        samples: The samples; all interactions of ``graph`` by default.

    Returns:
        A :class:`LinearRisk` if the only trainable parameter is a linearly propagated table, else a :class:`Risk`.
    """
    form = linear_form(model, graph)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if form is None or trainable != [form.parameter]:
        return Risk(model, graph, objective, samples)
    samples = objective.samples(graph) if samples is None else samples
    return LinearRisk(model.get_parameter(form.parameter), form, objective, samples)
