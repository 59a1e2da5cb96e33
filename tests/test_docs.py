"""The documentation is in step with the package, and its tables with the results."""

import doctest
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import graphunlearn as gu
from graphunlearn.adapters.recbole import Bridge

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROSE = sorted([*DOCS.glob("*.md"), *DOCS.glob("operators/*.md")])

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not part of this installation")


def module(path):
    """A script as a module; its folder is on the path, as when it runs."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        loaded = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(path.parent))
    return loaded


@pytest.fixture(scope="module")
def pages():
    return module(DOCS / "pages.py")


@pytest.fixture(scope="module")
def decisions():
    return module(ROOT / "benchmarks" / "decision_table.py")


@pytest.fixture(scope="module")
def made(pages):
    return pages.pages()


def test_the_table_names_methods_that_are_there_and_results_that_are_there(decisions):
    rows = decisions.rows()
    assert 8 <= len(rows) <= 14
    for row in rows:
        for name in re.findall(r"`(\w+)\(", row.take):
            named = Bridge if name == "Bridge" else getattr(gu, name)
            assert named in (gu.Ledger, Bridge) or issubclass(named, gu.Unlearner)
        assert all((decisions.RESULTS / f"{source}.json").is_file() for source in row.sources)


def test_the_table_has_the_figures_of_the_files(decisions):
    # read once more, one cell at a time, without the functions that made them
    def results(name):
        return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["results"]

    rows = {row.want: row for row in decisions.rows()}
    pair = [results("unlearnrec-lastfm"), results("unlearnrec-ml-100k")]
    passes = [
        (next(r for r in case["rows"] if r["method"] == "unlearnrec"), case)
        for cases in pair
        for case in cases
        if case["scenario"] == "users"
    ]
    distances = [row["dp_forget_over_floor"] for row, _ in passes if row["dp_forget_over_floor"] is not None]
    many = rows["many requests of one model"]
    low, high = (f"{x:.2f}" for x in (min(distances), max(distances)))
    assert f"users {low}–{high} ×" in many.closeness
    for want, method in (
        ("many requests of one model", "unlearnrec"),
        ("users or interactions forgotten now, nothing prepared", "ifru"),
        ("the same, faster and rougher", "calibrate"),
    ):
        calls = results("whole_calls").values()
        ratios = [entry["speedup"] for case in calls for entry in case["rows"] if entry["method"] == method]
        assert len(ratios) == 12  # three data sets, four requests
        assert f"{round(min(ratios))}–{round(max(ratios))} × faster" in rows[want].cost

    labels = {row["method"]: row for row in results("flipped_labels")["rows"]}
    wrong = rows["wrong labels undone (BCE)"]
    assert f"{labels['ifru']['dp_forget_over_floor']:.2f} ×" in wrong.closeness
    assert f"{round(100 * labels['ifru']['gap_closed'])} % of the gap" in wrong.closeness
    assert wrong.cost == f"{round(labels['ifru']['speedup_vs_retrain'])} × faster"

    exact = [row for row in results("exact")["rows"] if row["model"] in ("item-knn", "ease", "session-knn")]
    row = next(row for want, row in rows.items() if want.startswith("nothing at all may be left"))
    fast = sorted(entry["times_faster"] for entry in exact)
    assert row.cost == f"{decisions.span([fast[0], fast[-1]], digits=0)} faster than fitting anew (CPU seconds)"
    assert max(entry["difference"] for entry in exact) <= 1e-8

    shards = results("cau-shards")
    lost = [
        100 * row["utility_vs_retrain"]["recall@20"]
        for case in shards.values()
        for row in case["rows"]
        if row["method"] in ("sisa", "sru")
    ]
    assert rows["the same, exactly, whatever it costs"].quality == (
        f"Recall@20 {min(lost):.1f} to {max(lost):.1f} %".replace("-", "−")
    )


def test_the_readme_says_of_the_three_systems_what_the_results_say(decisions):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = {match[1]: match[0] for match in re.finditer(r"^\| \[(\w+)\]\(docs/operators/.*$", text, re.M)}
    rows = {row.want: row for row in decisions.rows()}
    said = {
        "IFRU": rows["users or interactions forgotten now, nothing prepared"],
        "UnlearnRec": rows["many requests of one model"],
        "CAU": rows["clicks, items or whole sessions forgotten by a session model"],
    }
    assert lines.keys() == said.keys()
    odd = re.findall(r"[\d.]+–[\d.]+ ×", rows["what to forget is odd: injected, adversarial, mistaken"].closeness)
    assert f"there UnlearnRec ends at {odd[0]} and IFRU at {odd[1]}." in text
    for name, row in said.items():
        assert row.closeness in lines[name]
        assert all(figure in lines[name] for figure in re.findall(r"[\d.,]+–[\d.,]+", row.cost))


def test_figures_have_a_leading_zero_and_a_minus(decisions, pages):
    assert decisions.span([0.0, 3.0]) == "0.00–3.00 ×"
    assert decisions.span([None, 1.004, 0.996]) == "1.00 ×"
    assert decisions.percents([-0.0004, 0.0301]) == "Recall@20 ±0 to +3.0 %"
    assert decisions.percents([-0.123]) == "Recall@20 −12.3 %"
    assert pages.results.text(-0.05) == "−0.0500"
    for path in PROSE:
        plain = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
        assert not re.search(r"(?<![\w.*/])\.\d", plain), path


def test_the_examples_of_the_scripts_hold(pages, decisions):
    for script in (decisions, pages.results, pages.cards, pages.tables):
        outcome = doctest.testmod(script)
        assert outcome.attempted and not outcome.failed


def test_every_table_is_on_a_page_and_has_the_figures_of_the_files(made):
    included = {
        name
        for path in PROSE
        for name in re.findall(r"^```\{include\} (?:\.\./)?generated/tables/(\S+)$", path.read_text(), re.M)
    }
    assert included == {name.removeprefix("tables/") for name in made if name.startswith("tables/")}

    made = {name: text.replace("\N{NO-BREAK SPACE}", " ") for name, text in made.items()}

    # read once more, one cell at a time, without the functions that made them
    def results(name):
        return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["results"]

    labels = {row["method"]: row for row in results("flipped_labels")["rows"]}["ifru"]
    row = [labels["dp_forget_over_floor"], labels["dp_test_over_floor"]]
    assert f"| 2 % flipped labels | {row[0]:.2f} × | {row[1]:.2f} × |" in made["tables/ifru.md"]
    case = next(
        case
        for case in results("unlearnrec-ml-100k")
        if case["scenario"] == "adversarial-edges" and case["model"]["name"] == "sgl"
    )
    rows = {row["method"]: row for row in case["rows"]}
    near, far = rows["unlearnrec"]["dp_forget_over_floor"], rows["calibrate"]["dp_forget_over_floor"]
    assert f"| adversarial edges | SGL | ML-100K | {near:.2f} × | {far:.2f} × |" in made["tables/rivals.md"]
    auroc = [rows[name]["membership_auroc"] for name in ("unlearnrec", "retrain")]
    assert f"| {auroc[0]:.3f} ({auroc[1]:.3f}) |" in made["tables/unlearnrec.md"]
    row = {row["method"]: row for row in results("cau")["srgnn"]["rows"]}["cau"]
    gaps = [row["gap_closed"][key] for key in ("hit_u@5", "hit_u@10", "hit_u@20", "log_p_forgotten")]
    assert f"| SR-GNN | CAU | {' | '.join(f'{gap:.2f}' for gap in gaps)} |" in made["tables/cau.md"]
    row = next(r for r in results("ledger")["rows"] if r["requests"] == 50 and r["method"] == "unlearnrec")
    assert (
        f"| {row['drift']:.2f} | {results('ledger')['spent_after_requests']['unlearnrec']} requests |"
        in made["tables/ledger.md"]
    )
    lane = next(lane for lane in results("stream")["ml-100k"]["lanes"] if lane["lane"] == "ifru, batches of 10")
    near = [f"{lane['rows'][-1][f'distance_{where}']:.2f} ×" for where in ("forget", "test")]
    assert f"| ml-100k | ifru, batches of 10 | {' | '.join(near)} |" in made["tables/stream.md"]
    row = next(row for row in results("exact")["rows"] if (row["data"], row["model"]) == ("ml-100k", "ease"))
    assert f"| {row['times_faster']:.2f} × | {row['difference']:.0e} |" in made["tables/exact.md"]


def test_every_public_name_has_an_entry(pages, made):
    entries = {
        name
        for page, text in made.items()
        if page.startswith("api/")
        for name in re.findall(r"^\.\. (?:auto\w+|data):: (\S+)$", text, re.M)
    }
    assert [name for name in set(gu.__all__) - {"__version__"} if f"graphunlearn.{name}" not in entries] == []
    assert "__version__" in entries
    public = {
        name for name in dir(gu) if type(getattr(gu, name)) is type(gu) and hasattr(getattr(gu, name), "__path__")
    }
    assert {"metrics", "ledger", "runs"} <= public
    assert all(f"api/graphunlearn.{name}.rst" in made for name in public - {"cli"})
    for package in pages.reference.packages():
        for name in package.__all__:
            value = getattr(package, name)
            names = {f"graphunlearn.{name}", f"{package.__name__}.{name}"} | {
                e for e in entries if e.endswith(f".{name}")
            }
            assert type(value) is type(gu) or names & entries, f"{package.__name__}.{name}"


def test_no_name_is_documented_twice(made):
    found = re.findall(r"^\.\. auto(?!module)\w+:: (\S+)$", "\n".join(made.values()), re.M)
    assert len(found) == len(set(found))


def test_every_command_is_shown(made):
    from graphunlearn.cli import VERBS

    text = made["command-line.md"]
    for verb in VERBS:
        assert f"## graphunlearn {verb}\n\n```text\nusage: graphunlearn {verb}" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 130


def test_every_data_set_and_every_results_file_is_shown(made):
    for card in gu.datasets.available():
        assert f"\n## {card.name}\n" in made["datasets.md"]
        assert card.terms in made["datasets.md"]
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert f"(result-{path.stem})=" in made["benchmarks.md"]
        command = json.loads(path.read_text())["command"].split(" ; ")[0]
        assert command in made["benchmarks.md"]


def test_any_results_file_gives_a_table(pages, tmp_path, monkeypatch):
    environment = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text())["environment"]
    results = {"first": [{"method": "a", "seconds": 0.5, "log": {}}], "deep": {"list": [1, 2], "pair": {"x": 1.25}}}
    content = {"command": "python benchmarks/new.py", "environment": environment, "results": results}
    (tmp_path / "new.json").write_text(json.dumps(content))
    monkeypatch.setattr(pages.results, "RESULTS", tmp_path)
    page = pages.results.page()
    assert "## new\n\n```text\npython benchmarks/new.py\n```" in page
    assert "| method | seconds |\n| --- | --- |\n| a | 0.500 |" in page
    assert "- x: 1.25" in page and "- 2" in page


def test_pages_are_written_and_what_is_no_longer_made_goes(pages, made, tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "gone.rst").write_text("old")
    written = pages.write(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == written
    assert set(made) <= {path.relative_to(tmp_path).as_posix() for path in written}
    times = {path: path.stat().st_mtime_ns for path in written}
    assert times == {path: path.stat().st_mtime_ns for path in pages.write(tmp_path)}  # nothing is written again
    notebooks = {path.name for path in (ROOT / "tutorials").glob("*.ipynb")}
    assert {path.name for path in written if path.parent.name == "tutorials"} == notebooks


def test_links_between_pages_lead_somewhere(made):
    labels = set(re.findall(r"^\((\S+)\)=$", "\n".join(made.values()), re.M))
    figures = set(re.findall(r"\{\{(\w+)\}\}", "".join(path.read_text() for path in PROSE)))
    assert figures <= module(DOCS / "pages.py").figures().keys()
    for path in PROSE:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`<>]+)>?`", text):
            folder = DOCS if target.startswith("/") else path.parent
            target = target.removeprefix("/")
            assert (folder / f"{target}.md").is_file() or f"{target.removeprefix('generated/')}.md" in made, target
        for target in re.findall(r"\{ref\}`[^`<]*<([^`<>]+)>`", text):
            assert target in labels, target


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_examples_run(path, tmp_path, monkeypatch):
    """Blocks of ``python``; those of ``py`` need what is not here."""
    monkeypatch.chdir(tmp_path)
    ratings = gu.datasets.synthetic_interactions(num_users=30, num_items=20, interactions_per_user=6)
    rows = [(int(u) + 1, int(i) + 300) for u, i in ratings.pairs.t().tolist()] + [(22, 377), (23, 377), (196, 377)]
    lines = [f"{user}\t{item}" for user, item in dict.fromkeys(rows)]
    Path("ratings.tsv").write_text("\n".join(["user\titem", *lines]) + "\n")
    sessions = gu.datasets.synthetic_sessions(num_sessions=80, num_items=20, seed=1)
    lines = [
        f"{11550 + s}\t{item}\t{10_000 * s + k}"
        for s in range(80)
        for k, item in enumerate(sessions.select(torch.tensor([s])).items.tolist() * (1 if s != 12 else 4))
    ]
    Path("clicks.tsv").write_text("\n".join(["session\titem\ttime", *lines]) + "\n")
    registered = dict(gu.operators.registry)
    namespace = {}
    try:
        for block in re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S):
            exec(compile(block, str(path), "exec"), namespace)
    finally:
        gu.operators.registry.clear()
        gu.operators.registry.update(registered)


def test_the_site_is_built_without_warnings(tmp_path):
    for name in ("sphinx", "furo", "myst_nb", "latex2mathml"):
        pytest.importorskip(name)
    for name in ("docs", "benchmarks", "tutorials"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("_build", "generated", "__pycache__")
        )
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        str(tmp_path / "docs"),
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert "getting-started.html" in home
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css)', home)  # read without a network


def test_the_page_on_losses_runs():
    text, given = (DOCS / "own-loss.md").read_text(encoding="utf-8"), {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(compile(block, "own-loss.md", "exec"), given)
    assert given["fit"].verdict == "near stationary"
    assert given["other"].residual > 0.7  # the worst fit
    relation = given["test"]["user", "rates", "item"]
    assert given["held_out"].num_interactions == relation.edge_label_index.size(1)
    assert set(re.findall(r"^\| .*?`(\w+)\(", text, re.M)) >= {"BPR", "SampledBCE", "InBatchSoftmax", "SampledSoftmax"}
