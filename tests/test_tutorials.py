"""The tutorials as they are stored: run in order, with what they showed, and without a trace of where that was."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
NAMES = [
    "01_forget_a_user",
    "02_bring_your_own_model",
    "03_spillover",
    "04_pretrained_encoder",
    "05_sessions",
    "06_audit_for_a_regulator",
    "07_a_month_in_production",
]
PLACES = re.compile(r"(?<![\w.:/])/(?:home|tmp|root|work|usr|opt|var|mnt|Users|private)/|[A-Za-z]:\\\\|site-packages")
LARGEST = 1_000_000  # bytes of a notebook, pictures included


@pytest.fixture(scope="module", params=NAMES)
def notebook(request):
    return nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    return [output for cell in code_of(notebook) for output in cell.outputs]


def text_of(output):
    """Everything in an output that can be read; pictures cannot."""
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), *(str(v) for mime, v in data.items() if not mime.startswith("image/"))])


def shows(source):
    """Whether a cell prints or draws at its own level, whatever its branches and parameters say."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called = statement.value.func
            if getattr(called, "id", None) == "print" or getattr(called, "attr", None) == "show":
                return True
    return False


def test_these_are_the_tutorials():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


def test_is_a_valid_notebook_for_any_python(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_was_run_once_from_top_to_bottom(notebook):
    assert [cell.execution_count for cell in code_of(notebook)] == list(range(1, len(code_of(notebook)) + 1))


def test_every_cell_that_shows_something_has_it_stored(notebook):
    silent = [cell.source for cell in code_of(notebook) if shows(cell.source) and not cell.outputs]
    assert silent == []
    assert any("image/png" in output.get("data", {}) for output in outputs_of(notebook))


def test_no_error_and_no_warning_is_stored(notebook):
    for output in outputs_of(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        assert "Warning" not in text_of(output)


def test_nothing_tells_where_it_was_run(notebook):
    for cell in notebook.cells:
        assert not PLACES.search(cell.source)
    for output in outputs_of(notebook):
        assert not PLACES.search(text_of(output))


def test_takes_a_file_and_needs_none(notebook):
    (cell,) = [cell for cell in code_of(notebook) if "parameters" in cell.metadata.get("tags", [])]
    (assignment,) = ast.parse(cell.source).body
    assert isinstance(assignment, ast.Assign)
    assert [target.id for target in assignment.targets] == ["data"]
    assert assignment.value.value is None
    assert notebook.cells.index(cell) < 6


def test_begins_with_a_title_and_says_what_to_put_there(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    told = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and "**Parameter.**" in cell.source]
    assert len(told) == 1


@pytest.mark.parametrize("name", NAMES)
def test_is_small_enough_to_be_kept(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/tmp/tmpabc/ledger.db", True),
        ("/home/somebody/x", True),
        ("C:\\\\Users\\\\x", True),
        (".../ledger.db", False),
        ("https://example.org/home/x", False),
        ("runs/tmp/a", False),
    ],
)
def test_places_are_recognised(text, found):
    assert bool(PLACES.search(text)) == found


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("print(1)", True),
        ("plt.show()", True),
        ("if a:\n    print(1)", False),
        ("def f():\n    print(1)", False),
        ("x = 1", False),
        ("for a in b:\n    c(a)\nprint(2)", True),
    ],
)
def test_cells_that_show_are_recognised(source, shown):
    assert shows(source) == shown
