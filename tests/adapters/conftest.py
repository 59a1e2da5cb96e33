"""RecBole keeps quiet, and has a project to work on."""

import logging
import warnings

import pytest
from recbole_project import RecBole, without_recbole

import graphunlearn as gu


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # RecBole writes logs wherever it is
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(before)


@pytest.fixture
def recbole(tmp_path):
    """A project of users and items; raw ids are not RecBole's numbers."""
    without_recbole()
    graph = gu.datasets.synthetic_interactions(
        num_users=60, num_items=80, interactions_per_user=12, activity_spread=0.3, seed=0
    )
    frame = graph.to_frame()[["user", "item"]]
    return RecBole(tmp_path, frame.rename(columns={"user": "user_id:token", "item": "item_id:token"}), {})
