"""``graphunlearn forget``: unlearns a request from the model of a run, and writes a new run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._exact import forget_exactly
from graphunlearn.cli._fields import File, Files, Ids, Int, Out, RunFolder, Running, Settings, optional
from graphunlearn.cli._ledgers import check_no_key, finished, not_entered
from graphunlearn.cli._methods import DEFAULT, check_method, options_of, serving
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._requests import OPTIONS, Asked, check_asked, described, learned_part, request_of
from graphunlearn.cli._text import Answer, counted, device_of, note
from graphunlearn.cli.prepare import file_of, method_for
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest
    from graphunlearn.ledger import Ledger, LedgerEntry
    from graphunlearn.operators import UnlearningResult
    from graphunlearn.runs.run import ModelSpec

__all__ = ["Forget"]


@dataclass(kw_only=True)
class Forget:
    """Forget users, items, interactions, sessions or clicks from a trained model, without training it again.

    Ids are those in the file that the model was trained on. Several options can be combined. If a click is forgotten,
    its session keeps the other clicks, and the neighbours of the click become adjacent. The new run folder contains the
    corrected model and, for 'graphunlearn audit', the original model and the request; after the audit, 'graphunlearn
    purge' deletes them, and 'graphunlearn erase' writes a folder without the rows of those who were forgotten. A method
    prepared by 'graphunlearn prepare' reads its preparation from RUN; the preparation is copied to the new folder, for
    further requests. sisa and sru need no copy, because the new model contains the models of their shards. A run of
    ease, itemknn or als takes no method, and there is no original to keep: ease and itemknn forget exactly, and als
    sweeps over the retained data until its equations hold to its tolerance.

    With --ledger, RUN must be the newest run of that ledger. If the command is interrupted, the same command finishes
    the request; if the request is already finished, the command says so.

    examples:
      graphunlearn forget runs/a --users 196 186 --out runs/b
      graphunlearn forget runs/a --items 242 --pairs forget.csv --out runs/c      # forget.csv: user,item per line
      graphunlearn forget runs/a --users 196 --method ifru --option damping=0.3 max_steps=2 --out runs/d
      graphunlearn forget runs/a --users 196 --method unlearnrec --out runs/e     # after 'graphunlearn prepare runs/a'
      graphunlearn forget runs/a --users 196 --ledger runs/ledger.db --out runs/f
      graphunlearn forget runs/g --sessions 17 39 --out runs/h
      graphunlearn forget runs/g --sessions 17 --method sisa --out runs/i         # after 'prepare runs/g --method sisa'
      graphunlearn forget runs/g --clicks clicks.csv --method cau --out runs/h    # clicks.csv: session,position
    """

    source: RunFolder
    """Run folder, as 'train' or 'forget' writes it."""
    users: Ids = ()
    """Users to forget, with all their interactions or, if the data have users of sessions, with all their sessions."""
    items: Ids = ()
    """Items to forget, with all their interactions or clicks."""
    pairs: Files = ()
    """Files of interactions to forget, a user and an item per line."""
    sessions: Ids = ()
    """Sessions to forget."""
    clicks: Files = ()
    """Files of clicks to forget, a session and a position in it per line, and the item if there is a column of it,
    which is then checked; positions count from 0 in the session in RUN, which an earlier 'forget' may have shortened.
    """
    method: Annotated[str | None, optional("NAME")] = None
    """alteraser, ascent, ascent-finetune, calibrate, cau, cau-published, ceu, cova, finetune, gif, gif-published,
    gnndelete, gnndelete-published, idea, ifru, ifru-published, negative-kl, popularity-kl, receraser, retrain,
    scif, scif-published, sisa, sru, ultrare, unlearnrec, unlearnrec-published, unlink or unlink-redraw (default: ifru,
    for sessions cau)."""
    option: Settings = ()
    """Options of the method, such as damping=0.3; an error about a wrong name lists all options."""
    out: Out
    """Folder to write."""
    seed: Int = None
    """Seed of the method, if the method draws random numbers."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    ledger: File = None
    """Ledger to which the request is added; it is created if it does not exist ('graphunlearn ledger --help')."""
    key: File = None
    """Key file of the ledger (default: a file in GRAPHUNLEARN_KEYS, or ~/.config/graphunlearn)."""
    running: Annotated[Running, arg(name="")] = field(default_factory=Running)

    def run(self) -> Answer:
        """Forget and write the folder."""
        from graphunlearn.runs.exact import exact_name
        from graphunlearn.runs.folder import check_out

        asked: Asked = {
            level: list(chain(*getattr(self, option.removeprefix("--")))) for level, option in OPTIONS.items()
        }
        if self.ledger is None:
            check_no_key(self.key)
            check_out(self.out, self.running.overwrite)
        check_asked(asked)
        if exact_name(self.source) is not None:
            return forget_exactly(self, self.source, partial(request_of, asked, file=self.file))
        return self.forget(partial(request_of, asked, file=self.file))

    def forget(self, asking: Callable[[ModelSpec], ForgetRequest], ledger: Ledger | None = None) -> Answer:
        """Forget a request and write the folder.

        Args:
            asking: Function that returns the request for the model of the run.
            ledger: The ledger, if the caller has opened it already.

        Returns:
            The result of the command.
        """
        from graphunlearn.ledger import Ledger
        from graphunlearn.ledger.places import relative_to_ledger
        from graphunlearn.runs.folder import check_out
        from graphunlearn.runs.run import Forgotten, Run

        if self.ledger is not None and ledger is None:
            with Ledger(self.ledger, key=self.key) as ledger:
                finished(ledger)
                return self.forget(asking, ledger)
        run = Run.load(self.source, device_of(self.running.device))
        asked = asking(run.spec)
        name = self.method or DEFAULT[run.spec.kind]
        check_method(name, run.spec, offered=serving())
        if ledger is not None:
            done = ledger.find(asked, run.model, run.train)
            if done is not None:
                return self._done(done)
            pending = ledger.pending
            if pending is not None and pending.request.fingerprint() == asked.fingerprint():
                note(f"continuing the request of {pending.time}, which was interrupted")
            check_out(self.out, self.running.overwrite)
        request, held, sentences = learned_part(asked, run)
        words = list(chain(*self.option))
        method = method_for(run, self.source, name, words, self.seed)
        what = described(request, run.train)
        for sentence in sentences:
            note(sentence)
        noun = "clicks" if run.spec.kind == "sessions" else "interactions"
        note(f"forgetting {what[noun]:,} of {run.train.num_interactions:,} {noun} with {method.name}")
        options = options_of(method)

        def keep(folder: Path) -> None:
            method.save(folder / file_of(method.name))

        def save(result: UnlearningResult) -> None:
            pending = None if ledger is None else ledger.pending
            token = None if pending is None else pending.token
            forgotten = Forgotten(run.model, run.train, result, options, token)
            after = replace(run, model=result.model, train=result.graph, forgotten=forgotten)
            goes_on = method.keeps is not None and method.asks_preparation(result.model)
            after.save(self.out, self.running.overwrite, keep if goes_on else None)

        if ledger is None:
            result = method.unlearn(run.model, run.train, request)
            save(result)
        else:
            place = relative_to_ledger(self.out, ledger.path)
            facts: dict[str, Any] = {"asked": asked, "command": self._command(), "out": place}
            try:
                result = ledger.unlearn(
                    method, run.model, run.train, request, save=save, objective=run.objective, **facts
                )
            except ArgumentError as error:
                raise not_entered(error, run) from error
        return self.answer(result, options, what, held, noun)

    def answer(
        self, result: UnlearningResult, options: dict[str, Any], what: dict[str, int], held: dict[str, int], noun: str
    ) -> Answer:
        """Return the result of the command.

        Args:
            result: The result of the method.
            options: The options of the method.
            what: What was forgotten of the training part.
            held: What was forgotten of other parts.
            noun: ``"interactions"`` or ``"clicks"``.
        """
        from graphunlearn.eval.report.verdict import format_seconds

        data: dict[str, Any] = {"out": str(self.out), "options": options, "request": what | held}
        data["peak_memory_mb"] = result.peak_memory / 2**20
        told = ("method", "seconds", "cpu_seconds", "prepare_seconds", "accepted", "log")
        data |= {name: getattr(result, name) for name in told}
        kept_now = result.graph.num_interactions
        entered = result.log.get("ledger")
        text = (
            f"forgot {counted(what[noun], noun)} with {result.method} in {format_seconds(result.seconds)}; "
            f"{kept_now:,} {'is' if kept_now == 1 else 'are'} kept\n{_acceptance(result)}"
            f"wrote {self.out}\n{'' if entered is None else self._entered(entered)}next: graphunlearn audit {self.out}"
        )
        return Answer(data, text)

    def _command(self) -> dict[str, Any]:
        """Return the options from which ``ledger resume`` rebuilds this command, without the request."""
        return {
            "source": str(self.source.absolute()),
            "out": str(self.out.absolute()),
            "method": self.method,
            "option": list(chain(*self.option)),
            "seed": self.seed,
            "device": self.running.device,
            "overwrite": self.running.overwrite,
        }

    def _done(self, entry: LedgerEntry) -> Answer:
        """Return the result of a command whose request is already in the ledger."""
        from graphunlearn.ledger.places import run_folder_of

        assert self.ledger is not None
        where = "" if entry.out is None else f"; the new run is {run_folder_of(entry.out, self.ledger)}"
        text = f"done already: entry {entry.number} of {self.ledger}, {entry.time}{where}"
        return Answer({"done": True, "entry": entry.to_dict()}, text)

    def _entered(self, told: dict[str, Any]) -> str:
        """Return the line about the new entry of the ledger."""
        from graphunlearn.eval.report.verdict import format_number

        drift = told.get("drift")
        spent = "" if drift is None else f", drift {format_number(drift['spent'])} of {drift['budget']:g}"
        return f"entry {told['entry']} of {self.ledger}{spent}\n"


def _acceptance(result: UnlearningResult) -> str:
    """Return the line that says whether the correction was accepted; empty if the first step was."""
    found = result.log.get("acceptance", {})
    outcome = found.get("outcome", "corrected" if result.accepted else "unlink-redraw")
    if outcome == "corrected":
        return ""
    if outcome == "not judged":
        return f"the correction was not compared with deleting the edges: {found['reason']}\n"
    if result.accepted:
        return f"the first correction was worse than deleting the edges; accepted: {found['tried'][-1]['what']}\n"
    if outcome == "kept":
        return "the correction was not accepted (see log.acceptance); it is kept, since on_rejection is keep\n"
    if found.get("corrected", {}) is None:
        return "not corrected: the edges are deleted; the model was trained with another loss (see log.acceptance)\n"
    return "not corrected: the edges are deleted, and no correction was better than that (see log.acceptance)\n"
