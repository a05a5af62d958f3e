"""What ``lamella check`` says of mounted frameworks: at the line of the mount, with the cure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lamella.stack.check import check
from lamella.stack.problems import Problem
from lamella.stack.traps import check_traps

OK = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
FLASK = """
import os, secrets
from flask import Flask

app = Flask(__name__)
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a stack file, and modules beside it that it may name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(stack: str, **modules: str) -> Path:
        for name in [name for name in sys.modules if name.startswith("trap_")]:
            del sys.modules[name]
        for name, source in {"trap_root": OK, **modules}.items():
            (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        file = tmp_path / "stack.toml"
        file.write_text(f'lamella = 1\napp = {{ use = "trap_root:application" }}\n{stack}', encoding="utf-8")
        return file

    return written


def said(file: Path) -> list[tuple[int, bool, str]]:
    """Line, warning and text of what was found after the order."""
    return [(one.line, one.warning, one.message) for one in check(file).problems if one.phase == "build"]


def only(file: Path) -> tuple[int, bool, str]:
    """The one thing that was found."""
    (one,) = said(file)
    return one


MOUNT = """
[[layer]]
use = "dispatch"

[layer.mounts]
"/one" = "trap_one:app"
"""
TWO = MOUNT + '"/two" = "trap_two:app"\n'
SESSION = """
[[layer]]
use = "session"
secret = { insecure = "0123456789abcdef0123456789abcdef" }
"""


def test_a_sound_stack_has_none(write: Write) -> None:
    """Nothing is said of an app that is nothing special."""
    assert said(write(MOUNT, trap_one=FLASK)) == []


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "app.secret_key = os.urandom(24)",
        'app.config["SECRET_KEY"] = os.urandom(24)',
        "app.config.update(SECRET_KEY=secrets.token_hex())",
        'app.config.from_mapping({"SECRET_KEY": os.urandom(24).hex()})',
    ],
)
def test_a_random_key_is_an_error_with_several_workers(
    write: Write, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """SECRET_KEY = os.urandom(24), as tutorials have it: the app, the fault with its line, and the cure."""
    file = write(MOUNT, trap_one=FLASK + line)

    assert only(file)[:2] == (8, True)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    at, warning, message = only(file)

    assert (at, warning) == (8, False)
    assert "the mount `/one` (trap_one:app): " in message
    assert "anew in each process (trap_one.py, line 6)" in message
    assert "4 workers" in message
    assert 'os.environ["SECRET_KEY"], or a file of `lamella secret`' in message
    assert check(file).exit_code == 6


@pytest.mark.parametrize(
    "line",
    [
        'app.secret_key = os.environ.get("TRAP_KEY") or os.urandom(24)',
        'app.secret_key = os.environ.get("TRAP_KEY", os.urandom(24))',
        'app.secret_key = os.environ["HOME"]',
        "upload_name = os.urandom(8)",
    ],
)
def test_a_key_from_outside_is_none_of_them(write: Write, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """What is configured counts; the random one behind it is for development."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")

    assert said(write(MOUNT, trap_one=FLASK + line)) == []


# --- cookies --------------------------------------------------------------------------------------


def test_one_cookie_of_app_and_layer_is_an_error(write: Write) -> None:
    """Flask's cookie is called session, and so is that of our layer."""
    at, warning, message = only(write(SESSION + MOUNT, trap_one=FLASK + 'app.secret_key = "x" * 32'))

    assert (at, warning) == (12, False)
    assert "its cookie `session` is that of the layer session too" in message
    assert 'another cookie_name, such as "site_session"' in message


def test_another_name_or_a_shared_session_is_sound(write: Write) -> None:
    """An app that uses the layer's session sets no cookie of its own."""
    file = write(SESSION + 'cookie_name = "site"\n' + MOUNT, trap_one=FLASK + 'app.secret_key = "x" * 32')
    assert said(file) == []
    shares = "\nfrom lamella.apps.flask_session import FlaskSessionInterface\napp.secret_key = 'x' * 32\n"
    shares += "app.session_interface = FlaskSessionInterface()\n"

    assert said(write(SESSION + MOUNT, trap_one=FLASK + shares)) == []


def test_two_apps_with_one_cookie_are_told(write: Write) -> None:
    """Counter 1, 2, 1, 1: each logs the other out; with cookies = "scope" they do not."""
    key = FLASK + 'app.secret_key = "x" * 32'

    at, warning, message = only(write(TWO, trap_one=key, trap_two=key))

    assert (at, warning) == (9, True)
    assert "the mount `/two`" in message
    assert "that of the mount `/one`" in message
    assert 'cookies = "scope"' in message
    scoped = TWO.replace('"trap_one:app"', '{ app = "trap_one:app", cookies = "scope" }')
    assert said(write(scoped, trap_one=key, trap_two=key)) == []


# --- prefixes -------------------------------------------------------------------------------------


def test_a_prefix_that_an_app_was_not_made_for(write: Write) -> None:
    """Also one that two mounts make together."""
    api = "class FastAPI:\n    __module__ = 'fastapi.applications'\n    root_path = '/one'\n"
    api += OK.replace("application(", "__call__(self, ").replace("\n", "\n    ") + "\napp = FastAPI()\n"

    at, warning, message = only(write(TWO.replace('"trap_one:app"', '"@sub"') + "[stack.sub]\napp = { use = "
                                '"trap_root:application" }\n', trap_two=api))  # fmt: skip

    assert (at, warning) == (9, False)
    assert "`/two` (trap_two:app): expected a FastAPI without root_path" in message
    assert "not root_path='/one'" in message


# --- Django ---------------------------------------------------------------------------------------

DJANGO = """
class WSGIHandler:
    __module__ = "django.core.handlers.wsgi"

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"django"]

app = WSGIHandler()
"""
SETTINGS: dict[str, Any] = {
    "INSTALLED_APPS": ["django.contrib.staticfiles"],
    "STATIC_URL": "/one/static/",
    "MIDDLEWARE": [],
    "SETTINGS_MODULE": "",
}
STATIC = """
[[layer]]
use = "static"
root = "."
prefix = "/one/static"
"""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what django.conf has."""

    def set_(**changes: Any) -> None:
        wrapped = SimpleNamespace(**{**SETTINGS, **changes})
        fake = SimpleNamespace(_wrapped=wrapped, FORCE_SCRIPT_NAME=changes.get("FORCE_SCRIPT_NAME"))
        monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=fake))
        monkeypatch.setitem(sys.modules, "django.urls", SimpleNamespace())

    return set_


def test_django_needs_somebody_to_serve_its_files(write: Write, settings: Callable[..., None]) -> None:
    """Without runserver the admin has no style; a static layer or whitenoise has it."""
    settings()
    at, warning, message = only(write(MOUNT, trap_one=DJANGO))
    assert (at, warning) == (8, True)
    assert 'use = "static", prefix = "/one/static", root = the STATIC_ROOT' in message
    assert said(write(STATIC + MOUNT, trap_one=DJANGO)) == []

    settings(MIDDLEWARE=["whitenoise.middleware.WhiteNoiseMiddleware"])

    assert said(write(MOUNT, trap_one=DJANGO)) == []


def test_a_relative_static_url_is_told(write: Write, settings: Callable[..., None]) -> None:
    """It freezes with the first request of the process."""
    settings(STATIC_URL="static/")

    assert 'write STATIC_URL = "/one/static/"' in only(write(STATIC + MOUNT, trap_one=DJANGO))[2]


def test_a_forced_script_name_and_a_second_mount_are_errors(write: Write, settings: Callable[..., None]) -> None:
    """Both break every address that Django writes."""
    settings(FORCE_SCRIPT_NAME="/other", INSTALLED_APPS=[])
    assert "FORCE_SCRIPT_NAME = None" in only(write(MOUNT, trap_one=DJANGO))[2]

    settings(INSTALLED_APPS=[])
    at, warning, message = only(write(TWO, trap_one=DJANGO, trap_two=DJANGO))

    assert (at, warning) == (9, False)
    assert "Django is at `/one` already" in message


def test_remote_users_are_told(write: Write, settings: Callable[..., None]) -> None:
    """Who logs out whom, and who makes users of everybody."""
    settings(
        INSTALLED_APPS=[],
        MIDDLEWARE=["django.contrib.auth.middleware.RemoteUserMiddleware"],
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"],
    )
    headers = '[[layer]]\nuse = "security_headers"\nreferrer = "no-referrer"\n'

    messages = [message for _, _, message in said(write(headers + MOUNT, trap_one=DJANGO))]

    assert [next(word for word in ("Persistent", "create_unknown", "Origin") if word in one) for one in messages] == [
        "create_unknown",
        "Persistent",
        "Origin",
    ]


def test_an_import_that_patches_the_process_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that imports grequests makes greenlets of the server's threads."""
    fake = SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", fake)
    monkeypatch.setitem(sys.modules, "grequests", fake)

    at, warning, message = only(write(TWO, trap_one="import grequests\n" + FLASK, trap_two=FLASK))

    assert (at, warning) == (8, True)
    assert "(trap_one:app): imports grequests, which patches threading for the whole process" in message


def test_a_stack_made_in_python_is_checked_too() -> None:
    """Without a file there is no line, and the rest is the same."""
    from flask import Flask

    from lamella.stack import Layer, Stack

    app = Flask("shop")
    app.secret_key = "x" * 32
    layers = [Layer("session", secret="0123456789abcdef0123456789abcdef"), Layer("dispatch", mounts={"/shop": app})]
    stack = Stack(layers, app="wsgiref.simple_server:demo_app")

    (problem,) = check_traps(stack)

    assert isinstance(problem, Problem)
    assert "the mount `/shop` (Flask): its cookie `session`" in problem.message
