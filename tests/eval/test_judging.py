"""Verdicts end to end on sets that retrain in a blink: the original is told, and a retrained model is let pass."""

import dataclasses
import itertools
import json
import statistics

import pytest
import torch
from walks import walks

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import audit, auditing, bench, removal, session_clicks
from graphunlearn.eval.attacks import InteractionAttacks
from graphunlearn.eval.judging import klom_entry, pass_rate
from graphunlearn.metrics.ensembles import klom, klom_if_equal
from graphunlearn.nn import FitSettings, build_model, encode, reset_parameters

SETTINGS = FitSettings(epochs=50, batch_size=2048, lr=0.05, patience=50)
MODELS = 5


def trained(case, kind="lightgcn", dim=16, settings=SETTINGS):
    model = build_model(kind, case.train, dim)
    reset_parameters(model, 3)
    gu.fit(model, case.train, settings=settings)
    return model


def judged(model, case, methods=(), references=None, **changes):
    keywords = {"objective": gu.BPR(), "settings": dataclasses.replace(SETTINGS, seed=50)} | changes
    keywords.setdefault("retrain_seeds", len(references) if references else MODELS + 1)
    return audit(model, case.train, case.request, list(methods), test=case.test, references=references, **keywords)


def rows(audited):
    return {method["name"]: method for method in audited.report["methods"]}


@pytest.fixture(scope="module")
def case():
    graph = synthetic_interactions(num_users=150, num_items=80, interactions_per_user=14, seed=1)
    return removal(graph, "user", share=0.1, seed=0)


@pytest.fixture(scope="module")
def original(case):
    return trained(case)


@pytest.fixture(scope="module")
def retrained(case, original):
    return judged(original, case).references


@pytest.fixture(scope="module")
def audited(case, original, retrained):
    another = dataclasses.replace(retrained[-1], method="another")
    return judged(original, case, [another], retrained[:-1])


# ---- outcomes that are known


def test_the_original_and_what_computes_nothing_forget_too_little(audited):
    for name in ("original", "unlink", "unlink-redraw"):
        verdict = rows(audited)[name]["verdict"]
        assert verdict["status"] == "under"
        assert verdict["rule"].startswith("the fold-in attack on users: ")
        assert verdict["needs"] is None
    fold = rows(audited)["original"]["attacks"]["fold_in"]
    assert fold["leak_left"] == pytest.approx(1)
    assert fold["value"] == fold["original"]


def test_a_retrained_model_that_was_left_out_passes(audited, retrained):
    assert rows(audited)["another"]["verdict"]["status"] in ("like", "undecided")
    assert audited.report["retrain_pass_rate"] == 1.0
    statuses = [m["verdict"].status for m in audited.measured["retrain"]]
    assert len(statuses) == MODELS
    assert audited.report["retrain_pass_rate"] == statistics.fmean(s in ("like", "undecided") for s in statuses)


def test_every_retrained_model_takes_its_turn_as_the_one_left_out(case, original, retrained):
    for k, left_out in enumerate(retrained):
        others = retrained[:k] + retrained[k + 1 :]
        verdict = rows(judged(original, case, [dataclasses.replace(left_out, method="own")], others))["own"]["verdict"]
        assert verdict["status"] in ("like", "undecided")


def test_redrawn_rows_hide_the_pairs_and_not_the_trace_in_the_items(audited):
    """What membership attacks read from the row of a forgotten user is gone with it, the item rows still tell."""
    unlink, redrawn = (rows(audited)[name]["attacks"] for name in ("unlink", "unlink-redraw"))
    assert unlink["lira"]["leak_left"] > 0.7
    assert abs(redrawn["lira"]["leak_left"]) < 0.3
    assert redrawn["fold_in"]["value"] == pytest.approx(unlink["fold_in"]["value"])


def test_a_few_whole_users_are_not_forgotten_because_their_rows_are_drawn_anew(case, original):
    """With fewer than five, the fold-in attack has no interval, and what reads the redrawn rows must not decide."""
    users = case.train.pairs[0].unique()[:3]
    few = dataclasses.replace(case, request=gu.ForgetRequest.internal("user", users))
    audited = judged(original, few, retrain_seeds=4)
    for method in audited.report["methods"][2:]:
        assert method["attacks"]["fold_in"]["beyond"] is None
        assert method["verdict"]["status"] != "like"
    redrawn = rows(audited)["unlink-redraw"]
    assert abs(redrawn["attacks"]["lira"]["beyond"]) < 1
    assert redrawn["verdict"]["status"] == "undecided"
    single = InteractionAttacks(case.train, *case.train.split(few.request), [case.test])
    assert single.whole == {"fold_in": "at least 5 forgotten users of two interactions or more"}


