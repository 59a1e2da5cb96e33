"""Cards, and loading files that are, are not, or are not quite the published ones."""

import dataclasses
import gzip
import re
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from mirrors import RATINGS as BARE
from mirrors import card, file

import graphunlearn as gu
from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.datasets import SessionSplit, Split, available, load
from graphunlearn.datasets import card as cards

README = Path(__file__).parents[2] / "datasets" / "README.md"
COLUMNS = {
    "interactions": {"user", "item", "rating", "time", "label"},
    "sessions": {"session", "item", "time", "position", "user"},
}

RATINGS = b"user_id\titem_id\trating\ttimestamp\n" + BARE
TRAIN, TEST = b"0 0 1 2\n1 0\n2 1 2\n", b"0 3\n1 1 2\n2 0\n"
CLICKS, NEW = b"session,item,time\n5,a,1\n5,b,2\n7,a,4\n", b"session,item,time\n9,b,7\n9,c,8\n9,a,9\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of data sets with cards of its own: one rating file, and one divided set."""
    columns = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"}
    ratings = {"all": {"rows": 3, "files": [file("ratings.tsv", RATINGS, columns)]}}
    zipped = gzip.compress(TRAIN, mtime=0)
    read = {"lists": True}
    lists = {
        "train": {"rows": 6, "files": [file("train.txt.gz", zipped, read), file("train.txt", b"", read, known=())]},
        "test": {"rows": 4, "files": [file("test.txt", TEST, read)]},
    }
    clicks = {
        "train": {"rows": 3, "files": [file("clicks.csv", CLICKS, {})]},
        "test": {"rows": 3, "files": [file("new.csv", NEW, {})]},
    }
    counts = {"sessions": 3, "items": 3, "clicks": 6}
    made = [card("toy", ratings), card("divided", lists), card("clicks", clicks, "sessions", counts)]
    monkeypatch.setattr(cards, "_cards", lambda: {card.name: card for card in made})
    monkeypatch.delenv(cards.ROOT_VARIABLE, raising=False)
    for name, content in {
        "toy/ratings.tsv": RATINGS,
        "divided/train.txt.gz": zipped,
        "divided/test.txt": TEST,
        "clicks/clicks.csv": CLICKS,
        "clicks/new.csv": NEW,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def published():
    """Everything that cards say of files and archives, with the card."""
    for one in available():
        for form in one.forms:
            for part in form.parts:
                for found in part.files:
                    yield from ((one, source) for source in (found, found.archive) if source is not None)


def test_the_sets_there_are():
    names = {kind: [card.name for card in available(kind)] for kind in cards.UNITS}
    assert set(names["interactions"]) == {"ml-100k", "ml-1m", "gowalla", "yelp2018", "amazon-book", "lastfm"}
    assert set(names["sessions"]) == {"diginetica", "yoochoose-100k", "yoochoose"}
    assert [card.name for card in available() if card.download is None] == ["yoochoose"]
    with pytest.raises(ValueError, match=r"'kind' must be one of 'interactions', 'sessions' \(got 'graphs'\)"):
        available("graphs")


@pytest.mark.parametrize("card", available(), ids=lambda card: card.name)
def test_cards_are_complete(card):
    assert all(getattr(card, field.name) for field in dataclasses.fields(card))
    assert re.fullmatch(r"[a-z0-9-]+", card.name)
    assert card.kind in COLUMNS
    for form in card.forms:
        assert all(getattr(form, field.name) for field in dataclasses.fields(form))
        assert form.columns.keys() <= COLUMNS[card.kind]
        assert {"item", "user" if card.kind == "interactions" else "session"} <= form.columns.keys()
        assert tuple(form.counts) == cards.UNITS[card.kind]
        assert [part.name for part in form.parts] in (["all"], ["train", "test"])
        assert sum(part.rows for part in form.parts) == form.counts[cards.UNITS[card.kind][-1]]
        assert all(part.files for part in form.parts)
        # where there is no digest, the card says so
        unknown = [file for part in form.parts for file in part.files if not (file.sha256 or file.md5)]
        assert not unknown or re.search(r"No (digest|SHA-256)", form.checksum_source)


def test_what_cards_say_of_files():
    for one, source in published():
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert source.md5 is None or re.fullmatch("[0-9a-f]{32}", source.md5)
        assert source.bytes is None or source.bytes > 0
        assert len(set(source.mirrors)) == len(source.mirrors)
        for url in (*source.mirrors, one.url, *(form.source for form in one.forms)):
            parts = urlsplit(url)
            assert (parts.scheme, parts.query, parts.fragment) == ("https", "", "")
            assert "." in parts.netloc
        for url in source.mirrors:
            assert url.endswith(f"/{source.name}")
        if isinstance(source, cards.Archive):
            assert source.name.endswith(".zip")
            assert source.member.startswith(f"{one.name}/")
            assert source.sha256 or source.md5


def test_digests_belong_to_one_file_each():
    for kind in ("sha256", "md5"):
        digests = [getattr(source, kind) for _, source in published() if getattr(source, kind)]
        assert len(set(digests)) == len(digests) > 4


def test_cards_are_explained_beside_the_sample():
    text = README.read_text()
    for one in available():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{one.name}` |"))
        assert one.url in row
        for number in one.counts.values():
            assert f"| {number:,} |" in row


def test_cards_with_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="licence"):
        card("toy", {"all": {"rows": 1, "files": []}}, licence="MIT")


@pytest.mark.parametrize("name", ["../u.data", "/u.data", "a/u.data", "..", ".", ""])
def test_cards_name_files_not_paths(name):
    with pytest.raises(ValueError, match="'name' must be the name of a file"):
        card("toy", {"all": {"rows": 1, "files": [{"name": name, "read": {}}]}})


def test_cards_tell_how_much_there_is_to_download():
    sizes = {card.name: card.download_bytes for card in available()}
    assert (sizes["ml-100k"], sizes["lastfm"]) == (4_924_029, 579_727 + 144_867)
    assert sizes["gowalla"] is sizes["yoochoose"] is None


def test_load_reads_ratings_and_times(root):
    graph = load("toy", root)
    assert isinstance(graph, InteractionGraph)
    assert (graph.user_ids, graph.item_ids) == (["7", "9"], ["1", "2"])
    assert (graph.rating.tolist(), graph.time.tolist()) == ([5, 1, 3], [10, 11, 12])


def test_load_leaves_out_columns_that_are_not_on_the_card(root, monkeypatch):
    (toy,) = (c for c in available() if c.name == "toy")
    form = dataclasses.replace(toy.forms[0], columns={"user": "", "item": "", "time": ""})
    monkeypatch.setattr(cards, "_cards", lambda: {"toy": dataclasses.replace(toy, forms=(form,))})
    graph = load("toy", root)
    assert graph.rating is None
    assert graph.time is not None


def test_load_gives_both_parts_in_the_numbering_of_train(root):
    with pytest.warns(UserWarning, match="1 of 4 rows were left out"):
        split = load("divided", root)
    assert isinstance(split, Split)
    train, test = split
    assert train.pairs.t().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [2, 1], [2, 2]]
    assert (test.user_ids, test.item_ids) == (train.user_ids, train.item_ids)
    assert test.pairs.t().tolist() == [[1, 1], [1, 2], [2, 0]]
    assert test.num_left_out == 1  # item 3 is not in train


def test_load_gives_sessions_in_the_numbering_of_train(root):
    with pytest.warns(UserWarning, match="1 of 3 clicks were left out"):
        split = load("clicks", root)
    assert isinstance(split, SessionSplit)
    train, test = split
    assert isinstance(train, SessionGraph)
    assert (train.session_ids, train.item_ids, train.time.tolist()) == (["5", "7"], ["a", "b"], [1, 2, 4])
    assert (test.item_ids, test.items.tolist(), test.num_left_out) == (["a", "b"], [1, 0], 1)  # "c" is not in train
    assert torch.equal(test.time, torch.tensor([7.0, 9.0], dtype=test.time.dtype))


@pytest.mark.parametrize("unit", cards.UNITS["sessions"])
def test_sessions_in_one_part_must_have_all_counts(root, monkeypatch, unit):
    counts = {"sessions": 2, "items": 2, "clicks": 3}
    for wrong in (False, True):
        said = counts | {unit: counts[unit] + wrong}
        parts = {"all": {"rows": said["clicks"], "files": [file("clicks.csv", CLICKS, {})]}}
        made = card("clicks", parts, "sessions", said)
        monkeypatch.setattr(cards, "_cards", lambda made=made: {"clicks": made})
        if not wrong:
            assert load("clicks", root).num_clicks == 3
    with pytest.raises(ValueError, match=rf"clicks.csv' must hold {said[unit]} {unit} \(got {counts[unit]}\)"):
        load("clicks", root)


def test_of_two_forms_the_one_that_is_there_is_read(root, monkeypatch):
    one, two = (next(c for c in available() if c.name == name) for name in ("toy", "divided"))
    both = dataclasses.replace(one, name="both", forms=one.forms + two.forms)
    monkeypatch.setattr(cards, "_cards", lambda: {"both": both})
    (root / "divided").rename(root / "both")
    with pytest.warns(UserWarning, match="left out"):
        assert isinstance(load("both", root), Split)
    (root / "toy/ratings.tsv").rename(root / "both/ratings.tsv")
    assert isinstance(load("both", root), InteractionGraph)  # of two that are there, the first
    (root / "both/ratings.tsv").unlink()
    (root / "both/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"'test.txt' of the data set 'both'.* By hand|by_hand"):
        load("both", root)  # what is nearest to being there


def test_movielens_1m_is_read_in_both_forms(tmp_path):
    own, implicit = next(card for card in available() if card.name == "ml-1m").forms
    assert {"rating", "time"} <= own.columns.keys()
    assert not {"rating", "time"} & implicit.columns.keys()
    (found,) = own.parts[0].files
    path = tmp_path / found.name
    path.write_bytes(b"1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n")
    graph = gu.InteractionGraph.from_file(path, **found.read)
    assert (graph.user_ids, graph.item_ids) == (["1", "2"], ["1193", "661"])
    assert (graph.rating.tolist(), graph.time.tolist()) == ([5, 3, 4], [978300760, 978302109, 978298413])


def test_the_logs_of_sessions_are_read_as_their_cards_say(tmp_path):
    logs = {
        "yoochoose": b"1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"
        b"4,2014-04-07T12:09:10.948Z,214536502,0\n",
        "diginetica": b"sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
        b"1;NA;31331;1031018;2016-05-09\n4;9;81766;243569;2016-05-10\n",
    }
    for name, text in logs.items():
        form = next(card for card in available() if card.name == name).forms[-1]
        (found,) = form.parts[0].files
        (tmp_path / found.name).write_bytes(text)
        graph = SessionGraph.from_file(tmp_path / found.name, **found.read)
        assert (graph.session_ids, graph.items.tolist(), graph.length.tolist()) == (["1", "4"], [0, 1, 0], [2, 1])
        assert graph.time is not None
        assert (graph.user is not None) == ("user" in form.columns)


def test_root_may_come_from_the_environment(root, monkeypatch):
    (toy,) = (c for c in available() if c.name == "toy")
    assert not toy.is_found()
    monkeypatch.setenv(cards.ROOT_VARIABLE, str(root))
    assert toy.is_found()
    assert load("toy").num_interactions == 3


def test_found_means_all_parts(root):
    divided = next(c for c in available() if c.name == "divided")
    assert divided.is_found(root)
    (root / "divided/test.txt").unlink()
    assert not divided.is_found(root)


def test_unknown_names_get_a_suggestion(root):
    with pytest.raises(ValueError, match=r"one of 'toy', 'divided', 'clicks' \(got 'tov'; did you mean 'toy'\?\)"):
        load("tov", root)


def test_missing_root_and_missing_files_say_what_to_do(root):
    with pytest.raises(FileNotFoundError, match=r"GRAPHUNLEARN_DATA \(got neither\).* 'toy'.* Source: source"):
        load("toy")
    (root / "divided/train.txt.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"'train.txt.gz' or 'train.txt' .*\(got no such file\).* Source:"):
        load("divided", root)


def test_changed_files_are_refused(root):
    path = root / "toy/ratings.tsv"
    path.write_bytes(RATINGS.replace(b"7\t1\t5", b"7\t1\t4"))
    with pytest.raises(
        ValueError, match=r"ratings.tsv' must be the published file, with SHA-256 \w{64} \(got \w{64}\)"
    ):
        load("toy", root)


def test_what_was_recorded_must_still_be_so(root):
    (root / "divided/train.txt.gz").unlink()
    (root / "divided/train.txt").write_bytes(TRAIN)
    (root / "divided/train.txt.sha256").write_text(f"{file('x', TRAIN, {})['sha256']}  train.txt\n")
    with pytest.warns(UserWarning, match="left out"):
        load("divided", root)
    (root / "divided/train.txt").write_bytes(TRAIN.replace(b"1 0", b"1 1"))
    with pytest.raises(ValueError, match=r"must be the file that was downloaded, with the SHA-256 \w{64} that 'train"):
        load("divided", root)


def test_files_without_a_known_digest_must_have_the_right_counts(root):
    (root / "divided/train.txt.gz").unlink()
    (root / "divided/train.txt").write_bytes(TRAIN)
    with pytest.warns(UserWarning, match="left out"):
        assert load("divided", root).train.num_interactions == 6
    (root / "divided/train.txt").write_bytes(TRAIN[: TRAIN.index(b"2 1 2")])
    with pytest.raises(ValueError, match=r"train.txt' must hold 6 distinct interactions \(got 4\)"):
        load("divided", root)


@pytest.mark.parametrize("card", available(), ids=lambda card: card.name)
def test_real_data_is_what_its_card_says(card, data_root):
    form = card.form_in(data_root / card.name)
    if form is None:
        pytest.skip(f"no {card.name} in {data_root}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        loaded = load(card.name, data_root)
    parts = loaded if isinstance(loaded, (Split, SessionSplit)) else (loaded,)
    first, *others = cards.UNITS[card.kind]
    assert sum(part.num_interactions + part.num_left_out for part in parts) == form.counts[others[-1]]
    if card.kind == "sessions":
        assert sum(part.num_sessions for part in parts) == form.counts["sessions"]
        assert (parts[0].num_items, parts[-1].num_left_out) == (form.counts["items"], 0)
        present = {key for key in ("time", "user") if getattr(parts[0], key) is not None}
        assert present == form.columns.keys() - {"session", "item", "position"}
        return
    if card.name != "lastfm":  # whose test part alone has a few users and items
        assert (parts[0].num_users, parts[0].num_items) == (form.counts[first], form.counts["items"])
    present = {key for key in ("rating", "time", "label") if getattr(parts[0], key) is not None}
    assert present == form.columns.keys() - {"user", "item"}


def test_sizes_on_cards_are_those_of_the_files(data_root):
    seen = 0
    for one, source in published():
        path = data_root / one.name / source.name
        if path.is_file() and source.bytes is not None:
            assert path.stat().st_size == source.bytes
            seen += 1
    if not seen:
        pytest.skip(f"none of the named files in {data_root}")


def test_what_lies_compressed_is_what_is_published(data_root):
    """A file and its compressed form say the same, where the card knows both."""
    for one in available():
        for part in (part for form in one.forms for part in form.parts):
            forms = {found.name: found for found in part.files}
            for name, plain in forms.items():
                path = data_root / one.name / f"{name}.gz"
                if f"{name}.gz" in forms and path.is_file() and plain.sha256 is not None:
                    content = gzip.decompress(path.read_bytes())
                    known = file(name, content, {}, ("bytes", "sha256", "md5"))
                    assert (known["bytes"], known["sha256"]) == (plain.bytes, plain.sha256)
                    assert plain.md5 in (None, known["md5"])
