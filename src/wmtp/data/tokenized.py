"""The tokens of a recipe's data: made once and kept where they are many, made anew where that takes a moment."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from wmtp.data.documents import DocumentReader
from wmtp.data.encoding import Encoder
from wmtp.data.fault_list import FaultList
from wmtp.data.file_digests import file_digests
from wmtp.data.files import DataFile, LeftOut
from wmtp.data.store_writer import StoreWriter
from wmtp.data.token_cache import KeptStore, TokenCache, digest_of
from wmtp.data.tokenizing import AnyDocument, tokenize

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

logger = logging.getLogger("wmtp")

# Of files that hold less than this nothing is kept: reading them anew takes seconds.
KEPT_BYTES = 8 << 20
_FORMAT = 1
_KEYS = {"files", "weight", "max_length", "packing", "sources", "fraction"}  # on which tokens do not depend


@dataclass(frozen=True)
class Tokenizing:
    """How documents become tokens.

    Attributes:
        tokenizer: The model's (a `PreTrainedTokenizerBase`).
        num_proc: How many processes do it.
        cache_dir: The cache; None: its usual place.
    """

    tokenizer: Any
    num_proc: int = 1
    cache_dir: str | None = None


@dataclass(frozen=True)
class SourceFiles:
    """The files of the sources of one section of a recipe.

    Attributes:
        readers: One for each source.
        files: Those of each source.
    """

    readers: Sequence[DocumentReader]
    files: Sequence[Sequence[DataFile]]

    @classmethod
    def of(cls, source: DataSource, field: str, columns: Mapping[str, str], cache_dir: str | None) -> SourceFiles:
        """Find the files of a section; what is not on this machine is fetched."""
        faults, left_out = FaultList(field), LeftOut()
        readers = [DocumentReader(part, field, columns, faults, left_out, cache_dir) for part in source.parts]
        return cls(readers, [list(reader.files()) for reader in readers])

    @property
    def all(self) -> list[DataFile]:
        """Every file."""
        return [file for own in self.files for file in own]

    @property
    def num_bytes(self) -> int:
        """What they take on the disk."""
        return sum(file.path.stat().st_size for file in self.all if file.path.is_file())

    def documents(self) -> Iterator[tuple[int, AnyDocument]]:
        """Yield every document with the number of its source."""
        for number, (reader, files) in enumerate(zip(self.readers, self.files, strict=True)):
            for document in reader.all_documents(files):
                yield number, document

    def finish(self, count: int) -> None:
        """Tell what was left out, and raise DataError if anything is wrong, or a source holds no document."""
        reader = self.readers[0]
        if reader.left_out:
            logger.warning("%s: %s", reader.field, reader.left_out)
        reader.raise_any(has_documents=count > 0)


def tokenized(source: DataSource, field: str, columns: Mapping[str, str], how: Tokenizing) -> KeptStore:
    """Return the tokens of every document of a section of a recipe, source by source and file by file.

    Args:
        source: The section.
        field: Its name, for messages: `data.train`.
        columns: Numbers that every document must have: the name of the score, and the key that holds it.
        how: The tokenizer.

    Raises:
        DataError: With every file, line and row that cannot be used; or if there is no document at all.
        StorageError: If tokens cannot be kept.
    """
    found = SourceFiles.of(source, field, columns, how.cache_dir)
    if found.num_bytes < KEPT_BYTES:
        return KeptStore(_written(found, how, columns, None))
    cache = TokenCache(how.cache_dir)
    record = cache.root / "digests" / f"{digest_of([str(file.path.absolute()) for file in found.all])[:32]}.json"
    digests = iter(file_digests([file.path for file in found.all], record))
    contents = [[[next(digests), file.suffix, file.is_found] for file in own] for own in found.files]
    settings = [part.model_dump(mode="json", exclude=_KEYS) for part in source.parts]
    key = [_FORMAT, tokenizer_key(how.tokenizer), contents, settings, dict(columns)]
    names = [file.where for file in found.all]
    kept = cache.get(key, names, lambda directory: _write_into(directory, found, how, columns))
    logger.info("%s: tokens of %d documents in %s", field, len(kept.store), kept.directory)
    return kept


def tokenizer_key(tokenizer: Any, *, with_template: bool = True) -> str:
    """Return what tells the tokens that a tokenizer makes from those of others.

    Args:
        tokenizer: A `PreTrainedTokenizerBase`.
        with_template: Whether its chat template counts, which makes tokens of chats only.
    """
    if tokenizer.is_fast:
        document = json.loads(tokenizer.backend_tokenizer.to_str())
        document["truncation"] = document["padding"] = None  # of the last call, and given anew with each
    else:
        document = [type(tokenizer).__name__, tokenizer.get_vocab(), repr(sorted(tokenizer.init_kwargs.items()))]
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.chat_template if with_template else None]
    return digest_of([tokenizers.__version__, document, ends])


def _write_into(directory: Path, found: SourceFiles, how: Tokenizing, columns: Mapping[str, str]) -> None:
    _written(found, how, columns, directory)


def _written(found: SourceFiles, how: Tokenizing, columns: Mapping[str, str], directory: Path | None) -> Any:
    reader = found.readers[0]
    masks = any(each.source.format == "chat" for each in found.readers)
    encoder = Encoder(how.tokenizer, tuple(columns), masks)
    writer = StoreWriter(directory, [file.where for file in found.all], tuple(columns), masks=masks)
    num_proc = how.num_proc if directory is not None else 1  # to begin a process takes longer than the little there is
    tokenize(found.documents(), encoder, writer, reader.faults, num_proc=num_proc)
    found.finish(writer.num_documents)
    return writer.finish()
