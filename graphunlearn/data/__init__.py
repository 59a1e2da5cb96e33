"""Graphs of interactions and of sessions, forget requests, and the files that they are read from."""

from graphunlearn.data.events import EventGraph
from graphunlearn.data.interaction import EDGE_TYPE, InteractionGraph
from graphunlearn.data.io.files import read_frame, write_atomic
from graphunlearn.data.request import ForgetRequest
from graphunlearn.data.session import SessionGraph
from graphunlearn.data.vocabulary import Vocabulary

__all__ = [
    "EDGE_TYPE",
    "EventGraph",
    "ForgetRequest",
    "InteractionGraph",
    "SessionGraph",
    "Vocabulary",
    "read_frame",
    "write_atomic",
]
