"""Forgetting clicks, sessions, items and users from a session run, and all that is refused."""

import json
import shutil

import pytest
from click_files import as_lists, rows_of, walks, write_rows
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli._methods import DEFAULT, build_method, method_names, options_of, preparable, rebuild_method
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators import registry
from graphunlearn.runs.run import Run

SHORT = ("--option", "steps=3", "epochs=1")
PARTS = ("train", "validation", "test")


def write_clicks(path, clicks, header="session,position\n"):
    path.write_text(header + "".join(f"{session},{position}\n" for session, position in clicks))
    return path


def without(sessions, clicks):
    """Sessions by name without clicks, neighbours joined; those that lose all of theirs go."""
    left = {name: [item for k, item in enumerate(items) if (name, k) not in clicks] for name, items in sessions.items()}
    return {name: items for name, items in left.items() if items}


def test_is_the_method_on_the_run(trained_sessions, tmp_path, parsed):
    told = parsed("forget", trained_sessions, "--sessions", "s1", "s5", *SHORT, "--seed", 3, "--out", tmp_path / "x")
    run, after = Run.load(trained_sessions), Run.load(tmp_path / "x")
    method = gu.CAU(validation=run.validation.without_unseen(run.train), steps=3, epochs=1, seed=3)
    result = method.unlearn(run.model, run.train, gu.ForgetRequest("session", ["s1", "s5"]))
    assert told["method"] == DEFAULT["sessions"] == "cau"
    assert fingerprint(after.model) == fingerprint(result.model) != fingerprint(run.model)
    assert after.train.fingerprint() == result.graph.fingerprint()
    assert after.forgotten.options == options_of(method) == told["options"]
    assert told["request"]["clicks"] == run.train.num_clicks - after.train.num_clicks


SERVING = [
    name
    for name in method_names()
    if name not in registry or registry[name].__module__.startswith("graphunlearn.")
    if "sessions" in type(build_method(name, gu.CrossEntropy())).kinds
]


@pytest.mark.parametrize("name", SERVING)
def test_every_method_serves_or_says_why_not(name, trained_sessions, tmp_path, call):
    words = ("--items", "i1", "--method", name, *(SHORT if name.startswith("cau") else ()))
    status, out, err = call("forget", trained_sessions, *words, "--out", tmp_path / "x", "--json")
    if name in preparable():
        sentence = f"graphunlearn: 'run' must hold a preparation for {name} (got none); prepare it first: "
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].startswith(sentence)
        assert list(tmp_path.iterdir()) == []
        return
    assert status == 0, err
    after = Run.load(tmp_path / "x")
    assert json.loads(out)["method"] == after.forgotten.result.method == name
    assert "i1" not in {item for items in as_lists(after.train).values() for item in items}


def test_which_methods_serve_sessions():
    named = {"cau", "cau-published", "ascent", "ascent-finetune", "finetune", "unlink", "retrain", "negative-kl"}
    named |= {"unlink-redraw", "ceu", "gif", "gif-published", "idea", "scif"}
    named |= {"popularity-kl"}
    assert named | {"sisa", "sru"} == set(SERVING)
    assert set(preparable()) & set(SERVING) == {"sisa", "sru"}


@pytest.mark.parametrize("header", ["session,position\n", ""])
def test_clicks_by_session_and_position(header, trained_sessions, tmp_path, call):
    before = as_lists(Run.load(trained_sessions).train)
    long = [name for name, items in before.items() if len(items) > 3]
    gone = {(long[0], 0), (long[1], 2), (long[1], 3), (long[2], len(before[long[2]]) - 1)}
    one, two = sorted(gone)[:2], sorted(gone)[2:]
    files = [write_clicks(tmp_path / f"{n}.csv", part, header) for n, part in enumerate((one, two))]
    words = ("--clicks", files[0], "--clicks", files[1], "--method", "unlink", "--out", tmp_path / "x")
    status, out, err = call("forget", trained_sessions, *words)
    assert status == 0, err
    after = Run.load(tmp_path / "x")
    assert as_lists(after.train) == without(before, gone)
    assert {(name, int(place)) for name, place in after.forgotten.result.request.index} == gone
    assert "forgot 4 clicks with unlink in" in out
    assert f"next: graphunlearn audit {tmp_path / 'x'}" in out


def test_several_kinds_add_up(trained_sessions, tmp_path, parsed):
    run = Run.load(trained_sessions)
    before = as_lists(run.train)
    file = write_clicks(tmp_path / "clicks.csv", [("s7", 0), ("s8", 1)])
    words = ("--clicks", file, "--sessions", "s3", "--items", "i4", "--sessions", "s4", "--method", "unlink")
    told = parsed("forget", trained_sessions, *words, "--out", tmp_path / "x")
    gone = {("s7", 0), ("s8", 1)}
    gone |= {(name, k) for name, items in before.items() for k in range(len(items)) if name in ("s3", "s4")}
    gone |= {(name, k) for name, items in before.items() for k, item in enumerate(items) if item == "i4"}
    assert as_lists(Run.load(tmp_path / "x").train) == without(before, gone)
    assert told["request"]["level"] == "mixed"
    assert told["request"]["clicks"] == len(gone)


