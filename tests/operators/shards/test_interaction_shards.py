"""Shards of interactions: forgetting is training without, and what is served is what the formulas say."""

import copy
from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import LightGCN
from toys import random_graph

from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.eval import audit
from graphunlearn.metrics import rank_metrics
from graphunlearn.nn import BCE, BPR, FitSettings, MatrixFactorization, encode, fit, recommend, reset_parameters
from graphunlearn.operators import SISA, RecEraser, UltraRE, Unlink, compact
from graphunlearn.operators.shards import interactions
from graphunlearn.operators.shards.ensemble import ShardEnsemble
from graphunlearn.operators.shards.interactions import Combiner, InteractionEnsemble, units_of

BRIEF = FitSettings(epochs=2, lr=0.02, batch_size=64, patience=2)
CASES = {
    "sisa": lambda: SISA(num_shards=3, settings=BRIEF),
    "by users": lambda: RecEraser(num_shards=3, settings=BRIEF),
    "by items": lambda: RecEraser(num_shards=3, settings=BRIEF, by="item"),
    "by interactions": lambda: RecEraser(num_shards=3, settings=BRIEF, by="interaction"),
    "ultrare": lambda: UltraRE(num_shards=3, settings=BRIEF),
}


@pytest.fixture(scope="module")
def data():
    whole = random_graph(20, 15, 150, seed=1, values=False)
    return whole.random_split([0.8, 0.2], seed=0)


@pytest.fixture(scope="module")
def model():
    made = LightGCN(35, 4, 2)
    reset_parameters(made, 0)
    return made


PREPARED = {}


def prepared(name, data, model):
    if name not in PREPARED:
        PREPARED[name] = CASES[name]().filled(validation=data[1])
        PREPARED[name].prepare(model, data[0])
    return copy.copy(PREPARED[name])


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("level", ["user", "item", "interaction"])
def test_forgetting_is_training_the_same_partition_without_the_data(data, model, name, level, monkeypatch):
    graph, held = data
    method = prepared(name, data, model)
    index = graph.pairs[:, [0, 5, 9]] if level == "interaction" else torch.tensor([4, 7])
    request = ForgetRequest.internal(level, index)
    result = method.unlearn(model, graph, request)
    own = method.preparation.module.shard_of(graph)[~request.mask(graph)]
    assert torch.equal(result.model.shard_of(result.graph), own)
    monkeypatch.setattr(type(method), "_partition", lambda self, model, graph, seed: result.model.members)
    again = CASES[name]().filled(validation=held.without_emptied(graph, result.graph))
    again.prepare(model, result.graph)
    assert equal(result.model, again.preparation.module)
    before = method.preparation.module
    for number, (a, b) in enumerate(zip(result.model.shards, before.shards)):
        assert equal(a, b) == (number not in result.log["retrained"])


def test_every_shard_is_trained_on_its_interactions_and_stops_by_what_it_knows(data, model):
    graph, held = data
    ensemble = prepared("by users", data, model).preparation.module
    for number, shard in enumerate(ensemble.shards):
        part = graph.select(ensemble.members[graph.pairs[0]] == number)
        known = [torch.isin(end, part.pairs[side]) for side, end in enumerate(held.pairs)]
        reference = copy.deepcopy(model)
        reset_parameters(reference, ensemble.seed + number)
        settings = replace(BRIEF, seed=ensemble.seed + number)
        fit(reference, part, validation=held.select(known[0] & known[1]), settings=settings, fresh=True)
        assert equal(shard, reference)


