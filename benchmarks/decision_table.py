"""Which method when: a table made from the committed results, for the page ``docs/which-method.md``.

``python benchmarks/decision_table.py`` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HEADINGS = ("you want", "take", "closeness", "quality", "cost", "measured in")
Found = list[dict[str, dict[str, Any]]]  # the rows of several cases, by method
RATINGS = ("unlearnrec-lastfm", "unlearnrec-ml-100k")
SESSIONS = ("cau", "cau-items", "cau-sessions", "cau-diginetica")


@dataclass(frozen=True)
class Row:
    """A situation, what to take in it, and what was measured.

    Args:
        want: The situation.
        take: The method.
        closeness: How far from retrained models it ended.
        quality: Recommendation quality against retrained models.
        cost: Time against a retraining.
        sources: Names of the results files that the figures are from.
    """

    want: str
    take: str
    closeness: str
    quality: str
    cost: str
    sources: tuple[str, ...]


@cache
def results(name: str) -> Any:
    """Return what ``results/NAME.json`` holds of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]


def number(value: float, digits: int = 2) -> str:
    """Return a figure as the documentation writes it, with at most three places that count.

    Example:
        >>> [number(x) for x in (0.971, 1.349, 14.19, 1398.7)]
        ['0.97', '1.35', '14.2', '1,399']
    """
    kept = min(digits, 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0)
    return f"{value:,.{kept}f}"


def span(values: Iterable[float | None], unit: str = " ×", digits: int = 2) -> str:
    """Return the smallest and the largest of the figures that are there.

    Example:
        >>> span([1.2, None, 0.9]), span([2.0]), span([12.6, 174.7], digits=0)
        ('0.90–1.20 ×', '2.00 ×', '13–175 ×')
    """
    known = sorted(value for value in values if value is not None)
    return "–".join(dict.fromkeys(number(value, digits) for value in (known[0], known[-1]))) + unit


def percents(values: Iterable[float], of: str = "Recall@20") -> str:
    """Return the smallest and the largest relative difference.

    Example:
        >>> percents([-0.016, 0.004]), percents([0.0], "AUROC")
        ('Recall@20 −1.6 to +0.4 %', 'AUROC ±0 %')
    """
    known = sorted(100 * value for value in values)
    ends = [f"{value:+.1f}".replace("-", "−") for value in known]
    ends = ["±0" if end in ("+0.0", "−0.0") else end for end in (ends[0], ends[-1])]
    return f"{of} {' to '.join(dict.fromkeys(ends))} %"


