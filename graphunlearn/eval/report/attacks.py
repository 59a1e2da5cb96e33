"""Descriptions of the attacks and of their results, and the share of the trace that is left, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from graphunlearn.eval.attacks.evidence import Comparison
from graphunlearn.eval.decision import DECIDING, FEWEST, TOLERATED, says
from graphunlearn.eval.report.verdict import REFERENCES, distance_unit

__all__ = [
    "NOTHING",
    "NO_INTERVAL",
    "STRENGTH",
    "Attack",
    "Left",
    "attack_of",
    "deciding",
    "entry_of",
    "few",
    "left_of",
    "names",
    "reading",
    "result",
    "separated",
    "share",
    "untold",
]

NOTHING = "nothing measurable"
"""Printed instead of a share if an attack does not distinguish the original from retrained models."""
NO_INTERVAL = "no interval"
"""Printed if there are too few retrained models, users or sessions for an interval."""
STRENGTH = ("edge_recovery_kept",)
"""Attacks on kept data, which only measure how strong an attack is."""
SHOWN_APART = ("before_and_after",)
"""Attacks that need both models, and are described on their own."""


class Attack(NamedTuple):
    """An attack in words.

    Args:
        title: Name of the attack.
        short: Name of the attack in tables.
        told: The knowledge and the actions of the attacker, as sentences.
        figure: Kind of the figure: ``"auroc"``, ``"difference"`` (of two AUROCs) or ``"probability"``.
    """

    title: str
    short: str
    told: str
    figure: str = "auroc"


_ATTACKS = {
    "target": Attack(
        "The promoted items",
        "promoted items",
        """Anyone can look at how strongly the model recommends the promoted items to real users who have not
        interacted with them.""",
        "probability",
    ),
    "fold_in": Attack(
        "Finding a forgotten user in the items",
        "fold-in, users",
        """The attacker has the item side of the model and half of the items of a forgotten user, and looks for the
        other half among items that the user never had. The same is done with users who remain, for comparison.""",
        "difference",
    ),
    "fold_in_items": Attack(
        "Finding a forgotten item in the users",
        "fold-in, items",
        """The attacker has the user side of the model and half of the users of a forgotten item, and looks for the
        other half among users who never had it. The same is done with items that remain, for comparison.""",
        "difference",
    ),
    "lira": Attack(
        "Membership, likelihood ratio (LiRA)",
        "membership (LiRA)",
        """The attacker has the model and models of the same kind that never saw the forgotten data, and distinguishes
        forgotten interactions from comparable ones that nobody ever had.""",
    ),
    "rmia": Attack(
        "Membership, relative (RMIA)",
        "membership (RMIA)",
        """The same with another test: every forgotten interaction is compared with many that nobody ever had.""",
    ),
    "edge_recovery_forgotten": Attack(
        "Recovering forgotten interactions",
        "recovery, forgotten",
        """The attacker has the model and part of the interactions that remain, learns from them to recognise
        interactions, and distinguishes forgotten interactions from comparable ones that nobody ever had.""",
    ),
    "edge_recovery_kept": Attack(
        "Recovering kept interactions",
        "recovery, kept",
        """The same attacker is asked about interactions that were kept. This measures how strong the attack is; nothing
        had to be forgotten here.""",
    ),
    "before_and_after": Attack(
        "Access to both models",
        "both models",
        """The attacker holds the model before and the model after forgetting, and distinguishes
        forgotten from kept interactions by the fall of their scores.""",
    ),
}
_OF_SESSIONS = {
    "target": _ATTACKS["target"]._replace(
        told="Anyone can look at how strongly the model recommends the promoted items after real sessions."
    ),
    "click": Attack(
        "Forgotten clicks",
        "click",
        """The attacker has the model and the clicks before a forgotten click, and distinguishes the forgotten
        click from comparable items.""",
    ),
    "transition": Attack(
        "Deleted transitions",
        "transition",
        """The attacker has the model and models of the same kind that never saw the forgotten data, and
        distinguishes the click after a forgotten click from comparable items.""",
    ),
    "lira": _ATTACKS["lira"]._replace(
        told="""The attacker has the model and models of the same kind that never saw the forgotten data, and
        distinguishes forgotten clicks from comparable items after the same clicks."""
    ),
    "rmia": _ATTACKS["rmia"]._replace(
        told="The same with another test: every forgotten click is compared with many that nobody made."
    ),
    "fold_in": Attack(
        "Continuing a forgotten session",
        "fold-in, sessions",
        """The attacker has the model and the first half of a forgotten session, and looks for the second half. The same
        is done with sessions that remain, for comparison.""",
        "difference",
    ),
    "before_and_after": _ATTACKS["before_and_after"]._replace(
        told="""The attacker holds the model before and the model after forgetting, and distinguishes
        forgotten from kept clicks by the fall of their scores."""
    ),
}


def attack_of(report: Mapping[str, Any], name: str) -> Attack:
    """Return an attack in words; one that is not known has its own name as its title.

    Args:
        report: The report, which is of users and items or of sessions.
        name: Key of the attack in the report.
    """
    known = _ATTACKS | (_OF_SESSIONS if distance_unit(report) == "log p" else {})
    plain = name.replace("_", " ")
    found = known.get(name) or Attack(plain, plain, "")
    return found._replace(told=" ".join(found.told.split()))


def entry_of(method: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the entry of one attack on one model, or ``None`` if it does not apply."""
    return (method.get("attacks") or {}).get(name)


