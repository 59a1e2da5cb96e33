"""From a recommender that RecBole trained, to one that has forgotten and that RecBole goes on with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from graphunlearn.adapters.recbole import interactions, sessions
from graphunlearn.adapters.recbole.loaders import rebuilt, retained_datasets
from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn import Criterion, CrossEntropy
from graphunlearn.operators import Unlearner, UnlearningResult

__all__ = ["Bridge", "Forgotten"]


@dataclass
class Forgotten:
    """What RecBole goes on with.

    Args:
        model: A model of RecBole's own class with the corrected parameters. Its graph is what remains, nothing is
            cached, and its parameters have the names they had.
        train: Loader of the training data that remain.
        valid: Loader of the validation data, without what belongs to forgotten users and items; ``None`` where there
            was none, or nothing is left.
        test: Loader of the test data, likewise.
        result: What the unlearning method handed back.
        held_out_dropped: Held-out rows that went because nothing is to be measured on them.
    """

    model: nn.Module
    train: Any
    valid: Any
    test: Any
    result: UnlearningResult
    held_out_dropped: int


class Bridge:
    """A RecBole model and its data, as this package sees them.

    LightGCN, NGCF, SGL and BPR serve the methods for interactions; SRGNN, GRU4Rec and SASRec those for sessions. Raw
    ids are RecBole's tokens; node ``n`` is RecBole's internal id ``n + 1``, since its 0 pads. The RecBole model is
    never changed. Made for RecBole 1.2.1.

    Args:
        model: The trained model.
        train: Its training data, the loader that ``recbole.data.data_preparation`` returns.
        valid: The validation data; needed where a method learns from held-out data, as CAU does.
        test: The test data.

    Attributes:
        model: The module that is unlearned: it computes what the RecBole model does, from a copy of its parameters.
        graph: The training data.
        validation: The validation data as a graph, or ``None``.
        test: The test data as a graph, or ``None``.
        objective: The loss that RecBole trained with, as one per sample.

    Raises:
        TypeError: RecBole's model is none of those named.
        ValueError: The model is not what its class and the data passed make of it.

    Example:
        >>> bridge = Bridge(model, train_data, valid_data, test_data)  # doctest: +SKIP
        >>> after = bridge.unlearn(gu.IFRU(), gu.ForgetRequest("user", ["196"]))  # doctest: +SKIP
        >>> Trainer(config, after.model).evaluate(after.test, load_best_model=False)  # doctest: +SKIP
    """

    model: nn.Module
    graph: InteractionGraph | SessionGraph
    validation: InteractionGraph | SessionGraph | None
    test: InteractionGraph | SessionGraph | None

    def __init__(self, model: nn.Module, train: Any, valid: Any = None, test: Any = None) -> None:
        known = (*interactions.MODELS, *sessions.MODELS)
        name = type(model).__name__
        if name not in known or not type(model).__module__.startswith("recbole."):
            raise TypeError(
                f"'model' must be one of RecBole's {', '.join(known)} (got {type(model).__module__}.{name}); "
                f"for another class register a function with @graphunlearn.encode.register({name})"
            )
        for argument, loader in {"train": train, "valid": valid, "test": test}.items():
            if not hasattr(loader, "_dataset") and (argument == "train" or loader is not None):
                raise TypeError(
                    f"'{argument}' must be a data loader of RecBole, as data_preparation returns it "
                    f"(got {type(loader).__name__})"
                )
        self.original, self.loaders = model, (train, valid, test)
        device = next(model.parameters()).device
        if name in sessions.MODELS:
            training, *held_out = sessions.session_graphs(*self.loaders)
            self.graph = training.to(device)
            self.validation, self.test = (None if graph is None else graph.to(device) for graph in held_out)
            self.model = sessions.RecBoleSessions(model)
            return
        self.graph = interactions.graph_of(train._dataset, device)
        self.validation, self.test = (
            None if loader is None else interactions.graph_of(loader._dataset, device) for loader in (valid, test)
        )
        self.model = interactions.to_native(model, self.graph.num_nodes)
        interactions.check_same(model, self.model, self.graph)

    @cached_property
    def objective(self) -> Criterion:
        """The loss that RecBole trained with, as one per sample."""
        if self.graph.kind == "sessions":
            return CrossEntropy()
        train = self.loaders[0]
        return interactions.objective_of(self.original, min(train.config["train_batch_size"], len(train._dataset)))

    def unlearn(self, unlearner: Unlearner, request: ForgetRequest) -> Forgotten:
        """Forget ``request`` and return what RecBole goes on with.

        Where the method was given no ``objective``, it takes RecBole's; where no ``validation``, RecBole's. One that is
        prepared is taken as it is: prepare it with :attr:`model` and :attr:`graph`.

        Raises:
            ValueError: See :meth:`graphunlearn.Unlearner.unlearn`.
        """
        if not unlearner.needs_preparation:
            unlearner = unlearner.filled(objective=self.objective, validation=self.validation)
        # importing RecBole's sequential models turns this on for the whole process, and it costs much time
        with torch.autograd.set_detect_anomaly(False):
            result = unlearner.unlearn(self.model, self.graph, request)
        return self.restore(result)

    def restore(self, result: UnlearningResult) -> Forgotten:
        """Return a result of :attr:`model` and :attr:`graph` as what RecBole goes on with.

        Raises:
            ValueError: The result is of another kind of model.
        """
        if type(result.model) is not type(self.model):
            raise ArgumentError(
                "result",
                f"be of this bridge's model, a {type(self.model).__name__}",
                f"one of a {type(result.model).__name__}",
            )
        if isinstance(result.model, sessions.RecBoleSessions):
            after = result.model.restored(self.original)
            loaders, gone = sessions.retained_loaders(*self.loaders, self.graph, result.graph, result.request)
            return Forgotten(after, *loaders, result, gone)
        settled = interactions.settled(result.model, self.original, self.graph, result.graph)
        result = replace(result, model=settled)
        present = [loader._dataset for loader in self.loaders if loader is not None]
        datasets, gone = retained_datasets(tuple(present), self.graph, result.graph, result.request)
        loaders = rebuilt(self.loaders, datasets)
        after = interactions.refreshed(self.original, datasets[0])
        interactions.write_back(result.model, after)
        return Forgotten(after, *loaders, result, gone)
