"""Products of sparse matrices by blocks of columns, against dense algebra."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphunlearn as gu
from graphunlearn.distributed import adjacency as distributed_adjacency
from graphunlearn.distributed.adjacency import ShardAdjacency, ShardMatrix
from graphunlearn.distributed.ranks import Ranks
from graphunlearn.func import Adjacency, column_blocks, csr, keep_factors, multiply, spmm
from graphunlearn.func.column_blocks import ColumnBlocks, Factors


def random_matrix(rows: int, columns: int, entries: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return a CSR matrix with ascending columns, some of which may be repeated."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(rows, (entries,), generator=generator)
    col = torch.randint(columns, (entries,), generator=generator)
    order = (row * columns + col).argsort()
    pointer = torch.zeros(rows + 1, dtype=torch.int32)
    torch.cumsum(torch.bincount(row, minlength=rows), 0, out=pointer[1:])
    return csr(pointer, col[order].int(), torch.randn(entries, generator=generator, dtype=dtype), (rows, columns))


def dense(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix with repeated entries added up."""
    rows = torch.arange(matrix.size(0)).repeat_interleave(matrix.crow_indices().diff())
    found = torch.zeros(matrix.shape, dtype=matrix.dtype)
    return found.index_put_((rows, matrix.col_indices().long()), matrix.values(), accumulate=True)


