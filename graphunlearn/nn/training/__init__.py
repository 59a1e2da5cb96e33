"""Per-sample losses and the training loop."""

from graphunlearn.nn.training.auxiliary import auxiliary_loss, info_nce
from graphunlearn.nn.training.criterion import Criterion
from graphunlearn.nn.training.fitting import FitResult, FitSettings, default_settings, fit, reset_parameters
from graphunlearn.nn.training.next_click import CrossEntropy, PrefixSamples
from graphunlearn.nn.training.objective import BCE, BPR, Objective, Sampled, Samples, SquaredError, default_objective
from graphunlearn.nn.training.sampled import InBatchSoftmax, SampledBCE, SampledSoftmax
from graphunlearn.nn.training.softmax import catalogue_loss

__all__ = [
    "BCE",
    "BPR",
    "Criterion",
    "CrossEntropy",
    "FitResult",
    "FitSettings",
    "InBatchSoftmax",
    "Objective",
    "PrefixSamples",
    "Sampled",
    "SampledBCE",
    "SampledSoftmax",
    "Samples",
    "SquaredError",
    "auxiliary_loss",
    "catalogue_loss",
    "default_objective",
    "default_settings",
    "fit",
    "info_nce",
    "reset_parameters",
]
