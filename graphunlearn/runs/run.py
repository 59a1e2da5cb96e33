"""Run folders: a trained model with everything that unlearning and a later audit need."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from graphunlearn._version import __version__
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.events import Kind, part_sizes
from graphunlearn.data.io.sealed import check_seal, parse_json
from graphunlearn.data.renumbering import emptied_nodes, inactive_ids
from graphunlearn.data.schema import check_sizes, warn
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import (
    BCE,
    BPR,
    Criterion,
    CrossEntropy,
    FitSettings,
    InBatchSoftmax,
    SampledBCE,
    SampledSoftmax,
    SquaredError,
    build_model,
    kind_of,
)
from graphunlearn.nn.identity import fingerprint, keyed
from graphunlearn.nn.precision import check_finite
from graphunlearn.operators import UnlearningResult
from graphunlearn.operators.compacting import emptied_by
from graphunlearn.operators.shards.ensemble import ShardEnsemble
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.runs.code import Code
from graphunlearn.runs.exact import exact_name
from graphunlearn.runs.folder import FORMAT, FolderReader, packed, replaced, whole, write_parts

__all__ = ["Forgotten", "Graph", "ModelSpec", "Run"]

OBJECTIVES: dict[str, type[Criterion]] = {
    "bpr": BPR,
    "bce": BCE,
    "squared-error": SquaredError,
    "sampled-bce": SampledBCE,
    "sampled-softmax": SampledSoftmax,
    "in-batch-softmax": InBatchSoftmax,
    "cross-entropy": CrossEntropy,
}
"""The losses of run folders, by name."""
Graph: TypeAlias = InteractionGraph | SessionGraph
GRAPHS: dict[str, type[Graph]] = {"interactions": InteractionGraph, "sessions": SessionGraph}
PARTS = ("train", "validation", "test")
WIDEST, DEEPEST = 65_536, 64
"""The largest width and number of layers of a model."""
FASTEST = 1000.0
"""The largest learning rate and weight of a penalty that a run folder may name; nothing converges with more."""
NEGATIVES = 65_536
"""The largest number of negatives per interaction."""
SALT = "salt"
"""Entry of the metadata of original_train.safetensors: the key of the digests of the originals in unlearning.json.

