"""Runs a function in several processes that form a group, and returns what each of them returned or raised."""

import tempfile
import traceback
from pathlib import Path

import torch
import torch.multiprocessing as mp
import torch_geometric.metrics  # noqa: F401 (the processes inherit it)
from torch.distributed import FileStore

from graphunlearn.distributed import Ranks


def together(work, world, *arguments, timeout=60.0):
    """What ``work(ranks, *arguments)`` returned on every rank; an exception if it raised one, ``None`` if it died."""
    with tempfile.TemporaryDirectory() as name:
        folder, context = Path(name), mp.get_context("fork")
        given = (world, work, arguments, folder, timeout)
        processes = [context.Process(target=_work, args=(rank, *given)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout + 30)
            if process.is_alive():
                process.kill()
        files = [folder / str(rank) for rank in range(world)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _work(rank, world, work, arguments, folder, timeout):
    torch.set_num_threads(1)
    try:
        ranks = Ranks.join(rank, world, store=FileStore(str(folder / "store"), world), timeout=timeout)
        found = work(ranks, *arguments)
        ranks.leave()
    except BaseException as error:
        traceback.print_exc()
        found = error
    torch.save(found, folder / f"{rank}.part")
    (folder / f"{rank}.part").replace(folder / str(rank))
