"""Which retrained models are healthy: a table of cases."""

from types import SimpleNamespace

import pytest

from graphunlearn.eval.health import health, plateau


def trained(best_epoch=20, epochs=30, validation=0.5, limit=300, seed=50):
    log = {"best_epoch": best_epoch, "epochs": epochs, "validation": validation}
    return SimpleNamespace(log=log | {"settings": {"epochs": limit, "seed": seed}})


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ({"best_epoch": 1, "epochs": 11, "settings": {"epochs": 300}}, True),
        ({"best_epoch": 2, "epochs": 12, "settings": {"epochs": 300}}, True),
        ({"best_epoch": 3, "epochs": 13, "settings": {"epochs": 300}}, False),
        ({"best_epoch": 0, "epochs": 10, "settings": {"epochs": 300}}, True),
        ({"best_epoch": 2, "epochs": 2, "settings": {"epochs": 300}}, False),  # it was still getting better
        ({"best_epoch": 2, "epochs": 3, "settings": {"epochs": 3}}, False),  # three epochs were all it was given
        ({"best_epoch": 2, "epochs": 3}, True),  # a limit that is not known
        ({"epochs": 11}, False),
        ({"best_epoch": 1}, False),
        ({}, False),
    ],
)
def test_a_first_plateau(log, expected):
    assert plateau(log) is expected


@pytest.mark.parametrize(
    ("models", "healthy"),
    [
        ([trained(), trained(), trained()], [True, True, True]),
        ([trained(1, 11), trained(), trained()], [False, True, True]),
        ([trained(1, 11), trained(1, 11), trained(1, 11)], [False, False, False]),  # all of them
        ([trained(1, 11), trained(1, 11), trained()], [False, False, True]),
        ([trained(validation=0.39), trained(), trained()], [False, True, True]),
        ([trained(validation=0.41), trained(), trained()], [True, True, True]),
        ([trained(validation=0.9), *[trained()] * 4], [True] * 5),  # one far above makes nobody ill
        ([trained(validation=0.9), trained(), trained()], [True, True, True]),  # two that are far apart tell nothing
        ([trained(validation=None)] * 3, [None, None, None]),  # nothing was held out to tell
        ([trained(1, 11, validation=None)] * 3, [None, None, None]),
        # two that collapsed do not hide each other
        ([trained(validation=0.1), trained(validation=0.12), *[trained()] * 3], [False, False, True, True, True]),
        ([trained(validation=0.1), trained(validation=0.1), *[trained()] * 2], [False, False, True, True]),
        # siblings that vary this much
        ([trained(validation=v) for v in (0.38, 0.5, 0.6, 0.45, 0.55)], [True] * 5),
        ([trained(validation=0.1)], [True]),  # no siblings to lie below
        ([trained(best_epoch=None, validation=None), trained()], [None, True]),
    ],
)
def test_health_against_siblings(models, healthy):
    assert [entry["healthy"] for entry in health(models)] == healthy


def test_entries_say_what_the_log_says():
    (entry,) = health([trained(4, 14, 0.3, seed=7)])
    assert entry == {"seed": 7, "best_epoch": 4, "epochs": 14, "validation": 0.3, "healthy": True}
    (unknown,) = health([SimpleNamespace(log={})])
    assert set(unknown.values()) == {None}
    assert health([]) == []