Where that file is deleted, nobody can compare the digests with guesses of what it held."""
PLAIN = "holds plain hashes of the data before forgetting; a purge removes them"


@dataclass(frozen=True)
class ModelSpec:
    """The name and the sizes of a model, or the code of a model of one's own, from which it can be built.

    Args:
        name: Name of the model, as in :func:`~graphunlearn.nn.build_model`, or of the function that builds it.
        dim: Width of the embedding table; ``None`` for a model of one's own.
        layers: Number of layers; ``None`` for a model of one's own.
        code: The code of a model of one's own; ``None`` for the others.
    """

    name: str
    dim: int | None
    layers: int | None
    code: Code | None = None

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> ModelSpec:
        """Return the description that :meth:`facts` wrote.

        Args:
            facts: The description in JSON types.
        """
        code = facts.get("code")
        return cls(**{**facts, "code": None if code is None else Code(**code)})

    def __post_init__(self) -> None:
        if self.code is None:
            for name, most in (("dim", WIDEST), ("layers", DEEPEST)):
                size = getattr(self, name)
                check_sizes(**{name: size})
                if size > most:
                    raise ArgumentError(name, f"be at most {most:,}", size)

    def facts(self) -> dict[str, Any]:
        """Return the description in JSON types."""
        facts = asdict(self)
        if self.code is None:
            del facts["code"]
        return facts

    @property
    def kind(self) -> Kind:
        """The kind of graph that the model learns from: ``"interactions"`` or ``"sessions"``."""
        return kind_of(self.name) if self.code is None else self.code.kind

    def build(self, graph: Graph) -> nn.Module:
        """Return an untrained model for a graph, on the device of the graph.

        Args:
            graph: The graph.

        Raises:
            ArgumentError: The sizes or the kind do not fit, or code of one's own failed; see
                :class:`~graphunlearn.runs.code.Code`.
        """
        if self.code is not None:
            return self.code.model(graph)
        return build_model(self.name, graph, 64 if self.dim is None else self.dim, self.layers)


@dataclass
class Forgotten:
    """The model and the data from which a run resulted by unlearning.

    Args:
        original: The original model.
        graph: The graph that the original model was trained on.
        result: The result of the method.
        options: The options of the method.
        token: The token of the request in a ledger, if it is entered in one.
    """

    original: nn.Module
    graph: Graph
    result: UnlearningResult
    options: dict[str, Any]
    token: str | None = None


@dataclass
class Run:
    """A trained or corrected model, its data, and its training settings.

    Args:
        spec: The name and the sizes of the model.
        model: The model.
        train: The training data, which the model also propagates over.
        validation: The validation data for early stopping.
        test: The test data.
        objective: The loss.
        settings: The training settings, including the seed.
        about: Information for readers: the data set, the split and the course of the training.
        forgotten: The model and the data before unlearning; ``None`` for a run without unlearning.
        emptied: Raw ids, by node type, of the users and items that requests have emptied and that still have rows;
            ``None`` if it is not known. They are in ``request.json``; where that of an earlier request was deleted, it
            is not known.
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
    emptied: dict[str, list[str]] | None = field(default_factory=dict)

    def early_stopping(self, graph: Graph) -> Graph | None:
        """Return the validation data of users and items that a training graph has; ``None`` without validation data.

        Interactions of users and items that it never had stay, but not those of whom earlier requests have emptied.

        Args:
            graph: The training graph.
        """
        held = self.validation.without_unseen(graph)
        for name, ids in (self.emptied or {}).items():
            gone = inactive_ids(graph, name, ids)
            held = held.without(ForgetRequest(name, tuple(gone))) if gone else held  # type: ignore[arg-type]
        return held if self.validation.num_interactions else None

    @property
    def dataset(self) -> dict[str, Any]:
        """The name and the sizes of the data, as in reports; the training data are those before unlearning."""
        parts = {name: getattr(self, name) for name in PARTS}
        if self.forgotten is not None:
            parts["train"] = self.forgotten.graph
        return {"name": self.about.get("dataset"), **part_sizes(parts)}

    def save(self, out: Path, overwrite: bool = False, also: Callable[[Path], Any] | None = None) -> None:
        """Write the run folder; if writing fails, an existing folder stays unchanged.

        Args:
            out: The folder.
            overwrite: Whether an existing folder may be replaced.
            also: Function that writes further files to the folder that it receives.

        Raises:
            ArgumentError: The loss is not one of this package, or the folder cannot be written to; see
                :func:`~graphunlearn.runs.folder.check_out`.
            OSError: The folder could not be written.
        """
        parts: dict[str, Any] = {name: getattr(self, name) for name in ("model", *PARTS)}
        objective: Any = self.objective
        loss = next((name for name, cls in OBJECTIVES.items() if type(objective) is cls), None)
        if loss is None:
            hint = "save the graph with its method save, and the state_dict of the model"
            got = f"{type(objective).__name__}, which a file does not tell how to compute"
            raise ArgumentError("objective", f"be a loss that run folders know: {', '.join(OBJECTIVES)}", got, hint)
        about = {
            "format": FORMAT,
            "graphunlearn": __version__,
            "model": self.spec.facts(),
            "objective": {"name": loss, **asdict(objective)},
            "settings": asdict(self.settings),
            "about": self.about,
            "fingerprints": _fingerprints(parts),
        }
        facts, salt = {"run": about}, secrets.token_bytes(32)
        if self.forgotten is not None:
            result = self.forgotten.result
            before = {"original": self.forgotten.original, "original_train": self.forgotten.graph}
            before |= {} if result.original is None else {"own_original": result.original}
            facts |= _forgotten_facts(self.forgotten, _keyed(_fingerprints(before), salt))
            facts["request"]["emptied"] = _united(self.emptied, result)
            parts |= before
        elif self.emptied is None or self.emptied:
            facts["request"] = {"emptied": self.emptied}
        with replaced(out, overwrite) as folder:
            models = {}
            for name, part in parts.items():
                if isinstance(part, nn.Module):
                    models[name] = _model_file(part)
                else:
                    extra = {SALT: salt.hex()} if name == "original_train" else None
                    (folder / f"{name}.safetensors").write_bytes(part.packed(extra))
            write_parts(folder, models, facts)
            if also is not None:
                also(folder)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", *, memory_map: bool = False) -> Run:
        """Read a run folder.

        Args:
            folder: The folder.
            device: Device of the model and the graphs.
            memory_map: Whether the tensors of the model stay in its file, whose pages are read as they are needed and
                shared by all processes that map it. The model is then not to be trained; a change of it in place is not
                written to the file. Only on a CPU.

        Returns:
            The run.

        Raises:
            ArgumentError: The folder is not a run folder, or a file of it is missing, broken or has been changed.
            CodeError: The folder names code of the user that is not trusted (see :func:`graphunlearn.runs.trust`), that
                is not found, or that failed.
        """
        if not folder.is_dir():
            raise ArgumentError("run", "be a run folder", f"'{folder}', which is no folder")
        if not (folder / "run.json").is_file():
            raise ArgumentError("run", "be a run folder, as 'train' writes it", f"'{folder}', without a run.json")
        if memory_map and torch.device(device).type != "cpu":
            raise ArgumentError("memory_map", "be False for a device other than the CPU", f"True for {device}")
        if exact_name(folder) is not None:
            got = f"'{folder}', of {exact_name(folder)}, which 'forget', 'recommend' and 'evaluate' take"
            raise ArgumentError("run", "be a run of a model with trained embeddings", got)
        with whole("run", "be a whole run folder", folder):
            return cls._load(FolderReader(folder), device, memory_map=memory_map)

    @classmethod
    def _load(cls, reader: FolderReader, device: torch.device | str, *, memory_map: bool = False) -> Run:
        facts = reader.versioned("run")
        objective = dict(facts["objective"])
        check_plausible(objective, facts["settings"])
        spec = ModelSpec.read(facts["model"])
        if spec.code is not None:
            spec.code.check()
        graphs = {name: _read_graph(reader, name, spec, device) for name in PARTS}
        run = cls(
            spec,
            _read_model(reader, "model", spec, graphs["train"], memory_map=memory_map),
            **graphs,
            objective=OBJECTIVES[objective.pop("name")](**objective),
            settings=FitSettings(**facts["settings"]),
            about=facts["about"],
        )
        reader.check(_fingerprints({"model": run.model, **graphs}), facts["fingerprints"], by="run")
        if reader.has("unlearning.json"):
            run.forgotten = _read_forgotten(reader, run, device)
        if reader.has("request.json"):
            run.emptied = _read_emptied(reader, run.forgotten)
        elif reader.has("unlearning.json"):
            run.emptied = None
        return run


