"""No test writes into anybody's own folders."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The folder of trained models, fresh for every test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GRAPHUNLEARN_CACHE", str(folder))
    return folder
