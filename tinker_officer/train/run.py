"""Run: what to train and how, as a value; `start` is the one verb that acts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._text import count, duration, table
from tinker_officer.errors import RunError
from tinker_officer.train import objectives
from tinker_officer.train.budget import Budget
from tinker_officer.train.methods import Methods
from tinker_officer.train.schedule import Schedule
from tinker_officer.train.settings import NO_NUMBER, Adam, EarlyStop, Evaluation, Pipeline, Saving
from tinker_officer.train.spikes import SpikeGuard


if TYPE_CHECKING:
    from tinker_officer._service import On
    from tinker_officer.data.conversations import Conversations
    from tinker_officer.train.estimate import Estimate
    from tinker_officer.train.live import LiveRun
    from tinker_officer.train.sinks import SinkLike

_KIND = "tinker_officer.Run"
_FORMAT = 1
_FIELDS = (
    "name", "plan", "objective", "schedule", "optimizer", "checkpoint", "evaluation", "early_stop",
    "guard", "budget", "pipeline", "data_seed",
)  # fmt: skip


@attrs.frozen(repr=False)
class Run(Methods):
    """A fine-tuning run, declared once: a value that holds no client, no file and no clock.

    Every method returns a changed copy; `start` trains.

    Args:
        plan: a `LoRAPlan` with an objective; its data is what is trained on.
        name: names the run and its checkpoints.
        objective: what is minimised, by default what the plan asks for; `sft(...)`, `rl(...)` and
            `distill(...)` change it.
        given: what is trained on, where the plan has no data of its own: a cookbook dataset, or
            environments.
        origin: the saved state that training starts from, if any; `start_from(...)` changes it.
        decay: how the learning rate moves; `schedule(...)` changes it.
        adam: the optimizer; `optimizer(...)` changes it.
        saving: when checkpoints are saved; `checkpoint(...)` changes it.
        evaluation: the inline evaluation, if any; `evaluate(...)` changes it.
        early_stop: when to stop before the end, if ever; `stop_early(...)` changes it.
        spikes: what is done about a loss spike, if anything; `guard(...)` changes it.
        limits: what the run may use; `budget(...)` changes it.
        submission: how far the loop runs ahead of the server; `pipeline(...)` changes it.
        data_seed: what the data order follows from; None is the plan's seed.
    """

    def estimate(self, *, on: On) -> Estimate:
        """Return how long the training will take on this service: one batch is timed, nothing is kept.

        Raises:
            RunError: the plan has no data.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.train.estimate import estimate

        return estimate(self, on=on)

    def start(
        self, on: On, at: str | Path, *, progress: bool | None = None, sinks: Iterable[SinkLike] = ()
    ) -> LiveRun:
        """Train; in a folder that has begun, go on from its last checkpoint; in one that is done, do nothing.

        Args:
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            at: the run's folder, made if it is not there.
            progress: show progress (None: yes).
            sinks: where metrics go besides `metrics.jsonl`, such as `sinks.tensorboard()`.

        Returns:
            The run as it goes: iterate its steps, ask for its `result()`, or `cancel()` it.

        Raises:
            RunError: the plan has no data, the folder belongs to another run or is in use, or a metric
                was named that the suite does not report.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.train.live import LiveRun

        return LiveRun.start(self, on=on, at=Path(at), progress=progress, sinks=sinks)

    def run(
        self, on: On, at: str | Path, *, progress: bool | None = None, sinks: Iterable[SinkLike] = ()
    ) -> Any:
        """Train to the end and return the `RunResult`; `start` with nothing to watch."""
        with self.start(on, at, progress=progress, sinks=sinks) as live:
            return live.result()

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON values; the data stays outside, its fingerprint is in the plan."""
        evaluation = None
        if self.evaluation is not None:
            suite = json.loads(self.evaluation.suite.to_json())
            evaluation = {
                "suite": suite,
                "every": self.evaluation.every,
                "layers": list(self.evaluation.layers),
                "beside": self.evaluation.beside,
            }
        began = {} if self.origin is None else {"start_from": self.origin}
        return {
            "kind": _KIND,
            "format": _FORMAT,
            "name": self.name,
            "plan": self.plan.to_dict(),
            "objective": objectives.to_dict(self.objective),
            "schedule": attrs.asdict(self.decay),
            "optimizer": attrs.asdict(self.adam),
            "checkpoint": attrs.asdict(self.saving),
            "evaluation": evaluation,
            "early_stop": attrs.asdict(self.early_stop) if self.early_stop else None,
            "guard": attrs.asdict(self.spikes) if self.spikes else None,
            "budget": attrs.asdict(self.limits),
            "pipeline": attrs.asdict(self.submission),
            "data_seed": self.data_seed,
            **began,
        }

    def to_json(self) -> str:
        """Return the run as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    @property
    def digest(self) -> str:
        """What the run is, in 64 hexadecimal digits; budget and pipeline are not in it."""
        return digest({key: value for key, value in self.to_dict().items() if key not in NO_NUMBER})

    @classmethod
    def from_dict(
        cls,
        spec: dict[str, Any],
        *,
        data: Any = None,
        held_out: Conversations | Mapping[str, Conversations] | None = None,
    ) -> Self:
        """Return the run that `to_dict` wrote.

        Args:
            spec: what `to_dict` returned.
            data: what to train on, as the plan or the run was given it; without it the run can be read, but
                not started.
            held_out: the conversations of the suite, as `EvalSuite.from_json` takes them.

        Raises:
            RunError: it is not a run.
            PlanError: `data` is not what was planned for.
        """
        missing = [field for field in _FIELDS if field not in spec]
        if spec.get("kind") != _KIND or spec.get("format") != _FORMAT or missing:
            without = f", without {', '.join(missing)}" if missing else ""
            raise RunError(
                "this is not a run",
                got=f"kind {spec.get('kind')!r}, format {spec.get('format')!r}{without}",
                need=f"kind {_KIND!r}, format {_FORMAT}, whole",
                fix="Run.from_json(run.to_json(), data=train)",
            )
        from tinker_officer.plan.plan import LoRAPlan

        planned = data if hasattr(data, "fingerprint") else None
        asked = spec["evaluation"]
        evaluation = None
        if asked is not None:
            from tinker_officer.evals.suite import EvalSuite

            suite = EvalSuite.from_json(json.dumps(asked["suite"]), data=held_out)
            evaluation = Evaluation(suite, **{key: asked[key] for key in ("every", "layers", "beside")})
        return cls(
            LoRAPlan.from_dict(spec["plan"], data=planned),
            name=spec["name"],
            objective=objectives.from_dict(spec["objective"]),
            given=None if planned is not None else data,
            origin=spec.get("start_from"),
            decay=Schedule.from_dict(spec["schedule"]),
            adam=Adam(**spec["optimizer"]),
            saving=Saving(**spec["checkpoint"]),
            evaluation=evaluation,
            early_stop=EarlyStop(**spec["early_stop"]) if spec["early_stop"] else None,
            spikes=SpikeGuard(**spec["guard"]) if spec["guard"] else None,
            limits=Budget(**spec["budget"]),
            submission=Pipeline(**spec["pipeline"]),
            data_seed=spec["data_seed"],
        )

    @classmethod
    def from_json(
        cls,
        text: str,
        *,
        data: Any = None,
        held_out: Conversations | Mapping[str, Conversations] | None = None,
    ) -> Self:
        """Return the run that `to_json` wrote; see `from_dict`.

        Raises:
            RunError: it is not a run.
            PlanError: `data` is not what was planned for.
        """
        try:
            spec = json.loads(text)
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            raise RunError(
                "this is not a run",
                got=repr(text[:80]),
                need="what Run.to_json() writes",
                fix="Run.from_json(run.to_json(), data=train)",
            )
        return cls.from_dict(spec, data=data, held_out=held_out)

    def explain(self) -> str:
        """Return what will be done, as text."""
        plan, steps = self.plan, self.plan.steps
        every = self.saving.interval(steps)
        rows: list[tuple[str, object]] = [
            ("base model", plan.base_model),
            ("adapter", f"LoRA rank {plan.rank}, seed {plan.seed}"),
            ("starts from", self.origin or "a fresh adapter"),
            ("data", self._amount()),
            ("order", f"shuffled by seed {self.order_seed} each epoch"),
            ("steps", f"{steps} of batch {plan.batch_size}, {plan.epochs} epochs"),
            ("loss", self.objective.describe()),
            ("learning rate", f"{plan.learning_rate:g} at the peak, {self.decay}"),
            ("optimizer", ", ".join(f"{key} {value:g}" for key, value in attrs.asdict(self.adam).items())),
            ("checkpoints", f"every {every} steps, {_kept(self.saving.keep, self.saving.ttl_s)}"),
        ]
        if self.evaluation is not None:
            often = f", every {self.evaluation.every} steps" if self.evaluation.every else ""
            layers = ", ".join(self.evaluation.layers)
            beside = ", beside training" if self.evaluation.beside else ""
            rows.append(("evaluated", f"before the first step{often} and after the last{beside}: {layers}"))
        if self.early_stop is not None:
            patience = self.early_stop.patience
            rows.append(("stops early", f"when {self.early_stop.on} has not improved {patience} times"))
        if self.spikes is not None:
            rows.append(("loss spikes", str(self.spikes)))
        if self.limits != Budget():
            rows.append(("budget", str(self.limits)))
        rows.append(("submits ahead", f"{self.submission.depth} steps"))
        return f"Run {self.name!r}\n" + table([("  " + label, text) for label, text in rows])

    def _amount(self) -> str:
        objective: Any = self.plan.objective
        if hasattr(objective.counts, "episodes"):
            return f"{count(objective.counts.episodes)} episodes, in groups of {objective.counts.group_size}"
        if hasattr(objective.counts, "pairs"):
            return f"{count(objective.counts.pairs)} pairs"
        return (
            f"{count(objective.counts.examples)} examples, {count(objective.counts.trained)} trained tokens"
        )

    def __str__(self) -> str:
        return self.explain()

    def __repr__(self) -> str:
        return f"Run({self.plan!r}, name={self.name!r})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.explain())}</pre>"


def _kept(keep: int | None, ttl_s: int | None) -> str:
    kept = "all kept" if keep is None else f"the newest {keep}, the best and the last kept"
    return kept if ttl_s is None else f"{kept}, for {duration(ttl_s)} unless best or last"