def test_attacks_that_a_request_needs():
    pairs = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3], [0, 1, 0, 1, 2, 1, 3, 1]])
    graph = gu.InteractionGraph.from_edges(pairs, 4, 4)

    def needed(forgotten, levels=()):
        request = gu.ForgetRequest.internal("interaction", pairs[:, forgotten])
        return set(InteractionAttacks(graph, *graph.split(request), [], levels=levels).whole)

    assert needed([0, 2]) == {"fold_in_items"}  # item 0 has no other users
    assert needed([0, 3]) == set()
    assert needed([0, 1]) == {"fold_in"}
    assert needed([0, 3], ["user"]) == {"fold_in"}
    assert needed([0, 3], ["item", "interaction"]) == {"fold_in_items"}


def test_edges_are_told_by_the_membership_attack():
    graph = synthetic_interactions(num_users=80, num_items=60, interactions_per_user=14, seed=1)
    edges = removal(graph, "interaction", share=0.05, seed=0)
    model = trained(edges, "mf")
    found = rows(judged(model, edges, retrain_seeds=3))
    for name in ("original", "unlink", "unlink-redraw"):
        assert found[name]["verdict"]["status"] == "under"
        assert found[name]["verdict"]["rule"].startswith("the membership attack (LiRA)")
        assert found[name]["attacks"]["fold_in"] is None
        assert found[name]["attacks"]["edge_recovery_forgotten"]["leak_left"] == pytest.approx(1)


# ---- numbers of the report


def test_attacks_are_those_of_the_models_at_hand(audited, case, original, retrained):
    graph, references = case.train, retrained[:-1]
    retained, forgotten = graph.split(case.request)
    attacks = InteractionAttacks(graph, retained, forgotten, [case.test])
    with torch.no_grad():
        before = encode(original, graph)
        seen = [attacks.observe(encode(r.model, r.graph), before) for r in references]
        unlinked = attacks.observe(encode(original, retained), before)
    own = attacks.evidence(unlinked, seen)
    others = [attacks.evidence(seen[k], seen[:k] + seen[k + 1 :]) for k in range(MODELS)]
    found = rows(audited)["unlink"]["attacks"]
    for name in ("fold_in", "lira", "rmia", "before_and_after"):
        assert found[name]["value"] == pytest.approx(own[name][0].value)
        mean = statistics.fmean(o[name][0].value for o in others)
        assert found[name]["retrain_mean"] == pytest.approx(mean)
    assert found["lira"]["tpr@1%"] == own["lira"][1]["tpr@1%"]
    mean = statistics.fmean(o["lira"][1]["tpr@0.1%"] for o in others)
    assert found["lira"]["retrain_tpr@0.1%"] == pytest.approx(mean)
    assert found["before_and_after"]["original"] is None  # the original alone has no second model beside it
    assert rows(audited)["original"]["attacks"]["before_and_after"] is None
    for name in ("fold_in_items", "edge_recovery_forgotten", "edge_recovery_kept", "target"):
        assert found[name] is None  # no item is forgotten, no edge has both ends left, nothing was promoted


def test_overlap_of_lists_against_sets(audited):
    measured = audited.measured
    lists = [m["lists"]["unaffected"].tolist() for m in measured["retrain"]]
    own = measured["unlink"]["lists"]["unaffected"].tolist()

    def overlap(some, others):
        return statistics.fmean(
            len({*a} & {*b} - {-1}) / len(({*a} | {*b}) - {-1}) for a, b in zip(some, others)
        )  # fmt: skip

    found = rows(audited)["unlink"]["topk_overlap"]
    assert found["unaffected"] == pytest.approx(statistics.fmean(overlap(own, other) for other in lists))
    between = [overlap(a, b) for a, b in itertools.combinations(lists, 2)]
    assert found["retrain_unaffected"] == pytest.approx(statistics.fmean(between))
    assert found["affected"] is None  # nobody who is affected is left
    json.dumps(audited.report, allow_nan=False)


