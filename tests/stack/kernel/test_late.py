"""Regular expressions compiled on first use."""

from __future__ import annotations

import re

import pytest

from lamella.stack.kernel.late import late_pattern


def test_it_does_what_the_compiled_one_does() -> None:
    """Methods and attributes are those of ``re.compile``, flags included."""
    pattern = late_pattern("(a+)b", re.IGNORECASE)
    found = pattern.fullmatch("AAB")
    assert found is not None
    assert found[1] == "AA"
    assert (pattern.sub("-", "xaby"), pattern.split("1ab2"), pattern.groups) == ("x-y", ["1", "a", "2"], 1)
    assert pattern.pattern == "(a+)b"


def test_it_compiles_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled before it is used, and no method is looked for twice."""
    compiled: list[str] = []

    def compile_(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return original(pattern, flags)

    original = re.compile
    monkeypatch.setattr(re, "compile", compile_)
    pattern = late_pattern("[0-9]+")
    assert compiled == []
    assert [pattern.fullmatch(text) is not None for text in ("1", "2", "x")] == [True, True, False]
    assert compiled == ["[0-9]+"]
