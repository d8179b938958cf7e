"""Inspect's model over a real sampler: what goes in, what comes out, and how it names itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.evals.canned import CannedClient
from tinker_officer import EvalSuite
from tinker_officer.errors import EvalError
from tinker_officer.evals.target import Target, open_target


if TYPE_CHECKING:
    from inspect_ai.model import Model, ModelOutput
    from inspect_ai.tool import ToolInfo

    from tinker_officer import LocalEngine


@pytest.fixture
def target(engine: LocalEngine, tiny_model: Path) -> Target:
    return asyncio.run(open_target(str(tiny_model), engine))


def model(target: Target, **options: Any) -> Model:
    from inspect_ai.model import GenerateConfig

    from tinker_officer.evals.inspect_model import model_for

    return model_for(target, GenerateConfig(temperature=0.0, max_tokens=6), **options)


def generate(target: Target, asked: Any, *, how: str = "auto", tools: Any = (), **config: Any) -> ModelOutput:
    from inspect_ai.model import GenerateConfig

    choice = config.pop("tool_choice", None)
    return asyncio.run(
        model(target, tools=how).generate(
            asked, tools=list(tools), tool_choice=choice, config=GenerateConfig(**config)
        )
    )


def area() -> ToolInfo:
    from inspect_ai.tool import ToolInfo, ToolParams
    from inspect_ai.util import JSONSchema

    return ToolInfo(
        name="area",
        description="Calculate an area.",
        parameters=ToolParams(properties={"base": JSONSchema(type="integer")}, required=["base"]),
    )


def test_usage_and_stop_reason_are_those_of_the_sampler(target: Target) -> None:
    """Truncation is visible, and the tokens are counted."""
    output = generate(target, "Hi")
    assert output.stop_reason == "max_tokens"
    assert output.usage is not None
    assert output.usage.output_tokens == 6
    prompt = target.renderer.build_generation_prompt([{"role": "user", "content": "Hi"}])
    assert output.usage.input_tokens == prompt.length
    assert output.time is not None


def test_logprobs_come_with_the_tokens_and_their_rivals(target: Target) -> None:
    """One a token, negative, with as many rivals as were asked for."""
    output = generate(target, "Hi", logprobs=True, top_logprobs=3)
    found = output.choices[0].logprobs
    assert found is not None
    assert len(found.content) == 6
    for token in found.content:
        assert token.logprob <= 0
        assert token.top_logprobs is not None
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-4)  # greedy
    assert generate(target, "Hi").choices[0].logprobs is None


def test_several_choices_and_seeds(target: Target) -> None:
    """`num_choices` gives as many answers, and a seed repeats them."""
    first, second = (generate(target, "Hi", num_choices=3, temperature=1.0, seed=5).choices for _ in range(2))
    assert len(first) == 3
    assert [choice.message.text for choice in first] == [choice.message.text for choice in second]


def test_a_stop_sequence_of_the_task_ends_the_answer(target: Target) -> None:
    """Beside the renderer's own, which are token ids."""
    whole = generate(target, "Hi", max_tokens=12).completion
    output = generate(target, "Hi", max_tokens=12, stop_seqs=[whole[len(whole) // 2]])
    assert output.stop_reason == "stop"
    assert len(output.completion) < len(whole)


def test_system_messages_tools_and_results_reach_the_prompt_as_text(target: Target) -> None:
    """In the text protocol: declared in the system message, called as Python, answered by the user."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ChatMessageUser
    from inspect_ai.tool import ToolCall

    from tinker_officer.evals.inspect_messages import as_json, functions_of
    from tinker_officer.evals.prompts import build_prompt

    history = [
        ChatMessageUser(content="How large?"),
        ChatMessageAssistant(
            content="Let me see.", tool_calls=[ToolCall(id="1", function="area", arguments={"base": 3})]
        ),
        ChatMessageTool(content="9", tool_call_id="1", function="area"),
    ]
    messages = [{"role": "system", "content": "Be brief."}, *map(as_json, history)]
    prompt = build_prompt(target.renderer, messages, functions_of([area()], "auto"), protocol="text-1")
    text = target.renderer.tokenizer.decode(prompt.to_ints())
    assert "Be brief.\n\nYou can call these functions:\narea(base: integer)  # Calculate an area." in text
    assert "Let me see.\narea(base=3)" in text
    assert "user\narea returned: 9" in text
    native = build_prompt(target.renderer, messages, functions_of([area()], "auto"))
    assert "<tool_call>" in target.renderer.tokenizer.decode(native.to_ints())


def test_tool_choice_selects_what_is_offered() -> None:
    """None of them, all of them, or the one that is named."""
    from inspect_ai.tool import ToolFunction

    from tinker_officer.evals.inspect_messages import functions_of

    other = area().model_copy(update={"name": "other"})
    assert functions_of([area(), other], "none") == []
    assert len(functions_of([area(), other], "any")) == 2
    assert [tool["name"] for tool in functions_of([area(), other], ToolFunction("other"))] == ["other"]


@pytest.mark.parametrize(
    ("how", "text", "function", "error"),
    [
        ("text", "area(base=3)", "area", None),
        ("text", "area(3)", "area", None),
        ("auto", '<tool_call>\n{"name": "area", "arguments": {"base": 3}}\n</tool_call>', "area", None),
        ("auto", "<tool_call>\n{torn\n</tool_call>", "unreadable", "Invalid JSON"),
    ],
)
def test_what_the_model_wrote_becomes_tool_calls(
    target: Target, how: str, text: str, function: str, error: str | None
) -> None:
    """From sampled tokens, in both protocols; a torn call is a call with a parse error."""
    import tinker

    from tinker_officer.evals.inspect_messages import functions_of
    from tinker_officer.evals.inspect_model import TinkerAPI
    from tinker_officer.evals.prompts import read_answer, tool_protocol

    tokens = target.renderer.tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
    sampled = tinker.SampledSequence(stop_reason="stop", sequence_id="x", _tokens_list=tokens)
    functions = functions_of([area()], "auto")
    api = model(target, tools=how).api
    assert isinstance(api, TinkerAPI)
    choice = api._choice(
        *read_answer(target.renderer, sampled, functions, protocol=tool_protocol(target.renderer, how)), 0
    )
    assert choice.stop_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.function == function
    if error:
        assert error in str(call.parse_error)
    else:
        assert call.arguments == {"base": 3}


def test_thinking_goes_both_ways() -> None:
    """Reasoning in the history is passed on, and what the model thought comes back apart."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentReasoning, ContentText

    from tinker_officer.evals.inspect_messages import as_json, content_of

    parts = [ContentReasoning(reasoning="hm"), ContentText(text="yes")]
    record = as_json(ChatMessageAssistant(content=parts))
    assert record["content"] == [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]
    assert content_of({"role": "assistant", "content": record["content"]}) == parts
    assert (
        as_json(ChatMessageUser(content=[ContentText(text="a"), ContentText(text="b")]))["content"] == "a\nb"
    )


def test_an_image_is_refused() -> None:
    """A text model must not be scored on a question that it did not see."""
    from inspect_ai.model import ChatMessageUser, ContentImage

    from tinker_officer.evals.inspect_messages import as_json

    with pytest.raises(EvalError, match="other than text"):
        as_json(ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")]))


def test_a_log_can_rebuild_the_model(
    engine: LocalEngine, target: Target, checkpoints: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From name and arguments alone, as `inspect eval-retry` does: it opens the checkpoint itself."""
    from inspect_ai.model import get_model

    import tinker_officer.evals.inspect_model as ours

    monkeypatch.setenv("TINKER_BASE_URL", engine.base_url)
    monkeypatch.setenv("TINKER_API_KEY", engine.token)
    opened = asyncio.run(open_target(checkpoints[1], engine))
    wanted = generate(opened, "Hi").completion
    rebuilt = get_model(
        f"tinker_officer/{checkpoints[1]}",
        memoize=False,
        checkpoint=checkpoints[1],
        base_model=opened.base_model,
    )
    assert isinstance(rebuilt.api, ours.TinkerAPI)
    rebuilt.config.max_tokens = 6
    assert asyncio.run(rebuilt.generate("Hi")).completion == wanted
    assert wanted != generate(target, "Hi").completion


def test_identity_pool_and_token_counts(target: Target) -> None:
    """Two models are two objects; tokens are counted by the model's own tokenizer."""
    first, second = model(target), model(target)
    assert first is not second
    assert first.api.connection_key() == f"tinker_officer:{target.name}"
    assert first.model_args["checkpoint"] == target.name
    counted = asyncio.run(first.api.count_text_tokens("what is it?"))
    assert counted == len(target.renderer.tokenizer.encode("what is it?"))


def test_a_prompt_that_does_not_fit_is_a_stop_reason_and_not_a_crash(
    engine: LocalEngine, tiny_model: Path, target: Target
) -> None:
    """Inspect's agents act on it; in a suite it scores 0, and stands on the card as cut off."""
    output = generate(target, "Hi " * 3000)
    assert output.stop_reason == "model_length"
    assert "the context of the model 1024" in str(output.error)
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import includes

    samples = [Sample(id="long", input="Hi " * 3000, target="x"), Sample(id="short", input="Hi", target="")]
    task = Task(dataset=MemoryDataset(samples), name="made", scorer=includes())
    suite = EvalSuite().task(task, max_tokens=2)
    result = suite.evaluate(str(tiny_model), on=engine, progress=False)["made"]
    assert {item.id: item.stop_reason for item in result.items}["long"] == "model_length"
    assert (result.value, result.n, result.errors, result.truncated) == (0.5, 2, 0, 2)


def test_cancelling_reaches_the_sampler(tiny_model: Path) -> None:
    """A request that nobody waits for any more is given up, not left to run."""
    client = CannedClient(tiny_model, lambda _: "never", delay=3600)

    async def cancel() -> None:
        opened = await open_target(client, "http://127.0.0.1:1")
        work = asyncio.create_task(model(opened).generate("Hi"))
        while not client.prompts:  # noqa: ASYNC110 - a list says when
            await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancel())
    assert client.cancelled == 1


def test_what_a_model_thinks_comes_back_apart_from_what_it_says(tiny_model: Path) -> None:
    """Through the renderer, from sampled tokens: scorers see the answer alone."""
    from inspect_ai.model import ContentReasoning

    client = CannedClient(tiny_model, lambda _: "<think>it may be 3</think>\n\nIt is 4.")
    opened = asyncio.run(open_target(client, "http://127.0.0.1:1", "qwen3"))
    output = generate(opened, "How many?")
    assert output.completion.strip() == "It is 4."
    (thought,) = [part for part in output.message.content if isinstance(part, ContentReasoning)]
    assert thought.reasoning.strip() == "it may be 3"


def test_settings_reach_the_sampler(tiny_model: Path) -> None:
    """Temperature, top-p, top-k, seed, length and stop sequences, as the task asks for them."""
    client = CannedClient(tiny_model, lambda _: "yes")
    opened = asyncio.run(open_target(client, "http://127.0.0.1:1"))
    generate(opened, "Hi", temperature=0.5, top_p=0.8, top_k=7, seed=3, max_tokens=9, stop_seqs=["END"])
    (sent,) = client.params
    assert (sent.temperature, sent.top_p, sent.top_k, sent.seed, sent.max_tokens) == (0.5, 0.8, 7, 3, 9)
    assert "END" in list(sent.stop or ())
