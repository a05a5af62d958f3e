"""What each entry avoids: ``lamella check`` on a copy with the mistake in it, with the real framework."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parent
CHECK = "import sys; sys.path.insert(0, '.'); from lamella.stack.cli import main; main()"

MISTAKES = [
    pytest.param(
        "dash",
        {"figures.py": ('requests_pathname_prefix="/figures/", routes_pathname_prefix="/", ', "")},
        ['error the mount `/figures` (figures:server): expected a Dash made with requests_pathname_prefix="/figures/"'],
        id="a Dash that was not told its mount",
    ),
    pytest.param(
        "fastapi",
        {"weather.py": ("FastAPI(title", 'FastAPI(root_path="/v1", title')},
        ["error the mount `/weather` (weather:app): expected a FastAPI without root_path"],
        id="a FastAPI with a root_path",
    ),
    pytest.param(
        "django",
        {
            "library/settings.py": (
                'STATIC_URL = "/library/static/"',
                'STATIC_URL = "static/"\nFORCE_SCRIPT_NAME = "/"',
            ),
            "stack.toml": ('prefix = "/library/static"', 'prefix = "/elsewhere"'),
        },
        [
            "error the mount `/library` (library.wsgi:application): expected FORCE_SCRIPT_NAME = None",
            "warning the mount `/library` (library.wsgi:application): STATIC_URL = 'static/' takes the prefix",
            "warning the mount `/library` (library.wsgi:application): nothing serves /library/static/",
        ],
        id="a Django of another place, without its files",
    ),
    pytest.param(
        "flask",
        {"stack.toml": ('cookie_name = "site"', "")},
        ["error the mount `/guestbook` (guestbook:app): its cookie `session` is that of the layer session too"],
        id="a Flask with the cookie of the session layer",
    ),
]


@pytest.mark.parametrize(("entry", "changes", "told"), MISTAKES)
def test_a_mistake_is_told_at_the_mount(
    entry: str, changes: dict[str, tuple[str, str]], told: list[str], tmp_path: Path
) -> None:
    """Each with its line, and with what to write instead."""
    folder = tmp_path / entry
    shutil.copytree(GALLERY / entry, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "static_root").mkdir()
    for name, (right, wrong) in changes.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert right in text
        (folder / name).write_text(text.replace(right, wrong), encoding="utf-8")
    packages = next(path for path in sys.path if (Path(path) / "lamella" / "middleware").is_dir())

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK, "check", "stack.toml"],
        cwd=folder, env={**os.environ, "PYTHONPATH": packages}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 6
    mount = next(
        number
        for number, line in enumerate((folder / "stack.toml").read_text(encoding="utf-8").splitlines(), 1)
        if "mounts = {" in line or line.startswith('"/')
    )
    lines = [line.split(": ", 1)[1] for line in done.stderr.splitlines() if line.startswith(f"stack.toml:{mount}:")]
    said = sorted(
        line.replace("warning: ", "warning ", 1) if line.startswith("warning: ") else f"error {line}" for line in lines
    )
    assert [line[: len(start)] for line, start in zip(said, sorted(told), strict=True)] == sorted(told)
