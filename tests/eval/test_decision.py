"""The verdict: every status by every rule, runs combined, and what must hold whatever the numbers are."""

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graphunlearn.eval.attacks.evidence import Comparison, Evidence, compare
from graphunlearn.eval.decision import DECIDING, FEWEST, NAMES, Spread, combine, decide, says, spread_of


def told(left=None, low=None, high=None, beyond=0.0, sd=0.01):
    """A comparison; ``left`` of the trace is left, and the attack separates the original if it is given."""
    value = 0.5 if left is None else 0.5 + 0.4 * left
    ends = (-0.02, 0.02) if left is None else (0.4 * low, 0.4 * high)
    return Comparison(value, 0.9, 0.5, sd, value - 0.01, value + 0.01, left, low, high, beyond, *ends)


LIKE = told(0.05, -0.1, 0.2, 0.3)
UNDER = told(0.8, 0.6, 1.0, 3.0)
OVER = told(-0.8, -1.0, -0.6, -3.0)
WIDE = told(0.2, -0.3, 0.7, 0.8)
FAR, NEAR = Spread(2.4, True), Spread(1.1, False)


@pytest.mark.parametrize(
    ("compared", "spread", "status", "rule"),
    [
        ({"fold_in": LIKE}, NEAR, "like", "the fold-in attack on users: 5% of the trace is left (-10% to 20%)"),
        ({"fold_in": LIKE}, None, "like", "the fold-in attack on users: 5%"),
        ({"fold_in": UNDER}, NEAR, "under", "the fold-in attack on users: 80% of the trace is left (60% to 100%)"),
        ({"fold_in": OVER}, NEAR, "over", "the fold-in attack on users: -80% of the trace"),
        # above a quarter, but no further than another retrained model
        ({"fold_in": told(0.8, 0.6, 1.0, 0.9)}, NEAR, "undecided", "the fold-in attack on users: 80%"),
        ({"fold_in": told(-0.8, -1.0, -0.6, -0.9)}, NEAR, "undecided", "-80%"),
        # further than another retrained model, but perhaps only a quarter
        ({"fold_in": told(0.4, 0.2, 0.6, 2.0)}, NEAR, "undecided", "40%"),
        ({"fold_in": told(0.2, 0.1, 0.3, 2.0)}, NEAR, "undecided", "20%"),  # small, and further than a retrained model
        ({"fold_in": told(0.2, 0.1, 0.3, 0.9)}, NEAR, "like", "20%"),
        ({"fold_in": WIDE}, NEAR, "undecided", "20%"),
        ({"fold_in": told(0.2, -0.6, 0.4, 0.8)}, NEAR, "undecided", "20%"),
        # the most direct attack that says so decides, and a later one can
        ({"lira": UNDER, "fold_in": LIKE}, NEAR, "under", "the membership attack (LiRA)"),
        ({"lira": OVER, "fold_in": UNDER}, NEAR, "under", "the fold-in attack on users"),
        ({"target": OVER, "fold_in": UNDER}, NEAR, "over", "the promoted items of real users"),
        # another attack may be wide, but not leave more than half, or a quarter beyond the bound
        ({"fold_in": LIKE, "lira": WIDE}, NEAR, "like", "the fold-in attack on users"),
        ({"fold_in": LIKE, "lira": told(0.6, 0.1, 1.1, 0.9)}, NEAR, "undecided", "the membership attack (LiRA): 60%"),
        ({"fold_in": LIKE, "lira": told(0.3, 0.2, 0.4, 1.2)}, NEAR, "undecided", "the membership attack (LiRA): 30%"),
        ({"fold_in": LIKE, "lira": told(-0.3, -0.4, -0.2, -1.2)}, NEAR, "undecided", "(LiRA): -30%"),
        ({"fold_in": LIKE, "lira": told(0.2, 0.1, 0.3, 1.2)}, NEAR, "undecided", "the membership attack (LiRA): 20%"),
        ({"fold_in": LIKE, "lira": told(0.3, 0.2, 0.4, 0.9)}, NEAR, "like", "the fold-in attack on users"),
        # one that does not separate the original speaks only from twice the bound on
        ({"fold_in": told(beyond=2.1)}, NEAR, "under", "the fold-in attack on users: 0.500 against 0.500"),
        ({"fold_in": told(beyond=-2.1)}, NEAR, "over", "the fold-in attack on users: 0.500 against 0.500"),
        ({"fold_in": told(beyond=0.9)}, NEAR, "undecided", "nothing measurable to forget"),
        # and it keeps the verdict open as soon as the model lies further out than another retrained model
        ({"fold_in": told(beyond=1.9)}, NEAR, "undecided", "0.500 against 0.500 for retrained models, further away"),
        ({"fold_in": told(beyond=1.1), "lira": LIKE}, NEAR, "undecided", "the fold-in attack on users: 0.500 against"),
        ({"fold_in": told(beyond=-1.1), "lira": LIKE}, NEAR, "undecided", "the fold-in attack on users: 0.500 against"),
        ({"transition": told(beyond=1.1), "lira": LIKE}, NEAR, "undecided", "deleted transitions: 0.500 against 0.500"),
        ({"transition": told(beyond=0.9), "lira": LIKE}, NEAR, "like", "the membership attack (LiRA)"),
        ({}, NEAR, "undecided", "nothing measurable to forget: too few forgotten users, sessions or pairs"),
        ({"fold_in": told(beyond=None)}, NEAR, "undecided", "too few forgotten users, sessions or pairs"),
        # what is not to decide does not, and an attack without a comparison neither
        ({"rmia": UNDER, "click": UNDER, "edge_recovery_kept": UNDER}, NEAR, "undecided", "nothing measurable"),
        ({"before_and_after": OVER, "fold_in": LIKE}, NEAR, "like", "the fold-in attack on users"),
        ({"fold_in": told(beyond=None), "lira": LIKE}, NEAR, "undecided", "the fold-in attack on users could not be"),
        ({"transition": told(beyond=None), "lira": LIKE}, NEAR, "like", "the membership attack (LiRA)"),
        # what a fold-in attack finds in the other embeddings, no other attack finds
        ({"fold_in": told(beyond=0.9), "lira": LIKE}, NEAR, "undecided", "the fold-in attack on users does not tell"),
        ({"fold_in_items": told(beyond=0.9), "lira": LIKE}, NEAR, "undecided", "the fold-in attack on items does not"),
        ({"fold_in": WIDE, "target": LIKE}, NEAR, "undecided", "the fold-in attack on users: 20%"),
        ({"fold_in": LIKE, "target": LIKE}, NEAR, "like", "the promoted items of real users"),
        # pair by pair far from retrained models
        ({"fold_in": told(0.2, 0.1, 0.3, 0.5)}, FAR, "under", "one by one, 2.4 times as far from retrained models"),
        ({"fold_in": told(-0.2, -0.3, -0.1, -0.5)}, FAR, "over", "one by one, 2.4 times"),
        ({"fold_in": LIKE}, FAR, "undecided", "one by one, 2.4 times"),
        ({"fold_in": UNDER}, FAR, "under", "80% of the trace is left (60% to 100%)"),
        ({"fold_in": told(beyond=0.2)}, FAR, "undecided", "nothing measurable to forget"),
    ],
)
def test_every_rule(compared, spread, status, rule):
    found = decide(compared, spread, 5)
    assert found.status == status
    assert rule in found.rule
    assert (found.needs is None) == (status != "undecided")


