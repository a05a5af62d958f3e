"""``lamella new DIR``: a project that runs and passes its tests at once."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]

_STACK = """\
lamella = 1

[app]                              # innermost: what the layers wrap
use = "app:application"

# Top of the file is outermost. `lamella show` draws it, `lamella check` checks it.

[[layer]]
use = "edge"                       # makes servers look alike

[[layer]]
use = "request_id"

[[layer]]
use    = "access_log"
format = "combined"

[[layer]]
use = "errors"

[[layer]]
use  = "greeting:GreetingMiddleware"   # this project's own layer, in greeting.py
text = "hello"

[profile.dev]                      # lamella run --profile dev
"errors.debug" = true

[[expect]]                         # run by `lamella check`
request = "GET /"
status  = 200
headers = { Host = "localhost" }
present = ["X-Greeting", "X-Request-ID"]
"""

_APP = '''\
"""The application: a few pages on lamella's router. Any WSGI application can stand here instead."""

from lamella.apps.router import Router

application = Router()


@application.get("/")
def index(request):
    """The front page."""
    return "<!doctype html><title>It runs</title><h1>It runs</h1><p><a href='/hello/world'>Say hello</a>"


@application.get("/hello/<name>")
def hello(request, name):
    """Plain data becomes JSON."""
    return {"hello": name}
'''

_LAYER = '''\
"""Add a greeting to each answer: the smallest layer that is of any use."""

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_field_value
from lamella.stack.kernel.response import edit_headers


class GreetingMiddleware:
    """Add the header ``X-Greeting``.

    Args:
        app: The application inside.
        text: The greeting.
    """

    provides = ()
    requires = ()
    order = ()
    streams = True

    def __init__(self, app, *, text: str = "hello"):
        if not is_field_value(text):
            raise ConfigError("text", text, "text that a header may hold")
        self._app = app
        self._header = ("X-Greeting", text)

    def __call__(self, environ, start_response):
        return self._app(environ, edit_headers(start_response, lambda headers: [*headers, self._header]))
'''

_TEST = '''\
"""The layer alone, with the linter on both sides; and the whole stack."""

from pathlib import Path

from greeting import GreetingMiddleware
from lamella.stack import load
from lamella.stack.testing import RecordingApp, call, environ, lint

STACK = Path(__file__).parents[1] / "stack.toml"


def test_greets():
    """The header is there, and the answer is otherwise untouched."""
    app = RecordingApp(body=[b"page"])

    response = call(lint(GreetingMiddleware(lint(app), text="good day")), environ("GET", "/"))

    assert response.header("X-Greeting") == "good day"
    assert response.body == b"page"
    assert app.closed == 1


def test_the_stack_answers():
    """Through all layers of the stack file."""
    response = call(lint(load(STACK)), environ("GET", "/hello/you"))

    assert response.status == "200 OK"
    assert b"you" in response.body
    assert response.header("X-Greeting") == "hello"
'''

_FILES = {
    "stack.toml": _STACK,
    "app.py": _APP,
    "greeting.py": _LAYER,
    "tests/test_greeting.py": _TEST,
    "pytest.ini": "[pytest]\npythonpath = .\ntestpaths = tests\n",
    ".gitignore": "__pycache__/\n*.key\n",
}


@click.command("new", help="Start a new project: stack.toml, an app, a layer of its own, its test.")
@click.argument("folder", type=click.Path(path_type=Path))
def command_new(folder: Path) -> None:
    """Write the files; nothing that exists is touched."""
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise click.ClickException(f"{folder} exists and is not empty; name a new folder")
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(f"  {path}")
    click.echo(f"\ncd {folder} && lamella run --profile dev --reload")


def command(name: str) -> click.Command:
    """Return the command."""
    return command_new
