"""``train`` and ``forget``: what makes run folders."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
from torch import nn
from tyro.conf import Positional, UseAppendAction, arg

from graphunlearn.cli.common import Answer, Data, Learning, Training, device_of, note, optional, several
from graphunlearn.cli.folders import check_out
from graphunlearn.cli.methods import listed, method_names, options_of
from graphunlearn.cli.prepare import file_of, method_for
from graphunlearn.cli.requests import described, learned_part, request_of
from graphunlearn.cli.resume import resumable
from graphunlearn.cli.runs import Forgotten, Run
from graphunlearn.data import InteractionGraph
from graphunlearn.eval.verdict import format_number, format_seconds, label
from graphunlearn.nn import encode, fit, reset_parameters, score
from graphunlearn.operators import UnlearnRec
from graphunlearn.utils.ranking import Ranker, auroc

__all__ = ["Forget", "Train"]

Words = tuple[tuple[str, ...], ...]


@dataclass(kw_only=True)
class Train(Data):
    """Train a recommender, and keep it in a run folder together with its data.

    The data is split at random, training stops when the validation part no longer improves, and the folder is written
    whole or not at all. An interrupted training goes on where it was when the same command is given again.

    examples:
      graphunlearn train --data ratings.csv --out runs/a
      graphunlearn train --data ratings.csv --threshold 3 --out runs/a     # learn which ratings are above 3
      graphunlearn train --data train.txt --test test.txt --model sgl --dim 64 --layers 3 --out runs/a
    """

    out: Annotated[Path, arg(metavar="DIR")]
    """Folder to write."""
    split: Annotated[tuple[float, float, float], arg(metavar="SHARE SHARE SHARE")] = (0.8, 0.1, 0.1)
    """Shares of training, validation and test interactions."""
    learning: Annotated[Learning, arg(name="")] = field(default_factory=Learning)
    training: Annotated[Training, arg(name="")] = field(default_factory=Training)
    seed: int = 0
    """Seed of the split, of the first parameters and of the order of interactions."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier run folder."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Answer:
        """Train and write the folder."""
        check_out(self.out, self.overwrite)
        settings, device = self.training.settings(self.seed), device_of(self.device)
        name, graph, test = self.read(self.learning.objective)
        graphs = split_up(graph.to(device), None if test is None else test.to(device), self.split, self.seed)
        objective, spec = self.learning.loss(graph.label is not None), self.learning.spec()
        model = spec.build(graphs[0])
        reset_parameters(model, settings.seed)
        identity = [asdict(spec), repr(objective), asdict(settings), *(part.fingerprint() for part in graphs)]
        with resumable(self.out, "training", identity) as checkpoint:
            result = fit(
                model,
                graphs[0],
                validation=graphs[1],
                objective=objective,
                settings=settings,
                checkpoint=checkpoint,
            )
            summary = asdict(result) | {"epochs": len(result.history)}
            del summary["history"]
            about = {"dataset": name, "split": self.split, "threshold": self.threshold, "fit": summary}
            run = Run(spec, model, *graphs, objective, settings, about)
            run.save(self.out, self.overwrite)
        scores = _utility(model, graphs[0], graphs[2])
        data = {"out": str(self.out), "dataset": run.dataset, "model": asdict(spec), "objective": repr(objective)}
        data |= {"fit": summary, "test": scores}
        shown = ", ".join(f"{label(metric)} {format_number(value)}" for metric, value in scores.items())
        text = (
            f"trained {spec.name} in {format_seconds(result.seconds)}, best epoch {result.best_epoch} of "
            f"{summary['epochs']}\non the test part: {shown}\nwrote {self.out}\n"
            f"next: graphunlearn forget {self.out} --users {graph.user_ids[0]} --out {self.out.with_name('forgotten')}"
        )
        return Answer(data, text)


