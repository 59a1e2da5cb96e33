"""Record what every model and method computes on tiny data with fixed seeds, to show that a change changes nothing.

``python tests/recorded/record.py OUT.safetensors`` writes all outputs, and
``python tests/recorded/record.py --compare A B`` compares two such files bit for bit: it exits with 1 and the names of
what differs. Compare files of one machine with one number of threads only: rounding differs between processors.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.cli import main as command_line
from graphunlearn.datasets import synthetic_interactions, synthetic_sessions
from graphunlearn.eval import audit
from graphunlearn.nn import NGCF, SGL, SRGNN, FitSettings, GRU4Rec, MatrixFactorization, SASRec, SimGCL
from graphunlearn.operators import EncoderSettings, PublishedSettings, TuneSettings

Outputs = dict[str, Tensor]

UNTIMED = ("seconds", "speedup", "peak_memory", "environment")
"""Words in the names of figures that are not the same twice."""

BRIEF = FitSettings(epochs=4, batch_size=64)
SHORT = FitSettings(epochs=3, batch_size=64, lr=0.005)


# ---- data, and what is trained on it


class Interactions(NamedTuple):
    """Users and items, in three parts."""

    train: gu.InteractionGraph
    validation: gu.InteractionGraph
    test: gu.InteractionGraph


class Sessions(NamedTuple):
    """Sessions, in three parts."""

    train: gu.SessionGraph
    validation: gu.SessionGraph
    test: gu.SessionGraph


@cache
def interactions() -> Interactions:
    """Return ratings of 40 users."""
    graph = synthetic_interactions(num_users=40, num_items=25, interactions_per_user=8, seed=0)
    return Interactions(*graph.random_split([0.8, 0.1, 0.1], seed=0))


@cache
def labelled() -> gu.InteractionGraph:
    """Return the training ratings as labels."""
    return interactions().train.binarize(3.0)


@cache
def sessions() -> Sessions:
    """Return 120 sessions."""
    graph = synthetic_sessions(num_sessions=120, num_items=20, num_users=30, seed=1)
    return Sessions(*graph.time_split([0.8, 0.1, 0.1]))


def drawn(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Return a model whose parameters are drawn with ``seed``."""
    torch.manual_seed(seed)
    return make()


INTERACTION_MODELS: dict[str, Callable[[], nn.Module]] = {
    "lightgcn": lambda: LightGCN(interactions().train.num_nodes, 4, num_layers=2),
    "sgl": lambda: SGL(interactions().train.num_nodes, 4, 2),
    "simgcl": lambda: SimGCL(interactions().train.num_nodes, 4, 2),
    "ngcf": lambda: NGCF(interactions().train.num_nodes, 4, 2),
    "mf": lambda: MatrixFactorization(interactions().train.num_nodes, 4),
}
SESSION_MODELS: dict[str, Callable[[], nn.Module]] = {
    "gru4rec": lambda: GRU4Rec(sessions().train.num_items, 4),
    "srgnn": lambda: SRGNN(sessions().train.num_items, 4),
    "sasrec": lambda: SASRec(sessions().train.num_items, 4),
}


class Trained(NamedTuple):
    """A model, and what training said."""

    model: nn.Module
    history: list[dict[str, Any]]


@cache
def trained(name: str) -> Trained:
    """Return a model after a brief training; not to be changed."""
    if name in SESSION_MODELS:
        model = drawn(SESSION_MODELS[name])
        fitted = gu.fit(model, sessions().train, validation=sessions().validation, epochs=4, batch_size=128, lr=0.02)
    elif name == "mf":  # on labels
        model = drawn(INTERACTION_MODELS[name])
        fitted = gu.fit(model, labelled(), objective=gu.BCE(), epochs=8, batch_size=64)
    else:
        model = drawn(INTERACTION_MODELS[name])
        fitted = gu.fit(
            model, interactions().train, validation=interactions().validation, epochs=8, batch_size=64, lr=0.02
        )
    return Trained(model.eval(), fitted.history)


# ---- figures out of whatever is returned