def check_plausible(objective: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check the settings of a run folder for values that no training has.

    Args:
        objective: The loss, as in run.json.
        settings: The training settings, as in run.json.

    Raises:
        ArgumentError: A value is absurd.
    """
    limits = {"lr": FASTEST, "weight_decay": FASTEST, "negatives": NEGATIVES, "batch_size": 2**40, "seed": 2**63 - 1}
    limits |= {"epochs": 2**40, "patience": 2**40}
    for name, value in (*objective.items(), *settings.items()):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in limits and value is not None and not (number and 0 <= value <= limits[name]):
            raise ArgumentError(name, f"be a number from 0 to {limits[name]:,}", value)


def _fingerprints(parts: dict[str, Any]) -> dict[str, str]:
    """Return the fingerprints of models and graphs by name."""
    return {
        name: fingerprint(part) if isinstance(part, nn.Module) else part.fingerprint() for name, part in parts.items()
    }


def _keyed(prints: dict[str, str], salt: bytes) -> dict[str, str]:
    """Return the keyed digests of fingerprints by name."""
    return {name: keyed(text, salt) for name, text in prints.items()}


def _forgotten_facts(forgotten: Forgotten, digests: dict[str, str]) -> dict[str, Any]:
    """Return the content of ``request.json`` and ``unlearning.json``."""
    result = forgotten.result
    parts = [{"level": part.level, "ids": part.index} for part in result.request.parts]
    kept = ("method", "seconds", "cpu_seconds", "prepare_seconds", "peak_memory", "log")
    unlearning = {name: getattr(result, name) for name in kept}
    unlearning |= {"options": forgotten.options, "digests": digests}
    unlearning |= {} if forgotten.token is None else {"token": forgotten.token}
    return {"request": {"parts": parts}, "unlearning": unlearning}


def _united(emptied: dict[str, list[str]] | None, result: UnlearningResult) -> dict[str, list[str]] | None:
    """Return the raw ids of those whom earlier requests have emptied, if known, and of those whom a result has."""
    if emptied is None:
        return None
    found = {}
    for name, nodes in emptied_by(result).items():
        ids = result.graph.vocabulary(name)
        found[name] = list(dict.fromkeys([*emptied.get(name, ()), *(ids[n] for n in nodes.tolist())]))
    return found


def _read_emptied(reader: FolderReader, forgotten: Forgotten | None) -> dict[str, list[str]] | None:
    """Return whom requests have emptied, as ``request.json`` tells it.

    Raises:
        ValueError: It is not lists of ids by node type.
    """
    facts = reader.facts("request")
    if "emptied" not in facts:  # written by an earlier version
        return None if forgotten is None else _united({}, forgotten.result)
    found = facts["emptied"]
    lists = found.items() if isinstance(found, dict) else ()
    if found is not None and not (
        isinstance(found, dict)
        and all(name in ("user", "item") and isinstance(ids, list) for name, ids in lists)
        and all(isinstance(text, str) for _, ids in lists for text in ids)
    ):
        raise ValueError("'emptied' in request.json must hold lists of ids of users and items")
    return found


def _read_forgotten(reader: FolderReader, run: Run, device: torch.device | str) -> Forgotten | None:
    """Return the model and the data before unlearning, or ``None`` if their files were deleted."""
    facts = reader.facts("unlearning")
    recorded, plain = facts.pop("digests", None), facts.pop("fingerprints", None)
    if plain is not None:  # as earlier versions wrote them
        warn(f"'{reader.folder}' {PLAIN}")
        recorded = plain
    if recorded is None or not reader.has("request.json", *(f"{name}.safetensors" for name in recorded)):
        return None
    graph = _read_graph(reader, "original_train", run.spec, device)
    models = {name: _read_model(reader, name, run.spec, graph) for name in recorded if name != "original_train"}
    prints = _fingerprints({**models, "original_train": graph})
    if plain is None:
        prints = _keyed(prints, bytes.fromhex(reader.metadata("original_train")[SALT]))
    reader.check(prints, recorded, by="unlearning")
    options, token = facts.pop("options"), facts.pop("token", None)
    request = _read_request(reader, graph)
    own, emptied = models.get("own_original"), emptied_nodes(graph, run.train)
    result = UnlearningResult(run.model, run.train, request, **facts, original=own, emptied=emptied)
    return Forgotten(models["original"], graph, result, options, token)


def _read_request(reader: FolderReader, graph: Graph) -> ForgetRequest:
    """Return the request of a run folder.

    Raises:
        ValueError: It names nothing, or something that the graph before unlearning does not have.
    """
    try:
        parts = [ForgetRequest(part["level"], tuple(part["ids"])) for part in reader.facts("request")["parts"]]
        if not parts:
            raise ValueError("it names nothing to forget")
        request = reduce(or_, parts)
        request.mask(graph)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"request.json does not fit original_train.safetensors: {error}") from None
    return request


def _read_graph(reader: FolderReader, name: str, spec: ModelSpec, device: torch.device | str) -> Graph:
    check_seal(reader.folder / f"{name}.safetensors", reader.sealed)
    graph: Graph = GRAPHS[spec.kind].load(reader.folder / f"{name}.safetensors").to(device)
    return graph


def _read_model(
    reader: FolderReader, name: str, spec: ModelSpec, graph: Graph, *, memory_map: bool = False
) -> nn.Module:
    tensors, about = reader.tensors(name)
    if spec.code is None and not any(spec.dim in tensor.shape[1:] for tensor in tensors.values()):
        raise ValueError(f"no table of {name}.safetensors has the width that run.json says, {spec.dim}")
    model = spec.build(graph)
    if "shards" in about:
        model = ShardEnsemble.rebuilt(parse_json(about["shards"]), tensors, model).to(graph.device)
    else:
        model.load_state_dict(tensors, assign=memory_map)  # tensors of a safetensors file are mapped copy-on-write
    try:
        check_finite(model)
    except ValueError as error:
        raise ValueError(f"{name}.safetensors is broken: {error}") from None
    return model.eval()


def _model_file(model: nn.Module) -> bytes:
    """Return the content of the file of a model; for an ensemble of shards, the metadata contain its structure."""
    if isinstance(model, Kept):
        return packed(model.tensors(), {"shards": json.dumps(model.shape())})
    return packed(model.state_dict())
