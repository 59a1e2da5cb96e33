"""Clean tables of interactions or clicks, with raw ids as categories in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphunlearn.data.io.columns import INTERACTIONS, Layout
from graphunlearn.data.vocabulary import MISSING, IdError, Vocabulary, brief, canonical_ids

Where = Callable[[int], str]
Numeric = Mapping[str, bool]
Array = np.ndarray[Any, Any]
LONGEST = 4096
"""The largest number of characters of an id."""


def categories(numbers: Tensor, vocabulary: Vocabulary) -> Any:
    """Return a column of raw ids as categories, given the numbers of users, items or sessions ``[num_rows]``.

    Args:
        numbers: Node numbers; -1 becomes a missing value.
        vocabulary: The raw ids.
    """
    return pd.Categorical.from_codes(numbers.cpu().numpy(), categories=pd.Index(vocabulary.ids))


def numbered(graph: Any, roles: Sequence[str]) -> dict[str, bool] | None:
    """Return for every role whether its ids are numbers in a graph.

    Args:
        graph: The graph, or ``None``.
        roles: ``"user"``, ``"item"`` or ``"session"``.
    """
    if graph is None:
        return None
    return {role: graph.vocabulary(role).numeric for role in roles if len(graph.vocabulary(role))}


def tidy(
    frame: pd.DataFrame, where: Where, layout: Layout = INTERACTIONS, numeric: Numeric | None = None
) -> pd.DataFrame:
    """Check and convert the columns of a table.

    Args:
        frame: The table; its columns are named by their role.
        where: Function that describes the location of a row in error messages.
        layout: The possible columns.
        numeric: For roles whose vocabulary is known, whether its ids are numbers; the ids of other roles are numbers if
            all of them are. See :func:`~graphunlearn.data.vocabulary.canonical_ids`.

    Returns:
        A table with the same rows. Ids are categories of strings in order of first appearance; other columns are
        numbers.

    Raises:
        ValueError: An id or a number is missing or malformed; the message names the first such row.
    """
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        role = str(name)
        if role != "label":
            ids = f"{role} ids must be text or whole numbers from 0"
            _check_types(column, ids if role in layout.ids else f"the {role} must be a number", where)
        if role in layout.ids:
            columns[role] = _ids(column, role, where, (numeric or {}).get(role), role in layout.gaps)
        else:
            columns[role] = _numbers(column, role, where, role in layout.whole)
        if role == "label":
            _check_labels(columns[role], where)
    return pd.DataFrame(columns)


def _check_types(column: pd.Series[Any], what: str, where: Where) -> None:
    """Raise ValueError for true and false among objects, where they would equal 1 and 0."""
    if pd.api.types.is_object_dtype(column.dtype) and {bool, np.bool_} & set(map(type, column)):
        row = next(at for at, value in enumerate(column) if isinstance(value, (bool, np.bool_)))
        raise ValueError(f"{where(row)}: {what} (got {column.iloc[row]})")


def _check_labels(labels: Array, where: Where) -> None:
    """Raise ValueError for labels other than 0 and 1."""
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        hint = "read the column as ratings, of which a threshold makes labels"
        raise ValueError(f"{where(row)}: the label must be 0 or 1 (got {labels[row]:g}); {hint}")


def _ids(column: pd.Series[Any], role: str, where: Where, numeric: bool | None, gaps: bool) -> pd.Categorical[Any]:
    if gaps:
        known = np.flatnonzero(~(column.isna() | column.isin(MISSING)).to_numpy())
        found = _ids(column.iloc[known], role, lambda row: where(int(known[row])), numeric, False)
        codes = np.full(len(column), -1)
        codes[known] = found.codes
        return pd.Categorical.from_codes(codes, categories=found.categories)
    if isinstance(column.dtype, pd.CategoricalDtype):  # its own codes may be in any order, and some unused
        codes, order = pd.factorize(column.cat.codes.to_numpy())
        values = [[*column.cat.categories, None][i] for i in order.tolist()]  # code -1 stands for a missing id
    else:
        whole = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu"
        codes, uniques = pd.factorize(column.to_numpy() if whole else column, use_na_sentinel=False)
        if whole and (not uniques.size or uniques.min() >= 0):
            return pd.Categorical.from_codes(codes, categories=pd.Index(list(map(str, uniques.tolist())), dtype=object))
        values = list(uniques if column.dtype.kind == "O" else np.asarray(uniques))  # floats keep their type
    try:
        ids = canonical_ids(values, numeric)
    except IdError as error:
        row = int(np.argmax(codes == error.position))
        problem = f"{role} ids must {error.expected} (got {error.got}){f'; {error.hint}' if error.hint else ''}"
        problem = f"the {role} is missing" if _is_missing(values[error.position]) else problem
        raise ValueError(f"{where(row)}: {problem}") from None
    for position, text in enumerate(ids):
        if len(text) > LONGEST or "\n" in text:
            row = int(np.argmax(codes == position))
            got = f"{brief(text)} of {len(text):,} characters"
            raise ValueError(f"{where(row)}: {role} ids must be one line of at most {LONGEST:,} characters (got {got})")
    merged, categories = pd.factorize(np.array(ids, dtype=object))
    return pd.Categorical.from_codes(merged[codes], categories=pd.Index(categories, dtype=object))


def _is_missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _numbers(column: pd.Series[Any], role: str, where: Where, whole: bool) -> Array:
    is_time = role == "time"
    kind = "finite number or a date" if is_time else "whole number from 0" if whole else "finite number"
    dates = None
    if is_time and not pd.api.types.is_numeric_dtype(column):
        dates = _dates(column, where)
        if not dates.isna().any():
            column, dates = _seconds(dates), None
    values = pd.to_numeric(column, errors="coerce")
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(numbers)
    if dates is not None:
        no_date = dates.isna().to_numpy()
        if column.dtype.kind == "M":
            wrong = no_date  # a missing date would be an ordinary number
        elif wrong.any():
            # values that are neither numbers nor dates or, in a mixture, of another kind than the first value
            wrong = wrong & no_date if (wrong & no_date).any() else wrong != wrong[0]
    if whole:
        wrong |= (numbers < 0) | (numbers % 1 != 0)
    if not wrong.any():
        largest = 2.0**63 if whole or is_time else float(torch.finfo(torch.get_default_dtype()).max)
        wrong = (np.abs(numbers) >= largest) if whole or is_time else (np.abs(numbers) > largest)
        kind = f"{'whole ' * whole}number below 2**63" if whole or is_time else f"number of at most {largest:.3g}"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{where(row)}: the {role} must be a {kind} (got {brief(str(column.iloc[row]))})")
    exact = whole or (is_time and pd.api.types.is_integer_dtype(values))
    return values.to_numpy(dtype=np.int64 if exact else np.float64)


def _dates(column: pd.Series[Any], where: Where) -> pd.Series[Any]:
    """Return the dates of a column, which are missing where it holds numbers or other text.

    Raises:
        ValueError: A typed date is further from 1970 than 64 bits of microseconds reach.
    """
    if column.dtype.kind != "M":
        numbers = pd.to_numeric(column, errors="coerce")
        column = column.where(numbers.isna())  # a number is no date: 1000 is not the year 1000
        dates = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
        return _far_dates(dates, column)
    dates = pd.to_datetime(column, utc=True, errors="coerce")
    with suppress(pd.errors.OutOfBoundsDatetime):
        return dates.dt.as_unit("us")
    largest = np.iinfo(np.int64).max // 10**6
    seconds = dates.dt.tz_convert(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    row = int(np.argmax(np.abs(seconds) > largest))
    raise ValueError(f"{where(row)}: the time must be within 292,000 years of 1970 (got {seconds[row]:,} seconds)")


def _far_dates(dates: pd.Series[Any], column: pd.Series[Any]) -> pd.Series[Any]:
    """Return dates with those after 2262 and before 1677, which pandas before 3 takes for missing ones."""
    missing = dates.isna() & column.notna()
    if not missing.any() or not hasattr(dates, "dt"):
        return dates
    found: dict[int, pd.Timestamp] = {}
    for place in map(int, np.flatnonzero(missing)):
        with suppress(ValueError):
            value = datetime.fromisoformat(str(column.iloc[place]))
            found[place] = pd.Timestamp(value if value.tzinfo else value.replace(tzinfo=timezone.utc))
    if found:
        dates = dates.dt.as_unit("us").copy()
        for place, value in found.items():
            dates.iloc[place] = value.tz_convert("UTC")
    return dates


def _seconds(times: pd.Series[Any]) -> pd.Series[Any]:
    """Return dates as seconds since 1970, as integers if all are whole seconds."""
    micro = times.dt.as_unit("us").astype(np.int64)  # nanoseconds end in 2262
    return micro // 10**6 if (micro % 10**6 == 0).all() else micro / 10**6
