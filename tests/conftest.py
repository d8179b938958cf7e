"""Fixtures that every room shares: a private home, a tiny model, a running engine."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from tinker_officer import LocalEngine

# Before anything is imported that reads them: no hub, a home that is not the user's, one thread a process.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TINKER_TELEMETRY"] = "0"
# A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
_HOME = tempfile.TemporaryDirectory(prefix="tinker-officer-tests-")
os.environ["TINKER_OFFICER_HOME"] = _HOME.name
# Before any test imports datasets, inspect_ai or inspect_evals: they read these once.
for _name in ("HF_DATASETS_CACHE", "INSPECT_EVALS_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
    os.environ[_name] = str(Path(_HOME.name) / _name.lower())
os.environ["INSPECT_CACHE_DIR"] = str(Path(_HOME.name) / "generate")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `tests/contract`, here because pytest reads them before it looks there."""
    group = parser.getgroup("contract", "the contract with servers of Tinker's protocol (tests/contract)")
    group.addoption("--base-url", help="the server to try; by default a LocalEngine of its own")
    group.addoption("--base-model", help="the base model to try it with; by default the first it names")
    group.addoption(
        "--contract-table", nargs="?", const="-", metavar="FILE", help="print what the server supports"
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-shaped model with random weights, made once a session."""
    from tinker_officer.testing import tiny_model as make

    return make(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def engine() -> Iterator[LocalEngine]:
    """A running engine that all tests share; each test makes its own training clients on it."""
    from tinker_officer import LocalEngine

    with LocalEngine() as running:
        yield running
