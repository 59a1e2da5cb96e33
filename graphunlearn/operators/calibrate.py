"""Calibrate: move forgotten interactions to the scores of comparable never-seen pairs, without any preparation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.schema import check_sizes
from graphunlearn.nn.encoding import Encoded, encode, score
from graphunlearn.nn.training.negatives import draw_negatives
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.shared.neighbours import neighbour_means, random_walk
from graphunlearn.operators.shared.refit import Noise, refit_neighbours, whole_noise
from graphunlearn.operators.shared.steer import steer
from graphunlearn.operators.shared.tune import TuneSettings, tune
from graphunlearn.operators.shared.warm_start import warm_start

__all__ = ["Calibrate", "neighbourhood_targets", "unseen_pairs"]


@torch.no_grad()
def neighbourhood_targets(
    graph: InteractionGraph, encoded: Encoded, pairs: Tensor, *, seed: int = 0, num_pairs: int = 16384
) -> Tensor:
    r"""Predict the scores of ``pairs`` as if the model had never been trained on them.

    For a retrained model, a forgotten pair is a never-seen pair. The function therefore fits a ridge regression to the
    scores of pairs that are not in ``graph`` (a few of them may be forgotten pairs) and predicts the scores of
    ``pairs`` with it. Let :math:`m_v` be the mean embedding of the neighbours of :math:`v`, and :math:`m^2_v` the mean
    of their means. The features are the dot products of the means of the user with those of the item, the norms of
    :math:`m`, and the degrees, with squares, products and some cubes. The embeddings of the user and the item
    themselves are not used, because they were trained on the pair.

    Args:
        graph: The retained graph.
        encoded: The encoding of the retained graph by the model.
        pairs: The pairs ``[2, num]``; their users and items must have retained neighbours.
        seed: Seed of the pairs that the regression is fitted to.
        num_pairs: Number of those pairs; half are drawn uniformly, half by random walks of three steps.

    Returns:
        The predicted scores ``[num]``.
    """
    if pairs.size(1) == 0:
        return encoded.queries.new_zeros(0)
    rows = torch.cat([encoded.queries, encoded.items])
    mean = neighbour_means(graph, rows)
    second, norm = neighbour_means(graph, mean), mean.norm(dim=1)
    degree = torch.log1p(graph.adjacency.degree.to(rows.dtype))

    def describe(pairs: Tensor) -> Tensor:
        u, i = pairs[0], pairs[1] + graph.num_users
        dots = [(a[u] * b[i]).sum(1) for a in (mean, second) for b in (mean, second)]
        return torch.stack([*dots, norm[u], norm[i], degree[u], degree[i]], 1)

    unseen = unseen_pairs(graph, num_pairs, seed)
    known = describe(unseen)
    center, scale = known.mean(0), known.std(0).clamp(min=1e-6)

    def design(features: Tensor) -> Tensor:
        x = ((features - center) / scale).clamp(-4, 4).double()
        a, b = torch.triu_indices(x.size(1), x.size(1), device=x.device)
        return torch.cat([torch.ones_like(x[:, :1]), x, x[:, a] * x[:, b], x[:, :4] ** 3], 1)

    x, y = design(known), score(encoded, unseen).double()
    normal = x.t() @ x / len(x) + 1e-3 * torch.eye(x.size(1), dtype=x.dtype, device=x.device)
    return (design(describe(pairs)) @ torch.linalg.solve(normal, x.t() @ y / len(x))).to(rows.dtype)


def unseen_pairs(graph: InteractionGraph, num: int, seed: int) -> Tensor:
    """Draw up to ``num`` pairs that are not in the graph, half uniformly and half close to the interactions of a user.

    Args:
        graph: The graph; users are drawn in proportion to their number of interactions.
        num: Number of pairs drawn; drawn pairs that are interactions of the graph are discarded.
        seed: Seed of the draw.

    Returns:
        The pairs ``[2, at most num]``.

    Example:
        >>> graph = InteractionGraph.from_edges(torch.tensor([[0, 0, 1], [0, 1, 1]]))
        >>> unseen_pairs(graph, 8, seed=0).unique(dim=1)
        tensor([[1],
                [0]])
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(graph.num_interactions, (num,), generator=generator).to(graph.pairs.device)
    users, items = graph.pairs[:, chosen]
    uniform = draw_negatives(graph, users[: num // 2], items[: num // 2], 1, seed).view(-1)
    node = random_walk(graph, items[num // 2 :] + graph.num_users, 2, generator)
    pairs = torch.stack([users, torch.cat([uniform, node - graph.num_users])])
    held = graph.pairs[0] * graph.num_items + graph.pairs[1]
    return pairs[:, ~torch.isin(pairs[0] * graph.num_items + pairs[1], held)]


@dataclass(kw_only=True)
class Calibrate(Unlearner):
    r"""Move the score of every forgotten interaction to that of a comparable never-seen pair.

    1. Redraw the embeddings of emptied nodes, and fit their neighbours to what remains
       (:func:`~graphunlearn.operators.shared.refit.refit_neighbours`). If the acceptance rejects the step, it is taken
       again with a fit that keeps the noise of training. With ``shrink``, scale every embedding by the share of
       interactions that its node keeps.
    2. Repeat ``rounds`` times: estimate targets :math:`t_{ui}` from the neighbourhoods
       (:func:`~graphunlearn.operators.calibrate.neighbourhood_targets`), and move the scores to the targets with the
       least change of all other scores (:func:`~graphunlearn.operators.shared.steer.steer`).
    3. Fine-tune for ``epochs`` epochs on the training loss of the retained graph, the distance to the targets
       (re-estimated in each epoch) and the change of the other scores.

    The method aims at a target instead of lowering all forgotten scores: a pair that matches the taste of the user
    keeps a high score, as it does after retraining.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        rounds: Number of times that targets are estimated before fine-tuning.
        epochs: Epochs over the retained interactions; 0 skips fine-tuning.
        shrink: Whether to scale embeddings first. This helps if an item loses nearly all of its interactions, and harms
            otherwise.
        tuning: Settings of the fine-tuning; its ``epochs`` and ``seed`` are replaced by those given here.
        seed: Seed of redrawn embeddings, of the pairs that the regression is fitted to, and of the order of
            interactions.

    Raises:
        ValueError: A count is negative, or the initial embeddings of the model are not accessible.

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
    checks_loss: ClassVar[bool] = True  # neighbours of emptied nodes are fitted to the loss
    objective: Objective | None = None
    rounds: int = 2
    epochs: int = 0
    shrink: bool = False
    tuning: TuneSettings = field(default_factory=TuneSettings)
    seed: int = 0
    _noise: Noise = field(default="projected", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_sizes(rounds=self.rounds, epochs=self.epochs, least=0)

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        objective = self.objective or default_objective(graph)
        pairs = graph.pairs[:, request.mask(graph)]
        emptied = graph.emptied(retained)
        pairs = pairs[:, ~(emptied[pairs[0]] | emptied[pairs[1] + graph.num_users])]
        trained = copy.deepcopy(model) if bool(emptied.any()) else None  # before embeddings are redrawn
        log: dict[str, Any] = {"touched_rows": warm_start(model, graph, retained, self.seed, scale=self.shrink)}
        log["steered"], log["emptied_nodes"] = pairs.size(1), int(emptied.sum())
        if trained is not None:
            removed = request.mask(graph)
            log["refit"] = refit_neighbours(model, trained, graph, retained, removed, objective, noise=self._noise)

        def targets(encoded: Encoded) -> Tensor:
            return neighbourhood_targets(retained, encoded, pairs, seed=self.seed)

        log["rounds"] = []
        for _ in range(self.rounds if pairs.size(1) else 0):
            with torch.no_grad():
                encoded = encode(model, retained)
            log["rounds"].append(steer(model, retained, pairs, targets(encoded), encoded=encoded)["errors"])
        if self.epochs:
            tuning = replace(self.tuning, epochs=self.epochs, seed=self.seed)
            log["tuning"] = tune(model, retained, pairs, targets, objective, tuning)
        return log

    def milder(self, log: dict[str, Any]) -> Iterator[tuple[str, Unlearner]]:
        """Yield a variant whose fit of the neighbours of emptied nodes keeps the noise of training.

        Args:
            log: The log of the step.
        """
        yield from whole_noise(self, log)
