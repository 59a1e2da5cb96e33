"""Calibrate: give forgotten interactions the scores of never-seen ones, without any preparation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.encode import Encoded, encode
from graphunlearn.nn.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.start import emptied_nodes, warm_start
from graphunlearn.operators.steer import steer
from graphunlearn.operators.targets import neighbourhood_targets
from graphunlearn.operators.tune import TuneSettings, tune

__all__ = ["Calibrate"]


@dataclass(kw_only=True)
class Calibrate(Unlearner):
    r"""Bring every forgotten interaction to the score of a comparable never-seen pair.

    1. Emptied nodes are drawn anew; with ``shrink``, rows are scaled by the share of interactions they keep.
    2. ``rounds`` times: targets :math:`t_{ui}` are estimated from neighbourhoods
       (:func:`~graphunlearn.operators.targets.neighbourhood_targets`), and the scores moved there with the least change
       of all others (:func:`~graphunlearn.operators.steer.steer`).
    3. ``epochs`` of fine-tuning on the training loss of what remains, the targets (estimated anew each epoch) and
       the change of the other scores.

    A target, not a push: a pair that looks like something the user would like keeps a high score, as after retraining.

    Args:
        objective: The loss the model was trained with; the shared default where ``None``.
        rounds: Estimates of the targets before fine-tuning.
        epochs: Passes over the retained interactions; 0 leaves fine-tuning out.
        shrink: Whether rows are scaled first. It helps where an item loses nearly all it has, and harms otherwise.
        tuning: How to fine-tune; its ``epochs`` and ``seed`` are those given here.
        seed: Seed of new rows, of the pairs that targets are fitted to, and of the order of interactions.

    Raises:
        ValueError: A count is negative, or the model's initial embeddings cannot be reached.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> _ = gu.fit(model, graph, epochs=5)
        >>> result = gu.Calibrate().unlearn(model, graph, gu.ForgetRequest("item", [graph.item_ids[3]]))
        >>> int((result.graph.pairs[1] == 3).sum())
        0
    """

    name: ClassVar[str] = "calibrate"
    objective: Objective | None = None
    rounds: int = 2
    epochs: int = 0
    shrink: bool = False
    tuning: TuneSettings = field(default_factory=TuneSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"'{name}' must not be negative (got {getattr(self, name)})")

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        pairs = graph.pairs[:, request.mask(graph)]
        emptied = emptied_nodes(graph, retained)
        pairs = pairs[:, ~(emptied[pairs[0]] | emptied[pairs[1] + graph.num_users])]
        log: dict[str, Any] = {"touched_rows": warm_start(model, graph, retained, self.seed, scale=self.shrink)}
        log["steered"], log["emptied_nodes"] = pairs.size(1), int(emptied.sum())

        def targets(encoded: Encoded) -> Tensor:
            return neighbourhood_targets(retained, encoded, pairs, seed=self.seed)

        log["rounds"] = []
        for _ in range(self.rounds if pairs.size(1) else 0):
            with torch.no_grad():
                encoded = encode(model, retained)
            log["rounds"].append(steer(model, retained, pairs, targets(encoded), encoded=encoded)["errors"])
        if self.epochs:
            tuning = TuneSettings(**{**vars(self.tuning), "epochs": self.epochs, "seed": self.seed})
            log["tuning"] = tune(model, retained, pairs, targets, objective, tuning)
        return log
