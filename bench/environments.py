"""The environments that the peers are installed in: one for this interpreter, one for each other version."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["VENV", "interpreters", "prepare"]

BENCH = Path(__file__).resolve().parent
VENV = BENCH.parent / ".venv-bench"
#: What is built from source, and only one group needs; without a compiler the rest is measured all the same.
_OPTIONAL = "uwsgi==2.0.31"


def prepare(base: str, folder: Path, optional: bool = False) -> Path:
    """Create *folder* from the interpreter *base*, or bring it up to date; return the interpreter in it.

    Args:
        base: The interpreter.
        folder: Where the environment is.
        optional: Also install what may fail to build.
    """
    requirements = BENCH / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + _OPTIONAL.encode() * optional).hexdigest()
    mark = folder / ".bench-ready"
    python = folder / "bin" / "python"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"setting up {folder.name} …", file=sys.stderr)
        if not python.exists():
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        if optional and subprocess.run([*pip, _OPTIONAL], capture_output=True, check=False).returncode:
            print(f"{_OPTIONAL} cannot be built here: what needs it is not measured", file=sys.stderr)
        mark.write_text(wanted)
    return python


def interpreters(names: list[str]) -> dict[str, str]:
    """Return the interpreters among *names*, commands or paths, that there are, by their version (``3.12.1``)."""
    found: dict[str, str] = {}
    for name in names:
        program = shutil.which(str(Path(name).expanduser()))
        if program is None:
            continue
        code = "import sys, venv; print('.'.join(map(str, sys.version_info[:3])))"
        # A shim may be there without its interpreter.
        done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), program)
    return found
