"""Work that goes on where it was when the same command is given again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from graphunlearn.cli._text import note

__all__ = ["resumable"]


@contextmanager
def resumable(out: Path, kind: str, identity: Sequence[Any], work: str | None = None) -> Iterator[Path]:
    """Yield where beside ``out`` interrupted work is kept: in ``.safetensors`` files whose names begin with the path's.

    They are removed when the block ends well, and those of the same kind that belong to other work when it begins.

    Args:
        out: The folder that is worked on.
        kind: Last part of the files' names.
        identity: All that the work depends on, as JSON: it tells one piece of work from another.
        work: What the work is called (default: as its kind).
    """
    target = out.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    token = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    path = target.with_name(f".{target.name}.{token}.{kind}")

    def kept(token: str) -> list[Path]:
        return list(target.parent.glob(f".{escape(target.name)}.{token}.{kind}.*safetensors"))

    for other in set(kept("?" * len(token))) - set(kept(token)):
        other.unlink(missing_ok=True)  # nobody went on with it
    if kept(token):
        note(f"going on with an interrupted {work or kind}")
    try:
        yield path
    except KeyboardInterrupt:
        if kept(token):
            raise KeyboardInterrupt("the same command goes on where it was") from None
        raise
    except FloatingPointError:
        for file in kept(token):
            file.unlink()  # it would only fail again
        raise
    with suppress(OSError):
        for file in kept(token):
            file.unlink()
