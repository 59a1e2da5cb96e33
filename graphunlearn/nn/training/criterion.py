"""The base class of training objectives: samples, their losses, and the batches used in training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Criterion"]


class Criterion(ABC):
    """The base class of training objectives that return one loss per sample; :func:`~graphunlearn.fit` accepts any.

    A subclass defines the type of its samples; they must have a length and a method ``select(index)``.
    """

    @abstractmethod
    def samples(self, graph: Any, *, mask: Tensor | None = None, epoch: int | None = None) -> Any:
        """Return the training samples of ``graph``.

        Args:
            graph: The training graph.
            mask: Mask of the interactions, or of the clicks to predict, to include; all by default.
            epoch: Epoch for which random parts of the samples, such as negatives, are redrawn.

        Returns:
            The samples.
        """

    def epoch_samples(self, graph: Any, epoch: int | None) -> Any:
        """Return the training samples of one epoch, of which training uses only the length and ``select``.

        By default these are :meth:`samples`. A loss whose samples hold much for every interaction, such as many
        negatives, returns an object here that computes it for the samples selected.

        Args:
            graph: The training graph.
            epoch: Epoch for which random parts of the samples are redrawn; ``None`` keeps the stored ones.

        Returns:
            The samples.
        """
        return self.samples(graph, epoch=epoch)

    @abstractmethod
    def losses(self, model: nn.Module, graph: Any, samples: Any) -> Tensor:
        """Return the loss of every sample, differentiable in the parameters of ``model``.

        Args:
            model: The recommender.
            graph: The graph to propagate on.
            samples: Samples of that graph, from :meth:`samples`.

        Returns:
            The losses ``[num_samples]``.
        """

    def batches(self, samples: Any, size: int, generator: torch.Generator) -> Iterator[Any]:
        """Yield all samples once in random order, ``size`` at a time.

        Args:
            samples: The samples, from :meth:`samples` or :meth:`epoch_samples`.
            size: Samples per batch.
            generator: Generator of the order, on the CPU, so that the order is the same on every device.
        """
        for index in torch.randperm(len(samples), generator=generator).split(size):
            yield samples.select(index)
