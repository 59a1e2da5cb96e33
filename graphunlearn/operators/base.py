"""The base class of all unlearning methods, and the result they return."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.renumbering import emptied_nodes
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.connecting import connect
from graphunlearn.nn.encoding import check_fit
from graphunlearn.nn.identity import fingerprint, remembered, unchanging
from graphunlearn.nn.precision import not_finite
from graphunlearn.operators.shared.accepting import accept, refuse
from graphunlearn.operators.shared.checks import check_choices, check_precision
from graphunlearn.operators.shared.evaluating import evaluating
from graphunlearn.operators.shared.memory import peak_memory
from graphunlearn.operators.shared.own_loss import check_loss
from graphunlearn.operators.shared.preparation import Kept, Preparation

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Rejection", "Unlearner", "UnlearningResult", "registry"]

Rejection = Literal["unlink", "keep", "raise"]

registry: dict[str, type[Unlearner]] = {}
"""Maps the command-line name of every unlearning method to its class; a class is added when it is defined."""

HANDFUL = 4  # number of sessions encoded to check that the model fits the graph


@dataclass
class UnlearningResult:
    """The result of an unlearning method.

    Args:
        model: The corrected model: a copy of the original, unless ``inplace`` was set.
        graph: The retained graph; use it to recommend and to evaluate.
        request: The request that was forgotten.
        method: The name of the method.
        seconds: Wall-clock seconds of the method, including the split of the graph, without copying the model and
            checking the arguments.
        cpu_seconds: CPU seconds over the same span.
        prepare_seconds: Wall-clock seconds of the preparation that the method used; ``None`` without a preparation.
        peak_memory: Peak memory in bytes above the memory in use before the call.
        log: A JSON-serialisable record of the run, such as the damping, residuals, iterations and touched rows.
        original: The model that the correction started from, if the method serves a model of its own instead of the
            one passed; ``None`` otherwise. Measure forgetting relative to this model.
        emptied: Users and items that the request left without events, by node type; ``None`` if unknown.
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
    emptied: dict[str, Tensor] | None = field(default=None, repr=False)

    @property
    def accepted(self) -> bool:
        """Whether the correction is no worse than deleting the edges; ``log["acceptance"]`` has the figures.

        If false, nothing is corrected, or a rejected correction was kept because ``on_rejection`` is ``"keep"``.
        """
        return bool(self.log.get("acceptance", {}).get("accepted", True))

    def __repr__(self) -> str:
        return (
            f"UnlearningResult(method={self.method!r}, request={self.request!r}, seconds={self.seconds:.3f}, "
            f"graph={self.graph.num_interactions} {self.graph.unit}s kept)"
        )


