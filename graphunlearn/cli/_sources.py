"""Reading what models learn from, and cutting it into training, validation and test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import arg

from graphunlearn.cli._options import Learning, Training, misplaced
from graphunlearn.cli._text import WORDS, Running, counted, note, optional
from graphunlearn.cli._wording import how_to_get, reading
from graphunlearn.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from graphunlearn.data import InteractionGraph, SessionGraph
    from graphunlearn.eval.scenarios.cases import G

__all__ = ["Learner", "Loaded", "collapsed", "cut", "last_sessions", "sizes"]


class Loaded(NamedTuple):
    """Data that was read: its name, all of it (or what to train on), and the test part where it comes divided."""

    name: str
    graph: InteractionGraph | SessionGraph
    test: InteractionGraph | SessionGraph | None


@dataclass(kw_only=True)
class Learner:
    """What commands share that read data and train models on it."""

    data: Annotated[str, arg(metavar="FILE")]
    """File of interactions, or of clicks in sessions for a session model (.csv, .tsv, .txt, .inter, .parquet, also
    .gz), or the name of a known data set."""
    test: Annotated[Path | None, optional("FILE")] = None
    """File of held-out interactions or sessions, instead of a part of the data."""
    threshold: Annotated[float | None, optional("RATING")] = None
    """Largest rating that is still a no. bce learns yes or no, bpr only from what is above."""
    last_sessions: Annotated[int | None, optional("INT")] = None
    """Take only this many sessions of the data, the last ones."""
    collapse_repeats: bool = False
    """Count consecutive clicks of a session on one item as one; positions then count what is left."""
    learning: Annotated[Learning, arg(name="")] = field(default_factory=Learning)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def check_kind(self) -> None:
        """Refuse options that a model of the other kind has.

        Raises:
            ValueError: One was given.
        """
        self.learning.check()
        if self.learning.kind == "sessions":
            if self.threshold is not None:
                raise misplaced("threshold", "interactions", self.learning.model)
        elif self.last_sessions is not None or self.collapse_repeats:
            option = "collapse-repeats" if self.last_sessions is None else "last-sessions"
            raise misplaced(option, "sessions", self.learning.model)

    def read(self, objective: str | None = None, collapse: bool = False) -> Loaded:
        """Read the data; with ``objective`` or a threshold, bring labels into the form that it learns from.

        Args:
            objective: The name of the loss.
            collapse: Count consecutive clicks of a session on one item as one.

        Raises:
            ValueError: The file is malformed, or there are no ratings or labels where some are needed, or in no session
                a click follows another.
        """
        from graphunlearn.data import InteractionGraph

        if self.learning.kind == "sessions":
            return self._sessions(collapse)
        name, graph, test = self.interactions()
        if self.test is not None:
            with reading("--test", self.learning.model):
                test = InteractionGraph.from_file(self.test, like=graph)
        note(f"{name}: {sizes(graph)}" + ("" if test is None else f" and {test.num_interactions:,} to test on"))
        return Loaded(name, self._labelled(graph, objective), None if test is None else self._labelled(test, objective))

    def interactions(self) -> tuple[str, InteractionGraph, InteractionGraph | None]:
        """Read interactions as they are: a name, the graph, and the test part where the data set comes divided."""
        from graphunlearn import datasets
        from graphunlearn.data import InteractionGraph

        if Path(self.data).is_file():
            with reading("--data", self.learning.model):
                return _name(self.data), InteractionGraph.from_file(Path(self.data)), None
        found = self._named("interactions", "an existing file")
        return self.data, *(found if isinstance(found, datasets.Split) else (found, None))

    def _named(self, kind: str, what: str) -> Any:
        """The data set of that name, if there is one of this kind."""
        from graphunlearn import datasets
        from graphunlearn.datasets.card import ROOT_VARIABLE, folder_of

        cards = {card.name: card for card in datasets.available()}
        if self.data not in cards or cards[self.data].kind != kind:
            names = [card.name for card in cards.values() if card.kind == kind]
            other = f", a data set of {WORDS[cards[self.data].kind]}" if self.data in cards else ""
            raise ArgumentError("--data", f"be {what}, or one of {', '.join(names)}", f"'{self.data}'{other}")
        card = cards[self.data]
        if folder_of(None) is None:
            raise ValueError(
                f"'--data {card.name}' needs {ROOT_VARIABLE}, which names the folder of data sets (got an environment "
                f"without). {how_to_get(card)}"
            )
        try:
            return datasets.load(card.name)
        except FileError as error:
            raise error.renamed(ROOT_VARIABLE, hint=how_to_get(card)) from None

    def _sessions(self, collapse: bool) -> Loaded:
        from graphunlearn import datasets
        from graphunlearn.data import SessionGraph

        test = None
        if Path(self.data).is_file():
            with reading("--data", self.learning.model):
                graph = SessionGraph.from_file(Path(self.data))
        else:
            found = self._named("sessions", f"an existing file of clicks for {self.learning.model}")
            graph, test = found if isinstance(found, datasets.SessionSplit) else (found, None)
        if self.last_sessions is not None:
            graph = last_sessions(graph, self.last_sessions)
        if self.test is not None:
            with reading("--test", self.learning.model):
                test = SessionGraph.from_file(self.test, like=graph)
        elif test is not None and self.last_sessions is not None:
            with reading("--data", self.learning.model):
                test = SessionGraph.from_frame(test.to_frame(), like=graph)  # whose items are fewer, and numbered anew
        if collapse:
            (graph, *rest), dropped = collapsed([graph, *([] if test is None else [test])])
            test = rest[0] if rest else None
            was = "was" if dropped == 1 else "were"
            note(f"consecutive clicks on one item count as one: {counted(dropped, 'clicks')} {was} collapsed")
        note(f"{_name(self.data)}: {sizes(graph)}" + ("" if test is None else f" and {test.num_clicks:,} to test on"))
        for option, part in (("--data", graph), ("--test", test)):
            if part is not None and part.num_clicks == part.num_sessions:
                got = f"{part.num_sessions} of one click" if part.num_sessions else "none"
                raise ArgumentError(option, "hold a session of two clicks or more", got)
        return Loaded(_name(self.data), graph, test)

    def _labelled(self, graph: InteractionGraph, objective: str | None) -> InteractionGraph:
        if self.threshold is not None:
            if graph.rating is None:
                raise ArgumentError("--threshold", "go with data that have ratings", f"{self.threshold} for others")
            graph = graph.binarize(self.threshold)
        elif objective == "bce" and graph.label is None:
            raise ArgumentError(
                "--objective", "be bpr for data without labels", "bce", "'--threshold' makes labels of ratings"
            )
        if objective == "bpr" and graph.label is not None:
            graph = graph.select(graph.label > 0)
            if graph.num_interactions == 0:
                raise ArgumentError("--threshold", "leave interactions to learn from", self.threshold)
        return graph


def last_sessions(graph: SessionGraph, count: int) -> SessionGraph:
    """Return the last sessions, by their last click or, without times, by order; their items are numbered anew.

    Raises:
        ValueError: ``count`` is not positive.
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


