"""Options that say how files are to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from graphunlearn.cli._fields import optional
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.io.columns import Layout

Column = Annotated[str | None, optional("NAME")]
COLUMNS = ("user", "item", "rating", "time", "label", "session", "position")


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options of the files of a command; what is not given is detected."""

    user_column: Column = None
    """Name of the column of users in all files, or its number from 0."""
    item_column: Column = None
    """Name or number of the column of items."""
    rating_column: Column = None
    """Name or number of the column of ratings."""
    time_column: Column = None
    """Name or number of the column of times."""
    label_column: Column = None
    """Name or number of the column of labels."""
    session_column: Column = None
    """Name or number of the column of sessions."""
    position_column: Column = None
    """Name or number of the column of positions in sessions."""
    sep: Annotated[str | None, optional("TEXT")] = None
    """Text between fields, such as , or :: or tab."""
    decimal: Annotated[str | None, optional("TEXT")] = None
    """Decimal point of ratings and times, . or , (default: .)."""
    header: bool = False
    """Take the first line for a header; by default, it is one if it names known columns."""
    no_header: bool = False
    """Take the first line for data."""
    lists: bool = False
    """Take each line for a user followed by any number of items."""
    max_size: Annotated[str | None, optional("BYTES")] = None
    """Largest size of a decompressed file, such as 20GB (default: 8GiB)."""

    def given(self, layout: Layout, *, strict: bool = True) -> dict[str, Any]:
        """Return the arguments of a reader.

        Args:
            layout: The possible columns.
            strict: Whether a column that the layout lacks is an error; otherwise it is left out.

        Raises:
            ArgumentError: A column does not go with the file, or there is to be a header and none.
        """
        columns = {role: getattr(self, f"{role}_column") for role in COLUMNS}
        columns = {role: name for role, name in columns.items() if name is not None}
        for role in columns.keys() - layout.roles.keys():
            if strict:
                got = f"one with {', '.join(layout.roles)}"
                raise ArgumentError(f"--{role}-column", f"go with a file that can have {role}s", got)
        if self.header and self.no_header:
            raise ArgumentError("--header", "be left out with --no-header", "both")
        header = True if self.header else False if self.no_header else None
        reading = {"sep": self.sep, "decimal": self.decimal, "header": header, "max_size": self.max_size}
        reading["lists"] = self.lists or None
        known = {role: name for role, name in columns.items() if role in layout.roles}
        return known | {name: value for name, value in reading.items() if value is not None}
