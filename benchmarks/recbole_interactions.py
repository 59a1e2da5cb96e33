"""Recommenders that RecBole trained on ML-100K forget here, and RecBole evaluates them, beside models it trained again.

Needs RecBole (`pip install -c constraints-recbole.txt -e '.[test,recbole]'`).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import data, save
from safetensors.torch import load_file, save_file

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor

METRICS = ("recall@10", "ndcg@10", "mrr@10")
UNSEEN = 20_000  # pairs that nobody trained on, for the distance beyond the request


def configuration(model: str, folder: Path, epochs: int) -> Any:
    """Return RecBole's configuration: its defaults, with a larger step to save time."""
    from recbole.config import Config

    words, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line
    (folder / "ml-100k").mkdir(exist_ok=True)
    link = folder / "ml-100k" / "ml-100k.inter"
    if not link.exists():
        link.symlink_to(data("ml-100k", "ml-100k.inter").resolve())
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id"]},
        "learning_rate": 0.005,
        "epochs": epochs,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    config = Config(model=model, dataset="ml-100k", config_dict=options)
    sys.argv = words
    return config


class Trained:
    """Models that RecBole trained, each once: its training, its early stopping, the best parameters kept in memory."""

    def __init__(self, config: Any, keep: Path | None) -> None:
        self.config, self.keep = config, keep

    def __call__(self, train: Any, valid: Any, seed: int, name: str) -> tuple[Any, float]:
        """Return the model and the seconds of its training."""
        from recbole.utils import get_model, get_trainer, init_seed

        init_seed(seed, True)
        model = get_model(self.config["model"])(self.config, train._dataset)
        file = self.keep / f"{self.config['model']}-{name}-{seed}.safetensors" if self.keep else None
        if file is not None and file.exists():
            kept = load_file(file)
            seconds = float(kept.pop("seconds"))
            model.load_state_dict(kept)
            return model, seconds
        trainer = get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, model)
        best: dict[str, torch.Tensor] = {}

        def remember(*_: Any, **__: Any) -> None:
            best.update({key: value.clone() for key, value in model.state_dict().items()})

        trainer._save_checkpoint = remember
        start = time.perf_counter()
        trainer.fit(train, valid, saved=True)
        seconds = time.perf_counter() - start
        model.load_state_dict(best)
        for cache in ("restore_user_e", "restore_item_e"):
            if hasattr(model, cache):
                setattr(model, cache, None)
        if file is not None:
            save_file(best | {"seconds": torch.tensor(seconds)}, file)
        return model, seconds

    def evaluate(self, model: Any, train: Any, test: Any) -> dict[str, float]:
        """Return what RecBole's own evaluation says."""
        from recbole.utils import get_trainer

        trainer = get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, model)
        trainer.eval_collector.data_collect(train)
        found = trainer.evaluate(test, load_best_model=False)
        return {name: float(found[name]) for name in METRICS}


def requested(graph: gu.InteractionGraph, level: str, share: float) -> gu.ForgetRequest:
    """Return a random share of the users, or of the interactions."""
    generator = torch.Generator().manual_seed(3)
    if level == "user":
        chosen = torch.randperm(graph.num_users, generator=generator)[: round(share * graph.num_users)]
        return gu.ForgetRequest("user", [graph.user_ids[u] for u in chosen.tolist()])
    chosen = torch.randperm(graph.num_interactions, generator=generator)[: round(share * graph.num_interactions)]
    pairs = graph.pairs[:, chosen].tolist()
    return gu.ForgetRequest("interaction", [(graph.user_ids[u], graph.item_ids[i]) for u, i in zip(*pairs)])


