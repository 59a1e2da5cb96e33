"""A trained or unlearned model on disk."""

from graphunlearn.runs.exported import Exported, export, load_export
from graphunlearn.runs.run import Forgotten, ModelSpec, Run

__all__ = ["Exported", "Forgotten", "ModelSpec", "Run", "export", "load_export"]
