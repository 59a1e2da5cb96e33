"""Files in many layouts, whole and damaged, and what readers make of them: ``python tests/data/io/fuzz.py 2600``.

A file counts as read rightly if the ids of all its rows are those that were written, as refused if one sentence names
the file, and as told if a warning says that something was guessed or left out. What remains is silent, and wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from graphunlearn.data import ForgetRequest, InteractionGraph, SessionGraph
from graphunlearn.data.io.files import read_clicks, read_frame

UNTELLING = ("no newline at its end", "not used (", "not in order", "clicks of several users", "positions begin at 1")
NUMBERS = [str(n) for n in range(40)]
IDS = {
    "numbers": NUMBERS,
    "large": [str(9007199254740992 + n) for n in range(30)] + ["18446744073709551615", "123456789012345678901"],
    "zeros": [f"{n:03d}" for n in range(30)] + ["7", "12"],
    "plus": ["+4912", "4912", "+1", "1", "2", "3"],
    "points": ["1.0", "1", "2.0", "2", "3.00", "17"],
    "versions": ["1.0", "1", "2.0", "2", "x"],
    "text": ["ann", "bob", "Zoë", "a b", "u-7", "x.y", "O'Neil", "null?", "\u00a0nb", "日本"],
    "typed": ["user:4", "user:5", "item:3", "item:12", "label:float?"],
    "words": ["Book", "Movie", "product", "artist", "Dune", "Solaris", "track"],
    "codes": ["B00005N5PF", "0e1", "1e5", "0x1F", "-5", "1_000", "infinite"],
    "quoted": ['5" disc', 'say "hi"', "semi;colon", "com,ma", "back\\slash"],
}
HEADERS = [("user", "item"), ("user_id", "item_id"), ("userId", "movieId"), ("user_id:token", "item_id:token")]


@dataclass(frozen=True)
class Case:
    """A file.

    Args:
        name: Its name.
        content: Its bytes.
        kind: ``"interactions"``, ``"sessions"`` or the level of a request.
        truth: The ids of every row, or ``None`` after damage.
        most: Number of rows that must not get lost: not more than there are.
        header: Whether the file has a header.
    """

    name: str
    content: bytes
    kind: str
    truth: list[tuple[str, ...]] | None
    most: int
    header: bool


def number_or_text(columns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The ids of a file by the rule of its vocabularies: whole numbers, or all of them verbatim (naively)."""
    made = []
    for column in columns:
        parts = [text.partition(".") for text in column]
        whole = all(a.isascii() and a.isdigit() and (a == "0" or a[0] != "0") and not c.strip("0") for a, _, c in parts)
        made.append(tuple(a for a, _, _ in parts) if whole else column)
    return list(zip(*made))


def quoted(field: str, separator: str, mode: str) -> str:
    """A field as writers of tables write it."""
    if mode == "backslash":
        return '"' + field.replace('"', '\\"') + '"'
    needs = separator in field or '"' in field
    return '"' + field.replace('"', '""') + '"' if mode == "all" or (mode == "needed" and needs) else field


def rows_case(rng: random.Random) -> Case:
    """A table of interactions or clicks with separators."""
    kind = rng.choice(["interactions", "interactions", "sessions"])
    count = rng.choice([1, 2, 3, 8, 40, 150])
    users, items = rng.choice(list(IDS)), rng.choice(list(IDS))
    separator = rng.choice([",", ",", "\t", ";", "::", " ", "|"])
    ids = [(rng.choice(IDS[users]), rng.choice(IDS[items])) for _ in range(count)]
    columns = [list(column) for column in zip(*ids)]
    names = list(rng.choice(HEADERS)) if kind == "interactions" else ["SessionId", "ItemId"]
    if rng.random() < 0.6:
        columns.append([str(rng.randint(1, 5)) for _ in ids] if kind == "interactions" else dates(rng, count))
        names.append("rating" if kind == "interactions" else "Time")
    if len(columns) == 3 and rng.random() < 0.5:
        columns.append(dates(rng, count) if kind == "interactions" else ["0"] * count)
        names.append("timestamp" if kind == "interactions" else "category")
    header = rng.random() < 0.6
    order = list(range(len(columns)))
    if header and rng.random() < 0.4:
        rng.shuffle(order)
    elif not header and kind == "sessions" and len(columns) > 2 and rng.random() < 0.5:
        order[1:3] = 2, 1
    mode = rng.choice(["none", "needed", "all", "backslash"]) if len(separator) == 1 else "none"
    lines = [separator.join(quoted(columns[at][row], separator, mode) for at in order) for row in range(count)]
    if header:
        lines.insert(0, separator.join(quoted(names[at], separator, mode) for at in order))
    spaced = separator == " " and any(" " in text for column in columns for text in column)
    plain = mode in ("none",) and any(separator in text or '"' in text for column in columns for text in column)
    whole = not spaced and not plain and separator != "|"
    truth = number_or_text([tuple(column) for column in columns[:2]]) if whole else None
    name = f"data.{rng.choice(['csv', 'txt', 'dat', 'data', 'inter'])}" if separator != "\t" else "data.tsv"
    return dressed(rng, Case(name, b"", kind, truth, count, header), lines)


