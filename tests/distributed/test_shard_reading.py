"""Reading of a Parquet folder by ranks, against the table read as a whole."""

import numpy as np
import pandas as pd
import pytest
import torch
from several import together

import graphunlearn as gu
from graphunlearn.distributed import RankError, Ranks, read_part

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def table():
    """Rows of 30 users whose ids have gaps, with repeated pairs."""
    drawn = np.random.default_rng(0)
    user = np.sort(drawn.choice(np.arange(0, 90, 3), 400))
    return pd.DataFrame({"who": user, "what": drawn.integers(5, 25, 400) * 2, "stars": drawn.integers(1, 6, 400)})


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    made = tmp_path_factory.mktemp("rows")
    for number, part in enumerate(np.array_split(np.arange(400), 3)):
        table.iloc[part].to_parquet(made / f"{number}.parquet", row_group_size=40)
    return made


@pytest.fixture(scope="module")
def whole(table):
    """The graph of all rows, with users and items in the order of their ids."""
    kept = table.drop_duplicates(["who", "what"], keep="last")
    users, items = np.unique(table.who), np.unique(table.what)
    pairs = np.stack([np.searchsorted(users, kept.who), np.searchsorted(items, kept.what)])
    given = {"user_ids": users, "item_ids": items, "rating": torch.tensor(kept.stars.to_numpy())}
    return gu.InteractionGraph.from_edges(torch.tensor(pairs), **given)


def read(ranks, folder, own):
    given = {"user": "who", "item": "what", "rating": "stars", "own": own, "items": "sharded"}
    part = read_part(folder / str(ranks.rank) if own else folder, ranks, **given)
    made = part.whole()
    found = None if made is None else (made.fingerprint(), made.pairs)
    items = part.item_rows
    return found, part.part.bounds, part.user_ids, (items.first, items.last)


def test_ranks_read_their_users_of_a_folder(folder, whole):
    answers = together(read, 2, folder, False)
    fingerprint, pairs = answers[0][0]
    assert fingerprint == whole.fingerprint()
    assert torch.equal(pairs, whole.pairs)
    first, last = (answer[1] for answer in answers)
    assert first == last
    assert answers[0][2] + answers[1][2] == whole.user_ids
    assert [held for *_, held in answers] == [(0, whole.num_items // 2), (whole.num_items // 2, whole.num_items)]
    count = whole.degree[:30]
    assert abs(int(count[: first[1]].sum()) - int(count[first[1] :].sum())) <= int(count.max())


def test_every_rank_may_have_a_folder_of_its_own(table, whole, tmp_path):
    for rank, part in enumerate((table[table.who < 30], table[table.who >= 30])):
        (tmp_path / str(rank)).mkdir()
        part.to_parquet(tmp_path / str(rank) / "a.parquet")
    fingerprint, pairs = together(read, 2, tmp_path, True)[0][0]
    assert fingerprint == whole.fingerprint()
    assert torch.equal(pairs, whole.pairs)


def test_folders_with_rows_of_one_user_are_refused(table, tmp_path):
    for rank, part in enumerate((table[table.who <= 30], table[table.who >= 30])):
        (tmp_path / str(rank)).mkdir()
        part.to_parquet(tmp_path / str(rank) / "a.parquet")
    for error in together(read, 2, tmp_path, True):
        assert isinstance(error, RankError)
        assert str(error) == "no two ranks may hold rows of one user (got 1 such users, such as 30)"


def test_bad_folders_are_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"'folder' must be a folder of Parquet files \(got '.*', which does not exist"
    ):
        read_part(tmp_path / "nowhere", Ranks())
    with pytest.raises(ValueError, match=r"'folder' must hold Parquet files \(got '.*', with none\)"):
        read_part(tmp_path, Ranks())
    with pytest.raises(ValueError, match=r"'folder' must have a column 'user' \(got who, what, stars\)"):
        read_part(folder, Ranks())
    pd.DataFrame({"user": ["a", "b"], "item": [1, 2]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"'folder' must hold whole numbers from 0 to 2\*\*31 in 'user'"):
        read_part(tmp_path, Ranks())
    (tmp_path / "text.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match="'folder' must hold whole Parquet files"):
        read_part(tmp_path, Ranks())


def too_many(ranks, folder):
    return read_part(folder, ranks)


def test_more_ranks_than_users_are_refused(tmp_path):
    pd.DataFrame({"user": [1, 1, 4], "item": [1, 2, 2]}).to_parquet(tmp_path / "a.parquet")
    for error in together(too_many, 3, tmp_path):
        assert str(error) == "'world size' must be at most the number of users, 2 (got 3)"
