"""RunResult: what came of a run, read back from its folder at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._text import table
from tinker_officer.errors import RunError
from tinker_officer.train import guards
from tinker_officer.train.checkpoints import Checkpoint, CheckpointLog
from tinker_officer.train.folder import RunFolder, merged
from tinker_officer.train.settings import NO_NUMBER


@attrs.frozen(repr=False)
class RunResult:
    """What came of a run.

    Args:
        name: the run's name.
        base_model: the model under the adapter.
        folder: where the run's files lie.
        plan: the plan, as JSON values.
        spec: the whole run, as JSON values.
        spec_digest: what the run is; equal to `Run.digest`.
        data: what was trained on: source, rows, fingerprint.
        steps: optimizer steps done.
        metrics: the last value of every metric.
        best: the best checkpoint by the run's metric; the final one where nothing was evaluated.
        last: the newest checkpoint.
        final: the checkpoint at the end of the run; the newest where it has not ended.
        checkpoints: all that stand, by step.
        stopped: `completed`, why it stopped early, `cancelled`, or `unfinished`.
        engine: versions of what trained.
        renderer_name: how conversations were written in tokens.
        training_fingerprint: equal for two runs that compute the same weights: base model, adapter, data
            and its order, hyperparameters, renderer and tokenizer.

    Example:
        >>> RunResult.open(result.folder).stopped
        'completed'
    """

    name: str
    base_model: str
    folder: Path
    plan: dict[str, Any]
    spec: dict[str, Any]
    spec_digest: str
    data: dict[str, Any]
    steps: int
    metrics: dict[str, Any]
    best: Checkpoint
    last: Checkpoint
    final: Checkpoint
    checkpoints: tuple[Checkpoint, ...]
    stopped: str
    engine: dict[str, Any]
    renderer_name: str
    training_fingerprint: str

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Return the result of the run in `folder`, also of one that has not ended.

        Raises:
            RunError: it is no run's folder, or nothing was saved in it yet.
        """
        files = RunFolder(Path(folder))
        spec = files.read_spec()
        if spec is None or not spec.keys() >= {"run", "data", "identity"}:
            raise RunError(
                "this is not a run's folder",
                got=f"{files.path}, which has no spec.json" + (" of a run" if spec is not None else ""),
                need="the folder that run.start(at=...) was given",
                fix="RunResult.open('runs/tickets-r16')",
            )
        run, identity = spec["run"], spec["identity"]
        rows = merged(record for record in files.metrics if "step" in record)
        by_step = {row["step"]: {key: value for key, value in row.items() if key != "step"} for row in rows}
        saves = CheckpointLog(files.checkpoints).all()
        checkpoints = tuple(
            Checkpoint(
                step=saved.step,
                state_path=saved.state_path,
                sampler_path=saved.sampler_path,
                base_model=run["plan"]["base_model"],
                renderer_name=identity["renderer_name"],
                metrics=by_step.get(saved.step, {}),
            )
            for saved in saves
        )
        if not checkpoints:
            raise RunError(
                "the run has saved nothing yet",
                got=f"{files.path}, without a checkpoint",
                need="a run that has reached its first checkpoint",
                fix=f"run.start(on=engine, at={str(files.path)!r})",
            )
        ended = files.read_result() or {"stopped": "unfinished"}
        attempts = [record for record in files.ledger if "attempt" in record and "step" not in record]
        latest: dict[str, Any] = {}
        for values in by_step.values():
            latest.update(values)
        return cls(
            name=run["name"],
            base_model=run["plan"]["base_model"],
            folder=files.path,
            plan=run["plan"],
            spec=run,
            spec_digest=digest({key: value for key, value in run.items() if key not in NO_NUMBER}),
            data=spec["data"],
            steps=ended.get("steps", max(by_step, default=0)),
            metrics=latest,
            best=_best(checkpoints, run, files),
            last=checkpoints[-1],
            final=checkpoints[-1],
            checkpoints=checkpoints,
            stopped=ended["stopped"],
            engine=dict(attempts[-1]["versions"]) if attempts else {},
            renderer_name=identity["renderer_name"],
            training_fingerprint=digest(
                {"identity": identity, "data": spec["data"]["order"], "run": _training(run)}
            ),
        )

    def history(self) -> list[dict[str, Any]]:
        """Return one record a step, by step, evaluations merged into theirs; step 0 is before training."""
        return merged(record for record in RunFolder(self.folder).metrics if "step" in record)

    def report(self, path: str | Path, *, cards: Sequence[Any] = (), verdict: Any = None) -> Path:
        """Write the run as one HTML file and return its path.

        Args:
            path: the file to write.
            cards: scorecards to show, earlier ones first.
            verdict: a gate's verdict to show.
        """
        from tinker_officer.report.html import write

        return Path(write(path, self, cards=cards, verdict=verdict))

    def explain(self) -> str:
        """Return what came of the run, as text."""
        figures = [(f"  {key}", f"{value:.6g}") for key, value in self.metrics.items() if _is_number(value)]
        rows = [
            ("  base model", self.base_model),
            ("  data", f"{self.data['source']}, {self.data['rows']} rows"),
            ("  steps", f"{self.steps}, {self.stopped}"),
            ("  best", f"step {self.best.step}, {self.best.sampler_path or self.best.state_path}"),
            ("  final", f"step {self.final.step}, {self.final.sampler_path or self.final.state_path}"),
            ("  folder", str(self.folder)),
        ]
        return f"Result of {self.name!r}\n{table(rows)}\nlast metrics\n{table(figures)}"

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        return f"<RunResult {self.name!r}: {self.steps} steps, {self.stopped}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _training(run: dict[str, Any]) -> dict[str, Any]:
    """Return what of a run decides its weights: not its name, nor what is watched meanwhile."""
    plan = run["plan"]
    asked = {key: plan["objective"].get(key) for key in ("epochs", "max_length", "train_on", "too_long")}
    numbers = {key: plan["computed"][key] for key in ("rank", "learning_rate", "batch_size", "steps")}
    layers = {key: plan[key] for key in ("base_model", "seed", "train_mlp", "train_attn", "train_unembed")}
    numbers_of = ("objective", "schedule", "optimizer", "data_seed", "early_stop", "guard")
    method = {key: run[key] for key in numbers_of}
    began = {key: run[key] for key in ("start_from",) if key in run}
    return {**asked, **numbers, **layers, **method, **began}


def _best(checkpoints: tuple[Checkpoint, ...], run: dict[str, Any], files: RunFolder) -> Checkpoint:
    """Return the best checkpoint that can be sampled from; the newest where nothing was evaluated."""
    directions = _directions(files, [checkpoint.step for checkpoint in checkpoints])
    named = run["checkpoint"]["best"] or (run["early_stop"] or {}).get("on")
    metric = named or next(iter(directions), None)
    candidates = {one.step: one for one in checkpoints if one.sampler_path and metric in one.metrics}
    step = guards.best(
        [(step, float(one.metrics[metric])) for step, one in candidates.items() if metric is not None],
        higher_is_better=directions.get(metric or "", False),
    )
    return checkpoints[-1] if step is None else candidates[step]


def _directions(files: RunFolder, steps: Sequence[int]) -> dict[str, bool]:
    """Return which metrics are better when higher, in the suite's order, from the first card there is."""
    from tinker_officer.evals.scorecard import Scorecard

    for step in steps:
        if files.card_path(step).exists():
            card = Scorecard.load(files.card_path(step))
            return {f"{result.name}/{result.metric}": result.higher_is_better for result in card.evals}
    return {}
