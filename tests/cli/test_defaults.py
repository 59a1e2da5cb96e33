"""What help texts say of the library is so."""

import inspect

import graphunlearn as gu
from graphunlearn.cli import _defaults as defaults
from graphunlearn.cli._methods import method_names, preparable, serving
from graphunlearn.nn.training.fitting import DEFAULT_SETTINGS


def test_methods():
    own = [name for name in method_names() if gu.operators.registry[name].__module__.startswith("graphunlearn.")]
    assert list(defaults.METHODS) == own
    assert set(defaults.PREPARABLE) == {name for name in preparable() if name in own}
    assert {name for name in serving() if name in own} == set(own)


def test_settings():
    for kind, settings in defaults.SETTINGS.items():
        assert settings == {name: getattr(DEFAULT_SETTINGS[kind], name) for name in settings}
    assert {"bpr": gu.BPR().weight_decay, "bce": gu.BCE().weight_decay} == defaults.LOSSES
    assert gu.BPR().negatives == defaults.NEGATIVES
    assert inspect.signature(gu.nn.SASRec).parameters["heads"].default == defaults.HEADS
