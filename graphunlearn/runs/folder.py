"""Reading and writing of run folders and exports: safetensors files of models and graphs, and JSON files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from graphunlearn.data.io.folders import check_folder, replaced_folder
from graphunlearn.data.io.plain import json_ready
from graphunlearn.data.io.sealed import check_seal, read_json, sealed_json, sealed_tensors
from graphunlearn.errors import ArgumentError
from graphunlearn.runs.code import CodeError

__all__ = ["FORMAT", "FolderReader", "check_out", "packed", "replaced", "whole", "write_parts"]

FORMAT = 2
"""Version of the layout of folders; a JSON file in each folder contains it as ``"format"``.

Since version 2, every file but the report contains the hash of its content. Folders of version 1 are
read without them."""
WRITTEN = {
    *(f"{name}.safetensors" for name in ("model", "train", "validation", "test")),
    *(f"{name}.safetensors" for name in ("original", "original_train", "own_original")),
    *(f"{name}.safetensors" for name in ("unlearnrec", "unlearnrec-published", "sisa", "sru", "receraser", "ultrare")),
    *("run.json", "request.json", "unlearning.json", "report.json", "report.html"),
}
"""Names of all files that the commands write; a folder with any other file is never replaced."""


def check_out(out: Path, overwrite: bool) -> None:
    """Check that a folder may be written, before any work is done for it.

    Args:
        out: The folder.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        ExistsError: The folder exists and must not be replaced.
        ArgumentError: The folder contains files that no command wrote, or it cannot be created.
    """
    check_folder(out, WRITTEN, overwrite=overwrite, argument="out")


@contextmanager
def replaced(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``out`` if the block succeeds, and is deleted if it fails.

    Args:
        out: The folder to write.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        ArgumentError: See :func:`check_out`.
        OSError: The folder could not be written, for example on a full disk.
    """
    check_out(out, overwrite)
    with replaced_folder(out) as folder:
        yield folder


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file.

    Args:
        tensors: The tensors, on any device; each is written in full, even if several share memory.
        about: Metadata of the file.

    Returns:
        The bytes of the file.
    """
    held = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return sealed_tensors(held, about)


def write_parts(folder: Path, models: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Write safetensors and JSON files to a folder.

    Args:
        folder: The folder; see :func:`replaced`.
        models: Content of each ``NAME.safetensors`` by name; see :func:`packed`.
        facts: Content of each ``NAME.json`` by name.

    Raises:
        OSError: A file could not be written, for example on a full disk.
    """
    for name, data in models.items():
        (folder / f"{name}.safetensors").write_bytes(data)
    for name, content in facts.items():
        (folder / f"{name}.json").write_bytes(sealed_json(json_ready(content)))


@contextmanager
def whole(argument: str, expected: str, path: Path, hint: str = "") -> Iterator[None]:
    """Turn every error of a block that reads a folder or a file into one :class:`~graphunlearn.ArgumentError`.

    Args:
        argument: Name of the argument in the error.
        expected: The text after "must" in the error, such as ``"be a whole run folder"``.
        path: The folder or the file.
        hint: Advice on how to correct the error.

    Raises:
        ArgumentError: The block failed, because a part is missing, broken, or of another format.
    """
    try:
        yield
        return
    except CodeError:
        raise
    except KeyError as error:
        reason = f"it lacks {error}"
    except (SafetensorError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()).removeprefix("'path' ")
    raise ArgumentError(argument, expected, f"'{path}': {reason}", hint)


@dataclass
class FolderReader:
    """Reads the files of a folder by their names without suffix.

    Args:
        folder: The folder.
        sealed: Whether a file without the hash of its content is an error; :meth:`versioned` finds out.
    """

    folder: Path
    sealed: bool = False

    def has(self, *files: str) -> bool:
        """Return whether the folder contains all of the files.

        Args:
            files: Names of files, with suffix.
        """
        return all((self.folder / file).exists() for file in files)

    def facts(self, name: str) -> dict[str, Any]:
        """Return the content of ``NAME.json``.

        Args:
            name: The name without suffix.

        Raises:
            ValueError: The file is not JSON, or has been changed.
        """
        content = read_json(self.folder / f"{name}.json", self.sealed)
        if not isinstance(content, dict):
            raise ValueError(f"{name}.json is broken: it holds no names with values")
        return content

    def versioned(self, name: str) -> dict[str, Any]:
        """Return the content of ``NAME.json``, which contains the format of the folder.

        Args:
            name: The name without suffix.

        Raises:
            ValueError: The file is not JSON, or this version cannot read the format.
        """
        content = self.facts(name)
        if content["format"] not in (1, FORMAT):
            raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
        if content["format"] == FORMAT:
            self.sealed = True
            self.facts(name)  # has a hash
        return content

    def tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors and the metadata of ``NAME.safetensors``.

        Args:
            name: The name without suffix.

        Raises:
            ValueError: The file has been changed.
        """
        check_seal(self.folder / f"{name}.safetensors", self.sealed)
        with safe_open(str(self.folder / f"{name}.safetensors"), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118

    def metadata(self, name: str) -> dict[str, str]:
        """Return the metadata of ``NAME.safetensors``.

        Args:
            name: The name without suffix.
        """
        with safe_open(str(self.folder / f"{name}.safetensors"), framework="pt") as file:
            return dict(file.metadata() or {})

    @staticmethod
    def check(found: Mapping[str, str], recorded: Mapping[str, str], by: str) -> None:
        """Compare the fingerprints of files with the recorded fingerprints.

        Args:
            found: Fingerprints of the content of the files, by name without suffix.
            recorded: Recorded fingerprints, by name.
            by: Name of the JSON file with the recorded fingerprints, without suffix.

        Raises:
            ValueError: The fingerprint of a file differs from the recorded one.
        """
        for name, value in found.items():
            if recorded[name] != value:
                raise ValueError(f"the fingerprint of {name}.safetensors differs from the one in {by}.json")
