"""What a suite asks: one method for each kind of eval, which adds it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import EvalError
from tinker_officer.evals.case_specs import Calibrated, Judge, Product
from tinker_officer.evals.cookbook import Evaluator
from tinker_officer.evals.graders import Grader, exact
from tinker_officer.evals.grading import TIMEOUT_S
from tinker_officer.evals.product import Sampling
from tinker_officer.evals.rubric import Rubric
from tinker_officer.evals.specs import Benchmark, Nll, Spec


def _specs(evals: Iterable[Spec]) -> tuple[Spec, ...]:
    return tuple(evals)


def _of_template(spec: Spec) -> bool:
    return isinstance(spec, Benchmark) and bool(spec.why)


@attrs.frozen(repr=False)
class Methods:
    """The evals of an `EvalSuite`, and the methods that add to them.

    Attributes:
        evals: the evals, in the order in which they are asked.
        use_case: of the template that it was made from; empty when from none.
    """

    evals: tuple[Spec, ...] = attrs.field(default=(), converter=_specs)
    use_case: str = attrs.field(default="", eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        names = [spec.name for spec in self.evals]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise EvalError(
                "two evals of the suite have one name",
                got=repr(twice),
                need="a name for each: results are found and paired by it",
                fix=f"give the second another name, such as {twice + '-2'!r}",
            )
        bad = next((name for name in names if not re.fullmatch(r"[\w.-]+", name)), None)
        if bad is not None:
            raise EvalError(
                "an eval has a name that cannot be used",
                got=repr(bad),
                need="letters, digits, '.', '_' and '-': metrics are called <eval>/<metric>",
                fix='suite.product("tickets", "eval.jsonl", grader=graders.includes)',
            )

    def nll(
        self,
        held_out: Conversations,
        *,
        name: str = "held_out",
        max_length: int | None = None,
        train_on: str = "last",
        by: str | None = None,
    ) -> Self:
        """Return a copy that also measures negative log-likelihood on `held_out`.

        Args:
            held_out: conversations that are not trained on.
            name: the eval's name.
            max_length: longest sequence in tokens; the model's context when None.
            train_on: which turns count: the `last` of the assistant, or `all`.
            by: a field of the rows; the card then shows each of its values apart:
                `card["held_out"].by_group()`.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        if not isinstance(held_out, Conversations):
            raise EvalError(
                "held-out data must be Conversations",
                got=type(held_out).__name__,
                need="Conversations, with at least one",
                fix="train, held_out = Conversations.from_jsonl('tickets.jsonl').split(held_out=0.1)",
            )
        return self._with(Nll(name, held_out, max_length=max_length, train_on=train_on, by=by))

    def benchmark(
        self,
        task: str,
        *,
        limit: int | None = None,
        name: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        scorer: str | None = None,
        roles: Mapping[str, str] | None = None,
        tools: str = "auto",
        sandbox: str | None = None,
        **task_args: Any,
    ) -> Self:
        """Return a copy that also runs the Inspect task `task`.

        Args:
            task: its registered name, such as `inspect_evals/gsm8k`; or a file with one, `exam.py@my_task`.
            limit: how many of its items, chosen by a hash of their ids: the same for every model.
            name: the eval's name; the last part of the task's when None.
            max_tokens: of an answer; the task's own, or 2048, when None.
            temperature: the task's own, or 0, when None.
            scorer: which of the task's scores counts, `scorer` or `scorer/part`; when None what the catalogue
                says, or the task's first.
            roles: models for the roles that the task asks for, `{"grader": "openai/gpt-4o"}`.
            tools: how tools are written: `auto`, in the renderer's own format where it has one; or `text`,
                as `text_tools` does, for small models that were trained so.
            sandbox: `local` runs what the model writes on this machine, unguarded; the task's own, docker,
                when None.
            **task_args: the task's own arguments.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        spec = Benchmark(
            name=name or task.rpartition("/")[2].rpartition("@")[2].removesuffix(".py"),
            task=task,
            limit=limit,
            task_args=task_args,
            max_tokens=max_tokens,
            temperature=temperature,
            scorer=scorer,
            roles=roles or {},
            tools=tools,
            sandbox=sandbox,
        )
        return self._with(spec)

    def task(
        self,
        task: Any,
        *,
        name: str | None = None,
        limit: int | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        scorer: str | None = None,
        roles: Mapping[str, str] | None = None,
        tools: str = "auto",
        sandbox: str | None = None,
    ) -> Self:
        """Return a copy that also runs an Inspect `Task` object of your own; such a suite has no JSON.

        The arguments are those of `benchmark`.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        spec = Benchmark(
            name=name or str(getattr(task, "name", "task")).rpartition("/")[2],
            task=task,
            limit=limit,
            max_tokens=max_tokens,
            temperature=temperature,
            scorer=scorer,
            roles=roles or {},
            tools=tools,
            sandbox=sandbox,
        )
        return self._with(spec)

    def safety(self, *, judge: str | None = None) -> Self:
        """Return a copy that also asks what tuning may have broken: truthfulness, hazards and refusals.

        Args:
            judge: Inspect's name of a model that grades answers, such as `openai/gpt-4o`. Without it only
                what needs no judge is asked, and refusals are not.
        """
        from tinker_officer.evals.templates import safety

        suite = self
        for spec in safety(judge):
            suite = suite._with(spec)
        return suite

    def product(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]] | Conversations,
        *,
        grader: Grader | Callable[..., Any],
        max_tokens: int = 256,
        temperature: float = 0.0,
        tools: str = "auto",
        limit: int | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Return a copy that also asks your own cases.

        Args:
            name: the eval's name.
            cases: a JSONL file, rows, or conversations whose last turn is the target; see `cases`.
            grader: one of `graders`, or a function `(answer, target) -> 0 to 1`, which may be a coroutine.
            max_tokens: of an answer.
            temperature: 0 for the most likely answer, which can be repeated.
            tools: how the cases' tools are written, as for `benchmark`.
            limit: how many of the cases, chosen by a hash of their ids; all when None.
            timeout_s: how long a grader function may take for one answer, in seconds.

        Raises:
            EvalError: the name is taken, the grader is none, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        return self._with(
            Product(name, cases, grader, sampling=sampling, tools=tools, limit=limit, timeout_s=timeout_s)
        )

    def judge(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]] | Conversations,
        *,
        rubric: str | Iterable[str],
        grader_model: str,
        partial: bool = False,
        labelled: str | Path | Iterable[Mapping[str, Any]] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        tools: str = "auto",
        limit: int | None = None,
    ) -> Self:
        """Return a copy that also has another model judge the answers to your own cases.

        Args:
            name: the eval's name.
            cases: as for `product`; a target may be left out, and is shown to the judge as a reference.
            rubric: what a good answer does, in one sentence or several; each counts the same.
            grader_model: the judge: a `tinker://` path or a base model on the service, or a model of
                Inspect's such as `openai/gpt-4o`. `tinker_officer/NAME` is always the service's. Never the
                candidate.
            partial: whether a point may be met in part, for half of it.
            labelled: answers that people have graded: rows with `input`, `answer` and a `label` from 0 to 1.
                The judge grades them too, and the card shows its agreement and the score without its errors.
            max_tokens: of an answer.
            temperature: 0 for the most likely answer, which can be repeated.
            tools: how the cases' tools are written, as for `benchmark`.
            limit: how many of the cases, chosen by a hash of their ids; all when None.

        Raises:
            EvalError: the name is taken, the rubric is empty, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        held = Rubric(rubric, partial=partial)
        spec = Judge(
            name, cases, held, grader_model, labelled=labelled, sampling=sampling, tools=tools, limit=limit
        )
        return self._with(spec)

    def evaluator(
        self,
        name: str,
        build: Callable[[], Any],
        *,
        metric: str | None = None,
        higher_is_better: bool = True,
        layer: str = "benchmark",
    ) -> Self:
        """Return a copy that also runs an evaluator of the cookbook's.

        Args:
            name: the eval's name.
            build: a class or a function without arguments that returns a `SamplingClientEvaluator` or a
                `TrainingClientEvaluator`; one that can be imported survives JSON.
            metric: which of its figures counts; the first when None.
            higher_is_better: the direction of progress.
            layer: the layer that it is asked with: `nll`, `benchmark` or `product`.

        Raises:
            EvalError: the name is taken, or there is no such layer.
        """
        return self._with(
            Evaluator(name, build, metric=metric, higher_is_better=higher_is_better, layer=layer)
        )

    def calibration(
        self,
        name: str,
        cases: str | Path | Iterable[Mapping[str, Any]],
        *,
        grader: Grader | Callable[..., Any] = exact,
        samples: int = 8,
        max_tokens: int = 64,
        temperature: float = 1.0,
        limit: int | None = None,
    ) -> Self:
        """Return a copy that also measures whether the model knows what it knows.

        Args:
            name: the eval's name.
            cases: a JSONL file or rows: cases, or questions with `choices` and a `target` among them; or a
                public benchmark of multiple choice, such as `inspect_evals/mmlu_0_shot`.
            grader: which open answers are right, and which agree with each other; not used where there are
                choices.
            samples: answers sampled to an open question: confidence is the share that agrees.
            max_tokens: of an open answer.
            temperature: of sampling open answers; above 0, or all of them are the same.
            limit: how many of the cases, chosen by a hash of their ids; all when None.

        Raises:
            EvalError: the name is taken, or a setting is out of range.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        spec = Calibrated(name, cases, grader, samples=samples, sampling=sampling, limit=limit)
        return self._with(spec)

    def _with(self, spec: Spec) -> Self:
        kept = (old for old in self.evals if old.name != spec.name or not _of_template(old))
        return attrs.evolve(self, evals=(*kept, spec))
