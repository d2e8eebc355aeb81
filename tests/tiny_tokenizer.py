"""A tiny real tokenizer, and the text that it was made for."""

from __future__ import annotations

from pathlib import Path

CODE_LINES = [
    "def add(a, b):\n    return a + b\n",
    "def subtract(a, b):\n    return a - b\n",
    "for number in range(10):\n    print(number)\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
]


def build_tokenizer(vocab_size: int = 96, *, begins_texts: bool = False):
    """A byte-level BPE tokenizer trained on a few lines; `</s>` is 0, `<s>` is 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Without the 256 bytes as a start alphabet, a vocabulary of a hundred would have no room for merges;
    # tests keep to the characters of CODE_LINES and printable ASCII.
    alphabet = ["Ċ", "Ġ", *map(chr, range(33, 127))]
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size, len(alphabet) + 2),
        special_tokens=["</s>", "<s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CODE_LINES, trainer)
    if begins_texts:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


def write_code_file(path: Path, repeats: int = 4) -> Path:
    """A text file of a few lines of Python that `build_tokenizer` can spell."""
    path.write_text("\n".join(CODE_LINES * repeats))
    return path
