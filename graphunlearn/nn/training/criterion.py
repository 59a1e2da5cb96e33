"""What every training objective is: samples, one loss for each of them, and the batches they are trained in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Criterion"]


class Criterion(ABC):
    """What a model is trained on, never reduced: :func:`~graphunlearn.fit` takes any subclass.

    Samples are whatever the subclass makes of them; they have a length and ``select(index)``.
    """

    @abstractmethod
    def samples(self, graph: Any, *, mask: Tensor | None = None, epoch: int | None = None) -> Any:
        """Return what is supervised on ``graph``: everything, or what a boolean ``mask`` keeps of it.

        Args:
            graph: The training graph.
            mask: Interactions, or clicks to be predicted, that count.
            epoch: Draw afresh for this epoch whatever is random.
        """

    @abstractmethod
    def losses(self, model: nn.Module, graph: Any, samples: Any) -> Tensor:
        """Return the loss of every sample ``[num_samples]``, differentiable in the parameters of ``model``.

        Args:
            model: The recommender.
            graph: The graph that propagates.
            samples: From :meth:`samples` of that graph.
        """

    def batches(self, samples: Any, size: int, generator: torch.Generator) -> Iterator[Any]:
        """Yield all samples once in random order, ``size`` at a time.

        Args:
            samples: From :meth:`samples`.
            size: Samples per batch.
            generator: Draws the order; on the CPU, so that it is the same on every device.
        """
        for index in torch.randperm(len(samples), generator=generator).split(size):
            yield samples.select(index)
