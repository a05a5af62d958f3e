"""Test files that need a process of their own, such as those that set up Django: ``isolated_*.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEV = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
FILES = sorted(Path(__file__).parent.rglob("isolated_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_passes_in_a_process_of_its_own(file: Path) -> None:
    """The whole file, by itself."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", f"pythonpath={DEV}", str(file)]

    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
