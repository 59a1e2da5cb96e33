"""Reading files of interactions, naming what is wrong with them, and writing whole files."""

import gzip
import os
import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.data.io.files import SUFFIXES, read_frame, write_atomic


@pytest.fixture
def write(tmp_path):
    def writer(content, name="ratings.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer


def rows(frame):
    return [tuple(row) for row in frame.astype({"user": object, "item": object}).itertuples(index=False)]


HEADERS = [
    "user,item",
    "user_id,item_id",
    "userId,movieId",
    "uid,iid",
    "User ID,Product ID",
    "user_id:token,item_id:token",
]


@pytest.mark.parametrize("header", HEADERS)
def test_common_column_names(write, header):
    frame = read_frame(write(f"{header}\nann,dune\nbob,7\n"))
    assert list(frame.columns) == ["user", "item"]
    assert rows(frame) == [("ann", "dune"), ("bob", "7")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n", "a.inter"),
        ("196\t242\t3\t881250949\n", "u.data"),
        ("196::242::3::881250949\n", "ratings.dat"),
        ("196,242,3,881250949\n", "a.csv"),
        ("196;242;3;881250949\n", "a.csv"),
        ("196 242 3 881250949\n", "a.txt"),
        ("  196   242  3 881250949  \n", "a.txt"),
        ("196\t242\t3\t881250949\r\n", "a.tsv"),
        ("196\t242\t3\t881250949\r", "a.tsv"),
        ("\ufeffuser,item,rating,time\n196,242,3,881250949\n", "a.csv"),
        ("\n\nuser,item,rating,time\n\n196,242,3,881250949\n\n", "a.csv"),
        ("user, item, rating, time\n196, 242, 3, 881250949\n", "a.csv"),
        ('"user","item","rating","time"\n"196","242","3","881250949"\n', "a.csv"),
        ("tag,val,iid,uid,extra\n881250949,3,242,196,x\n", "a.csv"),
        ("timestamp,rating,extra,item,user\n881250949,3.0,x,242.0,196.0\n", "A.CSV"),
    ],
)
def test_one_row_in_many_layouts(write, text, name):
    for path in (write(text, name), write(gzip.compress(text.encode()), name + ".gz")):
        frame = read_frame(path)
        assert list(frame.columns) == ["user", "item", "rating", "time"]
        assert rows(frame) == [("196", "242", 3.0, 881250949)]
        assert frame.dtypes[["rating", "time"]].tolist() == [np.float64, np.int64]


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("who,what,stars\na,b,4\n", {"user": "who", "item": "what"}, [("a", "b", 4.0)]),
        ("who:token,what:token\na,b\n", {"user": "who", "item": "what"}, [("a", "b")]),
        ("user,item,rating,score\na,b,4,9\n", {"rating": "score"}, [("a", "b", 9.0)]),
        ("item,user\na,b\n", {"user": "item", "item": "user"}, [("a", "b")]),
        ("7,8,9\n1,2,3\n", {"user": 2, "item": 0}, [("9", "7", 8.0), ("3", "1", 2.0)]),
        ("user,item,x\n1,2,3\n", {"rating": 2}, [("1", "2", 3.0)]),
        ("1,2,1\n", {"label": 2}, [("1", "2", 1.0)]),
        ("user,item,label\n1,2,0\n", {}, [("1", "2", 0.0)]),
        ("SessionId\tItemId\tTime\n3\t21\t139.94\n", {"user": "SessionId"}, [("3", "21", 139.94)]),
    ],
)
def test_named_columns(write, text, arguments, expected):
    assert rows(read_frame(write(text), **arguments)) == expected


def test_ids_stay_as_they_are_written(write):
    frame = read_frame(write("user,item,rating\n007,123456789012345678901,1\n7,123456789012345678902,2\n0e1,x,3\n"))
    assert rows(frame)[:2] == [("007", "123456789012345678901", 1.0), ("7", "123456789012345678902", 2.0)]


def test_ids_are_in_order_of_first_appearance(write):
    frame = read_frame(write("user,item\nz,9\na,10\nz,8\n"))
    assert frame["user"].cat.categories.tolist() == ["z", "a"]
    assert frame["item"].cat.categories.tolist() == ["9", "10", "8"]


