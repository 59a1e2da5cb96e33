"""The largest entries of rows, against ``topk``."""

import pytest
import torch

from graphunlearn.func.largest import GROUP, largest


@pytest.mark.parametrize(("columns", "k"), [(GROUP * 40, 7), (GROUP * 40, 19), (GROUP * 40, 20), (100, 5), (GROUP, 1)])
def test_the_entries_are_those_of_topk(columns, k):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, columns, generator=generator)
    values[1, columns // 2 :] = -torch.inf
    values[2, 3:] = -torch.inf
    found, wanted = largest(values, k), values.topk(k)
    assert found[0].equal(wanted.values)
    finite = wanted.values > -torch.inf
    assert found[1][finite].equal(wanted.indices[finite])
    assert values.gather(1, found[1]).equal(found[0])
    assert largest(values[:0], k)[1].shape == (0, k)


def test_equal_entries_are_each_returned_once():
    values = torch.zeros(2, GROUP * 10)
    values[:, 5] = 1
    best, columns = largest(values, 4)
    assert best.tolist() == [[1, 0, 0, 0]] * 2
    assert all(len(set(row)) == 4 and row[0] == 5 for row in columns.tolist())
