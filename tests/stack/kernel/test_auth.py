"""Names and passwords: what they may hold, and when two names are one."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from lamella.stack.kernel.auth import has_controls, is_user_name, normalized


def test_controls_are_the_category_cc() -> None:
    """Exactly the characters that Unicode calls controls are found."""
    every = map(chr, range(sys.maxunicode + 1))
    assert [x for x in every if has_controls(x)] == [chr(x) for x in (*range(0x20), *range(0x7F, 0xA0))]
    assert not has_controls("päss wörd\u200b")
    assert has_controls("pass\tword")


@pytest.mark.parametrize("text", ["alice", "zo\u00eb", "zoe\u0308", "\u212bngstr\u00f6m", ""])
def test_names_are_compared_in_form_c(text: str) -> None:
    """A name typed with combining characters is the composed one."""
    assert normalized(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [("alice", True), ("zoë", True), (" zoë", False), ("zoë\u202e", False), ("zoë\u200b", False), ("ë" * 256, False)],
)
def test_names_show_all_of_themselves(text: str, fits: bool) -> None:
    """What no page and no log would show is no part of a name."""
    assert is_user_name(text) is fits
