import json
import math
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from session_toys import random_sessions, session_model
from toys import light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.ledger import LedgerEntry
from graphunlearn.ledger.keys import key_file
from graphunlearn.nn.identity import fingerprint

KEY = bytes(range(32))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(file):
    return gu.Ledger(file, budget=None)


@pytest.fixture
def start():
    graph = random_graph(12, 9, 60, values=False)
    return light_gcn(graph), graph


def user(*ids):
    return gu.ForgetRequest("user", ids)


def lines(path):
    """All bytes that lie beside a ledger, its key left out."""
    return b"".join(p.read_bytes() for p in path.parent.iterdir() if p != key_file(path))


class Killed(BaseException):
    """What a process that is killed never sees."""


def interrupted(ledger, monkeypatch, *args, at, **kwargs):
    """Leave a request under way, as a process does that is killed in ``save`` or in the method."""
    store = "graphunlearn.ledger.store.Store"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"{store}.drop", lambda self: None)
        if at == "method":
            patch.setattr(gu.Unlink, "_unlearn", _kill)
        elif at == "entry":
            patch.setattr(f"{store}.append", _kill)
        ledger.unlearn(*args, **kwargs | ({"save": _kill} if at == "save" else {}))


def _kill(*_):
    raise Killed


# ---- entries


def test_an_entry_tells_what_happened_and_to_whom_not(ledger, file, start):
    model, graph = start
    request = user("3", "5") | gu.ForgetRequest("interaction", [_pair(graph, 0)])
    result = ledger.unlearn(gu.GradientAscent(steps=2), model, graph, request, out="runs/b")
    entry = ledger.entries()[0]
    assert isinstance(entry, LedgerEntry)
    assert (entry.number, entry.kind, entry.method, entry.out) == (1, "forgotten", "ascent", "runs/b")
    assert entry.package == gu.__version__
    assert entry.settings["steps"] == 2
    assert entry.request == request.describe(graph)
    assert (entry.model_before, entry.graph_before) == ledger.fingerprints(model, graph)
    assert (entry.model_after, entry.graph_after) == ledger.fingerprints(result.model, result.graph)
    assert entry.model_after == fingerprint(result.model)
    assert result.graph.fingerprint() not in ledger.path.read_bytes().decode("latin-1")  # or pairs could be tried out
    assert entry.seconds == result.seconds
    assert result.log["ledger"] == {"entry": 1}
    assert entry.digest == request.digest(bytes.fromhex(key_file(file).read_text()))
    json.dumps(entry.to_dict())
    assert ledger.verify(result.model) == 1
    with pytest.raises(ValueError, match="'model' must be the newest, of entry 1"):
        ledger.verify(model)


def _pair(graph, number):
    u, i = graph.pairs[:, number].tolist()
    return graph.user_ids[u], graph.item_ids[i]


def test_ids_are_in_the_file_while_a_request_is_under_way_and_never_after(file, monkeypatch):
    frame = random_graph(12, 9, 60, values=False).to_frame().astype(str)
    graph = gu.InteractionGraph.from_frame(frame.assign(user="reader-" + frame["user"]))
    ledger, request = gu.Ledger(file, budget=None), user(*(f"reader-{k}" for k in range(6)))
    model = light_gcn(graph)
    interrupted(ledger, monkeypatch, gu.Unlink(), model, graph, request, at="save")
    assert b"reader-" in lines(file)
    assert ledger.pending.request == request
    ledger.unlearn(gu.Unlink(), model, graph, request)
    assert ledger.pending is None
    assert b"reader-" not in lines(file)
    assert sorted(p.name for p in file.parent.iterdir()) == ["ledger.db"]


def test_files_are_for_their_owner_alone(file, ledger):
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, key_file(file))} == {0o600}