def collapsed(graphs: Sequence[SessionGraph]) -> tuple[list[SessionGraph], int]:
    """Return sessions without consecutive repeats of an item, and how many clicks that took."""
    short = [graph.collapse() for graph in graphs]
    return short, sum(long.num_clicks - graph.num_clicks for long, graph in zip(graphs, short))


def cut(graph: G, test: G | None, shares: tuple[float, float, float], seed: int) -> tuple[G, G, G]:
    """Return training, validation and test part; the test share does not count where the data comes divided.

    Interactions are divided at random, sessions by time: validation are the last ones before the test sessions.

    Raises:
        ValueError: A share that counts is not positive, or together they are not the whole.
    """
    from graphunlearn.eval.scenarios.cases import cut_by_time

    used = shares if test is None else shares[:2]
    if not all(share > 0 for share in used) or not sum(used) <= 1 + 1e-6 or (test is None and sum(used) < 1 - 1e-6):
        raise ArgumentError("--split", "be positive and add up to 1", " ".join(map(str, shares)))
    if graph.kind == "sessions":
        return cut_by_time(graph, test, shares)
    if test is None:
        train, validation, test = graph.random_split(shares, seed=seed)
    else:
        whole = shares[0] + shares[1]
        train, validation = graph.random_split([shares[0] / whole, shares[1] / whole], seed=seed)
    return train, validation, test


def sizes(graph: InteractionGraph | SessionGraph) -> str:
    """Return how large a graph is, in words."""
    return ", ".join(counted(count, noun) for noun, count in graph.sizes.items())


def _name(path: str) -> str:
    name = Path(path).name
    return name.partition(".")[0] or name
