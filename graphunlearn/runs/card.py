"""The model card of an exported folder."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["model_card"]

_CARD = """\
---
library_name: graphunlearn
tags:
- recommender-system
- graph-neural-network
- machine-unlearning
- {kind}
---

# {cls}, with a request forgotten

A recommender of class `{cls}` (module `{module}`), whose parameters were corrected so that it
behaves as if it had been trained without what a forget request names.

| | |
|---|---|
| asked to forget | {asked} |
| taken out of the training data | {removed} |
| kept | {kept} {unit} |
| method | `{method}`, {seconds} s |
| graph | {sizes} |
| made with | {versions} |

Counts and digests stand here, and no id of what was forgotten. `unlearning.json` has the digest of the request
(HMAC-SHA256): who made this folder can prove with the key, kept apart, what the request was; without the key the digest
says nothing.

## How to load it

```python
import graphunlearn as gu

model = {cls}(...)  # made as it was before training; the shapes are in config.json
gu.load_export(model, "this folder")
```

`model.safetensors` is an ordinary safetensors file. Recommend with the retained graph (its keyed fingerprint is
in `unlearning.json`): the old one would still propagate what was forgotten.

## What this does not prove

* It is no certificate. The model is meant to be close to one trained again without the request; how close is known only
  where it was compared with models that really were retrained. {audit}
* Fingerprints tell which model and which graph were meant, and not that either was made as stated.
* Copies of the earlier model, backups, logs and exports that exist elsewhere have not forgotten anything.
"""
_MEASURED = "What those who made this folder measured is below."
_UNMEASURED = "No audit came with this folder: nothing was measured for this very request."
_AUDIT = "\n## Audit\n\n```json\n{figures}\n```\n"


def model_card(config: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return the model card as Markdown with YAML front matter.

    Args:
        config: What ``config.json`` holds.
        facts: What ``unlearning.json`` holds.
    """
    request, graph = facts["request"], dict(config["graph"])
    kind = graph.pop("kind")
    audit = facts["audit"]
    card = _CARD.format(
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