def of_margins(count, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(2, 6, generator=generator, dtype=torch.float64) + shift for _ in range(count)]
    return [{"margins": {"forget": m[0], "retain": m[1]}} for m in drawn]


def test_klom_of_a_method_beside_that_of_retrained_models():
    models, retrained = of_margins(4, 0, 1.0), of_margins(9, 1)
    found = klom_entry(models, retrained)
    for part in ("forget", "retain"):
        own, theirs = (torch.stack([m["margins"][part] for m in group]) for group in (models, retrained))
        assert found[part] == klom(own, theirs)
        assert found[f"floor_{part}"] == klom(theirs[:4], theirs[4:])
    assert (found["models"], found["retrained"]) == (4, 9)
    assert found["expected_if_equal"] == klom_if_equal(4, 9)
    default = klom_entry(models, retrained[:5])  # too few for halves, and not without a yardstick
    assert default["floor_forget"] is None
    assert default["expected_if_equal"] == pytest.approx(klom_if_equal(4, 5))
    assert klom_entry(models, retrained[:3])["expected_if_equal"] is None
    assert klom_entry(models, retrained[:7])["floor_forget"] is None
    assert klom_entry(models[:2], retrained) is None
    assert klom_entry(models, retrained[:2]) is None


# ---- too little to judge by


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_retrained_models_leave_everything_undecided(count, case, original, retrained):
    report = judged(original, case, references=retrained[:count]).report
    for method in report["methods"]:
        if method["name"] != "retrain":
            assert method["verdict"]["status"] == "undecided"
            assert "too few for a verdict" in method["verdict"]["rule"]
            assert "at least 3 retrained models" in method["verdict"]["needs"]
    assert report["retrain_pass_rate"] is None
    json.dumps(report, allow_nan=False)


def test_three_judge_methods_and_not_one_another(case, original, retrained):
    audited = judged(original, case, references=retrained[:3])
    assert rows(audited)["original"]["verdict"]["status"] == "under"
    assert audited.report["retrain_pass_rate"] is None  # two are left when one is judged
    assert pass_rate(audited.measured["retrain"]) is None
    lira = rows(audited)["retrain"]["attacks"]["lira"]  # no spread, and so no share, against two models
    assert (lira["leak_left"], lira["runs_told"], lira["runs"], lira["beyond"]) == (None, 0, 3, None)
    assert rows(audited)["original"]["attacks"]["lira"]["leak_left"] is not None


def test_users_with_one_interaction_have_nothing_to_fold_in():
    generator = torch.Generator().manual_seed(0)
    pairs = (torch.rand(40, 30, generator=generator) < 0.3).nonzero()
    pairs = torch.cat([pairs[pairs[:, 0] >= 3], torch.tensor([[0, 4], [1, 7], [2, 9]])]).t()
    graph = gu.InteractionGraph.from_edges(pairs, 40, 30)
    test = gu.InteractionGraph.from_edges(torch.tensor([[5, 6], [1, 2]]), 40, 30)
    request = gu.ForgetRequest.internal("user", torch.tensor([0, 1, 2]))
    model = build_model("lightgcn", graph, 4)
    keywords = {"objective": gu.BPR(), "settings": FitSettings(epochs=2, seed=50), "retrain_seeds": 3}
    report = audit(model, graph, request, [], test=test, **keywords).report
    assert report["left_out"]["forgotten users with a single interaction, whom the fold-in attack cannot test"] == 3
    for method in report["methods"]:
        assert method["attacks"]["fold_in"] is None
        assert method["attacks"]["lira"] is not None
    json.dumps(report, allow_nan=False)


def test_attacks_need_no_held_out_data(case, original, retrained):
    nothing = case.test.select(torch.zeros(case.test.num_interactions, dtype=torch.bool))
    without = dataclasses.replace(case, test=nothing)
    report = judged(original, without, references=retrained[:3]).report
    (method,) = (m for m in report["methods"] if m["name"] == "unlink")
    assert method["verdict"]["status"] == "under"
    assert method["attacks"]["fold_in"]["leak_left"] > 0.25
    assert sum("membership attacks are not calibrated and do not decide" in note for note in report["notes"]) == 1
    json.dumps(report, allow_nan=False)


