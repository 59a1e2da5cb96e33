"""The tables of the results page, made from the committed results files."""

from __future__ import annotations

from typing import Any

from results import RESULTS, read, table

LEVELS = {"user": "of the users", "interaction": "of the interactions"}
SCENARIOS = {"adversarial-edges": "adversarial edges", "random-edges": "random 5 %", "users": "2 % of the users"}
BACKBONES = {"lightgcn": "LightGCN", "sgl": "SGL", "simgcl": "SimGCL"}
SESSION_MODELS = {"srgnn": "SR-GNN", "gru4rec": "GRU4Rec", "sasrec": "SASRec"}
DATA = {"lastfm": "Last.fm", "ml-100k": "ML-100K"}
METHODS = {
    "cau": "CAU",
    "cau-published": "CAU as published",
    "ascent-finetune": "ascent + fine-tuning",
    "ascent": "ascent",
    "finetune": "fine-tuning",
    "negative-kl": "negative KL",
    "unlink": "edges deleted",
    "unlink-redraw": "edges deleted, emptied rows redrawn",
    "calibrate": "Calibrate",
    "unlearnrec": "UnlearnRec",
    "ifru": "IFRU",
    "sisa": "SISA",
    "sru": "SRU",
    "receraser": "RecEraser",
    "ultrare": "UltraRE",
    "scif": "SCIF",
}
PARTS = {
    "default": "as it is",
    "one step": "one step instead of two",
    "without the request's context": "without the request's context",
    "without odd interactions": "without simulated odd interactions",
    "two probes": "two probes instead of one",
    "without the probability term": "without the probability term",
    "without the logit term": "without the logit term",
    "fine-tuned 1 epoch": "with one epoch of fine-tuning",
    "as published, zero-shot": "the encoder as its source describes it, zero-shot",
    "as published, 5 epochs": "the same with 5 epochs of its fine-tuning",
}


def tables() -> dict[str, str]:
    """Return the text of every table by its name."""
    return {
        "ifru": ifru(),
        "unlearnrec": unlearnrec(),
        "rivals": rivals(),
        "ablation": ablation(),
        "cau": sessions("cau"),
        "cau-more": sessions("cau-items", "cau-sessions", "cau-diginetica"),
        "shards": sessions("cau-shards", methods=("sisa", "sru")),
        "curriculum": curriculum(),
        "cure4rec": cure4rec(),
        "recbole": recbole(),
        "ledger": ledger(),
        "yardstick": yardstick(),
        "whole-users": whole_users(),
        "acceptance": acceptance(),
        "leaderboard": leaderboard(),
        "every-operator": every_operator(),
        "stream": stream(),
        "exact": exact(),
    }


def found(name: str) -> Any:
    """Return the results of a file."""
    return read(RESULTS / f"{name}.json")["results"]