def test_digests_differ_between_ledgers(tmp_path, start):
    digests = set()
    for name in ("a", "b"):
        ledger = gu.Ledger(tmp_path / name, budget=None)
        ledger.unlearn(gu.Unlink(), *start, user("3"))
        digests.add(ledger.entries()[0].digest)
    assert len(digests) == 2


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_digests_do_not_depend_on_order_type_or_repetition(ids, random):
    others = [str(k) if random.random() < 0.5 else k for k in [*ids, *random.choices(ids, k=3)]]
    random.shuffle(others)
    pairs = gu.ForgetRequest("interaction", [("1", 2)])
    expected = (user(*ids) | pairs).digest(KEY)
    assert (pairs | user(*others)).digest(KEY) == expected
    assert (user(*ids, 51) | pairs).digest(KEY) != expected
    assert (gu.ForgetRequest("item", ids) | pairs).digest(KEY) != expected
    assert (user(*ids) | pairs).digest(KEY[::-1]) != expected
    internal = gu.ForgetRequest.internal("user", torch.tensor(ids))
    assert internal.digest(KEY) != user(*ids).digest(KEY)


def test_a_digest_takes_a_key_that_cannot_be_guessed():
    with pytest.raises(ValueError, match=r"'key' must hold at least 16 bytes \(got 3\)"):
        user("1").digest(b"abc")


def test_a_digest_is_the_hmac_of_rfc_2104(start):
    from hashlib import sha256

    message = json.dumps([["user", True, ["1", "2"]]]).encode()
    inner = sha256(bytes(b ^ 0x36 for b in KEY.ljust(64, b"\0")) + message).digest()
    assert user(2, 1).digest(KEY) == sha256(bytes(b ^ 0x5C for b in KEY.ljust(64, b"\0")) + inner).hexdigest()


# ---- one request after another


def run_through(ledger, start, count=3):
    model, graph = start
    for k in range(count):
        result = ledger.unlearn(gu.GradientAscent(steps=1), model, graph, user(str(k)))
        model, graph = result.model, result.graph
    return model, graph


def test_requests_go_on_from_the_newest_model_alone(ledger, start):
    model, _ = run_through(ledger, start)
    assert ledger.verify(model) == 3
    with pytest.raises(ValueError, match=r"newest .* of entry 3, with its graph .*contains what was forgotten"):
        ledger.unlearn(gu.Unlink(), start[0], start[1], user("7"))
    with pytest.raises(ValueError, match="'model' must be the newest"):
        ledger.unlearn(gu.Unlink(), model, start[1], user("7"))
    assert ledger.pending is None
    assert len(ledger.entries()) == 3


def test_a_request_that_is_done_is_not_applied_twice(ledger, start):
    model, graph = run_through(ledger, start, 1)
    for asked_of in (start, (model, graph)):
        assert ledger.find(user("0"), *asked_of).number == 1
        assert ledger.find(user("1"), *asked_of) is None
    again = ledger.unlearn(gu.Unlink(), model, graph, user("0"))
    assert (again.model, again.graph, again.method) == (model, graph, "ascent")
    assert again.log["ledger"] == {"entry": 1}
    with pytest.raises(ValueError, match=r"'request' must not be done yet .*entry 1"):
        ledger.unlearn(gu.Unlink(), *start, user("0"))
    other = light_gcn(start[1], seed=5), start[1]
    assert ledger.find(user("0"), *other) is None  # nobody forgot anything from that one
    assert len(ledger.entries()) == 1


def test_the_same_click_of_another_graph_is_another_click(ledger):
    graph = gu.SessionGraph.from_sequences(random_sessions())
    model = session_model("gru4rec", graph.num_items)
    long = graph.session_ids[int(graph.length.argmax())]
    request = gu.ForgetRequest("click", [(long, 1)])
    first = ledger.unlearn(gu.Unlink(), model, graph, request)
    assert ledger.find(request, model, graph).number == 1
    second = ledger.unlearn(gu.Unlink(), first.model, first.graph, request)
    assert second.graph.num_clicks == graph.num_clicks - 2
    assert len(ledger.entries()) == 2


