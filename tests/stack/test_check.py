"""check: the phases, their exit codes, and what plugs in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from lamella.stack.build import Stack
from lamella.stack.check import check
from lamella.stack.problems import PHASES, Problem

Write = Callable[..., str]
HEAD = 'lamella = 1\n[app]\nuse = "shelf:app"\n'
LAYER = HEAD + '[[layer]]\nuse = "shelf:Typed"\n'


def plug(monkeypatch: pytest.MonkeyPatch, name: str, function: str, found: Callable[[Stack], list[Problem]]) -> None:
    """Put a module in the place of one that plugs in."""
    module: Any = ModuleType(f"lamella.stack.{name}")
    setattr(module, function, found)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(autouse=True)
def nothing_plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real order rules and expectations have tests of their own."""
    plug(monkeypatch, "order", "check_order", lambda stack: [])
    plug(monkeypatch, "expect", "run_expectations", lambda stack: [])


@pytest.mark.parametrize(("text", "code"), [
    (HEAD, 0),
    ("lamella =", 2),
    (LAYER + "flag = 1", 3),
    (LAYER + "[[layer]]\nuse = 'sesion'", 4),
    (LAYER + "number = 13", 6),
    (LAYER + "flag = 1\n[[layer]]\nuse = 'sesion'\n[[layer]]\nuse = 'shelf:Typed'\nid = 'x'\nnumber = 13", 3),
    (LAYER + "number = 13\n[[layer]]\nuse = 'sesion'", 4),
], ids=str)  # fmt: skip
def test_exits_with_the_first_phase_that_fails(write: Write, text: str, code: int) -> None:
    """2 syntax, 3 types, 4 references, 5 order, 6 build, 7 expectations."""
    report = check(write(text))

    assert report.exit_code == code
    assert (report.stack is None) is (code != 0)


def test_reports_later_phases_too(write: Write) -> None:
    """A wrong type does not hide a constructor that refuses."""
    text = LAYER + "flag = 1\n[[layer]]\nuse = 'sesion'\n[[layer]]\nuse = 'shelf:Typed'\nid = 'x'\nnumber = 13"

    assert [one.phase for one in check(write(text)).problems] == ["types", "references", "build"]


def test_order_rules_see_the_described_stack(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built, and only where every layer is known; a warning does not fail."""
    seen: list[Any] = []

    def rules(stack: Stack) -> list[Problem]:
        seen.append([layer.factory for layer in stack.layers])
        with pytest.raises(RuntimeError, match="described, not built"):
            stack({}, lambda *args: lambda data: None)
        where = stack.layers[0]
        return [
            Problem(where.file, where.line, where.column, "wrong place", phase="order", rule="L104"),
            Problem(where.file, where.line, where.column, "odd place", phase="order", rule="L117", warning=True),
        ]

    plug(monkeypatch, "order", "check_order", rules)
    report = check(write(LAYER))

    assert (report.exit_code, len(report.errors), len(report.warnings)) == (5, 1, 1)
    assert report.errors[0].as_dict() == {
        "file": "stack.toml", "line": 4, "column": 1, "message": "wrong place", "phase": "order", "rule": "L104",
        "warning": False,
    }  # fmt: skip
    check(write(LAYER + "flag = 1"))
    assert len(seen) == 1


def test_expectations_run_on_the_built_stack(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing else is wrong, and if they are asked for."""
    plug(
        monkeypatch, "expect", "run_expectations",
        lambda stack: [Problem("stack.toml", 1, 1, f"{callable(stack.wsgi_closure)}", phase="expectations")],
    )  # fmt: skip
    file = write(LAYER)

    assert check(file).exit_code == 7
    assert [one.message for one in check(file).problems] == ["True"]
    assert check(file, expectations=False).exit_code == 0
    assert check(file, import_apps=False).exit_code == 0
    assert check(write(LAYER + "number = 13")).exit_code == 6


def test_every_phase_has_its_exit_code() -> None:
    """In the order in which they run."""
    assert list(PHASES.values()) == [2, 3, 4, 5, 6, 7]


def test_apps_are_not_imported_where_told_not_to(write: Write) -> None:
    """A stand-in takes their place; the layers are built all the same."""
    report = check(write('lamella = 1\napp.use = "gone:app"\n[[layer]]\nuse = "request_id"'), import_apps=False)

    assert report.problems == []
    assert report.stack is not None
    with pytest.raises(RuntimeError, match="gone:app was not imported"):
        report.stack({}, lambda *args: lambda data: None)