def figures(content: Any, prefix: str) -> Outputs:
    """Return all numbers in JSON-like data as float64 tensors by their path.

    A list of numbers is one tensor, where ``None`` among them is not a number; so is a list of such lists.
    """
    if isinstance(content, Tensor):
        return {prefix: content.detach().clone()}
    if isinstance(content, (bool, int, float)):
        return {prefix: torch.tensor(float(content), dtype=torch.float64)}
    if isinstance(content, Mapping):
        out: Outputs = {}
        for name, value in content.items():
            if not any(word in str(name) for word in UNTIMED):
                out |= figures(value, f"{prefix}/{name}")
        return out
    if not isinstance(content, (list, tuple)):
        return {}
    rows = [value for value in content if value is not None]
    if rows and all(isinstance(value, (bool, int, float)) for value in rows):
        numbers = [math.nan if value is None else float(value) for value in content]
        return {prefix: torch.tensor(numbers, dtype=torch.float64)}
    if rows and all(isinstance(value, Mapping) for value in rows):
        names = list(dict.fromkeys(name for value in rows for name in value))
        return figures({name: [(value or {}).get(name) for value in content] for name in names}, prefix)
    if rows and all(isinstance(value, (list, tuple)) for value in rows):
        longest = max(map(len, rows))
        return figures(
            {str(n): [(r or ())[n] if n < len(r or ()) else None for r in content] for n in range(longest)}, prefix
        )
    return {}


def state(model: nn.Module, prefix: str) -> Outputs:
    """Return the parameters and buffers of a model."""
    return {f"{prefix}/{name}": value.detach().clone() for name, value in model.state_dict().items()}


def forgotten(method: gu.Unlearner, model: nn.Module, graph: Any, request: gu.ForgetRequest, prefix: str) -> Outputs:
    """Return what a method makes of a model, and what its log says."""
    torch.manual_seed(0)
    result = method.unlearn(model, graph, request)
    kept = {"kept": result.graph.num_interactions, "log": result.log}
    return state(result.model, prefix) | figures(kept, prefix)


@cache
def user_request() -> gu.ForgetRequest:
    """Return two users of the ratings."""
    return gu.ForgetRequest("user", ["u3", "u8"])


@cache
def item_request() -> gu.ForgetRequest:
    """Return an item of the ratings, by its raw id."""
    train = interactions().train
    return gu.ForgetRequest("item", [train.item_ids[int(train.pairs[1, 5])]])


@cache
def pair_request() -> gu.ForgetRequest:
    """Return five interactions."""
    train = interactions().train
    pairs = train.pairs[:, [0, 20, 40, 60, 80]].t().tolist()
    return gu.ForgetRequest("interaction", [(train.user_ids[user], train.item_ids[item]) for user, item in pairs])


@cache
def click_request() -> gu.ForgetRequest:
    """Return clicks of some sessions, and two whole sessions."""
    train = sessions().train
    return gu.ForgetRequest("click", [(name, 1) for name in train.session_ids[10:16]]) | gu.ForgetRequest(
        "session", train.session_ids[:2]
    )


@cache
def emptying_request() -> gu.ForgetRequest:
    """Return an item of the sessions, which then has no clicks."""
    train = sessions().train
    return gu.ForgetRequest("item", [train.item_ids[int(train.items[3])]])


# ---- what is recorded


def of_data() -> Outputs:
    """The generated data themselves."""
    train, clicks = interactions().train, sessions().train
    assert train.rating is not None
    return {
        "data/pairs": train.pairs.clone(),
        "data/rating": train.rating.clone(),
        "data/items": clicks.items.clone(),
        "data/length": clicks.length.clone(),
    }


def of_fit() -> Outputs:
    """Training, and what trained models make of users, items and sessions."""
    out: Outputs = {}
    for name in (*INTERACTION_MODELS, *SESSION_MODELS):
        model, history = trained(name)
        out |= state(model, f"fit/{name}") | figures(history, f"fit/{name}/history")
        graph = sessions().test if name in SESSION_MODELS else interactions().train
        with torch.no_grad():
            encoded = gu.encode(model, graph)
        out |= {f"encode/{name}/users": encoded.queries.clone(), f"encode/{name}/items": encoded.items.clone()}
    model, train = trained("lightgcn").model, interactions().train
    with torch.no_grad():
        encoded = gu.encode(model, train)
    out["score/lightgcn"] = gu.score(encoded, train.pairs[:, :40])
    out |= figures(gu.recommend(model, train, k=5), "recommend/lightgcn")
    clicks = sessions().test
    for name in SESSION_MODELS:
        with torch.no_grad():
            out[f"prefix-states/{name}"] = gu.nn.prefix_states(trained(name).model, clicks, torch.arange(20))
    rated = drawn(INTERACTION_MODELS["lightgcn"], 1)
    gu.fit(rated, train, objective=gu.SquaredError(), epochs=3, batch_size=64)
    return out | state(rated, "fit/squared-error")