@pytest.mark.parametrize("name", CASES)
def test_partitions_are_balanced_and_hold_everything(data, model, name):
    graph, method = data[0], prepared(name, data, model)
    by = method._by()
    own = method.preparation.module.shard_of(graph)
    assert own.min() == 0
    for unit in units_of(graph, by).unique().tolist():
        assert own[units_of(graph, by) == unit].unique().numel() == 1
    units = units_of(graph, by).unique()
    sizes = [units_of(graph, by)[own == k].unique().numel() for k in range(3)]
    most = {"sisa": -(-len(units) // 3), "ultrare": len(units)}.get(name, -(-12 * len(units) // 30))
    assert sum(sizes) == len(units)
    assert max(sizes) <= most


def naive(ensemble, graph, user, item):
    """The score of one pair by loops over the shards."""
    own = ensemble.shard_of(graph)
    parts = [graph.select(own == k) for k in range(len(ensemble.shards))]
    rows = [encode(shard, part) for shard, part in zip(ensemble.shards, parts)]
    knows = [[int(node in part.pairs[side]) for part in parts] for side, node in enumerate((user, item))]
    if ensemble.combiner is None:
        scores = [float(e.queries[user] @ e.items[item]) for e, known in zip(rows, knows[0]) if known]
        return sum(scores) / len(scores)
    c, combined = ensemble.combiner, []
    for side, node in enumerate((user, item)):
        moved = [(e[side][node] @ c.matrix[side, k] + c.bias[side, k, 0]) for k, e in enumerate(rows)]
        if c.attention:
            logits = [float(torch.relu(m @ c.inner[side] + c.shift[side, 0]) @ c.outer[side, :, 0]) for m in moved]
        else:
            logits = c.logit[side, :, 0].tolist()
        weights = torch.tensor([torch.tensor(x).exp() if k else 0.0 for x, k in zip(logits, knows[side])])
        combined.append(sum(w * m for w, m in zip(weights / weights.sum(), moved)))
    return float(combined[0] @ combined[1])


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_loops_over_shards(data, model, name):
    graph, ensemble = data[0], prepared(name, data, model).preparation.module
    users, items, *_ = encode(ensemble, graph)
    for user, item in [(0, 0), (3, 7), (11, 2)]:
        assert float(users[user] @ items[item]) == pytest.approx(naive(ensemble, graph, user, item), rel=1e-4, abs=1e-6)


def test_aligned_shards_agree_where_they_are_rotations_of_one_another():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    turns = [torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q for _ in range(3)]
    parts, known = torch.stack([rows @ turn for turn in turns]), torch.ones(3, 9, dtype=torch.bool)
    known[0, 0] = known[2, 4] = False
    combiner = Combiner(3, 3, attention=False).double()
    combiner.align(1, parts, known)
    for side in range(2):
        torch.testing.assert_close(combiner(side, parts, known), parts[0])


def test_shards_are_aligned_although_the_first_knows_nothing():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    turns = [torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q for _ in range(4)]
    parts, known = torch.stack([rows @ turn for turn in turns]), torch.ones(4, 9, dtype=torch.bool)
    known[0] = False
    combiner = Combiner(4, 3, attention=False).double()
    combiner.align(1, parts, known, rounds=1)
    torch.testing.assert_close(combiner(1, parts, known), parts[1])


def test_held_out_data_of_an_earlier_request_have_no_part_in_a_later_one(data, model, monkeypatch):
    graph, held = data
    item = int(held.pairs[1][0])
    method, seen = prepared("ultrare", data, model), []
    first = method.unlearn(model, graph, ForgetRequest.internal("item", [item]))
    real = interactions.fit

    def spied(*args, **options):
        seen.append(options["validation"])
        return real(*args, **options)

    monkeypatch.setattr(interactions, "fit", spied)
    method.unlearn(first.model, first.graph, ForgetRequest.internal("user", [4]))
    assert (method.validation.pairs[1] == item).any()
    (used,) = seen
    assert used.num_interactions
    assert not (used.pairs[1] == item).any()
    assert not (used.pairs[0] == 4).any()


def test_users_without_interactions_and_pairs_in_no_shard_have_no_part(data, model):
    graph, method = data[0], prepared("by interactions", data, model)
    result = method.unlearn(model, graph, ForgetRequest.internal("user", [4]))
    users, _, *_ = encode(result.model, result.graph)
    assert not users[4].any()
    assert len(result.model.pairs) == len(units_of(result.graph, "interaction").unique())
    assert (result.model.shard_of(graph) < 0).tolist() == (graph.pairs[0] == 4).tolist()
    assert (prepared("sisa", data, model).unlearn(model, graph, result.request).model.members == -1).nonzero() == 4


def test_a_shard_left_without_interactions_is_left_out_with_a_warning(data, model):
    graph = data[0]
    method = CASES["by users"]()
    method.prepare(model, graph)
    gone = (method.preparation.module.members == 1).nonzero().flatten()
    with pytest.warns(UserWarning, match="shard 1 of receraser holds no interactions: it is not trained and has no"):
        result = method.unlearn(model, graph, ForgetRequest.internal("user", gone))
    assert result.log["interactions_per_shard"][1] == 0
    best = recommend(result.model, result.graph, 3)
    result.model.combiner.matrix.data[:, 1] = 99.0
    assert torch.equal(recommend(result.model, result.graph, 3), best)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SISA(num_shards=99), "'num_shards' must not be larger than the number of users in 'graph', 20"),
        (lambda: RecEraser(num_shards=99, by="item"), "must not be larger than the number of items in 'graph', 15"),
        (lambda: RecEraser(by="pair"), r"'by' must be one of user, item, interaction \(got 'pair'\)"),
        (lambda: RecEraser(capacity=0.9), r"'capacity' must be at least 1 \(got 0\.9\)"),
        (lambda: UltraRE(epsilon=0.0), r"'epsilon' must be positive and finite"),
    ],
)
def test_bad_settings_are_refused(data, model, make, message):
    with pytest.raises(ValueError, match=message):
        make().prepare(model, data[0])