def test_whole_users_and_items_need_an_attack_of_their_own():
    """The rows of a user who is forgotten entirely can be drawn anew: what reads them finds nothing."""
    compared = {"lira": LIKE}
    assert decide(compared, NEAR, 5).status == "like"
    found = decide(compared, NEAR, 5, {"fold_in": "at least 5 forgotten users"})
    assert (found.status, found.needs) == ("undecided", "at least 5 forgotten users")
    few = decide({"lira": LIKE, "fold_in": told(beyond=None)}, NEAR, 5)
    assert few.needs == "at least 5 forgotten users of two interactions or more"
    assert decide({"lira": UNDER}, NEAR, 5, {"fold_in": "more users"}).status == "under"
    both = {"lira": LIKE, "fold_in": LIKE, "fold_in_items": told(beyond=0.5)}  # items that lost their only users
    assert decide(both, NEAR, 5, {"fold_in": ""}).status == "like"
    assert decide(both, NEAR, 5).status == "undecided"
    assert decide(both, NEAR, 5, {"fold_in": "", "fold_in_items": ""}).status == "undecided"


def test_the_original_has_not_forgotten_too_much_if_retrained_models_reveal_more():
    more = Comparison(0.3, 0.3, 0.5, 0.01, 0.29, 0.31, None, None, None, -2.5)
    assert says(more) is None
    assert decide({"lira": more}, NEAR, 5).status == "undecided"
    assert says(replace(more, value=0.2)) == "over"


@pytest.mark.parametrize("num", [0, 1, 2])
def test_too_few_retrained_models_decide_nothing(num):
    found = decide({"fold_in": UNDER}, FAR, num)
    assert found.status == "undecided"
    assert found.rule.startswith(f"{num} retrained model{'' if num == 1 else 's'}, too few")
    assert found.needs.startswith("at least 3 retrained models")
    assert decide({"fold_in": UNDER}, FAR, FEWEST).status == "under"


def test_what_would_decide_is_the_larger_source_of_chance():
    models = decide({"fold_in": told(0.2, -0.6, 0.9, 0.5, sd=0.2)}, NEAR, 5)
    units = decide({"fold_in": told(0.2, -0.6, 0.9, 0.5, sd=0.001)}, NEAR, 5)
    assert models.needs == "more retrained models"
    assert units.needs == "more forgotten users, sessions or pairs in one request"


def test_all_deciding_attacks_have_a_name():
    assert set(DECIDING) <= set(NAMES)


