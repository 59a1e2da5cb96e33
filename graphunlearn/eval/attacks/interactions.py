"""All attacks on a model of users and items, for one request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from graphunlearn.data import InteractionGraph
from graphunlearn.eval.attacks.before_after import changed_rows, score_drops
from graphunlearn.eval.attacks.edges import EdgeRecovery
from graphunlearn.eval.attacks.evidence import Evidence, units_of
from graphunlearn.eval.attacks.fold_in import NEEDED, WHOLE, FoldIn
from graphunlearn.eval.attacks.matching import Matched, match_of, matched_pairs
from graphunlearn.eval.attacks.membership import FEWEST_ANCHORS, Observed, membership
from graphunlearn.nn import Encoded, score

__all__ = ["InteractionAttacks"]

MOST = 5000
"""Largest number of forgotten pairs that membership is tested on."""
CONTROLS = 2000
"""Least number of never-seen controls, where the request allows."""


class InteractionAttacks:
    """The attacks on models of users and items.

    Args:
        graph: The training graph before forgetting.
        retained: The retained graph.
        forgotten: The forgotten interactions.
        held: Held-out graphs, whose pairs are never used as controls. Pairs of the last one (the test data) whose user
            and item are trained on calibrate the membership attacks.
        targets: Items that the forgotten interactions were made to promote ``[num_targets]``, or ``None``.
        real: Mask of the real users ``[num_users]``; by default those with an interaction left.
        levels: The levels of the request: ``"user"``, ``"item"``, ``"interaction"``.
        seed: Seed of all choices.

    Attributes:
        match: How well the controls of the forgotten pairs match them in the popularity of their items; see
            :func:`~graphunlearn.eval.attacks.matching.match_of`.
        calibrated: Whether there are enough test pairs to calibrate the membership attacks.
        whole: The fold-in attacks without which a model cannot be judged as retraining, with what they need: those on
            users (or items) if the request names them, or if a tenth of the forgotten interactions is theirs.
        left_out: Numbers of forgotten nodes that the fold-in attack cannot use, by reason.
    """

    def __init__(
        self,
        graph: InteractionGraph,
        retained: InteractionGraph,
        forgotten: InteractionGraph,
        held: Sequence[InteractionGraph] = (),
        *,
        targets: Tensor | None = None,
        real: Tensor | None = None,
        levels: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(forgotten.num_interactions, generator=generator)[:MOST].sort().values
        part = forgotten.select(chosen.to(forgotten.pairs.device))
        self.forgotten = part.pairs
        self.confidence = None if part.label is None else 2 * part.label.double() - 1
        per_pair = 2 * max(2, -(-CONTROLS // max(2 * part.num_interactions, 1)))
        self.matched = matched_pairs(graph, part.pairs, held, per_pair=per_pair, seed=seed)
        popularity = graph.adjacency.degree[graph.num_users :]
        self.match = match_of(popularity, part.pairs[1], self.matched.controls[1], self.matched.owner)
        self.anchors = self._anchors(retained, held, generator)
        self.anchored = matched_pairs(graph, self.anchors, held, per_pair=2, seed=seed)
        self.calibrated = self.anchors.size(1) + self.anchored.controls.size(1) >= FEWEST_ANCHORS
        self.folds = {
            "fold_in": FoldIn(graph, retained, held, side="user", seed=seed),
            "fold_in_items": FoldIn(graph, retained, held, side="item", seed=seed),
        }
        self.edges = EdgeRecovery(graph, retained, part.pairs, held, seed=seed)
        kept = torch.randperm(retained.num_interactions, generator=generator)[:MOST]
        self.kept = retained.pairs[:, kept.to(retained.pairs.device)]
        users = torch.zeros(graph.num_users, dtype=torch.bool, device=graph.pairs.device)
        users[forgotten.pairs[0]] = True
        self.users = users
        self.promoted = self._promoted(retained, [graph, *held], targets, real, generator)
        emptied = graph.emptied(retained)
        of = {"user": emptied[forgotten.pairs[0]], "item": emptied[forgotten.pairs[1] + graph.num_users]}
        self.whole = {
            name: NEEDED[name]
            for side, name in (("user", "fold_in"), ("item", "fold_in_items"))
            if side in levels or float(of[side].double().mean()) >= WHOLE
        }
        names = {"fold_in": "forgotten users with a single interaction, whom the fold-in attack cannot test"}
        names["fold_in_items"] = "forgotten items with a single interaction, which the fold-in attack cannot test"
        self.left_out = {names[name]: fold.left_out for name, fold in self.folds.items() if fold.left_out}

    @staticmethod
    def _promoted(
        retained: InteractionGraph,
        known: Sequence[InteractionGraph],
        targets: Tensor | None,
        real: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Return pairs of remaining users and promoted items that are in no known graph ``[2, num]``."""
        if targets is None or not len(targets):
            return retained.pairs[:, :0]
        alive = retained.active[: retained.num_users]
        users = (alive if real is None else alive & real.to(alive.device)).nonzero().flatten()
        users = users[torch.randperm(len(users), generator=generator)[:MOST].to(users.device)]
        user, item = torch.cartesian_prod(users, targets.to(users.device)).t()
        pairs = torch.cat([graph.pairs for graph in known], 1)
        free = ~torch.isin(user * retained.num_items + item, pairs[0] * retained.num_items + pairs[1])
        return torch.stack([user[free], item[free]])

    @staticmethod
    def _anchors(retained: InteractionGraph, held: Sequence[InteractionGraph], generator: torch.Generator) -> Tensor:
        """Return held-out pairs, which no model was trained on, of users and items that remain."""
        pairs = held[-1].pairs if held else retained.pairs[:, :0]
        degree = retained.adjacency.degree
        known = (degree[pairs[0]] > 0) & (degree[pairs[1] + retained.num_users] > 0)
        pairs = pairs[:, known]
        return pairs[:, torch.randperm(pairs.size(1), generator=generator)[:MOST].to(pairs.device)]

    @torch.no_grad()
    def observe(self, encoded: Encoded, before: Encoded | None = None) -> Observed:
        """Return the data of one model that the attacks use.

        Args:
            encoded: The embeddings of the model.
            before: The embeddings of the original model; ``None`` for the original itself.

        Returns:
            Logits of the forgotten pairs and of their controls, less the mean of the controls of the same user, and
            the evidence of the attacks that need no other model.
        """
        sign = self.confidence
        forgotten, controls = _logits(encoded, self.matched)
        if sign is not None:
            forgotten, controls = sign * forgotten, sign[self.matched.owner] * controls
        anchors = torch.cat(_logits(encoded, self.anchored))
        alone = {name: fold(encoded) for name, fold in self.folds.items() if fold.forgotten} | self.edges(encoded)
        if self.promoted.size(1):
            alone["target"] = Evidence.of((torch.sigmoid(score(encoded, self.promoted)), self.promoted[0]))
        if before is not None:
            alone["before_and_after"] = score_drops(before, encoded, self.forgotten, self.kept)
        return {
            "forgotten": forgotten.cpu(),
            "controls": controls.cpu(),
            "anchors": anchors.cpu(),
            "evidence": alone,
            "rows": None if before is None else changed_rows(before.queries, encoded.queries, self.users),
        }

    def evidence(
        self, observed: Observed, outside: Sequence[Observed], inside: Sequence[Observed] = ()
    ) -> dict[str, tuple[Evidence, dict[str, float]]]:
        """Return the evidence of every attack on one model.

        Args:
            observed: The data of the model that the attacks use.
            outside: The same of models that were not trained on the forgotten pairs, without this model.
            inside: The same of shadow models that were trained on them.

        Returns:
            The evidence and further figures, by attack. The membership attacks are missing without an out-model.
        """
        found: dict[str, tuple[Evidence, dict[str, float]]] = {
            name: (evidence, {}) for name, evidence in observed["evidence"].items()
        }
        if observed["rows"] is not None:
            found["before_and_after"][1]["rows"] = observed["rows"]
        return found | membership(observed, outside, units_of(self.forgotten[0]).cpu(), inside)


def _logits(encoded: Encoded, matched: Matched) -> tuple[Tensor, Tensor]:
    """Return the scores of pairs and of their controls, less the mean score of the controls of the same pair."""
    pairs, controls = score(encoded, matched.pairs).double(), score(encoded, matched.controls).double()
    total = torch.zeros_like(pairs).index_add_(0, matched.owner, controls)
    level = total / torch.bincount(matched.owner, minlength=len(pairs)).clamp(min=1)
    return pairs - level, controls - level[matched.owner]