def test_membership_attacks_without_calibration_do_not_decide():
    """Two models that were trained for different times differ in all logits, which is no trace."""
    graph = synthetic_interactions(num_users=80, num_items=60, interactions_per_user=14, seed=1)
    edges = removal(graph, "interaction", share=0.05, seed=0)
    model = trained(edges, "mf")
    few = edges.test.select(torch.arange(edges.test.num_interactions) < 3)
    found = {}
    for name, test in (("all", edges.test), ("few", few)):
        found[name] = judged(model, dataclasses.replace(edges, test=test), retrain_seeds=3)
    (original, *_), (alone, *_) = (found[name].report["methods"] for name in ("all", "few"))
    assert original["verdict"]["rule"].startswith("the membership attack (LiRA)")
    assert alone["attacks"]["lira"]["leak_left"] is not None
    assert "LiRA" not in alone["verdict"]["rule"]
    assert not any("not calibrated" in note for note in found["all"].report["notes"])
    assert any("not calibrated" in note for note in found["few"].report["notes"])
    together = auditing.Audit.mean([found["few"]], {})
    assert sum("not calibrated" in note for note in together.report["notes"]) == 1


def test_controls_are_reported_with_their_match(audited):
    found = audited.report["controls"]
    assert found["controls"] == pytest.approx(found["forgotten"], rel=0.2)
    assert abs(found["auroc"] - 0.5) < 0.1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"retrain_seeds": 0}, r"'retrain_seeds' must be at least 1 without 'references' \(got 0\)"),
        ({"retrain_seeds": -1}, r"'retrain_seeds' must be at least 1 without 'references' \(got -1\)"),
        ({"retrain_seeds": 3, "shadow": -1}, r"'shadow' must be at least 0 \(got -1\)"),
        ({"targets": torch.tensor([], dtype=torch.long)}, r"'targets' must name at least one item \(got none\)"),
        (
            {"targets": torch.tensor([1]), "real": torch.zeros(150, dtype=torch.bool)},
            r"'real' must hold at least one user \(got none\)",
        ),
    ],
)
def test_numbers_of_models_and_targets_that_mean_nothing_are_refused(changes, sentence, case, original):
    with pytest.raises(gu.errors.ArgumentError, match=sentence):
        judged(original, case, **changes)


def test_no_further_retrained_models_are_trained_if_there_are_some(case, original, retrained):
    assert len(judged(original, case, references=retrained[:3], retrain_seeds=0).references) == 3


def test_targets_that_every_real_user_has_are_not_measured(case, original, retrained):
    """Nobody is left to recommend them to: null, and no error."""
    item = int(case.train.adjacency.degree[150:].argmax())
    real = torch.zeros(150, dtype=torch.bool)
    real[case.train.pairs[0, case.train.pairs[1] == item]] = True
    keywords = {"targets": torch.tensor([item]), "real": real, "retrain_seeds": 0}
    report = judged(original, case, references=retrained[:3], **keywords).report
    for method in report["methods"]:
        assert method["attacks"]["target"] is None
        assert method["target"]["probability"]["value"] is None
        assert method["target"]["probability"].get("retrain_sd") is None
    json.dumps(report, allow_nan=False)


# ---- retrained models that are not healthy


@pytest.fixture
def trainings(monkeypatch, retrained):
    """Lets trainings give chosen logs, by seed, without any training; returns the seeds that were asked for."""

    def set_(logs):
        asked = []

        def train(method, model, graph, request, cache):
            asked.append(method.settings.seed)
            best, validation = logs.get(method.settings.seed, (20, 0.5))
            log = {"best_epoch": best, "epochs": best + 10, "validation": validation}
            log["settings"] = {"epochs": 300, "seed": method.settings.seed}
            return dataclasses.replace(retrained[(len(asked) - 1) % len(retrained)], log=log)

        monkeypatch.setattr(auditing, "retrain", train)
        return asked

    return set_


AGAIN = 50 + 1 + auditing.ANOTHER + 1  # the second one, of seed 51