def cases(names: Iterable[str], *scenarios: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the rows by method of all cases of these scenarios, whichever shape the file has."""
    for name in names:
        for case in results(name):
            if case.get("scenario", case.get("level")) in scenarios:
                yield {row["method"]: row for row in case["rows"]}


def recall(rows: dict[str, dict[str, Any]], method: str, metric: str = "recall@20") -> float:
    """Return by which share a method's quality differs from that of retrained models."""
    values = [rows[name].get("utility", rows[name])[metric] for name in (method, "retrain")]
    return values[0] / values[1] - 1


def cpu_ratio(rows: dict[str, dict[str, Any]], method: str) -> float:
    """Return how many of a method's CPU seconds a retraining takes."""
    return rows["retrain"]["cpu_seconds"] / rows[method]["cpu_seconds"]


def closeness(users: Found, interactions: Found, *methods: str) -> str:
    """Return the distances to retrained models, for whole users and for interactions."""
    parts = [
        f"{what} {span(rows[name]['dp_forget_over_floor'] for rows in found for name in methods if name in rows)}"
        for what, found in (("users", users), ("interactions", interactions))
    ]
    return f"Δp: {', '.join(parts)}"


def quality(found: Found, *methods: str) -> str:
    """Return Recall@20 of methods against retrained models, over several cases."""
    return percents(recall(rows, name) for rows in found for name in methods if name in rows)


def faster(found: Found, *methods: str) -> str:
    """Return how many times faster than a retraining methods are, over several cases."""
    ratios = (rows[name]["speedup_vs_retrain"] for rows in found for name in methods if name in rows)
    return f"{span(ratios, digits=0)} faster"


def whole_calls(method: str) -> str:
    """Return how many times faster than a retraining whole calls are, from one user to 5 % of the interactions."""
    found = (
        row["speedup"] for case in results("whole_calls").values() for row in case["rows"] if row["method"] == method
    )
    return f"{span(found, digits=0)} faster"


def rows() -> list[Row]:
    """Return the table's rows."""
    return [
        *_ratings(),
        _one_after_another(),
        _ledger(),
        *_recbole(),
        _labels(),
        _sessions(),
        _shards(),
        _baselines(),
        _exact(),
        Row("the reference", "`Retrain()`", "1.00 ×", "±0 %", "1 ×", ()),
    ]


def _exact() -> Row:
    """Return the row of models that forget exactly, against fitting them anew."""
    counted = [row for row in results("exact")["rows"] if row["model"] in ("item-knn", "ease", "session-knn")]
    farthest = max(row["difference"] for row in counted)
    return Row(
        "nothing at all may be left, and a linear or counted model is good enough",
        "`ItemKNN`, `EASE`, `SessionKNN` of `nn.floors`, `train --model ease`",
        f"as fitted anew, up to {farthest:.0e} of the largest score",
        percents(row["recall@20"] / row["refitted_recall@20"] - 1 for row in counted) + " of fitting anew",
        f"{span((row['times_faster'] for row in counted), digits=0)} faster than fitting anew (CPU seconds)",
        ("exact",),
    )


def _ratings() -> list[Row]:
    users, edges, odd = (list(cases(RATINGS, name)) for name in ("users", "random-edges", "adversarial-edges"))
    both = users + edges
    more = [*cases(["implicit"], "user")], [*cases(["implicit"], "interaction")]
    shares = [rows["unlearnrec"]["prepare_seconds"] / rows["retrain"]["seconds"] for rows in both + odd]
    gaps = {
        name: span((rows[name]["dp_forget_over_floor"] for rows in odd), digits=1)
        for name in ("unlearnrec", "ifru", "calibrate")
    }
    return [
        Row(
            "users or interactions forgotten now, nothing prepared",
            "`IFRU()`",
            closeness(users + more[0], edges + more[1], "ifru"),
            quality(both + more[0] + more[1], "ifru"),
            whole_calls("ifru"),
            ("implicit", *RATINGS, "whole_calls"),
        ),
        Row(
            "the same, faster and rougher",
            "`Calibrate()`",
            closeness(users, edges, "calibrate"),
            quality(both, "calibrate"),
            whole_calls("calibrate"),
            (*RATINGS, "whole_calls"),
        ),
        Row(
            "many requests of one model",
            "`UnlearnRec()`, `prepare` once",
            closeness(users, edges, "unlearnrec"),
            quality(both, "unlearnrec"),
            f"a request {whole_calls('unlearnrec')}; preparing: {span(shares, '', digits=1)} of a training",
            (*RATINGS, "whole_calls"),
        ),
        Row(
            "what to forget is odd: injected, adversarial, mistaken",
            "`UnlearnRec()`, `prepare` once",
            f"Δp {gaps['unlearnrec']} (IFRU {gaps['ifru']}, Calibrate {gaps['calibrate']})",
            quality(odd, "unlearnrec"),
            "as above",
            RATINGS,
        ),
    ]


def _one_after_another() -> Row:
    last = {row["method"]: row for row in results("sequential")["rows"] if row["requests"] == 50}
    row, at_once = last["unlearnrec"], last["unlearnrec, all in one request"]
    close = f"after {row['requests']}: Δp {span([row['dp_forget_over_floor']])}"
    return Row(
        "requests one after another, of one preparation",
        "`UnlearnRec()`, `prepare` once",
        f"{close} ({span([at_once['dp_forget_over_floor']])} as one request)",
        percents([row["recall@20"] / row["retrain_recall@20"] - 1]),
        f"a request {span([row['retrain_seconds'] * row['requests'] / row['seconds_in_all']])} faster",
        ("sequential",),
    )


def _ledger() -> Row:
    found = results("ledger")
    last = {row["method"]: row for row in found["rows"] if row["requests"] == 50}
    methods = ("ifru", "unlearnrec")
    after = [found["spent_after_requests"][name] for name in methods]
    spent = ["not spent by 50 requests" if requests is None else f"spent after {requests}" for requests in after]
    share = f"{100 * found['retrained'][-1]['share_forgotten']:.0f} %"
    return Row(
        f"to know when requests have added up to a retraining (50 requests, {share} forgotten)",
        "`Ledger(...)`, `forget --ledger`",
        f"IFRU's budget {spent[0]}, UnlearnRec's {spent[1]}; Δp then "
        f"{span(last[name]['dp_forget_over_floor'] for name in methods)}, "
        f"on test pairs {span(last[name]['dp_test_over_floor'] for name in methods)}",
        percents(last[name]["recall@20_over_retrain"] - 1 for name in methods),
        "four gradients a request, or none with `budget=None`",
        ("ledger",),
    )


def _recbole() -> list[Row]:
    names = ("recbole_interactions", "recbole_interactions_more")
    found = [row for name in names for row in results(name) if row["method"] in ("ifru", "unlearnrec")]
    timed = [row["speedup_vs_retrain"] for row in found if row in results(names[0])]
    of = {what: [row for row in found if row["request"].endswith(what)] for what in ("users", "interactions")}
    trained = results("recbole_sessions")["models"]
    sessions = [{row["who"]: row for row in case["rows"]} for case in trained]
    again = [[row for row in case["rows"] if row["who"] == "retrained"] for case in trained]

    def mean(rows: list[dict[str, Any]], key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    closed = [
        (one["original"]["log_p_forgotten"] - one["cau"]["log_p_forgotten"])
        / (one["original"]["log_p_forgotten"] - mean(other, "log_p_forgotten"))
        for one, other in zip(sessions, again)
    ]
    fast = (mean(other, "cpu_seconds") / one["cau"]["cpu_seconds"] for one, other in zip(sessions, again))
    kept = (one["cau"]["recall@20"] / mean(other, "recall@20") - 1 for one, other in zip(sessions, again))
    near = [f"{what} {span(row['dp_forgotten_over_floor'] for row in part)}" for what, part in of.items()]
    return [
        Row(
            "what RecBole trained: LightGCN, NGCF, SGL, BPR",
            "`Bridge(...)` with `IFRU()`, `UnlearnRec()`",
            f"Δp: {', '.join(near)}",
            percents((row["recall@10_change"] for row in found), "RecBole's Recall@10"),
            f"{span(timed, digits=0)} faster than RecBole's training",
            names,
        ),
        Row(
            "what RecBole trained: SRGNN, GRU4Rec",
            "`Bridge(...)` with `CAU()`",
            f"{span(closed, '')} of the gap in log p closed",
            percents(kept, "RecBole's Recall@20"),
            f"{span(fast, digits=0)} faster (CPU seconds)",
            ("recbole_sessions",),
        ),
    ]


def _labels() -> Row:
    found = {row["method"]: row for row in results("flipped_labels")["rows"]}
    row = found["ifru"]
    return Row(
        "wrong labels undone (BCE)",
        "`IFRU()`",
        f"Δp {span([row['dp_forget_over_floor']])}, {row['gap_closed']:.0%} of the gap closed".replace("%", " %"),
        percents([recall(found, "ifru", "auroc")], "AUROC"),
        faster([found], "ifru"),
        ("flipped_labels",),
    )


def _sessions() -> Row:
    found = [{row["method"]: row for row in case["rows"]} for name in SESSIONS for case in results(name).values()]
    return Row(
        "clicks, items or whole sessions forgotten by a session model",
        "`CAU(validation=...)`",
        f"Δ log p {span(rows['cau']['dlogp_forget_over_floor'] for rows in found)}",
        percents(rows["cau"]["utility_vs_retrain"]["recall@20"] for rows in found)
        + ", "
        + percents((rows["cau"]["utility_vs_retrain"]["mrr@20"] for rows in found), "MRR@20"),
        f"{span((cpu_ratio(rows, 'cau') for rows in found), digits=0)} faster (CPU seconds)",
        SESSIONS,
    )


def _shards() -> Row:
    found = [{row["method"]: row for row in case["rows"]} for case in results("cau-shards").values()]
    each = [(rows, method) for rows in found for method in ("sisa", "sru")]
    slower = span((1 / cpu_ratio(rows, method) for rows, method in each), digits=1)
    return Row(
        "the same, exactly, whatever it costs",
        "`SISA(...)`, `SRU(...)`, `prepare` once",
        "exact for its own model of shards",
        percents(rows[method]["utility_vs_retrain"]["recall@20"] for rows, method in each),
        f"{slower} a retraining, where a request touches all shards",
        ("cau-shards",),
    )


def _baselines() -> Row:
    users, edges = (
        [*cases(["implicit"], level), *cases(RATINGS, name)]
        for level, name in (("user", "users"), ("interaction", "random-edges"))
    )
    methods = ("unlink", "finetune", "ascent")
    return Row(
        "something to beat",
        "`Unlink()`, `FineTune()`, `GradientAscent()`",
        closeness(users, edges, *methods),
        quality(users + edges, *methods),
        faster(users + edges, *methods),
        ("implicit", *RATINGS),
    )


def table(link: Callable[[str], str]) -> str:
    """Return the table in Markdown.

    Args:
        link: Gives the Markdown link to the results file of a name.
    """
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    lines += [
        (row.want, row.take, row.closeness, row.quality, row.cost, ", ".join(map(link, row.sources)) or "–")
        for row in rows()
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table(lambda name: f"benchmarks/results/{name}.json"))