def names(report: Mapping[str, Any]) -> list[str]:
    """Return the attacks that the report has figures of, without those that need both models, those that decide first.

    Args:
        report: The report.
    """
    found = dict.fromkeys(
        name for method in report["methods"] for name, entry in (method.get("attacks") or {}).items() if entry
    )
    first = [name for name in DECIDING if name in found]
    return first + [name for name in found if name not in (*first, *SHOWN_APART)]


def separated(report: Mapping[str, Any], name: str) -> bool:
    """Return whether an attack distinguishes the original from retrained models, so that there is something to forget.

    Args:
        report: The report.
        name: Key of the attack.
    """
    original: Mapping[str, Any] = next((m for m in report["methods"] if m["name"] == "original"), {})
    entry = entry_of(original, name)
    if entry is None:  # a report without a row of the original
        entries = [entry_of(method, name) or {} for method in report["methods"] if method["name"] not in REFERENCES]
        return any(e.get("leak_left") is not None for e in entries)
    return entry.get("leak_left") is not None


def deciding(report: Mapping[str, Any], most: int = 3) -> list[str]:
    """Return the attacks that can decide, the most direct first: those that distinguish the original from retrained
    models.

    Args:
        report: The report.
        most: Largest number of attacks.

    Returns:
        The attacks; the first one that applies if none distinguishes the original from retrained models.
    """
    known = [name for name in names(report) if name in DECIDING]
    return ([name for name in known if separated(report, name)] or known[:1])[:most]


class Left(NamedTuple):
    """The share of the trace that is left: 0 for retrained models, 1 for the original.

    Args:
        share: The share; over several runs, its mean over those in which the attack distinguishes the original.
        low: Lower end of the interval; over several runs, the least share.
        high: Upper end of the interval; over several runs, the largest share.
        runs: Over several runs, in how many of them the attack distinguishes the original, and their number.
    """

    share: float
    low: float | None
    high: float | None
    runs: tuple[int, int] | None = None

    @property
    def exact(self) -> bool:
        """Whether the interval has no width, as for the original itself."""
        return self.low is None or self.high is None or self.high - self.low < 1e-3

    @property
    def between(self) -> str:
        """The interval, or the range with the number of runs, as text; nothing if there is neither.

        Example:
            >>> Left(0.2, 0.1, 0.3).between, Left(1.0, 1.0, 1.0).between, Left(0.2, 0.1, 0.3, (2, 3)).between
            ('10% to 30%', '', '10% to 30% in 2 of 3')
        """
        ends = "" if self.exact else f"{share(self.low or 0.0)} to {share(self.high or 0.0)}"
        if self.runs is None or (self.exact and self.runs[0] == self.runs[1]):
            return ends
        return f"{ends} in {self.runs[0]} of {self.runs[1]}".strip()


