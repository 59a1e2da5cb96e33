"""The preparation of a method, which is computed once for many requests, in memory and on disk."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.data.io.sealed import check_seal, parse_json, sealed_tensors
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.identity import fingerprint, remembered
from graphunlearn.nn.precision import check_finite

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Kept", "Preparation"]

FORMAT = 2
"""Version of the files. Since version 2, a file contains the hash of its content; version 1 is read without one."""
DEEPEST = 64
"""The largest number of layers."""


class Kept(nn.Module):
    """A module that can be written to a file and rebuilt from it.

    By default the file holds the ``state_dict`` of the module, and the module is rebuilt by calling its class with the
    entries of :meth:`shape`.
    """

    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """Return the arguments that build the module again, without its tensors; JSON-serialisable."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the module with their names."""
        return dict(self.state_dict())

    @classmethod
    def rebuilt(cls, shape: dict[str, Any], tensors: Mapping[str, Tensor], like: nn.Module | None = None) -> Self:
        """Build a module from its shape and its tensors.

        Args:
            shape: The result of :meth:`shape`.
            tensors: The result of :meth:`tensors`.
            like: A model of the class that the module was prepared for; needed if the module contains such models.

        Returns:
            The module.

        Raises:
            RuntimeError: The tensors do not fit such a module.
        """
        made = cls(**shape)
        made.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
        return made


