"""What a run does, and how: one method for each part, which replaces it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer.train import objectives
from tinker_officer.train.budget import Budget
from tinker_officer.train.declared import Declared
from tinker_officer.train.distill import Distill
from tinker_officer.train.rl import Rl
from tinker_officer.train.schedule import Schedule
from tinker_officer.train.settings import Adam, EarlyStop, Evaluation, Pipeline, Saving
from tinker_officer.train.sft import Sft
from tinker_officer.train.spikes import SpikeGuard


if TYPE_CHECKING:
    from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset
    from tinker_cookbook.supervised.types import SupervisedDataset

    from tinker_officer.train.checkpoints import Checkpoint

_CONSTANT = Schedule("constant", warmup=0.0)


@attrs.frozen(repr=False)
class Methods(Declared):
    """The methods of a `Run` that change a part of it, in a copy."""

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
        retries: int = 0,
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
            retries: how often an episode that fails is begun again, in an environment made anew, before its
                error stops the run; `rl/failed` counts.

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
            retries=retries,
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

    def start_from(self, checkpoint: Checkpoint | str) -> Self:
        """Return a copy that starts from the weights of a checkpoint, with a new optimizer, replacing any.

        So one run follows another: SFT, then preferences or rewards. For DPO the reference is these weights.

        Args:
            checkpoint: of an earlier run, such as `result.best`, or the `tinker://` path of a saved state.
                Its base model, rank and layers must be the plan's: `plan.pin(rank=...)`.

        Raises:
            RunError: it is no saved state, or (from `start`) not one of this plan's adapter.
        """
        return attrs.evolve(self, origin=checkpoint)

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
