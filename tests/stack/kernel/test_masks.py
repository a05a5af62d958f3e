"""Masks: a secret shown differently each time, and found again."""

from __future__ import annotations

import pytest

from lamella.stack.kernel.masks import mask, unmask

SECRET = bytes(range(32))


def test_finds_the_secret_under_a_mask() -> None:
    """What was masked comes out again."""
    assert unmask(mask(SECRET), 32) == SECRET


def test_no_two_tokens_are_the_same() -> None:
    """Each has a mask of its own."""
    assert len({mask(SECRET) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("A" * 85, id="cut off"),
        pytest.param("A" * 87, id="too long"),
        pytest.param("\u00e9" * 86, id="another alphabet"),
        pytest.param("=" * 86, id="padding"),
        pytest.param("A" * 43, id="a shorter secret"),
    ],
)
def test_other_text_is_no_token(token: str) -> None:
    """Cut off, too long, of another alphabet, of a shorter secret."""
    assert unmask(token, 32) is None
