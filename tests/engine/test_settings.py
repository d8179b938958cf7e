"""What a server is started with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinker_officer.engine.guard import is_loopback
from tinker_officer.engine.settings import Settings, compute_environment, default_threads, new_token


def test_tokens_are_long_and_never_the_same() -> None:
    """A token has 256 random bits and the prefix that the SDK demands."""
    assert new_token() != new_token()
    assert new_token().startswith("tml-")
    assert len(bytes.fromhex(new_token().removeprefix("tml-"))) == 32


@pytest.mark.parametrize(("named", "threads"), [("3", 3), ("2,4", 2)])
def test_the_number_of_threads_can_be_named(
    monkeypatch: pytest.MonkeyPatch, named: str, threads: int
) -> None:
    """OMP_NUM_THREADS is respected."""
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert default_threads() == Settings().threads == threads


@pytest.mark.parametrize("named", ["", "many", "0"])
def test_without_a_name_there_is_a_thread_a_core(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Without a usable OMP_NUM_THREADS there are at most as many threads as processors that we may use."""
    import os

    monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))


def test_waiting_threads_soon_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait sleep after a short while, unless the user says otherwise."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    environment = compute_environment(2)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 0 < int(environment["GOMP_SPINCOUNT"]) <= 10_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert "GOMP_SPINCOUNT" not in compute_environment(2)  # the user's own is inherited
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert compute_environment(2)["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in compute_environment(2)


_PRODUCTS = """
import resource, sys, torch
from tinker_officer.engine.kernels import onednn_available, prepacked

if not onednn_available() or not sys.platform.startswith("linux"):
    sys.exit(print("none"))
product = prepacked(torch.ones(64, 64))
for rows in range(1, 1101):
    product(torch.ones(rows, 64))
    if rows == 400:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_kernels_of_many_shapes_do_not_pile_up() -> None:
    """Products of ever new numbers of rows leave the process no larger than a few hundred of them did."""
    environment = {**os.environ, **compute_environment(1)}
    command = [sys.executable, "-c", _PRODUCTS]
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    if found == "none":
        pytest.skip("no oneDNN, or ru_maxrss is not in kilobytes")
    assert int(found) < 120_000  # 37,000 here, and 350,000 where all are kept


def test_the_root_is_in_our_home_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Checkpoints are kept under TINKER_OFFICER_HOME; a root that begins with ~ is the user's."""
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path))
    assert Settings().root == tmp_path / "engine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(root="~/mine").root == tmp_path / "mine"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("box", False),
    ],
)
def test_addresses_that_others_reach_are_known(host: str, loopback: bool) -> None:
    """Only an address of this machine alone counts as loopback."""
    assert is_loopback(host) is loopback
