r"""The training risk of a session model, with its value, gradient and curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphunlearn.data import SessionGraph
from graphunlearn.func import Product, gauss_newton_product, hessian_product
from graphunlearn.nn.calling import call_with
from graphunlearn.nn.prefixes import encode_prefixes
from graphunlearn.nn.risk import Curvature, Risk
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples

__all__ = ["SessionRisk"]

T = TypeVar("T")
CHUNK = 512  # predictions at a time; memory is bounded by this times the number of items


class SessionRisk(Risk):
    r"""The sum :math:`R(\theta; D) = \sum_{s \in D} \ell_s(\theta)` of the losses of predicted clicks.

    Value and gradient are sums over all samples. The curvature is that of a random part of the samples, scaled to the
    number of all of them, because its autograd graph is kept in memory.

    Args:
        model: The session recommender; its trainable parameters are the variables. The model is never changed.
        graph: The sessions.
        objective: The loss, over the whole catalogue.
        samples: The predictions; all of ``graph`` by default.
        most: Largest number of samples of the curvature.
        seed: Seed of the samples of the curvature.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 0], [2, 1]])
        >>> risk = SessionRisk(gu.nn.GRU4Rec(graph.num_items, 8), graph, gu.CrossEntropy())
        >>> risk.gradient(risk.parameters).shape == risk.parameters.shape
        True
    """

    graph: SessionGraph
    samples: PrefixSamples  # type: ignore[assignment]
    objective: CrossEntropy  # type: ignore[assignment]

    def __init__(
        self,
        model: nn.Module,
        graph: SessionGraph,
        objective: CrossEntropy,
        samples: PrefixSamples | None = None,
        *,
        most: int = 1024,
        seed: int = 0,
    ) -> None:
        self.model, self.graph, self.objective = model, graph, objective
        self.samples = objective.samples(graph) if samples is None else samples
        self.most, self.seed = most, seed
        self._named = self._trainable(model)

    def with_negatives(self, most: int) -> SessionRisk:
        return self  # the loss is over the whole catalogue

    def _at(self, theta: Tensor, function: Callable[[nn.Module], T]) -> T:
        parts = zip(self._named, theta.split([p.numel() for _, p in self._named]), strict=True)
        return call_with(self.model, {name: part.view_as(p) for (name, p), part in parts}, function)

    def _losses(self, theta: Tensor, samples: PrefixSamples) -> Tensor:
        return self._at(theta, lambda model: self.objective.losses(model, self.graph, samples))

    def value(self, theta: Tensor) -> float:
        with torch.no_grad():
            return sum(float(self._losses(theta, part).double().sum()) for part in _parts(self.samples))

    def gradient(self, theta: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_()
        total = torch.zeros_like(theta, requires_grad=False)
        with torch.enable_grad(), _differentiable():
            for part in _parts(self.samples):
                total += torch.autograd.grad(self._losses(theta, part).sum(), theta)[0]
        return total

    def curvature(self, theta: Tensor, kind: Curvature = "gauss-newton") -> Product:
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(self.samples), generator=generator)[: self.most].sort().values
        theta, scale = theta.detach(), len(self.samples) / max(chosen.numel(), 1)
        with _differentiable():
            of_part = self._hessian if kind == "hessian" else self._gauss_newton
            products = [of_part(theta, part) for part in _parts(self.samples.select(chosen))]

        def product(v: Tensor) -> Tensor:
            total = torch.zeros_like(v)
            with _differentiable():
                for of_part in products:
                    total += of_part(v)
            return scale * total

        return product

    def _hessian(self, theta: Tensor, samples: PrefixSamples) -> Product:
        return hessian_product(lambda t: self._losses(t, samples).sum(), theta)

    def _gauss_newton(self, theta: Tensor, samples: PrefixSamples) -> Product:
        def scores(t: Tensor) -> tuple[Tensor, ...]:
            encoded = self._at(t, lambda model: encode_prefixes(model, self.graph, samples.ends))
            return (encoded.queries @ encoded.items.t(),)

        with torch.no_grad():
            p = scores(theta)[0].softmax(1)

        def second(change: Tensor) -> Tensor:
            weighted = p * change
            return weighted - p * weighted.sum(1, keepdim=True)

        return gauss_newton_product(scores, (second,), theta)


def _parts(samples: PrefixSamples) -> Iterator[PrefixSamples]:
    for index in torch.arange(len(samples)).split(CHUNK):
        if index.numel():
            yield samples.select(index)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Choose kernels that can be differentiated twice, and in evaluation mode."""
    with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        yield
