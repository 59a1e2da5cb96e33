"""RecBole's checkpoints of models of users and items as runs, with the loss and the data that they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.nn import LightGCN

from graphunlearn.adapters.recbole.bridge import Bridge
from graphunlearn.adapters.recbole.interactions import PropagatedNGCF
from graphunlearn.errors import ArgumentError, FileError
from graphunlearn.nn import SGL, FitSettings, MatrixFactorization, default_settings
from graphunlearn.runs.code import Code
from graphunlearn.runs.run import ModelSpec, Run

__all__ = ["run_of_checkpoint"]


def run_of_checkpoint(
    path: str | Path, *, trust_pickle: bool = False, settings: FitSettings | None = None, device: str = "cpu"
) -> Run:
    """Return the run of a checkpoint of RecBole's LightGCN, NGCF, SGL or BPR.

    The data are read and split again by RecBole, as the configuration in the checkpoint says, so that its files must be
    where they were. The model is the one of this package that computes the same.

    Args:
        path: The checkpoint.
        trust_pickle: Whether to read the file although it is a pickle, which may run code; use it only for files that
            you made yourself.
        settings: Training settings of retrained models; by default those of this package.
        device: Device of the model and the graphs.

    Returns:
        The run.

    Raises:
        ImportError: RecBole is not installed.
        ArgumentError: The file does not exist, is not trusted, or holds something else than a checkpoint of such a
            model.

    Example:
        >>> run = run_of_checkpoint("saved/LightGCN-Nov-21-2026.pth", trust_pickle=True)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileError("recbole", "be an existing file", f"'{path}'")
    if not trust_pickle:
        expected = "be given to read a checkpoint of RecBole, a pickle, which may run code"
        raise ArgumentError("trust_pickle", expected, "none", "give it only for files that you made yourself")
    model, loaders, config = _loaded(path)
    bridge = Bridge(model, *loaders)
    if bridge.graph.kind == "sessions":
        got = f"'{path}', a {type(model).__name__} of sessions"
        hint = "graphunlearn.adapters.recbole.Bridge unlearns from it in Python"
        raise ArgumentError("recbole", "hold a model of users and items", got, hint)
    none = bridge.graph.select(bridge.graph.pairs[0, :0])
    parts = (bridge.graph, *(none if part is None else part for part in (bridge.validation, bridge.test)))
    train, validation, test = (part.to(device) for part in parts)
    about = {"dataset": str(config["dataset"]), "imported": {"recbole": type(model).__name__}}
    settings = settings or default_settings(train)
    spec = _spec(bridge.model)
    native = spec.build(train)
    native.load_state_dict(bridge.model.state_dict())
    return Run(spec, native.eval(), train, validation, test, bridge.objective, settings, about)


def _loaded(path: Path) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """Return the model, the loaders of training, validation and test data, and the configuration of a checkpoint."""
    try:
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, init_seed
    except ImportError as error:
        hint = "'pip install graphunlearn[recbole]' in an environment of its own installs it"
        raise ImportError(f"a checkpoint of RecBole needs RecBole, which is not installed ({error}); {hint}") from None
    try:
        # a pickle of RecBole's configuration and loaders, which the caller has trusted explicitly
        content = torch.load(path, map_location="cpu", weights_only=False)
        config, state = content["config"], content["state_dict"]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ArgumentError("recbole", "be a checkpoint of RecBole", f"'{path}': {reason}") from error
    config["device"] = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        init_seed(config["seed"], config["reproducibility"])  # the split is drawn
        loaders = data_preparation(config, create_dataset(config))
        model = get_model(config["model"])(config, loaders[0]._dataset)
    model.load_state_dict(state)
    return model.eval(), tuple(loaders), config


def _spec(model: nn.Module) -> ModelSpec:
    """Return the description of a model that :func:`~graphunlearn.adapters.recbole.interactions.to_native` made."""
    if isinstance(model, MatrixFactorization):
        return ModelSpec("mf", model.embedding.weight.size(1), 2)  # it has no layers
    if isinstance(model, PropagatedNGCF):
        widths = [model.embedding.weight.size(1), *(layer.bias.numel() for layer in model.sums)]  # type: ignore[operator]
        name = f"{PropagatedNGCF.__module__}:{PropagatedNGCF.__name__}"
        return ModelSpec(name, None, None, Code(name, arguments={"sizes": widths}))
    assert isinstance(model, LightGCN)
    dim, layers = model.embedding.weight.size(1), model.num_layers
    if isinstance(model, SGL):
        own = {name: getattr(model, name) for name in ("view", "drop", "temperature", "weight", "contrast")}
        arguments = {"embedding_dim": dim, "num_layers": layers} | own
        return ModelSpec("graphunlearn.nn:SGL", None, None, Code("graphunlearn.nn:SGL", arguments=arguments))
    return ModelSpec("lightgcn", dim, layers)
