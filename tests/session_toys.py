"""Small sessions and naive models that the tests of session recommenders share."""

from itertools import pairwise

import torch
from hypothesis import strategies as st

from graphunlearn.data import SessionGraph
from graphunlearn.nn import SRGNN, GRU4Rec, SASRec


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


CLASSES = {"srgnn": SRGNN, "gru4rec": GRU4Rec, "sasrec": SASRec}


def session_model(name, num_items, dim=4, seed=0, **options):
    """A float64 model, ready to be compared, whose parameters are large enough for every nonlinearity to matter."""
    torch.manual_seed(seed)
    model = CLASSES[name](num_items, dim, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
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


NAIVE = {"srgnn": naive_srgnn, "gru4rec": naive_gru4rec, "sasrec": naive_sasrec}
