import copy

import pytest
import torch
from session_toys import CLASSES, random_sessions, session_model

from graphunlearn import CAU, ForgetRequest, SessionGraph, fit
from graphunlearn.operators.cau.curriculum import Curriculum
from graphunlearn.operators.cau.descent import Descent, StepSettings, mixed
from graphunlearn.operators.cau.levels import log_probabilities
from graphunlearn.operators.cau.samples import ForgetSamples
from graphunlearn.operators.cau.targets import click_targets

ITEMS = 12
SETTINGS = {
    "loss": "target",
    "transitions": True,
    "kl_without_target": True,
    "kept_batch": 8,
    "mix": "pareto",
    "gradients": "output",
    "floor": 0.0,
    "difficulty": "gradient",
    "freeze": False,
    "tolerance": 0.25,
    "lr": 0.005,
}


def sessions(seed, count):
    """Half of what follows can be told, half is chance: a model can only know it by heart."""
    generator = torch.Generator().manual_seed(seed)
    rows = [r for r in random_sessions(count, ITEMS, seed=seed) if len(r) > 2]
    noise = [torch.randint(ITEMS, (len(r),), generator=generator).tolist() for r in rows]
    mixed_rows = [[b if t % 2 else a for t, (a, b) in enumerate(zip(*pair))] for pair in zip(rows, noise)]
    return SessionGraph.from_sequences(mixed_rows, num_items=ITEMS)


