"""The divergence from popularity against naive sums, and the steps against Adam on them."""

import copy

import pytest
import torch
from session_toys import random_sessions, session_graph, session_model
from toys import light_gcn, random_graph

from graphunlearn.data import ForgetRequest
from graphunlearn.nn import BPR, CrossEntropy, encode
from graphunlearn.operators import PopularityKL
from graphunlearn.operators.baselines.ascent import endless_batches
from graphunlearn.operators.baselines.popularity import kept_items, prior_divergence


def naive_divergence(scores, counts, excluded=()):
    """The divergence of one row, item by item."""
    there = [i for i in range(len(counts)) if i not in excluded]
    prior = torch.tensor([float(counts[i]) for i in there], dtype=scores.dtype)
    prior, p = prior / prior.sum(), scores[there].softmax(0)
    return sum(a * (a.log() - b.log()) for a, b in zip(prior, p, strict=True))


def close(a, b):
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)


def test_the_divergence_is_that_of_a_loop_and_zero_at_the_prior():
    scores, counts = torch.randn(3, 5, dtype=torch.float64), torch.tensor([1, 4, 2, 9, 3])
    excluded = torch.tensor([[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    got = prior_divergence(scores, counts, excluded)
    for row, mask, value in zip(scores, excluded, got, strict=True):
        torch.testing.assert_close(value, naive_divergence(row, counts, mask.nonzero().flatten().tolist()))
    assert got[2] == 0
    at = counts.double().log().expand(3, -1) + 2
    torch.testing.assert_close(prior_divergence(at, counts, excluded), torch.zeros(3, dtype=torch.float64))


def test_kept_items_are_the_pairs_of_the_graph():
    graph = random_graph(values=False)
    users = torch.tensor([3, 0, 3])
    mask = kept_items(graph, users)
    pairs = set(zip(*graph.pairs.tolist(), strict=True))
    assert [[(u, i) in pairs for i in range(graph.num_items)] for u in users.tolist()] == mask.tolist()


@pytest.mark.parametrize("prior", ["popularity", "uniform"])
def test_steps_are_adam_on_training_loss_plus_divergence(prior):
    graph = random_graph(values=False)
    model, request = light_gcn(graph), ForgetRequest.internal("interaction", graph.pairs[:, [0, 5, 11]])
    retained, _ = graph.split(request)
    method = PopularityKL(steps=3, lr=0.02, weight=0.7, batch_size=2, seed=2, prior=prior)
    result = method.unlearn(model, graph, request)
    reference, generator = copy.deepcopy(model), torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    counts = [1 + (prior == "popularity") * int((retained.pairs[1] == i).sum()) for i in range(graph.num_items)]
    users = graph.pairs[0, request.mask(graph)]
    for said, batch in zip(result.log["kl"], endless_batches(retained, BPR(), 2, 2)):
        drawn = users[torch.randperm(3, generator=generator)[:2]].tolist()
        encoded = encode(reference, retained)
        own = [retained.pairs[1, retained.pairs[0] == u].tolist() for u in drawn]
        kl = sum(naive_divergence(encoded.queries[u] @ encoded.items.t(), counts, o) for u, o in zip(drawn, own)) / 2
        optimizer.zero_grad()
        (BPR().losses(reference, retained, batch).mean() + 0.7 * kl).backward()
        optimizer.step()
        assert said == pytest.approx(float(kl.detach()))
    close(result.model, reference)


def test_steps_on_sessions_are_adam_on_training_loss_plus_divergence():
    graph = session_graph(random_sessions(30, 9, seed=3), 9)
    clicks = (graph.position > 0).nonzero().flatten()[::4]
    request = ForgetRequest.internal("click", torch.stack([graph.session[clicks], graph.position[clicks]]))
    model, (retained, _) = session_model("gru4rec", 9), graph.split(request)
    result = PopularityKL(steps=3, lr=0.02, weight=0.7, batch_size=16, seed=2).unlearn(model, graph, request)
    reference, generator = copy.deepcopy(model), torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.02)
    counts = [1 + int((retained.items == i).sum()) for i in range(9)]
    ends = CrossEntropy().samples(graph, mask=request.mask(graph)).ends
    for said, batch in zip(result.log["kl"], endless_batches(retained, CrossEntropy(), 16, 2)):
        drawn = ends[torch.randperm(len(ends), generator=generator)[:16]]
        encoded = encode(reference, graph.prefixes(drawn))
        kl = sum(naive_divergence(row, counts) for row in encoded.queries @ encoded.items.t()) / len(drawn)
        optimizer.zero_grad()
        (CrossEntropy().losses(reference, retained, batch).mean() + 0.7 * kl).backward()
        optimizer.step()
        assert said == pytest.approx(float(kl.detach()))
    close(result.model, reference)


def test_first_clicks_follow_nothing():
    graph = session_graph(random_sessions(30, 9, seed=3), 9)
    request = ForgetRequest.internal("click", torch.stack([torch.arange(5), torch.zeros(5, dtype=torch.long)]))
    assert PopularityKL().unlearn(session_model("gru4rec", 9), graph, request).log["kl"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "none"}, "'prior' must be one of popularity, uniform"),
        ({"steps": 0}, "'steps' must be a positive integer"),
        ({"lr": 0.0}, "'lr' must be positive and finite"),
        ({"weight": -1.0}, "'weight' must be positive and finite"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PopularityKL(**options)
