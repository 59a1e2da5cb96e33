"""Edge recovery: the regression against scipy, and features and parts against loops."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.attacks import edges
from graphunlearn.eval.attacks.edges import EdgeRecovery, logistic_weights
from graphunlearn.nn import Encoded


def random_graph(num_users=30, num_items=25, share=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pairs = (torch.rand(num_users, num_items, generator=generator) < share).nonzero().t()
    return InteractionGraph.from_edges(pairs, num_users, num_items)


def encoded_of(graph, seed=0, dim=4):
    generator = torch.Generator().manual_seed(seed)
    return Encoded(
        *(torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (graph.num_users, graph.num_items))
    )


@pytest.mark.parametrize("ridge", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_regression_is_the_minimum_that_scipy_finds(ridge, share):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(120, 3, generator=generator, dtype=torch.float64)
    y = (torch.rand(120, generator=generator) < torch.sigmoid(2 * x[:, 0] - x[:, 1]) * 2 * share).double()
    inputs, labels = x.numpy(), y.numpy()
    weight = np.where(labels > 0, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())

    def loss(w):
        margin = (2 * labels - 1) * (inputs @ w[:-1] + w[-1])
        return (weight * np.logaddexp(0, -margin)).sum() + ridge / 2 * (w[:-1] ** 2).sum()

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(logistic_weights(x, y, ridge).numpy(), best[:-1], atol=1e-5)


def test_a_feature_without_spread_and_separable_classes_are_no_obstacle():
    x = torch.cat([torch.full((10, 1), 2.0), torch.arange(10.0)[:, None]], 1).double()
    weights = logistic_weights(x, (torch.arange(10) > 4).double(), 1e-2, steps=200)
    assert weights.isfinite().all()
    assert float(weights[1]) > 0


def naive_features(encoded, graph, pairs):
    users, items = encoded.queries, encoded.items
    of_user = {u: graph.pairs[1, graph.pairs[0] == u].tolist() for u in range(graph.num_users)}
    of_item = {i: graph.pairs[0, graph.pairs[1] == i].tolist() for i in range(graph.num_items)}
    rows = []
    for u, i in pairs.t().tolist():
        score = float(users[u] @ items[i])
        other_items, other_users = [j for j in of_user[u] if j != i], [v for v in of_item[i] if v != u]
        near_u = sum(float(users[u] @ items[j]) for j in other_items) / max(len(other_items), 1)
        near_i = sum(float(users[v] @ items[i]) for v in other_users) / max(len(other_users), 1)
        trends = [score - near_u, score - near_i]
        rows.append([score, near_u, near_i, *trends, *(float(np.sign(t)) for t in trends)])
    return torch.tensor(rows, dtype=torch.float64)


def test_the_attack_is_the_regression_on_the_features_of_its_parts():
    graph = random_graph()
    removed = torch.arange(graph.num_interactions) % 11 == 0
    retained, forgotten, encoded = graph.select(~removed), graph.pairs[:, removed], encoded_of(graph)
    attack = EdgeRecovery(graph, retained, forgotten)
    parts = [naive_features(encoded, attack.known, part) for part in (attack.parts[0].pairs, attack.parts[0].controls)]
    x, y = torch.cat(parts), torch.cat([torch.ones(len(parts[0])), torch.zeros(len(parts[1]))]).double()
    mean, sd = x.mean(0), x.std(0)
    weights = logistic_weights((x - mean) / sd, y, edges.RIDGE)
    found = attack(encoded)
    assert set(found) == {"edge_recovery_forgotten", "edge_recovery_kept"}
    for name, part in (("edge_recovery_kept", attack.parts[1]), ("edge_recovery_forgotten", attack.parts[2])):
        own, others = (((naive_features(encoded, attack.known, p) - mean) / sd @ weights).tolist()
                       for p in (part.pairs, part.controls))  # fmt: skip
        auroc = sum((a > b) + (a == b) / 2 for a in own for b in others) / (len(own) * len(others))
        assert found[name].value == pytest.approx(auroc, abs=1e-3)  # a tie can fall either way in another order of sums


def test_known_and_tested_edges_are_apart_and_controls_are_never_seen():
    graph, held = random_graph(), random_graph(seed=5)
    removed = torch.arange(graph.num_interactions) % 9 == 0
    retained, forgotten = graph.select(~removed), graph.pairs[:, removed]
    attack = EdgeRecovery(graph, retained, forgotten, [held])
    known, kept, gone = ({tuple(p) for p in part.pairs.t().tolist()} for part in attack.parts)
    assert not known & kept
    given = {tuple(p) for p in attack.known.pairs.t().tolist()}
    assert known <= given  # and the attacker has nothing of the half that is to be recovered
    assert not given & (kept | gone)
    assert len(given) == -(-retained.num_interactions // 2)
    assert gone == {tuple(p) for p in forgotten.t().tolist()}
    assert known | kept <= {tuple(p) for p in retained.pairs.t().tolist()}
    seen = {tuple(p) for g in (graph, held) for p in g.pairs.t().tolist()}
    assert all(not seen & {tuple(p) for p in part.controls.t().tolist()} for part in attack.parts)


def test_scores_that_know_the_edges_recover_them():
    """A model whose scores are the adjacency of before finds every forgotten edge; one of the retained graph none."""
    graph = random_graph(40, 40)
    removed = torch.arange(graph.num_interactions) % 8 == 0
    retained, forgotten = graph.select(~removed), graph.pairs[:, removed]
    attack, eye = EdgeRecovery(graph, retained, forgotten), torch.eye(40, dtype=torch.float64)
    for side, expected in ((graph, 1.0), (retained, 0.0)):
        matrix = torch.zeros(40, 40, dtype=torch.float64)
        matrix[side.pairs[0], side.pairs[1]] = 1
        found = attack(Encoded(matrix, eye))
        assert found["edge_recovery_kept"].value > 0.95
        forgotten_value = found["edge_recovery_forgotten"].value
        assert forgotten_value > 0.95 if expected else forgotten_value < 0.6


def test_edges_with_an_end_that_is_emptied_are_left_out():
    graph = random_graph()
    removed = graph.pairs[0] == 3
    attack = EdgeRecovery(graph, graph.select(~removed), graph.pairs[:, removed])
    assert not attack.applies
    assert attack(encoded_of(graph)) == {}
    more = removed.clone()
    more[(graph.pairs[0] == 4).nonzero()[0]] = True
    some = EdgeRecovery(graph, graph.select(~more), graph.pairs[:, more])
    assert some.parts[2].pairs[0].tolist() == [4]
