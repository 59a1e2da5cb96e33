"""Tracks of the leaderboard: a public data set, a request, a model and its training, all of them fixed."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from graphunlearn.datasets import load
from graphunlearn.datasets.registry import Split
from graphunlearn.errors import ArgumentError
from graphunlearn.eval.scenarios.cases import Scenario
from graphunlearn.eval.scenarios.interactions import removal
from graphunlearn.nn import BPR, FitSettings, Objective, build_model

__all__ = ["TRACKS", "Track", "track_of"]

NAMED = {"user": "users", "interaction": "edges"}


@dataclass(frozen=True)
class Track:
    """One fixed comparison. All models of a track are trained alike; their seeds differ.

    Args:
        dataset: Name of a public data set of users and items.
        level: ``"user"`` to forget random users, ``"interaction"`` to forget random interactions.
        share: Share to forget, in (0, 1).
        model: Name of the model.
        dim: Width of the embedding tables.
        layers: Number of layers.
        originals: Number of original models; their seeds count up from 0.
        references: Number of retrained models; their seeds count up from 1,000.
        seed: Seed of the split and of the request.
        settings: Training settings; the seed in them is unused.

    Example:
        >>> Track("ml-100k", "user").name
        'ml-100k-users'
    """

    dataset: str
    level: str
    share: float = 0.05
    model: str = "lightgcn"
    dim: int = 32
    layers: int = 2
    originals: int = 5
    references: int = 20
    seed: int = 0
    settings: FitSettings = field(default_factory=FitSettings)

    @property
    def name(self) -> str:
        """The data set and what is forgotten."""
        return f"{self.dataset}-{NAMED[self.level]}"

    @property
    def objective(self) -> Objective:
        """The loss of all models, BPR."""
        return BPR()

    def case(self, root: str | os.PathLike[str] | None = None) -> Scenario[Any]:
        """Read the data set and return its split and the request.

        Args:
            root: Folder of data sets; see :func:`graphunlearn.datasets.load`.

        Raises:
            FileNotFoundError: A file is missing; the message says where to get it.
        """
        found = load(self.dataset, root)
        graph: Any = found.train if isinstance(found, Split) else found
        test: Any = found.test if isinstance(found, Split) else None
        return removal(graph, self.level, share=self.share, seed=self.seed, test=test)

    def build(self, case: Scenario[Any]) -> nn.Module:
        """Return an untrained model for the training graph of a case."""
        return build_model(self.model, case.train, self.dim, self.layers)

    def facts(self, case: Scenario[Any]) -> dict[str, Any]:
        """Return what decides a track, in JSON types, with fingerprints of the data; two equal ones are comparable.

        Args:
            case: The split and the request.
        """
        retained, _ = case.train.split(case.request)
        data = {"train": case.train, "kept": retained, "validation": case.validation, "test": case.test}
        own = {key: value for key, value in asdict(self).items() if key not in ("originals", "references")}
        own["settings"] = {key: value for key, value in own["settings"].items() if key != "seed"}
        return own | {"objective": repr(self.objective), "data": {name: g.fingerprint() for name, g in data.items()}}


TRACKS = {track.name: track for track in (Track(data, level) for data in ("ml-100k", "lastfm") for level in NAMED)}
"""The tracks by name."""


def track_of(name: str) -> Track:
    """Return the track of a name.

    Args:
        name: One of :data:`TRACKS`.

    Raises:
        ArgumentError: There is no such track.
    """
    if name not in TRACKS:
        raise ArgumentError("track", f"be one of {', '.join(TRACKS)}", f"{name!r}")
    return TRACKS[name]
