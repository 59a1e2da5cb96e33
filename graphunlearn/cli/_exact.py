"""The commands of models that forget exactly: EASE, item-kNN and implicit ALS."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphunlearn.cli._requests import described, first_option, learned_part
from graphunlearn.cli._sources import cut, tell_shared
from graphunlearn.cli._text import Answer, counted, device_of, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest
    from graphunlearn.runs.exact import ExactRun

OPTIONS = {"ease": {"weight_decay": "l2"}, "itemknn": {}, "als": {"weight_decay": "l2", "dim": "dim"}}
"""For every exact model, the options of the command line that it has, and what it calls them."""


def train_exactly(command: Any) -> Answer:
    """Fit a model that forgets exactly, and write a run folder.

    Args:
        command: The command ``train``.

    Raises:
        ArgumentError: An option is not one of the model, or the catalogue is too large for it.
    """
    from graphunlearn.eval.report.verdict import format_number, format_seconds, label
    from graphunlearn.nn.floors import measure_floor
    from graphunlearn.runs.exact import EXACT as CLASSES
    from graphunlearn.runs.exact import ExactRun

    name = command.learning.model
    known = OPTIONS[name]
    given = {o: v for o, v in (vars(command.learning) | vars(command.training)).items() if v is not None}
    given.pop("model")
    wrong = next((option for option in given if option not in known), None)
    if wrong is not None or command.floors:
        option = f"--{(wrong or 'floors').replace('_', '-')}"
        raise ArgumentError(option, "go with a model that is trained by gradients", f"it with {name}")
    options = {known[option]: value for option, value in given.items()}
    if name == "als":
        options["seed"] = command.seed
    try:
        floor = CLASSES[name](**options)
    except ArgumentError as error:
        names = {ours: f"--{theirs.replace('_', '-')}" for theirs, ours in known.items()}
        raise error.renamed(names.get(str(error.argument))) from None
    data, graph, test = command.read()
    test = None if test is None else test.to(device_of(command.running.device))
    graph = graph.to(device_of(command.running.device))
    parts = cut(graph, test, command.split, command.seed, command.split_by)
    if command.test is not None:
        tell_shared(parts[2], {"training part": parts[0], "validation part": parts[1]})
    start = time.perf_counter()
    try:
        floor.fit(parts[0])
    except ArgumentError as error:
        raise error.renamed("--data" if error.argument == "graph" else None) from None
    seconds = time.perf_counter() - start
    about: dict[str, Any] = {"dataset": data, "split": command.split, "threshold": command.threshold}
    run = ExactRun(name, floor, parts[1], parts[2], about)
    run.save(command.out, command.running.overwrite)
    scores = measure_floor(floor, parts[0], parts[2])
    shown = {metric: scores[metric] for metric in ("auroc", "recall@20", "ndcg@20") if metric in scores}
    text = ", ".join(f"{label(metric)} {format_number(value)}" for metric, value in shown.items())
    return Answer(
        {"out": str(command.out), "dataset": data, "model": {"name": name}, "seconds": seconds, "test": shown},
        f"fitted {name} in {format_seconds(seconds)}\non the test part: {text}\nwrote {command.out}\n"
        f"next: graphunlearn forget {command.out} {first_option(run.train)} "
        f"--out {command.out.with_name('forgotten')}",
    )


def forget_exactly(command: Any, source: Path, asking: Any) -> Answer:
    """Forget a request from a model that forgets exactly, and write a run folder.

    Args:
        command: The command ``forget``.
        source: The run folder.
        asking: Function that returns the request for the model of the run.

    Raises:
        ArgumentError: An option of other models is given, or the request does not fit the run.
    """
    from graphunlearn.eval.report.verdict import format_seconds
    from graphunlearn.nn.floors import ALS
    from graphunlearn.runs.exact import ExactRun

    run = ExactRun.load(source, device_of(command.running.device))
    for option in ("method", "option", "seed", "ledger", "key"):
        value = getattr(command, option)
        if value not in (None, ()):
            raise ArgumentError(f"--{option}", f"be left out with {run.name}, which forgets by itself", value)
    subject: Any = run
    request: ForgetRequest
    request, held, sentences = learned_part(asking(run.spec), subject)
    what = described(request, run.train)
    for sentence in sentences:
        note(sentence)
    note(f"forgetting {what['interactions']:,} of {run.train.num_interactions:,} interactions with {run.name}")
    start, cpu = time.perf_counter(), time.process_time()
    run.floor = run.floor.forget(request)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    run.save(command.out, command.running.overwrite)
    left = run.train.num_interactions
    data = {"out": str(command.out), "request": what | held, "seconds": seconds, "cpu_seconds": cpu}
    if isinstance(run.floor, ALS):
        to = {"sweeps": run.floor.sweeps, "change": run.floor.change, "tolerance": run.floor.tolerance}
        data, how = data | {"exact": False} | to, f"by {counted(run.floor.sweeps, 'sweeps')}"
    else:
        data, how = data | {"exact": True}, "exactly"
    return Answer(
        data,
        f"forgot {counted(what['interactions'], 'interactions')} {how} in {format_seconds(seconds)}; "
        f"{left:,} {'is' if left == 1 else 'are'} kept\nwrote {command.out}\n"
        f"next: graphunlearn evaluate {command.out}",
    )


def exact_quality(run: ExactRun, held_out: Any, ks: Sequence[int]) -> tuple[dict[str, float], dict[str, int]]:
    """Return the same as :func:`graphunlearn.cli._quality.quality`, for a model that forgets exactly.

    Args:
        run: The run.
        held_out: The held-out interactions.
        ks: Lengths of the recommendation list.
    """
    from graphunlearn.metrics.ranking import Ranker
    from graphunlearn.nn.floors import measure_floor

    counts = Ranker(run.train, held_out, ks).counts
    return measure_floor(run.floor, run.train, held_out, ks), {**counts, "num_rows_left_out": held_out.num_left_out}
