"""The key of the digests of a ledger, which is kept apart from the ledger and from run folders."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from graphunlearn.data.io.folders import private
from graphunlearn.data.schema import warn
from graphunlearn.errors import ArgumentError

__all__ = ["check_of", "choose", "key_file", "keys_folder", "read_key", "settle", "write_key"]

KEY_BYTES = 32
_chosen: dict[Path, Path] = {}


def choose(path: Path, key: Path | None) -> None:
    """Set the key file of a ledger for this process, and warn if the key lies where it should not.

    Args:
        path: The ledger.
        key: The key file; ``None`` keeps what was chosen before, or else the default of :func:`key_file`.

    Raises:
        ArgumentError: The key file is a folder, is the ledger itself, or is in a run folder.
    """
    if key is not None:
        if key.is_dir() or key.absolute() == path.absolute():
            raise ArgumentError("key", "be a file of its own", f"'{key}'")
        if (key.absolute().parent / "run.json").exists():
            raise ArgumentError("key", "lie outside run folders", f"'{key}'")
        _chosen[path.absolute()] = key.absolute()
    file = key_file(path)
    if not file.is_file():
        return
    if file.parent.resolve() == path.absolute().parent.resolve():
        warn(
            f"the key '{file.name}' lies beside its ledger, so that a copy of both undoes its digests: move it to "
            f"'{_default(path)}', or keep it elsewhere and name it each time"
        )
    if os.name != "nt" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        warn(f"others can read the key '{file}': 'chmod 600' prevents that")


def keys_folder() -> Path:
    """Return the folder of keys: ``GRAPHUNLEARN_KEYS``, or ``graphunlearn`` in ``XDG_CONFIG_HOME`` or ``~/.config``."""
    if folder := os.environ.get("GRAPHUNLEARN_KEYS"):
        return Path(folder)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "graphunlearn"


def key_file(path: Path) -> Path:
    """Return the path of the key file of a ledger, which may not exist.

    It is the file that was chosen with :func:`choose`; or ``NAME.key`` beside the ledger if it exists, as earlier
    versions wrote it; or a file in :func:`keys_folder`, whose name depends on the path of the ledger.

    Args:
        path: The ledger.
    """
    beside = path.with_name(f"{path.name}.key")
    if (chosen := _chosen.get(path.absolute())) is not None:
        return chosen
    return beside if beside.is_file() else _default(path)


def _default(path: Path) -> Path:
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return keys_folder().absolute() / f"{path.name}-{place}.key"


def _part(file: Path) -> Path:
    """Return where a key is until its ledger has its first entry."""
    return file.with_name(f".{file.name}.part")


def write_key(path: Path) -> bytes:
    """Write a new random key for a ledger without entries; :func:`settle` puts it in its place.

    Args:
        path: The ledger.

    Returns:
        The key.

    Raises:
        ArgumentError: There is a key already, so that the ledger has lost its entries.
    """
    file, key = key_file(path), secrets.token_bytes(KEY_BYTES)
    check_new(path)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = _part(file)
    part.unlink(missing_ok=True)
    with open(part, "wb", opener=private) as stream:
        stream.write(key.hex().encode())
        stream.flush()
        os.fsync(stream.fileno())
    return key


def check_new(path: Path) -> None:
    """Check that a ledger without entries never had any.

    Args:
        path: The ledger.

    Raises:
        ArgumentError: Its key exists.
    """
    file = key_file(path)
    if file.exists():
        got, hint = (
            f"'{path}' without entries",
            "restore the ledger; to start a new one, delete that key or name another",
        )
        raise ArgumentError("ledger", f"hold the entries that its key '{file}' was made for", got, hint)


def settle(path: Path, check: str | None) -> None:
    """Put the key of a new ledger in its place, now that the ledger has its first entry.

    Args:
        path: The ledger.
        check: The check value in its first entry.
    """
    file = key_file(path)
    part = _part(file)
    if not file.exists() and part.is_file():
        with suppress(FileNotFoundError):  # another process has put it there
            if check_of(_content(part)) != check:
                return
            part.replace(file)
        if os.name != "nt":  # on Windows, a folder cannot be opened
            folder = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def read_key(path: Path, check: str | None) -> bytes:
    """Return the key of a ledger.

    Where the ledger was moved, its key is searched for in :func:`keys_folder`.

    Args:
        path: The ledger.
        check: The check value of the right key, which the ledger stores.

    Returns:
        The key.

    Raises:
        ArgumentError: The key is missing, or belongs to another ledger.
    """
    settle(path, check)
    file = key_file(path)
    if not file.exists():
        for other in sorted(keys_folder().glob("*.key")) if path.absolute() not in _chosen else []:
            with suppress(OSError):
                if check_of(_content(other)) == check:
                    return _content(other)
        wanted, got = "have its key to accept requests", f"'{path}' without '{file}'"
        hint = "name the file of the key; without it, the ledger can still be shown and verified"
        raise ArgumentError("ledger", wanted, got, hint)
    key = _content(file)
    if len(key) != KEY_BYTES or check_of(key) != check:
        raise ArgumentError("ledger", "have its own key", f"'{path}' with '{file}', which is none of its")
    return key


def check_of(key: bytes) -> str:
    """Return the check value of a key, by which the right key is recognised.

    Args:
        key: The key.
    """
    return hmac.new(key, b"graphunlearn ledger", hashlib.sha256).hexdigest()


def _content(file: Path) -> bytes:
    """Return the key in a file; empty if the file holds none."""
    try:
        return bytes.fromhex(file.read_text(encoding="ascii"))
    except ValueError:
        return b""
