import itertools
import json
import math
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from made import attack, both, membership, references, verdict

from graphunlearn.data.io.plain import json_ready
from graphunlearn.eval.machine import environment
from graphunlearn.eval.report import writing as report_module
from graphunlearn.eval.report.attacks import reading
from graphunlearn.eval.report.plots import draw
from graphunlearn.eval.report.summary import headline, summary
from graphunlearn.eval.report.verdict import format_number, format_seconds, judge, label, ratio_to_floor
from graphunlearn.eval.report.writing import aggregate, complete, terminal_table, write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


def entry(value, z, gap):
    return {"value": value, "original": 0.4, "retrain_mean": 0.2, "retrain_sd": 0.01, "z": z, "gap_closed": gap}


def method(name, value=0.2, z=0.0, gap=1.0, forget=0.06, **more):
    return {
        "name": name,
        "seconds": 0.1,
        "speedup_vs_retrain": 30.0,
        "utility": {"auroc": 0.76, "recall@20": 0.25},
        "forgetting": {"flipped_label_auc": entry(value, z, gap)},
        "distance_to_retrain": {"test": 0.03, "forget": forget, "noise_floor_test": 0.03, "noise_floor_forget": 0.05},
        **more,
    }


def attacked(value, after=None):
    """Attacks of which LiRA finds ``value``; fold-in tells nothing apart."""
    return {
        "fold_in": attack(-0.05, -0.04, -0.06, left=False),
        "fold_in_items": None,
        "lira": membership(value),
        "rmia": membership(value),
        "edge_recovery_kept": attack(0.8, 0.81, 0.8, left=False),
        "before_and_after": None if after is None else both(after),
    }


@pytest.fixture
def report():
    reference = {"speedup_vs_retrain": None}
    utility, sd = {"auroc": 0.77, "recall@20": 0.26}, {"auroc": 0.01, "recall@20": 0.002}
    own = {"utility_on_own_lists": {"auroc": 0.78, "recall@20": 0.27}}
    under = verdict("under", "the membership attack (LiRA): 90% of the trace is left (80% to 100%)")
    wide = verdict("undecided", "the membership attack (LiRA): 40% of the trace is left (-20% to 90%)", "more pairs")
    methods = [
        method("original", 0.4, 20.0, 0.0, 0.4, attacks=attacked(0.9), verdict=under, **own, **reference),
        method(
            "retrain",
            forget=0.05,
            utility=utility,
            utility_sd=sd,
            attacks=attacked(0.5, 0.77),
            verdict=wide,
            **reference,
        ),
        method(
            "ifru",
            log={"damping": 0.27, "residual": math.inf},
            attacks=attacked(0.548, 0.92),
            verdict=verdict("like"),
            topk_overlap={"affected": 0.625, "retrain_affected": 0.6875},
        ),
        method("unlink", 0.38, 18.0, 0.1, 0.09, attacks=attacked(0.86, 0.84), verdict=under),
        method("ascent", 0.05, -15.0, 1.75, 0.3, attacks=attacked(0.3, 0.99), verdict=verdict("over", "it")),
        method("wide", attacks=attacked(0.66, 0.9), verdict=wide),
    ]
    return {
        "date": "2026-11-28T08:15:07+00:00", "references": references(), "retrain_pass_rate": 0.8,
        "dataset": {"name": "rat<ings>", "users": 943}, "model": "LightGCN & co", "scenario": "flipped-labels",
        "request": {"level": "interaction", "size": 1200}, "environment": environment(), "methods": methods,
        "notes": ["<script>alert('x')</script>"], "left_out": {"test_pairs": 31}, "command": "graphunlearn bench <x>",
    }  # fmt: skip


@pytest.fixture
def plots_data():
    p = torch.linspace(0.05, 0.95, 60)
    return {
        "scores": {"original": p, "retrain": [p**2, p**2.1], "ifru": p**2, "unlink": p, "ascent": p**9},
        "moved_by_hop": {"ifru": {0: p / 2, 1: 0.01, 2: 0.0}, "retrain": {0: p / 2, 2: 0.02}},
        "damping": {"damping": [0.1, 1.0, 10.0], "rho": [0.5, 1.0, 1.0], "residual": [2.0, None, 0.5],
                    "plain_residual": [2.0, 1.0, 0.9], "chosen": 1.0},
    }  # fmt: skip


