"""What an audit measures, against loops over users and pairs."""

import json
import math

import pytest
import torch
from scipy import stats
from toys import light_gcn

import graphunlearn as gu
from graphunlearn.cli.train import _utility
from graphunlearn.datasets import synthetic_interactions
from graphunlearn.eval import audit, bench, removal
from graphunlearn.eval.measure import Judge
from graphunlearn.eval.report.verdict import judge
from graphunlearn.eval.report.writing import complete
from graphunlearn.nn import FitSettings, build_model

SETTINGS = FitSettings(epochs=4, batch_size=512, lr=0.05, seed=50)


@pytest.fixture(scope="module")
def graph():
    return synthetic_interactions(num_users=60, num_items=40, interactions_per_user=12, seed=1)


def judged(case):
    original = build_model("lightgcn", case.train, 6, 2)
    gu.fit(original, case.train, epochs=4, lr=0.05)
    keywords = {"validation": case.validation, "objective": gu.BPR(), "settings": SETTINGS, "retrain_seeds": 3}
    return original, audit(original, case.train, case.request, [gu.Unlink()], test=case.test, **keywords)


@pytest.fixture(scope="module")
def edges(graph):
    case = removal(graph, "interaction", seed=3, share=0.03)
    return case, *judged(case)


def methods(audited):
    return {method["name"]: method for method in audited.report["methods"]}


def scores_of(model, graph):
    with torch.no_grad():
        encoded = gu.encode(model, graph)
        return encoded.queries @ encoded.items.t()


def naive_recall(scores, seen, test, users, k=20):
    """Mean over users of the share of their test items among their k best unseen ones."""
    values = []
    for user in users:
        items = {i for u, i in test if u == user and (u, i) not in seen}
        if items:
            rest = [i for i in range(scores.size(1)) if (user, i) not in seen]
            best = sorted(rest, key=lambda i: -float(scores[user, i]))[:k]
            values.append(len(items & set(best)) / len(items))
    return sum(values) / len(values)


def pairs_of(graph):
    return [tuple(pair) for pair in graph.pairs.t().tolist()]


def test_affected_and_unaffected_users_apart(edges):
    case, original, audited = edges
    retained, forgotten = case.train.split(case.request)
    known = case.train.adjacency.degree > 0
    emptied = known & (retained.adjacency.degree == 0)
    gone = set(pairs_of(forgotten))
    test = [
        (u, i)
        for u, i in pairs_of(case.test)
        if known[u] and known[60 + i] and not emptied[u] and not emptied[60 + i] and (u, i) not in gone
    ]
    affected = {u for u, _ in gone}
    for name, model, graph in (
        ("original", original, case.train),
        ("unlink", audited.results[0].model, retained),
    ):
        utility = methods(audited)[name]["utility"]
        scores, seen = scores_of(model, graph), set(pairs_of(retained))
        for key, users in (
            ("recall@20_affected", affected),
            ("recall@20_unaffected", set(range(60)) - affected),
            ("recall@20", range(60)),
        ):
            assert utility[key] == pytest.approx(naive_recall(scores, seen, test, users), abs=1e-6)
    assert "ndcg@20_affected" in methods(audited)["retrain"]["utility"]


def test_a_group_without_users_is_absent(graph):
    case = removal(graph, "user", share=0.05)
    utility = methods(judged(case)[1])["unlink"]["utility"]
    assert "recall@20_unaffected" in utility
    assert not [name for name in utility if name.endswith("_affected")]  # all of them are gone


