"""Training over ranks against training of one process, and its checkpoints."""

import copy

import pytest
import torch
from several import together
from torch_geometric.nn import LightGCN

import graphunlearn as gu
from graphunlearn.distributed import RankError, Ranks, build_part, fit, take_part, whole_model
from graphunlearn.distributed import checkpoint as checkpoints
from graphunlearn.nn import reset_parameters

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ALL = gu.datasets.synthetic_interactions(num_users=40, num_items=25, interactions_per_user=8, seed=0)
TRAIN, VALIDATION = ALL.random_split([0.85, 0.15])
SETTINGS = {"epochs": 4, "batch_size": 60, "seed": 2}


def labelled(graph):
    made = copy.copy(graph)
    made["user", "interacts", "item"].label = ((graph.pairs[0] + graph.pairs[1]) % 3 > 0).float()
    return made


def train(ranks, graphs, kept=None, epochs=4, **changes):
    graph = take_part(graphs[0], ranks)
    validation = take_part(graphs[1], ranks, like=graph)
    if kept is not None:
        graph = graph.keep(torch.isin(graph.position, kept))
    model = build_part("lightgcn", graph, 4, 2, seed=3)
    result = fit(model, graph, validation=validation, **{**SETTINGS, "epochs": epochs}, **changes)
    return result, whole_model(model, graph), graph.fingerprint()


def alone(graphs, **changes):
    model = LightGCN(ALL.num_nodes, 4, 2)
    reset_parameters(model, 3)
    return gu.fit(model, graphs[0], validation=graphs[1], **SETTINGS, **changes), model


def check(answers, graphs, **changes):
    result, model = alone(graphs, **changes)
    for found, whole, _ in answers:
        assert found.best_epoch == result.best_epoch
        for record, wanted in zip(found.history, result.history, strict=True):
            assert record == pytest.approx(wanted, rel=1e-5)
        assert (found.best, found.untrained, found.popularity) == pytest.approx(
            (result.best, result.untrained, result.popularity), rel=1e-5
        )
        if whole is not None:  # single precision; the differences grow with the number of steps
            torch.testing.assert_close(whole.embedding.weight, model.embedding.weight, rtol=1e-4, atol=1e-5)


def test_training_is_that_of_one_process():
    check(together(train, 4, (TRAIN, VALIDATION)), (TRAIN, VALIDATION))


def test_training_on_labels_is_that_of_one_process():
    graphs = labelled(TRAIN), labelled(VALIDATION)
    check(together(train, 2, graphs), graphs)


def test_training_on_what_remains_has_the_batches_of_one_process():
    mask = gu.ForgetRequest("user", [TRAIN.user_ids[3], TRAIN.user_ids[30]]).mask(TRAIN)
    answers = together(train, 2, (TRAIN, VALIDATION), (~mask).nonzero().view(-1))
    check(answers, (TRAIN.keep(~mask), VALIDATION))


def interrupted(ranks, folder, graphs):
    whole = train(ranks, graphs)[1]
    train(ranks, graphs, epochs=2, checkpoint=folder / "state")
    names = sorted(file.name for file in folder.iterdir())
    ranks.agree()  # both have listed the files
    return whole, names, train(ranks, graphs, checkpoint=folder / "state")[:2]


def test_a_resumed_training_is_the_one_without_a_break(tmp_path):
    answers = together(interrupted, 2, tmp_path, (TRAIN, VALIDATION))
    whole, names, (result, resumed) = answers[0]
    assert names == [f"state.rank-{rank}-of-2.epoch-2.safetensors" for rank in (0, 1)]
    assert len(result.history) == 4
    assert torch.equal(resumed.embedding.weight, whole.embedding.weight)
    for error in together(with_checkpoint, 3, tmp_path / "state"):
        assert str(error).startswith("'checkpoint' must come from a training on 3 ranks (got state.rank-")


def with_checkpoint(ranks, path):
    return train(ranks, (TRAIN, VALIDATION), checkpoint=path)


