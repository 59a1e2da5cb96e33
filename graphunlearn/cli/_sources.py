"""Reading of the data that models learn from, and their split into training, validation and test parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import arg

from graphunlearn.cli._fields import File, Int, Running, optional
from graphunlearn.cli._options import Learning, Training, misplaced
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._text import WORDS, counted, listed, note
from graphunlearn.cli._wording import how_to_get, reading
from graphunlearn.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from graphunlearn.data import InteractionGraph, SessionGraph
    from graphunlearn.data.splits import By
    from graphunlearn.eval.scenarios.cases import G
    from graphunlearn.runs.run import Graph, Run


class Loaded(NamedTuple):
    """Data that were read.

    Args:
        name: Name of the data.
        graph: All data, or the data without the test part.
        test: The test part, if it is separate.
    """

    name: str
    graph: Any
    test: Any


@dataclass(kw_only=True)
class Learner:
    """Options of the commands that read data and train models on them."""

    data: Annotated[str, arg(metavar="FILE")]
    """File of interactions, or of clicks in sessions for a session model (.csv, .tsv, .txt, .inter, .jsonl, .parquet,
    also .gz), or the name of a known data set."""
    test: File = None
    """File of held-out interactions or sessions, instead of a part of the data."""
    threshold: Annotated[float | None, optional("RATING")] = None
    """Largest rating that counts as negative. bce predicts the labels; bpr is trained on the ratings above the
    threshold only.
    """
    last_sessions: Int = None
    """Use only this number of sessions, the last ones of the data."""
    collapse_repeats: bool = False
    """Count consecutive clicks of a session on one item as one; positions then count the remaining clicks."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    learning: Annotated[Learning, arg(name="")] = field(default_factory=Learning)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def check_kind(self) -> None:
        """Check that the options fit the model.

        Raises:
            ArgumentError: An option applies only to models of the other kind.
        """
        self.learning.check()
        foreign = {"threshold": "interactions", "last_sessions": "sessions", "collapse_repeats": "sessions"}
        for option, kind in foreign.items():
            value = getattr(self, option)
            if value is not None and value is not False and kind != self.learning.kind:
                raise misplaced(option, kind, self.learning.model)

    def read(self, objective: str | None = None, collapse: bool = False) -> Loaded:
        """Read the data, and turn ratings into the labels or the positive interactions that the loss learns from.

        Args:
            objective: Name of the loss, if one is given.
            collapse: Whether to count consecutive clicks of a session on one item as one.

        Raises:
            ArgumentError: A file is malformed, the data lack ratings or labels, or no session has two clicks.
        """
        from graphunlearn.data import SessionGraph

        name, graph, test = self.as_published()
        if self.last_sessions is not None:
            graph = last_sessions(graph, self.last_sessions)
        if self.test is not None:
            with reading("--test", self.learning.model):
                test = type(graph).from_file(self.test, like=graph, **self.given())
        elif test is not None and self.last_sessions is not None:
            with reading("--data", self.learning.model):
                test = SessionGraph.from_frame(test.to_frame(), like=graph)  # the items of `graph` have new numbers
        parts = {"--data": graph} | ({} if test is None else {"--test": test})
        if collapse:
            before = sum(part.num_clicks for part in parts.values())
            parts = {option: part.collapse() for option, part in parts.items()}
            dropped = before - sum(part.num_clicks for part in parts.values())
            was = "was" if dropped == 1 else "were"
            note(f"consecutive clicks on one item count as one: {counted(dropped, 'clicks')} {was} collapsed")
        held_out = "" if test is None else f" and {parts['--test'].num_interactions:,} to test on"
        note(f"{name}: {sizes(parts['--data'])}{held_out}")
        for option, part in parts.items():
            if self.learning.kind == "interactions":
                parts[option] = self._labelled(part, objective)
            elif part.num_clicks == part.num_sessions:
                got = f"{part.num_sessions} of one click" if part.num_sessions else "none"
                raise ArgumentError(option, "hold a session of two clicks or more", got)
        return Loaded(name, parts["--data"], parts.get("--test"))

    def as_published(self) -> Loaded:
        """Read the data without changes.

        Raises:
            ArgumentError: The file is malformed, or there is no such file or data set.
        """
        from graphunlearn import datasets
        from graphunlearn.runs.run import GRAPHS

        path = Path(self.data)
        name = path.name.partition(".")[0] or path.name
        if path.is_file():
            with reading("--data", self.learning.model):
                return Loaded(name, self.from_file(path, GRAPHS[self.learning.kind]), None)
        found = self._named()
        divided = isinstance(found, (datasets.Split, datasets.SessionSplit))
        return Loaded(name, *(found if divided else (found, None)))

    def from_file(self, path: Path, cls: Any) -> Any:
        """Return the data in a file.

        Args:
            path: The file.
            cls: The class of graph.
        """
        return cls.from_file(path, **self.given())

    def given(self) -> dict[str, Any]:
        """Return how the files are to be read, as arguments of a reader."""
        from graphunlearn.data.io.columns import CLICKS, INTERACTIONS

        return self.file.given(INTERACTIONS if self.learning.kind == "interactions" else CLICKS)

    def _named(self) -> Any:
        """Return the data set named by ``--data``."""
        from graphunlearn import datasets
        from graphunlearn.datasets.card import ROOT_VARIABLE, folder_of

        kind, cards = self.learning.kind, {card.name: card for card in datasets.available()}
        card = cards.get(self.data)
        if card is None or card.kind != kind:
            what = "an existing file" + (f" of clicks for {self.learning.model}" if kind == "sessions" else "")
            names = ", ".join(other.name for other in cards.values() if other.kind == kind)
            got = f"'{self.data}'" + ("" if card is None else f", a data set of {WORDS[card.kind]}")
            raise ArgumentError("--data", f"be {what}, or one of {names}", got)
        if folder_of(None) is None:
            what = "which names the folder of data sets (got none)"
            raise ValueError(f"'--data {card.name}' needs {ROOT_VARIABLE}, {what}. {how_to_get(card)}")
        try:
            return datasets.load(card.name)
        except FileError as error:
            raise error.renamed(ROOT_VARIABLE, hint=how_to_get(card)) from None

    def _labelled(self, graph: InteractionGraph, objective: str | None) -> InteractionGraph:
        """Return interactions with labels, or only the positive ones, according to the loss."""
        if self.threshold is not None:
            if graph.rating is None:
                raise ArgumentError("--threshold", "go with data that have ratings", f"{self.threshold} for others")
            graph = graph.binarize(self.threshold)
        elif objective == "bce" and graph.label is None:
            hint = "'--threshold' makes labels of ratings"
            raise ArgumentError("--objective", "be bpr for data without labels", "bce", hint)
        if objective not in (None, "bce") and graph.label is not None:
            graph = graph.select(graph.label > 0)
            if graph.num_interactions == 0:
                raise ArgumentError("--threshold", "leave interactions to learn from", self.threshold)
        return graph


