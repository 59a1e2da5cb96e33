"""The checks in environments of their own: ``nox --list`` names them, ``nox -s lint`` runs one.

What is written after ``--`` goes to the tool: ``nox -s tests-3.12 -- tests/nn``. A Python that is not there is skipped,
and says so; with CI in the environment it is an error.
"""

import os

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests-3.11"]
nox.options.reuse_existing_virtualenvs = True

PINNED = ("-c", "constraints.txt")
NEWEST = "3.11"  # the Python that the pins were made with
RECBOLE = (
    *("tests/adapters", "tests/data", "tests/nn", "tests/test_readme.py", "tests/test_doctests.py"),
    "tutorials/02_bring_your_own_model.ipynb",
)
# the tensors are small: more threads only wait for one another
THREADS = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest with what was asked for on the command line, else with ``arguments``."""
    session.run("python", "-m", "pytest", *(session.posargs or arguments), env=THREADS)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """All tests; Python 3.10 takes the newest versions that it can have, as the pins are of later ones."""
    session.install(*(() if session.python == "3.10" else PINNED), "-e", ".[test]")
    pytest(session)


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Style: ruff check and ruff format."""
    session.install(*PINNED, "ruff")
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=NEWEST)
def types(session: nox.Session) -> None:
    """Types: mypy."""
    session.install(*PINNED, "-e", ".[dev]")
    session.run("mypy", *session.posargs)


@nox.session(python=NEWEST)
def docs(session: nox.Session) -> None:
    """The documentation, built without warnings into docs/_build."""
    session.install(*PINNED, "-e", ".[docs]")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", *session.posargs, "docs", "docs/_build")


@nox.session(python=NEWEST)
def recbole(session: nox.Session) -> None:
    """What needs RecBole, beside the older versions that RecBole needs."""
    older = ("-c", "constraints-recbole.txt")
    session.install(*older, "setuptools", "wheel")
    session.install(*older, "-e", ".[test,recbole]")
    pytest(session, *RECBOLE)


@nox.session(python=NEWEST)
def serving(session: nox.Session) -> None:
    """What needs FAISS, hnswlib and an MLflow server, beside the older versions that MLflow needs."""
    session.install("-c", "constraints-serving.txt", "-e", ".[test,faiss,hnswlib,mlflow]", "mlflow")
    pytest(session, "tests/serving", "tests/cli/test_handover.py")


@nox.session(python=NEWEST)
def oldest(session: nox.Session) -> None:
    """All tests but the notebooks, with the oldest versions that setup.cfg allows."""
    session.install("-c", "constraints-oldest.txt", "-e", ".[test]")
    pytest(session, "tests")


@nox.session(python=NEWEST)
def scatter(session: nox.Session) -> None:
    """What uses torch-scatter where it is there; its build needs torch, a compiler and a few minutes."""
    session.install(*PINNED, "-e", ".[test]", "setuptools", "wheel")
    session.install(*PINNED, "--no-build-isolation", "-e", ".[scatter]")
    pytest(session, "tests/utils", "tests/nn")


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """All tests, and the share of lines and branches that they run."""
    session.install(*PINNED, "-e", ".[test]", "pytest-cov")
    pytest(session, "--cov", "--cov-report=term")


@nox.session(python=NEWEST)
def slow(session: nox.Session) -> None:
    """Only the tests that are marked slow."""
    session.install(*PINNED, "-e", ".[test]")
    # 5 is what pytest ends with where no test is marked
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs, env=THREADS, success_codes=[0, 5])


@nox.session(python=NEWEST)
def mutation(session: nox.Session) -> None:
    """How many small changes of the numerical core the tests notice; hours, and it goes on where it was stopped."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("python", "benchmarks/mutation.py", *session.posargs, env=THREADS)


@nox.session(python=NEWEST)
def fuzz(session: nox.Session) -> None:
    """2,600 files in many layouts, half of them damaged: what readers lose in silence, and what they do not catch."""
    session.install(*PINNED, "-e", ".[test]")
    session.run("python", "tests/data/io/fuzz.py", *(session.posargs or ("2600", "0")), env=THREADS)
