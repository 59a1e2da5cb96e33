"""Small sessions, and a session model whose every score can be written down."""

import torch
from torch import nn

import graphunlearn as gu
from graphunlearn.data import SessionGraph
from graphunlearn.nn import Encoded, encode


class Recency(nn.Module):
    """Scores every item by a table of the last item plus a table of all distinct items of the session."""

    def __init__(self, num_items, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.last, self.seen = (
            nn.Parameter(torch.randn(num_items, num_items, generator=generator, dtype=torch.double)) for _ in range(2)
        )

    def reset_parameters(self):
        for table in (self.last, self.seen):
            nn.init.normal_(table)

    def scores(self, items):
        """The scores of all next items after a list of items."""
        return self.last[items[-1]] + self.seen[sorted(set(items))].sum(0)


@encode.register
def _(model: Recency, graph: SessionGraph):
    users = model.last[graph.items[graph.click_ptr[1:] - 1]].index_add(0, graph.batch, model.seen[graph.x])
    return Encoded(users, torch.eye(graph.num_items, dtype=torch.double))


def walks(num_sessions=300, num_items=30, longest=9, seed=0, step=0.8):
    """Sessions that mostly go from an item to the next one."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(num_sessions):
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        item = int(torch.randint(num_items, (1,), generator=generator))
        session = [item]
        for _ in range(length - 1):
            jump = float(torch.rand(1, generator=generator)) > step
            item = int(torch.randint(num_items, (1,), generator=generator)) if jump else (item + 1) % num_items
            session.append(item)
        out.append(session)
    return gu.SessionGraph.from_sequences(out, num_items=num_items)


def as_lists(graph):
    """The items of every session."""
    return [part.tolist() for part in graph.items.split(graph.length.tolist())]
