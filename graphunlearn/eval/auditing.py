"""The audit: compare unlearning methods with an ensemble of retrained models, in both directions."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.plain import json_ready
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.cache import retrained as retrain
from graphunlearn.eval.cache import trained
from graphunlearn.eval.decision import Verdict
from graphunlearn.eval.entries import model_entry, retrain_row, retrained_entries
from graphunlearn.eval.health import health
from graphunlearn.eval.judging import judge_all, klom_entry, pass_rate
from graphunlearn.eval.machine import environment, now
from graphunlearn.eval.measure import Judge
from graphunlearn.eval.other_training import discount
from graphunlearn.eval.report.writing import aggregate, terminal_table, write_report
from graphunlearn.eval.scenarios.cases import counted
from graphunlearn.eval.session_measure import SessionJudge
from graphunlearn.nn import Criterion, FitSettings, Objective, default_settings
from graphunlearn.operators import Retrain, Unlearner, UnlearningResult, Unlink, UnlinkRedraw
from graphunlearn.operators.shards.ensemble import backbone_of

__all__ = ["Audit", "audit", "own_figures", "replace_sick"]

ANOTHER = 100_000
"""Added to the seed of a retrained model that is trained once again."""
UNCALIBRATED = (
    "There are not enough test data on what remains: membership attacks are not calibrated and do not decide, and the "
    "quality of recommendations is measured on few rows, or not at all."
)


@dataclass
class Audit:
    """The result of an audit. Print it for a table, call :meth:`write` for the report, or read ``report``.

    Args:
        report: The report, in the format of ``report.json``.
        plots: The data of the figures; see :func:`graphunlearn.eval.report.plots.draw`.
        references: The retrained models that the methods were compared with. They can be passed to further audits of
            the same request.
        results: The results of the audited methods.
        retrained: One report entry per retrained model; the report's row of retraining is their mean.
        measured: Measures of the original, of the retrained models (a list) and of the methods, by name.
        warnings: Sentences on retrained models that are not healthy, and on missing test data; the report's notes begin
            with them.
    """

    report: dict[str, Any]
    plots: dict[str, Any] = field(default_factory=dict, repr=False)
    references: list[UnlearningResult] = field(default_factory=list, repr=False)
    results: list[UnlearningResult] = field(default_factory=list, repr=False)
    retrained: list[dict[str, Any]] = field(default_factory=list, repr=False)
    measured: dict[str, Any] = field(default_factory=dict, repr=False)
    warnings: list[str] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return terminal_table(self.report)

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``report.json`` and ``report.html`` into ``folder``.

        Args:
            folder: The folder, which is created if it does not exist.

        Returns:
            The paths of the two files.
        """
        return write_report(self.report, folder, self.plots)

    @classmethod
    def mean(cls, audits: Sequence[Audit], about: Mapping[str, Any]) -> Audit:
        """Return the mean of several audits of the same methods, with the figures of the first audit.

        Audits may share retrained models. The row of retraining is the mean over all distinct retrained models, and
        its ± is their standard deviation.

        Args:
            audits: At least one audit.
            about: Further fields of the report, such as the data set, the scenario and ``notes``.

        Returns:
            The mean audit; its report holds the methods of every single audit under ``runs``.
        """
        first, methods = audits[0], audits[0].report["methods"]
        if len(audits) > 1:
            row = json_ready(retrain_row([(a.references, a.retrained) for a in audits]))
            means = aggregate([a.report["methods"] for a in audits])
            methods = [row if method["name"] == "retrain" else method for method in means]
            klom = _klom(audits)
            for method in methods:
                method["klom"] = klom.get(method["name"])
        warnings = dict.fromkeys(warning for a in audits for warning in a.warnings)
        notes = [*warnings, *about.get("notes", []), *_notes([a.references for a in audits], first.results)]
        runs = [[{k: v for k, v in m.items() if k != "log"} for m in a.report["methods"]] for a in audits]
        rates = [rate for a in audits if (rate := a.report.get("retrain_pass_rate")) is not None]
        distinct = {id(r): entry for a in audits for r, entry in zip(a.references, a.report["references"])}
        together = {
            "date": audits[-1].report["date"],
            "references": list(distinct.values()),
            "retrain_pass_rate": statistics.fmean(rates) if rates else None,
        }
        report = {**first.report, **about, **together, "notes": notes, "methods": methods, "runs": runs}
        return cls(report, first.plots, first.references, first.results, first.retrained)


