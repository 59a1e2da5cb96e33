"""Options of the model, its loss and its training; most defaults depend on whether the model learns from sessions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from graphunlearn.cli._fields import Float, Int, optional
from graphunlearn.cli._text import WORDS
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.events import Kind
    from graphunlearn.nn import Criterion, FitSettings
    from graphunlearn.runs.run import ModelSpec

Model = Literal[
    "lightgcn",
    "mf",
    "sgl",
    "simgcl",
    "ngcf",
    "ease",
    "itemknn",
    "als",
    "srgnn",
    "gru4rec",
    "sasrec",
    "narm",
    "bert4rec",
    "gcegnn",
]
EXACT = ("ease", "itemknn", "als")
"""The models of users and items that are solved or counted instead of trained, and forget exactly."""
Loss = Literal["bpr", "bce", "sampled-bce", "sampled-softmax", "in-batch-softmax"]
WIDTH = {"interactions": 32, "sessions": 64}
"""Default width of the embedding table, by kind of graph."""
LAYERS = {"srgnn": 1, "gru4rec": 1, "narm": 1, "gcegnn": 1}
"""Default number of layers or steps, for models with another default than 2."""
HEADS = 2
"""Number of attention heads of SASRec and BERT4Rec, which must divide their width."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of the training."""

    epochs: Int = None
    """Largest number of passes over the interactions or sessions (default: 300, for sessions 50)."""
    lr: Float = None
    """Learning rate (default: 0.01, for sessions 0.005)."""
    batch_size: Int = None
    """Interactions, or clicks to predict, per step (default: 8192, for sessions 512)."""
    patience: Int = None
    """Stop after this many epochs, of at least 0.1 / lr steps each, without a better result on the validation part
    (default: 10, for sessions 3)."""

    def settings(self, kind: Kind, seed: int) -> FitSettings:
        """Return the settings of the training loop.

        Args:
            kind: The kind of graph that the model learns from, which determines the defaults.
            seed: Seed of the training.
        """
        from graphunlearn.nn.training.fitting import DEFAULT_SETTINGS

        given = {name: value for name, value in vars(self).items() if value is not None}
        return replace(DEFAULT_SETTINGS[kind], seed=seed, **given)


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Options of the model and its loss; the kind of data, interactions or sessions, follows from the model."""

    model: Model = "lightgcn"
    """The model. For users and items: LightGCN, matrix factorisation (no propagation), LightGCN with a contrastive loss
    (SGL, SimGCL), or NGCF. For sessions: SR-GNN, GRU4Rec, SASRec, NARM, BERT4Rec or GCE-GNN. EASE, item-kNN and
    implicit ALS (als), also for users and items, are solved and not trained by gradients. The first two
    forget exactly, als up to a tolerance.
    """
    dim: Int = None
    """Width of the embeddings (default: 32, for sessions 64), or number of factors of als (default: 64)."""
    layers: Int = None
    """Number of layers, or of steps of SR-GNN (default: 2, for SR-GNN, GRU4Rec, NARM and GCE-GNN 1; mf has
    none)."""
    objective: Annotated[Loss | None, optional("LOSS")] = None
    """Of users and items: bpr ranks interactions above the rest, bce tells labels apart; sampled-bce, sampled-softmax
    and in-batch-softmax compare interactions with drawn items. Default: bce where there are labels (or a threshold),
    else bpr. Session models learn which click comes next."""
    weight_decay: Float = None
    """L2 penalty on the embeddings in a sample (default: 0.001, of bce 0.003); of ease and als, on the whole model
    (default: 250 and 30)."""
    negatives: Int = None
    """Items that every interaction is compared with (default: 4, of sampled-bce 1, of the softmax losses 64)."""

    @property
    def kind(self) -> Kind:
        """The kind of graph that the model learns from: ``"interactions"`` or ``"sessions"``."""
        from graphunlearn.nn import kind_of

        return "interactions" if self.model in EXACT else kind_of(self.model)

    def check(self) -> None:
        """Check that the options fit the model.

        Raises:
            ArgumentError: An option does not apply to session models, or the model cannot have the width.
        """
        if self.model in ("sasrec", "bert4rec") and self.dim is not None and self.dim % HEADS:
            raise ArgumentError("--dim", f"be divisible by {HEADS} for {self.model}", self.dim)
        if self.kind == "sessions":
            for name in ("objective", "weight_decay", "negatives"):
                if getattr(self, name) is not None:
                    raise misplaced(name, "interactions", self.model)

    def spec(self) -> ModelSpec:
        """Return the name and the sizes of the model.

        Raises:
            ArgumentError: The model is not trained by gradients.
        """
        from graphunlearn.runs.run import ModelSpec

        if self.model in EXACT:
            hint = "'--floors' measures it beside others"
            raise ArgumentError("--model", "be a model that is trained by gradients", self.model, hint)
        dim = WIDTH[self.kind] if self.dim is None else self.dim
        return ModelSpec(self.model, dim, LAYERS.get(self.model, 2) if self.layers is None else self.layers)

    def loss(self, labelled: bool) -> Criterion:
        """Return the loss.

        Args:
            labelled: Whether the data have labels.
        """
        from graphunlearn.nn import CrossEntropy
        from graphunlearn.runs.run import OBJECTIVES

        if self.kind == "sessions":
            return CrossEntropy()
        name = self.objective or ("bce" if labelled else "bpr")
        given = {"weight_decay": self.weight_decay} | ({} if name == "bce" else {"negatives": self.negatives})
        return OBJECTIVES[name](**{option: value for option, value in given.items() if value is not None})


def models_of(kind: str) -> list[str]:
    """Return the names of the models on the command line that learn from one kind of graph.

    Args:
        kind: ``"interactions"`` or ``"sessions"``.
    """
    from graphunlearn.nn import kind_of

    return [name for name in get_args(Model) if name not in EXACT and kind_of(name) == kind]


def misplaced(option: str, kind: str, model: str) -> ArgumentError:
    """Return the error for an option that does not apply to a model.

    Args:
        option: Name of the field.
        kind: The kind of graph of the models that the option applies to.
        model: Name of the model.
    """
    option = f"--{option.replace('_', '-')}"
    return ArgumentError(option, f"go with a model of {WORDS[kind]}", f"it with {model}")
