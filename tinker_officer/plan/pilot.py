"""Measure the learning rate on the data itself: a short sweep before the long run.

    plan = plan.pilot(train, held_out, on=engine)
    print(plan.pilot_fit.explain())

Every arm is a run of its own with the same data, order, batch and schedule, and all run at once through the
service. An arm that diverges is stopped. What is done is written down as it is done: the same call goes
on where an interrupted one stood, and returns at once where it had ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from tinker_officer import _portal
from tinker_officer._digest import digest
from tinker_officer._fields import whole
from tinker_officer._files import home
from tinker_officer._progress import Progress
from tinker_officer._service import On, connect
from tinker_officer.data.examples import Examples
from tinker_officer.data.measure import renderer_identity
from tinker_officer.errors import PlanError
from tinker_officer.plan import refusal
from tinker_officer.plan.pilot_arm import ArmRun, Batches, Ended, held_out_losses, weights
from tinker_officer.plan.pilot_design import Measured, answer, first_rates, next_rate
from tinker_officer.plan.pilot_fit import Arm, PilotFit
from tinker_officer.plan.pilot_folder import PilotFolder


if TYPE_CHECKING:
    import tinker

    from tinker_officer.data.conversations import Conversations
    from tinker_officer.plan.plan import LoRAPlan

    Plan = TypeVar("Plan", bound=LoRAPlan)

LEAST_STEPS, SHARE = 100, 0.1
MOST_HELD_OUT = 500  # examples: more would cost more than they tell
_FORMAT = 1


def arm_steps(plan_steps: int) -> int:
    """Return the steps of an arm: at least 100 and a tenth of the run, and never more than the run."""
    return min(max(LEAST_STEPS, math.ceil(SHARE * plan_steps)), plan_steps)


def run_pilot(
    plan: LoRAPlan,
    train: Conversations,
    held_out: Conversations,
    *,
    on: On,
    at: str | Path | None = None,
    steps: int | None = None,
    progress: bool | None = None,
) -> PilotFit:
    """Return what a pilot of `plan` finds; see `LoRAPlan.pilot`, which is the door to it.

    Args:
        plan: what is to be run. Its own learning rate, pinned or not, is the centre of the sweep.
        train: what the plan was made for.
        held_out: what no arm trains on; the first 500 usable examples are evaluated.
        on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
        at: the folder; None takes one under `home()`, by what is asked for.
        steps: steps of an arm; None takes 100, or a tenth of the run where that is more.
        progress: show progress (None: yes).

    Returns:
        The fit. Where the losses settle nothing, `refused` says why, and the plan keeps its rate.

    Raises:
        PlanError: the data is not the plan's, nothing is held out, every arm diverged, or the folder is
            another pilot's.
    """
    return _portal.run(run_pilot_async(plan, train, held_out, on=on, at=at, steps=steps, progress=progress))


async def run_pilot_async(
    plan: LoRAPlan,
    train: Conversations,
    held_out: Conversations,
    *,
    on: On,
    at: str | Path | None = None,
    steps: int | None = None,
    progress: bool | None = None,
) -> PilotFit:
    """Return what `run_pilot` returns, from a coroutine."""
    plain = attrs.evolve(plan, pilot_fit=None)  # a second pilot begins where the first did
    settings = _settings(plain, train, held_out, steps)
    examples, held = await asyncio.to_thread(_examples, plain, train, held_out, progress)
    asked = _asked(plain, train, held_out, examples, settings)
    folder = PilotFolder(Path(at) if at else home() / "pilots" / digest(asked)[:16])
    with folder.owned():
        folder.claim(asked)
        if (known := folder.read_result()) is not None:
            return known
        with Progress(0, f"pilot of {Path(plan.base_model).name}", unit="steps", show=progress) as bar:
            sweep = _Sweep(
                settings, folder, connect(on), examples, held, bar, states=f"pilot-{digest(asked)[:12]}"
            )
            fit = await sweep.run()
        fit = attrs.evolve(fit, doubts=(*fit.doubts, *_overlap(train, held_out)))
        await asyncio.to_thread(folder.write_result, fit)
        return fit


def piloted(plan: Plan, fit: PilotFit) -> Plan:
    """Return a copy of `plan` that carries `fit`; a rate that it settled replaces a pinned one."""
    pins = plan.pins if fit.refused else attrs.evolve(plan.pins, learning_rate=None)
    return attrs.evolve(plan, pilot_fit=fit, pins=pins)


@attrs.frozen
class _Settings:
    """What every arm shares."""

    adapter: dict[str, Any]
    centre: float
    batch_size: int
    steps: int = attrs.field(
        validator=whole(1, error=PlanError, fix="plan.pilot(train, held_out, on=engine, steps=100)")
    )
    seed: int


def _settings(plan: LoRAPlan, train: Conversations, held_out: Conversations, steps: int | None) -> _Settings:
    planned = getattr(plan.objective, "data_fingerprint", None)
    if planned is not None and planned != train.fingerprint:
        raise PlanError(
            "the pilot's data is not what the plan was made for",
            got=f"fingerprint {train.fingerprint[:16]}...",
            need=f"fingerprint {planned[:16]}...",
            fix="LoRAPlan.for_(base_model).sft(train).pilot(train, held_out, on=engine)",
        )
    if train.fingerprint == held_out.fingerprint:
        raise PlanError(
            "the pilot would be judged on what it trains on",
            got="the same conversations as train and as held_out",
            need="conversations that no arm trains on",
            fix="train, held_out = data.split(held_out=0.1)",
        )
    return _Settings(
        adapter={
            "base_model": plan.base_model,
            "rank": plan.rank,
            "train_mlp": plan.train_mlp,
            "train_attn": plan.train_attn,
            "train_unembed": plan.train_unembed,
        },
        centre=plan.learning_rate,
        batch_size=plan.batch_size,
        steps=arm_steps(plan.steps) if steps is None else steps,
        seed=plan.seed,
    )


def _examples(
    plan: LoRAPlan, train: Conversations, held_out: Conversations, progress: bool | None
) -> tuple[Examples, list[tinker.Datum]]:
    """Return the training examples, and the held-out ones, rendered.

    Raises:
        PlanError: one of them has nothing to train or to evaluate on.
    """
    made = [
        Examples.of(
            data,
            plan.base_model,
            max_length=plan.max_length,
            train_on=plan.train_on,
            too_long=plan.too_long,
            renderer_name=plan.renderer_name,
            progress=progress,
        )
        for data in (train, held_out)
    ]
    for name, examples in zip(("train", "held_out"), made, strict=True):
        if len(examples) == 0:
            raise PlanError(
                f"{name} has no example that can be used",
                got=repr(examples),
                need="conversations with an assistant turn that fits max_length",
                fix="print(held_out.explain()), or plan with a larger max_length",
            )
    return made[0], [made[1][index] for index in range(min(len(made[1]), MOST_HELD_OUT))]


def _asked(
    plan: LoRAPlan,
    train: Conversations,
    held_out: Conversations,
    examples: Examples,
    settings: _Settings,
) -> dict[str, Any]:
    """Return everything that the arms' losses follow from, as JSON: what the folder is for."""
    return {
        "kind": "tinker_officer.pilot",
        "format": _FORMAT,
        **attrs.asdict(settings),
        "train": train.fingerprint,
        "held_out": held_out.fingerprint,
        "most_held_out": MOST_HELD_OUT,
        "max_length": examples.max_length,
        "train_on": plan.train_on,
        "too_long": plan.too_long,
        "renderer": digest(renderer_identity(plan.base_model, examples.renderer_name)),
    }


