"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

CORPORA = Path(
    os.environ.get("LAMELLA_CORPORA") or Path(__file__).resolve().parents[2] / "shared" / "facts" / "corpora"
)


@pytest.fixture(scope="session")
def corpus() -> Any:
    """Reads one file of hostile inputs, where the folder of them stands beside the project."""

    def read(name: str) -> Any:
        path = CORPORA / f"{name}.json"
        if not path.exists():
            pytest.skip(f"the corpus {name} is not beside the project")
        return json.loads(path.read_text(encoding="utf-8"))

    return read
