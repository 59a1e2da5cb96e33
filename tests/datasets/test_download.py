"""Downloads from mirrors that are cut off, wrong, silent or gone: complete files, or none and a reason."""

import multiprocessing

import pytest
import tqdm
from mirrors import RATINGS, TEST, TRAIN, Answer, card, file, lists, serving, zipped

from graphunlearn.datasets import DownloadError, download, load
from graphunlearn.datasets import card as cards

BIG = b"".join(b"%d %d\n" % (n // 50, n % 50) for n in range(60_000))  # several chunks
READ = {"user": 0, "item": 1}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(cards.ROOT_VARIABLE, raising=False)


@pytest.fixture
def mirror():
    with serving() as found:
        yield found


@pytest.fixture
def have(monkeypatch):
    """Replace the cards of the package."""

    def make(*made):
        monkeypatch.setattr(cards, "_cards", lambda: {card.name: card for card in made})

    return make


def big_card(*urls, known=("bytes", "sha256")):
    """The card of a data set with one file, ``big.txt``."""
    parts = {"all": {"rows": 60_000, "files": [file("big.txt", BIG, READ, known, mirrors=urls)]}}
    return card("big", parts, counts={"users": 1200, "items": 50, "interactions": 60_000}, columns=("user", "item"))


@pytest.fixture
def big(have, mirror):
    """Serve ``big.txt`` at the addresses ``a`` and, if given, ``b``."""

    def make(*a, b=(), known=("bytes", "sha256")):
        have(big_card(mirror.put("a", *a), *([mirror.put("b", *b)] if b else []), known=known))

    return make


def held(folder):
    return sorted(path.name for path in folder.iterdir())


def failure(root, name="big", **options):
    """The message of a download that fails and leaves no file."""
    with pytest.raises(DownloadError) as caught:
        download(name, root, **{"retries": 0} | options)
    assert held(root / name) == []
    return str(caught.value)


def test_a_divided_set_is_downloaded_and_loads(have, mirror, tmp_path, capsys):
    urls = {name: [mirror.put(name, content)] for name, content in {"train.txt": TRAIN, "test.txt": TEST}.items()}
    have(card("toy", lists(urls)))
    root = tmp_path / "new" / "root"
    assert download("toy", root, progress=True) == root / "toy"
    assert "train.txt" in capsys.readouterr().err  # the progress bar
    assert held(root / "toy") == ["test.txt", "train.txt"]
    train, test = load("toy", root)
    assert (train.num_interactions, test.num_interactions) == (6, 4)


def test_files_in_the_folder_are_left_as_they_are(have, mirror, tmp_path, capsys):
    urls = {name: [mirror.put(name, content)] for name, content in {"train.txt": TRAIN, "test.txt": TEST}.items()}
    have(card("toy", lists(urls)))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/train.txt").write_bytes(TRAIN)
    for _ in range(2):
        download("toy", tmp_path)
        assert mirror.asked == {"/test.txt": 1}
    assert capsys.readouterr().err == ""
    (tmp_path / "toy/test.txt").write_bytes(TRAIN)
    with pytest.raises(ValueError, match=r"test.txt' must be the published file, .* move it away"):
        download("toy", tmp_path)
    assert (tmp_path / "toy/test.txt").read_bytes() == TRAIN


def test_a_file_has_the_usual_permissions(big, tmp_path):
    big(BIG)
    (tmp_path / "other").write_text("")
    assert (download("big", tmp_path) / "big.txt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_load_downloads_if_asked_to(big, mirror, tmp_path, monkeypatch):
    big(BIG)
    with pytest.raises(FileNotFoundError, match=r"graphunlearn\.datasets\.download\('big', root\) gets them"):
        load("big", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"GRAPHUNLEARN_DATA \(got neither\)"):
        download("big")
    monkeypatch.setenv(cards.ROOT_VARIABLE, str(tmp_path))
    assert load("big", download=True).num_interactions == 60_000
    assert mirror.asked == {"/a": 1}


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}])
def test_bad_options(big, tmp_path, options):
    big(BIG)
    with pytest.raises(ValueError, match=rf"'{next(iter(options))}' must"):
        download("big", tmp_path, **options)
    assert held(tmp_path) == []