@dataclass(kw_only=True)
class Unlearner(ABC):
    """The base class of unlearning methods; the fields of a method object are its configuration.

    A method accepts graphs of the kinds listed in ``kinds`` (``"interactions"`` for user-item graphs, ``"sessions"``
    for session graphs) and requests at those ``levels`` that the graph supports. A method is a dataclass that
    implements one hook, ``_unlearn``. The following example is a complete method::

        @dataclass(kw_only=True)
        class Shrink(gu.Unlearner):
            '''Scale the embeddings of the touched nodes.'''

            name: ClassVar[str] = "shrink"
            factor: float = 0.5

            @torch.no_grad()
            def _unlearn(self, model, graph, retained, request):
                touched = graph.adjacency.degree != retained.adjacency.degree
                model.embedding.weight[touched] *= self.factor
                return {"touched_rows": int(touched.sum())}

    The hook receives ``model``, a copy that it may change, ``graph``, the graph before forgetting, and ``retained``,
    the retained graph. Its return value becomes ``result.log``. This base class validates the arguments, copies the
    model, measures time and memory and sets the train/eval mode. If the hook fails, it restores the original model.

    A method that learns something once for many requests implements ``_prepare``, stores the learned parts in a
    :class:`~graphunlearn.operators.shared.preparation.Kept` module and passes the module to :meth:`_keep`. If the
    method names the class of that module in ``keeps``, then :meth:`save`, :meth:`load` and the command ``prepare``
    work as well. ``_check_prepared`` rejects a model that the method was not prepared for, unless the method has a
    field ``adapt`` and its value is true.

    Every correction is compared with deleting the edges and redrawing the embeddings of emptied nodes; see
    :class:`~graphunlearn.operators.shared.acceptance.Acceptance`. The loss is the field ``objective`` of the method, or
    the shared default. A correction that is worse is replaced by a milder one; :meth:`milder` names what a method
    offers. If none is accepted, or the model was plainly trained with another loss, ``on_rejection`` decides.

    Args:
        on_rejection: What to do with a correction that is not accepted: ``"unlink"`` tries milder ones, then only
            deletes the edges; ``"raise"`` then raises an error; ``"keep"`` keeps the correction without a warning.

    Attributes:
        name: The name of the method on the command line and in reports.
        kinds: The kinds of graph that the method accepts.
        levels: The levels of request that the method accepts.
        needs_preparation: Whether :meth:`prepare` must be called before :meth:`unlearn`.
        keeps: The class of the prepared module, if it can be written to a file; ``None`` otherwise.
        kept_as: The kind recorded in such a file; ``None`` stands for the name of the method.
        anew: Fields that may change from request to request; all other fields are fixed by the preparation.
        judged: Whether corrections are compared with deleting the edges; false for methods that retrain or only delete.
        solves_tilted: Whether the method minimises the tilted risk, so that its gradient must fall.
        preparation: The preparation that was made or loaded; ``None`` before that.
        prepare_seconds: Wall-clock seconds that the preparation took.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("interactions",)
    levels: ClassVar[tuple[str, ...]] = ("interaction", "click", "item", "session", "user")
    needs_preparation: ClassVar[bool] = False
    keeps: ClassVar[type[Kept] | None] = None
    kept_as: ClassVar[str | None] = None
    anew: ClassVar[tuple[str, ...]] = ()
    judged: ClassVar[bool] = True
    solves_tilted: ClassVar[bool] = False
    on_rejection: Rejection = "unlink"
    preparation: Preparation | None = field(default=None, init=False, repr=False, compare=False)
    prepare_seconds: float | None = field(default=None, init=False, repr=False, compare=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            registry[cls.name] = cls

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "on_rejection":  # at construction too, whatever __post_init__ of a subclass does
            check_choices(get_args(Rejection), on_rejection=value)
        super().__setattr__(name, value)

    @classmethod
    def as_published(cls, objective: Any = None, **options: Any) -> Unlearner:
        """Return the method as its source describes it, for comparison.

        The class of this variant is registered under the name ``NAME-published``.

        Args:
            objective: The loss that the model was trained with; ``None`` selects the shared default.
            **options: Values for other fields of the variant.

        Returns:
            An instance of the published variant.

        Raises:
            ValueError: The method has no published variant.

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
        """Return the method with its unset fields filled in.

        Args:
            **known: Values for fields that are ``None``, such as ``objective``, ``validation`` and ``settings``, which
                describe how the original was trained. Names that are not fields of the method are ignored.

        Returns:
            A copy of the method that shares its preparation, or the method itself if no field had to be filled.

        Example:
            >>> import graphunlearn as gu
            >>> gu.FineTune().filled(objective=gu.BCE(), validation=None).objective == gu.BCE()
            True
        """
        missing = {name: value for name, value in known.items() if getattr(self, name, value) is None}
        made = copy.copy(self) if missing else self
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
        """Do the computations that all later requests on this model and graph share.

        The time it takes is stored in ``prepare_seconds``. The call is optional, except for methods whose
        ``needs_preparation`` is true.

        Args:
            model: The trained recommender; it is not changed.
            graph: The graph that the model was trained on.
            checkpoint: File for the state of an interrupted preparation, if the method supports resuming.
            progress: Whether to show progress; ``None`` shows it on a terminal only.

        Raises:
            ValueError: The method does not take graphs of this kind, the model does not fit it, or is not finite.
            RejectedError: Another loss fits the model plainly better and ``on_rejection`` is ``"raise"``.
        """
        self._check_arguments(model, graph)
        start = time.perf_counter()
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            self._prepare(model, graph, None if checkpoint is None else Path(checkpoint), progress)
        self.prepare_seconds = time.perf_counter() - start
        if self.preparation is not None:
            self.prepare_seconds += self.preparation.log.get("seconds_before_a_break", 0.0)
            self.preparation.seconds = self.prepare_seconds

    def asks_preparation(self, model: nn.Module) -> bool:
        """Return whether a request on ``model`` needs a preparation.

        Args:
            model: The model to unlearn from.

        Returns:
            ``needs_preparation``, unless a method overrides this.
        """
        return self.needs_preparation

    def save(self, path: str | Path) -> Path:
        """Write the preparation to a file.

        Args:
            path: The file; the suffix ``.safetensors`` is added if it is missing.

        Returns:
            The path of the file.

        Raises:
            ValueError: The method has no preparation, or its preparation cannot be written to a file.
        """
        return self._prepared_first().save(path)

    def load(self, path: str | Path, device: torch.device | str = "cpu", *, like: nn.Module | None = None) -> Self:
        """Load a preparation from a file that :meth:`save` wrote.

        Args:
            path: The file.
            device: The device to load the tensors to.
            like: A model of the class that the method was prepared for; required by methods that train models of their
                own.

        Returns:
            The method itself.

        Raises:
            ValueError: The file does not hold a preparation, holds one of another version or kind, or the method has
                no preparation that can be written to a file.
        """
        if self.keeps is None:
            raise ValueError(f"{self.name} must be a method whose preparation can be saved (got '{path}' to load)")
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
            graph: The graph that the model was trained on.
            request: The users, items, sessions, interactions or clicks to forget.
            inplace: Whether to correct ``model`` itself instead of a copy; if the call fails, the model is restored.

        Returns:
            The :class:`UnlearningResult` with the corrected model and the retained graph.

        Raises:
            ValueError: The method does not accept graphs of this kind, the request does not fit the graph or the
                method, the model does not fit the graph, or a parameter is not finite.
            RejectedError: The correction is not accepted and ``on_rejection`` is ``"raise"``.
        """
        self._check_arguments(model, graph)
        levels = [level for level in graph.levels if level in self.levels]
        if unserved := [part.level for part in request.parts if part.level not in levels]:
            raise ArgumentError("request", f"be of a level that {self.name} serves, {', '.join(levels)}", unserved[0])
        self._validate(model, graph, request)
        base = self._original(model, graph)
        if inplace and base is not model:
            got = f"True for {type(model).__name__}, in whose place it serves {type(base).__name__}"
            raise ArgumentError("inplace", f"be False where {self.name} serves a model of its own", got)
        with torch.inference_mode(False):  # a copy made in inference mode could not be changed
            corrected = model if inplace else copy.deepcopy(base)
            before = copy.deepcopy(model) if inplace else base
        device = next(model.parameters()).device
        try:
            # methods need gradients even if the caller is inside no_grad or inference_mode
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                evaluating(before, corrected),
                unchanging(before),
                peak_memory(device) as peak,
            ):
                start, cpu = time.perf_counter(), time.process_time()
                retained = graph.keep(~request.mask(graph))
                connect(corrected, retained)
                refused = refuse(self, corrected, before, graph, retained)
                log = refused or self._unlearn(corrected, graph, retained, request)
                self._check_finite(corrected)
                if self.judged and not refused and 0 < retained.num_interactions < graph.num_interactions:
                    log["acceptance"] = accept(self, log, corrected, before, graph, retained, request)
                    self._check_finite(corrected)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            corrected.zero_grad(set_to_none=True)
        except BaseException:
            if inplace:
                model.load_state_dict(before.state_dict())
            raise
        if self.preparation is not None and self.asks_preparation(corrected):
            self.preparation.note(corrected, retained)
        seen = (seconds, cpu, self.prepare_seconds, peak(), log, None if base is model else base)
        return UnlearningResult(corrected, retained, request, self.name, *seen, emptied_nodes(graph, retained))

    def _finish(self, model: Any, before: Any, graph: Any, retained: Any, request: Any, journal: Any) -> Any:
        """Change rows of an accepted correction, kept in a journal, and return more of the log; it is judged again."""
        return {}

    def milder(self, log: dict[str, Any]) -> Iterator[tuple[str, Unlearner]]:
        """Yield variants of the method that make a milder step, with a description of each.

        They are tried in this order if a step is not accepted. By default there are none, and the step is shortened.

        Args:
            log: The log of the step.
        """
        yield from ()

    def figures(
        self, model: nn.Module, graph: InteractionGraph | SessionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        """Return the data of the figures that an audit draws for this method in particular.

        Args:
            model: The trained model; it is not changed.
            graph: The graph that the model was trained on.
            request: The request to forget.

        Returns:
            The data of every figure, by the name of the figure; empty unless a method overrides this.
        """
        return {}

    def _keep(self, module: Kept, model: nn.Module, graph: Any, log: dict[str, Any]) -> None:
        """Store a prepared module as the preparation of this method.

        Args:
            module: The module that was learned.
            model: The model that it was prepared for.
            graph: The training graph of that model.
            log: A record of the preparation; its entry ``seconds_before_a_break`` is added to ``prepare_seconds``.
        """
        kind = self.kept_as or self.name
        self.preparation = Preparation(kind, module, fingerprint(model), graph.fingerprint(), log)

    def _prepared_first(self) -> Preparation:
        """Return the preparation; raise a ``ValueError`` if there is none."""
        if self.preparation is None:
            raise ValueError(f"{self.name} must be prepared with prepare(model, graph) first (got no preparation)")
        return self.preparation

    def _check_prepared(self, model: nn.Module, graph: Any) -> tuple[str, str]:
        """Return the fingerprints of the model and the graph; raise an error if the method was prepared for others."""
        preparation = self._prepared_first()
        prints = remembered(model, "fingerprint", fingerprint), graph.fingerprint()
        adapt: bool | None = getattr(self, "adapt", None)
        objection = None if adapt else preparation.objection(*prints)
        if objection is not None:
            must = f"be the one that {self.name} was prepared for, or come from it by requests that this object served"
            hint = f"prepare again{'' if adapt is None else ', or serve it all the same with adapt=True'}"
            raise ArgumentError(objection, must, "another", hint)
        return prints

    def _prepare(  # noqa: B027
        self, model: nn.Module, graph: Any, checkpoint: Path | None, progress: bool | None
    ) -> None:
        """Prepare the method; the default does nothing."""

    def _validate(self, model: nn.Module, graph: Any, request: ForgetRequest) -> None:  # noqa: B027
        """Validate the arguments of :meth:`unlearn`; the default accepts all."""

    def _original(self, model: nn.Module, graph: Any) -> nn.Module:
        """Return the model to correct: by default the one passed; methods that serve their own model override this."""
        return model

    @abstractmethod
    def _unlearn(self, model: nn.Module, graph: Any, retained: Any, request: ForgetRequest) -> dict[str, Any]:
        """Correct ``model`` in place and return the log."""

    def _check_finite(self, model: nn.Module) -> None:
        """Raise an error if a parameter of the corrected model is not finite."""
        if bad := remembered(model, "not finite", not_finite):
            raise FloatingPointError(f"{self.name} left NaN or infinity in {bad[0]}; the model is unchanged")

    def _check_arguments(self, model: nn.Module, graph: Any) -> None:
        """Raise an error if the method does not accept graphs of this kind, or the model does not fit the graph."""
        if getattr(type(graph), "kind", None) not in self.kinds:
            wanted = {"interactions": "an InteractionGraph", "sessions": "a SessionGraph"}[self.kinds[0]]
            raise ArgumentError("graph", f"be {wanted} for {self.name}", f"a {type(graph).__name__}")
        parameters = list(model.parameters())
        if not parameters:
            raise ArgumentError("model", "have parameters", f"{type(model).__name__} with none")
        check_precision(model)
        bad, device = remembered(model, "not finite", not_finite), parameters[0].device
        if bad:
            raise ArgumentError("model", "have finite parameters", f"NaN or infinity in {', '.join(bad[:3])}")
        if graph.device != device:
            raise ArgumentError("graph", f"be on the model's device, {device}", graph.device)
        if graph.kind == "sessions":  # a few sessions suffice: they share the item table with all others
            graph = graph.select(torch.arange(min(HANDFUL, graph.num_sessions), device=device))
        with torch.no_grad(), evaluating(model):
            check_fit(model, graph)
        check_loss(self, model, graph)
