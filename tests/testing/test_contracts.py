"""The contract suites hold for what is in the package, and fail on what breaks the contract."""

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from session_toys import random_sessions, session_graph
from torch import nn
from torch_geometric.nn import LightGCN
from toys import TwoTower, Wrapped, random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.nn import (
    BPR,
    GCEGNN,
    NARM,
    NGCF,
    SGL,
    SRGNN,
    BERT4Rec,
    FitSettings,
    GRU4Rec,
    MatrixFactorization,
    SASRec,
    SimGCL,
    encode,
    fit,
)
from graphunlearn.operators import IFRU, PublishedSettings, Unlearner, Unlink, registry
from graphunlearn.testing import check_encoder, check_graph, check_unlearner

BRIEF = FitSettings(epochs=2, batch_size=64)
HELD_OUT = session_graph(random_sessions(8, 9, seed=2), 9)
QUICK = {
    "retrain": {"settings": BRIEF},
    "finetune": {"epochs": 1},
    "ascent": {"steps": 2},
    "ascent-finetune": {"steps": 2, "finetune_steps": 2},
    "negative-kl": {"steps": 2},
    "popularity-kl": {"steps": 2},
    "gnndelete": {"steps": 5},
    "gnndelete-published": {"steps": 5},
    "gif": {"max_iter": 5},
    "gif-published": {"max_iter": 5},
    "ceu": {"max_iter": 5},
    "idea": {"max_iter": 5},
    "scif": {"max_iter": 5},
    "sisa": {"num_shards": 2, "settings": BRIEF},
    "receraser": {"num_shards": 2, "settings": BRIEF},
    "ultrare": {"num_shards": 2, "settings": BRIEF},
    "sru": {"num_shards": 2, "settings": BRIEF, "validation": HELD_OUT},
    "cau": {"steps": 2, "epochs": 1, "validation": HELD_OUT},
    "cau-published": {"steps": 2, "epochs": 1, "validation": HELD_OUT},
    "unlearnrec-published": {"epochs": 1, "published": PublishedSettings(epochs=1)},
    "unlearnrec": {"settings": FitSettings(epochs=1), "share": 0.5, "requests": 1},
}
GRAPHS = {
    "interactions": random_graph(9, 8, 36, seed=1, values=False),
    "sessions": session_graph(random_sessions(16, 9, seed=1), 9),
}
REQUESTS = {
    "interactions": ForgetRequest("user", ["3"]) | ForgetRequest("item", ["2"]),
    "sessions": ForgetRequest("session", ["3"]) | ForgetRequest("item", ["2"]),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the influence system was solved"),
    pytest.mark.filterwarnings("ignore:the request takes"),
]


@pytest.fixture(scope="module")
def models():
    made = {"interactions": LightGCN(17, 4, 2), "sessions": GRU4Rec(9, 4)}
    for kind, model in made.items():
        fit(model, GRAPHS[kind], epochs=4)
    return made


# ---- what is in the package


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in sorted(registry) for kind in registry[name].kinds], ids=str
)
def test_every_method_keeps_the_contract(models, name, kind):
    check_unlearner(registry[name](**QUICK.get(name, {})), models[kind], GRAPHS[kind], REQUESTS[kind])


ENCODERS = {
    "lightgcn": lambda: LightGCN(17, 4, 2),
    "mf": lambda: MatrixFactorization(17, 4),
    "sgl": lambda: SGL(17, 4, 2),
    "simgcl": lambda: SimGCL(17, 4, 2),
    "ngcf": lambda: NGCF(17, 4, 2),
    "foreign": lambda: TwoTower(9, 8, 4),
    "wrapped": lambda: Wrapped(LightGCN(17, 4, 2)),
    "gru4rec": lambda: GRU4Rec(9, 4),
    "srgnn": lambda: SRGNN(9, 4),
    "sasrec": lambda: SASRec(9, 4),
    "narm": lambda: NARM(9, 4),
    "bert4rec": lambda: BERT4Rec(9, 4),
    "gcegnn": lambda: GCEGNN(9, 4),
}


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_model_keeps_the_contract(name):
    model = ENCODERS[name]()
    kind = "sessions" if name in ("gru4rec", "srgnn", "sasrec", "narm", "bert4rec", "gcegnn") else "interactions"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_encoder(model, GRAPHS[kind])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def graph_of_everything(kind):
    if kind == "sessions":
        sessions, user = [[0, 1, 2], [2, 0, 0], [1], [1, 2, 3], [3]], torch.tensor([0, 0, 1, -1, 2])
        time = torch.arange(11)
        return SessionGraph.from_sequences(
            sessions, session_ids=list("abcde"), num_items=6, user=user, user_ids=["x", "y", "z"], time=time
        )
    pairs = torch.tensor([[0, 1, 1, 2, 2], [0, 0, 1, 2, 1]])
    return InteractionGraph.from_edges(
        pairs, 4, 5, user_ids=list("abcd"), rating=torch.arange(5), time=torch.arange(5), label=torch.ones(5)
    )


