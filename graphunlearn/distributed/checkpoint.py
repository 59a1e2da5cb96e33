"""Checkpoints of a training on several ranks: one file per rank, of which all belong to the same epoch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from graphunlearn.data.io.files import write_atomic
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.training.checkpoint import TrainingState

__all__ = ["ShardState"]


class ShardState(TrainingState):
    """The training state of one rank. An epoch counts once all ranks have written it; its files replace those before.

    Args:
        path: Start of the names of the files, the same on all ranks; ``None`` writes nothing.
        ranks: The ranks.
        identity: A function that returns a description of the training of this rank.

    Raises:
        ArgumentError: The files are those of another number of ranks.
    """

    def __init__(self, path: str | Path | None, ranks: Ranks, identity: Callable[[], dict[str, Any]]) -> None:
        super().__init__(None, identity)
        self.ranks, self.start = ranks, None if path is None else Path(path)
        if self.start is None:
            return
        self.identity = identity()
        own = f"of-{ranks.world}.epoch-"
        found = list(self.start.parent.glob(f"{escape(self.start.name)}.rank-*"))
        others = [file.name for file in found if own not in file.name]
        epochs = ranks.objects((sorted(self._epochs()), others[:1]))
        if any(names for _, names in epochs):
            name = next(names[0] for _, names in epochs if names)
            raise ArgumentError("checkpoint", f"come from a training on {ranks.world} ranks", name)
        common = set.intersection(*(set(numbers) for numbers, _ in epochs))
        self.path = self._file(max(common, default=0))

    def _file(self, epoch: int) -> Path:
        assert self.start is not None
        own = f"rank-{self.ranks.rank}-of-{self.ranks.world}.epoch-{epoch}"
        return self.start.with_name(f"{self.start.name}.{own}.safetensors")

    def _epochs(self) -> dict[int, Path]:
        """Return the files of this rank by epoch."""
        assert self.start is not None
        pattern = self._file(0).name.replace("epoch-0.", "epoch-*.")
        files = self.start.parent.glob("*".join(escape(part) for part in pattern.split("*")))
        return {int(file.name.rpartition("epoch-")[2].partition(".")[0]): file for file in files}

    def _commit(self, content: bytes, epoch: int) -> None:
        wrong: BaseException | None = None
        try:
            write_atomic(self._file(epoch), content)
        except (OSError, MemoryError) as error:
            wrong = error
        # a rank that is interrupted here leaves both epochs: others may have deleted the one before already
        if not all(self.ranks.objects(wrong is None)):
            with suppress(OSError):
                self._file(epoch).unlink(missing_ok=True)
            self.ranks.agree(wrong)
        self.path = self._file(epoch)
        for number, file in self._epochs().items():
            if number != epoch:
                file.unlink(missing_ok=True)
