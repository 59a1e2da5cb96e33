"""What counts as a header, and what columns without one are taken for."""

import pytest

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.columns import INTERACTIONS, plain, sniff_separator
from graphunlearn.data.io.files import read_clicks, read_frame


def ids(frame):
    return list(zip(*(frame[role].tolist() for role in frame.columns[:2])))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user:4,item:3\nuser:5,item:3\n", [("user:4", "item:3"), ("user:5", "item:3")]),
        ("Book,Dune\nFilm,Solaris\n", [("Book", "Dune"), ("Film", "Solaris")]),
        ("Book,12\nDune,13\n", [("Book", "12"), ("Dune", "13")]),
        ("tag:1,i\ntag:2,j\n", [("tag:1", "i"), ("tag:2", "j")]),
    ],
)
def test_a_first_row_that_is_data_is_kept(write, text, expected):
    assert ids(read_frame(write(text))) == expected


def test_a_header_that_lacks_a_column_is_an_error(write):
    with pytest.raises(ValueError, match=r"must have a column of items \(got columns 'user', 'what'\)"):
        read_frame(write("user,what\nann,dune\n"))


@pytest.mark.parametrize("header", ["user:token,item:token", "user,item", "USER ID,Item-Id", "customer,isbn"])
def test_headers(write, header):
    assert ids(read_frame(write(f"{header}\n1,2\n"))) == [("1", "2")]


def test_words_above_text_are_a_header_with_a_warning(write):
    path = write("customer,product\nann,dune\n")
    with pytest.warns(UserWarning, match=r"data.csv': its first line may be data \('customer', 'product'\)"):
        assert ids(read_frame(path)) == [("ann", "dune")]
    assert ids(read_frame(path, header=False)) == [("customer", "product"), ("ann", "dune")]
    assert ids(read_frame(path, header=True)) == [("ann", "dune")]


