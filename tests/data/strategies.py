"""Random graphs of interactions and of sessions."""

import torch
from hypothesis import strategies as st

from graphunlearn.data import InteractionGraph, SessionGraph


@st.composite
def graphs(draw, min_interactions=0, values=True):
    num_users, num_items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    every = [(u, i) for u in range(num_users) for i in range(num_items)]
    low = min(min_interactions, len(every))
    chosen = draw(st.lists(st.sampled_from(every), unique=True, min_size=low, max_size=len(every)))
    count = len(chosen)
    names = st.text("ab1é ", min_size=1, max_size=4).map(str.strip).filter(bool)
    ids = {
        f"{side}_ids": draw(st.none() | st.lists(names, unique=True, min_size=size, max_size=size))
        for side, size in (("user", num_users), ("item", num_items))
    }
    attributes = {}
    if values and count:
        for name in draw(st.sets(st.sampled_from(["rating", "time", "label"]))):
            low, high = (0, 1) if name == "label" else (-5, 5)
            numbers = st.lists(st.integers(low, high), min_size=count, max_size=count)
            attributes[name] = torch.tensor(draw(numbers), dtype=torch.int64 if name == "time" else torch.float64)
    pairs = torch.tensor(chosen, dtype=torch.long).view(-1, 2).t()
    return InteractionGraph.from_edges(pairs, num_users, num_items, **ids, **attributes)


@st.composite
def session_graphs(draw, min_sessions=0, extras=True):
    """Sessions of a few items, so that repeats, self loops and equal sessions are common."""
    num_items = draw(st.integers(1, 5))
    session = st.lists(st.integers(0, num_items - 1), min_size=1, max_size=6)
    sequences = draw(st.lists(session, min_size=min_sessions, max_size=6))
    values = {}
    if extras:
        names = st.text("ab1é ", min_size=1, max_size=4).map(str.strip).filter(bool)
        for side, size in (("item", num_items), ("session", len(sequences))):
            values[f"{side}_ids"] = draw(st.none() | st.lists(names, unique=True, min_size=size, max_size=size))
        clicks = sum(map(len, sequences))
        if draw(st.booleans()):
            times = draw(st.lists(st.integers(-5, 5), min_size=clicks, max_size=clicks))
            values["time"] = torch.tensor(times, dtype=draw(st.sampled_from([torch.int64, torch.float64])))
        if draw(st.booleans()):
            users = st.lists(st.integers(-1, 2), min_size=len(sequences), max_size=len(sequences))
            values["user"], values["user_ids"] = torch.tensor(draw(users), dtype=torch.long), ["ann", "bob", "eve"]
    return SessionGraph.from_sequences(sequences, num_items=num_items, **values)
