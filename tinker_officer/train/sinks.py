"""Where metrics go besides `metrics.jsonl`: W&B, trackio, MLflow, TensorBoard, or any logger of the cookbook.

    run.start(on=engine, at="runs/mine", sinks=[sinks.tensorboard(), sinks.wandb("tickets")])

Nothing is imported unless it is asked for. A sink works on a thread of its own, so a slow one keeps nobody
waiting; one that fails is named once in the log and left, and the run goes on: the file has everything.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs

from tinker_officer.errors import RunError


if TYPE_CHECKING:
    from tinker_officer.train.run import Run

logger = logging.getLogger(__name__)
_CLOSE_S = 20.0  # how long a run's end waits for its sinks, all together


class MetricLogger(Protocol):
    """What metrics are given to; the cookbook's loggers are such."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Take the metrics of one step."""


@attrs.frozen
class Sink:
    """A place for metrics, which is opened when the run starts.

    Args:
        name: what the log calls it.
        open: returns its logger, for a run and its folder; called on the sink's own thread.
    """

    name: str
    open: Callable[[Run, Path], MetricLogger] = attrs.field(repr=False)


SinkLike: TypeAlias = Sink | MetricLogger


def wandb(project: str, *, name: str | None = None) -> Sink:
    """Return a sink that logs to Weights & Biases, through the cookbook's logger.

    Args:
        project: the project.
        name: of the run there; None takes the run's own.

    Raises:
        RunError: `wandb` is not installed.
    """
    return _cookbooks("wandb", "WandbLogger", project, name)


def trackio(project: str, *, name: str | None = None) -> Sink:
    """Return a sink that logs to trackio, through the cookbook's logger.

    Args:
        project: the project.
        name: of the run there; None takes the run's own.

    Raises:
        RunError: `trackio` is not installed.
    """
    return _cookbooks("trackio", "TrackioLogger", project, name)


def mlflow(experiment: str, *, tracking_uri: str | None = None) -> Sink:
    """Return a sink that logs to MLflow.

    Args:
        experiment: its name; made when it is not there.
        tracking_uri: the server, or a database such as `sqlite:///mlflow.db`; None takes MLflow's own
            setting.

    Raises:
        RunError: `mlflow` is not installed.
    """
    _needs("mlflow", "mlflow-skinny")
    return Sink("mlflow", lambda run, _folder: _MLflow(run, experiment, tracking_uri))


def tensorboard(folder: str | Path | None = None) -> Sink:
    """Return a sink that writes TensorBoard's event files.

    Args:
        folder: where; None takes `tensorboard/` in the run's folder.

    Raises:
        RunError: `tensorboardX` is not installed.
    """
    _needs("tensorboardX", "tensorboardX")
    return Sink("tensorboard", lambda _run, own: _TensorBoard(Path(folder or own / "tensorboard")))


def _cookbooks(module: str, kind: str, project: str, name: str | None) -> Sink:
    """Return a sink that logs through one of the cookbook's loggers, which all are made alike."""
    _needs(module, module)

    def opened(run: Run, folder: Path) -> MetricLogger:
        from tinker_cookbook.utils import ml_log

        log: MetricLogger = getattr(ml_log, kind)(project, run.to_dict(), folder, name or run.name)
        return log

    return Sink(module, opened)


class _MLflow:
    """One MLflow run, through its client: no active run of the user's is touched."""

    def __init__(self, run: Run, experiment: str, tracking_uri: str | None) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number, run_name=run.name).info.run_id
        self._client.log_dict(self._id, run.to_dict(), "spec.json")

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log one step in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(key, value, now, step or 0) for key, value in metrics.items()]
        self._client.log_batch(self._id, metrics=rows)

    def close(self) -> None:
        """End the run there."""
        self._client.set_terminated(self._id)


class _TensorBoard:
    """TensorBoard's event files."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write one step."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Outlet:
    """Gives a run's metrics to one sink, on a thread of its own, until it fails."""

    def __init__(self, sink: SinkLike, run: Run, folder: Path) -> None:
        self._sink = sink if isinstance(sink, Sink) else Sink(type(sink).__name__, lambda *_: sink)
        self._run, self._folder, self._given = run, folder, sink
        self._queue: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"sink-{self._sink.name}", daemon=True)
        self._thread.start()

    def put(self, step: int, metrics: dict[str, Any]) -> None:
        """Hand over the metrics of one step; return at once."""
        if not self._failed:
            self._queue.put((step, metrics))

    def close(self, wait_s: float) -> None:
        """Let the sink finish, and wait no longer than `wait_s` for it."""
        self._queue.put(None)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            logger.warning("sink.slow: %s had not finished after %.0f s", self._sink.name, wait_s)

    def _work(self) -> None:
        try:
            log = self._sink.open(self._run, self._folder)
            while (item := self._queue.get()) is not None:
                step, metrics = item
                log.log_metrics(metrics, step)
            close = getattr(log, "close", None)
            if close is not None and log is not self._given:  # what a user opened, the user closes
                close()
        except Exception as error:  # noqa: BLE001 - whatever it is, no run stops for it
            self._failed = True
            logger.warning(
                "sink.failed: %s gets no more metrics of this run (metrics.jsonl has them): %r",
                self._sink.name,
                error,
                extra={"officer.sink": self._sink.name},
            )


class Outlets:
    """All sinks of a run."""

    def __init__(self, sinks: Iterable[SinkLike], run: Run, folder: Path) -> None:
        self._outlets = [Outlet(sink, run, folder) for sink in sinks]

    def put(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand the numbers among the metrics of one step to every sink."""
        if self._outlets:
            numbers = {key: float(value) for key, value in metrics.items() if _is_number(value)}
            for outlet in self._outlets:
                outlet.put(step, numbers)

    def close(self) -> None:
        """Let the sinks finish, within twenty seconds."""
        end = time.monotonic() + _CLOSE_S
        for outlet in self._outlets:
            outlet.close(max(0.0, end - time.monotonic()))


def check(sinks: Iterable[Any]) -> tuple[SinkLike, ...]:
    """Return `sinks`, each of which is one.

    Raises:
        RunError: one is not.
    """
    given = tuple(sinks)
    for sink in given:
        if not isinstance(sink, Sink) and not hasattr(sink, "log_metrics"):
            raise RunError(
                "this is no sink for metrics",
                got=repr(sink),
                need="one of tinker_officer.sinks, or an object with log_metrics(metrics, step)",
                fix='run.start(on=engine, at="runs/mine", sinks=[sinks.tensorboard()])',
            )
    return given


def _needs(module: str, package: str) -> None:
    if find_spec(module) is None:
        raise RunError(
            f"{package} is not installed",
            got=f"a sink for {module}, and no such package",
            need=f"the package {package}",
            fix=f"pip install {package}",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
