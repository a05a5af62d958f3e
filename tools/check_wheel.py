"""Build the wheel from a clean tree, install it into an empty environment, run the suite against it.

Proves that the wheel holds every module and data file, that nothing reads the checkout by
accident, and that the installed package type-checks from outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("middleware", "apps", "stack")


def clean_tree(target: Path) -> None:
    """Copy what git knows (and what it does not ignore): stale ``build/`` folders stay behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file() and not name.startswith("tools/dev/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def expected_files(tree: Path) -> set[str]:
    """Return what the wheel must hold: every file of the three folders."""
    return {
        f"lamella/{path.relative_to(tree)}"
        for folder in FOLDERS
        for path in (tree / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def main() -> int:
    """Build, compare, install, test, type-check."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tree = work / "tree"
        clean_tree(tree)
        run([sys.executable, "-m", "build", "--wheel", "--outdir", str(work / "dist"), str(tree)], quiet=True)
        (wheel,) = (work / "dist").glob("*.whl")
        held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("lamella/")}
        missing = expected_files(tree) - held
        if missing or "lamella/__init__.py" in held:
            print("not in the wheel:", *sorted(missing), file=sys.stderr)
            return 1
        venv.create(work / "venv", with_pip=True)
        python = str(work / "venv" / "bin" / "python")
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[test]", "mypy"])
        outside = work / "outside"
        shutil.copytree(tree / "tests", outside / "tests")
        for name in ("docs", "README.md", "setup.cfg"):
            source = tree / name
            if source.is_dir():
                shutil.copytree(source, outside / name)
            elif source.exists():
                shutil.copy2(source, outside / name)
        run([python, "-m", "mypy", "--strict", "tests/typing_public.py"], cwd=outside)
        run([python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-o", "pythonpath="], cwd=outside)
    return 0


def run(command: list[str], cwd: Path | None = None, quiet: bool = False) -> None:
    """Run *command*; end the program with its exit code where it fails."""
    corpora = os.environ.get("LAMELLA_CORPORA", str(ROOT.parent / "shared" / "facts" / "corpora"))
    done = subprocess.run(
        command,
        cwd=cwd,
        check=False,
        stdout=subprocess.DEVNULL if quiet else None,
        env={**os.environ, "LAMELLA_CORPORA": corpora},
    )
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
