"""``lamella bench`` and budgets: which layers are measured, and what is over budget. No test depends on a speed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lamella.stack import Layer, Stack, load
from lamella.stack.bench import bench, check_budget
from lamella.stack.cli import command_line
from lamella.stack.testing import RecordingApp, environ

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Slow:
    """A layer that waits: before the app, at ``start_response``, in the body or in ``close()``."""

    def __init__(self, app: WSGIApplication, *, at: str = "app", seconds: float = 0.002) -> None:
        self._app = app
        self._at = at
        self._seconds = seconds

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            self._wait("start")
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        self._wait("app")
        return _Body(self._app(environ, start), self._wait)

    def _wait(self, place: str) -> None:
        if place == self._at:
            time.sleep(self._seconds)


class _Body:
    def __init__(self, body: Iterable[bytes], wait: Any) -> None:
        self._body = body
        self._wait = wait

    def __iter__(self) -> Iterator[bytes]:
        for block in self._body:
            self._wait("body")
            yield block

    def close(self) -> None:
        self._wait("close")
        if hasattr(self._body, "close"):
            self._body.close()


class Fresh:
    """An app without a memory."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        content = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
        return [content]


@pytest.mark.parametrize("place", ["app", "start", "body", "close"])
def test_finds_where_the_time_goes(place: str) -> None:
    """A layer's time is its own, wherever it spends it; two milliseconds are more than any other layer takes."""
    stack = Stack([Layer("request_id"), Layer(Slow, id="slow", at=place), Layer("context")], app=Fresh())

    timing = bench(stack, environ("GET", "/"), seconds=0.05)

    assert [one.id for one in timing.layers] == ["request_id", "slow", "context", "app"]
    assert max(timing.layers, key=lambda one: one.seconds).id == "slow"
    assert timing.layers[1].seconds > 0.0015
    assert timing.total > 0.0015


def test_shows_only_what_the_request_came_through() -> None:
    """A layer that answers by itself hides those inside; the app is not measured."""
    stack = Stack([Layer("health"), Layer("request_id")], app=Fresh())

    timing = bench(stack, environ("GET", "/healthz"), seconds=0.01)

    assert timing.status == "200 OK"
    assert [one.id for one in timing.layers] == ["health"]


def test_sends_the_body_anew_each_time() -> None:
    """Each request has its content, not what the one before left of it."""
    lengths = set()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        lengths.add(len(environ["wsgi.input"].read()))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    bench(Stack(["request_id"], app=app), environ("POST", "/", body=b"content"), seconds=0.01)

    assert lengths == {7}


def test_an_exception_comes_through() -> None:
    """What the app raises is told, not measured."""
    with pytest.raises(KeyError):
        bench(Stack(["request_id"], app=RecordingApp(raises=KeyError("x"))), environ("GET", "/"), seconds=0.01)


STACK = """lamella = 1
[app]
use = "bench_case:app"
[[layer]]
use = "bench_case:Slow"
id = "slow"
[budget]
slow = "{budget}"
[[expect]]
request = "GET /"
"""


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stack file with a budget, to be filled in."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bench_case.py").write_text(Path(__file__).read_text() + "\n\napp = Fresh()\n")
    path = tmp_path / "stack.toml"
    path.write_text(STACK.format(budget="10s"))
    yield path
    sys.modules.pop("bench_case", None)


def test_a_budget_is_kept(stack_file: Path) -> None:
    """Ten seconds are enough for two milliseconds."""
    assert check_budget(load(stack_file), seconds=0.02) == []


def test_a_budget_is_exceeded_at_its_layer(stack_file: Path) -> None:
    """The problem names the layer, where it stands, and ends the check with 7."""
    stack_file.write_text(STACK.format(budget="1us"))

    (problem,) = check_budget(load(stack_file), seconds=0.02)

    assert (problem.line, problem.exit_code) == (4, 7)
    assert problem.message.startswith("slow takes ")
    assert "its budget of 1us is 5.9 times" in problem.message


def test_check_measures_only_when_asked(stack_file: Path) -> None:
    """``check`` alone does not measure; ``check --budget`` ends with 7."""
    stack_file.write_text(STACK.format(budget="1us"))

    plain = CliRunner().invoke(command_line(), ["check", str(stack_file)])
    strict = CliRunner().invoke(command_line(), ["check", "--budget", str(stack_file)])

    assert plain.exit_code == 0
    assert strict.exit_code == 7


def test_the_command_draws_a_bar_for_each_layer(stack_file: Path) -> None:
    """The longest bar is the slow layer's."""
    arguments = ["bench", str(stack_file), "/x", "-X", "POST", "-d", "content", "--seconds", "0.05"]

    result = CliRunner().invoke(command_line(), arguments)

    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines() if line}
    assert "POST /x: 200 OK" in result.output
    assert lines["slow"].count("█") == 40
    assert lines["app"].count("█") < 40


def test_the_command_prints_json(stack_file: Path) -> None:
    """Microseconds and ratios, from the outermost layer to the app."""
    result = CliRunner().invoke(command_line(), ["bench", str(stack_file), "/", "--seconds", "0.05", "--json"])

    found = json.loads(result.output)
    assert [layer["id"] for layer in found["layers"]] == ["slow", "app"]
    assert found["layers"][0]["us"] > 1500
    assert found["ratio"] == pytest.approx(found["total_us"] / found["bare_us"], rel=0.05)