@pytest.fixture(scope="module")
def case():
    """A trained model, its sessions, held-out ones, and a request of one click each of some."""
    train, validation = sessions(0, 120), sessions(7, 30)
    torch.manual_seed(0)
    model = CLASSES["gru4rec"](ITEMS, 16, dropout=0.0)
    fit(model, train, epochs=40, lr=0.02, batch_size=64, progress=False)
    chosen = (train.length >= 4).nonzero().squeeze(1)[:12]
    request = ForgetRequest.internal("click", torch.stack([chosen, train.length[chosen] // 2]))
    return model, train, validation, request


def descent(case, model=None, off=None, **changes):
    _, train, validation, request = case
    model = case[0] if model is None else model
    retained, _ = train.split(request)
    mask = request.mask(train)
    samples = ForgetSamples.of(train, retained, mask)
    levels = click_targets(model, train, retained, validation, samples, mask)
    if off is not None:  # targets at a distance of the present log probabilities, and no joined prediction to move
        joined = log_probabilities(model, retained, samples.joined)
        levels = levels._replace(forgotten=levels.before[0] - off, deleted=levels.before[1] - off, joined=joined)
    model = copy.deepcopy(model)
    return model, Descent(model, train, retained, samples, levels, StepSettings(**SETTINGS | changes), seed=0)


@pytest.mark.parametrize("order", ["random", "hard", "soft"])
@pytest.mark.parametrize("loss", ["target", "ascent"])
def test_forgotten_clicks_come_to_their_levels(case, order, loss):
    model, train, validation, request = case
    result = CAU(validation=validation, loss=loss, order=order, steps=150).unlearn(model, train, request)
    log_p = {name: torch.tensor(values) for name, values in result.log["log_p"].items()}
    before, after = ((log_p[name] - log_p["target"]) for name in ("before", "after"))
    if loss == "target":
        assert float(after.abs().mean()) < 0.5 * float(before.abs().mean())
    else:
        assert float(after.clamp(min=0).mean()) < 0.6 * float(before.clamp(min=0).mean())
    weights = torch.tensor([list(step["weights"].values()) for step in result.log["steps"]])
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert all(("difficulty" in step) == (order != "random") for step in result.log["steps"])


def test_the_first_step_moves_though_the_divergence_is_stationary(case):
    model, steps = descent(case)
    index = torch.arange(steps.num_forget)
    before = {name: p.clone() for name, p in model.named_parameters()}
    record = steps.step(index, first=True)
    assert record["weights"]["kl"] == 0.0
    assert record["weights"]["unlearn"] > 0
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    # an exact solution with a gradient of zero among the three is that gradient alone: the step would be none
    assert mixed(torch.tensor([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 0.0]]), 0, 0.0) == [0.0, 0.0, 1.0]
    assert steps.step(index, first=False)["weights"]["kl"] > 0


def test_a_floor_is_another_way_to_start():
    weights = mixed(torch.tensor([[1.0, 0.2, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 0.0]]), 0, 0.3)
    assert weights == [pytest.approx(0.3), 0.0, pytest.approx(0.7)]
    assert mixed(torch.diag(torch.tensor([1.0, 3.0])), 0, 0.5) == [pytest.approx(0.75), pytest.approx(0.25)]


@pytest.mark.parametrize("name", ["srgnn", "gru4rec", "sasrec"])
@pytest.mark.parametrize("options", [{}, {"tied": False, "bias": True}])
@pytest.mark.parametrize("loss", ["target", "ascent"])
def test_a_step_descends_along_the_gradients_of_the_losses(case, name, options, loss, monkeypatch):
    """Against automatic differentiation of the three losses, written down with dense softmaxes."""
    model, steps = descent(case, session_model(name, ITEMS, **options), loss=loss, mix="sum")
    torch.manual_seed(5)
    for parameter in model.parameters():  # away from the original, where every loss has a slope
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    index, kept = torch.tensor([0, 3, 5, steps.num_forget - 1]), torch.arange(4) + steps.first_kept
    follower = steps.follower[index]
    joined = torch.unique(follower[follower >= 0]) + steps.num_forget

    def log_p(rows):
        states, items = steps._encode(rows)
        return torch.log_softmax(states @ items.t(), 1)

    def at(rows):
        return log_p(rows).gather(1, steps.target[rows].unsqueeze(1)).squeeze(1)

    def divergence(rows, out):
        before = steps.before.probabilities(steps.prefix[rows]).masked_fill(out, 0)
        before = before / before.sum(1, keepdim=True)
        now = log_p(rows).masked_fill(out, -torch.inf)
        now = (now - now.logsumexp(1, keepdim=True)).masked_fill(out, 0)
        return torch.nn.functional.kl_div(now, before, reduction="batchmean")

    off = [at(rows) - steps.level[rows] for rows in (index, joined)]
    if loss == "target":
        unlearn, retain = (torch.nn.functional.huber_loss(x, 0 * x, delta=2.0) for x in off)
    else:
        above = off[0] > 0
        unlearn, retain = (at(index) * above).sum() / above.sum().clamp(min=1), -at(joined).mean()
    out = torch.nn.functional.one_hot(steps.target[index], ITEMS).bool()
    kl = divergence(index, out) + divergence(kept, torch.zeros(4, ITEMS).bool())
    expected = torch.autograd.grad(unlearn + retain + kl, list(model.parameters()), allow_unused=True)
    monkeypatch.setattr(steps, "_draw_kept", lambda: kept)
    record = steps.step(index, first=False)
    assert list(record["losses"].values()) == pytest.approx([float(x) for x in (unlearn, retain, kl)])
    for parameter, gradient in zip(model.parameters(), expected):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-9)


def test_the_steps_end_when_every_target_is_reached(case):
    model, train, validation, _ = case
    one = ForgetRequest.internal("click", torch.tensor([[0], [int(train.length[0]) - 1]]))
    few = CAU(validation=validation, steps=300).unlearn(model, train, one)
    assert 1 < len(few.log["steps"]) < 300
    assert few.log["steps"][-1]["remaining"] == 0 < few.log["steps"][-2]["remaining"]


@pytest.mark.parametrize(
    ("loss", "off", "reached"),
    [("target", 0.2, True), ("target", -0.3, False)] + [("ascent", x, x < 0) for x in (-0.3, 0.2)],
)
def test_no_step_is_made_if_every_target_is_reached_before(case, loss, off, reached):
    model, steps = descent(case, off=off, loss=loss)
    before = copy.deepcopy(model.state_dict())
    log = steps.run(Curriculum(order="random"), 8, 5, 5)
    assert bool(log["steps"]) != reached
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) == reached


