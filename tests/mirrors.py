"""A server on this machine that serves files as mirrors do, and cards of data sets that it serves."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections import Counter
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
        status: The HTTP status.
        cut: Number of bytes after which to hang up.
        stall: Number of bytes after which to send no more.
        headers: Additional headers.
    """

    body: bytes = b""
    status: int = 200
    cut: int | None = None
    stall: int | None = None
    headers: dict = field(default_factory=dict)


class Mirror:
    """The files that the server has, by path: a list of answers, one per request, the last of them from then on."""

    def __init__(self, address):
        self.address = f"http://{address[0]}:{address[1]}"
        self.files = {}
        self.asked = Counter()
        self.over = threading.Event()

    def url(self, path):
        return f"{self.address}/{path}"

    def put(self, path, *answers):
        """Serve a file at a path; return its address."""
        self.files[f"/{path}"] = [Answer(answer) if isinstance(answer, bytes) else answer for answer in answers]
        return self.url(path)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        mirror = self.server.mirror
        answers = mirror.files.get(self.path, [Answer(status=404)])
        answer = answers[min(mirror.asked[self.path], len(answers) - 1)]
        mirror.asked[self.path] += 1
        with suppress(OSError):  # the client has hung up
            self.send_response(answer.status)
            for name, value in {"Content-Length": len(answer.body), **answer.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut if answer.stall is None else answer.stall])
            if answer.stall is not None:
                self.wfile.flush()
                mirror.over.wait(10)


@contextmanager
def serving():
    """A mirror, and the server of its files."""
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