def test_what_was_learned_again_is_forgotten_again(ledger, start):
    model, graph = start
    first = ledger.unlearn(gu.GradientAscent(steps=2), model, graph, user("3"))
    again = light_gcn(graph, seed=5)
    ledger.record_retrained(again, graph)  # the user has come back
    assert ledger.find(user("3"), again, graph) is None
    assert ledger.find(user("3"), first.model, first.graph).number == 1
    second = ledger.unlearn(gu.GradientAscent(steps=2), again, graph, user("3"))
    assert second.graph.num_interactions < graph.num_interactions
    assert [entry.kind for entry in ledger.entries()] == ["forgotten", "retrained", "forgotten"]
    assert ledger.find(user("3"), second.model, second.graph).number == 3
    ledger.record_retrained(light_gcn(graph, seed=6), second.graph)  # on what remains: nobody has come back
    assert ledger.find(user("3"), light_gcn(graph, seed=6), second.graph).number == 3
    assert ledger.verify() == 4


def test_what_the_method_refuses_is_not_taken_up(ledger, start, file):
    for request in (user("nobody"), gu.ForgetRequest("session", ["3"])):
        with pytest.raises(ValueError, match=r"'index' must|'request' must"):
            ledger.unlearn(gu.Unlink(), *start, request)
        assert ledger.pending is None
    assert b"nobody" not in lines(file)
    assert ledger.entries() == []


