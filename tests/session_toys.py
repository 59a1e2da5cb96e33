"""Small sessions and naive models that the tests of session recommenders share."""

from itertools import pairwise

import torch
from hypothesis import strategies as st

from graphunlearn.data import SessionGraph
from graphunlearn.nn import GCEGNN, NARM, SRGNN, BERT4Rec, GRU4Rec, SASRec, connect


def sequences(num_items=6, max_sessions=7, max_length=9):
    """Lists of sessions with repeats, returns and single clicks."""
    session = st.lists(st.integers(0, num_items - 1), min_size=1, max_size=max_length)
    return st.lists(session, min_size=1, max_size=max_sessions)


def random_sessions(num_sessions=40, num_items=12, max_length=8, seed=0):
    """Sessions of all lengths, drawn so that an item says something about the next."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(num_sessions):
        length = int(torch.randint(1, max_length + 1, (1,), generator=generator))
        start, step = torch.randint(0, num_items, (2,), generator=generator).tolist()
        out.append([(start + (1 + step % 3) * t) % num_items for t in range(length)])
    return out


def session_graph(rows, num_items=None):
    return SessionGraph.from_sequences(rows, num_items=num_items)


CLASSES = {
    "srgnn": SRGNN,
    "gru4rec": GRU4Rec,
    "sasrec": SASRec,
    "narm": NARM,
    "bert4rec": BERT4Rec,
    "gcegnn": GCEGNN,
}


def session_model(name, num_items, dim=4, seed=0, **options):
    """A float64 model, ready to be compared, whose parameters are large enough for every nonlinearity to matter."""
    torch.manual_seed(seed)
    model = CLASSES[name](num_items, dim, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    connect(model, SessionGraph.from_sequences([[i, i + 1, 0] for i in range(num_items - 1)], num_items=num_items))
    return model


def naive_srgnn(model, session):
    """SR-GNN on one session with a dense adjacency, after the formulas of the paper; torch's own GRU cell."""
    dim, nodes = model.dim, sorted(set(session))
    at = [nodes.index(item) for item in session]
    matrix = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    for a, b in pairwise(at):
        matrix[a, b] = 1
    into, out_of = (m / m.sum(1, keepdim=True).clamp(min=1) for m in (matrix.t(), matrix))
    cell = torch.nn.GRUCell(2 * dim, dim).double()
    weight, bias = model.conv.into.weight, model.conv.into.bias
    # the paper's gate lets the new state in where torch's keeps the old one: both maps of that gate change sign
    flip = torch.cat([torch.ones(dim), -torch.ones(dim), torch.ones(dim)]).double()
    cell.weight_ih.data, cell.bias_ih.data = flip[:, None] * model.conv.gates.weight, flip * model.conv.gates.bias
    cell.weight_hh.data, cell.bias_hh.data = flip[:, None] * weight[2 * dim :], flip * bias[2 * dim :]
    h = model.embedding.weight[nodes]
    for _ in range(model.num_layers):
        sent = torch.cat(
            [
                into @ (h @ weight[:dim].t() + bias[:dim]),
                out_of @ (h @ weight[dim : 2 * dim].t() + bias[dim : 2 * dim]),
            ],
            1,
        )
        h = cell(sent, h)
    last, total = h[at[-1]], 0
    for t in at:
        gate = torch.sigmoid(model.last.weight @ last + model.last.bias + model.each.weight @ h[t])
        total = total + (model.attention.weight @ gate) * h[t]
    return model.dense.weight @ torch.cat([total, last]) + model.dense.bias


def naive_gru4rec(model, session):
    """torch's GRU on one session at a time."""
    gru = torch.nn.GRU(model.dim, model.gru.hidden_size, model.gru.num_layers).double()
    gru.load_state_dict(model.gru.state_dict())
    out, _ = gru(model.embedding.weight[session].unsqueeze(1))
    return model.dense(out[-1, 0])


def naive_sasrec(model, session):
    """torch's transformer encoder on one session at a time."""
    x = torch.stack([model.embedding.weight[item] for item in session])
    x = x + torch.stack([model.position.weight[min(t, model.max_length - 1)] for t in range(len(session))])
    mask = torch.nn.Transformer.generate_square_subsequent_mask(len(session), dtype=torch.float64)
    for block in model.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            model.dim, model.heads, 4 * model.dim, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
        ).double()
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": block.into.weight,
                "self_attn.in_proj_bias": block.into.bias,
                "self_attn.out_proj.weight": block.out_of.weight,
                "self_attn.out_proj.bias": block.out_of.bias,
                "linear1.weight": block.wide.weight,
                "linear1.bias": block.wide.bias,
                "linear2.weight": block.narrow.weight,
                "linear2.bias": block.narrow.bias,
                "norm1.weight": block.before_attention.weight,
                "norm1.bias": block.before_attention.bias,
                "norm2.weight": block.before_maps.weight,
                "norm2.bias": block.before_maps.bias,
            }
        )
        x = layer(x.unsqueeze(0), src_mask=mask).squeeze(0)
    return model.norm(x)[-1]


