"""The contract of graphs of interactions and of sessions."""

from __future__ import annotations

import copy
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from graphunlearn.data import ForgetRequest
from graphunlearn.testing.comparing import Graph, content, difference, refuses, require

__all__ = ["check_graph"]

UNKNOWN = "an id that no graph has"


def check_graph(graph: Graph, request: ForgetRequest) -> None:
    """Check that a graph meets the contract of graphs of events; call it in your own tests.

    An event is an interaction or a click. The suite does not change the graph. It checks that

    - the sizes, the queries, the active users, items or sessions, and the ends of the events are consistent;
    - the parts of ``split`` contain all events in their order and keep all users, items or sessions, ``keep`` gives the
      same parts for the mask of the request, and ``without`` the same as ``split``;
    - ``match``, ``holds`` and ``ends`` agree for raw ids and for numbers, and ``match`` raises a ``ValueError`` for an
      unknown id;
    - ``emptied`` marks the users, items or sessions that lost all events, and ``without_emptied`` drops their events;
    - a saved file, copies, clones and moves to a device give equal graphs.

    Args:
        graph: The graph.
        request: A request for some but not all events of the graph.

    Raises:
        AssertionError: The graph does not meet the contract; the message names the violation.
        ValueError: The request does not fit the graph.

    Example:
        >>> import graphunlearn as gu
        >>> graph = gu.SessionGraph.from_sequences([[0, 1, 2], [2, 0], [1]])
        >>> gu.testing.check_graph(graph, gu.ForgetRequest("session", ["1"]) | gu.ForgetRequest("item", ["1"]))
    """
    name, held, named = type(graph).__name__, content(graph), graph.fingerprint()
    mask = request.mask(graph)
    retained, forgotten = graph.split(request)
    _check_itself(name, graph)
    _check_parts(name, graph, request, mask, retained, forgotten)
    _check_levels(name, graph)
    _check_emptied(name, graph, retained)
    _check_copies(name, graph)
    changed = difference(held, graph)
    require(changed is None, f"{name} must stay as it was when it is used (got '{changed}' changed)")
    require(graph.fingerprint() == named, f"{name} must keep its fingerprint when it is used (got another)")


def _same(a: Graph, b: Graph, sentence: str) -> None:
    other = difference(a, b)
    require(other is None, f"{sentence} (got another '{other}')")
    require(a.fingerprint() == b.fingerprint(), f"{sentence} (got another fingerprint)")


def _sides(graph: Graph) -> dict[str, Tensor]:
    """Return the users, items or sessions of all events by level ``[num_events]``."""
    sides = {}
    for level in graph.levels:
        if level == graph.unit:
            continue
        try:
            sides[level] = graph.ends(level)
        except ValueError:  # sessions may carry no users
            require(level == "user" and graph.kind == "sessions", f"'ends' must accept '{level}' (got an error)")
    return sides


def _names(graph: Graph, level: str) -> list[str | None]:
    """Return the raw id of the user, item or session of every event; ``None`` if it is unknown."""
    vocabulary = graph.vocabulary(level)
    return [vocabulary[node] if node >= 0 else None for node in graph.ends(level).tolist()]


def _rows(graph: Graph) -> Tensor:
    """Return which users, items and sessions have an event, computed from the ends of the events."""
    rows = torch.zeros(graph.num_rows, dtype=torch.bool, device=graph.device)
    rows[graph.ends("item") + graph.num_rows - graph.num_items] = True
    if graph.kind == "interactions":
        rows[graph.ends("user")] = True
    return rows


def _check_itself(name: str, graph: Graph) -> None:
    sizes = graph.sizes
    wanted = {f"{graph.unit}s": graph.num_interactions, "items": graph.num_items, f"{graph.query}s": graph.num_queries}
    for key, count in wanted.items():
        require(sizes.get(key) == count, f"{name}.sizes must have {count} {key} (got {sizes.get(key)})")
    require(len(graph.item_ids) == graph.num_items, f"{name} must have an id per item (got {len(graph.item_ids)})")
    for level, ends in _sides(graph).items():
        shape = [graph.num_interactions]
        require(list(ends.shape) == shape, f"{name}.ends('{level}') must have shape {shape} (got {list(ends.shape)})")
        top = int(ends.max()) if ends.numel() else -1
        count = len(graph.vocabulary(level))
        require(top < count, f"{name}.ends('{level}') must hold numbers below {count} (got {top})")
    require(torch.equal(graph.active, _rows(graph)), f"{name}.active must have the rows with an event (got others)")
    positions, items = graph.seen(torch.arange(graph.num_queries, device=graph.device))
    fits = positions.shape == items.shape and not bool(((items < 0) | (items >= graph.num_items)).any())
    require(fits, f"{name}.seen must return positions and items, one of each at a time (got others)")