def test_quotes(write):
    frame = read_frame(write('user,item,rating\n1,"Dune, ""the"" book",5\n"2",\'x\',4\n'))
    assert rows(frame) == [("1", 'Dune, "the" book', 5.0), ("2", "'x'", 4.0)]
    frame = read_frame(write('user\titem\n1\t"Dune\n2\t5" disc\n', "a.tsv"))
    assert rows(frame) == [("1", '"Dune'), ("2", '5" disc')]


def test_no_header_where_all_is_text(write):
    assert rows(read_frame(write("ann,dune\nbob,solaris\n"))) == [("ann", "dune"), ("bob", "solaris")]


def test_a_header_of_unknown_names_above_numbers(write):
    with pytest.raises(ValueError, match=r"must have a column of users \(got columns 'who', 'what', 'much'"):
        read_frame(write("who,what,much\na,b,1\nc,d,2\n"))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["1997-12-04 15:55:49", "1997-12-04 15:55:50"], [881250949, 881250950]),
        (["1970-01-02", "1970-01-01"], [86400, 0]),
        (["1970-01-01T00:00:00.5", "1970-01-01T00:00:01Z"], [0.5, 1.0]),
    ],
)
def test_dates_become_seconds(write, column, expected):
    text = "user,item,date\n" + "".join(f"1,{i},{date}\n" for i, date in enumerate(column))
    assert read_frame(write(text))["time"].tolist() == expected


# One line per user


def test_lists(write):
    text = "0 1 2 3\n1 2\n\n2\n3 5 1 \n"
    expected = [("0", "1"), ("0", "2"), ("0", "3"), ("1", "2"), ("3", "5"), ("3", "1")]
    assert rows(read_frame(write(text, "train.txt"))) == expected
    assert rows(read_frame(write(text.replace("\n", "\r\n").replace(" ", "\t"), "train.txt"))) == expected
    assert rows(read_frame(write(gzip.compress(text.encode()), "train.txt.gz"))) == expected


def test_lists_on_request(write):
    path = write("0 1 2\n1 2 0\n", "train.txt")
    assert rows(read_frame(path)) == [("0", "1", 2.0), ("1", "2", 0.0)]
    assert rows(read_frame(path, lists=True)) == [("0", "1"), ("0", "2"), ("1", "2"), ("1", "0")]
    with pytest.raises(ValueError, match=r"line 2: must have 3 fields like line 1 \(got 2\)"):
        read_frame(write("0 1 2\n1 2\n", "train.txt"), lists=False)


def test_lists_with_a_bad_id(write):
    with pytest.raises(ValueError, match=r"line 2: item ids must be whole .* in a column of numbers \(got -4\)"):
        read_frame(write("0 1 2 3\n1 -4\n", "train.txt"), lists=True)
    with pytest.raises(ValueError, match="must hold at least one user with an item"):
        read_frame(write("0\n1\n", "train.txt"), lists=True)


