"""The bench on a synthetic set small enough to retrain in a blink."""

import dataclasses
import json
import statistics
from typing import ClassVar

import pytest
import torch

import graphunlearn as gu
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import adversarial_edges, bench, flipped_labels, removal
from graphunlearn.eval.measure import Judge
from graphunlearn.nn import FitSettings
from graphunlearn.operators import registry

SETTINGS = FitSettings(epochs=8, batch_size=512, lr=0.05)
QUICK = FitSettings(epochs=2, batch_size=512, lr=0.05)


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


def test_bench_averages_its_runs(graph, tmp_path):
    result = bench(
        lambda seed: flipped_labels(graph, share=0.1, seed=seed),
        [gu.IFRU(), gu.Unlink()],
        dim=8,
        settings=SETTINGS,
        data_seeds=2,
        original_seeds=2,
        retrain_seeds=2,
        dataset="synthetic",
    )
    assert len(result.report["runs"]) == 4
    for k, method in enumerate(result.report["methods"]):
        runs = [run[k]["forgetting"]["flipped_label_auc"]["value"] for run in result.report["runs"]]
        assert method["forgetting"]["flipped_label_auc"]["value"] == pytest.approx(sum(runs) / 4)
    one, two = (run[1]["distance_to_retrain"] for run in result.report["runs"][:2])
    assert one == two  # originals of one data seed share their retrained models
    paths = result.write(tmp_path)
    assert "flipped" in paths[1].read_text()
    assert json.loads(paths[0].read_text())["scenario"] == "flipped-labels"
    assert "ifru" in str(result)


def test_the_row_of_retraining_is_of_all_retrained_models(graph):
    result = bench(
        lambda seed: removal(graph, "user", seed=seed), [gu.Unlink()], dim=4, settings=QUICK, data_seeds=2,
        original_seeds=2, retrain_seeds=3,
    )  # fmt: skip
    row = result.report["methods"][1]
    models, p = [], []
    for seed in (0, 1):
        case = removal(graph, "user", seed=seed)
        judge = Judge(case.train, case.request, case.validation, case.test, gu.BPR(), False)
        keywords = {"objective": gu.BPR(), "validation": case.validation}
        shape = gu.nn.build_model("lightgcn", case.train, 4)
        for k in range(3):
            retrain = gu.Retrain(settings=dataclasses.replace(QUICK, seed=100 * seed + 50 + k), **keywords)
            made = retrain.unlearn(shape, case.train, case.request)
            models.append(judge.measure(made.model, made.graph))
        p.append([m["forget"].double() for m in models[-3:]])
    for name in ("recall@20", "ndcg@20"):
        values = [m["utility"][name] for m in models]
        assert row["utility"][name] == pytest.approx(statistics.fmean(values))
        assert row["utility_sd"][name] == pytest.approx(statistics.stdev(values))
    values = [m["forgetting"]["membership_auroc"] for m in models]
    assert row["forgetting_sd"]["membership_auroc"]["value"] == pytest.approx(statistics.stdev(values))
    away = [[statistics.fmean(float((a - b).abs().mean()) for b in of if b is not a) for a in of] for of in p]
    assert row["distance_to_retrain"]["forget"] == pytest.approx(statistics.fmean(away[0] + away[1]))
    assert row["distance_to_retrain_sd"]["forget"] == pytest.approx(statistics.stdev(away[0] + away[1]))
    assert row["seconds_sd"] > 0
    assert (row["speedup_vs_retrain"], len(row["log"]["runs"])) == (1.0, 6)
    assert "speedup_vs_retrain_sd" not in row


def test_two_retrained_models_have_one_distance(graph):
    made = removal(graph, "user")
    result = bench(lambda seed: made, [gu.Unlink()], dim=4, settings=QUICK, original_seeds=2, retrain_seeds=2)
    row = result.report["methods"][1]
    assert "distance_to_retrain_sd" not in row
    assert row["utility_sd"]["recall@20"] > 0


@pytest.mark.parametrize("count", ["data_seeds", "original_seeds", "retrain_seeds"])
def test_bench_needs_seeds(graph, count):
    with pytest.raises(ValueError, match=f"'{count}' must be at least 1"):
        bench(lambda seed: flipped_labels(graph, seed=seed), [gu.Unlink()], **{count: 0})


def test_seeds_never_meet(graph):
    with pytest.raises(ValueError, match=r"'original_seeds' must be at most 50 \(got 51\)"):
        bench(lambda seed: removal(graph, "user", seed=seed), [gu.Unlink()], original_seeds=51)
    with pytest.raises(ValueError, match=r"'retrain_seeds' must be at most 49 \(got 50\)"):
        bench(lambda seed: removal(graph, "user", seed=seed), [gu.Unlink()], retrain_seeds=50)


def test_the_clean_model_is_trained_as_the_original_with_a_seed_of_its_own(graph, monkeypatch):
    from graphunlearn.nn.training import anew

    seen = []

    def spy(model, graph, **keywords):
        seen.append((graph.num_interactions, keywords["settings"], keywords["objective"]))
        return gu.fit(model, graph, **keywords)

    monkeypatch.setattr(anew, "fit", spy)
    made = []

    def scenario(seed, clean):
        made.append(adversarial_edges(graph, clean, seed=seed))
        return made[-1]

    result = bench(scenario, [gu.Unlink()], dim=4, settings=QUICK, retrain_seeds=2, seed=1)
    size, injected = made[0].train.num_interactions, len(made[0].request)
    assert [count for count, *_ in seen] == [size - injected, size, size - injected, size - injected]
    assert [settings.seed for _, settings, _ in seen] == [199, 100, 150, 151]
    assert len({(dataclasses.replace(settings, seed=0), objective) for _, settings, objective in seen}) == 1
    assert result.report["scenario"] == "adversarial-edges"
    assert result.report["request"]["size"] == injected
    assert str(injected) in result.report["notes"][0]


def test_global_randomness_is_left_alone(graph):
    before = torch.get_rng_state()
    bench(lambda seed: removal(graph, "item", seed=seed), [gu.Unlink()], dim=4, settings=QUICK, retrain_seeds=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_method_is_prepared_for_every_original_before_it_is_told_the_request(graph):
    told = []

    @dataclasses.dataclass(kw_only=True)
    class Prepared(gu.Unlearner):
        name: ClassVar[str] = "prepared-for-test"
        needs_preparation: ClassVar[bool] = True
        known: list = dataclasses.field(default_factory=list, init=False)

        def _prepare(self, model, graph, *_):
            told.append(("prepared", id(self), len(self.known), graph.num_interactions))
            self.known.append(model.embedding.weight.detach().clone())

        def _unlearn(self, model, graph, retained, request):
            assert torch.equal(self.known[0], model.embedding.weight)
            told.append(("told", id(self), len(self.known), graph.num_interactions))
            return {}

    try:
        method = Prepared()
        made = removal(graph, "user")
        result = bench(
            lambda seed: made, [method, gu.Unlink()], dim=4, settings=QUICK, original_seeds=2, retrain_seeds=2
        )
    finally:
        del registry["prepared-for-test"]
    assert [what for what, *_ in told] == ["prepared", "told"] * 2
    assert [count for _, _, count, _ in told] == [0, 1] * 2
    assert {size for *_, size in told} == {made.train.num_interactions}
    assert method.known == []
    assert method.prepare_seconds is None
    row = result.report["methods"][2]
    assert row["prepare_seconds"] > 0
    assert result.report["methods"][3]["prepare_seconds"] is None