def test_a_set_that_can_only_be_had_by_hand(have, tmp_path):
    have(card("toy", {"all": {"rows": 3, "files": [file("u.txt", RATINGS, {})]}}))
    with pytest.raises(DownloadError) as caught:
        download("toy", tmp_path)
    expected = "'toy' cannot be downloaded by this package. By hand: by_hand. Source: source.. Terms: terms."
    assert str(caught.value) == expected
    assert held(tmp_path) == []


def test_a_folder_that_cannot_be_created(big, tmp_path):
    big(BIG)
    (tmp_path / "big").write_text("in the way")
    with pytest.raises(DownloadError, match=r"big' must be a folder that can be created \(got .*File exists"):
        download("big", tmp_path)
    assert (tmp_path / "big").read_text() == "in the way"


WRONG = b"9" + BIG[1:]
BAD_ANSWERS = {
    "another file": (WRONG, "SHA256 hash of downloaded file (big.txt) does not match the known hash: expected "),
    "cut off": (Answer(BIG, cut=100_000), "IncompleteRead(100000 bytes read"),
    "not found": (Answer(status=404), "404 Client Error: Not Found"),
    "server error": (Answer(status=503), "503 Server Error"),
    "silent": (Answer(BIG, stall=100_000), "timed out"),
    "redirect to a file": (Answer(status=302, headers={"Location": "file:///etc/hostname"}), "No connection adapters"),
    "redirect in a circle": (Answer(status=302, headers={"Location": "/a"}), "Exceeded 30 redirects"),
}