@pytest.mark.parametrize("damping", [0.0, 1.0, 30.0])
def test_the_first_damped_step_moves_by_gradients_over_gradients_plus_a_constant(case, damping):
    model, steps = descent(case, session_model("gru4rec", ITEMS), damping=damping, lr=0.01)
    before = [p.detach().clone() for p in model.parameters()]
    steps.step(torch.arange(steps.num_forget)[:5], first=True)  # a part of the samples to forget, all of which count
    for old, new in zip(before, model.parameters()):
        constant = max(1e-8, damping * float(new.grad.abs().max()) / steps.num_forget)
        expected = old - 0.01 * new.grad / (new.grad.abs() + constant)
        torch.testing.assert_close(new.detach(), expected)


def test_the_constant_of_damped_steps_does_not_fall(case):
    _, steps = descent(case, session_model("gru4rec", ITEMS), damping=1.0)
    largest = torch.zeros(len(steps.parameters), dtype=torch.float64)
    for step in range(4):
        steps.step(torch.arange(steps.num_forget)[step : step + 5], first=not step)
        largest = torch.maximum(largest, torch.stack([p.grad.abs().max() for p in steps.parameters]))
        found = largest.new_tensor([group["eps"] for group in steps.optimizer.param_groups])
        torch.testing.assert_close(found, (largest / steps.num_forget).clamp(min=1e-8))


def test_both_ways_to_the_gradients_make_the_same_step(case):
    after = []
    for gradients in ("output", "all"):
        model, steps = descent(case, session_model("srgnn", ITEMS), mix="sum", gradients=gradients)
        steps.step(torch.arange(steps.num_forget), first=True)
        after.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*after):
        torch.testing.assert_close(a, b)


def test_frozen_samples_stay_frozen(case, monkeypatch):
    _, train, validation, request = case
    drawn, original = [], Descent.step

    def step(self, index, first):
        frozen = self.frozen.clone()
        assert not bool(frozen[index].any())
        record = original(self, index, first)
        assert bool(self.frozen[frozen].all())
        drawn.append(int(self.frozen.sum()))
        return record

    monkeypatch.setattr(Descent, "step", step)
    result = CAU(validation=validation, freeze=True, steps=60, batch_size=4).unlearn(case[0], train, request)
    assert drawn == sorted(drawn)
    assert drawn[-1] > 0
    assert [s["remaining"] for s in result.log["steps"]] == [len(result.log["log_p"]["before"]) - n for n in drawn]


def test_what_is_left_to_forget_is_told_without_freezing(case, monkeypatch):
    """Counted by hand: a sample is reached as it was before the first step, or in the last step that held it."""
    _, train, validation, request = case
    away, left, original = {}, [], Descent.step

    def step(self, index, first):
        seen = torch.arange(self.num_forget) if first else index
        with torch.no_grad():
            off = self._log_p(seen) - self.level[seen]
        away.update(zip(seen.tolist(), off.abs().tolist()))
        left.append(self.num_forget - sum(off <= self.settings.tolerance for off in away.values()))
        return original(self, index, first)

    monkeypatch.setattr(Descent, "step", step)
    result = CAU(validation=validation, freeze=False, steps=60, batch_size=4).unlearn(case[0], train, request)
    assert [s["remaining"] for s in result.log["steps"]] == left
    assert left[-1] < left[0]


def test_a_model_whose_samples_are_all_frozen_is_left_alone(case):
    model, steps = descent(case, freeze=True)
    steps.frozen[:] = True
    before = copy.deepcopy(model.state_dict())
    assert steps.run(Curriculum(), 8, 10, 1)["steps"] == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("level", ["click", "session", "item"])