def blocks_of(matrix: torch.Tensor) -> ColumnBlocks:
    """Return the blocks of a matrix that was divided."""
    found: ColumnBlocks | None = column_blocks._known[matrix].blocks
    assert found is not None
    return found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide matrices at once if they read more than 128 bytes."""
    monkeypatch.setattr(column_blocks, "BLOCK", 64)
    monkeypatch.setattr(column_blocks, "_WHOLE", 0)


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    entries=st.integers(0, 60),
    width=st.integers(1, 13),
    chunk=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_blocks_add_up_to_the_product(rows: int, columns: int, entries: int, width: int, chunk: int, seed: int) -> None:
    matrix = random_matrix(rows, columns, entries, seed)
    x = torch.randn(columns, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_blocks, "_CHUNK", chunk)
        blocks = ColumnBlocks.of(matrix, width)
    assert blocks is not None
    assert all(block.columns.stop - block.columns.start <= width for block in blocks.blocks)
    assert sum(block.matrix.values().numel() for block in blocks.blocks) == entries
    torch.testing.assert_close(blocks @ x, dense(matrix) @ x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(blocks @ x.t().contiguous().t(), dense(matrix) @ x, rtol=1e-12, atol=1e-12)


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    entries=st.integers(0, 60),
    width=st.integers(1, 13),
    seed=st.integers(0, 99),
)
def test_blocks_of_factors_share_their_values(rows: int, columns: int, entries: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = random_matrix(rows, columns, entries, seed)
    factors = [torch.randn(size, dtype=torch.float64, generator=generator) for size in (rows, columns)]
    row = torch.arange(rows).repeat_interleave(matrix.crow_indices().diff())
    matrix.values().copy_(factors[0][row] * factors[1][matrix.col_indices().long()])
    x = torch.randn(columns, 3, dtype=torch.float64, generator=generator)
    blocks = ColumnBlocks.of(matrix, width, Factors(*factors))
    assert blocks is not None
    assert len({block.matrix.values().data_ptr() for block in blocks.blocks}) <= 1
    torch.testing.assert_close(blocks @ x, dense(matrix) @ x, rtol=1e-12, atol=1e-12)


def test_factors_of_nodes_without_interactions_may_be_infinite(small_blocks: None) -> None:
    pairs = torch.stack([torch.arange(18).repeat_interleave(4), torch.arange(72) % 9])
    matrix = Adjacency.from_pairs(pairs, num_users=20, num_items=12).normalized(torch.float64)
    x = torch.randn(32, 2, dtype=torch.float64)
    torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)
    blocks = blocks_of(matrix)
    assert blocks.factors is not None
    assert len(blocks.blocks) > 2


@pytest.mark.parametrize("changed", [False, True])
def test_factors_of_what_is_left_of_a_graph(changed: bool, small_blocks: None) -> None:
    pairs = torch.stack([torch.arange(18).repeat_interleave(4), torch.arange(72) % 9])
    before = Adjacency.from_pairs(pairs, num_users=20, num_items=12)
    whole = before.normalized(torch.float64)
    if changed:
        whole.values().mul_(2)  # then its values are not taken over
    matrix = before.select(torch.arange(72) != 5, torch.tensor([1, 25])).normalized(torch.float64)
    left = Adjacency.from_pairs(pairs[:, torch.arange(72) != 5], 20, 12).normalized(torch.float64)
    x = torch.randn(32, 2, dtype=torch.float64)
    for _ in range(4):
        torch.testing.assert_close(multiply(matrix, x), dense(left) @ x)
    assert blocks_of(matrix).factors is not None


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("users", [(0, 25), (25, 50), (48, 50)])
def test_factors_of_the_part_of_a_rank(
    divided: bool, users: tuple[int, int], small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, (first, last) = torch.Generator().manual_seed(0), users
    pairs = torch.stack([torch.randint(size, (800,), generator=generator) for size in (48, 35)])
    pairs[1, pairs[0] < 25] %= 20  # some items have no interactions on the first rank, and two have none at all
    total = torch.bincount(pairs[1], minlength=37).int()
    monkeypatch.setattr(distributed_adjacency, "Exchange", lambda *_: SimpleNamespace(ranks=None))
    whole = dense(Adjacency.from_pairs(pairs, 50, 37).normalized(torch.float64))
    own = pairs[:, (pairs[0] >= first) & (pairs[0] < last)] - torch.tensor([[first], [0]])
    rows: Any = SimpleNamespace(divided=divided, ranks=SimpleNamespace(total=lambda _: total))
    shard = ShardAdjacency(Adjacency.from_pairs(own, last - first, 37), last - first, rows)
    found: Any = shard.normalized(torch.float64)
    items = 50 + (own[1].unique() if divided else torch.arange(37))
    for part, expected in ((found.users, whole[first:last][:, items]), (found.items, whole[items][:, first:last])):
        x = torch.randn(part.size(1), 16, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(multiply(part, x), expected @ x)
        factors = column_blocks.factors_of(part)
        assert factors is not None
        row = torch.arange(part.size(0)).repeat_interleave(part.crow_indices().diff())
        torch.testing.assert_close(factors.rows[row] * factors.columns[part.col_indices().long()], part.values())


def test_no_factors_are_kept_of_values_without_a_version() -> None:
    with torch.inference_mode():
        matrix = random_matrix(20, 40, 300, 0)
        ones = torch.ones(40, dtype=torch.float64)
        assert keep_factors(matrix, ones[:20], ones) is matrix
    assert column_blocks.factors_of(matrix) is None


def test_factors_of_values_that_changed_do_not_count(small_blocks: None) -> None:
    matrix, x = random_matrix(20, 40, 300, 0), torch.randn(40, 2, dtype=torch.float64)
    keep_factors(matrix, torch.ones(20, dtype=torch.float64), torch.ones(40, dtype=torch.float64))
    matrix.values().mul_(2)
    torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)
    assert blocks_of(matrix).factors is None


def test_columns_that_do_not_ascend_are_not_divided(small_blocks: None) -> None:
    matrix = csr(torch.tensor([0, 2, 4]), torch.tensor([30, 1, 0, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0]), (2, 40))
    assert ColumnBlocks.of(matrix, 8) is None
    x = torch.randn(40, 2)
    for _ in range(2):
        torch.testing.assert_close(multiply(matrix, x), torch.stack([x[30] + 2 * x[1], 3 * x[0] + 4 * x[2]]))


def test_a_matrix_is_divided_once_and_its_blocks_go_with_it(small_blocks: None) -> None:
    matrix, x = random_matrix(20, 40, 900, 0), torch.randn(40, 1, dtype=torch.float64)
    torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)
    blocks = blocks_of(matrix)
    assert len(blocks.blocks) > 2
    multiply(matrix, torch.cat([x, x], 1))
    assert blocks_of(matrix) is blocks
    wide = torch.randn(40, 4, dtype=torch.float64)
    torch.testing.assert_close(multiply(matrix, wide), dense(matrix) @ wide)
    assert blocks_of(matrix).width < blocks.width  # rows four times as large need narrower blocks
    assert len(blocks_of(matrix).blocks) > len(blocks.blocks)
    multiply(matrix, x)
    assert blocks_of(matrix) is not blocks  # narrow blocks serve short rows as well
    gone = weakref.ref(blocks_of(matrix))
    del matrix, blocks
    gc.collect()
    assert gone() is None


def test_a_matrix_is_divided_at_its_third_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_blocks, "BLOCK", 64)
    matrix, x = random_matrix(20, 40, 300, 0), torch.randn(40, 2, dtype=torch.float64)
    for number in range(4):
        assert (matrix in column_blocks._known and column_blocks._known[matrix].blocks is not None) == (number > 2)
        torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)


def test_changed_values_are_divided_anew(small_blocks: None) -> None:
    matrix, x = random_matrix(20, 40, 300, 0), torch.randn(40, 2, dtype=torch.float64)
    multiply(matrix, x)
    matrix.values().mul_(2)
    torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)


@pytest.mark.parametrize("divided", [False, True])
def test_what_cannot_be_divided_is_left_to_torch(divided: bool, small_blocks: None) -> None:
    matrix, x = random_matrix(20, 40, 300, 0), torch.randn(40, 2, dtype=torch.float64)
    if divided:
        multiply(matrix, x)
    for wrong in (
        torch.randn(44, 2, dtype=torch.float64),
        torch.randn(36, 2, dtype=torch.float64),
        x.float(),
        x[:, :, None],
    ):
        with pytest.raises(RuntimeError) as expected:
            matrix @ wrong
        with pytest.raises(RuntimeError) as found:
            multiply(matrix, wrong)
        assert str(found.value) == str(expected.value)
    for other in (dense(matrix), dense(matrix).to_sparse()):
        torch.testing.assert_close(multiply(other, x), dense(matrix) @ x)


def test_few_entries_and_small_rows_are_not_divided(small_blocks: None) -> None:
    few, many = random_matrix(40, 40, 40, 0), random_matrix(40, 40, 200, 0)
    for matrix, x in (
        (few, torch.randn(40, 2, dtype=torch.float64)),
        (many, torch.randn(40, 0, dtype=torch.float64)),
    ):
        torch.testing.assert_close(multiply(matrix, x), dense(matrix) @ x)
        assert matrix not in column_blocks._known


def test_gradients_and_directions_are_those_of_the_dense_matrix(small_blocks: None) -> None:
    graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=8, seed=0)
    matrix = graph.adjacency.normalized(torch.float64)
    x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: spmm(matrix, rows), x)
    assert len(blocks_of(matrix).blocks) > 2
    tangent = torch.randn(50, 3, dtype=torch.float64)
    found = torch.func.jvp(lambda rows: spmm(matrix, rows).square(), (x.detach(),), (tangent,))[1]
    torch.testing.assert_close(found, 2 * (matrix @ x.detach()) * (matrix @ tangent))
    many = torch.func.vmap(lambda rows: spmm(matrix, rows))(torch.stack([tangent, 2 * tangent]))
    torch.testing.assert_close(many, torch.stack([matrix @ tangent, 2 * (matrix @ tangent)]))


def test_blocks_made_in_inference_mode_serve_in_training(small_blocks: None) -> None:
    graph = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=8, seed=0)
    matrix = graph.adjacency.normalized(torch.float64)
    with torch.inference_mode():
        spmm(matrix, torch.randn(50, 3, dtype=torch.float64))
    x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    spmm(matrix, x).sum().backward()
    torch.testing.assert_close(x.grad, (matrix.to_dense().sum(0)[:, None]).expand(-1, 3))


def test_a_correction_with_blocks_is_that_without(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = gu.datasets.synthetic_interactions(num_users=40, num_items=30, interactions_per_user=10, seed=0)
    model = gu.nn.build_model("lightgcn", graph, 8, 2)
    gu.nn.reset_parameters(model, 0)
    gu.fit(model, graph, epochs=20, progress=False)
    request = gu.ForgetRequest("user", [graph.user_ids[3]])

    def corrected() -> torch.Tensor:
        found = gu.IFRU(on_rejection="keep").unlearn(
            model.double(), graph.select(torch.arange(len(graph.pairs[0]))), request
        )
        return next(found.model.parameters()).detach()

    plain = corrected()
    monkeypatch.setattr(column_blocks, "BLOCK", 256)
    divided, own = [], ColumnBlocks.of
    monkeypatch.setattr(ColumnBlocks, "of", lambda *given: divided.append(own(*given)) or divided[-1])
    torch.testing.assert_close(corrected(), plain, rtol=1e-8, atol=1e-10)
    assert any(len(blocks.blocks) > 2 for blocks in divided)


def test_parts_of_ranks_are_multiplied_by_blocks(small_blocks: None) -> None:
    users, items = random_matrix(20, 40, 200, 0), random_matrix(40, 20, 200, 1)
    x = torch.randn(60, 2, dtype=torch.float64)
    found = ShardMatrix(users, items, Ranks()) @ x
    torch.testing.assert_close(found, torch.cat([dense(users) @ x[20:], dense(items) @ x[:20]]))
    assert len(blocks_of(users).blocks) > 2
    assert len(blocks_of(items).blocks) > 2
