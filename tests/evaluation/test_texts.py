"""Whole evaluations of checkpoints on files: held to transformers, to each other, and what is refused before a load."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import wmtp
from checkpoints import change_tensors, write_llama_checkpoint, write_mtp_checkpoint
from data_files import write_lines
from native_files import write_native
from native_models import native
from scoring_cases import write_reward
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES, build_tokenizer, write_code_file
from wmtp.authoring.init import init_metadata
from wmtp.errors import DataError, IncompatibleModelError, SettingsError

PAIRS = [{"text": f"Line {n}.\n", "code": line} for n, line in enumerate(CODE_LINES)]
KEYS = {"prompt": "text", "completion": "code"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    write_llama_checkpoint(zoo / "plain", initializer_range=0.3, max_position_embeddings=128)
    write_mtp_checkpoint(zoo / "heads", tiny_mtp(heads=3, vocab_size=98, max_position_embeddings=128))
    write_lines(zoo / "pairs.jsonl", *PAIRS)
    write_lines(zoo / "lines.jsonl", *({"text": line} for line in CODE_LINES))
    return zoo


def write_declared(directory, family):
    write_native(directory, family, model=native(family, config={"vocab_size": 128}), vocab_size=128)
    init_metadata(directory)


def transformers_loss(directory, texts, prompts=None) -> float:
    """The loss that transformers itself gives: one batch, padded, labels -100 on padding and prompts."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    rows = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    starts = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts or [""] * len(texts)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    for row, start in zip(labels, starts, strict=True):
        row[:start] = -100
    with torch.no_grad():
        return float(model(ids, attention_mask=mask, labels=labels).loss)


def test_the_loss_of_head_1_is_that_of_transformers(zoo):
    found = wmtp.evaluate(zoo / "plain", zoo / "lines.jsonl", max_length=128).models[0].heads[0]
    expected = transformers_loss(zoo / "plain", CODE_LINES)
    assert found.cross_entropy.value == pytest.approx(expected, abs=1e-6)
    assert found.perplexity.value == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-5)
    assert expected > 5


def test_prompts_are_read_and_not_measured(zoo):
    options = {"format": "prompt_completion", "keys": KEYS, "max_length": 128}
    evaluation = wmtp.evaluate(zoo / "plain", zoo / "pairs.jsonl", **options)
    texts, prompts = [p["text"] + p["code"] for p in PAIRS], [p["text"] for p in PAIRS]
    expected = transformers_loss(zoo / "plain", texts, prompts)
    assert evaluation.models[0].heads[0].cross_entropy.value == pytest.approx(expected, abs=1e-6)
    assert evaluation.measured.targets == sum(len(line) + 1 for line in CODE_LINES)


def test_bits_per_byte_are_the_loss_over_what_is_predicted(zoo):
    model = wmtp.evaluate(zoo / "plain", zoo / "lines.jsonl", max_length=128).models[0]
    nats = model.heads[0].cross_entropy.value * model.heads[0].targets
    num_bytes = sum(len(line) - 1 for line in CODE_LINES)  # one token a character, and the first is not predicted
    assert model.bits_per_byte.value == pytest.approx(nats / torch.tensor(2.0).log().item() / num_bytes, rel=1e-6)


def test_a_model_differs_from_itself_by_nothing_at_all(zoo):
    evaluation = wmtp.evaluate([zoo / "heads", zoo / "heads"], zoo / "lines.jsonl", resamples=50)
    (difference,) = evaluation.differences
    estimates = [difference.tokens_per_forward, *(e for head in difference.heads.values() for e in head.values())]
    assert len(estimates) == 1 + 3 + 4 + 4
    assert {(e.value, e.low, e.high) for e in estimates} == {(0.0, 0.0, 0.0)}


def test_models_are_compared_head_by_head_as_far_as_both_have_them(zoo):
    evaluation = wmtp.evaluate([zoo / "heads", zoo / "plain"], zoo / "lines.jsonl", resamples=50)
    first, second = (model.heads[0].cross_entropy.value for model in evaluation.models)
    (difference,) = evaluation.differences
    assert list(difference.heads) == [1]
    assert difference.heads[1]["cross_entropy"].value == pytest.approx(second - first)
    assert [len(model.heads) for model in evaluation.models] == [3, 1]
    assert evaluation.models[1].tokens_per_forward.value == 1.0


