"""Options of a model that another program trained: its code, its loss, and the order of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import arg

from graphunlearn.cli._fields import File, Settings, optional
from graphunlearn.cli._methods import convert
from graphunlearn.cli._options import Model
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._text import counted, meant
from graphunlearn.cli._wording import reading
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data.events import Kind
    from graphunlearn.nn import Criterion
    from graphunlearn.runs.run import ModelSpec

Loss = Literal["bpr", "bce", "sampled-bce", "sampled-softmax", "in-batch-softmax", "squared-error", "cross-entropy"]
Rows = Literal["numbers", "appearance"]
SIDES = {"interactions": ("user", "item"), "sessions": ("item",)}
"""The sides whose nodes have rows in a table, by kind of graph."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Options of the model, its loss and its rows."""

    model: Annotated[str, arg(metavar="MODULE:NAME", help_behavior_hint="")] = ""
    """Function or class that builds the model, such as towers:build, in this folder or on PYTHONPATH. Its parameters
    graph, num_users, num_items and num_nodes are filled in. Or one of lightgcn, mf, sgl, simgcl, ngcf, srgnn, gru4rec
    and sasrec, with --model-option dim=INT layers=INT."""
    model_option: Settings = ()
    """Further arguments of the function or class, such as dim=64; values are JSON, or else text."""
    encode: Annotated[str | None, optional("MODULE:NAME")] = None
    """Function (model, graph) -> (queries, items) that gives the embeddings of users, or sessions, and of items. It is
    not needed for a class that the module registers, or that an installed package offers an encoding for."""
    retrain: Annotated[str | None, optional("MODULE:NAME")] = None
    """Function (graph, seed) -> model that trains the model anew, for audits; it may have a parameter validation.
    Without it, 'audit' retrains with the training of this package and the loss below."""
    kind_given: Annotated[
        Literal["interactions", "sessions"] | None,
        arg(name="kind", metavar="{interactions,sessions}", help_behavior_hint=""),
    ] = None
    """What the model learns from (default: interactions)."""
    objective: Annotated[Loss | None, optional("LOSS")] = None
    """The loss that the model was trained with: bpr, bce, sampled-bce, sampled-softmax, in-batch-softmax or
    squared-error; for sessions, cross-entropy."""
    objective_option: Settings = ()
    """Parameters of the loss, such as negatives=4 weight_decay=0.001."""
    ids_users: File = None
    """File of the ids of users in the order of the rows of the table: one per line, or a column of a table."""
    ids_items: File = None
    """File of the ids of items in the order of the rows."""
    rows: Rows = "numbers"
    """Order of rows without such a file: ids are the numbers of their rows, from 0, or rows are in the order in which
    ids first appear in the data."""

    @property
    def named(self) -> bool:
        """Whether the model is one of this package, or of PyTorch Geometric, by its name."""
        return self.model in get_args(Model)

    @property
    def kind(self) -> Kind:
        """The kind of graph that the model learns from."""
        from graphunlearn.nn import kind_of

        if self.named:
            return kind_of(self.model)
        return self.kind_given or "interactions"

    def check(self) -> None:
        """Check the options that no file is needed for.

        Raises:
            ArgumentError: An option does not go with the model, or the loss is not given.
        """
        kind = self.kind
        if not self.named and ":" not in self.model:
            got = f"{self.model!r}{meant(self.model, get_args(Model))}" if self.model else "none"
            raise ArgumentError("--model", f"be MODULE:NAME, or one of {', '.join(get_args(Model))}", got)
        if self.named:
            for option, value in {"--encode": self.encode, "--retrain": self.retrain}.items():
                if value is not None:
                    raise ArgumentError(option, "go with a model of your own", f"it with {self.model}")
            if self.kind_given is not None and self.kind_given != kind:
                raise ArgumentError("--kind", f"be {kind} for {self.model}", self.kind_given)
        if kind == "sessions" and self.ids_users is not None:
            raise ArgumentError("--ids-users", "be left out for sessions, which have rows of items only", "it")
        if kind == "interactions" and self.objective is None:
            names = [name for name in get_args(Loss) if name != "cross-entropy"]
            raise ArgumentError("--objective", f"name the loss of the training, one of {', '.join(names)}", "none")
        if self.objective is not None and (self.objective == "cross-entropy") != (kind == "sessions"):
            expected = "be cross-entropy for sessions" if kind == "sessions" else "be a loss of interactions"
            raise ArgumentError("--objective", expected, self.objective)

    def spec(self) -> ModelSpec:
        """Return the description of the model, after its code was found.

        Raises:
            ArgumentError: A module or a function is not there, or an option of the model has a wrong value.
        """
        from graphunlearn.runs.code import Code, names_of, trust
        from graphunlearn.runs.run import ModelSpec

        given = dict(map(_argument, chain(*self.model_option)))
        if self.named:
            wrong = next((name for name in given if name not in ("dim", "layers")), None)
            if wrong is not None:
                raise ArgumentError("--model-option", f"be dim or layers for {self.model}", repr(wrong))
            for name in ("dim", "layers"):
                value = given.get(name, 2 if self.model == "mf" and name == "layers" else None)  # mf has none
                if not isinstance(value, int) or isinstance(value, bool):
                    got = "none" if value is None else repr(value)
                    raise ArgumentError("--model-option", f"give {name}=INT for {self.model}", got)
                given[name] = value
            return ModelSpec(self.model, given["dim"], given["layers"])
        code = Code(self.model, self.encode, self.retrain, given, self.kind)
        trust(*names_of([self.model, self.encode, self.retrain]))
        code.check({"build": "--model", "encode": "--encode", "retrain": "--retrain"})
        return ModelSpec(self.model, None, None, code)

    def loss(self) -> Criterion:
        """Return the loss.

        Raises:
            ArgumentError: An option of the loss is unknown, or has a wrong value.
        """
        from graphunlearn.runs.run import OBJECTIVES, check_plausible

        name = self.objective or "cross-entropy"
        cls: Any = OBJECTIVES[name]
        hints = get_type_hints(cls)
        known = {f.name: hints[f.name] for f in fields(cls) if f.init}
        values: dict[str, Any] = {}
        for option in chain(*self.objective_option):
            key, equals, text = option.partition("=")
            if not equals:
                raise ArgumentError("--objective-option", "be NAME=VALUE", f"{option!r}")
            if key not in known:
                expected = f"be a parameter of {name}, {', '.join(known)}" if known else f"be left out for {name}"
                raise ArgumentError("--objective-option", expected, f"{key!r}{meant(key, known)}")
            values[key] = convert(f"--objective-option {key}", text, known[key])
        try:
            loss: Criterion = cls(**values)
            check_plausible(values, {})
        except ArgumentError as error:
            named = f"--objective-option {error.argument}" if error.argument in known else "--objective-option"
            raise error.renamed(named) from None
        return loss

    def ids(self, file: FileOptions) -> dict[str, list[str]]:
        """Return the ids in the files of rows, by side.

        Args:
            file: How files are to be read.

        Raises:
            ArgumentError: A file is malformed, or an id is there twice.
        """
        from graphunlearn.data.io.files import read_ids
        from graphunlearn.data.vocabulary import IdError, canonical_ids, preview

        found = {}
        for side, path in {"user": self.ids_users, "item": self.ids_items}.items():
            if path is None:
                continue
            option = f"--ids-{side}s"
            with reading(option):
                found_ids = read_ids(path, side, tell=True, **request_options(file, side))
            try:
                ids = canonical_ids(found_ids)
            except IdError as error:
                raise error.renamed(option) from None
            seen: set[str] = set()
            again = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
            if again:
                got = f"{counted(len(again), 'rows')} of {len(ids):,} with an id that is there before: {preview(again)}"
                raise ArgumentError(option, "hold every id once", got)
            found[side] = ids
        return found

    def read(self, path: Path, cls: Any, file: FileOptions, given: dict[str, Any]) -> Any:
        """Return the data in a file, with nodes numbered as the rows of the model.

        Args:
            path: The file.
            cls: The class of graph.
            file: How files are to be read.
            given: The same as arguments of a reader.

        Raises:
            ArgumentError: An id of the data has no row.
        """
        sides = SIDES[self.kind]
        ids: dict[str, Any] = self.ids(file)
        plain = None
        if len(ids) < len(sides):
            plain = cls.from_file(path, **given)
            for side in sides:
                if side not in ids:
                    ids[side] = plain.vocabulary(side).ids if self.rows == "appearance" else _numbers(plain, side)
        return renumbered(path, cls, [ids[side] for side in sides], given, plain)


