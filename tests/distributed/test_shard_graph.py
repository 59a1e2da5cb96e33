"""The part of a graph: ranges of users, degrees and products of the whole graph, requests, and the way back."""

from itertools import pairwise

import pytest
import torch
from several import together

import graphunlearn as gu
from graphunlearn.distributed import RankError, Ranks, take_part
from graphunlearn.distributed.graph import cuts_of_users

WHOLE = gu.datasets.synthetic_interactions(num_users=23, num_items=17, interactions_per_user=6, seed=0)
DENSE = WHOLE.adjacency.normalized(torch.float64).to_dense()


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranges_hold_about_the_same_number_of_interactions(world):
    count = torch.randint(0, 9, (40,), generator=torch.Generator().manual_seed(world))
    bounds = cuts_of_users(count, world)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, 40, world + 1)
    held = [int(count[a:b].sum()) for a, b in pairwise(bounds)]
    assert max(abs(number - int(count.sum()) / world) for number in held) <= 9


def test_every_range_has_a_user():
    assert cuts_of_users(torch.tensor([100, 0, 0]), 3) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match=r"'world size' must be at most the number of users, 3 \(got 4\)"):
        cuts_of_users(torch.tensor([1, 1, 1]), 4)


def products(ranks):
    part = take_part(WHOLE, ranks)
    adjacency, first = part.adjacency, part.first_user
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(WHOLE.num_nodes, 3, generator=generator, dtype=torch.float64)
    own = torch.cat([torch.arange(first, first + part.num_users), torch.arange(WHOLE.num_users, WHOLE.num_nodes)])
    matrix = adjacency.normalized(torch.float64)
    return own, part.degree, matrix @ x[own], matrix.squared() @ x[own], matrix.row_squares(), x


def test_products_are_those_of_the_dense_matrix():
    for own, degree, product, squared, rows, x in together(products, 3):
        assert torch.equal(degree, WHOLE.degree[own])
        torch.testing.assert_close(product, (DENSE @ x)[own])
        torch.testing.assert_close(squared, (DENSE.square() @ x)[own])
        torch.testing.assert_close(rows, DENSE.square().sum(1)[own])


REQUESTS = {
    "users": gu.ForgetRequest("user", [WHOLE.user_ids[n] for n in (0, 9, 22)]),
    "an item": gu.ForgetRequest("item", [WHOLE.item_ids[4]]),
    "pairs": gu.ForgetRequest(
        "interaction", [(WHOLE.user_ids[u], WHOLE.item_ids[i]) for u, i in WHOLE.pairs[:, ::9].t()]
    ),
    "numbers": gu.ForgetRequest("user", (1, 20), raw=False),
    "numbers of pairs": gu.ForgetRequest(
        "interaction", [tuple(p) for p in WHOLE.pairs[:, ::11].t().tolist()], raw=False
    ),
}


def forgetting(ranks):
    part = take_part(WHOLE, ranks)
    answers = []
    for request in REQUESTS.values():
        mask = part.mask_of(request)
        whole = part.keep(~mask).whole()
        answers.append((part.position[mask], None if whole is None else (whole.fingerprint(), whole.pairs)))
    return answers


def test_requests_match_what_they_match_in_the_whole_graph():
    answers = together(forgetting, 2)
    for number, request in enumerate(REQUESTS.values()):
        mask = request.mask(WHOLE)
        found = torch.cat([rank[number][0] for rank in answers]).sort().values
        assert torch.equal(found, mask.nonzero().view(-1))
        retained = WHOLE.keep(~mask)
        fingerprint, pairs = answers[0][number][1]
        assert fingerprint == retained.fingerprint()
        assert torch.equal(pairs, retained.pairs)  # in the same order


def unknown(ranks):
    take_part(WHOLE, ranks).mask_of(gu.ForgetRequest("user", [WHOLE.user_ids[0], "nobody"]))


def test_an_id_that_no_rank_holds_is_refused_on_all():
    for error in together(unknown, 2):
        assert str(error) == "'request' must hold users of the graph (got 'nobody')"


def other_data(ranks):
    take_part(WHOLE.select(torch.arange(1, WHOLE.num_interactions)) if ranks.rank else WHOLE, ranks)


def test_ranks_with_other_data_stop_before_work():
    for error in together(other_data, 2):
        assert isinstance(error, RankError)
        assert str(error) == "all ranks must be given the same data (got others on rank 1 than on rank 0)"


def test_one_rank_holds_all():
    part = take_part(WHOLE, Ranks())
    assert part.whole().fingerprint() == WHOLE.fingerprint()
    assert torch.equal(part.degree, WHOLE.degree)
    assert torch.equal(gu.BPR().samples(part).negatives, gu.BPR().samples(WHOLE).negatives)
