"""Code of a checkpoint: nothing runs without consent to its very bytes, and whatever it raises is caught."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from hostile.bases import MODELING, own
from hostile.case import Case, Change, refusals
from hostile.changes import file
from hostile.draft import Draft

refused = refusals("code", base=own)
consented = refusals("code", base=own, consent=("modeling.py",))
FILE = "modeling.py"
TOUCH = "open(MARKER, 'a').close()\n"
_EXCEPTIONS = {
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "StopIteration": "raise StopIteration",
    "RecursionError": "def f(): f()\nf()",
    "MemoryError": "raise MemoryError",
    "ZeroDivisionError": "1 / 0",
    "ModuleNotFoundError": "import a_library_that_nobody_has",
    "AssertionError": "assert False",
    "ExceptionGroup": "raise ExceptionGroup('many', [ValueError(n) for n in range(5)])",
    "BaseExceptionGroup": "raise BaseExceptionGroup('x', [SystemExit(0)])",
    "SyntaxError": "def",
}
# Read by Python's parser before anybody agreed to them.
_FOR_THE_PARSER = {
    "brackets": "(" * 200_000,
    "minus signs": "-" * 500_000 + "1",
    "negations": "not " * 100_000 + "x",
    "attributes": "a" + ".a" * 200_000,
    "calls": "f" + "()" * 200_000,
    "sums": "1+" * 200_000 + "1",
    "lambdas": "lambda:" * 60_000 + "0",
    "lists": "x = [" + "0," * 240_000 + "]",
    "imports": "".join(f"import m{n}\n" for n in range(30_000)),
    "targets": "a=" * 200_000 + "1",
    "zeros": "\0" * 1000,
    "bytes that are no text": None,
}


def source(text: str, *, keep: bool = True) -> Change:
    """Put a text in front of the model's code (or in its place), with the path of the marker filled in."""
    end = f"\n{MODELING}" if keep else ""
    return lambda draft: draft.files.update({FILE: (text.replace("MARKER", repr(str(draft.marker))) + end).encode()})


def neighbour(name: str, text: str) -> Change:
    """Add a file beside the code, with the path of the marker filled in."""
    return lambda draft: draft.files.update({name: text.replace("MARKER", repr(str(draft.marker))).encode()})


def _consent_in_the_checkpoint(*places: str) -> Change:
    def change(draft: Draft) -> None:
        digest = hashlib.sha256(draft.files[FILE] or b"").hexdigest()
        recorded = json.dumps({f"sha256:{digest}": {"file": FILE}}).encode()
        draft.files |= dict.fromkeys(places, recorded)

    return change


def _broken_record(draft: Draft) -> None:
    def put(directory: Path) -> None:
        (directory.parent / "home" / "wmtp").mkdir(parents=True)
        (directory.parent / "home" / "wmtp" / "trust.json").write_text('{"sha256:00": NaN}')

    draft.after.append(put)


def _raising(name: str, text: str) -> Case:
    return consented(f"code that raises {name}", "TrustError", (FILE, name), source(text, keep=False))


def _for_the_parser(what: str, text: str | None) -> Case:
    data = b"\xff\xfe" * 1000 if text is None else text.encode()
    return refused(f"code made of {what}", "TrustError", (FILE, "sha256:", "--allow-code"), file(FILE, data))


CASES = [
    refused(
        "code that nobody agreed to",
        "TrustError",
        (FILE, "nobody agreed", "sha256:", "imports 'torch'", "--allow-code modeling.py=sha256:"),
        source(TOUCH),
    ),
    refused(
        "code with consent to other bytes",
        "TrustError",
        (FILE, "consent was given for 'sha256:0000"),
        source(TOUCH),
        keywords={"allow_code": {FILE: "sha256:" + "0" * 64}},
    ),
    refused(
        "code with consent to every hash",
        "TrustError",
        (FILE, "'*'"),
        source(TOUCH),
        keywords={"allow_code": {FILE: "*"}},
    ),
    refused(
        "code with consent to every file",
        "TrustError",
        (FILE, "nobody agreed"),
        source(TOUCH),
        keywords={"allow_code": {"*": "*"}},
    ),
    refused(
        "code with consent that is true",
        "TrustError",
        (FILE, "true"),
        source(TOUCH),
        keywords={"allow_code": {FILE: True}},
    ),
    refused(
        "consent that is a boolean", "TrustError", ("allow_code is true",), source(TOUCH), keywords={"allow_code": True}
    ),
    refused(
        "consent that is a list of files",
        "TrustError",
        ("allow_code is [",),
        source(TOUCH),
        keywords={"allow_code": [FILE]},
    ),
    refused(
        "consent that is the name of the file",
        "TrustError",
        ("allow_code is 'modeling.py'",),
        source(TOUCH),
        keywords={"allow_code": FILE},
    ),
    refused(
        "consent by environment variables",
        "TrustError",
        (FILE, "nobody agreed"),
        source(TOUCH),
        environment=dict.fromkeys(("WMTP_ALLOW_CODE", "TRUST_REMOTE_CODE", "HF_TRUST_REMOTE_CODE", "WMTP_TRUST"), "1"),
    ),
    refused(
        "consent recorded in the checkpoint itself",
        "TrustError",
        (FILE, "nobody agreed"),
        source(TOUCH),
        _consent_in_the_checkpoint("wmtp/trust.json", ".config/wmtp/trust.json", "trust.json"),
        inside=True,
        environment={"XDG_CONFIG_HOME": "."},
    ),
    refused(
        "consent recorded in the checkpoint with no configuration set",
        "TrustError",
        (FILE, "nobody agreed"),
        source(TOUCH),
        _consent_in_the_checkpoint("wmtp/trust.json", ".config/wmtp/trust.json"),
        inside=True,
        environment={"XDG_CONFIG_HOME": ""},
    ),
    refused(
        "a damaged record of consent",
        "TrustError",
        ("home/wmtp/trust.json", "NaN"),
        source(TOUCH),
        _broken_record,
        environment={"XDG_CONFIG_HOME": "{directory}/../home"},
    ),
    consented("code of a megabyte", "StorageError TrustError", (FILE, "bytes"), source("#" * (1 << 20))),
    consented(
        "a module that is not there",
        "NotFoundError",
        FILE,
        file(FILE, None),
        consent=(),
        keywords={"allow_code": {FILE: "sha256:" + "0" * 64}},
    ),
    *[_for_the_parser(what, text) for what, text in _FOR_THE_PARSER.items()],
    *[_raising(name, text) for name, text in _EXCEPTIONS.items()],
    consented(
        "an exception that cannot be shown",
        "TrustError",
        FILE,
        source("class E(Exception):\n  def __str__(self): raise SystemExit\nraise E", keep=False),
    ),
    consented(
        "an exception with a name of terminal escapes",
        "TrustError",
        (FILE, "\\x1b"),
        source("raise type('E\\n\\x1b[1m', (Exception,), {})", keep=False),
    ),
    consented(
        "an exception with a megabyte of text",
        "TrustError",
        (FILE, "ValueError"),
        source("raise ValueError('x' * 1_000_000)", keep=False),
    ),
    consented(
        "an exception that forges our own",
        "TrustError",
        (FILE,),
        source(
            "from wmtp.errors import TrustError\nraise TrustError('\\x1b[2Jverified', 'nothing to do\\n[ok] loaded')",
            keep=False,
        ),
    ),
]
