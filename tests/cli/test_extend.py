"""Adding new data to a run: what is there afterwards, against the tables that were joined."""

import pandas as pd
import pytest
from click_files import write_rows

import graphunlearn as gu
from graphunlearn.nn.identity import fingerprint
from graphunlearn.runs.run import Run


def table(*parts):
    return pd.concat([part.to_frame()[["user", "item", "rating", "time"]].astype(str) for part in parts])


@pytest.fixture
def december(ratings, tmp_path):
    """New interactions of users who are known, of one who was forgotten, and of a new one with a new item."""
    frame = pd.read_csv(ratings)
    rows = frame[frame["user"].isin(["u5", "u6", "u7"])].assign(item="i29", rating=4.0)
    rows = pd.concat([rows.drop_duplicates("user"), rows.head(4).assign(user=["zed", "zed", "u1", "u8"])])
    rows["item"] = ["i29", "i29", "i29", "new", "i4", "i4", "new"]
    path = tmp_path / "december.csv"
    rows.to_csv(path, index=False)
    return path


def test_the_new_data_join_the_old_and_training_goes_on(forgotten, december, tmp_path, parsed, call):
    out = tmp_path / "c"
    told = parsed("extend", forgotten, "--data", december, "--split", "0.6", "0.2", "0.2", "--epochs", 2, "--out", out)
    before, after = Run.load(forgotten), Run.load(out)
    new = gu.InteractionGraph.from_file(december)
    old = [before.train, before.validation, before.test]
    expected = table(*old, new).drop_duplicates(["user", "item"], keep="last")
    found = table(after.train, after.validation, after.test).drop_duplicates(["user", "item"], keep="last")
    assert set(map(tuple, found[["user", "item"]].values)) == set(map(tuple, expected[["user", "item"]].values))
    assert after.train.user_ids == [*before.train.user_ids, "zed"]
    assert after.train.item_ids == [*before.train.item_ids, "new"]
    assert told["added"]["users"] == 1
    assert told["added"]["items"] == 1
    assert after.about["extended"] == [told["added"]]
    assert after.forgotten is None
    assert fingerprint(after.model) != fingerprint(before.model)
    status, out_text, _ = call("recommend", out, "--users", "zed", "--k", 3)
    assert status == 0
    assert out_text.count("zed") == 3
    assert call("forget", out, "--users", "zed", "--out", tmp_path / "d")[0] == 0


def test_those_who_return_are_counted_and_the_others_stay_emptied(forgotten, december, tmp_path, call):
    status, _, err = call(
        *("extend", forgotten, "--data", december, "--split", "0.98", "0.01", "0.01", "--epochs", 1),
        *("--out", tmp_path / "c"),
    )
    assert status == 0
    assert "1 user was forgotten, and is learned again from the new data" in err
    assert Run.load(tmp_path / "c").emptied == {"user": ["u2"], "item": ["i3"]}
    assert call("erase", tmp_path / "c", "--out", tmp_path / "d")[0] == 0
    users = Run.load(tmp_path / "d").train.user_ids
    assert "u1" in users
    assert "u2" not in users


def test_sessions_are_added_after_the_others(trained_sessions, tmp_path, parsed):
    rows = [("t0", "i1", 10**6), ("t0", "i2", 10**6 + 1), ("t1", "new", 10**6), ("t1", "i2", 10**6 + 2)]
    rows += [(f"t{n}", item, 10**6 + n) for n in range(2, 9) for item in ("i1", "new")]
    path = write_rows(tmp_path / "later.csv", rows)
    told = parsed("extend", trained_sessions, "--data", path, "--epochs", 1, "--out", tmp_path / "c")
    before, after = Run.load(trained_sessions), Run.load(tmp_path / "c")
    assert after.train.item_ids == [*before.train.item_ids, "new"]
    assert after.train.num_sessions == before.train.num_sessions + told["added"]["sessions"]
    total = sum(getattr(after, part).num_clicks for part in ("train", "validation", "test"))
    assert total == sum(getattr(before, part).num_clicks for part in ("train", "validation", "test")) + len(rows)


def test_values_that_the_run_lacks_or_needs(forgotten, december, tmp_path, refused, call):
    frame = pd.read_csv(december)
    frame.drop(columns="time").to_csv(tmp_path / "bare.csv", index=False)
    words = ("extend", forgotten, "--data", tmp_path / "bare.csv", "--out", tmp_path / "c")
    assert "'--data' must have a time in every row, as the data of the run have (got none)" in refused(*words)
    frame.assign(label=1).to_csv(tmp_path / "more.csv", index=False)
    status, _, err = call("extend", forgotten, "--data", tmp_path / "more.csv", "--epochs", 1, "--out", tmp_path / "c")
    assert status == 0
    assert "the labels of the new data are not used, because the data of the run have none" in err
    assert "be another folder than the run" in refused("extend", forgotten, "--data", december, "--out", forgotten)
