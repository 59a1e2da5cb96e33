"""The peak memory of a block against the size of what it allocates."""

from pathlib import Path

import pytest
import torch

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
