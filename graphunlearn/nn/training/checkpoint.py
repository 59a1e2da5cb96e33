"""The result of a training, and its checkpoints on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from graphunlearn.data.io.files import write_atomic
from graphunlearn.errors import ArgumentError

__all__ = ["FitResult", "TrainingState"]


@dataclass
class FitResult:
    """The result of a training.

    Args:
        metric: Name of the validation metric; ``None`` without validation.
        best: Best value of the metric; ``None`` without validation.
        best_epoch: Epoch of the returned parameters; 0 if those given were better than every epoch.
        seconds: Wall-clock seconds of the training.
        history: One record per epoch.
        untrained: Value of the metric before the first step; ``None`` without validation.
        popularity: Value of the metric for recommending the items with the most training interactions or clicks;
            ``None`` without validation.
    """

    metric: str | None
    best: float | None
    best_epoch: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    untrained: float | None = None
    popularity: float | None = None


class TrainingState:
    """The training state in a file; without a path, nothing is read or written.

    Args:
        path: The file, or ``None``; the suffix ``.safetensors`` is added if it is missing.
        identity: A function that returns a description of the training, by which its checkpoint is recognised.
    """

    def __init__(self, path: str | Path | None, identity: Callable[[], dict[str, Any]]) -> None:
        self.path = None
        if path is not None:
            path, self.identity = Path(path), identity()
            self.path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, metric: str | None, epochs: int
    ) -> tuple[FitResult, dict[str, Tensor] | None]:
        """Restore the state of an interrupted training, if there is one.

        Args:
            model: The model; its parameters are overwritten.
            optimizer: The optimizer; its state is overwritten.
            metric: Name of the validation metric.
            epochs: Largest number of epochs of the training.

        Returns:
            The result so far, and the parameters of the best epoch, if they are stored.

        Raises:
            ValueError: The file belongs to another training, or holds more epochs than ``epochs``.
        """
        fresh = FitResult(metric, None, 0, 0.0)
        if self.path is None or not self.path.exists():
            return fresh, None
        tensors = load_file(self.path)
        meta = json.loads(bytes(tensors.pop("meta").tolist()).decode())
        if meta["identity"] != self.identity:
            changed = [k for k, v in self.identity.items() if meta["identity"].get(k) != v]
            got = f"{self.path.name} with another {', '.join(changed)}"
            raise ArgumentError("checkpoint", "come from the same training run", got)
        done = len(meta["result"]["history"])
        if done > epochs:
            raise ArgumentError("epochs", f"not be below the {done} epochs in {self.path.name}", epochs)
        part = {
            key: {name.removeprefix(f"{key}."): t for name, t in tensors.items() if name.startswith(f"{key}.")}
            for key in ("model", "best", "optimizer")
        }
        model.load_state_dict(part["model"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, t in part["optimizer"].items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = t
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return FitResult(**meta["result"]), part["best"] or None

    def write(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, result: FitResult, best: dict[str, Tensor] | None
    ) -> None:
        """Write the state of the training to the file atomically.

        Args:
            model: The model.
            optimizer: The optimizer.
            result: The result so far.
            best: The parameters of the best epoch, if they are known.
        """
        if self.path is None:
            return
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (best or {}).items()}
        for index, entry in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        # All is in one file, so that parameters and history belong to the same epoch.
        meta = json.dumps({"identity": self.identity, "result": asdict(result)}).encode()
        tensors["meta"] = torch.tensor(list(meta), dtype=torch.uint8)
        self._commit(save({k: v.contiguous() for k, v in tensors.items()}), len(result.history))

    def _commit(self, content: bytes, epoch: int) -> None:
        """Replace the file."""
        assert self.path is not None
        write_atomic(self.path, content)
