"""Good checkpoints of every kind: what must load, and the proof that the bases of all other cases do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.bases import MODELING, gpt2, gpt_neo, llama, mistral, mtp, own, reward
from hostile.case import CAUSAL, Case, Change, drafted, slug
from hostile.changes import index
from hostile.draft import (
    INDEX,
    VOCAB,
    WEIGHTS,
    WIDTH,
    Draft,
    container,
    header_of,
    random_tensor,
    safetensors,
    sharded,
    zeros,
)

REWARD = "AutoModelForSequenceClassification"


def good(sentence: str, base: Callable[[], Draft], *changes: Change, **how: Any) -> Case:
    """Return a control: it must load, with the values that were written."""
    return Case(slug(sentence), "good", drafted(base, *changes), **how)


def _tied(draft: Draft) -> None:
    del draft.tensors["lm_head.weight"]
    draft.config["tie_word_embeddings"] = True


def _tied_and_stored_twice(draft: Draft) -> None:
    draft.tensors["lm_head.weight"] = draft.tensors["model.embed_tokens.weight"]
    draft.config["tie_word_embeddings"] = True


def _trunk_only(draft: Draft) -> None:
    mapping = {"remove_prefix": "model.", "allow_unexpected": ["lm_head.weight"]}
    draft.strategy.update(transformers_class="AutoModel", state_dict_mapping=mapping)


def _renamed(draft: Draft) -> None:
    draft.tensors = {
        name.replace("model.layers.", "h.").replace("model.", ""): tensor for name, tensor in draft.tensors.items()
    }
    transforms = {r"^h\.(\d+)\.": r"layers.\1.", "^(layers|norm|embed)": r"model.\1"}
    draft.strategy["state_dict_mapping"] = {"key_transforms": transforms}


def _odd_header(padding: bytes) -> Change:
    def change(draft: Draft) -> None:
        text = json.dumps(header_of(draft.tensors)).encode() + padding
        text += b" " * ((1 - len(text)) % 2)  # never even: nothing behind it is aligned
        draft.files[WEIGHTS] = container(text, b"".join(tensor.data for tensor in draft.tensors.values()))

    return change


def _reordered(draft: Draft) -> None:
    header = dict(sorted(header_of(draft.tensors).items(), reverse=True))
    draft.files[WEIGHTS] = container(header, b"".join(tensor.data for tensor in draft.tensors.values()))


def snapshot_layout(draft: Draft) -> None:
    """Lay the files out as the Hugging Face cache does: named blobs, and links to them."""

    def lay_out(directory: Path) -> None:
        entry = directory / "models--someone--tiny"
        snapshot, blobs = entry / "snapshots" / "0123abcd", entry / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for number, path in enumerate(sorted(path for path in directory.iterdir() if path.is_file())):
            path.rename(blobs / f"blob{number}")
            (snapshot / path.name).symlink_to(f"../../blobs/blob{number}")

    draft.after.append(lay_out)


SNAPSHOT = "{directory}/models--someone--tiny/snapshots/0123abcd"


def _one_link_inside(draft: Draft) -> None:
    def link(directory: Path) -> None:
        (directory / "stored").mkdir()
        (directory / WEIGHTS).rename(directory / "stored" / WEIGHTS)
        (directory / WEIGHTS).symlink_to(f"stored/{WEIGHTS}")

    draft.after.append(link)


def tokenizer_files(draft: Draft) -> None:
    """Add a tokenizer of 32 words."""
    words = {"<unk>": 0, **{f"word{number}": number for number in range(1, VOCAB)}}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [{"id": 0, "content": "<unk>", "special": True, **flags}]
    document = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "model_max_length": int(1e30)}
    draft.files["tokenizer.json"] = json.dumps(document).encode()
    draft.files["tokenizer_config.json"] = json.dumps(config).encode()


def _companions(draft: Draft) -> None:
    tokenizer_files(draft)
    draft.files["generation_config.json"] = b'{"eos_token_id": 0, "max_new_tokens": 7}'
    draft.files["README.md"] = b"# A model\n"
    draft.files["pytorch_model.bin"] = b"never opened"
    draft.files[".gitattributes"] = b"*.safetensors filter=lfs\n"


def _two_files(draft: Draft) -> None:
    code = MODELING.replace("from torch import nn\n", "from torch import nn\n\nfrom .parts import head_of\n")
    code = code.replace("nn.Linear(config.width, config.vocab_size, bias=False)", "head_of(config)")
    line = "return nn.Linear(config.width, config.vocab_size, bias=False)"
    parts = f"from torch import nn\n\n\ndef head_of(config):\n    {line}\n"
    draft.files |= {"modeling.py": code.encode(), "parts.py": parts.encode()}
    draft.strategy["required_files"].append("parts.py")


def _with_bom(draft: Draft) -> None:
    draft.files["modeling.py"] = b"\xef\xbb\xbf" + MODELING.encode()


def _small_context(draft: Draft) -> None:
    # Larger than any dimension of any tensor, and no lie: nothing in a llama has this size.
    draft.config["max_position_embeddings"] = 4096


def _full_metadata(draft: Draft) -> None:
    draft.metadata |= {
        "$schema": "https://example.invalid/schema.json",
        "horizon": 4,
        "model_size": "tiny",
        "created_by": "tests",
        "provenance": {"steps": 3},
        "extra": {"note": "\u00e9\u6f22"},
        "dtype": "float32",
    }


def _buffer(draft: Draft) -> None:
    code = MODELING.replace(
        "    def forward", "        self.register_buffer('seen', torch.zeros(2))\n\n    def forward"
    )
    draft.files["modeling.py"] = code.replace("from torch import nn", "import torch\nfrom torch import nn").encode()
    draft.tensors["seen"] = random_tensor("seen", (2,))


def _scalar_and_empty(draft: Draft) -> None:
    draft.tensors |= {"scalar": random_tensor("scalar", ()), "empty": zeros("F32", 0, 5)}
    draft.strategy["state_dict_mapping"] = {"allow_unexpected": ["scalar", "empty"]}


CASES = [
    good("a llama in one file", llama, peer=CAUSAL),
    good("a llama in bfloat16", lambda: llama("BF16"), peer=CAUSAL),
    good("a llama by its auto class", llama, lambda d: d.strategy.update(transformers_class=CAUSAL), peer=CAUSAL),
    good("a llama in shards of bfloat16", lambda: llama("BF16"), lambda d: sharded(d) and None, peer=CAUSAL),
    good(
        "a llama in shards below a directory",
        llama,
        lambda d: sharded(d, ("a/x.safetensors", "b/x.safetensors")) and None,
    ),
    good(
        "an index without a total size",
        llama,
        lambda d: d.files.update({INDEX: json.dumps({**sharded(d), "metadata": {}}).encode()}),
        peer=CAUSAL,
    ),
    *(
        good(f"an index whose total size is {what}", llama, index(metadata={"total_size": size}), peer=CAUSAL)
        for what, size in (("too small", 1), ("below nothing", -1), ("text", "10 GB"), ("beyond all disks", 10**30))
    ),
    good("a gpt2 in one file", gpt2, peer=CAUSAL),
    good("a mistral in one file", mistral, peer=CAUSAL),
    good("a gpt neo with masks larger than its tensors", gpt_neo, peer=CAUSAL),
    good("a tied llama", llama, _tied, peer=CAUSAL),
    good("a tied llama whose tensor is stored twice", llama, _tied_and_stored_twice, peer=CAUSAL),
    good("a snapshot of the Hugging Face cache", llama, snapshot_layout, uri=SNAPSHOT, peer=CAUSAL),
    good("a link that stays inside", llama, _one_link_inside, peer=CAUSAL),
    good("an address with a scheme", llama, uri="file://{directory}"),
    good("the trunk of a causal model with its mapping declared", llama, _trunk_only),
    good("renamed tensors with their transforms declared", llama, _renamed),
    good("a reward model", reward, peer=REWARD),
    good("the built in model with linear heads", mtp),
    good("the built in model with transformer heads", lambda: mtp("transformer")),
    good("a class of its own with consent", own, consent=("modeling.py",)),
    good("a class of its own in two files with consent to both", own, _two_files, consent=("modeling.py", "parts.py")),
    good("a class of its own that begins with a byte order mark", own, _with_bom, consent=("modeling.py",)),
    good("a class of its own with a buffer", own, _buffer, consent=("modeling.py",)),
    good("a header of odd length", llama, _odd_header(b""), peer=CAUSAL),
    good("a header with newlines behind it", llama, _odd_header(b"\n \n"), peer=CAUSAL),
    good("a header in another order than the bytes", llama, _reordered, peer=CAUSAL),
    good("a context longer than any tensor", llama, _small_context, peer=CAUSAL),
    good("tokenizer generation settings and other files beside it", llama, _companions, peer=CAUSAL),
    good("a tokenizer that loads", llama, _companions, call="tokenizer"),
    good("every descriptive field of the metadata", llama, _full_metadata),
    good("tensors that are let through by name", llama, _scalar_and_empty),
    good("private memory instead of a mapping", llama, keywords={"mmap": False}),
    good(
        "a file with notes of its own",
        llama,
        lambda d: d.files.update({WEIGHTS: safetensors(d.tensors, author="\u00e9", width=str(WIDTH))}),
        peer=CAUSAL,
    ),
]
