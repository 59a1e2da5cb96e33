"""Downloads from mirrors that are cut off, corrupt, slow, gone or changing: whole files, or none and a reason."""

import errno
import io
import os
import shutil
import signal
import time
import warnings
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirrors import RATINGS, TEST, TRAIN, Answer, card, file, lists, serving, zipped

from graphunlearn.datasets import DownloadError, answers, download, load, transfer
from graphunlearn.datasets import card as cards

BIG = b"".join(b"%d %d\n" % (n // 50, n % 50) for n in range(60_000))  # some chunks
READ = {"user": 0, "item": 1}


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How long was waited between attempts; nobody does wait."""
    found = []
    monkeypatch.setattr(transfer, "sleep", found.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(cards.ROOT_VARIABLE, raising=False)
    return found


@pytest.fixture
def mirror():
    with serving() as found:
        yield found


@pytest.fixture
def have(monkeypatch):
    """Make cards those of all data sets there are."""

    def make(*made):
        monkeypatch.setattr(cards, "_cards", lambda: {card.name: card for card in made})

    return make


@pytest.fixture
def big(have, mirror):
    """A data set of one file, at the addresses ``a`` and ``b``."""

    def make(*a, b=(), known=("bytes", "sha256")):
        mirrors = [mirror.put("a", *a), *([mirror.put("b", *b)] if b else [])]
        parts = {"all": {"rows": 60_000, "files": [file("big.txt", BIG, READ, known, mirrors=mirrors)]}}
        have(card("big", parts, counts={"users": 1200, "items": 50, "interactions": 60_000}, columns=("user", "item")))

    return make


def held(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None


def failure(root, name="big", **options):
    with pytest.raises(DownloadError) as caught:
        download(name, root, **{"retries": 0} | options)
    return str(caught.value)


def test_a_divided_set_is_there_and_loads(have, mirror, tmp_path, waits, capsys):
    urls = {name: [mirror.put(name, content)] for name, content in {"train.txt": TRAIN, "test.txt": TEST}.items()}
    have(card("toy", lists(urls)))
    assert download("toy", tmp_path / "new" / "root", progress=True) == tmp_path / "new" / "root" / "toy"
    assert "train.txt" in capsys.readouterr().err  # the bar
    assert held(tmp_path / "new/root/toy") == ["test.txt", "train.txt"]
    train, test = load("toy", tmp_path / "new/root")
    assert (train.num_interactions, test.num_interactions, waits) == (6, 4, [])
    headers = mirror.asked["/train.txt"][0]
    assert headers["User-Agent"].startswith("graphunlearn/")
    assert headers["Accept-Encoding"] == "identity"


def test_what_is_there_is_left_alone(have, mirror, tmp_path):
    urls = {name: [mirror.put(name, content)] for name, content in {"train.txt": TRAIN, "test.txt": TEST}.items()}
    have(card("toy", lists(urls)))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/train.txt").write_bytes(TRAIN)
    download("toy", tmp_path)
    assert (mirror.ranges("train.txt"), mirror.ranges("test.txt")) == ([], [None])
    download("toy", tmp_path)
    assert mirror.ranges("test.txt") == [None]
    (tmp_path / "toy/test.txt").write_bytes(TRAIN)
    with pytest.raises(ValueError, match=r"test.txt' must be the published file, .* move it away"):
        download("toy", tmp_path)
    assert (tmp_path / "toy/test.txt").read_bytes() == TRAIN


def test_loading_downloads_where_asked_to(big, mirror, tmp_path):
    big(BIG)
    with pytest.raises(FileNotFoundError, match=r"'graphunlearn datasets --download big --root DIR' gets them"):
        load("big", tmp_path)
    assert load("big", tmp_path, download=True).num_interactions == 60_000
    assert len(mirror.asked["/a"]) == 1


def test_the_root_of_the_environment(big, tmp_path, monkeypatch):
    big(BIG)
    with pytest.raises(FileNotFoundError, match=r"GRAPHUNLEARN_DATA \(got neither\)"):
        download("big")
    monkeypatch.setenv(cards.ROOT_VARIABLE, str(tmp_path))
    assert download("big") == tmp_path / "big"


BAD = [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"retries": -1}]


@pytest.mark.parametrize("options", BAD)
def test_bad_options(big, tmp_path, options):
    big(BIG)
    with pytest.raises(ValueError, match=rf"'{next(iter(options))}' must"):
        download("big", tmp_path, **options)
    assert held(tmp_path) == []


def test_a_set_that_cannot_be_downloaded(have, tmp_path):
    have(card("toy", {"all": {"rows": 3, "files": [file("u.txt", RATINGS, {})]}}))
    assert failure(tmp_path, "toy") == (
        "'toy' cannot be downloaded by this package. By hand: by_hand. Source: source.. Terms: terms."
    )
    assert held(tmp_path) == []


# -- answers that are cut off


def test_an_answer_that_is_cut_off_is_gone_on_with(big, mirror, tmp_path, waits):
    big(Answer(BIG, cut=100_000), Answer(BIG, cut=150_000), Answer(BIG))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-", "bytes=250000-"]
    assert [headers.get("If-Range") for headers in mirror.asked["/a"]] == [None, '"1"', '"1"']
    assert waits == [1.0, 2.0]
    assert held(tmp_path / "big") == ["big.txt"]
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


@pytest.mark.parametrize("known", [("bytes", "sha256"), ("md5",), ()])
def test_the_next_download_goes_on_from_what_was_kept(big, mirror, tmp_path, known):
    big(Answer(BIG, cut=100_000), Answer(BIG), known=known)
    message = failure(tmp_path)
    assert f"{mirror.url('a')}: it broke off after 100,000 of {len(BIG):,} bytes" in message
    assert f"the 100,000 bytes that arrived are kept in '{tmp_path}/big/big.txt.part'" in message
    assert held(tmp_path / "big") == ["big.txt.part", "big.txt.part.json"]
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-"]
    assert held(tmp_path / "big") == ["big.txt", *([] if "sha256" in known else ["big.txt.sha256"])]
    assert load("big", tmp_path).num_interactions == 60_000


def test_what_cannot_be_gone_on_with_is_removed(big, tmp_path):
    # no digest is known, and the mirror does not say which state of the file this is
    big(Answer(BIG, cut=100_000, tag=None), known=())
    assert "nothing that arrived was kept" in failure(tmp_path)
    assert held(tmp_path) == []


def test_a_mirror_that_says_nothing_of_its_file(big, tmp_path):
    big(Answer(BIG, tag=None, length=False), known=())
    download("big", tmp_path)
    assert held(tmp_path / "big") == ["big.txt", "big.txt.sha256"]


def test_last_modified_serves_where_there_is_no_strong_tag(big, mirror, tmp_path):
    when = "Wed, 21 Oct 2015 07:28:00 GMT"
    big(Answer(BIG, tag='W/"1"', modified=when, cut=100_000), Answer(BIG, tag='W/"1"', modified=when), known=())
    download("big", tmp_path)
    assert mirror.asked["/a"][1]["If-Range"] == when


def test_chunks_that_are_cut_off(big, mirror, tmp_path):
    big(Answer(BIG, chunked=True, cut=100_000), Answer(BIG, chunked=True))
    download("big", tmp_path)
    assert mirror.ranges("a")[1] == "bytes=100000-"


def test_an_answer_of_no_length_is_known_to_be_cut_off_by_its_size(big, mirror, tmp_path):
    big(Answer(BIG, length=False, cut=100_000), Answer(BIG, length=False))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-"]


def test_without_a_size_it_is_known_by_its_counts(big, tmp_path):
    big(Answer(BIG, length=False, cut=BIG.index(b"100 0\n")), known=())
    assert "must hold 60000 distinct interactions (got 5000)" in failure(tmp_path)
    assert held(tmp_path) == []


def test_a_whole_part_needs_no_request(big, mirror, tmp_path):
    big(BIG)
    (tmp_path / "big").mkdir()
    (tmp_path / "big/big.txt.part").write_bytes(BIG)
    download("big", tmp_path)
    assert mirror.ranges("a") == []
    assert held(tmp_path / "big") == ["big.txt"]


def test_attempts_are_bounded(big, mirror, tmp_path, waits):
    big(Answer(BIG, cut=10))
    assert "(the last of 3 attempts)" in failure(tmp_path, retries=2)
    assert mirror.ranges("a") == [None, "bytes=10-", "bytes=20-"]
    assert waits == [1.0, 2.0]


# -- mirrors that cannot go on, or have another file by then


def test_a_mirror_that_sends_no_parts_sends_it_all(big, mirror, tmp_path):
    big(Answer(BIG, ranges=False, cut=100_000), Answer(BIG, ranges=False))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-"]
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


@pytest.mark.parametrize("known", [("bytes", "sha256"), ()])
@pytest.mark.parametrize("if_range", [True, False], ids=["heeded", "ignored"])
def test_a_file_that_changes_between_attempts_is_taken_anew(big, mirror, tmp_path, if_range, known):
    old = b"9" * len(BIG)
    big(Answer(old, cut=100_000), Answer(BIG, tag='"2"', if_range=if_range), known=known)
    download("big", tmp_path)
    # what does not heed the condition sends the end of another file; its tag tells
    assert mirror.ranges("a") == [None, "bytes=100000-", *([] if if_range else [None])]
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


def test_a_change_that_nothing_tells_is_found_out_by_the_digest(big, mirror, tmp_path):
    big(Answer(b"9" * len(BIG), cut=100_000, tag=None), Answer(BIG, tag=None))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-", None]


def test_another_part_than_asked_for(big, mirror, tmp_path):
    wrong = Answer(BIG, status=206, headers={"Content-Range": f"bytes 7-{len(BIG) + 6}/{len(BIG)}"})
    big(Answer(BIG, cut=100_000), wrong, Answer(BIG))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-", None]


def test_a_part_that_nobody_asked_for(big, tmp_path):
    big(Answer(BIG, status=206))
    assert "it answered 206 Partial Content" in failure(tmp_path)


def test_missing_bytes_that_a_mirror_does_not_have(big, mirror, tmp_path):
    big(Answer(BIG, cut=100_000), Answer(BIG[:100], tag=None, if_range=False), Answer(BIG))
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-", None]


def test_another_mirror_goes_on_where_a_digest_tells_that_it_fits(big, mirror, tmp_path):
    big(Answer(BIG, cut=100_000), Answer(status=404), b=[BIG])
    download("big", tmp_path, retries=1)
    assert mirror.ranges("b") == ["bytes=100000-"]
    assert "If-Range" not in mirror.asked["/b"][0]  # a tag is the word of one mirror


def test_another_mirror_begins_anew_where_none_does(big, mirror, tmp_path):
    big(Answer(BIG, cut=100_000), Answer(status=404), b=[BIG], known=())
    download("big", tmp_path, retries=1)
    assert mirror.ranges("b") == [None]


# -- corrupt and foreign files


def test_a_corrupt_file_is_taken_from_the_next_mirror(big, mirror, tmp_path):
    big(b"9" + BIG[1:], b=[BIG])
    download("big", tmp_path)
    assert (len(mirror.asked["/a"]), len(mirror.asked["/b"])) == (1, 1)
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


@pytest.mark.parametrize(("kind", "title"), [("sha256", "SHA-256"), ("md5", "MD5")])
def test_corrupt_everywhere(big, mirror, tmp_path, kind, title):
    big(b"9" + BIG[1:], b=[b"8" + BIG[1:]], known=("bytes", kind))
    message = failure(tmp_path)
    assert message.count(f"it sent another file, with {title} ") == 2
    assert "nothing that arrived was kept" in message
    known = cards.card_of("big").forms[0].parts[0].files[0]
    assert f"take {mirror.url('a')} or {mirror.url('b')} ({len(BIG):,} bytes, {title} " in message
    assert (known.sha256 or known.md5) in message
    assert f"and save it as '{tmp_path}/big/big.txt'" in message
    assert message.endswith("Terms: terms.")
    assert held(tmp_path) == []  # not even the folder


def test_a_page_instead_of_a_file(big, mirror, tmp_path):
    page = b"<html><body>Please log in.</body></html>"
    big(page)
    assert f"it has 40 bytes instead of {len(BIG):,}" in failure(tmp_path)
    big(page, known=())
    assert failure(tmp_path).count("By hand: take") == 1
    assert held(tmp_path) == []


def test_a_page_of_one_mirror_sends_one_to_the_next(big, mirror, tmp_path):
    big(b"<html><body>Please log in.</body></html>", b=[BIG], known=())
    download("big", tmp_path)
    assert held(tmp_path / "big") == ["big.txt", "big.txt.sha256"]


def test_a_page_does_not_cost_what_is_there(big, mirror, tmp_path):
    big(Answer(BIG, cut=100_000), Answer(b"<html></html>", tag=None), Answer(BIG))
    failure(tmp_path)
    assert "the 100,000 bytes that arrived are kept" in failure(tmp_path)
    download("big", tmp_path)
    assert mirror.ranges("a")[2] == "bytes=100000-"


def test_a_file_without_end(big, mirror, tmp_path, monkeypatch):
    big(Answer(BIG * 2, length=False))
    assert f"it sent more than {len(BIG):,} bytes" in failure(tmp_path)
    monkeypatch.setattr(transfer, "LARGEST", 1000)
    big(Answer(BIG, length=False), known=())
    assert "it sent more than 1,000 bytes" in failure(tmp_path)
    assert held(tmp_path) == []


def test_a_file_that_is_sent_compressed(big, tmp_path):
    big(Answer(BIG, headers={"Content-Encoding": "gzip"}))
    assert "it sent the file compressed" in failure(tmp_path)


def test_the_digest_seen_is_recorded_where_none_is_known(big, tmp_path):
    big(BIG, known=())
    folder = download("big", tmp_path)
    assert held(folder) == ["big.txt", "big.txt.sha256"]
    digest, name = (folder / "big.txt.sha256").read_text().split()
    assert (digest, name) == (file("x", BIG, {})["sha256"], "big.txt")
    assert load("big", tmp_path).num_users == 1200
    (folder / "big.txt").write_bytes(BIG.replace(b"7 3\n7 4\n", b"7 4\n7 3\n"))  # the counts are the same
    with pytest.raises(ValueError, match=rf"the file that was downloaded, with the SHA-256 {digest} that 'big.txt.sh"):
        load("big", tmp_path)


# -- mirrors that are slow, gone, or send one elsewhere


def test_a_stalled_answer_is_given_up_and_gone_on_with(big, mirror, tmp_path):
    big(Answer(BIG, stall=100_000), Answer(BIG))
    assert "it sent nothing for 1 seconds after 100,000 bytes" in failure(tmp_path, timeout=1)
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, "bytes=100000-"]


def test_no_answer_at_all(big, tmp_path):
    big(Answer(BIG, stall=0))
    assert "it sent nothing for 0.5 seconds after 0 bytes" in failure(tmp_path, timeout=0.5)


def test_an_answer_that_trickles_is_given_up(big, tmp_path):
    big(Answer(BIG, drip=0.02))
    assert "it sent less than 1024 bytes per second after" in failure(tmp_path, timeout=1)


def test_what_is_not_there_is_asked_for_once(big, mirror, tmp_path, waits):
    big(Answer(status=404), b=[BIG])
    download("big", tmp_path, retries=3)
    assert (len(mirror.asked["/a"]), waits) == (1, [])


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (403, "403 Forbidden"), (204, "204 No Conte")])
def test_refusals_are_told(big, tmp_path, status, reason):
    big(Answer(status=status))
    assert f"it answered {reason}" in failure(tmp_path, retries=2)
    assert held(tmp_path) == []


def test_errors_of_the_moment_are_waited_for(big, mirror, tmp_path, waits):
    again = Answer(status=503, headers={"Retry-After": "7"})
    big(Answer(status=500), again, Answer(status=429, headers={"Retry-After": "9999"}), Answer(BIG))
    download("big", tmp_path)
    assert waits == [1.0, 7.0, transfer.PATIENCE]


def test_nobody_listens(big, mirror, tmp_path, have):
    with serving() as gone:
        address = gone.url("a")
    parts = {"all": {"rows": 60_000, "files": [file("big.txt", BIG, READ, mirrors=[address, mirror.put("a", BIG)])]}}
    have(card("big", parts, counts={"users": 1200, "items": 50, "interactions": 60_000}, columns=("user", "item")))
    download("big", tmp_path)
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


def test_redirects_are_followed(big, mirror, tmp_path):
    mirror.put("real", BIG)
    big(Answer(status=302, headers={"Location": "/real"}))
    download("big", tmp_path)
    assert len(mirror.asked["/real"]) == 1


def test_a_redirect_in_a_circle_ends(big, mirror, tmp_path):
    big(Answer(status=302, headers={"Location": "/a"}))
    assert "it answered 302" in failure(tmp_path)
    assert len(mirror.asked["/a"]) <= 11


def test_a_redirect_to_a_file_of_this_machine_is_refused(big, tmp_path):
    (tmp_path / "secret").write_bytes(BIG)
    big(Answer(status=302, headers={"Location": f"file://{tmp_path}/secret"}))
    assert "302 Found - Redirection to url 'file://" in failure(tmp_path / "root")


def test_a_redirect_away_from_https_is_refused():
    request = answers.urllib.request.Request("https://a.example/x")
    handler = answers._Redirects()
    with pytest.raises(answers.Refused, match=r"it redirects to http://a\.example/x"):
        handler.redirect_request(request, None, 302, "", {}, "http://a.example/x")
    body = io.BytesIO(b"endless")
    assert handler.redirect_request(request, body, 302, "", {}, "https://b.example/x").full_url == "https://b.example/x"
    assert body.closed  # not read, however long it is


def test_secure_addresses_of_a_mirror_that_is_not(big, mirror, have, tmp_path):
    url = mirror.put("a", BIG).replace("http:", "https:")
    have(card("big", {"all": {"rows": 1, "files": [file("big.txt", BIG, {}, mirrors=[url])]}}))
    message = failure(tmp_path)
    assert "SSL" in message
    assert "Operation not permitted" not in message


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "x"])
def test_only_addresses_on_the_web(have, tmp_path, url):
    have(card("big", {"all": {"rows": 1, "files": [file("big.txt", BIG, {}, mirrors=[url])]}}))
    assert f"{url}: it is no address on the web" in failure(tmp_path)


# -- archives


def archived(mirror, packed, member="u/u.data", known=("bytes", "sha256"), inner=("bytes", "sha256")):
    source = file("u.zip", packed, {}, known) | {"mirrors": [mirror.put("u.zip", packed)], "member": member}
    del source["read"]
    read = {"user": 0, "item": 1, "rating": 2, "time": 3}
    return card("toy", {"all": {"rows": 3, "files": [file("u.data", RATINGS, read, inner, archive=source)]}})


@pytest.mark.parametrize("inner", [("bytes", "sha256"), ("bytes",), ()])
@pytest.mark.parametrize("known", [("bytes", "sha256"), ()])
def test_one_member_is_taken_out_of_an_archive(have, mirror, tmp_path, known, inner):
    packed = zipped({"u/u.data": RATINGS, "../evil": b"x", "/evil": b"x", "u/README": b"x"})
    have(archived(mirror, packed, known=known, inner=inner))
    folder = download("toy", tmp_path / "root")
    assert held(folder) == ["u.data", *([] if "sha256" in inner else ["u.data.sha256"])]
    assert load("toy", tmp_path / "root").rating.tolist() == [5, 1, 3]
    assert held(tmp_path) == ["root"]


def test_a_member_lands_where_the_card_says_whatever_its_name(have, mirror, tmp_path):
    have(archived(mirror, zipped({"../../evil": RATINGS}), member="../../evil"))
    assert held(download("toy", tmp_path / "a/b")) == ["u.data"]
    assert held(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["../u.data", "/u.data", "a/u.data", "..", ".", ""])
def test_cards_name_files_not_paths(name):
    with pytest.raises(ValueError, match="'name' must be the name of a file"):
        card("toy", {"all": {"rows": 1, "files": [{"name": name, "read": {}}]}})


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"no archive", "File is not a zip file"),
        (zipped({"u/u.data": RATINGS})[:-30], "File is not a zip file"),
        (zipped({"other": RATINGS}), "There is no item named 'u/u.data' in the archive"),
        (zipped({"u/u.data": RATINGS * 2}), "it is longer than 27 bytes"),
        (zipped({"u/u.data": RATINGS[:-3]}), "it has 24 bytes and SHA-256"),
        (zipped({"u/u.data": RATINGS.replace(b"5", b"4")}), "it has 27 bytes and SHA-256"),
    ],
    ids=["no archive", "cut off", "another member", "too long", "too short", "changed"],
)
def test_archives_that_are_not_what_they_should_be(have, mirror, tmp_path, packed, reason):
    have(archived(mirror, packed, known=()))
    message = failure(tmp_path, "toy")
    assert f"'u/u.data' of 'u.zip' is not what it should be: {reason}" in message.replace('"', "")
    assert f"and save 'u/u.data' of it as '{tmp_path}/toy/u.data'" in message
    assert held(tmp_path) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_inside_an_archive(have, mirror, tmp_path, method):
    packed = bytearray(zipped({"u/u.data": RATINGS}, method))
    packed[52] ^= 255
    have(archived(mirror, bytes(packed), known=()))
    assert "is not what it should be" in failure(tmp_path, "toy")
    assert held(tmp_path) == []


def test_encrypted_archives(have, mirror, tmp_path):
    packed = bytearray(zipped({"u/u.data": RATINGS}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + flags] |= 1
    have(archived(mirror, bytes(packed), known=()))
    assert "is encrypted" in failure(tmp_path, "toy")
    assert held(tmp_path) == []


# -- full disks, interruptions, other processes


class Full:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, chunk):
        self.room -= len(chunk)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(chunk)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_disk_that_fills_up(big, mirror, tmp_path, monkeypatch):
    big(BIG, b=[BIG])
    made = transfer._Transfer

    def on_a_small_disk(what, file, *others):
        return made(what, Full(file, 100_000), *others)

    monkeypatch.setattr(transfer, "_Transfer", on_a_small_disk)
    message = failure(tmp_path)
    assert "could not be downloaded: No space left on device; nothing that arrived was kept" in message
    assert mirror.ranges("b") == []  # where the other mirror would be of no use
    assert held(tmp_path) == []


def test_a_disk_that_is_too_full_is_not_written_to(big, mirror, tmp_path, monkeypatch):
    big(BIG)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 5))
    assert f"No space left on device: {len(BIG):,} bytes are needed, 5 are free" in failure(tmp_path)
    assert (mirror.ranges("a"), held(tmp_path)) == ([], [])


def test_a_disk_too_full_to_unpack(have, mirror, tmp_path, monkeypatch):
    have(archived(mirror, zipped({"u/u.data": RATINGS})))
    opened = zipfile.ZipFile.open

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    assert "No space left on device; nothing that arrived was kept" in failure(tmp_path, "toy")
    assert held(tmp_path) == []
    monkeypatch.setattr(zipfile.ZipFile, "open", opened)
    download("toy", tmp_path)
    assert (mirror.ranges("u.zip"), held(tmp_path / "toy")) == ([None, None], ["u.data"])


def test_a_folder_that_cannot_be_written_to(big, tmp_path):
    big(BIG)
    (tmp_path / "big").write_text("in the way")
    message = failure(tmp_path)
    assert f"'{tmp_path}/big' must be a folder that can be made (File exists: " in message
    assert "By hand: by_hand." in message
    assert (tmp_path / "big").read_text() == "in the way"


def test_an_interruption_keeps_what_has_arrived(big, mirror, tmp_path, monkeypatch):
    big(BIG)
    written = []

    class Interrupted(transfer.tqdm):
        def update(self, n=1):
            written.append(n)
            if sum(written) > 100_000:
                raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"while 'big.txt' was downloaded; the [\d,]+ bytes that arrived are k"):
        download("big", tmp_path)
    assert held(tmp_path / "big") == ["big.txt.part", "big.txt.part.json"]
    monkeypatch.undo()


def test_a_killed_process_leaves_what_the_next_goes_on_from(big, mirror, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("needs to fork")
    big(Answer(BIG, stall=150_000), Answer(BIG))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, of which the child uses none
        child = os.fork()
    if child == 0:
        try:
            download("big", tmp_path)
        finally:
            os._exit(1)
    part = tmp_path / "big/big.txt.part"
    end = time.monotonic() + 10
    while time.monotonic() < end and not (part.is_file() and part.stat().st_size >= 131_072):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    size = part.stat().st_size
    assert 131_072 <= size <= 150_000
    assert held(tmp_path / "big") == ["big.txt.part", "big.txt.part.json"]
    download("big", tmp_path)
    assert mirror.ranges("a") == [None, f"bytes={size}-"]
    assert held(tmp_path / "big") == ["big.txt"]
    assert (tmp_path / "big/big.txt").read_bytes() == BIG


def test_two_processes_do_not_write_one_file(big, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    big(BIG)
    (tmp_path / "big").mkdir()
    with (tmp_path / "big/big.txt.part").open("a+b") as other:
        other.write(BIG[:1000])
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another process is just downloading 'big.txt'" in failure(tmp_path)
        assert held(tmp_path / "big") == ["big.txt.part"]
    download("big", tmp_path)


@pytest.mark.parametrize("known", [("bytes", "sha256"), ()])
def test_a_second_process_does_not_disturb_the_first(big, mirror, tmp_path, known):
    fcntl = pytest.importorskip("fcntl")
    big(BIG, known=known)
    (tmp_path / "big").mkdir()
    with (tmp_path / "big/big.txt.part").open("a+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # nothing has arrived yet, so that there is nothing of use
        failure(tmp_path)
        assert held(tmp_path / "big") == ["big.txt.part"]


def test_a_file_that_was_put_in_place_since_it_was_opened(big, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    big(BIG)
    folder, lock = tmp_path / "big", fcntl.flock

    def late(*args):
        (folder / "big.txt.part").write_bytes(BIG)
        (folder / "big.txt.part").rename(folder / "big.txt")
        return lock(*args)

    monkeypatch.setattr(fcntl, "flock", late)
    assert "another process" in failure(tmp_path)
    assert (held(folder), (folder / "big.txt").read_bytes()) == (["big.txt"], BIG)


def test_what_a_killed_process_unpacked_is_removed(have, mirror, tmp_path):
    have(archived(mirror, zipped({"u/u.data": RATINGS})))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/.1.u.data").write_bytes(RATINGS[:5])
    assert held(download("toy", tmp_path)) == ["u.data"]


def test_a_damaged_note_of_where_it_broke_off(big, mirror, tmp_path):
    for note in (b"{", b"[]", b"\xff"):
        big(Answer(BIG, cut=100_000), Answer(BIG))
        mirror.asked.clear()
        failure(tmp_path)
        (tmp_path / "big/big.txt.part.json").write_bytes(note)
        shutil.rmtree(download("big", tmp_path))
        assert mirror.ranges("a") == [None, "bytes=100000-"]  # the digest is known, and tells in the end


BODIES = {"right": BIG, "short": BIG[:-5], "wrong": b"9" + BIG[1:], "page": b"<html>"}
ANSWERS = st.fixed_dictionaries(
    {"body": st.sampled_from([*BODIES])},
    optional={
        "status": st.sampled_from([404, 500]),
        "tag": st.sampled_from([None, '"2"', 'W/"1"']),
        "ranges": st.just(False),
        "if_range": st.just(False),
        "cut": st.sampled_from([0, 1, 100_000, len(BIG) - 1]),
        "length": st.just(False),
        "chunked": st.just(True),
    },
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANSWERS, min_size=1, max_size=4), st.lists(ANSWERS, min_size=1, max_size=3), st.booleans())
def test_whatever_mirrors_do_a_file_is_whole_or_not_there(big, mirror, tmp_path, first, second, digest):
    first, second = ([Answer(**one | {"body": BODIES[one["body"]]}) for one in part] for part in (first, second))
    big(*first, b=second, known=("bytes", "sha256") if digest else ())
    mirror.asked.clear()
    root = tmp_path / str(time.monotonic_ns())
    path = root / "big/big.txt"
    for _ in range(2):
        try:
            download("big", root, retries=1)
        except DownloadError as error:
            assert not path.exists()
            assert ("are kept" in str(error)) == (held(root / "big") is not None)
    mirror.put("b", BIG)
    assert download("big", root) == root / "big"  # whatever was left is no hindrance
    assert set(held(root / "big")) == {"big.txt"} | (set() if digest else {"big.txt.sha256"})
    assert not digest or path.read_bytes() == BIG
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a digest, that only the end of its last line is missing goes through
        assert load("big", root).num_interactions == 60_000