def test_membership_ratios_exposure_and_ks_against_loops(edges):
    case, original, audited = edges
    retained, forgotten = case.train.split(case.request)
    pairs, seen = pairs_of(forgotten), set(pairs_of(retained))

    def p(model, graph):
        scores = scores_of(model, graph)
        return [1 / (1 + math.exp(-float(scores[u, i]))) for u, i in pairs]

    def exposed(model, graph):
        scores, hits = scores_of(model, graph), 0
        for u, i in pairs:
            rest = [float(scores[u, j]) for j in range(40) if (u, j) not in seen]
            hits += sum(s > float(scores[u, i]) for s in rest) < 20
        return hits / len(pairs)

    result = audited.results[0]
    before, after = p(original, case.train), p(result.model, result.graph)
    references = [p(r.model, r.graph) for r in audited.references]
    entries = methods(audited)["unlink"]["forgetting"]
    assert entries["mi_bf"]["value"] == pytest.approx(sum(before) / sum(after), rel=1e-4)
    assert entries["mi_bf"]["original"] == pytest.approx(1.0)
    mean = sum(sum(before) / sum(r) for r in references) / 3
    assert entries["mi_bf"]["retrain_mean"] == pytest.approx(mean, rel=1e-4)
    assert entries["mean_probability"]["value"] == pytest.approx(sum(after) / len(after), rel=1e-4)
    assert entries["exposure@20"]["value"] == pytest.approx(exposed(result.model, result.graph))
    assert entries["exposure@20"]["original"] == pytest.approx(exposed(original, case.train))
    ks = [stats.ks_2samp([round(x, 6) for x in after], [round(x, 6) for x in r]) for r in references]
    assert entries["ks_statistic"]["value"] == pytest.approx(sum(x.statistic for x in ks) / 3, abs=0.02)
    assert entries["ks_statistic"]["p_value"] == pytest.approx(sum(x.pvalue for x in ks) / 3, abs=0.05)
    assert entries["ks_statistic"]["floor"] > 0


def test_never_seen_pairs_of_mi_ng_are_of_the_same_users(edges):
    """MI-NG times MI-BF is the mean of never-seen pairs over that of the forgotten, both after, times before/after."""
    case, _, audited = edges
    entries = methods(audited)["unlink"]["forgetting"]
    never = entries["mi_ng"]["value"] * entries["mean_probability"]["value"]
    scores = scores_of(audited.results[0].model, audited.results[0].graph).sigmoid()
    held = {pair for part in (case.train, case.validation, case.test) for pair in pairs_of(part)}
    users = case.train.split(case.request)[1].pairs[0].tolist()
    expected = [float(scores[u, [i for i in range(40) if (u, i) not in held]].mean()) for u in users]
    assert never == pytest.approx(sum(expected) / len(expected), abs=0.03)  # over all of them, not over a sample


def test_rows_of_forgotten_items_are_left_out_and_counted(graph):
    case = removal(graph, "item", share=0.1, seed=1)
    _, audited = judged(case)
    gone = set(case.request.index)
    known = {i for _, i in pairs_of(case.train)}, {u for u, _ in pairs_of(case.train)}
    rows = [(u, i) for u, i in pairs_of(case.test) if u in known[1] and i in known[0]]
    left = audited.report["left_out"]
    assert left["test rows of users or items forgotten entirely"] == sum(i in gone for _, i in rows) > 0
    stopped = left["validation rows of users or items forgotten entirely"]
    assert stopped == sum(i in gone for _, i in pairs_of(case.validation)) > 0


@pytest.mark.parametrize("labelled", [False, True])
def test_the_original_on_its_own_lists_is_what_train_measures(graph, labelled):
    """Test rows of forgotten users, and of items without training data, count as they did before the request."""
    case = removal(graph, "user", share=0.2, seed=1)
    test = gu.InteractionGraph.from_edges(torch.cat([case.test.pairs, torch.tensor([[0, 1], [38, 39]])], 1), 60, 40)
    train = case.train.select(case.train.pairs[1] < 38)
    label = (torch.arange(test.num_interactions) % 3 > 0).float()
    test = gu.InteractionGraph.from_edges(test.pairs, 60, 40, label=label) if labelled else test
    request = gu.ForgetRequest.internal("user", train.pairs[0].unique()[:6])
    model = build_model("lightgcn", train, 6)
    original = Judge(train, request, None, test, gu.BPR(), False).measure(model, train)
    wanted = _utility(model, train, test)
    assert {name: original["own"][name] for name in wanted} == pytest.approx(wanted)
    assert ("auroc" in wanted) is labelled
    if not labelled:
        every = naive_recall(scores_of(model, train), set(pairs_of(train)), pairs_of(test), range(60))
        assert original["own"]["recall@20"] == pytest.approx(every)
        assert original["utility"]["recall@20"] != pytest.approx(every)