def test_ctrl_c_in_the_method_takes_the_request_back(ledger, start, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gu.Unlink, "_unlearn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ledger.unlearn(gu.Unlink(), *start, user("3"))
    assert ledger.pending is None


# ---- interruptions


@pytest.mark.parametrize("at", ["method", "save", "entry"])
def test_an_interrupted_request_is_finished_from_the_old_model(at, ledger, start, monkeypatch):
    method = gu.Unlink()
    interrupted(ledger, monkeypatch, method, *start, user("3"), at=at)
    pending = ledger.pending
    assert (pending.request, pending.method) == (user("3"), "unlink")
    assert (pending.after is None) == (at == "method")
    assert ledger.verify() == 0
    saved = []
    result = ledger.unlearn(method, *start, user("3"), save=saved.append)
    assert saved == [result]
    assert result.graph.num_interactions < start[1].num_interactions
    assert ledger.pending is None
    assert ledger.verify(result.model) == 1


@pytest.mark.parametrize("at", ["save", "entry"])
def test_with_the_new_model_it_is_only_entered(at, ledger, start, monkeypatch):
    saved = []
    method = gu.GradientAscent(steps=1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("graphunlearn.ledger.store.Store.append", _kill)
        ledger.unlearn(method, *start, user("3"), save=saved.append)
    new = saved[0]
    result = ledger.unlearn(method, new.model, new.graph, user("3"), save=_kill)
    assert (result.model, result.graph) == (new.model, new.graph)
    assert ledger.verify(new.model) == 1
    assert ledger.entries()[0].seconds == result.seconds == new.seconds


def test_no_other_request_is_taken_up_meanwhile(ledger, file, start, monkeypatch):
    interrupted(ledger, monkeypatch, gu.Unlink(), *start, user("3"), at="save")
    for call in (
        lambda: ledger.unlearn(gu.Unlink(), *start, user("4")),
        lambda: ledger.record_retrained(*start),
    ):
        with pytest.raises(
            ValueError, match=r"'ledger' must have no other pending request .*; repeat that request to finish it$"
        ):
            call()
    ledger.drop()
    assert ledger.pending is None
    ledger.unlearn(gu.Unlink(), *start, user("4"))
    with pytest.raises(ValueError, match="must have a pending request to drop"):
        ledger.drop()


def test_finishing_takes_the_model_that_was_saved(ledger, start, monkeypatch):
    with pytest.raises(ValueError, match="must have a pending request whose method has finished"):
        ledger.finish(*start)
    saved = []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("graphunlearn.ledger.store.Store.append", _kill)
        ledger.unlearn(gu.GradientAscent(steps=1), *start, user("3"), save=saved.append)
    with pytest.raises(ValueError, match="'model' must be the result of the pending request"):
        ledger.finish(*start)
    assert ledger.finish(saved[0].model, saved[0].graph).number == 1


def test_a_second_attempt_that_fails_leaves_what_the_first_came_to(ledger, start, monkeypatch):
    interrupted(ledger, monkeypatch, gu.Unlink(), *start, user("3"), at="entry")
    first = ledger.pending
    monkeypatch.setattr(gu.Unlink, "_unlearn", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ledger.unlearn(gu.Unlink(), *start, user("3"))
    assert ledger.pending == first


def test_requests_by_internal_numbers_come_back(ledger, start, monkeypatch):
    request = gu.ForgetRequest.internal("interaction", start[1].pairs[:, :3]) | user("3")
    interrupted(ledger, monkeypatch, gu.Unlink(), *start, request, at="method")
    assert ledger.pending.request.digest(KEY) == request.digest(KEY)
    assert ledger.unlearn(gu.Unlink(), *start, ledger.pending.request).log["ledger"] == {"entry": 1}


def test_a_failing_save_can_be_given_again(ledger, start):
    def full(_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        ledger.unlearn(gu.Unlink(), *start, user("3"), save=full)
    assert ledger.pending is not None
    ledger.unlearn(gu.Unlink(), *start, user("3"))
    assert len(ledger.entries()) == 1


# ---- other entries


def test_audits_are_entries_of_their_own(ledger, start):
    model, graph = run_through(ledger, start, 2)
    entry = ledger.record_audit(1, {"gap_closed": 0.97})
    assert (entry.number, entry.kind, entry.of, entry.figures) == (3, "audited", 1, {"gap_closed": 0.97})
    assert ledger.verify(model) == 3
    ledger.unlearn(gu.Unlink(), model, graph, user("8"))
    for number in (0, 3, 9):
        with pytest.raises(ValueError, match=rf"'number' must be one of a request, 1, 2, 4 \(got {number}\)"):
            ledger.record_audit(number, {})


def test_a_model_that_was_trained_anew_is_gone_on_from(ledger, start):
    _, graph = run_through(ledger, start, 2)
    new = light_gcn(graph, seed=9)
    entry = ledger.record_retrained(new, graph, out="runs/new")
    assert (entry.kind, entry.graph_before, entry.out) == ("retrained", entry.graph_after, "runs/new")
    ledger.unlearn(gu.Unlink(), new, graph, user("5"))
    assert ledger.verify() == 4


# ---- tampering


TAMPERING = {
    "content": "UPDATE entry SET content = replace(content, 'ascent', 'retrai') WHERE number = 2",
    "hash": "UPDATE entry SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE number = 2",
    "left out": "DELETE FROM entry WHERE number = 2",
    "the first left out": "DELETE FROM entry WHERE number = 0",
    "all left out": "DELETE FROM entry",
    "renumbered": "UPDATE entry SET number = 9 WHERE number = 2",
    "copied": "INSERT INTO entry SELECT 4, content, hash FROM entry WHERE number = 3",
    "swapped": "UPDATE entry SET content = (SELECT o.content FROM entry o WHERE o.number = 5 - entry.number) "
    "WHERE number IN (2, 3)",
    "no entry": "UPDATE entry SET content = 'nothing' WHERE number = 2",
}


@pytest.mark.parametrize("how", TAMPERING)
def test_the_file_refuses_and_the_chain_shows_tampering(how, ledger, file, start):
    run_through(ledger, start)
    with sqlite3.connect(file) as connection:
        if how != "copied":
            with pytest.raises(sqlite3.IntegrityError, match=r"an entry is never (changed|deleted)"):
                connection.execute(TAMPERING[how])
        for name in ("entry_stays", "entry_is_kept", "entry_in_order"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(TAMPERING[how])
    connection.close()
    with pytest.raises(ValueError, match=r"'ledger' must (?!refuse)"):  # told by the entries, guarded or not
        ledger.verify()


def test_a_guard_that_was_taken_out_is_missed(ledger, file, start):
    run_through(ledger, start)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER entry_stays")
    connection.close()
    with pytest.raises(ValueError, match="'ledger' must have its triggers against changes of entries"):
        ledger.verify()
    with pytest.raises(ValueError, match="'ledger' must have its triggers against changes of entries"):
        ledger.unlearn(gu.Unlink(), *start, user("3"))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ("DROP TRIGGER entry_is_kept; DELETE FROM entry", "must have a first entry"),
        ("INSERT INTO pending VALUES (1, 'x')", "must hold a pending request as JSON"),
        ("INSERT INTO pending VALUES (1, '[1]')", "must hold a pending request as JSON"),
        ("""INSERT INTO pending VALUES (1, '{"time": 1}')""", r"a complete pending request \(got one of \['time"),
        ("""INSERT INTO pending VALUES (1, '{"request": 1}')""", "must hold a complete pending request"),
    ],
)
def test_what_no_ledger_writes_is_told_in_a_sentence(edit, sentence, ledger, file, start):
    ledger.unlearn(gu.Unlink(), *start, user("3"))
    with sqlite3.connect(file) as connection:
        connection.executescript(edit)
    connection.close()
    with pytest.raises(ValueError, match=sentence):
        ledger.unlearn(gu.Unlink(), *start, user("3"))


def test_replacing_is_refused_as_well(ledger, file, start):
    run_through(ledger, start)
    connection = sqlite3.connect(file)
    for number in (0, 2, 7):
        with pytest.raises(sqlite3.IntegrityError, match="an entry follows the last one"):
            connection.execute(f"INSERT OR REPLACE INTO entry VALUES ({number}, 'x', 'y')")
    connection.close()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A ledger of three entries; not to be changed."""
    file, graph = tmp_path_factory.mktemp("three") / "ledger.db", random_graph(12, 9, 60, values=False)
    run_through(gu.Ledger(file, budget=None), (light_gcn(graph), graph))
    return file


@settings(max_examples=30)
@given(data=st.data())
def test_every_byte_of_an_entry_counts(data, three, tmp_path_factory):
    connection = sqlite3.connect(three)
    texts = [part.encode() for row in connection.execute("SELECT content, hash FROM entry") for part in row]
    connection.close()
    whole, text = bytearray(three.read_bytes()), data.draw(st.sampled_from(texts))
    whole[whole.index(text) + data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.sampled_from([1, 2, 4, 128]))
    broken = tmp_path_factory.mktemp("broken") / "ledger.db"
    broken.write_bytes(whole)
    key_file(broken).write_text(key_file(three).read_text())
    with pytest.raises(ValueError, match="ledger"):
        gu.Ledger(broken).verify()


def test_entries_go_from_model_to_model(ledger, file, start):
    from graphunlearn.ledger.store import Store

    run_through(ledger, start)
    last = ledger.entries()[-1].to_dict()
    for name in ("number", "time", "package", "hash"):
        last.pop(name)
    with Store.writing(file) as store:
        store.append(last)  # starts where the third did, and not where it ended
    with pytest.raises(ValueError, match="entry 4 does not start from the model of entry 3"):
        ledger.verify()


@pytest.mark.parametrize("part", ["model", "graph"])
def test_entries_go_from_model_to_model_and_from_graph_to_graph(part, ledger, file, start):
    """An entry that goes on from the model, but from another graph, is found as well, and the other way round."""
    from graphunlearn.ledger.store import Store

    run_through(ledger, start)
    last = ledger.entries()[-1].to_dict()
    for name in ("number", "time", "package", "hash"):
        last.pop(name)
    other = {"model": "graph", "graph": "model"}[part]
    last |= {f"{other}_before": last[f"{other}_after"]}
    assert last[f"{part}_before"] != last[f"{part}_after"]
    with Store.writing(file) as store:
        store.append(last)
    with pytest.raises(ValueError, match="entry 4 does not start from the model of entry 3"):
        ledger.verify()


# ---- the key


def test_without_its_key_a_ledger_can_be_verified_and_no_more(ledger, file, start):
    model, graph = run_through(ledger, start)
    key_file(file).unlink()
    assert gu.Ledger(file, budget=None).verify(model) == 3
    with pytest.raises(ValueError, match=r"'ledger' must have its key to accept requests .*without '.*\.key'"):
        ledger.unlearn(gu.Unlink(), model, graph, user("7"))
    assert ledger.pending is None


@pytest.mark.parametrize("content", ["00" * 32, "00" * 5, "what is this"])
def test_another_key_is_told(content, ledger, file, start):
    model, graph = run_through(ledger, start)
    key_file(file).write_text(content)
    for call in (ledger.verify, lambda: ledger.unlearn(gu.Unlink(), model, graph, user("7"))):
        with pytest.raises(ValueError, match="'ledger' must have its own key"):
            call()


# ---- files that are none, and other processes


def test_other_files_are_left_as_they_are(tmp_path):
    text, database, folder = tmp_path / "text", tmp_path / "other.db", tmp_path / "folder"
    text.write_text("user,item\n" * 100)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    folder.mkdir()
    for path in (text, database, folder):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ValueError, match="'ledger' must be a"):
            gu.Ledger(path)
        assert before is None or path.read_bytes() == before
    with pytest.raises(ValueError, match="'ledger' must be in a folder that exists"):
        gu.Ledger(tmp_path / "nowhere" / "ledger.db")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "other.db", "text"]


def test_a_cut_off_file_is_told(ledger, file, start):
    run_through(ledger, start)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises((ValueError, OSError), match="ledger"):
        ledger.verify()


def test_later_formats_are_told(ledger, file):
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ValueError, match="'ledger' must be of format 1"):
        ledger.entries()


HOLDING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
input()
"""


def holding(file):
    """A process that has a transaction open until it is told to end."""
    other = subprocess.Popen([sys.executable, "-c", HOLDING, str(file)], stdin=-1, stdout=-1, text=True)
    assert other.stdout.readline() == "held\n"
    return other


def test_a_transaction_of_another_process_is_waited_for(ledger, file, start):
    for call in (ledger.entries, lambda: ledger.unlearn(gu.Unlink(), *start, user("3"))):
        with holding(file) as other, ThreadPoolExecutor() as pool:
            waiting = pool.submit(call)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            other.communicate("\n")
            waiting.result()
    assert len(ledger.entries()) == 1


def test_a_transaction_that_does_not_end_is_told(ledger, file, start, monkeypatch):
    monkeypatch.setattr("graphunlearn.ledger.store.BUSY", 0.05)
    with holding(file) as other:
        for call in (ledger.entries, ledger.verify, lambda: ledger.unlearn(gu.Unlink(), *start, user("3"))):
            with pytest.raises(ValueError, match=r"'ledger' must not be in use by another process .*try again"):
                call()
        other.communicate("\n")


def test_while_a_method_runs_others_read_and_none_writes(ledger, file, start):
    def save(_):
        assert gu.Ledger(file).pending.request == user("3")
        assert gu.Ledger(file).verify() == 0
        with pytest.raises(ValueError, match="must be written to through one object at a time"):
            gu.Ledger(file).drop()
        with ThreadPoolExecutor() as pool:
            for other in (gu.Ledger(file, wait=0), gu.Ledger(file, wait=0.1)):
                with pytest.raises(ValueError, match="must not be in use by another process"):
                    pool.submit(other.drop).result()

    ledger.unlearn(gu.Unlink(), *start, user("3"), save=save)
    assert [path.name for path in file.parent.iterdir()] == ["ledger.db"]  # neither locks nor a journal stay


@pytest.mark.parametrize("wait", [-1, math.inf, math.nan])
def test_a_time_to_wait_is_one(wait, file):
    with pytest.raises(ValueError, match="'wait' must be finite and not negative"):
        gu.Ledger(file, wait=wait)


SERVING = """
import sys
from pathlib import Path
import graphunlearn as gu

folder, mine, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ledger = gu.Ledger(folder / "ledger.db", budget=None)
for k in range(count):
    with ledger:
        run = gu.runs.Run.load(folder / "run")
        request = gu.ForgetRequest("user", [str(mine * count + k)])
        save = lambda result: gu.runs.Run(
            run.spec, result.model, result.graph, run.validation, run.test, run.objective, run.settings
        ).save(folder / "run", overwrite=True)
        ledger.unlearn(gu.Unlink(), run.model, run.train, request, save=save)
    assert len(ledger.entries()) > k
"""


def test_processes_take_turns(tmp_path):
    """Three processes with four requests each on one run folder, all of which read as well."""
    graph = random_graph(20, 9, 120, values=False)
    spec = gu.runs.ModelSpec("lightgcn", 4, 1)
    run = gu.runs.Run(spec, spec.build(graph), graph, graph, graph, gu.BPR(), gu.nn.FitSettings())
    run.save(tmp_path / "run")
    command = [sys.executable, "-c", SERVING, str(tmp_path)]
    others = [subprocess.Popen([*command, str(k), "4"], stderr=-1, text=True) for k in range(3)]
    for other in others:
        told = other.communicate()[1]
        assert other.returncode == 0, told[-2000:]
    ledger, last = gu.Ledger(tmp_path / "ledger.db"), gu.runs.Run.load(tmp_path / "run")
    assert ledger.verify(last.model) == 12
    assert last.train.pairs[0].unique().tolist() == list(range(12, 20))
    key = bytes.fromhex(key_file(ledger.path).read_text())
    served = [entry.digest for entry in ledger.entries()]
    assert sorted(served) == sorted(user(str(k)).digest(key) for k in range(12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db", "run"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written(ledger, file, start):
    file.chmod(0o400)
    with pytest.raises(OSError, match="could not be read or written"):
        ledger.unlearn(gu.Unlink(), *start, user("3"))


def test_a_ledger_can_be_moved(ledger, file, start, tmp_path):
    model, graph = run_through(ledger, start)
    (tmp_path / "moved").mkdir()
    shutil.move(file, tmp_path / "moved" / file.name)  # its key stays where it is
    moved = gu.Ledger(tmp_path / "moved" / "ledger.db", budget=None)
    moved.unlearn(gu.Unlink(), model, graph, user("9"))
    assert moved.verify() == 4


# ---- drift


def test_the_drift_adds_up_until_it_is_time_to_retrain(file, start):
    model, graph = start
    ledger, residuals = gu.Ledger(file, budget=1e9), []
    for k in range(3):
        result = ledger.unlearn(gu.Unlink(), model, graph, user(str(k)))
        model, graph = result.model, result.graph
        residuals.append(result.log["ledger"]["drift"]["residual"])
    drift = ledger.entries()[-1].drift
    assert drift["requests"] == 3
    assert drift["spent"] == pytest.approx(math.hypot(*residuals))
    tight = gu.Ledger(file, budget=drift["spent"] * 0.999)
    with pytest.warns(UserWarning, match=r"retrain now: the drift is .* after 4 requests, and its budget"):
        result = tight.unlearn(gu.Unlink(), model, graph, user("3"))
    fresh = tight.unlearn(gu.Retrain(settings=gu.nn.FitSettings(epochs=1)), result.model, result.graph, user("4"))
    assert tight.entries()[-1].drift is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = gu.Ledger(file, budget=1e9).unlearn(gu.Unlink(), fresh.model, fresh.graph, user("5"))
    assert after.log["ledger"]["drift"]["requests"] == 1
    ledger.record_retrained(after.model, after.graph)
    last = ledger.unlearn(gu.Unlink(), after.model, after.graph, user("6"))
    assert last.log["ledger"]["drift"]["requests"] == 1


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, math.inf])
def test_a_budget_is_positive(budget, file):
    with pytest.raises(ValueError, match="'budget' must be positive and finite"):
        gu.Ledger(file, budget=budget)
    assert not file.exists()


@pytest.mark.parametrize(("rejection", "outcome"), [("keep", "kept"), ("unlink", "unlink-redraw")])
@pytest.mark.filterwarnings("ignore:.*worse than deleting")
def test_a_repeated_request_tells_what_became_of_a_bad_correction(ledger, start, rejection, outcome):
    method = gu.IFRU(solver="adam", solver_lr=1e9, max_iter=3, on_rejection=rejection)
    first = ledger.unlearn(method, *start, user("1"))
    again = ledger.unlearn(method, first.model, first.graph, user("1"))
    assert first.log["acceptance"]["outcome"] == outcome
    assert again.log["acceptance"] == {"accepted": False, "outcome": outcome}
