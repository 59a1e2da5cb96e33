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
    NGCF,
    SGL,
    Encoded,
    FitResult,
    FitSettings,
    MatrixFactorization,
    Objective,
    Samples,
    SimGCL,
    SquaredError,
    auxiliary_loss,
    encode,
    fit,
    linear_form,
    recommend,
    score,
)
from graphunlearn.operators import (
    IFRU,
    Calibrate,
    EncoderSettings,
    FineTune,
    GradientAscent,
    PublishedSettings,
    Retrain,
    TuneSettings,
    Unlearner,
    UnlearningResult,
    UnlearnRec,
    Unlink,
)

__all__ = [
    "BCE",
    "BPR",
    "IFRU",
    "NGCF",
    "SGL",
    "Calibrate",
    "Encoded",
    "EncoderSettings",
    "FineTune",
    "FitResult",
    "FitSettings",
    "ForgetRequest",
    "GradientAscent",
    "InteractionGraph",
    "MatrixFactorization",
    "Objective",
    "PublishedSettings",
    "Retrain",
    "Samples",
    "SimGCL",
    "SquaredError",
    "TuneSettings",
    "UnlearnRec",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "__version__",
    "auxiliary_loss",
    "datasets",
    "encode",
    "fit",
    "linear_form",
    "recommend",
    "score",
    "utils",
]