@pytest.mark.parametrize("kind", list(GRAPHS))
def test_every_graph_keeps_the_contract(kind):
    check_graph(GRAPHS[kind], REQUESTS[kind])
    whole = graph_of_everything(kind)
    if kind == "sessions":
        requests = [("click", [("a", 1), ("c", 0)]), ("session", ["b"]), ("item", ["3"]), ("user", ["x"])]
    else:
        requests = [("interaction", [("a", "0")]), ("user", ["b"]), ("item", ["1", "0"])]
    for level, index in requests:
        check_graph(whole, ForgetRequest(level, index))


# ---- methods that break the contract


@dataclass(kw_only=True)
class Sound(Unlearner):
    """Halves all embeddings; each of the following methods adds one fault."""

    name: ClassVar[str] = "sound"
    factor: float = 0.5

    @torch.no_grad()
    def _unlearn(self, model, graph, retained, request):
        for parameter in model.parameters():
            parameter.mul_(self.factor)
        return {"rows": len(model.embedding.weight)}


class OnCall(Sound):
    """Does something around the call, where nothing protects the model."""

    def unlearn(self, model, graph, request, *, inplace=False):
        result = super().unlearn(model, graph, request, inplace=inplace)
        return self.fault(model, graph, result, inplace) or result

    def fault(self, model, graph, result, inplace):
        raise NotImplementedError


def broken(fault, base=OnCall, hook="fault"):
    """Return a sound method with one fault."""
    return dataclass(kw_only=True)(type("Broken", (base,), {hook: fault, "__module__": __name__}))()


def damage_graph(self, model, graph, result, inplace):
    graph.pairs[1, 0] = (graph.pairs[1, 0] + 1) % graph.num_items


@torch.no_grad()
def damage_model(self, model, graph, result, inplace):
    next(model.parameters()).add_(1)


def leave_gradients(self, model, graph, result, inplace):
    for parameter in model.parameters():
        parameter.grad = None


def freeze(self, model, graph, result, inplace):
    model.requires_grad_(False)


def to_evaluation(self, model, graph, result, inplace):
    model.eval()


def freeze_the_result(self, model, graph, result, inplace):
    result.model.requires_grad_(False)


def evaluate_the_result(self, model, graph, result, inplace):
    result.model.eval()


@torch.no_grad()
def spoil_the_result(self, model, graph, result, inplace):
    next(result.model.parameters())[0] = float("nan")


def reshape_the_result(self, model, graph, result, inplace):
    result.model.embedding.weight = nn.Parameter(torch.ones(3, 4))


def all_interactions(self, model, graph, result, inplace):
    return replace(result, graph=graph)


def tensors_in_the_log(self, model, graph, result, inplace):
    return replace(result, log={"loss": torch.ones(1)})


def share(self, model, graph, result, inplace):
    result.model.embedding.weight.data = model.embedding.weight.data


@torch.no_grad()
def another_in_place(self, model, graph, result, inplace):
    if inplace:
        next(model.parameters()).add_(1)


def another_model_in_place(self, model, graph, result, inplace):
    return replace(result, model=copy.deepcopy(result.model)) if inplace else None


def configure(self, model, graph, result, inplace):
    self.factor += 1


@torch.no_grad()
def random_hook(self, model, graph, retained, request):
    generator = torch.Generator()
    generator.seed()
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator))
    return {}


@torch.no_grad()
def global_hook(self, model, graph, retained, request):
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter))
    return {}


@torch.no_grad()
def restoring_hook(self, model, graph, retained, request):
    with torch.random.fork_rng(devices=[]):
        return global_hook(self, model, graph, retained, request)


