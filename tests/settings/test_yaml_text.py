import math

import pytest

from wmtp.errors import SettingsError
from wmtp.settings.yaml_text import Composed, Origin, compose


def read(text: str) -> Composed:
    return compose(text, lambda line: Origin(line, f"f.yaml:{line}"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("2.0e-5", 2e-5),
        (".5", 0.5),
        ("-3", -3),
        ("1.0", 1.0),
        ("-.Inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_plain_numbers_booleans_and_null_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read(f"a: {text}").value["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["no", "off", "yes", "2024-01-01", "1:30", "1_000", "e5", "1e", '"12"', "'true'"])
def test_words_that_older_yaml_turned_into_something_else_stay_text(text: str) -> None:
    assert read(f"a: {text}").value == {"a": text.strip("'\"")}


def test_a_yaml_1_1_directive_does_not_bring_the_old_booleans_back() -> None:
    assert read("%YAML 1.1\n---\na: no").value == {"a": "no"}


def test_an_absurdly_long_integer_is_not_converted() -> None:
    digits = "9" * 5000
    assert read(f"a: {digits}").value == {"a": pytest.approx(math.inf)}


def test_variables_are_expanded_before_a_plain_word_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "7")
    monkeypatch.setenv("EMPTY", "")
    text = 'a: ${STEPS}\nb: "${STEPS}"\nc: ${EMPTY:-no}/x\nd: ${NOT_SET_HERE:-}\ne: ${EMPTY}x'
    assert read(text).value == {"a": 7, "b": "7", "c": "no/x", "d": None, "e": "x"}


def test_an_unset_variable_is_a_fault_that_names_it_and_its_place() -> None:
    found = read("a:\n  b: [x, '${NOT_SET_HERE}']")
    assert [str(fault) for fault in found.faults] == [
        "a.b.1 names the environment variable NOT_SET_HERE, which is not set"
    ]
    assert found.faults[0].hint == "set it, or give a default: ${NOT_SET_HERE:-value}"
    assert found.origins["a", "b", 1].text == "f.yaml:2"


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A:-${B}}", "${A"])
def test_a_broken_variable_is_a_fault(text: str) -> None:
    assert "with a broken '${'" in str(read(f"a: '{text}'").faults[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "f.yaml:2: is not YAML: while scanning for the next token found character '\\t'"),
        ("a: [1, 2", "f.yaml:1: is not YAML: while parsing a flow sequence"),
        ("a: 1\nb: c: d", "f.yaml:2: is not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "f.yaml:2: a second document begins"),
        ("a: 1\n? [b]\n: 2", "f.yaml:2: has a key that is not a word"),
        ("a: \x00", "f.yaml:1: is not YAML: unacceptable character #x0000"),
        ("a: " + "[" * 70 + "]" * 70, "f.yaml:1: is nested deeper than 64 levels"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert caught.value.problem.startswith(message)
    assert caught.value.hint


def test_a_tab_and_an_unquoted_variable_between_brackets_bring_their_own_hints() -> None:
    with pytest.raises(SettingsError, match="indent with spaces, not tabs"):
        read("a:\n\tb: 1")
    with pytest.raises(SettingsError, match=r"\$\{VAR\} between brackets needs quotes"):
        read("{a: ${X:-1}}")


def test_duplicate_keys_tags_and_aliases_are_all_named_at_once() -> None:
    found = read("a: &x 1\nb: !!python/object:os.system ls\nc: *x\na: 2\n")
    assert [str(fault) for fault in found.faults] == [
        "b has the tag 'tag:yaml.org,2002:python/object:os.system'",
        "c is the alias *x",
        "a is given twice, first at f.yaml:1",
    ]


def test_a_recursive_alias_ends_in_a_fault_and_not_in_endless_reading() -> None:
    assert str(read("a: &a [*a]").faults[0]) == "a.0 is the alias *a"
