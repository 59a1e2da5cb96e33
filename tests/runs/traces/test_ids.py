import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.runs.traces.ids import WantedIds, role_of


def naive(ids, text):
    """Every position of every id, by the definition of a token, one after the other."""
    found = []
    for name in ids:
        for start in range(len(text) - len(name) + 1):
            end = start + len(name)
            if text[start:end] != name:
                continue

            def word(at):
                return 0 <= at < len(text) and (text[at].isalnum() or text[at] == "_")

            if (word(start - 1) and word(start)) or (word(end) and word(end - 1)):
                continue
            if name.isdecimal():
                before, after = text[:start], text[end:]
                if re.search(r"\d\.$|\d[eE][+-]$", before) or re.match(r"\.\d*[1-9]", after):
                    continue
            found.append((name, start))
    return sorted(found)


@given(
    st.text(alphabet="ab1270._-, é'", max_size=40),
    st.sets(st.sampled_from(["a", "ab", "a-b", "é1", "x y", "-", "a.b"])),
)
def test_texts_are_found_as_the_definition_says(text, ids):
    ids |= {"b1"}  # one that is no number, so that all are texts
    assert sorted(WantedIds(ids, "user").occurrences(text)) == naive(ids, text)


@given(st.text(alphabet="0127.,e- x", max_size=40), st.sets(st.sampled_from(["1", "7", "12", "27", "0"]), min_size=1))
def test_numbers_are_found_as_the_definition_says(text, ids):
    assert sorted(WantedIds(ids, "user").occurrences(text)) == naive(ids, text)


@pytest.mark.parametrize(
    "text,count",
    [
        ("7", 1),
        ("7.0", 1),
        ("7.5", 0),
        ("0.7", 0),
        ("1e-7", 0),
        ("2026-11-07 07:07:07.7", 0),
        ("7::1193::5", 1),
        ("x7 7x _7 17 77", 0),
        ("(7), [7]; 7\n", 3),
        ("u-7", 1),
    ],
)
def test_a_number_is_no_part_of_another(text, count):
    assert sum(WantedIds([7], "user").in_text(text).values()) == count


def test_ids_of_a_column_of_numbers_are_numbers_and_others_are_text():
    assert WantedIds(["1.0", 2], "user").ids == {"1", "2"}
    mixed = WantedIds(["1.0", "b"], "user")
    assert mixed.in_text("1.0 b 1")["certain"] == 2


def test_a_short_number_in_prose_counts_if_the_level_stands_before_it():
    ids = WantedIds([7, 9], "user")
    assert ids.in_text("forget --users 7 9 --seed 9", prose=True) == {"certain": 2, "possible": 1}
    assert ids.in_text("7 seconds for item 9", prose=True) == {"possible": 2}
    assert WantedIds([765611], "user").in_text("765611 seconds", prose=True) == {"certain": 1}


def test_numbers_of_arrays_are_compared_exactly():
    ids = WantedIds([7, 300, 2**53 + 1, 2**63 + 5], "user")
    assert ids.in_numbers(np.array([7, 7, -7, 17]), "user") == {"certain": 2}
    assert ids.in_numbers(np.array([7.0, 7.5, np.nan, np.inf, -7.0]), "user") == {"certain": 1}
    assert ids.in_numbers(np.array([7]), None) == {"certain": 1}
    assert ids.in_numbers(np.array([7]), "item") == {"possible": 1}
    assert ids.in_numbers(np.array([7]), "figure") == {"possible": 1}
    assert ids.in_numbers(np.array([2**53 + 1, 2**53]), None, table=False) == {"certain": 1}
    assert ids.in_numbers(np.array([2**63 + 5], dtype=np.uint64), "user") == {"certain": 1}
    assert ids.in_numbers(np.array([300 - 256], dtype=np.uint8), "user") == {}


@given(
    st.binary(max_size=200), st.sampled_from(["alice@x", "u77777", "77777777"]), st.sampled_from(["utf-8", "utf-16-le"])
)
def test_a_long_id_in_any_bytes_is_found(noise, name, encoding):
    ids = WantedIds([name], "user")
    pad = " ".encode(encoding)
    assert ids.in_bytes(noise + b"\x00\x00" + pad + name.encode(encoding) + pad + b"\x00\x00" + noise)["certain"] >= 1


def test_other_alphabets_are_found_in_utf_16():
    ids = WantedIds(["анна", "b"], "user")
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        assert ids.in_bytes(b"\x01\x01" + "анна".encode(encoding) + b"\x01\x01")["certain"] == 1


def test_a_short_id_in_bytes_counts_in_a_long_run_of_text_alone():
    ids = WantedIds([7], "user")
    assert ids.in_bytes(b"\x00\x01 7 \x02\x03") == {}
    assert ids.in_bytes(b"\x00{'requests': [7, 9]}\x00") == {"certain": 1}
    rng = np.random.default_rng(0)
    assert ids.in_bytes(rng.bytes(1 << 20)) == {}


def test_remains_of_rows_follow_each_other_without_a_break():
    ids = WantedIds(["u3", "alice@x"], "user")
    assert ids.in_remains(b"\x00\x05u32026-12-20\x01") == {"possible": 1}
    assert ids.in_remains(b"\x00\x05alice@x2026-12-20\x01") == {"certain": 1}
    assert ids.in_remains(b"\x00 u3 alice@x\x01") == {"certain": 2}


@pytest.mark.parametrize(
    "name,role",
    [
        ("user_id:token", "user"),
        ("Users", "user"),
        ("movieId", "item"),
        ("sessions", "session"),
        ("session_vocabulary", "session"),
        ("num_users", "figure"),
        ("timestamp", "figure"),
        ("who", None),
    ],
)
def test_names_tell_ids_from_figures(name, role):
    assert role_of(name) == role
