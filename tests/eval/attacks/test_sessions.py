"""The attacks on session recommenders, against loops over clicks with a model whose scores can be written down."""

import statistics

import pytest
import torch

import graphunlearn as gu
from graphunlearn.data import SessionGraph
from graphunlearn.eval.attacks.sessions import Asked, SessionAttacks
from graphunlearn.nn import Encoded, encode

ITEMS = 15


class Pairs(torch.nn.Module):
    """Scores the next item by a table of the last one."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randint(-3, 4, (ITEMS, ITEMS), generator=generator).double())


@encode.register
def _(model: Pairs, graph: SessionGraph):
    return Encoded(model.table[graph.items[graph.click_ptr[1:] - 1]], torch.eye(ITEMS, dtype=torch.double))


def sessions_of(seed=0, count=60, longest=8):
    """Sessions in which small item numbers are clicked more often."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    drawn = [(ITEMS * torch.rand(n, generator=generator).square()).long().tolist() for n in length]
    return SessionGraph.from_sequences(drawn, num_items=ITEMS)


def as_lists(graph):
    return [part.tolist() for part in graph.items.split(graph.length.tolist())]


def at(graph, click):
    """Session and position of a click."""
    return int(graph.session[click]), int(graph.position[click])


def attacks_of(graph, request, test=None, **more):
    retained, _ = graph.split(request)
    return SessionAttacks(graph, retained, request.mask(graph), sessions_of(9) if test is None else test, **more)


