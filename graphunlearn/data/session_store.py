"""What a graph of sessions holds, and what follows from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphunlearn.data.session_build import build, per_session
from graphunlearn.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SessionStore"]

DERIVED = frozenset(
    {"batch", "click_ptr", "device", "item_ids", "items", "num_clicks", "num_interactions", "num_items"}
)
DERIVED |= {"num_left_out", "num_sessions", "position", "session", "session_ids"}


class SessionStore(Data):
    """The content of a :class:`~graphunlearn.SessionGraph`."""

    alias: Tensor
    length: Tensor

    def vocabulary(self, kind: str) -> Vocabulary:
        """Return the raw ids of ``"item"``, ``"session"`` or ``"user"``, with a fast lookup."""
        found = self._store.get(f"{kind}_vocabulary")
        if isinstance(found, list):  # of a batch: items and users are shared, sessions follow one another
            if kind == "session":
                bare = all(part.is_range for part in found)
                return Vocabulary(self.num_sessions if bare else [text for part in found for text in part.ids])
            if any(part != found[0] for part in found):
                raise ValueError(f"graphs of a batch must share their {kind}s to have raw ids (got different ones)")
            return found[0]
        if found is not None:
            return found
        return Vocabulary(self.num_sessions if kind == "session" else 0)

    @property
    def item_ids(self) -> list[str]:
        """Raw id of every item."""
        return self.vocabulary("item").ids

    @property
    def session_ids(self) -> list[str]:
        """Raw id of every session; of graphs of prefixes just their numbers."""
        return self.vocabulary("session").ids

    @property
    def num_items(self) -> int:
        """Number of items, clicked or not."""
        return len(self.vocabulary("item"))

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return self.length.numel()

    @property
    def num_clicks(self) -> int:
        """Number of clicks."""
        return self.alias.numel()

    @property
    def num_interactions(self) -> int:
        """Number of clicks, by the name it has in graphs of users and items."""
        return self.num_clicks

    @property
    def num_left_out(self) -> int:
        """How many clicks were left out because their items were unknown, or unseen in training."""
        return int(torch.as_tensor(self._store.get("num_left_out", 0)).sum())

    @property
    def device(self) -> torch.device:
        """Where the graph lies."""
        return self.alias.device

    @property
    def batch(self) -> Tensor:
        """Session of every node ``[num_nodes]``."""
        return self._store.session_of_node  # PyTorch Geometric's batches number graphs in 'batch', which may differ

    @property
    def items(self) -> Tensor:
        """Item of every click ``[num_clicks]``."""
        return self.x[self.alias]

    @property
    def click_ptr(self) -> Tensor:
        """Where every session begins among the clicks, and where the last one ends ``[num_sessions + 1]``."""
        return torch.cat([self.length.new_zeros(1), self.length.cumsum(0)])

    @property
    def session(self) -> Tensor:
        """Session of every click ``[num_clicks]``."""
        return per_session(self.length)

    @property
    def position(self) -> Tensor:
        """Position of every click in its session, from 0 ``[num_clicks]``."""
        return torch.arange(self.num_clicks, device=self.device) - self.click_ptr[self.session]

    @property
    def user(self) -> Tensor | None:
        """User of every session, -1 where unknown ``[num_sessions]``, or none."""
        return self._store.get("user")

    @property
    def target(self) -> Tensor | None:
        """On a graph of prefixes, the item clicked next, or -1 ``[num_sessions]``."""
        return self._store.get("target")

    @property
    def _kind(self) -> type[Self]:
        """The class of graphs made from this one, which are no batches even where this one is."""
        return next(kind for kind in type(self).__mro__ if not issubclass(kind, Batch))

    def fingerprint(self) -> str:
        """Return a SHA-256 of the content: items, raw ids, clicks and their values, all in their order."""
        digest = hashlib.sha256(f"{self.num_items} {self.num_sessions}".encode())
        for kind in ("item", "session", "user"):
            digest.update(self.vocabulary(kind).fingerprint.encode())
        for name in ("items", "length", "time", "user", "target"):
            value = getattr(self, name)
            if value is not None:
                value = value.double() + 0.0 if value.is_floating_point() else value.long()
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def validate(self, raise_on_error: bool = True) -> bool:
        """Check that nodes, edges and aliases are those of the clicks."""
        names = ("x", "edge_index", "alias", "session_of_node")
        whole = super().validate(raise_on_error)
        if whole:
            again = build(self._kind, self.items, self.length, self.vocabulary("item"))
            whole = all(torch.equal(self._store[name], again._store[name]) for name in names)
            if not whole and raise_on_error:
                raise ValueError("the graph must have the nodes and edges of its clicks (got others)")
        return whole

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == "alias":
            return self.x.numel()
        return self.num_sessions if key == "session_of_node" else super().__inc__(key, value, *args, **kwargs)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in DERIVED:
            raise AttributeError(f"'{key}' is read-only: it follows from the clicks of the graph")
        super().__setattr__(key, value)
