"""Training a session model: what is read, how it is cut, and what is refused."""

import gzip
import math

import pytest
import torch
from click_files import as_lists, named, rows_of, walks, write_rows
from quick import QUICK

import graphunlearn as gu
from graphunlearn.cli import main
from graphunlearn.cli._options import LAYERS, WIDTH
from graphunlearn.nn import MODELS, build_model, encode, kind_of, reset_parameters
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run

SESSION_MODELS = [name for name in MODELS if kind_of(name) == "sessions"]


def test_is_fit_on_sessions_cut_by_time(clicks, trained_sessions):
    train, validation, _ = gu.SessionGraph.from_file(clicks).time_split([0.8, 0.1, 0.1])
    model = build_model("gru4rec", train, dim=4, layers=1)
    reset_parameters(model, 0)
    held = validation.without_unseen(train)
    result = gu.fit(model, train, validation=held, objective=gu.CrossEntropy(), epochs=3, batch_size=4096)
    run = Run.load(trained_sessions)
    assert fingerprint(run.model) == fingerprint(model)
    assert run.about["fit"]["best"] == result.best
    sessions = named(walks(120))
    for name, part in (("train", range(96)), ("validation", range(96, 108)), ("test", range(108, 120))):
        assert as_lists(getattr(run, name)) == {f"s{k}": sessions[f"s{k}"] for k in part}
    assert run.dataset == {"name": "clicks", "items": 20} | {
        f"{name}_{what}": getattr(getattr(run, name), f"num_{what}")
        for name in ("train", "validation", "test")
        for what in ("sessions", "clicks")
    }


@pytest.mark.parametrize("model", SESSION_MODELS)
def test_defaults_are_those_of_the_kind(model, clicks, tmp_path, parsed):
    told = parsed("train", "--data", clicks, "--model", model, "--out", tmp_path / "a", "--epochs", 1)
    run = Run.load(tmp_path / "a")
    graph = run.train
    assert told["model"] == {"name": model, "dim": WIDTH["sessions"], "layers": LAYERS.get(model, 2)}
    assert repr(run.model) == repr(build_model(model, graph, WIDTH["sessions"]))
    assert run.settings == gu.nn.FitSettings(**{**vars(gu.nn.default_settings(graph)), "epochs": 1})
    assert run.objective == gu.CrossEntropy()


def test_scores_are_those_of_every_prefix_of_the_test_sessions(clicks, tmp_path, parsed):
    told = parsed("train", "--data", clicks, "--model", "srgnn", "--out", tmp_path / "a", *QUICK)
    run = Run.load(tmp_path / "a")
    ranks = []
    with torch.no_grad():
        for session in run.test.items.split(run.test.length.tolist()):
            for end in range(1, len(session)):
                prefix = gu.SessionGraph.from_sequences([session[:end].tolist()], num_items=20)
                state, items, *_ = encode(run.model, prefix)
                scores = items @ state[0]
                ranks.append(1 + int((scores > scores[session[end]]).sum()))
    inside = [rank for rank in ranks if rank <= 20]
    wanted = {
        "recall@20": len(inside) / len(ranks),
        "mrr@20": sum(1 / rank for rank in inside) / len(ranks),
        "ndcg@20": sum(1 / math.log2(rank + 1) for rank in inside) / len(ranks),
    }
    assert told["test"] == pytest.approx(wanted, rel=1e-4)


def test_says_what_it_did(clicks, tmp_path, call):
    status, out, err = call("train", "--data", clicks, "--model", "gru4rec", "--out", tmp_path / "a", *QUICK)
    assert status == 0, err
    assert "trained gru4rec" in out
    assert "on the test part: Recall@20" in out
    assert "clicks: 120 sessions, 20 items" in err
    *_, hint = out.splitlines()
    assert hint.startswith("next: graphunlearn forget ")
    words = [*hint.split()[2:], "--method", "unlink"]
    assert main(words) == 0  # what it advises works


def test_a_test_file_is_the_test_part(tmp_path, call):
    train, test = walks(100), walks(15, seed=1)
    test[0][1] = test[3][0] = 77  # an item that the data lack
    train[99] = [0, 55, 1]  # an item of the validation sessions alone
    test[1][1:1] = [55]
    write_rows(tmp_path / "train.csv", rows_of(train))
    write_rows(tmp_path / "test.csv", rows_of(test, 100))
    words = ("--data", tmp_path / "train.csv", "--test", tmp_path / "test.csv", "--model", "gru4rec")
    status, _, err = call("train", *words, "--split", 0.7, 0.2, 0.1, "--out", tmp_path / "a", *QUICK)
    assert status == 0, err
    run = Run.load(tmp_path / "a")
    assert as_lists(run.train) == named(train[:80])
    assert as_lists(run.validation) == named(train[80:], 80)
    expected = named([[item for item in session if item != 77] for session in test], 100)
    assert as_lists(run.test) == {name: items for name, items in expected.items() if items}
    assert err.count("1 validation click on items without training clicks was left out") == 1
    assert err.count("2 of 79 clicks of '--test' were left out: '--data' does not contain their items") == 1
    assert err.count("1 test click on items without training clicks was left out") == 1


