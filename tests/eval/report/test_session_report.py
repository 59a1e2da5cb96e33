"""Reports of sessions: their words, tables and figures."""

import json
import re
from xml.etree import ElementTree

import pytest
import torch
from made import attack, both, membership, references, verdict

from graphunlearn.eval.report.drawing import colors
from graphunlearn.eval.report.plots import draw
from graphunlearn.eval.report.summary import headline, summary
from graphunlearn.eval.report.verdict import label, primary_metric
from graphunlearn.eval.report.writing import complete, terminal_table, thinned, write_report


def entry(value, gap, before, after):
    return {
        **{"value": value, "original": before, "retrain_mean": after, "retrain_sd": 0.01},
        **{"z": 0.5 if gap == 1 else 9.0, "gap_closed": gap},
    }


def method(name, gap=1.0, ks=0.1, **more):
    value = -4.2 - 1.4 * gap
    forgetting = {
        "log_p_forgotten": entry(value, gap, -4.2, -5.6),
        "log_p_deleted_transition": entry(-4.25, gap, -3.75, -4.25),
        "rank_forgotten": entry(8.5, gap, 5.5, 8.5),
        "hit_u@10": entry(0.7, gap, 0.87, 0.7),
        "u_score": entry(0.95, gap, 0.0, 0.96),
        "ks_statistic": entry(ks, gap, 0.3, 0.05) | {"p_value": 0.2, "floor": 0.05},
    }
    utility = {"recall@20": 0.68, "mrr@20": 0.356, "ndcg@20": 0.43, "recall@10": 0.5}
    distance = {"test": 0.9, "forget": 0.95 * max(gap, 1), "noise_floor_test": 0.9, "noise_floor_forget": 0.91}
    found = 0.9 - 0.4 * gap
    attacks = {
        "click": attack(found),
        "transition": attack(found),
        "lira": membership(found),
        "fold_in": None,
        "before_and_after": None if name == "original" else both(0.8, rows=None),
    }
    status = {0.0: "under", 1.0: "like"}.get(gap, "over")
    row = {
        "attacks": attacks,
        "verdict": verdict(status),
        "name": name,
        "seconds": 1.3,
        "speedup_vs_retrain": 15.4,
        "utility": utility,
        "forgetting": forgetting,
    }
    return row | {"distance_to_retrain": distance} | more


OWN = "sisa serves a model of its own, which retraining does not give"
LOG = {
    "steps": [
        {
            **{
                "step": n,
                "weights": {"unlearn": 0.5 - n / 900, "retain": 0.3, "kl": None if n == 0 else 0.2 + n / 900},
            },
            **{"losses": {"unlearn": -5.0, "retain": 4.0, "kl": 0.1}, "difficulty": None, "remaining": 300 - n},
        }
        for n in range(300)
    ],
    "log_p": {"before": [-3.0, -4.0], "after": [-5.0, -5.9], "target": [-5.1, -6.0]},
    "targets": {"ridge": 1.0},
}


@pytest.fixture
def report():
    reference = {"speedup_vs_retrain": None}
    own = {"seconds_slowest_shard": 0.4, "own_original": True}
    methods = [method("original", 0.0, **reference), method("retrain", **reference), method("cau", log=thinned(LOG))]
    alone = verdict("undecided", OWN, "retrained models of the same kind")
    methods += [method("ascent", 2.0, 0.6), method("sisa", 0.5, **own, verdict=alone)]
    request = {"level": "click", "size": 426, "clicks": 426}
    dataset = {"name": "shop", "train_sessions": 16015, "items": 17000}
    return {
        "dataset": dataset,
        "request": request,
        "distance_unit": "log p",
        "references": references(),
        "methods": methods,
        "model": "srgnn",
    }


@pytest.fixture
def plots_data():
    p = torch.linspace(-12, -0.1, 80)
    scores = {"original": p / 2, "retrain": [p, p * 0.9], "cau": p, "ascent": 5 * p}
    return {"scores": scores, "scores_label": "log p of a forgotten click", "logs": {"cau": LOG}}


def test_words_are_of_clicks(report, tmp_path):
    assert primary_metric(report) == "log_p_forgotten"
    assert headline(report) == "Forgetting 426 clicks of shop"
    words = " ".join(summary(complete(report)))
    assert words.startswith("cau forgets as retraining does. Reason: the membership attack (LiRA)")
    text = " ".join(re.sub(r"<[^>]+>", " ", write_report(report, tmp_path)[1].read_text()).split())
    plain = text[text.index("What was asked") : text.index("Technical part")]
    for said in (
        "distinguishes forgotten clicks from comparable items",
        "distinguishes forgotten from kept clicks",
        "Other clicks may",
    ):
        assert said in plain, said
    for absent in ("pair of a", "interactions", "users in the request"):
        assert absent not in plain, absent


