"""Names and defaults of the library that help texts show; tests hold them against the library.

They stand here because torch takes seconds to import, and showing help needs none of it.
"""

from __future__ import annotations

__all__ = ["HEADS", "LOSSES", "METHODS", "NEGATIVES", "PREPARABLE", "SETTINGS"]

METHODS = (
    *("ascent", "ascent-finetune", "calibrate", "cau", "cau-published", "finetune", "ifru", "ifru-published"),
    *("negative-kl", "retrain", "sisa", "sru", "unlearnrec", "unlearnrec-published", "unlink", "unlink-redraw"),
)
"""Names of the unlearning methods; all of them forget from a run folder."""
PREPARABLE = ("sisa", "sru", "unlearnrec", "unlearnrec-published")
"""Methods whose preparation is kept in a run folder."""
SETTINGS = {
    "interactions": {"epochs": 300, "batch_size": 8192, "lr": 0.01, "patience": 10},
    "sessions": {"epochs": 50, "batch_size": 512, "lr": 0.005, "patience": 3},
}
"""Training settings by kind of graph; see :data:`graphunlearn.nn.training.fitting.DEFAULT_SETTINGS`."""
LOSSES = {"bpr": 0.001, "bce": 0.003}
"""Weight decay by loss."""
NEGATIVES = 4
"""Negatives of BPR per interaction."""
HEADS = 2
"""What the width of SASRec must be divisible by."""