@pytest.mark.parametrize("name", CASES)
def test_ensembles_are_saved_and_go_on_and_become_smaller(data, model, name, tmp_path):
    graph, method = data[0], prepared(name, data, model)
    file = method.save(tmp_path / "kept")
    loaded = CASES[name]().filled(validation=data[1]).load(file, like=model)
    assert isinstance(loaded.preparation.module, ShardEnsemble)
    request = ForgetRequest.internal("user", [4])
    results = [way.unlearn(model, graph, request) for way in (method, loaded)]
    assert equal(results[0].model, results[1].model)
    small = compact(results[0])
    assert small.graph.num_users == graph.num_users - 1
    old, new = (encode(m, g) for m, g in ((results[0].model, results[0].graph), (small.model, small.graph)))
    torch.testing.assert_close(new.queries, old.queries[small.kept["user"]])
    more = CASES[name]().unlearn(small.model, small.graph, ForgetRequest.internal("item", [2]))
    assert more.original is None
    assert not (more.graph.pairs[1] == 2).any()


def test_metrics_and_an_audit_take_an_ensemble(data, model):
    graph, held = data
    method = prepared("by users", data, model)
    request = ForgetRequest.internal("user", [4])
    result = method.unlearn(model, graph, request)
    users, items, *_ = encode(result.model, result.graph)
    assert 0 <= rank_metrics(users, items, result.graph, held, ks=(3,))["recall@3"] <= 1
    told = audit(
        *(model, graph, request, [result]), validation=held, test=held, objective=BPR(), retrain_seeds=2, settings=BRIEF
    )
    assert "receraser" in [row["name"] for row in told.report["methods"]]
    unlinked = Unlink().unlearn(result.model, result.graph, ForgetRequest.internal("item", [3]))
    assert torch.isfinite(encode(unlinked.model, unlinked.graph).items).all()


def test_labels_are_served(model):
    graph = random_graph(20, 15, 150, seed=1, values=False)
    label = (torch.arange(graph.num_interactions) % 3 > 0).float()
    graph = InteractionGraph.from_edges(graph.pairs, 20, 15, label=label)
    method = UltraRE(num_shards=2, settings=BRIEF)
    start = MatrixFactorization(35, 4)
    method.prepare(start, graph)
    result = method.unlearn(start, graph, ForgetRequest.internal("item", [3]))
    assert torch.isfinite(encode(result.model, result.graph).items).all()


