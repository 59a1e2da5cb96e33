"""How many small mistakes the tests notice: mutants of the numerical core, each with the mirrored tests alone.

A mutant has one change: an operator, a comparison, a constant, a condition or a returned value. It counts as killed if
a test of the folder that mirrors its module fails, or if the tests take far longer than without the change. The sample
is a prefix of one shuffled list, so that a larger one goes on from a smaller one; results that are there are kept as
long as the module and its tests are the same.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import hashlib
import importlib.util
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, save

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("func", "metrics", "operators/shared")
SLOWER, LEAST = 5.0, 60.0  # a mutant may take this many times as long as the tests do without it, and so many seconds
BINARY: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SKIPPED = (ast.JoinedStr, ast.Raise, ast.Assert)  # messages, and what only type checkers ask for

SERVER = """
import json, os, signal, sys, time
import hypothesis, networkx, pytest, scipy.optimize, scipy.sparse.linalg, scipy.stats, torch, torch_geometric, tqdm

for line in sys.stdin:
    arguments, output, limit = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = int(pytest.main(arguments))
        sys.stdout.flush()
        os._exit(status)
    end = float("inf") if limit is None else time.monotonic() + limit
    done, status = 0, 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0 if done else 0.05)
    if not done:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print(json.dumps(abs(os.waitstatus_to_exitcode(status)) if done else None), flush=True)
"""  # imports what takes long once, and forks for every mutant


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Args:
        file: The module, relative to the root.
        line: The line that changes.
        column: Its column.
        kind: What kind of change it is.
        before: The code before.
        after: The code after.
        span: Start and end of the changed code, in bytes of the file.
    """

    file: str
    line: int
    column: int
    kind: str
    before: str
    after: str
    span: tuple[int, int]

    def apply(self, source: bytes) -> bytes:
        """Return the source with the change."""
        start, end = self.span
        return source[:start] + self.after.encode() + source[end:]


def changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Yield the part of the code that changes, the kind of change, and the code that takes its place."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        other = ast.BinOp(node.left, BINARY[type(node.op)](), node.right)
        yield node, "arithmetic", f"({ast.unparse(other)})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        yield node, "arithmetic", ast.unparse(ast.AugAssign(node.target, BINARY[type(node.op)](), node.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert, ast.Not)):
        yield node, "sign", f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            ops = [*node.ops[:place], COMPARED[type(operator)](), *node.ops[place + 1 :]]
            yield node, "comparison", f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield node, "boolean", f"({ast.unparse(ast.BoolOp(other_op, node.values))})"
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not isinstance(node.test, (ast.Compare, ast.BoolOp)):
        yield node.test, "boolean", f"(not {ast.unparse(node.test)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        if isinstance(node.value, bool):
            yield node, "constant", str(not node.value)
        elif isinstance(node.value, int):
            far = max(1, abs(node.value) // 2)  # one more of many is no change
            yield node, "constant", str(node.value + far)
            yield node, "constant", f"({node.value - far})"
        else:
            yield node, "constant", repr(2 * node.value or 1.0)
    elif isinstance(node, ast.Return) and node.value is not None:
        known = isinstance(node.value, ast.Constant)
        if not (known and node.value.value is None):
            yield node, "return", "return None"


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: no annotations, decorators, messages, or blocks for type checkers."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from _walk(child)


def mutants(file: str) -> list[Mutant]:
    """Return all mutants of a module."""
    source = (ROOT / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    out = []
    for node in _walk(ast.parse(source)):
        for part, kind, after in changes(node):
            assert part.end_lineno is not None
            assert part.end_col_offset is not None
            span = starts[part.lineno - 1] + part.col_offset, starts[part.end_lineno - 1] + part.end_col_offset
            before = source[slice(*span)].decode()
            out.append(Mutant(file, part.lineno, part.col_offset, kind, before, after, span))
    return out


def sample(num: int, seed: int) -> tuple[list[Mutant], int]:
    """Return the first ``num`` of all mutants in a shuffled order, and how many there are."""
    files = sorted(path for package in PACKAGES for path in (ROOT / "graphunlearn" / package).glob("*.py"))
    found = [m for path in files if path.name != "__init__.py" for m in mutants(path.relative_to(ROOT).as_posix())]
    random.Random(seed).shuffle(found)
    return found[:num], len(found)


def mirrored(file: str) -> list[str]:
    """Return the tests of a module: those of its own file first, then the rest of the folder."""
    path = Path("tests", *Path(file).parts[1:])
    own = path.with_name(f"test_{path.name}")
    others = sorted((ROOT / path.parent).glob("test_*.py"))
    rest = [other.relative_to(ROOT).as_posix() for other in others if other.name != own.name]
    return [own.as_posix(), *rest] if (ROOT / own).exists() else rest


def digest(file: str) -> str:
    """Return what a result depends on: the module and its tests."""
    whole = hashlib.sha256()
    for path in (file, *mirrored(file)):
        whole.update((ROOT / path).read_bytes())
    return whole.hexdigest()[:16]


class Workshop:
    """A copy of the package and its tests, in which one module at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("graphunlearn", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        compileall.compile_dir(folder / "graphunlearn", quiet=1)
        self.baselines: dict[str, float] = {}
        self.server: subprocess.Popen[str] | None = None

    def run(self, file: str, limit: float | None) -> tuple[int | None, float, str]:
        """Run the mirrored tests; return the exit status (``None`` after the limit), seconds, and the first failure."""
        path = self.folder / file
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        output = self.folder / "output.txt"
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", *mirrored(file)]
        started = time.perf_counter()
        if self.server is None:
            env = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
            command, pipe = [sys.executable, "-c", SERVER], subprocess.PIPE
            self.server = subprocess.Popen(command, cwd=self.folder, env=env, stdin=pipe, stdout=pipe, text=True)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps([arguments, str(output), limit]), file=self.server.stdin, flush=True)
        status = json.loads(self.server.stdout.readline())
        failed = [line for line in output.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
        return status, time.perf_counter() - started, failed[0] if failed else ""

    def baseline(self, file: str) -> float:
        """Return the seconds of the mirrored tests without a change; they must pass."""
        key = Path(file).parent.as_posix()
        if key not in self.baselines:
            status, seconds, failed = self.run(file, None)
            if status != 0:
                raise SystemExit(f"the tests of {file} fail without any change: {failed}")
            self.baselines[key] = seconds
        return self.baselines[key]

    def judge(self, mutant: Mutant) -> dict[str, Any]:
        """Return what becomes of a mutant."""
        limit = max(LEAST, SLOWER * self.baseline(mutant.file))
        path, source = self.folder / mutant.file, (ROOT / mutant.file).read_bytes()
        try:
            path.write_bytes(mutant.apply(source))
            status, seconds, failed = self.run(mutant.file, limit)
        finally:
            path.write_bytes(source)
        outcome = "timeout" if status is None else "survived" if status == 0 else "killed"
        return {"outcome": outcome, "seconds": round(seconds, 1), "by": failed.split(" - ")[0]}


def wilson(killed: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson interval of a share, at 95 %."""
    if not num:
        return 0.0, 1.0
    share, square = killed / num, z * z / num
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / num + square / (4 * num)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def summary(found: list[dict[str, Any]], wanted: int, total: int, seed: int) -> dict[str, Any]:
    """Return rate, interval and survivors of what was tried so far."""
    killed = sum(entry["outcome"] != "survived" for entry in found)
    low, high = wilson(killed, len(found))
    packages = {}
    for package in PACKAGES:
        own = [entry for entry in found if entry["file"].startswith(f"graphunlearn/{package}/")]
        packages[package] = {"mutants": len(own), "killed": sum(entry["outcome"] != "survived" for entry in own)}
    return {
        "seed": seed,
        "possible": total,
        "wanted": wanted,
        "tried": len(found),
        "killed": killed,
        "rate": killed / len(found) if found else None,
        "low": low,
        "high": high,
        "packages": packages,
        "survivors": [
            {"where": f"{e['file']}:{e['line']}", "before": e["before"], "after": e["after"]}
            for e in found
            if e["outcome"] == "survived"
        ],
        "mutants": found,
    }


def _earlier(name: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {}
    known = json.loads(path.read_text())["results"]["mutants"]
    return {(e["file"], e["line"], e["column"], e["after"], e["digest"]): e for e in known}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=300, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="seed of their order")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time; the next call goes on")
    parser.add_argument("--out", default="mutation", help="name of the results file")
    asked = parser.parse_args()
    chosen, total = sample(asked.num, asked.seed)
    known, found, started = _earlier(asked.out), [], time.perf_counter()
    digests = {file: digest(file) for file in {m.file for m in chosen}}
    with tempfile.TemporaryDirectory() as folder:
        workshop: Workshop | None = None
        for mutant in chosen:
            key = (mutant.file, mutant.line, mutant.column, mutant.after, digests[mutant.file])
            entry = known.get(key)
            if entry is None:
                if time.perf_counter() - started > 60 * asked.minutes:
                    continue
                workshop = workshop or Workshop(Path(folder))
                about = {name: value for name, value in asdict(mutant).items() if name != "span"}
                entry = about | workshop.judge(mutant) | {"digest": digests[mutant.file]}
                print(
                    f"{entry['outcome']:9}{mutant.file}:{mutant.line}  {mutant.before}  ->  {mutant.after}", flush=True
                )
            found.append(entry)
            save(asked.out, summary(found, asked.num, total, asked.seed))
    told = summary(found, asked.num, total, asked.seed)
    if told["tried"]:
        print(
            f"killed {told['killed']} of {told['tried']}: {told['rate']:.1%} ({told['low']:.1%} to {told['high']:.1%})"
        )


if __name__ == "__main__":
    main()
