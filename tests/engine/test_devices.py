"""Another device than the CPU: no tensor stays behind on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.soak
def test_nothing_stays_on_the_cpu(oracle: Callable[..., Path]) -> None:
    """Training and sampling on a pretended GPU mix no devices, in both dtypes; a stray adapter is found."""
    script = Path(__file__).with_name("fake_gpu.py")
    done = subprocess.run(
        [sys.executable, script, oracle("qwen3")], capture_output=True, text=True, check=False, timeout=300
    )

    wanted = ["train float32", "sample float32", "found", "train bfloat16", "sample bfloat16", "found"]
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == wanted