def renumbered(path: Path, cls: Any, ids: Sequence[list[str]], given: dict[str, Any], plain: Any = None) -> Any:
    """Return the data in a file, with the nodes of a given vocabulary.

    Args:
        path: The file.
        cls: The class of graph.
        ids: The raw ids of users and items, or of items for sessions, in the order of the rows.
        given: How the file is to be read, as arguments of a reader.
        plain: The data in the file with its own numbers, if they were read already.

    Raises:
        ArgumentError: An id of the data is not in the vocabulary.
    """
    import warnings

    from graphunlearn.data.io.left_out import LeftOutWarning, UnknownError
    from graphunlearn.data.vocabulary import preview

    like = _empty(cls, ids)
    lost = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            graph = (
                cls.from_file(path, like=like, **given)
                if plain is None
                else cls.from_frame(plain.to_frame(), like=like)
            )
        except UnknownError:
            lost = True
    lost = lost or any(isinstance(warning.message, LeftOutWarning) for warning in caught)
    for warning in caught:
        if not isinstance(warning.message, LeftOutWarning):
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    if not lost:
        if plain is not None and "lists" in plain._global_store:
            graph._global_store["lists"] = plain._global_store["lists"]
        return graph
    plain = cls.from_file(path, **given) if plain is None else plain
    for side in SIDES[plain.kind]:
        names = plain.vocabulary(side).ids
        missing = [name for name, row in zip(names, like.vocabulary(side).lookup(names).tolist()) if row < 0]
        if missing:
            rows, total = counted(len(like.vocabulary(side)), "rows"), counted(len(names), f"{side}s")
            got = f"{rows} and {len(missing):,} of {total} of '--data' without one: {preview(missing)}"
            raise ArgumentError(f"--ids-{side}s", f"give every {side} of '--data' a row", got)
    raise ArgumentError("--data", "hold users and items of '--ids-users' and '--ids-items'", f"'{path}' with others")