def by_method(case: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of a case by their methods."""
    return {row["method"]: row for row in case["rows"]}


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure with a fixed number of digits.

    Example:
        >>> number(0.0512, 3), number(None), number(-1.5), number(4419.3, 0), number(-0.001)
        ('0.051', '–', '−1.50', '4,419', '0.00')
    """
    if value is None:
        return "–"
    shown = f"{value:,.{digits}f}"
    return (shown.lstrip("-") if float(shown.replace(",", "")) == 0 else shown).replace("-", "−")


def times(value: float | None) -> str:
    """Return a multiple.

    Example:
        >>> times(1.234), times(267.3), times(None)
        ('1.23 ×', '267 ×', '–')
    """
    return "–" if value is None else f"{number(value, 2 if value < 10 else 1 if value < 100 else 0)} ×"


def percent(value: float) -> str:
    """Return a relative difference with its sign.

    Example:
        >>> percent(0.0123), percent(-0.2), percent(0.0)
        ('+1.2 %', '−20.0 %', '±0 %')
    """
    shown = f"{100 * value:+.1f} %".replace("-", "−")
    return "±0 %" if shown in ("+0.0 %", "−0.0 %") else shown


def ifru() -> str:
    """Return the table of IFRU."""
    rows = []
    labels = by_method(found("flipped_labels"))
    for name, what in (("ifru", "2 % flipped labels"), ("ifru-published", "2 % flipped labels, as published")):
        quality = [number(labels[key]["utility"]["auroc"], 4) for key in (name, "retrain")]
        rows.append(["ML-100K", what, *distances(labels[name]), f"AUROC {quality[0]}, {quality[1]}"])
    cases = [(DATA[c["dataset"]], f"{c['share']:.0%} {LEVELS[c['level']]}", by_method(c)) for c in found("implicit")]
    scale = found("scale")["ml-1m"]
    cases += [("ML-1M", "1 % of the interactions", by_method(scale["1 % of interactions"]))]
    for data, what, methods in cases:
        rows.append([data, what.replace("%", " %").replace("  ", " "), *distances(methods["ifru"]), recalls(methods)])
    headings = ["data", "what is forgotten", "Δp forgotten", "Δp test", "× faster", "quality: unlearned, retrained"]
    return table(headings, rows)


def distances(row: dict[str, Any]) -> list[str]:
    """Return the distances and the speed of a row."""
    return [times(row.get(key)) for key in ("dp_forget_over_floor", "dp_test_over_floor", "speedup_vs_retrain")]


def recalls(methods: dict[str, dict[str, Any]], method: str = "ifru") -> str:
    """Return Recall@20 of a method and of retraining."""
    first, second = (number(methods[name]["utility"]["recall@20"], 3) for name in (method, "retrain"))
    return f"Recall@20 {first}, {second}"


def unlearnrec() -> str:
    """Return the table of UnlearnRec."""
    rows = []
    for data, what, model, methods in cases():
        row, again = methods["unlearnrec"], methods["retrain"]
        near, far, fast = distances(row)
        auroc = f"{number(row['membership_auroc'], 3)} ({number(again['membership_auroc'], 3)})"
        recall = f"{number(row['recall@20'], 4)} ({number(again['recall@20'], 4)})"
        rows.append([what, model, data, near, far, auroc, recall, f"{1000 * row['seconds']:.0f} ms", fast])
    headings = ["what is forgotten", "model", "data", "Δp forgotten", "Δp test", "AUROC (retrained)"]
    return table([*headings, "Recall@20 (retrained)", "a request", "× faster"], rows)


def rivals() -> str:
    """Return Δp on what was forgotten, of the methods for users and items side by side."""
    names = ("unlearnrec", "calibrate", "ifru", "finetune", "unlink")
    rows = [
        [what, model, data, *(times(methods[name]["dp_forget_over_floor"]) for name in names)]
        for data, what, model, methods in cases()
    ]
    headings = ["what is forgotten", "model", "data", "UnlearnRec", "Calibrate", "IFRU", "fine-tuning", "edges deleted"]
    return table(headings, rows)


def cases() -> list[tuple[str, str, str, dict[str, dict[str, Any]]]]:
    """Return data, what is forgotten, model and rows of every case of UnlearnRec's two files."""
    every = [case for name in ("unlearnrec-lastfm", "unlearnrec-ml-100k") for case in found(name)]
    every = [case for case in every if case["scenario"] in SCENARIOS]
    every.sort(key=lambda c: (list(SCENARIOS).index(c["scenario"]), list(BACKBONES).index(c["model"]["name"])))
    return [(DATA[c["dataset"]], SCENARIOS[c["scenario"]], BACKBONES[c["model"]["name"]], by_method(c)) for c in every]


def ablation() -> str:
    """Return what every part of UnlearnRec is worth."""
    both = [by_method(case) for case in found("ablation")]
    keys = ("dp_forget_over_floor", "dp_test_over_floor")
    rows = [
        [said, *(times(case[part][key]) if part in case else "–" for case in both for key in keys)]
        for part, said in PARTS.items()
    ]
    headings = ["", "adversarial: Δp forgotten", "Δp test", "random 5 %: Δp forgotten", "Δp test"]
    return table(headings, rows)


def sessions(*files: str, methods: tuple[str, ...] = tuple(METHODS)) -> str:
    """Return the methods for sessions, from one file or several."""
    rows = []
    for file in files:
        for model, case in found(file).items():
            every = by_method(case)
            for name in methods:
                if name in every:
                    what = [file.removeprefix("cau-")] if len(files) > 1 else []
                    rows.append([*what, SESSION_MODELS[model], METHODS[name], *session_row(every, name)])
    headings = ["file"] if len(files) > 1 else []
    headings += ["model", "method", "Hit_u@5", "@10", "@20", "log p", "transition", "Δ log p"]
    return table([*headings, "Recall@20", "MRR@20", "× faster"], rows)


def session_row(every: dict[str, dict[str, Any]], name: str) -> list[str]:
    """Return the figures of a method for sessions; quality with its difference to retrained models."""
    row, again = every[name], every["retrain"]
    gaps = ("hit_u@5", "hit_u@10", "hit_u@20", "log_p_forgotten", "log_p_deleted_transition")
    quality = [
        f"{number(row['utility'][key], 3)} ({percent(row['utility_vs_retrain'][key])})"
        for key in ("recall@20", "mrr@20")
    ]
    fast = again["cpu_seconds"] / row["cpu_seconds"]
    return [
        *(number(row["gap_closed"].get(key)) for key in gaps),
        times(row["dlogp_forget_over_floor"]),
        *quality,
        "–" if name == "unlink" else times(fast),
    ]


def curriculum() -> str:
    """Return Δ log p of every order of the samples, the least and the largest of three seeds."""
    orders = ("random gradient", "hard gradient", "hard embedding", "soft gradient", "soft embedding")
    rows = []
    for model, case in found("curriculum").items():
        every = by_method(case)
        cells = []
        for order in orders:
            values = [every[f"{order} {seed}"]["dlogp_forget_over_floor"] for seed in range(3)]
            cells.append(f"{number(min(values))}–{times(max(values))}")
        rows.append([SESSION_MODELS[model], *cells])
    return table(["", "random", "hard, gradient", "hard, embedding", "soft, gradient", "soft, embedding"], rows)


def cure4rec() -> str:
    """Return the table of CURE4Rec: the quality of every method and its share of retraining, ours and as printed."""
    names = {"wmf": "WMF", "bpr": "BPR", "lightgcn": "LightGCN"}
    methods = METHODS | {"retrain": "retrained", "original": "original"}
    rows = []
    for row in found("cure4rec")["rows"]:
        figures = [number(row.get(key), 4) for key in ("ndcg", "recall", "a_igf", "share")]
        figures += [number(row.get(key), 4) for key in ("printed_ndcg", "printed_recall", "printed_share")]
        what = [{"ml-1m": "ML-1M"}.get(row["data"], DATA.get(row["data"])), names[row["model"]], row["group"]]
        rows.append([*what, methods[row["method"]], *figures])
    headings = ["data", "model", "users", "method", "NDCG@20", "recall@20", "A-IGF", "share of retrained"]
    return table([*headings, "NDCG@20 printed", "HR@20 printed", "share printed"], rows)


def recbole() -> str:
    """Return what RecBole's own models gave."""
    rows = []
    for name in ("recbole_interactions", "recbole_interactions_more"):
        for row in found(name):
            if row["method"] in ("ifru", "unlearnrec"):
                again = f"{number(row['recall@10_retrained'], 4)} ± {number(row['recall@10_retrained_sd'], 4)}"
                fast = times(row["speedup_vs_retrain"]) if name == "recbole_interactions" else "–"
                what = row["request"].replace("1%", "1 %")
                near = [times(row[key]) for key in ("dp_forgotten_over_floor", "dp_others_over_floor")]
                recall = [number(row["recall@10"], 4), percent(row["recall@10_change"])]
                rows.append([what, row["model"], METHODS[row["method"]], *recall, again, *near, fast])
    headings = ["what is forgotten", "model", "method", "Recall@10", "change", "retrained", "Δp forgotten", "Δp others"]
    return table([*headings, "× faster"], rows)


def ledger() -> str:
    """Return what fifty requests one after another led to."""
    results = found("ledger")
    rows = []
    for row in results["rows"]:
        if row["requests"] == 50:
            spent = results["spent_after_requests"][row["method"]]
            rows.append(
                [
                    METHODS[row["method"]],
                    times(row["dp_forget_over_floor"]),
                    times(row["dp_test_over_floor"]),
                    percent(row["recall@20_over_retrain"] - 1),
                    number(row["drift"]),
                    "not within 50" if spent is None else f"{spent} requests",
                ]
            )
    headings = ["method", "Δp forgotten", "Δp test", "Recall@20 against retraining", "drift", "budget spent after"]
    return table(headings, rows)


def yardstick() -> str:
    """Return the verdict on every operator in every scenario, and the share of the trace that every attack finds."""
    columns = {
        "left_fold_in": "fold-in",
        "left_target": "promoted items",
        "left_lira": "LiRA",
        "left_rmia": "RMIA",
        "left_edge_recovery_forgotten": "edges",
        "left_click": "clicks",
        "left_transition": "transitions",
    }
    rows = []
    for path in sorted(RESULTS.glob("yardstick*.json")):
        for row in read(path)["results"]["rows"]:
            left = ["" if row.get(key) is None else percent(row[key]) for key in columns]
            near = [times(row.get("distance_forget")), times(row.get("distance_test")), number(row.get("recall@20"), 3)]
            model = (BACKBONES | SESSION_MODELS)[row["model"]]
            named = [DATA.get(row["data"], row["data"]), model, row["scenario"], row["method"], row["verdict"]]
            rows.append([*named, *left, *near])
    headings = [
        "data",
        "model",
        "scenario",
        "method",
        "verdicts",
        *columns.values(),
        "Δp forgotten",
        "Δp test",
        "Recall@20",
    ]
    filled = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    return table([headings[n] for n in filled], [[row[n] for n in filled] for row in rows])


def leaderboard() -> str:
    """Return the rows of all tracks of the leaderboard."""
    rows = []
    for name, track in found("leaderboard").items():
        place = 0
        for row in track["rows"]:
            if "dp_forget_over_floor" not in row:
                rows.append([name, "", row["method"], row["verdict"], *[""] * 8])
                continue
            ranked = row["method"] not in ("retrain", "original")
            place += ranked
            left = " ".join("–" if value is None else percent(value) for value in row["leaks"].values())
            figures = [number(row[f"klom_{part}"]) for part in ("forget", "retain")]
            figures += [times(row["dp_forget_over_floor"]), times(row["dp_test_over_floor"]), left]
            figures += [number(row["recall@20"], 4), number(row["cpu_seconds"]), number(row["peak_memory_mb"], 0)]
            rows.append([name, f"{place}" if ranked else "", row["method"], row["verdict"], *figures])
    headings = ["track", "", "method", "verdicts", "KLOM forgotten", "KLOM kept", "Δp forgotten", "Δp test"]
    return table([*headings, "left of the trace", "Recall@20", "CPU s", "MB"], rows)


def every_operator() -> str:
    """Return every operator in every scenario and on every model of the table of all operators."""
    rows = []
    for row in found("every_operator")["rows"]:
        about = [row["model"], row["scenario"], row["method"], row["verdict"]]
        if "distance_test" not in row:
            rows.append([*about, *[""] * 8])
            continue
        left = [row.get(f"left_{attack}") for attack in ("fold_in", "target", "lira")]
        cells = ["" if value is None else percent(value) for value in left]
        cells += [times(row["distance_forget"]), times(row["distance_test"]), number(row["recall@20"], 3)]
        cells += [number(row["cpu_seconds"]), number(row["peak_memory_mb"], 0)]
        rows.append([*about[:3], about[3] + (" (refused)" if row.get("refused") else ""), *cells])
    headings = ["model", "scenario", "method", "verdict", "fold-in", "promoted items", "LiRA"]
    return table([*headings, "Δp forgotten", "Δp test", "Recall@20", "CPU s", "MB"], rows)


def whole_users() -> str:
    """Return what the fold-in attack finds after whole users are forgotten, by operator."""
    rows = []
    for name, case in found("whole_users").items():
        for method in ("unlink-redraw", "calibrate", "unlearnrec", "ifru"):
            if method in case["leak_left"]:
                recall = [number(case["recall@20"][method], 3), number(case["retrained"]["recall@20"], 3)]
                left = percent(case["leak_left"][method])
                rows.append([name.removesuffix(" seed 0"), METHODS.get(method, method), left, *recall])
    return table(["case", "method", "trace left", "Recall@20", "retrained"], rows)


def acceptance() -> str:
    """Return what became of every correction that was compared with deleting the edges."""
    rows = []
    for case, entry in found("acceptance")["cells"].items():
        name, model, loss, which, *given = case.split()
        if "runs" not in entry:
            continue
        spread, floor = entry["retrained"]["spread"], entry["retrained"]["floor"]
        quality = "auroc" if which == "flips" else "recall@20"
        deviations = [number(spread["delta_p_test"] / floor, 3), number(spread[quality], 4)]
        for run in entry["runs"]:
            deleted = run["unlink-redraw"]
            for method in (m for m in run if m != "unlink-redraw"):
                told = run[method]
                which_one = f"{which} (earlier)" if entry.get("earlier") else which
                about = [DATA.get(name, name), model, f"{loss}, told {given[0]}" if given else loss, which_one]
                steps = (deleted, told["first"], told["final"])
                near, good = (
                    " ".join(number(step[key], digits) for step in steps) + f" ± {deviation}"
                    for key, digits, deviation in zip(("over_floor", quality), (2, 3), deviations)
                )
                worse = " ".join("yes" if told[key] else "no" for key in ("first_worse", "worse"))
                rows.append([*about, METHODS[method], told["acceptance"]["outcome"], near, good, worse])
    headings = ["data", "model", "loss", "scenario", "method", "outcome", "Δp test ×", "Recall@20 or AUROC", "worse"]
    return table(headings, rows)


def stream() -> str:
    """Return where every lane of every stream ended, with the originals and the retrained models."""
    rows = []
    for case, entry in found("stream").items():
        last = entry["looks"][-1]
        rows += [[case, name, *_ended(last[name], last)] for name in ("original", "retrained")]
        for lane in entry["lanes"]:
            if "failed" in lane:
                rows.append([case, lane["lane"], lane["failed"], *[""] * 7])
                continue
            rows.append([case, lane["lane"], *_ended(lane["rows"][-1], last)])
    headings = ["stream", "served by", "Δ forgotten", "Δ test", "quality against retraining"]
    return table([*headings, "sensitive@10", "promoted items", "CPU s", "slowest batch", "drift"], rows)


def _ended(row: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """Return the figures of one model at the end of a stream."""
    metric = "mrr@20" if "mrr@20" in row and "log_p_forgotten" in row else "recall@20"
    shown = {name: row.get(name) for name in ("sensitive@10", "target_exposure@20", "drift")}
    costs = ["–" if row.get(key) is None else number(row[key]) for key in ("cpu_seconds_in_all", "slowest_batch")]
    return [
        *(times(row.get(f"distance_{where}")) for where in ("forget", "test")),
        percent(row[metric] / last["retrained"][metric] - 1),
        "–" if shown["sensitive@10"] is None else f"{100 * shown['sensitive@10']:.0f} %",
        number(shown["target_exposure@20"], 3),
        *costs,
        number(shown["drift"]),
    ]


def exact() -> str:
    """Return what forgetting costs models that forget exactly."""
    rows = []
    for row in found("exact")["rows"]:
        seconds = [f"{1000 * row[key]:,.0f} ms" for key in ("refit_cpu_seconds", "forget_cpu_seconds")]
        near = "equal" if row["difference"] == 0 else f"{row['difference']:.0e}"
        recall = [number(row[key], 4) for key in ("recall@20", "refitted_recall@20")]
        data = DATA.get(row["data"], row["data"])
        rows.append([data, row["model"], *seconds, times(row["times_faster"]), near, *recall])
    headings = ["data", "model", "fitting anew", "a request", "× faster", "largest difference of scores"]
    return table([*headings, "Recall@20", "fitted anew"], rows)
