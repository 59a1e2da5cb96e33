"""Downloads of public data sets into the folder that :func:`graphunlearn.datasets.load` reads them from."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from graphunlearn._version import __version__
from graphunlearn.data.io.sealed import digest_of
from graphunlearn.datasets.card import Card, File, Form, Part, Published, card_of, needed_folder
from graphunlearn.datasets.reading import check_digest, known_digest, read_part, record_digest, record_of
from graphunlearn.errors import ArgumentError

__all__ = ["DownloadError", "download"]

_CHUNK = 1 << 16
_FAILURES = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""The errors that a failed transfer, a wrong file or an unreadable archive raises."""


class DownloadError(OSError):
    """A data set could not be downloaded; the message gives the reasons and says how to get the files by hand."""


def download(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    progress: bool | None = None,
    timeout: float = 30.0,
    retries: int = 1,
) -> Path:
    """Download a public data set into the folder ``root/name``, where :func:`load` finds it.

    By downloading a data set you agree to its terms, which are on its card. Files that are already in the folder are
    checked and left as they are. The mirrors of a missing file are tried in the order of the card. A file appears under
    its name only when it is complete and checked: against the SHA-256 or MD5 on the card or, if the card has none,
    against the counts. If the card has no SHA-256 of a file, the one of the first download is recorded beside the file,
    and later downloads and :func:`load` check it.

    Args:
        name: One of the names in :func:`available`.
        root: Folder of data sets, created if missing (default: the one that the environment variable
            ``GRAPHUNLEARN_DATA`` names).
        progress: Whether to show a progress bar (default: only on a terminal).
        timeout: Seconds to wait for a mirror to connect, and to send its next bytes.
        retries: Number of further attempts at a mirror that failed or sent the wrong file.

    Returns:
        The folder of the data set.

    Raises:
        FileNotFoundError: No folder of data sets is given.
        ValueError: There is no data set of this name, or a file in the folder is not the published one.
        DownloadError: The data set cannot be downloaded.

    Example:
        >>> folder = download("ml-100k", root="data")  # doctest: +SKIP
    """
    if not 0 < timeout < float("inf"):
        raise ArgumentError("timeout", "be a positive number of seconds", timeout)
    if retries < 0:
        raise ArgumentError("retries", "not be negative", retries)
    card = card_of(name)
    folder = needed_folder(card, root)
    form = card.form_in(folder) or card.download
    if form is None:
        raise DownloadError(f"'{name}' cannot be downloaded by this package. By hand: {card.by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"'{folder}' must be a folder that can be created (got {error})") from error
    for part in form.parts:
        file = part.found(folder)
        if file is not None:
            check_digest(card, folder / file.name, file)
        elif part.downloadable is not None:
            _download_part(card, form, part, part.downloadable, folder, progress, timeout, retries)
    return folder


def _download_part(
    card: Card, form: Form, part: Part, file: File, folder: Path, progress: bool | None, timeout: float, retries: int
) -> None:
    """Download one file from the first mirror that has it.

    Raises:
        DownloadError: No mirror gives the published file.
    """
    source, target, reasons = file.source, folder / file.name, []
    handled = sys.exc_info()[1]  # the caller may be handling an error of its own
    for url in source.mirrors:
        try:
            # Each process works in a folder of its own, so that two of them cannot write to the same file.
            with TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                arrived = _retrieve(url, source, temporary, progress, timeout, retries)
                new = _take_out(arrived, file, Path(temporary, "checked"))
                _check(card, form, part, file, new, target)
                new.replace(target)
                return
        except _FAILURES as error:
            reasons.append(f"{url}: {_reason(error, handled)}")
    inside = f"'{file.archive.member}' of it" if file.archive else "it"
    raise DownloadError(
        f"'{file.name}' of the data set '{card.name}' could not be downloaded ({'; '.join(reasons)}); "
        f"to get it by hand, download '{source.name}' ({source.known}) from one of these addresses, if its terms allow "
        f"it, and save {inside} as '{target}' (terms: {card.terms})"
    )


def _retrieve(url: str, source: Published, folder: str, progress: bool | None, timeout: float, retries: int) -> Path:
    """Download a file or an archive from one address, and check the digest on its card."""
    import pooch  # here, because it takes long to import and few need it

    pooch.get_logger().setLevel(logging.WARNING)  # it would print every step otherwise
    digest = f"sha256:{source.sha256}" if source.sha256 else f"md5:{source.md5}" if source.md5 else None
    files = pooch.create(folder, "", registry={source.name: digest}, urls={source.name: url}, retry_if_failed=retries)
    headers = {"User-Agent": f"graphunlearn/{__version__}", "Accept-Encoding": "identity"}
    hidden = None if progress is None else not progress
    # The total must be positive: a bar without one is false, and pooch uses only bars that are true.
    with tqdm(total=source.bytes or 1, desc=source.name, unit="B", unit_scale=True, disable=hidden, leave=False) as bar:
        # This downloader is named because it supports http and https only; pooch itself would choose others as well.
        http = pooch.HTTPDownloader(bar, _CHUNK, timeout=timeout, headers=headers)
        return Path(files.fetch(source.name, downloader=http))


def _take_out(arrived: Path, file: File, folder: Path) -> Path:
    """Copy the downloaded file, or the member of the archive that the card names, to ``folder``.

    The copy has the name on the card, whatever path the archive gives, and the usual permissions, whereas only its
    owner can read the downloaded file.
    """
    folder.mkdir()
    new = folder / file.name
    if file.archive is None:
        return Path(shutil.copyfile(arrived, new))
    with zipfile.ZipFile(arrived) as archive, archive.open(file.archive.member) as packed, new.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return new


def _check(card: Card, form: Form, part: Part, file: File, new: Path, target: Path) -> None:
    """Check a new file before it is moved to ``target``, and record its SHA-256 if none is known.

    Raises:
        ValueError: Its SHA-256 is not the known one, or if no digest is known and its counts are wrong.
    """
    digest, known = digest_of(new), known_digest(target, file)
    if known is not None:
        if digest != known:
            where = "its card" if file.sha256 else f"'{record_of(target).name}'"
            raise ArgumentError(file.name, f"have the SHA-256 {known} of {where}", digest)
        return
    if not (file.source.sha256 or file.source.md5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these warnings are issued when the file is loaded
            try:
                read_part(card, form, part, file, new)
            except ValueError as error:
                raise ValueError(str(error).replace(str(new), file.name)) from None
    record_digest(target, digest)


def _reason(error: BaseException, handled: BaseException | None) -> str:
    """Return why an attempt failed.

    Args:
        error: The error that ended the attempt.
        handled: The error that was being handled before the attempt, which is not among its causes.

    Returns:
        The first sentence of the error, or of the one that caused it.
    """
    if isinstance(error, OSError):  # the HTTP libraries wrap, for example, "Connection refused" several times
        while error.__context__ is not None and error.__context__ is not handled:
            error = error.__context__
    return " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
