"""ContextMiddleware: the current request, in the app, in each step of its body, in its ``close()``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from lamella.middleware.context import ContextMiddleware
from lamella.stack.kernel.context import current, current_or_none, request_id
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.testing import RecordingApp, call, environ, lint

MINE: ContextVar[str] = ContextVar("mine", default="unset")


def also(keys: dict[str, Any]) -> dict[str, Any]:
    """Environ keys whose names are no Python names."""
    return keys


@pytest.fixture(autouse=True)
def _factory() -> Iterator[None]:
    """Restores the process's log record factory."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


class Body:
    """A body that notes the current request at each of its steps."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(2):
            self.seen.append((request_id(), MINE.get()))
            yield b"x"

    def close(self) -> None:
        self.seen.append((request_id(), MINE.get()))


def test_is_known_in_every_step() -> None:
    """The app, each ``next()`` and ``close()`` see the same request and the app's own variables; nobody else does."""
    body = Body()

    def app(request: Any, start_response: Any) -> Body:
        assert current() is request
        MINE.set("of the app")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    call(lint(ContextMiddleware(lint(app))), environ("GET", "/", **also({"lamella.request_id": "r-1"})))

    assert body.seen == [("r-1", "of the app")] * 3
    assert current_or_none() is None
    assert MINE.get() == "unset"


def test_an_identifier_that_comes_later_is_seen() -> None:
    """What a layer inside sets is known from then on."""
    seen = []

    def app(request: Any, start_response: Any) -> Any:
        REQUEST_ID.set(request, "late")
        seen.append(request_id())
        return RecordingApp()(request, start_response)

    call(ContextMiddleware(app), environ("GET", "/"))

    assert seen == ["late"]


def test_stamps_the_log_records_of_a_generator_body(caplog: pytest.LogCaptureFixture) -> None:
    """What a body logs, long after the app has returned, has the request's identifier."""

    def app(request: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        logging.getLogger("app").warning("first")
        yield b"x"
        logging.getLogger("app").warning("second")

    layer = ContextMiddleware(app)
    call(layer, environ("GET", "/", **also({"lamella.request_id": "r-1"})))
    logging.getLogger("app").warning("outside")

    assert [getattr(item, "request_id", None) for item in caplog.records] == ["r-1", "r-1", "-"]


def test_leaves_log_records_alone_when_told() -> None:
    """``log_records=False`` changes nothing in the process."""
    before = logging.getLogRecordFactory()

    ContextMiddleware(RecordingApp(), log_records=False)

    assert logging.getLogRecordFactory() is before
    with pytest.raises(ConfigError, match="log_records: expected true or false"):
        ContextMiddleware(RecordingApp(), log_records="yes")  # type: ignore[arg-type]


def test_interleaved_requests_do_not_mix() -> None:
    """Two bodies iterated in turn, in one thread, each see their own request."""
    first, second = Body(), Body()
    bodies = {"/1": first, "/2": second}

    def app(request: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return bodies[request["PATH_INFO"]]

    layer = ContextMiddleware(app)
    opened: list[Any] = [
        iter(layer(environ("GET", path, **also({"lamella.request_id": path})), lambda *_: lambda data: None))
        for path in bodies
    ]
    for _ in range(2):
        for body in opened:
            next(body)

    assert first.seen == [("/1", "unset")] * 2
    assert second.seen == [("/2", "unset")] * 2


def test_threads_do_not_mix() -> None:
    """Eight threads, each with its own request at the same moment."""
    together = threading.Barrier(8)
    wrong: list[str] = []

    def app(request: Any, start_response: Any) -> Any:
        together.wait(10)
        if request_id() != request["PATH_INFO"]:
            wrong.append(request_id())
        return RecordingApp()(request, start_response)

    layer = ContextMiddleware(app)

    def serve(path: str) -> None:
        call(layer, environ("GET", path, **also({"lamella.request_id": path})))

    threads = [threading.Thread(target=serve, args=(f"/{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_body_may_be_taken_over_by_another_thread() -> None:
    """Some servers call the app in one thread and iterate in another."""
    body = Body()

    def app(request: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return body

    answer: Any = ContextMiddleware(app)(
        environ("GET", "/", **also({"lamella.request_id": "r"})), lambda *_: lambda data: None
    )
    thread = threading.Thread(target=lambda: [list(answer), answer.close()])
    thread.start()
    thread.join()

    assert body.seen == [("r", "unset")] * 3


def test_greenlets_do_not_mix() -> None:
    """Greenlets that switch in the middle of the app and of the body keep their request."""
    greenlet = pytest.importorskip("greenlet")
    hub = greenlet.getcurrent()
    seen = []

    def app(request: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(2):
            hub.switch()
            seen.append(request_id() == request["lamella.request_id"])
            yield b"x"

    layer = ContextMiddleware(app)
    served = [
        greenlet.greenlet(lambda path=path: call(layer, environ("GET", path, **also({"lamella.request_id": path}))))
        for path in ("/1", "/2", "/3")
    ]
    for _ in range(3):
        for each in served:
            each.switch()

    assert seen == [True] * 6
    assert current_or_none() is None


def test_hands_a_list_on_as_it_is() -> None:
    """Nothing of the app runs while a list is sent."""
    given = [b"x"]

    def app(request: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return given

    assert ContextMiddleware(app)(environ("GET", "/"), lambda *_: lambda data: None) is given


def test_lets_exceptions_through() -> None:
    """And forgets the request all the same."""
    with pytest.raises(KeyError):
        call(ContextMiddleware(RecordingApp(raises=KeyError())), environ("GET", "/"))

    assert current_or_none() is None