def test_forgetting_goes_on_from_a_forgotten_run(forgotten_sessions, tmp_path, parsed):
    parsed("forget", forgotten_sessions, "--sessions", "s9", "--method", "unlink", "--out", tmp_path / "x")
    after, before = Run.load(tmp_path / "x"), Run.load(forgotten_sessions)
    assert after.forgotten.graph.fingerprint() == before.train.fingerprint()
    assert not set(after.train.session_ids) & {"s1", "s2", "s9"}
    assert after.train.num_items == before.train.num_items


def test_what_was_held_out_is_dropped_and_counted(trained_sessions, tmp_path, call):
    run = Run.load(trained_sessions)
    parts = {name: as_lists(getattr(run, name)) for name in PARTS}
    (held, *_), (tested, last, *_) = parts["validation"], parts["test"]
    file = write_clicks(tmp_path / "clicks.csv", [("s5", 1), (held, 0), (tested, 1)])
    words = ("--clicks", file, "--sessions", "s6", last, "--method", "unlink", "--json")
    status, out, err = call("forget", trained_sessions, *words, "--out", tmp_path / "x")
    assert status == 0, err
    assert "2 of the clicks were held out: they are dropped, and there is nothing to unlearn about them" in err
    assert "1 of the sessions was held out: it is dropped, and there is nothing to unlearn about it" in err
    told = json.loads(out)["request"]
    assert (told["held_out_clicks"], told["held_out_sessions"]) == (2, 1)
    after = Run.load(tmp_path / "x")
    assert len(after.forgotten.result.request) == 2
    whole = {(last, k) for k in range(len(parts["test"][last]))}
    assert as_lists(after.validation) == without(parts["validation"], {(held, 0)})
    assert as_lists(after.test) == without(parts["test"], {(tested, 1), *whole})


def test_a_held_out_part_may_lose_everything(trained_sessions, tmp_path, parsed):
    run = Run.load(trained_sessions)
    words = ("--sessions", "s0", *run.test.session_ids, "--method", "unlink", "--out", tmp_path / "x")
    told = parsed("forget", trained_sessions, *words)
    assert told["request"]["held_out_sessions"] == run.test.num_sessions
    assert Run.load(tmp_path / "x").test.num_sessions == 0


def test_nothing_but_what_was_held_out_is_refused(trained_sessions, tmp_path, refused):
    name = Run.load(trained_sessions).test.session_ids[0]
    file = write_clicks(tmp_path / "clicks.csv", [(name, 0)])
    sentence = refused("forget", trained_sessions, "--clicks", file, "--out", tmp_path / "x")
    assert sentence == "'--clicks' must hold a click that the model learned from (got 1, all of them held out from it)"
    sentence = refused("forget", trained_sessions, "--sessions", name, "--out", tmp_path / "x")
    assert sentence.startswith("'--sessions' must hold a session that the model learned from (got 1,")
    file = write_clicks(tmp_path / "clicks.csv", [(name, 99)])
    sentence = refused("forget", trained_sessions, "--clicks", file, "--out", tmp_path / "x")
    assert sentence.startswith(f"'--clicks' must hold clicks of the graph (got ('{name}', 99)")
    assert not (tmp_path / "x").exists()


def test_positions_in_held_out_sessions_are_those_of_the_file(tmp_path, parsed):
    sessions = walks(40)
    sessions[38] = [66, 1, 2, 3]  # its first item is seen nowhere else, which moves nothing
    path = write_rows(tmp_path / "clicks.csv", rows_of(sessions))
    parsed("train", "--data", path, "--model", "gru4rec", "--split", 0.6, 0.2, 0.2, "--out", tmp_path / "a", *QUICK)
    file = write_clicks(tmp_path / "forget.csv", [("s1", 0), ("s38", 2)])
    parsed("forget", tmp_path / "a", "--clicks", file, "--method", "unlink", "--out", tmp_path / "x")
    assert as_lists(Run.load(tmp_path / "x").test)["s38"] == ["i66", "i1", "i3"]


