"""The measures that an audit takes of models of users and items."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval.attacks.interactions import InteractionAttacks
from graphunlearn.eval.pairs import exposure, never_seen_pairs
from graphunlearn.eval.served import margins, top_lists
from graphunlearn.eval.targets import target_figures
from graphunlearn.metrics.forgetting import (
    flipped_label_auc,
    ks_distance,
    membership_auroc,
    mi_bf,
    mi_ng,
    privacy_leakage,
)
from graphunlearn.metrics.ranking import Ranker, auroc
from graphunlearn.nn import Encoded, Objective, encode, risk_of, score
from graphunlearn.utils import k_hop_ball

__all__ = ["EXPOSED", "Judge", "Measured", "compared_by_ks", "held_against"]

Measured = dict[str, Any]
"""Measures of one model: ``utility``, ``forgetting``, the (log) probabilities ``forget`` and ``test``, the data that
the attacks use (``observed``), margins of forgotten and kept pairs (``margins``) and recommendation lists (``lists``).
"""
SAMPLE = 500
"""Largest number of pairs, and of queries per group, whose margins and lists are compared with retrained models."""


def held_against(
    models: Sequence[Measured], retrained: Sequence[Measured]
) -> Iterator[tuple[Measured, list[Measured]]]:
    """Yield every model together with the retrained models that it is compared with.

    Args:
        models: Measures of the original model and of the audited methods, which are compared with all retrained models.
        retrained: Measures of the retrained models; each is compared with the other ones.
    """
    for model in models:
        yield model, list(retrained)
    for k, model in enumerate(retrained):
        yield model, [other for j, other in enumerate(retrained) if j != k]


def compared_by_ks(model: Measured, others: Sequence[Measured]) -> float | None:
    """Return the KS distance on the forget set, and store its p-value and its noise floor in ``model["ks"]``.

    Args:
        model: Measures of one model; changed in place.
        others: Measures of the retrained models that it is compared with.

    Returns:
        The KS statistic, or ``None`` if it cannot be computed.
    """
    ks = ks_distance(model["forget"], [other["forget"] for other in others]) if others else None
    model["ks"] = {"p_value": ks.p_value, "floor": ks.floor} if ks else {"p_value": None, "floor": None}
    return ks.statistic if ks else None


EXPOSED = 20
"""Length of the recommendation list in which forgotten items are counted."""
SENSITIVE = (10, 20)
"""Lengths of the lists in which items of a sensitive category are looked for."""
FEWEST = 1000
"""Least number of never-seen pairs that the forgotten pairs are compared with, even for a small request."""
GROUPED = ("recall@20", "ndcg@20")


class Judge:
    """Measures all models of one audit of users and items in the same way.

    Args:
        graph: The training graph before forgetting.
        request: The forget request.
        validation: Held-out interactions for early stopping, or ``None``.
        test: All held-out test interactions. The constructor drops those that must not be measured and counts them in
            ``left_out``.
        objective: The loss, for the gradient residual.
        trained_labels: Whether to measure how well a model predicts the labels that the forgotten interactions were
            trained with.
        targets: Items that the forgotten interactions were made to promote ``[num_targets]``, or ``None``.
        real: Mask of the real users ``[num_users]``, for whom the targets are measured; by default all remaining users.
        category: Sensitive items that users asked to forget ``[num_category]``, or ``None``.

    Attributes:
        distance_unit: ``"p"``; distances between models are differences of probabilities.
        left_out: Numbers of held-out rows that are not measured, by reason.
    """

    distance_unit: ClassVar[str] = "p"

    def __init__(
        self,
        graph: InteractionGraph,
        request: ForgetRequest,
        validation: InteractionGraph | None,
        test: InteractionGraph,
        objective: Objective,
        trained_labels: bool,
        targets: Tensor | None = None,
        real: Tensor | None = None,
        category: Tensor | None = None,
    ) -> None:
        self.graph, self.objective = graph, objective
        self.retained, self.forgotten = graph.split(request)
        seen = graph.adjacency.degree > 0
        known = seen[test.pairs[0]] & seen[test.pairs[1] + graph.num_users]
        rest = test.select(known)
        kept = rest.without_emptied(graph, self.retained)
        pair = graph.num_items * kept.pairs[0] + kept.pairs[1]
        gone = graph.num_items * self.forgotten.pairs[0] + self.forgotten.pairs[1]
        self.test = kept.select(~torch.isin(pair, gone))
        held = [] if validation is None else [validation]
        stopped = [v.without_emptied(graph, self.retained).num_interactions for v in held]
        self.left_out = {
            "test rows with a user or item that training never saw": int((~known).sum()) + test.num_left_out,
            "test rows of users or items forgotten entirely": rest.num_interactions - kept.num_interactions,
            "test rows that are themselves forgotten": kept.num_interactions - self.test.num_interactions,
            "validation rows of users or items forgotten entirely": sum(v.num_interactions for v in held)
            - sum(stopped),
        }
        affected = torch.zeros(graph.num_users, dtype=torch.bool, device=graph.pairs.device)
        affected[self.forgotten.pairs[0]] = True
        theirs = affected[self.test.pairs[0]]
        groups = {"affected": self.test.select(theirs), "unaffected": self.test.select(~theirs)}
        self.rankers = {name: Ranker(self.retained, part, ks=(20, 10)) for name, part in groups.items()}
        self.known = [graph, *held, test]
        users = self.forgotten.pairs[0]
        self.never_seen = never_seen_pairs(users.repeat(-(-FEWEST // len(users))), self.known, seed=0)
        levels = [part.level for part in request.parts]
        self.attacks = InteractionAttacks(
            graph, self.retained, self.forgotten, [*held, test], targets=targets, real=real, levels=levels
        )
        self.left_out |= self.attacks.left_out
        alive = self.retained.active[: graph.num_users]
        self.asking = (alive & affected).nonzero().flatten()
        self.category = None if category is None else category.to(graph.pairs.device)
        self.targets, self.real = targets, alive if real is None else real.to(alive.device) & alive
        generator = torch.Generator().manual_seed(0)
        self.listed = {
            "affected": _some(alive & affected, generator),
            "unaffected": _some(alive & ~affected, generator),
        }
        self.margin_pairs = {}
        for name, part in (("forget", self.forgotten), ("retain", self.retained)):
            index = torch.randperm(part.num_interactions, generator=generator)[:SAMPLE]
            self.margin_pairs[name] = part.pairs[:, index.to(part.pairs.device)]
        self.all_test = test
        self.own_ranker = Ranker(graph, test, ks=(20, 10)) if test.num_interactions else None
        self.trained_labels = self.forgotten.label if trained_labels else None
        self.labels = self.test.label

    @torch.no_grad()
    def measure(self, model: nn.Module, graph: InteractionGraph, before: Measured | None = None) -> Measured:
        """Return utility, forgetting and probabilities of one model.

        Args:
            model: The model.
            graph: The graph that the model uses for its predictions.
            before: Measures of the original model; ``None`` for the original itself.

        Returns:
            Metrics by name under ``"utility"`` and ``"forgetting"``, and the probabilities of the forgotten pairs
            ``"forget"`` ``[num_forgotten]``, of the test pairs ``"test"`` ``[num_test]`` and of never-seen pairs
            ``"never"`` ``[num_never_seen]``.
        """
        encoded = encode(model, graph)
        p_forget, p_test, p_never = (
            torch.sigmoid(score(encoded, pairs)) for pairs in (self.forgotten.pairs, self.test.pairs, self.never_seen)
        )
        utility = {}
        if self.labels is not None and 0 < float(self.labels.mean()) < 1:
            utility["auroc"] = auroc(p_test, self.labels)
        utility |= self._ranking(encoded.queries, encoded.items)
        forgetting = {}
        if self.trained_labels is not None:
            forgetting["flipped_label_auc"] = flipped_label_auc(p_forget, self.trained_labels)
        forgetting["membership_auroc"] = membership_auroc(p_forget, p_never)
        forgetting["mean_probability"] = float(p_forget.double().mean())
        forgetting[f"exposure@{EXPOSED}"] = exposure(encoded, self.retained, self.forgotten.pairs, EXPOSED)
        forgetting |= self._sensitive(encoded)
        forgetting["gradient_residual"] = self.gradient_residual(model)
        return {
            "utility": utility,
            "forgetting": forgetting,
            "forget": p_forget.cpu(),
            "test": p_test.cpu(),
            "never": p_never.cpu(),
            "observed": self.attacks.observe(encoded, None if before is None else before["encoded"]),
            "margins": {
                name: margins(encoded.queries[pairs[0]], encoded.items, pairs[1])
                for name, pairs in self.margin_pairs.items()
            },
            "lists": {
                group: top_lists(Encoded(encoded.queries[users], encoded.items), self.retained.seen(users))
                for group, users in self.listed.items()
            },
            "target": self._target(encoded),
            **({"encoded": encoded, "own": self._own(encoded)} if before is None else {}),
        }

    def _sensitive(self, encoded: Encoded) -> dict[str, float]:
        """Return the share of users who asked to forget and are still recommended an item of the category."""
        if self.category is None or not len(self.asking):
            return {}
        users = self.asking
        lists = top_lists(Encoded(encoded.queries[users], encoded.items), self.retained.seen(users), max(SENSITIVE))
        found = torch.isin(lists, self.category.cpu())
        return {f"sensitive@{k}": float(found[:, :k].any(1).double().mean()) for k in SENSITIVE}

    def _target(self, encoded: Encoded) -> dict[str, float] | None:
        if self.targets is None:
            return None
        return target_figures(encoded, self.retained, self.targets, self.real, k=EXPOSED, known=self.known)

    def _own(self, encoded: Encoded) -> dict[str, float]:
        """Return the quality of the original on its own lists, which leave out the items that it was trained on, and on
        all test data, as it was measured after training.
        """
        if self.own_ranker is None:
            return {}
        label = self.all_test.label
        scores = self.own_ranker(encoded.queries, encoded.items)
        if label is not None and 0 < float(label.mean()) < 1:
            scores = {"auroc": auroc(score(encoded, self.all_test.pairs), label)} | scores
        return scores

    def _ranking(self, users: Tensor, items: Tensor) -> dict[str, float]:
        """Return the ranking metrics of all users, and those of affected and unaffected users separately."""
        counts = {name: ranker.counts["num_users"] for name, ranker in self.rankers.items()}
        parts = {name: self.rankers[name](users, items) for name, count in counts.items() if count}
        if not parts:
            return self.rankers["affected"](users, items)  # no users to measure: every metric is NaN
        total = sum(counts.values())
        metrics = next(iter(parts.values()))
        overall = {m: sum(counts[name] * part[m] for name, part in parts.items()) / total for m in metrics}
        return overall | {f"{m}_{name}": part[m] for name, part in parts.items() for m in GROUPED}

    @torch.enable_grad()
    def gradient_residual(self, model: nn.Module) -> float:
        r"""Return the norm :math:`\|\nabla R(\theta; D_k, G_k)\|` divided by the number of retained interactions.

        Args:
            model: The model with parameters :math:`\theta`.
        """
        risk = risk_of(model, self.retained, self.objective)
        return float(risk.gradient(risk.parameters).norm()) / max(self.retained.num_interactions, 1)

    def compare(self, models: Sequence[Measured], retrained: Sequence[Measured]) -> None:
        """Add the forgetting metrics that compare a model with its original or with the retrained models.

        Args:
            models: Measures of originals and methods; ``"original"`` of each holds the measures of its original model.
            retrained: Measures of the retrained models; each is compared with the other ones.
        """
        mean_auc = statistics.fmean(m["forgetting"]["membership_auroc"] for m in retrained)
        for m, others in held_against(models, retrained):
            ks = compared_by_ks(m, others)
            m["forgetting"] |= {
                "mi_bf": mi_bf(m["original"]["forget"], m["forget"]),
                "mi_ng": mi_ng(m["never"], m["forget"]),
                "privacy_leakage": privacy_leakage(m["forgetting"]["membership_auroc"], mean_auc),
                "ks_statistic": ks,
            }

    def plots(self, named: Mapping[str, Measured], retrained: Sequence[Measured]) -> dict[str, Any]:
        """Return the data of the figures; see :func:`graphunlearn.eval.report.plots.draw`.

        Args:
            named: Measures of the original model and of the audited methods, by name.
            retrained: Measures of the retrained models.
        """
        wrong = None if self.trained_labels is None else self.trained_labels.cpu()

        def shown(p: Tensor) -> Tensor:
            return p if wrong is None else torch.where(wrong > 0, p, 1 - p)

        scores: dict[str, Any] = {name: shown(m["forget"]) for name, m in named.items()}
        scores["retrain"] = [shown(m["forget"]) for m in retrained]
        label = "probability of a forgotten pair" if wrong is None else "probability of the flipped label"
        users = torch.cat([self.forgotten.pairs[0], self.forgotten.pairs[1] + self.graph.num_users]).unique()
        hop = torch.full((self.graph.num_nodes,), 3, device=users.device)
        for distance in (2, 1, 0):
            hop[k_hop_ball(self.graph, users, distance)] = distance
        of_pair = hop[self.test.pairs[0]].cpu()
        before = named["original"]["test"]
        moved = {
            name: {("3+" if h == 3 else h): (m["test"] - before).abs()[of_pair == h] for h in range(4)}
            for name, m in {"retrain": retrained[0], **named}.items()
            if name != "original"
        }
        return {"scores": scores, "scores_label": label, "moved_by_hop": moved}


def _some(mask: Tensor, generator: torch.Generator) -> Tensor:
    index = mask.nonzero().flatten()
    return index[torch.randperm(len(index), generator=generator)[:SAMPLE].to(index.device)]
