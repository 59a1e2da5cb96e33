"""Sums, agreement, and errors of one rank on all others."""

import os
import time

import pytest
import torch
from several import together

from graphunlearn.distributed import RankError, Ranks
from graphunlearn.distributed.ranks import _line


def sums(ranks):
    x = torch.arange(3.0) + ranks.rank
    rows = torch.full((ranks.rank + 1, 2), ranks.rank)
    found = ranks.total(x), ranks.number(ranks.rank + 0.5), ranks.objects(ranks.rank), ranks.gather(rows)
    return (*found, x, ranks.bytes, ranks.sums)


def test_sums_over_four_ranks():
    answers = together(sums, 4)
    for rank, (total, number, objects, rows, x, sent, count) in enumerate(answers):
        assert total.tolist() == [6.0, 10.0, 14.0]
        assert number == 8.0
        assert objects == [0, 1, 2, 3]
        assert (rows is None) == (rank > 0)
        assert x.tolist() == [rank, rank + 1, rank + 2]  # the argument is not changed
        assert (sent, count) == (3 * 4 + 8, 2)
    assert answers[0][3][:, 0].tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def test_one_process_needs_no_group():
    ranks = Ranks.join(0, 1)
    assert ranks.total(torch.ones(2)).tolist() == [1.0, 1.0]
    assert (ranks.number(2.5), ranks.objects("a"), ranks.bytes) == (2.5, ["a"], 0)
    with pytest.raises(KeyError), ranks.guard():
        raise KeyError


def fails(ranks, error):
    start = time.monotonic()
    try:
        with ranks.guard():
            if ranks.rank == 1:
                if error is None:
                    os._exit(1)
                raise error
            ranks.total(torch.ones(1000))
    except RankError as found:
        return str(found), time.monotonic() - start


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), "rank 1 failed: [Errno 28] No space left on device"),
        (MemoryError(), "rank 1 failed: out of memory"),
        (ValueError("'k' must be at least 1 (got 0)"), "rank 1 failed: 'k' must be at least 1 (got 0)"),
        (None, "a rank died, or did not answer within 60 seconds"),
    ],
)
def test_an_error_or_a_death_of_one_rank_is_an_error_on_all(error, sentence):
    first, second, third = together(fails, 3, error)
    assert first[0] == third[0] == sentence
    assert max(first[1], third[1]) < 30  # not the limit of a rank that does not answer
    assert second is None if error is None else _line(second) == _line(error)


def stays_away(ranks):
    if ranks.rank == 1:
        time.sleep(4)
        return
    with ranks.guard():
        ranks.total(torch.ones(3))


def test_a_rank_that_does_not_answer_is_an_error_in_time():
    found = together(stays_away, 2, timeout=1.0)[0]
    assert str(found) == "a rank died, or did not answer within 1 seconds"


def differ(ranks):
    with ranks.guard():
        ranks.same(data="d", request=["user", str(ranks.rank)], method="ifru")


def test_ranks_with_other_requests_stop_before_work():
    for error in together(differ, 2):
        assert isinstance(error, RankError)
        assert str(error) == "all ranks must be given the same request (got others on rank 1 than on rank 0)"


def other_version(ranks):
    ranks.same(versions=["0.1.0" if ranks.rank else "0.2.0"])


def test_ranks_of_other_versions_stop_before_work():
    for error in together(other_version, 2):
        assert str(error) == "all ranks must be given the same versions (got others on rank 1 than on rank 0)"


def disagrees(ranks):
    ranks.agree(OSError(28, "No space left on device") if ranks.rank else None)


def test_nothing_is_agreed_on_where_a_rank_has_an_error():
    first, second = together(disagrees, 2)
    assert str(first) == "rank 1 failed: [Errno 28] No space left on device"
    assert isinstance(second, OSError)