@dataclass(kw_only=True)
class Forget:
    """Forget users, items or interactions from a trained model, without training it again.

    Ids are those of the file the model was trained on. Several kinds at once add up. The new run folder holds the
    corrected model and, for 'graphunlearn audit', the one before and the request; once audited, original.safetensors,
    original_train.safetensors and request.json can be deleted. A method that 'graphunlearn prepare' prepared
    takes its preparation from RUN, and leaves it in the new folder to go on from there: the same one, learned before
    anything was forgotten.

    examples:
      graphunlearn forget runs/a --users 196 186 --out runs/b
      graphunlearn forget runs/a --items 242 --pairs forget.csv --out runs/c      # forget.csv: user,item per line
      graphunlearn forget runs/a --users 196 --method ifru --option damping=0.3 max_steps=2 --out runs/d
      graphunlearn forget runs/a --users 196 --method unlearnrec --out runs/e     # after 'graphunlearn prepare runs/a'
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder, as 'train' or 'forget' writes it."""
    users: Annotated[Words, UseAppendAction, several("ID ...")] = ()
    """Users whose interactions to forget."""
    items: Annotated[Words, UseAppendAction, several("ID ...")] = ()
    """Items whose interactions to forget."""
    pairs: Annotated[tuple[tuple[Path, ...], ...], UseAppendAction, several("FILE ...")] = ()
    """Files of interactions to forget, a user and an item per line."""
    method: Annotated[str, arg(metavar="NAME", help=f"{listed(method_names(), 'or')}.")] = "ifru"
    option: Annotated[Words, UseAppendAction, several("NAME=VALUE ...")] = ()
    """Options of the method, such as damping=0.3; a wrong name lists them."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder to write."""
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of the method, where it draws something."""
    device: Annotated[str, arg(metavar="NAME")] = "cpu"
    """Where to compute, e.g. cuda."""
    overwrite: bool = False
    """Replace an earlier run folder."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Answer:
        """Forget and write the folder."""
        check_out(self.out, self.overwrite)
        request = request_of(*(list(chain(*given)) for given in (self.users, self.items, self.pairs)))
        run = Run.load(self.source, device_of(self.device))
        request, held = learned_part(request, run)
        method = method_for(run, self.source, self.method, list(chain(*self.option)), self.seed)
        what = described(request, run.train)
        note(f"forgetting {what['interactions']:,} of {run.train.num_interactions:,} interactions with {method.name}")
        result = method.unlearn(run.model, run.train, request)
        forgotten = Forgotten(run.model, run.train, result, options_of(method))
        after = Run(
            run.spec,
            result.model,
            result.graph,
            run.validation,
            run.test,
            run.objective,
            run.settings,
            run.about,
            forgotten,
        )
        kept = (lambda folder: method.save(folder / file_of(method.name))) if isinstance(method, UnlearnRec) else None
        after.save(self.out, self.overwrite, kept)
        data = {
            "out": str(self.out),
            "method": result.method,
            "options": forgotten.options,
            "request": what | {"held_out_pairs": held},
            "seconds": result.seconds,
            "cpu_seconds": result.cpu_seconds,
            "prepare_seconds": result.prepare_seconds,
            "peak_memory_mb": result.peak_memory / 2**20,
            "log": result.log,
        }
        text = (
            f"forgot {what['interactions']:,} interactions with {result.method} in {format_seconds(result.seconds)}; "
            f"{result.graph.num_interactions:,} are kept\nwrote {self.out}\nnext: graphunlearn audit {self.out}"
        )
        return Answer(data, text)


def split_up(
    graph: InteractionGraph, test: InteractionGraph | None, shares: tuple[float, float, float], seed: int
) -> tuple[InteractionGraph, InteractionGraph, InteractionGraph]:
    """Return training, validation and test part; the test share does not count where the data comes divided."""
    if test is None:
        train, validation, test = graph.random_split(shares, seed=seed)
    else:
        whole = shares[0] + shares[1]
        train, validation = graph.random_split([shares[0] / whole, shares[1] / whole], seed=seed)
    return train, validation, test


@torch.no_grad()
def _utility(model: nn.Module, train: InteractionGraph, test: InteractionGraph) -> dict[str, float]:
    encoded = encode(model, train)
    scores = Ranker(train, test, ks=(20,), metrics=("recall", "ndcg"))(encoded.users, encoded.items)
    if test.label is not None and 0 < float(test.label.mean()) < 1:
        scores = {"auroc": auroc(score(encoded, test.pairs), test.label)} | scores
    return scores