def call_without_backup(self, model, graph, request, *, inplace=False):
    if not inplace:
        return Sound.unlearn(self, model, graph, request)
    self._unlearn(model, graph, None, request)
    return replace(Sound.unlearn(self, model, graph, request), model=model)


def call_without_hook(self, model, graph, request, *, inplace=False):
    return Sound().unlearn(model, graph, request, inplace=inplace)


def call_without_checks(self, model, graph, request, *, inplace=False):
    try:
        return Sound.unlearn(self, model, graph, request, inplace=inplace)
    except ValueError:
        return None


FAULTS = {
    "graph": (broken(damage_graph), "must leave the graph passed as it was .*edge_index"),
    "model": (broken(damage_model), "must leave the model passed as it was .*embedding.weight"),
    "gradients": (broken(leave_gradients), "must leave the model passed as it was .*the gradient of"),
    "requires_grad": (broken(freeze), "must leave the model passed as it was .*requires_grad"),
    "modes": (broken(to_evaluation), "must leave the model passed as it was .*training mode"),
    "frozen": (broken(freeze_the_result), "must keep requires_grad of"),
    "evaluating": (broken(evaluate_the_result), "must keep the training mode of every part"),
    "nan": (broken(spoil_the_result), "must return finite numbers"),
    "shape": (broken(reshape_the_result), "must return 'embedding.weight' in its shape and type"),
    "retained": (broken(all_interactions), "must return the graph without the request"),
    "log": (broken(tensors_in_the_log), "must be a dictionary that JSON holds"),
    "shared": (broken(share), "must return a copy"),
    "in place": (broken(another_in_place), "must make the same correction with inplace=True"),
    "copy in place": (broken(another_model_in_place), "must return the model passed with inplace=True"),
    "configuration": (broken(configure), "must not change its configuration"),
    "random": (broken(random_hook, Sound, "_unlearn"), "must give the same model for the same call"),
    "global": (broken(global_hook, Sound, "_unlearn"), "must leave the global random numbers alone.*torch's changed"),
    "restored": (broken(restoring_hook, Sound, "_unlearn"), "must give the same model for the same call"),
    "backup": (broken(call_without_backup, Sound, "unlearn"), "whose hook fails must leave the model as it was"),
    "hook": (broken(call_without_hook, Sound, "unlearn"), "must pass on what its hook '_unlearn' raises"),
    "checks": (broken(call_without_checks, Sound, "unlearn"), "must refuse the level 'click'"),
    "repr": (broken(lambda self: "Sound", Sound, "__repr__"), "the repr of sound must make it again"),
    "repr of another": (broken(lambda self: "Sound(factor=2)", Sound, "__repr__"), "which makes another"),
}


@dataclass
class Positional(Sound):
    steps: int = 3


class Undecorated(Sound):
    pass


FAULTS |= {
    "positional": (Positional(), "must have keyword-only fields .*steps"),
    "undecorated": (Undecorated(), "must be a dataclass"),
}
registry.pop("sound")  # no method of the package


def test_what_the_faults_are_made_of_is_sound(models):
    for method in (Sound(), Sound(factor=0.25), IFRU(objective=BPR(negatives=2)), Unlink()):
        check_unlearner(method, models["interactions"], GRAPHS["interactions"], REQUESTS["interactions"])


@pytest.mark.parametrize("fault", list(FAULTS))
def test_every_fault_of_a_method_is_found(models, fault):
    (method, message), kind = FAULTS[fault], "interactions"
    model, graph = copy.deepcopy(models[kind]), GRAPHS[kind]
    named, random = graph.fingerprint(), torch.random.get_rng_state()
    with pytest.raises(AssertionError, match=message):
        check_unlearner(method, model, graph, REQUESTS[kind])
    assert torch.equal(model.embedding.weight, models[kind].embedding.weight)  # the suite works on copies
    assert graph.fingerprint() == named
    assert torch.equal(random, torch.random.get_rng_state())


# ---- encodings that break the contract


