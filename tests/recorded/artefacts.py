"""Write one artefact of every file format, as small as they come: ``python tests/recorded/artefacts.py FOLDER``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from record import run
from safetensors.torch import save_file
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions, synthetic_sessions
from graphunlearn.nn import FitSettings, GRU4Rec
from graphunlearn.operators import PublishedSettings

KEY = bytes(range(32))
"""The key of exports."""

COMMANDS = (
    "train --data ratings.csv --out trained --dim 4 --layers 1 --epochs 6",
    "prepare trained --method unlearnrec --option requests=4 share=0.4",
    "forget trained --users u1 u2 --items i3 --method ifru --out forgotten",
    "forget trained --users u4 --method ifru --ledger ledger.db --out entered-1",
    "forget entered-1 --users u5 --items i3 --method calibrate --ledger ledger.db --out entered-2",
    "train --data clicks.csv --model gru4rec --out trained-sessions --dim 4 --epochs 3",
    "forget trained-sessions --sessions s1 s5 --items i3 --method cau --option steps=3 epochs=1 "
    "--out forgotten-sessions",
)
"""What the command line writes, in a folder that holds ``ratings.csv`` and ``clicks.csv``."""


def by_command_line() -> None:
    """Write into the working folder what commands write."""
    ratings = synthetic_interactions(num_users=24, num_items=16, interactions_per_user=6, seed=0)
    clicks = synthetic_sessions(num_sessions=50, num_items=10, num_users=12, seed=1)
    for name, graph in (("ratings", ratings), ("clicks", clicks)):
        graph.to_frame().to_csv(f"{name}.csv", index=False)
    for words in COMMANDS:
        run(words)
    for path in (Path("ratings.csv"), Path("clicks.csv"), *Path("entered-1").iterdir()):  # nothing more is read of them
        path.unlink()
    Path("entered-1").rmdir()


def model_for(graph: gu.InteractionGraph) -> LightGCN:
    """Return an untrained model of the one class that is used here."""
    torch.manual_seed(0)
    return LightGCN(graph.num_nodes, 4, num_layers=1)


def by_python() -> None:
    """Write into the working folder what the Python interface writes."""
    graph = synthetic_interactions(num_users=24, num_items=16, interactions_per_user=6, seed=0)
    graph.save("graph.safetensors")
    model = model_for(graph)
    gu.fit(model, graph, epochs=4, batch_size=64, checkpoint="training.safetensors")
    save_file(model.state_dict(), "model.safetensors")
    prepared = gu.UnlearnRec.as_published(published=PublishedSettings(epochs=2), epochs=1)
    prepared.prepare(model, graph)
    served = prepared.unlearn(model, graph, gu.ForgetRequest("user", ["u6"]))
    prepared.save("unlearnrec-published.safetensors")  # which tells of the request that it served
    save_file(served.model.state_dict(), "unlearnrec-published-served.safetensors")

    ledger = gu.Ledger("ledger.db", budget=2.0)
    newest, left = model, graph
    for user in ("u4", "u5"):
        result = ledger.unlearn(gu.IFRU(), newest, left, gu.ForgetRequest("user", [user]))
        newest, left = result.model, result.graph
    ledger.record_audit(1, {"verdict": "close"})
    retrained = gu.Retrain(settings=FitSettings(epochs=2)).unlearn(newest, left, gu.ForgetRequest("user", ["u7"]))
    ledger.record_retrained(retrained.model, retrained.graph, out="retrained.safetensors")
    save_file(retrained.model.state_dict(), "retrained.safetensors")
    retrained.graph.save("retrained-graph.safetensors")

    method = gu.IFRU()
    result = method.unlearn(model, graph, gu.ForgetRequest("user", ["u1"]) | gu.ForgetRequest("item", ["i3"]))
    gu.export(result, "export", model=model, graph=graph, unlearner=method, audit={"verdict": "close"}, key=KEY)
    with torch.no_grad():
        scores = gu.score(gu.encode(result.model, result.graph), graph.pairs)
    result.graph.save("export-graph.safetensors")
    save_file({"pairs": graph.pairs.contiguous(), "scores": scores}, "export-scores.safetensors")

    clicks = synthetic_sessions(num_sessions=40, num_items=10, num_users=10, seed=1)
    clicks.save("sessions.safetensors")
    torch.manual_seed(0)
    reader = GRU4Rec(clicks.num_items, 3).eval()
    forgotten = gu.GradientAscent(steps=2).unlearn(reader, clicks, gu.ForgetRequest("session", ["s3"]))
    gu.export(forgotten, "export-sessions", model=reader, graph=clicks, key=KEY)
    with torch.no_grad():
        rows = gu.prefix_states(forgotten.model, clicks, torch.arange(12))
    save_file({"states": rows.contiguous()}, "export-sessions-states.safetensors")


def main() -> int:
    """Write all artefacts."""
    parser = argparse.ArgumentParser(description="Write one artefact of every file format.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder, start = parser.parse_args().folder.absolute(), Path.cwd()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GRAPHUNLEARN_CACHE"] = cache
        for name, write in (("command_line", by_command_line), ("python", by_python)):
            (folder / name).mkdir(parents=True)
            os.chdir(folder / name)  # so that no path in what is written tells of this machine
            write()
            os.chdir(start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
