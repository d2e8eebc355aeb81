import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny_tokenizer import build_tokenizer
from wmtp.data.documents import Document
from wmtp.data.example import Example
from wmtp.data.rows import RowDataset, build_rows
from wmtp.errors import DataError
from wmtp.settings.data import DataSource


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def example(length, num_prompt_tokens=0):
    return Example(torch.arange(1, length + 1, dtype=torch.int32), num_prompt_tokens)


def rows_of(documents, tokenizer, *, max_length=64, packing=True):
    source = DataSource(files=["unused"], max_length=max_length, packing=packing)
    return build_rows(documents, tokenizer, source, name="data.train")


def test_every_text_ends_with_one_learned_end_token(tokenizer):
    documents = [Document("x = 1"), Document("y = 2</s>")]
    rows = rows_of(documents, tokenizer, packing=False)
    for (learned,) in rows.rows:
        assert learned.input_ids.tolist().count(tokenizer.eos_token_id) == 1
        assert learned.labels[-1] == tokenizer.eos_token_id


def test_a_tokenizers_begin_token_comes_once_and_before_the_prompt():
    tokenizer = build_tokenizer(begins_texts=True)
    (with_prompt,), (plain,) = rows_of([Document("b", prompt="a\n"), Document("x = 1")], tokenizer, packing=False).rows
    assert tokenizer.decode(with_prompt.input_ids) == "<s>a\nb</s>"
    assert tokenizer.decode(plain.input_ids) == "<s>x = 1</s>"
    assert tokenizer.decode(with_prompt.labels[with_prompt.num_prompt_tokens :]) == "b</s>"


@pytest.mark.parametrize(("prompt", "text"), [("add", "a + b"), ("add\n\n", "\n\na"), ("  ", " x \r\n"), ("", "x")])
def test_tokens_are_of_prompt_and_completion_as_they_stand(prompt, text):
    tokenizer = tokenizer_with(" four")
    ((built,),) = rows_of([Document(text, prompt=prompt)], tokenizer, packing=False).rows
    assert tokenizer.decode(built.input_ids) == f"{prompt}{text}</s>"
    assert tokenizer.decode(built.input_ids[built.num_prompt_tokens :]) == f"{text}</s>"


@pytest.mark.parametrize("cut", ["A:| four", "A: |four", "A: fo|ur"])
def test_the_seam_is_tokenized_as_one_text_and_a_token_across_it_is_learned(cut):
    tokenizer = tokenizer_with(" four")
    prompt, text = cut.split("|")
    ((built,),) = rows_of([Document(text, prompt=prompt)], tokenizer, packing=False).rows
    assert [tokenizer.decode(token) for token in built.input_ids] == ["A", ":", " four", "</s>"]
    assert built.num_prompt_tokens == 2


def tokenizer_with(word):
    """A tokenizer of bytes and of one word."""
    letters = word.replace(" ", "Ġ")
    pairs = [(letters[:end], letters[end]) for end in range(1, len(letters))]
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, pairs)]
    inner = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=pairs))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def test_the_loss_is_on_the_completion_only(tokenizer):
    ((built,),) = rows_of([Document("    return 1", prompt="def f():")], tokenizer, packing=False).rows
    learned = built.labels[built.labels != -100]
    assert tokenizer.decode(learned) == "    return 1</s>"
    assert built.num_targets == len(learned)


def test_a_token_that_spans_prompt_and_completion_is_learned():
    tokenizer = build_tokenizer(vocab_size=120)
    spanning = tokenizer.convert_tokens_to_ids("ĊĠĠĠ")  # a newline and three spaces
    ((built,),) = rows_of([Document("    x", prompt="a\n")], tokenizer, packing=False).rows
    assert spanning in tokenizer("a\n    x")["input_ids"]
    assert built.labels[built.num_prompt_tokens] == spanning


def test_a_long_text_is_split_into_pieces_that_stand_by_themselves(tokenizer):
    text = "abcdefghijklmnopqrstuvwxyz"
    rows = rows_of([Document(text)], tokenizer, max_length=10)
    pieces = [piece for row in rows.rows for piece in row]
    assert [len(piece) for piece in pieces][:2] == [10, 10]
    assert tokenizer.decode(torch.cat([piece.input_ids for piece in pieces])) == text + "</s>"


def test_a_long_completion_is_cut_and_loses_its_end_token(tokenizer):
    ((built,),) = rows_of([Document("bcdefghijkl", prompt="a")], tokenizer, max_length=8, packing=False).rows
    assert len(built) == 8
    assert tokenizer.eos_token_id not in built.input_ids


