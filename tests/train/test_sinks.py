"""Sinks: metrics go where they are asked to, and no sink stops a run."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import LocalEngine, Run, sinks
from tinker_officer.errors import RunError


MakeRun = Callable[..., Run]


def scalars(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Read TensorBoard's event files: length, checksum, protobuf, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                yield event.step, value.tag, value.simple_value


def test_tensorboard_gets_every_number(make_run: MakeRun, engine: LocalEngine, tmp_path: Path) -> None:
    """The event files hold each step's loss as `metrics.jsonl` has it, to float32."""
    result = make_run(epochs=1).run(
        on=engine, at=tmp_path / "run", progress=False, sinks=[sinks.tensorboard()]
    )
    losses = [
        (step, value) for step, tag, value in scalars(tmp_path / "run/tensorboard") if tag == "train/mean_nll"
    ]
    assert losses == [
        (record["step"], pytest.approx(record["train/mean_nll"], rel=1e-6)) for record in result.history()
    ]


def test_wandb_keeps_a_run_offline(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, W&B's own file in the run's folder is there, and no sink has failed."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = make_run(count=8, epochs=1).run(
        on=engine, at=tmp_path / "run", progress=False, sinks=[sinks.wandb("tickets")]
    )
    (kept,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    written = kept.read_bytes()
    assert b"train/mean_nll" in written
    assert f"{result.metrics['train/mean_nll']:.10f}"[:10].encode() in written


def test_mlflow_gets_every_number(make_run: MakeRun, engine: LocalEngine, tmp_path: Path) -> None:
    """A database has each step's loss, and the run is ended there."""
    tracking = pytest.importorskip("mlflow.tracking")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    result = make_run(epochs=1).run(
        on=engine, at=tmp_path / "run", progress=False, sinks=[sinks.mlflow("tickets", tracking_uri=uri)]
    )
    client = tracking.MlflowClient(uri)
    (kept,) = client.search_runs([client.get_experiment_by_name("tickets").experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("sums", "FINISHED")
    losses = client.get_metric_history(kept.info.run_id, "train/mean_nll")
    assert [(one.step, one.value) for one in losses] == [
        (record["step"], record["train/mean_nll"]) for record in result.history()
    ]


def test_trackio_gets_every_number(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database has each step's loss."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    result = make_run(epochs=1).run(
        on=engine, at=tmp_path / "run", progress=False, sinks=[sinks.trackio("tickets")]
    )
    losses = [row["train/mean_nll"] for row in SQLiteStorage.get_logs("tickets", "sums")]
    assert losses == [record["train/mean_nll"] for record in result.history()]


class Slow:
    """A logger as the cookbook's are, which is given everything and keeps nobody waiting."""

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, dict[str, Any]]] = []
        self.go = threading.Event()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        assert self.go.wait(30)
        self.seen.append((step, metrics))


def test_a_slow_logger_of_ones_own_gets_everything(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """Any object with log_metrics is a sink, and the run does not wait for it to take a step."""
    slow = Slow()
    with make_run(epochs=1).start(on=engine, at=tmp_path / "run", progress=False, sinks=[slow]) as live:
        steps = []
        for step in live:
            steps.append(step.index)
            if step.index == 6:
                assert slow.seen == []
                slow.go.set()
    assert [step for step, _ in slow.seen] == steps == [1, 2, 3, 4, 5, 6]
    assert all(isinstance(value, float) for _, metrics in slow.seen for value in metrics.values())


class Broken:
    """A logger that fails at the third step."""

    def log_metrics(self, _metrics: dict[str, Any], step: int | None = None) -> None:
        if step == 3:
            raise OSError("no route to host")


def test_a_sink_that_fails_is_named_once_and_stops_nothing(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends as without it, and the log says once which sink failed and why."""
    with caplog.at_level(logging.WARNING, logger="tinker_officer.train.sinks"):
        result = make_run(epochs=2).run(on=engine, at=tmp_path / "run", progress=False, sinks=[Broken()])
    assert result.stopped == "completed"
    assert len(result.history()) == 12
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("sink.failed: Broken gets no more metrics of this run (metrics.jsonl has them)")
    assert said.endswith("OSError('no route to host')")


def test_what_cannot_take_metrics_is_refused_at_the_start(
    make_run: MakeRun, engine: LocalEngine, tmp_path: Path
) -> None:
    """A word is no sink, and the folder is not begun."""
    with pytest.raises(RunError, match="this is no sink for metrics"):
        make_run(count=4).start(on=engine, at=tmp_path / "run", sinks=["wandb"])
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_said_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the sink itself is refused, with the line that installs it."""
    monkeypatch.setattr(sinks, "find_spec", lambda _name: None)
    for make in (sinks.wandb, sinks.trackio, sinks.mlflow):
        with pytest.raises(RunError, match="is not installed"):
            make("project")
    with pytest.raises(RunError, match="pip install tensorboardX"):
        sinks.tensorboard()
