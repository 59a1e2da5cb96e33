"""Scenarios of groups of users: the most active ones, the least active ones, and users with sensitive interactions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.io.columns import NAMES, plain
from graphunlearn.errors import ArgumentError, FileError
from graphunlearn.eval.scenarios.cases import SHARES, Scenario, counted, draw_share, share_of, split_up, were
from graphunlearn.eval.scenarios.injection import generator_of, popular_first

__all__ = ["core_users", "edge_users", "items_of_category", "sensitive"]

FEWEST = 3
"""Fewest sensitive and fewest other training interactions of a user who may be chosen to forget the sensitive ones."""
CATEGORY = ("class", "genre", "genres", "category", "categories")
"""Names of the column of categories in a table of items."""
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The genres of MovieLens 100K, in the order of the last columns of ``u.item``."""


def core_users(
    graph: InteractionGraph,
    *,
    share: float = SHARES["core-users"],
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Forget the most active users.

    Users are ordered by their number of training interactions; users with equally many are in random order. Users
    without training interactions are neither chosen nor counted.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        share: Share of the users to forget, in (0, 1); at least one is forgotten.
        seed: Seed of the split and of the random order.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"core-users"``.

    Raises:
        ValueError: The share is not in (0, 1), or no user would be left.

    Source: CURE4Rec, arXiv 2408.14393.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8)
        >>> core, edge = core_users(graph), edge_users(graph)
        >>> [int(case.request.mask(case.train).sum()) for case in (core, edge)]
        [62, 8]
    """
    return _by_activity("core-users", graph, share, seed, test, fractions)


def edge_users(
    graph: InteractionGraph,
    *,
    share: float = SHARES["edge-users"],
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Forget the least active users with training interactions; see :func:`core_users`.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        share: Share of the users to forget, in (0, 1); at least one is forgotten.
        seed: Seed of the split and of the random order of users with equally many interactions.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"edge-users"``.

    Raises:
        ValueError: The share is not in (0, 1), or no user would be left.

    Source: CURE4Rec, arXiv 2408.14393.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]]))
        >>> edge_users(graph, share=0.4, test=graph, fractions=(0.9, 0.1, 0)).request
        ForgetRequest.internal('user', [2])
    """
    return _by_activity("edge-users", graph, share, seed, test, fractions)


def sensitive(
    graph: InteractionGraph,
    items: Iterable[Any],
    *,
    share: float = SHARES["sensitive"],
    seed: int = 0,
    test: InteractionGraph | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
) -> Scenario[InteractionGraph]:
    """Forget all interactions of some users with a category of sensitive items.

    Users are drawn among those with at least 3 training interactions with sensitive items and at least 3 with other
    items. Their interactions with sensitive items are forgotten and are also dropped from validation and test.

    Args:
        graph: All interactions, or the training and validation interactions if ``test`` is given.
        items: Raw ids of the sensitive items; ids that the graph lacks are ignored. :func:`items_of_category` reads
            them from a table of items.
        share: Share of the users who may be drawn, in (0, 1); at least one is drawn.
        seed: Seed of the split and of the draw.
        test: Held-out interactions with the node numbers of ``graph``; by default a part of ``graph``.
        fractions: Shares of training, validation and test; the last share is unused if ``test`` is given.

    Returns:
        The scenario ``"sensitive"``. Its ``category`` holds the sensitive items.

    Raises:
        ValueError: The graph has none of the items, no user may be drawn, or the share is not in (0, 1).

    Source: the requests of ERASE, arXiv 2603.08341; the share is our choice.

    Example:
        >>> from graphunlearn.datasets import synthetic_interactions
        >>> graph = synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12)
        >>> scenario = sensitive(graph, graph.item_ids[:15], share=0.2)
        >>> {item < 15 for _, item in scenario.request.index}
        {True}
    """
    try:
        found = graph.vocabulary("item").lookup(items).unique()
    except ArgumentError as error:
        raise error.renamed("items") from None
    found = found[found >= 0]
    if not len(found):
        raise ArgumentError("items", "hold an item of the graph", "none")
    train, validation, test = split_up(graph, test, fractions, seed)
    user, item = train.pairs.cpu()
    theirs = torch.isin(item, found)
    few = [torch.bincount(user[part], minlength=train.num_users) < FEWEST for part in (theirs, ~theirs)]
    able = (~(few[0] | few[1])).nonzero().flatten()
    if not len(able):
        wanted = f"have a user with at least {FEWEST} training interactions with these items and {FEWEST} with others"
        raise ArgumentError("items", wanted, "no such user")
    users = able[draw_share(len(able), share, seed, leave=0)]
    pairs = train.pairs.cpu()[:, theirs & torch.isin(user, users)]
    gone = [
        torch.isin(part.pairs[0].cpu(), users) & torch.isin(part.pairs[1].cpu(), found) for part in (validation, test)
    ]
    validation, test = validation.select(~gone[0]), test.select(~gone[1])
    dropped = sum(int(mask.sum()) for mask in gone)
    what = f"{counted(pairs.size(1), 'interaction')} of {counted(len(users), 'user')}"
    notes = [f"{what} with {counted(len(found), 'sensitive item')} {were(pairs.size(1))} chosen to be forgotten."]
    if dropped:
        notes.append(f"{dropped} held-out interactions of these users with sensitive items {were(dropped)} dropped.")
    request = ForgetRequest.internal("interaction", pairs)
    return Scenario("sensitive", train, validation, test, request, notes=notes, category=found)