CLICKS = gu.ForgetRequest.internal(
    "click", torch.tensor([[s, int(n) // 2] for s, n in enumerate(sessions_of().length) if s % 3 == 0 and n > 1]).t()
)
WHOLE = gu.ForgetRequest.internal("session", torch.arange(0, 60, 6))


@pytest.fixture(scope="module")
def graph():
    return sessions_of()


def asked_of(graph, **more):
    ends = (graph.position > 0).nonzero().flatten()
    popularity = torch.bincount(graph.items, minlength=ITEMS)
    return Asked(graph, ends - 1, graph.items[ends], popularity, **more), ends


def test_controls_follow_the_same_prefix_and_are_not_in_the_session(graph):
    asked, _ = asked_of(graph, per_click=3)
    lists = as_lists(graph)
    popularity = torch.bincount(graph.items, minlength=ITEMS)
    for owner, item in zip(asked.owner.tolist(), asked.controls.tolist()):
        assert item not in lists[at(graph, asked.ends[owner])[0]]
        assert popularity[item] > 0
    assert int(torch.bincount(asked.owner).max()) <= 3
    assert len(asked.owner) > 0.9 * 3 * len(asked.ends)


def test_controls_are_of_about_the_same_popularity_wherever_the_item_stands():
    """Most items of a catalogue are clicked equally rarely: their controls come from all of them."""
    weights = 1 / (torch.arange(600).double() + 3)
    generator = torch.Generator().manual_seed(0)
    graph = SessionGraph.from_sequences(
        [torch.multinomial(weights, 5, generator=generator).tolist() for _ in range(500)]
    )
    clicks = (graph.position > 0).nonzero().flatten()
    asked = Asked(graph, clicks - 1, graph.items[clicks], graph.degree, 4, 0)
    own, controls = graph.degree[asked.items[asked.owner]].double(), graph.degree[asked.controls].double()
    for least, most in ((1, 1), (2, 2), (3, 5), (6, 20), (21, 60)):
        group = (own >= least) & (own <= most)
        assert float(controls[group].mean()) == pytest.approx(float(own[group].mean()), rel=0.12), (least, most)
    single = asked.controls[(own == 1) & (controls == 1)].unique()
    assert len(single) > 0.9 * int((graph.degree == 1).sum())


def naive_logits(model, asked):
    """Scores of clicks and controls, less the mean score of the controls of the same click."""
    last = asked.graph.items[asked.ends].tolist()
    table, owner = model.table.tolist(), asked.owner.tolist()
    controls = [table[last[o]][i] for o, i in zip(owner, asked.controls.tolist())]
    level = [statistics.fmean([c for c, o in zip(controls, owner) if o == k] or [0.0]) for k in range(len(last))]
    own = [table[last[k]][i] - level[k] for k, i in enumerate(asked.items.tolist())]
    return own, [c - level[o] for c, o in zip(controls, owner)]


def test_logits_and_wins_against_a_loop(graph):
    model = Pairs()
    asked, _ = asked_of(graph, per_click=3)
    own, controls = naive_logits(model, asked)
    found = asked.logits(model)
    assert found[0].tolist() == pytest.approx(own)
    assert found[1].tolist() == pytest.approx(controls)
    share, there = asked.won(*found)
    for k, mine in enumerate(share.tolist()):
        theirs = [i for i, o in zip(asked.controls.tolist(), asked.owner.tolist()) if o == k]
        assert bool(there[k]) == bool(theirs)
        if theirs:
            row = model.table[asked.graph.items[asked.ends[k]]].tolist()
            score = row[asked.items[k]]
            assert mine == pytest.approx(statistics.fmean((score > row[i]) + (score == row[i]) / 2 for i in theirs))


def test_forgotten_clicks_and_deleted_transitions_are_the_ones_asked_for(graph):
    attacks, forgotten = attacks_of(graph, CLICKS), CLICKS.mask(graph)
    clicks = [c for c in range(graph.num_clicks) if forgotten[c] and graph.position[c] > 0]
    assert (attacks.clicks.ends + 1).tolist() == clicks
    assert attacks.clicks.items.tolist() == graph.items[clicks].tolist()
    after = [c for c in range(1, graph.num_clicks) if forgotten[c - 1] and graph.position[c] > 0]
    assert (attacks.after.ends + 1).tolist() == after
    kept = [c for c in range(graph.num_clicks) if not forgotten[c] and graph.position[c] > 0]
    assert (attacks.kept.ends + 1).tolist() == kept
    assert attacks.folds == []
    test = sessions_of(9)
    known = set(graph.items.tolist())
    held = [c for c in range(test.num_clicks) if test.position[c] > 0 and int(test.items[c]) in known]
    assert (attacks.anchors.ends + 1).tolist() == held


def test_evidence_of_forgotten_clicks_against_loops(graph):
    attacks, models = attacks_of(graph, CLICKS), [Pairs(seed) for seed in range(4)]
    before = attacks.observe(models[0])
    seen = [attacks.observe(model, before) for model in models[1:]]
    found = attacks.evidence(seen[0], seen[1:])
    assert set(found) == {"click", "lira", "rmia", "transition", "before_and_after"}
    share, there = attacks.clicks.won(*attacks.clicks.logits(models[1]))
    assert found["click"][0].value == pytest.approx(float(share[there].mean()))
    drops = [[a - b for a, b in zip(before[key].tolist(), seen[0][key].tolist())] for key in ("forgotten", "kept")]
    wins = [(a > b) + (a == b) / 2 for a in drops[0] for b in drops[1]]
    assert found["before_and_after"][0].value == pytest.approx(statistics.fmean(wins))
    assert "before_and_after" not in attacks.evidence(before, seen)
    assert "lira" not in attacks.evidence(seen[0], [])


def test_the_fold_in_of_whole_sessions_against_a_loop(graph):
    attacks, model = attacks_of(graph, WHOLE), Pairs()
    lists = as_lists(graph)
    gone = [s for s in range(0, 60, 6) if len(lists[s]) > 1]
    alive = [s for s in range(60) if s % 6 and len(lists[s]) > 1]
    shares = []
    for (asked, session), own in zip(attacks.folds, (gone, alive)):
        assert sorted(set(session.tolist())) == own
        hidden = {}
        for end, item, s in zip(asked.ends.tolist(), asked.items.tolist(), session.tolist()):
            first = len(lists[s]) - len(lists[s]) // 2  # the larger half is known
            assert at(graph, end) == (s, first - 1)
            hidden.setdefault(s, []).append(item)
        assert hidden == {s: lists[s][len(lists[s]) - len(lists[s]) // 2 :] for s in own}
        won, there = asked.won(*asked.logits(model))
        shares.append(float(won[there].mean()))
    found = attacks.observe(model)["evidence"]["fold_in"]
    assert found.value == pytest.approx(shares[0] - shares[1])


@pytest.mark.parametrize("real", [None, torch.arange(60) % 6 == 1])
def test_promoted_items_are_asked_after_real_sessions(graph, real):
    targets, model = torch.tensor([3, 8]), Pairs()
    attacks = attacks_of(graph, WHOLE, targets=targets, real=real)
    people = [s for s in range(60) if (s % 6 if real is None else real[s])]
    last = [items[-2] for s, items in enumerate(as_lists(graph)) if s in people and len(items) > 1]
    p = [float(torch.softmax(model.table[item].detach(), 0)[targets].sum()) for item in last]
    assert attacks.observe(model)["evidence"]["target"].value == pytest.approx(statistics.fmean(p))
    assert "target" not in attacks_of(graph, WHOLE).observe(model)["evidence"]


def test_first_clicks_alone_leave_nothing_to_attack(graph):
    first = gu.ForgetRequest.internal("click", torch.tensor([[s, 0] for s in range(5)]).t())
    assert graph.position[first.mask(graph)].tolist() == [0] * 5
    attacks = attacks_of(graph, first)
    seen = [attacks.observe(Pairs(seed)) for seed in range(3)]
    found = attacks.evidence(seen[0], seen[1:])
    assert "click" not in found
    assert "lira" not in found