def test_the_last_sessions_by_time_or_order(tmp_path, parsed):
    rows = rows_of(walks(60))
    later = [(name, item, time + 10**6 * (int(name[1:]) % 7 == 3)) for name, item, time in rows]
    last = sorted({name: time for name, _, time in later}.items(), key=lambda entry: entry[1])[-25:]
    by_time, by_order = {name for name, _ in last}, {f"s{number}" for number in range(35, 60)}
    cases = (("time", later, by_time), ("order", [row[:2] for row in later], by_order))
    for case, content, kept in cases:
        path = write_rows(tmp_path / f"{case}.csv", content, "session,item,time" if case == "time" else "session,item")
        words = ("--data", path, "--last-sessions", 25, "--model", "gru4rec", "--out", tmp_path / case)
        told = parsed("train", *words, "--split", 0.6, 0.2, 0.2, *QUICK)
        run = Run.load(tmp_path / case)
        parts = [as_lists(getattr(run, name)) for name in ("train", "validation", "test")]
        found = {name: items for part in parts for name, items in part.items()}
        expected = {name: items for name, items in named(walks(60)).items() if name in kept}
        assert found == expected
        assert told["dataset"]["items"] == len({item for items in expected.values() for item in items})
        assert run.about["last_sessions"] == 25


def test_more_last_sessions_than_there_are_is_all_of_them(clicks, trained_sessions, tmp_path, parsed):
    words = ("--data", clicks, "--last-sessions", 500, "--model", "gru4rec", "--out", tmp_path / "a")
    parsed("train", *words, *QUICK)
    assert Run.load(tmp_path / "a").train.fingerprint() == Run.load(trained_sessions).train.fingerprint()


def test_repeats_are_kept_unless_told_otherwise(clicks, trained_sessions, tmp_path, call):
    words = ("train", "--data", clicks, "--collapse-repeats", "--model", "gru4rec", "--out", tmp_path / "a")
    status, _, err = call(*words, *QUICK)
    assert status == 0, err
    sessions = named(walks(120))
    short = {
        name: [item for k, item in enumerate(items) if k == 0 or item != items[k - 1]]
        for name, items in sessions.items()
    }
    dropped = sum(map(len, sessions.values())) - sum(map(len, short.values()))
    assert dropped > 0
    assert err.count("count as one") == 1
    assert f"consecutive clicks on one item count as one: {dropped} clicks were collapsed" in err
    run = Run.load(tmp_path / "a")
    assert as_lists(run.train) == {f"s{k}": short[f"s{k}"] for k in range(96)}
    assert as_lists(Run.load(trained_sessions).train) == {f"s{k}": sessions[f"s{k}"] for k in range(96)}


def test_unsorted_clicks_are_sorted_and_that_is_said_once(clicks, trained_sessions, tmp_path, call):
    head, *lines = clicks.read_text().splitlines()
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    (tmp_path / "clicks.csv").write_text("\n".join([head, *(lines[k] for k in order)]) + "\n")
    words = ("--data", tmp_path / "clicks.csv", "--model", "gru4rec", "--out", tmp_path / "a")
    status, _, err = call("train", *words, *QUICK)
    assert status == 0, err
    assert len([line for line in err.splitlines() if "sorted" in line]) == 1
    assert as_lists(Run.load(tmp_path / "a").train) == as_lists(Run.load(trained_sessions).train)


