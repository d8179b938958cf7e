"""A sweep's trials as tasks of a Ray cluster: `sweep.run(..., executor="ray")`, extra `ray`.

A task gets one trial, and trains it in its folder as a thread would; the folder and the data must be at the
same path on every machine. A task whose worker dies is run again, and resumes the trial.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinker_officer.errors import OfficerError, RunError
from tinker_officer.train.trial import Standing, SweepTrial, advance


if TYPE_CHECKING:
    from tinker_officer._service import On

_RETRIES = 10


def on_ray(
    on: On, folder: Path, metric: str, *, at_once: int
) -> Callable[[Sequence[SweepTrial], int, float], Iterator[tuple[SweepTrial, Standing]]]:
    """Return what takes trials up to a rung on Ray, and yields where each stands, as they come.

    Args:
        on: a `LocalEngine` that the machines reach, or a base URL (its key is read from `TINKER_API_KEY`).
        folder: the sweep's folder.
        metric: what trials are judged by.
        at_once: trials that train at the same time.

    Raises:
        RunError: Ray is not installed, or the address of the service is not known.
    """
    try:
        ray: Any = importlib.import_module("ray")  # an extra: it may not be here
    except ImportError as error:
        raise RunError(
            "Ray is not installed",
            got=str(error),
            need="the extra 'ray'",
            fix='pip install "tinker-officer[ray]"',
        ) from error
    url, key = _address(on)
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_task)

    def work(trials: Sequence[SweepTrial], rung: int, share: float) -> Iterator[tuple[SweepTrial, Standing]]:
        left, waiting = list(trials), dict[Any, SweepTrial]()
        try:
            while left or waiting:
                while left and len(waiting) < at_once:
                    trial = left.pop(0)
                    reference = task.remote(
                        trial, str((folder / trial.id).resolve()), url, key, rung, share, metric
                    )
                    waiting[reference] = trial
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                standing = ray.get(done)
                yield waiting.pop(done), standing
        except Exception as error:
            cause = getattr(error, "cause", None)  # Ray wraps what a task raises
            if isinstance(cause, OfficerError):
                raise cause from None
            raise
        finally:
            for each in waiting:
                ray.cancel(each, force=True)

    return work


def _address(on: On) -> tuple[str, str | None]:
    if isinstance(on, str):
        return on, os.environ.get("TINKER_API_KEY")
    if hasattr(on, "base_url") and hasattr(on, "token"):
        return str(on.base_url), str(on.token)
    raise RunError(
        "a client cannot be sent to other machines",
        got=repr(on),
        need="a base URL, or a LocalEngine",
        fix='sweep.run(on="https://host:port", at="/shared/sweep", executor="ray")',
    )


def _task(
    trial: SweepTrial, folder: str, url: str, key: str | None, rung: int, share: float, metric: str
) -> Standing | None:
    """Advance one trial; runs in a worker."""
    import tinker

    service = tinker.ServiceClient(base_url=url, api_key=key)
    return advance(trial, Path(folder), service, rung=rung, share=share, metric=metric)