def full_disk(ranks, folder):
    write = checkpoints.write_atomic

    def fails(path, content):
        if "epoch-3" in path.name and ranks.rank == 1:
            raise OSError(28, f"'{path.name}' could not be written: No space left on device")
        return write(path, content)

    checkpoints.write_atomic = fails
    train(ranks, (TRAIN, VALIDATION), checkpoint=folder / "state")


def test_a_full_disk_of_one_rank_leaves_the_last_whole_checkpoint(tmp_path):
    first, second = together(full_disk, 2, tmp_path)
    assert isinstance(first, RankError)
    assert "rank 1 failed" in str(first)
    assert "No space left on device" in str(first)
    assert isinstance(second, OSError)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"state.rank-{rank}-of-2.epoch-2.safetensors" for rank in (0, 1)
    ]


def interrupted_while_agreeing(ranks, folder):
    write, together_said = checkpoints.write_atomic, ranks.objects

    def said(value):
        ranks.objects = together_said
        together_said(value)  # rank 1 goes on
        raise KeyboardInterrupt

    def then_interrupted(path, content):
        if "epoch-3" in path.name and ranks.rank == 0:
            ranks.objects = said
        return write(path, content)

    checkpoints.write_atomic = then_interrupted
    train(ranks, (TRAIN, VALIDATION), checkpoint=folder / "state")


def test_a_rank_that_is_interrupted_between_two_epochs_leaves_one_that_all_ranks_have(tmp_path):
    first, second = together(interrupted_while_agreeing, 2, tmp_path)
    assert isinstance(first, KeyboardInterrupt)
    assert isinstance(second, RankError)
    names = {file.name for file in tmp_path.iterdir()}
    assert {f"state.rank-{rank}-of-2.epoch-3.safetensors" for rank in (0, 1)} <= names


def test_losses_whose_draws_depend_on_all_users_are_refused():
    graph = take_part(TRAIN, Ranks())
    with pytest.raises(ValueError, match="'objective' must be a loss whose draws depend on one user alone"):
        fit(build_part("mf", graph, 4), graph, objective=gu.InBatchSoftmax(), epochs=1)


def unlike(ranks):
    graph = take_part(TRAIN, ranks)
    held_out = take_part(VALIDATION, ranks, like=graph)
    model = build_part("mf", graph, 4, seed=ranks.rank)
    fit(model, graph, validation=held_out, epochs=1)


def validated_on_one(ranks):
    graph = take_part(TRAIN, ranks)
    held_out = take_part(VALIDATION, ranks, like=graph)
    fit(build_part("mf", graph, 4), graph, validation=None if ranks.first else held_out, epochs=1)


@pytest.mark.parametrize(
    ("work", "what"), [(unlike, "hold the same rows of items"), (validated_on_one, "be given the same settings")]
)
def test_ranks_with_other_models_or_without_validation_data_stop(work, what):
    for error in together(work, 2):
        assert str(error) == f"all ranks must {what} (got others on rank 1 than on rank 0)"


FEW = gu.datasets.synthetic_interactions(num_users=8, num_items=6, interactions_per_user=3, seed=0)


def in_pairs(ranks, data, items):
    graph = take_part(data, ranks, items=items)
    model = build_part("lightgcn", graph, 4, 2, seed=3)
    fit(model, graph, epochs=1, batch_size=2, seed=2)
    return whole_model(model, graph)


@pytest.mark.parametrize(("data", "items"), [(TRAIN, "replicated"), (FEW, "sharded")], ids=["replicated", "sharded"])
def test_batches_of_which_a_rank_holds_nothing_are_those_of_one_process(data, items):
    model = LightGCN(data.num_nodes, 4, 2)
    reset_parameters(model, 3)
    gu.fit(model, data, epochs=1, batch_size=2, seed=2)
    whole = together(in_pairs, 2, data, items)[0]
    torch.testing.assert_close(whole.embedding.weight, model.embedding.weight, rtol=1e-3, atol=1e-4)
