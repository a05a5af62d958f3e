"""What a factory takes: found out without importing more, and only where somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lamella.stack import signatures
from lamella.stack.signatures import signature

if TYPE_CHECKING:
    import fractions

    from nowhere import Thing  # type: ignore[import-not-found]


def layer(app: Any, *, share: fractions.Fraction | None = None, thing: Thing = None, count: int = 1) -> Any:
    """A layer whose author imports for the type checker only."""
    return app


def test_annotations_for_type_checkers_are_resolved() -> None:
    """A module of the standard library is imported for them; of another one nothing is known."""
    from fractions import Fraction

    parameters = signature(layer).parameters
    assert parameters["share"].hint == Fraction | None
    assert parameters["thing"].hint is Any
    assert parameters["count"].hint is int


def test_only_what_is_asked_for_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The annotation of an option that no file sets is left alone."""
    resolved: list[object] = []

    def resolve(hint: object, namespace: object) -> object:
        resolved.append(hint)
        return original(hint, namespace)

    original: Any = signatures._resolve
    monkeypatch.setattr(signatures, "_resolve", resolve)
    parameters = signature(layer).parameters
    assert resolved == []
    count = parameters["count"]
    assert [count.hint, count.is_marked, count.is_secret] == [int, True, False]
    assert resolved == ["int"]
