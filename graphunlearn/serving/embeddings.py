"""Embeddings with raw ids, in memory and as Parquet files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graphunlearn.data import InteractionGraph, SessionGraph
from graphunlearn.data.io.folders import check_folder, replaced_folder
from graphunlearn.data.io.sealed import digest_of
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import finite_encoding
from graphunlearn.nn.identity import fingerprint
from graphunlearn.operators.shared.evaluating import evaluating

if TYPE_CHECKING:
    import pyarrow

    from graphunlearn.data.vocabulary import Vocabulary

__all__ = ["EmbeddingTable", "embedding_table", "export_embeddings", "needed", "private", "raw_ids"]

FACTS = "embeddings.json"
EMBEDDINGS = frozenset({"users.parquet", "items.parquet", FACTS})
"""Names of all files of a folder of embeddings; a folder with any other file is never replaced."""
INT64, UINT64 = 2**63, 2**64


@dataclass(frozen=True)
class EmbeddingTable:
    """The embeddings of the users or items that have events in a graph, with their raw ids.

    Args:
        side: ``"user"`` or ``"item"``.
        ids: The raw ids, whole numbers if all ids of the data are, otherwise text ``[num]``.
        vectors: The embeddings, in single precision on the CPU ``[num, dim]``.
        left_out: Number of users or items without events, which the table does not contain.
        model: Fingerprint of the model.
    """

    side: str
    ids: list[Any]
    vectors: Tensor
    left_out: int
    model: str

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.vectors.size(1)


def embedding_table(model: nn.Module, graph: InteractionGraph | SessionGraph, side: str = "item") -> EmbeddingTable:
    r"""Return the embeddings of users or items by raw id; a score is an inner product :math:`\langle e_u, e_i\rangle`.

    Users and items without events in ``graph`` are left out: the model learned nothing about them, or their events were
    forgotten.

    Args:
        model: The model.
        graph: The graph to propagate on, after forgetting.
        side: ``"user"`` or ``"item"``; a graph of sessions has only items.

    Returns:
        The table.

    Raises:
        ArgumentError: The graph has no embeddings of such a side, or an embedding is not finite.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> table = gu.serving.embedding_table(result.model, result.graph, "user")
        >>> table.vectors.shape, table.left_out, "u3" in table.ids
        (torch.Size([29, 8]), 1, False)
    """
    sides = ("user", "item")[-len(graph.sides) :]
    if side not in sides:
        raise ArgumentError("side", f"be {' or '.join(sides)} for a graph of {graph.kind}", repr(side))
    with evaluating(model):
        encoded = finite_encoding(model, graph)
    rows = encoded.items if side == "item" else encoded.queries
    active = graph.active[graph.sides[sides.index(side)]].cpu()
    vectors = rows.detach().cpu()[active].to(torch.float32).contiguous()
    return EmbeddingTable(
        side, raw_ids(graph.vocabulary(side), active), vectors, int((~active).sum()), fingerprint(model)
    )


def raw_ids(vocabulary: Vocabulary, index: Tensor) -> list[Any]:
    """Return raw ids in the type of the data: whole numbers if all ids of the vocabulary are, otherwise text.

    Numbers of 2⁶⁴ and more, which no column of numbers holds, are text.

    Args:
        vocabulary: The raw ids.
        index: Node numbers, or a mask ``[num_nodes]``.

    Example:
        >>> import torch
        >>> from graphunlearn.data.vocabulary import Vocabulary
        >>> raw_ids(Vocabulary(["7", "12"]), torch.tensor([1])), raw_ids(Vocabulary(["7", "b"]), torch.tensor([0]))
        ([12], ['7'])
    """
    chosen = index.nonzero().flatten() if index.dtype == torch.bool else index
    ids = [vocabulary[number] for number in chosen.tolist()]
    if not vocabulary.numeric or max(map(int, vocabulary.ids), default=0) >= UINT64:
        return ids
    return [int(name) for name in ids]


def export_embeddings(
    model: nn.Module, graph: InteractionGraph | SessionGraph, folder: str | Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the embeddings of users and items to ``users.parquet`` and ``items.parquet``; of sessions, only items.

    The column ``id`` contains raw ids, as 64-bit integers if all ids of the data are whole numbers, otherwise as text;
    the column ``embedding`` contains lists of single-precision numbers, all of one length. Users and items without
    events in ``graph`` are left out. ``embeddings.json`` contains their number, the SHA-256 hashes of the files, and
    the fingerprint of the model. Only the owner can read the files. If writing fails, an existing folder stays
    unchanged.

    Args:
        model: The model.
        graph: The graph to propagate on, after forgetting.
        folder: The folder to write.
        overwrite: Whether an earlier folder of embeddings may be replaced.

    Returns:
        The content of ``embeddings.json``.

    Raises:
        ImportError: Pyarrow is not installed.
        ArgumentError: The folder must not be written, or an embedding is not finite.
        OSError: A file could not be written, for example on a full disk.

    Example:
        >>> import pathlib, tempfile, torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> result = gu.Unlink().unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> facts = gu.serving.export_embeddings(result.model, result.graph, pathlib.Path(tempfile.mkdtemp(), "a"))
        >>> facts["files"]["users.parquet"]["rows"], facts["files"]["users.parquet"]["left_out"]
        (29, 1)
    """
    folder = Path(folder)
    check_folder(folder, EMBEDDINGS, overwrite=overwrite)
    needed("pyarrow", "parquet")
    files: dict[str, Any] = {}
    with replaced_folder(folder) as new:
        for side in ("user", "item")[-len(graph.sides) :]:
            table = embedding_table(model, graph, side)
            path = private(new / f"{side}s.parquet")
            _write(table, path)
            digest = digest_of(path)
            files[path.name] = {"rows": len(table.ids), "left_out": table.left_out, "sha256": digest}
        facts = {"format": 1, "dim": table.dim, "model": table.model, "files": files}
        private(new / FACTS).write_text(f"{json.dumps(facts, indent=2)}\n", encoding="utf-8")
    return facts


def _write(table: EmbeddingTable, path: Path) -> None:
    """Write one table to a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    flat = pa.array(table.vectors.reshape(-1).numpy(), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, table.dim)
    parquet.write_table(pa.table({"id": pa.array(table.ids, _type_of(table.ids)), "embedding": vectors}), path)


def _type_of(ids: list[Any]) -> pyarrow.DataType:
    """Return the type of a column of ids."""
    import pyarrow as pa

    if ids and isinstance(ids[0], str):
        return pa.string()
    return pa.int64() if max(ids, default=0) < INT64 else pa.uint64()


def needed(module: str, extra: str) -> Any:
    """Return an optional package.

    Args:
        module: Its name.
        extra: The extra of this package that installs it.

    Raises:
        ImportError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"this needs {module}: python -m pip install 'graphunlearn[{extra}]'") from None


def private(path: Path) -> Path:
    """Create an empty file that only its owner can read, and return its path.

    Args:
        path: The file.
    """
    path.touch(mode=0o600)
    path.chmod(0o600)
    return path
