"""BERT4Rec and NARM at RecBole's weights, and the masked clicks that BERT4Rec learns from."""

import pytest
import torch
from session_toys import random_sessions, session_graph, session_model

from graphunlearn.nn import NARM, BERT4Rec, Cloze, GRU4Rec, encode, fit
from graphunlearn.nn.training.cloze import ClozeSamples

CONFIG = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item", "LIST_SUFFIX": "_list", "NEG_PREFIX": "neg_"} | {
    "ITEM_LIST_LENGTH_FIELD": "length",
    "MAX_ITEM_LIST_LENGTH": 9,
    "device": "cpu",
    "loss_type": "CE",
}


class Data:
    def num(self, field):
        return 7


def padded(rows, width):
    return torch.tensor([[item + 1 for item in row] + [0] * (width - len(row)) for row in rows])


def test_narm_is_that_of_recbole():
    theirs_class = pytest.importorskip("recbole.model.sequential_recommender.narm").NARM
    config = CONFIG | {"embedding_size": 4, "hidden_size": 5, "n_layers": 2, "dropout_probs": [0.0, 0.0]}
    theirs, ours = theirs_class(config, Data()), NARM(6, 4, 2, hidden=5).eval()
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.item_embedding.weight[1:])
        ours.gru.load_state_dict(theirs.gru.state_dict())
        pairs = (ours.last, theirs.a_2), (ours.each, theirs.a_1), (ours.attention, theirs.v_t), (ours.dense, theirs.b)
        for own, other in pairs:
            own.load_state_dict(other.state_dict())
    rows = random_sessions(40, 6, max_length=9)
    expected = theirs(padded(rows, 9), torch.tensor([len(row) for row in rows]))
    torch.testing.assert_close(encode(ours, session_graph(rows, 6)).queries, expected, rtol=1e-5, atol=1e-6)


def test_bert4rec_is_that_of_recbole():
    theirs_class = pytest.importorskip("recbole.model.sequential_recommender.bert4rec").BERT4Rec
    config = CONFIG | {"n_layers": 2, "n_heads": 2, "hidden_size": 4, "inner_size": 16, "hidden_act": "gelu"}
    config |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "layer_norm_eps": 1e-12, "mask_ratio": 0.2}
    config |= {"MASK_ITEM_SEQ": "m", "POS_ITEMS": "p", "NEG_ITEMS": "n", "MASK_INDEX": "i", "initializer_range": 0.5}
    theirs = theirs_class(config, Data()).eval()
    ours = BERT4Rec(6, 4, max_length=9, bias=True).eval()
    with torch.no_grad():
        ours.embedding.weight.copy_(theirs.item_embedding.weight[1:7])
        ours.mask.weight.copy_(theirs.item_embedding.weight[7:])
        ours.bias.copy_(torch.randn(6))
        theirs.output_bias[1:] = ours.bias
        ours.position.load_state_dict(theirs.position_embedding.state_dict())
        ours.norm.load_state_dict(theirs.LayerNorm.state_dict())
        ours.dense.load_state_dict(theirs.output_ffn.state_dict())
        ours.out_norm.load_state_dict(theirs.output_ln.state_dict())
        for own, layer in zip(ours.blocks, theirs.trm_encoder.layer):
            attention, maps = layer.multi_head_attention, layer.feed_forward
            maps_of = attention.query, attention.key, attention.value
            own.into.weight.copy_(torch.cat([part.weight for part in maps_of]))
            own.into.bias.copy_(torch.cat([part.bias for part in maps_of]))
            own.out_of.load_state_dict(attention.dense.state_dict())
            own.after_attention.load_state_dict(attention.LayerNorm.state_dict())
            own.wide.load_state_dict(maps.dense_1.state_dict())
            own.narrow.load_state_dict(maps.dense_2.state_dict())
            own.after_maps.load_state_dict(maps.LayerNorm.state_dict())
    rows = random_sessions(40, 6, max_length=8)
    masked = [[*row, 6] for row in rows]  # item 6 + 1 is the mask of theirs
    states = theirs(padded(masked, 9))[torch.arange(len(rows)), torch.tensor([len(row) for row in rows])]
    expected = states @ theirs.item_embedding.weight[1:7].t() + theirs.output_bias[1:]
    encoded = encode(ours, session_graph(rows, 6))
    torch.testing.assert_close(encoded.queries @ encoded.items.t(), expected, rtol=1e-5, atol=1e-5)


def test_only_recent_clicks_are_read():
    model = session_model("bert4rec", 6, max_length=4)
    long, short = [0, 1, 2, 3, 4, 5], [3, 4, 5]
    states = encode(model, session_graph([long, short], 6)).queries
    torch.testing.assert_close(states[0], states[1])
    with pytest.raises(ValueError, match=r"'max_length' must be at least 2, for a click and the mask \(got 1\)"):
        BERT4Rec(6, 4, max_length=1)