def dates(rng: random.Random, count: int) -> list[str]:
    """Times: seconds since 1970 or dates."""
    seconds = [rng.randint(900_000_000, 1_500_000_000) for _ in range(count)]
    if rng.random() < 0.5:
        return list(map(str, seconds))
    return [pd.Timestamp(second, unit="s").isoformat() + "Z" for second in seconds]


def dressed(rng: random.Random, case: Case, lines: list[str]) -> Case:
    """The case with line ends, blank lines, a byte order mark and compression."""
    if rng.random() < 0.2:
        for _ in range(rng.randint(1, 3)):
            lines.insert(rng.randint(0, len(lines)), "")
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    text = end.join(lines) + (end if rng.random() < 0.9 else "")
    content = text.encode("utf-8-sig" if rng.random() < 0.1 else "utf-8")
    if rng.random() < 0.1:
        return replace(case, name=case.name + ".gz", content=gzip.compress(content))
    return replace(case, content=content)


def lists_case(rng: random.Random) -> Case:
    """Users followed by items, perhaps with counts in place of users, perhaps all of one length."""
    separator = rng.choice([" ", " ", "\t", ",", ";"])
    count, uniform, counts = rng.choice([1, 2, 3, 12, 60]), rng.random() < 0.3, rng.random() < 0.3
    width = rng.randint(1, 7)
    rows = [[rng.choice(NUMBERS) for _ in range(width if uniform else rng.randint(1, 9))] for _ in range(count)]
    users = [str(len(row)) if counts else str(user) for user, row in enumerate(rows)]
    lines = [separator.join([user, *row]) for user, row in zip(users, rows)]
    truth = [(user, item) for user, row in zip(users, rows) for item in row]
    return dressed(rng, Case("train.txt", b"", "interactions", truth, len(truth), False), lines)


def request_case(rng: random.Random) -> Case:
    """A request: one id per line, all on one line, or columns of which one counts."""
    level = rng.choice(["user", "item", "session", "interaction"])
    kind = rng.choice(list(IDS))
    count = rng.choice([1, 2, 5, 30])
    ids = [rng.choice(IDS[kind]) for _ in range(count)]
    form = rng.choice(["lines", "lines", "one line", "table"])
    header = rng.random() < 0.4 and form != "one line"
    if level == "interaction":
        items = [rng.choice(NUMBERS) for _ in ids]
        lines, truth = [f"{a}\t{b}" for a, b in zip(ids, items)], list(zip(ids, items))
        lines = ["user_id\titem_id", *lines] if header else lines
        truth = truth if not any('"' in text for text in ids) else None
        return dressed(rng, Case("forget.tsv", b"", level, truth, count, header), lines)
    name = rng.choice([level, f"{level}_id", f"{level}_id:token"])
    separator = rng.choice([",", ";", "\t"])
    if form == "one line":
        lines, count = [separator.join(ids)], len(ids)
    elif form == "table":
        lines = [separator.join([text, rng.choice(NUMBERS)]) for text in ids]
        lines = [separator.join([name, "extra"]), *lines] if header else lines
    else:
        lines = [name, *ids] if header else ids
    plain = not any(mark in text for text in ids for mark in ',;"\t')
    truth = [(text.strip(" "),) for text in ids] if plain else None
    return dressed(rng, Case(f"forget.{rng.choice(['csv', 'txt'])}", b"", level, truth, count, header), lines)


def typed_case(rng: random.Random) -> Case:
    """JSON lines or Parquet, with ids of several types."""
    count = rng.choice([1, 3, 20])
    pools = [
        NUMBERS,
        list(range(40)),
        [float(n) for n in range(40)],
        [2**64 - 1, 2**53 + 1, 5],
        IDS["zeros"],
        IDS["text"],
    ]
    users, items = rng.choice(pools), rng.choice(pools)
    rows = [(rng.choice(users), rng.choice(items)) for _ in range(count)]
    texts = [[str(int(v)) if isinstance(v, float) else str(v) for v in column] for column in zip(*rows)]
    truth = number_or_text([tuple(v.strip(" ") for v in column) for column in texts])
    if rng.random() < 0.5:
        lines = [json.dumps({"user_id": a, "item_id": b, "stars": 3, "more": [1]}) for a, b in rows]
        return dressed(rng, Case("data.jsonl", b"", "interactions", truth, count, False), lines)
    buffer = io.BytesIO()
    pd.DataFrame(rows, columns=["user_id", "item_id"]).to_parquet(buffer)
    return Case("data.parquet", buffer.getvalue(), "interactions", truth, count, False)


