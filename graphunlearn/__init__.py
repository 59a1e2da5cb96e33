"""Graph unlearning for GNN recommenders: forget interactions, users and items without retraining.

Nouns: :class:`InteractionGraph`, :class:`ForgetRequest`, objectives (:class:`BPR`, :class:`BCE`,
:class:`SquaredError`), unlearners (:class:`IFRU`, :class:`Retrain`, ...) and their :class:`UnlearningResult`.
Verbs: :func:`encode`, :func:`score`, :func:`recommend`, :func:`fit`.
"""

from graphunlearn import datasets, utils
from graphunlearn._version import __version__
from graphunlearn.data import ForgetRequest, InteractionGraph
from graphunlearn.nn import (
    BCE,
    BPR,
    Encoded,
    FitResult,
    FitSettings,
    MatrixFactorization,
    Objective,
    Samples,
    SquaredError,
    encode,
    fit,
    linear_form,
    recommend,
    score,
)
from graphunlearn.operators import IFRU, FineTune, GradientAscent, Retrain, Unlearner, UnlearningResult, Unlink

__all__ = [
    "BCE",
    "BPR",
    "IFRU",
    "Encoded",
    "FineTune",
    "FitResult",
    "FitSettings",
    "ForgetRequest",
    "GradientAscent",
    "InteractionGraph",
    "MatrixFactorization",
    "Objective",
    "Retrain",
    "Samples",
    "SquaredError",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "__version__",
    "datasets",
    "encode",
    "fit",
    "linear_form",
    "recommend",
    "score",
    "utils",
]