class Page(HTMLParser):
    """Tags opened and closed in order, every attribute, and the text that a reader sees."""

    def __init__(self, source):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], [], ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""


def test_json_holds_every_field_and_no_nan(report, tmp_path):
    report["methods"][2]["seconds"] = math.nan
    report["methods"][2]["utility"] = {"auroc": torch.tensor(0.5), "recall@20": np.float32("inf")}
    path, _ = write_report(report, tmp_path / "new" / "folder")

    def refuse(constant):
        raise AssertionError(constant)

    saved = json.loads(path.read_text(), parse_constant=refuse)
    assert {"dataset", "model", "scenario", "request", "environment", "methods"} <= saved.keys()
    ifru = saved["methods"][2]
    assert (ifru["name"], ifru["seconds"], ifru["utility"]) == ("ifru", None, {"auroc": 0.5, "recall@20": None})
    assert ifru["log"] == {"damping": 0.27, "residual": None}
    assert all(m["prepare_seconds"] is None and m["peak_memory_mb"] is None for m in saved["methods"])


def test_a_field_that_does_not_apply_is_null():
    (only,) = complete({"methods": [{"name": "ifru"}]})["methods"]
    nothing = dict.fromkeys(
        (
            *("seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb", "utility", "forgetting", "log"),
            *("attacks", "topk_overlap", "klom", "verdict"),
        )
    )
    floors = dict.fromkeys(("test", "forget", "noise_floor_test", "noise_floor_forget"))
    assert only == {"name": "ifru", **nothing, "distance_to_retrain": floors}


@pytest.mark.parametrize("methods", [None, {}, [{"seconds": 1.0}], ["ifru"]])
def test_methods_must_be_named(methods):
    with pytest.raises(ValueError, match="'report' must hold 'methods', a list of mappings with a 'name'"):
        complete({"methods": methods})


def test_json_ready_is_plain():
    value = {1: (np.int64(2), torch.ones(2)), "a": {"b": -math.inf}, "c": Path("x"), "d": True, "e": None}
    assert json_ready(value) == {"1": [2, [1.0, 1.0]], "a": {"b": None}, "c": "x", "d": True, "e": None}


def test_page_stands_alone_and_escapes(report, plots_data, tmp_path):
    _, path = write_report(report, tmp_path, plots_data)
    source = path.read_text()
    page = Page(source)
    assert not re.search(r"https?:|@import|url\((?!#)|//[a-z]", source)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    references = {value for name, value in page.attributes if name in ("href", "xlink:href", "src")}
    references |= set(re.findall(r"url\((#[^)]+)\)", source))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert references <= {f"#{i}" for i in ids}
    for text in ("rat<ings>", "LightGCN & co", "<script>alert('x')</script>", "graphunlearn bench <x>"):
        assert text in page.text
    assert "Left out: test pairs: 31" in page.text
    assert page.tags.count("figcaption") == 5
    assert len([value for name, value in page.attributes if name == "aria-label" and value]) >= 4


def words_of(report, tmp_path):
    _, path = write_report(report, tmp_path)
    return " ".join(Page(path.read_text()).text.split())


