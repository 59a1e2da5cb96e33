"""The bridge to RecBole: unlearning for a RecBole model, with a RecBole model and data loaders as the result."""

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
    """An unlearned RecBole model together with RecBole loaders of the retained data.

    Args:
        model: A model of the original RecBole class with the unlearned parameters under their original names. It
            propagates over the retained graph, and its cached embeddings are cleared.
        train: Loader of the retained training data.
        valid: Loader of the validation data without the rows of forgotten users and items; ``None`` if there was no
            loader or no row is left.
        test: Loader of the test data, likewise.
        result: The result of the unlearning method.
        held_out_dropped: Number of held-out rows that were dropped because they must not be used for measurements.
    """

    model: nn.Module
    train: Any
    valid: Any
    test: Any
    result: UnlearningResult
    held_out_dropped: int


class Bridge:
    """Converts a RecBole model and its data to this package, and unlearning results back to RecBole.

    The methods for interactions accept LightGCN, NGCF, SGL and BPR; those for sessions accept SRGNN, GRU4Rec and
    SASRec. Raw ids are RecBole's tokens. Node ``n`` has RecBole's internal id ``n + 1``, since RecBole uses 0 for
    padding. The RecBole model is never changed. The bridge is made for RecBole 1.2.1.

    Args:
        model: The trained RecBole model.
        train: Loader of its training data, as ``recbole.data.data_preparation`` returns it.
        valid: Loader of the validation data, which methods that learn from held-out data, such as CAU, need.
        test: Loader of the test data.

    Attributes:
        original: The RecBole model.
        loaders: The loaders of training, validation and test data.
        model: The module to unlearn, which computes the same as the RecBole model with a copy of its parameters.
        graph: The training data as a graph.
        validation: The validation data as a graph, or ``None``.
        test: The test data as a graph, or ``None``.
        objective: The loss that RecBole trained with, as a loss per sample.

    Raises:
        TypeError: The model is not one of these RecBole models, or a loader is not a RecBole data loader.
        ValueError: The model does not compute what its RecBole class computes on the data passed.

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
                expected = "be a data loader of RecBole, as data_preparation returns it"
                raise TypeError(f"'{argument}' must {expected} (got {type(loader).__name__})")
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
        """The loss that RecBole trained with, as a loss per sample."""
        if self.graph.kind == "sessions":
            return CrossEntropy()
        train = self.loaders[0]
        return interactions.objective_of(self.original, min(train.config["train_batch_size"], len(train._dataset)))

    def unlearn(self, unlearner: Unlearner, request: ForgetRequest) -> Forgotten:
        """Forget ``request`` and return the unlearned RecBole model with loaders of the retained data.

        Args:
            unlearner: The method. Its ``objective`` and ``validation`` are RecBole's if they are not set. A method that
                needs preparation is used as it is; prepare it with :attr:`model` and :attr:`graph`.
            request: The forget request, by RecBole's tokens.

        Returns:
            The unlearned model, the loaders, and the result of the method.

        Raises:
            ValueError: See :meth:`graphunlearn.Unlearner.unlearn`.
        """
        if not unlearner.needs_preparation:
            unlearner = unlearner.filled(objective=self.objective, validation=self.validation)
        # importing RecBole's sequential models turns on anomaly detection in the whole process, which is slow
        with torch.autograd.set_detect_anomaly(False):
            result = unlearner.unlearn(self.model, self.graph, request)
        return self.restore(result)

    def restore(self, result: UnlearningResult) -> Forgotten:
        """Convert an unlearning result for :attr:`model` and :attr:`graph` to a RecBole model and loaders.

        Args:
            result: The result of an unlearning method.

        Returns:
            The unlearned RecBole model, the loaders of the retained data, and the result.

        Raises:
            ValueError: The model of the result has another class than :attr:`model`.
        """
        if type(result.model) is not type(self.model):
            expected = f"be of this bridge's model, a {type(self.model).__name__}"
            raise ArgumentError("result", expected, f"one of a {type(result.model).__name__}")
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
