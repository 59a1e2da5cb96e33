"""A journal puts tables back to what they held."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.operators.shared.journal import Journal


@given(st.lists(st.lists(st.integers(0, 5), unique=True), max_size=5), st.integers(0, 9))
def test_all_changes_are_undone(changes, seed):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(6, 2, generator=generator), torch.nn.Parameter(torch.randn(6, 2, generator=generator))]
    wanted, journal = [table.detach().clone() for table in tables], Journal()
    for number, rows in enumerate(changes):
        table, chosen = tables[number % 2], torch.tensor(rows, dtype=torch.long)
        journal.keep(table, chosen)
        with torch.no_grad():
            table[chosen] = torch.randn(len(rows), 2, generator=generator)
    journal.undo()
    assert all(torch.equal(table, before) for table, before in zip(tables, wanted))
    with torch.no_grad():
        tables[0][0] = 7.0
    journal.undo()  # there is nothing left to undo
    assert tables[0][0].tolist() == [7.0, 7.0]