def test_retrained_models_that_all_agree_give_no_nan_and_a_verdict(graph):
    """A user without interactions has a zero row in SimGCL: every retrained model says one half of every pair."""
    result = bench(
        lambda seed: removal(graph, "user", share=0.05, seed=seed),
        [gu.Unlink(), gu.FineTune(epochs=1)],
        model="simgcl",
        dim=6,
        settings=SETTINGS,
        retrain_seeds=3,
    )
    json.dumps(result.report, allow_nan=False)
    report = complete(result.report)
    for method in report["methods"][1:]:
        distance = method["distance_to_retrain"]
        assert (distance["forget"], distance["noise_floor_forget"]) == (0.0, 0.0)
        assert method["forgetting"]["mean_probability"]["value"] == 0.5
        assert method["forgetting"]["ks_statistic"]["value"] == method["forgetting"]["ks_statistic"]["floor"] == 0.0
        assert method["forgetting"]["membership_auroc"]["retrain_sd"] == 0.0
        assert judge(method).status in ("like", "undecided"), method["verdict"]
    assert report["methods"][0]["distance_to_retrain"]["forget"] > 0
    assert "nan" not in str(result).lower()


def test_an_audit_without_test_rows_has_no_nan(graph):
    case = removal(graph, "user", share=0.05)
    nothing = case.test.select(torch.zeros(case.test.num_interactions, dtype=torch.bool))
    case.test = nothing
    _, audited = judged(case)
    json.dumps(audited.report, allow_nan=False)
    assert methods(audited)["unlink"]["utility"]["recall@20"] is None
    assert methods(audited)["unlink"]["distance_to_retrain"]["test"] is None
    assert str(audited)


def test_never_seen_pairs_are_in_no_held_out_graph():
    """Every user has three items in training, three held out for each purpose, and three that nobody has seen."""
    parts = [
        gu.InteractionGraph.from_edges(
            torch.tensor([[u, (u + 3 * n + k) % 12] for u in range(12) for k in range(3)]).t(), 12, 12
        )
        for n in range(3)
    ]
    train, validation, test = parts
    request = gu.ForgetRequest.internal("interaction", train.pairs[:, ::4])
    judge = Judge(train, request, validation, test, gu.BPR(), trained_labels=False)
    seen = {pair for part in parts for pair in pairs_of(part)}
    drawn = {tuple(pair) for pair in judge.never_seen.t().tolist()}
    assert drawn == {(u, i) for u in set(train.pairs[0, ::4].tolist()) for i in range(12)} - seen
    controls = [*judge.attacks.matched.controls.t().tolist(), *judge.attacks.anchored.controls.t().tolist()]
    assert len(controls) > 1000
    assert not seen & {tuple(pair) for pair in controls}
    for part in judge.attacks.edges.parts:
        assert not seen & {tuple(pair) for pair in part.controls.t().tolist()}


def test_sensitive_items_in_lists_against_a_loop():
    graph = synthetic_interactions(num_users=30, num_items=25, interactions_per_user=6, seed=2)
    category = torch.tensor([1, 4, 7])
    mask = torch.isin(graph.pairs[1], category) & (graph.pairs[0] < 12)
    request = gu.ForgetRequest.internal("interaction", graph.pairs[:, mask])
    judge = Judge(graph, request, None, graph, gu.BPR(), False, category=category)
    model = light_gcn(graph, dim=4, layers=1)
    measured = judge.measure(model, judge.retained)["forgetting"]
    encoded = gu.encode(model, judge.retained)
    users = [u for u in graph.pairs[0][mask].unique().tolist() if int(judge.retained.adjacency.degree[u])]
    for k in (10, 20):
        found = 0
        for user in users:
            scores = encoded.items @ encoded.queries[user]
            scores[judge.retained.pairs[1][judge.retained.pairs[0] == user]] = -torch.inf
            best = [int(i) for i in scores.argsort(descending=True)[:k] if scores[i] > -torch.inf]
            found += bool(set(best) & {1, 4, 7})
        assert measured[f"sensitive@{k}"] == pytest.approx(found / len(users))
