"""Options of what is learned and how; the defaults are those of the kind of graph that a model learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from graphunlearn.cli._defaults import HEADS, LOSSES, NEGATIVES, SETTINGS
from graphunlearn.cli._text import WORDS, optional
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.events import Kind
    from graphunlearn.nn import Criterion, FitSettings
    from graphunlearn.runs.run import ModelSpec

__all__ = ["LAYERS", "WIDTH", "Learning", "Training", "misplaced", "offered_models"]

WIDTH = {"interactions": 32, "sessions": 64}
"""Numbers per row, by kind of graph."""
LAYERS = {"srgnn": 1, "gru4rec": 1}
"""Layers or steps of the models that have not two."""


def _by_kind(name: str, metavar: str, help: str) -> Any:
    """How a setting is shown whose default follows from the kind of graph."""
    values = {kind: settings[name] for kind, settings in SETTINGS.items()}
    return optional(metavar, f"{help} (default: {values['interactions']}, for sessions {values['sessions']}).")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How models are trained."""

    epochs: Annotated[
        int | None, _by_kind("epochs", "INT", "At most this many passes over the interactions or sessions")
    ] = None
    lr: Annotated[float | None, _by_kind("lr", "FLOAT", "Learning rate")] = None
    batch_size: Annotated[int | None, _by_kind("batch_size", "INT", "Interactions, or clicks to predict, per step")] = (
        None
    )
    patience: Annotated[
        int | None,
        _by_kind("patience", "INT", "Stop after this many epochs without a better result on the validation part"),
    ] = None

    def settings(self, kind: Kind, seed: int) -> FitSettings:
        """Return the settings of the training loop for models of a kind."""
        from graphunlearn.nn.training.fitting import DEFAULT_SETTINGS

        given = {name: value for name, value in vars(self).items() if value is not None}
        return replace(DEFAULT_SETTINGS[kind], seed=seed, **given)


Model = Literal["lightgcn", "mf", "sgl", "simgcl", "ngcf", "srgnn", "gru4rec", "sasrec"]


def offered_models() -> tuple[str, ...]:
    """Return the names of the models that can be trained."""
    return get_args(Model)


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What is learned: whether from users and items or from sessions follows from the model."""

    model: Model = "lightgcn"
    """Of users and items: LightGCN, matrix factorisation (no propagation), LightGCN with a contrastive loss (SGL,
    SimGCL), or NGCF. Of sessions: SR-GNN, GRU4Rec or SASRec."""
    dim: Annotated[
        int | None,
        optional(
            "INT",
            f"Numbers per user, item or session (default: {WIDTH['interactions']}, for sessions {WIDTH['sessions']}).",
        ),
    ] = None
    layers: Annotated[
        int | None,
        optional("INT", "Layers, or steps of SR-GNN (default: 2, of SR-GNN and GRU4Rec 1; mf has none)."),
    ] = None
    objective: Annotated[Literal["bpr", "bce"] | None, optional("{bpr,bce}")] = None
    """Of users and items: bpr ranks interactions above the rest, bce tells labels apart; bce where there are labels
    (or a threshold). Session models learn which click comes next."""
    weight_decay: Annotated[
        float | None,
        optional("FLOAT", f"L2 on the rows of a sample (bpr: {LOSSES['bpr']:g}, bce: {LOSSES['bce']:g})."),
    ] = None
    negatives: Annotated[
        int | None, optional("INT", f"Items that every interaction is ranked above (bpr; default: {NEGATIVES}).")
    ] = None

    @property
    def kind(self) -> Kind:
        """What the model learns from: ``"interactions"`` or ``"sessions"``."""
        from graphunlearn.nn import kind_of

        return kind_of(self.model)

    def check(self) -> None:
        """Refuse what session models have no use for, and a width that SASRec cannot have.

        Raises:
            ValueError: It was given for one.
        """
        if self.model == "sasrec" and self.dim is not None and self.dim % HEADS:
            raise ArgumentError("--dim", f"be divisible by {HEADS} for sasrec", self.dim)
        if self.kind == "sessions":
            for name in ("objective", "weight_decay", "negatives"):
                if getattr(self, name) is not None:
                    raise misplaced(name, "interactions", self.model)

    def spec(self) -> ModelSpec:
        """Return what builds the model."""
        from graphunlearn.runs.run import ModelSpec

        dim = WIDTH[self.kind] if self.dim is None else self.dim
        return ModelSpec(self.model, dim, LAYERS.get(self.model, 2) if self.layers is None else self.layers)

    def loss(self, labelled: bool) -> Criterion:
        """Return the objective for data with or without labels."""
        from graphunlearn.nn import BCE, BPR, CrossEntropy

        if self.kind == "sessions":
            return CrossEntropy()
        name = self.objective or ("bce" if labelled else "bpr")
        given = {"weight_decay": self.weight_decay} | ({"negatives": self.negatives} if name == "bpr" else {})
        objective: type[Criterion] = BPR if name == "bpr" else BCE
        return objective(**{option: value for option, value in given.items() if value is not None})


def misplaced(option: str, kind: str, model: str) -> ValueError:
    """Return the error that an option of one kind of models was given for a model of the other."""
    option = f"--{option.replace('_', '-')}"
    return ArgumentError(option, f"go with a model of {WORDS[kind]}", f"it with {model}")
