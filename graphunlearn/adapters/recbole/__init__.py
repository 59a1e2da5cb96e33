"""RecBole (1.2.1): a recommender that it trained forgets, and RecBole goes on with it.

Importing this does not import RecBole; ``pip install graphunlearn[recbole]`` says which versions go together.
"""

from graphunlearn.adapters.recbole.bridge import Bridge, Forgotten
from graphunlearn.adapters.recbole.checkpoint import load_checkpoint, trusting_pickles

__all__ = ["Bridge", "Forgotten", "load_checkpoint", "trusting_pickles"]
