"""What the attacks see of a model of users and items, against loops over pairs and their controls."""

import math
import statistics

import pytest
import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval.attacks import InteractionAttacks, changed_rows, score_drops
from graphunlearn.nn import Encoded


def random_graph(seed=0, share=0.3, label=False, num_users=30, num_items=25):
    generator = torch.Generator().manual_seed(seed)
    pairs = (torch.rand(num_users, num_items, generator=generator) < share).nonzero().t()
    extra = {"label": torch.randint(2, (pairs.size(1),), generator=generator).float()} if label else {}
    return InteractionGraph.from_edges(pairs, num_users, num_items, **extra)


def encoded_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Encoded(*(torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (30, 25)))


def attacks_of(graph, request, held=(), **more):
    retained, forgotten = graph.split(request)
    return InteractionAttacks(graph, retained, forgotten, held, **more)


EDGES = ForgetRequest.internal("interaction", random_graph().pairs[:, ::9])


def score(encoded, pair):
    return float(encoded.queries[pair[0]] @ encoded.items[pair[1]])


def naive_logits(encoded, matched):
    """Scores less the mean score of the controls of the same pair, pair by pair."""
    controls = [score(encoded, c) for c in matched.controls.t().tolist()]
    own, owner = [], matched.owner.tolist()
    level = [statistics.fmean([c for c, o in zip(controls, owner) if o == k] or [0.0]) for k in range(max(owner) + 1)]
    for k, pair in enumerate(matched.pairs.t().tolist()):
        own.append(score(encoded, pair) - (level[k] if k < len(level) else 0.0))
    return own, [c - level[o] for c, o in zip(controls, owner)]


def test_logits_are_relative_to_the_controls_of_each_pair():
    graph, held = random_graph(), random_graph(seed=4, share=0.1)
    attacks, encoded = attacks_of(graph, EDGES, [held]), encoded_of()
    seen = attacks.observe(encoded)
    forgotten, controls = naive_logits(encoded, attacks.matched)
    assert seen["forgotten"].tolist() == pytest.approx(forgotten)
    assert seen["controls"].tolist() == pytest.approx(controls)
    assert len(controls) >= 2000 * 0.9  # a small request has many controls per pair
    anchors, around = naive_logits(encoded, attacks.anchored)
    assert seen["anchors"].tolist() == pytest.approx(anchors + around)
    assert attacks.forgotten.t().tolist() == graph.split(EDGES)[1].pairs.t().tolist()


def test_anchors_are_test_pairs_whose_ends_remain():
    graph, validation, test = random_graph(), random_graph(seed=4, share=0.1), random_graph(seed=5, share=0.1)
    attacks = attacks_of(graph, ForgetRequest.internal("user", torch.tensor([3, 4])), [validation, test])
    expected = {tuple(p) for p in test.pairs.t().tolist() if p[0] not in (3, 4)}
    assert {tuple(p) for p in attacks.anchors.t().tolist()} == expected
    assert attacks_of(graph, EDGES).anchors.size(1) == 0


def test_with_labels_the_logit_is_that_of_the_label_that_was_trained():
    graph = random_graph(label=True)
    seen = attacks_of(graph, EDGES).observe(encoded_of())
    plain = attacks_of(random_graph(), EDGES).observe(encoded_of())
    sign = 2 * graph.split(EDGES)[1].label.double() - 1
    assert set(sign.tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(seen["forgotten"], sign * plain["forgotten"])
    owner = attacks_of(graph, EDGES).matched.owner
    torch.testing.assert_close(seen["controls"], sign[owner] * plain["controls"])


@pytest.mark.parametrize("real", [None, torch.arange(30) > 10])
def test_promoted_items_are_asked_of_real_users_who_do_not_have_them(real):
    graph, encoded, targets = random_graph(), encoded_of(), torch.tensor([2, 7])
    attacks = attacks_of(graph, ForgetRequest.internal("user", torch.tensor([0, 20])), targets=targets, real=real)
    known = {tuple(p) for p in graph.pairs.t().tolist()}
    people = [u for u in range(30) if u not in (0, 20) and (real is None or real[u])]
    pairs = [(u, t) for u in people for t in targets.tolist() if (u, t) not in known]
    found = attacks.observe(encoded)["evidence"]["target"]
    expected = statistics.fmean(1 / (1 + math.exp(-score(encoded, pair))) for pair in pairs)
    assert found.value == pytest.approx(expected)
    assert found.counts.size(1) == len({u for u, _ in pairs})
    assert "target" not in attacks_of(graph, EDGES).observe(encoded)["evidence"]


def test_promoted_items_are_not_asked_of_whoever_clicked_them_in_the_request_or_later():
    graph, held, targets = random_graph(), random_graph(seed=4, share=0.1), torch.tensor([2, 7])
    clicked = graph.pairs[:, torch.isin(graph.pairs[1], targets)]
    attacks = attacks_of(graph, ForgetRequest.internal("interaction", clicked[:, ::2]), [held], targets=targets)
    known = {tuple(p) for part in (graph, held) for p in part.pairs.t().tolist()}
    assert any((u, t) in known for u, t in held.pairs.t().tolist() if t in (2, 7))
    expected = {(u, t) for u in range(30) for t in (2, 7) if (u, t) not in known}
    assert {tuple(p) for p in attacks.promoted.t().tolist()} == expected


def test_the_original_has_no_second_model_beside_it():
    graph, before, after = random_graph(), encoded_of(0), encoded_of(1)
    attacks = attacks_of(graph, EDGES)
    alone = attacks.observe(before)
    assert "before_and_after" not in attacks.evidence(alone, [])
    assert alone["rows"] is None
    both = attacks.evidence(attacks.observe(after, before), [])
    evidence, further = both["before_and_after"]
    assert evidence.value == score_drops(before, after, attacks.forgotten, attacks.kept).value
    named = torch.zeros(30, dtype=torch.bool)
    named[graph.split(EDGES)[1].pairs[0]] = True
    assert further == {"rows": changed_rows(before.queries, after.queries, named)}


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("interaction", {"edge_recovery_forgotten", "edge_recovery_kept"}),
        ("user", {"fold_in"}),
        ("item", {"fold_in_items"}),
    ],
)
def test_attacks_that_a_request_allows(level, expected):
    graph = random_graph()
    request = EDGES if level == "interaction" else ForgetRequest.internal(level, torch.tensor([3, 4]))
    attacks = attacks_of(graph, request)
    seen = [attacks.observe(encoded_of(seed), encoded_of(9)) for seed in range(3)]
    assert set(attacks.evidence(seen[0], [])) == expected | {"before_and_after"}
    assert set(attacks.evidence(seen[0], seen[1:])) == expected | {"before_and_after", "lira", "rmia"}
    assert attacks.left_out == {}


def test_single_interactions_are_counted_by_side():
    pairs = torch.tensor([[0, 1, 1, 1, 2, 2], [0, 1, 2, 3, 1, 2]])
    graph = InteractionGraph.from_edges(pairs, 3, 8)
    users = attacks_of(graph, ForgetRequest.internal("user", torch.tensor([0])))
    items = attacks_of(graph, ForgetRequest.internal("item", torch.tensor([3])))
    assert users.left_out == {
        "forgotten users with a single interaction, whom the fold-in attack cannot test": 1,
        "forgotten items with a single interaction, which the fold-in attack cannot test": 1,
    }  # the only user of item 0 is gone
    assert items.left_out == {
        "forgotten items with a single interaction, which the fold-in attack cannot test": 1,
    }
    assert "fold_in" not in items.observe(Encoded(torch.ones(3, 2), torch.ones(8, 2)))["evidence"]
