"""BodyLimitMiddleware: how much, how whole and how fast a body must be."""

from __future__ import annotations

import io
import time
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware.body_limit import BodyLimitMiddleware, BrokenBodyError
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, call, environ, lint

TEXT = ("Content-Type", "text/plain")


def reading(how: str = "read", **script: Any) -> RecordingApp:
    """An app that reads the whole body in one of the ways there are, and keeps it in ``input``."""

    def read(request: dict[str, Any]) -> None:
        stream = request["wsgi.input"]
        if how == "read":
            app.input = stream.read()
        elif how == "sized":
            app.input = stream.read(int(request["CONTENT_LENGTH"]))
        elif how == "parts":
            app.input = b"".join(iter(lambda: stream.read(7), b""))
        elif how == "readline":
            app.input = b"".join(iter(stream.readline, b""))
        elif how == "lines":
            app.input = b"".join(iter(lambda: stream.readline(5), b""))
        elif how == "readlines":
            app.input = b"".join(stream.readlines())
        else:
            app.input = b"".join(stream)

    app = RecordingApp(before=read, **script)
    return app


WAYS = ["read", "parts", "readline", "lines", "readlines", "iterate"]


def chunked(body: bytes) -> dict[str, Any]:
    """A request without a length, from a server that ends the stream."""
    request = {**environ("POST", "/", transfer_encoding="chunked"), "wsgi.input": io.BytesIO(body)}
    return {**request, "wsgi.input_terminated": True}


