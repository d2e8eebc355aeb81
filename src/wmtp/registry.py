"""One small Registry class: loaders, loading strategies, algorithms, model classes.

A registry knows names from entry points without importing what they point to, so asking for names costs nothing.
Built-ins are entry points in pyproject.toml, exactly as plug-ins are.
"""

from __future__ import annotations

from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from wmtp.errors import UnknownNameError
from wmtp.extras import refuse_missing
from wmtp.untrusted import did_you_mean, show

T = TypeVar("T")


@cache
def _installed() -> Any:
    # Reads a file of every installed package: once for all registries.
    return entry_points()


class Registry(Generic[T]):
    """Names that stand for components of one kind.

    Args:
        kind: What the components are, as errors say it: "loading strategy".
        group: The entry-point group that names them.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._registered: dict[str, T] = {}

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in _installed().select(group=self.group)}

    def names(self) -> list[str]:
        """Return every known name, sorted; imports nothing."""
        return sorted({*self._entry_points, *self._registered})

    def register(self, name: str, component: T) -> T:
        """Add a component under a name for this process; an installed package uses an entry point instead."""
        self._registered[name] = component
        return component

    def get(self, name: str) -> T:
        """Return the component of that name, importing it on first use.

        Raises:
            UnknownNameError: If no entry point and no registration has that name (lists the known ones), or what the
                entry point names cannot be imported.
            MissingPackageError: If it needs a package that an extra of wmtp brings.
        """
        if name not in self._registered:
            if name not in self._entry_points:
                raise UnknownNameError(f"unknown {self.kind} {show(name)}", hint=self.hint_for(name))
            self._registered[name] = self._load(self._entry_points[name])
        return self._registered[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            component: T = point.load()
        except (ImportError, AttributeError) as error:
            refuse_missing(error)
            package = point.dist.name if point.dist else "the package that declares it"
            raise UnknownNameError(
                f"the {self.kind} {show(point.name)} is declared as {show(point.value)}, which cannot be imported: "
                f"{show(str(error))}",
                hint=f"install {package} again, or remove it",
            ) from error
        return component

    def create(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the component of that name and return what it builds."""
        component: Any = self.get(name)
        return component(*args, **kwargs)

    def hint_for(self, name: str) -> str:
        """Return the next step for someone who wrote an unknown name."""
        known = self.names()
        return f"use one of {', '.join(map(repr, known))}{did_you_mean(name, known)}"


loader_registry: Registry[Any] = Registry("loader", "wmtp.loaders")
loading_strategies: Registry[Any] = Registry("loading strategy", "wmtp.loading_strategies")
model_classes: Registry[Any] = Registry("model class", "wmtp.model_classes")
algorithms: Registry[Any] = Registry("algorithm", "wmtp.algorithms")
