"""The commands for operators and for testing, called as a person calls them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lamella.stack.cli import command_line

STACK = """lamella = 1
app = { use = "app:application" }

[[layer]]
use = "edge"

[[layer]]
use = "cors"
origins = ["https://shop.example", { suffix = ".shop.example" }]
methods = ["PUT"]
policies = [{ paths = ["/open/*"], origins = "*", methods = ["GET"] }]
"""
APP = "def application(environ, start_response):\n    start_response('204 No Content', [])\n    return []\n"

Run = Callable[..., Result]


@pytest.fixture
def lamella(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command_line(), list(arguments))

    return run


def test_secret_writes_a_file_once(lamella: Run) -> None:
    """Readable by its owner alone, and never overwritten."""
    assert lamella("secret", "key").exit_code == 0
    first = Path("key").read_text()

    again = lamella("secret", "key")

    assert again.exit_code != 0
    assert Path("key").read_text() == first
    assert len(first.strip()) == 43
    assert stat.S_IMODE(os.stat("key").st_mode) == 0o600


def test_session_looks_into_a_store(lamella: Run) -> None:
    """Count, purge, and no such session."""
    assert lamella("session", "count", "sqlite:///sessions.db").output.strip() == "0"
    assert lamella("session", "purge", "sqlite:///sessions.db").output == "0 expired sessions removed\n"
    missing = lamella("session", "show", "sqlite:///sessions.db", "a" * 64)
    assert (missing.exit_code, missing.output) == (1, "there is no such session\n")


def test_cors_prints_the_decisions(lamella: Run) -> None:
    """One line for each origin and path, one column for each method."""
    Path("stack.toml").write_text(STACK, encoding="utf-8")
    Path("app.py").write_text(APP, encoding="utf-8")

    rows = {(row["origin"], row["path"]): row for row in json.loads(lamella("cors", "--json").output)}

    assert rows["https://shop.example", "/"]["PUT"] == "allowed"
    assert rows["https://shop.example", "/"]["DELETE"] == "the method is not allowed"
    assert rows["https://stranger.example", "/"]["GET"] == "the origin is not allowed"
    assert rows["https://stranger.example", "/open/x"]["GET"] == "allowed"
    assert "https://any.shop.example" in lamella("cors").output
    asked = json.loads(lamella("cors", "--json", "--origin", "null", "--path", "/a").output)
    assert [(row["origin"], row["path"]) for row in asked] == [("null", "/a")]


def test_compress_and_build_make_files(lamella: Run) -> None:
    """Siblings where they are smaller, hashed names with a manifest."""
    Path("public").mkdir()
    Path("public/app.css").write_text("body { color: red }\n" * 100, encoding="utf-8")

    assert "1 of 1 files compressed" in lamella("compress", "public", "-e", "gzip").output
    assert Path("public/app.css.gz").exists()
    assert "0 of 1 files compressed, 1 up to date" in lamella("compress", "public", "-e", "gzip").output
    built = lamella("static", "build", "public", "dist", "--only-hashed")
    assert built.exit_code == 0, built.output
    assert len(list(Path("dist").glob("app.*.css"))) == 1


def test_conform_judges_any_middleware(lamella: Run) -> None:
    """Exit code 0 for one that keeps the rules, 1 and the reproduction for one that does not."""
    good = lamella("conform", "request_id", "--option", "header=X-Id", "--json")
    assert (good.exit_code, json.loads(good.output)["failed"]) == (0, 0)

    Path("swallows.py").write_text(
        "class Swallows:\n    def __init__(self, app):\n        self.app = app\n"
        "    def __call__(self, environ, start_response):\n"
        "        return iter(list(self.app(environ, start_response)))\n",
        encoding="utf-8",
    )
    bad = lamella("conform", "swallows:Swallows")
    assert bad.exit_code == 1
    assert "close()" in bad.output
    assert "did you mean `request_id`?" in lamella("conform", "requestid").output


def test_trace_shows_what_each_layer_does(lamella: Run) -> None:
    """As text, JSON and a page."""
    Path("stack.toml").write_text(STACK, encoding="utf-8")
    Path("app.py").write_text(APP, encoding="utf-8")
    sent = ("GET", "/open/x", "-H", "Origin: https://a.example")

    text = lamella("trace", *sent)
    assert text.exit_code == 0
    assert text.output.startswith("GET /open/x → 204 No Content by app")
    assert "header  + Access-Control-Allow-Origin = *" in text.output
    assert json.loads(lamella("trace", *sent, "--json").output)["target"] == "/open/x"
    assert lamella("trace", *sent, "--html").output.lower().startswith("<!doctype html>")
    assert lamella("trace", "GET", "open").exit_code == 2
    assert lamella("trace", "GET", "/", "-H", "nonsense").exit_code == 2


def test_headers_prints_the_matrix(lamella: Run) -> None:
    """Tab-separated, for a diff; or JSON."""
    Path("stack.toml").write_text(STACK, encoding="utf-8")
    Path("app.py").write_text(APP, encoding="utf-8")

    first = lamella("headers", "-H", "Origin: https://shop.example").output

    assert first == lamella("headers", "-H", "Origin: https://shop.example").output
    assert "cors\taccess-control-allow-origin\t+" in first
    assert json.loads(lamella("headers", "--json").output)["cases"][0] == "200"


def test_audit_lists_what_is_open(lamella: Run) -> None:
    """Who may ask for what; ``--open`` fails where anything is reachable without a login."""
    rules = '[{ path = "/", allow = "anonymous" }, { path = "/*", allow = ["staff"] }]'
    users = '{ anna = "$5$saltsalt$mSCz5eJc0rXPfPRvZ2n7VdRDVlYEKcAhS5OvJIvRLXB" }'
    layers = f'\n[[layer]]\nuse = "basic_auth"\nusers = {users}\n\n[[layer]]\nuse = "access"\nrules = {rules}\n'
    Path("stack.toml").write_text(STACK + layers, encoding="utf-8")
    Path("app.py").write_text(APP, encoding="utf-8")

    rows = json.loads(lamella("audit", "--json").output)

    assert {(row["allow"], row["is_open"]) for row in rows} >= {("staff", False)}
    assert "reachable without a login" in lamella("audit").output
    Path("stack.toml").write_text(STACK, encoding="utf-8")
    assert lamella("audit", "--open").exit_code == 1


def test_passwd_writes_a_users_file(lamella: Run) -> None:
    """Adds, changes, lists, removes; the password is read, never shown."""
    runner = CliRunner()
    line = ["passwd", "users.htpasswd", "anna", "--stdin", "--scheme", "sha512"]

    added = runner.invoke(command_line(), line, input="correct horse battery\n")

    assert added.output == "users.htpasswd: added anna\n"
    assert runner.invoke(command_line(), line, input="another horse battery\n").output.startswith(
        "users.htpasswd: changed"
    )
    assert lamella("passwd", "users.htpasswd", "--list").output == "anna\n"
    assert "horse" not in Path("users.htpasswd").read_text()
    assert lamella("passwd", "users.htpasswd", "anna", "--delete").exit_code == 0
    assert lamella("passwd", "users.htpasswd", "anna", "--delete").exit_code == 1
