"""All attacks on a session recommender, for one request."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from graphunlearn.data import SessionGraph
from graphunlearn.eval.attacks.evidence import Evidence, placements, units_of
from graphunlearn.eval.attacks.fold_in import WHOLE
from graphunlearn.eval.attacks.matching import ROUNDS, drawn, match_of, windows
from graphunlearn.eval.attacks.membership import FEWEST_ANCHORS, Observed, membership
from graphunlearn.eval.targets import last_prefixes
from graphunlearn.nn.prefixes import encode_prefixes

__all__ = ["Asked", "SessionAttacks"]

MOST = 2000
"""Largest number of clicks per attack."""
CONTROLS = 2000
"""Least number of controls of the forgotten clicks, where the request allows."""
REMAINING = 300
"""Largest number of remaining sessions that forgotten sessions are compared with."""


class Asked:
    """Predictions whose scores an attack uses: each consists of the last click of a prefix and an item, with controls.

    The controls of a click have the same prefix and an item of about the same popularity that is not in the session.

    Args:
        graph: The sessions that hold the prefixes.
        ends: Index of the last click of every prefix ``[num]``.
        items: The item whose score after every prefix is used ``[num]``.
        popularity: Number of training clicks of every item ``[num_items]``.
        per_click: Number of controls per click.
        seed: Seed of the draw.
    """

    def __init__(
        self, graph: SessionGraph, ends: Tensor, items: Tensor, popularity: Tensor, per_click: int = 4, seed: int = 0
    ) -> None:
        self.graph, self.ends, self.items = graph, ends, items
        generator = torch.Generator().manual_seed(seed)
        num, device = len(popularity), items.device
        noise = torch.rand(num, generator=generator, dtype=torch.float64) / 2
        order = (popularity.cpu().double() + noise).argsort().to(device)
        order = order[popularity[order] > 0]  # items without training clicks would be easy to identify
        place = torch.zeros(num, dtype=torch.long, device=device)
        place[order] = torch.arange(len(order), device=device)
        close, wide = windows(popularity[order]), windows(popularity[order], math.inf)
        owner = torch.arange(len(ends), device=device).repeat_interleave(per_click)
        chosen = torch.full_like(owner, -1)
        session = graph.session[ends]
        known = (graph.session * num + graph.items).unique()
        for attempt in range(ROUNDS):
            missing = (chosen < 0).nonzero().flatten()
            if not len(missing):
                break
            at = place[items[owner[missing]]]
            item = order[drawn(at, close if attempt < ROUNDS // 2 else wide, generator)]
            free = ~torch.isin(session[owner[missing]] * num + item, known)
            chosen[missing[free]] = item[free]
        self.owner, self.controls = owner[chosen >= 0], chosen[chosen >= 0]

    @torch.no_grad()
    def logits(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        r"""Return the scores of clicks and controls, less the mean score of the controls of the same click.

        The difference of two scores after one prefix is the difference of :math:`\log p`.

        Args:
            model: The model.

        Returns:
            Logits of the clicks ``[num]`` and of the controls ``[num_controls]``.
        """
        encoded = encode_prefixes(model, self.graph, self.ends)
        queries, items = encoded.queries.double(), encoded.items.double()
        clicks = (queries * items[self.items]).sum(1)
        controls = (queries[self.owner] * items[self.controls]).sum(1)
        total = torch.zeros_like(clicks).index_add_(0, self.owner, controls)
        level = total / torch.bincount(self.owner, minlength=len(clicks)).clamp(min=1)
        return (clicks - level).cpu(), (controls - level[self.owner]).cpu()

    def won(self, clicks: Tensor, controls: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share of its own controls that every click beats, and which clicks have controls.

        Args:
            clicks: Logits of the clicks ``[num]``.
            controls: Logits of the controls ``[num_controls]``.

        Returns:
            The shares ``[num]`` and a mask ``[num]``.
        """
        owner = self.owner.cpu()
        beaten = (clicks[owner] > controls).double() + (clicks[owner] == controls).double() / 2
        count = torch.bincount(owner, minlength=len(clicks))
        return torch.zeros_like(clicks).index_add_(0, owner, beaten) / count.clamp(min=1), count > 0


