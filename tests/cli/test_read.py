"""The command that shows how a file is understood, and options of files on other commands."""

import json

import pytest

import graphunlearn as gu
from graphunlearn.cli import main


@pytest.fixture
def write(tmp_path):
    def writer(content, name="log.csv"):
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return writer


def answer(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys, *words):
    assert main([*words]) == 2
    return capsys.readouterr().err.strip()


def test_read(write, capsys):
    path = write("who,what,stars,ts\na,1,3,5\nb,2,4,6\nb,1,4,6\n")
    told = answer(capsys, "read", path, "--user-column", "who", "--item-column", "1", "--rows", "1")
    assert told["columns"] == {"user": "who", "item": "what", "rating": "stars"}
    assert (told["rows"], told["counts"], told["ignored"]) == (3, {"users": 2, "items": 2}, ["ts"])
    assert told["first"] == [["a", "1", "3.0"]]
    assert told["warnings"] == [f"'{path}': a column was not used ('ts')"]
    assert main(["read", path, "--user-column", "who", "--item-column", "what", "--time-column", "ts"]) == 0
    text = capsys.readouterr().out
    assert "user: who" in text
    assert "3 rows, 2 users, 2 items" in text
    assert "note:" not in text


def test_read_sessions_and_requests(write, capsys):
    clicks = write("SessionId,ItemId,Time\n1,a,2\n1,b,3\n")
    told = answer(capsys, "read", clicks)
    assert (told["kind"], told["counts"]) == ("sessions", {"items": 2, "sessions": 1})
    told = answer(capsys, "read", write("user\n1\n2\n1\n", "r.csv"), "--request", "user")
    assert (told["first"], told["repeated"]) == ([["1"], ["2"]], 1)
    told = answer(capsys, "read", write("1,5\n2,6\n", "p.csv"), "--request", "interaction")
    assert told["first"] == [["1", "5"], ["2", "6"]]


def test_options_in_messages(write, capsys):
    path = write("who,what\na,b\n")
    wrong = failure(capsys, "read", path, "--user-column", "whom", "--item-column", "what")
    assert "'--user-column' must name a column of" in wrong
    assert "there are 'who', 'what'" in wrong
    assert "or one that '--user-column' names (got columns" in failure(capsys, "read", write("who,what,n\na,b,1\n"))
    assert "'--max-size' raises the limit" in failure(capsys, "read", path, "--max-size", "3")
    assert "'--max-size' must be a number of bytes" in failure(capsys, "read", path, "--max-size", "x")
    assert "'--header' must be left out with --no-header" in failure(capsys, "read", path, "--header", "--no-header")
    assert "'--session-column' must go with a file that can have sessions" in failure(
        capsys, "read", path, "--kind", "interactions", "--session-column", "who"
    )
    assert "'--lists' reads a user" in failure(capsys, "read", write("0 1 2 3 4 5\n"))


QUICK = ["--epochs", "1", "--dim", "4"]


def test_train_with_columns_splits_and_overlap(write, tmp_path, capsys):
    rows = [(f"U{u}", i, 100 * u + i) for u in range(12) for i in range(8)]
    text = "".join(f"{u};{i};{t}\n" for u, i, t in rows)
    data = write("who;what;when\n" + text)
    columns = ["--user-column", "who", "--item-column", "what", "--time-column", "when"]
    for by in ("loo", "user", "time", "random"):
        out = tmp_path / by
        assert main(["train", "--data", data, *columns, "--split-by", by, "--out", str(out), *QUICK]) == 0
        parts = [gu.InteractionGraph.load(out / f"{name}.safetensors") for name in ("train", "validation", "test")]
        graph = gu.InteractionGraph.from_file(data, user="who", item="what", time="when")
        expected = [part.fingerprint() for part in graph.split_by(by, [0.8, 0.1, 0.1])]
        assert [part.fingerprint() for part in parts] == expected
    capsys.readouterr()
    test = write("who;what;when\n" + "".join(text.splitlines(keepends=True)[:40]), "test.csv")
    assert main(["train", "--data", data, "--test", test, *columns, "--out", str(tmp_path / "t"), *QUICK]) == 0
    assert "are in the training part and" in capsys.readouterr().err
    bad = failure(
        capsys,
        "train",
        "--data",
        write("user,item\n1,2\n2,3\n3,4\n"),
        "--split-by",
        "time",
        "--out",
        str(tmp_path / "x"),
    )
    assert "'--split-by' must be 'random' or 'user' for data without times (got 'time')" in bad


def test_forgotten_sessions_leave_the_held_out_data(write, tmp_path, capsys):
    head = "session_id,item_id,time,user_id\n"
    train = "".join(f"s{s},{s % 3 * 2 + k % 3},{s * 10 + k},u{s % 5}\n" for s in range(30) for k in range(4))
    test = "".join(f"s{s},{s % 3 * 2 + k},{s * 10 + 5 + k},u{s % 5}\n" for s in range(29, -1, -1) for k in range(2))
    files = ["--data", write(head + train), "--test", write(head + test, "test.csv")]
    run = str(tmp_path / "r")
    assert main(["train", *files, "--split", ".9", ".1", "0", "--model", "gru4rec", "--out", run, *QUICK]) == 0
    assert (
        "of the 30 test sessions, 27 are in the training part and 3 are in the validation part"
        in capsys.readouterr().err
    )
    for option, name, level in (("--sessions", "s3", "session"), ("--users", "u1", "user")):
        out = tmp_path / level
        assert main(["forget", run, option, name, "--method", "unlink", "--out", str(out)]) == 0
        for part in ("train", "validation", "test"):
            graph = gu.SessionGraph.load(out / f"{part}.safetensors")
            if level == "session":
                assert name not in graph.session_ids
            else:
                names = graph.vocabulary("user").ids
                assert name not in {names[user] for user in graph.user.tolist()}


def test_forget_reads_as_told(write, tmp_path, capsys):
    data = write("user,item\n" + "".join(f"{u},{i}\n" for u in range(8) for i in range(6)))
    run = str(tmp_path / "r")
    assert main(["train", "--data", data, "--out", run, *QUICK]) == 0
    pairs = write("what|who\n3|1\n4|1\n", "pairs.txt")
    words = ["forget", run, "--pairs", pairs, "--user-column", "who", "--item-column", "what", "--sep", "|"]
    assert main([*words, "--method", "unlink", "--out", str(tmp_path / "f")]) == 0
    graph = gu.InteractionGraph.load(tmp_path / "f" / "train.safetensors")
    assert graph.num_interactions < gu.InteractionGraph.load(tmp_path / "r" / "train.safetensors").num_interactions


def test_lists_that_do_not_fit(write, capsys):
    path = write("1 2 3\n2 3 4 5\n", "lists.txt")
    assert "'--lists' must be left out for a file" in failure(capsys, "read", path, "--lists", "--kind", "sessions")
    assert "'--lists' must be left out with --request" in failure(capsys, "read", path, "--lists", "--request", "user")
    assert "'--lists' must be left out where" in failure(capsys, "read", path, "--lists", "--user-column", "1")
    rows = write("user,item\n1,2\n", "rows.csv")
    wrong = failure(capsys, "read", rows, "--user-column", "item", "--item-column", "item")
    assert "'--item-column' must be another column of" in wrong
