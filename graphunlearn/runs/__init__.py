"""A trained or unlearned model on disk."""

from graphunlearn.runs.code import Code, trust
from graphunlearn.runs.exported import Exported, export, load_export
from graphunlearn.runs.purging import PurgePlan, Removal, plan_purge
from graphunlearn.runs.run import Forgotten, ModelSpec, Run

__all__ = [
    "Code",
    "Exported",
    "Forgotten",
    "ModelSpec",
    "PurgePlan",
    "Removal",
    "Run",
    "export",
    "load_export",
    "plan_purge",
    "trust",
]