def items_of_category(path: str | Path, category: str) -> list[str]:
    r"""Return the raw ids of the items of one category from a table of items.

    Args:
        path: ``u.item`` of MovieLens 100K, or a table with a header, separated by tabs, commas or ``|``. The table has
            a column of items (such as ``item_id``, also with a type as in ``item_id:token``) and a column of categories
            (``class``, ``genre``, ``genres``, ``category`` or ``categories``). Categories of one item are separated by
            ``|`` or, if no row has a ``|`` there, by spaces.
        category: Name of the category, in upper or lower case.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file lacks one of the columns, or has no item of this category.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "films.csv"
        ...     _ = path.write_text("item,genres\n7,Horror|War\n8,War\n9,Drama\n")
        ...     items_of_category(path, "war")
        ['7', '8']
    """
    path = Path(path)
    if not path.is_file():
        raise FileError("path", "be an existing file", f"'{path}'")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # as u.item is
    first = text.partition("\n")[0]
    separator = next((mark for mark in ("\t", "|", ",") if mark in first), ",")
    if separator == ",":
        rows = [row for row in csv.reader(text.splitlines()) if row]
    else:
        rows = [line.split(separator) for line in text.splitlines() if line]
    if separator == "|" and rows and all(len(row) == 5 + len(GENRES) for row in rows):
        named = [(row[0], [name for name, flag in zip(GENRES, row[5:]) if flag.strip() == "1"]) for row in rows]
    else:
        named = _categories(path, rows)
    wanted = category.strip().lower()
    found = [item.strip() for item, categories in named if wanted in map(str.lower, categories)]
    if not found:
        offered = sorted({name for _, categories in named for name in categories})
        raise ArgumentError("category", f"be one of {', '.join(offered)}", f"{category!r}")
    return found


def _categories(path: Path, rows: list[list[str]]) -> list[tuple[str, list[str]]]:
    """Return the item and the categories of every row below the header."""
    header = [plain(name) for name in rows[0]] if rows else []
    at = []
    for what, names in (("items", NAMES["item"].split()), ("categories", CATEGORY)):
        found = next((header.index(name) for name in names if name in header), None)
        if found is None:
            got = f"columns {', '.join(header)}" if header else "an empty file"
            raise ArgumentError(path, f"have a column of {what}, such as {names[0]}", got)
        at.append(found)
    item, category = at
    whole = [row for row in rows[1:] if len(row) > max(at)]
    mark = "|" if any("|" in row[category] for row in whole) else None  # None: white space
    return [(row[item], [name.strip() for name in row[category].split(mark)]) for row in whole]


def _by_activity(
    name: str,
    graph: InteractionGraph,
    share: float,
    seed: int,
    test: InteractionGraph | None,
    fractions: Sequence[float],
) -> Scenario[InteractionGraph]:
    train, validation, test = split_up(graph, test, fractions, seed)
    order = popular_first(torch.bincount(train.pairs[0], minlength=train.num_users).cpu(), generator_of(seed))
    count = share_of(len(order), share)
    core = name == "core-users"
    users = (order[:count] if core else order[-count:]).sort().values
    notes = [f"The {share:.2%} {'most' if core else 'least'} active users were chosen to be forgotten."]
    return Scenario(name, train, validation, test, ForgetRequest.internal("user", users), notes=notes)
