"""What a server is started with and computes with, its largest rank, and the context of a model."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tinker_officer._fields import one_of, whole
from tinker_officer._files import home
from tinker_officer.errors import EngineError


MAX_RANK = 512  # as Tinker
_SPINS = "3000"  # some fifty microseconds
_FIX = "LocalEngine(port=0, dtype='float32', threads=2)"


def _good_token(_instance: Any, _attribute: Any, token: str) -> None:
    if not (token.startswith("tml-") and len(token) >= 20 and token.isascii() and token.isprintable()):  # noqa: PLR2004 - shorter ones can be guessed
        raise EngineError(
            "the token is not usable",
            got=f"{len(token)} characters",
            need="'tml-', as the Tinker SDK demands, and at least 16 characters more",
            fix="LocalEngine(token='tml-' + secrets.token_hex(32))",
        )


def _good_device(_instance: Any, _attribute: Any, device: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", device):
        raise EngineError(
            "device is not one that the engine computes on",
            got=repr(device)[:80],
            need="'cpu', 'cuda' or 'cuda:1'",
            fix="LocalEngine(device='cuda', dtype='bfloat16')",
        )


def _default_root() -> Path:
    return home() / "engine"


def _path(root: str | os.PathLike[str]) -> Path:
    return Path(root).expanduser()


def new_token() -> str:
    """Return a random token of 256 bits, with the prefix that the Tinker SDK demands of a key."""
    return f"tml-{secrets.token_hex(32)}"


def default_threads() -> int:
    """Return `OMP_NUM_THREADS` when it is set, else the number of physical cores that we may use."""
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if named.isdigit() and int(named) > 0:
        return int(named)
    return max(1, min(_physical_cores(), _quota()))


def _physical_cores() -> int:
    """Return how many physical cores this process may run on; siblings of one core count once."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux: nothing says which threads are siblings
        return os.cpu_count() or 1
    siblings = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text(encoding="ascii").strip())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


def _quota() -> int:
    """Return how many CPUs the control group grants, rounded up."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no such group, or "max"
        return 1 << 30


@attrs.frozen(kw_only=True)
class Settings:
    """What a server is started with.

    Args:
        root: where checkpoints are kept.
        host: the address to bind.
        port: the port to bind; 0 for a free one.
        dtype: of the base models.
        device: where they are computed: "cpu", "cuda" or "cuda:1".
        threads: how many threads compute.
        token: what clients must send as `X-API-Key`.
        model: a base model to load before anyone asks.
        body_bytes: how long a request may be.
    """

    root: Path = attrs.field(factory=_default_root, converter=_path)
    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=whole(0, 65535, error=EngineError, fix=_FIX))
    dtype: str = attrs.field(
        default="float32", validator=one_of(("float32", "bfloat16"), error=EngineError, fix=_FIX)
    )
    device: str = attrs.field(default="cpu", validator=_good_device)
    threads: int = attrs.field(factory=default_threads, validator=whole(1, 4096, error=EngineError, fix=_FIX))
    token: str = attrs.field(factory=new_token, repr=False, validator=_good_token)
    model: str | None = None
    body_bytes: int = 256 * 2**20


def compute_environment(threads: int) -> dict[str, str]:
    """Return the environment that the compute libraries read when they are loaded.

    Threads that wait must soon sleep: spinning ones, on cores that others use too, slow decoding tenfold. But
    waking one takes as long as a small product, so each spins for some microseconds first, unless the user
    sets a policy.

    oneDNN makes a kernel for every number of rows, a third of a megabyte each, of which it and torch would
    keep 1,024: hundreds of megabytes after a while of sampling. With 256 it samples as fast.

    glibc gives activations back to the kernel as soon as they are freed, and gets them again page by page,
    each cleared: up to a tenth of a training step. So a gigabyte of it is kept, and lies in large pages.
    """
    malloc = {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that glibc takes
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        **({} if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) else {"GOMP_SPINCOUNT": _SPINS}),
        "KMP_BLOCKTIME": os.environ.get("KMP_BLOCKTIME", "0"),
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256"),
        "LRU_CACHE_CAPACITY": os.environ.get("LRU_CACHE_CAPACITY", "256"),  # torch's own of the same kernels
        "TOKENIZERS_PARALLELISM": "false",
        **{name: os.environ.get(name, value) for name, value in malloc.items()},
    }


def context(config: Mapping[str, Any]) -> int | None:
    """Return the longest sequence that the content of a `config.json` allows; None where it names none.

    With "longrope" it is what the short factors serve: beyond, all earlier positions would turn otherwise.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    original = rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if original and "longrope" in {rope.get("rope_type"), rope.get("type")}:
        return int(original)
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((int(config[name]) for name in names if config.get(name)), None)
