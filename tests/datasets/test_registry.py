"""Cards, and loading files that are, are not, or are not quite the published ones."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import Card, Split, available, load, registry

README = Path(__file__).parents[2] / "datasets" / "README.md"

RATINGS = b"user_id\titem_id\trating\ttimestamp\n7\t1\t5\t10\n7\t2\t1\t11\n9\t1\t3\t12\n"
TRAIN, TEST = b"0 0 1 2\n1 0\n2 1 2\n", b"0 3\n1 1 2\n2 0\n"


def card(name, parts, **fields):
    given = {key: f"{key}." for key in ("title", "description", "url", "source", "terms", "citation", "by_hand")}
    sizes = {"num_users": 2, "num_items": 2, "num_interactions": sum(p["num_interactions"] for p in parts.values())}
    columns = {"user": "", "item": "", "rating": "", "time": ""}
    return Card.from_json(json.dumps({"name": name, **given, **sizes, "columns": columns, "parts": parts} | fields))


def file(name, content, read, known=True):
    digest = hashlib.sha256(content).hexdigest() if known else None
    return {"name": name, "bytes": len(content) if known else None, "sha256": digest, "read": read}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of data sets with cards of its own: one rating file, and one divided set."""
    columns = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"}
    ratings = {"all": {"num_interactions": 3, "files": [file("ratings.tsv", RATINGS, columns)]}}
    zipped = gzip.compress(TRAIN, mtime=0)
    lists = {
        "train": {
            "num_interactions": 6,
            "files": [file("train.txt.gz", zipped, {"lists": True}), file("train.txt", b"", {"lists": True}, False)],
        },
        "test": {"num_interactions": 4, "files": [file("test.txt", TEST, {"lists": True})]},
    }
    cards = [card("toy", ratings), card("divided", lists)]
    monkeypatch.setattr(registry, "_cards", lambda: {card.name: card for card in cards})
    monkeypatch.delenv(registry.ROOT_VARIABLE, raising=False)
    for name, content in {
        "toy/ratings.tsv": RATINGS,
        "divided/train.txt.gz": zipped,
        "divided/test.txt": TEST,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_cards_are_complete():
    cards = available()
    assert {"ml-100k", "ml-1m", "gowalla", "lastfm"} <= {card.name for card in cards}
    for card in cards:
        assert card.title and card.description and card.terms and card.citation and card.by_hand
        assert card.url.startswith("https://") and card.source.startswith("https://")
        assert {"user", "item"} <= card.columns.keys() <= {"user", "item", "rating", "time", "label"}
        assert [part.name for part in card.parts] in (["all"], ["train", "test"])
        assert sum(part.num_interactions for part in card.parts) == card.num_interactions
        for part in card.parts:
            assert any(file.sha256 for file in part.files)
            assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in part.files if file.sha256)
            assert all((file.bytes is None) == (file.sha256 is None) for file in part.files)


def test_cards_are_explained_beside_the_sample():
    text = README.read_text()
    for card in available():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{card.name}` |"))
        assert card.url in row
        for number in (card.num_users, card.num_items, card.num_interactions):
            assert f"| {number:,} |" in row


def test_cards_with_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="licence"):
        card("toy", {"all": {"num_interactions": 1, "files": []}}, licence="MIT")


def test_load_reads_ratings_and_times(root):
    graph = load("toy", root)
    assert isinstance(graph, InteractionGraph)
    assert (graph.user_ids, graph.item_ids) == (["7", "9"], ["1", "2"])
    assert (graph.rating.tolist(), graph.time.tolist()) == ([5, 1, 3], [10, 11, 12])


def test_load_leaves_out_columns_that_are_not_on_the_card(root, monkeypatch):
    (toy,) = (c for c in available() if c.name == "toy")
    fewer = Card(**{**toy.__dict__, "columns": {"user": "", "item": "", "time": ""}})
    monkeypatch.setattr(registry, "_cards", lambda: {"toy": fewer})
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


def test_root_may_come_from_the_environment(root, monkeypatch):
    (toy,) = (c for c in available() if c.name == "toy")
    assert not toy.is_found()
    monkeypatch.setenv(registry.ROOT_VARIABLE, str(root))
    assert toy.is_found()
    assert load("toy").num_interactions == 3


def test_found_means_all_parts(root):
    divided = next(c for c in available() if c.name == "divided")
    assert divided.is_found(root)
    (root / "divided/test.txt").unlink()
    assert not divided.is_found(root)


def test_unknown_names_get_a_suggestion(root):
    with pytest.raises(ValueError, match=r"one of 'toy', 'divided' \(got 'tov'; did you mean 'toy'\?\)"):
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


def test_files_without_a_known_digest_must_have_the_right_counts(root):
    (root / "divided/train.txt.gz").unlink()
    (root / "divided/train.txt").write_bytes(TRAIN)
    with pytest.warns(UserWarning, match="left out"):
        assert load("divided", root).train.num_interactions == 6
    (root / "divided/train.txt").write_bytes(TRAIN[: TRAIN.index(b"2 1 2")])
    with pytest.raises(ValueError, match=r"train.txt' must hold 6 distinct interactions \(got 4\)"):
        load("divided", root)


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("name", ["lastfm", "ml-100k", "ml-1m", "gowalla"])
def test_real_data_is_what_its_card_says(name, data_root):
    card = next(card for card in available() if card.name == name)
    if not card.is_found(data_root):
        pytest.skip(f"no {name} in {data_root}")
    loaded = load(name, data_root)
    parts = loaded if isinstance(loaded, Split) else (loaded,)
    assert sum(part.num_interactions + part.num_left_out for part in parts) == card.num_interactions
    if name != "lastfm":  # whose test part alone has a few users and items
        assert (parts[0].num_users, parts[0].num_items) == (card.num_users, card.num_items)
    present = {key for key in ("rating", "time", "label") if getattr(parts[0], key) is not None}
    assert present == card.columns.keys() - {"user", "item"}