class Faulty(nn.Module):
    """A table that propagates; ``fault`` says what is wrong with it."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.inner, self.kept, self.calls = fault, LightGCN(17, 4, 2), {}, 0


@encode.register
def _(model: Faulty, graph):
    return FAULTY[model.fault][0](model, graph)


def rows(model, graph):
    users, items, *_ = encode(model.inner, graph)
    return users, items


def kept(key):
    """An encoding that is computed once for every ``key(model, graph)``."""

    def cached(model, graph):
        name = key(model, graph)
        if name not in model.kept or (rows := model.kept[name])[0].shape[0] != graph.num_users:
            model.kept[name] = rows = tuple(part.detach() for part in encode(model.inner, graph)[:2])
        users, items = rows
        return users + 0 * model.inner.embedding.weight.sum(), items

    return cached


def cached_graph(model, graph):
    model.kept.setdefault("graph", graph.clone())
    return rows(model, model.kept["graph"])


def cached_size(model, graph):
    return rows(model, model.kept.setdefault(graph.num_interactions, graph.clone()))


def changing(model, graph):
    with torch.no_grad():
        model.inner.embedding.weight.add_(1e-3)
    return rows(model, graph)


def counting(model, graph):
    model.calls += 1
    return tuple(part + model.calls for part in rows(model, graph))


def in_inference(model, graph):
    if torch.is_inference_mode_enabled():
        model.kept["rows"] = rows(model, graph)
    return model.kept.get("rows") or rows(model, graph)


def graph_damage(model, graph):
    graph.pairs[1, 0] = (graph.pairs[1, 0] + 1) % graph.num_items
    return rows(model, graph)


FAULTY = {
    "rows": (lambda m, g: tuple(part[1:] for part in rows(m, g)), "must give embeddings for this graph"),
    "width": (lambda m, g: (rows(m, g)[0], rows(m, g)[1][:, :2]), "of one width"),
    "nan": (lambda m, g: tuple(part.log() for part in rows(m, g)), "must give finite queries"),
    "detached": (lambda m, g: tuple(part.detach() for part in rows(m, g)), "must be differentiable"),
    "zero": (lambda m, g: tuple(0 * part for part in rows(m, g)), "must be differentiable in the parameters"),
    "random": (lambda m, g: tuple(p + torch.randn_like(p) for p in rows(m, g)), "must leave the global random numbers"),
    "counting": (counting, "must give the same embeddings twice"),
    "changing": (changing, "must leave the model as it was"),
    "evaluation": (lambda m, g: rows(m.train(), g), "must leave the model as it was .*training mode"),
    "graph": (graph_damage, "must leave the graph as it was"),
    "in inference": (in_inference, "must give ordinary tensors after a call in inference mode"),
    "cached rows": (kept(lambda m, g: 0), "must not cache|must be differentiable"),
    "cached graph": (cached_graph, "must not cache: the embeddings must be those of the graph passed"),
    "cached by size": (cached_size, "must not cache: .*after a change in place"),
}


@pytest.mark.parametrize("fault", list(FAULTY))
def test_every_fault_of_an_encoding_is_found(fault):
    with pytest.raises(AssertionError, match=FAULTY[fault][1]):
        check_encoder(Faulty(fault), GRAPHS["interactions"])


# ---- graphs that break the contract


def faulty_graph(**methods):
    cls = type("InteractionGraph", (InteractionGraph,), methods)
    return cls.from_edges(GRAPHS["interactions"].pairs, 9, 8)


GRAPH_FAULTS = {
    "split": ({"split": lambda s, *r: (s, InteractionGraph.split(s, *r)[1])}, "must add up to 36"),
    "swapped": ({"split": lambda s, *r: InteractionGraph.split(s, *r)[::-1]}, "must take"),
    "active": ({"active": property(lambda s: InteractionGraph.active.fget(s) | True)}, "must mark its active rows"),
    "holds": ({"holds": lambda s, part: torch.ones(len(part), dtype=torch.bool)}, "must be false for an unknown user"),
    "match": ({"match": lambda s, *a: InteractionGraph.match(s, *a)[:1]}, "must contain nothing of the request"),
    "emptied": ({"emptied": lambda s, r: s.active & False}, "must have the rows that lost all events"),
    "without_emptied": ({"without_emptied": lambda s, g, r: s}, "must leave no event of emptied rows"),
    "clone": ({"clone": copy.copy}, "a clone of InteractionGraph must share no memory"),
}


@pytest.mark.parametrize("fault", list(GRAPH_FAULTS))
def test_every_fault_of_a_graph_is_found(fault):
    methods, message = GRAPH_FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        check_graph(faulty_graph(**methods), REQUESTS["interactions"])
