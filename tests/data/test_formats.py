"""Row shapes: each is read into one form, and what cannot be read is said to be why."""

from __future__ import annotations

import pytest

from tinker_officer.data.formats import normalise
from tinker_officer.data.messages import RowError


def said(row, shape=None):
    """The roles and contents of a row, the short way."""
    return [(message["role"], message["content"]) for message in normalise(row, shape).messages]


def turns(*pairs, **fields):
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **fields}


EXPECTED = [("user", "Hi"), ("assistant", "Hello")]
SYSTEM = ("system", "Be brief.")


@pytest.mark.parametrize(
    "row",
    [
        turns(("user", "Hi"), ("assistant", "Hello")),
        {"input": "Hi", "output": "Hello"},
        {"input": [{"role": "user", "content": "Hi"}], "output": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "Hello"}],
        },
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"instruction": "Hi", "output": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        turns(
            ("User", "Hi"), ("ASSISTANT", [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}])
        ),
    ],
)
def test_every_shape_becomes_the_same_messages(row):
    """One exchange is one exchange, whatever shape it comes in."""
    assert said(row) == EXPECTED


@pytest.mark.parametrize(
    "row",
    [
        turns(SYSTEM, ("user", "Hi"), ("assistant", "Hello")),
        turns(("developer", "Be brief."), ("user", "Hi"), ("assistant", "Hello")),
        {"input": "Hi", "output": "Hello", "system": "Be brief."},
        {"prompt": "Hi", "completion": "Hello", "system": "Be brief."},
        {
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
            "system": "Be brief.",
        },
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
            ]
        },
    ],
)
def test_every_shape_may_have_a_system_message(row):
    """A system message comes first, whether it is a turn or a field."""
    assert said(row) == [SYSTEM, *EXPECTED]


def test_an_instruction_is_not_lost_beside_its_input():
    """The input of an instruction follows it, in the same turn."""
    row = {"instruction": "Translate.", "input": "Bonjour", "output": "Hello"}
    assert said(row) == [("user", "Translate.\n\nBonjour"), ("assistant", "Hello")]


def test_an_output_that_is_an_object_is_written_as_compact_json():
    """An object to learn is JSON without spaces, letters outside ASCII as they are."""
    row = {"input": "Where?", "output": {"city": "Zürich", "days": [1, 2]}}
    assert said(row)[-1] == ("assistant", '{"city":"Zürich","days":[1,2]}')


def test_tool_calls_of_every_spelling_are_one():
    """Arguments as an object or as JSON text, and the old function_call, become one form."""
    function = {"name": "weather", "arguments": '{"city":"Bern"}'}
    as_object = {"name": "weather", "arguments": {"city": "Bern"}}
    calls = [
        {"tool_calls": [{"type": "function", "function": function}]},
        {"tool_calls": [{"function": as_object}]},
        {"tool_calls": [as_object]},
        {"function_call": function},
    ]
    for call in calls:
        row = {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": None, **call},
                {"role": "tool", "content": "", "name": "weather", "tool_call_id": "1"},
                {"role": "assistant", "content": "Sunny."},
            ]
        }
        messages = normalise(row).messages
        assert messages[1] == {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": function}],
        }
        assert messages[2] == {"role": "tool", "content": "", "name": "weather", "tool_call_id": "1"}


