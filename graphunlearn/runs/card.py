"""The model card of an exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["model_card"]

_TEMPLATE = Path(__file__).with_name("card.md")
_MEASURED = "The figures of such a comparison are below."
_UNMEASURED = "No audit came with this folder, so nothing was measured for this request."
_AUDIT = "\n## Audit\n\n```json\n{figures}\n```\n"


def model_card(config: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return the model card as Markdown with YAML front matter.

    Args:
        config: The content of ``config.json``.
        facts: The content of ``unlearning.json``.

    Returns:
        The text of the card.
    """
    request, graph = facts["request"], dict(config["graph"])
    kind = graph.pop("kind")
    audit = facts["audit"]
    card = _TEMPLATE.read_text(encoding="utf-8").format(
        kind="session-based-recommendation" if kind == "sessions" else "collaborative-filtering",
        cls=config["architectures"][0],
        module=config["module"],
        asked=", ".join(f"{count:,} {level}{'s' if count != 1 else ''}" for level, count in request["ids"].items()),
        removed="not recorded" if request["removed"] is None else f"{request['removed']:,} {request['unit']}",
        kept=f"{request['kept']:,}",
        unit=request["unit"],
        method=facts["method"]["name"],
        seconds=f"{facts['method']['seconds']:.3g}",
        sizes=", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in graph.items()),
        versions=", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        audit=_UNMEASURED if audit is None else _MEASURED,
    )
    return card if audit is None else card + _AUDIT.format(figures=json.dumps(audit, indent=2, ensure_ascii=False))
