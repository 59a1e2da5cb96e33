from itertools import chain

import torch
from hypothesis import given
from hypothesis import strategies as st
from session_toys import sequences

from graphunlearn.data import SessionGraph
from graphunlearn.nn import CrossEntropy
from graphunlearn.operators.cau.counts import ClickCounts
from graphunlearn.operators.cau.samples import ForgetSamples, prefix_items, together


@st.composite
def requests(draw):
    """Sessions, and which of their clicks to forget: some, not all."""
    rows = draw(sequences())
    flags = [[draw(st.booleans()) for _ in row] for row in rows]
    if all(flag for row in flags for flag in row):
        flags[0][0] = False
    return rows, flags


def prefixes_of(graph, predictions):
    items, length = prefix_items(graph, predictions)
    return [tuple(p.tolist()) for p in items.split(length.tolist())]


@given(requests())
def test_samples_against_a_loop(case):
    rows, flags = case
    graph = SessionGraph.from_sequences(rows, num_items=6)
    mask = torch.tensor([flag for row in flags for flag in row])
    retained = graph.keep(~mask)
    forgotten, deleted, joined, followers = [], [], [], []
    for row, flag in zip(rows, flags):
        for t in range(len(row)):
            before = [v for v, gone in zip(row[:t], flag[:t]) if not gone]
            if flag[t] and t:
                behind = next((s for s in range(t + 1, len(row)) if not flag[s]), None)
                follows = behind is not None and before
                followers.append((tuple(before), row[behind]) if follows else None)
                forgotten.append((tuple(row[:t]), row[t]))
            if not flag[t] and t and flag[t - 1]:
                deleted.append((tuple(row[:t]), row[t]))
                if before:
                    joined.append((tuple(before), row[t]))
    found = ForgetSamples.of(graph, retained, mask)
    for expected, part, where in (
        (forgotten, found.forgotten, graph),
        (deleted, found.deleted, graph),
        (joined, found.joined, retained),
    ):
        assert list(zip(prefixes_of(where, part), part.target.tolist())) == expected
    got = [None if k < 0 else joined[k] for k in found.follower.tolist()]
    assert got == followers
    touched = [flag for flag in flags if any(flag[1:])]
    assert found.whole == (sum(all(flag) for flag in touched) / len(touched) if touched else 0.0)


@given(requests())
def test_sessions_without_clicks(case):
    rows, flags = case
    graph = SessionGraph.from_sequences(rows, num_items=6)
    mask = torch.tensor([flag for row in flags for flag in row])
    left = graph.keep(~mask)
    kept = [[v for v, gone in zip(row, flag) if not gone] for row, flag in zip(rows, flags)]
    assert [p.tolist() for p in left.items.split(left.length.tolist())] == [row for row in kept if row]
    assert left.num_items == 6


@given(sequences())
def test_all_predictions(rows):
    graph = SessionGraph.from_sequences(rows, num_items=6)
    found = CrossEntropy().samples(graph)
    expected = [(tuple(row[:t]), row[t]) for row in rows for t in range(1, len(row))]
    assert list(zip(prefixes_of(graph, found), found.target.tolist())) == expected
    cut = graph.prefixes()
    again = CrossEntropy().samples(cut)
    assert list(zip(prefixes_of(cut, again), again.target.tolist())) == expected


@given(sequences(), sequences())
def test_predictions_of_two_graphs_together(first, second):
    graphs = [SessionGraph.from_sequences(rows, num_items=6) for rows in (first, second)]
    parts = [(graph, CrossEntropy().samples(graph)) for graph in graphs]
    if not any(len(p) for _, p in parts):
        return
    found = together(parts)
    expected = [prefix for graph, p in parts for prefix in prefixes_of(graph, p)]
    read = found.graph.prefixes(found.ends[found.prefix])
    assert [tuple(p.tolist()) for p in read.items.split(read.length.tolist())] == expected
    assert found.target.tolist() == [v for _, p in parts for v in p.target.tolist()]
    assert len(found.ends) == len(set(expected))
    hosts = [tuple(row.tolist()) for row in found.graph.items.split(found.graph.length.tolist())]
    assert not any(a != b and b[: len(a)] == a for a in hosts for b in hosts)
    assert set(hosts) <= set(expected)


@given(sequences(), st.integers(1, 4))
def test_counts_against_a_loop(rows, window):
    counts = ClickCounts.of(SessionGraph.from_sequences(rows, num_items=6), window=window)
    follow, company = torch.zeros(6, 6), torch.zeros(6, 6)
    for row in rows:
        for i, a in enumerate(row):
            for distance, b in enumerate(row[i + 1 : i + 1 + window], 1):
                follow[a, b] += distance == 1
                company[a, b] += 1
                company[b, a] += a != b
    item, other = torch.cartesian_prod(torch.arange(6), torch.arange(6)).t()
    assert counts.transitions(item, other).tolist() == follow.flatten().tolist()
    assert counts.company(item, other).tolist() == company.flatten().tolist()
    assert counts.popularity.tolist() == torch.bincount(torch.tensor(list(chain(*rows))), minlength=6).tolist()
