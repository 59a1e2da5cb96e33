"""A trained or unlearned model on disk."""

from graphunlearn.runs.code import Code, trust
from graphunlearn.runs.exported import Exported, export, load_export
from graphunlearn.runs.run import Forgotten, ModelSpec, Run

__all__ = ["Code", "Exported", "Forgotten", "ModelSpec", "Run", "export", "load_export", "trust"]
