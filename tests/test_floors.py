"""Imports only go down, nothing optional is imported at the top, and what is public is written down."""

import ast
import graphlib
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import graphunlearn

ROOT = Path(graphunlearn.__file__).parent
MODULES = sorted(p.relative_to(ROOT.parent).with_suffix("").as_posix().replace("/", ".") for p in ROOT.rglob("*.py"))

# The floors from the ground up; a module imports from its own package and from lower floors.
FLOORS = (
    ("func", "data"),
    ("utils", "metrics"),
    ("nn",),
    ("datasets",),
    ("operators",),
    ("ledger", "runs", "distributed"),
    ("serving",),
    ("eval", "adapters", "testing", "jobs"),
    ("cli",),
)
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}
# Packages of one floor that see one another in this direction alone.
BESIDE = {("data", "func")}
# Too slow, or not always there.
LATE = {
    "matplotlib",
    "pyarrow",
    "torch_scatter",
    "torch_sparse",
    "pyg_lib",
    "tyro",
    "IPython",
    "rich",
    "recbole",
    "pooch",
    "faiss",
    "hnswlib",
    "mlflow",
}


def source(module):
    path = ROOT.parent / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def imports(module):
    """(what is imported, whether at the top of the module) for every import that runs."""
    name = module.removesuffix(".__init__")
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    found = []

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            typed = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inner = top and not typed and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module} has a relative import"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    found.append((full if is_module(full) else child.module, top))
            visit(child, inner)

    visit(tree, True)
    return [(target, top) for target, top in found if target != name]


def is_module(name):
    return name in MODULES or f"{name}.__init__" in MODULES


def own(module):
    return [t.removeprefix("graphunlearn.") for t, _ in imports(module) if t.split(".")[0] == "graphunlearn"]


def test_the_walk_sees_imports_of_every_kind(tmp_path):
    assert ("torch", True) in imports("graphunlearn.func.sparse")
    assert "func" in own("graphunlearn.nn.encoding")
    assert "operators.base" in own("graphunlearn.operators.ifru.method")
    assert any(not top for _, top in imports("graphunlearn.metrics.ranking"))  # one import waits until it is needed


@pytest.mark.parametrize("module", [m for m in MODULES if m.count(".") >= 2])
def test_imports_only_go_down(module):
    package = module.split(".")[1]
    for target in own(module):
        other = target.split(".")[0]
        allowed = (
            other in (package, "_version", "errors") or FLOOR[other] < FLOOR[package] or (package, other) in BESIDE
        )
        assert allowed, f"{module} imports graphunlearn.{target}"


def test_every_package_has_a_floor():
    assert {m.split(".")[1] for m in MODULES if m.count(".") >= 2} == set(FLOOR)


def test_no_module_imports_itself_in_a_circle():
    # a package's own imports from its modules are what it offers, so that only modules are walked
    graph = {m.removesuffix(".__init__"): {f"graphunlearn.{t}" for t in own(m)} for m in MODULES}
    order = graphlib.TopologicalSorter({m: {t for t in targets if t in graph} for m, targets in graph.items()})
    order.prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("graphunlearn.func.")])
def test_the_lowest_floor_knows_torch_alone(module):
    for target, _ in imports(module):
        top = target.split(".")[0]
        assert top in {"torch", "graphunlearn"} or top in sys.stdlib_module_names, f"{module} imports {target}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("graphunlearn.operators.")])
def test_operator_families_do_not_import_one_another(module):
    family = module.split(".")[2]
    if family == "__init__":
        return
    seen = {"shared"} if family in ("base", "shared") else {"base", "shared", family}
    others = {[*t.split("."), "__init__"][1] for t in own(module) if t.split(".")[0] == "operators"} - {family}
    assert others <= seen, f"{module} imports {', '.join(others - seen)}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("graphunlearn.cli")])
def test_nothing_optional_is_imported_at_the_top(module):
    late = {t.split(".")[0] for t, top in imports(module) if top} & LATE
    assert not late, f"{module} imports {', '.join(late)} at its top"


def test_importing_the_package_loads_nothing_optional():
    late = ["matplotlib", "tyro", "rich", "pooch"]  # the others may come with torch_geometric or pandas
    code = f"import sys, graphunlearn; print(*sorted(set({late}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert run.stdout.split() == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.endswith(".__init__")])
def test_every_package_says_what_is_public(module):
    package = importlib.import_module(module.removesuffix(".__init__"))
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    bound = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
    public = {name for name in bound if not name.startswith("_") or name == "__version__"}
    if module == "graphunlearn.__init__":  # imported at first use; tests/test_public_api.py holds it to its table
        return
    if module == "graphunlearn.cli.__init__":  # a program: what it imports is not there to be used by others
        assert set(package.__all__) <= vars(package).keys()
        return
    assert set(package.__all__) == public
    assert len(package.__all__) == len(set(package.__all__))


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith(".__init__")])
def test_every_public_name_exists(module):
    if module.endswith("__main__"):
        return
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.{name}"


def test_every_module_is_found_by_name():
    found = {m.name for m in pkgutil.walk_packages([str(ROOT)], "graphunlearn.")}
    assert {m.removesuffix(".__init__") for m in MODULES} - {"graphunlearn"} == found


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_its_one_subject_needs(module):
    assert len(source(module).read_text(encoding="utf-8").splitlines()) <= 460


@pytest.mark.parametrize("module", [m for m in MODULES if m.endswith(".__init__")])
def test_no_function_shadows_the_module_that_holds_it(module):
    name = module.removesuffix(".__init__")
    package = importlib.import_module(name)
    for entry in pkgutil.iter_modules(package.__path__):
        value = importlib.import_module(f"{name}.{entry.name}")
        assert getattr(package, entry.name) is value, f"{name}.{entry.name} is not the module"


def test_few_places_ask_for_the_kind_of_a_graph_by_its_class():
    """What depends on the kind of a graph belongs to the graph, in ``data``."""
    places = []
    for module in MODULES:
        if module.startswith("graphunlearn.data."):
            continue
        for node in ast.walk(ast.parse(source(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                names = {ast.unparse(name) for name in ast.walk(node.args[1])}
                places += [(module, node.lineno)] if names & {"InteractionGraph", "SessionGraph"} else []
    assert 0 < len(places) <= 10, places
