"""What GCE-GNN keeps of its training sessions: against a loop, and that nothing of what is forgotten stays."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from session_toys import random_sessions, sequences, session_graph

from graphunlearn import CAU, FineTune, ForgetRequest, GradientAscent, Retrain, extend, fit
from graphunlearn.nn import GCEGNN, GRU4Rec, connect, encode, keep_rows
from graphunlearn.nn.models.gcegnn import co_occurrences
from graphunlearn.operators.shared.acceptance import Acceptance

ITEMS = 12


@given(sequences(), st.integers(1, 3), st.integers(1, 4))
def test_co_occurrences_against_a_loop(rows, reach, most):
    count = Counter()
    for row in rows:
        for t, item in enumerate(row):
            for other in row[t + 1 : t + 1 + reach]:
                if other != item:
                    count[item, other] += 1
                    count[other, item] += 1
    near, share = co_occurrences(session_graph(rows, 6), reach, most)
    for item in range(6):
        found = sorted(((-n, other) for (own, other), n in count.items() if own == item))[:most]
        total = -sum(n for n, _ in found) or 1
        assert near[item].tolist() == [other for _, other in found] + [0] * (most - len(found))
        assert share[item].tolist() == pytest.approx([-n / total for n, _ in found] + [0] * (most - len(found)))


def case():
    train, validation = (
        session_graph([r for r in random_sessions(n, ITEMS, seed=n) if len(r) > 2], ITEMS) for n in (60, 25)
    )
    model = GCEGNN(ITEMS, 8, most=4)
    fit(model, train, epochs=3, progress=False)
    return model, train, validation


def kept(model, graph):
    near, share = co_occurrences(graph, model.reach, model.most)
    return torch.equal(model.neighbours, near) and torch.equal(model.strength, share)


def test_training_connects_the_items():
    model, train, _ = case()
    assert kept(model, train)
    assert bool(model.strength.any())
    other = GCEGNN(ITEMS, 8, most=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(encode(other.eval(), train).queries, encode(model, train).queries)


@pytest.mark.parametrize("make", [CAU, GradientAscent, FineTune, Retrain])
def test_forgetting_leaves_the_co_occurrences_of_what_is_retained(make):
    model, train, validation = case()
    method = make(validation=validation) if make is CAU else make()
    request = ForgetRequest.internal("session", torch.arange(12))
    result = method.filled(validation=validation).unlearn(model, train, request)
    assert kept(model, train)
    assert kept(result.model, result.graph)
    assert not kept(result.model, train)


def test_a_step_that_is_rejected_leaves_nothing_either(monkeypatch):
    model, train, validation = case()
    monkeypatch.setattr("graphunlearn.operators.shared.acceptance.RISE", -10.0)
    request = ForgetRequest.internal("session", torch.arange(12))
    judged, retained = [], train.split(request)[0]
    judge = Acceptance.judge
    monkeypatch.setattr(Acceptance, "judge", lambda self, m: judged.append(kept(m, retained)) or judge(self, m))
    with pytest.warns(UserWarning):
        result = CAU(validation=validation, steps=1).unlearn(model, train, request)
    assert not result.accepted
    assert len(judged) > 1
    assert all(judged)  # a shortened step too is judged with the co-occurrences of what is retained
    assert kept(result.model, result.graph)


def test_a_smaller_model_keeps_the_connections_of_its_items():
    model, train, _ = case()
    chosen = torch.tensor([7, 2, 3, 0, 5, 11])
    smaller = keep_rows(model, train, {"item": chosen})
    for new, old in enumerate(chosen.tolist()):
        before = [(n, w) for n, w in zip(model.neighbours[old].tolist(), model.strength[old].tolist()) if w > 0]
        after = [(n, w) for n, w in zip(smaller.neighbours[new].tolist(), smaller.strength[new].tolist()) if w > 0]
        assert [(chosen[n].item(), w) for n, w in after] == [(n, w) for n, w in before if n in chosen.tolist()]


def test_a_larger_model_keeps_its_connections():
    model, train, _ = case()
    new = session_graph([[0, 1, 12], [13, 2]], ITEMS + 2)
    larger = extend(model, train, new)
    assert torch.equal(larger.model.neighbours[:ITEMS], model.neighbours)
    assert not bool(larger.model.strength[ITEMS:].any())
    assert encode(larger.model, larger.graph).items.shape[0] == ITEMS + 2


def test_most_models_keep_nothing():
    model = GRU4Rec(ITEMS, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    connect(model, session_graph([[0, 1, 2]], ITEMS))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_items_that_do_not_fit():
    with pytest.raises(ValueError, match=r"'graph' must have as many items as GCEGNN has embeddings, 3 \(got 4"):
        connect(GCEGNN(3, 4), session_graph([[0, 1, 3]], 4))
