"""``bench``: methods where one knows what should be forgotten, or on any list of one's own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from graphunlearn.cli.common import Answer, Data, Learning, Training, device_of, note, optional, sizes
from graphunlearn.cli.folders import check_out, replaced
from graphunlearn.cli.methods import build_method, listed, method_names
from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval import (
    SHARES,
    Audit,
    Scenario,
    adversarial_edges,
    bench,
    flipped_labels,
    removal,
    requested,
)
from graphunlearn.eval.report import complete
from graphunlearn.operators import Retrain

__all__ = ["Bench", "Caching", "answer", "command", "written"]

LEVELS = {"users": "user", "items": "item", "random-edges": "interaction"}
CACHE_VARIABLE = "GRAPHUNLEARN_CACHE"
OFFERED = (
    f"Any of {listed([name for name in method_names() if name != Retrain.name], 'and')}; "
    "retrained models are always in the table."
)


@dataclass(frozen=True, kw_only=True)
class Caching:
    """Where trained models are kept for later."""

    cache: Annotated[
        Path | None,
        optional("DIR", f"Folder of retrained models (default: {CACHE_VARIABLE}, or ~/.cache/graphunlearn)."),
    ] = None
    no_cache: bool = False
    """Train all models anew, and keep none."""

    def folder(self) -> Path | None:
        """Return the folder, or nothing where none is wanted.

        Raises:
            ValueError: It is no folder, or there are two answers.
        """
        if self.no_cache:
            if self.cache is not None:
                raise ValueError(f"'--cache' must be left out with --no-cache (got '{self.cache}')")
            return None
        folder = self.cache or Path(os.environ.get(CACHE_VARIABLE) or _home() / "graphunlearn")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"'--cache' must be a folder (got '{folder}', which is something else)")
        return folder


@dataclass(kw_only=True)
class Bench(Data):
    """Run unlearning methods on data where one knows what should be forgotten, against retrained models.

    adversarial-edges gives users the item that a clean model ranks lowest, trains on that, and asks to forget it;
    flipped-labels does so with wrong labels. random-edges, users and items forget a random share; file forgets what
    a file lists. The report says how close every method comes to retraining, two-sided, and at what cost.

    examples:
      graphunlearn bench adversarial-edges --data train.txt --test test.txt --methods ifru unlink --out runs/adversarial
      graphunlearn bench flipped-labels --data ratings.csv --out runs/flips
      graphunlearn bench users --data ratings.csv --share 0.05 --data-seeds 3 --out runs/users
      graphunlearn bench file --request forget.csv --level interaction --data ratings.csv --out runs/mine
    """

    scenario: Annotated[
        Positional[Literal["adversarial-edges", "random-edges", "users", "items", "flipped-labels", "file"]],
        arg(metavar="SCENARIO"),
    ]
    """adversarial-edges, random-edges, users, items, flipped-labels or file."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder for report.json and report.html."""
    methods: Annotated[tuple[str, ...], arg(metavar="NAME ...", help=OFFERED)] = (
        "ifru",
        "unlink",
        "finetune",
        "ascent",
    )
    share: Annotated[float | None, optional("FLOAT")] = None
    """Share to forget, flip or inject (adversarial-edges: 0.3 of the users; random-edges: 0.05; the others: 0.02)."""
    side: Annotated[Literal["user", "item", "both"] | None, optional("{user,item,both}")] = None
    """adversarial-edges: whether users get an item, items a user, or both (default: user)."""
    request: Annotated[Path | None, optional("FILE")] = None
    """file: what to forget, in the ids of the data: one per line, or user,item for interactions."""
    level: Annotated[Literal["interaction", "user", "item"] | None, optional("{interaction,user,item}")] = None
    """file: what a line of the file names (default: interaction)."""
    positives_only: bool = False
    """flipped-labels: propagate over positive labels only, as the public code of IFRU does; all are trained on."""
    data_seeds: int = 1
    """Number of splits and requests."""
    original_seeds: int = 1
    """Number of original models per split."""
    retrain_seeds: int = 5
    """Number of retrained models per split; at least 2, to know how far two of them are apart."""
    learning: Annotated[Learning, arg(name="")] = field(default_factory=Learning)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)
    caching: Annotated[Caching, arg(name="")] = field(default_factory=Caching)
    seed: int = 0
    """First data seed; all others follow from it."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier report."""
    json: bool = False
    """Print the report as JSON."""

    def run(self) -> Answer:
        """Run the bench and write the report."""
        check_out(self.out, self.overwrite)
        device, cache = str(device_of(self.device)), self.caching.folder()
        if not self.methods or Retrain.name in self.methods:
            named = " ".join(self.methods) or "none"
            raise ValueError(f"'--methods' must name methods other than retrain (got {named})")
        self._check_options()
        objective = self.learning.loss(self.scenario == "flipped-labels" or self.threshold is not None)
        for method in self.methods:
            build_method(method, objective)  # a wrong name is told before any file is read
        name, scenario, labelled = self._flipped() if self.scenario == "flipped-labels" else self._scenario()
        objective = self.learning.loss(labelled)
        methods = [build_method(method, objective) for method in dict.fromkeys(self.methods)]
        result = bench(
            scenario,
            methods,
            model="lightgcn-positives" if self.positives_only else self.learning.model,
            dim=self.learning.dim,
            layers=self.learning.layers,
            objective=objective,
            settings=self.training.settings(self.seed),
            data_seeds=self.data_seeds,
            original_seeds=self.original_seeds,
            retrain_seeds=self.retrain_seeds,
            seed=self.seed,
            dataset=name,
            device=device,
            cache=cache,
            command=command(),
        )
        return written(result, self.out, self.overwrite)

    def _check_options(self) -> None:
        """Refuse options of other scenarios than the one that is run."""
        own: dict[str, tuple[str, ...]] = {
            "side": ("adversarial-edges",),
            "request": ("file",),
            "level": ("file",),
            "share": tuple(SHARES),
        }
        for option, scenarios in own.items():
            value = getattr(self, option)
            if value is not None and self.scenario not in scenarios:
                raise ValueError(f"'--{option}' must go with {' or '.join(scenarios)} (got it with {self.scenario})")
        if self.positives_only and self.scenario != "flipped-labels":
            raise ValueError(f"'--positives-only' must go with flipped-labels (got it with {self.scenario})")
        if self.scenario == "file" and self.request is None:
            raise ValueError("'--request' must name the file of what to forget (got none)")

    def _scenario(self) -> tuple[str, Callable[..., Scenario], bool]:
        asked = None if self.request is None else ForgetRequest.from_file(self.request, self.level or "interaction")
        name, graph, test = self.read(self.learning.objective)
        keywords: dict[str, Any] = {"test": test}
        if self.share is not None:
            keywords["share"] = self.share
        if asked is not None:
            return name, lambda seed: _requested(graph, asked, seed=seed, **keywords), graph.label is not None
        if self.scenario == "adversarial-edges":
            keywords["side"] = self.side or "user"
            return (
                name,
                lambda seed, clean: adversarial_edges(graph, clean, seed=seed, **keywords),
                graph.label is not None,
            )
        level = LEVELS[self.scenario]
        return name, lambda seed: removal(graph, level, seed=seed, **keywords), graph.label is not None

    def _flipped(self) -> tuple[str, Callable[..., Scenario], bool]:
        if self.test is not None:
            raise ValueError("'--test' must be left out for flipped-labels, which splits the data 60/20/20 (got one)")
        if self.learning.objective == "bpr":
            raise ValueError("'--objective' must be bce for flipped-labels (got bpr, which does not learn from labels)")
        if self.positives_only and self.learning.model != "lightgcn":
            raise ValueError(f"'--positives-only' must go with --model lightgcn (got {self.learning.model})")
        name, graph, _ = self._read()
        note(f"{name}: {sizes(graph)}")
        keywords: dict[str, Any] = {"threshold": 3.0 if self.threshold is None else self.threshold}
        if self.share is not None:
            keywords["share"] = self.share
        return name, lambda seed: flipped_labels(graph, seed=seed, **keywords), True


def written(result: Audit, out: Path, overwrite: bool) -> Answer:
    """Write the report into a folder of its own and say so."""
    with replaced(out, overwrite) as folder:
        result.write(folder)
    return answer(result, out)


def answer(result: Audit, out: Path) -> Answer:
    """Say what the report in ``out`` says."""
    return Answer(complete(result.report), f"{result}\n\nwrote {out / 'report.json'} and {out / 'report.html'}")


def command() -> str:
    """What was typed, for the report; of absolute paths only the last part, since a report names no folders."""
    words = ["graphunlearn", *sys.argv[1:]]
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in words)


def _requested(graph: InteractionGraph, asked: ForgetRequest, **keywords: Any) -> Scenario:
    """The scenario of a file; an error names the option."""
    try:
        return requested(graph, asked, **keywords)
    except ValueError as error:
        raise ValueError(
            str(error).replace("'index'", "'--request'", 1).replace("'request'", "'--request'", 1)
        ) from None


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