def test_other_levels(case, level):
    model, train, validation, _ = case
    index = {"click": torch.tensor([[0, 0], [0, 1]]), "session": torch.tensor([0, 3]), "item": torch.tensor([2])}[level]
    request = ForgetRequest.internal(level, index)
    result = CAU(validation=validation, steps=8).unlearn(model, train, request)
    assert result.graph.num_clicks == train.num_clicks - int(request.mask(train).sum())
    assert result.log["forgotten"] > 0
    if level == "session":
        assert result.log["deleted_transitions"] == result.log["joined"] == 0


def test_what_was_never_predicted_needs_no_step(case):
    model, _, validation, _ = case
    graph = SessionGraph.from_sequences([[1], [2, 3, 4]], num_items=ITEMS)
    result = CAU(validation=validation).unlearn(model, graph, ForgetRequest("session", ["0"]))
    assert result.log["steps"] == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), result.model.parameters()))


def test_the_published_preset_has_the_usual_averages_of_adam(case):
    method = CAU.as_published()
    assert method.betas == (0.9, 0.999)
    assert method.damping == 0
    assert descent(case, betas=method.betas)[1].optimizer.defaults["betas"] == method.betas
    with pytest.raises(ValueError, match="'betas' must be two numbers of at least 0 and below 1"):
        CAU(betas=(0.9, 1.0))


def test_the_published_preset_runs(case):
    model, train, validation, request = case
    method = CAU.as_published(validation=validation, steps=6)
    result = method.unlearn(model, train, request)
    assert result.log["steps"][0]["weights"]["kl"] == 0.0
    assert (method.loss, method.order, method.kept_batch, method.transitions) == ("ascent", "hard", 0, False)
    assert len(result.log["log_p"]["before"]) == result.log["forgotten"]