@pytest.mark.parametrize(
    ("text", "level", "expected"),
    [
        ("Book\nDune\n", "item", ("Book", "Dune")),
        ("Book\n12\n13\n", "item", ("12", "13")),
        ("xxx\n12\n13\n", "item", ("xxx", "12", "13")),
        ("user:4\nuser:5\n", "user", ("user:4", "user:5")),
        ("customer\nann\n", "user", ("customer", "ann")),
        ("user_id\nann\n", "user", ("ann",)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*taken as data")
def test_a_request_never_shrinks(write, text, level, expected):
    assert ForgetRequest.from_file(write(text, "forget.txt"), level).index == expected


def test_a_word_in_a_request_is_told(write):
    with pytest.warns(UserWarning, match=r"its first line was taken as data \('Book'\); 'header=True' skips it"):
        ForgetRequest.from_file(write("Book\nDune\n"), "item")
    assert ForgetRequest.from_file(write("Book\nDune\n"), "item", header=True).index == ("Dune",)


def test_a_repeated_header_is_no_row(write):
    with pytest.raises(ValueError, match=r"data.csv', line 3: must be a row \(got the header again\)"):
        read_frame(write("user_id,item_id\n1,2\nuser_id,item_id\n3,4\n"))
    assert len(read_frame(write("user,item\nuser,x\ny,item\n"))) == 2


def test_raw_clicks_without_a_header(write):
    text = "11,2014-04-07T10:51:09.277Z,900,0\n11,2014-04-07T10:54:09.868Z,901,0\n12,2014-04-07T13:56:37Z,902,0\n"
    with pytest.warns(
        UserWarning, match=r"column 1 is the session, column 2 is the time, column 3 is the item; column 4 not used$"
    ):
        graph = SessionGraph.from_file(write(text, "clicks.dat"))
    assert graph.item_ids == ["900", "901", "902"]
    assert graph.time[0] == 1396867869.277


def test_times_in_the_place_of_items_are_asked_for(write):
    path = write("11,1396867869,900\n11,1396868049,901\n")
    with pytest.raises(
        ValueError, match=r"must have a header or named columns \(got times in the place of the items\)"
    ):
        read_clicks(path)
    assert read_clicks(path, item=2, time=1)["item"].tolist() == ["900", "901"]
    assert read_clicks(path, session=0, item=1)["item"].tolist() == ["1396867869", "1396868049"]


def test_times_in_the_place_of_ratings_are_times(write):
    with pytest.warns(UserWarning, match="column 3 is the time"):
        frame = read_frame(write("1,7,881250949\n2,7,891250949\n"))
    assert frame["time"].tolist() == [881250949, 891250949]
    assert "rating" not in frame


def test_columns_that_are_not_used_are_said_once(write):
    with pytest.warns(UserWarning, match=r"data.csv': a column was not used \('ts'\)$") as caught:
        read_frame(write("user,item,ts\n1,2,3\n"))
    assert len(caught) == 1


def test_wide_rows_without_a_header_are_lists_or_nothing(write):
    with pytest.raises(ValueError, match=r"must have a header or at most 4 columns \(got 6 without one\); lists=True"):
        read_frame(write("0,1,2,3,4,5\n"))
    assert ids(read_frame(write("0,1,2,3,4,5\n"), lists=True)) == [("0", str(item)) for item in range(1, 6)]
    assert ids(read_frame(write("u1;a;b\nu2;c\n"), lists=True, sep=";")) == [("u1", "a"), ("u1", "b"), ("u2", "c")]


def test_lists_with_commas_are_told(write):
    with pytest.warns(UserWarning, match="was read as lists of a user and any number of items"):
        assert len(read_frame(write("0,1,2,3\n1,5\n2,6,7\n"))) == 6


def test_lists_with_counts(write):
    text = "3 10 11 12\n2 13 14\n2 10 15\n4 11 12 13 14\n"
    with pytest.warns(UserWarning, match="every line begins with the count of its items; users are the numbers of the"):
        graph = InteractionGraph.from_file(write(text, "users.dat"))
    assert graph.user_ids == ["0", "1", "2", "3"]
    assert graph.num_interactions == 11
    assert len(read_frame(write("1 5\n2 5 6\n3 5 6 7\n", "train.txt"))["user"].cat.categories) == 3  # ids, in order


def test_a_test_file_is_read_as_its_training_file(write):
    train = InteractionGraph.from_file(write("0 1 2 3\n1 2 3\n2 1\n", "train.txt"))
    test = InteractionGraph.from_file(write("0 1 2\n1 3 1\n", "test.txt"), like=train)
    assert test.num_interactions == 4
    assert test.rating is None
    again = InteractionGraph.load(train.save(write("", "train.safetensors")))
    assert InteractionGraph.from_file(write("0 1 2\n1 3 1\n", "test.txt"), like=again).num_interactions == 4


def test_separators():
    assert sniff_separator(["a|b", "c|d"], INTERACTIONS) == ("|", [])
    assert sniff_separator(["a;b,c", "d;e,f"], INTERACTIONS) == (";", [","])
    assert sniff_separator(["user,item", "1;2,3;4"], INTERACTIONS) == (",", [])
    assert sniff_separator(["a", "b"], INTERACTIONS) == (None, [])


def test_two_separators_that_fit_are_told(write):
    with pytest.warns(UserWarning, match=r"was cut at every ';', but sep=',' would fit as well"):
        read_frame(write("a;b,c\nd;e,f\n"))
    assert ids(read_frame(write("a;b,c\nd;e,f\n"), sep=",")) == [("a;b", "c"), ("d;e", "f")]


def test_plain_names():
    assert [plain(name) for name in ("user_id:token", "User ID", "user:4", "item:token_seq")] == [
        "userid",
        "userid",
        "user4",
        "item",
    ]


@pytest.mark.parametrize(("text", "columns"), [("user,item\n1,2\n", ("item", "item")), ("1,2\n", (1, "1"))])
def test_one_column_for_two_roles(write, text, columns):
    with pytest.raises(ValueError, match=r"'item' must be another column of '.*' than the user \(got '?(item|1)'?\)"):
        read_frame(write(text), user=columns[0], item=columns[1])


@pytest.mark.parametrize("label", ["5", "-1", "0.5"])
def test_labels_are_zero_or_one(write, label):
    message = rf"data.csv', line 3: the label must be 0 or 1 \(got {label}\); read the column as ratings, of"
    with pytest.raises(ValueError, match=message):
        read_frame(write(f"user,item,label\n1,2,1\n2,2,{label}\n3,2,0\n"))
    frame = read_frame(write(f"user,item,click\n1,2,1\n2,2,{label}\n3,2,0\n"), rating="click")
    assert frame["rating"].tolist() == [1, float(label), 0]
