"""YAML as plain data: equal to PyYAML's safe loader on what it writes, and one error for what is dangerous."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantkit.document.yaml_text import parse_yaml

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\u2028\u2029"), max_size=8)
TEXT = TEXT.filter(lambda text: not text[:2].strip("+-.").isdigit())  # `1e3` is a text to YAML 1.1, a number to 1.2
SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


class NoAliases(yaml.SafeDumper):
    """Writes equal values out each time."""

    def ignore_aliases(self, _: object) -> bool:
        return True


@given(VALUES, st.booleans())
def test_what_the_safe_dumper_writes_comes_back(value: object, flow: bool) -> None:
    text = yaml.dump(value, Dumper=NoAliases, allow_unicode=True, default_flow_style=flow)
    assert parse_yaml(text, 64) == value


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text, 8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("names: [no, on, y]", {"names": ["no", "on", "y"]}),
        ("0: person\n1: 2024-01-01", {"0": "person", "1": "2024-01-01"}),
        ("{0: 'cat', 1: \"driver's\"}", {"0": "cat", "1": "driver's"}),
        ("a: 12:30:45 # time", {"a": "12:30:45"}),
        ("a: '7'\nb: 7\nc: 0x1F\nd: 0o17\ne: 1e3\nf:", {"a": "7", "b": 7, "c": 31, "d": 15, "e": 1000.0, "f": None}),
        ("", None),
    ],
)
def test_the_core_schema(text: str, value: object) -> None:
    assert parse_yaml(text, 64) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &x [1]\nb: [*x, *x]", "line 1: anchors and aliases"),
        ("b: *x", "line 1: anchors and aliases"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: tags such as .*os.system are not supported"),
        ("a: !local 1", "line 1: tags such as !local"),
        ("a: 1\na: 2", "line 2: the key 'a' comes twice"),
        ("[" * 5000, "nest"),
        ("? [a]\n: b", "a list or a mapping is no key"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: " + "9" * 5000, "more than 40 digits"),
        ("a: [1, 2", "is not YAML"),
        ("a: \x01", "not YAML"),
    ],
)
def test_what_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_yaml(text, 64)
