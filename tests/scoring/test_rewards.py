"""Rewards by a model: what they are, that no document changes another's, and which models are refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM

from scoring_cases import REWARD, models_of, rows_of, write_reference, write_reward
from tiny_models import tiny_config
from tiny_tokenizer import build_tokenizer
from wmtp.algorithms.base import Score
from wmtp.data.documents import Document
from wmtp.errors import DataError, IncompatibleModelError
from wmtp.scoring import work
from wmtp.scoring.scores import online_scorers, score_rows


def rewrite(zoo, tokenizer=None, **changes):
    shutil.rmtree(zoo / "rm")
    return write_reward(zoo / "rm", tokenizer, **changes)


def rewards(zoo, rows=None, score=REWARD):
    return score_rows(rows or rows_of(), [score], models_of(zoo), name="data.train").document_scores()["reward"]


def alone(zoo, texts):
    model = AutoModelForSequenceClassification.from_pretrained(zoo / "rm").eval()
    with torch.no_grad():
        return torch.stack([model(text.long().unsqueeze(0)).logits[0, -1] for text in texts])


def test_a_reward_is_what_transformers_gives_to_the_document_alone(zoo):
    rows = rows_of()
    found = rewards(zoo, rows)
    torch.testing.assert_close(found, alone(zoo, [e.input_ids for e in rows.examples]), rtol=1e-4, atol=1e-5)
    assert found.std() > 0.01


@pytest.mark.parametrize("pad_token_id", [None, 0, 1, 7])
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_a_reward_depends_on_nothing_else_in_the_batch(zoo, monkeypatch, pad_token_id, batch_tokens):
    monkeypatch.setattr(work, "BATCH_TOKENS", batch_tokens)
    rewrite(zoo, pad_token_id=pad_token_id)
    rows = rows_of(packing=False)
    torch.testing.assert_close(
        rewards(zoo, rows), alone(zoo, [e.input_ids for e in rows.examples]), rtol=1e-4, atol=1e-5
    )


BLIND = """
import torch
from torch import nn