def last_sessions(graph: SessionGraph, count: int) -> SessionGraph:
    """Return the last sessions by the time of their last click or, without times, by their order.

    Args:
        graph: All sessions.
        count: Number of sessions.

    Returns:
        The sessions, without the items that do not occur in them.

    Raises:
        ArgumentError: ``count`` is not positive.
    """
    import torch

    from graphunlearn.data import SessionGraph

    if count < 1:
        raise ArgumentError("--last-sessions", "be at least 1", count)
    if count >= graph.num_sessions:
        return graph
    end = torch.arange(graph.num_sessions) if graph.time is None else graph.time[graph.click_ptr[1:] - 1]
    part = graph.select(end.argsort(stable=True)[-count:].sort().values)
    held, items = torch.unique(part.items, return_inverse=True)
    item_ids = part.item_ids
    return SessionGraph.from_sequences(
        items,
        part.click_ptr,
        item_ids=[item_ids[item] for item in held.tolist()],
        session_ids=part.session_ids,
        time=part.time,
        user=part.user,
        user_ids=None if part.user is None else part.vocabulary("user").ids,
    )


def cut(
    graph: G, test: G | None, shares: tuple[float, float, float], seed: int, by: By | None = None
) -> tuple[G, G, G]:
    """Split data into training, validation and test parts.

    Args:
        graph: All data, or the data without the test part.
        test: The test part, if it is separate.
        shares: Shares of training, validation and test data; the last one is unused if ``test`` is given.
        seed: Seed of what is drawn.
        by: How to split (default: interactions at random and sessions by time).

    Returns:
        Training, validation and test data.

    Raises:
        ArgumentError: A share that is used is not positive, the shares do not add up to 1, or the data lack times or
            users that the split needs.
    """
    from graphunlearn.eval.scenarios.cases import cut_by_time, split_up

    used = shares if test is None else shares[:2]
    if not all(share > 0 for share in used) or not sum(used) <= 1 + 1e-6 or (test is None and sum(used) < 1 - 1e-6):
        raise ArgumentError("--split", "be positive and add up to 1", " ".join(map(str, shares)))
    if by is not None:
        try:
            parts = graph.split_by(by, [share / sum(used) for share in used], seed)
        except ArgumentError as error:
            raise error.renamed("--split-by" if error.argument == "by" else None) from None
        for name, part in zip(("training", "validation", "test"), parts):
            if not part.num_interactions:
                raise ArgumentError("--split-by", f"leave {graph.unit}s for the {name} part", f"none with {by}")
        return parts[0], parts[1], parts[2] if test is None else test
    if graph.kind == "sessions":
        return cut_by_time(graph, test, shares)
    return split_up(graph, test, shares, seed)


