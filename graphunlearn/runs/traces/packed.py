"""Search inside compressed files and archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from graphunlearn.runs.traces.sight import CHUNK, Sight, Watched

__all__ = ["packed"]

STREAMS: dict[bytes, tuple[Any, str]] = {
    b"\x1f\x8b": (lambda file: gzip.GzipFile(fileobj=file), ".gz"),
    b"BZh": (bz2.BZ2File, ".bz2"),
    b"\xfd7zXZ\x00": (lzma.LZMAFile, ".xz"),
}
OPAQUE = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"\x89HDF": "HDF5",
    b"%PDF": "PDF",
    b"PACK\x00\x00\x00": "Git pack",
    b"Obj\x01": "Avro",
}
"""Formats that hold compressed content, which is not searched."""
MOST = 1 << 28
"""Bytes of an archive inside another one that are held in memory."""
STORAGE = re.compile(r"/data/\d+$")
"""Members of PyTorch files that hold tensors."""
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)


def packed(stream: Watched, head: bytes, name: str, inside: str, sight: Sight, path: Path | None, content: Any) -> bool:
    """Search a compressed file or an archive; return whether the content is one.

    Args:
        stream: The content.
        head: Its first bytes.
        name: Its name.
        inside: Where it is, if it is inside an archive itself.
        sight: What to search for.
        path: The file, if the content is a file of its own.
        content: The function that searches what is inside.
    """
    for magic, what in OPAQUE.items():
        if head.startswith(magic):
            sight.refuse(f"the compressed content of a {what} file is not searched", inside)
            return False  # its bytes are searched all the same
    try:
        for magic, (opener, suffix) in STREAMS.items():
            if head.startswith(magic):
                unpacked = opener(cast(BinaryIO, _Raw(stream)))
                label = f"{inside}/{suffix[1:]}" if inside else suffix[1:]
                content(unpacked, name.removesuffix(suffix), label, sight)
                return True
        if _is_deflated(head):
            content(_Inflated(stream), name, f"{inside}/zlib" if inside else "zlib", sight)
            return True
        if head.startswith(b"PK\x03\x04"):
            _zip(stream, inside, sight, path, content)
            return True
        if head[257:262] == b"ustar":
            with tarfile.open(fileobj=cast(BinaryIO, _Raw(stream)), mode="r|") as archive:
                for member in archive:
                    found = archive.extractfile(member) if member.isreg() else None
                    _member(found, member.name, inside, sight, content)
            return True
    except BROKEN as error:
        sight.refuse(f"broken: {error or type(error).__name__}", inside)
        return True
    return False


def _zip(stream: Watched, inside: str, sight: Sight, path: Path | None, content: Any) -> None:
    if path is None:
        data = stream.read(MOST + 1)
        if len(data) > MOST:
            sight.refuse("the archive inside an archive is too large to be searched", inside)
            return
    with zipfile.ZipFile(io.BytesIO(data) if path is None else path) as archive:
        torch_file = any(name.endswith("/data.pkl") for name in archive.namelist())
        for member in archive.infolist():
            if member.flag_bits & 1:
                sight.refuse(f"'{member.filename}' is encrypted", inside)
            elif not member.is_dir():
                with archive.open(member) as found:
                    _member(found, member.filename, inside, sight, content)
                if torch_file and STORAGE.search(member.filename):
                    with archive.open(member) as found:
                        _storage(found, inside, sight)


def _storage(found: Any, inside: str, sight: Sight) -> None:
    """Search a tensor of a PyTorch file for 64-bit whole numbers; other numbers equal none by their bytes."""
    label = f"{inside}/member" if inside else "member"
    while len(sight.ids.values) and (data := found.read(CHUNK)):
        values = np.frombuffer(data[: len(data) // 8 * 8], "<i8")
        sight.see("tensor", sight.ids.in_numbers(values, None, table=False), label)


def _member(found: Any, name: str, inside: str, sight: Sight, content: Any) -> None:
    """Search a member of an archive and its name."""
    label = f"{inside}/member" if inside else "member"
    sight.see("name", sight.ids.in_text(name, prose=True), label)
    if found is not None:
        content(found, Path(name).name, label, sight)


def _is_deflated(head: bytes) -> bool:
    """Return whether bytes begin a zlib stream, as objects of Git do."""
    if len(head) < 3 or head[0] != 0x78 or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head))
    except zlib.error:
        return False


class _Inflated(io.RawIOBase):
    """The content of a zlib stream."""

    def __init__(self, stream: Watched) -> None:
        self._stream, self._engine = stream, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data and not self._engine.eof:
            given = self._engine.unconsumed_tail or self._stream.read(CHUNK)
            if not given:
                raise EOFError("it is cut off")
            data = self._engine.decompress(given, len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Raw(io.RawIOBase):
    """A watched stream as a file object."""

    def __init__(self, stream: Watched) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
