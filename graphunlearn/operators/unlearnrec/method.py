"""UnlearnRec: an influence encoder, pre-trained once, that turns requests into updated parameters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors.torch import load_file, save
from torch import nn
from tqdm import tqdm

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.data.io.files import write_atomic
from graphunlearn.errors import ArgumentError
from graphunlearn.nn.encoding import Encoded, encode
from graphunlearn.nn.identity import fingerprint
from graphunlearn.nn.tables import initial_table
from graphunlearn.nn.training.fitting import FitSettings
from graphunlearn.nn.training.objective import Objective, default_objective
from graphunlearn.operators.base import Unlearner, UnlearningResult
from graphunlearn.operators.shared.steer import steer
from graphunlearn.operators.shared.tune import TuneSettings, tune
from graphunlearn.operators.shared.warm_start import warm_start
from graphunlearn.operators.unlearnrec.encoder import EncoderSettings, InfluenceEncoder
from graphunlearn.operators.unlearnrec.features import Removal
from graphunlearn.operators.unlearnrec.preparation import Preparation
from graphunlearn.operators.unlearnrec.pretraining import Simulation, learn_influence
from graphunlearn.operators.unlearnrec.published import finetune, pretrain
from graphunlearn.operators.unlearnrec.published_encoder import PublishedEncoder, PublishedSettings

__all__ = ["UnlearnRec"]


@dataclass(kw_only=True)
class UnlearnRec(Unlearner):
    r"""Pre-train an influence encoder once; then forget request after request in one pass.

    With ``encoder="probe"`` (our redesign), :meth:`prepare` trains one more model, on a graph without some interactions
    and with some odd ones, which tells what forgetting them leads to, and fits a small network to it: from what is
    around an interaction to the score :math:`t_{ui}` that retraining would give it. The network is shared by all
    interactions and knows no node ids. A request is served by

    1. drawing emptied nodes anew;
    2. predicting :math:`t_{ui}` for all its interactions at once
       (:class:`~graphunlearn.operators.unlearnrec.encoder.InfluenceEncoder`);
    3. changing the layer-0 rows at their ends so that they score :math:`t_{ui}`, with the least change of all other
       scores (:func:`~graphunlearn.operators.shared.steer.steer`);
    4. where ``epochs`` is positive, fine-tuning towards the same targets.

    An empty request changes nothing, and neither does a request to a component of the graph that it does not touch (but
    for fine-tuning). With ``encoder="published"`` it is the method as its source describes it; see
    :meth:`as_published`.

    Args:
        objective: The loss the model was trained with; the shared default where ``None``.
        encoder: ``"probe"`` or ``"published"``.
        probes: Number of models that :meth:`prepare` trains; more of them average out what a single training leaves to
            chance.
        share: Share of the interactions that a probe does without; requests much larger are beyond what was simulated.
        odd_users: Share of the users who get an unlikely interaction in a probe.
        requests: Number of requests that are simulated of every kind.
        context: Whether the encoder sees what kind of request it is.
        rounds: Steps towards the targets.
        epochs: Passes of fine-tuning over the retained interactions.
        adapt: Serve models and graphs that were not prepared for, too.
        validation: Decides when the training of a probe stops. Without it all epochs are run, as in training.
        settings: How the original was trained. Where ``None`` the default is assumed, and the log says so.
        pretraining: How the encoder is trained.
        tuning: How to fine-tune; its ``epochs`` and ``seed`` are those given here.
        published: Settings of the published encoder.
        seed: Seed of everything.

    Raises:
        ValueError: A setting is out of range.

    Source: "UnlearnRec", arXiv 2505.22649, from its abstract and summaries; the redesign is our own.

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
    needs_preparation: ClassVar[bool] = True
    objective: Objective | None = None
    encoder: Literal["probe", "published"] = "probe"
    probes: int = 1
    share: float = 0.1
    odd_users: float = 0.3
    requests: int = 40
    context: bool = True
    rounds: int = 2
    epochs: int = 0
    adapt: bool = False
    validation: InteractionGraph | None = field(default=None, repr=False)
    settings: FitSettings | None = None
    pretraining: EncoderSettings = field(default_factory=EncoderSettings)
    tuning: TuneSettings = field(default_factory=TuneSettings)
    published: PublishedSettings = field(default_factory=PublishedSettings)
    seed: int = 0
    preparation: Preparation | None = field(default=None, init=False, repr=False, compare=False)
    _before: tuple[tuple[str, str], Encoded] | None = field(default=None, init=False, repr=False, compare=False)
    _asked: tuple[str, str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.encoder not in ("probe", "published"):
            raise ArgumentError("encoder", "be probe or published", f"{self.encoder!r}")
        for name in ("epochs", "rounds"):
            if getattr(self, name) < 0:
                raise ArgumentError(name, "not be negative", getattr(self, name))
        self._simulation()

    @classmethod
    def as_published(
        cls,
        objective: Objective | None = None,
        *,
        epochs: int = 5,
        published: PublishedSettings | None = None,
        **options: Any,
    ) -> UnlearnRec:
        """Return the method close to its description: an influence row per node, a push, a few epochs of fine-tuning.

        Args:
            objective: The loss the model was trained with.
            epochs: Passes of fine-tuning.
            published: How to pre-train, and the weight of every loss.
            **options: Other fields of the method, such as ``seed``.
        """
        published = published or PublishedSettings()
        return cls(objective=objective, encoder="published", epochs=epochs, published=published, **options)

    def _simulation(self) -> Simulation:
        return Simulation(
            probes=self.probes,
            share=self.share,
            odd_users=self.odd_users,
            requests=self.requests,
            seed=self.seed,
        )

    def save(self, path: str | Path) -> Path:
        """Write the preparation beside a model.

        Raises:
            ValueError: Nothing is prepared.
        """
        return self._prepared().save(path)

    def load(self, path: str | Path, device: torch.device | str = "cpu") -> UnlearnRec:
        """Take up a preparation that was saved; returns itself.

        Raises:
            ValueError: It is none, of another version, or of another kind of encoder.
        """
        preparation = Preparation.load(path, device)
        if preparation.kind != self.encoder:
            raise ArgumentError("path", f"hold a preparation for encoder {self.encoder!r}", f"{preparation.kind!r}")
        self.preparation, self.prepare_seconds = preparation, preparation.seconds
        return self

    def prepare(
        self,
        model: nn.Module,
        graph: InteractionGraph,
        *,
        checkpoint: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        super().prepare(model, graph, checkpoint=checkpoint, progress=progress)
        preparation = self._prepared()
        assert self.prepare_seconds is not None
        self.prepare_seconds += preparation.log.get("seconds_before_a_break", 0.0)
        preparation.seconds = self.prepare_seconds

    def unlearn(
        self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest, *, inplace: bool = False
    ) -> UnlearningResult:
        result = super().unlearn(model, graph, request, inplace=inplace)
        self._prepared().note(result.model, result.graph)
        return result

    def _prepared(self) -> Preparation:
        if self.preparation is None:
            raise ValueError(f"{self.name} must be prepared with prepare(model, graph) first (got no preparation)")
        return self.preparation

    def _validate(self, model: nn.Module, graph: InteractionGraph, request: ForgetRequest) -> None:
        preparation = self._prepared()
        self._asked = fingerprint(model), graph.fingerprint()
        objection = None if self.adapt else preparation.objection(*self._asked)
        if objection is not None:
            raise ArgumentError(
                objection,
                (f"be the one that {self.name} was prepared for, or come from it by requests that this object served"),
                "another; prepare again, or serve it all the same with adapt=True",
            )
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
        made: InfluenceEncoder | PublishedEncoder
        if self.encoder == "probe":
            with torch.random.fork_rng(devices=[]):  # layers are drawn as they are made, and drawn again in training
                made = InfluenceEncoder(context=self.context).to(table)
            log = learn_influence(
                made,
                model,
                graph,
                objective,
                self._simulation(),
                replace(self.pretraining, seed=self.seed),
                training=self.settings or FitSettings(),
                validation=self.validation,
                checkpoint=checkpoint,
                progress=progress,
            )
            with torch.no_grad():
                self._before = (fingerprint(model), graph.fingerprint()), encode(model, graph)
        else:
            with torch.random.fork_rng(devices=[]):
                made = PublishedEncoder(*table.shape, lr=self.published.lr).to(table)
            log = self._pretrain_published(made, model, graph, objective, checkpoint, progress)
        self.preparation = Preparation(
            self.encoder, made.requires_grad_(False), fingerprint(model), graph.fingerprint(), log
        )

    def _pretrain_published(
        self,
        encoder: PublishedEncoder,
        model: nn.Module,
        graph: InteractionGraph,
        objective: Objective,
        checkpoint: Path | None,
        progress: bool | None,
    ) -> dict[str, Any]:
        settings = replace(self.published, seed=self.seed)
        path = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.safetensors")
        state = load_file(path) if path is not None and path.exists() else None
        quiet = None if progress is None else not progress
        with tqdm(total=settings.epochs, desc="pre-training", unit="epoch", disable=quiet, leave=False) as bar:

            def on_epoch(record: dict[str, Any]) -> None:
                bar.update(int(record["epoch"]) - bar.n)
                if path is not None:
                    write_atomic(path, save({name: t.contiguous() for name, t in record["state"].items()}))

            history = pretrain(encoder, model, graph, objective, settings, on_epoch=on_epoch, state=state)
        if path is not None:
            path.unlink(missing_ok=True)
        return {"pretraining": history}

    def _unlearn(
        self, model: nn.Module, graph: InteractionGraph, retained: InteractionGraph, request: ForgetRequest
    ) -> dict[str, Any]:
        preparation, removed = self._prepared(), request.mask(graph)
        objective = self.objective or default_objective(graph)
        encoder = preparation.encoder
        if isinstance(encoder, PublishedEncoder):
            pairs, settings = graph.pairs[:, removed], replace(self.published, seed=self.seed)
            history = finetune(encoder, model, graph, retained, pairs, objective, settings, self.epochs)
            return {"encoder": self.encoder, "tuning": history}
        with torch.no_grad():  # before anything is drawn anew
            known = self._before is not None and self._before[0] == self._asked
            before = self._before[1] if self._before is not None and known else encode(model, graph)
        log: dict[str, Any] = {"encoder": self.encoder, "emptied_nodes": int(graph.emptied(retained).sum())}
        warm_start(model, graph, retained, self.seed, scale=False)
        removal = Removal.of(model, graph, retained, removed, before)
        with torch.no_grad():
            features = removal.features()
            targets = encoder.to(features.device)(features.to(encoder.center.dtype)).to(features)
        log["steered"] = len(targets)
        log |= steer(model, retained, removal.pairs, targets, encoded=removal.after, rounds=self.rounds)
        if self.epochs:
            tuning = replace(self.tuning, epochs=self.epochs, seed=self.seed)
            log["tuning"] = tune(model, retained, removal.pairs, lambda _: targets, objective, tuning)
        return log
