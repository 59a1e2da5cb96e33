"""What all tests share."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Timing says nothing on a busy machine, and examples kept from earlier runs would make runs differ.
settings.register_profile("suite", deadline=None, max_examples=40, database=None, derandomize=True)
settings.load_profile("suite")


def pytest_configure():
    """No test writes the key of a ledger into anybody's own folder."""
    os.environ["GRAPHUNLEARN_KEYS"] = tempfile.mkdtemp(prefix="graphunlearn-keys-")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def anomalies():
    """Importing RecBole's models turns the detection of anomalies on for the whole process; no other test sees it."""
    before = torch.is_anomaly_enabled()
    yield
    torch.set_anomaly_enabled(before)


@pytest.fixture(scope="session")
def data_root():
    """Folder of real data sets, named by GRAPHUNLEARN_DATA."""
    folder = os.environ.get("GRAPHUNLEARN_DATA")
    if not folder:
        pytest.skip("GRAPHUNLEARN_DATA does not name a folder of real data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"GRAPHUNLEARN_DATA names no folder: {folder}")
    return Path(folder)