def of_ifru() -> Outputs:
    """IFRU in all its ways."""
    train, model = interactions().train, trained("lightgcn").model
    requests = {"user": user_request(), "item": item_request(), "interaction": pair_request()}
    requests["mixed"] = gu.ForgetRequest("user", ["u5"]) | item_request() | pair_request()
    methods = {
        "default": gu.IFRU(),
        "prune": gu.IFRU(prune=0.3),
        "absolute": gu.IFRU(curvature="absolute"),
        "published": gu.IFRU.as_published(),
    }
    out: Outputs = {}
    for name, method in methods.items():
        for level, request in requests.items() if name == "default" else [("user", user_request())]:
            out |= forgotten(method, model, train, request, f"ifru/{name}/{level}")
    again = gu.IFRU(max_steps=2, negatives=4)
    again.prepare(model, train)
    out |= forgotten(again, model, train, pair_request(), "ifru/prepared")
    out |= forgotten(gu.IFRU(), trained("ngcf").model, train, pair_request(), "ifru/ngcf/interaction")
    out |= forgotten(gu.IFRU(), trained("ngcf").model, train, user_request(), "ifru/ngcf/user")
    out |= forgotten(gu.IFRU(prune=0.3), trained("ngcf").model, train, user_request(), "ifru/ngcf/prune")
    out |= forgotten(gu.IFRU(), trained("sgl").model, train, pair_request(), "ifru/sgl")
    out |= forgotten(gu.IFRU(objective=gu.BCE()), trained("mf").model, labelled(), user_request(), "ifru/bce")
    curve = gu.IFRU().damping_curve(model, train, user_request(), [0.03, 0.3, 3.0])
    return out | figures(curve, "ifru/damping_curve")


def of_unlearnrec() -> Outputs:
    """UnlearnRec: a preparation, two requests one after the other, and the encoder as published."""
    train, model = interactions().train, trained("lightgcn").model
    method = gu.UnlearnRec(
        settings=BRIEF, share=0.4, requests=3, pretraining=EncoderSettings(steps=100), validation=interactions().test
    )
    method.prepare(model, train)
    assert method.preparation is not None
    out = figures(method.preparation.log, "unlearnrec/preparation")
    torch.manual_seed(0)
    first = method.unlearn(model, train, user_request())
    out |= state(first.model, "unlearnrec/first") | figures(first.log, "unlearnrec/first/log")
    out |= forgotten(method, first.model, first.graph, gu.ForgetRequest("user", ["u11"]), "unlearnrec/second")
    tuned = gu.UnlearnRec(
        settings=BRIEF, share=0.4, requests=3, pretraining=EncoderSettings(steps=50), epochs=1, tuning=TuneSettings()
    )
    tuned.prepare(trained("sgl").model, train)
    out |= forgotten(tuned, trained("sgl").model, train, pair_request(), "unlearnrec/tuned")
    published = gu.UnlearnRec.as_published(published=PublishedSettings(epochs=4), epochs=2)
    published.prepare(model, train)
    assert published.preparation is not None
    out |= figures(published.preparation.log, "unlearnrec/published/preparation")
    return out | forgotten(published, model, train, user_request(), "unlearnrec/published")


def of_calibrate() -> Outputs:
    """Calibrate, alone and with fine-tuning."""
    train, out = interactions().train, {}
    for name in ("lightgcn", "simgcl"):
        out |= forgotten(gu.Calibrate(), trained(name).model, train, pair_request(), f"calibrate/{name}/interaction")
    out |= forgotten(gu.Calibrate(), trained("lightgcn").model, train, item_request(), "calibrate/lightgcn/item")
    tuned = gu.Calibrate(epochs=2, shrink=True)
    return out | forgotten(tuned, trained("lightgcn").model, train, user_request(), "calibrate/tuned")


