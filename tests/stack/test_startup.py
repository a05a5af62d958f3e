"""What a fresh process imports: counted, not timed, so that a slower start is seen on any machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STACK = """
lamella = 1
app.use = "views:router"
[[layer]]
use = "access_log"
output = "access.log"
[[layer]]
use = "cors"
origins = ["https://shop.example"]
[[layer]]
use = "static"
root = "static"
prefix = "/static"
[[layer]]
use = "session"
secret = { insecure = "kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo" }
[[layer]]
use = "basic_auth"
users = "users"
[[layer]]
use = "dispatch"
mounts = { "/app" = "views:router" }
"""
VIEWS = """
import webob
from lamella.apps.router import Request, Router
router = Router()
@router.get("/hello/<name>")
def hello(request: Request, name: str) -> webob.Response:
    return webob.Response("hello " + name)
"""
# What each of them costs a start, in milliseconds, where webob takes 35: importlib.metadata 25, webob.exc 10,
# asyncio 30, msgspec 5, dataclasses and inspect 8, logging and traceback 6.
HEAVY = {
    "ast", "asyncio", "concurrent", "configparser", "dataclasses", "difflib", "importlib.metadata", "inspect",
    "linecache", "logging", "msgspec", "multiprocessing", "pkg_resources", "pkgutil", "secrets",
    "sqlite3", "tokenize", "traceback", "unicodedata", "unittest", "uuid", "waitress", "webob.exc", "xml",
    "lamella.stack.check", "lamella.stack.cli", "lamella.stack.order", "lamella.stack.testing", "lamella.stack.trace",
    "lamella.stack.traps", "lamella.apps.asgi",
}  # fmt: skip


@pytest.fixture
def imported(tmp_path: Path) -> set[str]:
    """The modules that loading six layers around a router adds to those of ``import webob``."""
    (tmp_path / "stack.toml").write_text(STACK)
    (tmp_path / "views.py").write_text(VIEWS)
    (tmp_path / "users").write_text("alice:$5$rounds=5000$nobodysnobodysno$" + "." * 43 + "\n")
    (tmp_path / "static").mkdir()
    paths = [str(tmp_path), *(folder for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())]
    code = f"""import sys; sys.path[:0] = {paths!r}
import webob
before = set(sys.modules)
from lamella.stack import load
load({str(tmp_path / "stack.toml")!r})
import json; print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    found: list[str] = json.loads(done.stdout)
    return set(found)


def test_a_start_imports_nothing_heavy(imported: set[str]) -> None:
    """Nothing that only a mistake, another layer or a first rare request needs."""
    assert imported & HEAVY == set()
    others = sorted(name for name in imported if not name.startswith("lamella"))
    assert len(others) <= 20, others  # typing, tomllib, pathlib and their parts


def test_a_start_imports_few_modules(imported: set[str]) -> None:
    """Each module costs 0.3 ms: six layers, the router and the loader are a hundred."""
    ours = sorted(name for name in imported if name.startswith("lamella."))
    assert len(ours) <= 105, ours
    layers = {name for name in ours if name.startswith("lamella.middleware.") and "._" not in name}
    assert {name.rpartition(".")[2] for name in layers} == {
        "access_log", "basic_auth", "cors", "dispatch", "session", "static",
    }  # fmt: skip


def test_the_command_line_starts_without_what_its_commands_need() -> None:
    """``lamella --help`` needs click, and neither metadata of distributions nor a command."""
    code = """import sys, click
before = set(sys.modules)
import lamella.stack.cli
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert found & {*HEAVY - {"lamella.stack.cli"}, "rich", "webob", "tomllib", "lamella.stack.loader"} == set()
    assert {name for name in found if name.startswith("lamella.stack.cli.")} == set()
