"""CAU on recommenders that RecBole trained on Yoochoose-100k, against RecBole's own retraining.

RecBole splits by time, trains with early stopping, and evaluates every model with its own trainer on the loaders of
what remains. One click in each of a twentieth of the sessions is forgotten, never the first. Runs in the environment of
``constraints-recbole.txt``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from cau import sessions
from common import save

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge, load_checkpoint
from graphunlearn.adapters.recbole.sessions import RecBoleSessions
from graphunlearn.operators.cau.samples import ForgetSamples
from graphunlearn.operators.cau.targets import log_probabilities

METRICS = ("recall@10", "recall@20", "mrr@10", "mrr@20")
LOG_P = ("log_p_forgotten", "log_p_deleted_transition")
SHARE = 0.05
SETTINGS = {
    "USER_ID_FIELD": "session_id",
    "load_col": {"inter": ["session_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 10,  # of 97 in 100 sessions that is all
    "train_neg_sample_args": None,
    "train_batch_size": 512,
    "eval_batch_size": 1024,
    "hidden_size": 64,  # of GRU4Rec
    "learning_rate": 0.005,
    "epochs": 40,
    "stopping_step": 2,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "TO", "mode": "full"},
    "metrics": ["Recall", "MRR"],
    "topk": [10, 20],
    "valid_metric": "MRR@10",
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}


def configured(name: str, folder: Path, seed: int) -> Any:
    """Return RecBole's configuration."""
    from recbole.config import Config

    words, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line
    try:
        changes = {"seed": seed, "data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
        return Config(model=name, dataset="yoochoose", config_dict=SETTINGS | changes)
    finally:
        sys.argv = words


def train(config: Any, loaders: tuple[Any, Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Return what RecBole trains with early stopping, and what that took."""
    from recbole.utils import get_model, get_trainer, init_seed

    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, loaders[0]._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    start, cpu = time.perf_counter(), time.process_time()
    trainer.fit(loaders[0], loaders[1], verbose=False)
    taken = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    load_checkpoint(model, trainer.saved_model_file, trust_pickle=True)  # of the best epoch
    return model, taken | {"epochs": len(trainer.train_loss_dict)}


def judged(config: Any, model: Any, loaders: tuple[Any, Any, Any]) -> dict[str, float]:
    """Return RecBole's own figures on the test data that remain."""
    from recbole.utils import get_trainer

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(loaders[0])
    return {name: float(value) for name, value in trainer.evaluate(loaders[2], load_best_model=False).items()}


def request_of(graph: gu.SessionGraph, seed: int) -> gu.ForgetRequest:
    """Return one click in each of a share of the sessions, never the first, of sessions of three clicks or more."""
    generator = torch.Generator().manual_seed(seed)
    long = (graph.length >= 3).nonzero().flatten()
    chosen = long[torch.randperm(long.numel(), generator=generator)[: round(SHARE * graph.num_sessions)]]
    place = 1 + (torch.rand(chosen.numel(), generator=generator) * (graph.length[chosen] - 1)).long()
    return gu.ForgetRequest.internal("click", torch.stack([chosen, place]))


def compared(name: str, folder: Path, retrained: int) -> dict[str, Any]:
    """Return the figures of one model."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    config = configured(name, folder, 0)
    init_seed(0, True)
    loaders = data_preparation(config, create_dataset(config))
    original, taken = train(config, loaders)
    bridge = Bridge(original, *loaders)
    graph, request = bridge.graph, request_of(bridge.graph, 0)
    after = bridge.unlearn(gu.CAU(), request)
    left = (after.train, after.valid, after.test)
    samples = ForgetSamples.of(graph, after.result.graph, request.mask(graph))

    def row(who: str, model: Any, taken: dict[str, Any]) -> dict[str, Any]:
        wrapped = RecBoleSessions(model).eval()
        parts = zip(LOG_P, (samples.forgotten, samples.deleted))
        log_p = {part: float(log_probabilities(wrapped, graph, clicks).mean()) for part, clicks in parts}
        found = {"model": name, "who": who} | taken | judged(config, model, left) | log_p
        print(found, flush=True)
        return found

    unlearned = {"seconds": after.result.seconds, "cpu_seconds": after.result.cpu_seconds}
    rows = [row("original", original, taken), row("cau", after.model, unlearned)]
    for seed in range(1, 1 + retrained):
        model, taken = train(configured(name, folder, seed), left)
        rows.append(row("retrained", model, taken | {"seed": seed}))
    references = rows[2:]
    mean = {key: sum(r[key] for r in references) / retrained for key in ("cpu_seconds", *METRICS, *LOG_P)}
    gaps = {key: (rows[0][key] - rows[1][key]) / (rows[0][key] - mean[key]) for key in LOG_P}
    return {
        "model": name,
        "sessions": graph.num_sessions,
        "clicks": graph.num_clicks,
        "items": graph.num_items,
        "forgotten_clicks": len(request),
        "training_rows": [len(loader._dataset) for loader in (loaders[0], after.train)],
        "held_out_rows_dropped": after.held_out_dropped,
        "rows": rows,
        "gap_closed": gaps,
        "utility_vs_retrained": {key: rows[1][key] / mean[key] - 1 for key in METRICS},
        "speedup_vs_retrained": mean["cpu_seconds"] / rows[1]["cpu_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["SRGNN", "GRU4Rec"])
    parser.add_argument("--retrained", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    graph = gu.SessionGraph.collapse(sessions("yoochoose-100k")[0])
    frame = graph.to_frame()[["session", "item", "time"]]
    results = []
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):  # RecBole leaves its logs where it runs
        folder = Path(name)
        (folder / "yoochoose").mkdir()
        columns = ["session_id:token", "item_id:token", "timestamp:float"]
        frame.set_axis(columns, axis=1).to_csv(folder / "yoochoose" / "yoochoose.inter", sep="\t", index=False)
        for model in options.models:
            results.append(compared(model, folder, options.retrained))
            settings = {
                key: value for key, value in SETTINGS.items() if key not in ("show_progress", "state", "use_gpu")
            }
            save("recbole_sessions", {"settings": settings, "models": results})


if __name__ == "__main__":
    main()
