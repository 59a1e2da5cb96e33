"""Training steps of the session recommenders, and of RecBole's SR-GNN at the same sizes, side by side in one run.

A step is what training repeats: the loss of a batch of prefixes over the whole catalogue, its gradients, and Adam's
update. The same prefixes, the same width, one step of message passing, copied parameters; the batches are shuffled
prefixes for RecBole, as its trainer makes them, and both these and whole sessions, as ours makes them, here.

RecBole pads to ``MAX_ITEM_LIST_LENGTH``, 50 by default; it is measured with that, and with every batch cut to its
longest prefix, which is better than it does. What its import slows down for everyone, itself included, is undone:
torch's detection of anomalies. Without ``--recbole`` its place is taken by a dense re-implementation of
its formulas, which is named as such.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from common import data, save
from torch import Tensor, nn

import graphunlearn as gu
from graphunlearn.nn import PrefixSamples, build_model

DIM, LR = 64, 0.001
SIZES = (100, 512)
PADDED = 50  # RecBole's default


class DenseSRGNN(nn.Module):
    """SR-GNN with padded sessions and one dense adjacency per session, built in Python as RecBole does; not RecBole."""

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.sent = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.cell = nn.GRUCell(2 * dim, dim)
        self.last, self.each = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attention, self.dense = nn.Linear(dim, 1, bias=False), nn.Linear(2 * dim, dim)

    def calculate_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross entropy of a padded batch."""
        clicks, length = batch["item_list"], batch["length"]
        width = clicks.size(1)
        nodes, alias = torch.zeros_like(clicks), torch.zeros_like(clicks)
        matrix = torch.zeros(len(clicks), width, width)
        for row, session in enumerate(clicks.tolist()):
            session = session[: int(length[row])]
            distinct = sorted(set(session))
            at = [distinct.index(item) for item in session]
            nodes[row, : len(distinct)] = torch.tensor(distinct)
            alias[row, : len(at)] = torch.tensor(at)
            matrix[row, at[:-1], at[1:]] = 1
        both = [m / m.sum(2, keepdim=True).clamp(min=1) for m in (matrix.transpose(1, 2), matrix)]
        h = self.item_embedding(nodes)
        sent = torch.cat([m @ linear(h) for m, linear in zip(both, self.sent)], 2)
        h = self.cell(sent.flatten(0, 1), h.flatten(0, 1)).view_as(h)
        rows = torch.arange(len(clicks))
        h = h[rows.unsqueeze(1), alias]
        last = h[rows, length - 1]
        shares = self.attention(torch.sigmoid(self.last(last).unsqueeze(1) + self.each(h)))
        pooled = (shares * h * (clicks > 0).unsqueeze(2)).sum(1)
        scores = self.dense(torch.cat([pooled, last], 1)) @ self.item_embedding.weight.t()
        return nn.functional.cross_entropy(scores, batch["item"])


def recbole_srgnn(folder: str, num_items: int) -> nn.Module:
    """Return RecBole's own SR-GNN from the folder it was installed to."""
    sys.path.append(folder)
    from recbole.model.sequential_recommender.srgnn import SRGNN  # type: ignore[import-not-found]

    torch.autograd.set_detect_anomaly(False)  # importing RecBole switches it on, which slows all that follows
    config = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_"}
    config |= {"ITEM_LIST_LENGTH_FIELD": "length", "MAX_ITEM_LIST_LENGTH": PADDED, "device": "cpu"}
    config |= {"embedding_size": DIM, "step": 1, "loss_type": "CE"}
    model: nn.Module = SRGNN(config, SimpleNamespace(num=lambda field: num_items + 1))
    return model


def copy_recbole(ours: Any, theirs: Any) -> None:
    """Give our SR-GNN the parameters of RecBole's; maps of the same input are one here, biases that add up, too."""
    gnn = theirs.gnn
    with torch.no_grad():
        theirs.item_embedding.weight[0] = 0
        ours.embedding.weight.copy_(theirs.item_embedding.weight[1:])
        into = gnn.linear_edge_in, gnn.linear_edge_out
        ours.conv.into.weight.copy_(torch.cat([into[0].weight, into[1].weight, gnn.w_hh]))
        ours.conv.into.bias.copy_(torch.cat([into[0].bias, into[1].bias, gnn.b_hh]))
        ours.conv.gates.weight.copy_(gnn.w_ih)
        ours.conv.gates.bias.copy_(gnn.b_ih + gnn.w_ih @ torch.cat([gnn.b_iah, gnn.b_ioh]))
        ours.last.weight.copy_(theirs.linear_one.weight)
        ours.last.bias.copy_(theirs.linear_one.bias + theirs.linear_two.bias)
        ours.each.weight.copy_(theirs.linear_two.weight)
        ours.attention.weight.copy_(theirs.linear_three.weight)
        ours.dense.load_state_dict(theirs.linear_transform.state_dict())


