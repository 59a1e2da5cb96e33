import json
import shutil

import pytest
from quick import QUICK

import graphunlearn as gu
import graphunlearn.cli.bench as bench_module
from graphunlearn.runs.run import Run

TOP = {"dataset", "model", "scenario", "request", "environment", "methods"}
METHOD = {
    *("name", "seconds", "prepare_seconds", "speedup_vs_retrain", "peak_memory_mb", "utility", "forgetting"),
    *("distance_to_retrain", "log"),
}
FORGETTING = {"value", "original", "retrain_mean", "retrain_sd", "z", "gap_closed"}
DISTANCE = {"test", "forget", "noise_floor_test", "noise_floor_forget"}


def own_notes(report, case):
    """The notes of the scenario, which stand together after any warning of a retrained model that is not healthy."""
    first = report["notes"].index(case.notes[0])
    assert all("healthy" in note for note in report["notes"][:first])
    return report["notes"][first : first + len(case.notes)]


def check(folder, names):
    """The report is whole: every field is there, and those of the methods that ran are filled."""
    report = json.loads((folder / "report.json").read_text())
    assert set(report) >= TOP
    assert not [key for key in TOP if report[key] is None]
    assert {"level", "size"} <= set(report["request"])
    trivial = [name for name in ("unlink", "unlink-redraw") if name not in names]  # in every table
    assert [method["name"] for method in report["methods"]] == ["original", "retrain", *names, *trivial]
    for method in report["methods"]:
        assert set(method) >= METHOD
        assert set(method["distance_to_retrain"]) >= DISTANCE
        assert all(set(entry) >= FORGETTING for entry in method["forgetting"].values())
    for method in report["methods"][2:]:
        assert method["seconds"] > 0
        assert method["speedup_vs_retrain"] > 0
        assert method["utility"]
        assert all(value is not None for value in method["distance_to_retrain"].values())
    assert (folder / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    return report


def test_flipped_labels(ratings, tmp_path, call):
    names = ("ifru", "ifru-published", "unlink", "finetune", "ascent")
    words = ("bench", "flipped-labels", "--data", ratings, "--share", 0.1, "--retrain-seeds", 2, *QUICK)
    status, out, err = call(*words, "--methods", *names, "--out", tmp_path / "x")
    assert status == 0, err
    report = check(tmp_path / "x", names)
    assert report["scenario"] == "flipped-labels"
    assert report["dataset"]["name"] == "ratings"
    size = round(0.1 * report["dataset"]["train"])
    assert report["request"] == {"level": "interaction", "size": size, "interactions": size}
    assert all("flipped_label_auc" in method["forgetting"] for method in report["methods"])
    assert f"wrote {tmp_path / 'x' / 'report.json'}" in out
    assert all(name in out for name in names)


LEVELS = {"users": "user", "items": "item", "random-edges": "interaction"}


@pytest.mark.parametrize("scenario", LEVELS)
def test_removal(scenario, ratings, tmp_path, parsed):
    words = ("bench", scenario, "--data", ratings, "--methods", "unlink", "--retrain-seeds", 2, *QUICK)
    told = parsed(*words, "--share", 0.1, "--data-seeds", 2, "--original-seeds", 2, "--out", tmp_path / "x")
    report = check(tmp_path / "x", ["unlink"])
    assert told == report
    assert report["scenario"] == scenario
    assert report["request"]["level"] == LEVELS[scenario]
    assert "BPR" in report["model"]["objective"]
    assert report["methods"][2]["seconds_sd"] >= 0  # over data and original seeds


@pytest.fixture
def plain(ratings, tmp_path):
    """Files of training and test interactions, without ratings; the test file has a user that training never saw."""
    train, test = gu.InteractionGraph.from_file(ratings).random_split([0.7, 0.3])
    for name, part in (("train", train), ("test", test)):
        part.to_frame()[["user", "item"]].to_csv(tmp_path / f"{name}.csv", index=False)
    with (tmp_path / "test.csv").open("a") as file:
        file.write("stranger,i3\n")
    return ("--data", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--retrain-seeds", 2, *QUICK)


@pytest.mark.parametrize("side", [None, "user", "item", "both"])
def test_adversarial_edges(side, plain, tmp_path, parsed):
    names = ("ifru", "unlink", "finetune")
    words = () if side is None else ("--side", side)
    told = parsed("bench", "adversarial-edges", *plain, *words, "--methods", *names, "--out", tmp_path / "x")
    report = check(tmp_path / "x", names)
    assert told == report
    assert report["scenario"] == "adversarial-edges"
    size = report["request"]["size"]
    train = gu.InteractionGraph.from_file(tmp_path / "train.csv")
    clean = train.random_split([8 / 9, 1 / 9], seed=0)[0]
    users, items = (round(0.3 * clean.pairs[k].unique().numel()) for k in (0, 1))
    assert (
        max(users, items) <= size <= users + items if side == "both" else size == (items if side == "item" else users)
    )
    assert report["dataset"]["train"] == clean.num_interactions + size
    assert report["left_out"]["test rows with a user or item that training never saw"] == 1
    assert all("membership_auroc" in method["forgetting"] for method in report["methods"])
    assert {"recall@20_affected", "recall@20_unaffected"} <= set(report["methods"][2]["utility"])


def test_every_scenario_has_a_share_of_its_own(plain, tmp_path, parsed):
    for scenario, share in (("users", 0.02), ("items", 0.02), ("random-edges", 0.05)):
        told = parsed("bench", scenario, *plain, "--methods", "unlink", "--out", tmp_path / scenario)
        assert f"A random {share:.2%} of the" in told["notes"][0]
    told = parsed("bench", "adversarial-edges", *plain, "--share", 0.1, "--methods", "unlink", "--out", tmp_path / "x")
    assert told["request"]["size"] == 5


@pytest.fixture
def many(tmp_path):
    """A file of ratings of 90 users and 70 items, and the options that read it."""
    graph = gu.datasets.synthetic_interactions(num_users=90, num_items=70, interactions_per_user=9, seed=3)
    graph.to_frame().to_csv(tmp_path / "many.csv", index=False)
    return ("--data", tmp_path / "many.csv", "--retrain-seeds", 2, *QUICK)


INJECTED = {
    "shilling": ((), {}, "user"),
    "shilling of few": (("--attackers", 4, "--targets", 2), {"attackers": 4, "targets": 2}, "user"),
    "shilling as a bandwagon": (("--attack", "bandwagon"), {"kind": "bandwagon"}, "user"),
    "click-fraud": (("--attackers", 9, "--targets", 2), {"attackers": 9, "targets": 2}, "interaction"),
    "mislabelled-popular": (("--attackers", 7), {"attackers": 7}, "interaction"),
    "core-users": ((), {}, "user"),
    "edge-users": (("--share", 0.1), {"share": 0.1}, "user"),
}


@pytest.mark.parametrize("name", INJECTED)
def test_scenarios_that_users_face(name, many, tmp_path, parsed):
    options, keywords, level = INJECTED[name]
    scenario, names = name.split()[0], ("unlink", "unlink-redraw", "ifru")
    told = parsed("bench", scenario, *many, *options, "--seed", 1, "--methods", *names, "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", names)
    make = getattr(gu.eval, scenario.replace("-", "_"))
    case = make(gu.InteractionGraph.from_file(tmp_path / "many.csv"), seed=1, **keywords)
    assert told["scenario"] == scenario
    assert told["request"] == case.request.describe(case.train)
    assert told["request"]["level"] == level
    assert told["dataset"]["users"] == case.train.num_users
    assert told["dataset"]["train"] == case.train.num_interactions
    assert own_notes(told, case) == case.notes


@pytest.mark.parametrize("table", [False, True])
def test_sensitive_items_of_a_file(table, many, tmp_path, parsed):
    items = [f"i{n}" for n in range(0, 70, 4)]
    rows = ["item,genres", *(f"i{n},{'Horror|War' if n % 4 == 0 else 'War'}" for n in range(70))] if table else items
    (tmp_path / "items.csv").write_text("\n".join(rows) + "\n")
    words = ("--items", tmp_path / "items.csv", "--share", 0.3, *(("--category", "horror") if table else ()))
    told = parsed("bench", "sensitive", *many, *words, "--methods", "unlink", "--out", tmp_path / "x")
    case = gu.eval.sensitive(gu.InteractionGraph.from_file(tmp_path / "many.csv"), items, share=0.3)
    assert told["request"] == case.request.describe(case.train)
    assert told["dataset"]["test"] == case.test.num_interactions
    assert own_notes(told, case) == case.notes


def test_genres_of_films_are_found_in_the_folder_of_data_sets(tmp_path, monkeypatch):
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "ml-100k.item").write_text("item_id:token\tclass:token_seq\n7\tWar Drama\n8\tDrama\n")
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    bench = bench_module.Bench(scenario="sensitive", data="ml-100k", category="drama", out=tmp_path / "x")
    bench._check_options("lightgcn", "interactions")
    assert bench._category() == ["7", "8"]
    (tmp_path / "ml-100k" / "ml-100k.item").rename(tmp_path / "ml-100k" / "other")
    with pytest.raises(ValueError, match=r"GRAPHUNLEARN_DATA must name a folder with ml-100k/u.item .* without it\)"):
        bench._category()
    monkeypatch.delenv("GRAPHUNLEARN_DATA")
    with pytest.raises(ValueError, match=r"for '--category' without '--items' \(got none\)"):
        bench._category()


@pytest.mark.parametrize("level", [None, "interaction", "user", "item"])
def test_a_file_of_ones_own(level, plain, tmp_path, parsed):
    data = gu.InteractionGraph.from_file(tmp_path / "train.csv")
    train, validation = data.random_split([8 / 9, 1 / 9], seed=0)
    frames = train.to_frame(), validation.to_frame()
    rows = [(frame["user"][k], frame["item"][k]) for frame, n in zip(frames, (4, 3)) for k in range(n)]
    lines = {"user": ["u3", "u4"], "item": ["i1", "i2", "i5"]}.get(level) or [f"{u},{i}" for u, i in rows]
    (tmp_path / "forget.csv").write_text("\n".join(lines) + "\n")
    words = () if level is None else ("--level", level)
    request = ("--request", tmp_path / "forget.csv", *words)
    told = parsed("bench", "file", *plain, *request, "--methods", "unlink", "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", ["unlink"])
    assert told["scenario"] == "file"
    assert told["request"]["level"] == (level or "interaction")
    assert told["request"]["size"] == {"user": 2, "item": 3}.get(level, 4)
    dropped = [note for note in told["notes"] if "only in held-out data" in note]
    assert len(dropped) == (level in (None, "interaction"))
    assert all(note.startswith("3 of the pairs to forget") for note in dropped)
    assert told["dataset"]["validation"] == validation.num_interactions - 3 * len(dropped)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("file",), "'--request' must name the file of what to forget (got none)"),
        (("file", "--request", "nothing.csv"), "'--request' must be an existing file (got 'nothing.csv')"),
        (("file", "--request", "{users}", "--share", 0.1), "'--share' must go with flipped-labels or users"),
        (("file", "--request", "{users}"), "must hold a user and an item per line (got one column)"),
        (("file", "--request", "{users}", "--level", "user"), "'--request' must hold users of the graph (got 'nobody'"),
        (("file", "--request", "{pairs}"), "'--request' must hold interactions of the graph (got ('u1', "),
        (("users", "--request", "{users}"), "'--request' must go with file (got it with users)"),
        (("users", "--level", "user"), "'--level' must go with file (got it with users)"),
        (("users", "--side", "item"), "'--side' must go with adversarial-edges (got it with users)"),
        (
            ("users", "--attackers", 3),
            "'--attackers' must go with shilling or click-fraud or mislabelled",
        ),
        (("core-users", "--targets", 3), "'--targets' must go with shilling or click-fraud (got it with core-users)"),
        (("click-fraud", "--attack", "average"), "'--attack' must go with shilling (got it with click-fraud)"),
        (("shilling", "--share", 0.1), "'--share' must go with flipped-labels or users"),
        (("shilling", "--items", "{users}"), "'--items' must go with sensitive (got it with shilling)"),
        (("shilling", "--category", "War"), "'--category' must go with sensitive (got it with shilling)"),
        (
            ("spam-sessions",),
            "(got 'spam-sessions', which goes with --model srgnn, gru4rec, sasrec, narm, bert4rec or gcegnn)",
        ),
        (
            ("sensitive",),
            "'--items' must name the file of sensitive items (got none); '--data ml-100k --category GENRE'",
        ),
        (("sensitive", "--category", "War"), "'--items' must name the file of sensitive items (got none)"),
        (("sensitive", "--items", "nothing.csv"), "'--items' must be an existing file (got 'nothing.csv')"),
        (("sensitive", "--items", "no.csv", "--category", "War"), "'--items' must be an existing file (got 'no.csv')"),
        (("sensitive", "--items", "{users}"), "'--items' must hold an item of the graph (got none)"),
        (("sensitive", "--items", "{table}", "--category", "War"), "'--category' must be one of Drama (got 'War')"),
        (("edge-users", "--share", 1), "'--share' must be between 0 and 1 (got 1.0)"),
        (("shilling", "--attackers", 0), "'--attackers' must be at least 1 (got 0)"),
        (("shilling", "--targets", 99), "'--targets' must be at most "),
        (("click-fraud", "--attackers", 99), "the number of users who lack a target (got 99)"),
        (("shilling",), "'--data' must have at least 31 items with training interactions (got "),
        (("users", "--positives-only"), "'--positives-only' must go with flipped-labels (got it with users)"),
        (("users", "--share", 0), "'--share' must be between 0 and 1 (got 0.0)"),
        (("items", "--share", 0.9999), "'--share' must leave some of what there is (got 0.9999, which takes all"),
        (("random-edges", "--share", 0.9999), "'--share' must leave some of what there is"),
        (("adversarial-edges", "--share", 1), "'--share' must be between 0 and 1 (got 1.0)"),
        (("users", "--cache", "{users}"), "'--cache' must be a folder (got '"),
        (("users", "--cache", "x", "--no-cache"), "'--cache' must be left out with --no-cache (got 'x')"),
        (("users", "--original-seeds", 51), "'--original-seeds' must be at most 50 (got 51)"),
    ],
)
def test_bad_scenarios(words, sentence, plain, tmp_path, refused):
    graph = gu.InteractionGraph.from_file(tmp_path / "train.csv")
    theirs = {graph.item_ids[i] for u, i in graph.pairs.t().tolist() if graph.user_ids[u] == "u1"}
    absent = next(item for item in graph.item_ids if item not in theirs)
    files = {"users": "u1\nnobody\n", "pairs": f"u1,{absent}\n", "table": "item,genre\ni1,Drama\n"}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    words = [str(word).format(**{name: tmp_path / f"{name}.csv" for name in files}) for word in words]
    assert sentence in refused("bench", *words, *plain, "--methods", "unlink", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_trained_models_are_kept_unless_told_not_to(plain, tmp_path, parsed, cache):
    words = ("bench", "adversarial-edges", *plain, "--methods", "unlink")
    first = parsed(*words, "--out", tmp_path / "a")
    assert len(list(cache.iterdir())) == 4  # the clean one, the original and two retrained ones
    second = parsed(*words, "--out", tmp_path / "b")
    assert second["notes"][-1].startswith("2 of the 2 retrained models came from the cache")
    assert [m["utility"] for m in second["methods"]] == [m["utility"] for m in first["methods"]]
    other = parsed(*words, "--out", tmp_path / "c", "--cache", tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 4
    assert not any("cache" in note for note in other["notes"])
    assert not any("cache" in note for note in parsed(*words, "--out", tmp_path / "d", "--no-cache")["notes"])
    assert len(list(cache.iterdir())) == 4


def test_the_folder_of_trained_models_follows_the_environment(monkeypatch, tmp_path):
    assert bench_module.Caching(cache=tmp_path / "mine").folder() == tmp_path / "mine"
    monkeypatch.setenv("GRAPHUNLEARN_CACHE", str(tmp_path / "set"))
    assert bench_module.Caching().folder() == tmp_path / "set"
    monkeypatch.delenv("GRAPHUNLEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert bench_module.Caching().folder() == tmp_path / "xdg" / "graphunlearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert bench_module.Caching().folder() == tmp_path / "home" / ".cache" / "graphunlearn"
    assert bench_module.Caching(no_cache=True).folder() is None
    assert list(tmp_path.iterdir()) == []


def test_an_audit_keeps_its_retrained_models(forgotten, tmp_path, parsed, cache):
    words = ("audit", forgotten, "--retrain-seeds", 2)
    first = parsed(*words, "--out", tmp_path / "a")
    assert len(list(cache.iterdir())) == 2
    second = parsed(*words, "--out", tmp_path / "b")
    assert second["notes"][-1].startswith("2 of the 2 retrained models came from the cache")
    assert first["methods"][1]["seconds"] == second["methods"][1]["seconds"]
    third = parsed(*words, "--out", tmp_path / "c", "--no-cache")
    assert not any("cache" in note for note in third["notes"])


def test_removal_with_a_test_file_and_labels(ratings, tmp_path, parsed):
    train, test = gu.InteractionGraph.from_file(ratings).random_split([0.7, 0.3])
    for name, part in (("train", train), ("test", test)):
        part.to_frame().to_csv(tmp_path / f"{name}.csv", index=False)
    words = ("--data", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--threshold", 3, "--retrain-seeds", 2)
    told = parsed("bench", "users", *words, "--methods", "unlink", "--out", tmp_path / "x", *QUICK)
    assert "BCE" in told["model"]["objective"]
    assert "auroc" in told["methods"][2]["utility"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--methods", "irfu"), "did you mean 'ifru'?"),
        (("--methods",), "'--methods' must name methods other than retrain (got none)"),
        (("--methods", "retrain"), "'--methods' must name methods other than retrain (got retrain)"),
        (("--objective", "bpr"), "'--objective' must be bce for flipped-labels"),
        (("--test", "x.csv"), "'--test' must be left out for flipped-labels"),
        (("--share", 1.5), "'--share' must be between 0 and 1 (got 1.5)"),
        (("--data-seeds", 0), "'--data-seeds' must be at least 1 (got 0)"),
        (("--retrain-seeds", 1), "'--retrain-seeds' must be at least 2 (got 1)"),
        (("--data", "nothing.csv"), "'--data' must be an existing file"),
    ],
)
def test_bad_options(words, sentence, ratings, tmp_path, refused):
    start = () if "--data" in words else ("--data", ratings)
    out = tmp_path / "x"
    assert sentence in refused("bench", "flipped-labels", *start, "--out", out, *QUICK, *words)
    assert not out.exists()


def test_flipped_labels_need_ratings(tmp_path, refused):
    (tmp_path / "r.csv").write_text("user,item\na,b\nc,d\n")
    sentence = refused("bench", "flipped-labels", "--data", tmp_path / "r.csv", "--out", tmp_path / "x")
    assert "must carry ratings" in sentence


def test_audit_of_a_run(forgotten, tmp_path, call, refused):
    copy = shutil.copytree(forgotten, tmp_path / "b")
    status, out, err = call("audit", copy, "--retrain-seeds", 2)
    assert status == 0, err
    report = check(copy, ["ifru"])
    run = Run.load(copy)
    assert report["request"]["level"] == "mixed"
    assert report["dataset"] == run.dataset
    assert report["model"]["name"] == "lightgcn"
    assert report["seeds"] == {"original": 0, "retrain": [1, 2]}
    assert report["methods"][2]["seconds"] == run.forgotten.result.seconds
    assert report["methods"][2]["log"] == run.forgotten.result.log
    assert f"wrote {copy / 'report.json'}" in out
    assert "'--overwrite' replaces it" in refused("audit", copy)
    assert call("audit", copy, "--retrain-seeds", 2, "--overwrite")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_by_default_retrained_models_can_be_judged_by_the_others(forgotten, tmp_path, parsed):
    told = parsed("audit", forgotten, "--out", tmp_path / "x")
    assert len(told["references"]) == 5
    assert told["retrain_pass_rate"] is not None


def test_audit_into_another_folder_leaves_the_run_alone(forgotten, tmp_path, parsed):
    before = {path.name: path.read_bytes() for path in forgotten.iterdir()}
    told = parsed("audit", forgotten, "--retrain-seeds", 2, "--seed", 7, "--out", tmp_path / "x")
    assert told == check(tmp_path / "x", ["ifru"])
    assert told["seeds"]["retrain"] == [7, 8]
    assert {path.name: path.read_bytes() for path in forgotten.iterdir()} == before


def test_audit_refuses(trained, forgotten, tmp_path, refused):
    assert "must be a folder that 'forget' wrote" in refused("audit", trained)
    assert refused("audit", forgotten, "--retrain-seeds", 1) == "'--retrain-seeds' must be at least 2 (got 1)"
    assert "'--seed' must not give a retrained model the seed of the original, 0 (got 0)" in refused(
        "audit", forgotten, "--seed", 0
    )
    assert "'--out' must be a new folder" in refused("audit", forgotten, "--out", trained)


def test_an_interrupted_audit_writes_nothing(forgotten, tmp_path, call, monkeypatch):
    def interrupted(*_args, **_keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(gu.eval, "audit", interrupted)
    assert call("audit", forgotten, "--out", tmp_path / "x")[0] == 130
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    make = gu.datasets.synthetic_interactions
    monkeypatch.setattr(gu.datasets, "synthetic_interactions", lambda seed: make(60, 40, 8, seed=seed))
    monkeypatch.chdir(tmp_path)


def test_demo_writes_its_folder_again_and_again_and_keeps_no_models(small_demo, tmp_path, call, parsed, cache):
    status, out, err = call("demo")
    assert status == 0, err
    report = check(tmp_path / "runs" / "demo", ["ifru", "unlink", "unlink-redraw", "finetune", "ascent"])
    assert report["scenario"] == "flipped-labels"
    assert report["seeds"]["retrain"] == 3
    assert "runs/demo/report.html" in out
    told = parsed("demo", "--seed", 1)
    assert told == check(tmp_path / "runs" / "demo", ["ifru", "unlink", "unlink-redraw", "finetune", "ascent"])
    assert told["methods"][0]["utility"] != report["methods"][0]["utility"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["demo"]
    assert list(cache.iterdir()) == []


def test_demo_replaces_a_folder_it_was_given_only_when_told(small_demo, tmp_path, call, refused):
    assert call("demo", "--out", "mine")[0] == 0
    before = (tmp_path / "mine" / "report.json").read_text()
    assert "'--overwrite' replaces it" in refused("demo", "--out", "mine")
    assert (tmp_path / "mine" / "report.json").read_text() == before
    assert call("demo", "--out", "mine", "--overwrite", "--seed", 4)[0] == 0
    assert (tmp_path / "mine" / "report.json").read_text() != before


def test_demo_never_replaces_the_work_of_others(small_demo, tmp_path, refused):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "notes.txt").write_text("mine")
    assert "which holds 'notes.txt'" in refused("demo")


def test_the_report_names_no_folder(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/graphunlearn", "train", "--data", "/home/ann/r.csv", "--out", "a/b"])
    assert bench_module.command() == "graphunlearn train --data r.csv --out a/b"