def test_a_model_of_its_own_is_undecided(report, tmp_path):
    report["methods"] = report["methods"][:2] + report["methods"][:1:-1]  # now the first one
    words = " ".join(summary(complete(report)))
    assert words.startswith(f"It is undecided whether sisa forgets as retraining does. Reason: {OWN}.")
    assert re.search("^sisa +undecided", terminal_table(report), re.MULTILINE)
    text = write_report(report, tmp_path)[1].read_text()
    assert '<p class="verdict undecided">' in text
    assert '<th scope="row">sisa</th><td><span class="chip undecided">undecided</span></td><td>50%' in text


def test_names_of_the_metrics():
    assert [label(name) for name in ("hit_u@10", "mrr@20", "u_score")] == ["Hit_u@10", "MRR@20", "U-score"]


def test_terminal_table_speaks_of_log_p(report):
    table = terminal_table(report)
    lines = table.splitlines()
    first, second = [line for line in lines if line.startswith("method")]
    assert re.split(r"\s{2,}", first)[1:5] == ["verdict", "membership (LiRA)", "transition", "Recall@20"]
    assert re.split(r"\s{2,}", second)[1:] == [
        *("Δlog p forgotten", "Δlog p test", "log p forgotten", "log p transition", "log₂ rank", "Hit_u@10", "U-score"),
        "KS",
    ]
    assert "Δlog p: distance to retrained models" in table
    assert "MI-BF" not in table


def test_page_of_sessions(report, plots_data, tmp_path):
    paths = write_report(report, tmp_path, plots_data)
    source = paths[1].read_text()
    text = " ".join(re.sub(r"<[^>]+>", " ", source).split())
    for words in (
        "mean |Δlog p|, forgotten", "Δlog p / floor, test", "Hit_u@10", "U-score", "slowest shard", "0.40 s",
        "every prefix of the test sessions", "How the objectives were weighed", "Log probabilities and their targets",
        "… 200 entries", "ridge",
    ):  # fmt: skip
        assert words in text, words
    for absent in ("MI-BF", "Δp", "damping", "hops from"):
        assert absent not in text, absent
    assert '"remaining"' not in text.replace("&quot;", '"')  # no long list is printed
    saved = json.loads(paths[0].read_text())
    log = saved["methods"][2]["log"]
    assert len(log["steps"]) == 200
    assert log["steps_of"] == 300
    assert [log["steps"][n]["step"] for n in (0, -1)] == [0, 299]


def test_figures_of_sessions(report, plots_data):
    plots = {plot.key: plot for plot in draw(complete(report), plots_data)}
    assert list(plots) == ["left", "scores", "utility", "weights", "targets"]
    for plot in plots.values():
        ElementTree.fromstring(plot.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert not re.search(r"#0a0[bc]\d\d|font-family|<style", plot.svg)
    assert "log p of a forgotten click" in plots["scores"].svg
    assert "−10" in plots["scores"].svg  # the axis of logarithms
    assert f"ascent {float(5 * plots_data['scores']['cau'].mean()):.3f}" in plots["scores"].alt
    assert "−40" not in plots["scores"].svg  # its tail lies at the edge
    for name in ("unlearn", "retain", "kl"):
        assert name in plots["weights"].svg
    assert "on average unlearn 0.33, retain 0.30, kl 0.37" in plots["weights"].alt
    assert (
        "2 samples to be forgotten against their targets: mean -3.50 before, -5.45 after, target -5.55"
        in plots["targets"].alt
    )


def test_many_methods_look_different(report):
    report["methods"] += [method(f"m{n}") for n in range(30)]
    styles = colors(complete(report))
    assert len(set(styles.values())) == len(styles) == 33


def drawn(report, data):
    return next(plot.svg for plot in draw(complete(report), data) if plot.key == "scores")


def test_before_is_where_a_method_started(report, plots_data):
    shared = drawn(report, plots_data)
    own = {"cau": torch.full((80,), -0.5)}
    assert drawn(report, plots_data | {"scores_before": own}) != shared
    assert drawn(report, plots_data | {"scores_before": {"sisa": own["cau"]}}) == shared  # not drawn


@pytest.mark.parametrize("missing", ["steps", "log_p"])
def test_a_log_without_steps_or_targets_draws_what_it_can(report, missing):
    log = {key: value for key, value in LOG.items() if key != missing}
    keys = [plot.key for plot in draw(complete(report), {"logs": {"cau": log}})]
    assert keys == ["left", "utility", "targets" if missing == "steps" else "weights"]


def test_only_long_lists_are_thinned():
    log = {"a": list(range(1000)), "b": {"c": list(range(5)), "d": tuple(range(300))}, "e": "text" * 100}
    thin = thinned(log, longest=10)
    assert thin["a"] == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert (thin["a_of"], thin["b"]["d_of"], thin["b"]["c"], thin["e"]) == (1000, 300, list(range(5)), "text" * 100)
    assert "c_of" not in thin["b"]
