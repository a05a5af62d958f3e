"""Instructions per request, counted by valgrind: what grew by a fifth since ``bench/instructions.json`` fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "instructions.py"


def _script() -> Any:
    """``bench/instructions.py`` as a module: ``bench`` is a folder of programs, no package."""
    if not SCRIPT.exists():
        pytest.skip("bench/ is not part of the installed package")
    spec = importlib.util.spec_from_file_location("bench_instructions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.server
def test_no_request_takes_a_fifth_more_instructions() -> None:
    """The full stack and each layer alone, by their ratio to a bare application in the same run."""
    if not (os.environ.get("CI") or os.environ.get("LAMELLA_FULL")):
        pytest.skip("half a minute under valgrind: in CI, or with LAMELLA_FULL=1")
    if shutil.which("valgrind") is None:
        if os.environ.get("CI"):
            pytest.fail("valgrind is not installed")
        pytest.skip("valgrind is not installed")
    script = _script()
    before = script.stored().get(script.version())
    if before is None:
        pytest.skip(f"no counts are stored for Python {script.version()}: bench/instructions.py --write stores them")

    now = script.count(sys.executable)

    assert script.regressions(now, before["instructions"]) == []


def test_a_growth_of_a_fifth_is_a_regression() -> None:
    """Ratios to the bare application are compared, and a case that is gone is told."""
    script = _script()
    before = {"bare": 1000, "same": 5000, "grown": 5000, "gone": 5000}

    found = script.regressions({"bare": 2000, "same": 11_900, "grown": 12_100}, before)

    assert [line.partition(":")[0] for line in found] == ["grown", "gone"]
    assert "1.21 times" in found[0]