class Blind(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding, self.out = nn.Embedding(98, 4), nn.Linear(4, 1)

    def forward(self, input_ids):
        return self.out(self.embedding(input_ids[:, -1]))
"""


def write_blind(directory, tokenizer, code=BLIND):
    """A reward model of its own class that takes the last place of a row for the end of a text, padding or not."""
    directory.mkdir()
    torch.manual_seed(0)
    tensors = {"embedding.weight": torch.randn(98, 4), "out.weight": torch.randn(1, 4), "out.bias": torch.zeros(1)}
    save_file(tensors, directory / "model.safetensors")
    (directory / "modeling.py").write_text(code)
    (directory / "config.json").write_text(json.dumps({"model_type": "blind", "pad_token_id": 7}))
    tokenizer.save_pretrained(directory)
    strategy = {"loader_type": "custom_mtp", "model_class_name": "Blind", "custom_module_file": "modeling.py"}
    files = ["config.json", "model.safetensors", "modeling.py"]
    document = {
        "wmtp_type": "reward_model",
        "training_algorithm": "baseline",
        "base_architecture": "blind",
        "storage_version": "2.0",
        "loading_strategy": {**strategy, "required_files": files},
        "algorithm_compatibility": ["critic-wmtp"],
    }
    (directory / "metadata.json").write_text(json.dumps(document))
    return tensors


def test_a_class_that_does_not_see_where_a_text_ends_scores_them_one_by_one(zoo, caplog):
    from wmtp.manifest import sha256_bytes

    shutil.rmtree(zoo / "rm")
    tensors = write_blind(zoo / "rm", build_tokenizer())
    consent = {"allow_code": {"modeling.py": sha256_bytes((zoo / "rm" / "modeling.py").read_bytes())}}
    rows = rows_of([Document("ab" * n + "cde"[n % 3]) for n in range(1, 9)], packing=False, max_length=12)
    found = score_rows(rows, [REWARD], models_of(zoo, trust=consent), name="data.train").document_scores()["reward"]
    last = torch.tensor([int(e.input_ids[-1]) for e in rows.examples])
    expected = tensors["embedding.weight"][last] @ tensors["out.weight"][0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert "rm: padding changes its rewards, so texts are scored one by one" in caplog.text


def own_class(zoo, forward):
    """Exchange the reward model for one whose forward ends in the given lines; returns the settings that let it run."""
    from wmtp.manifest import sha256_bytes

    last = "        return self.out(self.embedding(input_ids[:, -1]))\n"
    code = BLIND.replace(last, "".join(f"        {line}\n" for line in forward))
    shutil.rmtree(zoo / "rm")
    write_blind(zoo / "rm", build_tokenizer(), code)
    return {"trust": {"allow_code": {"modeling.py": sha256_bytes(code.encode())}}}


def scored_by_own_class(zoo, forward, score=REWARD, documents=None):
    settings = own_class(zoo, forward)
    rows = rows_of(documents or [Document("ab" * n) for n in range(1, 6)], packing=False, max_length=12)
    return score_rows(rows, [score], models_of(zoo, **settings), name="data.train")


@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("documents", [None, [Document("abcd"), Document("dcba")], [Document("a")]])
def test_figures_of_tokens_are_not_taken_for_labels(zoo, label, documents):
    forward = ["return self.out(self.embedding(input_ids)).squeeze(-1)"]
    with pytest.raises(
        IncompatibleModelError, match=r"rm: Blind\.forward returns \d+ figures for a text of"
    ) as refusal:
        scored_by_own_class(zoo, forward, Score("reward", "reward", role="rm", label=label), documents)
    assert "for its tokens, and not for labels" in str(refusal.value)
    assert not list((zoo / "scores").glob("reward-*.safetensors"))


def test_as_many_figures_for_every_text_are_labels(zoo):
    forward = ["return torch.stack([input_ids[:, 0], input_ids[:, -1]], dim=1).float()"]
    documents = [Document("abc"), Document("cab")]
    rows = scored_by_own_class(zoo, forward, Score("reward", "reward", role="rm", label=0), documents)
    found = rows.document_scores()["reward"]
    assert found.tolist() == [float(example.input_ids[0]) for example in rows.examples]


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("raise KeyError('no such thing')", "KeyError"),
        ("raise SystemExit(3)", "SystemExit: '3'"),
        ("self.embedding(input_ids + 500)", "IndexError: 'index out of range in self'"),
        ("raise type('Own', (BaseException,), {})('its own')", "Own: 'its own'"),
    ],
)
def test_what_a_reward_model_raises_is_an_error_that_names_model_document_and_cause(zoo, fault, shown):
    forward = ["if input_ids.shape[1] > 9:", f"    {fault}", "return self.out(self.embedding(input_ids[:, -1]))"]
    with pytest.raises(IncompatibleModelError) as refusal:
        scored_by_own_class(zoo, forward)
    assert f"rm: it raised {shown}" in refusal.value.problem
    assert refusal.value.problem.endswith("on document 5 of data.train (11 tokens)")


def test_a_wish_to_stop_is_not_taken_for_a_fault_of_the_model(zoo):
    with pytest.raises(KeyboardInterrupt):
        scored_by_own_class(zoo, ["raise KeyboardInterrupt"])


def write_roberta(directory, model_type="roberta", **changes):
    """A classifier whose first token has the position after the id of padding."""
    from transformers import AutoConfig

    shutil.rmtree(directory)
    write_reward(directory)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model(model_type, vocab_size=98, num_labels=1, **sizes, **changes)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    metadata = directory / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"llama"', f'"{model_type}"'))


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert"])
@pytest.mark.parametrize("padding", [1, 4])
def test_positions_that_begin_after_padding_are_not_counted_as_room(zoo, model_type, padding):
    documents = [Document("ab" * n) for n in range(1, 7)]
    rows = rows_of(documents, packing=False, max_length=12)
    longest = rows.longest_example()
    write_roberta(zoo / "rm", model_type, max_position_embeddings=longest + padding + 1, pad_token_id=padding)
    assert len(rewards(zoo, rows)) == len(documents)
    write_roberta(zoo / "rm", model_type, max_position_embeddings=longest + padding, pad_token_id=padding)
    with pytest.raises(
        DataError, match=f"rm: it knows {longest - 1} positions, and the longest document of data.train has {longest}"
    ):
        rewards(zoo, rows)


def test_a_model_of_its_own_class_needs_consent(zoo):
    from wmtp.errors import TrustError

    shutil.rmtree(zoo / "rm")
    write_blind(zoo / "rm", build_tokenizer())
    with pytest.raises(TrustError, match=r"modeling\.py"):
        rewards(zoo)


def test_text_is_tokenized_again_for_a_model_with_another_tokenizer(zoo):
    tokenizer = build_tokenizer(vocab_size=150, begins_texts=True)
    rewrite(zoo, tokenizer)
    rows = rows_of()
    texts = build_tokenizer().batch_decode([e.input_ids for e in rows.examples], skip_special_tokens=True)
    assert texts[0] == "def add(a, b):\n    return a + b\n"
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    assert ids[0][0] == tokenizer.bos_token_id
    torch.testing.assert_close(rewards(zoo, rows), alone(zoo, ids), rtol=1e-4, atol=1e-5)


def test_a_text_too_long_for_the_reward_model_is_named(zoo):
    rewrite(zoo, build_tokenizer(vocab_size=150, begins_texts=True), max_position_embeddings=16)
    with pytest.raises(
        DataError,
        match=r"data.train: document \d has \d+ tokens of the reward model's tokenizer, and .*rm takes 1 to 16",
    ):
        rewards(zoo)
    rewrite(zoo, max_position_embeddings=16)
    with pytest.raises(
        DataError, match=r"rm: it knows 16 positions, and the longest document of data\.train has 64 tokens"
    ):
        rewards(zoo)


@pytest.mark.parametrize("own_tokenizer", [True, False])
def test_tokens_that_the_reward_model_does_not_know_are_named(zoo, own_tokenizer):
    rewrite(zoo, build_tokenizer(vocab_size=150, begins_texts=True) if own_tokenizer else None, vocab_size=40)
    with pytest.raises(DataError, match=r"rm: its tokenizer makes token \d+, and the model knows 40 tokens"):
        rewards(zoo)


def test_a_model_with_another_tokenizer_and_none_of_its_own_is_refused(zoo):
    (zoo / "rm" / "tokenizer.json").unlink()
    with pytest.raises(IncompatibleModelError, match="rm: the reward model has no tokenizer"):
        rewards(zoo)


@pytest.mark.parametrize("labels", [2, 3])
def test_several_labels_without_a_choice_are_refused_before_weights_are_opened(zoo, labels):
    rewrite(zoo, num_labels=labels)
    (zoo / "rm" / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(
        IncompatibleModelError,
        match=f"rm: it has {labels} labels, and the recipe does not say which of them is the reward",
    ) as caught:
        rewards(zoo)
    assert "reward_index: 0" in caught.value.hint
    assert not (zoo / "scores").exists()


def test_the_label_that_is_named_is_the_reward(zoo):
    rewrite(zoo, num_labels=3)
    rows = rows_of()
    last = rewards(zoo, rows, Score("reward", "reward", role="rm", label=2))
    torch.testing.assert_close(last, alone(zoo, [e.input_ids for e in rows.examples]), rtol=1e-4, atol=1e-5)
    first = rewards(zoo, rows, Score("reward", "reward", role="rm", label=0))
    assert not torch.allclose(first, last)


def test_a_label_that_is_not_there_is_refused(zoo):
    with pytest.raises(IncompatibleModelError, match=r"rm: it has 1 label\(s\), counted from 0, .* names label 1"):
        rewards(zoo, score=Score("reward", "reward", role="rm", label=1))


def test_a_model_that_answers_with_no_figure_for_a_text_is_refused(zoo):
    LlamaForCausalLM(tiny_config("llama", vocab_size=98)).save_pretrained(zoo / "rm")
    path = zoo / "rm" / "metadata.json"
    path.write_text(path.read_text().replace("AutoModelForSequenceClassification", "AutoModelForCausalLM"))
    with pytest.raises(IncompatibleModelError, match=r"LlamaForCausalLM\.forward returned shape .*expected one figure"):
        rewards(zoo)


def test_a_reward_that_is_not_finite_names_model_and_document_and_is_not_kept(zoo):
    path = zoo / "rm" / "model.safetensors"
    tensors = load_file(path)
    tensors["score.weight"][:] = float("inf")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"rm: the reward that it gives to document \d+ of data.train is (inf|-inf|nan)"
    ):
        rewards(zoo)
    assert not list((zoo / "scores").glob("reward-*"))


def test_a_reward_that_is_to_be_computed_while_training_is_refused(zoo):
    online = Score("reward", "reward", role="rm", online=True)
    with pytest.raises(IncompatibleModelError, match="is a reward that is to be computed while training"):
        rewards(zoo, score=online)
    with pytest.raises(IncompatibleModelError, match="is a reward that is to be computed while training"):
        online_scorers([online], models_of(zoo), "cpu")


def test_losses_and_rewards_can_be_asked_for_at_once(zoo):
    write_reference(zoo / "ref")
    loss = Score("ref_nll", "nll", role="ref")
    rows = score_rows(rows_of(), [loss, REWARD], models_of(zoo), name="data.train")
    batch = rows.collate(rows.rows)
    assert batch["ref_nll"].shape == batch["reward"].shape == batch["input_ids"].shape
