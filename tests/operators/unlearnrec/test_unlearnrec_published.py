"""UnlearnRec's encoder as described: its pass, its losses, and a pre-training that never meets a real request."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn
from toys import Wrapped, factors, light_gcn, random_graph, two_tower

from graphunlearn.data import InteractionGraph
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.nn import BPR, Encoded, SimGCL, auxiliary_loss, build_model, encode, fit, info_nce, reset_parameters
from graphunlearn.nn.tables import initial_table, write_table
from graphunlearn.operators.unlearnrec import published
from graphunlearn.operators.unlearnrec.published import PublishedEncoder, PublishedSettings, finetune, pretrain
from graphunlearn.operators.unlearnrec.published_encoder import (
    FrozenBackbone,
    Losses,
    contrastive_loss,
    preservation_loss,
    simulate,
    unlearning_loss,
)

USERS, NODES, DIM = 7, 13, 3
PAIRS = torch.tensor([[0, 0, 1, 4], [0, 1, 1, 5]])
QUICK = {"epochs": 6, "patience": 6, "refresh": 2, "batch_size": 8, "lr": 0.02, "seed": 3}


def random_encoder(layers=2, seed=0, dim=DIM):
    """An encoder in float64 as pre-training and fine-tuning might leave it."""
    torch.manual_seed(seed)
    encoder = PublishedEncoder(NODES, dim, layers).double()
    for p in encoder.parameters():
        p.data.copy_(torch.randn(p.shape))
    return encoder


def rows(seed=0, n=NODES, dim=DIM):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive_pass(encoder, initial, final, pairs, num_users, layers):
    """The definition, number by number."""
    n, _dim = initial.shape
    dense = torch.zeros(n, n, dtype=torch.float64)
    for u, i in pairs.t().tolist():
        dense[u, num_users + i] = dense[num_users + i, u] = 1
    degree = [sum(row) for row in dense.tolist()]
    hat = torch.zeros_like(dense)
    for a in range(n):
        for b in range(n):
            if dense[a, b]:
                hat[a, b] = 1 / math.sqrt(degree[a] * degree[b])
    powers = [torch.eye(n, dtype=torch.float64)]
    for _ in range(layers):
        powers.append(hat @ powers[-1])
    readout = sum(power @ encoder.influence for power in powers)
    withdrawn = powers[-1] @ torch.stack([encoder.withdraw[v, 0] * final[v] for v in range(n)])
    x = readout - 0.1 * withdrawn
    for linear in (encoder.mlp[0], encoder.mlp[2]):
        x = x @ linear.weight.t()
        x = torch.where(x > 0, x, 0.99 * x)
    return initial + x


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_pass_is_the_dense_definition(layers):
    encoder, initial, final = random_encoder(layers), rows(1), rows(2)
    got = encoder(initial, final, PAIRS, USERS)
    torch.testing.assert_close(got, naive_pass(encoder, initial, final, PAIRS, USERS, layers), rtol=1e-12, atol=1e-12)


def test_layers_are_powers_of_the_request_matrix():
    encoder, nodes = random_encoder(3), torch.tensor([8, 0, 12])
    matrix = encoder.request_matrix(PAIRS, USERS)
    dense, layer = matrix.to_dense(), encoder.influence
    for got in encoder.layers_of(matrix, nodes):
        layer = dense @ layer
        torch.testing.assert_close(got, layer[nodes], rtol=1e-12, atol=1e-12)


def test_at_first_only_the_withdraw_term_acts():
    initial, final = rows(1), rows(2)
    encoder = PublishedEncoder(NODES, DIM, 2, lr=0.05).double()
    empty = torch.zeros(2, 0, dtype=torch.long)
    assert torch.equal(encoder(initial, final, empty, USERS), initial)
    hat = encoder.request_matrix(PAIRS, USERS).to_dense()
    moved = -0.1 * (hat @ hat @ (0.1 * final))
    moved = torch.where(moved > 0, moved, 0.99**2 * moved)
    torch.testing.assert_close(encoder(initial, final, PAIRS, USERS), initial + moved, rtol=1e-7, atol=0)
    nn.init.zeros_(encoder.withdraw)
    assert torch.equal(encoder(initial, final, PAIRS, USERS), initial)


def test_once_trained_an_empty_request_is_not_the_identity():
    # what is described has a term without the request; the redesigned encoder does not
    encoder, initial = random_encoder(), rows(1)
    empty = torch.zeros(2, 0, dtype=torch.long)
    got = encoder(initial, rows(2), empty, USERS)
    torch.testing.assert_close(got, initial + encoder.mlp(encoder.influence), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(got, initial)


def test_renumbered_nodes_give_renumbered_rows():
    encoder, initial, final = random_encoder(), rows(1), rows(2)
    generator = torch.Generator().manual_seed(5)
    new_users, new_items = (
        torch.randperm(USERS, generator=generator),
        torch.randperm(NODES - USERS, generator=generator),
    )
    new = torch.cat([new_users, USERS + new_items])  # where every node goes
    old = new.argsort()
    other = copy.deepcopy(encoder)
    other.influence.data, other.withdraw.data = encoder.influence.data[old], encoder.withdraw.data[old]
    pairs = torch.stack([new_users[PAIRS[0]], new_items[PAIRS[1]]])[:, torch.tensor([2, 0, 3, 1])]
    got = other(initial[old], final[old], pairs, USERS)
    torch.testing.assert_close(got, encoder(initial, final, PAIRS, USERS)[old], rtol=1e-12, atol=1e-12)


def test_every_parameter_of_the_pass_has_its_gradient():
    encoder = random_encoder().requires_grad_()

    def forward(influence, withdraw, first, second, initial):
        values = {"influence": influence, "withdraw": withdraw, "mlp.0.weight": first, "mlp.2.weight": second}
        return torch.func.functional_call(encoder, values, (initial, rows(2), PAIRS, USERS))

    inputs = [p.detach().clone().requires_grad_() for p in (*encoder.parameters(), rows(1))]
    assert torch.autograd.gradcheck(forward, inputs)


@pytest.mark.parametrize(
    "pairs, message",
    [
        (torch.zeros(3, 2, dtype=torch.long), r"'pairs' must have the shape \[2, num\] \(got \[3, 2\]\)"),
        (torch.tensor([[7], [0]]), r"'pairs' must name users from 0 to 6 \(got 7 to 7\)"),
        (torch.tensor([[0], [-1]]), r"'pairs' must name items from 0 to 5 \(got -1 to -1\)"),
    ],
)
def test_pairs_that_are_not_of_the_graph(pairs, message):
    with pytest.raises(ValueError, match=message):
        random_encoder()(rows(1), rows(2), pairs, USERS)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"num_nodes": 0, "dim": 2}, "'num_nodes' must be a positive integer"),
        ({"num_nodes": 2, "dim": 2, "layers": 0}, r"'layers' must be a positive integer \(got 0\)"),
        ({"num_nodes": 2, "dim": 2, "lr": -1.0}, r"'lr' must be positive and finite \(got -1.0\)"),
    ],
)
def test_an_encoder_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        PublishedEncoder(**sizes)


# --- the losses ---


def test_the_unlearning_loss_is_the_mean_over_forgotten_pairs():
    scores = torch.tensor([-2.0, 0.3, 5.0], dtype=torch.float64)
    naive = sum(-math.log(1 / (1 + math.exp(s))) for s in scores.tolist()) / 3
    assert float(unlearning_loss(scores)) == pytest.approx(naive, rel=1e-12)
    assert float(unlearning_loss(scores[:0])) == 0
    assert torch.isfinite(unlearning_loss(torch.tensor([1e4]))).all()
    assert torch.autograd.gradcheck(unlearning_loss, scores.clone().requires_grad_())


def test_the_preservation_loss_compares_what_users_make_of_a_batch():
    before, after = (Encoded(rows(s, USERS), rows(s + 1, 6)) for s in (1, 3))
    users, items, temperature = torch.tensor([0, 3, 3]), torch.tensor([5, 1, 0, 1]), 2.5
    total = 0.0
    for u in users.tolist():
        logs = []
        for encoded in (before, after):
            scores = [float(encoded.queries[u] @ encoded.items[i]) / temperature for i in items.tolist()]
            norm = math.log(sum(math.exp(s) for s in scores))
            logs.append([s - norm for s in scores])
        total += sum((a - b) ** 2 for a, b in zip(*logs))
    got = preservation_loss(before, after, users, items, temperature)
    assert float(got) == pytest.approx(total / 12, rel=1e-12)
    assert float(preservation_loss(before, before, users, items, temperature)) == 0
    shifted = Encoded(before.queries, before.items + before.queries.new_tensor([1.0, 0, 0]))
    # a constant added to all of a user's scores is no change of preference
    assert float(preservation_loss(before, shifted, users, items, temperature)) == pytest.approx(0, abs=1e-24)
    assert torch.autograd.gradcheck(
        lambda u, i: preservation_loss(before, Encoded(u, i), users, items, temperature),
        [part.clone().requires_grad_() for part in after[:2]],
    )


def test_the_contrastive_loss_is_the_mean_over_layers_and_nodes():
    first, second = [rows(s, 4) for s in (1, 2)], [rows(s, 4) for s in (3, 4)]
    total = 0.0
    for a, b in zip(first, second):
        for i in range(4):
            cosines = [float(a[i] @ b[j] / (a[i].norm() * b[j].norm())) / 0.5 for j in range(4)]
            total -= cosines[i] - math.log(sum(math.exp(c) for c in cosines))
    assert float(contrastive_loss(first, second, 0.5)) == pytest.approx(total / 8, rel=1e-12)
    inputs = [x.clone().requires_grad_() for x in (*first, *second)]
    assert torch.autograd.gradcheck(lambda a, b, c, d: contrastive_loss([a, b], [c, d], 0.5), inputs)


# --- any backbone with another table ---


def ngcf(graph):
    torch.manual_seed(0)
    return build_model("ngcf", graph, dim=DIM, layers=2).double()


def simgcl(graph):
    torch.manual_seed(0)
    return SimGCL(graph.num_nodes, DIM, 2).double()


def sgl(graph):
    torch.manual_seed(0)
    return build_model("sgl", graph, dim=DIM, layers=2).double()


BACKBONES = [light_gcn, factors, lambda g: Wrapped(light_gcn(g)), two_tower, sgl, simgcl, ngcf]
IDS = ["lightgcn", "mf", "wrapped", "two-tower", "sgl", "simgcl", "ngcf"]


@pytest.mark.parametrize("model_of", BACKBONES, ids=IDS)
def test_a_backbone_runs_with_another_table_and_keeps_its_own(model_of):
    graph = random_graph()
    model = model_of(graph).eval()
    for p in list(model.parameters())[::2]:
        p.requires_grad_(False)
    flags, state = [p.requires_grad for p in model.parameters()], copy.deepcopy(model.state_dict())
    backbone, table = FrozenBackbone(model, graph), rows(9)
    other = copy.deepcopy(model)
    write_table(other, graph, table)
    torch.testing.assert_close(initial_table(other, graph), table, rtol=0, atol=0)
    got, wanted = backbone.run(table, lambda m: encode(m, graph)), encode(other, graph)
    for a, b in zip(got[:2], wanted[:2]):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    leaf = table.clone().requires_grad_()
    gradient = torch.autograd.grad(backbone.run(leaf, lambda m: (encode(m, graph).queries ** 2).sum()), leaf)[0]
    moved = table.clone()
    moved[2, 1] += 1e-6
    moved_loss = (backbone.run(moved, lambda m: encode(m, graph)).queries ** 2).sum()
    assert float((moved_loss - (got.queries**2).sum()) / 1e-6) == pytest.approx(
        float(gradient[2, 1]), rel=1e-3, abs=1e-4
    )
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_concatenated_layers_are_averaged_and_odd_widths_named():
    graph = random_graph()
    model = ngcf(graph).eval()
    backbone = FrozenBackbone(model, graph)
    parts = torch.cat(backbone.before[:2]).split(DIM, dim=1)
    assert len(parts) == 3
    torch.testing.assert_close(backbone.final, sum(parts) / 3)
    plain = FrozenBackbone(light_gcn(graph), graph)
    assert torch.equal(plain.final, torch.cat(plain.before[:2]))

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(NODES, 2)

    encode.register(Odd, lambda m, g: tuple(nn.functional.pad(m.table.weight, (0, 1)).split([USERS, NODES - USERS])))
    with pytest.raises(ValueError, match=r"'model' must have final embeddings of width 2, .*got 3 from Odd"):
        _ = FrozenBackbone(Odd(), graph).final


def test_initial_embeddings_out_of_reach_are_named():
    graph = random_graph()

    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, NODES * DIM)

    def embed(model, graph):
        table = model.net(torch.ones(1)).view(NODES, DIM)
        return table[:USERS], table[USERS:]

    class UsersOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(USERS, DIM), nn.Parameter(torch.zeros(6, DIM))

    encode.register(Computed, embed)
    encode.register(UsersOnly, lambda m, g: (m.users.weight, m.items))
    for model, found in ((Computed(), "none that can be reached"), (UsersOnly(), "users.weight")):
        name = type(model).__name__
        for call in (
            lambda m=model: initial_table(m, graph),
            lambda m=model: write_table(m, graph, rows(0)),
            lambda m=model: pretrain(PublishedEncoder(NODES, DIM), m, graph, BPR(), PublishedSettings()),
        ):
            with pytest.raises(ValueError, match=rf"\(got {name} with {found}\)$"):
                call()
    with pytest.raises(ValueError, match=r"'table' must be \[13, 3\] \(got \[13, 2\]\)"):
        write_table(light_gcn(graph), graph, rows(0, dim=2))


def test_the_terms_are_the_losses_by_hand():
    graph = random_graph(values=False)
    model, table = simgcl(graph), rows(9)
    settings = PublishedSettings(lambda_unlearn=0.5, lambda_preserve=2.0, temperature=1.5, batch_size=8, seed=4)
    request = simulate(graph, settings, 0)
    losses = Losses(FrozenBackbone(model, graph), BPR(), settings)
    steps = list(losses.batches(request.retained, request.pairs, epoch=3))
    before, after = encode(model, graph), copy.deepcopy(model)
    write_table(after, graph, table)
    encoded = encode(after, request.retained)
    for step, batch, pairs in steps:
        terms = losses.terms(table, request.retained, batch, pairs, 3, step)
        extra = auxiliary_loss(after, request.retained, batch, seed=4, epoch=3, step=step)
        wanted = {
            "model": BPR()(encoded, batch).mean() + extra,
            "unlearn": 0.5 * unlearning_loss((encoded.queries[pairs[0]] * encoded.items[pairs[1]]).sum(1)),
            "preserve": 2.0 * preservation_loss(before, encoded, batch.users, batch.items, 1.5),
        }
        assert terms.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)
    # every retained interaction once; forgotten ones in turn
    seen = torch.cat([batch.users * 6 + batch.items for _, batch, _ in steps]).sort().values
    assert torch.equal(seen, (request.retained.pairs[0] * 6 + request.retained.pairs[1]).sort().values)
    few = list(Losses(FrozenBackbone(model, graph), BPR(), PublishedSettings(batch_size=2)).batches(graph, PAIRS, 1))
    assert all(pairs.size(1) == 2 for _, _, pairs in few)
    turned = torch.cat([pairs for _, _, pairs in few[:2]], 1)
    assert torch.equal(torch.unique(turned, dim=1), torch.unique(PAIRS, dim=1))


# --- pre-training ---


@pytest.fixture(scope="module")
def trained():
    graph = synthetic_interactions(num_users=40, num_items=30, interactions_per_user=8, seed=0)
    torch.manual_seed(0)
    model = build_model("lightgcn", graph, dim=8, layers=2)
    reset_parameters(model, 0)
    fit(model, graph, objective=BPR(), epochs=40, batch_size=512)
    return model, graph


def prepared(trained, encoder=None, **changes):
    model, graph = trained
    encoder = encoder or PublishedEncoder(graph.num_nodes, 8, 2)
    on_epoch, state = changes.pop("on_epoch", lambda record: None), changes.pop("state", None)
    settings = PublishedSettings(**{**QUICK, "batch_size": 128, **changes})
    return encoder, pretrain(encoder, model, graph, BPR(), settings, on_epoch=on_epoch, state=state)


def test_pretraining_lowers_the_held_out_loss_and_changes_nothing_else(trained):
    model, _graph = trained
    model.train()
    model.embedding.weight.requires_grad_(False)
    state, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    try:
        encoder, history = prepared(trained)
        assert model.training and not model.embedding.weight.requires_grad
    finally:
        model.eval()
        model.embedding.weight.requires_grad_(True)
    held_out = [record["held_out"] for record in history]
    assert min(held_out) < 0.98 * held_out[0]
    assert [record["epoch"] for record in history] == list(range(7))
    for record in history[1:]:
        parts = sum(record[name] for name in ("model", "unlearn", "preserve", "contrast"))
        assert record["loss"] == pytest.approx(parts)
        assert 0.03 <= record["share"] <= 0.3
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state())
    assert encoder.influence.abs().sum() > 0
    assert all(torch.equal(p, torch.eye(8)) for p in encoder.mlp.parameters())
    again, _ = prepared(trained)
    other, _ = prepared(trained, seed=4)
    assert torch.equal(again.influence, encoder.influence) and torch.equal(again.withdraw, encoder.withdraw)
    assert not torch.equal(other.influence, encoder.influence)


def test_the_encoder_is_left_at_its_best(trained):
    states = {0: None}
    encoder, history = prepared(
        trained,
        epochs=30,
        patience=2,
        lr=0.1,  # overshoots: the last epochs are worse
        on_epoch=lambda r: states.update({int(r["epoch"]): r["state"]["encoder.influence"].clone()}),
    )
    held_out = [record["held_out"] for record in history]
    best = held_out.index(min(held_out))
    assert 0 < best == len(history) - 1 - 2 < 28
    assert torch.equal(encoder.influence, states[best])
    assert not torch.equal(encoder.influence, states[len(history) - 1])


def test_no_request_can_reach_pretraining_and_held_out_ones_are_not_trained_on(trained, monkeypatch):
    _model, graph = trained
    arguments = set(inspect.signature(pretrain).parameters)
    assert arguments == {"encoder", "model", "graph", "objective", "settings", "on_epoch", "state"}
    drawn = []

    def spy(graph, settings, number, *, held_out=False):
        request = simulate(graph, settings, number, held_out=held_out)
        drawn.append((held_out, request))
        return request

    monkeypatch.setattr(published, "simulate", spy)
    prepared(trained)
    sets = {
        kind: [frozenset(map(tuple, r.pairs.t().tolist())) for held, r in drawn if held is kind]
        for kind in (True, False)
    }
    assert len(sets[True]) == 3 and len(sets[False]) == 3  # six epochs, two for every request
    assert not set(sets[True]) & set(sets[False])
    assert len(set(sets[False])) == 3
    shares = [len(pairs) / graph.num_interactions for pairs in sets[True]]
    assert shares == pytest.approx([0.03, math.sqrt(0.009), 0.3], abs=0.01)
    everything = set(map(tuple, graph.pairs.t().tolist()))
    for _, request in drawn:  # nothing but the training graph is ever looked at
        retained, pairs = (set(map(tuple, p.t().tolist())) for p in (request.retained.pairs, request.pairs))
        assert retained | pairs == everything and not retained & pairs
        assert len(pairs) == round(request.share * graph.num_interactions)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_interrupted_pretraining_ends_as_if_it_had_not_been(trained, stop, tmp_path):
    from safetensors.torch import load_file, save_file

    whole, history = prepared(trained)

    class Interrupted(Exception):
        pass

    def interrupt(record):
        assert all(value.isfinite().all() for name, value in record["state"].items() if name != "history")
        save_file({name: value.contiguous() for name, value in record["state"].items()}, tmp_path / "state.safetensors")
        if record["epoch"] == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        prepared(trained, on_epoch=interrupt)
    resumed, rest = prepared(trained, state=load_file(tmp_path / "state.safetensors"))
    assert rest == history
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)


def test_a_state_of_another_encoder_is_refused(trained):
    states = []
    prepared(trained, epochs=1, on_epoch=lambda r: states.append(r["state"]))
    wrong = {**states[0], "encoder.influence": torch.zeros(3, 8)}
    with pytest.raises(
        ValueError, match=r"'state' must hold 'encoder.influence' of the shape \[70, 8\] \(got \[3, 8\]\)"
    ):
        prepared(trained, state=wrong)
    with pytest.raises(ValueError, match=r"'state' must hold 'encoder.influence' of the shape \[70, 8\] \(got none\)"):
        prepared(trained, state={})


@pytest.mark.parametrize("term", ["model", "unlearn", "preserve", "contrast"])
def test_every_term_can_be_switched_off(trained, term, monkeypatch):
    called = {"model": "auxiliary_loss", "unlearn": "unlearning_loss", "preserve": "preservation_loss"}
    module = published if term == "contrast" else published.Losses.__module__
    name = called.get(term, "contrastive_loss")

    def trap(*args, **kwargs):
        raise AssertionError("computed")

    monkeypatch.setattr(f"{module}.{name}" if isinstance(module, str) else f"{module.__name__}.{name}", trap)
    with pytest.raises(AssertionError, match="computed"):
        prepared(trained, epochs=1)
    _, history = prepared(trained, epochs=1, **{f"lambda_{term}": 0})
    assert term not in history[1] and len(history[1]) == 7


@pytest.mark.parametrize("model_of", BACKBONES, ids=IDS)
def test_every_backbone_is_served(model_of):
    graph = random_graph(values=False)
    model = model_of(graph)
    state = copy.deepcopy(model.state_dict())
    encoder, settings = PublishedEncoder(NODES, DIM, 2).double(), PublishedSettings(**QUICK)
    history = pretrain(encoder, model, graph, BPR(), settings)
    assert min(r["held_out"] for r in history[1:]) < history[0]["held_out"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    retained, pairs = graph.select(torch.arange(3, 20)), graph.pairs[:, :3]
    log = finetune(encoder, model, graph, retained, pairs, BPR(), settings, 2)
    assert [record["epoch"] for record in log] == [1, 2]
    tables = set(map(id, [p for p in model.parameters() if p.size(0) in (USERS, NODES - USERS, NODES)]))
    for name, p in model.named_parameters():
        assert torch.equal(p, state[name]) is (id(p) not in tables), name


# --- fine-tuning ---


def test_without_epochs_the_encoder_alone_decides(trained):
    model, graph = copy.deepcopy(trained[0]), trained[1]
    encoder, _ = prepared(trained)
    pairs, retained = graph.pairs[:, :9], graph.select(torch.arange(9, graph.num_interactions))
    final = torch.cat(encode(model, graph)[:2]).detach()
    wanted = encoder(model.embedding.weight, final, pairs, graph.num_users).detach()
    assert finetune(encoder, model, graph, retained, pairs, BPR(), PublishedSettings(), 0) == []
    assert torch.equal(model.embedding.weight, wanted)


def test_finetuning_trains_the_table_and_a_copy_of_the_mlp(trained):
    model, graph = copy.deepcopy(trained[0]), trained[1]
    encoder, _ = prepared(trained)
    before, random = copy.deepcopy(encoder.state_dict()), torch.random.get_rng_state()
    pairs, retained = graph.pairs[:, :9], graph.select(torch.arange(9, graph.num_interactions))
    settings = PublishedSettings(batch_size=100, lambda_unlearn=1.0, lambda_contrast=5.0, lr=0.01)
    zero_shot, again = copy.deepcopy(model), copy.deepcopy(model)
    finetune(encoder, zero_shot, graph, retained, pairs, BPR(), settings, 0)
    log = finetune(encoder, model, graph, retained, pairs, BPR(), settings, 4)
    finetune(encoder, again, graph, retained, pairs, BPR(), settings, 4)
    assert torch.equal(model.embedding.weight, again.embedding.weight)
    assert set(log[0]) == {"epoch", "loss", "model", "unlearn", "preserve"}  # the contrast has nothing left to learn
    assert log[-1]["loss"] < log[0]["loss"]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(p.grad is None for p in (*encoder.parameters(), *model.parameters()))
    assert torch.equal(random, torch.random.get_rng_state())

    # one step by hand: Adam on the table and the weights of the MLP, and on nothing else
    one, step = copy.deepcopy(trained[0]), PublishedSettings(batch_size=10_000, lambda_unlearn=1.0, lr=0.01)
    final = torch.cat(encode(one, graph)[:2]).detach()
    table = one.embedding.weight.detach().clone().requires_grad_()
    mlp = copy.deepcopy(encoder.mlp).requires_grad_()
    estimate = encoder.estimate(final, encoder.request_matrix(pairs, graph.num_users)).detach()
    optimizer = torch.optim.Adam([table, *mlp.parameters()], lr=0.01)
    losses = Losses(FrozenBackbone(one, graph), BPR(), step)
    ((_, batch, some),) = losses.batches(retained, pairs, 1)
    sum(losses.terms(table + mlp(estimate), retained, batch, some, 1, 0).values()).backward()
    optimizer.step()
    finetune(encoder, one, graph, retained, pairs, BPR(), step, 1)
    torch.testing.assert_close(one.embedding.weight, (table + mlp(estimate)).detach(), rtol=1e-5, atol=1e-6)

    def believed(m):
        encoded = encode(m, retained)
        return float((encoded.queries[pairs[0]] * encoded.items[pairs[1]]).sum(1).mean().detach())

    assert believed(model) < believed(zero_shot)


def test_called_without_gradients_both_work(trained):
    model, graph = copy.deepcopy(trained[0]), trained[1]
    with torch.no_grad():
        encoder, _ = prepared(trained, epochs=1)
        log = finetune(encoder, model, graph, graph, graph.pairs[:, :0], BPR(), PublishedSettings(lr=0.01), 1)
    assert encoder.influence.abs().sum() > 0
    assert log[0]["unlearn"] == 0  # nothing is forgotten
    assert not torch.equal(model.embedding.weight, trained[0].embedding.weight)


# --- bad input ---


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lambda_unlearn": -0.1}, r"'lambda_unlearn' must be finite and not negative \(got -0.1\)"),
        ({"lambda_model": math.inf}, "'lambda_model' must be finite and not negative"),
        ({"lambda_contrast": math.nan}, "'lambda_contrast' must be finite and not negative"),
        ({f"lambda_{name}": 0 for name in ("model", "unlearn", "preserve", "contrast")}, "must be above 0"),
        ({"temperature": 0}, r"'temperature' must be positive and finite \(got 0\)"),
        ({"lr": math.nan}, "'lr' must be positive and finite"),
        ({"refresh": 0}, r"'refresh' must be a positive integer \(got 0\)"),
        ({"epochs": 1.5}, r"'epochs' must be a positive integer \(got 1.5\)"),
        ({"patience": 0}, "'patience' must be a positive integer"),
        ({"batch_size": -1}, "'batch_size' must be a positive integer"),
        ({"shares": (0.3, 0.1)}, r"'shares' must be two ascending shares between 0 and 1 \(got \(0.3, 0.1\)\)"),
        ({"shares": (0.1, 1.0)}, "'shares' must be two ascending shares"),
        ({"shares": (0.1,)}, "'shares' must be two ascending shares"),
        ({"drop": 1.0}, r"'drop' must be at least 0 and less than 1 \(got 1.0\)"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        PublishedSettings(**changes)


def test_shares_that_take_nothing_or_everything():
    graph = random_graph(values=False)
    for share in (0.01, 0.99):
        with pytest.raises(ValueError, match=f"'shares' must take at least one of 20 .* leave one .got {share}."):
            simulate(graph, PublishedSettings(shares=(share, share)), 0)
    one = InteractionGraph.from_edges(torch.tensor([[0], [0]]))
    with pytest.raises(ValueError, match="'shares' must take at least one of 1"):
        pretrain(PublishedEncoder(2, 2), build_model("mf", one, dim=2), one, BPR(), PublishedSettings())


def test_what_does_not_fit_is_said(trained):
    model, graph = trained
    pairs = graph.pairs[:, :2]
    with pytest.raises(ValueError, match=r"'encoder' must be made for .*\[70, 8\] of torch.float32.*got \[70, 4\] of"):
        prepared(trained, encoder=PublishedEncoder(70, 4))
    with pytest.raises(ValueError, match=r"\(got \[70, 8\] of torch.float64"):
        finetune(PublishedEncoder(70, 8).double(), model, graph, graph, pairs, BPR(), PublishedSettings(), 1)
    with pytest.raises(ValueError, match=r"'epochs' must be an integer of at least 0 \(got -1\)"):
        finetune(PublishedEncoder(70, 8), model, graph, graph, pairs, BPR(), PublishedSettings(), -1)
    contrast_only = PublishedSettings(lambda_model=0, lambda_unlearn=0, lambda_preserve=0)
    with pytest.raises(ValueError, match="'settings' must give lambda_model, lambda_unlearn or lambda_preserve"):
        finetune(PublishedEncoder(70, 8), model, graph, graph, pairs, BPR(), contrast_only, 1)


def test_a_loss_that_blows_up_is_an_error(trained):
    model = copy.deepcopy(trained[0])
    before = model.embedding.weight.detach().clone()
    graph, encoder = trained[1], PublishedEncoder(70, 8, 2)
    huge = PublishedSettings(lr=1e30)
    with pytest.raises(FloatingPointError, match="the loss became NaN or infinite in epoch 2; lower 'lr'"):
        finetune(encoder, model, graph, graph, graph.pairs[:, :3], BPR(), huge, 3)
    assert torch.equal(model.embedding.weight, before)


def test_contrast_compares_the_request_with_a_thinner_view(trained):
    _model, graph = trained
    encoder = PublishedEncoder(graph.num_nodes, 8, 2)
    nn.init.normal_(encoder.influence)
    request = simulate(graph, PublishedSettings(), 0)
    matrix = encoder.request_matrix(request.pairs, graph.num_users)
    none = PublishedSettings(drop=0.0, lambda_contrast=1.0)
    got = published._contrast(encoder, none, matrix, request.pairs, graph.num_users, 1, 0)["contrast"]
    nodes = torch.cat([request.pairs[0].unique(), graph.num_users + request.pairs[1].unique()])
    layers = encoder.layers_of(matrix, nodes)
    wanted = sum(info_nce(layer, layer, 1.0).mean() for layer in layers) / 2  # without a drop, with itself
    torch.testing.assert_close(got, wanted)
    thin = PublishedSettings(drop=0.5, lambda_contrast=1.0)
    views = [
        published._contrast(encoder, thin, matrix, request.pairs, graph.num_users, 1, n)["contrast"] for n in (0, 1)
    ]
    assert views[0] > got and views[0] != views[1]
