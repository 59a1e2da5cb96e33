"""Downloading one file: resumed where it broke off, from mirror after mirror, and checked before it counts."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from graphunlearn.data.io.files import write_atomic
from graphunlearn.datasets.answers import Again, Answer, Refused, ask
from graphunlearn.datasets.card import Published
from graphunlearn.datasets.reading import digest_of

try:
    import fcntl
except ImportError:  # Windows: that two processes download one file is then found out by its digest alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["Busy", "DownloadError", "fetch", "kept", "part_of", "state_of"]

LARGEST = 1 << 31
"""What is longer than this, in bytes, is none of the data sets; where the size is known, that counts."""
PATIENCE = 30.0
"""The longest wait before the next attempt, in seconds."""

sleep = time.sleep


class DownloadError(OSError):
    """A data set could not be downloaded; the message says why, what was left behind, and what to do by hand."""


class Busy(Exception):
    """Another process is downloading the file."""


def part_of(folder: Path, what: Published) -> Path:
    """Return the file that holds what has arrived of a download."""
    return folder / f"{what.name}.part"


def kept(part: Path) -> str:
    """Return what is left of a download, in words."""
    if not part.is_file():
        return "nothing that arrived was kept"
    return (
        f"the {part.stat().st_size:,} bytes that arrived are kept in '{part}', and the next download goes on from them"
    )


def fetch(
    what: Published,
    part: Path,
    check: Callable[[], None],
    place: Callable[[], None],
    *,
    timeout: float,
    retries: int,
    progress: bool | None,
) -> None:
    """Download something into ``part``, of which what is there from an earlier attempt is used, and put it in place.

    Args:
        what: What to download; its bytes are checked as far as size and digests are known.
        part: The file; beside it ``.json`` holds what is needed to go on after an interruption. On an error both are
            kept where the next download can go on from them, and removed where it cannot, or the disk is full.
        check: Called when ``part`` is whole; raises a ValueError where it is not what it should be all the same.
        place: Called then; moves it to where it belongs, before any other process can get hold of ``part``.
        timeout: Seconds after which an answer that does not come, or comes slower than 1 KiB per second, is given up.
        retries: How many more attempts to make at every mirror after one that broke off.
        progress: Whether to show a bar (default: on a terminal only).

    Raises:
        Busy: If another process is downloading it; what that has got so far is left alone.
        DownloadError: If no mirror gave the file.
        OSError: If it cannot be written.
    """
    reasons = []
    done = full = False
    hidden = None if progress is None else not progress
    with _opened(part) as file:
        try:
            with tqdm(total=what.bytes, desc=what.name, unit="B", unit_scale=True, disable=hidden, leave=False) as bar:
                transfer = _Transfer(what, file, part, check, timeout, bar)
                for url in what.mirrors:
                    reason = transfer.all_from(url, retries)
                    if reason is None:
                        done = True
                        break
                    reasons.append(f"{url}: {reason}")
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise
        finally:
            if fcntl is None:
                file.close()  # what is open can be neither moved nor removed there
            if full or not (done or _is_of_use(what, part)):
                part.unlink(missing_ok=True)
                state_of(part).unlink(missing_ok=True)
        if not done:
            raise DownloadError("; ".join(reasons))
        place()


@contextmanager
def _opened(part: Path) -> Iterator[IO[bytes]]:
    """The file, for this process alone."""
    with part.open("a+b") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except (BlockingIOError, FileNotFoundError):
                mine = False
            if not mine:  # or another process has put it in place, or removed it, since it was opened
                raise Busy
        yield file


def state_of(part: Path) -> Path:
    """Return the file that holds what is needed to go on with a download."""
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, Any]:
    """Which address the bytes that are there came from, and the validator it sent."""
    try:
        state = json.loads(state_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _is_of_use(what: Published, part: Path) -> bool:
    """Whether one can go on from what has arrived, and tell whether the rest belongs to it."""
    known = bool(what.sha256 or what.md5 or _read_state(part).get("validator"))
    return known and part.is_file() and part.stat().st_size > 0


class _Transfer:
    """One file on its way, over all attempts and mirrors."""

    def __init__(
        self, what: Published, file: IO[bytes], part: Path, check: Callable[[], None], timeout: float, bar: Any
    ) -> None:
        self.what, self.file, self.part, self.check = what, file, part, check
        self.timeout, self.bar = timeout, bar

    def all_from(self, url: str, retries: int) -> str | None:
        """Download the file from one mirror, in several attempts; return why that failed, if it did."""
        for attempt in range(retries + 1):
            start = self._start(url)
            try:
                self._attempt(url, start)
                wrong = self._wrong()
                if wrong is None:
                    os.fsync(self.file.fileno())
                    return None
                self._discard()
                if not start:
                    return wrong
                reason, wait = wrong, 0.0  # the earlier bytes may be at fault: once more, from the beginning
            except Refused as error:
                return str(error)
            except Again as error:
                reason, wait = str(error), min(2.0**attempt if error.wait is None else error.wait, PATIENCE)
                if error.afresh:
                    self._discard()
            if attempt < retries:
                sleep(wait)
        return f"{reason} (the last of {retries + 1} attempts)" if retries else reason

    def _start(self, url: str) -> int:
        """How many of the bytes that are there already to go on from."""
        state, size = _read_state(self.part), self.part.stat().st_size
        same = state.get("url") == url and bool(state.get("validator"))
        digest = bool(self.what.sha256 or self.what.md5)  # tells whether what different mirrors sent fits together
        too_many = self.what.bytes is not None and size > self.what.bytes
        if size and ((not same and not digest) or too_many):
            self._discard()
            return 0
        return size

    def _discard(self) -> None:
        self.file.truncate(0)
        state_of(self.part).unlink(missing_ok=True)

    def _attempt(self, url: str, start: int) -> None:
        """Ask for what is missing, and append what comes."""
        if start and start == self.what.bytes:
            return
        state = _read_state(self.part)
        answer = ask(url, start, state.get("validator") if state.get("url") == url else None, self.timeout)
        with closing(answer.response):
            total = self.what.bytes if answer.total is None else answer.total
            if total is not None and total != (self.what.bytes or total):
                raise Refused(f"it has {total:,} bytes instead of {self.what.bytes:,}")
            if answer.start < start:
                self._discard()
            write_atomic(state_of(self.part), json.dumps({"url": url, "validator": answer.validator}))
            self.bar.total, self.bar.n = total, answer.start
            self.bar.refresh()
            self._append(answer, total or LARGEST)
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise Again(f"it broke off after {size:,} of {total:,} bytes")

    def _append(self, answer: Answer, limit: int) -> None:
        size = answer.start
        try:
            for chunk in answer.chunks():
                size += len(chunk)
                if size > limit:
                    self._discard()
                    raise Refused(f"it sent more than {limit:,} bytes")
                self.file.write(chunk)
                self.bar.update(len(chunk))
        except Again as error:
            raise Again(f"{error} after {size:,} bytes", error.wait) from None
        finally:
            self.file.flush()

    def _wrong(self) -> str | None:
        """What of the bytes is not as published, if anything."""
        size = self.part.stat().st_size
        if self.what.bytes is not None and size != self.what.bytes:
            return f"it sent {size:,} bytes instead of {self.what.bytes:,}"
        for title, algorithm, known in (("SHA-256", "sha256", self.what.sha256), ("MD5", "md5", self.what.md5)):
            if known is not None:
                digest = digest_of(self.part, algorithm)
                if digest != known:
                    return f"it sent another file, with {title} {digest}"
        try:
            self.check()
        except ValueError as error:
            return f"it sent another file: {error}"
        return None
