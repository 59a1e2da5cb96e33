"""What UnlearnRec keeps of its pre-training, in memory and on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.unlearnrec.encoder import InfluenceEncoder
from graphunlearn.operators.unlearnrec.published_encoder import PublishedEncoder

__all__ = ["Preparation"]

FORMAT = 1


@dataclass
class Preparation:
    """A pre-trained encoder and what it holds for.

    Args:
        kind: ``"probe"`` or ``"published"``.
        encoder: The encoder.
        model: Fingerprint of the model it was prepared for.
        graph: Fingerprint of that model's graph.
        log: What was done to prepare it.
        seconds: How long that took.
        served: Fingerprints of the models and graphs that requests have led to from there.
    """

    kind: str
    encoder: InfluenceEncoder | PublishedEncoder
    model: str
    graph: str
    log: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    served: set[tuple[str, str]] = field(default_factory=set)

    def objection(self, own: str, theirs: str) -> str | None:
        """Return which argument it was not prepared for, by the fingerprints of model and graph, or nothing."""
        if (own, theirs) in self.served or (own, theirs) == (self.model, self.graph):
            return None
        return "model" if own != self.model and not any(own == m for m, _ in self.served) else "graph"

    def note(self, model: nn.Module, graph: InteractionGraph) -> None:
        """Remember where a request has led to: from there it goes on."""
        self.served.add((fingerprint(model), graph.fingerprint()))

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file, atomically; ``.safetensors`` is added where it is missing."""
        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
        facts = {name: value for name, value in vars(self).items() if name not in ("encoder", "served")}
        facts |= {"format": FORMAT, "encoder": _shape(self.encoder), "served": sorted(self.served)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.encoder.state_dict().items()}
        write_atomic(path, save(tensors, metadata={"graphunlearn": json.dumps(facts)}))
        return path

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Preparation:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: It is no preparation, or of another version.
        """
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
        shape, served = facts.pop("encoder"), {(m, g) for m, g in facts.pop("served")}
        encoder = (InfluenceEncoder if facts["kind"] == "probe" else PublishedEncoder)(**shape)
        encoder.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
        return cls(encoder=encoder.to(device), served=served, **facts)


def _shape(encoder: InfluenceEncoder | PublishedEncoder) -> dict[str, Any]:
    """Return what builds the encoder again."""
    if isinstance(encoder, InfluenceEncoder):
        return {"hidden": encoder.hidden, "context": encoder.context}
    return {"num_nodes": len(encoder.influence), "dim": encoder.influence.size(1), "layers": encoder.layers}
