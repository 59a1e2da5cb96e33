"""The lists that differ between two models, against a loop over users and items with all scores at hand."""

import pytest
import torch
import torch_geometric

import graphunlearn as gu
from graphunlearn.serving import changed_lists


def naive_lists(rows, columns, k, seen, can):
    """The best k columns of every row by inner product, by a sort of one row at a time; None for rows without one."""
    lists = []
    for number, row in enumerate(rows):
        scores = [(float((row * column).sum()), -place) for place, column in enumerate(columns)]
        order = sorted((s for s in scores if -s[1] not in seen(number) and can[-s[1]]), reverse=True)
        lists.append([-place for _, place in order[:k]])
    return lists


def naive(model, graph, k):
    """Lists of users and of items by raw id, of those that have interactions."""
    encoded = gu.encode(model.eval(), graph)
    users, items = encoded.queries.detach().double(), encoded.items.detach().double()
    pairs = graph.pairs.t().tolist()
    has_user = {u for u, _ in pairs}
    can = [item in {i for _, i in pairs} for item in range(graph.num_items)]
    of_users = naive_lists(users, items, k, lambda user: {i for u, i in pairs if u == user}, can)
    of_items = naive_lists(items, items, k, lambda item: {item}, can)
    name = graph.item_ids
    return (
        {graph.user_ids[u]: [name[i] for i in row] for u, row in enumerate(of_users) if u in has_user},
        {name[j]: [name[i] for i in row] for j, row in enumerate(of_items) if can[j]},
    )


def differences(first, second, k):
    """(status, number of places) by id, of those whose lists differ."""
    found = {}
    for name in {**first, **second}:
        one, two = (lists.get(name, []) + [None] * k for lists in (first, second))
        places = sum(a != b for a, b in zip(one[:k], two[:k]))
        status = "removed" if name not in second else "new" if name not in first else "changed"
        if places or status != "changed":
            found[name] = (status, places)
    return found


def as_dict(frame):
    return {row.id: (row.status, row.places) for row in frame.itertuples()}


@pytest.mark.parametrize("k", [1, 5, 24])
@pytest.mark.parametrize("batch_size", [7, 1024])
def test_as_by_a_loop_over_everyone(k, batch_size, forgot):
    result = forgot.result
    changed = changed_lists(forgot.model, forgot.graph, result.model, result.graph, k, batch_size)
    first, second = naive(forgot.model, forgot.graph, k), naive(result.model, result.graph, k)
    assert as_dict(changed.users) == differences(first[0], second[0], k)
    similar = {name: entry for name, entry in as_dict(changed.items).items() if entry[1] or entry[0] != "changed"}
    assert similar == differences(first[1], second[1], k)
    entered = {row.id: row.entered for row in changed.items.itertuples()}
    left = {row.id: row.left for row in changed.items.itertuples()}
    for item in forgot.graph.item_ids:
        had, has = ({user for user, row in lists[0].items() if item in row} for lists in (first, second))
        assert (entered.get(item, 0), left.get(item, 0)) == (len(has - had), len(had - has))


def test_the_forgotten_are_removed_and_everyone_else_is_compared(forgot):
    changed = changed_lists(forgot.model, forgot.graph, forgot.result.model, forgot.result.graph, 5)
    users, items = (frame.loc[frame["status"] == "removed", "id"] for frame in (changed.users, changed.items))
    assert (set(users), set(items)) == (forgot.users, forgot.items)
    counts = changed.counts()
    assert counts["users"]["compared"] == 40
    assert counts["users"]["removed"] == 2
    assert counts["users"]["changed"] == (changed.users["status"] == "changed").sum() > 0


def test_the_same_model_changes_nothing(forgot):
    changed = changed_lists(forgot.model, forgot.graph, forgot.model, forgot.graph, 5)
    assert len(changed.users) == len(changed.items) == 0
    assert changed.counts()["items"] == {"compared": 25, "changed": 0, "removed": 0, "new": 0}


def test_other_numbers_of_the_same_ids_change_nothing():
    torch.manual_seed(1)
    pairs = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 1, 2, 0, 3]])
    graph = gu.InteractionGraph.from_edges(pairs, user_ids=["a", "b", "c", "d"], item_ids=["w", "x", "y", "z"])
    model = torch_geometric.nn.LightGCN(8, 4, num_layers=1)
    turned = gu.InteractionGraph.from_edges(3 - pairs, user_ids=["d", "c", "b", "a"], item_ids=["z", "y", "x", "w"])
    other = torch_geometric.nn.LightGCN(8, 4, num_layers=1)
    with torch.no_grad():
        rows = model.embedding.weight.view(2, 4, 4)
        other.embedding.weight.copy_(rows.flip(1).reshape(8, 4))
    changed = changed_lists(model, graph, other, turned, 2)
    assert len(changed.users) == len(changed.items) == 0


def test_who_came_since_is_new(forgot):
    result = forgot.result
    changed = changed_lists(result.model, result.graph, forgot.model, forgot.graph, 5)
    assert set(changed.users.loc[changed.users["status"] == "new", "id"]) == forgot.users


def test_sessions_compare_items(sessions):
    changed = changed_lists(sessions.model, sessions.graph, sessions.result.model, sessions.result.graph, 4)
    assert changed.users is None
    assert list(changed.items.columns) == ["id", "status", "places"]
    assert changed.items.loc[changed.items["status"] == "removed", "id"].tolist() == [7]  # all ids are numbers


def test_refuses_a_list_without_places_and_two_kinds(forgot, sessions):
    with pytest.raises(ValueError, match=r"'k' must be at least 1 \(got 0\)"):
        changed_lists(forgot.model, forgot.graph, forgot.model, forgot.graph, 0)
    with pytest.raises(ValueError, match="'after_graph' must be of the kind of before_graph, interactions"):
        changed_lists(forgot.model, forgot.graph, sessions.model, sessions.graph, 3)
