"""The test kit: fakes of time, randomness and stores, and clients that misbehave."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.keys import SESSION
from lamella.stack.testing import (
    BrokenInput,
    FakeClock,
    FakeRandom,
    FakeSession,
    FakeStore,
    Reader,
    RecordingApp,
    SlowInput,
    call,
    chunked,
    environ,
    hang_up,
    lint,
    slow,
)

SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"


def test_the_clock_moves_when_told() -> None:
    """Time passes by ``advance`` and ``sleep`` only."""
    clock = FakeClock(100)

    clock.advance(5)
    clock.sleep(2.5)
    clock.advance(-1)

    assert (clock(), clock.slept) == (106.5, [2.5])


def test_random_bytes_repeat_from_run_to_run_but_not_in_one() -> None:
    """The same seed gives the same sequence, in which no value comes twice."""
    one, two, other = FakeRandom("a"), FakeRandom("a"), FakeRandom("b")

    drawn = [one.token_bytes(40) for _ in range(50)]

    assert drawn == [two.token_bytes(40) for _ in range(50)] == one.given
    assert len({*drawn, other.token_bytes(40)}) == 51
    assert uuid.UUID(one()).version == 4
    assert len(one.token_hex(8)) == 16
    assert "=" not in one.token_urlsafe(5)


def counts(request: dict[str, Any]) -> None:
    session = SESSION.require(request)
    session["count"] = int(session.get("count", 0)) + 1  # type: ignore[arg-type]


def test_the_store_records_and_fails_when_told() -> None:
    """A store that goes down is a 503 of the session layer, and comes back as it was."""
    store = FakeStore(clock=FakeClock())
    app = lint(
        SessionMiddleware(RecordingApp(before=counts), secret=SECRET, store=store, secure=False, clock=FakeClock())
    )

    first = call(app, environ("GET", "/"))
    cookie = (first.header("Set-Cookie") or "").partition(";")[0]
    store.goes_down()
    down = call(app, environ("GET", "/", cookie=cookie))
    store.comes_back()
    again = call(app, environ("GET", "/", cookie=cookie))

    assert (first.code, down.code, again.code) == (200, 503, 200)
    assert store.called("create") == 1
    assert store.called("load") >= 1
    assert store.single_process


def test_the_session_records_what_was_done() -> None:
    """A fake session is a mapping that counts what a layer did to it."""
    session = FakeSession({"user": "alice"})
    assert not session.accessed

    session.rotate()
    session.flash("saved")
    session["user"] = "bob"

    assert dict(session) == {"user": "bob"}
    assert (session.rotated, session.accessed, session.flashes()) == (1, True, [("message", "saved")])
    session.invalidate()
    assert (len(session), session.invalidated) == (0, 1)


def reads_all(request: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads until nothing comes, as an app does with a body of unknown length."""
    parts = []
    while part := request["wsgi.input"].read(4):
        parts.append(part)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return parts


def test_a_chunked_request_has_no_length_and_an_end() -> None:
    """Each read gives at most one chunk; the linter allows reading to the end."""
    request = chunked("POST", "/", [b"one", b"", b"longer than four"], content_type="text/plain")

    response = call(lint(reads_all), request)

    assert "CONTENT_LENGTH" not in request
    assert response.blocks == [b"one", b"long", b"er t", b"han ", b"four"]
    assert list(chunked("POST", "/", [b"a\nb", b"c\n"])["wsgi.input"]) == [b"a\n", b"bc\n"]


def test_a_slow_client_gives_less_than_was_asked_for() -> None:
    """Reads come short; an app that trusts one read sees only a part."""
    clock = FakeClock(0)
    stream = SlowInput(b"abcdef", piece=2, pause=lambda: clock.sleep(1))

    assert [stream.read(6), stream.read(1), stream.readline(), stream.read(), stream.read()] == [
        b"ab",
        b"c",
        b"de",
        b"f",
        b"",
    ]
    assert (stream.reads, clock()) == (5, 5)
    app = RecordingApp(read=-1)
    call(app, slow("POST", "/", b"abcdef", piece=4))
    assert app.input == b"abcd"


def test_a_broken_connection_raises_after_what_arrived() -> None:
    """What was sent can be read; then the read fails."""
    stream = BrokenInput(b"ab")

    assert stream.read(10) == b"ab"
    with pytest.raises(ConnectionResetError):
        stream.read(10)
    with pytest.raises(TimeoutError):
        BrokenInput(error=TimeoutError()).readline()


def test_a_client_that_hangs_up_closes_the_body() -> None:
    """After some blocks nothing more is read, and the body is closed."""
    app = RecordingApp(body=[b"a", b"b", b"c"])

    response = hang_up(lint(app), environ("GET", "/"), after=2)

    assert (response.blocks, app.yielded, app.closed) == ([b"a", b"b"], 2, 1)


def test_a_reader_takes_block_after_block() -> None:
    """Between two blocks a test sees how far the app is."""
    app = RecordingApp(late=True, body=[b"a", b"b"])

    with Reader(app, environ("GET", "/")) as reader:
        assert (reader.status, app.yielded) == ("", 0)
        assert (reader.next(), reader.status, app.yielded) == (b"a", "200 OK", 1)
        assert (reader.next(), reader.next()) == (b"b", None)
        assert app.closed == 0

    assert app.closed == 1
    assert Reader(RecordingApp(write=[b"w"]), environ("GET", "/")).written == [b"w"]
