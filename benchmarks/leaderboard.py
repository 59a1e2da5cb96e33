"""The leaderboard: every operator on the tracks of ML-100K and Last.fm, against 20 retrained models each.

The models of a track are trained once and kept in the folder of stores. Finished rows are kept in the results and
skipped in the next run; an operator that fails is printed with its reason.

    python benchmarks/leaderboard.py --stores /tmp/stores
    python benchmarks/leaderboard.py ml-100k-users --methods ifru unlink --stores /tmp/stores
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import RESULTS, save

from graphunlearn.eval.board import TRACKS, make_store, rows_of, score, track_of
from graphunlearn.eval.board.scoring import ordered
from graphunlearn.operators import registry

METHODS = (
    *("ifru", "calibrate", "unlearnrec", "scif", "gif", "ceu", "idea", "alteraser", "gnndelete", "cova"),
    *("popularity-kl", "ascent", "finetune", "ifru-published", "scif-published", "gif-published"),
    "gnndelete-published",
)
TOGETHER = 6
"""Operators that are judged together, since every call measures the retrained models once more."""


def scored(track: Any, case: Any, store: Any, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of some operators; if one of them fails, of each of them alone."""
    try:
        return rows_of(score(track, case, store, [registry[name]() for name in names]).report)
    except Exception as error:  # said in the row of the operator
        if len(names) == 1:
            return [{"method": names[0], "verdict": f"failed: {type(error).__name__}: {error}"}]
        return [row for name in names for row in scored(track, case, store, (name,))]


def main() -> None:
    """Score what is missing, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tracks", nargs="*", default=list(TRACKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--stores", default="stores")
    options = parser.parse_args()
    path = RESULTS / "leaderboard.json"
    tracks = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in options.tracks:
        track = track_of(name)
        case = track.case()
        store = make_store(track, case, Path(options.stores) / name)
        found = {row["method"]: row for row in tracks.get(name, {}).get("rows", [])}
        left = [method for method in options.methods if method not in found]
        for start in range(0, len(left), TOGETHER):
            together = tuple(left[start : start + TOGETHER])
            found |= {row["method"]: row for row in scored(track, case, store, together)}
            counts = {"originals": track.originals, "references": track.references}
            tracks[name] = counts | {"forgotten": len(case.request), "rows": ordered(found.values())}
            save("leaderboard", tracks)
            print(name, *together, flush=True)


if __name__ == "__main__":
    main()
