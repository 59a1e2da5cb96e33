"""CPU seconds of whole processes: importing the package against importing its dependencies, and showing help."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from typing import Any

from common import save

REPEATS = 5
IMPORTS = {
    "torch": "import torch",
    "torch_geometric": "import torch_geometric",
    "graphunlearn": "import graphunlearn",
    "torch_geometric, then graphunlearn": "import torch_geometric, graphunlearn",
    "gu.InteractionGraph": "import graphunlearn as gu; gu.InteractionGraph",
    "gu.IFRU": "import graphunlearn as gu; gu.IFRU",
}
HELP = ("", "demo", "train", "prepare", "forget", "audit", "ledger", "bench", "datasets")


def cpu_seconds(words: list[str]) -> float:
    """Return the median CPU seconds of a process, after one run that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds[1:])


def main() -> None:
    imports = {name: cpu_seconds(["-c", code]) for name, code in IMPORTS.items()}
    shown = {f"{verb} --help".strip(): cpu_seconds(["-m", "graphunlearn", *verb.split(), "--help"]) for verb in HELP}
    results: dict[str, Any] = {
        "repeats": REPEATS,
        "import_cpu_seconds": imports,
        "help_cpu_seconds": shown,
        "added_to_torch_geometric": imports["torch_geometric, then graphunlearn"] / imports["torch_geometric"] - 1,
    }
    for key, value in results.items():
        print(key, value)
    save("startup", results)


if __name__ == "__main__":
    main()
