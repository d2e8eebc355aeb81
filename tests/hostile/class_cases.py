"""The class that the metadata names: what is no class, and classes that turn against who builds and fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostile.bases import MODELING, own
from hostile.case import Case, Change, refusals
from hostile.changes import config, file, strategy
from hostile.code_cases import FILE, consented, source
from hostile.draft import Draft

M = "metadata.json"
_CLASS = ("loading_strategy.model_class_name",)

# Each is put at the end of the class's __init__.
_TURNING = """class Turning(dict):
    def __setitem__(self, name, value):
        dict.__setitem__(self, name, type(value)(-value.detach()))
self.head.__dict__['_parameters'] = Turning(self.head._parameters)"""
_KEEPING = """class Keeping(dict):
    def __setitem__(self, name, value):
        if name not in self:
            dict.__setitem__(self, name, value)
ones = nn.Parameter(torch.ones(config.vocab_size, config.width))
self.head.__dict__['_parameters'] = Keeping({'weight': ones})"""
_HIDING = """class Hiding(dict):
    def items(self):
        return [('weight', nn.Parameter(dict.__getitem__(self, 'weight').detach().clone()))]
    def get(self, *names):
        return nn.Parameter(torch.zeros(config.vocab_size, config.width))
ones = nn.Parameter(torch.ones(config.vocab_size, config.width))
self.head.__dict__['_parameters'] = Hiding({'weight': ones})"""
_DEEP = """place = self.head
for number in range(2000):
    place.inner = nn.Module()
    place = place.inner"""
# Each is put into the class.
_ZEROED = """def eval(self):
    [parameter.data.zero_() for parameter in self.parameters()]
    return self"""
_STUBBORN = """def __setattr__(self, name, value):
    if name in ('embedding', 'head', 'training') or name.startswith('_'):
        torch.nn.Module.__setattr__(self, name, value)"""


def _in_the_class(line: str, *, imports: str = "import torch\n") -> Change:
    """Add a member to the model's class."""
    return file(FILE, imports + MODELING + "\n    " + line.replace("\n", "\n    ") + "\n")


def _at_the_end_of_init(line: str) -> Change:
    text = MODELING.replace(
        "\n    def forward", "        " + line.replace("\n", "\n        ") + "\n\n    def forward", 1
    )
    return file(FILE, "import torch\n" + text)


def _no_class(what: str, name: str, text: str = "", errors: str = "TrustError") -> Case:
    return consented(
        f"a class that is {what}", errors, (M, *_CLASS, f"'{name}'"), source(text), strategy(model_class_name=name)
    )


def loads(sentence: str, *changes: Change, base: Callable[[], Draft] = own, **how: Any) -> Case:
    """A trap that is walked past: the checkpoint loads, and the payload does not run."""
    return refusals("code", base=base)(sentence, "", "", *changes, **{"consent": (FILE,), **how})


CASES = [
    _no_class("missing", "OwnModell"),
    _no_class("a function", "build", "def build(config): return None\n"),
    _no_class("a number", "SIZE", "SIZE = 3\n"),
    _no_class("imported", "Linear", "from torch.nn import Linear\n"),
    _no_class("a module", "nn", "from torch import nn\n"),
    _no_class("no module of torch", "Plain", "class Plain: pass\n"),
    _no_class("an instance", "made", "class Made: pass\nmade = Made()\n"),
    _no_class("a dunder", "__builtins__", errors="MetadataError"),
    _no_class("dotted", "OwnModel.forward", errors="MetadataError"),
    _no_class("an expression", "OwnModel()", errors="MetadataError"),
    _no_class("a name with no letters", "", errors="MetadataError"),
    consented(
        "a class that trips who looks at it",
        "TrustError",
        FILE,
        source(
            "class Meta(type):\n  def __getattribute__(cls, name): raise SystemExit\nclass Trap(metaclass=Meta): pass\n"
        ),
        strategy(model_class_name="Absent"),
    ),
    consented(
        "a class that is no module when built",
        "TrustError CheckpointError",
        FILE,
        _in_the_class("def __new__(cls, config): return object()"),
    ),
    consented(
        "a class that gives back nothing",
        "TrustError CheckpointError",
        FILE,
        _in_the_class("def __new__(cls, config): return None"),
    ),
    consented(
        "a class that takes other arguments",
        "TrustError",
        (FILE, "TypeError"),
        _in_the_class("def __init__(self, config, other): pass"),
    ),
    consented(
        "a class whose parameters have no shape yet",
        "TrustError PlanError CheckpointError",
        FILE,
        _at_the_end_of_init("self.head = nn.LazyLinear(8)"),
    ),
    consented(
        "an exception while the class is built",
        "TrustError",
        (FILE, "SystemExit"),
        _at_the_end_of_init("raise SystemExit(3)"),
    ),
    consented(
        "an exception while the model is told to evaluate",
        "TrustError",
        (FILE, "KeyboardInterrupt"),
        _in_the_class("def eval(self): raise KeyboardInterrupt"),
    ),
    consented(
        "an exception while its parts are counted",
        "TrustError",
        (FILE, "SystemExit"),
        _in_the_class("def children(self): raise SystemExit"),
    ),
    consented(
        "parameters that turn what is put into them",
        "TrustError PlanError",
        (FILE, "head"),
        _at_the_end_of_init(_TURNING),
    ),
    consented(
        "parameters that keep what they had",
        "TrustError PlanError",
        (FILE, "head"),
        _at_the_end_of_init(_KEEPING),
    ),
    consented(
        "parameters that show one thing to whoever counts them",
        "TrustError PlanError",
        (FILE, "head"),
        _at_the_end_of_init(_HIDING),
    ),
    consented(
        "a module that contains itself", "TrustError CheckpointError", FILE, _at_the_end_of_init("self.head.me = self")
    ),
    consented(
        "modules nested two thousand deep", "TrustError CheckpointError PlanError", FILE, _at_the_end_of_init(_DEEP)
    ),
    consented(
        "parameters of complex numbers",
        "PlanError TrustError",
        "head.weight",
        _at_the_end_of_init("self.head.weight = nn.Parameter(torch.zeros(32, 8, dtype=torch.complex64))"),
    ),
    consented(
        "a parameter that is counted for a buffer",
        "PlanError TrustError CheckpointError",
        "hidden",
        _at_the_end_of_init("self.register_buffer('hidden', torch.ones(3))"),
    ),
    loads(
        "weights changed while the model is told to evaluate",
        _in_the_class(_ZEROED),
    ),
    loads(
        "a class that hides its parameters",
        _in_the_class("def named_parameters(self, *a, **k): return iter(())\ndef state_dict(self, *a, **k): return {}"),
    ),
    loads(
        "a class that refuses new attributes",
        _in_the_class(_STUBBORN),
    ),
    loads("an unknown key of the configuration for its own class", config(anything={"nested": [1, 2]})),
]
