"""Entries of reports as an audit makes them."""


def attack(value, original=0.9, mean=0.5, left=None, half=0.1, **more):
    """An attack whose original lies far from retrained models, unless ``left`` is False."""
    share = (value - mean) / (original - mean)
    shares = (None,) * 3 if left is False else (share, share - half, share + half)
    if value == original and left is not False:
        shares = (1.0, 1.0, 1.0)
    keys = ("leak_left", "leak_low", "leak_high")
    return {
        **{"value": value, "original": original, "retrain_mean": mean, "retrain_sd": 0.02},
        **{"low": value - 0.05, "high": value + 0.05, "beyond": (value - mean) / 0.05},
        **{"difference_low": value - mean - 0.04, "difference_high": value - mean + 0.04},
        **dict(zip(keys, shares)),
        **more,
    }


def membership(value, **more):
    rates = {"tpr@1%": 0.25, "tpr@0.1%": 0.125, "retrain_tpr@1%": 0.0625, "retrain_tpr@0.1%": 0.03125}
    return attack(value, **more) | rates


def both(value, rows=0.95):
    nothing = dict.fromkeys(("original", "leak_left", "leak_low", "leak_high"))
    return attack(value, mean=0.77) | nothing | {"rows": rows, "retrain_rows": 0.65}


def verdict(status, rule="the membership attack (LiRA): 12% of the trace is left (2% to 22%)", needs=None):
    return {"status": status, "rule": rule, "needs": needs}


def references(num=5, sick=()):
    return [
        {"seed": 50 + n, "best_epoch": 40 + n, "epochs": 50 + n, "validation": 0.3, "healthy": n not in sick}
        for n in range(num)
    ]