class SessionAttacks:
    r"""The attacks on session recommenders.

    - ``click``: the AUROC of :math:`\log p(v_t \mid v_{1:t-1})` of forgotten clicks against controls after the same
      prefix;
    - ``lira``, ``rmia``: the membership attacks on the same logits, calibrated on test clicks;
    - ``transition``: LiRA on the deleted transitions :math:`\log p(v_{t+1} \mid v_{1:t})`;
    - ``target``: the probability that the promoted items are clicked next in real sessions;
    - ``fold_in``: the ranks of the items of the second half of a forgotten session after its first half, minus the same
      figure of remaining sessions.

    Args:
        graph: The training sessions before forgetting.
        retained: The retained sessions.
        forgotten: Mask of the forgotten clicks ``[num_clicks]``.
        test: Test sessions, on which the membership attacks are calibrated.
        targets: Items that the forgotten sessions were made to promote ``[num_targets]``, or ``None``.
        real: Mask of the real sessions ``[num_sessions]``; by default those that are kept.
        levels: The levels of the request: ``"session"``, ``"user"``, ``"item"``, ``"click"``.
        seed: Seed of all choices.

    Attributes:
        match: How well the controls of the forgotten clicks match them in popularity; see
            :func:`~graphunlearn.eval.attacks.matching.match_of`.
        calibrated: Whether there are enough test clicks to calibrate the membership attacks.
        whole: The attacks without which a model cannot be judged as retraining, with what they need. A session has no
            embedding of its own, so that none is needed for sessions. For items that are forgotten entirely, a fold-in
            attack would be needed, and does not exist.
    """

    def __init__(
        self,
        graph: SessionGraph,
        retained: SessionGraph,
        forgotten: Tensor,
        test: SessionGraph,
        *,
        targets: Tensor | None = None,
        real: Tensor | None = None,
        levels: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        popularity = graph.degree

        def some(mask: Tensor, most: int = MOST) -> Tensor:
            index = mask.nonzero().flatten()
            return index[torch.randperm(len(index), generator=generator)[:most].sort().values.to(index.device)]

        self.graph, items = graph, graph.items
        clicks = some(forgotten & (graph.position > 0))
        per_click = 2 * max(2, -(-CONTROLS // max(2 * len(clicks), 1)))
        self.clicks = Asked(graph, clicks - 1, items[clicks], popularity, per_click, seed)
        self.match = match_of(popularity, self.clicks.items, self.clicks.controls, self.clicks.owner)
        follows = torch.zeros_like(forgotten)
        follows[1:] = forgotten[:-1] & (graph.position[1:] > 0)
        after = some(follows)
        self.after = Asked(graph, after - 1, items[after], popularity, per_click, seed + 1)
        known = popularity[test.items] > 0
        held = some((test.position > 0) & known)
        self.anchors = Asked(test, held - 1, test.items[held], popularity, 2, seed + 2)
        self.calibrated = len(held) + len(self.anchors.controls) >= FEWEST_ANCHORS
        kept_clicks = some(~forgotten & (graph.position > 0))
        self.kept = Asked(graph, kept_clicks - 1, items[kept_clicks], popularity, 2, seed + 4)
        self.folds: list[tuple[Asked, Tensor]] = []
        kept = torch.bincount(graph.session[~forgotten], minlength=graph.num_sessions)
        self.targets, self.prefixes = targets, last_prefixes(graph, kept == graph.length if real is None else real)
        second = (graph.position > 0) & (2 * graph.position >= graph.length[graph.session])
        of_items = graph.emptied(retained)[items[forgotten]].double()
        apart = "item" in levels or float(of_items.mean()) >= WHOLE
        self.whole = {"fold_in_items": "a fold-in attack on items of sessions, which does not exist"} if apart else {}
        gone = (kept == 0) & (graph.length >= 2)
        if bool(gone.any()):
            alive = ((kept == graph.length) & (graph.length >= 2)).nonzero().flatten()
            alive = alive[torch.randperm(len(alive), generator=generator)[:REMAINING].to(alive.device)]
            remaining = torch.zeros_like(gone)
            remaining[alive] = True
            for group in (gone, remaining):
                hidden = some(second & group[graph.session], 4 * MOST)
                session = graph.session[hidden]
                first = graph.length[session] - torch.div(graph.length[session], 2, rounding_mode="floor")
                start = hidden - graph.position[hidden]
                asked = Asked(graph, start + first - 1, items[hidden], popularity, 4, seed + 3)
                self.folds.append((asked, session))

    @torch.no_grad()
    def observe(self, model: nn.Module, before: Observed | None = None) -> Observed:
        """Return the data of one model that the attacks use.

        Args:
            model: The model.
            before: The same data of the original model; ``None`` for the original itself.

        Returns:
            Logits by attack, and the evidence of the attacks that need no other model.
        """
        forgotten, controls = self.clicks.logits(model)
        seen: Observed = {
            "forgotten": forgotten,
            "controls": controls,
            "anchors": torch.cat(self.anchors.logits(model)),
            "after": self.after.logits(model),
            "kept": self.kept.logits(model)[0],
            "evidence": {},
        }
        share, there = self.clicks.won(forgotten, controls)
        if bool(there.any()):
            unit = units_of(self.graph.session[self.clicks.ends]).cpu()
            seen["evidence"]["click"] = Evidence.of((share[there], unit[there]))
        if before is not None and len(forgotten) and len(seen["kept"]):
            drops = [before[key] - seen[key] for key in ("forgotten", "kept")]
            unit = units_of(self.graph.session[self.clicks.ends]).cpu()
            seen["evidence"]["before_and_after"] = Evidence.of((placements(*drops), unit))
        if self.targets is not None and len(self.prefixes):
            encoded = encode_prefixes(model, self.graph, self.prefixes)
            p = [torch.softmax(q @ encoded.items.t(), 1)[:, self.targets].sum(1) for q in encoded.queries.split(512)]
            unit = self.graph.session[self.prefixes].cpu()
            seen["evidence"]["target"] = Evidence.of((torch.cat(p), unit))
        groups = []
        for asked, session in self.folds:
            share, there = asked.won(*asked.logits(model))
            groups.append((share[there], session.cpu()[there]))
        if groups and all(len(share) for share, _ in groups):
            seen["evidence"]["fold_in"] = Evidence.of(*groups)
        return seen

    def evidence(
        self, observed: Observed, outside: Sequence[Observed], inside: Sequence[Observed] = ()
    ) -> dict[str, tuple[Evidence, dict[str, float]]]:
        """Return the evidence of every attack on one model.

        Args:
            observed: The data of the model that the attacks use.
            outside: The same of models that were not trained on the forgotten clicks, without this model.
            inside: The same of shadow models that were trained on them.

        Returns:
            The evidence and further figures, by attack.
        """
        found: dict[str, tuple[Evidence, dict[str, float]]] = {
            name: (evidence, {}) for name, evidence in observed["evidence"].items()
        }
        found |= membership(observed, outside, units_of(self.graph.session[self.clicks.ends]).cpu(), inside)

        def followed(o: Observed) -> Observed:
            return {"forgotten": o["after"][0], "controls": o["after"][1], "anchors": o["anchors"]}

        unit = units_of(self.graph.session[self.after.ends]).cpu()
        after = membership(followed(observed), [followed(o) for o in outside], unit)
        return found | ({"transition": (after["lira"][0], {})} if after else {})
