"""Lists of a user and items: headers, counts, and test files read like their training files."""

import pytest

from graphunlearn.data import InteractionGraph
from graphunlearn.data.io.files import read_clicks, read_frame, read_ids

LISTS = "1 2 3\n2 3 4 5\n3 2\n4 5 4 3 2\n"


def ids(graph):
    users, items = graph.pairs.tolist()
    return [(graph.user_ids[u], graph.item_ids[i]) for u, i in zip(users, items)]


@pytest.mark.parametrize("header", ["user,item,rating", "user_id:token,item_id:token,rating:float"])
def test_a_test_file_with_a_header_holds_rows(write, header):
    train = InteractionGraph.from_file(write(LISTS, "train.txt"))
    test = InteractionGraph.from_file(write(f"{header}\n1,5,4\n2,2,3\n"), like=train)
    assert ids(test) == [("1", "5"), ("2", "2")]
    assert test.rating.tolist() == [4, 3]
    assert not test.num_left_out


@pytest.mark.parametrize(("text", "name"), [("1,5,4\n2,2,3\n", "t.csv"), ("1 5 4.0\n2 2 3.5\n", "t.txt")])
def test_rows_that_may_be_lists_are_asked_for(write, text, name):
    train = InteractionGraph.from_file(write(LISTS, "train.txt"))
    path = write(text, name)
    with pytest.raises(ValueError, match=r"must have a header or hold lists \(got rows that may hold ratings\)"):
        InteractionGraph.from_file(path, like=train)
    assert ids(InteractionGraph.from_file(path, like=train, lists=False)) == [("1", "5"), ("2", "2")]
    assert ids(InteractionGraph.from_file(path, like=train, user=0, item=1)) == [("1", "5"), ("2", "2")]


def test_counts_are_read_as_in_the_training_file(write):
    train = InteractionGraph.from_file(write("2 10 11\n1 12\n3 10 11 12\n", "train.txt"))
    expected = [("0", "12"), ("1", "10"), ("1", "11")]
    for graph in (train, InteractionGraph.load(train.save(write("", "train.safetensors")))):
        path = write("1 12\n2 10 11\n", "test.txt")  # the counts ascend, as ids of users do
        assert ids(InteractionGraph.from_file(path, like=graph)) == expected
        assert ids(InteractionGraph.from_file(path, like=graph, lists=True)) == expected
        with pytest.raises(ValueError, match=r"test.txt', line 2: must begin with the count of its items"):
            InteractionGraph.from_file(write("1 12\n7 10 11\n", "test.txt"), like=graph)
    plain = InteractionGraph.from_file(write(LISTS, "train.txt"))
    test = InteractionGraph.from_file(write("2 3 4\n1 3\n", "test.txt"), like=plain)
    assert ids(test) == [("2", "3"), ("2", "4"), ("1", "3")]


def test_a_header_above_lists(write):
    path = write("user_id item_id\n1 2 3\n2 3 4 5\n", "lists.txt")
    with pytest.warns(UserWarning, match=r"its first line names columns and was skipped \('user_id', 'item_id'\)"):
        assert len(read_frame(path, lists=True)) == 5
    assert len(read_frame(path, lists=True, header=True)) == 5
    assert len(read_frame(path, lists=True, header=False)) == 6
    with pytest.raises(ValueError, match=r"must hold lists of a user and items \(got a header with ratings\)"):
        read_frame(write("user,item,rating\n1,2,3\n2,3,5\n"), lists=True)


def test_lists_go_with_interactions_in_text_and_without_columns(write):
    path = write("1 2 3\n2 3 4 5\n", "lists.txt")
    with pytest.raises(ValueError, match=r"'lists' must be left out for a file .* \(got clicks in sessions\)"):
        read_clicks(path, lists=True)
    with pytest.raises(ValueError, match=r"'lists' must be left out for a file .* \(got a request\)"):
        read_ids(path, "user", lists=True)
    with pytest.raises(ValueError, match=r"'lists' must be left out for a file .* \(got '.*rows.jsonl'\)"):
        read_frame(write('{"user":1,"item":2}\n', "rows.jsonl"), lists=True)
    with pytest.raises(ValueError, match=r"'lists' must be left out where columns are given \(got both lists and user"):
        read_frame(path, lists=True, user=1)
