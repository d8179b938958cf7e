"""A teacher's answers, as data to train on: off-policy distillation, and prompt distillation.

    teacher = Teacher("Qwen/Qwen3-32B", system=long_prompt)
    answers = teacher.answers(questions, on=engine, at="answers.jsonl")
    plan = LoRAPlan.for_("Qwen/Qwen3-8B").prompt_distillation(answers)

The system message is told to the teacher and left out of the rows, so that the student learns to answer
without it as the teacher does with it. Without one this is plain distillation on the teacher's samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tinker_officer._fields import real, whole
from tinker_officer._journal import Journal
from tinker_officer._service import On, connect
from tinker_officer.data.conversations import Conversations
from tinker_officer.errors import RunError
from tinker_officer.train.rl import sampler
from tinker_officer.train.sampling import seed_of


if TYPE_CHECKING:
    from tinker_cookbook.renderers import Renderer

logger = logging.getLogger(__name__)
_IN_FLIGHT = 64
_FIX = 'Teacher("Qwen/Qwen3-32B", max_tokens=512).answers(questions, on=engine, at="answers.jsonl")'


@attrs.frozen
class Teacher:
    """A model whose answers are learned from.

    Args:
        model: a base model, or a `tinker://` path to sample from.
        system: a system message for the teacher alone.
        base_model: the model under a `tinker://` path, whose renderer writes the messages.
        max_tokens: of one answer; one that is cut there is left out, since it would teach not to end.
        temperature: of the sampling.
        samples: answers to each question.
        seed: what the samples follow from.

    Example:
        >>> teacher = Teacher(base_model, system="Answer like a pirate.", max_tokens=8)
        >>> teacher.system
        'Answer like a pirate.'
    """

    model: str
    system: str | None = None
    base_model: str | None = None
    max_tokens: int = attrs.field(default=512, validator=whole(1, error=RunError, fix=_FIX), kw_only=True)
    temperature: float = attrs.field(default=1.0, validator=real(0.0, error=RunError, fix=_FIX), kw_only=True)
    samples: int = attrs.field(default=1, validator=whole(1, error=RunError, fix=_FIX), kw_only=True)
    seed: int = attrs.field(default=0, validator=whole(0, error=RunError, fix=_FIX), kw_only=True)

    def answers(
        self, questions: Conversations | Sequence[str | Sequence[dict[str, Any]]], *, on: On, at: str | Path
    ) -> Conversations:
        """Return the questions with the teacher's answers; what is in the file already is not asked again.

        Args:
            questions: texts, messages that end with the user's, or Conversations, whose last answer is left
                out.
            on: a `LocalEngine`, a `tinker.ServiceClient`, or a base URL.
            at: the JSON-lines file that the rows are kept in.

        Raises:
            RunError: a question does not end with a user's message, or no answer came to an end.
            ModelError: the teacher has no renderer.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.data.render import renderer_for

        renderer = renderer_for(self.base_model or self.model)
        client = sampler(connect(on), self.model)
        journal = Journal(Path(at))
        known = {record["asked"] for record in journal}
        waiting: deque[tuple[str, list[Any], Any]] = deque()
        cut = 0
        for messages in _asked(questions):
            for sample in range(self.samples):
                key = self._key(messages, sample)
                if key not in known:
                    waiting.append((key, messages, self._ask(client, renderer, messages, key)))
                if len(waiting) >= _IN_FLIGHT:
                    cut += not self._keep(journal, renderer, *waiting.popleft())
        while waiting:
            cut += not self._keep(journal, renderer, *waiting.popleft())
        if cut:
            logger.warning("teacher: %d answers were longer than %d tokens; left out", cut, self.max_tokens)
        if not Path(at).exists():
            raise RunError(
                "no answer of the teacher came to an end",
                got=f"{cut} answers, each cut at {self.max_tokens} tokens",
                need="a larger max_tokens",
                fix=_FIX,
            )
        return Conversations.from_jsonl(at, progress=False)

    def _key(self, messages: Sequence[Any], sample: int) -> str:
        told = json.dumps([attrs.asdict(self), list(messages), sample], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _ask(self, client: Any, renderer: Renderer, messages: Sequence[Any], key: str) -> Any:
        import tinker

        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        prompt = renderer.build_generation_prompt([*system, *messages])
        params = tinker.SamplingParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            stop=renderer.get_stop_sequences(),
            seed=seed_of((int(key, 16),)),
        )
        return client.sample(prompt, 1, params)

    def _keep(self, journal: Journal, renderer: Renderer, key: str, messages: list[Any], future: Any) -> bool:
        """Write an answer down; return whether it came to an end."""
        sequence = future.result().sequences[0]
        if sequence.stop_reason == "length":
            return False
        answer, _ = renderer.parse_response(sequence.tokens)
        text = answer["content"]
        journal.append({"messages": [*messages, {"role": "assistant", "content": text}], "asked": key})
        return True


def _asked(questions: Any) -> Iterator[list[Any]]:
    """Yield the messages of each question."""
    for question in questions:
        if isinstance(question, str):
            yield [{"role": "user", "content": question}]
            continue
        messages = list(getattr(question, "messages", question))
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if not messages or messages[-1]["role"] != "user":
            raise RunError(
                "a question for the teacher has no user's message at its end",
                got=repr(messages[-1:])[:200],
                need="a text, or messages of which the last before the answer is the user's",
                fix=_FIX,
            )
        yield messages