def test_the_cookbooks_own_tool_calls_are_read():
    """Messages with the cookbook's ToolCall objects are rows too."""
    from tinker_cookbook.renderers import ToolCall

    call = ToolCall(function=ToolCall.FunctionBody(name="f", arguments="{}"), id="call-1")
    row = {
        "messages": [
            {"role": "user", "content": "Do it"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
    }
    (made,) = normalise(row).messages[1]["tool_calls"]
    assert made == {"type": "function", "id": "call-1", "function": {"name": "f", "arguments": "{}"}}


def test_a_sharegpt_function_call_is_a_tool_call():
    """ShareGPT's function_call and observation turns become a call and its result."""
    row = {
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bern"}}'},
            {"from": "observation", "value": "sunny"},
            {"from": "gpt", "value": "Sunny."},
        ],
        "tools": '[{"name": "weather", "description": "d", "parameters": {}}]',
    }
    made = normalise(row)
    assert [message["role"] for message in made.messages] == ["user", "assistant", "tool", "assistant"]
    assert made.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Bern"}'
    assert made.tools == ({"name": "weather", "description": "d", "parameters": {}},)


def test_openai_tools_are_unwrapped():
    """A tool inside OpenAI's function envelope is the tool."""
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
    assert normalise(turns(*EXPECTED, tools=tools)).tools[0]["name"] == "f"


def test_reasoning_is_a_thinking_part():
    """Reasoning beside the content is kept, as the cookbook's thinking part."""
    row = turns(*EXPECTED)
    row["messages"][1]["reasoning_content"] = "They greet."
    content = normalise(row).messages[1]["content"]
    assert content == [{"type": "thinking", "thinking": "They greet."}, {"type": "text", "text": "Hello"}]


def test_weights_of_messages_become_trainable():
    """OpenAI's weight and the cookbook's trainable both say whether a turn is trained on."""
    row = turns(*EXPECTED, ("user", "Bye"), ("assistant", "Bye"))
    row["messages"][1]["weight"] = 0
    row["messages"][3]["trainable"] = True
    assert [message.get("trainable") for message in normalise(row).messages] == [None, False, None, True]


def test_other_fields_are_metadata():
    """Fields that the shape does not use are kept, and none of those that it uses."""
    assert normalise({"input": "Hi", "output": "Hello", "customer": "c1", "n": 3}).metadata == {
        "customer": "c1",
        "n": 3,
    }


def test_a_shape_can_be_pinned():
    """Where a row would fit two shapes, naming one decides."""
    row = {"prompt": "a", "completion": "b", "input": "c", "output": "d"}
    assert said(row) == [("user", "a"), ("assistant", "b")]
    assert said(row, "io") == [("user", "c"), ("assistant", "d")]
    with pytest.raises(RowError, match="no 'messages', which the shape 'messages' needs"):
        normalise(row, "messages")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1], "not an object but a list"),
        ("hello", "not an object but text"),
        (None, "not an object but null"),
        ({}, "no messages: the row has no fields"),
        ({"question": "?"}, "no messages: the row has 'question'"),
        ({"messages": None}, "no messages"),
        ({"messages": "Hi"}, "'messages' is not a list but text"),
        ({"messages": []}, "no messages: the list is empty"),
        ({"messages": ["Hi"]}, "message 1 is not an object but text"),
        ({"text": "once upon a time"}, "raw text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "a preference pair .* DPO, not for SFT"),
        (turns(("user", "Hi")), "no assistant turn"),
        (turns(*EXPECTED, ("user", "And?")), "the last message is from 'user'"),
        (turns(("alien", "Hi"), ("assistant", "Hello")), "message 1 has an unknown role: 'alien'"),
        (turns((None, "Hi"), ("assistant", "Hello")), "message 1 has an unknown role: None"),
        (turns(("user", "Hi"), ("assistant", "  \n")), r"message 2 \(assistant\) has empty content"),
        (turns(("user", ""), ("assistant", "Hello")), r"message 1 \(user\) has empty content"),
        (turns(("user", None), ("assistant", "Hello")), "message 1 has no content"),
        (turns(("user", 7), ("assistant", "Hello")), "content that is not text but a number"),
        (turns(("user", True), ("assistant", "Hello")), "content that is not text but true or false"),
        (turns(("user", [{"type": "image", "image": "x"}]), ("assistant", "a")), "a part of type 'image'"),
        (turns(("user", ["x"]), ("assistant", "a")), "a part that is text"),
        (turns(("user", [{"type": "text"}]), ("assistant", "a")), "a text part without text"),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, "no assistant turn"),
        ({"conversations": [3]}, "turn 1 is not an object but a number"),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "tool call that is not JSON"),
        (turns(*EXPECTED, tools="{"), "'tools' is not JSON"),
        (turns(*EXPECTED, tools=[{}]), "'tools' has an entry without a name"),
        (turns(*EXPECTED, tools=5), "'tools' is not a list but a number"),
    ],
)
def test_what_cannot_be_learned_from_says_why(row, reason):
    """Each row that cannot be used is refused with its own reason."""
    with pytest.raises(RowError, match=reason):
        normalise(row)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"tool_calls": 5}, "tool_calls that are not a list but a number"),
        ({"tool_calls": [5]}, "a tool call without a function name"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "a tool call that is not JSON"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}, "a list, not an object"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": 5}}]}, "arguments that are a number"),
        ({"weight": 0.5}, "the weight 0.5; 0 and 1 are possible"),
    ],
)
def test_a_bad_call_or_weight_says_why(call, reason):
    """Tool calls and weights are checked as strictly as content."""
    row = turns(*EXPECTED)
    row["messages"][1] |= call
    with pytest.raises(RowError, match=reason):
        normalise(row)