def _overlap(train: Conversations, held_out: Conversations) -> tuple[str, ...]:
    shared = len({row.tobytes() for row in train.content_digests} & {
        row.tobytes() for row in held_out.content_digests
    })  # fmt: skip
    return (f"{shared:,} of the held-out conversations are trained on, too",) if shared else ()


@attrs.define
class _Sweep:
    """Runs the arms, adds others where the best is at an edge, and asks what they say."""

    settings: _Settings
    folder: PilotFolder
    service: tinker.ServiceClient
    examples: Examples
    held_out: list[tinker.Datum]
    bar: Progress
    states: str
    untrained: float = math.nan
    ended: dict[tuple[float, int], Ended] = attrs.field(factory=dict)
    batches: Batches = attrs.field(init=False)

    async def run(self) -> PilotFit:
        """Run the pilot.

        Raises:
            PlanError: every arm diverged.
        """
        settings = self.settings
        self.batches = Batches(self.examples, batch_size=settings.batch_size, seed=settings.seed)
        self.untrained = await self._start()
        await self._arms(first_rates(settings.centre))
        extensions = 0
        while (rate := next_rate(self._losses(), extensions)) is not None:
            await self._arms([(rate, 0)])
            extensions += 1
        return self._fit()

    async def _start(self) -> float:
        """Return the held-out loss before training: a new adapter changes nothing."""
        journal = self.folder.start
        for record in journal:
            return float(record["nll"])
        with refusal.noted():
            client = await self.service.create_lora_training_client(
                **self.settings.adapter, seed=self.settings.seed
            )
        losses = await held_out_losses(client, self.held_out)
        nll = float(losses.sum() / self._tokens().sum())
        journal.append({"nll": nll}, sync=True)
        return nll

    async def _arms(self, arms: Iterable[tuple[float, int]]) -> None:
        """Run arms at once; when one fails, the others are stopped, and go on in the next start."""
        runs = {arm: self._arm_run(*arm) for arm in arms}
        self.bar.total = (self.bar.total or 0) + self.settings.steps * len(runs)
        tasks = [asyncio.create_task(run.run()) for run in runs.values()]
        try:
            found = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        self.ended.update(zip(runs, found, strict=True))

    def _arm_run(self, rate: float, replicate: int) -> ArmRun:
        name = Arm(rate, replicate, 0, None).name
        return ArmRun(
            name=name,
            learning_rate=rate,
            steps=self.settings.steps,
            untrained=self.untrained,
            adapter={**self.settings.adapter, "seed": self.settings.seed + replicate},
            states=self.states,
            journal=self.folder.arm(name),
            service=self.service,
            batches=self.batches,
            held_out=self.held_out,
            bar=self.bar,
        )

    def _tokens(self) -> Any:
        return np.array([float(weights(datum).sum()) for datum in self.held_out])

    def _losses(self) -> dict[float, float | None]:
        """Return the mean loss at each rate; None where it diverged (at the centre: where one did)."""
        total = float(self._tokens().sum())
        found: dict[float, list[float | None]] = {}
        for (rate, _), ended in self.ended.items():
            nll = None if ended.losses is None else sum(ended.losses) / total
            found.setdefault(rate, []).append(nll)
        means: dict[float, float | None] = {}
        for rate, losses in found.items():
            finished = [loss for loss in losses if loss is not None]
            means[rate] = sum(finished) / len(finished) if len(finished) == len(losses) else None
        return means

    def _fit(self) -> PilotFit:
        settings, losses = self.settings, self._losses()
        tokens = self._tokens()
        arms = tuple(
            Arm(
                rate,
                replicate,
                ended.steps,
                None if ended.losses is None else sum(ended.losses) / float(tokens.sum()),
                ended.stopped,
            )
            for (rate, replicate), ended in sorted(self.ended.items())
        )
        good = [key for key in sorted(self.ended) if losses[key[0]] is not None]
        if not good:
            raise PlanError(
                "every arm of the pilot diverged",
                got="\n".join(f"{arm.learning_rate:.1e}: {arm.stopped}" for arm in arms),
                need="a lower learning rate, or data without broken rows",
                fix=f"plan.pin(learning_rate={min(arm.learning_rate for arm in arms) / 8:.1e})"
                ".pilot(train, held_out, on=engine)",
            )
        measured = Measured(
            tuple(rate for rate, _ in good),
            np.array([self.ended[key].losses for key in good], dtype=np.float64),
            tokens,
            untrained=self.untrained,
        )
        found = answer(measured, [rate for rate, loss in losses.items() if loss is None])
        best = min(arm.nll for arm in arms if arm.nll is not None)
        doubts = found.doubts
        if best >= self.untrained:
            doubts = (*doubts, "no arm did better than the untrained model")
        if settings.steps < LEAST_STEPS:
            doubts = (*doubts, f"arms of {settings.steps} steps: short runs favour higher rates")
        return PilotFit(
            base_model=settings.adapter["base_model"],
            rank=settings.adapter["rank"],
            batch_size=settings.batch_size,
            steps=settings.steps,
            start_nll=self.untrained,
            held_out=len(self.held_out),
            arms=arms,
            **{**attrs.asdict(found), "doubts": doubts},
        )