def of_baselines() -> Outputs:
    """Baselines and retraining, on both kinds of graph."""
    out: Outputs = {}
    data = {
        "interactions": (trained("lightgcn").model, interactions().train, pair_request()),
        "sessions": (trained("gru4rec").model, sessions().train, click_request()),
    }
    for kind, (model, graph, request) in data.items():
        settings = BRIEF if kind == "interactions" else SHORT
        methods = [gu.Unlink(), gu.FineTune(epochs=2), gu.GradientAscent(steps=3), gu.Retrain(settings=settings)]
        if kind == "sessions":
            methods += [gu.AscentFineTune(steps=3, finetune_steps=3), gu.NegativeKL(steps=4)]
        for method in methods:
            out |= forgotten(method, model, graph, request, f"{method.name}/{kind}")
    return out


def of_cau() -> Outputs:
    """CAU with every order, as published, with every model, and where an item loses all its clicks."""
    _, validation, _ = sessions()
    out: Outputs = {}
    few = {"validation": validation, "steps": 6, "epochs": 1, "batch_size": 4}
    methods = {
        "random": gu.CAU(**few),
        "hard": gu.CAU(**few, order="hard"),
        "soft": gu.CAU(**few, order="soft", difficulty="embedding"),
        "published": gu.CAU.as_published(**few, carry=0.0),  # lower targets, so that steps are made
    }
    for name, method in methods.items():
        out |= forgotten(method, trained("gru4rec").model, sessions().train, click_request(), f"cau/{name}")
    for name in SESSION_MODELS:
        model = trained(name).model
        out |= forgotten(gu.CAU(**few), model, sessions().train, emptying_request(), f"cau/{name}/item")
    return out


def of_shards() -> Outputs:
    """SISA and SRU, from a model that is the same on every machine: the shards follow from its fingerprint."""
    model, out = SESSION_MODELS["gru4rec"](), {}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    methods = [
        gu.SISA(num_shards=3, settings=SHORT),
        gu.SRU(num_shards=3, settings=SHORT, validation=sessions().validation),
    ]
    for method in methods:
        method.prepare(model, sessions().train)
        out |= forgotten(method, model, sessions().train, click_request(), method.name)
    learned = gu.SISA(num_shards=2, settings=SHORT, validation=sessions().validation, aggregation="learned")
    learned.prepare(model, sessions().train)
    result = learned.unlearn(model, sessions().train, click_request())
    with torch.no_grad():
        out["sisa/learned"] = gu.encode(result.model, sessions().test).queries.clone()
    return out