def test_forgotten_items_leave_the_held_out_parts(trained_sessions, tmp_path, call):
    run = Run.load(trained_sessions)
    words = ("--items", "i2", "--method", "unlink", "--out", tmp_path / "x")
    status, _, err = call("forget", trained_sessions, *words)
    assert status == 0
    after = Run.load(tmp_path / "x")
    for name in PARTS:
        before = as_lists(getattr(run, name))
        gone = {(s, k) for s, items in before.items() for k, item in enumerate(items) if item == "i2"}
        assert gone
        assert as_lists(getattr(after, name)) == without(before, gone)
        if name != "train":
            assert f"{len(gone)} {name} clicks of the forgotten items are dropped as well" in err


def test_users_where_sessions_carry_them(trained_sessions, tmp_path, call, parsed, refused):
    rows = [(*row, f"u{int(row[0][1:]) % 9}") for row in rows_of(walks(80))]
    path = write_rows(tmp_path / "clicks.csv", rows, "session,item,time,user")
    parsed("train", "--data", path, "--model", "gru4rec", "--out", tmp_path / "a", *QUICK)
    before = {name: as_lists(getattr(Run.load(tmp_path / "a"), name)) for name in PARTS}
    words = ("--users", "u4", "--method", "unlink", "--out", tmp_path / "x")
    status, _, err = call("forget", tmp_path / "a", *words)
    assert status == 0, err
    assert "clicks of the forgotten users are dropped as well" in err
    after = Run.load(tmp_path / "x")
    for name in PARTS:
        kept = {session: items for session, items in before[name].items() if int(session[1:]) % 9 != 4}
        assert as_lists(getattr(after, name)) == kept
    sentence = refused("forget", trained_sessions, "--users", "u4", "--out", tmp_path / "y")
    assert "'--users' must" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--pairs", "{pairs}"),
            "'--pairs' must go with a model of users and items (got it with gru4rec, one of sessions)",
        ),
        (
            ("--sessions", "s1", "x1"),
            "'--sessions' must hold sessions of the graph (got 'x1'; the graph has 96 sessions, such as",
        ),
        (("--items", "x1"), "'--items' must hold items of the graph (got 'x1'; the graph has 20 items"),
        (("--clicks", "{unknown}"), "'--clicks' must hold "),
        (("--clicks", "{beyond}"), "'--clicks' must hold "),
        (("--clicks", "{negative}"), "must"),
        (("--clicks", "{words}"), "must"),
        (("--clicks", "{single}"), "must hold a session and a position per line"),
        (("--clicks", "nothing.csv"), "'--clicks' must be an existing file (got 'nothing.csv')"),
        (("--clicks", "clicks.txt", "--items", "i1"), "'--clicks' must be an existing file (got 'clicks.txt')"),
        (("--clicks", "{odd}"), "'--clicks' must end in .csv"),
        (
            ("--clicks", "{far}"),
            "far.csv', line 3: the position must be a whole number below 2**63 (got '9223372036854775808')",
        ),
        (
            ("--clicks", "{farther}"),
            "farther.csv', line 1: the position must be a whole number below 2**63 (got '99999999999999999999')",
        ),
        (("--clicks", "{rows}"), "(got columns 'session', 'item'); it is known by names such as position, pos or step"),
        (("--pairs", "nothing.csv"), "'--pairs' must go with a model of users and items"),
        (("--items", *(f"i{n}" for n in range(20))), "'--items' must leave some clicks (got all "),
        (
            ("--items", "i1", "--sessions", *(f"s{n}" for n in range(96))),
            "'--items' and '--sessions' must leave some clicks (got all ",
        ),
        (
            ("--sessions", "s1", "--method", "ifru"),
            "'--method' must be one for models of sessions such as gru4rec, ascent",
        ),
        (
            ("--sessions", "s1", "--method", "unlearnrec"),
            "'--method' must be one for models of sessions such as gru4rec",
        ),
        (("--sessions", "s1", "--method", "caus"), "(got 'caus'; did you mean 'cau'?)"),
        (("--sessions", "s1", "--option", "stps=1"), "(got 'stps'; did you mean 'steps'?)"),
        (("--sessions", "s1", "--option", "steps=0"), "'steps' must"),
        (("--sessions", "s1", "--option", "order=easy"), "'--option order' must be "),
    ],
)
def test_bad_input(words, sentence, trained_sessions, tmp_path, refused):
    files = {
        "pairs": "u1,i1\n",
        "unknown": "session,position\nnowhere,1\n",
        "beyond": "session,position\ns1,77\n",
        "negative": "session,position\ns1,-1\n",
        "words": "session,position\ns1,1\ns1,third\n",
        "single": "s1\ns2\n",
        "odd": "s1,1\n",
        "far": "session,position\ns1,1\ns1,9223372036854775808\n",
        "farther": "s1,99999999999999999999\ns2,1\n",
        "rows": "session,item\ns1,i1\n",
    }
    paths = {name: tmp_path / f"{name}.{'odd' if name == 'odd' else 'csv'}" for name in files}
    for name, text in files.items():
        paths[name].write_text(text)
    words = [str(word).format(**paths) for word in words]
    assert sentence in refused("forget", trained_sessions, *words, "--out", tmp_path / "x")
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--sessions", "s1"),
            "'--sessions' must go with a model of sessions (got it with lightgcn, one of users and items)",
        ),
        (("--clicks", "{clicks}"), "'--clicks' must go with a model of sessions (got it with lightgcn"),
        (("--users", "u1", "--method", "cau"), "'--method' must be one for models of users and items such as lightgcn"),
        (
            ("--users", "u1", "--method", "sru"),
            "'--method' must be one for models of users and items such as lightgcn",
        ),
    ],
)
def test_a_run_of_the_other_kind(words, sentence, trained, tmp_path, refused):
    file = write_clicks(tmp_path / "clicks.csv", [("s1", 0)])
    words = [word.format(clicks=file) for word in words]
    assert sentence in refused("forget", trained, *words, "--out", tmp_path / "x")
    assert list(tmp_path.iterdir()) == [file]


