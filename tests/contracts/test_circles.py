"""No two files import each other in a circle: each can be read, and changed, after those that it names."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def imports_of(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """What each file imports, lazily or for types alone as well."""
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return the files of one circle, the first again at the end; nothing where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other_in_a_circle():
    found = circle(imports_of(grimp.build_graph("wmtp", cache_dir=None)))
    assert not found, " imports ".join(reversed(found))


@pytest.mark.parametrize("direct", [True, False])
def test_a_circle_of_two_files_or_of_three_is_found(direct):
    imports = {"wmtp.a": {"wmtp.b"}, "wmtp.b": {"wmtp.a"} if direct else {"wmtp.c"}, "wmtp.c": {"wmtp.a"}}
    assert {"wmtp.a", "wmtp.b"} <= set(circle(imports))


def test_an_import_for_types_alone_counts():
    graph = grimp.build_graph("wmtp", cache_dir=None)
    assert graph.direct_import_exists(importer="wmtp.data.documents", imported="wmtp.settings.data")
    graph.add_import(importer="wmtp.settings.data", imported="wmtp.data.documents")
    assert "wmtp.data.documents" in circle(imports_of(graph))