def test_an_interrupted_training_goes_on(clicks, trained_sessions, tmp_path, call, monkeypatch):
    losses = gu.CrossEntropy.losses
    seen = []

    def interrupted(self, *args):
        seen.append(0)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return losses(self, *args)

    words = ("train", "--data", clicks, "--model", "gru4rec", "--out", tmp_path / "a", *QUICK)
    monkeypatch.setattr(gu.CrossEntropy, "losses", interrupted)
    assert call(*words)[0] == 130
    monkeypatch.undo()
    status, _, err = call(*words)
    assert status == 0
    assert "continuing an interrupted training" in err
    assert fingerprint(Run.load(tmp_path / "a").model) == fingerprint(Run.load(trained_sessions).model)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("session,item,time\na,x,1\na,y,soon\n", "line 3"),
        ("session,item,time\na,x,2014-04-07T10:51:09Z\na,y,yesterday\n", "line 3"),
        (
            "session,item,time\na,x,1\nb,y,2\nc,x,3\n",
            "'--data' must hold a session of two clicks or more (got 3 of one click)",
        ),
        ("session,item\na,x\na,y\n", "the validation part must hold a session of two clicks or more, on items that"),
        ("", "got an empty file"),
        ("session\na\nb\n", "column"),
    ],
)
def test_malformed_files(text, sentence, tmp_path, refused):
    (tmp_path / "bad.csv").write_text(text)
    words = ("--data", tmp_path / "bad.csv", "--model", "srgnn", "--out", tmp_path / "a")
    assert sentence in refused("train", *words, *QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_truncated_gzip_file(clicks, tmp_path, refused):
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(clicks.read_bytes())[:-20])
    words = ("--data", tmp_path / "c.csv.gz", "--model", "srgnn", "--out", tmp_path / "a")
    assert "truncated" in refused("train", *words, *QUICK)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--threshold", 3), "'--threshold' must go with a model of users and items (got it with gru4rec)"),
        (("--objective", "bce"), "'--objective' must go with a model of users and items (got it with gru4rec)"),
        (("--weight-decay", 0.1), "'--weight-decay' must go with a model of users and items (got it with gru4rec)"),
        (("--negatives", 3), "'--negatives' must go with a model of users and items (got it with gru4rec)"),
        (
            ("--model", "mf", "--last-sessions", 9),
            "'--last-sessions' must go with a model of sessions (got it with mf)",
        ),
        (("--model", "mf", "--collapse-repeats"), "'--collapse-repeats' must go with a model of sessions (got it with"),
        (("--last-sessions", 0), "'--last-sessions' must be at least 1 (got 0)"),
        (("--last-sessions", 2), "the validation part must hold a session of two clicks or more"),
        (("--split", 0.5, 0.1, 0.1), "'--split' must be positive and add up to 1"),
        (("--data", "nothing.csv"), "existing file of clicks for gru4rec, or one of yoochoose-100k, diginetica, "),
        (("--data", "ml-100k"), "(got 'ml-100k', a data set of users and items)"),
        (("--split", 0.5, 0.5, 0), "'--split' must be positive and add up to 1 (got 0.5 0.5 0.0)"),
        (("--model", "sasrec", "--dim", 7), "'--dim' must be divisible by 2 for sasrec (got 7)"),
        (("--test", "nothing.csv"), "'--test' must be an existing file (got 'nothing.csv')"),
        (("--dim", 0), "'--dim' must be at least 1"),
        (("--patience", 0), "'--patience' must be a positive integer"),
    ],
)
def test_bad_options(words, sentence, clicks, tmp_path, refused):
    start = () if "--data" in words else ("--data", clicks)
    model = () if "--model" in words else ("--model", "gru4rec")
    assert sentence in refused("train", *start, *model, "--out", tmp_path / "a", *QUICK, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_test_file_of_nothing_that_is_known(clicks, tmp_path, refused):
    write_rows(tmp_path / "test.csv", rows_of([[70, 71], [72, 73]], 500))
    words = ("--data", clicks, "--test", tmp_path / "test.csv", "--model", "gru4rec", "--out", tmp_path / "a")
    sentence = refused("train", *words, *QUICK)
    assert sentence == "'--test' must hold some of the items of '--data' (got 4 clicks, all on unknown ones)"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("text", "model", "sentence"),
    [
        (
            "session,item,time\na,x,1\na,y,2\n",
            "lightgcn",
            "the file looks like clicks in sessions, which '--model srgnn, gru4rec, sasrec, narm, bert4rec or gcegnn' "
            "reads",
        ),
        (
            "user_id:token\titem_id:token\trating:float\n1\t2\t3\n2\t2\t3\n",
            "srgnn",
            "the file looks like interactions of users and items, "
            "which '--model lightgcn, mf, sgl, simgcl or ngcf' reads",
        ),
        (
            "what,item,time\na,x,1\na,y,2\n",
            "srgnn",
            "it is known by names such as sessionid, session, sid, sessionkey, visit or visitid",
        ),
    ],
)
def test_a_file_for_the_other_kind_of_model(text, model, sentence, tmp_path, refused):
    (tmp_path / "a.csv").write_text(text)
    refusal = refused("train", "--data", tmp_path / "a.csv", "--model", model, "--out", tmp_path / "a", *QUICK)
    assert refusal.endswith(sentence)
    assert "name it with" not in refusal


def test_a_first_line_that_names_nothing_is_data_and_that_is_said(tmp_path, call):
    write_rows(tmp_path / "a.csv", [row[:2] for row in rows_of(walks(60))], "foo,bar")
    words = ("--data", tmp_path / "a.csv", "--model", "gru4rec", "--out", tmp_path / "a")
    status, _, err = call("train", *words, *QUICK)
    assert status == 0, err
    assert err.count("was taken to have no header: its first line is data (got 'foo', 'bar')") == 1
