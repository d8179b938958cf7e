"""On-policy distillation: the student writes, and the teacher says how likely it finds each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from tinker_officer._fields import real
from tinker_officer.errors import RunError
from tinker_officer.train.rl import Rl, sampler


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.rl.types import TrajectoryGroup

_FIX = 'Run(plan, name="mine").distill(prompts, teacher="Qwen/Qwen3-8B", max_tokens=256)'


def _named(_instance: Any, _attribute: Any, teacher: Any) -> None:
    if not isinstance(teacher, str) or not teacher:
        raise RunError(
            "on-policy distillation needs a teacher",
            got=repr(teacher),
            need="a base model, or a tinker:// path to sample from; of the student's own tokenizer",
            fix=_FIX,
        )


@attrs.frozen
class Distill(Rl):
    """Learn from a teacher's opinion of one's own samples: the advantage of a token is minus the reverse KL.

    For a sampled token that is `kl_penalty_coef * (log p_teacher - log p_student)`, plus the episode's
    centred reward where the environment gives one. No group is left out: all rewards may be equal.

    Args:
        teacher: a base model, or a `tinker://` sampler path, with the student's tokenizer.

    Source:
        tinker_cookbook.distillation.train_on_policy; Agarwal et al. 2024, arXiv:2306.13649.
    """

    teacher: str = attrs.field(default="", validator=_named, kw_only=True)
    kl_penalty_coef: float = attrs.field(
        default=1.0, validator=real(0.0, error=RunError, fix=_FIX, open_low=True)
    )
    remove_constant_reward_groups: bool = False

    method: ClassVar[str] = "distill"
    headline: ClassVar[str] = "distill/teacher_kl"

    def anchor(self, service: tinker.ServiceClient, base_model: str) -> tinker.SamplingClient | None:
        """Return the teacher."""
        del base_model
        return sampler(service, self.teacher)

    async def learned(
        self, groups: Sequence[TrajectoryGroup], anchor: tinker.SamplingClient | None
    ) -> tuple[list[tinker.Datum], dict[str, float]]:
        """Return what is trained on, and what the teacher thought of it."""
        datums, measured = await Rl.learned(self, groups, anchor)
        measured["distill/teacher_kl"] = measured.pop("rl/kl_reference")
        return datums, measured

    async def held(self, datums: list[tinker.Datum], anchor: tinker.SamplingClient) -> float:
        """Add minus the reverse KL to the advantages; return its mean, nats a token."""
        from tinker_cookbook.distillation.train_on_policy import incorporate_kl_penalty

        told = await incorporate_kl_penalty(
            datums,
            [anchor] * len(datums),
            [0] * len(datums),
            self.kl_penalty_coef,
            self.kl_discount_factor,
        )
        return float(told["teacher_kl"])

    def describe(self) -> str:
        """Return the loss in words."""
        return f"{self.loss_fn} on minus the reverse KL to {self.teacher}"
