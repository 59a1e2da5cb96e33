"""Files that contain the SHA-256 hash of their own content, and JSON that is bounded in size and nesting.

The hash is inside the file: whoever deletes the file deletes the hash, which would confirm guesses of its content.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

__all__ = ["check_seal", "digest_of", "parse_json", "read_json", "sealed_json", "sealed_tensors"]

SEAL = "sha256"
"""The entry with the hash: the last of a JSON file, and one of the metadata of a safetensors file."""
_EMPTY = "0" * 64
_IN_JSON = re.compile(rb'"sha256": "([0-9a-f]{64})"\s*\}\s*\Z')
_IN_HEADER = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = np.zeros(256, np.int8)
_BRACKETS[[ord("["), ord("{")]], _BRACKETS[[ord("]"), ord("}")]] = 1, -1
LARGEST = 1 << 30
"""The largest JSON file in bytes; a request of 30 million ids is smaller."""
DEEPEST = 64
"""The deepest nesting of JSON; the files of this package have less than 20 levels."""


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file that ends with the hash of its content.

    Args:
        content: The content, in JSON types.

    Raises:
        ValueError: A number is not finite.

    Example:
        >>> data = sealed_json({"layers": 2})
        >>> parse_json(data)["layers"], check_seal(data), check_seal(b'{"layers": 2}')
        (2, True, False)
    """
    filled = {**{name: value for name, value in content.items() if name != SEAL}, SEAL: _EMPTY}
    text = json.dumps(filled, indent=2, allow_nan=False, ensure_ascii=False)
    return _seal(f"{text}\n".encode())


def sealed_tensors(tensors: dict[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with the hash of its content in its metadata.

    Args:
        tensors: The tensors, contiguous and on the CPU.
        about: Further metadata.
    """
    return _seal(save(tensors, {**(about or {}), SEAL: _EMPTY}))


def check_seal(data: bytes | Path, required: bool = False) -> bool:
    """Compare a file with the hash that it contains.

    Args:
        data: The content of a JSON or safetensors file, or its path.
        required: Whether a file without a hash is an error; files of earlier versions have none.

    Returns:
        Whether the file contains a hash.

    Raises:
        ValueError: The hash differs from that of the content, or is missing although it is required.
    """
    if isinstance(data, Path):
        with data.open("rb") as file:
            if not data.stat().st_size:
                raise ValueError(f"{data.name} is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _check(view, required, data.name)
    return _check(data, required, "it")


def read_json(path: Path, required: bool = False) -> Any:
    """Read a JSON file after a check of its size and, if it contains one, of its hash.

    Args:
        path: The file.
        required: Whether a file without a hash is an error.

    Returns:
        The content without the hash.

    Raises:
        ValueError: The file is too large, has been changed, or is not JSON as :func:`parse_json` reads it.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path.name} has {size:,} bytes, and at most {LARGEST:,} are read")
    data = path.read_bytes()
    try:
        content = parse_json(data)
        sealed = _check(data, required, "it")
    except ValueError as error:
        raise ValueError(f"{path.name} is broken: {error}") from None
    if sealed:
        del content[SEAL]
    return content


def parse_json(data: bytes | str) -> Any:
    """Return the content of JSON whose numbers are finite and whose nesting is bounded.

    Args:
        data: The JSON, in UTF-8 if it is bytes.

    Raises:
        ValueError: It is not JSON, a number is not finite, or it is nested too deeply.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json("[" * 100)
        Traceback (most recent call last):
        ValueError: it is nested more than 64 levels deep
    """
    data = data.encode() if isinstance(data, str) else data
    steps = _BRACKETS[np.frombuffer(_STRING.sub(b"", data), np.uint8)]
    if steps.size and int(np.cumsum(steps, dtype=np.int64).max()) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return json.loads(data.decode(), parse_constant=_refused, parse_float=_finite)


def _seal(data: bytes) -> bytes:
    """Return a file with the hash of its content in place of the zeros."""
    found = _place(data)
    assert found is not None
    return data[: found[0]] + hashlib.sha256(data).hexdigest().encode() + data[found[1] :]


def _check(data: bytes | mmap.mmap, required: bool, name: str) -> bool:
    found = _place(data)
    if found is None:
        if required:
            raise ValueError(f"{name} lacks the hash of its content")
        return False
    start, stop = found
    with memoryview(data) as view:
        digest = hashlib.sha256(view[:start])
        digest.update(_EMPTY.encode())
        digest.update(view[stop:])
    if digest.hexdigest().encode() != data[start:stop]:
        raise ValueError(f"{name} has been changed: its content does not fit the hash in it")
    return True


def _place(data: bytes | mmap.mmap) -> tuple[int, int] | None:
    """Return where the hash of a file begins and ends; ``None`` if there is none."""
    if data[:1] == b"{":
        tail = max(0, len(data) - 200)
        found = _IN_JSON.search(data[tail:])
    else:
        tail, size = 8, int.from_bytes(data[:8], "little")
        found = _IN_HEADER.search(data[8 : 8 + min(size, len(data))])
    return None if found is None else (tail + found.start(1), tail + found.end(1))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds a number that is not finite, {text}")
    return value


def _refused(text: str) -> float:
    raise ValueError(f"it holds a number that is not finite, {text}")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; the file is read in parts.

    Args:
        path: The file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
