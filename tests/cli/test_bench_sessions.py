"""The bench, the audit and the demo of session models."""

import json
import shutil
from itertools import pairwise

import pytest
from click_files import as_lists, named, rows_of, walks, write_rows
from quick import QUICK
from test_bench import check

import graphunlearn as gu
from graphunlearn.cli._methods import BENCHED, method_names
from graphunlearn.cli._options import WIDTH
from graphunlearn.cli.bench import LISTED, OWN, SCENARIOS
from graphunlearn.eval import bench, session_clicks, spam_sessions
from graphunlearn.runs.run import Run

FORGETTING = {"hit_u@5", "hit_u@10", "hit_u@20", "log_p_forgotten", "log_p_deleted_transition", "rank_forgotten"}
UTILITY = {f"{metric}@{k}" for metric in ("recall", "mrr", "ndcg") for k in (5, 10, 20)}


@pytest.fixture
def words(clicks):
    return ("--data", clicks, "--model", "gru4rec", "--retrain-seeds", 2, *QUICK)


def test_session_clicks_with_a_test_file(tmp_path, call):
    train, test = walks(110), walks(15, seed=1)
    test[2] = [77, 3, 4]  # an item that the data lack
    write_rows(tmp_path / "train.csv", rows_of(train))
    write_rows(tmp_path / "test.csv", rows_of(test, 110))
    names = ("cau", "unlink", "finetune", "sisa")
    files = ("--data", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--model", "srgnn")
    words = ("--methods", *names, "--retrain-seeds", 2, "--original-seeds", 2, "--share", 0.3, *QUICK)
    status, out, err = call("bench", "session-clicks", *files, *words, "--out", tmp_path / "x")
    assert status == 0, err
    report = check(tmp_path / "x", names)
    assert report["scenario"] == "session-clicks"
    assert report["request"]["level"] == "click"
    assert report["request"]["size"] == report["request"]["clicks"] > 2
    assert report["distance_unit"] == "log p"
    assert report["dataset"]["name"] == "train"
    assert report["dataset"]["train_sessions"] == 99
    assert report["model"]["dim"] == 4
    for method in report["methods"]:
        assert set(method["forgetting"]) >= FORGETTING
        assert set(method["utility"]) >= UTILITY
    assert {"seconds_sum", "seconds_slowest_shard"} <= set(report["methods"][2 + names.index("sisa")])
    collapsed = [note for note in report["notes"] if "count as one" in note]
    dropped = sum(a == b for session in (*train, *test) for a, b in pairwise(session))
    assert collapsed == [f"Consecutive clicks on one item count as one: {dropped} clicks were collapsed."]
    assert err.count("count as one") == 1
    assert report["left_out"]["test clicks of items that training never saw"] == 1
    assert not any("test click" in note for note in report["notes"])  # said once
    assert all(name in out for name in names)


def test_is_the_bench_of_the_library(clicks, words, tmp_path, parsed):
    told = parsed("bench", "session-clicks", *words, "--methods", "unlink", "--no-cache", "--out", tmp_path / "x")
    graph = gu.SessionGraph.from_file(clicks)
    settings = gu.nn.FitSettings(**vars(gu.nn.default_settings(graph)) | {"epochs": 3, "batch_size": 4096})
    result = bench(
        lambda seed: session_clicks(graph, seed=seed),
        [gu.Unlink()],
        model="gru4rec",
        dim=4,
        layers=1,
        settings=settings,
        retrain_seeds=2,
    )
    for ours, theirs in zip(told["methods"], result.report["methods"]):
        assert ours["utility"] == pytest.approx(theirs["utility"])
        assert ours["forgetting"]["log_p_forgotten"]["value"] == theirs["forgetting"]["log_p_forgotten"]["value"]


def test_without_dim_and_layers_it_is_the_bench_of_the_library(clicks):
    graph = gu.SessionGraph.from_file(clicks)
    result = bench(
        lambda seed: session_clicks(graph, seed=seed),
        [gu.Unlink()],
        model="sasrec",
        settings=gu.nn.FitSettings(epochs=1),
        retrain_seeds=1,
    )
    assert result.report["model"]["dim"] == WIDTH["sessions"]


def test_repeats_can_be_kept(words, tmp_path, call):
    names = ("--methods", "unlink", "--keep-repeats", "--out", tmp_path / "x")
    status, _, err = call("bench", "session-clicks", *words, *names)
    assert status == 0, err
    assert "count as one" not in err
    report = check(tmp_path / "x", ["unlink"])
    assert not any("count as one" in note for note in report["notes"])
    dataset = report["dataset"]
    whole = sum(map(len, walks(120)))
    assert sum(dataset[f"{part}_clicks"] for part in ("train", "validation", "test")) == whole


@pytest.mark.parametrize(("scenario", "level"), [("sessions", "session"), ("items", "item")])
def test_removal(scenario, level, words, tmp_path, parsed):
    options = ("--methods", "unlink", "--share", 0.1, "--data-seeds", 2, "--collapse-repeats")
    told = parsed("bench", scenario, *words, *options, "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", ["unlink"])
    assert told["scenario"] == scenario
    assert told["request"]["level"] == level
    whole = sum(len(s) - sum(a == b for a, b in pairwise(s)) for s in walks(120))
    assert sum(told["dataset"][f"{part}_clicks"] for part in ("train", "validation", "test")) == whole


@pytest.mark.parametrize("level", [None, *LISTED["sessions"][1:3]])
def test_a_file_of_ones_own(level, words, tmp_path, parsed):
    lines = {None: ["session,position", "s3,1", "s4,0", "s119,1"], "session": ["s3", "s4", "s118"], "item": ["i3"]}
    (tmp_path / "forget.csv").write_text("\n".join(lines[level]) + "\n")
    options = ("--request", tmp_path / "forget.csv", *(() if level is None else ("--level", level)))
    told = parsed("bench", "file", *words, *options, "--methods", "unlink", "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", ["unlink"])
    assert told["request"]["level"] == (level or "click")
    assert told["request"]["size"] == (1 if level == "item" else 2)
    held = [note for note in told["notes"] if "only in held-out data" in note]
    assert len(held) == (level != "item")
    assert all(note.startswith(f"1 of the {level or 'click'}s") for note in held)


def test_spam_sessions(words, tmp_path, parsed):
    names = ("unlink", "unlink-redraw")
    path = write_rows(tmp_path / "clicks.csv", rows_of(walks(120, num_items=60)))
    given = ("--data", path, "--share", 0.1, "--targets", 2, "--methods", *names)
    told = parsed("bench", "spam-sessions", *given, *words[2:], "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", names)
    case = spam_sessions(gu.SessionGraph.from_file(path), share=0.1, targets=2)
    assert told["scenario"] == "spam-sessions"
    assert told["request"]["level"] == "session"
    assert told["request"]["size"] == len(case.request) == 10
    assert told["dataset"]["train_clicks"] == case.train.num_clicks
    assert told["notes"][0] == case.notes[0]


def test_spam_needs_targets(words, tmp_path, refused):
    told = refused("bench", "spam-sessions", *words, "--out", tmp_path / "x")
    assert told == "'--data' must have items with 5 to 12 training clicks (got none)"
    told = refused("bench", "spam-sessions", *words, "--share", 1, "--out", tmp_path / "x")
    assert told == "'--share' must be between 0 and 1 (got 1.0)"
    told = refused("bench", "session-clicks", *words, "--targets", 1, "--out", tmp_path / "x")
    assert told == "'--targets' must go with spam-sessions (got it with session-clicks)"


def test_every_method_that_is_compared_where_none_are_named_exists():
    for names in BENCHED.values():
        assert set(names) <= set(method_names())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("users",),
            "the scenario must be session-clicks, sessions, items, spam-sessions or file for gru4rec, a model of",
        ),
        (("adversarial-edges",), "which goes with --model lightgcn, mf, sgl, simgcl or ngcf)"),
        (
            ("session-clicks", "--model", "lightgcn"),
            "a model of users and items (got 'session-clicks', which goes with --model srgnn, gru4rec, sasrec, narm, "
            "bert4rec or gcegnn)",
        ),
        (("sessions", "--model", "mf"), "for mf, a model of users and items (got 'sessions'"),
        (("session-clicks", "--methods", "ifru"), "'--methods' must be one for models of sessions such as gru4rec"),
        (
            ("items", "--model", "mf", "--methods", "cau"),
            "'--methods' must be one for models of users and items such as mf",
        ),
        (("session-clicks", "--methods", "caus"), "did you mean 'cau'?"),
        (("session-clicks", "--methods"), "'--methods' must name methods other than retrain (got none)"),
        (("session-clicks", "--threshold", 3), "'--threshold' must go with a model of users and items (got it with"),
        (("session-clicks", "--objective", "bpr"), "'--objective' must go with a model of users and items"),
        (("session-clicks", "--side", "item"), "'--side' must go with adversarial-edges (got it with session-clicks)"),
        (("session-clicks", "--positives-only"), "'--positives-only' must go with flipped-labels"),
        (("session-clicks", "--request", "x.csv"), "'--request' must go with file (got it with session-clicks)"),
        (("sessions", "--keep-repeats"), "'--keep-repeats' must go with session-clicks (got it with sessions)"),
        (("session-clicks", "--keep-repeats", "--collapse-repeats"), "'--keep-repeats' must be left out with"),
        (("session-clicks", "--share", 0), "'--share' must be between 0 and 1 (got 0.0)"),
        (("sessions", "--share", 0.9999), "'--share' must leave some of what there is"),
        (("file",), "'--request' must name the file of what to forget (got none)"),
        (("file", "--request", "{clicks}", "--share", 0.1), "'--share' must go with "),
        (("file", "--request", "{clicks}", "--level", "interaction"), "'--level' must be click, session, item or user"),
        (("file", "--request", "{unknown}"), "'--request' must hold "),
        (("file", "--request", "{items}", "--level", "item"), "'--request' must hold items of the graph (got 'x1'"),
        (
            ("file", "--request", "{held}"),
            "'--request' must hold a click that is trained on (got 1, all of them held out)",
        ),
        (("file", "--request", "{all}", "--level", "session"), "must leave"),
        (("session-clicks", "--last-sessions", -1), "'--last-sessions' must be at least 1 (got -1)"),
    ],
)
def test_bad_scenarios(words, sentence, clicks, tmp_path, refused):
    files = {
        "clicks": "s1,0\n",
        "unknown": "s1,0\nnowhere,1\n",
        "items": "x1\n",
        "held": "s119,0\n",
        "all": "".join(f"s{n}\n" for n in range(120)),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    words = [str(word).format(**{name: tmp_path / f"{name}.csv" for name in files}) for word in words]
    model = () if "--model" in words else ("--model", "gru4rec")
    methods = () if "--methods" in words else ("--methods", "unlink")
    given = ("--data", clicks, "--out", tmp_path / "x", "--retrain-seeds", 2, *QUICK, *methods, *model)
    assert sentence in refused("bench", *words, *given)
    assert not (tmp_path / "x").exists()


def test_short_sessions_have_no_click_to_forget(tmp_path, refused):
    write_rows(tmp_path / "clicks.csv", rows_of([[n % 5, 5 + n % 3] for n in range(40)]))
    words = ("--data", tmp_path / "clicks.csv", "--model", "gru4rec", "--methods", "unlink", *QUICK)
    sentence = refused("bench", "session-clicks", *words, "--out", tmp_path / "x")
    assert "must hold sessions of at least 4 clicks" in sentence


def test_audit_of_a_run(forgotten_sessions, tmp_path, call, refused):
    copy = shutil.copytree(forgotten_sessions, tmp_path / "b")
    status, out, err = call("audit", copy, "--retrain-seeds", 2)
    assert status == 0, err
    report = check(copy, ["unlink"])
    run = Run.load(copy)
    assert report["request"]["level"] == "mixed"
    assert report["dataset"] == run.dataset
    assert report["model"]["name"] == "gru4rec"
    assert report["seeds"] == {"original": 0, "retrain": [1, 2]}
    assert set(report["methods"][2]["forgetting"]) >= FORGETTING
    assert set(report["methods"][2]["utility"]) >= UTILITY
    assert report["methods"][2]["seconds"] == run.forgotten.result.seconds
    assert f"wrote {copy / 'report.json'}" in out
    assert "'--overwrite' replaces it" in refused("audit", copy)


def test_audit_of_cau_draws_its_steps(trained_sessions, tmp_path, parsed):
    words = ("--sessions", "s1", "s2", "--option", "steps=3", "epochs=1", "--out", tmp_path / "b")
    parsed("forget", trained_sessions, *words)
    told = parsed("audit", tmp_path / "b", "--retrain-seeds", 2)
    assert told["methods"][2]["name"] == "cau"
    page = (tmp_path / "b" / "report.html").read_text()
    assert "Weights of the objectives of cau" in page


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    make = gu.datasets.synthetic_sessions
    monkeypatch.setattr(gu.datasets, "synthetic_sessions", lambda seed: make(150, 30, seed=seed))
    monkeypatch.chdir(tmp_path)


def test_demo_of_sessions(small_demo, tmp_path, call):
    status, out, err = call("demo", "--kind", "sessions")
    assert status == 0, err
    report = check(tmp_path / "runs" / "demo-sessions", BENCHED["sessions"])
    assert report["scenario"] == "session-clicks"
    assert report["model"]["name"] == "srgnn"
    assert report["seeds"]["retrain"] == 3
    assert "runs/demo-sessions/report.html" in out
    assert call("demo", "--kind", "sessions", "--seed", 1)[0] == 0  # which replaces it
    again = json.loads((tmp_path / "runs" / "demo-sessions" / "report.json").read_text())
    assert again["methods"][0]["utility"] != report["methods"][0]["utility"]


def test_the_first_lines_read_are_what_is_benched(tmp_path, parsed):
    rows = rows_of(walks(60))
    path = write_rows(tmp_path / "clicks.csv", rows)
    words = ("--data", path, "--last-sessions", 40, "--model", "gru4rec", "--methods", "unlink", "--retrain-seeds", 2)
    told = parsed("bench", "sessions", *words, *QUICK, "--out", tmp_path / "x")
    assert told["dataset"]["train_sessions"] == 32
    last = {name: items for name, items in named(walks(60)).items() if int(name[1:]) >= 20}
    assert told["dataset"]["items"] == len({item for items in last.values() for item in items})


def test_scenarios_are_those_of_the_library(clicks):
    every = {name for names in SCENARIOS.values() for name in names}
    counted = {name for name in OWN["attackers"] if name in SCENARIOS["interactions"]}  # by number, not by share
    assert every - counted - {"file"} == set(gu.eval.SHARES)
    assert {name for names in OWN.values() for name in names} <= every
    assert as_lists(gu.SessionGraph.from_file(clicks)) == named(walks(120))
