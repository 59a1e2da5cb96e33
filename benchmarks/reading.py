"""Reading a million rows, beside ``pandas.read_csv`` of the same file: seconds of CPU, the best of several runs.

The files have a header and the columns user, item, rating and time; ids are whole numbers or text, and fields are in
quotes or not. ``read_frame`` checks every line and every id and gives categories; ``from_file`` makes a graph as well.
Files without quotes and with numbers are the fastest for both; pandas keeps text as text.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import save

import graphunlearn as gu
from graphunlearn.data import read_frame

ROWS, USERS, ITEMS = 1_000_000, 6_040, 3_952


def cpu_seconds(call: Callable[[], Any], repeats: int = 9) -> float:
    """Return the smallest CPU time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Write the files, read each of them in all ways, and save the times."""
    drawn = np.random.default_rng(0)
    user, item = drawn.integers(1, USERS + 1, ROWS), drawn.integers(1, ITEMS + 1, ROWS)
    table = pd.DataFrame({"user_id": user, "item_id": item, "rating": drawn.integers(1, 6, ROWS)})
    table["timestamp"] = drawn.integers(956_703_932, 1_046_454_590, ROWS)
    text = table.assign(user_id="u" + table["user_id"].astype(str), item_id="B" + table["item_id"].astype(str))
    results = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # repeated pairs
        for name, frame, quoting in (("numbers", table, 0), ("text", text, 0), ("numbers in quotes", table, 1)):
            path = Path(folder, "data.csv")
            frame.to_csv(path, index=False, quoting=quoting)
            readers = {"pandas": pd.read_csv, "read_frame": read_frame, "from_file": gu.InteractionGraph.from_file}
            row: dict[str, Any] = {call: cpu_seconds(partial(reader, path)) for call, reader in readers.items()}
            row = {"file": name} | row
            row |= {f"{call}_over_pandas": row[call] / row["pandas"] for call in ("read_frame", "from_file")}
            results.append(row)
            print(row, flush=True)
    save("reading", results)


if __name__ == "__main__":
    main()