def test_packing_and_batches_change_no_figure(zoo):
    options = ({"packing": True}, {"batch_size": 1}, {})
    found = [wmtp.evaluate(zoo / "heads", zoo / "lines.jsonl", max_length=128, **each).models[0] for each in options]
    for other in found[1:]:
        for head, expected in zip(other.heads, found[0].heads, strict=True):
            assert head.cross_entropy.value == pytest.approx(expected.cross_entropy.value, abs=1e-5)
            assert head.top5.value == expected.top5.value
        assert other.tokens_per_forward == found[0].tokens_per_forward


def test_native_heads_are_measured_as_they_load(tmp_path):
    write_declared(tmp_path / "native", "mellum")
    found = wmtp.evaluate(tmp_path / "native", write_code_file(tmp_path / "code.py"), max_length=32, limit=1)
    assert [head.head for head in found.models[0].heads] == [1, 2]
    assert 1 <= found.models[0].tokens_per_forward.value <= 2


def test_one_long_document_has_intervals_over_its_windows(zoo, tmp_path):
    found = wmtp.evaluate(zoo / "plain", write_code_file(tmp_path / "code.py"), max_length=32, resamples=50)
    assert found.measured.unit == "windows of one document"
    estimate = found.models[0].heads[0].cross_entropy
    assert estimate.low < estimate.value < estimate.high


def test_limit_takes_the_first_documents(zoo):
    found = wmtp.evaluate(zoo / "plain", zoo / "lines.jsonl", limit=2, max_length=128)
    assert found.measured.documents == 2
    expected = transformers_loss(zoo / "plain", CODE_LINES[:2])
    assert found.models[0].heads[0].cross_entropy.value == pytest.approx(expected, abs=1e-6)


def test_chats_are_measured_on_what_the_assistant_says(zoo, tmp_path):
    shutil.copytree(zoo / "plain", tmp_path / "chat")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    write_lines(tmp_path / "chats.jsonl", {"messages": turns}, {"messages": turns})
    found = wmtp.evaluate(tmp_path / "chat", tmp_path / "chats.jsonl", format="chat", max_length=128)
    assert found.measured.targets == 2 * len("hello")


def test_the_result_shows_itself_as_a_table_and_as_plain_json(zoo):
    evaluation = wmtp.evaluate([zoo / "heads", zoo / "plain"], zoo / "lines.jsonl", resamples=20)
    facts = json.loads(json.dumps(evaluation.to_dict()))
    assert list(facts) == ["measured", "models", "differences", "resampling"]
    assert [head["head"] for head in facts["models"][0]["heads"]] == [1, 2, 3]
    shown = evaluation._repr_html_()
    assert shown.count("<table>") == 3
    assert f"<td>{zoo}/heads</td><td>1</td>" in shown
    assert "95 % of 20 draws of documents" in shown


def test_models_of_different_tokenizers_are_refused_with_what_can_be_compared(zoo, tmp_path):
    shutil.copytree(zoo / "plain", tmp_path / "other")
    build_tokenizer(120).save_pretrained(tmp_path / "other")
    with pytest.raises(IncompatibleModelError) as caught:
        wmtp.evaluate([zoo / "plain", tmp_path / "other"], zoo / "lines.jsonl")
    assert caught.value.problem.startswith(
        f"{tmp_path}/other: its tokenizer makes other tokens than that of {zoo}/plain"
    )
    assert "bits_per_byte" in caught.value.hint


def test_a_reward_model_predicts_no_tokens(zoo, tmp_path):
    write_reward(tmp_path / "rm")
    with pytest.raises(IncompatibleModelError, match="rm: a reward model, which predicts no tokens"):
        wmtp.evaluate(tmp_path / "rm", zoo / "lines.jsonl")


