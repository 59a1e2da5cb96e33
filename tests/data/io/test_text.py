"""Quotes, sizes, and ids as they are written."""

import gzip
from datetime import datetime, timezone

import pytest

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.io import text
from graphunlearn.data.io.files import read_frame


def ids(frame):
    return list(zip(frame["user"].tolist(), frame["item"].tolist()))


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_quotes_count_with_every_separator(write, separator):
    text = f'"user_id"{separator}"item_id"\n"u1"{separator}"i1"\n"u2"{separator}"i2"\n'
    assert ids(read_frame(write(text, "q.txt"))) == [("u1", "i1"), ("u2", "i2")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('user\titem\n1\t"5"" disc"\n', [("1", '5" disc')]),
        ('user\titem\n1\t"5\\" disc"\n', [("1", '5" disc')]),
        ('user,item\n"a,b","say \\"hi\\""\n', [("a,b", 'say "hi"')]),
        ('user,item\n"a\\b","say \\"hi\\""\n', [("a\\b", 'say "hi"')]),
        ('user,item\na,5" disc\n', [("a", '5" disc')]),
        ('user,item\n"1","007"\n', [("1", "007")]),
        ('user item\n"a b" x\n', [("a b", "x")]),
    ],
)
def test_quotes_in_quotes(write, text, expected):
    assert ids(read_frame(write(text))) == expected


def test_quotes_that_are_text_are_told(write):
    with pytest.warns(UserWarning, match="quotes were kept as part of the values, since not all of them surround"):
        assert ids(read_frame(write('user\titem\n"1"\t"Dune\n2\tx\n', "a.tsv"))) == [('"1"', '"Dune'), ("2", "x")]


def test_a_quote_that_is_not_closed(write):
    with pytest.raises(ValueError, match=r"data.csv', line 3: must close its quotes"):
        read_frame(write('user,item\n1,2\n1,"a\n2,b\n'))


def test_rows_of_several_lines_are_told(write):
    text = 'user,item,text\n1,2,"a\n3,4,b"\n5,6,x\n'
    with pytest.warns(UserWarning, match="1 row takes several lines, inside quotes"):
        assert ids(read_frame(write(text))) == [("1", "2"), ("5", "6")]
    with (
        pytest.raises(ValueError, match=r"line 3: item ids must be one line of at most"),
        pytest.warns(UserWarning, match="several lines"),
    ):
        read_frame(write('user,item\n1,"a\n2,b"\n'))


def test_long_fields(write):
    with pytest.raises(ValueError, match=r"data.csv', line 2: must have fields below 131,072 characters"):
        read_frame(write('user,item\n1,"a ""' + "x" * 140_000 + '"\n'))
    with pytest.raises(
        ValueError, match=r"line 2: item ids must be one line of at most 4,096 .* of 5,000 characters\)$"
    ):
        read_frame(write("user,item\n1," + "x" * 5000 + "\n"))


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz"])
def test_the_largest_size(write, name):
    content = b"user,item\n" + b"1,2\n" * 100_000
    path = write(gzip.compress(content) if name.endswith("gz") else content, name)
    with pytest.raises(
        ValueError, match=r"must hold at most 100,000 bytes when it is decompressed .*'max_size' raises"
    ):
        read_frame(path, max_size="100 kB")
    assert len(read_frame(path, max_size="1MB")) == 100_000


def test_a_packed_file_is_read_in_parts_of_any_size(write, monkeypatch):
    asked = []

    class Watched(gzip.GzipFile):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    monkeypatch.setattr(text.gzip, "GzipFile", Watched)
    monkeypatch.setattr(text, "_PART", 1000)
    path = write(gzip.compress(b"user,item\n" + b"1,2\n" * 2000), "data.csv.gz")
    assert len(read_frame(path)) == 2000
    assert max(asked) <= 1000  # memory for the largest size would be asked for at once
    assert read_frame(path).equals(read_frame(path, max_size=10 + 4 * 2000))


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (["1", "1.0", "2"], ["1", "1", "2"]),
        (["1", "1.0", "x"], ["1", "1.0", "x"]),
        (["+4912", "4912"], ["+4912", "4912"]),
        (["007", "7", "7.0"], ["007", "7", "7.0"]),
        (["18446744073709551615", "9007199254740993"], ["18446744073709551615", "9007199254740993"]),
        (["0", "00"], ["0", "00"]),
        ([" 5", "5 "], ["5", "5"]),
        (["\u00a05", "5"], ["\u00a05", "5"]),
        (["\u0663", "3"], ["\u0663", "3"]),
    ],
)
@pytest.mark.parametrize("extra", ["", ",x"])
def test_one_rule_for_the_ids_of_a_column(write, users, expected, extra):
    text = "user,item" + ",rating" * bool(extra) + "\n" + "".join(f"{user},i{extra and ',1'}\n" for user in users)
    assert read_frame(write(text))["user"].tolist() == expected


