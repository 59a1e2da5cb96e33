"""Forgetting over ranks against forgetting by one process, in double precision."""

import dataclasses

import pytest
import torch
from several import together

import graphunlearn as gu
from graphunlearn.distributed import Ranks, judging, model_part, take_part, unlearn, unlearning, whole_result
from graphunlearn.nn import build_model, reset_parameters
from graphunlearn.operators import UnlinkRedraw
from graphunlearn.operators.shared import acceptance, local

WHOLE = gu.datasets.synthetic_interactions(num_users=40, num_items=25, interactions_per_user=8, seed=0)
REQUESTS = {
    "users": gu.ForgetRequest("user", [WHOLE.user_ids[n] for n in (1, 30)]),
    "an item": gu.ForgetRequest("item", [WHOLE.item_ids[4]]),
    "pairs": gu.ForgetRequest(
        "interaction", [(WHOLE.user_ids[u], WHOLE.item_ids[i]) for u, i in WHOLE.pairs[:, ::17].t()]
    ),
    "all users of rank 1": gu.ForgetRequest("user", WHOLE.user_ids[20:]),
    "one user": gu.ForgetRequest("user", [WHOLE.user_ids[7]]),  # all on one rank
}
METHODS = {
    "ifru": gu.IFRU(within_noise=0),
    "ifru of labels": gu.IFRU(objective=gu.SquaredError(weight_decay=0.05), on_rejection="keep"),
    "ifru with a damping": gu.IFRU(damping=3.0, warm_start=False, within_noise=0),
    "calibrate": gu.Calibrate(),
    "unlink": gu.Unlink(),
    "unlink-redraw": UnlinkRedraw(),
}


@pytest.fixture(scope="module")
def model():
    WHOLE["user", "interacts", "item"].rating = torch.arange(WHOLE.num_interactions) % 5 + 1.0
    model = build_model("lightgcn", WHOLE, 6, 2)
    reset_parameters(model, 3)
    gu.fit(model, WHOLE, epochs=12, batch_size=100, seed=1)
    return model.double()


def forget(ranks, model, cases):
    graph = take_part(WHOLE, ranks)
    part = model_part(model, graph)
    answers = {}
    for name, words in cases:
        result = whole_result(unlearn(METHODS[words], part, graph, REQUESTS[name]))
        if result is not None:
            tables = result.model.embedding.weight.detach(), result.graph.fingerprint()
            answers[name, words] = (*tables, result.log, result.accepted)
    return answers


CASES = [*((name, "ifru") for name in REQUESTS), *(("users", words) for words in METHODS if words != "ifru")]
CASES += [("an item", "calibrate"), ("pairs", "calibrate")]


@pytest.mark.filterwarnings("ignore::UserWarning:graphunlearn")
@pytest.mark.parametrize(("world", "cases"), [(2, CASES), (4, [("pairs", "ifru"), ("one user", "ifru")])])
def test_corrections_are_those_of_one_process(model, world, cases):
    answers = together(forget, world, model, cases)[0]
    assert not isinstance(answers, BaseException)
    for (name, words), (table, fingerprint, log, accepted) in answers.items():
        wanted = METHODS[words].unlearn(model, WHOLE, REQUESTS[name])
        apart = (table - wanted.model.embedding.weight).abs().max()
        assert apart < 1e-9, (name, words)
        assert fingerprint == wanted.graph.fingerprint()
        assert accepted == wanted.accepted
        if "acceptance" in log:
            own, other = log["acceptance"], wanted.log["acceptance"]
            assert own["outcome"] == other["outcome"], (name, words)
            for figure in ("deleted", "corrected"):
                assert own[figure] == pytest.approx(other[figure], rel=1e-7), (name, words)
            for levels, expected in zip(own["levels"], other["levels"], strict=True):
                assert levels is expected is None or levels == pytest.approx(expected, rel=1e-9)
        for key in ("touched_rows", "emptied_nodes", "steered", "damping_rule"):
            assert log.get(key) == wanted.log.get(key), (name, words, key)


def once_rejected(judge):
    """A judge that does not accept the first model it sees."""

    def judged(self, model):
        found, seen = judge(self, model), vars(self).setdefault("seen", [])
        seen.append(found)
        return dataclasses.replace(found, accepted=len(seen) > 1, reason="so it was said")

    return judged


