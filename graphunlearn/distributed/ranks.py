"""Processes that work on one graph together: their sums, their agreement, and the errors of one told to all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from graphunlearn._version import __version__
from graphunlearn.errors import ArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RankError", "Ranks", "started_by_torchrun"]

TIMEOUT = 300.0
"""Seconds after which a rank that does not answer is an error on all others."""
PATIENCE = 3.0
"""Seconds that a rank waits for the sentence of another rank whose connection was closed."""
FAILED = "graphunlearn/failed"
"""Key of the store under which the first rank that fails leaves its number and its sentence."""
ENDED = "graphunlearn/ended"
"""Key of the number of ranks that have ended with an error."""
T = TypeVar("T")


class RankError(ConnectionError):
    """Another rank failed, died, did not answer in time, or works on something else."""


def started_by_torchrun() -> bool:
    """Return whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


class Ranks:
    r"""The processes of one job; each holds a range of the users.

    :meth:`total` adds up what all ranks hold. All ranks must call the same methods in the same order. If a rank raises
    an error in :meth:`guard`, or dies, the other ranks raise a :class:`RankError` in their next or present sum, at the
    latest after ``timeout`` seconds.

    Args:
        rank: The number of this process.
        world: The number of processes.
        store: The store of ``torch.distributed`` by which the processes found each other; ``None`` for one process.
        timeout: Seconds after which a rank that does not answer is an error.

    Attributes:
        bytes: Bytes of all tensors that :meth:`total` added up so far.
        sums: Number of such sums.
        sent: Bytes of rows that this rank sent to others in other ways so far.

    Example:
        >>> import torch
        >>> Ranks().total(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """

    def __init__(self, rank: int = 0, world: int = 1, store: Store | None = None, timeout: float = TIMEOUT) -> None:
        self.rank, self.world, self.store, self.timeout = rank, world, store, timeout
        self.bytes = self.sums = self.sent = 0
        self._broken = False

    @classmethod
    def join(
        cls,
        rank: int | None = None,
        world: int | None = None,
        *,
        store: Store | None = None,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Join the other processes: gloo adds up tensors on CPUs, nccl those on GPUs.

        Args:
            rank: The number of this process (default: ``RANK``, which ``torchrun`` sets).
            world: The number of processes (default: ``WORLD_SIZE``).
            store: A store that all processes share (default: the one at ``MASTER_ADDR`` and ``MASTER_PORT``).
            timeout: Seconds after which a rank that does not answer is an error on all others.

        Returns:
            The ranks. Without other processes, nothing is started.

        Raises:
            RankError: A process did not join in time, or runs another version of this package or of PyTorch.
        """
        rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        world = int(os.environ.get("WORLD_SIZE", "1")) if world is None else world
        if world == 1:
            return cls()
        limit = timedelta(seconds=timeout)
        try:
            if store is None:
                store, rank, world = next(rendezvous("env://", rank, world, timeout=limit))
            store.set_timeout(limit)
            both = torch.cuda.is_available()
            if both:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
            backend = "cpu:gloo,cuda:nccl" if both else "gloo"
            shared = PrefixStore("graphunlearn/group", store)
            dist.init_process_group(backend, store=shared, rank=rank, world_size=world, timeout=limit)
        except (RuntimeError, ValueError) as error:
            raise RankError(f"not all {world} ranks joined within {timeout:g} seconds ({_line(error)})") from error
        ranks = cls(rank, world, store, timeout)
        ranks.same(versions=[__version__, str(torch.__version__)])
        return ranks

    def leave(self) -> None:
        """End the work together; the process group is destroyed."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over all ranks.

        Args:
            x: A tensor of the same shape and type on all ranks; it is not changed.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        return self.total_(x.clone(memory_format=torch.contiguous_format)) if self.world > 1 else x

    def total_(self, x: Tensor) -> Tensor:
        """Return the sum over all ranks, in place.

        Args:
            x: A contiguous tensor of the same shape and type on all ranks.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        return self.total_later(x)()

    def total_later(self, x: Tensor) -> Callable[[], Tensor]:
        """Start a sum over all ranks in place, and return a function that waits for it.

        Args:
            x: A contiguous tensor of the same shape and type on all ranks; it must not be used before.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        if self.world == 1:
            return lambda: x
        self.bytes += x.numel() * x.element_size()
        self.sums += 1
        work = self._call(lambda: dist.all_reduce(x, async_op=True))

        def wait() -> Tensor:
            self._call(work.wait)
            return x

        return wait

    def send_to_all(self, x: Tensor, rank: int) -> Tensor:
        """Return what one rank holds, in place.

        Args:
            x: On that rank, what it sends; on the others, memory of the same shape and type. Contiguous.
            rank: The rank that sends.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        if self.world > 1 and x.numel():
            if rank == self.rank:
                self.sent += (self.world - 1) * x.numel() * x.element_size()
            self._call(lambda: dist.broadcast(x, rank))
        return x

    def sum_at(self, x: Tensor, rank: int) -> Tensor:
        """Return the sum over all ranks on one rank, in place; on the others, ``x`` then holds nothing of use.

        Args:
            x: A contiguous tensor of the same shape and type on all ranks.
            rank: The rank that gets the sum.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        if self.world > 1 and x.numel():
            if rank != self.rank:
                self.sent += x.numel() * x.element_size()
            self._call(lambda: dist.reduce(x, rank))
        return x

    def swap(self, x: Tensor, gives: list[int], takes: list[int]) -> Tensor:
        """Send rows to every rank, and return those received from it.

        Args:
            x: The rows to send, by the rank that gets them ``[sum(gives), ...]``. Contiguous.
            gives: Number of rows for every rank.
            takes: Number of rows from every rank.

        Returns:
            The received rows, by the rank that sent them ``[sum(takes), ...]``.

        Raises:
            RankError: A rank failed, died, or did not answer in time.
        """
        if self.world == 1:
            return x
        self.sent += (len(x) - gives[self.rank]) * x[:1].numel() * x.element_size()
        out = x.new_empty(sum(takes), *x.shape[1:])
        self._call(lambda: dist.all_to_all_single(out, x, takes, gives))
        return out

    def number(self, value: float) -> float:
        """Return the sum of one number per rank, in double precision.

        Args:
            value: The number of this rank.
        """
        return float(self.total_(torch.tensor(value, dtype=torch.float64))) if self.world > 1 else value

    def objects(self, value: T) -> list[T]:
        """Return one small object per rank, in the order of the ranks.

        Args:
            value: The object of this rank; it is pickled between the processes of this job alone.
        """
        found: list[Any] = [None] * self.world
        if self.world == 1:
            return [value]
        self._call(lambda: dist.all_gather_object(found, value))
        return found

    def gather(self, x: Tensor) -> Tensor | None:
        """Return the rows of all ranks one after another on rank 0, and ``None`` on the others.

        Args:
            x: The rows of this rank ``[num, ...]``; the number of rows may differ.
        """
        if self.world == 1:
            return x
        sizes = self.objects(len(x))
        if not self.first:
            self._call(lambda: dist.send(x.contiguous(), 0))
            return None
        out = x.new_empty(sum(sizes), *x.shape[1:])
        parts = list(out.split(sizes))
        parts[0].copy_(x)
        for rank in range(1, self.world):
            self._call(lambda rank=rank: dist.recv(parts[rank], rank))  # type: ignore[misc]
        return out

    def same(self, **facts: Any) -> None:
        """Check that all ranks were given the same.

        Args:
            **facts: Values that JSON can hold, by the word for them in the error; only their digests are sent.

        Raises:
            RankError: A value differs between ranks; every rank raises it.

        Example:
            >>> Ranks().same(request=["user", "196"])
        """
        own = {name: _digest(value) for name, value in facts.items()}
        for rank, other in enumerate(found := self.objects(own)):
            differing = [name for name in {**found[0], **other} if found[0].get(name) != other.get(name)]
            if differing:
                names = " and ".join(differing)
                raise RankError(f"all ranks must be given the same {names} (got others on rank {rank} than on rank 0)")

    def agree(self, error: BaseException | None = None) -> None:
        """Wait until all ranks have come here, and raise an error on every rank if one of them has come with one.

        Call this before a file is given its final name.

        Args:
            error: What went wrong on this rank.

        Raises:
            RankError: Another rank came with an error, died, or did not come in time.
        """
        told = self.objects(None if error is None else _line(error))
        if error is not None:
            raise error
        for rank, sentence in enumerate(told):
            if sentence is not None:
                raise RankError(f"rank {rank} failed: {sentence}")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Tell the other ranks of an error in a block, so that they stop as well.

        Raises:
            RankError: Another rank failed.
        """
        try:
            yield
        except BaseException as error:
            if self.world > 1 and not self._broken:
                self._tell(error)
            raise

    def await_end(self) -> None:
        """Wait a moment for the other ranks to end with an error too, so that each prints its sentence.

        ``torchrun`` stops all processes once the first one has ended with an error.
        """
        if self.store is None or not self._broken:
            return
        with suppress(RuntimeError):
            ended = self.store.add(ENDED, 1)
            deadline = time.monotonic() + PATIENCE
            while ended < self.world and time.monotonic() < deadline:
                time.sleep(0.05)
                ended = self.store.add(ENDED, 0)

    def _tell(self, error: BaseException) -> None:
        """Leave the sentence of an error for the other ranks, and close the connections to them."""
        self._broken = True
        assert self.store is not None
        with suppress(RuntimeError):  # the store may have gone with the process that holds it
            self.store.compare_set(FAILED, "", json.dumps([self.rank, _line(error)]))  # the first error is the cause
        self.leave()

    def _call(self, work: Callable[[], Any]) -> Any:
        """Return the result of a collective; an error of it becomes one that names the rank that is at fault."""
        if self._broken:
            raise RankError("a rank has failed before")
        try:
            return work()
        except (RuntimeError, ValueError) as error:
            self._broken = True
            sentence = self._reason()
            self.leave()
            raise RankError(sentence) from error

    def _reason(self) -> str:
        """Return the sentence of the rank that failed first, or that one died."""
        assert self.store is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if self.store.check([FAILED]):
                    rank, sentence = json.loads(self.store.get(FAILED))
                    return f"rank {rank} failed: {sentence}"
            except (RuntimeError, ValueError):
                break
            time.sleep(0.05)
        return f"a rank died, or did not answer within {self.timeout:g} seconds"


def check_world(world: int, num_users: int) -> None:
    """Check that there is a user for every rank.

    Args:
        world: The number of ranks.
        num_users: The number of users.

    Raises:
        ArgumentError: There are more ranks than users.
    """
    if world > num_users:
        raise ArgumentError("world size", f"be at most the number of users, {num_users}", world)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _line(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{f' ({text})' if text else ''}"
    return text or type(error).__name__
