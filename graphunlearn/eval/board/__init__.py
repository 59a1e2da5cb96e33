"""The leaderboard: unlearning methods scored against stored original and retrained models of fixed requests."""

from graphunlearn.eval.board.scoring import rows_of, score
from graphunlearn.eval.board.store import Store, load_store, make_store
from graphunlearn.eval.board.submission import kit_names, read_submission, write_kit
from graphunlearn.eval.board.track import TRACKS, Track, track_of

__all__ = [
    "TRACKS",
    "Store",
    "Track",
    "kit_names",
    "load_store",
    "make_store",
    "read_submission",
    "rows_of",
    "score",
    "track_of",
    "write_kit",
]
