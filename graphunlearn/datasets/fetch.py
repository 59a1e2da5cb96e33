"""Downloading public data sets into the folder that they are read from."""

from __future__ import annotations

import errno
import glob
import lzma
import os
import shutil
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphunlearn.datasets.card import Card, File, Form, Part, card_of, needed_folder
from graphunlearn.datasets.reading import check_digest, digest_of, read_part, record_digest
from graphunlearn.datasets.transfer import LARGEST, Busy, DownloadError, fetch, kept, part_of, state_of

__all__ = ["download"]

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, EOFError, NotImplementedError, RuntimeError)
"""What reading an archive raises that is none, damaged, encrypted, or without the member."""
DAY = 86_400
FULL = {errno.ENOSPC, errno.EDQUOT}


def download(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    progress: bool | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> Path:
    """Download a public data set into the folder ``root/name``, where :func:`load` finds it.

    Doing so is to agree to its terms, which are on its card. Files that are there already are checked and left alone.
    Every file is checked (size and digest as far as they are known, or else its counts) before it gets its name, and
    gets it whole or not at all. A download that broke off goes on where it did, mirrors are tried one after the other,
    and where no digest was known the one seen is recorded beside the file for :func:`load` to check.

    Args:
        name: One of the names in :func:`available`.
        root: Folder of data sets, made where there is none (default: the one that the environment variable
            ``GRAPHUNLEARN_DATA`` names).
        progress: Whether to show a bar (default: on a terminal only).
        timeout: Seconds after which an answer that does not come, or comes slower than 1 KiB per second, is given up.
        retries: How many more attempts to make at every mirror after one that broke off.

    Returns:
        The folder of the data set.

    Raises:
        FileNotFoundError: If no folder of data sets is given.
        ValueError: If there is no set of this name, or a file that is there is not the published one.
        DownloadError: If the set cannot be downloaded; the message says why, and what to do by hand.

    Example:
        >>> folder = download("ml-100k", root="data")  # doctest: +SKIP
    """
    if not 0 < timeout <= DAY:
        raise ValueError(f"'timeout' must be positive, and at most {DAY} seconds (got {timeout})")
    if retries < 0:
        raise ValueError(f"'retries' must not be negative (got {retries})")
    card = card_of(name)
    folder = needed_folder(card, root)
    form = card.form_in(folder) or card.download
    if form is None:
        raise DownloadError(f"'{name}' cannot be downloaded by this package. By hand: {card.how_to_get}")
    before = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _make(folder, card)
        for part in form.parts:
            file = part.found(folder)
            if file is not None:
                check_digest(card, folder / file.name, file)
            elif part.downloadable is not None:
                _Job(card, form, part, part.downloadable, folder).run(timeout, retries, progress)
    finally:
        for path in before:  # the folders that this made, where nothing came to lie in them
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    return folder


def _make(folder: Path, card: Card) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{error.strerror}: '{error.filename}'"
        raise DownloadError(f"'{folder}' must be a folder that can be made ({reason}). {card.how_to_get}") from error


class _Job:
    """One file to get: where from, and where to."""

    def __init__(self, card: Card, form: Form, part: Part, file: File, folder: Path) -> None:
        self.card, self.form, self.part, self.file = card, form, part, file
        self.arrived, self.target = part_of(folder, file.source), folder / file.name
        self.new = folder / f".{os.getpid()}.{file.name}"  # ends as the file does, by which readers know its format

    def run(self, timeout: float, retries: int, progress: bool | None) -> None:
        """Get it."""
        source = self.file.source
        how: Any = {"timeout": timeout, "retries": retries, "progress": progress}
        try:
            self._check_space()
            fetch(source, self.arrived, self._check, self._place, **how)
        except Busy:
            raise DownloadError(
                f"another process is just downloading '{self.file.name}' of the data set '{self.card.name}', into "
                f"'{self.arrived}'; once it is done, this can be given again"
            ) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"while '{source.name}' was downloaded; {kept(self.arrived)}") from None
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            with suppress(OSError):  # where nothing can be written, there is nothing to remove
                self.new.unlink(missing_ok=True)

    def _place(self) -> None:
        """Give what is whole its name, and leave nothing else behind."""
        (self.new if self.new.is_file() else self.arrived).replace(self.target)
        if self.file.sha256 is None:
            record_digest(self.target)
        killed = self.target.parent.glob(f".*.{glob.escape(self.file.name)}")  # what earlier processes unpacked
        for path in (self.arrived, state_of(self.arrived), *killed):
            path.unlink(missing_ok=True)

    def _check_space(self) -> None:
        here = self.arrived.stat().st_size if self.arrived.is_file() else 0
        sizes = [self.file.source.bytes, self.file.bytes if self.file.archive else 0]
        needed = sum(size or 0 for size in sizes) - here
        free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes are needed, {free:,} are free")

    def _check(self) -> None:
        """Take what has arrived out of its archive, and count it where no digest tells what it is."""
        source = self.file.source
        if self.file.archive is not None:
            self._unpack(self.file.archive.member)
        if source.sha256 or source.md5 or self.file.sha256:
            return
        if self.file.archive is None:
            shutil.copyfile(self.arrived, self.new)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever loads it will be told
            try:
                read_part(self.card, self.form, self.part, self.file, self.new)
            except ValueError as error:
                raise ValueError(str(error).replace(str(self.new), self.file.name)) from None

    def _unpack(self, member: str) -> None:
        """Take one member out of the archive, whatever else is in there, and whatever it says of where to put it."""
        limit = self.file.bytes or LARGEST
        try:
            with zipfile.ZipFile(self.arrived) as archive, archive.open(member) as packed, self.new.open("wb") as file:
                while chunk := packed.read(1 << 20):
                    if file.tell() + len(chunk) > limit:
                        raise ValueError(f"it is longer than {limit:,} bytes")
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            size, digest = self.new.stat().st_size, digest_of(self.new)
            if size != (self.file.bytes or size) or digest != (self.file.sha256 or digest):
                raise ValueError(f"it has {size:,} bytes and SHA-256 {digest} instead of {self.file.known}")
        except (*BROKEN, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:  # which damage makes, too
                raise
            raise ValueError(f"'{member}' of '{self.file.source.name}' is not what it should be: {error}") from None

    def _failed(self, error: OSError | ValueError) -> DownloadError:
        source, member = self.file.source, self.file.archive and self.file.archive.member
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror if error.errno in FULL else f"{error.strerror}: '{error.filename or self.target}'"
        inside = f"save '{member}' of it as" if member else "save it as"
        return DownloadError(
            f"'{self.file.name}' of the data set '{self.card.name}' could not be downloaded: {reason}; "
            f"{kept(self.arrived)}. By hand: take {' or '.join(source.mirrors)} ({source.known}), and {inside} "
            f"'{self.target}'. Terms: {self.card.terms}"
        )
