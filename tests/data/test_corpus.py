import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow
import pytest

from data_files import write_lines
from tiny_tokenizer import CODE_LINES, build_tokenizer
from vanishing import coming_and_going
from wmtp.data import documents, long_text, token_cache, tokenized
from wmtp.data.corpus import read_corpus
from wmtp.data.mixing import mixed, shares
from wmtp.data.rows import build_rows
from wmtp.errors import DataError
from wmtp.settings.data import DataSource
from wmtp.settings.recipe import Recipe

# Rows, tokens and fingerprint, of the version that held everything in memory.
GOLDEN = (
    280,
    8855,
    "sha256:cba369d599d19d160a461a2937108a560ca9a48a886a89d0b2883903939d8205",
)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Everything is kept, however little it is; returns the directory of the cache."""
    monkeypatch.setattr(tokenized, "KEPT_BYTES", 0)
    return tmp_path / "cache"


def corpus(cache, *, num_proc=1, validation=None, **train):
    data = {"train": {"max_length": 32, **train}, "num_proc": num_proc, "validation": validation}
    steps = {"algo": "baseline-mtp", "max_steps": 1}
    recipe = Recipe.model_validate({"run": {"name": "r"}, "data": data, "train": steps})
    return read_corpus(recipe, build_tokenizer(), "base", {}, cache_dir=str(cache))


def lines_in(path, count=60):
    return write_lines(path, *({"text": CODE_LINES[n % 4] * (1 + n % 5) + str(n)} for n in range(count)))


def names(cache):
    return sorted(path.name for path in (cache / "data").iterdir() if path.name != "digests")


def test_what_is_kept_gives_the_same_rows_as_what_is_in_memory_and_is_found_again(tmp_path, kept, monkeypatch):
    files = [str(lines_in(tmp_path / "a.jsonl"))]
    first, held = corpus(kept, files=files, validation={"fraction": 0.1})
    monkeypatch.setattr(tokenized, "tokenize", None)  # a second time nothing is tokenized
    again, held_again = corpus(kept, files=files, validation={"fraction": 0.1})
    monkeypatch.undo()
    plain, held_plain = corpus(kept, files=files, validation={"fraction": 0.1})
    assert (
        first.fingerprint()
        == again.fingerprint()
        == plain.fingerprint()
        == again.table.take(np.arange(len(again))).fingerprint()
    )
    assert held.fingerprint() == held_again.fingerprint() == held_plain.fingerprint()
    assert again.largest_token() == plain.largest_token()
    assert again.rows[0][0].where == f"{files[0]}:{plain.rows[0][0].where.rpartition(':')[2]}"
    assert len(names(kept)) == 1


def test_the_fingerprint_of_a_fixed_corpus_is_what_it_always_was(tmp_path, kept):
    rows, _ = corpus(kept, files=[str(lines_in(tmp_path / "a.jsonl"))])
    assert (len(rows), rows.num_tokens, rows.fingerprint()) == GOLDEN


def test_other_content_a_tokenizers_other_settings_or_another_reading_are_tokenized_anew(tmp_path, kept):
    path = lines_in(tmp_path / "a.jsonl")
    corpus(kept, files=[str(path)])
    corpus(kept, files=[str(path)], max_length=64)  # other rows of the same tokens
    assert len(names(kept)) == 1
    corpus(kept, files=[str(path)], format="raw_text")
    lines_in(path, count=61)
    corpus(kept, files=[str(path)])
    assert len(names(kept)) == 3


def test_a_damaged_store_is_made_again_and_one_half_written_is_never_used(tmp_path, kept):
    files = [str(lines_in(tmp_path / "a.jsonl"))]
    first = corpus(kept, files=files)[0].fingerprint()
    (store,) = (kept / "data").glob("tokens-*")
    (store / "tokens.bin").write_bytes((store / "tokens.bin").read_bytes()[:-4])
    (kept / "data" / f".{store.name}.0.tmp").mkdir()
    for path in store.glob("rows-*.npz"):
        path.write_bytes(b"PK")
    assert corpus(kept, files=files)[0].fingerprint() == first
    assert (store / "tokens.bin").stat().st_size == 4 * json.loads((store / "store.json").read_text())["tokens"]


def test_several_that_want_the_same_tokens_at_once_get_the_same(tmp_path, kept):
    files = [str(lines_in(tmp_path / "a.jsonl"))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: corpus(kept, files=files)[0].fingerprint(), range(4)))
    assert len(set(found)) == 1
    assert [name for name in names(kept) if name.endswith((".tmp", ".lock"))] == []


def test_who_waits_for_tokens_outlives_the_moment_at_which_they_get_their_name(tmp_path):
    seen = set()
    with coming_and_going(tmp_path / ".tokens-0.1.tmp") as goes_on:
        while goes_on():
            seen.add(token_cache._written(tmp_path / "tokens-0"))
    assert seen <= {0, 4, 8}


def test_several_processes_make_the_tokens_that_one_makes(tmp_path, kept):
    files = [str(lines_in(tmp_path / "a.jsonl"))]
    alone, _ = corpus(tmp_path / "other", files=files)
    together, _ = corpus(kept, files=files, num_proc=2)
    assert together.fingerprint() == alone.fingerprint()


@pytest.mark.parametrize("begins_texts", [False, True])
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(tmp_path, kept, monkeypatch, begins_texts):
    monkeypatch.setattr(documents, "LONG_BYTES", 500)
    monkeypatch.setattr(long_text, "_PIECE_CHARACTERS", 200)
    monkeypatch.setattr(long_text, "_SEAM_CHARACTERS", 40)
    (tmp_path / "a.txt").write_text("\ufeff" + "\n\n".join(CODE_LINES * 30))
    rows, _ = corpus(kept, files=[str(tmp_path / "a.txt")])
    whole = documents.Document("\n\n".join(CODE_LINES * 30))
    source = DataSource(files=["unused"], max_length=32)
    assert rows.fingerprint() == build_rows([whole], build_tokenizer(), source, name="data.train").fingerprint()
    cuts = list(
        long_text.LongDocument(tmp_path / "a.txt", "a").pieces(
            lambda texts: build_tokenizer()(list(texts))["input_ids"]
        )
    )
    assert len(cuts) > 10
    assert "".join(cuts) == whole.text


def test_a_long_text_is_refused_where_it_stops_being_text(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(documents, "LONG_BYTES", 100)
    (tmp_path / "a.txt").write_bytes(b"good text\n" * 50 + b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt: not readable as UTF-8 text: invalid start byte"):
        corpus(kept, files=[str(tmp_path / "a.txt")])


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_long_lines_of_packed_files_are_read_one_by_one_and_faults_name_them(tmp_path, kept, monkeypatch, codec):
    monkeypatch.setattr(documents, "LONG_BYTES", 100)
    path = lines_in(tmp_path / "a.jsonl")
    packed = tmp_path / ("b.jsonl.gz" if codec == "gzip" else "b.jsonl.zst")
    packed.write_bytes(
        pyarrow.compress(path.read_bytes(), codec=codec, asbytes=True)
        if codec == "zstd"
        else gzip.compress(path.read_bytes())
    )
    assert corpus(kept, files=[str(packed)])[0].fingerprint() == corpus(kept, files=[str(path)])[0].fingerprint()
    path.write_text(path.read_text() + '{"text": 3}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:61: 'text' is 3, expected text"):
        corpus(kept, files=[str(path)])


def test_sources_share_an_epoch_by_their_weights_and_the_seed_alone(tmp_path, kept):
    code, text = (
        lines_in(tmp_path / "a.jsonl", 60),
        write_lines(tmp_path / "b.jsonl", *({"text": "x" * 30} for _ in range(20))),
    )
    sources = [{"files": [str(code)], "weight": 1.0}, {"files": [str(text)], "weight": 3.0}]
    rows, _ = corpus(kept, sources=sources)
    epochs = [mixed(rows, [1.0, 3.0], seed) for seed in (1, 1, 2)]
    assert [len(epoch) for epoch in epochs] == [len(rows)] * 3
    origins = [row[0].where.rpartition(":")[0] for row in epochs[0].rows]
    assert origins.count(str(text)) == shares(len(rows), [1, 3])[1]
    assert epochs[0].fingerprint() == epochs[1].fingerprint() != epochs[2].fingerprint()
    assert mixed(rows, [], 0) is rows


def test_shares_are_whole_numbers_that_add_up():
    assert shares(10, [1, 1, 1]) == [4, 3, 3]
    assert shares(7, [0.0, 2.0]) == [0, 7]
