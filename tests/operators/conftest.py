"""Requests of every level, for the tests of influence."""

import pytest
from toys import REQUESTS


@pytest.fixture(params=list(REQUESTS))
def make_request(request):
    return REQUESTS[request.param]