def test_the_spread_against_its_formula():
    between = [0.029, 0.032, 0.030, 0.036]
    floor = statistics.fmean(between)
    most = floor + float(stats.t.ppf(0.975, 3)) * statistics.stdev(between) * (1 + 1 / 4) ** 0.5
    for distance, far in ((most - 1e-4, False), (max(most, 1.5 * floor) + 1e-4, True), (1.45 * floor, False)):
        found = spread_of(distance, between)
        assert found.ratio == pytest.approx(distance / floor)
        assert found.far is far
    tight = [0.03, 0.0301, 0.0299]
    assert spread_of(0.04, tight).far is False  # further than any retrained model, by a third only
    assert spread_of(0.05, tight).far is True
    assert spread_of(0.05, between[:2]) is None
    assert spread_of(0.05, [0.0, 0.0, 0.0]) is None


def verdict(status, rule="r", needs=None):
    return {"status": status, "rule": rule, "needs": "n" if status == "undecided" else needs}


@pytest.mark.parametrize(
    ("runs", "status", "rule"),
    [
        (["like"], "like", "r"),
        (["undecided"], "undecided", "r"),
        (["like", "undecided"], "undecided", "1 of 2 runs are undecided: r"),
        (["like", "like", "undecided", "undecided"], "undecided", "2 of 4 runs are undecided: r"),
        (["like", "like", "undecided"], "like", "in 2 of 3 runs, such as r"),
        (["like", "like", "like"], "like", "in 3 of 3 runs, such as r"),
        (["under", "undecided"], "under", "in 1 of 2 runs, such as r"),
        (["undecided", "under", "undecided"], "undecided", "2 of 3 runs are undecided: r"),
        (["undecided", "undecided"], "undecided", "2 of 2 runs are undecided: r"),
        (["under", "like", "like"], "undecided", "the runs disagree (2 like, 1 under)"),
        (["under", "over", "undecided"], "undecided", "the runs disagree (1 over, 1 under)"),
    ],
)
def test_runs_combined(runs, status, rule):
    found = combine([verdict(run) for run in runs])
    assert (found["status"], found["rule"]) == (status, rule)
    assert (found["needs"] is None) == (status != "undecided")


def test_no_runs_have_no_verdict():
    assert combine([]) is None


# ---- whatever the numbers are


def of_users(values):
    return Evidence.of((torch.tensor(values, dtype=torch.float64), torch.arange(len(values))))


figures = st.floats(0, 1).map(lambda x: round(x, 3))


@st.composite
def ensembles(draw):
    """An original and retrained models by two attacks, with a contribution per user."""
    num_users, num_models = draw(st.integers(5, 8)), draw(st.integers(FEWEST, 6))
    users = st.lists(figures, min_size=num_users, max_size=num_users)
    names = ("fold_in", "lira")
    original = {name: of_users(draw(users)) for name in names}
    return original, [{name: of_users(draw(users)) for name in names} for _ in range(num_models)]


def compared(model, original, references):
    return {name: compare(model[name], original[name], [r[name] for r in references], tests=2) for name in model}


@given(ensembles(), st.sampled_from([None, NEAR, FAR]))
def test_the_original_is_never_like_retraining(case, spread):
    original, references = case
    assert decide(compared(original, original, references), spread, len(references)).status != "like"


@given(ensembles())
def test_the_mean_of_retrained_models_is_never_too_little_or_too_much(case):
    original, references = case
    mean = {
        name: Evidence(
            torch.stack([r[name].sums for r in references]).mean(0),
            torch.stack([r[name].counts for r in references]).mean(0),
        )
        for name in original
    }
    assert decide(compared(mean, original, references), NEAR, len(references)).status in ("like", "undecided")


@given(ensembles(), st.integers(0, 5))
def test_a_model_equal_to_a_retrained_one_is_never_too_little_or_too_much(case, which):
    """One of the models that it is compared with is itself: it cannot lie further out than the bound of the others."""
    original, references = case
    model = references[which % len(references)]
    found = decide(compared(model, original, references), NEAR, len(references))
    assert found.status in ("like", "undecided")


@pytest.mark.parametrize("num", [3, 5])
def test_retrained_models_pass_in_95_percent_of_draws_and_the_original_in_none(num):
    """Models vary by their seeds, alike in all units, and by unit; all of three attacks tell the original."""
    generator, passed, liked, runs, names = torch.Generator().manual_seed(4), 0, 0, 200, ("fold_in", "lira", "target")

    def model(level, gap):
        shift = 0.02 * float(torch.randn((), generator=generator))
        return of_users((level + gap + shift + 0.05 * torch.randn(40, generator=generator)).tolist())

    for _ in range(runs):
        level = {name: 0.2 * torch.randn(40, generator=generator) for name in names}
        original, another = ({name: model(level[name], gap) for name in names} for gap in (0.6, 0.0))
        references = [{name: model(level[name], 0.0) for name in names} for _ in range(num)]
        status = decide(compared(another, original, references), None, num).status
        passed += status in ("like", "undecided")
        liked += status == "like"
        assert decide(compared(original, original, references), None, num).status in ("under", "undecided")
    assert passed / runs >= 0.95
    assert liked / runs > 0.5
