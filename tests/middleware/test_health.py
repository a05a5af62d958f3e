"""HealthMiddleware: alive, ready, and silent about why not."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lamella.middleware.health import HealthMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

CONTRACT: dict[str, Any] = {"options": {}}


def well() -> None:
    """A check that passes."""


def failing() -> object:
    """A check that fails with words nobody may see."""
    raise RuntimeError("password=S3CRET")


def ready(checks: dict[str, Any], **options: Any) -> Response:
    """The answer to the readiness question."""
    return call(lint(HealthMiddleware(RecordingApp(), checks=checks, **options)), environ("GET", "/readyz"))


def test_is_alive_whatever_the_checks_say() -> None:
    """Liveness runs no check, asks no app, and is never cached."""
    app = RecordingApp()

    response = call(lint(HealthMiddleware(app, checks={"db": failing})), environ("GET", "/healthz"))

    assert (response.status, json.loads(response.body)) == ("200 OK", {"status": "pass"})
    assert response.header("Cache-Control") == "no-store"
    assert response.header("Content-Type") == "application/json"
    assert app.called == 0


def test_is_ready_when_all_checks_pass() -> None:
    """Each check is named with its outcome and its time."""
    response = ready({"db": well, "cache": lambda: True, "zero": lambda: 0})

    found = json.loads(response.body)
    assert (response.code, found["status"]) == (200, "pass")
    assert {name: each["status"] for name, each in found["checks"].items()} == dict.fromkeys(
        ["db", "cache", "zero"], "pass"
    )
    assert found["checks"]["db"]["ms"] >= 0


def test_is_ready_without_checks() -> None:
    """Nothing to check, nothing wrong."""
    assert json.loads(ready({}).body) == {"status": "pass"}


@pytest.mark.parametrize("check", [failing, lambda: False])
def test_is_not_ready_when_a_check_fails(check: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    """503, the name of the check, and not a word of why: that is in the log."""
    response = ready({"db": well, "cache": check})

    found = json.loads(response.body)
    assert (response.code, found["status"], found["checks"]["cache"]["status"]) == (503, "fail", "fail")
    assert found["checks"]["db"]["status"] == "pass"
    assert "S3CRET" not in response.text
    assert "RuntimeError" not in response.text
    assert [item.name for item in caplog.records] == ["lamella.health"]


def test_says_only_yes_or_no_when_told() -> None:
    """``details=False`` names no checks."""
    assert json.loads(ready({"db": failing}, details=False).body) == {"status": "fail"}


def test_waits_for_no_check_longer_than_told() -> None:
    """A check that hangs is a failure in time, is waited for once, and is not started again meanwhile."""
    release, started = threading.Event(), []

    def hanging() -> None:
        started.append(1)
        release.wait(20)

    app = HealthMiddleware(RecordingApp(), checks={"db": hanging, "ok": well}, timeout="100ms", fresh=0)
    begun = time.monotonic()
    first = call(app, environ("GET", "/readyz"))
    between = time.monotonic()
    second = call(app, environ("GET", "/readyz"))
    ended = time.monotonic()
    release.set()

    for response in (first, second):
        found = json.loads(response.body)["checks"]
        assert (response.code, found["db"]["status"], found["ok"]["status"]) == (503, "timeout", "pass")
    assert 0.1 <= between - begun < 2
    assert ended - between < 0.1
    assert started == [1]


def test_runs_the_checks_side_by_side() -> None:
    """Two checks that wait for each other both pass."""
    together = threading.Barrier(2)

    def meeting() -> None:
        together.wait(5)

    assert ready({"one": meeting, "two": meeting}).code == 200


def test_uses_a_fresh_result_again() -> None:
    """Many askers cost one check; with ``fresh=0`` each costs its own."""
    for fresh, expected in (("1m", 1), (0, 3)):
        calls: list[int] = []
        app = HealthMiddleware(RecordingApp(), checks={"db": lambda calls=calls: calls.append(1)}, fresh=fresh)
        for _ in range(3):
            call(app, environ("GET", "/readyz"))
        assert len(calls) == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_works_in_a_forked_worker() -> None:
    """A check that hung in the parent does not make its children unready."""
    release = threading.Event()
    parent = os.getpid()
    app = HealthMiddleware(
        RecordingApp(), checks={"db": lambda: release.wait(20) if os.getpid() == parent else None}, timeout="50ms"
    )
    assert call(app, environ("GET", "/readyz")).code == 503

    child = os.fork()
    if child == 0:  # pragma: no cover  (measured in the parent only)
        os._exit(0 if call(app, environ("GET", "/readyz")).code == 200 else 1)
    release.set()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_answers_head_without_content() -> None:
    """The status is the answer."""
    app = lint(HealthMiddleware(RecordingApp(), checks={"db": failing}))

    response = call(app, environ("HEAD", "/readyz"))

    assert (response.code, response.body) == (503, b"")


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PROPFIND"])
def test_answers_other_methods_with_405(method: str) -> None:
    """There is nothing to change."""
    response = call(lint(HealthMiddleware(RecordingApp())), environ(method, "/healthz"))

    assert (response.code, response.header("Allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "/healthz/x", "/HEALTHZ", "//healthz", "/x/../healthz", "/healthz;a"]
)
def test_asks_the_app_for_every_other_path(path: str) -> None:
    """Only the exact path is a question for us."""
    app = RecordingApp()

    call(HealthMiddleware(app), environ("GET", path))

    assert app.called == 1


def test_answers_where_it_is_mounted() -> None:
    """The path is relative to the mount, as for every layer."""
    app = HealthMiddleware(RecordingApp(), live="/-/live", ready="/-/ready")

    assert call(app, environ("GET", "/-/live", mount="/shop")).code == 200
    assert json.loads(call(app, environ("GET", "/-/ready")).body) == {"status": "pass"}


def test_imports_a_check_by_reference() -> None:
    """As a stack file names it."""
    assert ready({"clock": "time:monotonic"}).code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"live": "healthz"}, "live: expected a path"),
        ({"ready": "/a b"}, "ready: expected a path"),
        ({"ready": "/healthz"}, "ready: expected another path"),
        ({"checks": ["db"]}, "checks: expected a table"),
        ({"checks": {"a b": well}}, "checks: expected a name"),
        ({"checks": {"db": 3}}, "checks.db: expected a callable"),
        ({"checks": {"db": "no.such.module:ping"}}, "checks.db: expected a module"),
        ({"timeout": 0}, "timeout: expected more than no time"),
        ({"timeout": "soon"}, "timeout: expected seconds"),
        ({"details": 1}, "details: expected true or false"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], message: str) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError, match=message):
        HealthMiddleware(RecordingApp(), **options)
