"""Search for traces of forgotten ids in files."""

from graphunlearn.runs.traces.search import Trace, Traces, search_traces

__all__ = ["Trace", "Traces", "search_traces"]
