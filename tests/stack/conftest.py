"""Stack files of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STACKS = Path(__file__).resolve().parents[1] / "stacks"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a stack file into an empty working directory; the module ``shelf`` can be imported there."""
    monkeypatch.syspath_prepend(str(STACKS))
    monkeypatch.chdir(tmp_path)

    def written(text: str, name: str = "stack.toml") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    yield written
    sys.modules.pop("shelf", None)
