"""The folders that commands write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphunlearn.data.io.folders import check_folder, replaced_folder

__all__ = ["check_out", "replaced"]

WRITTEN = frozenset(
    {
        *(f"{name}.safetensors" for name in ("model", "train", "validation", "test")),
        *(f"{name}.safetensors" for name in ("original", "original_train", "own_original")),
        *("run.json", "request.json", "unlearning.json", "report.json", "report.html"),
        *("unlearnrec.safetensors", "unlearnrec-published.safetensors", "sisa.safetensors", "sru.safetensors"),
    }
)
"""Every file that a command writes; a folder that holds anything else is never replaced."""


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written, before any work is done for it.

    Raises:
        ValueError: It exists and is not to be replaced, or holds what no command wrote, or cannot be made.
    """
    check_folder(out, WRITTEN, overwrite=overwrite, argument="out")


@contextmanager
def replaced(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` when the block ends well, and leaves no trace when it does not.

    Args:
        out: The folder to write.
        overwrite: Whether an earlier folder may be replaced; see :func:`check_out`.

    Raises:
        ValueError: See :func:`check_out`.
        OSError: Something could not be written, as on a full disk.
    """
    check_out(out, overwrite)
    with replaced_folder(out) as folder:
        yield folder