def _check_parts(
    name: str, graph: Graph, request: ForgetRequest, mask: Tensor, retained: Graph, forgotten: Graph
) -> None:
    count = retained.num_interactions, forgotten.num_interactions
    whole = graph.num_interactions
    require(sum(count) == whole, f"the parts of {name}.split must add up to {whole} (got {count[0]} + {count[1]})")
    require(count[1] == int(mask.sum()), f"{name}.split must take {int(mask.sum())} events away (got {count[1]})")
    for part, taken in ((retained, ~mask), (forgotten, mask)):
        require(type(part) is type(graph), f"{name}.split must return a {name} (got {type(part).__name__})")
        _same(graph.keep(taken), part, f"{name}.split must return what 'keep' does")
        rows = part.num_rows, part.num_items, part.item_ids
        same = rows == (graph.num_rows, graph.num_items, graph.item_ids)
        require(same, f"the parts of {name}.split must keep its items and rows (got {rows[0]} rows, {rows[1]} items)")
        require(torch.equal(part.active, _rows(part)), f"a part of {name} must mark its active rows (got others)")
        for level in _sides(graph):
            kept = [raw for raw, here in zip(_names(graph, level), taken.tolist()) if here]
            require(_names(part, level) == kept, f"{name}.keep must keep the {level} of every event (got others)")
    _same(graph.keep(torch.ones_like(mask)), graph, f"{name}.keep of all events must return the same graph")
    for named in request.parts:
        found = torch.zeros_like(mask)
        found[graph.match(named.level, named.index, named.raw)] = True
        require(
            not bool((found & ~mask).any()),
            f"the mask of a request must contain all events that {name}.match finds (got fewer)",
        )
        require(bool(graph.holds(named).all()), f"{name}.holds must be true for all entries of the request (got false)")
        _same(graph.keep(~found), graph.without(named), f"{name}.without must drop what 'match' finds")
        raw = named.raw or graph.kind == "interactions"  # sessions are renumbered
        if named.level != "click" and raw:
            gone = _matches(retained, named.level, named.index, named.raw)
            require(gone == [], f"what is left of {name} must contain nothing of the request (got {gone})")


def _matches(graph: Graph, level: str, index: tuple[object, ...], raw: bool) -> list[int]:
    """Return the sorted positions of the matching events; none if the graph does not contain an id."""
    try:
        found = graph.match(level, index, raw)
    except ValueError:
        return []
    return sorted(found.tolist())


def _check_levels(name: str, graph: Graph) -> None:
    for level, ends in _sides(graph).items():
        vocabulary = graph.vocabulary(level)
        for node in sorted({int(ends[0]), int(ends[-1])} - {-1}):
            expected = (ends == node).nonzero().flatten().tolist()
            for raw, entry in ((False, node), (True, vocabulary[node])):
                found = _matches(graph, level, (entry,), raw)
                sentence = f"{name}.match must find the events of {level} {entry!r}"
                require(found == expected, f"{sentence}, {len(expected)} (got {len(found)})")
                known = bool(graph.holds(ForgetRequest(level, (entry,), raw)).all())  # type: ignore[arg-type]
                require(known, f"{name}.holds must be true for {level} {entry!r} (got false)")
        stranger = ForgetRequest(level, (UNKNOWN,))  # type: ignore[arg-type]
        require(not bool(graph.holds(stranger).any()), f"{name}.holds must be false for an unknown {level} (got true)")
        sentence = f"{name}.match must refuse an unknown {level} with a ValueError"
        refuses(partial(graph.match, level, stranger.index, True), sentence)
    sentence = f"{name}.match must refuse an unknown level with a ValueError"
    refuses(lambda: graph.match("a level that no graph has", (0,), False), sentence)


def _check_emptied(name: str, graph: Graph, retained: Graph) -> None:
    emptied = graph.emptied(retained)
    same = torch.equal(emptied, _rows(graph) & ~_rows(retained))
    require(same, f"{name}.emptied must have the rows that lost all events (got others)")
    left = graph.without_emptied(graph, retained)
    require(type(left) is type(graph), f"{name}.without_emptied must return a {name} (got {type(left).__name__})")
    stale = _rows(left) & emptied
    require(not bool(stale.any()), f"{name}.without_emptied must leave no event of emptied rows (got some)")
    untouched = graph.without_emptied(graph, graph)
    _same(untouched, graph, f"{name}.without_emptied must drop nothing where nothing is emptied")
    _same(retained.without_emptied(graph, retained), retained, f"{name}.without_emptied must drop no retained event")


def _check_copies(name: str, graph: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = type(graph).load(graph.save(Path(folder, "graph.safetensors")))
    made = {
        "a file": loaded.to(graph.device),
        "a copy": copy.copy(graph),
        "a deep copy": copy.deepcopy(graph),
        "a clone": graph.clone(),
        "a move": copy.copy(graph).to(graph.device),
    }
    for how, other in made.items():
        _same(graph, other, f"{how} of {name} must hold the same")
    places = {value.data_ptr() for value in _tensors(graph) if value.numel()}
    for how in ("a deep copy", "a clone"):
        shared = places & {value.data_ptr() for value in _tensors(made[how]) if value.numel()}
        require(not shared, f"{how} of {name} must share no memory with it (got some shared)")
    away = copy.copy(graph).to("meta")
    require(away.device.type == "meta", f"{name}.to must move the graph (got {away.device})")
    require(graph.device.type != "meta", f"a copy of {name} that is moved must leave it where it was (got it moved)")


def _tensors(graph: Graph) -> list[Tensor]:
    return [value for store in graph.stores for value in store.values() if isinstance(value, Tensor)]