def test_parameters_that_are_not_trained_stay(case):
    _, train, validation, request = case
    model = copy.deepcopy(case[0])
    model.gru.requires_grad_(False)
    for gradients in ("output", "all"):
        result = CAU(validation=validation, steps=4, gradients=gradients).unlearn(model, train, request)
        assert all(torch.equal(a, b) for a, b in zip(model.gru.parameters(), result.model.gru.parameters()))
        assert not torch.equal(model.embedding.weight, result.model.embedding.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "descent"}, "'loss' must be one of target, ascent"),
        ({"mix": "max"}, "'mix' must be one of"),
        ({"gradients": "none"}, "'gradients' must be one of"),
        ({"difficulty": "size"}, "'difficulty' must be one of"),
        ({"order": "easy"}, "'order' must be one of"),
        ({"batch_size": 0}, "'batch_size' must be a whole number of at least 1"),
        ({"kept_batch": -1}, "'kept_batch' must be a whole number of at least 0"),
        ({"steps": 2.5}, "'steps' must be a whole number"),
        ({"lr": 0.0}, "'lr' must be positive"),
        ({"carry": 1.5}, "'carry' must be between 0 and 1"),
        ({"floor": -0.1}, "'floor' must be between 0 and 1"),
        ({"tolerance": -1.0}, "'tolerance' must not be negative"),
        ({"damping": -1.0}, "'damping' must not be negative"),
        ({"damping": float("inf")}, "'damping' must not be negative, and finite"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        CAU(**changes)


def test_validation_is_needed_and_must_fit(case):
    model, train, _, request = case
    other = SessionGraph.from_sequences([[0, 1]], num_items=ITEMS + 1)
    single = SessionGraph.from_sequences([[0], [1]], num_items=ITEMS)
    for held, got in (
        (None, "got none"),
        (train, "those of 'graph'"),
        (single, "sessions of one click"),
        (other, f"got {ITEMS + 1}"),
    ):
        with pytest.raises(ValueError, match=f"'validation' must.*{got}"):
            CAU(validation=held).unlearn(model, train, request)


def test_validation_clicks_on_a_forgotten_item_do_not_count(case, monkeypatch):
    seen = []

    def levels(model, graph, retained, validation, samples, mask, **options):
        seen.append(validation)
        return click_targets(model, graph, retained, validation, samples, mask, **options)

    monkeypatch.setattr("graphunlearn.operators.cau.method.click_targets", levels)
    model, train, validation, _ = case
    assert bool((validation.items == 2).any())
    CAU(validation=validation, steps=1).unlearn(model, train, ForgetRequest.internal("item", torch.tensor([2])))
    assert not bool((seen[0].items == 2).any())
    only = SessionGraph.from_sequences([[2, 2, 2]], num_items=ITEMS)  # better these than none
    CAU(validation=only, steps=1).unlearn(model, train, ForgetRequest.internal("item", torch.tensor([2])))
    assert seen[1].num_clicks == 3


def test_validation_may_be_prefixes_with_the_click_that_follows(case, monkeypatch):
    seen = []

    def scored(model, graph, predictions):
        seen.append(predictions.target)
        return log_probabilities(model, graph, predictions)

    monkeypatch.setattr("graphunlearn.operators.cau.levels.log_probabilities", scored)
    model, train, validation, request = case
    last = validation.click_ptr[1:] - 2
    prefixes = validation.prefixes(last)  # only the last click of each is held out
    CAU(validation=prefixes, steps=1).unlearn(model, train, request)
    assert any(torch.equal(target, prefixes.target) for target in seen)
    single = validation.prefixes(validation.click_ptr[:-1])
    assert CAU(validation=single, steps=1).unlearn(model, train, request).log["steps"]
    with pytest.raises(ValueError, match=r"'validation' must.*sessions of one click"):
        CAU(validation=validation.prefixes(validation.click_ptr[1:] - 1)).unlearn(model, train, request)


def test_a_model_that_is_not_trained_is_refused(case):
    model, train, validation, request = case
    frozen = copy.deepcopy(model).requires_grad_(False)
    with pytest.raises(ValueError, match="'model' must have a parameter that is trained"):
        CAU(validation=validation).unlearn(frozen, train, request)


def test_the_log_tells_the_order(case):
    model, train, validation, request = case
    log = CAU(validation=validation, order="hard", steps=3, batch_size=5).unlearn(model, train, request).log
    assert (log["order"], log["difficulty"]) == ("hard", "gradient")
    assert all(len(step["samples"]) <= 5 for step in log["steps"])
    assert all(0 <= i < len(log["log_p"]["before"]) for step in log["steps"] for i in step["samples"])


def test_weights_are_those_of_gradients_of_length_one(case):
    """Min-norm weights of the directions, by a search over the simplex; the step is as long as what is unlearned."""
    _, steps = descent(case)
    generator = torch.Generator().manual_seed(3)
    made = [[torch.randn(5, generator=generator), torch.randn(3, 2, generator=generator)] for _ in range(3)]
    flat = [torch.cat([g.flatten() for g in grads]).double() for grads in made]
    unit = torch.stack([f / f.norm() for f in flat])
    lines = [(a / 60, b / 60, (60 - a - b) / 60) for a in range(61) for b in range(61 - a)]
    shortest = min(float((torch.tensor(w).double() @ unit).norm()) for w in lines)
    weights, scale = steps._mix(made, first=False)
    assert sum(weights) == pytest.approx(1)
    assert float((torch.tensor(weights).double() @ unit).norm()) == pytest.approx(shortest, abs=0.01)
    assert min(weights) > 0.05
    step = sum(c * f for c, f in zip(scale, flat))
    torch.testing.assert_close(step, flat[0].norm() * (torch.tensor(weights).double() @ unit))
    for n in (1, 2):  # how long a gradient is says nothing of how much it counts
        longer = [[40 * g for g in grads] if k == n else grads for k, grads in enumerate(made)]
        again, scaled = steps._mix(longer, first=False)
        assert again == pytest.approx(weights, abs=1e-6)
        assert scaled[n] == pytest.approx(scale[n] / 40)