# ---- masked clicks

ROWS = [[0, 1, 2, 3, 4], [5], [1, 2], [3, 3, 0, 1]] * 8


@pytest.mark.parametrize("last", [0.0, 0.5, 1.0])
def test_what_is_masked(last):
    graph = session_graph(ROWS, 6)
    found = Cloze(last=last).samples(graph, epoch=3)
    assert torch.equal(found.masked.nonzero().squeeze(1), found.clicks)
    assert torch.equal(found.target, graph.items[found.clicks])
    number = torch.bincount(found.session, minlength=graph.num_sessions)
    assert torch.equal(number > 0, graph.length > 1)
    cut = found.stop < graph.click_ptr[1:]
    if last == 0:
        assert not bool(cut.any())
    if last == 1:
        assert bool((number[graph.length > 1] == 1).all())
        assert torch.equal(found.stop[found.session], found.clicks + 1)
        assert bool((graph.position[found.clicks] > 0).all())
        assert bool(cut.any())
    again, other = Cloze(last=last).samples(graph, epoch=3), Cloze(last=last).samples(graph, epoch=4)
    assert torch.equal(again.masked, found.masked)
    assert not torch.equal(other.masked, found.masked)
    some = Cloze(last=last).samples(graph, mask=graph.items == 1, epoch=3)
    assert set(some.clicks.tolist()) == {c for c in found.clicks.tolist() if graph.items[c] == 1}


def test_losses_session_by_session():
    graph, model = session_graph(ROWS, 6), session_model("bert4rec", 6)
    samples = Cloze(share=0.4).samples(graph)
    expected = []
    for click, target, session in zip(samples.clicks, samples.target, samples.session):
        start, stop = int(graph.click_ptr[session]), int(samples.stop[session])
        items = [model.mask_item if samples.masked[c] else int(graph.items[c]) for c in range(start, stop)]
        state = model(torch.tensor(items), torch.tensor([len(items)]))[int(click) - start]
        expected.append(torch.nn.functional.cross_entropy(state @ model.embedding.weight.t(), target))
    torch.testing.assert_close(Cloze().losses(model, graph, samples), torch.stack(expected))
    order = torch.tensor([3, 0])
    torch.testing.assert_close(Cloze().losses(model, graph, samples.select(order)), torch.stack(expected)[order])


def test_a_session_that_is_too_long_is_read_in_a_window():
    graph, model = session_graph([[0, 1, 2, 3, 4, 5, 0, 1]], 6), session_model("bert4rec", 6, max_length=4)
    masked = torch.zeros(8, dtype=torch.bool)
    masked[[1, 6]] = True
    clicks = masked.nonzero().squeeze(1)
    samples = ClozeSamples(clicks, graph.items[clicks], torch.zeros(2, dtype=torch.long), masked, torch.tensor([8]))
    found = Cloze().losses(model, graph, samples)
    state = model(torch.tensor([3, 4, 5, 6]), torch.tensor([4]))[3]
    expected = torch.nn.functional.cross_entropy(state @ model.embedding.weight.t(), torch.tensor(0))
    torch.testing.assert_close(found, torch.stack([torch.zeros(()).double(), expected]))


def test_batches_keep_the_samples_of_a_session_together():
    samples = Cloze(share=0.5).samples(session_graph(ROWS, 6))
    parts = list(Cloze().batches(samples, 6, torch.Generator().manual_seed(0)))
    assert len(parts) > 3
    assert sorted(c for part in parts for c in part.clicks.tolist()) == samples.clicks.tolist()
    assert sum(len(part.session.unique()) for part in parts) == len(samples.session.unique())


def test_a_model_learns_from_masks():
    graph = session_graph([[0, 1, 2, 3]] * 6 + [[3, 2, 1, 0]] * 6, 4)
    model = BERT4Rec(4, 8, dropout=0.0)
    fit(model, graph, objective=Cloze(), epochs=60, lr=0.02, batch_size=16, progress=False)
    encoded = encode(model, session_graph([[0, 1], [3, 2]], 4))
    assert (encoded.queries @ encoded.items.t()).argmax(1).tolist() == [2, 1]


def test_what_does_not_fit():
    graph = session_graph(ROWS, 6)
    with pytest.raises(ValueError, match=r"'model' must be a BERT4Rec, which reads masked clicks \(got GRU4Rec\)"):
        Cloze().losses(GRU4Rec(6, 4), graph, Cloze().samples(graph))
    with pytest.raises(ValueError, match=r"'share' must be between 0 and 1 \(got 1.5\)"):
        Cloze(share=1.5)