def _empty(cls: Any, ids: Sequence[list[str]]) -> Any:
    """Return a graph without interactions or clicks, with the given raw ids."""
    import torch

    if cls.kind == "sessions":
        return cls.from_sequences([], item_ids=ids[0])
    users, items = ids
    return cls.from_edges(torch.empty(2, 0, dtype=torch.long), len(users), len(items), user_ids=users, item_ids=items)


def _numbers(graph: Any, side: str) -> list[str]:
    """Return the ids 0 to the largest one of the data.

    Raises:
        ArgumentError: An id is not a whole number.
    """
    from graphunlearn.data.vocabulary import preview

    vocabulary = graph.vocabulary(side)
    if not vocabulary.numeric:
        words = [name for name in vocabulary.ids if not (name.isdecimal() and str(int(name)) == name)]
        got = f"none, and ids that are no row numbers, such as {preview(words, 1)}" if words else "none"
        hint = "'--rows appearance' takes the order in which ids appear in '--data'"
        raise ArgumentError(f"--ids-{side}s", f"name the file of {side}s in the order of the rows", got, hint)
    largest = max(map(int, vocabulary.ids), default=-1)
    most = 100 * len(vocabulary) + 1_000_000
    if largest >= most:
        got = f"none, and ids up to {largest:,} for {counted(len(vocabulary), f'{side}s')}, which are no row numbers"
        raise ArgumentError(f"--ids-{side}s", f"name the file of {side}s in the order of the rows", got)
    return list(map(str, range(largest + 1)))


def _argument(option: str) -> tuple[str, Any]:
    """Return the name and the value of ``NAME=VALUE``, where the value is JSON or else text."""
    from graphunlearn.data.io.sealed import parse_json

    name, equals, text = option.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentError("--model-option", "be NAME=VALUE", f"{option!r}")
    try:
        return name, parse_json(text)
    except ValueError:
        return name, text