@pytest.mark.parametrize("sick", [(1, 0.5), (20, 0.1)])
def test_one_that_is_not_healthy_is_trained_again_once_and_named(sick, case, original, trainings):
    asked = trainings({51: sick})
    report = judged(original, case, retrain_seeds=4).report
    assert asked == [50, 51, 52, 53, AGAIN]
    assert [r["seed"] for r in report["references"]] == [50, AGAIN, 52, 53]
    assert all(r["healthy"] for r in report["references"])
    assert report["notes"][0].startswith("The retrained model of seed 51 (best epoch")
    assert report["notes"][0].endswith(f"was not healthy; one of seed {AGAIN} takes its place.")


def test_if_it_persists_the_audit_says_so_first_and_the_better_one_stays(case, original, trainings):
    asked = trainings({51: (20, 0.2), AGAIN: (20, 0.1)})
    found = judged(original, case, retrain_seeds=4)
    assert asked == [50, 51, 52, 53, AGAIN]
    assert [r["seed"] for r in found.report["references"]] == [50, 51, 52, 53]
    assert found.report["references"][1]["healthy"] is False
    assert found.report["notes"][0].startswith("Read this first: the retrained model of seed 51")
    again = judged(original, case, references=found.references)
    assert len(asked) == 5  # once is enough
    assert again.report["notes"][0].startswith("Read this first: the retrained model of seed 51")


def test_a_healthy_one_takes_the_place_of_a_higher_metric_in_the_first_plateau(case, original, trainings):
    trainings({51: (1, 0.52), AGAIN: (20, 0.5)})
    found = judged(original, case, retrain_seeds=4)
    assert [r["seed"] for r in found.report["references"]] == [50, AGAIN, 52, 53]
    assert found.report["references"][1]["healthy"] is True
    assert found.warnings[0].endswith(f"one of seed {AGAIN} takes its place.")


def test_of_two_that_are_not_healthy_the_better_one_stays_and_is_named(case, original, trainings):
    trainings({51: (1, 0.1), AGAIN: (1, 0.3)})
    found = judged(original, case, retrain_seeds=4)
    assert [r["seed"] for r in found.report["references"]] == [50, AGAIN, 52, 53]
    assert "The second one, which is better on the validation data, is used." in found.warnings[0]


def test_healthy_ones_are_not_trained_again(case, original, trainings):
    asked = trainings({})
    report = judged(original, case, retrain_seeds=3).report
    assert asked == [50, 51, 52]
    assert not any("healthy" in note for note in report["notes"])


def test_a_bench_of_several_originals_says_it_as_well(trainings, case):
    trainings({51: (20, 0.2), AGAIN: (20, 0.1)})
    settings = FitSettings(epochs=1)
    result = bench(
        lambda seed: case, [gu.Unlink()], dim=16, settings=settings, retrain_seeds=4, original_seeds=2, progress=False
    )
    told = [note for note in result.report["notes"] if note.startswith("Read this first")]
    assert len(told) == 1
    assert result.report["notes"][0] == told[0]


# ---- sessions


@pytest.fixture(scope="module")
def sessions():
    settings = FitSettings(epochs=20, batch_size=128, lr=0.04, patience=20, seed=77)
    case = session_clicks(walks(num_sessions=200, num_items=60, step=0.5), share=0.5)
    model = trained(case, "gru4rec", 24, settings)
    keywords = {"objective": gu.CrossEntropy(), "settings": settings}
    references = judged(model, case, retrain_seeds=7, **keywords).references
    another = dataclasses.replace(references[-1], method="another")
    return judged(model, case, [another], references[:-1], **keywords)


def test_sessions_are_judged_alike(sessions):
    found = rows(sessions)
    for name in ("original", "unlink"):
        assert found[name]["verdict"]["status"] == "under"
    assert found["another"]["verdict"]["status"] in ("like", "undecided")
    assert sessions.report["retrain_pass_rate"] == 1.0
    assert found["unlink"]["attacks"]["click"]["leak_left"] == pytest.approx(1, abs=0.05)
    assert set(found["unlink"]["attacks"]) == {
        *("click", "transition", "lira", "rmia", "fold_in", "before_and_after", "target"),
        *("fold_in_items", "edge_recovery_forgotten", "edge_recovery_kept"),
    }  # fmt: skip
    assert found["unlink"]["attacks"]["fold_in"] is None  # no session is forgotten as a whole
    json.dumps(sessions.report, allow_nan=False)
