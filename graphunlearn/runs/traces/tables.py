"""Search in Parquet and Arrow files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphunlearn.runs.traces.arrays import in_array, vectors
from graphunlearn.runs.traces.documents import json_hits
from graphunlearn.runs.traces.ids import LEVELS, Hits, role_of
from graphunlearn.runs.traces.sight import Sight, Watched

__all__ = ["tables"]

ROWS = 65_536
ARROW, STREAM = b"ARROW1", b"\xff\xff\xff\xff"
VIEWS = {"string_view": "large_string", "binary_view": "large_binary"}


def tables(stream: Watched, head: bytes, name: str, inside: str, sight: Sight, path: Path | None, content: Any) -> bool:
    """Search a Parquet or an Arrow file; return whether the content is one. See :func:`packed`."""
    if not head.startswith((b"PAR1", ARROW, STREAM)):
        return False
    if head.startswith(STREAM) and (path is None or int.from_bytes(head[4:8], "little") > path.stat().st_size):
        return False  # other bytes
    if path is None:
        sight.refuse("a Parquet or Arrow file inside an archive is not searched", inside)
        return False
    try:
        import pyarrow as pa
    except ImportError:
        sight.refuse("pyarrow is needed to read it: pip install pyarrow")
        return False
    try:
        for batch in _batches(path, head, sight):
            numbers = []
            for column, values in zip(batch.schema.names, batch.columns):
                if column == "id" and "type" in batch.schema.names:
                    _typed(batch, sight)
                else:
                    _column(values, column, column, sight)
                if pa.types.is_floating(values.type) and not values.null_count:
                    numbers.append(values.to_numpy(zero_copy_only=False))
            if len(numbers) > 1:  # an embedding with one column per entry
                vectors(np.stack(numbers, axis=1).tobytes(), inside, sight)
    except (pa.ArrowException, OSError) as error:
        if head.startswith(STREAM):
            return False  # other bytes
        sight.refuse(f"no whole Parquet or Arrow file: {str(error).splitlines()[0]}", inside)
    return True


def _typed(batch: Any, sight: Sight) -> None:
    """Search a column ``id`` beside a column ``type`` that says what each id names."""
    kinds = batch.column("type").to_pylist()
    for kind in dict.fromkeys(kinds):
        rows = [number for number, other in enumerate(kinds) if other == kind]
        _column(batch.column("id").take(rows), kind if kind in LEVELS else "id", "id", sight)


def _batches(path: Path, head: bytes, sight: Sight) -> Iterator[Any]:
    if head.startswith(ARROW):
        import pyarrow.ipc

        with pyarrow.ipc.open_file(str(path)) as file:
            _metadata(file.schema, sight)
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
        return
    if head.startswith(STREAM):
        import pyarrow.ipc

        with path.open("rb") as source, pyarrow.ipc.open_stream(source) as reader:
            _metadata(reader.schema, sight)
            yield from reader
        return
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        _metadata(file.schema_arrow, sight)
        yield from file.iter_batches(ROWS)


def _metadata(schema: Any, sight: Sight) -> None:
    """Search the names of columns, and the metadata of a file and its columns."""
    sight.see("names of columns", sight.ids.in_text("\n".join(schema.names), prose=True))
    for meta in (schema.metadata, *(field.metadata for field in schema)):
        texts = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in (meta or {}).items()
        }
        texts.pop("ARROW:schema", None)
        sight.see("metadata", json_hits(texts, sight))


def _column(values: Any, name: str, place: str, sight: Sight) -> None:
    """Search a column and what is nested in it."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        _column(values.dictionary_decode(), name, place, sight)
    elif pa.types.is_struct(kind):
        for field, part in zip((kind.field(n).name for n in range(kind.num_fields)), values.flatten()):
            _column(part, field if role_of(field) or not role_of(name) else name, f"{place}.{field}", sight)
    elif pa.types.is_map(kind):
        _column(values.keys, name, place, sight)
        _column(values.items, name, place, sight)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = values.flatten()
        if pa.types.is_floating(inner.type) and not inner.null_count:
            vectors(inner.to_numpy(zero_copy_only=False).tobytes(), "", sight)
        _column(inner, name, place, sight)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _texts(values, name, place, sight)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        _bytes(values, place, sight)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found = values.drop_null().to_numpy(zero_copy_only=False)
        sight.see(f"column {place}", in_array(found, name, sight, table=True))
    elif pa.types.is_decimal(kind):
        _texts(values.cast(pa.string()), name, place, sight)
    elif str(kind) in VIEWS:
        _column(values.cast(VIEWS[str(kind)]), name, place, sight)
    elif not (pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_null(kind)):
        sight.refuse(f"a column of type {getattr(kind, 'extension_name', str(kind).partition('<')[0])} is not searched")


def _texts(values: Any, name: str, place: str, sight: Sight) -> None:
    import pyarrow.compute as pc

    for entry in pc.value_counts(values.drop_null()):
        text, count = entry["values"].as_py(), entry["counts"].as_py()
        found = json_hits(text, sight, role=role_of(name)) if text[:1] in ("{", "[") else Hits()
        found = found or sight.ids.in_value(text, role_of(name))
        sight.see(f"column {place}", Hits({kind: number * count for kind, number in found.items()}))


def _bytes(values: Any, place: str, sight: Sight) -> None:
    for value in values.drop_null():
        data = value.as_py()
        try:
            sight.see(f"column {place}", sight.ids.in_value(data.decode("utf-8"), role_of(place)))
        except UnicodeDecodeError:
            sight.see(f"column {place}", sight.ids.in_bytes(data))
        vectors(data, "", sight)
