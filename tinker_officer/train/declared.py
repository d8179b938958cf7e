"""What a run is made of: its parts, each checked where it is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._fields import whole
from tinker_officer.errors import RunError
from tinker_officer.train import objectives
from tinker_officer.train.budget import Budget, check_price
from tinker_officer.train.evaluating import check_metrics
from tinker_officer.train.objectives import Known
from tinker_officer.train.origin import state_path
from tinker_officer.train.schedule import Schedule
from tinker_officer.train.settings import Adam, EarlyStop, Evaluation, Pipeline, Saving
from tinker_officer.train.spikes import SpikeGuard


if TYPE_CHECKING:
    from tinker_officer.plan.plan import LoRAPlan

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
class Declared:
    """The parts of a `Run`, and what follows from them; `Methods` changes them, `Run` says what each is."""

    plan: LoRAPlan = attrs.field(validator=_planned)
    name: str = attrs.field(validator=_named, kw_only=True)
    objective: Known = attrs.field(
        default=attrs.Factory(lambda run: objectives.of_plan(run.plan), takes_self=True), kw_only=True
    )
    given: Any = attrs.field(default=None, kw_only=True, eq=False)
    origin: str | None = attrs.field(
        default=None, converter=attrs.converters.optional(state_path), kw_only=True
    )
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