def audit(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    methods: Sequence[Unlearner | UnlearningResult],
    *,
    test: InteractionGraph | SessionGraph,
    validation: InteractionGraph | SessionGraph | None = None,
    objective: Criterion,
    settings: FitSettings | None = None,
    retrain_seeds: int = 5,
    references: list[UnlearningResult] | None = None,
    trained_labels: bool = False,
    targets: Tensor | None = None,
    real: Tensor | None = None,
    category: Tensor | None = None,
    baselines: bool = True,
    shadow: int = 0,
    cache: str | Path | None = None,
    other_training: bool = False,
    on_step: Callable[[str], Any] = lambda what: None,
) -> Audit:
    """Compare unlearning methods with models that were retrained on the retained graph.

    The measures depend on the kind of graph: see :class:`~graphunlearn.eval.measure.Judge` for users and items, and
    :class:`~graphunlearn.eval.session_measure.SessionJudge` for sessions. If a method has an original model of its own
    (such as an ensemble of shards), its change is measured relative to that model.

    Args:
        model: The original model.
        graph: The graph that the original model was trained on.
        request: The forget request.
        methods: Methods to run, or results of methods that were run before.
        test: Held-out interactions or sessions. The following rows are left out and counted: rows of users or items
            that are forgotten entirely, forgotten pairs, and rows with users or items without training data.
        validation: Held-out data for early stopping of the retrained models.
        objective: The loss of all models.
        settings: Training settings of the retrained models. Their seeds count up from ``settings.seed`` (50 without
            settings), which must differ from the seed of the original model.
        retrain_seeds: Number of retrained models.
        references: Retrained models from an earlier audit of the same request; only missing ones are trained.
        trained_labels: Whether forgetting is measured by how well a model predicts the labels that the forgotten
            interactions were trained with (flipped labels).
        targets: Items that the forgotten interactions were made to promote ``[num_targets]`` (fraud, fake users); their
            recommendation to real users is then compared with retraining.
        real: Mask of the users (or training sessions) that are not injected; by default all that remain.
        category: Sensitive items that users asked to forget ``[num_category]``; the report then gives the share of
            these users who are still recommended one (``sensitive@k``, after ERASE).
        baselines: Whether to add the baselines that compute nothing, :class:`~graphunlearn.operators.Unlink` and
            :class:`~graphunlearn.operators.UnlinkRedraw`, if they are not among the methods.
        shadow: Number of further models to train on the whole graph, and on the retained graph, for the membership
            attacks. By default, these attacks use the retrained models only.
        cache: Folder of retrained models, which are reused if they are found there. ``None`` keeps nothing on disk.
        other_training: Whether the original was trained by another program than the retrained models will be. Verdicts
            that the difference between the two trainings could explain are then undecided; see
            :func:`graphunlearn.eval.other_training.discount`.
        on_step: Called with the name of the step whenever a model is finished.

    Returns:
        The :class:`Audit`.

    Raises:
        ValueError: The request or a graph does not fit, a method was not prepared, ``targets`` or ``real`` is empty, or
            a number of models is out of range.
    """
    if retrain_seeds < (0 if references else 1):
        needed = "be at least 0" if references else "be at least 1 without 'references'"
        raise ArgumentError("retrain_seeds", needed, retrain_seeds)
    if shadow < 0:
        raise ArgumentError("shadow", "be at least 0", shadow)
    judge = judge_of(graph, request, validation, test, objective, trained_labels, targets, real, category)
    for method in methods:
        if isinstance(method, UnlearningResult) or method.prepare_seconds is not None:
            continue
        if method.asks_preparation(model) and method.preparation is None:
            raise ArgumentError("methods", "be prepared", f"{method.name} before its prepare(model, graph)")
    named_methods = {m.method if isinstance(m, UnlearningResult) else m.name for m in methods}
    retained, _ = graph.split(request)
    for result in methods:
        if isinstance(result, UnlearningResult) and result.graph.fingerprint() != retained.fingerprint():
            raise ArgumentError(
                "methods",
                "hold results whose graph is 'graph' without 'request'",
                f"one of {result.method} with another",
            )
    trivial = [m for m in (Unlink(), UnlinkRedraw()) if baselines and m.name not in named_methods]
    settings = settings or replace(default_settings(graph), seed=50)
    references, folder = list(references or []), None if cache is None else Path(cache)

    def train(seed: int) -> UnlearningResult:
        method = Retrain(objective=objective, validation=validation, settings=replace(settings, seed=seed))
        return retrain(method, backbone_of(model), graph, request, folder)

    for k in range(len(references), retrain_seeds):
        references.append(train(settings.seed + k))
        on_step("retraining")
    warnings = replace_sick(references, train)
    if not judge.attacks.calibrated:
        warnings.append(UNCALIBRATED)
    inside, outside = [], []
    for k in range(shadow):
        seed, copied = settings.seed + 2 * ANOTHER + k, copy.deepcopy(backbone_of(model))
        trained("shadow", copied, graph, validation, objective, replace(settings, seed=seed), folder)
        inside.append((copied, graph))
        extra = train(settings.seed + 3 * ANOTHER + k)
        outside.append((extra.model, extra.graph))
        on_step("shadow models")
    results = []
    for method in [*methods, *trivial]:
        results.append(method if isinstance(method, UnlearningResult) else method.unlearn(model, graph, request))
        if method not in trivial:
            on_step(results[-1].method)
    original = judge.measure(model, graph)
    retrained = [judge.measure(r.model, r.graph, original) for r in references]
    own = [original if r.original is None else judge.measure(r.original, graph) for r in results]
    measured = [judge.measure(r.model, r.graph, before) for r, before in zip(results, own)]
    for m, before in zip([original, *retrained, *own, *measured], [original] * (1 + len(retrained)) + own + own):
        m["original"] = before
    judged = [original, *(m for m in own if m is not original), *measured]
    judge.compare(judged, retrained)
    seen = [[judge.measure(m, g)["observed"] for m, g in models] for models in (inside, outside)]
    judge_all(judge.attacks, graph.kind, judged, retrained, (seen[0], seen[1]))
    for result, m in zip(results, measured):
        if result.original is not None:
            rule = f"{result.method} serves a model of its own, which retraining does not give"
            m["verdict"] = Verdict("undecided", rule, "retrained models of the same kind")
    if other_training:
        warnings.append(discount(original, retrained, measured))
    seconds = statistics.fmean(r.seconds for r in references)
    of_retrained = retrained_entries(retrained, references, seconds)
    entries = [
        model_entry("original", original, retrained, None, seconds),
        retrain_row([(references, of_retrained)]),
        *(model_entry(r.method, m, retrained, r, seconds) for r, m in zip(results, measured)),
    ]
    report = {
        "date": now(),
        "request": request.describe(graph),
        "environment": environment(next(model.parameters()).device),
        "distance_unit": judge.distance_unit,
        "left_out": judge.left_out,
        "controls": judge.attacks.match,
        "references": health(references),
        "retrain_pass_rate": pass_rate(retrained),
        "notes": [*warnings, *_notes([references], results)],
        "methods": entries,
    }
    named = {"original": original, **{r.method: m for r, m in zip(results, measured)}}
    plots = judge.plots(named, retrained) | own_figures(model, graph, request, methods)
    plots["logs"] = {r.method: r.log for r in results}
    plots["scores_before"] = {r.method: m["forget"] for r, m in zip(results, own) if r.original is not None}
    kept: dict[str, Any] = {"retrain": retrained, **named}
    return Audit(json_ready(report), plots, references, results, of_retrained, kept, warnings)


