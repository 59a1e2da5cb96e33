"""What every unlearning method is, and what it returns."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.shared.memory import peak_memory
from graphunlearn.operators.shared.preparation import Kept, Preparation

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Unlearner", "UnlearningResult", "registry"]

registry: dict[str, type[Unlearner]] = {}
"""Every unlearning method by its name on the command line; filled as methods are defined."""

HANDFUL = 4  # sessions that are encoded to see whether model and graph fit


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
        original: The model that it started from, where that is not the one passed but one of the method's own: what
            was forgotten is to be measured from there.
    """

    model: nn.Module
    graph: Any
    request: ForgetRequest
    method: str
    seconds: float
    cpu_seconds: float
    prepare_seconds: float | None
    peak_memory: int
    log: dict[str, Any] = field(default_factory=dict)
    original: nn.Module | None = None

    def __repr__(self) -> str:
        return (
            f"UnlearningResult(method={self.method!r}, request={self.request!r}, seconds={self.seconds:.3f}, "
            f"graph={self.graph.num_interactions} {self.graph.unit}s kept)"
        )


@dataclass(kw_only=True)
class Unlearner(ABC):
    """An unlearning method; the object *is* its configuration.

    It serves graphs of the ``kinds`` it names, ``"interactions"`` of users and items or ``"sessions"``, and requests of
    the ``levels`` that such a graph knows. A method is a dataclass with one hook. This is all it takes to add one::

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

    What a method prepares once for many requests it learns in ``_prepare``, as a
    :class:`~graphunlearn.operators.shared.preparation.Kept`, and hands to :meth:`_keep`. With ``keeps`` it names the
    class: then :meth:`save`, :meth:`load` and the command line's ``prepare`` know it as well. ``_check_prepared``
    refuses a model that it was not prepared for, unless the method has a field ``adapt`` that is true.

    Attributes:
        name: The name on the command line and in reports.
        kinds: The kinds of graph that it serves.
        levels: The levels of request that it serves.
        needs_preparation: Whether :meth:`prepare` is to come first.
        keeps: The class of what it prepares, where that can be written to a file.
        kept_as: What such a file says it holds; the name of the method where ``None``.
        anew: Fields that may be set anew with every request; all others belong to the preparation.
        preparation: What was prepared, or loaded.
        prepare_seconds: How long that took.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("interactions",)
    levels: ClassVar[tuple[str, ...]] = ("interaction", "click", "item", "session", "user")
    needs_preparation: ClassVar[bool] = False
    keeps: ClassVar[type[Kept] | None] = None
    kept_as: ClassVar[str | None] = None
    anew: ClassVar[tuple[str, ...]] = ()
    preparation: Preparation | None = field(default=None, init=False, repr=False, compare=False)
    prepare_seconds: float | None = field(default=None, init=False, repr=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            registry[cls.name] = cls

    @classmethod
    def as_published(cls, objective: Any = None, **options: Any) -> Unlearner:
        """Return the method as its source has it, for comparison: the class that is registered as ``NAME-published``.

        Args:
            objective: The loss the model was trained with; the shared default where ``None``.
            **options: Fields to change.

        Raises:
            ValueError: There is no such variant.

        Example:
            >>> import graphunlearn as gu
            >>> gu.CAU.as_published(seed=1).order
            'hard'
        """
        published = registry.get(f"{cls.name}-published")
        if published is None:
            raise ValueError(f"{cls.name} must have a variant as published (got none)")
        return published(**({} if objective is None else {"objective": objective}), **options)

    def filled(self, **known: Any) -> Self:
        """Return the method with what it asks for and was not given; itself where nothing is missing.

        Args:
            **known: Values for fields that are ``None``, such as ``objective``, ``validation`` and ``settings``: how
                the original was trained. A field that the method does not have is passed over.

        Returns:
            A copy; what was prepared goes with it.

        Example:
            >>> import graphunlearn as gu
            >>> gu.FineTune().filled(objective=gu.BCE(), validation=None).objective == gu.BCE()
            True
        """
        missing = {name: value for name, value in known.items() if getattr(self, name, value) is None}
        if not missing:
            return self
        made = copy.copy(self)
        for name, value in missing.items():
            setattr(made, name, value)
        return made

    def prepare(
        self,
        model: nn.Module,
        graph: InteractionGraph | SessionGraph,
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

        Raises:
            ValueError: The graph is of a kind that the method does not serve, the model does not fit it, or a parameter
                is not finite.
        """
        self._check_kind(graph)
        _check(model, graph)
        start = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
            self._prepare(model, graph, None if checkpoint is None else Path(checkpoint), progress)
        self.prepare_seconds = time.perf_counter() - start
        if self.preparation is not None:
            self.prepare_seconds += self.preparation.log.get("seconds_before_a_break", 0.0)
            self.preparation.seconds = self.prepare_seconds

    def asks_preparation(self, model: nn.Module) -> bool:
        """Return whether a request to ``model`` takes a preparation."""
        return self.needs_preparation

    def save(self, path: str | Path) -> Path:
        """Write the preparation, beside a model for instance.

        Args:
            path: The file; ``.safetensors`` is added where it is missing.

        Returns:
            The path of the file.

        Raises:
            ValueError: Nothing is prepared, or it is nothing that can be written.
        """
        return self._prepared_first().save(path)

    def load(self, path: str | Path, device: torch.device | str = "cpu", *, like: nn.Module | None = None) -> Self:
        """Take up a preparation that was saved.

        Args:
            path: The file.
            device: Where to put it.
            like: A model of the class that it was prepared for. Methods that train models of their own ask for it.

        Returns:
            The method itself.

        Raises:
            ValueError: The file is no preparation, of another version or of another kind, or the method has none that
                can be written.
        """
        if self.keeps is None:
            raise ValueError(f"{self.name} must have a preparation to load one (got '{path}')")
        kind = self.kept_as or self.name
        self.preparation = Preparation.load(path, self.keeps, device, kind=kind, like=like)
        self.prepare_seconds = self.preparation.seconds
        return self

    def unlearn(
        self,
        model: nn.Module,
        graph: InteractionGraph | SessionGraph,
        request: ForgetRequest,
        *,
        inplace: bool = False,
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
            ValueError: The graph is of a kind that the method does not serve, the request does not fit the graph or
                the method, the model does not fit the graph, or a parameter is not finite.
        """
        self._check_kind(graph)
        _check(model, graph)
        levels = [level for level in graph.levels if level in self.levels]
        unserved = [part.level for part in request.parts if part.level not in levels]
        if unserved:
            raise ArgumentError("request", f"be of a level that {self.name} serves, {', '.join(levels)}", unserved[0])
        self._validate(model, graph, request)
        base = self._original(model, graph)
        if inplace and base is not model:
            names = type(model).__name__, type(base).__name__
            raise ArgumentError(
                "inplace",
                f"be False where {self.name} serves a model of its own",
                f"True for {names[0]}, in whose place it serves {names[1]}",
            )
        with torch.inference_mode(False):  # or the copy could not be changed
            model_after = model if inplace else copy.deepcopy(base)
            backup = copy.deepcopy(model.state_dict()) if inplace else None
        device = next(model.parameters()).device
        try:
            # called from inside no_grad or inference_mode, gradients are needed all the same
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                _evaluating(model_after),
                peak_memory(device) as peak,
            ):
                start, cpu = time.perf_counter(), time.process_time()
                retained, _ = graph.split(request)
                log = self._unlearn(model_after, graph, retained, request)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            for parameter in model_after.parameters():
                parameter.grad = None
            self._check_finite(model_after)
        except BaseException:
            if backup is not None:
                model.load_state_dict(backup)
            raise
        if self.preparation is not None and self.asks_preparation(model_after):
            self.preparation.note(model_after, retained)
        return UnlearningResult(
            model_after,
            retained,
            request,
            self.name,
            seconds,
            cpu,
            self.prepare_seconds,
            peak(),
            log,
            None if base is model else base,
        )

    def figures(
        self, model: nn.Module, graph: InteractionGraph | SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        """Return what figures of its own an audit draws of this method, by the name of the figure; none here.

        Args:
            model: The trained model; not changed.
            graph: The graph that it was trained on.
            request: What is forgotten.
        """
        return {}

    def _keep(self, module: Kept, model: nn.Module, graph: Any, log: dict[str, Any]) -> None:
        """Take up what was prepared.

        Args:
            module: What was learned.
            model: The model it was prepared for.
            graph: That model's graph.
            log: What was done; ``seconds_before_a_break`` in it is added to the time that preparing took.
        """
        kind = self.kept_as or self.name
        self.preparation = Preparation(kind, module, fingerprint(model), graph.fingerprint(), log)

    def _prepared_first(self) -> Preparation:
        """Return the preparation, which is to be there."""
        if self.preparation is None:
            raise ValueError(f"{self.name} must be prepared with prepare(model, graph) first (got no preparation)")
        return self.preparation

    def _check_prepared(self, model: nn.Module, graph: Any) -> tuple[str, str]:
        """Refuse a model or graph that the method was not prepared for; return their fingerprints."""
        preparation, prints = self._prepared_first(), (fingerprint(model), graph.fingerprint())
        adapt: bool | None = getattr(self, "adapt", None)
        objection = None if adapt else preparation.objection(*prints)
        if objection is not None:
            raise ArgumentError(
                objection,
                f"be the one that {self.name} was prepared for, or come from it by requests that this object served",
                f"another; prepare again{'' if adapt is None else ', or serve it all the same with adapt=True'}",
            )
        return prints

    def _prepare(  # noqa: B027
        self, model: nn.Module, graph: Any, checkpoint: Path | None, progress: bool | None
    ) -> None:
        """Nothing to prepare, unless a method overrides this."""

    def _validate(self, model: nn.Module, graph: Any, request: ForgetRequest) -> None:  # noqa: B027
        """Nothing to object to, unless a method overrides this."""

    def _original(self, model: nn.Module, graph: Any) -> nn.Module:
        """Return the model to be corrected: the one passed, unless a method serves one of its own."""
        return model

    @abstractmethod
    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        """Correct ``model`` in place and return the log."""

    def _check_finite(self, model: nn.Module) -> None:
        """Raise where a parameter of what is to be handed back is not finite."""
        bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            raise FloatingPointError(f"{self.name} left NaN or infinity in {bad[0]}; the model is unchanged")

    def _check_kind(self, graph: Any) -> None:
        """Refuse a graph of a kind that the method does not serve."""
        if getattr(type(graph), "kind", None) not in self.kinds:
            wanted = {"interactions": "an InteractionGraph", "sessions": "a SessionGraph"}[self.kinds[0]]
            raise ArgumentError("graph", f"be {wanted} for {self.name}", f"a {type(graph).__name__}")


def _check(model: nn.Module, graph: InteractionGraph | SessionGraph) -> None:
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ArgumentError("model", "have parameters", f"{type(model).__name__} with none")
    bad = [name for name, p in parameters.items() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ArgumentError("model", "have finite parameters", f"NaN or infinity in {', '.join(bad[:3])}")
    device = next(iter(parameters.values())).device
    if graph.device != device:
        raise ArgumentError("graph", f"be on the model's device, {device}", graph.device)
    if graph.kind == "sessions":  # the items of a few sessions are those of all
        graph = graph.select(torch.arange(min(HANDFUL, graph.num_sessions), device=device))
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
