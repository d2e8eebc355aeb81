"""`wmtp.generate`: prompts in, rows with figures out."""

import json

import pytest

import wmtp
from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from generation.taught import prompts, taught
from tiny_models import tiny_mtp
from tiny_tokenizer import build_tokenizer
from wmtp.errors import DataError, GenerationError
from wmtp.generation.prompts import encoded, read_prompts

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tokenizer = build_tokenizer()
    model = tiny_mtp("llama", 3, "linear", vocab_size=len(tokenizer))
    return write_mtp_checkpoint(tmp_path_factory.mktemp("zoo") / "mtp", model, tokenizer)


def with_template():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_an_address_what_was_loaded_and_a_module_give_the_same(directory):
    loaded = wmtp.load(directory)
    texts = [
        wmtp.generate(model, "def add", max_new_tokens=8, **options).texts
        for model, options in (
            (directory, {}), (str(directory), {}), (loaded, {}), (loaded.model, {"tokenizer": loaded.tokenizer}),
        )
    ]  # fmt: skip
    assert texts == [texts[0]] * 4
    assert texts[0][0]


def test_rows_stand_in_the_order_of_prompts_and_each_is_as_alone(directory):
    given = ["def add", "for number", [5, 6, 7]]
    found = wmtp.generate(directory, given, max_new_tokens=8)
    assert [row.tokens for row in found.rows] == [
        wmtp.generate(directory, [prompt], max_new_tokens=8).rows[0].tokens for prompt in given
    ]
    assert [row.prompt for row in found.rows] == ["def add", "for number", None]


def test_the_figures_are_those_of_the_rows():
    model = taught("llama-linear")
    found = wmtp.generate(model, prompts(6), max_new_tokens=12, ignore_eos=True, compare=True)
    assert found.num_tokens == 72
    assert found.tokens_per_forward == 72 / found.counts.passes
    assert found.counts.passes + sum(found.counts.accepted) == 72
    assert found.num_equal == 6
    assert (found.plain.counts.passes, found.plain.tokens_per_forward) == (72, 1.0)
    assert found.speedup == pytest.approx(found.plain.seconds / found.seconds)
    assert found.counts.acceptance[0] == found.counts.accepted[0] / found.counts.drafted[0]
    facts = json.loads(json.dumps(found.to_dict()))
    assert facts["plain"]["forward_passes"] == 72
    assert facts["rows"][3]["tokens"] == list(found.rows[3].tokens)


def test_the_summary_says_what_it_took():
    lines = list(wmtp.generate(taught("llama-linear"), prompts(2), max_new_tokens=8, compare=True).summary())
    assert " new tokens, " in lines[0]
    assert " a forward pass, " in lines[0]
    assert lines[1].startswith("accepted drafts by place: ")
    assert lines[2].startswith("repeated runs of 8 tokens: ")
    assert " times the speed of plain decoding in this run (" in lines[3]
    assert lines[3].endswith("; 2 of 2 rows have the same tokens")


def test_a_notebook_shows_a_short_table_in_which_text_is_no_markup(directory):
    shown = wmtp.generate(directory, "<b>", max_new_tokens=4)._repr_html_()
    assert "<pre>&lt;b&gt;</pre>" in shown
    assert "<b>" not in shown
    many = wmtp.generate(directory, ["def"] * 25, max_new_tokens=1)._repr_html_()
    assert many.count("<tr>") == 22
    assert "and 5 more" in many


def test_a_row_ends_where_the_model_has_no_more_positions(tmp_path):
    tokenizer = build_tokenizer()
    model = tiny_mtp("gpt2", 3, "linear", vocab_size=len(tokenizer), n_positions=16)
    row = wmtp.generate(model, [[5, 6, 7]], ignore_eos=True).rows[0]
    assert (len(row.tokens), row.finish) == (13, "context")
    with pytest.raises(GenerationError) as caught:
        wmtp.generate(model, [[5], [5] * 16])
    assert str(caught.value) == (
        "prompt 2 has 16 tokens, and the model 16 positions\nhint: give at most 15 tokens, so that one can follow"
    )


def test_tokens_that_end_a_text_are_taken_from_generation_config_too(tmp_path):
    directory = write_llama_checkpoint(tmp_path / "llama")
    first = wmtp.generate(directory, "def add", max_new_tokens=4).rows[0].tokens[0]
    path = directory / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [first]}))
    row = wmtp.generate(directory, "def add", max_new_tokens=4).rows[0]
    assert (row.tokens, row.finish) == ((first,), "eos")


def test_a_text_begins_as_in_training_and_a_chat_as_its_template_says():
    begun = build_tokenizer(begins_texts=True)
    assert next(encoded("def", begun, chat=False)).tokens == (1, *begun("def", add_special_tokens=False)["input_ids"])
    chat = next(encoded("Hi", with_template(), chat=True))
    assert chat.text == "user: Hi\nassistant: "
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert next(encoded(turns, with_template(), chat=False)).text == "user: a\nassistant: b\nuser: c\nassistant: "


@pytest.mark.parametrize(
    ("prompts", "tokenizer", "said"),
    [
        ([], build_tokenizer(), "there is no prompt"),
        ([""], build_tokenizer(), "prompt 1 has no token, and the model's tokenizer has no token that begins a text"),
        (["a", 7], build_tokenizer(), "prompt 2 is 7\nhint: give text, a list of turns"),
        ([[1, -1]], None, r"prompt 1 is \[1, -1\]"),
        ("text", None, "prompt 1 is text, and the model has no tokenizer"),
        ([[{"role": "user", "content": "a"}]], build_tokenizer(), "prompt 1: .* has no chat template"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(prompts, tokenizer, said):
    with pytest.raises(GenerationError, match=said):
        list(encoded(prompts, tokenizer, chat=False))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a whole number of at least 1"),
        ({"temperature": -1}, "temperature is -1, expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature is NaN"),
        ({"temperature": 1.0, "top_p": 0}, "top_p is 0, expected a number above 0, up to 1"),
        ({"top_p": 0.9}, "top_p is 0.9, and without a temperature no token is drawn\nhint: set a temperature"),
        ({"stop": ["a", ""]}, "a stop string is empty"),
        ({"stop": "a"}, "stop is given, and the model has no tokenizer"),
        ({"seed": -1, "temperature": 1}, "seed is -1"),
        ({"drafts": 1.5}, "drafts is 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(GenerationError, match=said):
        wmtp.generate(taught("llama-linear"), [[5]], **options)


def test_prompts_of_a_file_are_texts_or_chats(tmp_path):
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "user", "content": "a"}]
    path.write_text(json.dumps({"prompt": " def", "id": 1}) + "\n\n" + json.dumps({"messages": turns}) + "\n")
    assert read_prompts(path) == [" def", turns]


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("", GenerationError, "prompts.jsonl: has no line"),
        ('{"text": "a"}', DataError, "prompts.jsonl:1: the key 'prompt' is missing; keys found: 'text'"),
        ('{"prompt": 1}', DataError, "prompts.jsonl:1: 'prompt' is 1, expected text"),
        ('{"messages": [1]}', DataError, "prompts.jsonl:1: turn 1 of 'messages' is 1, expected an object"),
        ("def add", DataError, "prompts.jsonl:1: is not JSON"),
    ],
)
def test_a_file_of_prompts_that_is_none_is_refused_by_line(line, error, said, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(line)
    with pytest.raises(error, match=said):
        read_prompts(tmp_path / "prompts.jsonl")