def test_prompts_that_fill_the_row_leave_nothing_to_learn(tokenizer):
    with pytest.raises(DataError, match="none of 1 documents leaves a token to learn within max_length 4"):
        rows_of([Document("x", prompt="abcdefgh")], tokenizer, max_length=4)


def test_a_tokenizer_without_an_end_token_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end-of-sequence token"):
        rows_of([Document("x")], tokenizer)


def test_packed_rows_keep_document_boundaries_and_padding_is_one_more_document():
    rows = RowDataset([(example(3), example(2, num_prompt_tokens=1))], packed_length=8)
    batch = rows.collate([rows[0]])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 1, 2, 0, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3, -100, 2, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch["document_ids"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    assert "attention_mask" not in batch


def test_unpacked_batches_are_padded_on_the_right_and_masked():
    rows = RowDataset([(example(3),), (example(1),)])
    batch = rows.collate([rows[0], rows[1]])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [1, -100, -100]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long


def test_packing_loses_no_document_and_fills_no_row_beyond_its_length(tokenizer):
    documents = [Document("x" * (1 + index * 7 % 30)) for index in range(100)]
    rows = rows_of(documents, tokenizer, max_length=32)
    assert max(sum(map(len, row)) for row in rows.rows) <= 32
    assert rows.num_tokens == sum(len(document.text) + 1 for document in documents)
    assert rows.num_tokens / (32 * len(rows)) > 0.9


def test_the_fingerprint_changes_with_anything_that_is_learned():
    fingerprints = {
        RowDataset([(example(3), example(2))]).fingerprint(),
        RowDataset([(example(3),), (example(2),)]).fingerprint(),
        RowDataset([(example(2), example(3))]).fingerprint(),
        RowDataset([(example(3), example(2, num_prompt_tokens=1))]).fingerprint(),
    }
    assert len(fingerprints) == 4
    assert RowDataset([(example(3),)]).fingerprint() == RowDataset([(example(3),)]).fingerprint()


def scored(length, reward, num_prompt_tokens=0):
    scores = {"reward": torch.tensor(reward), "nll": torch.arange(length, dtype=torch.float32)}
    return Example(torch.arange(1, length + 1, dtype=torch.int32), num_prompt_tokens, scores)


def test_packed_rows_have_each_documents_scores_beside_its_tokens_and_zero_on_padding():
    rows = RowDataset([(scored(3, 0.5), scored(2, -1.0))], packed_length=8)
    batch = rows.collate([rows[0]])
    assert batch["reward"].tolist() == [[0.5, 0.5, 0.5, -1, -1, 0, 0, 0]]
    assert batch["nll"].tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch["reward"].dtype == batch["nll"].dtype == torch.float32


def test_padded_rows_have_scores_beside_their_tokens():
    rows = RowDataset([(scored(3, 2.0),), (scored(1, 4.0),)])
    batch = rows.collate(rows.rows)
    assert batch["reward"].tolist() == [[2, 2, 2], [4, 0, 0]]
    assert batch["nll"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_scores_are_attached_in_the_order_of_documents():
    rows = RowDataset([(example(3), example(2)), (example(1),)], packed_length=8)
    tokens = rows.with_scores("nll", [torch.full((len(e),), float(n)) for n, e in enumerate(rows.examples)])
    both = tokens.with_scores("reward", [torch.tensor(float(n)) for n in range(3)])
    assert both.collate(both.rows)["nll"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]]
    assert both.document_scores().keys() == {"reward"}
    assert both.document_scores()["reward"].tolist() == [0, 1, 2]
    assert both.fingerprint() == rows.fingerprint()
    assert rows.document_scores() == {}


def test_scores_that_do_not_fit_their_documents_are_a_mistake_of_the_caller():
    rows = RowDataset([(example(3),), (example(2),)])
    with pytest.raises(ValueError, match=r"nll: figures of shape \(2,\) for 3 tokens"):
        rows.with_scores("nll", [torch.zeros(2), torch.zeros(3)])
    with pytest.raises(ValueError, match="shorter"):
        rows.with_scores("nll", [torch.zeros(3)])


def test_every_piece_of_a_document_has_the_score_that_the_data_gives_it(tokenizer):
    documents = [Document("x" * 25, scores={"reward": 0.75}), Document("y" * 20, prompt="z", scores={"reward": 0.25})]
    rows = rows_of(documents, tokenizer, max_length=10, packing=False)
    assert len(rows) == 4
    assert rows.document_scores()["reward"].tolist() == [0.75, 0.75, 0.75, 0.25]
    assert rows.longest_example() == 10