def read_as_trained(run: Run, path: Path, option: str, file: FileOptions, like: Graph | None = None) -> Graph:
    """Read a file as the data of a run: with labels, or only the positive interactions, as the run was trained.

    Args:
        run: The run.
        path: The file.
        option: Name of its option, for error messages.
        file: How the file is to be read.
        like: The graph whose users and items are taken; by default those of the file.

    Raises:
        ArgumentError: The file is malformed or has no ratings, or a threshold of the run leaves nothing.
    """
    from graphunlearn.data.io.columns import CLICKS, INTERACTIONS
    from graphunlearn.nn import BCE
    from graphunlearn.runs.run import GRAPHS

    kind, threshold = run.spec.kind, run.about.get("threshold")
    given = file.given(INTERACTIONS if kind == "interactions" else CLICKS)
    with reading(option, run.spec.name, known="the run"):
        graph: Any = GRAPHS[kind].from_file(path, like=like, **given).to(run.train.device)
    if graph.kind == "sessions":
        return graph.collapse() if run.about.get("collapse_repeats") else graph
    if threshold is not None:
        if graph.rating is None:
            expected = f"have ratings, because the run was trained with '--threshold {threshold:g}'"
            raise ArgumentError(option, expected, "none")
        graph = graph.binarize(threshold)
    ranks = hasattr(run, "objective") and type(run.objective) is not BCE
    return graph.select(graph.label > 0) if ranks and graph.label is not None else graph


def tell_shared(test: InteractionGraph | SessionGraph, parts: Mapping[str, Any]) -> None:
    """Print how many interactions or sessions of a test file are in other parts of the data as well.

    Args:
        test: The data of the test file.
        parts: The other parts, by their name.
    """
    unit = "sessions" if test.kind == "sessions" else "interactions"
    total = test.sizes[unit]
    counts = {name: test.shared(part) for name, part in parts.items()}
    found = [f"{count:,} {'is' if count == 1 else 'are'} in the {name}" for name, count in counts.items() if count]
    means = {
        "sessions": "sessions count as the same where their ids are",
        "interactions": "those of training are not ranked, and those of validation decided when training stopped",
    }
    if found:
        note(f"of the {counted(total, f'test {unit}')}, {listed(found, 'and')}; {means[unit]}")


def sizes(graph: InteractionGraph | SessionGraph) -> str:
    """Return the numbers of users, items and interactions, or of sessions, items and clicks, in words."""
    return ", ".join(counted(count, noun) for noun, count in graph.sizes.items())
