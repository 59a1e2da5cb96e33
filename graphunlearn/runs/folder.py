"""Folders of models and of JSON: how every one is written, and how every one is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from graphunlearn.data.io.folders import check_folder, replaced_folder
from graphunlearn.data.io.plain import json_ready
from graphunlearn.errors import ArgumentError

__all__ = ["FORMAT", "FolderReader", "check_out", "packed", "replaced", "write_parts"]

FORMAT = 1
"""What tells the folders of this version from later ones; a JSON file in each holds it as ``"format"``."""
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


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """Return tensors as a safetensors file.

    Args:
        tensors: The tensors, on any device; those that share memory are written apart.
        about: What else the file says.
    """
    held = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return save_tensors(held, None if about is None else dict(about))


def write_parts(folder: Path, models: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Write the parts of a folder that is in the making.

    Args:
        folder: The folder; see :func:`replaced`.
        models: What each ``NAME.safetensors`` holds; see :func:`packed`.
        facts: What each ``NAME.json`` holds.

    Raises:
        OSError: Something could not be written, as on a full disk.
    """
    for name, data in models.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    for name, content in facts.items():
        text = json.dumps(json_ready(content), indent=2, allow_nan=False, ensure_ascii=False)
        (folder / f"{name}.json").write_bytes(f"{text}\n".encode())


class FolderReader:
    """Reads the parts of a folder by their names without suffix.

    Whatever is missing, broken, of another format, or not the part that the JSON tells of is one sentence where it is
    read in a block of :meth:`whole`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def whole(cls, folder: Path, argument: str, kind: str) -> Iterator[FolderReader]:
        """Read a folder that is to be whole.

        Args:
            folder: The folder.
            argument: What the caller calls it.
            kind: What it is to be, such as ``"run folder"``.

        Raises:
            ValueError: It is not whole: something in the block could not be read, or did not fit.
        """
        try:
            yield cls(folder)
            return
        except KeyError as error:
            reason = f"it lacks {error}"
        except (SafetensorError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
        raise ArgumentError(argument, f"be a whole {kind}", f"'{folder}': {reason}")

    def has(self, *files: str) -> bool:
        """Whether there are all of these files."""
        return all((self.folder / file).exists() for file in files)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what ``NAME.json`` holds.

        Raises:
            ValueError: It is no JSON.
        """
        try:
            content: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name}.json is broken: {error}") from None
        return content

    def versioned(self, name: str) -> dict[str, Any]:
        """Return what ``NAME.json`` holds, if it is of the format that this version reads.

        Raises:
            ValueError: It is no JSON, or of another format.
        """
        content = self.facts(name)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
        return content

    def tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors of ``NAME.safetensors``, and what else the file says."""
        with safe_open(str(self.folder / f"{name}.safetensors"), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118

    @staticmethod
    def check(found: Mapping[str, str], told: Mapping[str, str], by: str) -> None:
        """Refuse a part that is not the one that was written.

        Args:
            found: Fingerprints of the parts, by name.
            told: Those that the JSON has.
            by: The JSON file, by name.

        Raises:
            ValueError: One differs; the first such is named.
        """
        for name, print_ in found.items():
            if told[name] != print_:
                raise ValueError(f"{name}.safetensors is not the one that {by}.json tells of")