def test_page_says_what_the_numbers_say(report, tmp_path):
    text = words_of(report, tmp_path)
    for words in (
        "Forgetting 1,200 interactions of rat<ings>",
        "operator ifru · 2026-11-28 08:15 UTC",
        "1,200 interactions",
        "5 retrained models",
        "ifru forgets as retraining does. Reason: the membership attack (LiRA): 12% of the trace is left (2% to 22%).",
        "each judged by the other ones: 80% of them pass",
        "It is right in 90% of comparisons on the original, 50% on retrained models and 55% on ifru",
        "12% of the trace is left (95% interval 2% to 22%): no further from retrained models than another",
        "It is right in 92% of comparisons if the model after is that of ifru, and in 77% if it is a retrained model.",
        "it finds the users in the request in 95% and 65%",
        "30 times faster than retraining",
        "(the original on its own lists and all test data, as the command 'train' measures it: 0.7800)",
        "0.7700± 0.0100",
    ):  # fmt: skip
        assert words in text, words
    assert text.count("ifru forgets as retraining does") == 1  # said once
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_the_answers_stand_in_the_order_of_the_questions(report, plots_data, tmp_path):
    _, path = write_report(report, tmp_path, plots_data)
    source = path.read_text()
    found = [(int(level), title) for level, title in re.findall(r"<h([1-6])>([^<]*)", source)]
    assert [title for level, title in found if level == 2] == [
        "What was asked", "Can the forgotten data be identified?", "Does it recommend as well?", "What did it cost?",
        "What this does not prove", "Technical part",
    ]  # fmt: skip
    assert found[0][0] == 1
    assert all(after <= before + 1 for (before, _), (after, _) in itertools.pairwise(found))
    technical = [title for _, title in found[[title for _, title in found].index("Technical part") + 1 :]]
    assert technical == [
        "Verdicts and their reasons", "Attacks", "Overlap of recommendations", "Distance to retraining",
        "Forgetting metrics", "Retrained models", "What is left of the trace",
        "Predictions for the forgotten pairs", "Utility against forgetting",
        "Who moved, by distance", "How the damping was chosen", "Notes",
        "What each method did", "Settings",
    ]  # fmt: skip
    assert '<html lang="en">' in source


def test_the_baselines_stand_in_every_table_of_models(report, tmp_path):
    _, path = write_report(report, tmp_path)
    tables = re.findall(r"<table.*?</table>", path.read_text())
    of_models = [table for table in tables if "retrained 1" not in table]
    assert len(of_models) == len(tables) - 1 >= 8
    for table in of_models:
        rows = set(re.findall(r'<th scope="row">([^<,]*)', table))
        assert {"original", "retrain", "unlink"} <= rows


def test_the_page_says_what_it_does_not_prove(report, tmp_path):
    text = words_of(report, tmp_path)
    limits = text[text.index("What this does not prove") : text.index("Technical part")]
    for words in (
        "Only the attacks on this page", "Only this request", "backups, caches, search indices", "no certificate",
        "stays public", "5 retrained models served as the yardstick.", "Opinion 28/2024",
    ):  # fmt: skip
        assert words in limits, words
    report["references"] = references(3)
    assert "3 retrained models served as the yardstick; five or more are better" in words_of(report, tmp_path)


def test_unhealthy_references_are_said_first(report, tmp_path):
    warning = "2 of 5 retrained models are not healthy (seed 51, 53)"
    assert warning not in words_of(report, tmp_path)
    report["references"] = references(sick=(1, 3))
    text = words_of(report, tmp_path)
    assert 0 < text.index(warning) < text.index("What was asked")
    assert text.index("What this does not prove") + 30 > text.rindex(warning)
    assert terminal_table(report).splitlines()[2].startswith(warning)


def test_nothing_measurable_is_said_instead_of_a_share(report, tmp_path):
    text = words_of(report, tmp_path)
    apart = "The attack does not tell the original from retrained models: nothing measurable to forget."
    assert text.count(apart) == 1  # fold-in
    assert "50%" not in text[text.index("Finding a forgotten user") : text.index("Membership, likelihood")]
    gap = {"value": 0.9, "original": 0.41, "retrain_mean": 0.4, "retrain_sd": 0.1, "z": 5.0, "gap_closed": -3.95}
    report["methods"][2]["forgetting"] = {"flipped_label_auc": gap}
    text = words_of(report, tmp_path)
    assert "395%" not in text
    assert "nothing measurable +5.0" in text.replace("measurable+", "measurable +")
    for entry_ in report["methods"]:
        for name in ("lira", "rmia"):
            entry_["attacks"][name] |= dict.fromkeys(("leak_left", "leak_low", "leak_high"))
    assert "nothing measurable" in terminal_table(report)
    assert "left" not in [plot.key for plot in draw(complete(report), {})]
    report["methods"][2]["attacks"]["lira"]["beyond"] = 9.0  # and still far from retrained models
    assert "Yet ifru reveals more than retrained models reveal" in words_of(report, tmp_path)


