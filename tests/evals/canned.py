"""A model that gives known answers: the SDK's sampling client, answering at once and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinker

from tinker_officer.data.render import renderer_for


class CannedClient(tinker.SamplingClient):
    """Answers each prompt, given as text, with what `answer` returns for it.

    Attributes:
        prompts: what was asked, in order.
        params: the sampling parameters of each request.
        busiest: the most requests that were under way at once.
        cancelled: requests that were given up.

    Args:
        base_model: whose renderer is used.
        answer: from the prompt's text.
        delay: seconds before an answer.
        cut: whether answers end because they are too long.
        together: requests that must be under way at once before any is answered.
    """

    def __init__(
        self,
        base_model: Path | str,
        answer: Callable[[str], str],
        *,
        delay: float = 0.0,
        cut: bool = False,
        together: int = 1,
    ) -> None:
        self._base_model = str(base_model)
        self._tokenizer: Any = renderer_for(self._base_model).tokenizer
        self._answer, self._delay, self._together = answer, delay, together
        self._enough = asyncio.Event()
        self._stop_reason = "length" if cut else "stop"
        self.prompts: list[str] = []
        self.params: list[tinker.SamplingParams] = []
        self.busiest = self._busy = self.cancelled = 0

    def get_base_model(self) -> str:
        return self._base_model

    async def sample(
        self, prompt: tinker.ModelInput, num_samples: int, sampling_params: tinker.SamplingParams, **_: Any
    ) -> Any:
        text = self._tokenizer.decode(prompt.to_ints())
        self.prompts.append(text)
        self.params.append(sampling_params)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        if self._busy == self._together:
            self._enough.set()
        try:
            if not self._enough.is_set():
                await asyncio.wait_for(self._enough.wait(), 60)
            await asyncio.sleep(self._delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._busy -= 1
        end = "" if self._stop_reason == "length" else "<|im_end|>"
        tokens = self._tokenizer.encode(self._answer(text) + end, add_special_tokens=False)
        sequence = tinker.SampledSequence(
            stop_reason=self._stop_reason, sequence_id="canned", _tokens_list=tokens
        )
        return tinker.SampleResponse(sequences=[sequence] * num_samples)