def test_shards_of_one_method_are_not_served_as_another(data, model, tmp_path):
    graph, request = data[0], ForgetRequest.internal("user", [4])
    loaded = CASES["by users"]().load(prepared("by users", data, model).save(tmp_path / "kept"), like=model)
    first = loaded.unlearn(model, graph, request)
    state = first.model, first.graph, ForgetRequest.internal("user", [5])
    with pytest.raises(ValueError, match=r"'model' must have shards of ultrare \(got those of receraser, which serves"):
        CASES["ultrare"]().unlearn(*state)
    small = compact(first)
    with pytest.raises(ValueError, match="'model' must have shards of sisa"):
        CASES["sisa"]().unlearn(small.model, small.graph, state[2])
    assert CASES["by users"]().unlearn(*state).method == "receraser"
    shape = first.model.shape()
    assert shape.pop("made_by") == "receraser"
    old = ShardEnsemble.rebuilt(shape, first.model.tensors(), model)  # as earlier versions kept it
    assert CASES["ultrare"]().unlearn(old, *state[1:]).log["retrained"]


@pytest.mark.parametrize("kind", ["films", None, ["sessions"]])
def test_a_kind_without_an_ensemble_is_refused(data, model, kind):
    ensemble = prepared("sisa", data, model).preparation.module
    with pytest.raises(ValueError, match=r"'shape' must name an ensemble of interactions or sessions \(got "):
        ShardEnsemble.rebuilt(ensemble.shape() | {"kind": kind}, ensemble.tensors(), model)


def labelled(pairs, label):
    return InteractionGraph.from_edges(torch.tensor(pairs), 3, 4, label=torch.tensor(label))


def test_held_out_data_that_measure_nothing_do_not_stop_a_shard():
    part = labelled([[0, 0, 1], [0, 1, 1]], [1.0, 0.0, 1.0])
    ensemble = InteractionEnsemble([], torch.zeros(3, dtype=torch.long), "", 0)
    cases = {
        "both labels": ([[0, 1, 2], [1, 0, 0]], [0.0, 1.0, 1.0], [[0, 1], [1, 0]]),
        "new positive": ([[1], [0]], [1.0], [[1], [0]]),
        "negatives alone": ([[0, 1], [1, 0]], [0.0, 0.0], None),
        "positives that it was trained on": ([[1], [1]], [1.0], None),
        "nothing that it knows": ([[2], [0]], [1.0], None),
    }
    for name, (pairs, label, wanted) in cases.items():
        found = ensemble.held_out(labelled(pairs, label), part)
        assert (found if wanted is None else found.pairs.tolist()) == wanted, name
    bare = part.select(torch.arange(3))
    del bare["user", "interacts", "item"].label
    assert ensemble.held_out(bare, bare) is None


def test_a_shard_that_the_loss_cannot_be_trained_on_is_named():
    graph = labelled([[0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 3]], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    model, brief = MatrixFactorization(7, 2), FitSettings(epochs=1)
    message = (
        r"'num_shards' must leave shards that BCE can be trained on \(got only label 1 in shard [012]\); the data of"
    )
    with pytest.raises(ValueError, match=message):
        SISA(num_shards=3, objective=BCE(), settings=brief).prepare(model, graph)
    method = SISA(num_shards=3, objective=BCE(), settings=brief)
    more = labelled([[0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 2, 1, 3]], [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    method.prepare(model, more)
    with pytest.raises(
        ValueError, match=r"'request' must leave shards that BCE can be trained on \(got only label 1 in"
    ):
        method.unlearn(model, more, ForgetRequest.internal("interaction", torch.tensor([[0], [1]])))


@pytest.mark.filterwarnings("ignore:training ended with")
def test_a_prepare_goes_on_where_a_shard_has_no_positive_to_be_measured_by():
    whole = random_graph(12, 9, 90, seed=2)
    label = whole.label.clone()
    held = whole.select(torch.arange(60, 90))
    held["user", "interacts", "item"].label = (held.pairs[0] == 0).to(label.dtype)  # the others have no positive
    method = SISA(num_shards=4, objective=BPR(), settings=FitSettings(epochs=1), validation=held)
    method.prepare(MatrixFactorization(21, 2), whole.select(torch.arange(60)))
    assert len(method.preparation.module.shards) == 4
