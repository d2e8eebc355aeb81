"""From documents to a store of their tokens, in bounded memory, by one process or several."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from wmtp.data.document import Document
from wmtp.data.encoding import Encoded, Encoder
from wmtp.data.fault_list import FaultList
from wmtp.data.long_text import LongDocument
from wmtp.data.store_writer import StoreWriter
from wmtp.data.token_store import Array
from wmtp.storage.order import in_order

_JOB_CHARACTERS = 1 << 20
_JOB_DOCUMENTS = 4096
_AHEAD = 3  # jobs of each process that are begun and not taken yet

AnyDocument = Document | LongDocument


@dataclass(frozen=True)
class _Job:
    """Some documents, or some pieces of a long one.

    Attributes:
        source: Number of the source that they are from.
        documents: They.
        pieces: In the place of documents.
        long: What the pieces are of; None with documents.
        is_last: Whether these are the last pieces of it.
    """

    source: int
    documents: Sequence[Document] = ()
    pieces: Sequence[str] = ()
    long: LongDocument | None = None
    is_last: bool = False


def tokenize(
    documents: Iterable[tuple[int, AnyDocument]],
    encoder: Encoder,
    writer: StoreWriter,
    faults: FaultList,
    *,
    num_proc: int = 1,
) -> None:
    """Write the tokens of documents into a store, in their order.

    Args:
        documents: Each with the number of its source.
        encoder: Makes tokens of them.
        writer: Takes the tokens.
        faults: Gets what is wrong with documents. Once there is anything, nothing more is tokenized: only the rest of
            the faults is looked for.
        num_proc: How many processes tokenize; 1: this one, in which the tokenizer may have threads of its own.
    """
    assembly = _Assembly(encoder, writer, faults)
    jobs = _jobs(documents, encoder, faults)
    if num_proc == 1:
        for job in jobs:
            assembly.add(job, _run(encoder, job))
        return
    begun: deque[_Job] = deque()
    with _pool(encoder, num_proc) as pool:
        for answer in in_order(pool, _run_there, _noted(jobs, begun), ahead=_AHEAD * num_proc):
            assembly.add(begun.popleft(), answer)


def _jobs(documents: Iterable[tuple[int, AnyDocument]], encoder: Encoder, faults: FaultList) -> Iterator[_Job]:
    waiting, characters, current = list[Document](), 0, 0
    for source, document in documents:
        is_long = isinstance(document, LongDocument)
        if waiting and (
            is_long or source != current or characters >= _JOB_CHARACTERS or len(waiting) >= _JOB_DOCUMENTS
        ):
            yield _Job(current, waiting)
            waiting, characters = [], 0
        current = source
        if faults:
            continue
        if isinstance(document, LongDocument):
            yield from _long_jobs(source, document, encoder)
        else:
            waiting.append(document)
            characters += len(document.text) + len(document.prompt)
    if waiting:
        yield _Job(current, waiting)


def _long_jobs(source: int, document: LongDocument, encoder: Encoder) -> Iterator[_Job]:
    pieces, characters = list[str](), 0
    for piece in document.pieces(encoder.texts):
        pieces.append(piece)
        characters += len(piece)
        if characters >= _JOB_CHARACTERS:
            yield _Job(source, pieces=pieces, long=document)
            pieces, characters = [], 0
    yield _Job(source, pieces=pieces, long=document, is_last=True)


def _noted(jobs: Iterable[_Job], begun: deque[_Job]) -> Iterator[_Job]:
    for job in jobs:
        begun.append(job)
        yield job


class _Assembly:
    """Puts answers together in the order of the jobs."""

    def __init__(self, encoder: Encoder, writer: StoreWriter, faults: FaultList) -> None:
        self._encoder, self._writer, self._faults = encoder, writer, faults
        self._begin_long()

    def add(self, job: _Job, answer: Encoded | list[Array]) -> None:
        if isinstance(answer, Encoded):
            for fault in answer.faults:
                with self._faults.collected():
                    raise fault
            self._writer.add(answer, job.source, [job.documents[place].where for place in answer.kept])
            return
        for text, tokens in zip(job.pieces, answer, strict=True):
            self._add_piece(text.encode(), tokens)
        if job.is_last and job.long is not None:
            self._end_long(job)

    def _begin_long(self) -> None:
        self._tokens, self._text, self._length, self._last = hashlib.sha256(), hashlib.sha256(), 0, -1

    def _add_piece(self, text: bytes, tokens: Array) -> None:
        if self._length == 0 and (begin := self._encoder.begin_tokens()):
            tokens = np.concatenate([np.array(begin, "<i4"), tokens])
        self._text.update(text)
        self._add_tokens(tokens)

    def _add_tokens(self, tokens: Array) -> None:
        self._tokens.update(tokens.tobytes())
        self._writer.add_tokens(tokens)
        self._length += len(tokens)
        self._last = int(tokens[-1]) if len(tokens) else self._last

    def _end_long(self, job: _Job) -> None:
        end = self._encoder.require_end()
        if self._last != end:
            self._add_tokens(np.array([end], "<i4"))
        record = self._encoder.new_records(1)
        record["length"], record["targets"] = self._length, self._length - 1
        record["digest"] = int(self._tokens.hexdigest()[:16], 16)
        record["text"] = self._text.digest()
        assert job.long is not None
        self._writer.add_records(record, job.source, [job.long.where])
        self._begin_long()


def _run(encoder: Encoder, job: _Job) -> Encoded | list[Array]:
    return encoder.documents(job.documents) if job.long is None else encoder.pieces(job.pieces)


def _pool(encoder: Encoder, num_proc: int) -> ProcessPoolExecutor:
    # Not forked: this process has threads, and it may have joined a group of processes.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_proc, mp_context=context, initializer=_begin_there, initargs=(encoder,))


_there: dict[str, Any] = {}  # of a process that tokenizes: its encoder


def _begin_there(encoder: Encoder) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many processes as are wanted
    _there["encoder"] = encoder


def _run_there(job: _Job) -> Encoded | list[Array]:
    return _run(_there["encoder"], job)
