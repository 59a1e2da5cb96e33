"""Requests go on in a ledger after the rows of the forgotten are gone."""

import pytest
from session_toys import random_sessions, session_graph, session_model
from toys import light_gcn, random_graph

import graphunlearn as gu
from graphunlearn.operators import Compacted

pytestmark = pytest.mark.filterwarnings("ignore:retrain now")  # a model that was never trained is far from its optimum


@pytest.fixture
def ledger(tmp_path):
    return gu.Ledger(tmp_path / "ledger.db")


def user(*ids):
    return gu.ForgetRequest("user", ids)


@pytest.fixture
def start(ledger):
    graph = random_graph(12, 9, 60, values=False)
    return ledger.unlearn(gu.IFRU(damping=1.0), light_gcn(graph), graph, user("3", "5"))


def test_requests_and_drift_go_on(ledger, start):
    small = gu.compact(start)
    entry = ledger.record_erased(start.model, start.graph, small, out="clean")
    assert (entry.number, entry.kind, entry.erased, entry.out) == (2, "erased", {"user": 2, "item": 0}, "clean")
    assert (entry.model_before, entry.graph_before) == ledger.fingerprints(start.model, start.graph)
    assert (entry.model_after, entry.graph_after) == ledger.fingerprints(small.model, small.graph)
    assert ledger.verify(small.model) == 2
    again = ledger.unlearn(gu.IFRU(damping=1.0), small.model, small.graph, user("0"))
    drift = [entry.drift for entry in ledger.entries()]
    assert drift[1] is None
    assert (drift[2]["requests"], drift[2]["scale"]) == (2, drift[0]["scale"])
    assert drift[2]["spent"] == pytest.approx((drift[0]["spent"] ** 2 + drift[2]["residual"] ** 2) ** 0.5)
    assert ledger.verify(again.model) == 3


def test_a_finished_request_is_still_known_by_its_digest(ledger, start):
    small = gu.compact(start)
    ledger.record_erased(start.model, start.graph, small)
    assert ledger.find(user("5", "3"), small.model, small.graph).number == 1
    assert ledger.find(user("4"), small.model, small.graph) is None


def test_it_is_recorded_once_and_only_if_it_was_saved(ledger, start):
    small, saved = gu.compact(start), []

    def fails():
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        ledger.record_erased(start.model, start.graph, small, save=fails)
    assert [entry.kind for entry in ledger.entries()] == ["forgotten"]
    for _ in range(2):
        entry = ledger.record_erased(start.model, start.graph, small, save=lambda: saved.append("saved"))
        assert entry.number == 2
    assert saved == ["saved", "saved"]
    assert [entry.kind for entry in ledger.entries()] == ["forgotten", "erased"]


def test_what_is_not_the_newest_or_not_made_of_it_is_refused(ledger, start):
    small = gu.compact(start)
    other = gu.compact(gu.Unlink().unlearn(start.model, start.graph, user("7")))
    with pytest.raises(gu.ArgumentError, match="'compacted' must be made of the model and the graph"):
        ledger.record_erased(start.model, start.graph, other)
    moved = light_gcn(small.graph, seed=1)
    with pytest.raises(gu.ArgumentError, match="'compacted' must be made of the model and the graph"):
        ledger.record_erased(start.model, start.graph, Compacted(moved, small.graph, small.kept, small.gone))
    later = ledger.unlearn(gu.Unlink(), start.model, start.graph, user("0"))
    with pytest.raises(gu.ArgumentError, match="be the newest model of the ledger, that of entry 2"):
        ledger.record_erased(start.model, start.graph, small)
    assert ledger.record_erased(later.model, later.graph, gu.compact(later, start)).erased["user"] == 3


def test_a_pending_request_goes_first(ledger, start, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("graphunlearn.ledger.store.Store.drop", lambda self: None)
        patch.setattr(gu.Unlink, "unlearn", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        ledger.unlearn(gu.Unlink(), start.model, start.graph, user("0"))
    with pytest.raises(gu.ArgumentError, match="have no other pending request"):
        ledger.record_erased(start.model, start.graph, gu.compact(start))


def test_sessions(ledger):
    graph = session_graph(random_sessions(), 12)
    result = ledger.unlearn(gu.Unlink(), session_model("gru4rec", 12), graph, gu.ForgetRequest("item", ["3"]))
    small = gu.compact(result)
    assert ledger.record_erased(result.model, result.graph, small).erased["item"] >= 1
    ledger.unlearn(gu.Unlink(), small.model, small.graph, gu.ForgetRequest("session", ["4"]))
    assert ledger.verify() == 3


def test_no_id_is_in_the_entry(ledger, start):
    small = gu.compact(start)
    entry = ledger.record_erased(start.model, start.graph, small).to_dict()
    wanted = {"number", "time", "kind", "package", "hash", "erased"}
    assert entry.keys() == wanted | {f"{what}_{when}" for what in ("model", "graph") for when in ("before", "after")}
