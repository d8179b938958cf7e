"""Run: what to train and how, as a value; `start` is the one verb that acts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._fields import whole
from tinker_officer._text import count, duration, table
from tinker_officer.errors import RunError
from tinker_officer.plan.schedule import Schedule
from tinker_officer.train import objectives
from tinker_officer.train.budget import Budget, check_price
from tinker_officer.train.distill import Distill
from tinker_officer.train.evaluating import check_metrics
from tinker_officer.train.objectives import Known
from tinker_officer.train.rl import Rl
from tinker_officer.train.settings import NO_NUMBER, Adam, EarlyStop, Evaluation, Pipeline, Saving
from tinker_officer.train.sft import Sft
from tinker_officer.train.spikes import SpikeGuard


if TYPE_CHECKING:
    from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset
    from tinker_cookbook.supervised.types import SupervisedDataset

    from tinker_officer._service import On
    from tinker_officer.data.conversations import Conversations
    from tinker_officer.plan.plan import LoRAPlan
    from tinker_officer.train.estimate import Estimate
    from tinker_officer.train.live import LiveRun
    from tinker_officer.train.sinks import SinkLike

_KIND = "tinker_officer.Run"
_FORMAT = 1
_FIELDS = (
    "name", "plan", "objective", "schedule", "optimizer", "checkpoint", "evaluation", "early_stop",
    "guard", "budget", "pipeline", "data_seed",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONSTANT = Schedule("constant", warmup=0.0)
_NEEDS = {"rl": ", and environments", "distill": ", and prompts"}
_FIXES = {
    "rl": 'Run(plan, name="mine").rl(groups, max_tokens=256)',
    "distill": 'Run(plan, name="mine").distill(prompts, teacher="Qwen/Qwen3-8B", max_tokens=256)',
}


def _named(_instance: Any, _attribute: Any, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RunError(
            "the run's name cannot name its checkpoints",
            got=repr(name),
            need="1 to 64 letters, digits, '.', '_' or '-', a letter or digit first",
            fix='Run(plan, name="tickets-r16")',
        )


def _planned(_instance: Any, _attribute: Any, plan: Any) -> None:
    if not (hasattr(plan, "to_dict") and hasattr(plan, "learning_rate")):
        raise RunError(
            "a run needs a plan",
            got=repr(plan),
            need="a LoRAPlan with an objective",
            fix='Run(LoRAPlan.for_(base_model).sft(train), name="mine")',
        )
    _ = plan.steps  # a plan without data says so here, not in forty minutes


@attrs.frozen(repr=False)
class Run:
    """A fine-tuning run, declared once: a value that holds no client, no file and no clock.

    Every method returns a changed copy; `start` trains.

    Args:
        plan: a `LoRAPlan` with an objective; its data is what is trained on.
        name: names the run and its checkpoints.
        objective: what is minimised, by default what the plan asks for; `sft(...)`, `rl(...)` and
            `distill(...)` change it.
        given: what is trained on, where the plan has no data of its own: a cookbook dataset, or
            environments.
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

    plan: LoRAPlan = attrs.field(validator=_planned)
    name: str = attrs.field(validator=_named, kw_only=True)
    objective: Known = attrs.field(
        default=attrs.Factory(lambda run: objectives.of_plan(run.plan), takes_self=True), kw_only=True
    )
    given: Any = attrs.field(default=None, kw_only=True, eq=False)
    decay: Schedule = attrs.field(factory=Schedule, kw_only=True)
    adam: Adam = attrs.field(factory=Adam, kw_only=True)
    saving: Saving = attrs.field(factory=Saving, kw_only=True)
    evaluation: Evaluation | None = attrs.field(default=None, kw_only=True)
    early_stop: EarlyStop | None = attrs.field(default=None, kw_only=True)
    spikes: SpikeGuard | None = attrs.field(default=None, kw_only=True)
    limits: Budget = attrs.field(factory=Budget, kw_only=True)
    submission: Pipeline = attrs.field(factory=Pipeline, kw_only=True)
    data_seed: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(0, 2**64 - 1, error=RunError, fix='Run(plan, name="mine").seed(0)')
        ),
        kw_only=True,
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a metric that the suite does not measure, and a budget that cannot be counted."""
        if self.evaluation is not None:
            check_metrics(self)
        check_price(self)
        if self.spikes is not None and self.objective.method == "rl":
            raise RunError(
                "a guard watches the loss, and RL has none that tells harm from luck",
                got=f"{self.spikes.action!r} for a run that trains on rewards",
                need="a run whose loss is to fall; for RL, an evaluation and stop_early(...)",
                fix='run.evaluate(suite, every=10).stop_early(on="tickets/score")',
            )

    def sft(self, *, reduction: str = "token", data: SupervisedDataset | None = None) -> Self:
        """Return a copy that trains by supervised fine-tuning, replacing any objective.

        Args:
            reduction: `token`, `example` or `sum`: what the loss averages over (see `Sft`).
            data: a cookbook `SupervisedDataset`, where the plan was made from counts.

        Raises:
            RunError: no such reduction.
        """
        return attrs.evolve(self, objective=Sft(reduction), given=data)

    def dpo(self, data: SupervisedDataset) -> Self:
        """Return a copy that trains by DPO on a cookbook dataset, replacing any objective.

        A plan that was made from `Pairs` needs no such call.

        Args:
            data: a cookbook `SupervisedDataset` whose batches hold a chosen and a rejected datum in turn, as
                `DPODatasetBuilderFromComparisons` makes them.
        """
        return attrs.evolve(self, objective=objectives.of_plan(self.plan), given=data)

    def rl(
        self,
        data: RLDataset | Sequence[EnvGroupBuilder],
        *,
        max_tokens: int,
        loss_fn: str = "importance_sampling",
        loss_fn_config: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        kl_penalty_coef: float = 0.0,
        kl_discount_factor: float = 0.0,
        kl_reference: str | None = None,
        remove_constant_reward_groups: bool = True,
        max_steps_off_policy: int = 0,
    ) -> Self:
        """Return a copy that trains on rewards, at a constant rate, replacing objective and schedule.

        Args:
            data: a cookbook `RLDataset`, or a sequence of its group builders, gone over as often as the
                plan's steps ask for; a sequence is shuffled by the run's seed.
            max_tokens: of one answer.
            loss_fn: `importance_sampling`, `ppo`, `cispo`, `gspo` or `dro`.
            loss_fn_config: settings of the loss; the server's own where none is given.
            temperature: of the sampling.
            kl_penalty_coef: how much a nat a token away from the reference costs; 0 asks no reference.
            kl_discount_factor: spreads that cost to the tokens before it.
            kl_reference: a base model, or the path of a sampler; None is the base model of the run.
            remove_constant_reward_groups: leave out groups whose episodes all earned the same.
            max_steps_off_policy: optimizer steps that samples lag behind; 1 samples the next step's
                episodes while this one trains, 0 waits for each.

        Raises:
            RunError: no such loss or setting, or a number out of range.
        """
        objective = Rl(
            loss_fn,
            loss_fn_config or (),
            max_tokens=max_tokens,
            temperature=temperature,
            kl_penalty_coef=kl_penalty_coef,
            kl_discount_factor=kl_discount_factor,
            kl_reference=kl_reference,
            remove_constant_reward_groups=remove_constant_reward_groups,
            max_steps_off_policy=max_steps_off_policy,
        )
        return attrs.evolve(self, objective=objective, given=data, decay=_CONSTANT)

    def distill(
        self,
        data: RLDataset | Sequence[EnvGroupBuilder],
        *,
        teacher: str,
        max_tokens: int,
        loss_fn: str = "importance_sampling",
        loss_fn_config: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        kl_discount_factor: float = 0.0,
        max_steps_off_policy: int = 0,
    ) -> Self:
        """Return a copy that learns from a teacher's opinion of its samples, at a constant rate.

        Replaces objective and schedule. How much that opinion weighs is the plan's:
        `plan.distill(..., kl_penalty_coef=1.0)`.

        Args:
            data: prompts, as environments of the cookbook's; rewards count too, where they give any.
            teacher: a base model or a `tinker://` sampler path, with the student's tokenizer.
            max_tokens: of one answer.
            loss_fn: as in `rl`.
            loss_fn_config: settings of the loss.
            temperature: of the sampling.
            kl_discount_factor: lets a token answer for what follows it too.
            max_steps_off_policy: as in `rl`.

        Raises:
            RunError: no teacher, no such loss or setting, or a number out of range.
        """
        objective = Distill(
            loss_fn,
            loss_fn_config or (),
            max_tokens=max_tokens,
            temperature=temperature,
            kl_penalty_coef=getattr(self.plan.objective, "kl_penalty_coef", 1.0),
            kl_discount_factor=kl_discount_factor,
            max_steps_off_policy=max_steps_off_policy,
            teacher=teacher,
        )
        return attrs.evolve(self, objective=objective, given=data, decay=_CONSTANT)

    def schedule(self, shape: str = "linear", *, warmup: float = 0.03, decay: float = 0.2) -> Self:
        """Return a copy whose learning rate moves like this, replacing any schedule.

        Args:
            shape: after the warm-up, `linear`, `cosine`, `constant`, or `wsd` (warm-up, stable, decay:
                constant, then linear at the end).
            warmup: share of the steps that warm up.
            decay: share of the steps that fall at the end, for `wsd`.

        Raises:
            RunError: no such shape, or a share out of range.
        """
        return attrs.evolve(self, decay=Schedule(shape, warmup=warmup, decay=decay))

    def optimizer(
        self,
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        grad_clip_norm: float = 0.0,
    ) -> Self:
        """Return a copy with these settings of AdamW, replacing all of them.

        Raises:
            RunError: a setting is out of range.
        """
        adam = Adam(
            beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, grad_clip_norm=grad_clip_norm
        )
        return attrs.evolve(self, adam=adam)

    def checkpoint(
        self,
        *,
        every: int | None = None,
        keep: int | None = None,
        best: str | None = None,
        ttl: timedelta | int | None = None,
    ) -> Self:
        """Return a copy that saves like this, replacing any such setting.

        A checkpoint is also saved at every evaluation (it is what is evaluated) and at the end.

        Args:
            every: steps between checkpoints; None saves five times a run.
            keep: how many of the newest stay on the server, beside the best and the last; None keeps all.
            best: the metric that chooses `result.best`; None takes the early-stopping metric, else the
                first one that the suite reports.
            ttl: after how long (a `timedelta`, or seconds) the server may delete a checkpoint, from an hour
                to ten years; None is never. The best and the last are kept for good once the run has ended.

        Raises:
            RunError: a number out of range.
        """
        return attrs.evolve(self, saving=Saving(every=every, keep=keep, best=best, ttl_s=ttl))

    def evaluate(
        self,
        suite: Any,
        *,
        every: int | None = None,
        layers: tuple[str, ...] = ("nll",),
        beside: bool = False,
    ) -> Self:
        """Return a copy that asks `suite` while it trains, replacing any suite.

        It is asked before the first step, every `every` steps and after the last, on a saved checkpoint.

        Args:
            suite: an `EvalSuite`.
            every: steps between evaluations; None asks at both ends only.
            layers: which of its layers to ask; the others wait for `suite.evaluate(result.best, ...)`.
            beside: train on while the saved checkpoint is evaluated. The answer is taken up at the next
                evaluation, always there, so that early stopping stays the same from run to run.

        Raises:
            RunError: a number below 1, or no such layer.
        """
        return attrs.evolve(self, evaluation=Evaluation(suite, every=every, layers=layers, beside=beside))

    def stop_early(self, *, on: str, patience: int = 3) -> Self:
        """Return a copy that stops when `on` no longer improves, replacing any such rule.

        Args:
            on: a metric of the suite, `<eval>/<metric>`, such as `held_out/nll`.
            patience: evaluations in a row without an improvement.

        Raises:
            RunError: `patience` is below 1.
        """
        return attrs.evolve(self, early_stop=EarlyStop(on, patience=patience))

    def guard(
        self, action: str = "skip", *, z: float = 8.0, window: int = 64, lower: float = 0.5, most: int = 3
    ) -> Self:
        """Return a copy that acts when the loss of a batch spikes, replacing any such rule.

        A number that is not finite always stops a run; this is about losses that are finite and far out.

        Args:
            action: `skip` goes back to the last checkpoint and comes on again without the batch;
                `roll_back` goes back and comes on with a lower learning rate; `stop` names the rows.
            z: robust standard deviations (1.4826 times the median absolute deviation) above the median of the
                losses before it that make a spike; judged from the 16th loss on.
            window: how many losses before it are looked at.
            lower: what `roll_back` multiplies the learning rate by, each time.
            most: how often the guard may act before it stops the run.

        Raises:
            RunError: no such action, or a number out of range.
        """
        rule = SpikeGuard(action, z=z, window=window, lower=lower, most=most)
        return attrs.evolve(self, spikes=rule)

    def budget(
        self, *, tokens: int | None = None, money: float | None = None, hours: float | None = None
    ) -> Self:
        """Return a copy that stops, with a checkpoint, when one of these is used up, replacing any budget.

        The same run with a larger budget goes on in the same folder.

        Args:
            tokens: that training reads, prompts included; the step that reaches it is the last.
            money: for training tokens at `plan.price(train=...)`, those of repeated steps included.
            hours: of training, over all attempts.

        Raises:
            RunError: a number is not positive, or money without a price.
        """
        return attrs.evolve(self, limits=Budget(tokens=tokens, money=money, hours=hours))

    def pipeline(self, *, depth: int = 2, stall_warning_s: float = 60.0) -> Self:
        """Return a copy that submits this far ahead, replacing any such setting; no number changes by it.

        Args:
            depth: steps that are submitted before the oldest is waited for; 0 waits for each.
            stall_warning_s: seconds without an answer after which the log says what is waited for.

        Raises:
            RunError: a number is out of range.
        """
        return attrs.evolve(self, submission=Pipeline(depth=depth, stall_warning_s=stall_warning_s))

    def seed(self, seed: int) -> Self:
        """Return a copy whose data order follows from `seed`, replacing the plan's.

        The adapter's first weights follow from `plan.seed`, always.

        Raises:
            RunError: a seed below 0, or of more than 64 bits.
        """
        return attrs.evolve(self, data_seed=seed)

    @property
    def data(self) -> Any:
        """What is trained on: the plan's `Conversations` or `Pairs`, or what the run was given.

        Raises:
            RunError: the plan was made from counts alone, or read back without its data, or it was made for
                another method.
        """
        if not objectives.fits(self.plan.method, self.objective):
            raise RunError(
                "the plan was made for another method than the run trains by",
                got=f"a plan for {self.plan.method}, and an objective for {self.objective.method}",
                need=f"the same in both{_NEEDS.get(self.plan.method, '')}",
                fix=_FIXES.get(self.plan.method, 'Run(plan, name="mine")'),
            )
        if self.given is not None:
            return self.given
        if self.plan.data is None:
            raise RunError(
                "the plan has no data, so there is nothing to train on",
                got=repr(self.plan),
                need="a plan that was made from Conversations or Pairs, or given them again",
                fix=f"Run.from_json(text, data=train), or LoRAPlan.for_(...).{self.plan.method}(train)",
            )
        return self.plan.data

    @property
    def renderer_name(self) -> str:
        """The cookbook renderer: the plan's, else the model's default."""
        from tinker_officer.data.render import default_renderer_name

        named: str | None = getattr(self.plan.objective, "renderer_name", None)
        return named or default_renderer_name(self.plan.base_model)

    @property
    def order_seed(self) -> int:
        """What the data order follows from."""
        return self.plan.seed if self.data_seed is None else self.data_seed

    @property
    def best_metric(self) -> str | None:
        """The metric that chooses the best checkpoint, if one was named."""
        return self.saving.best or (self.early_stop.on if self.early_stop else None)

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
