"""UnlearnRec: an influence encoder, pre-trained once, that maps requests to updated parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.tables import initial_table
from graphunlearn.nn.training.fitting import FitSettings
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner
from graphunlearn.operators.shared.checks import check
from graphunlearn.operators.shared.preparation import Kept
from graphunlearn.operators.shared.refit import Noise, refit_neighbours, whole_noise
from graphunlearn.operators.shared.steer import steer
from graphunlearn.operators.shared.tune import TuneSettings, tune
from graphunlearn.operators.shared.warm_start import warm_start
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings, InfluenceEncoder
from graphunlearn.operators.unlearnrec.features import LARGE_LOSS, Removal
from graphunlearn.operators.unlearnrec.pretraining import Simulation, learn_influence

__all__ = ["UnlearnRec"]


@dataclass(kw_only=True)
class UnlearnRec(Simulation, Unlearner):
    r"""Pre-train an influence encoder once, then serve every request with one pass of the encoder.

    This class is a redesign by this package; :meth:`as_published` returns the method close to its description
    (:class:`~graphunlearn.operators.unlearnrec.published.PublishedUnlearnRec`). :meth:`prepare` trains an additional
    model, the probe, on a graph from which some interactions were removed and to which some pairs were added, by the
    rules in :mod:`~graphunlearn.operators.unlearnrec.kinds`. The probe provides simulated requests with known
    outcomes. A small network is fitted to them: it maps features of
    the neighbourhood of an interaction to the score :math:`t_{ui}` that retraining would give the interaction. The
    network is shared by all interactions and does not use node ids. A request is served in four steps:

    1. Redraw the embeddings of emptied nodes, and fit their neighbours to what remains
       (:func:`~graphunlearn.operators.shared.refit.refit_neighbours`). If the acceptance rejects the step, it is taken
       again with a fit that keeps the noise of training.
    2. Predict :math:`t_{ui}` for all forgotten interactions at once
       (:class:`~graphunlearn.operators.unlearnrec.encoder.InfluenceEncoder`). If an item loses half of its interactions
       or more with emptied users, its scores for some other users are predicted, too.
    3. Change the layer-0 embeddings of their users and items so that these pairs score :math:`t_{ui}`, with the
       least change of all other scores (:func:`~graphunlearn.operators.shared.steer.steer`).
    4. If ``epochs`` is positive, fine-tune towards the same targets.

    An empty request leaves the model unchanged. Apart from fine-tuning, a request leaves unchanged every connected
    component of the graph that it does not touch.

    Args:
        objective: The loss that the model was trained with; ``None`` selects the shared default.
        probes: Number of probe models that :meth:`prepare` trains; more probes average out the randomness of a single
            training run.
        share: Share of the interactions that a probe is trained without. Much larger requests lie outside the
            simulated range.
        odd_users: Number of pairs that two of the rules add to the graph of a probe together, as a share of the users.
        requests: Number of simulated requests of each kind.
        context: Whether the encoder also receives the mean features of the request.
        rounds: Number of steps towards the targets.
        epochs: Epochs of fine-tuning over the retained interactions.
        adapt: Whether to accept models and graphs other than those the method was prepared for.
        validation: Interactions for early stopping of the probes; without them, a probe trains for all epochs.
        settings: The training settings of the original model. ``None`` assumes the default and records this in the
            log.
        pretraining: Settings of the training of the encoder.
        tuning: Settings of the fine-tuning; its ``epochs`` and ``seed`` are replaced by those given here.
        seed: Seed of all random draws.

    Raises:
        ValueError: A setting is out of range.

    Source: Chen, Xia and Huang, "Pre-training for Recommendation Unlearning", 2025, arXiv 2505.22649 (UnlearnRec), from
    its abstract and summaries; the redesign is by this package.

    Example:
        >>> import torch_geometric, graphunlearn as gu
        >>> graph = gu.datasets.synthetic_interactions(num_users=60, num_items=40, interactions_per_user=8, seed=0)
        >>> model = torch_geometric.nn.LightGCN(graph.num_nodes, 8, num_layers=2)
        >>> _ = gu.fit(model, graph, epochs=5)
        >>> method = gu.UnlearnRec(settings=gu.nn.FitSettings(epochs=5))
        >>> method.prepare(model, graph)
        >>> result = method.unlearn(model, graph, gu.ForgetRequest("user", ["u3"]))
        >>> again = method.unlearn(result.model, result.graph, gu.ForgetRequest("user", ["u5"]))
    """

    name: ClassVar[str] = "unlearnrec"
    checks_loss: ClassVar[bool] = True
    needs_preparation: ClassVar[bool] = True
    keeps: ClassVar[type[Kept] | None] = InfluenceEncoder
    kept_as: ClassVar[str | None] = "probe"
    anew: ClassVar[tuple[str, ...]] = ("adapt", "epochs", "rounds", "seed")
    objective: Objective | None = None
    context: bool = True
    rounds: int = 2
    epochs: int = 0
    adapt: bool = False
    validation: InteractionGraph | None = field(default=None, repr=False)
    settings: FitSettings | None = None
    pretraining: EncoderSettings = field(default_factory=EncoderSettings)
    tuning: TuneSettings = field(default_factory=TuneSettings)
    _noise: Noise = field(default="projected", init=False, repr=False, compare=False)
    _before: tuple[tuple[str, str], Encoded] | None = field(default=None, init=False, repr=False, compare=False)
    _asked: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check("not be negative", lambda value: value >= 0, epochs=self.epochs, rounds=self.rounds)

    def _validate(self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest) -> None:
        self._asked = self._check_prepared(model, graph)
        preparation = self._prepared_first()
        largest, share = preparation.log.get("largest_share"), float(request.mask(graph).float().mean())
        if largest is not None and share > largest:
            warnings.warn(
                f"the request takes {share:.1%} of the interactions; those simulated took up to {largest:.1%}",
                stacklevel=4,
            )

    def _prepare(
        self, model: nn.Module, graph: InteractionGraph, checkpoint: Path | None, progress: bool | None
    ) -> None:
        table, objective = initial_table(model, graph), self.objective or default_objective(graph)
        with torch.random.fork_rng(devices=[]):  # layer constructors draw random weights, which training replaces
            encoder = InfluenceEncoder(context=self.context).to(table)
        settings, training = replace(self.pretraining, seed=self.seed), self.settings or FitSettings()
        options: dict[str, Any] = {"validation": self.validation, "checkpoint": checkpoint, "progress": progress}
        log = learn_influence(encoder, model, graph, objective, self, settings, training=training, **options)
        with torch.no_grad():
            self._before = (fingerprint(model), graph.fingerprint()), encode(model, graph)
        self._keep(encoder.requires_grad_(False), model, graph, log)

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        encoder, removed = self._prepared_first().module, request.mask(graph)
        assert isinstance(encoder, InfluenceEncoder)
        objective = self.objective or default_objective(graph)
        with torch.no_grad():  # before embeddings are redrawn
            known = self._before is not None and self._before[0] == self._asked
            before = self._before[1] if self._before is not None and known else encode(model, graph)
        log: dict[str, Any] = {"encoder": self.kept_as, "emptied_nodes": int(graph.emptied(retained).sum())}
        trained = copy.deepcopy(model) if log["emptied_nodes"] else None
        warm_start(model, graph, retained, self.seed, scale=False)
        others = None
        if trained is not None:
            others = self._others(model, graph, retained, removed, before)
            log["refit"] = refit_neighbours(model, trained, graph, retained, removed, objective, noise=self._noise)
        removal = Removal.of(model, graph, retained, removed, before)
        pairs, targets = removal.pairs, _answer(encoder, removal)
        log["steered"] = len(targets)
        if others is not None:
            pairs, targets = torch.cat([pairs, others.pairs], 1), torch.cat([targets, _answer(encoder, others)])
            log["steered_others"] = len(targets) - log["steered"]
        log |= steer(model, retained, pairs, targets, encoded=removal.after, rounds=self.rounds)
        if self.epochs:
            tuning = replace(self.tuning, epochs=self.epochs, seed=self.seed)
            log["tuning"] = tune(model, retained, pairs, lambda _: targets, objective, tuning)
        return log

    def milder(self, log: dict[str, Any]) -> Iterator[tuple[str, Unlearner]]:
        """Yield a variant whose fit of the neighbours of emptied nodes keeps the noise of training.

        Args:
            log: The log of the step.
        """
        yield from whole_noise(self, log)

    def _others(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, removed: Tensor, before: Encoded
    ) -> Removal:
        """Return pairs of other users with the items that lose a large share to emptied users."""
        items = graph.pairs[1, removed & graph.emptied(retained)[graph.pairs[0]]]
        lost = torch.bincount(items, minlength=graph.num_items)
        large = (lost > 0) & (lost >= LARGE_LOSS * graph.adjacency.degree[graph.num_users :])
        removal = Removal.of(model, graph, retained, removed, before)
        return removal.with_others(large, torch.Generator().manual_seed(self.seed))


@torch.no_grad()
def _answer(encoder: InfluenceEncoder, removal: Removal) -> Tensor:
    """Return the scores that the encoder predicts for the pairs of a removal ``[num]``."""
    features = removal.features()
    answer: Tensor = encoder.to(features.device)(features.to(encoder.center.dtype)).to(features)
    return answer
