"""README.md of checkpoints: what it says is true, valid for the Hub, and stays text whatever strangers wrote."""

import json
from itertools import pairwise

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import wmtp
from checkpoints import metadata_document, write_files, write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from wmtp.loaders.standardized import load
from wmtp.publishing.cards.card import Source, write_card
from wmtp.publishing.cards.markdown import code
from wmtp.publishing.cards.origin import Origin, origin_of
from wmtp.publishing.publish import verify_published

DIGEST = "0123456789abcdef" * 4
PROVENANCE = {
    "recipe": {
        "run": {"name": "first_run", "seed": 7},
        "train": {"algo": "rho1-wmtp", "learning_rate": 2e-5, "trainable": "all"},
        "mtp": {"horizon": 3},
        "data": {"train": {"files": ["hf://datasets/org/stories@main/*.txt", "b.txt"], "sources": []}},
    },
    "step": 12,
    "data": {"train": f"sha256:{DIGEST}"},
    "parent": {"uri": "hf://org/base", "files": [{"path": "model.safetensors", "size": 1, "sha256": DIGEST}]},
    "versions": {"wmtp": "0.1.0"},
}
HOSTILE = [
    "x\n---\nlicense: mit\n---\n# Owned",
    "`</code><script>alert(1)</script>`",
    "![x](http://evil/x.png) [y](javascript:z)",
    "``` \n\n# Owned\n\n```",
    '"\n- injected\nlicense: mit #',
    "\x1b[2J\u202e|a|b|",
    "a" * 5000,
]


def card_of(tmp_path, source=None, **metadata):
    """Text and parsed front matter of the card of a checkpoint with that metadata."""
    directory = write_files(tmp_path / "model", metadata=metadata_document(**metadata))
    write_card(directory, source or Source())
    text = (directory / "README.md").read_text()
    return text, ModelCard(text).data.to_dict()


def body(text):
    return text.split("\n---\n", 1)[1]


def headings(text):
    tokens = MarkdownIt("commonmark").parse(body(text))
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]


def test_a_card_says_recipe_data_parents_and_licence(tmp_path):
    source = Source(Origin("org/base", "apache-2.0"), metrics={"eval_ce_1": 2.5, "eval_top1_1": 0.25, "eval_x": 9})
    text, data = card_of(tmp_path, source, provenance=PROVENANCE, mtp={"n_future_tokens": 3})
    assert data == {
        "license": "apache-2.0",
        "base_model": "org/base",
        "library_name": "wmtp",
        "pipeline_tag": "text-generation",
        "tags": ["wmtp", "multi-token-prediction", "rho1-wmtp"],
        "datasets": ["org/stories"],
    }
    sections = ["How to load it", "Metrics", "Training", "Data", "Origin", "Licence"]
    assert headings(text) == ["first_run", *sections]
    for said in (
        "3 of them with",
        "steps: `12`",
        "trained: `3`",
        "`2e-05`",
        "`b.txt`",
        "`hf://org/base`",
        "`wmtp 0.1.0`",
    ):
        assert said in text, said
    assert text.count(f"`sha256:{DIGEST}`") == 2
    assert "| 1 | cross-entropy, nats a token | 2.5000 |" in text
    assert "| 1 | share of tokens predicted right | 0.2500 |" in text


def test_what_is_not_known_is_not_claimed(tmp_path):
    text, data = card_of(tmp_path)
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert headings(text) == ["A model with parallel prediction heads", "How to load it", "Licence"]
    assert "is not known: find it before you share or use this" in text


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_foreign_text_stays_text(tmp_path, bad):
    recipe = {"run": {"name": bad, "seed": bad}, "train": {"algo": bad, "learning_rate": bad}}
    recipe["data"] = {"train": {"files": [bad, f"hf://datasets/{bad}"], "sources": bad}}
    provenance = {
        "recipe": recipe, "step": bad, "data": {bad: bad}, "scores": {bad: bad}, "versions": {bad: bad},
        "parent": {"uri": bad, "files": [{"path": bad, "sha256": bad}, bad]},
        "changes": [{"step": bad, "values": {bad: 1}}],
    }  # fmt: skip
    text, data = card_of(tmp_path, Source(metrics={bad: 1.0}), provenance=provenance)
    assert text.isascii()
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert "license" not in data
    assert data["tags"][:2] == ["wmtp", "multi-token-prediction"]
    assert "datasets" not in data
    assert headings(text)[1:] == ["How to load it", "Training", "Data", "Origin", "Licence"]
    inline = [child for token in MarkdownIt("commonmark").parse(body(text)) for child in token.children or []]
    kinds = {child.type for child in inline} | {token.type for token in MarkdownIt("commonmark").parse(body(text))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "hr", "code_block"}


