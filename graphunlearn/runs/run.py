"""Run folders: a trained model with all that it takes to forget from it, and to audit that later."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from graphunlearn._version import __version__
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.events import part_sizes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import BCE, BPR, Criterion, CrossEntropy, FitSettings, build_model, kind_of
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import UnlearningResult
from graphunlearn.operators.shards.ensemble import ShardEnsemble
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.runs.folder import FORMAT, FolderReader, packed, replaced, write_parts

__all__ = ["Forgotten", "Graph", "ModelSpec", "Run", "watched"]

OBJECTIVES: dict[str, type[Criterion]] = {"bpr": BPR, "bce": BCE, "cross-entropy": CrossEntropy}
Graph: TypeAlias = InteractionGraph | SessionGraph
GRAPHS: dict[str, type[Graph]] = {"interactions": InteractionGraph, "sessions": SessionGraph}


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a model again."""

    name: str
    dim: int
    layers: int

    @property
    def kind(self) -> str:
        """What the model learns from: ``"interactions"`` or ``"sessions"``."""
        return kind_of(self.name)

    def build(self, graph: Graph) -> nn.Module:
        """Return the untrained model for ``graph``, on its device."""
        return build_model(self.name, graph, self.dim, self.layers)


@dataclass
class Forgotten:
    """Where a run came from by forgetting.

    Args:
        original: The model before.
        graph: The graph that it was trained on.
        result: What the method handed back.
        options: The options of the method.
        token: What a ledger knows this request by, where it is entered in one.
    """

    original: nn.Module
    graph: Graph
    result: UnlearningResult
    options: dict[str, Any]
    token: str | None = None


@dataclass
class Run:
    """A trained (or corrected) model, its data, and how it was made.

    Args:
        spec: How to build the model.
        model: The model.
        train: What it learned from, and serves with.
        validation: What decided when its training stopped.
        test: What judges it.
        objective: The loss.
        settings: The training settings, seed included.
        about: For the reader: data set, split, what happened in training.
        forgotten: Where it came from, unless it was simply trained.
    """

    spec: ModelSpec
    model: nn.Module
    train: Graph
    validation: Graph
    test: Graph
    objective: Criterion
    settings: FitSettings
    about: dict[str, Any] = field(default_factory=dict)
    forgotten: Forgotten | None = None

    @property
    def dataset(self) -> dict[str, Any]:
        """The data, as a report holds it."""
        train = self.train if self.forgotten is None else self.forgotten.graph
        parts = {"train": train, "validation": self.validation, "test": self.test}
        return {"name": self.about.get("dataset"), **part_sizes(parts)}

    def save(self, out: Path, overwrite: bool = False, also: Callable[[Path], Any] | None = None) -> None:
        """Write the run folder, whole or not at all.

        Args:
            out: The folder.
            overwrite: Whether an earlier one may be replaced.
            also: Writes more into the folder, which is given to it while it is in the making.

        Raises:
            ValueError: See :func:`~graphunlearn.runs.folder.check_out`.
            OSError: It could not be written; an earlier folder is as it was.
        """
        with replaced(out, overwrite) as folder:
            graphs = {"train": self.train, "validation": self.validation, "test": self.test}
            models = {"model": self.model}
            facts: dict[str, Any] = {"run": self._facts()}
            if self.forgotten is not None:
                graphs["original_train"] = self.forgotten.graph
                models["original"] = self.forgotten.original
                if self.forgotten.result.original is not None:
                    models["own_original"] = self.forgotten.result.original
                facts |= _forgotten_facts(self.forgotten)
            for name, graph in graphs.items():
                graph.save(folder / f"{name}.safetensors")
            write_parts(folder, {name: _model_file(model) for name, model in models.items()}, facts)
            if also is not None:
                also(folder)

    def _facts(self) -> dict[str, Any]:
        name = next(key for key, cls in OBJECTIVES.items() if type(self.objective) is cls)
        objective: Any = self.objective
        return {
            "format": FORMAT,
            "graphunlearn": __version__,
            "model": asdict(self.spec),
            "objective": {"name": name, **asdict(objective)},
            "settings": asdict(self.settings),
            "about": self.about,
            "fingerprints": {
                "model": fingerprint(self.model),
                "train": self.train.fingerprint(),
                "validation": self.validation.fingerprint(),
                "test": self.test.fingerprint(),
            },
        }

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Run:
        """Read a run folder.

        Raises:
            ValueError: It is no run folder, or not whole.
        """
        if not folder.is_dir():
            raise ArgumentError("run", "be a run folder", f"'{folder}', which is no folder")
        if not (folder / "run.json").is_file():
            raise ArgumentError("run", "be a run folder, as 'train' writes it", f"'{folder}', without a run.json")
        with FolderReader.whole(folder, "run", "run folder") as reader:
            return cls._load(reader, device)

    @classmethod
    def _load(cls, reader: FolderReader, device: torch.device | str) -> Run:
        facts = reader.versioned("run")
        objective = dict(facts["objective"])
        spec = ModelSpec(**facts["model"])
        train, validation, test = (_read_graph(reader, n, spec, device) for n in ("train", "validation", "test"))
        run = cls(
            spec,
            _read_model(reader, "model", spec, train),
            train,
            validation,
            test,
            OBJECTIVES[objective.pop("name")](**objective),
            FitSettings(**facts["settings"]),
            facts["about"],
        )
        parts = {"model": fingerprint(run.model)} | {
            name: getattr(run, name).fingerprint() for name in ("train", "validation", "test")
        }
        reader.check(parts, facts["fingerprints"], by="run")
        if reader.has("unlearning.json"):
            run.forgotten = _read_forgotten(reader, run, device)
        return run


