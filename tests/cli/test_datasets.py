import pytest
import tqdm
from mirrors import TEST, TRAIN, Answer, card, lists, serving

from graphunlearn.cli._text import columns
from graphunlearn.datasets import available
from graphunlearn.datasets import card as cards


@pytest.fixture
def mirror(monkeypatch):
    """A server that has the two parts of the one data set there is, ``toy``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GRAPHUNLEARN_DATA", raising=False)
    with serving() as found:
        urls = {name: [found.put(name, content)] for name, content in {"train.txt": TRAIN, "test.txt": TEST}.items()}
        toy = card("toy", lists(urls))
        monkeypatch.setattr(cards, "_cards", lambda: {"toy": toy})
        yield found


def test_lists_every_set_and_what_is_found(tmp_path, call, parsed, monkeypatch):
    monkeypatch.delenv("GRAPHUNLEARN_DATA", raising=False)
    status, out, err = call("datasets")
    assert (status, err) == (0, "")
    assert all(card.name in out and form.source in out for card in available() for form in card.forms)
    assert "names no folder to look in" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert rows["ml-100k"].split()[1:6] == ["943", "1,682", "100,000", "no", "4.9"]
    assert rows["yoochoose"].split()[4:7] == ["no", "by", "hand"]
    assert rows["yelp2018"].split()[4:7] == ["no", "size", "unknown"]
    assert out.index("interactions") < out.index("lastfm") < out.index("sessions") < out.index("diginetica")
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text("")
    told = parsed("datasets", "--root", tmp_path)
    assert {card["name"]: card["found"] for card in told} == {card.name: card.name == "ml-100k" for card in available()}
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    assert parsed("datasets") == told


def test_the_form_that_is_found_is_told(tmp_path, call, parsed):
    (tmp_path / "ml-1m").mkdir()
    for name in ("train.csv", "test.csv"):
        (tmp_path / "ml-1m" / name).write_text("")
    (told,) = (card for card in parsed("datasets", "--root", tmp_path) if card["name"] == "ml-1m")
    assert told["found_form"].startswith("implicit")
    _, out, _ = call("datasets", "--root", tmp_path)
    row = next(line for line in out.splitlines() if line.startswith("ml-1m "))
    assert row.split()[1:5] == ["6,040", "3,416", "999,611", "yes"]


def test_root_must_be_a_folder(tmp_path, refused, mirror):
    assert refused("datasets", "--root", tmp_path / "x") == f"'--root' must be a folder (got '{tmp_path / 'x'}')"
    (tmp_path / "x").write_text("")
    sentence = refused("datasets", "--download", "toy", "--root", tmp_path / "x")
    assert sentence == f"'--root' must be a folder (got '{tmp_path / 'x'}')"


def test_downloads(tmp_path, call, mirror):
    root = tmp_path / "data"
    status, out, err = call("datasets", "--download", "toy", "--root", root)
    assert (status, err) == (0, "title., 0.0 MB. Terms: terms.\n")
    assert out.splitlines() == [
        f"toy: in {root}/toy",
        "cite: citation.",
        f"next: GRAPHUNLEARN_DATA={root} graphunlearn train --data toy --out runs/a",
    ]
    assert sorted(path.name for path in (root / "toy").iterdir()) == ["test.txt", "train.txt"]


def test_what_was_downloaded_is_used_by_its_name(tmp_path, call, parsed, mirror, monkeypatch):
    (told,) = parsed("datasets", "--download", "toy", "--download", "toy", "--root", tmp_path)[:1]
    assert (told["name"], told["found"], told["folder"]) == ("toy", True, str(tmp_path / "toy"))
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    quick = ("--epochs", 1, "--dim", 2, "--split", 0.5, 0.4, 0.1)
    monkeypatch.chdir(tmp_path)  # where a folder of that name is no file
    status, _, err = call("train", "--data", "toy", "--out", tmp_path / "run", *quick)
    assert status == 0, err
    assert "toy: 3 users, 3 items, 6 interactions and 4 to test on" in err


def test_failures_say_what_to_do(tmp_path, refused, mirror, monkeypatch):
    mirror.put("train.txt", Answer(status=404))
    sentence = refused("datasets", "--download", "toy", "--root", tmp_path)
    assert sentence.startswith("'train.txt' of the data set 'toy' could not be downloaded (http://127.0.0.1:")
    assert "download 'train.txt' (18 bytes, SHA-256 " in sentence
    assert refused("datasets", "--download", "toys", "--root", tmp_path) == (
        "'--download' must be one of 'toy' (got 'toys'; did you mean 'toy'?)"
    )
    assert refused("datasets", "--download", "toy") == (
        "'--root' must name the folder of data sets, or GRAPHUNLEARN_DATA (got neither)"
    )
    assert refused("datasets", "--download", "--root", tmp_path) == "'--download' must name data sets (got none)"


def test_training_by_name_says_where_it_looks(tmp_path, refused, mirror, monkeypatch):
    monkeypatch.delenv("GRAPHUNLEARN_DATA", raising=False)
    words = ("train", "--data", "toy", "--out", tmp_path / "run")
    assert refused(*words).startswith("'--data toy' needs GRAPHUNLEARN_DATA, which names the folder of data sets (got")
    monkeypatch.setenv("GRAPHUNLEARN_DATA", str(tmp_path))
    assert refused(*words).startswith("'GRAPHUNLEARN_DATA' must hold 'train.txt' of the data set 'toy' in ")
    monkeypatch.setenv("GRAPHUNLEARN_DATA", "~nobody-of-that-name/data")
    expected = "'GRAPHUNLEARN_DATA' must be a folder (got '~nobody-of-that-name/data', whose home folder is not known)"
    assert refused(*words) == refused("datasets") == expected


def test_an_interrupted_download_leaves_nothing(tmp_path, call, mirror, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "update", interrupted)
    assert call("datasets", "--download", "toy", "--root", tmp_path)[:2] == (130, "")
    assert list((tmp_path / "toy").iterdir()) == []


def test_models_take_data_of_their_kind(tmp_path, refused):
    out = ("--out", tmp_path / "run")
    assert refused("train", "--data", "yoochoose-100k", *out).endswith(
        "amazon-book (got 'yoochoose-100k', a data set of sessions)"
    )
    assert refused("train", "--data", "gowalla", "--model", "srgnn", *out) == (
        "'--data' must be an existing file of clicks for srgnn, or one of yoochoose-100k, diginetica, yoochoose "
        "(got 'gowalla', a data set of users and items)"
    )


@pytest.mark.parametrize("words", [(), ("--last-sessions", 2000)], ids=["all", "last"])
def test_sessions_are_trained_on_by_name(data_root, tmp_path, call, words):
    if not (data_root / "yoochoose-100k").is_dir():
        pytest.skip(f"no yoochoose-100k in {data_root}")
    quick = ("--model", "gru4rec", "--epochs", 1, "--dim", 2, "--batch-size", 4096)
    status, out, err = call("train", "--data", "yoochoose-100k", *quick, *words, "--out", tmp_path / "run")
    assert status == 0, err
    sizes = ("2,000 sessions, 1,526 items, 8,447 clicks", "11,997") if words else ("17,794 sessions, 2,933", "13,568")
    assert all(size in err for size in sizes)
    assert "Recall@20" in out


def test_finds_the_real_ones(data_root, parsed):
    found = {card["name"] for card in parsed("datasets", "--root", data_root) if card["found"]}
    if not found:
        pytest.skip("GRAPHUNLEARN_DATA holds none of the named data sets")
    assert found <= {card.name for card in available()}


def test_columns():
    assert columns([["a", "1"], ["bcd", "22"]], right=[1]) == "a     1\nbcd  22"
