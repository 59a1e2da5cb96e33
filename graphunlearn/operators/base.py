"""What every unlearning method is, and what it returns."""

from __future__ import annotations

import copy
import ctypes
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.encode import encode

__all__ = ["Unlearner", "UnlearningResult", "registry"]

registry: dict[str, type[Unlearner]] = {}
"""Every unlearning method by its name on the command line; filled as methods are defined."""


@dataclass
class UnlearningResult:
    """What an unlearning method hands back.

    Args:
        model: The corrected model (a copy, unless ``inplace``).
        graph: The retained graph; recommend and evaluate with this one.
        request: What was forgotten.
        method: The method's name.
        seconds: Wall seconds of the method, the split of the graph included. Checking the arguments (an encoding, and
            for a prepared method which model it is) and copying the model are not, for any method.
        cpu_seconds: CPU seconds of the same.
        prepare_seconds: Wall seconds of the preparation it relied on, ``None`` where there was none.
        peak_memory: Highest memory in bytes beyond what was in use before the call.
        log: What was done: damping chosen, residuals, iterations, rows touched. JSON-able.
    """

    model: nn.Module
    graph: InteractionGraph
    request: ForgetRequest
    method: str
    seconds: float
    cpu_seconds: float
    prepare_seconds: float | None
    peak_memory: int
    log: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"UnlearningResult(method={self.method!r}, request={self.request!r}, seconds={self.seconds:.3f}, "
            f"graph={self.graph.num_interactions} interactions kept)"
        )


@dataclass(kw_only=True)
class Unlearner(ABC):
    """An unlearning method; the object *is* its configuration.

    A method is a dataclass with one hook. This is all it takes to add one::

        @dataclass(kw_only=True)
        class Shrink(gu.Unlearner):
            '''Scale the rows of the touched nodes.'''

            name: ClassVar[str] = "shrink"
            factor: float = 0.5

            @torch.no_grad()
            def _unlearn(self, model, graph, retained, request):
                touched = graph.adjacency.degree != retained.adjacency.degree
                model.embedding.weight[touched] *= self.factor
                return {"touched_rows": int(touched.sum())}

    ``model`` is already a copy that may be changed, ``graph`` the graph before and ``retained`` the graph after. What
    the hook returns becomes ``result.log``. Validation, copying, timing, memory and train/eval mode are done here, and
    the model is taken back to where it was if the hook fails.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[str, ...]] = ("interaction", "user", "item")
    needs_preparation: ClassVar[bool] = False
    prepare_seconds: float | None = field(default=None, init=False, repr=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            registry[cls.name] = cls

    def prepare(
        self,
        model: nn.Module,
        graph: InteractionGraph,
        *,
        checkpoint: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        """Do once what serves every later request on this model and graph; timed into ``prepare_seconds``.

        Optional, but for methods whose ``needs_preparation`` is true.

        Args:
            model: The trained recommender; it is not changed.
            graph: The graph it was trained on.
            checkpoint: File that keeps an interrupted preparation, where the method has something to keep.
            progress: Show progress; by default on a terminal only.
        """
        _check(model, graph)
        start = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
            self._prepare(model, graph, None if checkpoint is None else Path(checkpoint), progress)
        self.prepare_seconds = time.perf_counter() - start

    def unlearn(
        self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest, *, inplace: bool = False
    ) -> UnlearningResult:
        """Return a model that has forgotten ``request``.

        Args:
            model: The trained recommender.
            graph: The graph it was trained on.
            request: What to forget.
            inplace: Correct ``model`` itself instead of a copy. Should anything fail, it is restored.

        Returns:
            The :class:`UnlearningResult`.

        Raises:
            ValueError: The request does not fit the graph or the method, the model does not fit the graph, or a
                parameter is not finite.
        """
        _check(model, graph)
        unserved = [part.level for part in request.parts if part.level not in self.levels]
        if unserved:
            raise ValueError(
                f"'request' must be of a level that {self.name} serves, {', '.join(self.levels)} (got {unserved[0]})"
            )
        self._validate(model, graph, request)
        with torch.inference_mode(False):  # or the copy could not be changed
            model_after = model if inplace else copy.deepcopy(model)
            backup = copy.deepcopy(model.state_dict()) if inplace else None
        device = next(model.parameters()).device
        try:
            # called from inside no_grad or inference_mode, gradients are needed all the same
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                _evaluating(model_after),
                _peak_memory(device) as peak,
            ):
                start, cpu = time.perf_counter(), time.process_time()
                retained, _ = graph.split(request)
                log = self._unlearn(model_after, graph, retained, request)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            bad = [name for name, p in model_after.named_parameters() if not bool(torch.isfinite(p).all())]
            if bad:
                raise FloatingPointError(f"{self.name} left NaN or infinity in {bad[0]}; the model is unchanged")
        except BaseException:
            if backup is not None:
                model.load_state_dict(backup)
            raise
        return UnlearningResult(
            model_after, retained, request, self.name, seconds, cpu, self.prepare_seconds, peak(), log
        )

    def _prepare(  # noqa: B027
        self, model: nn.Module, graph: InteractionGraph, checkpoint: Path | None, progress: bool | None
    ) -> None:
        """Nothing to prepare, unless a method overrides this."""

    def _validate(self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest) -> None:  # noqa: B027
        """Nothing to object to, unless a method overrides this."""

    @abstractmethod
    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        """Correct ``model`` in place and return the log."""


def _check(model: nn.Module, graph: InteractionGraph) -> None:
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError(f"'model' must have parameters (got {type(model).__name__} with none)")
    bad = [name for name, p in parameters.items() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ValueError(f"'model' must have finite parameters (got NaN or infinity in {', '.join(bad[:3])})")
    device = next(iter(parameters.values())).device
    if graph.pairs.device != device:
        raise ValueError(f"'graph' must be on the model's device, {device} (got {graph.pairs.device})")
    with torch.no_grad(), _evaluating(model):
        encode(model, graph)  # raises where model and graph do not fit


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every part of it back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[Any]:
    """Yield a function that gives the highest memory used inside, in bytes beyond what was in use at the start.

    On CUDA the allocator counts; on a CPU a thread samples the resident set a few hundred times a second, which misses
    peaks shorter than that.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: max(0, torch.cuda.max_memory_allocated(device) - before)
        return
    _trim()
    stop, before = threading.Event(), _resident()
    highest = before

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.003):
            highest = max(highest, _resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(highest, before) - before
    finally:
        highest = max(highest, _resident())
        stop.set()
        thread.join()


def _trim() -> None:
    """Give freed memory back to the system, or reusing it would count as using none (glibc; elsewhere nothing)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    """The process's resident memory in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