@given(st.lists(st.lists(st.integers(0, 50), max_size=5, unique=True), min_size=1, max_size=8))
def test_lists_are_rows(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("lists") / "train.txt"
    path.write_text("".join(" ".join(map(str, [user, *row])) + "\n" for user, row in enumerate(items)))
    expected = [(str(user), str(item)) for user, row in enumerate(items) for item in row]
    if expected:
        assert rows(read_frame(path, lists=True)) == expected


# What is wrong, and where

BAD_ROWS = [
    ("user,item,rating\n1,2,3\n1,3\n", r"line 3: must have 3 fields like line 1 \(got 2\)"),
    ("user,item,rating\n\n1,2,3,4\n1,3\n", r"line 3: must have 3 fields like line 1 \(got 4\)"),
    ("1,2,3\n1,2,3\n1,2,3\n1,2,\n", r"line 4: the rating must be a finite number \(got 'nan'\)"),
    ("1,2,3\n\n1,2,abc\n", r"line 3: the rating must be a finite number \(got 'abc'\)"),
    ("1,2,abc\n1,3,4\n", r"line 1: the rating must be a finite number \(got 'abc'\)"),
    ("user,item,rating\n1,2,nan\n", r"line 2: the rating must be a finite number"),
    ("user,item,rating\n1,2,inf\n", r"line 2: the rating must be a finite number \(got 'inf'\)"),
    ("user,item,rating,time\n1,2,3,4\n1,3,3,soon\n", r"line 3: the time must be a finite number or a date \(got 'soon"),
    ("user,item,rating,time\n1,2,3,2020-01-01\n1,3,3,soon\n", r"line 3: the time must be .* or a date \(got 'soon'\)"),
    ("user,item,rating,time\n1,2,3,2020-01-01\n1,3,3,77\n", r"line 3: the time must be .* or a date \(got '77'\)"),
    ("user,item,label\n1,2,yes\n", r"line 2: the label must be a finite number \(got 'yes'\)"),
    ("user,item\n1,2\n-1,3\n", r"line 3: user ids must be whole and not negative in a column of numbers \(got -1\)"),
    ("user,item\n1,2\n1,3\n1,3.5\n", r"line 4: item ids must be whole .* in a column of numbers \(got 3.5\)"),
    ("user,item\n1,2\n,3\n", r"line 3: the user is missing"),
    ("user,item\n1,2\n1,NA\n", r"line 3: the item is missing"),
    ('user,item\n1,"a\nb"\n1,"c"\n2,"",5\n', r"line 5: must have 2 fields like line 1 \(got 3\)"),
    ("user,item\n", r"must hold at least one row \(got only a header\)"),
    ("", r"must hold at least one row \(got an empty file\)"),
    (" \n\n", r"must hold at least one row \(got an empty file\)"),
    (b"user,item\n1,2\n1,\x00\n", r"line 3: must be UTF-8 text \(got byte 0x00\)"),
    (b"user,item\n1,caf\xe9\n", r"line 2: must be UTF-8 text \(got byte 0xe9\)"),
    (bytes(range(256)) * 4, r"must be UTF-8 text \(got byte 0x00\)"),
    (
        "foo,bar,rating\n1,2,3\n",
        r"must have a column of users \(got columns 'foo', 'bar', 'rating'\); name it with user=\.\.\.",
    ),
    ("user,bar,rating\n1,2,3\n", r"must have a column of items \(got columns .*\); name it with item=\.\.\.$"),
    ("1\n2\n", r"must have a column of items \(got 1 columns"),
]


@pytest.mark.parametrize(("content", "message"), BAD_ROWS)
def test_bad_files_name_the_line(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=f"^'{re.escape(str(path))}'.*" + message) as caught:
        read_frame(path)
    assert "\n" not in str(caught.value).replace(str(path), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"user": "usr_id"},
            r"'user' must name a column of '.*' \(got 'usr_id'; did you mean 'user_id'\? there are 'user_id', 'item'",
        ),
        ({"rating": "zzz"}, r"'rating' must name a column of .* \(got 'zzz'; there are 'user_id', 'item', 'stars'\)"),
        ({"item": 3}, r"'item' must be a column below 3 of .* \(got 3\)"),
        ({"item": -1}, r"'item' must be a column below 3 of .* \(got -1\)"),
    ],
)
def test_columns_that_are_not_there(write, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_frame(write("user_id,item,stars\n1,2,3\n"), **arguments)


def test_a_name_without_a_header(write):
    with pytest.raises(ValueError, match=r"'rating' must be a column number, since .* has no header \(got 'stars'\)"):
        read_frame(write("1,2,3\n4,5,6\n"), rating="stars")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path / "none.csv.gz", tmp_path / "none.parquet"):
        with pytest.raises(
            FileNotFoundError, match=rf"^'path' must be an existing file \(got '{re.escape(str(path))}'\)$"
        ):
            read_frame(path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(FileNotFoundError, match="'path' must be an existing file"):
        read_frame(tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.json.gz", "a.gz", "a.parquet.gz"])
def test_unsupported_suffix(write, name):
    with pytest.raises(ValueError, match=r"'path' must end in \.csv, .* or \.parquet \(got '.*'\)"):
        read_frame(write("1,2\n", name))
    assert not name.endswith(SUFFIXES)


def test_truncated_or_damaged_gzip(write):
    whole = gzip.compress(b"user,item\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(2000)))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    wrong_sum = whole[:-8] + b"\x00\x00\x00\x00" + whole[-4:]
    for content in (whole[:-20], whole[:10], whole[:-4], bytes(damaged), wrong_sum, b"no gzip at all"):
        with pytest.raises(
            ValueError, match=r"ratings.csv.gz' must be a whole gzip file \(got a truncated or damaged one"
        ):
            read_frame(write(content, "ratings.csv.gz"))
    assert len(read_frame(write(whole, "ratings.csv.gz"))) == 2000


def test_a_missing_final_newline_is_a_warning(write):
    with pytest.warns(
        UserWarning, match=r"ratings.csv' has no newline at its end: the last line may be cut off"
    ) as caught:
        frame = read_frame(write("user,item,rating\n1,2,3\n1,3,4"))
    assert rows(frame)[-1] == ("1", "3", 4.0)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frame(write("user,item,rating\n1,2,3\n1,3,4\n"))


@given(st.data())
def test_any_row_can_be_the_broken_one(tmp_path_factory, data):
    """Wherever a field is cut off or garbled, blank lines or not, the message has the physical line."""
    count = data.draw(st.integers(1, 150))
    blank = data.draw(st.sets(st.integers(0, count), max_size=3))
    broken = data.draw(st.integers(0, count - 1))
    header = data.draw(st.booleans())
    bad, message = data.draw(
        st.sampled_from([("1,2", "must have 3 fields"), ("1,2,?", "the rating"), ("1,-2,3", "item ids")])
    )
    lines = ["user,item,rating"] * header
    for row in range(count):
        lines += [""] * (row in blank)
        if row == broken:
            at = len(lines) + 1
        lines.append(bad if row == broken else f"{row},{row},{row % 5}")
    if count == 1 and not header and bad == "1,2":
        return  # a file of one row has the width of that row
    path = tmp_path_factory.mktemp("broken") / "ratings.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="line ") as caught:
        read_frame(path)
    text = str(caught.value)
    if bad == "1,2" and broken == 0 and not header:
        assert "must have 2 fields" in text  # the first row sets the width
    else:
        assert f"line {at}: {message}" in text


ID = (
    st.text("abcxyz019é -", min_size=1, max_size=5)
    .map(str.strip)
    .filter(lambda text: text.strip("0123456789-. ") != "")
)


@given(st.lists(st.tuples(ID, ID, st.integers(-9, 9), st.integers(0, 10**12)), min_size=1, max_size=30))
def test_what_is_written_is_read(tmp_path_factory, written):
    for separator, name in ((",", "a.csv"), ("\t", "a.tsv"), (";", "a.txt"), ("::", "a.dat")):
        path = tmp_path_factory.mktemp("files") / name
        lines = [
            separator.join(["user", "item", "rating", "time"]),
            *(separator.join(map(str, row)) for row in written),
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert rows(read_frame(path)) == written


# Parquet


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "ratings.parquet"
    table = pd.DataFrame({"user_id": [196, 186], "movie": ["a", "b"], "stars": [3, 4]})
    table.to_parquet(path)
    assert rows(read_frame(path)) == [("196", "a", 3.0), ("186", "b", 4.0)]
    assert rows(read_frame(path, rating="stars", user="movie", item="user_id")) == [
        ("a", "196", 3.0),
        ("b", "186", 4.0),
    ]
    for column, message in (
        ([1.5, 2], r"row 1: user ids must be .* \(got 1.5\)"),
        ([1, -2], r"row 2: user ids .* \(got -2\)"),
    ):
        table.assign(user_id=column).to_parquet(path)
        with pytest.raises(ValueError, match=message):
            read_frame(path)
    table.iloc[:0].to_parquet(path)
    with pytest.raises(ValueError, match=r"must hold at least one row \(got none\)"):
        read_frame(path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match=r"ratings.parquet' must be a whole parquet file"):
        read_frame(path)


def test_parquet_needs_an_extra(write, monkeypatch):
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"needs pyarrow to be read: python -m pip install 'graphunlearn\[parquet\]'"):
        read_frame(write(b"", "ratings.parquet"))


# Writing


def test_write_atomic(tmp_path):
    path = tmp_path / "a.bin"
    assert write_atomic(path, b"one") == path
    assert path.read_bytes() == b"one"
    write_atomic(str(path), "zwei é")
    assert path.read_text(encoding="utf-8") == "zwei é"
    write_atomic(path, lambda file: file.write(b"three"))
    assert path.read_bytes() == b"three"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = write_atomic(tmp_path / "a.bin", b"old")

    def interrupted(file):
        file.write(b"half of the new")
        raise error

    with pytest.raises(error):
        write_atomic(path, interrupted)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.bin", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"^'.*a.bin' could not be written: No space left on device \(an earlier file is unch"
    ):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'.*none/a.bin' could not be written: No such file or directory"):
        write_atomic(tmp_path / "none" / "a.bin", b"x")


def test_a_link_stays_a_link(tmp_path):
    write_atomic(tmp_path / "a.bin", b"old")
    (tmp_path / "link").symlink_to(tmp_path / "a.bin")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a.bin").read_bytes() == b"new"
