"""What a method does once for many requests, in memory and on disk."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Kept", "Preparation"]

FORMAT = 1


class Kept(nn.Module):
    """A module that can be written to a file, and built again from what is there.

    By default the file holds its ``state_dict``, and its class is called with :meth:`shape`.
    """

    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """Return the arguments that build the module again, without its tensors; JSON-able."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it has learned, by name."""
        return dict(self.state_dict())

    @classmethod
    def rebuilt(cls, shape: dict[str, Any], tensors: Mapping[str, Tensor], like: nn.Module | None = None) -> Self:
        """Return the module of which :meth:`shape` and :meth:`tensors` tell.

        Args:
            shape: Of the module.
            tensors: Of the module.
            like: A model of the class that the module is made for, where it holds such models itself.

        Raises:
            RuntimeError: The tensors are not those of such a module.
        """
        made = cls(**shape)
        made.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
        return made


@dataclass
class Preparation:
    """What was prepared, and which models and graphs it serves.

    Args:
        kind: What it is; a file of another kind is not taken for it.
        module: What was learned.
        model: Fingerprint of the model it was prepared for.
        graph: Fingerprint of that model's graph.
        log: What was done to prepare it.
        seconds: How long that took.
        served: Fingerprints of the models and graphs that requests have led to from there; :meth:`note` adds to them.
    """

    kind: str
    module: Kept
    model: str
    graph: str
    log: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    served: set[tuple[str, str]] = field(default_factory=set)

    def objection(self, model: str, graph: str) -> str | None:
        """Return which argument it does not serve, by the fingerprints of model and graph, or nothing.

        Args:
            model: Fingerprint of a model.
            graph: Fingerprint of its graph.

        Returns:
            ``"model"``, ``"graph"`` or ``None``.
        """
        if (model, graph) in self.served or (model, graph) == (self.model, self.graph):
            return None
        return "model" if model != self.model and not any(model == known for known, _ in self.served) else "graph"

    def note(self, model: nn.Module, graph: InteractionGraph | SessionGraph) -> None:
        """Remember where a request has led to: from there it goes on."""
        self.served.add((fingerprint(model), graph.fingerprint()))

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, whole or not at all.

        Args:
            path: The file; ``.safetensors`` is added where it is missing.

        Returns:
            The path of the file.
        """
        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
        facts = {name: value for name, value in vars(self).items() if name not in ("module", "served")}
        facts |= {"format": FORMAT, "encoder": self.module.shape(), "served": sorted(self.served)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.module.tensors().items()}
        write_atomic(path, save(tensors, metadata={"graphunlearn": json.dumps(facts)}))
        return path

    @classmethod
    def load(
        cls,
        path: str | Path,
        module: type[Kept],
        device: torch.device | str = "cpu",
        *,
        kind: str | None = None,
        like: nn.Module | None = None,
    ) -> Preparation:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            module: The class of what was prepared.
            device: Where to put it.
            kind: What the preparation must be; anything where ``None``.
            like: A model of the class that it was prepared for; see :meth:`Kept.rebuilt`.

        Returns:
            The preparation.

        Raises:
            ValueError: It is none, of another version, or of another kind.
        """
        tensors, facts = _read(path)
        if kind not in (None, facts["kind"]):
            raise ArgumentError("path", f"hold a preparation of kind {kind!r}", f"{facts['kind']!r}")
        shape, served = facts.pop("encoder"), {(model, graph) for model, graph in facts.pop("served")}
        return cls(module=module.rebuilt(shape, tensors, like).to(device), served=served, **facts)

    @staticmethod
    def log_of(path: str | Path) -> dict[str, Any]:
        """Return the log of a saved preparation, whatever was prepared.

        Raises:
            ValueError: It is none, or of another version.
        """
        log: dict[str, Any] = _read(path)[1]["log"]
        return log


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the facts of a file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("graphunlearn", "null"))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ArgumentError("path", "be a preparation", f"'{path}': {error}") from None
    if facts is None:
        raise ArgumentError("path", "be a preparation", f"'{path}', which is none")
    found = facts.pop("format", None)
    if found != FORMAT:
        raise ArgumentError("path", f"be a preparation of format {FORMAT}", f"'{path}', of format {found}")
    return tensors, facts
