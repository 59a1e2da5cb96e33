"""A server on this machine that answers as mirrors do on bad days, and cards of data sets that it has."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from graphunlearn.datasets import Card

TRAIN, TEST = b"0 0 1 2\n1 0\n2 1 2\n", b"0 2\n1 1 2\n2 0\n"
RATINGS = b"7\t1\t5\t10\n7\t2\t1\t11\n9\t1\t3\t12\n"


@dataclass
class Answer:
    """How to answer one request for a file.

    Args:
        body: The file.
        status: Another status than the usual ones, without a file.
        tag: ETag of the file.
        modified: Its Last-Modified.
        ranges: Whether parts of it are sent, where that is asked for.
        if_range: Whether the condition on that is heeded.
        cut: After how many bytes of the answer to hang up.
        stall: After how many bytes to send no more.
        drip: Seconds between one byte and the next.
        length: Whether to say how long the answer is.
        chunked: Whether to send it in chunks.
        headers: Other headers.
    """

    body: bytes = b""
    status: int | None = None
    tag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    if_range: bool = True
    cut: int | None = None
    stall: int | None = None
    drip: float = 0.0
    length: bool = True
    chunked: bool = False
    headers: dict = field(default_factory=dict)


class Mirror:
    """What the server has, by path: a list of answers, one per request, the last of them from then on."""

    def __init__(self, address):
        self.address = f"http://{address[0]}:{address[1]}"
        self.files = {}
        self.asked = defaultdict(list)
        self.over = threading.Event()

    def url(self, path):
        return f"{self.address}/{path}"

    def put(self, path, *answers):
        """Have a file at a path; return its address."""
        self.files[f"/{path}"] = [Answer(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return self.url(path)

    def ranges(self, path):
        """The Range header of every request for a path."""
        return [headers.get("Range") for headers in self.asked[f"/{path}"]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        mirror = self.server.mirror
        answers = mirror.files.get(self.path, [Answer(status=404)])
        answer = answers[min(len(mirror.asked[self.path]), len(answers) - 1)]
        mirror.asked[self.path].append(dict(self.headers))
        self.close_connection = True
        with suppress(OSError):  # the other side has hung up
            self._send(answer, mirror)

    def _send(self, answer, mirror):
        wanted, body, extra = self.headers.get("Range"), answer.body, {}
        status = answer.status or 200
        heed = answer.if_range and self.headers.get("If-Range") not in (None, answer.tag, answer.modified)
        if wanted and answer.ranges and answer.status is None and not heed:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                status, extra, body = 416, {"Content-Range": f"bytes */{len(body)}"}, b""
            else:
                status, extra = 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
                body = body[start:]
        self.send_response(status)
        if answer.length and not answer.chunked:
            self.send_header("Content-Length", str(len(body)))
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        for name, value in {"ETag": answer.tag, "Last-Modified": answer.modified, **extra, **answer.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        sent = body[: min(len(body) if end is None else end for end in (answer.cut, answer.stall))]
        if answer.drip:
            for k in range(len(sent)):
                self.wfile.write(sent[k : k + 1])
                if mirror.over.wait(answer.drip):
                    return
        elif answer.chunked:
            self.wfile.write(b"%x\r\n" % len(body) + sent + (b"\r\n0\r\n\r\n" if sent == body else b""))
        else:
            self.wfile.write(sent)
        if answer.stall is not None:
            self.wfile.flush()
            mirror.over.wait(10)


@contextmanager
def serving():
    """A mirror, and the server of what it has."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.mirror = Mirror(server.server_address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.mirror
    finally:
        server.mirror.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def file(name, content, read, known=("bytes", "sha256"), **more):
    """A file of a card, with what is to be known of it."""
    digests = {kind: hashlib.new(kind, content).hexdigest() for kind in ("sha256", "md5")}
    facts = {"bytes": len(content)} | digests
    return {"name": name, **{kind: facts[kind] for kind in known}, "read": read, **more}


def card(name, parts, kind="interactions", counts=None, columns=("user", "item", "rating", "time"), **fields):
    """A card with one form."""
    rows = sum(part["rows"] for part in parts.values())
    form = {key: f"{key}." for key in ("title", "source", "by_hand", "checksum_source")}
    form |= {"counts": counts or {"users": 2, "items": 2, "interactions": rows}, "parts": parts}
    form["columns"] = dict.fromkeys(columns, "")
    given = {key: f"{key}." for key in ("title", "description", "url", "terms", "citation")}
    return Card.from_json(json.dumps({"name": name, "kind": kind, **given, "forms": [form]} | fields))


def lists(mirrors, known=("bytes", "sha256"), train=TRAIN, test=TEST):
    """The parts of a divided set, with mirrors for both of its files."""
    read = {"lists": True}
    return {
        "train": {"rows": 6, "files": [file("train.txt", train, read, known, mirrors=mirrors["train.txt"])]},
        "test": {"rows": 4, "files": [file("test.txt", test, read, known, mirrors=mirrors["test.txt"])]},
    }


def zipped(members, method=zipfile.ZIP_DEFLATED):
    """A zip archive of names and contents."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()
