"""``graphunlearn read``: shows how a file is understood."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from graphunlearn.cli._fields import Printing, optional
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._text import Answer, columns, counted
from graphunlearn.cli._wording import as_options, reading
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Read"]

Request = Literal["interaction", "user", "item", "session", "click"]
PLURALS = {"user": "users", "item": "items", "session": "sessions"}


@dataclass(kw_only=True)
class Read:
    """Show how a file is understood: its columns, counts and first rows, and what was guessed or left out.

    The options of files are those of the commands that read them. Without --kind, a file with a column of sessions
    holds clicks, and every other one interactions.

    examples:
      graphunlearn read ratings.csv
      graphunlearn read log.csv --user-column who --item-column what --sep tab
      graphunlearn read clicks.dat --kind sessions
      graphunlearn read forget.csv --request user
    """

    source: Annotated[Positional[Path], arg(metavar="FILE")]
    """The file."""
    kind: Annotated[Literal["interactions", "sessions"] | None, optional("{interactions,sessions}")] = None
    """What the file holds: interactions, or clicks in sessions."""
    request: Annotated[Request | None, optional("{interaction,user,item,session,click}")] = None
    """The file is a request of this level."""
    rows: int = 5
    """Number of rows to show."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Read the file and say what was understood."""
        if self.rows < 0:
            raise ArgumentError("--rows", "not be negative", self.rows)
        if self.request is not None and self.kind is not None:
            raise ArgumentError("--kind", "be left out with --request", "both")
        if self.request is not None and self.file.lists:
            raise ArgumentError("--lists", "be left out with --request", "both")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with reading("FILE"):
                facts, frame = self._request(self.request) if self.request is not None else self._table()
        said = [as_options(" ".join(str(w.message).split())) for w in caught if issubclass(w.category, UserWarning)]
        facts |= {"rows": len(frame), "first": frame.head(self.rows).astype(str).to_numpy().tolist(), "warnings": said}
        facts["counts"] = {plural: int(frame[role].nunique()) for role, plural in PLURALS.items() if role in frame}
        return Answer({"file": str(self.source), **facts}, self._text(facts, frame))

    def _table(self) -> tuple[dict[str, Any], pd.DataFrame]:
        """Return what was understood of a file of interactions or clicks, and its rows."""
        from graphunlearn.data.io.columns import CLICKS, INTERACTIONS, ColumnError, plain
        from graphunlearn.data.io.files import read_clicks, read_frame

        kind = self.kind or ("interactions" if self.file.session_column is None else "sessions")
        try:
            if kind == "interactions":
                frame = read_frame(self.source, **self.file.given(INTERACTIONS))
            else:
                frame = read_clicks(self.source, **self.file.given(CLICKS))
        except ColumnError as error:
            named = {plain(name) for name in error.names}
            if self.kind is not None or error.role != "user" or not named & set(CLICKS.roles["session"]):
                raise
            kind, frame = "sessions", read_clicks(self.source, **self.file.given(CLICKS))
        return {"kind": kind, **frame.attrs["read"]}, frame

    def _request(self, level: Request) -> tuple[dict[str, Any], pd.DataFrame]:
        """Return what was understood of a request, and its rows."""
        import pandas as pd

        from graphunlearn.data import ForgetRequest
        from graphunlearn.data.io.files import layout_of

        request = ForgetRequest.from_file(self.source, level, **request_options(self.file, level))
        names = list(layout_of(level).required)
        frame = pd.DataFrame(request.index if len(names) == 2 else {names[0]: request.index})
        facts = {"kind": f"request, {level}", "repeated": request.num_duplicates}
        return facts, frame.set_axis(names, axis=1)

    def _text(self, facts: dict[str, Any], frame: pd.DataFrame) -> str:
        form = facts.get("form", "")
        if facts.get("form") == "rows":
            form = f"rows with {facts['separator']!r} between fields, {'a' if facts['header'] else 'no'} header"
        lines = [f"{self.source}: {facts['kind']}{f'; {form}' if form else ''}"]
        for role, place in facts.get("columns", {}).items():
            lines.append(f"  {role}: {'column ' if isinstance(place, int) else ''}{place}")
        if facts.get("ignored"):
            lines.append(f"  not used: {', '.join(map(str, facts['ignored']))}")
        counts = [counted(len(frame), "rows"), *(counted(n, plural) for plural, n in facts["counts"].items())]
        lines.append(", ".join(counts) + (f"; {facts['repeated']:,} repeated" if facts.get("repeated") else ""))
        if facts["first"]:
            lines.append(columns([list(frame.columns), *facts["first"]]))
        return "\n".join([*lines, *(f"note: {text}" for text in facts["warnings"])])