def replace_sick(references: list[UnlearningResult], train: Callable[[int], UnlearningResult]) -> list[str]:
    """Train every retrained model that is not healthy once again with another seed.

    If the new model is healthy, it takes the place of the old one; otherwise the one with the higher validation metric
    stays.

    Args:
        references: The retrained models; changed in place.
        train: Function that trains a model with a seed.

    Returns:
        Sentences for the report, one per such model.
    """
    told = []
    for k, (entry, result) in enumerate(zip(health(references), list(references))):
        if "health" in result.log:  # from an earlier audit
            told.append(result.log["health"])
            continue
        if entry["healthy"] is not False:
            continue
        name = f"the retrained model of seed {entry['seed']} (best epoch {entry['best_epoch']} of {entry['epochs']})"
        seed = (entry["seed"] or 0) + ANOTHER + k
        references[k] = again = train(seed)
        again.log["replaces"] = entry["seed"]
        if health(references)[k]["healthy"]:
            told.append(f"{name[0].upper()}{name[1:]} was not healthy; one of seed {seed} takes its place.")
        else:
            better = (again.log.get("validation") or 0.0) > (entry["validation"] or 0.0)
            references[k] = again if better else result
            told.append(
                f"Read this first: {name} is not healthy, nor is the one of seed {seed} that was trained in its place. "
                f"The {'second' if better else 'first'} one, which is better on the validation data, is used. All "
                "distances to retraining are uncertain."
            )
        references[k].log["health"] = told[-1]
    return told


