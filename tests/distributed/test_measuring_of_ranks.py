"""Lists, metrics and distances over ranks against those of one process."""

import pytest
import torch
from several import together

import graphunlearn as gu
from graphunlearn.distributed import audit, measure, model_part, recommend, take_part
from graphunlearn.metrics.forgetting import distance_to_retrain, noise_floor
from graphunlearn.metrics.ranking import Ranker
from graphunlearn.nn import build_model, reset_parameters
from graphunlearn.nn.encoding import best_items, score

TRAIN, TEST = gu.datasets.synthetic_interactions(40, 25, 8, seed=0).random_split([0.8, 0.2])
REQUEST = gu.ForgetRequest("user", [TRAIN.user_ids[n] for n in (2, 35)])
RETAINED, FORGOTTEN = TRAIN.split(REQUEST)


def made(seed):
    model = build_model("lightgcn", TRAIN, 6, 2)
    reset_parameters(model, seed)
    return model.double()


MODELS = [made(seed) for seed in range(4)]


def figures(ranks, users):
    train = take_part(TRAIN, ranks)
    retained, test = train.keep(~train.mask_of(REQUEST)), take_part(TEST, ranks, like=train)
    original, corrected, *retrained = (model_part(model, train) for model in MODELS)
    found = audit(train, retained, test, {"original": original, "ifru": corrected}, retrained)
    lists = recommend(original, train, 5), recommend(original, train, 5, users)
    return found, measure(original, train, test, (5, 10)), lists


@torch.no_grad()
def test_lists_metrics_and_distances_are_those_of_one_process():
    users = [TRAIN.user_ids[n] for n in (38, 0, 17)]
    answers = together(figures, 2, users)
    encoded = [gu.encode(model, TRAIN if n == 0 else RETAINED) for n, model in enumerate(MODELS)]
    emptied = TRAIN.emptied(RETAINED)
    kept = TEST.select(~(emptied[TEST.pairs[0]] | emptied[TEST.pairs[1] + TRAIN.num_users]))
    for audited, scores, _ in answers:
        for name, pairs in (("forgotten", FORGOTTEN.pairs), ("test", kept.pairs)):
            p = [torch.sigmoid(score(own, pairs)) for own in encoded]
            assert audited["original"][name] == pytest.approx(distance_to_retrain(p[0], p[2:]), rel=1e-9)
            assert audited["ifru"][name] == pytest.approx(distance_to_retrain(p[1], p[2:]), rel=1e-9)
            assert audited["floor"][name] == pytest.approx(noise_floor(p[2:]), rel=1e-9)
        assert audited["ifru"]["utility"] == pytest.approx(Ranker(RETAINED, kept, (20,))(*encoded[1][:2]), rel=1e-5)
        assert scores == pytest.approx(Ranker(TRAIN, TEST, (5, 10))(*encoded[0][:2]), rel=1e-5)
    assert answers[1][2] == (None, None)
    learned = TRAIN.active[TRAIN.num_users :]
    for (items, values), numbers in zip(answers[0][2], (None, torch.tensor([38, 0, 17])), strict=True):
        wanted, expected = best_items(MODELS[0], TRAIN, 5, numbers, candidates=learned)
        assert torch.equal(items, wanted)
        torch.testing.assert_close(values, expected)


def nobody(ranks):
    train = take_part(TRAIN, ranks)
    return recommend(model_part(MODELS[0], train), train, 5, ["nobody"])


def test_users_whom_no_rank_holds_are_refused():
    for error in together(nobody, 2):
        assert str(error) == "'users' must hold users of the graph (got nobody)"
