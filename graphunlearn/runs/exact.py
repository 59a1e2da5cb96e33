"""Run folders of models that forget exactly: EASE, item-kNN and implicit ALS."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from graphunlearn._version import __version__
from graphunlearn.data import InteractionGraph
from graphunlearn.data.io.sealed import check_seal
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.floors import ALS, EASE, Floor, ItemKNN
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.folder import FORMAT, FolderReader, packed, replaced, whole, write_parts

__all__ = ["EXACT", "ExactRun", "exact_name"]

EXACT: dict[str, type[Floor]] = {"ease": EASE, "itemknn": ItemKNN, "als": ALS}
"""The models that forget exactly, by their names on the command line."""
PARTS = ("train", "validation", "test")


def exact_name(folder: Path) -> str | None:
    """Return the name of the exact model that a run folder holds; ``None`` for a run of another model or no run.

    Args:
        folder: The folder.
    """
    try:
        found = FolderReader(folder).facts("run").get("exact", {}).get("name")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) and found in EXACT else None


@dataclass
class ExactRun:
    """A model that forgets exactly, and its data.

    Args:
        name: The name of the model on the command line.
        floor: The fitted model, whose ``graph`` is the training data.
        validation: The validation data, which the model does not use.
        test: The test data.
        about: Information for readers: the data set and the split.
        emptied: Raw ids, by node type, of the users and items of which requests have left nothing.
    """

    name: str
    floor: Floor
    validation: InteractionGraph
    test: InteractionGraph
    about: dict[str, Any] = field(default_factory=dict)
    emptied: dict[str, list[str]] | None = None

    @property
    def train(self) -> InteractionGraph:
        """The training data."""
        graph: InteractionGraph = self.floor.graph
        return graph

    @property
    def spec(self) -> Any:
        """The name and the kind of the model, as those of other runs."""
        return SimpleNamespace(name=self.name, kind="interactions", code=None)

    def save(self, out: Path, overwrite: bool = False) -> None:
        """Write the run folder; if writing fails, an existing folder stays unchanged.

        Args:
            out: The folder.
            overwrite: Whether an existing folder may be replaced.

        Raises:
            ArgumentError: The folder cannot be written to.
            OSError: The folder could not be written.
        """
        options = {entry.name: getattr(self.floor, entry.name) for entry in fields(self.floor) if entry.init}
        graphs, tensors = {name: getattr(self, name) for name in PARTS}, self.floor.tensors()
        facts = {"format": FORMAT, "graphunlearn": __version__, "about": self.about}
        facts["exact"] = {"name": self.name, "options": options}
        facts["fingerprints"] = _fingerprints(graphs, tensors)
        with replaced(out, overwrite) as folder:
            for name, graph in graphs.items():
                (folder / f"{name}.safetensors").write_bytes(graph.packed(None))
            write_parts(folder, {"model": packed(tensors)}, {"run": facts})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> ExactRun:
        """Read a run folder.

        Args:
            folder: The folder.
            device: Device of the model and the graphs.

        Raises:
            ArgumentError: The folder is not one of a model that forgets exactly, or a file of it is missing, broken or
                has been changed.
        """
        name = exact_name(folder)
        if name is None:
            raise ArgumentError("run", f"be a run of {', '.join(EXACT)}", f"'{folder}'")
        with whole("run", "be a whole run folder", folder):
            reader = FolderReader(folder)
            facts, graphs = reader.versioned("run"), {}
            for part in PARTS:
                check_seal(folder / f"{part}.safetensors", reader.sealed)
                graphs[part] = InteractionGraph.load(folder / f"{part}.safetensors").to(device)
            floor = EXACT[name](**facts["exact"]["options"])
            tensors = reader.tensors("model")[0]
            reader.check(_fingerprints(graphs, tensors), facts["fingerprints"], by="run")
            floor.restore(graphs["train"], tensors)
            return cls(name, floor, graphs["validation"], graphs["test"], facts["about"])


def _fingerprints(graphs: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return the fingerprints of the model and the graphs by name, so that parts of several runs are told apart."""
    return {"model": fingerprint(tensors), **{name: graph.fingerprint() for name, graph in graphs.items()}}