def test_the_published_choices():
    method = build_method("cau-published", gu.CrossEntropy(), options=["steps=7"])
    assert options_of(method) == options_of(gu.CAU.as_published(steps=7))
    assert method.name == "cau-published"
    assert gu.CAU.name == "cau"


def test_options_of_several_numbers(trained_sessions, tmp_path, parsed, refused):
    words = ("--sessions", "s1", "--option", "temperature=0.5,2", "order=soft", "steps=2", "epochs=1")
    told = parsed("forget", trained_sessions, *words, "--out", tmp_path / "x")
    assert told["options"]["temperature"] == [0.5, 2.0]
    run = Run.load(tmp_path / "x")
    assert run.forgotten.options == told["options"]
    again = rebuild_method("cau", gu.CrossEntropy(), run.forgotten.options)
    assert (again.temperature, again.order) == ((0.5, 2.0), "soft")
    for text in ("1", "1,2,3", "1,hot"):
        sentence = refused("forget", trained_sessions, *words[:3], f"temperature={text}", "--out", tmp_path / "y")
        assert sentence == f"'--option temperature' must be 2 numbers with a comma between (got '{text}')"


@pytest.mark.parametrize("name", ["cau", "cau-published", "ascent", "finetune", "ascent-finetune", "negative-kl"])
def test_a_method_is_built_again_from_its_options(name):
    method = build_method(name, gu.CrossEntropy())
    again = rebuild_method(name, gu.CrossEntropy(), json.loads(json.dumps(options_of(method))))
    assert options_of(again) == options_of(method)


def test_clicks_survive_as_clicks(trained_sessions, tmp_path, call, parsed):
    file = write_clicks(tmp_path / "clicks.csv", [("s1", 0), ("s2", 1)])
    words = ("--clicks", file, "--sessions", "s3", "--method", "unlink", "--out", tmp_path / "x")
    assert call("forget", trained_sessions, *words)[0] == 0
    run = Run.load(shutil.copytree(tmp_path / "x", tmp_path / "alone"))
    retained, _ = run.forgotten.graph.split(run.forgotten.result.request)
    assert retained.fingerprint() == run.train.fingerprint()
    assert run.forgotten.graph.fingerprint() == Run.load(trained_sessions).train.fingerprint()


@pytest.mark.parametrize("name", ["train.safetensors", "original_train.safetensors", "run.json"])
@pytest.mark.parametrize("harm", ["cut off", "garbage", "of the other kind"])
def test_a_broken_folder_is_one_sentence(name, harm, forgotten, forgotten_sessions, tmp_path, refused):
    copy = shutil.copytree(forgotten_sessions, tmp_path / "b")
    data = (copy / name).read_bytes()
    other = (forgotten / name).read_bytes()
    (copy / name).write_bytes({"cut off": data[: len(data) // 2], "garbage": b"\0\1" * 50}.get(harm, other))
    sentence = refused("audit", copy)
    assert "'run' must be a" in sentence
    assert str(copy) in sentence


def test_nothing_is_said_of_held_out_parts_before_a_refusal(trained, trained_sessions, tmp_path, call):
    everything = ("--items", *(f"i{n}" for n in range(20)))
    for run, words in ((trained, ("--users", "u1", "--method", "cau")), (trained_sessions, everything)):
        status, out, err = call("forget", run, *words, "--out", tmp_path / "x")
        assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_one_click_is_one_click(trained_sessions, tmp_path, call):
    file = write_clicks(tmp_path / "clicks.csv", [("s5", 0)])
    status, out, _ = call("forget", trained_sessions, "--clicks", file, "--method", "unlink", "--out", tmp_path / "x")
    assert status == 0
    assert "forgot 1 click with unlink in" in out
