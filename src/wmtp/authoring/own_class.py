"""Which class of a checkpoint's own Python file is its model, read from the text alone."""

from __future__ import annotations

import ast

from wmtp.errors import CheckpointError
from wmtp.storage.store import Store
from wmtp.trust.consent import read_code
from wmtp.untrusted import show, show_all


def own_class(store: Store, module: str, declared: str | None, notes: list[str]) -> str:
    """Return the name of the class that is most likely meant, and note which others there are.

    Raises:
        CheckpointError: If the file is no Python, or defines no class.
    """
    code = read_code(store, module)
    try:
        tree = ast.parse(code.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{code.where}: not Python: {show(error)}", hint="mend the file, or take it away"
        ) from error
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if not classes:
        raise CheckpointError(f"{code.where}: defines no class", hint="take the file away if the model needs none")
    likely = [name for name in classes if name == declared] or [
        name for name in classes if name.endswith("ForCausalLM")
    ]
    chosen = (likely or classes)[-1]
    notes.append(
        f"loading_strategy.model_class_name: {show(chosen)}, of {', '.join(show_all(classes))} in {show(module)}"
    )
    return chosen
