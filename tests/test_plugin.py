"""Code of the user by name: a wrong name is a usage error that names the option, before anything is imported."""

from __future__ import annotations

import pytest

from quantkit.errors import UsageError
from quantkit.plugin import load_plugin


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":f",
        ".:f",
        "..a:f",
        "json:",
        "json:\0",
        "a\0b:f",
        "json:\udce4",
        "\udce4:f",
        "a..b:f",
        "a." * 9999 + ":f",
    ],
)
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--option"):
        load_plugin(text, option="--option", remedies=("a", "b"))


def test_a_callable_is_found() -> None:
    assert callable(load_plugin("json:dumps", option="--option", remedies=("a", "b")))
