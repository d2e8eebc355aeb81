"""The only way in which a checkpoint's own code runs: from the bytes that were agreed to."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path, PurePosixPath
from types import ModuleType

from typing_extensions import override

from wmtp.errors import NotFoundError, TrustError
from wmtp.storage.store import Store
from wmtp.trust.consent import CodeFile, check_consent, read_code
from wmtp.trust.guards import broken_promise
from wmtp.untrusted import plain, show

# Checkpoints with the same file run under the same module name, one at a time.
_RUNNING = threading.RLock()


@dataclass(frozen=True)
class ConsentedModule:
    """A checkpoint's module that ran with consent.

    Attributes:
        module: The module.
        code: `file: sha256:<hex>` of every file that ran, the module's own neighbours included.
    """

    module: ModuleType
    code: dict[str, str]


def run_module(store: Store, name: str, allow_code: Mapping[str, str]) -> ConsentedModule:
    """Run a checkpoint's Python file as a module, if the operator agreed to it.

    The checked bytes are compiled directly: no bytecode is read or written, and the checkpoint's directory is not on
    `sys.path`. `from .blocks import x`, while the file runs, finds `blocks.py` beside it, which needs consent of its
    own; `import blocks` is refused where it would find that file.

    Raises:
        TrustError: Without consent, or when the code raises anything at all.
    """
    code = read_code(store, name)
    check_consent(code, allow_code)
    finder = _CheckpointFinder(store, code, allow_code)
    with _RUNNING, _importing(finder), broken_promise(code.where):
        module = finder.run()
    return ConsentedModule(module, finder.code)


@contextmanager
def _importing(finder: _CheckpointFinder) -> Iterator[None]:
    """Let a finder answer first for a while; `sys.path` and `sys.meta_path` are then as they were."""
    path = sys.path[:]
    sys.meta_path.insert(0, finder)
    try:
        yield
    except BaseException:
        finder.forget()
        raise
    finally:
        sys.path[:] = path
        if finder in sys.meta_path:  # the code may have meddled with that as well
            sys.meta_path.remove(finder)


class _CheckpointFinder(MetaPathFinder, Loader):
    """Finds the files beside a checkpoint's module under a package name that nothing else has, and only there."""

    def __init__(self, store: Store, code: CodeFile, allow_code: Mapping[str, str]) -> None:
        self._store, self._code, self._allow_code = store, code, allow_code
        parents = (store.directory / code.name).parents if store.directory else ()
        self._directories = {parent.resolve() for parent in parents[: code.name.count("/") + 1]}
        self._package = f"wmtp_checkpoint_{code.digest.removeprefix('sha256:')[:16]}"
        self._pending: dict[str, CodeFile] = {}
        self.code: dict[str, str] = {}

    def run(self) -> ModuleType:
        self.forget()
        package = ModuleType(self._package)
        package.__path__ = []
        sys.modules[self._package] = package
        fullname = f"{self._package}.{PurePosixPath(self._code.name).stem.replace('.', '_')}"
        module = module_from_spec(self._spec(fullname, self._code))
        sys.modules[fullname] = module
        self.exec_module(module)
        return module

    def forget(self) -> None:
        """Take what ran under this package name out of `sys.modules`."""
        prefix = f"{self._package}."
        for name in [name for name in sys.modules if f"{name}.".startswith(prefix)]:
            del sys.modules[name]

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{self._package}."):
            self._refuse_by_path(fullname, path)
            return None
        name = PurePosixPath(self._code.name).parent / (fullname.split(".", 1)[1].replace(".", "/") + ".py")
        try:
            code = read_code(self._store, str(name))
        except NotFoundError:
            return None
        check_consent(code, self._allow_code)
        return self._spec(fullname, code)

    @override
    def exec_module(self, module: ModuleType) -> None:
        code = self._pending.pop(module.__name__)
        self.code[code.name] = code.digest
        module.__file__ = code.where
        exec(compile(code.text, code.where, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  consented bytes

    def _spec(self, fullname: str, code: CodeFile) -> ModuleSpec:
        self._pending[fullname] = code
        return ModuleSpec(fullname, self, origin=code.where)

    def _refuse_by_path(self, fullname: str, path: Sequence[str] | None) -> None:
        # Where the checkpoint's directory is on sys.path, as the current one often is, a plain `import blocks` would
        # run what nobody agreed to, its cached bytecode first. Below a package (`path`) its own import was looked at.
        if path is not None or fullname in sys.builtin_module_names:
            return
        spec = PathFinder.find_spec(fullname)
        found = [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])] if spec else []
        if inside := [place for place in found if Path(place).parent.resolve() in self._directories]:
            raise TrustError(
                f"{self._code.where}: it imports {plain(fullname)}, which sys.path finds in the checkpoint:"
                f" {show(inside[0])}",
                hint=f"write 'from .{fullname} import ...' in the file and agree to both, or keep the checkpoint's"
                " directory off sys.path: start from another one",
            )
