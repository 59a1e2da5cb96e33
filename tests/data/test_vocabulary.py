"""Raw ids."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.data.vocabulary import IdError, Vocabulary, canonical_id, canonical_ids, preview


@pytest.mark.parametrize(
    "value",
    ["196", 196, 196.0, " 196 ", np.int32(196), np.uint8(196), np.float64(196), torch.tensor(196), np.array(196)],
)
def test_one_id_in_many_types(value):
    assert canonical_id(value) == "196"


@pytest.mark.parametrize(
    "value",
    [-1, 1.5, float("nan"), float("inf"), True, None, "", " ", "NaN", "null", "<NA>", (1,), torch.tensor([1, 2])],
)
def test_what_is_no_id(value):
    with pytest.raises(ValueError, match="'ids' must be text or whole numbers from 0"):
        canonical_id(value)


def test_text_is_left_alone():
    for text in ("007", "1.10", "-5", "a b", "1e5"):
        assert canonical_id(text) == text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["196.0", "22", "7."], ["196", "22", "7"]),
        (["007", "+5"], ["007", "+5"]),
        (["196.0", "007"], ["196.0", "007"]),
        (["+4912", "4912"], ["+4912", "4912"]),
        (["1", "1.0", 1, 1.0, np.uint64(2**64 - 1)], ["1", "1", "1", "1", "18446744073709551615"]),
        (["1", "1.0", "x"], ["1", "1.0", "x"]),
        (["1.5", "x"], ["1.5", "x"]),
        (["-5", "x"], ["-5", "x"]),
        (["1e5", "2"], ["1e5", "2"]),
        ([], []),
    ],
)
def test_a_column_of_text(values, expected):
    assert canonical_ids(values) == expected


@pytest.mark.parametrize(
    ("values", "position", "message"),
    [
        (["1", "2.5"], 1, r"must be whole and not negative in a column of numbers \(got 2.5\)"),
        (["-1", "2"], 0, r"must be whole and not negative in a column of numbers \(got -1\)"),
        (["a", "b", ""], 2, r"'ids' must be text .* \(got ''\)"),
        (
            [1.0, 2.0**53],
            1,
            r"must be below 2\*\*53 where they are floats \(got 9007199254740992.0\); store such ids as",
        ),
        ([np.float32(2**24)], 0, r"must be below 2\*\*24 where they are floats"),
        (["1", "9007199254740993.0"], 1, r"must be below 2\*\*53 where they have a decimal point"),
    ],
)
def test_a_column_with_a_bad_id(values, position, message):
    with pytest.raises(IdError, match=message) as caught:
        canonical_ids(values)
    assert caught.value.position == position


def test_preview():
    assert preview([]) == ""
    assert preview("abc") == "'a', 'b', 'c'"
    assert preview(range(10), 2) == "0, 1 and 8 more"


@given(st.lists(st.text("abc12", min_size=1), unique=True), st.lists(st.text("abc12", min_size=1)))
def test_lookup_is_the_position(ids, asked):
    vocabulary = Vocabulary(ids)
    expected = [ids.index(text) if text in ids else -1 for text in asked]
    assert vocabulary.lookup(asked).tolist() == expected
    assert vocabulary.lookup(asked).dtype == torch.int64
    assert [vocabulary[i] for i in range(len(vocabulary))] == ids


def test_lookup_by_the_rule_of_the_vocabulary():
    numbers = Vocabulary(["1", "20"])
    assert numbers.numeric
    assert numbers.lookup(["1", 1, 1.0, "1.0", "1.", "01", "+1", "x", "20.00"]).tolist() == [
        0,
        0,
        0,
        0,
        0,
        -1,
        -1,
        -1,
        1,
    ]
    text = Vocabulary(["1", "1.0", "007"])
    assert not text.numeric
    assert text.lookup(["1", 1, 1.0, "1.0", "7", "007"]).tolist() == [0, 0, 0, 1, -1, 2]
    for ids, numeric in ((["0", "10"], True), (["00"], False), (["-1"], False), (["\u0663"], False), ([], True)):
        assert Vocabulary(ids).numeric is numeric


@given(st.integers(0, 20))
def test_numbers_by_default(size):
    vocabulary = Vocabulary(size)
    assert vocabulary == Vocabulary(range(size))
    assert vocabulary.fingerprint == Vocabulary(range(size)).fingerprint
    assert vocabulary.lookup([size, *range(size)]).tolist() == [-1, *range(size)]
    assert len(vocabulary) == size


def test_take():
    vocabulary = Vocabulary(["a", "1.5", "c"])
    assert vocabulary.take(torch.tensor([2, 1])).ids == ["c", "1.5"]
    assert vocabulary.take(torch.tensor([True, False, True])).ids == ["a", "c"]


def test_equality_repr_and_copies():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary == Vocabulary(["a", "b"])
    assert vocabulary != Vocabulary(["b", "a"])
    assert vocabulary != ["a", "b"]
    assert repr(vocabulary) == "Vocabulary(2)"
    assert copy.deepcopy(vocabulary) is vocabulary


def test_repeated_ids():
    with pytest.raises(ValueError, match=r"'ids' must be distinct \(got 'a', 'b' more than once\)"):
        Vocabulary(["a", "b", "c", "a", "b"])


@pytest.mark.parametrize("whole", [Vocabulary(["b", "7", "a", "9"]), Vocabulary(4)])
def test_a_part_is_what_is_taken(whole):
    index = torch.tensor([3, 1], dtype=torch.int32)
    taken = whole.take(index)
    for part in (whole.part(index), pickle.loads(pickle.dumps(whole.part(index))), copy.copy(whole.part(index))):
        assert len(part) == 2
        assert part == taken
        assert part.ids == taken.ids
        assert part.lookup(["9", "b"]).tolist() == taken.lookup(["9", "b"]).tolist()
        assert (part.is_range, part.numeric) == (taken.is_range, taken.numeric)
        assert part.fingerprint == taken.fingerprint
        assert part.take(torch.tensor([1])) == taken.take(torch.tensor([1]))


def test_a_pickled_part_holds_no_other_ids():
    whole = Vocabulary(["forgotten", "kept"])
    assert b"forgotten" not in pickle.dumps(whole.part(torch.tensor([1])))