def test_an_attack_without_an_interval_does_not_say_what_is_left(report, tmp_path):
    for entry_ in report["methods"]:
        for name in ("fold_in", "lira", "rmia"):
            entry_["attacks"][name] |= dict.fromkeys(("low", "high", "beyond", "leak_left", "leak_low", "leak_high"))
    text = words_of(report, tmp_path)
    assert text.count("too few users or sessions for an interval") == 3
    assert "nothing measurable to forget" not in text
    assert "no interval" in terminal_table(report)


def test_too_few_retrained_models_are_said_once(report, tmp_path):
    report["references"], report["retrain_pass_rate"] = references(2), None
    for entry_ in report["methods"]:
        for found in filter(None, entry_["attacks"].values()):
            found |= dict.fromkeys(("beyond", "leak_left", "leak_low", "leak_high"))
        rule = "2 retrained models, too few for a verdict"
        entry_["verdict"] = verdict("undecided", rule, "at least 3 retrained models; five or more are better")
    text, table = words_of(report, tmp_path), terminal_table(report)
    for shown in (text, table):
        assert shown.count("too few") == shown.count("at least 3") == shown.count("five or more") == 1
        assert "no interval" not in shown
        assert "nothing measurable to forget" not in shown
    row = next(line for line in table.splitlines() if line.startswith("unlink"))
    assert re.split(r"\s{2,}", row)[1:3] == ["undecided", "–"]
    report["references"] = references(3)
    assert words_of(report, tmp_path).count("too few retrained models to judge each of them") == 1


@pytest.mark.parametrize(
    ("method_", "said"),
    [
        ("ascent", "−50% of the trace is left (95% interval −60% to −40%): less than retrained models reveal"),
        ("unlink", "90% of the trace is left (95% interval 80% to 100%): more than retrained models reveal"),
        ("wide", "40% of the trace is left (95% interval 30% to 50%): more than"),
    ],
)
def test_every_attack_is_read_on_both_sides(report, tmp_path, method_, said):
    report["methods"] = [m for m in report["methods"] if m["name"] in ("original", "retrain", method_)]
    assert said in words_of(report, tmp_path)


def test_promoted_items_are_shown_where_there_are_any(report, tmp_path):
    assert "Recommendation of the promoted items" not in words_of(report, tmp_path)
    for entry_ in report["methods"]:
        entry_["target"] = {"probability": entry(0.25, 5.0, 0.75), "exposure@20": entry(0.125, 5.0, 0.875)}
        entry_["attacks"]["target"] = attack(0.03, 0.1, 0.02)
    text = words_of(report, tmp_path)
    assert "Recommendation of the promoted items to real users" in text
    assert "The mean probability is 0.1000 for the original, 0.0200 for retrained models and 0.0300 for ifru." in text
    assert text.index("The promoted items") < text.index("Finding a forgotten user")  # the most direct one first


def test_a_report_without_attacks_is_still_a_page(tmp_path):
    text = words_of({"methods": [{"name": "original"}, {"name": "retrain"}, {"name": "ifru"}]}, tmp_path)
    assert "It is undecided whether ifru forgets as retraining does. Reason: the report holds no verdict." in text