def left_of(report: Mapping[str, Any], method: Mapping[str, Any], name: str) -> Left | None:
    """Return the share of the trace that an attack finds in one model.

    Args:
        report: The report.
        method: One entry of its ``methods``.
        name: Key of the attack.

    Returns:
        The share with its interval, or ``None`` if the attack does not apply or there is nothing measurable.
    """
    entry = entry_of(method, name) or {}
    if entry.get("leak_left") is None or not (separated(report, name) or method.get("own_original")):
        return None
    if entry.get("runs"):
        return Left(entry["leak_left"], entry["leak_least"], entry["leak_most"], (entry["runs_told"], entry["runs"]))
    return Left(entry["leak_left"], entry.get("leak_low"), entry.get("leak_high"))


def few(report: Mapping[str, Any]) -> bool:
    """Return whether there are too few retrained models for any verdict. The verdict says so, and all else is silent.

    Args:
        report: The report.
    """
    return 0 < len(report.get("references") or ()) < FEWEST


def untold(report: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return the words in place of an unknown share: no interval, or nothing measurable; ``–`` with too few retrained
    models, where no share is known.

    Args:
        report: The report.
        entry: The entry of one attack on one model.
    """
    if entry.get("beyond") is None:
        return "–" if few(report) else NO_INTERVAL
    return NOTHING


def share(value: float) -> str:
    """Return a share as a percentage with a true minus sign.

    Example:
        >>> share(0.654), share(-0.284), share(-0.001)
        ('65%', '−28%', '0%')
    """
    rounded = round(100 * value)
    return f"{'−' * (rounded < 0)}{abs(rounded)}%"


def result(attack: Attack, value: float | None) -> str:
    """Return the value of an attack on one model as text, with its unit.

    Args:
        attack: The attack.
        value: Its value; ``None`` gives ``–``.

    Example:
        >>> lira = Attack("", "", "", "auroc")
        >>> result(lira, 0.889), result(lira._replace(figure="difference"), -0.0276)
        ('89%', '−2.8 points')
        >>> result(lira._replace(figure="probability"), 0.0275)
        '0.0275'
    """
    if value is None:
        return "–"
    if attack.figure == "difference":
        return f"{'−' if value < 0 else '+'}{abs(100 * value):.1f} points"
    return f"{value:.4f}" if attack.figure == "probability" else f"{value:.0%}"


_CLOSE = "no further from retrained models than another retrained model"
_AWAY = "further from retrained models than another retrained model"
_READINGS = {
    ("under", False): "more than retrained models reveal, which is too little forgotten",
    ("over", False): "less than retrained models reveal, which is too much forgotten",
    ("like", True): _CLOSE,
    ("like", False): f"within the tolerated {TOLERATED:.0%}, and {_AWAY}",
    (None, True): f"{_CLOSE}, but more than the tolerated {TOLERATED:.0%} may be left",
    (None, False): f"{_AWAY}, perhaps within the tolerated {TOLERATED:.0%}",
}


def reading(method: Mapping[str, Any], name: str) -> str:
    """Return how one attack on one model reads, in words that claim no more than the figures say.

    Args:
        method: One entry of a report's ``methods``.
        name: Key of the attack.
    """
    entry = entry_of(method, name) or {}
    values: dict[str, Any] = {field: entry.get(field) for field in Comparison.__dataclass_fields__}
    return _READINGS[says(Comparison(**values)), abs(entry.get("beyond") or 0.0) <= 1]
