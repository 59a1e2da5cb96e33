"""Loading of RecBole checkpoints, which are pickles and may run code; they are read only with explicit consent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from graphunlearn.adapters.recbole.interactions import clear_caches
from graphunlearn.errors import ArgumentError

__all__ = ["load_checkpoint", "trusting_pickles"]


def load_checkpoint(model: nn.Module, path: str | Path, *, trust_pickle: bool = False) -> None:
    """Load the parameters of a RecBole model from a file.

    A ``.safetensors`` file, or a ``state_dict`` written by ``torch.save``, contains only tensors. RecBole's own
    checkpoints are pickles that also contain its configuration, and reading a pickle runs any code that its author
    put there. They are read only with ``trust_pickle=True``; use it only for files that you made yourself. Embeddings
    that a checkpoint has cached (``other_parameter``) are ignored.

    Args:
        model: A RecBole model of the same class and sizes. It is changed in place, unless the file does not fit.
        path: The file.
        trust_pickle: Whether to read the file although it may run code.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file contains more than tensors and is not trusted, or it does not fit the model.

    Example:
        >>> load_checkpoint(model, "saved/LightGCN-Nov-21-2026.pth", trust_pickle=True)  # doctest: +SKIP
    """
    state, made_for = _read(Path(path), trust_pickle)
    expected = f"hold the parameters of a {type(model).__name__}"
    if made_for not in (None, type(model).__name__):
        raise ArgumentError("path", expected, f"'{path}', a checkpoint of a {made_for}")
    own = model.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if _kind(own[name]) != _kind(state[name])]
    if wrong:
        raise ArgumentError("path", f"{expected} of these sizes", f"'{path}', which differs in {', '.join(wrong[:3])}")
    model.load_state_dict(state)
    clear_caches(model)


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.layout, tensor.is_floating_point()


def _read(path: Path, trust_pickle: bool) -> tuple[dict[str, Any], str | None]:
    """Return the tensors in a file, and the name of the model class if the file contains it, or ``None``."""
    if path.suffix == ".safetensors":
        try:
            return load(path.read_bytes()), None
        except SafetensorError as error:
            raise ArgumentError("path", "hold tensors", f"'{path}', which is broken: {error}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except OSError:
        raise
    except Exception as error:
        got = f"'{path}', which holds more, as RecBole's checkpoints do, or is broken"
        hint = "reading it may run code from the file: pass trust_pickle=True if you made it yourself, or save "
        raise ArgumentError("path", "hold tensors alone", got, f"{hint}model.state_dict() with torch.save") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ArgumentError("path", "hold a RecBole checkpoint or a state_dict", f"'{path}'")
    config = None if state is content else content.get("config")
    return dict(state), None if config is None else config["model"]


@contextmanager
def trusting_pickles() -> Iterator[None]:
    """Allow RecBole to read its own checkpoints within this context.

    RecBole's calls of ``torch.load`` predate PyTorch 2.6, so that ``Trainer.evaluate(load_best_model=True)`` and
    ``Trainer.resume_checkpoint`` fail outside this context. Reading a pickle runs the code in it; use the context only
    for files that you made yourself. Within it, every ``torch.load`` of the process without an explicit
    ``weights_only`` reads pickles.

    Example:
        >>> with trusting_pickles():
        ...     trainer.evaluate(test_data)  # doctest: +SKIP
    """
    strict = torch.load

    def load(*args: Any, **kwargs: Any) -> Any:
        return strict(*args, **{"weights_only": False} | kwargs)

    torch.load = load
    try:
        yield
    finally:
        torch.load = strict
