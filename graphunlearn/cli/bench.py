"""``graphunlearn bench``: methods compared with retrained models where it is known what should be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from graphunlearn.cli._fields import File, Float, Int, Out, optional
from graphunlearn.cli._methods import BENCHED, build_method, check_method
from graphunlearn.cli._options import models_of
from graphunlearn.cli._reports import Caching, check_retrain_seeds, command, written
from graphunlearn.cli._requests import request_options
from graphunlearn.cli._sources import Learner, sizes, tell_shared
from graphunlearn.cli._text import WORDS, Answer, device_of, listed, note
from graphunlearn.cli._wording import reading
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest
    from graphunlearn.eval import Scenario
    from graphunlearn.runs.run import Run

    Making = tuple[str, Callable[..., Scenario[Any]], bool]

__all__ = ["Bench"]

Name = Literal[
    "adversarial-edges",
    "random-edges",
    "users",
    "items",
    "flipped-labels",
    "core-users",
    "edge-users",
    "sensitive",
    "shilling",
    "click-fraud",
    "mislabelled-popular",
    "file",
    "session-clicks",
    "sessions",
    "spam-sessions",
]
Listed = Literal["interaction", "user", "item", "click", "session"]
SCENARIOS = {
    "interactions": (
        *("adversarial-edges", "random-edges", "users", "items", "flipped-labels", "core-users", "edge-users"),
        *("sensitive", "shilling", "click-fraud", "mislabelled-popular", "file"),
    ),
    "sessions": ("session-clicks", "sessions", "items", "spam-sessions", "file"),
}
"""The scenarios of each kind of graph."""
KEEPING = (
    *("random-edges", "users", "items", "core-users", "edge-users", "sensitive"),
    *("session-clicks", "sessions", "file"),
)
"""The scenarios that only draw a request, so that a trained model can be the original."""
REMOVED = {"users": "user", "items": "item", "random-edges": "interaction", "sessions": "session"}
OWN = {
    "side": ("adversarial-edges",),
    "request": ("file",),
    "level": ("file",),
    "positives_only": ("flipped-labels",),
    "keep_repeats": ("session-clicks",),
    "attackers": ("shilling", "click-fraud", "mislabelled-popular"),
    "targets": ("shilling", "click-fraud", "spam-sessions"),
    "attack": ("shilling",),
    "items": ("sensitive",),
    "category": ("sensitive",),
}
"""The scenarios that an option goes with; ``share`` goes with those that have one in the library."""
LISTED: dict[str, tuple[Listed, ...]] = {
    "interactions": ("interaction", "user", "item"),
    "sessions": ("click", "session", "item", "user"),
}
"""The levels that a file can list for each kind of graph; the first one is the default."""


@dataclass(kw_only=True)
class Bench(Learner):
    """Compare unlearning methods with retrained models in a scenario, which makes the request.

    The report gives the distance of every method to retraining, in both directions, and its cost.

    scenarios of users and items:
      adversarial-edges    users get the item that a clean model ranks lowest, which is to be forgotten
      flipped-labels       a share of the labels is wrong and to be forgotten
      random-edges         a random share of the interactions
      users, items         a random share of the users, or of the items
      core-users           the most active users
      edge-users           the least active users
      sensitive            some users forget all their interactions with sensitive items
      shilling             fake users promote a few items and are to be forgotten
      click-fraud          interactions of real users promote a few items and are to be forgotten
      mislabelled-popular  real users have wrong interactions with popular items, which are to be forgotten
      file                 the ids or pairs in a file

    scenarios of sessions:
      session-clicks       a click of the second half in a share of the sessions
      sessions, items      a random share of the sessions, or of the items in all sessions
      spam-sessions        fake sessions promote a few items and are to be forgotten
      file                 the ids or pairs in a file

    examples:
      graphunlearn bench adversarial-edges --data train.txt --test test.txt --methods ifru unlink --out runs/adversarial
      graphunlearn bench flipped-labels --data ratings.csv --out runs/flips
      graphunlearn bench users --data ratings.csv --share 0.05 --data-seeds 3 --out runs/users
      graphunlearn bench shilling --data ratings.csv --attack bandwagon --methods ifru unlink --out runs/fake
      graphunlearn bench sensitive --data ml-100k --category horror --out runs/horror
      graphunlearn bench file --request forget.csv --level interaction --data ratings.csv --out runs/mine
      graphunlearn bench session-clicks --data clicks.csv --model srgnn --methods cau finetune sisa --out runs/clicks
      graphunlearn bench users --run runs/a --methods ifru unlink --out runs/a-users
      graphunlearn bench sessions --data clicks.csv --last-sessions 20000 --model gru4rec --out runs/sessions
    """

    data: Annotated[str, arg(metavar="FILE", help_behavior_hint="")] = ""
    """File of interactions, or of clicks in sessions for a session model (.csv, .tsv, .txt, .inter, .jsonl, .parquet,
    also .gz), or the name of a known data set."""
    of_run: Annotated[Path | None, arg(name="run", metavar="RUN", help_behavior_hint="")] = None
    """Run folder whose model is the original, on its own data, instead of --data and a model to train; for scenarios
    that add and change nothing: random-edges, users, items, core-users, edge-users, sensitive, session-clicks,
    sessions and file."""
    scenario: Annotated[Positional[Name], arg(metavar="SCENARIO")]
    """One of the scenarios above; the model must be of the kind under which the scenario is listed."""
    out: Out
    """Folder for report.json and report.html."""
    methods: Annotated[tuple[str, ...] | None, optional("NAME ...")] = None
    """Any of alteraser, ascent, ascent-finetune, calibrate, cau, cau-published, ceu, cova, finetune, gif,
    gif-published, gnndelete, gnndelete-published, idea, ifru, ifru-published, negative-kl, popularity-kl, receraser,
    scif, scif-published, sisa, sru, ultrare, unlearnrec, unlearnrec-published, unlink and unlink-redraw; retrained
    models are always in the table (default: ifru unlink unlink-redraw finetune ascent; for sessions cau ascent
    ascent-finetune finetune unlink unlink-redraw)."""
    share: Float = None
    """Share to forget, flip or inject (adversarial-edges: 0.3 of the users; sensitive: 0.1 of the users with enough
    sensitive interactions; session-clicks: 0.1 of the long sessions; random-edges, core-users, edge-users: 0.05; the
    others: 0.02; spam-sessions: fake sessions per training session)."""
    attackers: Int = None
    """shilling, click-fraud: users per promoted item (default: 60, bandwagon 20); mislabelled-popular: users with wrong
    interactions (default: 100)."""
    targets: Int = None
    """shilling, click-fraud, spam-sessions: number of promoted items (default: 3, spam-sessions 10)."""
    attack: Annotated[Literal["average", "bandwagon"] | None, optional("{average,bandwagon}")] = None
    """shilling: "average" draws the other items of a fake user by popularity; "bandwagon" draws some of them from the
    most popular items and the rest from all items (default: average).
    """
    items: File = None
    """sensitive: file of the sensitive items, one id per line; with --category, a table of items and their categories.
    """
    category: Annotated[str | None, optional("NAME")] = None
    """sensitive: the category of the sensitive items in the table of --items. With --data ml-100k it can be a genre,
    and --items is not needed.
    """
    side: Annotated[Literal["user", "item", "both"] | None, optional("{user,item,both}")] = None
    """adversarial-edges: whether users get an item, items a user, or both (default: user)."""
    request: File = None
    """file: file of the ids to forget, one per line, or user,item for interactions and session,position for clicks."""
    level: Annotated[Listed | None, optional("{interaction,user,item,click,session}")] = None
    """file: level of the ids in the file (default: interaction, for sessions click)."""
    positives_only: bool = False
    """flipped-labels: propagate over positive labels only, as the public code of IFRU does; the training still uses all
    labels.
    """
    keep_repeats: bool = False
    """session-clicks: leave consecutive clicks on one item as they are; by default they count as one."""
    data_seeds: int = 1
    """Number of splits and requests; sessions are always split by time."""
    original_seeds: int = 1
    """Number of original models per split."""
    retrain_seeds: int = 5
    """Number of retrained models per split; at least 2, to measure how much two of them differ."""
    floors: bool = False
    """Put the quality of recommenders that need no training under floors in report.json: the most popular items,
    item-kNN, EASE and implicit ALS, or for sessions the most popular items, Markov and session-kNN."""
    caching: Annotated[Caching, arg(name="")] = field(default_factory=Caching)
    seed: int = 0
    """First data seed; all others follow from it."""

    def run(self) -> Answer:
        """Run the bench and write the report."""
        from graphunlearn.eval import bench
        from graphunlearn.operators import Retrain
        from graphunlearn.runs.folder import check_out

        check_out(self.out, self.running.overwrite)
        if self.of_run is not None:
            return self._of_run(self.of_run)
        if not self.data:
            raise ArgumentError("--data", "name a file or a data set", "none", "'--run' takes the data of a run")
        device, cache = str(device_of(self.running.device)), self.caching.folder()
        kind, spec = self.learning.kind, self.learning.spec()
        names = BENCHED[kind] if self.methods is None else self.methods
        if not names or Retrain.name in names:
            raise ArgumentError("--methods", "name methods other than retrain", " ".join(names) or "none")
        self._check_options(self.learning.model, kind)
        self.check_kind()
        objective = self.learning.loss(self.scenario == "flipped-labels" or self.threshold is not None)
        for method in names:  # before any file is read
            check_method(method, spec, "--methods")
            build_method(method, objective)
        name, scenario, labelled = self._flipped() if self.scenario == "flipped-labels" else self._scenario()
        objective = self.learning.loss(labelled)
        result = bench(
            scenario,
            [build_method(method, objective) for method in dict.fromkeys(names)],
            model="lightgcn-positives" if self.positives_only else spec.name,
            dim=spec.dim,
            layers=spec.layers,
            objective=objective,
            settings=self.training.settings(kind, self.seed),
            original_seeds=self.original_seeds,
            dataset=name,
            device=device,
            cache=cache,
            **self._seeds(),
        )
        return written(result, self.out, self.running.overwrite)

    def _seeds(self) -> dict[str, Any]:
        """Return the arguments of the bench that do not depend on the model."""
        seeds = {"data_seeds": self.data_seeds, "retrain_seeds": self.retrain_seeds, "seed": self.seed}
        return seeds | {"command": command(), "floors": self.floors}

    def _of_run(self, source: Path) -> Answer:
        """Compare methods on the model of a run and its own data, and write the report."""
        from graphunlearn.eval import bench
        from graphunlearn.operators import Retrain
        from graphunlearn.runs.run import Run

        theirs = {"--data": self.data, "--test": self.test, "--threshold": self.threshold}
        theirs |= {"--last-sessions": self.last_sessions, "--collapse-repeats": self.collapse_repeats or None}
        learned = {name: value for name, value in vars(self.learning).items() if name != "model"}
        theirs |= {f"--{name.replace('_', '-')}": value for name, value in (learned | vars(self.training)).items()}
        for option, value in theirs.items():
            if value not in (None, ""):
                raise ArgumentError(option, "be left out with --run, which has its own", value)
        if self.scenario not in KEEPING:
            got = f"{self.scenario}, which changes the data that models are trained on"
            raise ArgumentError("--run", f"go with {listed(KEEPING, 'or')}", got)
        if self.original_seeds != 1:
            raise ArgumentError("--original-seeds", "be 1 with --run, which has one original", self.original_seeds)
        run = Run.load(source, device_of(self.running.device))
        kind, spec = run.spec.kind, run.spec
        names = BENCHED[kind] if self.methods is None else self.methods
        if not names or Retrain.name in names:
            raise ArgumentError("--methods", "name methods other than retrain", " ".join(names) or "none")
        self._check_options(spec.name, kind)
        for method in names:
            check_method(method, spec, "--methods")
        result = bench(
            self._request_on(run),
            [build_method(method, run.objective) for method in dict.fromkeys(names)],
            model=spec.name,
            dim=spec.dim,
            layers=spec.layers,
            objective=run.objective,
            settings=run.settings,
            dataset=run.about.get("dataset") or "",
            device=str(run.train.device),
            cache=self.caching.folder(),
            original=run.model,
            other_training="imported" in run.about and (spec.code is None or spec.code.retrain is None),
            **self._seeds(),
        )
        return written(result, self.out, self.running.overwrite)

    def _request_on(self, run: Run) -> Callable[[int], Scenario[Any]]:
        """Return the function that draws a request on the data of a run, for a seed."""
        from graphunlearn.data import ForgetRequest

        asked = None
        if self.request is not None:
            with reading("--request"):
                level = self.level or LISTED[run.spec.kind][0]
                asked = ForgetRequest.from_file(self.request, level, **request_options(self.file, level))
        category = self._category() if self.scenario == "sensitive" else []

        def make(seed: int) -> Scenario[Any]:
            parts = []
            for held_out in (run.validation, run.test):  # what a request takes from one part, it takes from the other
                given: dict[str, Any] = {"test": held_out, "fractions": (1.0, 0.0, 0.0)}
                given |= {} if self.share is None else {"share": self.share}
                if self.scenario == "session-clicks":  # repeats were collapsed before the training, or were not
                    given["collapse_repeats"] = False
                parts.append(self._making(run.train, asked, category, given)(seed=seed))
            return replace(parts[1], validation=parts[0].test)

        return make

    def _check_options(self, model: str, kind: str) -> None:
        """Check that the scenario and the options fit the model and each other.

        Args:
            model: Name of the model.
            kind: The kind of graph that it learns from.
        """
        from graphunlearn.eval import SHARES

        if self.scenario not in SCENARIOS[kind]:
            others = listed(models_of(next(other for other in SCENARIOS if other != kind)), "or")
            expected = f"{listed(SCENARIOS[kind], 'or')} for {model}, a model of {WORDS[kind]}"
            got = f"{self.scenario!r}, which goes with --model {others}"
            raise ValueError(f"the scenario must be {expected} (got {got})")
        check_retrain_seeds(self.retrain_seeds)
        for option, scenarios in {**OWN, "share": tuple(SHARES)}.items():
            value = getattr(self, option)
            if value is not None and value is not False and self.scenario not in scenarios:
                offered = [name for name in scenarios if name in SCENARIOS[kind]] or scenarios
                name = f"--{option.replace('_', '-')}"
                raise ArgumentError(name, f"go with {' or '.join(offered)}", f"it with {self.scenario}")
        if self.keep_repeats and self.collapse_repeats:
            raise ArgumentError("--keep-repeats", "be left out with --collapse-repeats", "both")
        if self.scenario == "file" and self.request is None:
            raise ArgumentError("--request", "name the file of what to forget", "none")
        if self.scenario == "sensitive" and self.items is None and (self.category is None or self.data != "ml-100k"):
            raise ArgumentError(
                "--items", "name the file of sensitive items", "none", "'--data ml-100k --category GENRE' goes without"
            )
        if self.level is not None and self.level not in LISTED[kind]:
            raise ArgumentError("--level", f"be {listed(LISTED[kind], 'or')} for {model}", self.level)

    def _scenario(self) -> Making:
        """Return the name of the data, the function that makes the scenario, and whether the data have labels."""
        from graphunlearn.data import ForgetRequest
        from graphunlearn.eval import adversarial_edges

        asked = None
        if self.request is not None:
            with reading("--request"):
                level = self.level or LISTED[self.learning.kind][0]
                asked = ForgetRequest.from_file(self.request, level, **request_options(self.file, level))
        category = self._category() if self.scenario == "sensitive" else []
        clicks = self.scenario == "session-clicks"  # this scenario collapses repeats itself and notes it in the report
        name, graph, test = self.read(self.learning.objective, self.collapse_repeats and not clicks)
        if self.test is not None:
            tell_shared(test, {"training and validation data": graph})
        labelled = graph.kind == "interactions" and graph.label is not None
        keywords = {"test": test} | ({} if self.share is None else {"share": self.share})
        if self.scenario == "adversarial-edges":
            side = self.side or "user"
            return name, lambda seed, clean: adversarial_edges(graph, clean, side=side, seed=seed, **keywords), labelled
        if clicks:
            keywords["collapse_repeats"] = not self.keep_repeats
            if not self.keep_repeats:
                note("consecutive clicks on one item count as one ('--keep-repeats' leaves them as they are)")
        make = self._making(graph, asked, category, keywords)
        return name, lambda seed: make(seed=seed), labelled

    def _making(
        self, graph: Any, asked: ForgetRequest | None, category: list[str], keywords: dict[str, Any]
    ) -> Callable[..., Scenario[Any]]:
        """Return the function that makes the scenario on a graph, without its seed."""
        from graphunlearn.eval import removal, session_clicks

        if asked is not None:
            return partial(_requested, graph, asked, **keywords)
        if self.scenario == "session-clicks":
            return partial(session_clicks, graph, **keywords)
        if self.scenario in REMOVED:
            return partial(removal, graph, REMOVED[self.scenario], **keywords)
        given = {"attackers": self.attackers, "targets": self.targets, "kind": self.attack}
        keywords = keywords | {option: value for option, value in given.items() if value is not None}
        return partial(_made, self.scenario, graph, **keywords, **({"items": category} if category else {}))

    def _category(self) -> list[str]:
        """Return the ids of the sensitive items."""
        from graphunlearn.data.io.files import read_ids
        from graphunlearn.datasets.card import ROOT_VARIABLE, folder_of
        from graphunlearn.eval import items_of_category

        path = self.items
        if path is None:
            folder = folder_of(None)
            tables = [] if folder is None else [folder / "ml-100k" / name for name in ("ml-100k.item", "u.item")]
            path = next((table for table in tables if table.is_file()), None)
            if path is None:
                place = f"{ROOT_VARIABLE} must name a folder with ml-100k/u.item for '--category' without '--items'"
                raise ValueError(f"{place} (got {'none' if folder is None else f'{folder} without it'})")
        with reading("--items"):
            given = request_options(self.file, "item")
            return read_ids(path, "item", **given) if self.category is None else items_of_category(path, self.category)

    def _flipped(self) -> Making:
        """Return the same as :meth:`_scenario`, for flipped labels."""
        from graphunlearn.eval import flipped_labels

        if self.test is not None:
            raise ArgumentError("--test", "be left out for flipped-labels, which splits the data 60/20/20", "one")
        if self.learning.objective not in (None, "bce"):
            got = f"{self.learning.objective}, which does not learn from labels"
            raise ArgumentError("--objective", "be bce for flipped-labels", got)
        if self.positives_only and self.learning.model != "lightgcn":
            raise ArgumentError("--positives-only", "go with --model lightgcn", self.learning.model)
        name, graph, _ = self.as_published()
        note(f"{name}: {sizes(graph)}")
        keywords = {"threshold": 3.0 if self.threshold is None else self.threshold}
        keywords |= {} if self.share is None else {"share": self.share}
        return name, lambda seed: flipped_labels(graph, seed=seed, **keywords), True


def _requested(graph: Any, asked: ForgetRequest, **keywords: Any) -> Scenario[Any]:
    """Return the scenario of a file; errors about the request name the option."""
    from graphunlearn.eval import requested

    try:
        return requested(graph, asked, **keywords)
    except ArgumentError as error:
        raise error.renamed("--request" if error.argument in ("index", "request") else None) from error


def _made(scenario: str, graph: Any, **keywords: Any) -> Scenario[Any]:
    """The scenario of one of the library's functions; an error about the graph names the option."""
    from graphunlearn import eval as library

    make = getattr(library, scenario.replace("-", "_"))
    try:
        return make(graph, **keywords)
    except ArgumentError as error:
        raise error.renamed("--data" if error.argument == "graph" else None) from error
