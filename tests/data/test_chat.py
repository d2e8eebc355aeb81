import pyarrow
import pytest
from pyarrow import parquet

from data_files import read, write_lines
from tiny_tokenizer import build_tokenizer
from wmtp.data.rows import build_rows
from wmtp.errors import DataError
from wmtp.settings.data import DataSource

# As SmolLM2 has it: ChatML, with nothing that says what the assistant has written.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
# Earlier turns lose what the assistant thought, once others follow.
FORGETFUL = (
    "{% for message in messages %}{{ message['role'] + ':' }}"
    "{{ message['content'] if loop.last else message['content'][:1] }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
CHAT = [
    {"role": "user", "content": "add 1 and 2"},
    {"role": "assistant", "content": "1 + 2"},
    {"role": "user", "content": "and print"},
    {"role": "assistant", "content": "print(3)\n"},
]


def tokenizer_with(template):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def rows_of(tmp_path, tokenizer, *chats, **fields):
    documents = read(write_lines(tmp_path / "a.jsonl", *({"messages": chat} for chat in chats)), format="chat")
    source = DataSource(**{"files": ["unused"], "packing": False, "max_length": 256, **fields})
    return build_rows(documents, tokenizer, source, name="data.train")


def learned_text(tokenizer, example):
    runs, labels = [""], example.labels.tolist()
    for label in labels:
        runs = [*runs[:-1], runs[-1] + tokenizer.decode(label)] if label != -100 else [*runs, ""]
    return [run for run in runs if run]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_what_the_assistant_says_is_learned_with_the_mark_that_ends_it_and_nothing_else(tmp_path, template):
    tokenizer = tokenizer_with(template)
    ((example,),) = rows_of(tmp_path, tokenizer, CHAT).rows
    assert learned_text(tokenizer, example) == ["1 + 2<|im_end|>", "print(3)\n<|im_end|>"]
    assert tokenizer.decode(example.input_ids) == tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert example.num_targets == int((example.labels[1:] != -100).sum())


def test_chats_share_rows_and_keep_what_is_learned(tmp_path):
    tokenizer = tokenizer_with(CHATML)
    rows = rows_of(tmp_path, tokenizer, CHAT, CHAT[:2], packing=True)
    assert len(rows) == 1
    batch = rows.collate([rows[0]])
    assert int((batch["labels"] != -100).sum()) == rows.num_targets
    assert rows.fingerprint() != rows_of(tmp_path, tokenizer_with(MARKED), CHAT, CHAT[:2], packing=True).fingerprint()


def test_a_long_chat_is_cut_and_one_without_a_token_to_learn_is_left_out(tmp_path):
    rows = rows_of(tmp_path, tokenizer_with(CHATML), CHAT, max_length=80)
    ((example,),) = rows.rows
    assert len(example) == 80
    assert rows.num_targets == example.num_targets > 0
    with pytest.raises(DataError, match="none of 1 documents leaves a token to learn within max_length 8"):
        rows_of(tmp_path, tokenizer_with(CHATML), CHAT, max_length=8)


def test_a_template_that_renders_earlier_turns_otherwise_is_refused_with_the_way_to_mark_them(tmp_path):
    with pytest.raises(DataError, match=r"a\.jsonl:1: the chat template renders what comes before turn 2") as caught:
        rows_of(tmp_path, tokenizer_with(FORGETFUL), CHAT)
    assert "{% generation %}" in caught.value.hint


def test_a_tokenizer_without_a_template_and_one_that_fails_are_told(tmp_path):
    with pytest.raises(DataError, match="tokenizer has no chat template"):
        rows_of(tmp_path, build_tokenizer(), CHAT)
    failing = tokenizer_with("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: the model's chat template does not render .*roles must alternate"
    ):
        rows_of(tmp_path, failing, CHAT)


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (CHAT[:1], "'messages' has no turn of the assistant, so there is nothing to learn; roles found: 'user'"),
        ([], r"'messages' is \[\], expected a list of turns"),
        ("hello", "'messages' is 'hello', expected a list of turns"),
        ([{"from": "gpt", "value": "x"}], "turn 1 of 'messages' is .*, expected an object with role and content"),
        ([*CHAT[:1], {"role": "assistant", "content": 3}], "turn 2 of 'messages': content is 3, expected text"),
    ],
)
def test_a_chat_that_cannot_be_learned_is_named(tmp_path, messages, fault):
    path = write_lines(tmp_path / "a.jsonl", {"messages": CHAT}, {"messages": messages})
    with pytest.raises(DataError, match=rf"a\.jsonl:2: {fault}"):
        read(path, format="chat")


def test_chats_of_a_table_are_read_alike(tmp_path):
    parquet.write_table(pyarrow.table({"turns": [CHAT]}), tmp_path / "a.parquet")
    (document,) = read(tmp_path / "a.parquet", format="chat", messages="turns")
    assert document.messages == CHAT  # the order of keys is pyarrow's, and differs between its versions
