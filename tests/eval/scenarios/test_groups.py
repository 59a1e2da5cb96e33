"""The most and the least active users, and users with sensitive interactions, against plain loops."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphunlearn as gu
from graphunlearn.eval import SHARES, core_users, edge_users, items_of_category, sensitive
from graphunlearn.eval.scenarios.groups import GENRES

PARTS = (0.8, 0.1, 0.1)


@pytest.fixture(scope="module")
def graph():
    return gu.datasets.synthetic_interactions(num_users=90, num_items=40, interactions_per_user=12, seed=1)


def pairs_of(*graphs):
    return {tuple(pair) for graph in graphs for pair in graph.pairs.t().tolist()}


@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=12).filter(lambda counts: sum(c > 0 for c in counts) > 2),
    st.sampled_from([0.05, 0.3, 0.6]),
    st.sampled_from([core_users, edge_users]),
    st.integers(0, 3),
)
def test_the_most_and_the_least_active_users(degrees, share, make, seed):
    # the held-out interactions are given, so that training has almost all of the degrees
    pairs = [(user, item) for user, degree in enumerate(degrees) for item in range(degree)]
    graph = gu.InteractionGraph.from_edges(torch.tensor(pairs).t(), len(degrees), 6)
    case = make(graph, share=share, seed=seed, test=graph, fractions=(0.9, 0.1, 0.1))
    counts = Counter(case.train.pairs[0].tolist())
    chosen = set(case.request.index)
    assert len(chosen) == max(1, round(share * len(counts)))
    assert chosen <= set(counts)  # users without training interactions do not count
    inside, outside = [counts[user] for user in chosen], [counts[user] for user in counts if user not in chosen]
    assert min(inside) >= max(outside) if make is core_users else max(inside) <= min(outside)
    assert case.request.level == "user"


def test_users_with_equally_many_interactions_are_drawn_at_random():
    graph = gu.InteractionGraph.from_edges(torch.cartesian_prod(torch.arange(6), torch.arange(10)).t())
    test = graph.select(torch.arange(1))
    asked = [core_users(graph, share=0.4, seed=s, test=test, fractions=(0.99, 0.01, 0)).request for s in range(30)]
    assert len({request.index for request in asked}) > 5
    again = core_users(graph, share=0.4, seed=0, test=test, fractions=(0.99, 0.01, 0))
    assert again.request == asked[0]


def test_groups_have_names_shares_and_notes_of_their_own(graph):
    for make, name, word in ((core_users, "core-users", "most"), (edge_users, "edge-users", "least")):
        case = make(graph)
        assert case.name == name
        assert len(case.request) == round(SHARES[name] * case.train.pairs[0].unique().numel())
        assert case.notes == [f"The 5.00% {word} active users were chosen to be forgotten."]
        assert (case.targets, case.real, case.category) == (None, None, None)
        train, validation, test = graph.random_split(PARTS, seed=0)
        assert [pairs_of(p) for p in (case.train, case.validation, case.test)] == [
            pairs_of(p) for p in (train, validation, test)
        ]
        for share in (0, 1, -0.1):
            with pytest.raises(ValueError, match="'share' must be between 0 and 1"):
                make(graph, share=share)
        with pytest.raises(ValueError, match="'share' must leave some of what there is"):
            make(graph, share=0.9999)


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.5, 3), (0.99, 1)])
def test_sensitive_interactions_go_everywhere(graph, share, seed):
    category = {graph.item_ids[item] for item in range(0, 40, 4)}
    case = sensitive(graph, [*category, "nothing"], share=share, seed=seed)
    train, validation, test = graph.random_split(PARTS, seed=seed)
    chosen = set(range(0, 40, 4))
    inside, outside = Counter(), Counter()
    for user, item in pairs_of(train):
        (inside if item in chosen else outside)[user] += 1
    able = {user for user in range(90) if inside[user] >= 3 and outside[user] >= 3}
    pairs = set(case.request.index)
    users = {user for user, _ in pairs}
    assert users <= able
    assert len(users) == max(1, round(share * len(able)))
    assert pairs == {(u, i) for u, i in pairs_of(train) if u in users and i in chosen}
    assert torch.equal(case.train.pairs, train.pairs)
    lost = 0
    for ours, theirs in ((case.validation, validation), (case.test, test)):
        gone = {(u, i) for u, i in pairs_of(theirs) if u in users and i in chosen}
        assert pairs_of(ours) == pairs_of(theirs) - gone
        lost += len(gone)
    assert case.category.tolist() == sorted(chosen)
    assert case.name == "sensitive"
    assert case.notes[0].startswith(f"{len(pairs)} interactions of {len(users)} user")
    assert len(case.notes) == 1 + (lost > 0)
    assert not lost or case.notes[1].startswith(f"{lost} held-out interactions")


def test_sensitive_users_are_drawn_at_random(graph):
    items = graph.item_ids[::4]
    one, same, other = ({u for u, _ in sensitive(graph, items, seed=s).request.index} for s in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(
    ("items", "share", "sentence"),
    [
        (["nothing"], 0.1, r"'items' must hold an item of the graph \(got none\)"),
        ([], 0.1, r"'items' must hold an item of the graph \(got none\)"),
        ([-1], 0.1, r"'items' must be text or whole numbers from 0 \(got -1\)"),
        (None, 0.1, r"'items' must have a user with at least 3 training .* and 3 with others \(got no such user\)"),
        (slice(0, 15), 1.0, r"'share' must be between 0 and 1 \(got 1.0\)"),
    ],
)
def test_categories_that_nobody_can_forget_are_refused(graph, items, share, sentence):
    items = graph.item_ids if items is None else graph.item_ids[items] if isinstance(items, slice) else items
    with pytest.raises(ValueError, match=sentence):
        sensitive(graph, items, share=share)


def flags(*names):
    return "|".join("1" if genre in names else "0" for genre in GENRES)


TABLES = {
    "ml.item": "item_id:token\ttitle:token_seq\tclass:token_seq\n1\tA, B\tSci-Fi War\n2\t\tChildren's\n3\tC\tWar\n",
    "u.item": "\n".join(
        f"{n}|Film {n}|01-Jan-1995||http://x|{flags(*genres)}"
        for n, genres in ((1, ["Sci-Fi", "War"]), (2, ["Children's"]), (3, ["War"]))
    ),
    "movies.csv": 'movieId,title,genres\n1,"A, B",Sci-Fi|War\n2,"C",Children\'s\n3,D,War\n',
    "plain.csv": "item,category\n1,Sci-Fi War\n\n2,Children's\n3,War\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_items_of_a_category_are_read(name, tmp_path):
    (tmp_path / name).write_text(TABLES[name])
    assert items_of_category(tmp_path / name, "war") == ["1", "3"]
    assert items_of_category(tmp_path / name, "Children's") == ["2"]
    assert items_of_category(tmp_path / name, " SCI-FI ") == ["1"]
    with pytest.raises(ValueError, match=r"'category' must be one of Children's, Sci-Fi, War \(got 'horror'\)"):
        items_of_category(tmp_path / name, "horror")


def test_categories_with_spaces_are_read_where_bars_part_them(tmp_path):
    (tmp_path / "x.csv").write_text("item,genres\n1,Live Action|War\n2,Live Action\n")
    assert items_of_category(tmp_path / "x.csv", "live action") == ["1", "2"]


def test_tables_that_are_not_utf_8_are_read(tmp_path):
    (tmp_path / "u.item").write_bytes(f"5|Café|01-Jan-1995||http://x|{flags('War')}\n".encode("latin-1"))
    assert items_of_category(tmp_path / "u.item", "War") == ["5"]


def test_tables_without_the_columns_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="'path' must be an existing file"):
        items_of_category(tmp_path / "no.csv", "War")
    (tmp_path / "a.csv").write_text("item,title\n1,A\n")
    with pytest.raises(
        ValueError, match=r"must have a column of categories, such as class \(got columns item, title\)"
    ):
        items_of_category(tmp_path / "a.csv", "War")
    (tmp_path / "b.csv").write_text("name,genre\n1,A\n")
    with pytest.raises(ValueError, match=r"must have a column of items, such as item \(got columns name, genre\)"):
        items_of_category(tmp_path / "b.csv", "War")
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(ValueError, match=r"must have a column of items, such as item \(got an empty file\)"):
        items_of_category(tmp_path / "c.csv", "War")