def test_a_model_that_does_not_load_is_refused_before_the_first_is_measured(zoo, tmp_path, caplog):
    shutil.copytree(zoo / "plain", tmp_path / "broken")
    change_tensors(tmp_path / "broken", lambda tensors: tensors.pop("model.norm.weight"))
    with caplog.at_level("INFO", "wmtp"), pytest.raises(wmtp.WmtpError, match=r"model\.norm\.weight"):
        wmtp.evaluate([zoo / "plain", tmp_path / "broken"], zoo / "lines.jsonl")
    assert not any("tokens in" in record.message and "windows" in record.message for record in caplog.records)


def test_text_longer_than_the_positions_of_a_model_is_refused(zoo):
    with pytest.raises(DataError, match="it knows 128 positions, and the longest document of data has") as caught:
        wmtp.evaluate(zoo / "plain", [zoo / "lines.jsonl", zoo / "pairs.jsonl"], format="raw_text", max_length=512)
    assert caught.value.hint.startswith(
        "set data.max_length: 128, or less; there is no recipe here: fields of data are"
    )


def test_a_key_that_records_lack_is_told_line_by_line_with_the_option_that_names_it(zoo):
    with pytest.raises(DataError) as caught:
        wmtp.evaluate(zoo / "plain", zoo / "pairs.jsonl", format="prompt_completion")
    assert len(caught.value.faults) == len(PAIRS)
    assert caught.value.hint.endswith("fields of data are --format, --key NAME=VALUE and --max-length")


def test_weights_that_are_no_numbers_are_named(zoo, tmp_path):
    shutil.copytree(zoo / "plain", tmp_path / "nan")
    change_tensors(tmp_path / "nan", lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DataError, match=rf"nan: the loss of head 1 is nan on {zoo}/lines.jsonl:\d, at token 1 of its"):
        wmtp.evaluate(tmp_path / "nan", zoo / "lines.jsonl")


def test_a_model_that_lets_packed_windows_see_each_other_is_told_to_leave_packing_off(zoo, tmp_path):
    write_declared(tmp_path / "native", "qwen3_5")
    with pytest.raises(IncompatibleModelError) as caught:
        wmtp.evaluate(tmp_path / "native", zoo / "lines.jsonl", packing=True, max_length=64)
    assert "documents packed into one row see each other" in caught.value.problem
    assert caught.value.hint.startswith("leave packing off")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_lenght": 8}, r"evaluate has no option 'max_lenght' \(did you mean 'max_length'\?\)"),
        ({"limit": 0}, "limit is 0, expected 1 or more"),
        ({"confidence": 1.0}, "confidence is 1.0, expected a share between 0 and 1"),
        ({"format": "chats"}, r"data: format is 'chats'"),
        ({"keys": {"completion": "code"}}, "data: completion is 'code', and format 'text' does not use it"),
        ({"max_length": 1}, "data: max_length is 1: input should be greater than or equal to 2"),
    ],
)
def test_an_option_that_is_none_is_refused(zoo, options, problem):
    with pytest.raises(SettingsError, match=problem):
        wmtp.evaluate(zoo / "plain", zoo / "lines.jsonl", **options)


def test_a_lock_is_of_one_model(zoo):
    with pytest.raises(SettingsError, match="lock pins one checkpoint, and 2 are to be evaluated"):
        wmtp.evaluate([zoo / "plain"] * 2, zoo / "lines.jsonl", lock={"config.json": "sha256:" + "0" * 64})


def test_nothing_named_is_refused(zoo):
    with pytest.raises(SettingsError, match="no model to evaluate is named"):
        wmtp.evaluate([], zoo / "lines.jsonl")
    with pytest.raises(SettingsError, match="no data to evaluate on is named"):
        wmtp.evaluate(zoo / "plain", [])


def test_a_model_without_tokenizer_reads_no_text(zoo, tmp_path):
    shutil.copytree(zoo / "plain", tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / name).unlink()
    with pytest.raises(DataError, match="mute: the model has no tokenizer to read text with"):
        wmtp.evaluate(tmp_path / "mute", zoo / "lines.jsonl")
