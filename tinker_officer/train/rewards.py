"""A reward model's number for an answer: how it is asked for, and a client that asks.

After the answer the model is asked whether it was good; the score is `log p(Yes) - log p(No)`, nats. Only
differences between answers to one prompt were trained: a score has no zero of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs

from tinker_officer._service import On, connect
from tinker_officer.errors import RunError


if TYPE_CHECKING:
    import tinker
    from tinker_cookbook.renderers import Renderer

QUESTION = "Was that a good answer? Reply with one word, Yes or No."
YES, NO = "Yes", "No"


@attrs.frozen
class Question:
    """How a model is asked whether an answer was good.

    Args:
        renderer: writes the messages in tokens.
        max_length: tokens that may be read; of longer conversations the end is kept. None: no limit.
        yes: the token that says so.
        no: the token that says not.
    """

    renderer: Renderer = attrs.field(repr=False)
    max_length: int | None
    yes: int
    no: int

    @classmethod
    def of(cls, renderer: Renderer, *, max_length: int | None = None) -> Self:
        """Return the question for a renderer.

        Raises:
            RunError: the tokenizer begins both answers alike.
        """
        yes, no = (renderer.tokenizer.encode(word, add_special_tokens=False)[0] for word in (YES, NO))
        if yes == no:
            raise RunError(
                "the tokenizer cannot tell Yes from No by their first token",
                got=f"both begin with token {yes}",
                need="a tokenizer in which the two words begin differently",
                fix="train another base model as the reward model",
            )
        return cls(renderer, max_length, yes, no)

    def tokens(self, messages: Sequence[Any]) -> list[int]:
        """Return what is read before the word: the conversation, answer last, and the question."""
        asked = [*messages, {"role": "user", "content": QUESTION}]
        tokens: list[int] = self.renderer.build_generation_prompt(asked).to_ints()
        return tokens if self.max_length is None else tokens[-self.max_length :]

    def datum(self, messages: Sequence[Any]) -> tinker.Datum:
        """Return a conversation to train on: two targets a position, of which the last pair counts."""
        import numpy as np
        import tinker

        tokens = self.tokens(messages)
        targets, weights = np.zeros((len(tokens), 2), np.int64), np.zeros((len(tokens), 2), np.float32)
        targets[-1], weights[-1] = (self.yes, self.no), 1.0
        return tinker.Datum(
            model_input=tinker.ModelInput.from_ints(tokens),
            loss_fn_inputs={
                "target_tokens": tinker.TensorData.from_numpy(targets),
                "weights": tinker.TensorData.from_numpy(weights),
            },
        )


@attrs.frozen
class Reward:
    """A trained reward model, asked for scores.

    `docs/howto/train-on-preferences.md` trains one and asks it.
    """

    client: tinker.SamplingClient = attrs.field(repr=False)
    question: Question

    @classmethod
    def open(cls, checkpoint: Any, *, on: On) -> Self:
        """Return the reward model of `checkpoint`, such as `result.best` of a run that trained one.

        Raises:
            RunError: the checkpoint has no weights for sampling.
            EngineError: `on` is not a Tinker service.
        """
        from tinker_officer.data.render import renderer_for

        if not checkpoint.sampler_path:
            raise RunError(
                "the checkpoint has no weights for sampling",
                got=repr(checkpoint),
                need="a checkpoint with a sampler_path",
                fix="Reward.open(result.best, on=engine)",
            )
        client = connect(on).create_sampling_client(checkpoint.sampler_path).result()
        renderer = renderer_for(checkpoint.base_model, checkpoint.renderer_name)
        return cls(client, Question.of(renderer))

    async def score_async(self, messages: Sequence[Any]) -> float:
        """Return the score of a conversation's last answer; see `score`."""
        import tinker

        tokens = self.question.tokens(messages)
        answers = [
            self.client.compute_logprobs(tinker.ModelInput.from_ints([*tokens, word]))
            for word in (self.question.yes, self.question.no)
        ]
        good, bad = await asyncio.gather(*answers)
        return float((good[-1] or 0.0) - (bad[-1] or 0.0))

    def score(self, messages: Sequence[Any]) -> float:
        """Return the score of a conversation's last answer, nats; higher is better."""
        import tinker

        tokens = self.question.tokens(messages)
        futures = [
            self.client.compute_logprobs(tinker.ModelInput.from_ints([*tokens, word]))
            for word in (self.question.yes, self.question.no)
        ]
        good, bad = (future.result()[-1] for future in futures)
        return float((good or 0.0) - (bad or 0.0))

    def prefers(self, prompt: str | Sequence[Any], answer: str, *, over: str) -> float:
        """Return the probability, from 0 to 1, that `answer` is better than the answer `over`.

        It is `sigmoid(score(answer) - score(over))`, as Bradley-Terry has it: a grade for a product eval.

        Args:
            prompt: what both answer: a text, or messages that end with the user's.
            answer: the answer that is graded.
            over: the answer that it is held against.
        """
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        ours, theirs = (
            self.score([*asked, {"role": "assistant", "content": text}]) for text in (answer, over)
        )
        return 1.0 / (1.0 + math.exp(min(theirs - ours, 700.0)))
