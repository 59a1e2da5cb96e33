"""The entries that a mask keeps, against boolean indexing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphunlearn.func import kept as module
from graphunlearn.func.kept import Kept


@pytest.mark.parametrize("few", [0, 2, 100])
@given(st.lists(st.booleans(), max_size=20))
def test_what_is_kept_is_what_boolean_indexing_gives(few, mask):
    mask = torch.tensor(mask, dtype=torch.bool)
    kept, size = Kept(mask), mask.numel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)
        for values in (torch.arange(size), torch.rand(size, 3), torch.arange(size, dtype=torch.int32)):
            assert kept.of(values).equal(values[mask])
            assert kept.of(values).dtype == values.dtype
        wide = torch.arange(2 * size).view(2, size)
        assert kept.of(wide, 1).equal(wide[:, mask])
        assert kept.of(wide, 1).is_contiguous()
        without = Kept.without((~mask).nonzero().view(-1), size)
        assert (without.size, without.count, without.few) == (kept.size, kept.count, kept.few)
        assert without.mask.equal(mask)
        assert without.of(wide, 1).equal(wide[:, mask])
    assert kept.count == int(mask.sum())
    assert kept.dropped.equal((~mask).nonzero().view(-1))


def test_what_is_kept_is_a_copy():
    values = torch.zeros(3)
    kept = Kept(torch.ones(3, dtype=torch.bool)).of(values)
    kept += 1
    assert values.tolist() == [0, 0, 0]