@dataclass
class Preparation:
    """A prepared module, and the models and graphs for which it is valid.

    Args:
        kind: The kind of preparation; loading checks it.
        module: The learned module.
        model: Fingerprint of the model that the module was prepared for.
        graph: Fingerprint of the training graph of that model.
        log: A record of the preparation.
        seconds: Wall-clock seconds of the preparation; ``None`` if unknown.
        served: Fingerprints of the models and graphs that resulted from earlier requests; :meth:`note` adds to them.
        newest: The fingerprints among these of the latest request; ``None`` before one.
    """

    kind: str
    module: Kept
    model: str
    graph: str
    log: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    served: set[tuple[str, str]] = field(default_factory=set)
    newest: tuple[str, str] | None = None

    def objection(self, model: str, graph: str) -> str | None:
        """Return the name of the argument for which the preparation is not valid.

        Args:
            model: Fingerprint of a model.
            graph: Fingerprint of the graph of that model.

        Returns:
            ``"model"``, ``"graph"``, or ``None`` if the preparation is valid for both.
        """
        if (model, graph) in self.served or (model, graph) == (self.model, self.graph):
            return None
        return "model" if model != self.model and not any(model == known for known, _ in self.served) else "graph"

    def note(self, model: nn.Module, graph: InteractionGraph | SessionGraph) -> None:
        """Record the result of a request, so that the preparation is valid for further requests on it.

        Args:
            model: The corrected model.
            graph: The retained graph.
        """
        self.newest = remembered(model, "fingerprint", fingerprint), graph.fingerprint()
        self.served.add(self.newest)

    def save(self, path: str | Path) -> Path:
        """Write the preparation atomically to a safetensors file.

        The file is valid for the model and graph of the latest request, or before one, for those that the module was
        prepared for. It holds no fingerprint of any earlier graph, which would confirm guesses of what was forgotten.

        Args:
            path: The file; the suffix ``.safetensors`` is added if it is missing.

        Returns:
            The path of the file.
        """
        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
        model, graph = self.newest or (self.model, self.graph)
        facts: dict[str, Any] = {
            "kind": self.kind,
            "model": model,
            "graph": graph,
            "log": self.log,
            "seconds": self.seconds,
        }
        facts |= {"format": FORMAT, "encoder": self.module.shape(), "served": []}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.module.tensors().items()}
        write_atomic(path, sealed_tensors(tensors, {"graphunlearn": json.dumps(facts)}))
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
        """Read a file that :meth:`save` wrote.

        Args:
            path: The file.
            module: The class of the prepared module.
            device: The device to load the tensors to.
            kind: The required kind of preparation; ``None`` accepts any kind.
            like: A model of the class that the module was prepared for; see :meth:`Kept.rebuilt`.

        Returns:
            The preparation.

        Raises:
            ValueError: The file does not hold a preparation, or holds one of another version or kind.
        """
        tensors, facts = _read(path)
        if kind not in (None, facts["kind"]):
            raise ArgumentError("path", f"hold a preparation of kind {kind!r}", f"{facts['kind']!r}")
        shape, served = facts.pop("encoder"), {(model, graph) for model, graph in facts.pop("served")}
        if served:  # as earlier versions wrote them
            warn(
                f"'{path}' holds plain hashes of the data before forgetting, which confirm guesses of them; "
                "a purge removes them"
            )
        try:
            _check_sizes(shape, tensors)
            made = module.rebuilt(shape, tensors, like)
            check_finite(made)
            return cls(module=made.to(device), served=served, **facts)
        except ArgumentError:
            raise
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise ArgumentError("path", "be a preparation", f"'{path}': {' '.join(str(error).split())[:300]}") from None

    @staticmethod
    def narrowed(path: str | Path, model: str, graph: str) -> bytes | None:
        """Return the content of a saved preparation, with the fingerprints of one model and graph alone.

        Args:
            path: The file.
            model: Fingerprint of the model.
            graph: Fingerprint of its graph.

        Returns:
            The content of the file, which is the same if the file has no other fingerprints; ``None`` if the
            preparation is not valid for this model and graph.

        Raises:
            ValueError: The file does not hold a preparation, or holds one of another version.
        """
        tensors, facts = _read(path)
        served = [tuple(pair) for pair in facts["served"]]
        if (model, graph) not in [*served, (facts["model"], facts["graph"])]:
            return None
        if (facts["model"], facts["graph"], served) == (model, graph, []):
            return Path(path).read_bytes()
        facts |= {"format": FORMAT, "model": model, "graph": graph, "served": []}
        return sealed_tensors(tensors, {"graphunlearn": json.dumps(facts)})

    @staticmethod
    def log_of(path: str | Path) -> dict[str, Any]:
        """Return the log of a saved preparation of any kind.

        Args:
            path: The file.

        Returns:
            The log.

        Raises:
            ValueError: The file does not hold a preparation, or holds one of another version.
        """
        log: dict[str, Any] = _read(path)[1]["log"]
        return log


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file."""
    try:
        sealed = check_seal(Path(path))
        with safe_open(str(path), framework="pt") as file:
            facts = parse_json((file.metadata() or {}).get("graphunlearn", "null"))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ArgumentError("path", "be a preparation", f"'{path}': {error}") from None
    if facts is None:
        raise ArgumentError("path", "be a preparation", f"'{path}', which is none")
    found = facts.pop("format", None) if isinstance(facts, dict) else None
    if found not in (1, FORMAT):
        raise ArgumentError("path", f"be a preparation of format {FORMAT}", f"'{path}', of format {found}")
    if found == FORMAT and not sealed:
        raise ArgumentError("path", "be a preparation", f"'{path}': it lacks the hash of its content")
    return tensors, facts


def _check_sizes(shape: Any, tensors: Mapping[str, Tensor]) -> None:
    """Check that the arguments of a module are not larger than its tensors allow, before memory is taken for it.

    Args:
        shape: The arguments, by name.
        tensors: The tensors of the module.

    Raises:
        ValueError: They are.
    """
    largest = sum(tensor.numel() for tensor in tensors.values())
    for name, value in shape.items():
        most = DEEPEST if name == "layers" else largest
        for number in value if isinstance(value, list) else [value]:
            if name != "seed" and isinstance(number, int) and not 0 <= number <= most:
                raise ValueError(f"its '{name}' is {number}, and its tensors allow at most {most}")
