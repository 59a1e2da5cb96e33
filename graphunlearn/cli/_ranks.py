"""Commands that ``torchrun`` starts as several processes: each works on its users, and rank 0 writes and prints."""

from __future__ import annotations

import io
import math
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from graphunlearn.cli._text import Answer, device_of, note
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from graphunlearn.cli.forget import Forget
    from graphunlearn.cli.recommend import Recommend
    from graphunlearn.cli.train import Train
    from graphunlearn.distributed import Ranks
    from graphunlearn.distributed.graph import ItemRows

__all__ = ["run_on_ranks", "several_ranks"]

LIMIT = "GRAPHUNLEARN_RANK_TIMEOUT"
"""Variable of the seconds after which a rank that does not answer is an error on all others."""
ITEM_ROWS = "GRAPHUNLEARN_ITEM_ROWS"
"""Variable of which rows of items every rank holds: ``replicated`` (all) or ``sharded`` (a part)."""


def several_ranks() -> bool:
    """Return whether ``torchrun`` started this process as one of several, without an import of PyTorch."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def run_on_ranks(verb: str, command: Any) -> Answer | None:
    """Run a command on all ranks.

    Args:
        verb: Name of the command.
        command: The command with its options.

    Returns:
        The result on rank 0, and ``None`` on the others.

    Raises:
        ArgumentError: The command, or an option of it, has no form on several ranks.
        RankError: Another rank failed, died, or was given other options.
    """
    served: dict[str, Callable[..., Answer | None]] = {"train": _train, "forget": _forget, "recommend": _recommend}
    from graphunlearn.distributed.ranks import TIMEOUT, Ranks

    given = os.environ.get(LIMIT, "")
    try:
        timeout = float(given) if given else TIMEOUT
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < math.inf:
        raise ArgumentError(LIMIT, "be a positive number of seconds", f"'{given}'")
    ranks = Ranks.join(timeout=timeout)
    try:
        with ranks.guard(), nullcontext() if ranks.first else redirect_stderr(io.StringIO()):  # notes are of rank 0
            if verb not in served:
                raise ArgumentError("torchrun", f"start {', '.join(served)} (others run as one process)", verb)
            ranks.same(options=[verb, repr(command)])
            answer = served[verb](command, ranks)
            ranks.agree()
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends all once one has failed: each says why first
        ranks.await_end()
        raise
    ranks.leave()
    return answer


def _item_rows() -> ItemRows:
    """Return which rows of items every rank holds, as the environment says."""
    known: dict[str, ItemRows] = {"": "replicated", "replicated": "replicated", "sharded": "sharded"}
    given = os.environ.get(ITEM_ROWS, "")
    if given not in known:
        raise ArgumentError(ITEM_ROWS, "be 'replicated' or 'sharded'", f"'{given}'")
    return known[given]


def _train(command: Train, ranks: Ranks) -> Answer | None:
    """Train and write the folder."""
    from graphunlearn.cli._resume import resumable
    from graphunlearn.cli._sources import cut, tell_shared
    from graphunlearn.cli.train import check_parts, shown_metrics
    from graphunlearn.distributed import build_part, fit, measure, take_part, whole_model
    from graphunlearn.distributed.fitting import check_objective
    from graphunlearn.nn import Objective
    from graphunlearn.runs.folder import check_out
    from graphunlearn.runs.run import Run

    check_out(command.out, command.running.overwrite)
    command.check_kind()
    if command.learning.kind == "sessions":
        raise ArgumentError("--model", "be lightgcn, lightgcn-positives or mf on several ranks", command.learning.model)
    if command.floors:
        raise ArgumentError("--floors", "be left out on several ranks", "it")
    settings, device = command.training.settings(command.learning.kind, command.seed), device_of(command.running.device)
    name, graph, test = command.read(command.learning.objective, command.collapse_repeats)
    graphs = cut(
        graph.to(device), None if test is None else test.to(device), command.split, command.seed, command.split_by
    )
    check_parts(*graphs)
    if command.test is not None:
        tell_shared(graphs[2], {"training part": graphs[0], "validation part": graphs[1]})
    objective, spec = command.learning.loss(graph.label is not None), command.learning.spec()
    check_objective(objective)
    assert isinstance(objective, Objective)
    train = take_part(graphs[0], ranks, items=_item_rows())
    validation, held_out = (take_part(part, ranks, like=train) for part in graphs[1:])
    identity = [spec.facts(), repr(objective), asdict(settings), *(part.fingerprint() for part in graphs)]
    identity += [ranks.world, train.part.item_bounds]
    del graph, test
    if not ranks.first:
        del graphs  # what rank 0 writes is on rank 0
    model = build_part(spec.name, train, 64 if spec.dim is None else spec.dim, spec.layers, seed=settings.seed)
    with resumable(command.out, "training", identity) as checkpoint:
        result = fit(
            model,
            train,
            validation=validation,
            objective=objective,
            settings=settings,
            checkpoint=checkpoint,
            fresh=True,
        )
        scores = shown_metrics(measure(model, train, held_out), train)
        whole, run = whole_model(model.eval(), train), None
        if whole is None:
            ranks.agree()
        else:
            about = command.about(name, result) | {"ranks": ranks.world}
            run = Run(spec, whole, *graphs, objective, settings, about)
            run.save(command.out, command.running.overwrite, lambda folder: ranks.agree())
        ranks.agree()  # the folder has its name, so that the checkpoints can go
    return None if run is None else command.answer(run, scores, {})


def _forget(command: Forget, ranks: Ranks) -> Answer | None:
    """Forget and write the folder."""
    from itertools import chain

    from graphunlearn.cli._methods import DEFAULT, check_method, options_of, serving
    from graphunlearn.cli._requests import OPTIONS, check_asked, described, learned_part, request_of
    from graphunlearn.cli.prepare import method_for
    from graphunlearn.data.renumbering import emptied_nodes
    from graphunlearn.distributed import model_part, take_part, unlearn, unlearning, whole_result
    from graphunlearn.runs.folder import check_out
    from graphunlearn.runs.run import Forgotten, Run

    asked = {level: list(chain(*getattr(command, option.removeprefix("--")))) for level, option in OPTIONS.items()}
    for option, value in (("--ledger", command.ledger), ("--key", command.key)):
        if value is not None:
            raise ArgumentError(option, "be left out on several ranks", f"'{value}'")
    check_out(command.out, command.running.overwrite)
    check_asked(asked)
    run = Run.load(command.source, device_of(command.running.device))
    if run.spec.kind == "sessions":
        raise ArgumentError("run", "be that of lightgcn, lightgcn-positives or mf on several ranks", run.spec.name)
    name = command.method or DEFAULT[run.spec.kind]
    check_method(name, run.spec, offered=serving())
    request, held, sentences = learned_part(request_of(asked, run.spec, file=command.file), run)
    method = method_for(run, command.source, name, list(chain(*command.option)), command.seed)
    method = unlearning.as_on_ranks(method)
    what = described(request, run.train)
    for sentence in sentences:
        note(sentence)
    note(f"forgetting {what['interactions']:,} of {run.train.num_interactions:,} interactions with {method.name}")
    options = options_of(method)
    graph = take_part(run.train, ranks, items=_item_rows())
    model = model_part(run.model, graph)
    if not ranks.first:
        del run
    result = whole_result(unlearn(method, model, graph, request))
    if result is None:
        ranks.agree()
        return None
    result.emptied = emptied_nodes(run.train, result.graph)
    forgotten = Forgotten(run.model, run.train, result, options, None)
    after = replace(run, model=result.model, train=result.graph, forgotten=forgotten)
    after.save(command.out, command.running.overwrite, lambda folder: ranks.agree())
    return command.answer(result, options, what, held, "interactions")


def _recommend(command: Recommend, ranks: Ranks) -> Answer | None:
    """Compute the lists, and write or print them."""
    from graphunlearn.distributed import model_part, recommend, take_part
    from graphunlearn.runs.exact import ExactRun

    run, k = command.asked()
    if isinstance(run, ExactRun) or run.spec.kind == "sessions":
        name = run.name if isinstance(run, ExactRun) else run.spec.name
        raise ArgumentError("run", "be that of lightgcn, lightgcn-positives or mf on several ranks", name)
    numbers = command.users_of(run.train)
    names = [run.train.vocabulary("user")[number] for number in numbers.tolist()]
    items = run.train.vocabulary("item")
    graph = take_part(run.train, ranks, items=_item_rows())
    found = recommend(model_part(run.model, graph), graph, k, names)
    ranks.agree()
    return None if found is None else command.answer("user", names, items, *found)
