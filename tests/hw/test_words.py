# ruff: noqa: E501  a list of words
"""Which names a unit may have."""

from __future__ import annotations

import pytest

from kappa_rtl.hw.words import named


@pytest.mark.parametrize("name", ["throttle", "throttle_axi", "first", "a1", "Layer_2", "a" * 64])
def test_words_are_names(name: str) -> None:
    assert named(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a__b", "_a", "a_", "a b", "ä", "a-b", "a.b", "a" * 65, "a\n"])
def test_what_is_no_word_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a word of at most 64 letters"):
        named(name)


@pytest.mark.parametrize(
    "name",
    ["module", "Module", "inside", "signal", "register", "class", "None", "true", "fraction", "value_error", "typing", "numpy", "field", "addrmap", "std_logic", "work"],
)  # fmt: skip
def test_no_word_of_a_language(name: str) -> None:
    with pytest.raises(ValueError, match="name must be no word of Verilog"):
        named(name)