def damaged(rng: random.Random, case: Case) -> Case:
    """The case with a few bytes or lines changed; ``most`` counts the lines that are left."""
    packed = case.name.endswith(".gz") and rng.random() < 0.8
    content = bytearray(gzip.decompress(case.content) if packed else case.content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content)) if content else 0
        match rng.randrange(11):
            case 0 if content:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + rng.randint(1, 4)]
            case 2:
                content[at:at] = rng.choice(
                    [b'"', b"\\", b",", b"\t", b"\n", b";", b" ", b"\x00", b"\xff", b"\x1f", b"'"]
                )
            case 3:
                del content[at:]
            case 4:
                content[at:at] = rng.choice(
                    [b"user_id,item_id\n", b"NA", b"nan", b"1e999", b"99999999999999999999", b":"]
                )
            case 5:
                lines = bytes(content).split(b"\n")
                lines.insert(rng.randint(0, len(lines)), rng.choice(lines))
                content = bytearray(b"\n".join(lines))
            case 6:
                lines = bytes(content).split(b"\n")
                rng.shuffle(lines)
                content = bytearray(b"\n".join(lines))
            case 7:
                content[at:at] = b"x" * rng.choice([300, 5000, 140_000])
            case 8:
                content += content[: rng.randint(0, len(content))]
            case 9:
                content = content.replace(
                    rng.choice([b",", b"\t", b"1", b"user", b'"']), rng.choice([b";", b"", b"::", b'"'])
                )
            case _:
                content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    text = bytes(content).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = [line for line in text.split(b"\n") if line.strip(b" ")]
    most = max(len(lines) - case.header, 0)
    if case.name.startswith("train") or case.name.endswith(".parquet"):
        most = 0  # lines are not rows there
    made = gzip.compress(bytes(content)) if packed else bytes(content)
    return replace(case, content=made, truth=None, most=most if packed or not case.name.endswith(".gz") else 0)


def ids_of(path: Path, kind: str) -> list[tuple[str, ...]]:
    """The ids of all rows, as the package reads them; graphs are made as well."""
    if kind == "interactions":
        frame = read_frame(path)
        InteractionGraph.from_file(path)
        return list(zip(frame["user"].tolist(), frame["item"].tolist()))
    if kind == "sessions":
        frame = read_clicks(path)
        SessionGraph.from_file(path)
        return list(zip(frame["session"].tolist(), frame["item"].tolist()))
    request = ForgetRequest.from_file(path, kind)
    index = [entry if isinstance(entry, tuple) else (entry,) for entry in request.index]
    return index + [("",)] * request.num_duplicates


def judged(case: Case, folder: Path) -> tuple[str, str]:
    """The verdict on one file, and what was said."""
    path = folder / case.name
    path.write_bytes(case.content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = ids_of(path, case.kind)
        except ValueError as error:
            text = str(error)
            named = str(path) in text or text.startswith("'index' must name")
            return ("refused" if named and "\n" not in text and len(text) < 1000 else "badly refused"), text
        except Exception as error:  # what must not happen
            return "uncaught", f"{type(error).__name__}: {error}"
        finally:
            path.unlink()
    said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    told = [text for text in said if not any(mark in text for mark in UNTELLING)]
    if told:
        return "told", told[0]
    if case.truth is not None:
        wanted = case.truth
        if case.kind in ("user", "item", "session", "interaction"):
            right = Counter(found)[("",)] + len(set(wanted)) == len(found) and set(wanted) == set(found) - {("",)}
            right &= len(found) == len(wanted)
        else:
            right = found == wanted
        return ("right" if right else "silently wrong"), f"{found[:5]} for {wanted[:5]}"
    return ("accepted" if len(found) >= case.most else "rows lost"), f"{len(found)} of {case.most}"


MAKERS = (rows_case, rows_case, rows_case, lists_case, request_case, typed_case)


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[tuple[int, Case, str, str]]]:
    """Judge that many files; return the number of every verdict, and the files that must not be."""
    verdicts: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            case = rng.choice(MAKERS)(rng)
            if number % 2:
                case = damaged(rng, case)
            verdict, said = judged(case, Path(folder))
            verdicts[verdict] += 1
            if verdict in ("uncaught", "badly refused", "silently wrong", "rows lost"):
                wrong.append((number, case, verdict, said))
                if keep is not None:
                    (keep / f"{number}-{case.name}").write_bytes(case.content)
    return verdicts, wrong


def main() -> int:
    """Judge the files of the command line: their number (default 2600) and a seed (default 0)."""
    count, seed = (int(word) for word in (sys.argv[1:] + ["2600", "0"][len(sys.argv) - 1 :])[:2])
    verdicts, wrong = run(count, seed)
    for number, case, verdict, said in wrong[:20]:
        sys.stdout.write(f"{number} {case.name} {case.kind} {verdict}: {said[:200]}\n  {case.content[:160]!r}\n")
    sys.stdout.write(json.dumps(dict(verdicts.most_common())) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
