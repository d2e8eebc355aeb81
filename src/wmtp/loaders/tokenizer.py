"""A checkpoint's tokenizer, as transformers makes it of files that were checked."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tokenization import held_to_file
from wmtp.checkpoint.tokenizer import check_sentencepiece, checked_tokenizer
from wmtp.trust.guards import construction_errors


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer, or None when the checkpoint has none.

    It is made of a private copy of the checked bytes: transformers reads whatever else it finds in a directory.

    Raises:
        WmtpError: If a file is refused, or transformers cannot make a tokenizer of them, or one that makes other ids
            than tokenizer.json.
    """
    files = checked_tokenizer(checkpoint.store, checkpoint.config)
    if not files:
        return None
    where = f"{checkpoint.where}: {', '.join(files)}"
    check_sentencepiece(files, where=where)
    with TemporaryDirectory() as directory, construction_errors(where, "the tokenizer"):
        for name, data in files.items():
            Path(directory, name).parent.mkdir(exist_ok=True)
            Path(directory, name).write_bytes(data)
        made = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        made = held_to_file(made, files, checkpoint.where, PreTrainedTokenizerFast)
    made.name_or_path = checkpoint.where
    return made