def watched(validation: Graph, train: Graph) -> Graph:
    """Return the validation part as training watches it: sessions without clicks of items that ``train`` never holds.

    Run folders hold the sessions whole, so that positions in them stay those of the file.
    """
    if isinstance(validation, SessionGraph) and isinstance(train, SessionGraph):
        return validation.without_unseen(train)
    return validation


def _forgotten_facts(forgotten: Forgotten) -> dict[str, Any]:
    result = forgotten.result
    parts = [{"level": part.level, "ids": part.index} for part in result.request.parts]
    kept = ("method", "seconds", "cpu_seconds", "prepare_seconds", "peak_memory", "log")
    unlearning = {name: getattr(result, name) for name in kept} | {"options": forgotten.options}
    prints = {"original": fingerprint(forgotten.original), "original_train": forgotten.graph.fingerprint()}
    if result.original is not None:
        prints["own_original"] = fingerprint(result.original)
    unlearning |= {"fingerprints": prints} | ({} if forgotten.token is None else {"token": forgotten.token})
    return {"request": {"parts": parts}, "unlearning": unlearning}


def _read_forgotten(reader: FolderReader, run: Run, device: torch.device | str) -> Forgotten | None:
    """Return where the run came from; nothing where the files that tell were deleted, as one may to forget for good."""
    if not reader.has("original.safetensors", "original_train.safetensors", "request.json"):
        return None
    facts = reader.facts("unlearning")
    own = "own_original" in facts["fingerprints"]
    if own and not reader.has("own_original.safetensors"):
        return None
    graph = _read_graph(reader, "original_train", run.spec, device)
    original = _read_model(reader, "original", run.spec, graph)
    before = _read_model(reader, "own_original", run.spec, graph) if own else None
    options, prints, token = facts.pop("options"), facts.pop("fingerprints"), facts.pop("token", None)
    found = {"original": fingerprint(original), "original_train": graph.fingerprint()}
    reader.check(found | ({} if before is None else {"own_original": fingerprint(before)}), prints, by="unlearning")
    parts = reader.facts("request")["parts"]
    request = ForgetRequest(parts[0]["level"], tuple(parts[0]["ids"]))
    for part in parts[1:]:
        request |= ForgetRequest(part["level"], tuple(part["ids"]))
    result = UnlearningResult(run.model, run.train, request, **facts, original=before)
    return Forgotten(original, graph, result, options, token)


def _read_graph(reader: FolderReader, name: str, spec: ModelSpec, device: torch.device | str) -> Graph:
    graph: Graph = GRAPHS[spec.kind].load(reader.folder / f"{name}.safetensors").to(device)
    return graph


def _read_model(reader: FolderReader, name: str, spec: ModelSpec, graph: Graph) -> nn.Module:
    model = spec.build(graph)
    tensors, about = reader.tensors(name)
    if "shards" in about:
        return ShardEnsemble.rebuilt(json.loads(about["shards"]), tensors, model).to(graph.device)
    model.load_state_dict(tensors)
    return model.eval()


def _model_file(model: nn.Module) -> bytes:
    """Return a model as safetensors; one of shards, with what builds it of models again."""
    if isinstance(model, Kept):
        return packed(model.tensors(), {"shards": json.dumps(model.shape())})
    return packed(model.state_dict())