@torch.no_grad()
def probabilities(bridge: Bridge, graph: gu.InteractionGraph, model: Any, pairs: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of pairs by a model of RecBole's class."""
    from graphunlearn.adapters.recbole.interactions import to_native

    return torch.sigmoid(gu.score(gu.encode(to_native(model, graph.num_nodes), graph), pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["LightGCN", "BPR", "SGL", "NGCF"])
    parser.add_argument("--requests", nargs="+", default=["user", "interaction"], choices=("user", "interaction"))
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--retrain-seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="folder that keeps trained models")
    parser.add_argument("--out", default="recbole_interactions")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            config = configuration(name, Path(folder), args.epochs)
            init_seed(config["seed"], True)  # the split is drawn
            loaders = data_preparation(config, create_dataset(config))
            trained = Trained(config, args.keep)
            original, seconds = trained(*loaders[:2], 0, "original")
            bridge = Bridge(original, *loaders)
            prepared = gu.UnlearnRec(validation=bridge.validation, objective=bridge.objective)
            if name in ("LightGCN", "SGL"):
                prepared.prepare(bridge.model, bridge.graph)
            for level in args.requests:
                rows += one(args, name, level, trained, bridge, loaders, original, prepared, seconds)
                save(args.out, rows)


def one(
    args: Any,
    name: str,
    level: str,
    trained: Trained,
    bridge: Bridge,
    loaders: Any,
    original: Any,
    prepared: gu.UnlearnRec,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the figures of all methods on one request."""
    request = requested(bridge.graph, level, args.share)
    left = bridge.unlearn(gu.Unlink(), request)
    again = [trained(left.train, left.valid, seed, f"without-{level}") for seed in range(1, 1 + args.retrain_seeds)]
    references = [trained.evaluate(model, left.train, left.test) for model, _ in again]
    graph, retained = bridge.graph, left.result.graph
    gone = graph.pairs[:, request.mask(graph)]
    unseen = torch.stack([torch.randint(n, (UNSEEN,)) for n in (graph.num_users, graph.num_items)])
    where = {"forgotten": gone, "others": unseen}
    truth = {k: [probabilities(bridge, retained, model, pairs) for model, _ in again] for k, pairs in where.items()}
    floors = {key: noise_floor(values) for key, values in truth.items()}
    cost = statistics.mean(taken for _, taken in again)
    print(f"\n{name}, {level}, {gone.size(1)} interactions; retrained in {cost:.0f} s, original in {seconds:.0f} s")
    methods: list[gu.Unlearner | None] = [None, gu.Unlink(), gu.FineTune(), gu.IFRU(), gu.Calibrate()]
    methods += [prepared] if prepared.prepare_seconds is not None else []
    rows = []
    for method in methods:
        after = left if method is None else bridge.unlearn(method, request)
        model = original if method is None else after.model
        side = graph if method is None else retained
        found = trained.evaluate(model, left.train, left.test)
        row: dict[str, Any] = {
            "model": name,
            "request": f"{args.share:.0%} of the {level}s",
            "method": "original" if method is None else method.name,
            "seconds": None if method is None else after.result.seconds,
            "prepare_seconds": None if method is None else after.result.prepare_seconds,
            "speedup_vs_retrain": None if method is None else cost / after.result.seconds,
            "retrain_seconds": cost,
            **found,
        }
        for metric in METRICS:
            values = [reference[metric] for reference in references]
            row[f"{metric}_retrained"] = statistics.mean(values)
            row[f"{metric}_retrained_sd"] = statistics.stdev(values)
        row["recall@10_change"] = found["recall@10"] / row["recall@10_retrained"] - 1
        for key, pairs in where.items():
            row[f"dp_{key}"] = distance_to_retrain(probabilities(bridge, side, model, pairs), truth[key])
            row[f"dp_{key}_over_floor"] = row[f"dp_{key}"] / floors[key] if floors[key] else None
        rows.append(row)
        said = {k: row[k] for k in ("recall@10", "recall@10_change", "dp_forgotten_over_floor", "dp_others_over_floor")}
        print(row["method"], {k: round(v, 4) for k, v in said.items() if v is not None}, row["seconds"], flush=True)
    return rows


if __name__ == "__main__":
    main()
