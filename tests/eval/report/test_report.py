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

from graphunlearn.data.io.plain import json_ready
from graphunlearn.eval.machine import environment
from graphunlearn.eval.report import writing as report_module
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


@pytest.fixture
def report():
    reference = {"forgetting": None, "speedup_vs_retrain": None}
    utility, sd = {"auroc": 0.77, "recall@20": 0.26}, {"auroc": 0.01, "recall@20": 0.002}
    methods = [
        method("original", **reference),
        method("retrain", forget=0.05, utility=utility, utility_sd=sd, **reference),
        method("ifru", log={"damping": 0.27, "residual": math.inf}),
        method("unlink", 0.38, 18.0, 0.1, 0.09),
        method("ascent", 0.05, -15.0, 1.75, 0.3),
    ]
    return {
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
        ("seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb", "utility", "forgetting", "log")
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
    assert page.tags.count("figcaption") == 4
    assert len([value for name, value in page.attributes if name == "aria-label" and value]) >= 4


def test_page_says_what_the_numbers_say(report, tmp_path):
    _, path = write_report(report, tmp_path)
    text = Page(path.read_text()).text
    assert "Forgetting 1,200 interactions of rat<ings>" in text
    for words in ("ifru forgets as retraining does", "30 times faster than retraining", "like retraining"):
        assert words in text
    for words in ("unlink under-forgets (10% of the gap closed", "ascent over-forgets (175% of the gap closed"):
        assert words in text
    assert "0.7700± 0.0100" in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


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
    assert [plot.key for plot in plots] == ["scores", "utility", "hops", "damping"]
    for plot in plots:
        ElementTree.fromstring(plot.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "var(--ink)" in plot.svg
        assert not re.search(r"#0a0[bc]\d\d|font-family|font: |<metadata|<style", plot.svg)
        assert plot.alt
        assert plot.caption
    assert draw(complete(report), plots_data)[0].svg == plots[0].svg  # same report, same bytes


@pytest.mark.parametrize(("given", "key"), [("scores", "scores"), ("moved_by_hop", "hops"), ("damping", "damping")])
def test_a_plot_without_data_is_left_out(plots_data, given, key):
    bare = complete({"methods": [{"name": "ifru"}]})
    assert [plot.key for plot in draw(bare, {given: plots_data[given]})] == [key]
    for nothing in ({}, None):
        assert draw(bare, {given: nothing}) == []
    assert draw(bare, None) == []


@pytest.mark.parametrize(
    ("z", "gap", "forget", "status"),
    [
        (1.9, 0.5, 0.05, "inside"),  # within the noise of retraining
        (9.0, 0.95, 0.05, "inside"),  # few seeds, tiny spread
        (9.0, 0.95, 0.08, "average"),
        (3.0, 0.8, 0.05, "under"),
        (-3.0, 1.2, 0.05, "over"),
        (3.0, -0.3, 0.05, "under"),
        (3.0, None, 0.05, "off"),
        (None, 1.0, None, "inside"),
        (None, None, 0.05, "inside"),
        (None, None, 0.08, "off"),
        (None, None, None, "unknown"),
    ],
)
def test_verdict_is_two_sided(z, gap, forget, status):
    assert judge(method("m", z=z, gap=gap, forget=forget), "flipped_label_auc").status == status


@pytest.mark.parametrize(
    ("distance", "test_floor", "ratio", "status"),
    [
        (0.0, 0.03, 1.0, "inside"),
        (1e-8, 0.03, 1.0, "inside"),  # rounding errors
        (0.02, 0.03, None, "inside"),  # within what retrained models differ elsewhere
        (0.04, 0.03, None, "average"),
        (0.02, 0.0, None, "average"),
        (0.02, None, None, "average"),
    ],
)
def test_verdict_without_a_floor(distance, test_floor, ratio, status):
    entry = method("m", z=None, gap=1.0)
    for floor in (0.0, 1e-9):
        entry["distance_to_retrain"] |= {
            "forget": distance,
            "noise_floor_forget": floor,
            "noise_floor_test": test_floor,
        }
        assert ratio_to_floor(entry, "forget") == ratio
        verdict = judge(entry, "flipped_label_auc")
        assert verdict.status == status
        assert ("retrained models, which all agree" in verdict.sentence) == (ratio is None)
        entry["forgetting"]["flipped_label_auc"]["gap_closed"] = 0.2
        assert judge(entry, "flipped_label_auc").status == "under"
        entry["forgetting"]["flipped_label_auc"]["gap_closed"] = None
        assert judge(entry, "flipped_label_auc").status == {"inside": "inside", "average": "off"}[status]
        entry["forgetting"]["flipped_label_auc"]["gap_closed"] = 1.0


@pytest.fixture
def full_report(report):
    """A report as a bench makes it, with the measures beside the main one."""
    for k, entry_ in enumerate(report["methods"]):
        entry_["utility"] |= {"recall@20_affected": 0.11 + k, "recall@20_unaffected": 0.21, "ndcg@20_affected": 0.31}
        entry_["utility"] |= {"ndcg@20_unaffected": 0.41}
        if entry_["forgetting"] is not None:
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
    assert "method" + "".join(names) in text.replace("method ", "method")
    assert text.count("Recall@20, affected users") == 1  # not in the table of all users too


def test_terminal_shows_the_other_measures_and_the_groups(full_report):
    lines = terminal_table(full_report).splitlines()
    second = next(n for n, line in enumerate(lines) if "MI-BF" in line)
    assert re.split(r"\s{2,}", lines[second]) == [
        "method", "mean p", "Exposure@20", "MI-BF", "MI-NG", "KS", "Recall@20 affected", "unaffected",
    ]  # fmt: skip
    unlink = next(line for line in lines[second:] if line.startswith("unlink"))
    assert re.split(r"\s{2,}", unlink) == [
        "unlink",
        "0.6250",
        "0.1250",
        "2.5000",
        "1.7500",
        "0.5000",
        "3.1100",
        "0.2100",
    ]
    assert "right is what retraining gives, not more" in lines[second + 8]


def test_summary_warns_where_there_was_nothing_to_forget(report):
    assert not any("left little to forget" in paragraph for paragraph in summary(complete(report)))
    report["methods"][2]["forgetting"]["flipped_label_auc"]["retrain_sd"] = 0.2
    assert any("left little to forget" in paragraph for paragraph in summary(complete(report)))


def test_summary_says_when_utility_suffered(report):
    assert "more than this" not in summary(complete(report))[0]
    report["methods"][2]["utility"]["auroc"] = 0.74
    assert (
        "from 0.7600 to 0.7400; retrained models reach 0.7700 ± 0.0100, more than this" in summary(complete(report))[0]
    )


def test_summary_of_a_slower_method_does_not_call_it_faster(report):
    report["methods"][2]["speedup_vs_retrain"] = 0.4
    assert "0.40 times the speed of retraining" in summary(complete(report))[0]
    assert summary({"methods": []}) == ["No unlearning method was run."]


def test_terminal_table_has_a_line_per_method(report):
    lines = terminal_table(report).splitlines()
    (head,) = (line for line in lines if line.startswith("method"))
    assert re.split(r"\s{2,}", head) == [
        "method", "verdict", "time", "speedup", "AUROC", "Recall@20", "AUC of the flipped labels", "gap closed", "z",
        "Δp forgotten", "Δp test",
    ]  # fmt: skip
    (unlink,) = (line for line in lines if line.startswith("unlink"))
    assert re.split(r"\s{2,}", unlink) == [
        "unlink", "under-forgets", "0.10 s", "30.0 ×", "0.7600", "0.2500", "0.3800", "10%", "+18.0", "1.80 ×", "1.00 ×"
    ]  # fmt: skip
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


def test_numbers_are_readable():
    assert [format_number(v) for v in (None, math.nan, 0.0, 0.00001, 0.5, 12.34, 12345.6)] == [
        "–", "–", "0.0000", "1.0e-05", "0.5000", "12.3", "12,346"
    ]  # fmt: skip
    assert [format_seconds(v) for v in (None, 0.05, 0.5, 150.0)] == ["–", "50.0 ms", "0.50 s", "2.5 min"]
    assert (label("hit_rate@10"), label("my_metric")) == ("Hit rate@10", "my metric")
    assert headline({"request": {"level": "item", "size": 1}}) == "Forgetting 1 item"


def test_environment_names_no_one():
    text = json.dumps(environment())
    assert json.loads(text)["torch"] == torch.__version__
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize(("ks", "status"), [(0.1, "inside"), (0.27, "inside"), (0.3, "average"), (None, "inside")])
def test_a_distribution_unlike_that_of_retrained_models_is_not_like_retraining(ks, status):
    forgetting = {
        "membership_auroc": {"value": 0.01, "original": 0.9, "retrain_mean": 0.02, "z": 0.5, "gap_closed": 1.01}
    }
    if ks is not None:
        forgetting["ks_statistic"] = {"value": ks, "floor": 0.08}
    distance = {"forget": 0.011, "noise_floor_forget": 0.01, "test": 0.01, "noise_floor_test": 0.01}
    found = judge({"name": "x", "forgetting": forgetting, "distance_to_retrain": distance}, "membership_auroc")
    assert found.status == status
    assert ("distributed otherwise" in found.sentence) == (status == "average")