def test_a_large_file_whose_parts_look_different(write):
    rows = ["x1,a", "007,1.0"]
    text = "user,item\n" + "".join(f"{row}\n" * 150_000 for row in rows)
    frame = read_frame(write(text))
    assert ids(frame.drop_duplicates()) == [tuple(row.split(",")) for row in rows]
    assert len(frame) == 300_000
    numbers = read_frame(write("user,item\n" + "5,1\n" * 150_000 + "18446744073709551615,2.0\n" * 150_000))
    assert ids(numbers.drop_duplicates()) == [("5", "1"), ("18446744073709551615", "2")]


def test_ids_mean_what_they_mean_in_the_graph(write):
    numbers = InteractionGraph.from_file(write("user,item\n1,a\n2,b\n"))
    test = InteractionGraph.from_file(write("user,item\n1.0,b\n2,a\nx,a\n"), like=numbers, header=True)
    assert test.pairs.tolist() == [[0, 1], [1, 0]]
    assert test.num_left_out == 1
    text = InteractionGraph.from_file(write("user,item\n1,a\n1.0,b\nx,a\n"))
    test = InteractionGraph.from_file(write("user,item\n1.0,a\n1,b\n"), like=text)
    assert [text.user_ids[u] for u in test.pairs[0].tolist()] == ["1.0", "1"]
    request = ForgetRequest.from_file(write("1.0\n", "forget.txt"), "user")
    assert text.item_ids[int(text.pairs[1][request.mask(text)])] == "b"
    assert numbers.item_ids[int(numbers.pairs[1][request.mask(numbers)])] == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,rating\n1,2,1e300\n", r"line 2: the rating must be a number of at most 3.4e\+38 \(got '1e\+300'\)"),
        ("user,item,time\n1,2,3\n1,3,9223372036854775808\n", r"line 3: the time must be a number below 2\*\*63"),
        ("user,item,time\n1,2,1e30\n", r"line 2: the time must be a number below 2\*\*63"),
        (
            "user,item\n1,9007199254740993.0\n",
            r"line 2: item ids must be below 2\*\*53 where they have a decimal point",
        ),
    ],
)
def test_numbers_that_do_not_fit(write, text, message):
    with pytest.raises(ValueError, match=message):
        read_frame(write(text))


def test_decimal_commas_and_dates_far_away(write):
    assert read_frame(write("user;item;rating\n1;2;3,5\n"), decimal=",")["rating"].tolist() == [3.5]
    assert read_frame(write('user;item;rating\n"1;""";2;3,5\n'), decimal=",")["rating"].tolist() == [3.5]
    assert read_frame(write("user,item,date\n1,2,2410-07-13\n"))["time"].tolist() == [
        int(datetime(2410, 7, 13, tzinfo=timezone.utc).timestamp())
    ]


def test_numbers_are_no_dates_where_a_quote_makes_the_column_text(write):
    rows = "1,{},1000\n2,5,2000\n"
    plain = read_frame(write("user,item,time\n" + rows.format("23")))
    assert plain["time"].tolist() == [1000, 2000]
    assert read_frame(write("user,item,time\n" + rows.format('"2,3"')))["time"].tolist() == [1000, 2000]
    mixed = write('user,item,time\n1,"2,3",2001-01-01\n2,5,2000\n')
    with pytest.raises(ValueError, match=r"line 3: the time must be a finite number or a date \(got '2000'\)"):
        read_frame(mixed)


@pytest.mark.parametrize("number", ["1.000", "3.5", "1.000,5"])
def test_a_point_is_refused_where_numbers_have_decimal_commas(write, number):
    with pytest.raises(ValueError, match=r"line 2: numbers must have ',' as decimal point \(got '" + number):
        read_frame(write(f"user;item;rating\n1;2;{number}\n2;5;3,5\n"), decimal=",")
    dates = read_frame(write("user;item;rating;time\n1;2;3,5;2001-01-01 00:00:00.5\n"), decimal=",")
    assert dates["time"].tolist() == [978307200.5]


@pytest.mark.filterwarnings("ignore:.*no header")
def test_spaces_in_quotes_are_part_of_an_id(write):
    text = '"a  b"   x\n  "a b" x\nc   y\n'
    assert read_frame(write(text))["user"].tolist() == ["a  b", "a b", "c"]
    assert read_frame(write(text.replace('"', "").replace("a  b", "d").replace("a b", "e")))["item"].tolist() == list(
        "xxy"
    )


@pytest.mark.filterwarnings("ignore:.*several lines", "ignore:.*not used")
def test_text_of_several_lines_does_not_decide_the_separator(write):
    text = 'user,item,title\n1,2,"a\nb;c;d\ne;f;g\nh;i;j"\n2,3,"x;x;x\ny"\n'
    frame = read_frame(write(text))
    assert (frame["user"].tolist(), frame["item"].tolist()) == (["1", "2"], ["2", "3"])


@pytest.mark.parametrize("name", ["a.csv.zip", "a.bz2", "a.csv.XZ"])
def test_packed_files_are_to_be_decompressed(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must end in .*; decompress it first"):
        read_frame(tmp_path / name)
