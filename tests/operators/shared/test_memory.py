"""The peak memory of a block against the size of what it allocates."""

import copy
import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.operators.shared.memory import peak_memory

NUM = 48 * 2**20  # bytes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a system that reports resident memory")
def test_the_peak_is_the_memory_that_the_block_fills():
    with peak_memory(torch.device("cpu")) as peak:
        kept = torch.ones(NUM // 4)
    assert 0.9 * NUM < peak() < 1.5 * NUM
    del kept
    with peak_memory(torch.device("cpu")) as peak:
        reserved = torch.empty(NUM // 4)  # no page of which is written to
    assert peak() < 0.1 * NUM
    del reserved


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_on_cuda_counts_what_is_freed_again():
    with peak_memory(torch.device("cuda")) as peak:
        torch.ones(NUM // 4, device="cuda")
    assert peak() == NUM


@pytest.mark.parametrize("method", [gu.Unlink(), gu.IFRU(), gu.Calibrate(), gu.FineTune()], ids=lambda m: m.name)
def test_a_result_that_is_dropped_is_freed_at_once(method):
    """A cycle of references would hold the graph and the models until the garbage collector runs."""
    graph = synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
    model, request = LightGCN(graph.num_nodes, 8, num_layers=2), gu.ForgetRequest("user", [graph.user_ids[3]])
    gu.fit(model, graph, epochs=5, progress=False)
    copy.copy(method).unlearn(model, graph, request)
    gc.collect()
    gc.disable()
    try:
        result = method.unlearn(model, graph, request)
        held = [weakref.ref(result.model), weakref.ref(result.graph)]
        del result
        assert [ref() is None for ref in held] == [True, True]
    finally:
        gc.enable()
