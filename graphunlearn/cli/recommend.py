"""``graphunlearn recommend``: lists the best items for users, or the next items for sessions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._fields import File, Ids, RunFolder, Running
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._text import WORDS, Answer, columns, counted, device_of, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.errors import ArgumentError, ExistsError

if TYPE_CHECKING:
    from torch import Tensor

    from graphunlearn.data import InteractionGraph, SessionGraph
    from graphunlearn.data.vocabulary import Vocabulary
    from graphunlearn.runs.exact import ExactRun
    from graphunlearn.runs.run import Graph, Run

__all__ = ["Recommend"]

OPTIONS = {"interactions": ("--users", "--users-file"), "sessions": ("--sessions", "--clicks")}
"""The options that name who gets a list, by the kind of the run."""
UNSERVED = "without interactions in the training part: forgotten, or only held out"
"""Why users get no list."""


@dataclass(kw_only=True)
class Recommend:
    """List the best items for users, or the next items for sessions, with their scores.

    A list for a user leaves out the items that the user has in the training part. A list for a session may repeat items
    of the session. No list contains items without interactions or clicks in the training part, such as forgotten ones.
    Users who are unknown or forgotten are refused. Scores are comparable only within one list.

    examples:
      graphunlearn recommend runs/a --users 196 186
      graphunlearn recommend runs/a --users-file users.csv --k 50 --out lists.csv    # lists.csv: user,item,rank,score
      graphunlearn recommend runs/g --sessions 17 39
      graphunlearn recommend runs/g --clicks new.csv --json                          # new.csv: session,item,time
    """

    source: RunFolder
    """Run folder, as 'train' or 'forget' writes it."""
    users: Ids = ()
    """Users to recommend items to."""
    users_file: File = None
    """File of users, one per line."""
    sessions: Ids = ()
    """Sessions of the run; the list is for the click after the last one in any part of its data."""
    clicks: File = None
    """File of clicks in other sessions, as for 'train'."""
    k: int = 20
    """Number of items per list; a list is shorter where fewer items remain."""
    out: File = None
    """CSV file to write, instead of a table on the terminal."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Compute the lists, and write or print them."""
        from graphunlearn.nn.encoding import best_items
        from graphunlearn.runs.exact import ExactRun

        run, k = self.asked()
        graph: Graph = run.train
        if isinstance(run, ExactRun) or graph.kind == "interactions":
            queries = self.users_of(run.train)
            names = [graph.vocabulary("user")[number] for number in queries.tolist()]
        else:
            graph, queries = self._sessions(run), None
            names = graph.vocabulary("session").ids
        known = run.train.active[-run.train.num_items :]
        if isinstance(run, ExactRun):
            items, scores = run.floor.recommend(k, queries, candidates=known)
        else:
            items, scores = best_items(run.model.eval(), graph, k, queries, candidates=known)
        return self.answer(run.train.query, names, run.train.vocabulary("item"), items, scores)

    def asked(self) -> tuple[Run | ExactRun, int]:
        """Return the run and the length of the lists, after a check of the options."""
        from graphunlearn.runs.exact import ExactRun, exact_name
        from graphunlearn.runs.run import Run

        self._check_out()
        if self.k < 1:
            raise ArgumentError("--k", "be at least 1", self.k)
        self._check_asked(None)
        device = device_of(self.running.device)
        run: Any = None
        if exact_name(self.source) is not None:
            run = ExactRun.load(self.source, device)
        else:
            run = Run.load(self.source, device, memory_map=device.type == "cpu")
        self._check_asked(run)
        k = min(self.k, run.train.num_items)
        if k < self.k:
            note(f"the run has {counted(k, 'items')}, so that lists are shorter than {self.k}")
        return run, k

    def _check_asked(self, run: Run | None) -> None:
        """Check that options name somebody; with a run, that they are options for its kind of data."""
        given = {"--users": self.users, "--users-file": self.users_file}
        given |= {"--sessions": self.sessions, "--clicks": self.clicks}
        asked = [option for option, value in given.items() if value not in ((), None)]
        if run is None:
            if not any(chain(*self.users, *self.sessions)) and self.users_file is None and self.clicks is None:
                options = listed([f"'{option}'" for option in given], "or")
                raise ValueError(f"who gets a list must be given with {options} (got none of them)")
            return
        for option in asked:
            kind = next(kind for kind, options in OPTIONS.items() if option in options)
            if kind != run.spec.kind:
                got = f"it with {run.spec.name}, one of {WORDS[run.spec.kind]}"
                raise ArgumentError(option, f"go with a model of {WORDS[kind]}", got)
        if self.sessions and self.clicks is not None:
            raise ArgumentError("--clicks", "be left out with --sessions", "both")

    def _check_out(self) -> None:
        if self.out is None:
            return
        if self.out.is_dir() or not self.out.absolute().parent.is_dir():
            what = "which is a folder" if self.out.is_dir() else "whose folder does not exist"
            raise ArgumentError("--out", "be a file in an existing folder", f"'{self.out}', {what}")
        if self.out.exists() and not self.running.overwrite:
            raise ExistsError("--out", "be a new file", f"'{self.out}', which exists")

    def users_of(self, train: InteractionGraph) -> Tensor:
        """Return the users that the options name, each once ``[num]``.

        Args:
            train: The training part of the run.
        """
        import torch

        from graphunlearn.data.io.files import read_ids

        given: dict[str, Sequence[Any]] = {"--users": list(chain(*self.users))}
        if self.users_file is not None:
            with reading("--users-file"):
                given["--users-file"] = read_ids(self.users_file, "user", **request_options(self.file, "user"))
        found = []
        for option, ids in given.items():
            numbers = _lookup(option, train.vocabulary("user"), ids)
            _refuse(option, "users of the run", ids, numbers < 0, "not among its users")
            served = train.active[numbers.to(train.device)].cpu()
            _refuse(option, "users that the model learned from", ids, ~served, UNSERVED)
            found.append(numbers)
        users = torch.tensor(list(dict.fromkeys(torch.cat(found).tolist())), dtype=torch.long)
        _tell_repeated(sum(map(len, found)) - len(users))
        return users.to(train.device)

    def _sessions(self, run: Run) -> SessionGraph:
        """Return the sessions that the options name, without clicks on items that the model has not learned."""
        from graphunlearn.data import SessionGraph

        if self.clicks is not None:
            return self._new_sessions(run)
        import torch

        ids = list(chain(*self.sessions))
        lists: dict[str, list[int]] = {}
        missing = torch.ones(len(ids), dtype=torch.bool)
        for part in (run.train, run.validation, run.test):
            names, items, ends = part.vocabulary("session"), part.items.tolist(), part.click_ptr.tolist()
            numbers = _lookup("--sessions", names, ids)
            missing &= numbers < 0
            for number in dict.fromkeys(numbers[numbers >= 0].tolist()):
                lists.setdefault(names[number], []).extend(items[ends[number] : ends[number + 1]])
        _refuse("--sessions", "sessions of the run", ids, missing, "not among its sessions")
        _tell_repeated(len(ids) - len(lists))
        ids_of_items = run.train.item_ids
        graph = SessionGraph.from_sequences(list(lists.values()), item_ids=ids_of_items, session_ids=list(lists))
        graph = graph.to(run.train.device)
        learned = graph.without_unseen(run.train)
        _refuse(
            "--sessions",
            "sessions with a click on an item that the model learned from",
            graph.session_ids,
            ~torch.isin(torch.arange(len(lists)), graph.vocabulary("session").lookup(learned.session_ids)),
            "without such a click",
        )
        return learned

    def _new_sessions(self, run: Run) -> SessionGraph:
        """Return the sessions of a file, without clicks on items that the model has not learned."""
        import warnings

        from graphunlearn.data import SessionGraph
        from graphunlearn.data.io.columns import CLICKS
        from graphunlearn.data.io.files import read_clicks
        from graphunlearn.data.io.frame import numbered
        from graphunlearn.data.vocabulary import preview

        assert self.clicks is not None
        given = self.file.given(CLICKS)
        with reading("--clicks", known="the run"):
            graph = SessionGraph.from_file(self.clicks, like=run.train, **given).to(run.train.device)
        learned = graph.without_unseen(run.train)
        unlearned = graph.num_clicks - learned.num_clicks
        if unlearned:
            note(f"{counted(unlearned, 'clicks')} on items without training clicks left out; neighbours are joined")
        if learned.num_left_out:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                numeric = numbered(run.train, CLICKS.ids)
                names = read_clicks(self.clicks, numeric=numeric, **given)["session"].astype(str).unique().tolist()
            served = set(learned.session_ids)
            lost = [name for name in names if name not in served]
            if len(lost) == len(names):
                raise ArgumentError("--clicks", "hold clicks on items that the model learned from", "none")
            if lost:
                get = "gets" if len(lost) == 1 else "get"
                what = f"{len(lost)} of {counted(len(names), 'sessions')} {get} no list: all clicks were left out"
                note(f"{what} ({preview(lost)})")
        return learned.collapse() if run.about.get("collapse_repeats") else learned

    def answer(self, query: str, names: list[str], item_ids: Vocabulary, items: Tensor, scores: Tensor) -> Answer:
        """Return the lists as the result of the command; with ``--out``, write them.

        Args:
            query: ``"user"`` or ``"session"``.
            names: Raw ids of those who get a list.
            item_ids: Raw ids of the items.
            items: The items ``[num, k]``.
            scores: Their scores ``[num, k]``.
        """
        from graphunlearn.data.io.files import write_atomic
        from graphunlearn.eval.report.verdict import format_number

        lists, rows = [], []
        for name, found, values in zip(names, items.tolist(), scores.tolist()):
            pairs = [(item_ids[item], value) for item, value in zip(found, values) if item >= 0]
            lists.append({query: name, "items": [item for item, _ in pairs], "scores": [value for _, value in pairs]})
            rows += [(name, item, rank, value) for rank, (item, value) in enumerate(pairs, 1)]
        data = {"run": str(self.source), "k": self.k, "out": None if self.out is None else str(self.out)}
        data |= {"lists": lists}
        header = (query, "item", "rank", "score")
        if self.out is None:
            shown = [(name, item, str(rank), format_number(value)) for name, item, rank, value in rows]
            return Answer(data, columns([header, *shown], [2, 3]))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_atomic(self.out, text.getvalue())
        return Answer(data, f"wrote {self.out}: {counted(len(rows), 'items')} for {counted(len(names), f'{query}s')}")


def _lookup(option: str, vocabulary: Vocabulary, ids: Sequence[Any]) -> Tensor:
    """Return the numbers of raw ids, -1 for unknown ones; an error about a malformed id names the option."""
    try:
        return vocabulary.lookup(ids)
    except ArgumentError as error:
        raise error.renamed(option) from None


def _refuse(option: str, expected: str, ids: Sequence[Any], bad: Tensor, what: str) -> None:
    """Raise an error that names the ids where ``bad`` is true, if there are any."""
    from graphunlearn.data.vocabulary import preview

    if bool(bad.any()):
        named = list(dict.fromkeys(str(ids[n]) for n in bad.nonzero().flatten().tolist()))
        raise ArgumentError(option, f"name {expected}", f"{preview(named)}, {what}")


def _tell_repeated(count: int) -> None:
    if count:
        note(f"{count} repeated {'entry counts' if count == 1 else 'entries count'} once")