@pytest.mark.filterwarnings("ignore::UserWarning:graphunlearn")
@pytest.mark.parametrize("name", ["users", "an item", "pairs"])
def test_a_rejected_step_is_taken_again_as_by_one_process(model, name, monkeypatch):
    for kind in (acceptance.Acceptance, judging.ShardAcceptance):
        monkeypatch.setattr(kind, "judge", once_rejected(kind.judge))
    monkeypatch.setattr(local, "SMALL", 0.0)
    table, _, log, accepted = together(forget, 2, model, [(name, "calibrate")])[0][name, "calibrate"]
    wanted = gu.Calibrate().unlearn(model, WHOLE, REQUESTS[name])
    assert accepted
    assert wanted.accepted
    outcome = log["acceptance"]["outcome"]
    assert outcome == wanted.log["acceptance"]["outcome"] == ("shortened" if name == "pairs" else "milder")
    assert (table - wanted.model.embedding.weight).abs().max() < 1e-9
    tried = [[entry["what"] for entry in found["acceptance"]["tried"]] for found in (log, wanted.log)]
    assert tried[0] == tried[1]


FITTING = [gu.Calibrate(), gu.IFRU(tol=1e-13, max_iter=500, within_noise=0.0)]


def fit_log(ranks, model, items):
    graph = take_part(WHOLE, ranks, items=items)
    results = [whole_result(unlearn(m, model_part(model, graph), graph, REQUESTS["users"])) for m in FITTING]
    return [None if result is None else result.log["refit"] for result in results]


@pytest.mark.filterwarnings("ignore::UserWarning:graphunlearn")
@pytest.mark.parametrize("items", ["replicated", "sharded"])
def test_what_decides_about_a_fit_is_that_of_one_process(model, items, monkeypatch):
    logs = together(fit_log, 2, model, items)[0]
    monkeypatch.setattr(local, "SMALL", 0.0)  # one process fits with the samples around the request otherwise
    for method, log in zip(FITTING, logs, strict=True):
        wanted = method.unlearn(model, WHOLE, REQUESTS["users"]).log["refit"]
        assert log["items"] == wanted["items"] > 0
        assert log["ridge_items"] == pytest.approx(wanted["ridge_items"], rel=1e-7)
        assert ("rise_items" in wanted) is isinstance(method, gu.IFRU)
        assert log.get("projected_items") == wanted.get("projected_items")
        assert log.get("rise_items", 0.0) == pytest.approx(wanted.get("rise_items", 0.0), rel=1e-7)


@pytest.mark.filterwarnings("ignore::UserWarning:graphunlearn")
def test_the_same_sample_is_judged_as_by_one_process(model, monkeypatch):
    monkeypatch.setitem(acceptance.SAMPLED, "interactions", (40, 30))
    request, method = REQUESTS["pairs"], gu.Calibrate()
    log = together(forget, 2, model, [("pairs", "calibrate")])[0]["pairs", "calibrate"][2]["acceptance"]
    wanted = method.unlearn(model, WHOLE, request).log["acceptance"]
    assert log["samples"] == wanted["samples"] == 70
    for module in (acceptance, judging):  # the last argument says how many times as many are looked at
        monkeypatch.setattr(module, "undecided", lambda *given: given[-1] < 4)
    log = together(forget, 2, model, [("pairs", "calibrate")])[0]["pairs", "calibrate"][2]["acceptance"]
    wanted = method.unlearn(model, WHOLE, request).log["acceptance"]
    assert 70 < log["samples"] == wanted["samples"] < wanted["of"]
    assert log["corrected"] == pytest.approx(wanted["corrected"], rel=1e-7)
    assert log["deleted"] == pytest.approx(wanted["deleted"], rel=1e-7)
    assert log["levels"][1] == pytest.approx(wanted["levels"][1], rel=1e-7)


def differing(ranks, model):
    graph = take_part(WHOLE, ranks)
    request = REQUESTS["users" if ranks.rank else "an item"]
    unlearn(gu.IFRU(), model_part(model, graph), graph, request)


def test_ranks_with_other_requests_stop(model):
    for error in together(differing, 2, model):
        assert str(error) == "all ranks must be given the same request (got others on rank 1 than on rank 0)"


def test_methods_and_options_without_a_form_on_several_ranks_are_refused(model):
    graph = take_part(WHOLE, Ranks())
    for method, words in (
        (gu.FineTune(), r"'method' must be one of calibrate, ifru, unlink, unlink-redraw on several ranks"),
        (gu.IFRU(prune=0.5), r"'prune' must be None on several ranks \(got 0.5\)"),
        (gu.IFRU(within_noise=0.2), r"'within_noise' must be 0.05 or 0 on several ranks \(got 0.2\)"),
        (gu.Calibrate(epochs=2), r"'epochs' must be 0 on several ranks \(got 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            unlearn(method, model_part(model, graph), graph, REQUESTS["users"])


def out_of_memory(ranks, model):
    graph = take_part(WHOLE, ranks)

    def fails(*_):
        raise MemoryError

    if ranks.rank == 1:
        unlearning.ifru_part = fails
    unlearn(gu.IFRU(), model_part(model, graph), graph, REQUESTS["users"])


def test_a_rank_out_of_memory_is_an_error_on_all(model):
    first, second = together(out_of_memory, 2, model)
    assert str(first) == "rank 1 failed: out of memory"
    assert isinstance(second, MemoryError)