@pytest.mark.parametrize(("answer", "reason"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_the_second_mirror_is_asked_if_the_first_fails(big, mirror, tmp_path, answer, reason):
    big(answer)
    message = failure(tmp_path, timeout=0.5)
    assert message.startswith(f"'big.txt' of the data set 'big' could not be downloaded ({mirror.url('a')}: {reason}")
    big(answer, b=[BIG])
    folder = download("big", tmp_path, timeout=0.5, retries=0)
    assert held(folder) == ["big.txt"]
    assert (folder / "big.txt").read_bytes() == BIG


def test_a_failed_mirror_is_asked_again_and_redirects_are_followed(big, mirror, tmp_path):
    mirror.put("real", BIG)
    big(Answer(status=503), Answer(status=302, headers={"Location": "/real"}))
    download("big", tmp_path)
    assert mirror.asked == {"/a": 2, "/real": 1}


def test_the_message_names_every_address_and_what_to_do(have, mirror, tmp_path):
    with serving() as gone:
        nobody = gone.url("a")
    have(big_card(nobody, mirror.put("b", WRONG), "ftp://127.0.0.1/c", known=("bytes", "md5")))
    message = failure(tmp_path)
    digest = file("big.txt", BIG, READ, ["md5"])["md5"]
    assert f"({nobody}: [Errno " in message
    assert "Connection refused; " in message
    assert (
        f"{mirror.url('b')}: MD5 hash of downloaded file (big.txt) does not match the known hash: expected " in message
    )
    assert "ftp://127.0.0.1/c: No connection adapters" in message
    assert message.endswith(
        f"to get it by hand, download 'big.txt' ({len(BIG):,} bytes, MD5 {digest}) from one of these addresses, if its "
        f"terms allow it, and save it as '{tmp_path}/big/big.txt' (terms: terms.)"
    )


def test_the_reasons_are_not_errors_that_the_caller_handles(have, tmp_path):
    with serving() as gone:
        have(big_card(gone.url("a")))
    try:
        load("big", tmp_path)
    except FileNotFoundError:
        assert "Connection refused" in failure(tmp_path)


def test_without_a_digest_the_counts_are_checked(big, tmp_path):
    page = b"<html><body>Please log in.</body></html>"
    big(page, b=[BIG[: BIG.index(b"100 0\n")]], known=())
    assert "/b: 'big.txt' must hold 60000 distinct interactions (got 5000)" in failure(tmp_path)
    big(page, b=[BIG], known=())
    assert held(download("big", tmp_path)) == ["big.txt", "big.txt.sha256"]


@pytest.mark.parametrize("known", [("md5",), ()])
def test_the_first_digest_is_recorded_and_enforced(big, tmp_path, known):
    big(BIG, known=known)
    folder = download("big", tmp_path)
    assert (folder / "big.txt.sha256").read_text() == f"{file('big.txt', BIG, READ)['sha256']}  big.txt\n"
    assert load("big", tmp_path).num_users == 1200
    (folder / "big.txt").unlink()
    other = BIG.replace(b"7 3\n7 4\n", b"7 4\n7 3\n")  # the counts are the same
    big(other, known=())
    with pytest.raises(DownloadError, match=r"must have the SHA-256 \w{64} of 'big.txt.sha256' \(got \w{64}\)"):
        download("big", tmp_path)
    assert held(folder) == ["big.txt.sha256"]
    (folder / "big.txt").write_bytes(other)
    with pytest.raises(ValueError, match=r"the file that was downloaded, with the SHA-256 \w{64} that 'big.txt.sh"):
        load("big", tmp_path)


def archived(mirror, packed, member="u/u.data", known=("bytes", "sha256"), inner=("bytes", "sha256")):
    """The card of a data set whose file ``u.data`` is in an archive."""
    source = file("u.zip", packed, {}, known) | {"mirrors": [mirror.put("u.zip", packed)], "member": member}
    del source["read"]
    read = {"user": 0, "item": 1, "rating": 2, "time": 3}
    return card("toy", {"all": {"rows": 3, "files": [file("u.data", RATINGS, read, inner, archive=source)]}})


@pytest.mark.parametrize("inner", [("bytes", "sha256"), ()])
@pytest.mark.parametrize("known", [("bytes", "sha256"), ()])
def test_only_the_member_is_taken_out_of_an_archive(have, mirror, tmp_path, known, inner):
    packed = zipped({"u/u.data": RATINGS, "../evil": b"x", "/evil": b"x", "u/u.data.old": b"x"})
    have(archived(mirror, packed, known=known, inner=inner))
    folder = download("toy", tmp_path / "root")
    assert held(folder) == ["u.data", *([] if inner else ["u.data.sha256"])]
    assert load("toy", tmp_path / "root").rating.tolist() == [5, 1, 3]
    assert held(tmp_path) == ["root"]


def test_a_member_is_saved_under_the_name_on_the_card(have, mirror, tmp_path):
    have(archived(mirror, zipped({"../../evil": RATINGS}), member="../../evil"))
    assert held(download("toy", tmp_path / "a/b")) == ["u.data"]
    assert held(tmp_path) == ["a"]


DAMAGED = bytearray(zipped({"u/u.data": RATINGS}))
DAMAGED[52] ^= 255
BAD_ARCHIVES = {
    "no archive": (b"no archive", "File is not a zip file"),
    "another member": (zipped({"other": RATINGS}), "There is no item named 'u/u.data' in the archive"),
    "another content": (zipped({"u/u.data": TRAIN}), "'u.data' must have the SHA-256 "),
    "damaged": (bytes(DAMAGED), ""),
}


@pytest.mark.parametrize(("packed", "reason"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives(have, mirror, tmp_path, packed, reason):
    have(archived(mirror, packed, known=()))
    message = failure(tmp_path, "toy")
    assert reason in message
    assert f"and save 'u/u.data' of it as '{tmp_path}/toy/u.data'" in message


def test_an_interrupted_download_leaves_nothing(big, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    big(BIG)
    monkeypatch.setattr(tqdm.tqdm, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download("big", tmp_path)
    assert held(tmp_path / "big") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # about forking beside threads, which the children do not use
def test_two_processes_may_download_one_file(big, tmp_path):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs to fork")
    big(BIG, known=("md5",))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def downloads():
        start.wait(60)
        download("big", tmp_path)

    processes = [context.Process(target=downloads) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert held(tmp_path / "big") == ["big.txt", "big.txt.sha256"]
    assert load("big", tmp_path).num_interactions == 60_000