def naive_narm(model, session):
    """NARM on one session, after the formulas of the paper; torch's GRU."""
    gru = torch.nn.GRU(model.dim, model.gru.hidden_size, model.gru.num_layers, bias=False).double()
    gru.load_state_dict(model.gru.state_dict())
    h = gru(model.embedding.weight[session].unsqueeze(1))[0].squeeze(1)
    local = 0
    for j in range(len(session)):
        gate = torch.sigmoid(model.last.weight @ h[-1] + model.each.weight @ h[j])
        local = local + (model.attention.weight @ gate) * h[j]
    return model.dense.weight @ torch.cat([local, h[-1]])


def naive_bert4rec(model, session):
    """torch's transformer encoder on one session and a mask behind it."""
    session = session[-(model.max_length - 1) :]
    x = torch.cat([model.embedding.weight[session], model.mask.weight])
    x = model.norm(x + model.position.weight[: len(session) + 1])
    for block in model.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            model.dim, model.heads, 4 * model.dim, dropout=0.0, activation="gelu", layer_norm_eps=1e-12
        ).double()
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": block.into.weight,
                "self_attn.in_proj_bias": block.into.bias,
                "self_attn.out_proj.weight": block.out_of.weight,
                "self_attn.out_proj.bias": block.out_of.bias,
                "linear1.weight": block.wide.weight,
                "linear1.bias": block.wide.bias,
                "linear2.weight": block.narrow.weight,
                "linear2.bias": block.narrow.bias,
                "norm1.weight": block.after_attention.weight,
                "norm1.bias": block.after_attention.bias,
                "norm2.weight": block.after_maps.weight,
                "norm2.bias": block.after_maps.bias,
            }
        )
        x = layer(x.unsqueeze(1)).squeeze(1)
    return model.out_norm(torch.nn.functional.gelu(model.dense(x[-1])))


def naive_gcegnn(model, session):
    """GCE-GNN on one session with dense adjacencies, after the formulas of the paper."""
    leaky = torch.nn.functional.leaky_relu
    nodes = sorted(set(session))
    follows = set(pairwise(session))
    e = model.embedding.weight
    local, mean = [], e[session].mean(0)
    for i in nodes:
        scores, near = [], []
        for j in nodes:
            there, back = (i, j) in follows, (j, i) in follows
            if i == j or there or back:
                kind = 0 if i == j else 3 if there and back else 2 if there else 1
                scores.append(leaky(model.kinds.weight[kind] @ (e[i] * e[j]), 0.2))
                near.append(e[j])
        local.append(torch.softmax(torch.stack(scores), 0) @ torch.stack(near))
    around = {i: e[i] for i in nodes}
    for layer in model.gather:
        for i in nodes:
            pairs = [(j, w) for j, w in zip(model.neighbours[i].tolist(), model.strength[i]) if w > 0]
            total = torch.zeros_like(mean)
            if pairs:
                asked = [layer.into.weight @ torch.cat([mean * e[j], w.view(1)]) for j, w in pairs]
                scores = torch.cat([layer.attention.weight @ leaky(a, 0.2) for a in asked])
                total = torch.softmax(scores, 0) @ torch.stack([e[j] for j, _ in pairs])
            around[i] = torch.relu(layer.dense.weight @ torch.cat([around[i], total]))
    h = torch.stack([local[nodes.index(i)] + around[i] for i in session])
    state = 0
    for t in range(len(session)):
        place = min(len(session) - 1 - t, model.max_length - 1)
        z = torch.tanh(model.place(torch.cat([h[t], model.position.weight[place]])))
        gate = torch.sigmoid(model.each(z) + model.mean.weight @ h.mean(0))
        state = state + (model.attention.weight @ gate) * h[t]
    return state


NAIVE = {
    "srgnn": naive_srgnn,
    "gru4rec": naive_gru4rec,
    "sasrec": naive_sasrec,
    "narm": naive_narm,
    "bert4rec": naive_bert4rec,
    "gcegnn": naive_gcegnn,
}
