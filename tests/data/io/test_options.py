"""How a file is to be read."""

import pytest

from graphunlearn.data.io.options import Reading, size_of


def test_sizes():
    sizes = {"1": 1, "500 MB": 500_000_000, "2GiB": 2**31, "1.5k": 1500, "3 b": 3, 7: 7}
    assert {text: size_of(text) for text in sizes} == sizes
    for text in ("", "0", "-1", "GB", "1 PB", "1e9"):
        with pytest.raises(ValueError, match="'max_size' must be a number of bytes, such as 2GB"):
            size_of(text)


def test_separators():
    assert [Reading(sep=name).sep for name in ("tab", "\\t", "space", "::", "|")] == ["\t", "\t", " ", "::", "|"]
    for bad in ("", "a", '"', "\n", "x|"):
        with pytest.raises(ValueError, match="'sep' must be the text between fields"):
            Reading(sep=bad)
    with pytest.raises(ValueError, match="'decimal' must differ from 'sep'"):
        Reading(sep="comma", decimal=",")
    with pytest.raises(ValueError, match=r"'decimal' must be '.' or ','"):
        Reading(decimal=";")


def test_columns_are_what_is_left():
    assert Reading.take({"sep": ",", "user": "who", "rating": None}) == (
        Reading(sep=","),
        {"user": "who", "rating": None},
    )