def _klom(audits: Sequence[Audit]) -> dict[str, Any]:
    """Return KLOM of every method over several originals that share their retrained models."""
    first = audits[0].references
    same = [a for a in audits if [id(r) for r in a.references] == [id(r) for r in first]]
    names = [name for name in same[0].measured if name != "retrain"]
    return {name: klom_entry([a.measured[name] for a in same], same[0].measured["retrain"]) for name in names}


def judge_of(
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    validation: Any,
    test: Any,
    objective: Criterion,
    trained_labels: bool,
    targets: Tensor | None,
    real: Tensor | None,
    category: Tensor | None,
) -> Judge | SessionJudge:
    for name, part in (("test", test), ("validation", validation)):
        if part is not None and part.kind != graph.kind:
            kinds = type(graph).__name__, type(part).__name__
            raise ArgumentError(name, f"be of the kind of 'graph', {kinds[0]}", kinds[1])
    if targets is not None and not targets.numel():
        raise ArgumentError("targets", "name at least one item", "none")
    if real is not None and not bool(real.any()):
        raise ArgumentError("real", f"hold at least one {'session' if graph.kind == 'sessions' else 'user'}", "none")
    if isinstance(graph, SessionGraph):
        if trained_labels:
            raise ArgumentError("trained_labels", "go with interactions that carry labels", "it with sessions")
        return SessionJudge(graph, request, validation, test, targets, real)
    if not isinstance(objective, Objective):
        raise ArgumentError("objective", "be one of users and items", type(objective).__name__)
    return Judge(graph, request, validation, test, objective, trained_labels, targets, real, category)


def _notes(ensembles: Iterable[Sequence[UnlearningResult]], results: Sequence[UnlearningResult]) -> list[str]:
    """Return the report's notes on the retrained models, on the cache, and on methods with an original of their own."""
    distinct = {id(result): result for ensemble in ensembles for result in ensemble}.values()
    cached = sum("cached" in result.log for result in distinct)
    notes = [f"Judged against {counted(len(distinct), 'retrained model')}."]
    if cached:
        notes.append(
            f"{cached} of the {counted(len(distinct), 'retrained model')} came from the cache; "
            "their times and memory were measured when they were trained."
        )
    for result in results:
        found = result.log.get("acceptance", {})
        if not result.accepted:
            left = "it was kept" if found.get("outcome") == "kept" else "the edges were deleted, and nothing else"
            notes.append(f"No correction by {result.method} was accepted: {found.get('reason', 'no record')}; {left}.")
    own = [result.method for result in results if result.original is not None]
    if own:
        notes.append(f"Measured from an original of its own: {', '.join(own)}.")
    return notes


def own_figures(
    model: nn.Module,
    graph: InteractionGraph | SessionGraph,
    request: ForgetRequest,
    methods: Sequence[Unlearner | UnlearningResult],
) -> dict[str, Any]:
    """Return the data of the figures that a method adds to the report.

    Args:
        model: The original model.
        graph: The graph that the original model was trained on.
        request: The forget request.
        methods: The audited methods; results carry no figures.

    Returns:
        The data of the first method that adds figures, or an empty dictionary.
    """
    for method in methods:
        figures = {} if isinstance(method, UnlearningResult) else method.figures(model, graph, request)
        if figures:
            return figures
    return {}