@pytest.mark.parametrize(
    "provenance", [{"recipe": 1}, {"data": [1], "parent": "x"}, {"recipe": {"train": [], "run": 2}}]
)
def test_a_provenance_of_another_form_is_left_out(tmp_path, provenance):
    text, _ = card_of(tmp_path, provenance=provenance)
    assert "## Data" not in text
    assert "## Origin" not in text


def test_a_span_of_code_cannot_be_left():
    assert code("a`b\n") == "`a\\x60b\\n`"
    assert code(None) == "`null`"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama_checkpoint(tmp_path_factory.mktemp("card") / "llama")


CARDS = [
    ("license: apache-2.0", {"license": "apache-2.0"}),
    ("license: 'mit'", {"license": "mit"}),
    ("license: ${HF_TOKEN}", {}),
    ("license: MIT License, as amended", {}),
    (
        'license: other\nlicense_name: llama3\nlicense_link: "https://llama.com/l"',
        {"license": "other", "license_name": "llama3", "license_link": "https://llama.com/l"},
    ),
    ("license: other\nlicense_link: LICENSE", {"license": "other"}),
    ("license: mit\nbase_model:\n- org/first", {"license": "mit", "base_model": "org/first"}),
    (
        "base_model: org/x\nlicense_link: LICENSE",
        {"base_model": "org/x", "license_link": "https://huggingface.co/org/x/blob/main/LICENSE"},
    ),
    ("base_model: /etc/passwd", {}),
    ("license_link: javascript:alert(1)", {}),
    ("license_link: https://a/b>\nlicense: [mit, &a x]", {}),
]  # fmt: skip


@pytest.mark.parametrize(("front", "expected"), CARDS, ids=range(len(CARDS)))
def test_licence_and_origin_come_from_the_base_models_card(llama, front, expected):
    (llama / "README.md").write_text(f"---\nlanguage: en\n{front}\n---\nlicense: gpl-3.0\n")
    origin = origin_of(load(llama))
    (llama / "README.md").unlink()
    assert {key: value for key, value in vars(origin).items() if value is not None} == expected


def test_without_a_card_the_licence_in_extra_of_the_metadata_counts(llama):
    loaded = load(llama)
    loaded.metadata.__dict__["extra"] = {"license": "mit", "license_name": 7}
    assert origin_of(loaded) == Origin(license="mit")


@pytest.fixture
def heads(tmp_path):
    directory = write_mtp_checkpoint(tmp_path / "heads", tiny_mtp("llama", 3, "linear"))
    (directory / "README.md").write_text("---\nlicense: mit\n---\n")
    return directory


SAID = {
    "transformers": ("AutoModelForCausalLM.from_pretrained", "vllm serve path/to/this\n", "load_model"),
    "vllm-medusa": ('"model": "path/to/this", "num_speculative_tokens": 2', "trunk (TARGET)"),
    "medusa": ("trunk (TARGET)",),
}


@pytest.mark.parametrize("target", SAID)
def test_an_export_has_a_card_with_the_lines_that_are_true_of_it(heads, tmp_path, target):
    new = wmtp.export(heads, tmp_path / "new", to=target)
    text = (new / "README.md").read_text()
    assert ModelCard(text).data.license == "mit"
    assert "README.md" in {entry.path for entry in verify_published(new).files}
    assert f"exported for `{target}`" in text
    assert f"Made from `{heads}`, with these files:" in text
    assert all(said in text for said in SAID[target])
    others = {said for key in SAID if key != target for said in SAID[key]} - set(SAID[target])
    assert not [said for said in others if said in text]


def test_the_lines_of_a_card_run(heads, tmp_path):
    from transformers import AutoModelForCausalLM

    new = wmtp.export(heads, tmp_path / "new", to="transformers")
    text = (new / "README.md").read_text()
    for line in ("wmtp.load_model({})", "AutoModelForCausalLM.from_pretrained({})"):
        assert f"model = {line.format(json.dumps('path/to/this'))}" in text
        names = {"wmtp": wmtp, "AutoModelForCausalLM": AutoModelForCausalLM}
        assert type(eval(line.format(repr(str(new))), names)).__name__ == "LlamaForCausalLM"


def test_a_card_is_no_required_file_and_is_not_carried_on(heads, tmp_path):
    first = wmtp.export(heads, tmp_path / "first", to="transformers")
    assert "README.md" not in wmtp.load_metadata(first).loading_strategy.required_files
    (heads / "README.md").write_text("---\nlicense: mit\n---\nmine")
    second = wmtp.export(heads, tmp_path / "second", to="transformers")
    assert (second / "README.md").read_text() == (first / "README.md").read_text()
