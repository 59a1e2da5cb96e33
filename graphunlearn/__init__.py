"""Graph unlearning for GNN recommenders: forget interactions, users, items, clicks or sessions without retraining.

Nouns: :class:`InteractionGraph`, :class:`SessionGraph`, :class:`ForgetRequest`, objectives (:class:`BPR`,
:class:`BCE`, :class:`CrossEntropy`, :class:`InBatchSoftmax`, :class:`SampledBCE`, :class:`SampledSoftmax`,
:class:`SquaredError`), unlearners (:class:`IFRU`, :class:`UnlearnRec`, :class:`CAU`, ...), their
:class:`UnlearningResult`, and the :class:`Ledger` of one request after another.

Verbs: :func:`encode`, :func:`score`, :func:`recommend`, :func:`fit`, :func:`stationarity`, :func:`audit`,
:func:`compact`, :func:`extend`, :func:`export`, :func:`load_export`.

Everything else lives in subpackages, such as the models in :mod:`graphunlearn.nn`; they are imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphunlearn._version import __version__

if TYPE_CHECKING:
    from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
    from graphunlearn.errors import ArgumentError
    from graphunlearn.eval import audit
    from graphunlearn.ledger import Ledger
    from graphunlearn.nn import (
        BCE,
        BPR,
        CrossEntropy,
        Encoded,
        InBatchSoftmax,
        Objective,
        SampledBCE,
        SampledSoftmax,
        SquaredError,
        encode,
        extend,
        fit,
        recommend,
        score,
        stationarity,
    )
    from graphunlearn.operators import (
        CAU,
        IFRU,
        SISA,
        SRU,
        AscentFineTune,
        Calibrate,
        FineTune,
        GradientAscent,
        NegativeKL,
        Retrain,
        Unlearner,
        UnlearningResult,
        UnlearnRec,
        Unlink,
        compact,
    )
    from graphunlearn.runs import export, load_export

__all__ = [
    "BCE",
    "BPR",
    "CAU",
    "IFRU",
    "SISA",
    "SRU",
    "ArgumentError",
    "AscentFineTune",
    "Calibrate",
    "CrossEntropy",
    "Encoded",
    "FineTune",
    "ForgetRequest",
    "GradientAscent",
    "InBatchSoftmax",
    "InteractionGraph",
    "Ledger",
    "NegativeKL",
    "Objective",
    "Retrain",
    "SampledBCE",
    "SampledSoftmax",
    "SessionGraph",
    "SquaredError",
    "UnlearnRec",
    "Unlearner",
    "UnlearningResult",
    "Unlink",
    "__version__",
    "audit",
    "compact",
    "encode",
    "export",
    "extend",
    "fit",
    "load_export",
    "recommend",
    "score",
    "stationarity",
]

_HOMES = {
    "data": "ForgetRequest InteractionGraph SessionGraph",
    "errors": "ArgumentError",
    "eval": "audit",
    "ledger": "Ledger",
    "nn": "BCE BPR CrossEntropy Encoded InBatchSoftmax Objective SampledBCE SampledSoftmax SquaredError encode "
    "extend fit recommend score stationarity",
    "operators": "CAU IFRU SISA SRU AscentFineTune Calibrate FineTune GradientAscent NegativeKL Retrain "
    "Unlearner UnlearningResult UnlearnRec Unlink compact",
    "runs": "export load_export",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_PACKAGES = {
    "adapters",
    "data",
    "datasets",
    "distributed",
    "eval",
    "func",
    "jobs",
    "ledger",
    "metrics",
    "nn",
    "operators",
    "runs",
    "serving",
    "testing",
    "utils",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: torch_geometric alone takes seconds to import, and few programs need the
    whole package.
    """
    if name in _PACKAGES:
        return import_module(f"graphunlearn.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'graphunlearn' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"graphunlearn.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