def test_earlier_files_stay_whole_when_writing_fails(report, tmp_path, monkeypatch):
    paths = write_report(report, tmp_path)
    before = [path.read_bytes() for path in paths]
    report["model"] = "another"

    def full_disk(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(report_module, "write_atomic", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(report, tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_plots_are_well_formed_and_take_the_colours_of_the_page(report, plots_data):
    plots = draw(complete(report), plots_data)
    assert [plot.key for plot in plots] == ["left", "scores", "utility", "hops", "damping"]
    for plot in plots:
        ElementTree.fromstring(plot.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "var(--ink)" in plot.svg
        assert not re.search(r"#0a0[bc]\d\d|font-family|font: |<metadata|<style", plot.svg)
        assert plot.alt
        assert plot.caption
    assert draw(complete(report), plots_data)[1].svg == plots[1].svg  # same report, same bytes


@pytest.mark.parametrize(("given", "key"), [("scores", "scores"), ("moved_by_hop", "hops"), ("damping", "damping")])
def test_a_plot_without_data_is_left_out(plots_data, given, key):
    bare = complete({"methods": [{"name": "ifru"}]})
    assert [plot.key for plot in draw(bare, {given: plots_data[given]})] == [key]
    for nothing in ({}, None):
        assert draw(bare, {given: nothing}) == []
    assert draw(bare, None) == []


@pytest.mark.parametrize(
    ("status", "label_", "sentence"),
    [
        ("like", "as retraining", "m forgets as retraining does. Reason: r."),
        ("under", "too little", "m forgets too little. Reason: r."),
        ("over", "too much", "m forgets too much. Reason: r."),
        ("undecided", "undecided", "It is undecided whether m forgets as retraining does. Reason: r."),
    ],
)
def test_verdict_in_words(status, label_, sentence):
    found = judge({"name": "m", "verdict": verdict(status, "r")})
    assert (found.status, found.label, found.sentence) == (status, label_, sentence)
    assert judge({"name": "m", "verdict": verdict(status, "r", "n")}).sentence == f"{sentence} What would decide: n."


@pytest.mark.parametrize(("distance", "floor", "ratio"), [(0.06, 0.03, 2.0), (1e-8, 1e-9, 1.0), (0.02, 0.0, None)])
def test_ratio_to_a_floor_of_zero(distance, floor, ratio):
    entry_ = {"distance_to_retrain": {"forget": distance, "noise_floor_forget": floor}}
    assert ratio_to_floor(entry_, "forget") == ratio


@pytest.fixture
def full_report(report):
    """A report as a bench makes it, with the measures beside the main one."""
    for k, entry_ in enumerate(report["methods"]):
        entry_["utility"] |= {"recall@20_affected": 0.11 + k, "recall@20_unaffected": 0.21, "ndcg@20_affected": 0.31}
        entry_["utility"] |= {"ndcg@20_unaffected": 0.41}
        if entry_["name"] not in ("original", "retrain"):
            more = {"mi_bf": 2.5, "mi_ng": 1.75, "exposure@20": 0.125, "mean_probability": 0.625}
            entry_["forgetting"] |= {name: entry(value, 1.0, 0.5) for name, value in more.items()}
            entry_["forgetting"]["ks_statistic"] = entry(0.5, 1.0, 0.5) | {"p_value": 1e-9, "floor": 0.0625}
    return report


def test_page_shows_the_other_measures_and_the_groups(full_report, tmp_path):
    _, path = write_report(full_report, tmp_path)
    text = " ".join(Page(path.read_text()).text.split())
    for words in ("MI-BF", "MI-NG", "Exposure@20", "KS p-value", "KS floor", "< 0.001", "0.0625"):
        assert words in text
    assert "published measures that reward over-forgetting" in text
    names = ["Recall@20, affected users", "Recall@20, unaffected users", "NDCG@20, affected users"]
    assert "model" + "".join(names) in text.replace("model ", "model")
    assert text.count("Recall@20, affected users") == 1  # not in the table of all users too


def test_terminal_shows_the_other_measures_and_the_groups(full_report):
    lines = terminal_table(full_report).splitlines()
    second = next(n for n, line in enumerate(lines) if "MI-BF" in line)
    assert re.split(r"\s{2,}", lines[second]) == [
        *("method", "Δp forgotten", "Δp test", "AUC of the flipped labels", "mean p", "Exposure@20", "MI-BF", "MI-NG"),
        *("KS", "Recall@20: affected", "unaffected users"),
    ]  # fmt: skip
    unlink = next(line for line in lines[second:] if line.startswith("unlink"))
    assert re.split(r"\s{2,}", unlink) == [
        *("unlink", "1.80 ×", "1.00 ×", "0.3800", "0.6250", "0.1250", "2.5000", "1.7500", "0.5000", "3.1100", "0.2100"),
    ]  # fmt: skip
    assert "right is what retraining gives, not more" in lines[-1]


def test_summary_names_the_other_methods(report):
    others = "Beside it, unlink forgets too little; ascent forgets too much; wide is undecided."
    assert summary(complete(report))[1] == others


def test_summary_says_when_utility_suffered(report):
    assert "more than this" not in summary(complete(report))[0]
    report["methods"][2]["utility"]["auroc"] = 0.74
    assert (
        "'train' measures it: 0.7800); retrained models reach 0.7700 ± 0.0100, more than this"
        in summary(complete(report))[0]
    )


def test_summary_of_a_slower_method_does_not_call_it_faster(report):
    report["methods"][2]["speedup_vs_retrain"] = 0.4
    assert "0.40 times the speed of retraining" in summary(complete(report))[0]
    assert summary({"methods": []}) == ["No unlearning method was run."]


def test_terminal_table_has_a_line_per_method(report):
    table = terminal_table(report)
    lines = table.splitlines()
    head = next(line for line in lines if line.startswith("method"))
    assert re.split(r"\s{2,}", head) == ["method", "verdict", "membership (LiRA)", "AUROC", "time", "speedup"]
    rows = {line.split()[0]: re.split(r"\s{2,}", line) for line in lines[lines.index(head) + 2 :][:6]}
    assert rows["original"] == ["original", "too little", "100%", "0.7600", "0.10 s", "–"]
    assert rows["unlink"] == ["unlink", "too little", "90% (80% to 100%)", "0.7600", "0.10 s", "30.0 ×"]
    assert rows["ascent"][1:3] == ["too much", "−50% (−60% to −40%)"]
    assert rows["retrain"][1:4] == ["yardstick", "0% (−10% to 10%)", "0.7700 ± 0.0100"]
    first = lines[: lines.index(next(line for line in lines if line.startswith("Below")))]
    assert max(map(len, first)) <= 100
    assert terminal_table({"methods": [{"name": "ifru"}]})


def test_aggregate_matches_numpy():
    values = [0.1, 0.4, 0.2]
    runs = [
        [method("ifru", value=v, gap=None if n == 2 else v, log={"seed": n}, seconds=v, utility_sd={"auroc": 9.0})]
        for n, v in enumerate(values)
    ]
    (mean,) = aggregate(runs)
    assert (mean["seconds"], mean["seconds_sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    metric, spread = mean["forgetting"]["flipped_label_auc"], mean["forgetting_sd"]["flipped_label_auc"]
    assert metric["value"] == pytest.approx(np.mean(values))
    assert metric["gap_closed"] == pytest.approx(0.25)
    assert spread["gap_closed"] == pytest.approx(np.std([0.1, 0.4], ddof=1))
    assert mean["utility_sd"] == pytest.approx({"auroc": 0.0, "recall@20": 0.0})
    assert mean["log"] == {"runs": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    assert terminal_table({"methods": [mean]})
    with pytest.raises(ValueError, match="the same methods"):
        aggregate([[{"name": "a"}], [{"name": "b"}]])


def test_a_correction_is_accepted_over_several_runs_if_it_is_in_each():
    def one(accepted):
        record = {"outcome": "corrected" if accepted else "unlink-redraw", "limit": 1.0, "tried": []}
        return [{"name": "ifru", "accepted": accepted, "acceptance": record}, {"name": "retrain", "accepted": None}]

    both, retrain = aggregate([one(True), one(False)])
    assert both == {
        "name": "ifru",
        "accepted": False,
        "acceptance": {"runs": [m[0]["acceptance"] for m in map(one, (1, 0))]},
    }
    assert retrain == {"name": "retrain", "accepted": None}
    assert aggregate([one(True), one(True)])[0]["accepted"] is True


def one_run(left=None, low=None, high=None, **more):
    found = attack(0.5 if left is None else 0.5 + 0.4 * left, left=False) | more
    found |= {"leak_left": left, "leak_low": low, "leak_high": high}
    return [{"name": "ifru", "attacks": {"lira": found, "target": None}}]


def test_intervals_of_several_runs_are_never_averaged():
    """A mean of interval ends is no interval: what is left has a range, and the number of runs in which it is known."""
    (mean,) = aggregate([one_run(0.2, 0.0, 0.4), one_run(0.9, 0.8, 1.0), one_run()])
    found = mean["attacks"]["lira"]
    assert found["value"] == pytest.approx(np.mean([0.58, 0.86, 0.5]))
    assert mean["attacks_sd"]["lira"]["value"] == pytest.approx(np.std([0.58, 0.86, 0.5], ddof=1))
    assert found["leak_left"] == pytest.approx(0.55)
    keys = ("leak_least", "leak_most", "runs_told", "runs")
    assert [found[key] for key in keys] == [0.2, 0.9, 2, 3]
    for key in ("low", "high", "leak_low", "leak_high", "difference_low", "difference_high"):
        assert found[key] is None
        assert key not in mean["attacks_sd"]["lira"]
    assert mean["attacks"]["target"] is None
    (again,) = aggregate([[mean], one_run(-0.1, -0.2, 0.0)])  # means of means, as of models that several audits share
    assert [again["attacks"]["lira"][key] for key in keys] == [-0.1, 0.9, 3, 4]
    (never,) = aggregate([one_run(), one_run()])
    lira = never["attacks"]["lira"]
    assert (lira["leak_left"], [lira[key] for key in keys]) == (None, [None, None, 0, 2])
    (alone,) = aggregate([one_run(0.2, 0.0, 0.4)])
    assert alone["attacks"] == one_run(0.2, 0.0, 0.4)[0]["attacks"]


def test_several_runs_are_told_as_several(report, tmp_path):
    for entry_ in report["methods"]:
        if entry_["name"] == "ifru":
            found = entry_["attacks"]["lira"]
            found |= {"leak_low": None, "leak_high": None, "leak_least": -0.2, "leak_most": 0.31}
            found |= {"runs_told": 2, "runs": 3}
    report["runs"] = [report["methods"]] * 3
    text = words_of(report, tmp_path)
    assert "In 2 of 3 runs, 12% of the trace is left on average (from −20% to 31%)." in text
    assert "12% (−20% to 31% in 2 of 3)" in terminal_table(report)


@pytest.mark.parametrize(
    ("left", "beyond", "said"),
    [
        ((0.2, 0.1, 0.3), 2.0, "within the tolerated 25%, and further from retrained models than another retrained"),
        ((0.4, 0.28, 0.52), 0.9, "no further from retrained models than another retrained model, but more than the"),
        ((0.1, -0.1, 0.3), 0.5, "no further from retrained models than another retrained model"),
        ((0.3, 0.1, 0.5), 1.5, "further from retrained models than another retrained model, perhaps within the"),
        ((0.8, 0.6, 1.0), 3.0, "more than retrained models reveal"),
        ((-0.8, -1.0, -0.6), -3.0, "less than retrained models reveal"),
    ],
)
def test_words_claim_no_more_than_the_figures(left, beyond, said):
    (run,) = one_run(*left, beyond=beyond)
    assert reading(run, "lira").startswith(said)


def test_numbers_are_readable():
    assert [format_number(v) for v in (None, math.nan, 0.0, 0.00001, 0.5, 12.34, 12345.6)] == [
        "–", "–", "0.0000", "1.0e-05", "0.5000", "12.3", "12,346"
    ]  # fmt: skip
    assert (format_number(0.02, digits=1), format_number(4e-17)) == ("0.0", "0.0000")
    assert [format_seconds(v) for v in (None, 0.05, 0.5, 150.0)] == ["–", "50.0 ms", "0.50 s", "2.5 min"]
    assert (label("hit_rate@10"), label("my_metric")) == ("Hit rate@10", "my metric")
    assert headline({"request": {"level": "item", "size": 1}}) == "Forgetting 1 item"


def test_environment_names_no_one():
    text = json.dumps(environment())
    assert json.loads(text)["torch"] == torch.__version__
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
