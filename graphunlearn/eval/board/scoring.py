"""Scores of the leaderboard: operators and folders of weights, judged against the stored models of a track."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from graphunlearn.errors import ArgumentError
from graphunlearn.eval.auditing import Audit, audit
from graphunlearn.eval.board.store import Store
from graphunlearn.eval.board.track import Track
from graphunlearn.eval.comparison import prepared
from graphunlearn.eval.report.attacks import deciding, left_of
from graphunlearn.eval.report.verdict import ratio_to_floor
from graphunlearn.eval.scenarios.cases import Scenario
from graphunlearn.operators import Retrain, Unlearner, UnlearningResult, Unlink, UnlinkRedraw

__all__ = ["ordered", "rows_of", "score"]

ELSEWHERE = (
    "The stored models were trained on another kind of machine, so that the times of operators are not compared with "
    "those of retraining."
)
_OWN = ("original", Retrain.name, Unlink.name, UnlinkRedraw.name)
"""Names of the rows that every report has, which folders of weights cannot take."""
_VERDICTS = ("like", "undecided")
"""The verdicts that come first, in their order."""
_COST = ("seconds", "cpu_seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb")


def score(
    track: Track,
    case: Scenario[Any],
    store: Store,
    methods: Sequence[Unlearner] = (),
    weights: Mapping[str, Sequence[nn.Module]] | None = None,
    *,
    on_step: Callable[[str], Any] = lambda what: None,
) -> Audit:
    """Judge operators and folders of weights against the stored models of a track.

    Every operator unlearns the request from every original of the track; one that needs preparation is prepared for
    each of them.

    Args:
        track: The track.
        case: Its split and request.
        store: Its models.
        methods: Operators; their ``objective``, ``validation`` and ``settings`` are filled in.
        weights: Corrected models by name, in the order of the originals; see
            :func:`graphunlearn.eval.board.read_submission`.
        on_step: Called with the name of the step whenever a model is judged.

    Returns:
        The mean audit over the originals. The time and memory of folders of weights are ``None``.

    Raises:
        ArgumentError: There is nothing to score, a name occurs twice, folders of weights have the name of a row that
            every report has, or a number of models differs from the originals.
    """
    handed = dict(weights or {})
    names = [method.name for method in methods] + list(handed)
    if not names:
        raise ArgumentError("methods", "name at least one operator or folder of weights", "none")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ArgumentError("methods", "have different names", f"{twice[0]} twice")
    for name, models in handed.items():
        if name in _OWN:
            raise ArgumentError("weights", f"have another name than {', '.join(_OWN)}", name)
        if len(models) != len(store.originals):
            raise ArgumentError("weights", f"hold {len(store.originals)} models", f"{len(models)} of {name}")
    held_out = case.validation if case.validation.num_interactions else None
    known: dict[str, Any] = {"objective": track.objective, "validation": held_out, "settings": track.settings}
    own = [method.filled(**known) for method in methods]
    retained, _ = case.train.split(case.request)
    audits = []
    for k, original in enumerate(store.originals):
        given = [_handed_in(models[k], retained, case, name) for name, models in handed.items()]
        audits.append(
            audit(
                original,
                case.train,
                case.request,
                [*(prepared(method, original, case.train) for method in own), *given],
                test=case.test,
                validation=held_out,
                objective=track.objective,
                references=store.references,
                retrain_seeds=0,
                on_step=on_step,
            )
        )
    notes = [*case.notes, *([] if store.same_machine else [ELSEWHERE])]
    about = {
        "dataset": {"name": track.dataset, "train": case.train.num_interactions, "test": case.test.num_interactions},
        "model": {"name": track.model, "dim": track.dim, "layers": track.layers, "objective": repr(track.objective)}
        | {"settings": repr(asdict(track.settings))},
        "scenario": track.name,
        "seeds": {"data": 1, "original": track.originals, "retrain": track.references},
        "notes": notes,
    }
    judged = Audit.mean(audits, about)
    for method in judged.report["methods"]:
        unknown = _COST if method["name"] in handed else () if store.same_machine else ("speedup_vs_retrain",)
        method.update(dict.fromkeys(unknown))
    return judged


def rows_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    r"""Return the rows of the leaderboard: retraining first, then by verdict and by KLOM.

    Models that the attacks do not tell from retrained ones come first, then those of which nothing can be said,
    then all others. Within these, the order is that of the greater of KLOM on the forgotten pairs and on pairs that
    remain, so that neither too little nor too much forgetting pays. ``leaks`` has, for every attack that decides
    the verdict, the share of the trace that it still finds: 0 as retrained, 1 as the original, below 0 if more is
    hidden than by retraining. KLOM of retraining is that between two halves of the retrained models; that of as
    many models as there are originals would be ``klom_if_equal`` on average, if they were distributed as retrained
    ones.

    Args:
        report: The report of :func:`score`.
    """
    rows = []
    floors: dict[str, Any] = next((method["klom"] for method in report["methods"] if method.get("klom")), {})
    between = {part: floors.get(f"floor_{part}") for part in ("forget", "retain")}
    for method in report["methods"]:
        klom = (between if method["name"] == "retrain" else method.get("klom")) or {}
        left = {name: left_of(report, method, name) for name in deciding(report)}
        rows.append(
            {
                "method": method["name"],
                "verdict": (method.get("verdict") or {}).get("status"),
                "klom_forget": klom.get("forget"),
                "klom_retain": klom.get("retain"),
                "klom_if_equal": klom.get("expected_if_equal"),
                "dp_forget_over_floor": ratio_to_floor(method, "forget"),
                "dp_test_over_floor": ratio_to_floor(method, "test"),
                "leaks": {name: None if found is None else found.share for name, found in left.items()},
                "recall@20": (method["utility"] or {}).get("recall@20"),
                "ndcg@20": (method["utility"] or {}).get("ndcg@20"),
                **{name: method.get(name) for name in _COST},
            }
        )
    return ordered(rows)


def ordered(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order of :func:`rows_of`; within a verdict, those without KLOM of both parts come last.

    Args:
        rows: Rows of the leaderboard.
    """
    return sorted(map(dict, rows), key=_place)


def _place(row: Mapping[str, Any]) -> tuple[bool, int, float]:
    both = [row.get("klom_forget"), row.get("klom_retain")]
    worst = max(math.inf if value is None or math.isnan(value) else value for value in both)
    told = _VERDICTS.index(row["verdict"]) if row["verdict"] in _VERDICTS else len(_VERDICTS)
    return row["method"] != "retrain", told, worst


def _handed_in(model: nn.Module, retained: Any, case: Scenario[Any], name: str) -> UnlearningResult:
    unknown = {"seconds": math.nan, "cpu_seconds": math.nan, "prepare_seconds": None, "peak_memory": 0}
    return UnlearningResult(model, retained, case.request, name, **unknown)  # type: ignore[arg-type]
