"""The pytest plugin: its fixtures, and stack files as tests; in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.testing import RecordingApp, environ


def test_layer(layer):
    subject = layer(RequestIdMiddleware, header="X-Trace")
    response = subject.get("/path?q=1")
    assert response.status_code == 200
    assert response.headers["X-Trace"] == REQUEST_ID.require(subject.environ)
    assert subject.app.closed == 1


def test_layer_around_another_app(layer):
    subject = layer(RequestIdMiddleware, app=RecordingApp(status="404 Not Found", body=[b"no"]))
    assert subject.post("/", b"x", status=404).body == b"no"
    assert subject.call(environ("GET", "/")).code == 404


def test_the_linter_is_there(layer):
    def shouts(app):
        def layer(environ, start_response):
            return app(environ, lambda s, h, *e: start_response(s, [*h, ("Connection", "close")], *e))
        return layer
    import pytest
    with pytest.raises(AssertionError, match="W27"):
        layer(shouts).get("/")


def test_stack(stack):
    assert stack().get("/").headers["X-Request-ID"]


def test_stack_with_layers_changed(stack):
    inside = RecordingApp()
    changed = stack(replace={"request_id": {"header": "X-Other"}}, app=inside)
    assert changed.get("/").headers["X-Other"]
    assert inside.called == 1
    assert "X-Request-ID" not in stack(without=["request_id"]).get("/").headers
    assert [layer.id for layer in stack(only=["request_id"]).stack] == ["request_id"]
"""

STACK = """\
lamella = 1

[app]
use = "greeting:app"

[[layer]]
use = "request_id"

[[expect]]
request = "GET /"
status = 200
present = ["X-Request-ID"]

[[expect]]
name = "never says goodbye"
request = "GET /"
contains = "goodbye"
"""

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a stack file, its app and its tests."""
    (tmp_path / "test_project.py").write_text(TESTS)
    (tmp_path / "stack.toml").write_text(STACK)
    (tmp_path / "greeting.py").write_text(APP)
    (tmp_path / "other.toml").write_text("[tool]\nnothing = 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def run(project: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest there, with this plugin and no other."""
    paths = [folder for folder in sys.path if (Path(folder) / "lamella").is_dir()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "lamella.stack.testing.plugin", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join([*paths, str(project)]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_fixtures_work_in_a_project(project: Path) -> None:
    """``layer`` and ``stack`` are there without an import; stack files are left alone unless asked for."""
    code, output = run(project, "-q")

    assert code == 0, output
    assert "5 passed" in output


def test_a_stack_file_can_be_named(project: Path) -> None:
    """``pytest stack.toml`` runs the check and each expectation, and says where one stands."""
    code, output = run(project, "-v", "stack.toml")

    assert code == 1
    assert "stack.toml::check PASSED" in output
    assert "stack.toml::GET / PASSED" in output
    assert "stack.toml::never says goodbye FAILED" in output
    assert "stack.toml:14:1: the body does not contain 'goodbye'" in output
    assert "Traceback" not in output


def test_stack_files_can_be_configured(project: Path) -> None:
    """The ini option ``lamella_stacks`` collects them along with the tests."""
    (project / "pytest.ini").write_text("[pytest]\nlamella_stacks = stack.toml\n")

    _, output = run(project, "-q")

    assert "1 failed, 7 passed" in output, output


def test_a_wrong_stack_file_fails_as_one_test(project: Path) -> None:
    """Every mistake is shown, with its place."""
    (project / "stack.toml").write_text(STACK.replace('use = "request_id"', 'use = "request_idd"\nnope = 1'))

    code, output = run(project, "-q", "stack.toml")

    assert code == 1
    assert "stack.toml:7:" in output
    assert "1 failed" in output