def unlogged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without the logs of the methods, which are recorded elsewhere."""
    methods = [{name: value for name, value in entry.items() if name != "log"} for entry in report["methods"]]
    methods = [method for method in methods if method["name"] != "unlink-redraw"]  # a row that 0.1.0 did not have
    return {**report, "methods": methods}


def of_audit() -> Outputs:
    """The figures of an audit, of either kind."""
    parts, clicks = interactions(), sessions()
    asked = {"test": parts.test, "validation": parts.validation, "objective": gu.BPR(), "retrain_seeds": 2}
    methods = [gu.IFRU(), gu.Unlink(), gu.Calibrate()]
    model = trained("lightgcn").model
    done = audit(model, parts.train, pair_request(), methods, settings=FitSettings(epochs=6, seed=50), **asked)
    out = figures(unlogged(done.report), "audit/interactions")
    asked = {"test": clicks.test, "validation": clicks.validation, "objective": gu.CrossEntropy(), "retrain_seeds": 2}
    methods = [gu.CAU(validation=clicks.validation, steps=6, epochs=1), gu.Unlink()]
    settings = FitSettings(epochs=3, batch_size=64, lr=0.005, seed=50)
    done = audit(trained("gru4rec").model, clicks.train, click_request(), methods, settings=settings, **asked)
    return out | figures(unlogged(done.report), "audit/sessions")


def of_ledger() -> Outputs:
    """The drift of two requests after one another, of either kind."""
    out: Outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, method in {"lightgcn": gu.IFRU(), "ngcf": gu.FineTune(epochs=1), "gru4rec": gu.Unlink()}.items():
            model, ledger = trained(name).model, gu.Ledger(Path(folder, f"{name}.db"))
            graph: Any = sessions().train if name in SESSION_MODELS else interactions().train
            levels = ("session", ("s3", "s7")) if name in SESSION_MODELS else ("user", ("u3", "u8"))
            for number, raw in enumerate(levels[1], 1):
                torch.manual_seed(0)
                result = ledger.unlearn(method, model, graph, gu.ForgetRequest(levels[0], [raw]))
                model, graph = result.model, result.graph
                out |= figures(result.log["ledger"], f"ledger/{name}/{number}")
    return out


def of_command_line() -> Outputs:
    """Models that the command line trains and corrects."""
    out: Outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tables(root)
        for words in (
            f"train --data {root}/ratings.csv --out {root}/a --dim 4 --layers 1 --epochs 4",
            f"forget {root}/a --users u1 u2 --items i3 --out {root}/b",
            f"train --data {root}/ratings.csv --threshold 3 --model mf --out {root}/c --dim 4 --epochs 4",
            f"train --data {root}/clicks.csv --model srgnn --out {root}/s --dim 4 --epochs 2",
            f"forget {root}/s --sessions s1 s5 --option steps=3 epochs=1 --out {root}/t",
        ):
            run(words)
        for name in ("a", "b", "c", "s", "t"):
            held = load_file(root / name / "model.safetensors")
            out |= {f"command-line/{name}/{key}": value for key, value in held.items()}
    return out


def write_tables(folder: Path) -> None:
    """Write the generated ratings and clicks as files of comma-separated values, as the command line reads them."""
    ratings = synthetic_interactions(num_users=40, num_items=25, interactions_per_user=8, seed=0)
    clicks = synthetic_sessions(num_sessions=120, num_items=20, num_users=30, seed=1)
    for name, graph in (("ratings", ratings), ("clicks", clicks)):
        graph.to_frame().to_csv(folder / f"{name}.csv", index=False)


def run(words: str) -> str:
    """Run a command, which must succeed, and return what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command_line(words.split())
    if status:
        raise RuntimeError(f"graphunlearn {words}: {err.getvalue()}")
    return out.getvalue()


PARTS: tuple[Callable[[], Outputs], ...] = (
    of_data,
    of_fit,
    of_ifru,
    of_unlearnrec,
    of_calibrate,
    of_baselines,
    of_cau,
    of_shards,
    of_audit,
    of_ledger,
    of_command_line,
)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep random state, threads and the cache of trained models of the process as they are, and stay quiet."""
    threads, known = torch.get_num_threads(), os.environ.get("GRAPHUNLEARN_CACHE")
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            os.environ["GRAPHUNLEARN_CACHE"] = folder
            yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("GRAPHUNLEARN_CACHE", None)
        if known is not None:
            os.environ["GRAPHUNLEARN_CACHE"] = known


def record() -> Outputs:
    """Return all outputs by name."""
    out: Outputs = {}
    with _alone():
        for part in PARTS:
            found = part()
            if out.keys() & found.keys():
                raise ValueError(f"names must differ (got {sorted(out.keys() & found.keys())[0]} twice)")
            out |= found
    return {name: value.contiguous() for name, value in sorted(out.items())}


# ---- comparing


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of what is not the same bit for bit, and how far apart it is."""
    out = []
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            out.append(f"{name}: only in the {'first' if name in one else 'second'}")
            continue
        a, b = one[name], other[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            out.append(f"{name}: {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
        elif a.numpy().tobytes() != b.numpy().tobytes():
            away = (a.double() - b.double()).abs()
            relative = (away / b.double().abs().clamp(min=1e-12)).nan_to_num(math.inf).max()
            out.append(f"{name}: {float(away.max()):.2g} apart, relatively {float(relative):.2g}")
    return out


def main() -> int:
    """Record, or compare."""
    parser = argparse.ArgumentParser(description="Record fixed-seed outputs, or compare two records bit for bit.")
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"))
    given = parser.parse_args()
    if (given.out is None) == (given.compare is None):
        parser.error("give either OUT.safetensors or --compare A B")
    if given.compare is None:
        outputs = record()
        save_file(outputs, given.out)
        sys.stdout.write(f"wrote {len(outputs)} outputs to {given.out}\n")
        return 0
    one, other = map(load_file, given.compare)
    found = differing(one, other)
    sys.stdout.write("".join(f"{line}\n" for line in found) or f"all {len(one)} outputs are the same\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
