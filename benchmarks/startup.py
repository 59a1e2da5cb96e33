"""CPU seconds of whole processes: importing the package against its dependencies, showing help, and forgetting a user.

The user of MovieLens-100K is forgotten from a run folder by a process that knows nothing of the model yet.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import data, save

REPEATS = 5
IMPORTS = {
    "torch": "import torch",
    "torch_geometric": "import torch_geometric",
    "graphunlearn": "import graphunlearn",
    "torch_geometric, then graphunlearn": "import torch_geometric, graphunlearn",
    "gu.InteractionGraph": "import graphunlearn as gu; gu.InteractionGraph",
    "gu.IFRU": "import graphunlearn as gu; gu.IFRU",
}
METHODS = ("unlink", "calibrate", "ifru")
HELP = ("", "demo", "train", "prepare", "forget", "audit", "ledger", "bench", "datasets")

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""By default, Python keeps what it has compiled."""


def cpu_seconds(words: list[str]) -> float:
    """Return the median CPU seconds of a process, after one run that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=ENVIRONMENT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds[1:])


def forgetting() -> dict[str, float]:
    """Return the CPU seconds of forgetting a user of MovieLens-100K by several methods."""
    with tempfile.TemporaryDirectory() as place:
        run, out = Path(place) / "run", Path(place) / "out"
        words = ["train", "--data", str(data("ml-100k", "ml-100k.inter")), "--out", str(run), "--seed", "0"]
        subprocess.run([sys.executable, "-m", "graphunlearn", *words], check=True, capture_output=True)
        words = ["-m", "graphunlearn", "forget", str(run), "--users", "196", "--out", str(out), "--overwrite"]
        return {method: cpu_seconds([*words, "--method", method]) for method in METHODS}


def main() -> None:
    imports = {name: cpu_seconds(["-c", code]) for name, code in IMPORTS.items()}
    shown = {f"{verb} --help".strip(): cpu_seconds(["-m", "graphunlearn", *verb.split(), "--help"]) for verb in HELP}
    forgets = forgetting()
    results: dict[str, Any] = {
        "repeats": REPEATS,
        "import_cpu_seconds": imports,
        "help_cpu_seconds": shown,
        "forget_a_user_above_torch_geometric": {
            method: seconds - imports["torch_geometric"] for method, seconds in forgets.items()
        },
        "added_to_torch_geometric": imports["torch_geometric, then graphunlearn"] / imports["torch_geometric"] - 1,
    }
    for key, value in results.items():
        print(key, value)
    save("startup", results)


if __name__ == "__main__":
    main()
