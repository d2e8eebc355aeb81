from importlib.metadata import EntryPoint

import pytest

from wmtp.errors import UnknownNameError
from wmtp.registry import Registry, algorithms, loader_registry, loading_strategies, model_classes


@pytest.fixture
def registry():
    """A registry whose group no installed package uses."""
    return Registry("loading strategy", "wmtp.tests.nothing")


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (loader_registry, {"standardized-model-loader"}),
        (loading_strategies, {"custom_mtp", "huggingface"}),
        (algorithms, {"baseline-mtp", "critic-wmtp", "rho1-wmtp"}),
        (model_classes, {"MTPForCausalLM"}),
    ],
    ids=["loaders", "strategies", "algorithms", "classes"],
)
def test_the_built_in_names_are_known_from_entry_points(registry, names):
    assert names <= set(registry.names())


def test_an_unknown_name_lists_the_known_ones_and_the_closest():
    with pytest.raises(UnknownNameError) as caught:
        loading_strategies.get("custom-mtp")
    assert caught.value.problem == "unknown loading strategy 'custom-mtp'"
    assert caught.value.hint == "use one of 'custom_mtp', 'huggingface' (did you mean 'custom_mtp'?)"


def test_a_name_from_outside_is_shown_escaped(registry):
    with pytest.raises(UnknownNameError, match=r"unknown loading strategy '\\x1b\[2J'"):
        registry.get("\x1b[2J")


def test_a_component_registered_in_this_process_is_found_and_called(registry):
    registry.register("range", range)
    assert registry.names() == ["range"]
    assert registry.get("range") is range
    assert registry.create("range", 2, 8, 3) == range(2, 8, 3)


def test_a_component_is_imported_once_and_only_when_asked_for(registry):
    registry._entry_points = {"ordered": EntryPoint("ordered", "collections:OrderedDict", registry.group)}
    assert registry.names() == ["ordered"]
    assert registry._registered == {}
    assert registry.get("ordered") is registry.get("ordered")


@pytest.mark.parametrize("value", ["no_such_package_at_all:Thing", "collections:NoSuchThing"])
def test_an_entry_point_that_cannot_be_imported_is_named_with_what_it_points_to(registry, value):
    registry._entry_points = {"broken": EntryPoint("broken", value, registry.group)}
    with pytest.raises(UnknownNameError) as caught:
        registry.get("broken")
    expected = f"the loading strategy 'broken' is declared as '{value}', which cannot be imported: "
    assert caught.value.problem.startswith(expected)
    assert isinstance(caught.value.__cause__, ImportError | AttributeError)