def of_length(body: bytes, length: int | str) -> dict[str, Any]:
    """A request whose length is what it says."""
    return {**environ("POST", "/"), "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(length)}


class Unread(io.BytesIO):
    """Must not be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError("was read")


def test_refuses_a_long_body_before_reading() -> None:
    """By its Content-Length alone; the app is not asked."""
    app = RecordingApp()

    response = call(
        lint(BodyLimitMiddleware(app, limit="10 B")), {**of_length(b"", 11), "wsgi.input": Unread(b"x" * 11)}
    )

    assert response.status == "413 Content Too Large"
    assert app.called == 0


@pytest.mark.parametrize("how", [*WAYS, "sized"])
def test_passes_a_body_up_to_the_limit(how: str) -> None:
    """Whole, in every way of reading."""
    body = b"line 1\nline 2\n\nthe last line"
    app = reading(how)

    assert call(BodyLimitMiddleware(app, limit=len(body)), of_length(body, len(body))).code == 200
    assert app.input == body


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("body", [b"x" * 100, b"line\n" * 20])
def test_counts_a_chunked_body(how: str, body: bytes) -> None:
    """Without a length, what arrives is counted."""
    app = reading(how)

    assert call(BodyLimitMiddleware(app, limit=len(body)), chunked(body)).code == 200
    assert app.input == body
    assert call(BodyLimitMiddleware(reading(how), limit=len(body) - 1), chunked(body)).code == 413


@pytest.mark.parametrize("how", [*WAYS, "sized"])
def test_notices_a_body_that_was_cut(how: str) -> None:
    """A client that stopped sending: a 400, not a short file."""
    assert call(BodyLimitMiddleware(reading(how), limit=1000), of_length(b"line\nhalf", 100)).code == 400


def test_reads_nothing_past_the_length() -> None:
    """What follows in the socket is another request."""
    app = reading()

    call(BodyLimitMiddleware(app, limit=1000), of_length(b"bodyGET /", 4))

    assert app.input == b"body"


def test_joins_short_reads() -> None:
    """A server may give less than was asked for; an app that reads once gets all."""

    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 3))

    app = reading("sized")

    assert (
        call(BodyLimitMiddleware(app, limit=100), {**of_length(b"", 10), "wsgi.input": Trickle(b"0123456789")}).code
        == 200
    )
    assert app.input == b"0123456789"


@pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError(), TimeoutError(), ValueError("chunk size")])
def test_takes_a_server_s_error_for_the_client_s(error: Exception) -> None:
    """gevent and uWSGI raise where others give a short read, gunicorn at a malformed chunk."""

    class Gone(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise error

    assert call(BodyLimitMiddleware(reading(), limit=100), {**of_length(b"", 9), "wsgi.input": Gone()}).code == 400


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 5000, "1, 1", "+1"])
def test_refuses_a_malformed_length(length: str) -> None:
    """A 400, never ``read(-1)``."""
    app = RecordingApp()

    assert call(BodyLimitMiddleware(app, limit=100), of_length(b"x", length)).code == 400
    assert app.called == 0


@pytest.mark.parametrize(
    ("path", "length", "code"),
    [
        ("/upload/x", 500, 200),
        ("/upload", 500, 200),
        ("/upload/small", 500, 413),
        ("/uploadx", 500, 413),
        ("/x", 500, 413),
        ("/x", 100, 200),
        ("//upload/x", 1, 400),
    ],
)
def test_limits_by_path(path: str, length: int, code: int) -> None:
    """The most specific pattern counts, on the canonical path."""
    policies: list[dict[str, Any]] = [
        {"paths": ["/upload/*"], "limit": "1 kB"},
        {"paths": ["/upload/small"], "limit": 10},
    ]
    layer = BodyLimitMiddleware(RecordingApp(), limit=100, policies=policies)

    assert call(layer, environ("POST", path, body=b"x" * length)).code == code


def _swallows(request: dict[str, Any], start_response: Any) -> list[bytes]:
    try:
        request["wsgi.input"].read()
    except BrokenBodyError:
        start_response("500 Internal Server Error", [TEXT])
        return [b"secret traceback"]
    return []


def _swallows_late(request: dict[str, Any], start_response: Any) -> Any:
    yield from _swallows(request, start_response)


def _raises_another(request: dict[str, Any], start_response: Any) -> list[bytes]:
    try:
        request["wsgi.input"].read()
    except BrokenBodyError:
        raise KeyError("form") from None
    return []


def _raises_late(request: dict[str, Any], start_response: Any) -> Any:
    request["wsgi.input"].read()
    yield b"never"


def _raises_after_start(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    return [request["wsgi.input"].read()]


def _raises_in_first_block(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    return (request["wsgi.input"].read() for _ in range(1))


def _clears(request: dict[str, Any], start_response: Any) -> Any:
    stream = request["wsgi.input"]
    request.clear()
    stream.read()


@pytest.mark.parametrize(
    "app",
    [
        _swallows,
        _swallows_late,
        _raises_another,
        _raises_late,
        _raises_after_start,
        _raises_in_first_block,
        _clears,
    ],
)
def test_whatever_the_app_makes_of_it_the_client_gets_413(app: WSGIApplication) -> None:
    """An error page, another exception, an answer that had begun: before the first block all of it is replaced."""
    response = call(BodyLimitMiddleware(app, limit=3), chunked(b"12345"))

    assert response.code == 413
    assert response.body == b"the request body is larger than 3 bytes\n"


def test_keeps_the_app_s_own_413() -> None:
    """An app that knows what to say says it."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            request["wsgi.input"].read()
        except BrokenBodyError as error:
            start_response(error.status, [TEXT])
        return [b"our page"]

    assert call(BodyLimitMiddleware(app, limit=3), chunked(b"12345")).body == b"our page"


def test_an_answer_that_is_half_out_is_cut() -> None:
    """The app echoes while it reads; what is out cannot be taken back, so the server cuts the connection."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return iter(lambda: request["wsgi.input"].read(2), b"")

    response = call(BodyLimitMiddleware(app, limit=3), chunked(b"12345"), keep_error=True)

    assert isinstance(response.error, BrokenBodyError)
    assert response.body == b"12"


def test_an_app_s_own_errors_are_its_own() -> None:
    """Nothing is caught where the body is well."""
    app = RecordingApp(raises=RuntimeError("boom"))

    with pytest.raises(RuntimeError, match="boom"):
        call(BodyLimitMiddleware(app, limit=100), of_length(b"x", 1))


def test_a_broken_body_stays_broken() -> None:
    """A second read raises again."""
    errors = []

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        for _ in range(2):
            try:
                request["wsgi.input"].read()
            except BrokenBodyError as error:
                errors.append(error.status)
        start_response("200 OK", [TEXT])
        return [b""]

    assert call(BodyLimitMiddleware(app, limit=3), chunked(b"12345")).code == 413
    assert errors == ["413 Content Too Large"] * 2


def test_does_nothing_without_a_body() -> None:
    """A GET keeps its input object."""
    app = RecordingApp()
    request = environ("GET", "/")

    call(BodyLimitMiddleware(app, limit=0), request)

    assert app.environ["wsgi.input"] is request["wsgi.input"]


@pytest.mark.parametrize(("method", "protocol"), [("POST", "HTTP/1.1"), ("GET", "HTTP/2")])
def test_counts_a_body_that_no_header_tells_of(method: str, protocol: str) -> None:
    """HTTP/2 needs neither a length nor a coding."""
    request = {**environ(method, "/", SERVER_PROTOCOL=protocol), "wsgi.input": io.BytesIO(b"12345")}

    response = call(BodyLimitMiddleware(reading(), limit=3), {**request, "wsgi.input_terminated": True})

    assert response.code == 413


def test_notices_a_slow_upload() -> None:
    """Measured over the time that the app waits, after the grace; a fast one passes."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.02)
            return super().read(1)

    slow = {**of_length(b"", 50), "wsgi.input": Slow(b"x" * 50)}
    layer = BodyLimitMiddleware(reading(), limit=100, min_rate="10 kB", grace="30ms")

    assert call(layer, slow).code == 408
    assert call(layer, of_length(b"x" * 50, 50)).code == 200


def test_a_large_upload_needs_no_memory() -> None:
    """Read in parts, it is held in parts."""
    import tracemalloc

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"x" * min(size, 65536)

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        total = sum(map(len, iter(lambda: request["wsgi.input"].read(65536), b"")))
        start_response("200 OK", [TEXT])
        return [str(total).encode()]

    request = {**of_length(b"", 2**27), "wsgi.input": Endless()}
    tracemalloc.start()
    try:
        assert call(BodyLimitMiddleware(app, limit="1 GiB"), request).body == str(2**27).encode()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60), st.sampled_from(WAYS))
def test_a_body_is_whole_or_an_error(body: bytes, length: int, limit: int, how: str) -> None:
    """200 with exactly the bytes that were announced, 413 above the limit, 400 where some are missing."""
    app = reading(how)

    code = call(BodyLimitMiddleware(app, limit=limit), of_length(body, length)).code

    assert code == (413 if length > limit else 400 if length > len(body) else 200)
    assert code != 200 or app.input == body[:length]


@pytest.mark.parametrize(
    "options",
    [
        {"limit": "ten"},
        {"limit": -1},
        {"limit": None},
        {"limit": 1, "policies": [{"limit": 1}]},
        {"limit": 1, "policies": [{"paths": ["/x"]}]},
        {"limit": 1, "policies": [{"paths": ["/x"], "limit": "x"}]},
        {"limit": 1, "policies": [{"paths": ["/x"], "limit": 1, "max": 2}]},
        {"limit": 1, "policies": {"/x": 1}},
        {"limit": 1, "min_rate": "fast"},
        {"limit": 1, "grace": "long"},
    ],
)
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError):
        BodyLimitMiddleware(RecordingApp(), **options)
