"""First lines of requests and of tables whose columns are given by number: no row is lost."""

import warnings

import pytest

from graphunlearn.data import ForgetRequest
from graphunlearn.data.io.files import read_clicks, read_frame

PAIRS = [("u0", "080442957X"), ("u1", "0195153448"), ("u2", "0002005018")]


@pytest.mark.filterwarnings("ignore:.*no header")
def test_columns_by_number_keep_a_first_row_that_names_nothing(write):
    path = write("".join(f"{user},{item}\n" for user, item in PAIRS))
    assert ForgetRequest.from_file(path, "interaction", user=0, item=1).index == tuple(PAIRS)
    assert read_frame(path, user="0", item="1").to_numpy().tolist() == [list(pair) for pair in PAIRS]
    with pytest.raises(ValueError, match=r"must have a column of users \(got columns 'u0', '080442957X'\)"):
        ForgetRequest.from_file(path, "interaction")


def test_columns_by_number_below_unknown_names_are_asked_for(write):
    path = write("zz,dune\nu1,1\nu2,2\n")
    with pytest.raises(ValueError, match=r"must begin with a row or the name of a known column \(got 'zz', 'dune'"):
        ForgetRequest.from_file(path, "interaction", user=0, item=1)
    kept = ForgetRequest.from_file(path, "interaction", user=0, item=1, header=False)
    assert kept.index == (("zz", "dune"), ("u1", "1"), ("u2", "2"))
    assert ForgetRequest.from_file(path, "interaction", user=0, item=1, header=True).index == kept.index[1:]


@pytest.mark.parametrize("rows", ["1,2\n3,4\n", "ann,dune\nbob,emma\n"])
@pytest.mark.parametrize("header", ["user,item", "user_id:token,item_id:token"])
def test_columns_by_number_below_known_names(write, header, rows):
    expected = [tuple(line.split(",")) for line in rows.split()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ForgetRequest.from_file(write(f"{header}\n{rows}"), "interaction", user=0, item=1)
    assert found.index == tuple(expected)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("@user\n@ann\n", "user"),
        ("#item\n#rock\n", "item"),
        ("session:token\nabc\n", "user"),
        ("u:token\nv\n", "user"),
        ("user1\nuser\n", "user"),
    ],
)
@pytest.mark.parametrize("column", [{}, {"level": 0}])
def test_a_single_column_keeps_its_first_id(write, text, level, column):
    given = {level: 0} if column else {}
    assert ForgetRequest.from_file(write(text, "forget.txt"), level, **given).index == tuple(text.split())


@pytest.mark.parametrize(("name", "level"), [("user", "user"), ("Item ID", "item"), ("session_id:token", "session")])
@pytest.mark.parametrize("ids", [("12", "13"), ("ann", "bob")])
def test_a_skipped_name_is_told(write, name, level, ids):
    path = write("\n".join([name, *ids, ""]), "forget.txt")
    with pytest.warns(UserWarning, match=rf"its first line was skipped as a header \('{name}'\); 'header=False' keeps"):
        assert ForgetRequest.from_file(path, level).index == ids
    assert ForgetRequest.from_file(path, level, header=False).index == (name, *ids)


@pytest.mark.parametrize(("read", "role"), [(read_frame, "user"), (read_clicks, "session")])
def test_times_in_the_first_column_are_asked_for(write, read, role):
    path = write("1396861869,11,900\n1396861870,11,901\n")
    with pytest.raises(ValueError, match=rf"header or named columns \(got times in the place of the {role}s"):
        read(path)
    found = read(path, **{role: 1}, item=2, time=0)
    assert (found[role].tolist(), found["item"].tolist()) == (["11", "11"], ["900", "901"])
    assert read(path, **{role: 0}, item=1)[role].tolist() == ["1396861869", "1396861870"]
    pairs = write("1396861869,11\n1396861870,12\n")
    assert read(pairs)[role].tolist() == ["1396861869", "1396861870"]


@pytest.mark.parametrize("separator", ["¦", "，", "│", "§", "::"])
def test_separators_of_several_bytes(write, separator):
    path = write("".join(separator.join(row) + "\n" for row in (("user", "item"), ("a", "b"), ("æ", "¨c"))))
    assert read_frame(path, sep=separator).to_numpy().tolist() == [["a", "b"], ["æ", "¨c"]]
