"""Checkpoints that let the same command continue work that was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from graphunlearn.cli._text import note


@contextmanager
def resumable(out: Path, kind: str, identity: Sequence[Any], work: str | None = None) -> Iterator[Path]:
    """Yield the path for checkpoints of a piece of work; their names are the path with a suffix and ``.safetensors``.

    The checkpoints lie beside ``out``. They are deleted when the block succeeds, and kept when it is interrupted.
    Checkpoints of the same kind for other work on ``out`` are deleted at the start.

    Args:
        out: The folder that the work writes or changes.
        kind: Last part of the file names.
        identity: JSON values of everything that the result depends on; work with another identity starts from the
            beginning.
        work: Name of the work in messages; by default its kind.
    """
    target = out.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    token = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]

    def kept(token: str) -> set[Path]:
        return set(target.parent.glob(f".{escape(target.name)}.{token}.{kind}.*safetensors"))

    for other in kept("?" * len(token)) - kept(token):
        other.unlink(missing_ok=True)
    if kept(token):
        note(f"continuing an interrupted {work or kind}")
    try:
        yield target.with_name(f".{target.name}.{token}.{kind}")
    except KeyboardInterrupt:
        if kept(token):
            raise KeyboardInterrupt("the same command continues from there") from None
        raise
    except FloatingPointError:
        for file in kept(token):
            file.unlink()  # a second run from this checkpoint would fail in the same way
        raise
    with suppress(OSError):
        for file in kept(token):
            file.unlink()
