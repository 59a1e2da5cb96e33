"""Nearest-neighbour indices of FAISS and hnswlib over embeddings, with raw ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphunlearn.data.io.folders import check_folder, replaced_folder
from graphunlearn.data.io.sealed import digest_of
from graphunlearn.errors import ArgumentError
from graphunlearn.serving.embeddings import INT64, EmbeddingTable, needed, private

__all__ = ["LIBRARIES", "ServingIndex", "replace_index"]

FORMAT = 1
MAP = "ids.json"
FILES = {"faiss": "index.faiss", "hnswlib": "index.hnsw"}
"""The file of the index of each library."""
LIBRARIES = tuple(FILES)
"""The libraries whose indices can be built."""
INDEXED = frozenset({*FILES.values(), MAP})
"""Names of all files of a folder of an index; a folder with any other file is never replaced."""
DEFAULTS: dict[str, dict[str, Any]] = {"faiss": {"factory": "Flat"}, "hnswlib": {"M": 16, "ef_construction": 200}}
"""The settings of each library, with their defaults."""


@dataclass(frozen=True)
class ServingIndex:
    """An index of embeddings by inner product, with raw ids.

    FAISS and hnswlib label vectors with 64-bit integers. Where all ids of the data are whole numbers below 2⁶³, the
    labels are the ids; otherwise they are positions in :attr:`ids`, which is saved beside the index.

    Args:
        library: ``"faiss"`` or ``"hnswlib"``.
        side: ``"user"`` or ``"item"``.
        dim: Width of the vectors.
        ids: The raw ids, in the order in which the vectors were added ``[num]``.
        model: Fingerprint of the model of the embeddings.
        settings: The settings from which the index can be built again.
        native: The index of the library, a ``faiss.IndexIDMap2`` or an ``hnswlib.Index``.
    """

    library: str
    side: str
    dim: int
    ids: list[Any]
    model: str
    settings: dict[str, Any]
    native: Any = field(repr=False)

    @classmethod
    def build(cls, table: EmbeddingTable, library: str = "faiss", **settings: Any) -> ServingIndex:
        """Build an index.

        Args:
            table: The embeddings; see :func:`~graphunlearn.serving.embedding_table`.
            library: ``"faiss"`` or ``"hnswlib"``.
            **settings: For FAISS, ``factory``, a description for ``faiss.index_factory`` such as ``"Flat"`` (exact),
                ``"IVF64,Flat"`` or ``"HNSW32"``. For hnswlib, ``M`` and ``ef_construction``.

        Returns:
            The index.

        Raises:
            ImportError: The library is not installed.
            ArgumentError: The library is unknown, does not have such a setting, or cannot build such an index.

        Example:
            >>> import torch, graphunlearn as gu
            >>> table = gu.serving.EmbeddingTable("item", [7, 9], torch.eye(2), left_out=0, model="")
            >>> index = gu.serving.ServingIndex.build(table, "faiss")  # doctest: +SKIP
            >>> index.search(torch.tensor([[0.0, 2.0]]), 1)  # doctest: +SKIP
            ([[9]], tensor([[2.]]))
        """
        if library not in LIBRARIES:
            raise ArgumentError("library", f"be {' or '.join(LIBRARIES)}", repr(library))
        unknown = sorted(settings.keys() - DEFAULTS[library].keys())
        if unknown:
            raise ArgumentError("settings", f"be among {', '.join(DEFAULTS[library])} for {library}", unknown[0])
        if not table.ids:
            raise ArgumentError("table", "hold at least one embedding", "none")
        settings = DEFAULTS[library] | settings
        make = _make_faiss if library == "faiss" else _make_hnswlib
        try:
            native = make(np.ascontiguousarray(table.vectors.numpy()), _labels(table.ids), **settings)
        except (RuntimeError, TypeError, ValueError) as error:
            got = f"{settings}: {' '.join(str(error).split())}"
            raise ArgumentError("settings", f"describe an index that {library} can build", got) from None
        return cls(library, table.side, table.dim, list(table.ids), table.model, settings, native)

    def search(self, queries: Tensor, k: int) -> tuple[list[list[Any]], Tensor]:
        r"""Return the ``k`` best entries of every query by inner product.

        Args:
            queries: The queries, such as embeddings of users ``[num, dim]``.
            k: Number of entries; at most all.

        Returns:
            The raw ids of every query, best first, and their scores ``[num, k]``. If an approximate index finds fewer,
            the list is shorter, with scores of minus infinity.

        Raises:
            ArgumentError: The queries have another width, or ``k`` is not between 1 and the number of entries.
        """
        if queries.dim() != 2 or queries.size(1) != self.dim:
            raise ArgumentError("queries", f"have the width of the index, {self.dim}", list(queries.shape))
        if not 1 <= k <= len(self.ids):
            raise ArgumentError("k", f"be between 1 and the number of entries, {len(self.ids)}", k)
        rows = np.ascontiguousarray(queries.detach().cpu().to(torch.float32).numpy())
        if self.library == "faiss":
            values, labels = self.native.search(rows, k)
        else:
            self.native.set_ef(max(k, 50))
            try:
                labels, distances = self.native.knn_query(rows, k)
            except RuntimeError as error:
                raise ArgumentError(
                    "k", "be as many entries as the graph of hnswlib reaches", f"{k}: {error}"
                ) from None
            labels, values = labels.astype(np.int64), 1 - distances
        scores = torch.from_numpy(np.where(labels < 0, -np.inf, values).astype(np.float32))
        return [self._names([label for label in row if label >= 0]) for row in labels.tolist()], scores

    def stored(self) -> set[Any]:
        """Return the raw ids of all vectors that the index of the library holds."""
        if self.library == "faiss":
            from faiss import vector_to_array

            labels = vector_to_array(self.native.id_map).tolist()
        else:
            labels = self.native.get_ids_list()
        return set(self._names(labels))

    def vectors(self, ids: Sequence[Any]) -> Tensor:
        """Return the vectors of entries ``[num, dim]``, looked up in the index by their labels.

        Args:
            ids: Raw ids.

        Raises:
            ArgumentError: The index has no entry for an id, or it cannot give vectors back.
        """
        position = {name: number for number, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise ArgumentError("ids", f"be among the {len(self.ids)} of the index", repr(missing[0]))
        every = _labels(self.ids)
        labels = [int(every[position[name]]) for name in ids]
        if not labels:
            return torch.zeros(0, self.dim)
        try:
            if self.library == "faiss":
                inverted = needed("faiss", "faiss").try_extract_index_ivf(self.native)
                if inverted is not None:
                    inverted.make_direct_map()
                rows = np.stack([self.native.reconstruct(label) for label in labels])
            else:
                rows = np.asarray(self.native.get_items(labels), np.float32)
        except RuntimeError as error:
            got = " ".join(str(error).split())
            raise _LostError("ids", "be entries of an index that gives vectors back", got) from None
        return torch.from_numpy(rows)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the index and the map of its ids together: a reader finds both of one version, or those of the other.

        The folder contains ``index.faiss`` or ``index.hnsw``, and ``ids.json`` with the ids, the settings, the
        fingerprint of the model and the SHA-256 hash of the index. Only the owner can read the files.

        Args:
            folder: The folder.
            overwrite: Whether an earlier index may be replaced.

        Returns:
            The folder.

        Raises:
            ArgumentError: The folder must not be written.
            OSError: A file could not be written, for example on a full disk.
        """
        folder = Path(folder)
        check_folder(folder, INDEXED, overwrite=overwrite)
        with replaced_folder(folder) as new:
            path = private(new / FILES[self.library])
            try:
                if self.library == "faiss":
                    needed("faiss", "faiss").write_index(self.native, str(path))
                else:
                    self.native.save_index(str(path))
            except RuntimeError as error:
                raise OSError(" ".join(str(error).split())) from error
            facts = {"format": FORMAT, "library": self.library, "side": self.side, "dim": self.dim}
            facts |= {"model": self.model, "settings": self.settings, "sha256": digest_of(path)}
            text = json.dumps(facts | {"content": _content(facts, self.ids), "ids": self.ids}, ensure_ascii=False)
            private(new / MAP).write_text(f"{text}\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ServingIndex:
        """Read an index; its hash is checked before the library reads it.

        Args:
            folder: The folder that :meth:`save` wrote.

        Returns:
            The index.

        Raises:
            ImportError: The library of the index is not installed.
            ArgumentError: A file is missing, broken or has been changed.
        """
        folder = Path(folder)
        expected = "be a whole folder of an index"
        try:
            facts = json.loads((folder / MAP).read_text(encoding="utf-8"))
            ids, content, digest = facts.pop("ids"), facts.pop("content"), facts["sha256"]
            library, path = facts["library"], folder / FILES[facts["library"]]
            if facts["format"] != FORMAT:
                raise ValueError(f"its format is {facts['format']!r}, and this version reads {FORMAT}")
            if content != _content(facts, ids):
                raise ValueError(f"the content of {MAP} has changed")
            if digest != digest_of(path):
                raise ValueError(f"the hash of {path.name} differs from the one in {MAP}")
            native = _read(library, path, facts["dim"], len(ids))
            made = cls(library, facts["side"], facts["dim"], ids, facts["model"], facts["settings"], native)
            if made.stored() != set(ids):
                raise ValueError(f"the entries of {path.name} are not those of {MAP}")
        except KeyError as error:
            raise ArgumentError("folder", expected, f"'{folder}': {MAP} lacks {error}") from None
        except (ValueError, TypeError, AttributeError, RuntimeError, RecursionError, OSError) as error:
            raise ArgumentError("folder", expected, f"'{folder}': {' '.join(str(error).split())}") from None
        return made

    def _names(self, labels: list[int]) -> list[Any]:
        """Return the raw ids of labels."""
        return labels if self._plain else [self.ids[label] for label in labels]

    @cached_property
    def _plain(self) -> bool:
        """Whether the labels are the ids themselves."""
        return _are_labels(self.ids)


def replace_index(folder: str | Path, table: EmbeddingTable) -> dict[str, Any]:
    """Build an index of a folder again from new embeddings, with the same library and settings, and replace it.

    HNSW graphs cannot remove vectors, and a removal from other indices reads all of them, so that every index is built
    again. Before the folder is replaced, the new index is searched with the old vectors of the entries that are gone:
    none of them may be found.

    Args:
        folder: The folder that :meth:`ServingIndex.save` wrote.
        table: The new embeddings.

    Returns:
        The numbers of entries that are ``removed``, ``added`` and ``kept``, and of old vectors that were ``searched``;
        some indices cannot give their vectors back.

    Raises:
        ImportError: The library of the index is not installed.
        ArgumentError: The folder does not hold a whole index, or the embeddings are of another width or side.
        RuntimeError: An entry that is gone was found; the folder stays unchanged.
        OSError: A file could not be written, for example on a full disk.
    """
    old = ServingIndex.load(folder)
    for name, wanted, got in (("dim", old.dim, table.dim), ("side", old.side, table.side)):
        if wanted != got:
            raise ArgumentError("table", f"have the {name} of the index '{folder}', {wanted}", got)
    new = ServingIndex.build(table, old.library, **old.settings)
    was, now = set(old.ids), set(table.ids)
    gone = [name for name in old.ids if name not in now]
    found = new.stored() - now
    searched = 0
    with suppress(_LostError):
        for start in range(0, len(gone), 1024):
            queries = old.vectors(gone[start : start + 1024])
            found |= {name for row in new.search(queries, min(20, len(new.ids)))[0] for name in row if name not in now}
            searched += len(queries)
    if found:
        raise RuntimeError(f"the new index still holds {len(found)} of the entries that are gone")
    new.save(folder, overwrite=True)
    return {"removed": len(gone), "added": len(now - was), "kept": len(now & was), "searched": searched}


class _LostError(ArgumentError):
    """An index cannot give its vectors back."""


def _are_labels(ids: Sequence[Any]) -> bool:
    """Return whether the labels of an index are the ids themselves."""
    return not isinstance(ids[0], str) and max(ids) < INT64


def _labels(ids: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the label of every id ``[num]``."""
    return np.array(ids, np.int64) if _are_labels(ids) else np.arange(len(ids))


def _make_faiss(rows: Any, labels: Any, factory: str) -> Any:
    faiss = needed("faiss", "faiss")
    inner = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexIDMap2(inner)
    if not inner.is_trained:
        index.train(rows)
    index.add_with_ids(rows, labels)
    return index


def _make_hnswlib(rows: Any, labels: Any, M: int, ef_construction: int) -> Any:
    index = needed("hnswlib", "hnswlib").Index(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), ef_construction=ef_construction, M=M, random_seed=0)
    index.add_items(rows, labels, num_threads=1)  # several threads make the graph a matter of chance
    return index


def _read(library: str, path: Path, dim: int, size: int) -> Any:
    """Return the index of a library from its file."""
    if library == "faiss":
        index = needed("faiss", "faiss").read_index(str(path))
        if index.d != dim:
            raise ValueError(f"its vectors have the width {index.d}, and {MAP} has {dim}")
        return index
    index = needed("hnswlib", "hnswlib").Index(space="ip", dim=dim)
    index.load_index(str(path), max_elements=size)
    return index


def _content(facts: Mapping[str, Any], ids: Sequence[Any]) -> str:
    """Return the SHA-256 hash of the facts and ids of an index."""
    return hashlib.sha256(json.dumps([facts, ids], sort_keys=True).encode()).hexdigest()
