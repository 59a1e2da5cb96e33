"""Unlearning for recommenders that were trained with RecBole 1.2.1; RecBole can use the resulting models.

Importing this package does not import RecBole. ``pip install graphunlearn[recbole]`` installs compatible versions.
"""

from graphunlearn.adapters.recbole.bridge import Bridge, Forgotten
from graphunlearn.adapters.recbole.checkpoint import load_checkpoint, trusting_pickles
from graphunlearn.adapters.recbole.importing import run_of_checkpoint

__all__ = ["Bridge", "Forgotten", "load_checkpoint", "run_of_checkpoint", "trusting_pickles"]
