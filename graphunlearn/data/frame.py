"""Tables of interactions: checked columns, raw ids as categories in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from graphunlearn.data.schema import SIDES
from graphunlearn.data.vocabulary import IdError, canonical_ids

Where = Callable[[int], str]


def tidy(frame: pd.DataFrame, where: Where, text: bool = False) -> pd.DataFrame:
    """Return a table with clean columns ``user`` and ``item`` (and ``rating``, ``time``, ``label`` where given).

    Args:
        frame: The columns, named by their role.
        where: Says where a row is, for messages.
        text: Whether the ids come from a text file, where ``"196.0"`` in a column of numbers is ``"196"``.

    Returns:
        The same rows: ids as categories of strings in order of first appearance, the others as numbers.

    Raises:
        ValueError: If an id or a number is missing or malformed; the first place is named.
    """
    columns = {
        str(role): _ids(column, str(role), where, text) if role in SIDES else _numbers(column, str(role), where)
        for role, column in frame.items()
    }
    return pd.DataFrame(columns)


def _ids(column: pd.Series[Any], role: str, where: Where, text: bool) -> pd.Categorical[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):  # its own codes may be in any order, and some unused
        codes, order = pd.factorize(column.cat.codes.to_numpy())
        known = [*column.cat.categories, None]  # code -1 stands for a missing id
        values = [known[i] for i in order.tolist()]
    else:
        codes, uniques = pd.factorize(column, use_na_sentinel=False)
        values = list(uniques)
    try:
        ids = canonical_ids(values, numbers_as_text=text)
    except IdError as error:
        row = int(np.argmax(codes == error.position))
        problem = f"the {role} is missing" if pd.isna(values[error.position]) else f"{role} {error}"
        raise ValueError(f"{where(row)}: {problem}") from None
    merged, categories = pd.factorize(np.array(ids, dtype=object))
    return pd.Categorical.from_codes(merged[codes], categories=pd.Index(categories))


def _numbers(column: pd.Series[Any], role: str, where: Where) -> np.ndarray[Any, Any]:
    if role == "time" and not pd.api.types.is_numeric_dtype(column):
        column = _seconds(column)
    values = pd.to_numeric(column, errors="coerce")
    wrong = ~np.isfinite(values.to_numpy(dtype=np.float64, na_value=np.nan))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{where(row)}: the {role} must be a finite number (got {str(column.iloc[row])!r})")
    whole = role == "time" and pd.api.types.is_integer_dtype(values)
    return values.to_numpy(dtype=np.int64 if whole else np.float64)


def _seconds(column: pd.Series[Any]) -> pd.Series[Any]:
    """Dates as seconds since 1970; a column that holds anything else stays as it is."""
    times = pd.to_datetime(column, utc=True, errors="coerce", format=None if column.dtype.kind == "M" else "ISO8601")
    if times.isna().any():
        return column
    seconds = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return seconds.astype(np.int64) if (seconds % 1 == 0).all() else seconds
