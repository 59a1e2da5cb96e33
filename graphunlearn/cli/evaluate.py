"""``graphunlearn evaluate``: measures the recommendations of a run on held-out data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from graphunlearn.cli._exact import exact_quality
from graphunlearn.cli._fields import File, Printing, RunFolder
from graphunlearn.cli._quality import quality
from graphunlearn.cli._reading import FileOptions
from graphunlearn.cli._sources import read_as_trained, tell_shared
from graphunlearn.cli._text import Answer, columns, counted, device_of, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.runs.run import Graph, Run

__all__ = ["Evaluate"]


@dataclass(kw_only=True)
class Evaluate:
    """Measure the recommendations of a run on its test part, or on the interactions or sessions of a file.

    The whole catalogue is ranked, for users without the items that they have in the training part, for sessions after
    every click that has a next one. Ids in a file are those of the data that the model was trained on; rows with
    others are left out, and counted.

    examples:
      graphunlearn evaluate runs/a
      graphunlearn evaluate runs/b --test later.csv --ks 5 20 50
      graphunlearn evaluate runs/g --test clicks.csv --json          # clicks.csv: session,item,time
    """

    source: RunFolder
    """Run folder, as 'train' or 'forget' writes it."""
    test: File = None
    """File of interactions or of clicks in sessions, instead of the test part of the run."""
    ks: Annotated[tuple[int, ...], arg(metavar="INT ...")] = (10, 20)
    """Lengths of the recommendation list."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    file: Annotated[FileOptions, arg(name="")] = field(default_factory=FileOptions)
    running: Annotated[Printing, arg(name="")] = field(default_factory=Printing)

    def run(self) -> Answer:
        """Read the data and measure."""
        from graphunlearn.eval.report.verdict import format_number
        from graphunlearn.runs.exact import ExactRun, exact_name
        from graphunlearn.runs.run import Run

        if not self.ks or min(self.ks) < 1:
            raise ArgumentError("--ks", "be list lengths of at least 1", " ".join(map(str, self.ks)) or "none")
        ks = tuple(dict.fromkeys(self.ks))
        device = device_of(self.device)
        exact = None if exact_name(self.source) is None else ExactRun.load(self.source, device)
        run: Any = Run.load(self.source, device) if exact is None else exact
        held_out = run.test if self.test is None else self._read(run)
        self._check(held_out, run)
        if exact is None:
            scores, counts = quality(run.model.eval(), run.train, held_out, ks)
        else:
            scores, counts = exact_quality(exact, held_out, ks)
        data: dict[str, Any] = {"run": str(self.source), "test": None if self.test is None else str(self.test)}
        data |= {"ks": ks, "metrics": scores, "counts": counts}
        names = list(dict.fromkeys(name.partition("@")[0] for name in scores if "@" in name))
        rows = [["", *(f"@{k}" for k in ks)]]
        rows += [[name, *(format_number(scores[f"{name}@{k}"]) for k in ks)] for name in names]
        lines = [columns(rows, range(1, len(ks) + 1))]
        if "auroc" in scores:
            lines.append(f"auroc of the labels: {format_number(scores['auroc'])}")
        return Answer(data, "\n".join([*lines, self._told(counts)]))

    def _read(self, run: Run) -> Graph:
        """Return the data of the file, with labels, or only the positive interactions, as the run was trained."""
        assert self.test is not None
        graph = read_as_trained(run, self.test, "--test", self.file, like=run.train)
        tell_shared(graph, {"training part": run.train, "validation part": run.validation})
        return graph

    def _check(self, held_out: Graph, run: Run) -> None:
        """Check that there is something to measure, and say what the model has not learned from.

        Raises:
            ArgumentError: There is nothing to measure.
        """
        option = "run" if self.test is None else "--test"
        what = "have a test part with" if self.test is None else "hold"
        if held_out.kind == "sessions":
            learned = held_out.without_unseen(run.train)
            unlearned = held_out.num_clicks - learned.num_clicks
            if unlearned:
                clicks = counted(unlearned, "test clicks")
                note(f"{clicks} on items without training clicks left out; neighbours are joined")
            if not bool((learned.length > 1).any()):
                expected = f"{what} a session of two clicks or more, on items that are trained on"
                raise ArgumentError(option, expected, "none")
            return
        if not held_out.num_interactions:
            raise ArgumentError(option, f"{what} interactions to measure", "none")
        active = run.train.active
        cold = int((~(active[held_out.pairs[0]] & active[held_out.pairs[1] + run.train.num_users])).sum())
        if cold:
            of = f"{cold:,} of the {counted(held_out.num_interactions, 'test interactions')}"
            have = "has a user or an item" if cold == 1 else "have users or items"
            note(f"{of} {have} without training interactions, and {'counts' if cold == 1 else 'count'} all the same")

    def _told(self, counts: dict[str, int]) -> str:
        """Return the line about what was measured."""
        parts: list[Any] = []
        for name, noun in (("users", "users"), ("pairs", "test pairs"), ("sessions", "sessions")):
            if f"num_{name}" in counts:
                parts.append(counted(counts[f"num_{name}"], noun))
        if "num_predictions" in counts:
            parts.append(counted(counts["num_predictions"], "predictions"))
        left = {
            "num_pairs_left_out": "pairs that are in training",
            "num_rows_left_out": "rows with unknown users or items",
            "num_clicks_left_out": "clicks on unknown items",
        }
        out = [f"{counts[name]:,} {text}" for name, text in left.items() if counts.get(name)]
        return f"measured: {', '.join(parts)}" + (f"; left out: {', '.join(out)}" if out else "")
