"""Standard output and standard error that may be closed, full, or without a reader, while the work goes on."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["open_streams", "put", "silence", "tell"]


def open_streams() -> None:
    """Open the null device in place of closed standard streams.

    Otherwise the next file that is opened would get the number of such a stream, and be written to by whatever prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def tell(text: str) -> None:
    """Print text on standard error; where nobody can read it, the work goes on.

    Args:
        text: The text, with its line break.
    """
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        silence(sys.stderr)


def put(text: str, done: bool) -> None:
    """Print text on standard output.

    Args:
        text: The text, with its line break.
        done: Whether there is work that is done even if nobody reads of it.

    Raises:
        OSError: The text could not be printed although there is a reader, and there is nothing else that is done.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # in case the terminal cannot show a "×"
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has stopped, as in `| head`
        silence(sys.stdout)
    except (OSError, ValueError) as error:
        silence(sys.stdout)
        reason = getattr(error, "strerror", None) or str(error)
        if not done:
            raise OSError(f"standard output could not be written: {reason}") from None
        tell(f"graphunlearn: note: the work is done, and only its result could not be printed: {reason}\n")


def silence(stream: TextIO) -> None:
    """Send what is written to a stream from now on, and at the end of the process, to the null device.

    Args:
        stream: Standard output or standard error.
    """
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