def padded(graph: gu.SessionGraph, samples: PrefixSamples, width: int | None) -> dict[str, Tensor]:
    """Return a batch as RecBole takes it: items counted from 1, zeros after the last click, the latest ``width``."""
    part = graph.prefixes(samples.ends)
    width = int(part.length.max()) if width is None else width
    clicks = torch.zeros(len(samples), width, dtype=torch.long)
    for row, session in enumerate((part.items + 1).split(part.length.tolist())):
        clicks[row, : min(len(session), width)] = session[-width:]
    return {"item_list": clicks, "length": part.length.clamp(max=width), "item": samples.target + 1}


def stepper(model: nn.Module, loss: Callable[[Any], Tensor]) -> Callable[[Any], None]:
    """Return one training step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def step(batch: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(batch).backward()
        optimizer.step()

    return step


def throughput(contenders: dict[str, tuple[Callable[[Any], None], Sequence[Any]]]) -> dict[str, dict[str, float]]:
    """Return prefixes per second of wall and of CPU time: medians over the steps of two turns that everyone takes."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in clocks} for name in contenders}
    for turn in range(2):
        for name, (step, batches) in contenders.items():
            step(batches[0])  # to warm up
            for batch in batches[turn::2]:
                start = {clock: read() for clock, read in clocks.items()}
                step(batch)
                for clock, read in clocks.items():
                    seconds[name][clock].append((read() - start[clock]) / len_of(batch))
    return {
        clock: {name: 1 / sorted(values[clock])[len(values[clock]) // 2] for name, values in seconds.items()}
        for clock in clocks
    }


def len_of(batch: Any) -> int:
    """Return how many prefixes a batch holds."""
    return len(batch["item"]) if isinstance(batch, dict) else len(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recbole", metavar="FOLDER", help="folder that RecBole was installed to (pip install --target)"
    )
    parser.add_argument("--rounds", type=int, default=12, help="steps of each contender and size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    file = data("yoochoose-100k", "yoochoose-clicks-100k_train_full.txt")
    graph = gu.SessionGraph.from_file(file, collapse_repeats=True)
    criterion = gu.CrossEntropy()
    samples = criterion.samples(graph)
    ours = gu.nn.SRGNN(graph.num_items, DIM, dropout=0.0)
    if options.recbole:
        peer, theirs = "RecBole SRGNN", recbole_srgnn(options.recbole, graph.num_items)
        version = import_module("recbole").__version__
        copy_recbole(ours, theirs)
        batch = samples.select(torch.arange(200))
        a = criterion.losses(ours, graph, batch).mean()
        scores = theirs.full_sort_predict(padded(graph, batch, PADDED))[:, 1:]
        torch.testing.assert_close(a, nn.functional.cross_entropy(scores, batch.target), rtol=1e-5, atol=1e-5)
    else:
        peer, theirs, version = "dense re-implementation, not RecBole", DenseSRGNN(graph.num_items, DIM), None
    models = {"srgnn": ours} | {name: build_model(name, graph, DIM) for name in ("gru4rec", "sasrec")}
    results: dict[str, Any] = {
        "sessions": graph.num_sessions,
        "prefixes": len(samples),
        "items": graph.num_items,
        "dim": DIM,
        "threads": torch.get_num_threads(),
        "peer": peer,
        "peer_version": version,
        "prefixes_per_second": {},
        "prefixes_per_cpu_second": {},
        "ratio": {},
    }
    for size in SIZES:
        generator = torch.Generator().manual_seed(size)
        order = torch.randperm(len(samples), generator=generator)[: size * options.rounds]
        shuffled = [samples.select(part) for part in order.split(size)]
        whole = list(criterion.batches(samples, size, generator))[: options.rounds]
        contenders: dict[str, Any] = {}
        for name, model in models.items():
            step = stepper(model, lambda batch, model=model: criterion.losses(model, graph, batch).mean())
            contenders[f"{name}, whole sessions"] = step, whole
            contenders[f"{name}, shuffled prefixes"] = step, shuffled
        step = stepper(theirs, theirs.calculate_loss)
        for label, width in ((f"{peer}, padded to {PADDED}", PADDED), (f"{peer}, padded to the longest", None)):
            contenders[label] = step, [padded(graph, batch, width) for batch in shuffled]
        rates = throughput(contenders)
        results["prefixes_per_second"][size] = rates["wall"]
        results["prefixes_per_cpu_second"][size] = rates["cpu"]
        for clock, by_name in rates.items():
            print(f"{size} prefixes per step, per second of {clock} time")
            print(*(f"  {name}: {rate:,.0f}" for name, rate in by_name.items()), sep="\n")
            results["ratio"].setdefault(clock, {})[size] = {
                f"{ours_as} / {label}": by_name[f"srgnn, {ours_as}"] / by_name[label]
                for ours_as in ("whole sessions", "shuffled prefixes")
                for label in by_name
                if label.startswith(peer)
            }
            print(*(f"  {name}: {ratio:.1f} times" for name, ratio in results["ratio"][clock][size].items()), sep="\n")
    save("session_throughput", results)


if __name__ == "__main__":
    main()
