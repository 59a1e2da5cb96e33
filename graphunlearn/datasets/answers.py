"""What mirrors answer: whole files, the missing end of one, or a reason why there is none."""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from graphunlearn._version import __version__

__all__ = ["Again", "Answer", "Refused", "ask"]

CHUNK = 1 << 16
NUMBER = "[0-9]{1,18}"
"""How sizes are written; what is longer is none."""
SLOWEST = 1024
"""Bytes per second below which an answer counts as stalled."""
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
"""Status of answers that may be another one next time."""


class Again(Exception):
    """An attempt broke off, and another one may go on where it did.

    Args:
        reason: Why.
        wait: After how many seconds to make it (default: as one likes).
        afresh: Whether what has arrived is of no use to it.
    """

    def __init__(self, reason: str, wait: float | None = None, afresh: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.afresh = wait, afresh


class Refused(Exception):
    """There is nothing to be had from this mirror."""


class Answer(NamedTuple):
    """An answer that has begun.

    Args:
        start: The byte of the file that it begins with.
        total: How many bytes the file has, where the mirror says so.
        validator: What tells this state of the file from another, if anything.
        response: The rest of it.
        timeout: Seconds after which what does not come is given up.
    """

    start: int
    total: int | None
    validator: str | None
    response: Any
    timeout: float

    def chunks(self) -> Iterator[bytes]:
        """Return the bytes as they come.

        Raises:
            Again: If no more come, or too slowly.
        """
        since, recent = time.monotonic(), 0
        while True:
            try:
                chunk = self.response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise Again(_said(error, self.timeout)) from None
            if not chunk:
                return
            yield chunk
            recent += len(chunk)
            passed = time.monotonic() - since
            if passed >= self.timeout:
                if recent < SLOWEST * passed:
                    raise Again(f"it sent less than {SLOWEST} bytes per second")
                since, recent = time.monotonic(), 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects as they are usual, but never from https to anything less, nor to a file of this machine."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in {"https", urlsplit(req.full_url).scheme}:
            raise Refused(f"it redirects to {newurl}")
        fp.close()  # or all of what comes with the redirect would be read first
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def ask(url: str, start: int, validator: str | None, timeout: float) -> Answer:
    """Ask a mirror for a file, or for its end.

    Args:
        url: The address.
        start: The first byte that is missing; the answer may begin earlier, with the first one of all.
        validator: That of the state of the file that the bytes before are from, where they are from this mirror.
        timeout: Seconds after which an answer that does not come is given up.

    Returns:
        The answer, whose ``response`` is to be closed.

    Raises:
        Again: If another attempt may succeed.
        Refused: If none will.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise Refused("it is no address on the web")
    headers = {"User-Agent": f"graphunlearn/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator  # of a file that has changed, all of it is sent
    opener = urllib.request.build_opener(_Redirects())  # with the proxies that the environment names now
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failure(error, start) from None
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, (ssl.SSLCertVerificationError, ValueError)):
            raise Refused(_said(cause, timeout)) from None
        raise Again(_said(cause, timeout)) from None
    try:
        first, total = _extent(response, start, validator)
    except (Again, Refused):
        response.close()
        raise
    return Answer(first, total, _validator(response.headers), response, timeout)


def _failure(error: urllib.error.HTTPError, start: int) -> Again | Refused:
    reason = " ".join(f"it answered {error.code} {error.reason}".split())
    if error.code == 416 and start:
        return Again("it does not have the bytes that are missing", 0.0, afresh=True)
    if error.code not in TEMPORARY:
        return Refused(reason)
    after = error.headers.get("Retry-After", "").strip()
    return Again(reason, float(after) if after.isdecimal() else None)


def _extent(response: Any, start: int, validator: str | None) -> tuple[int, int | None]:
    """From which byte an answer goes on, and how many there are in all where it says so."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused("it sent the file compressed, though asked not to")
    if response.status == 200:  # also where it cannot send parts, or the file has changed
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if re.fullmatch(NUMBER, length) else None
    if response.status != 206 or not start:
        raise Refused(f"it answered {response.status} {response.reason}".rstrip())
    match = re.fullmatch(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER}|\*)", response.headers.get("Content-Range", "").strip())
    changed = validator is not None and _validator(response.headers) not in (None, validator)
    if match is None or int(match[1]) != start or changed:
        raise Again("it sent other bytes than those that are missing", 0.0, afresh=True)
    return start, None if match[2] == "*" else int(match[2])


def _validator(headers: Message) -> str | None:
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _said(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"it sent nothing for {timeout:g} seconds"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
        return "what it answered is no HTTP"
    return " ".join(str(error).split()) or type(error).__name__
