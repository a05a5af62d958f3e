"""EdgeMiddleware: what a client may send in, and what an app may send out."""

from __future__ import annotations

import io
import logging
import socket
import time
from typing import Any
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware._edge import clean_headers, normal_path, split_cookies
from lamella.middleware.edge import EdgeMiddleware, IncompleteBodyError
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, call, environ, lint

TEXT = ("Content-Type", "text/plain")


def edge(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer, with the linter outside: whatever the app does, the server sees clean answers."""
    return lint(EdgeMiddleware(app, **options))


# --- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"REQUEST_METHOD": "G\x00ET"}, 400, id="NUL in the method"),
        pytest.param({"REQUEST_METHOD": "G ET"}, 400, id="space in the method"),
        pytest.param({"REQUEST_METHOD": ""}, 400, id="no method"),
        pytest.param({"REQUEST_METHOD": "X" * 300}, 400, id="a long method"),
        pytest.param({"HTTP_HOST": "a, b"}, 400, id="two hosts"),
        pytest.param({"HTTP_HOST": "a b"}, 400, id="a space in the host"),
        pytest.param({"HTTP_HOST": "a/?x="}, 400, id="a path in the host"),
        pytest.param({"HTTP_HOST": ""}, 400, id="an empty host"),
        pytest.param({"HTTP_HOST": None}, 400, id="HTTP/1.1 without a host"),
        pytest.param({"HTTP_HOST": None, "SERVER_PROTOCOL": "HTTP/1.0"}, 200, id="HTTP/1.0 without a host"),
        pytest.param({"CONTENT_LENGTH": "-1"}, 400, id="a negative length"),
        pytest.param({"CONTENT_LENGTH": "abc"}, 400, id="no length"),
        pytest.param({"CONTENT_LENGTH": "9" * 5000}, 400, id="a long length"),
        pytest.param({"CONTENT_LENGTH": "5, 5"}, 400, id="two lengths"),
        pytest.param({"CONTENT_LENGTH": "+5"}, 400, id="a signed length"),
        pytest.param({"CONTENT_LENGTH": ""}, 200, id="an empty length"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked"}, 411, id="chunked where the server cannot"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "5"}, 400, id="both framings"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "gzip, chunked"}, 501, id="another coding"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked, gzip"}, 400, id="chunked not last"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "xchunked"}, 400, id="not quite chunked"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, 200, id="chunked"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "Chunked", "asgi.scope": {}}, 200, id="chunked through a2wsgi"),
        pytest.param({"PATH_INFO": "admin"}, 400, id="a relative path"),
        pytest.param({"PATH_INFO": "@evil.example"}, 400, id="an authority"),
        pytest.param({"PATH_INFO": "http://a b/"}, 400, id="a malformed absolute form"),
        pytest.param({"PATH_INFO": "/\xff"}, 400, id="a path that is not UTF-8"),
        pytest.param({"PATH_INFO": "/a\x00"}, 400, id="NUL in the path"),
        pytest.param({"PATH_INFO": "//evil.example/"}, 400, id="two slashes"),
        pytest.param({"PATH_INFO": "/a/../b"}, 400, id="a dot segment"),
        pytest.param({"SCRIPT_NAME": "/a//b"}, 400, id="two slashes in the script name"),
        pytest.param({"HTTP_UPGRADE": "WebSocket"}, 426, id="a websocket"),
        pytest.param({"HTTP_UPGRADE": "h2c, websocket"}, 426, id="a websocket among others"),
        pytest.param({"HTTP_UPGRADE": "h2c"}, 200, id="another upgrade"),
        pytest.param({"REQUEST_METHOD": "QUERY"}, 200, id="a new method"),
    ],
)
def test_checks_the_request(changes: dict[str, Any], code: int) -> None:
    """A malformed request gets its 4xx, and the app never sees it."""
    app = RecordingApp()
    request = {key: value for key, value in {**environ("GET", "/"), **changes}.items() if value is not None}

    response = call(EdgeMiddleware(app), request)

    assert response.code == code
    assert app.called == (code == 200)


def test_passes_a_websocket_where_told_to() -> None:
    """As an ordinary request."""
    assert call(edge(RecordingApp(), websocket="pass"), environ("GET", "/", upgrade="websocket")).code == 200


def test_answers_options_asterisk() -> None:
    """``OPTIONS *`` asks the server, not an app."""
    app = RecordingApp()

    assert call(edge(app), environ("OPTIONS", "/", PATH_INFO="*")).code == 204
    assert app.called == 0


@pytest.mark.parametrize(
    ("path_info", "host", "path"),
    [("http://other.example/abs", "other.example", "/abs"), ("HTTPS://other.example:8443", "other.example:8443", "/")],
)
def test_takes_an_absolute_form_apart(path_info: str, host: str, path: str) -> None:
    """The target's host replaces the field (RFC 9112 section 3.2.2); what the server said is kept."""
    app = RecordingApp()

    call(edge(app), environ("GET", "/", PATH_INFO=path_info))

    assert (app.environ["HTTP_HOST"], app.environ["PATH_INFO"]) == (host, path)
    assert app.environ["lamella.edge.original"] == {"HTTP_HOST": "localhost", "PATH_INFO": path_info}


def test_brings_the_script_name_into_form() -> None:
    """``SCRIPT_NAME`` is never "/" and there is always a path."""
    app = RecordingApp()
    request = environ("GET", "/", SCRIPT_NAME="/", PATH_INFO="/x")
    call(EdgeMiddleware(app), request)
    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("", "/x")
    del request["SCRIPT_NAME"], request["PATH_INFO"], request["QUERY_STRING"]

    call(EdgeMiddleware(app), request)

    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"], app.environ["QUERY_STRING"]) == ("", "/", "")


@pytest.mark.parametrize("mount", ["", "/m"])
def test_a_path_may_be_absent(mount: str) -> None:
    """PEP 3333 lets a server leave out what is empty."""
    app = RecordingApp()
    request = environ("GET", "/", mount=mount)
    del request["PATH_INFO"]

    assert call(EdgeMiddleware(app), request).code == 200
    assert app.environ["PATH_INFO"] == ("" if mount else "/")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("//evil.example/x", "/evil.example/x"),
        ("/a//b/./c/../d?q=1", "/a/b/d?q=1"),
        ("/a/..", "/"),
        ("/../../x/", "/x/"),
        ("/%C3%A9//x", "/%C3%A9/x"),
        ("//%5cevil", None),
        ("/a%00//b", None),
        ("/%ff//", None),
        ("/a%252f//b", None),
    ],
)
def test_redirects_to_the_plain_path(path: str, location: str | None) -> None:
    """With ``paths = "redirect"``; never to another host, and what cannot be repaired stays a 400."""
    app = edge(RecordingApp(), paths="redirect")

    response = call(app, environ("GET", path))

    assert response.code == (308 if location else 400)
    assert response.header("Location") == location
    assert call(app, environ("POST", path)).code == 400


@pytest.mark.parametrize(("bad_utf8", "code"), [("400", 400), ("pass", 200)])
def test_passes_ambiguous_paths_where_told_to(bad_utf8: str, code: int) -> None:
    """For an app that does its own; not UTF-8 is a question of its own, a relative path never passes."""
    app = EdgeMiddleware(RecordingApp(), paths="pass", bad_utf8=bad_utf8)

    assert call(app, environ("GET", "//a/../b")).code == 200
    assert call(app, environ("GET", "/%ff")).code == code
    assert call(app, environ("GET", "/", PATH_INFO="a")).code == 400


@given(st.text(alphabet="/.a%\\\x00\xff;", max_size=12))
def test_a_redirect_is_always_local_and_final(path: str) -> None:
    """The target starts with one slash, and asking for it redirects nowhere else."""
    target = normal_path({"PATH_INFO": "/" + path, "SCRIPT_NAME": ""})

    if target is not None:
        assert target.startswith("/")
        assert not target.startswith(("//", "/\\"))
        assert call(EdgeMiddleware(RecordingApp(), paths="redirect"), environ("GET", target)).code == 200


def test_read_never_blocks_and_never_passes_the_end() -> None:
    """Without a length the body is empty; with one it ends there, whatever is behind it in the socket."""
    seen: list[bytes] = []
    app = EdgeMiddleware(RecordingApp(before=lambda request: seen.append(request["wsgi.input"].read())))

    class Blocking(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise AssertionError("would block for ever")

    call(app, {**environ("POST", "/"), "wsgi.input": Blocking()})
    pipelined = io.BytesIO(b"bodyGET / HTTP/1.1")
    call(app, {**environ("POST", "/", CONTENT_LENGTH="4"), "wsgi.input": pipelined})

    assert seen == [b"", b"body"]


def test_keeps_an_input_that_the_server_terminates() -> None:
    """Nothing is wrapped where nothing is wrong."""
    app = RecordingApp()
    request = {**environ("POST", "/", body=b"abc"), "wsgi.input_terminated": True}

    call(EdgeMiddleware(app), request)

    assert app.environ["wsgi.input"] is request["wsgi.input"]


@pytest.mark.parametrize("trust", [False, True])
def test_removes_the_server_s_user(trust: bool) -> None:
    """``REMOTE_USER=root`` in the environment of the process logs nobody in."""
    app = RecordingApp()

    call(edge(app, trust_remote_user=trust), environ("GET", "/", REMOTE_USER="root", AUTH_TYPE="Basic"))

    assert ("REMOTE_USER" in app.environ, "AUTH_TYPE" in app.environ) == (trust, trust)


def test_removes_the_process_s_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """wsgiref and granian copy them all into each request; a header of such a name stays."""
    import os

    monkeypatch.setenv("SHOP_SECRET", "hunter2")
    monkeypatch.setenv("HTTP_PROXY", "http://evil.example")
    monkeypatch.setenv("HTTP_ACCEPT", "from the process")
    app = RecordingApp()
    request = {**os.environ, **environ("GET", "/", accept="*/*")}

    call(EdgeMiddleware(app), request)

    assert not {"SHOP_SECRET", "PATH", "HTTP_PROXY"} & set(app.environ)
    assert app.environ["HTTP_ACCEPT"] == "*/*"


@pytest.mark.parametrize(
    ("joined", "split"),
    [
        ("a=1,b=2", "a=1; b=2"),
        ("a=1, b=2; c=3", "a=1; b=2; c=3"),
        ("a=1,2; b=3", "a=1,2; b=3"),
        ("a=x,", "a=x,"),
        ("a=1,b", "a=1,b"),
        ('a="1,2"', 'a="1,2"'),
    ],
)
def test_splits_joined_cookie_fields(joined: str, split: str) -> None:
    """Servers join two Cookie fields with a comma; a comma inside a value stays."""
    app = RecordingApp()

    call(edge(app), environ("GET", "/", cookie=joined))

    assert app.environ["HTTP_COOKIE"] == split


@pytest.mark.timing
@pytest.mark.parametrize("unit", [",", ", ", ",a", ",a=", ", " * 3 + "=", "a"])
def test_splitting_cookies_is_linear(unit: str) -> None:
    """100 kB of hostile input take less than 50 ms."""
    text = unit * (100_000 // len(unit))
    began = time.thread_time()

    split_cookies(text)

    assert time.thread_time() - began < 0.15


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("method", "status", "length"),
    [
        ("HEAD", "200 OK", "5"),
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified", "5"),
        ("GET", "103 Early Hints", None),
    ],
)
def test_drops_bodies_that_may_not_be(method: str, status: str, length: str | None, late: bool) -> None:
    """On keep-alive connections the next answer would be out of step."""
    app = RecordingApp(status=status, headers=[("Content-Length", "5")], body=[b"hello"], late=late)

    response = call(EdgeMiddleware(app), environ(method, "/"))

    assert (response.body, response.header("Content-Length")) == (b"", length)
    assert app.closed == 1


@pytest.mark.parametrize("late", [False, True])
def test_an_endless_body_ends_on_head(late: bool) -> None:
    """An event stream asked for with HEAD is not read to its end, which never comes."""
    from itertools import repeat

    app = RecordingApp(body=lambda: repeat(b"data\n"), late=late)

    assert call(edge(app), environ("HEAD", "/")).body == b""


@pytest.mark.parametrize("as_list", [True, False])
def test_cuts_a_body_that_is_too_long(as_list: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What is past the Content-Length would be taken for the next answer."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [TEXT, ("Content-Length", "3")])
        blocks = [b"ab", b"cd", b"ef"]
        return blocks if as_list else iter(blocks)

    response = call(edge(app), environ("GET", "/"))

    assert response.body == b"abc"
    (record,) = caplog.records
    assert "longer than its Content-Length" in record.getMessage()


@pytest.mark.parametrize("kind", [list, tuple])
def test_corrects_a_length_that_is_too_long(kind: type, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is all there gets its true length; a client would wait for the rest."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [TEXT, ("Content-Length", "30")])
        return kind([b"abc"])

    response = call(edge(app), environ("GET", "/"))

    assert (response.header("Content-Length"), response.body) == ("3", b"abc")
    assert "27 bytes less" in caplog.text


def test_cuts_the_connection_of_a_stream_that_ends_early(caplog: pytest.LogCaptureFixture) -> None:
    """The length is out, so only an exception tells the server to close; the client sees the answer as incomplete."""
    app = RecordingApp(headers=[TEXT, ("Content-Length", "30")], body=[b"abc"])

    response = call(EdgeMiddleware(app), environ("GET", "/"), keep_error=True)

    assert isinstance(response.error, IncompleteBodyError)
    assert app.closed == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK", [("X", "a\r\nX-Evil: 1")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\x00b")]),
        ("200 OK", [("X", "Ċ")]),
        ("200 OK", [("X\r\nX-Evil", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK", [("X", 1)]),
        ("200 OK", [("X",)]),
        ("200 OK", None),
        ("200 OK", [TEXT, ("Content-Length", "1"), ("Content-Length", "2")]),
        ("200 OK\r\nX-Evil: 1", [TEXT]),
        ("abc", [TEXT]),
        (200, [TEXT]),
    ],
)
def test_a_split_answer_becomes_a_500(status: Any, headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Servers send CR and LF as they come, or give no answer at all."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"secret"]

    response = call(edge(app), environ("GET", "/", REQUEST_ID="x"))

    assert (response.code, response.body) == (500, b"Internal Server Error\n")
    assert "answered with 500" in caplog.text


def test_holds_the_header_injection_corpus(corpus: Any) -> None:
    """Each value is refused or is one header line."""
    for value in corpus("header_injection")["cases"]:

        def app(request: dict[str, Any], start_response: Any, value: str = value) -> list[bytes]:
            start_response("200 OK", [TEXT, ("X-Value", value)])
            return [b""]

        response = call(edge(app), environ("GET", "/"))
        assert response.code == 500 or response.header("X-Value") == value
        for _, sent in response.headers:
            assert not set(sent) & set("\r\n\0")
            sent.encode("latin-1")


def test_drops_hop_by_hop_headers(caplog: pytest.LogCaptureFixture) -> None:
    """They speak of a connection that the app knows nothing of; chunked twice is garbage."""
    headers = [("Transfer-Encoding", "chunked"), ("Connection", "close"), TEXT, ("Content-Length", "five")]

    response = call(edge(RecordingApp(headers=headers)), environ("GET", "/"))

    assert response.headers == [TEXT]
    assert "Transfer-Encoding" in caplog.text


@pytest.mark.parametrize(("status", "expected"), [("404", "404 Not Found"), ("599 ", "599 Unknown")])
def test_completes_a_status_without_reason(status: str, expected: str) -> None:
    """PEP 3333 asks for one, and some servers fail without."""
    assert call(edge(RecordingApp(status=status)), environ("GET", "/")).status == expected


def _raising(request: dict[str, Any], start_response: Any) -> Any:
    raise RuntimeError("boom")


def _raising_after_start(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    raise RuntimeError("boom")


def _raising_generator(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    if request:
        raise RuntimeError("boom")
    yield b""


def _raising_first_block(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    return (1 / 0 for _ in range(1))


def _never_starting(request: dict[str, Any], start_response: Any) -> Any:
    return iter(())


def _not_starting_list(request: dict[str, Any], start_response: Any) -> Any:
    return [b"x"]


def _returning_none(request: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [TEXT])


@pytest.mark.parametrize(
    "app",
    [
        _raising,
        _raising_after_start,
        _raising_generator,
        _raising_first_block,
        _never_starting,
        _not_starting_list,
        _returning_none,
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_app_that_fails_early_is_a_500(app: Any, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """uWSGI would send nothing, granian an empty page; the reason is in the log, not in the answer."""
    response = call(lint(EdgeMiddleware(app)), environ(method, "/"))

    if method == "HEAD" and app in (_raising_first_block, _returning_none):
        # It started well, and of a HEAD nobody asks for the body that fails.
        assert (response.code, response.body) == (200, b"")
        return
    assert response.code == 500
    assert response.body == (b"Internal Server Error\n" if method == "GET" else b"")
    assert b"boom" not in response.body
    assert len(caplog.records) == 1


def test_an_app_that_fails_late_is_not_hidden() -> None:
    """After the first block only the server can say that the answer is incomplete, by cutting it."""
    app = RecordingApp(body=[b"a"], raises_after=RuntimeError("boom"))

    response = call(EdgeMiddleware(app), environ("GET", "/"), keep_error=True)

    assert isinstance(response.error, RuntimeError)
    assert response.body == b"a"


def test_a_second_start_without_exc_info_is_an_error() -> None:
    """PEP 3333: a fatal error; with ``exc_info`` the second one replaces the first."""
    import sys

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "2"), ("X-First", "1")])
        try:
            start_response("404 Not Found", [TEXT])
        except AssertionError:
            start_response("418 I'm a Teapot", [TEXT], sys.exc_info())
        return [b"page"]

    response = call(edge(app), environ("GET", "/"))

    assert (response.code, response.body, response.headers) == (418, b"page", [TEXT])


class Granian:
    """A server that knows the status only if it is set when the app returns, and has no ``write()``."""

    def __init__(self) -> None:
        self.status = "200 nothing was said"

    def __call__(self, app: WSGIApplication, method: str = "GET") -> bytes:
        request = {**environ(method, "/", SERVER_SOFTWARE="Granian"), "wsgi.input_terminated": True}
        body: Any = app(request, self.start)
        at_return = self.status
        blocks = b"".join(body)
        if not isinstance(body, list):
            body.close()
        assert self.status == at_return
        return blocks

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        self.status = status


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_starts_in_time_and_writes_on_granian(late: bool, method: str) -> None:
    """The app is asked for its first block there; what it wrote comes before its blocks."""
    app = RecordingApp(status="404 Not Found", write=[b"1", b"2"], body=[b"3", b"4"], late=late)
    server = Granian()

    assert server(EdgeMiddleware(app), method) == (b"1234" if method == "GET" else b"")
    assert server.status == "404 Not Found"
    assert app.closed == 1


def test_reads_nothing_ahead_elsewhere() -> None:
    """A generator that starts late is asked for its first block when the server asks."""
    app = RecordingApp(late=True)

    body = EdgeMiddleware(app)(environ("GET", "/"), lambda *args: lambda data: None)

    assert app.yielded == 0
    assert next(iter(body)) == b"hello"


def test_counts_what_was_written() -> None:
    """``write()`` and blocks share one Content-Length."""
    app = RecordingApp(headers=[TEXT, ("Content-Length", "5")], write=[b"abc"], body=[b"def"])

    assert call(edge(app), environ("GET", "/")).body == b"abcde"


def test_returns_the_app_s_own_list() -> None:
    """Nothing is copied or wrapped where nothing is wrong."""
    blocks = [b"hello"]

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "5")])
        return blocks

    assert EdgeMiddleware(app)(environ("GET", "/"), lambda *args: lambda data: None) is blocks


def test_remembers_what_is_nobody_s_secret() -> None:
    """Values of fields that repeat are remembered as good; a cookie, an address or a nonce never is."""
    from lamella.middleware._edge_answer import _GOOD_VALUES

    secret = [("Set-Cookie", "sid=hunter2"), ("Location", "/reset/hunter2"), ("X-Token", "hunter2")]
    policy = ("Content-Security-Policy", "script-src 'nonce-hunter2'")
    app = EdgeMiddleware(RecordingApp(headers=[("Content-Type", "text/x-steady"), policy, *secret]))

    for _ in range(3):
        assert call(app, environ("GET", "/")).headers == [("Content-Type", "text/x-steady"), policy, *secret]

    assert "text/x-steady" in _GOOD_VALUES
    assert not [value for value in _GOOD_VALUES if "hunter2" in value]


def test_a_long_run_keeps_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded, whatever apps send."""
    from lamella.middleware import _edge_answer

    monkeypatch.setattr(_edge_answer, "MEMO_SIZE", 8)
    for number in range(40):
        headers = [("Content-Type", f"text/x-{number}"), ("Cache-Control", "x" * 2000 + str(number))]
        assert call(EdgeMiddleware(RecordingApp(headers=headers)), environ("GET", "/")).headers == headers

    assert len(_edge_answer._GOOD_VALUES) <= 8
    assert max(map(len, _edge_answer._GOOD_VALUES)) <= 1024


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("length", ["5", "5 ", "05", "\u0665", "5, 5", "", "x" * 30, "9" * 30, "-5", "+5", "5\r\nX: y"])
def test_only_a_number_is_a_length(length: str, as_list: bool) -> None:
    """What is none is dropped or refused; also where the value stood in another field before."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [TEXT, (request["QUERY_STRING"], length)])
        return [b"hello"] if as_list else iter([b"hello"])

    logging.disable(logging.ERROR)
    try:
        call(EdgeMiddleware(app), environ("GET", "/?Cache-Control"))
        response = call(EdgeMiddleware(app), environ("GET", "/?Content-Length"))
    finally:
        logging.disable(logging.NOTSET)

    assert (response.code, response.header("Content-Length")) in ((200, "5"), (200, "05"), (200, None), (500, "22"))


def test_a_list_that_the_app_changes_later_does_not_count() -> None:
    """What was looked at is what goes out."""
    headers = [TEXT]

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        headers.append(("X", "a\r\nX-Evil: 1"))
        return [b"x"]

    assert call(edge(app), environ("GET", "/")).headers == [TEXT]


@pytest.mark.parametrize("wrong", [False, True])
def test_starting_twice_after_a_write_is_an_error(wrong: bool) -> None:
    """Whatever took the first answer over, it is not forgotten."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [TEXT, ("Connection", "close")] if wrong else [TEXT])
        write(b"")
        with pytest.raises(AssertionError):
            start_response("200 OK", [TEXT])
        write(b"a")
        return [b"b", b"c"]

    assert call(edge(app), environ("GET", "/")).body == b"abc"


@pytest.mark.parametrize(
    "blocks", [[], [b""], [b"ab", b"cd"], [b"abcd"], (b"abcd",), [bytearray(b"abcd")], [b"ab", "cd"]]
)
@pytest.mark.parametrize("length", [None, "4", "3"])
def test_bodies_that_are_all_there(blocks: Any, length: str | None) -> None:
    """Of each kind, the client gets what the length says, or a page that says that the app is at fault."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [TEXT, *([("Content-Length", length)] if length else [])])
        return blocks

    logging.disable(logging.ERROR)
    try:
        response = call(edge(app), environ("GET", "/"))
    finally:
        logging.disable(logging.NOTSET)

    if all(type(block) is bytes for block in blocks):
        assert response.code == 200
        assert response.body == b"".join(blocks)[: int(length or 9)]
        assert response.header("Content-Length") == (str(len(response.body)) if length else None)
    else:
        assert (response.code, response.body) == (500, b"Internal Server Error\n")


@pytest.mark.parametrize("mount", ["", "/m", "/m/n"])
def test_a_known_path_is_judged_by_its_mount_too(mount: str) -> None:
    """A path that was good before stays so; below a mount that is not, the request is refused."""
    app = EdgeMiddleware(RecordingApp())

    for _ in range(2):
        assert call(app, environ("GET", "/page", SCRIPT_NAME=mount)).code == 200
        assert call(app, environ("GET", "/page", SCRIPT_NAME=mount + "//x")).code == 400
        assert call(app, environ("GET", "/page", SCRIPT_NAME=mount + "/../x")).code == 400
        assert call(app, {**environ("GET", "/page"), "PATH_INFO": "page"}).code == 400


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4), st.text(max_size=8))
def test_no_header_list_fails_the_layer(headers: list[tuple[str, str]], status: str) -> None:
    """Whatever text an app sends as status and headers, the linter outside is content."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, [*headers, TEXT])
        return [b"x"]

    logging.disable(logging.ERROR)
    try:
        headers_out = call(EdgeMiddleware(app), environ("GET", "/")).headers
    finally:
        logging.disable(logging.NOTSET)
    assert clean_headers(headers_out)[0] == headers_out


@pytest.mark.parametrize(
    "options", [{"websocket": "no"}, {"paths": "?"}, {"bad_utf8": 400}, {"trust_remote_user": "x"}]
)
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError):
        EdgeMiddleware(RecordingApp(), **options)


def test_a_refused_request_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """``access_log`` is inside and never hears of it."""
    call(EdgeMiddleware(RecordingApp()), {**environ("GET", "/"), "PATH_INFO": "/a/../b", "REMOTE_ADDR": "192.0.2.7"})

    assert caplog.messages == [
        "'GET' '/a/../b' from '192.0.2.7' was refused with 400 Bad Request: the path has a dot segment"
    ]
    assert (caplog.records[0].name, caplog.records[0].levelname) == ("lamella.edge", "WARNING")


@pytest.mark.parametrize(
    ("method", "changes", "options", "expected"),
    [
        ("GET", {"HTTP_UPGRADE": "websocket"}, {}, "was refused with 426 Upgrade Required"),
        ("OPTIONS", {"PATH_INFO": "*"}, {}, "was answered with 204 No Content"),
        ("GET", {"PATH_INFO": "/a//b"}, {"paths": "redirect"}, "was redirected with 308 Permanent Redirect"),
    ],
)
def test_whatever_is_answered_here_is_in_the_log(
    caplog: pytest.LogCaptureFixture, method: str, changes: dict[str, str], options: dict[str, Any], expected: str
) -> None:
    """Once, in one line."""
    caplog.set_level(logging.INFO, "lamella.edge")

    call(EdgeMiddleware(RecordingApp(), **options), {**environ(method, "/"), **changes})

    assert [expected in message for message in caplog.messages] == [True]


def test_no_request_writes_a_line_of_its_own(corpus: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever stands in method, path, host and address: one line, no control character, bounded."""
    hostile = ["x" * 100_000, "\r\nfake: line", "\x1b[31m\x00", "\x85\xff\u2028", *_texts(corpus("log_injection"))]
    app = EdgeMiddleware(RecordingApp())
    for text in hostile:
        for key in ("REQUEST_METHOD", "PATH_INFO", "SCRIPT_NAME", "HTTP_HOST", "REMOTE_ADDR"):
            caplog.clear()
            call(app, {**environ("GET", "//"), key: text})
            for message in caplog.messages:
                assert message.isprintable()
                assert message.isascii()
                assert len(message) < 2500
            assert len(caplog.messages) == (0 if key == "PATH_INFO" and not caplog.messages else 1)


def _texts(value: Any) -> list[str]:
    """All latin-1 strings of a corpus."""
    if isinstance(value, str):
        return [value] if value.encode("latin-1", "replace").decode("latin-1") == value else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _texts(item)]


# --- real servers -------------------------------------------------------------------------------


def _talk(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        received = b""
        while block := connection.recv(65536):
            received += block
    return received


def _bad_app(request: dict[str, Any], start_response: Any) -> Any:
    path = request["PATH_INFO"]
    if path == "/raises":
        raise RuntimeError("boom")
    if path == "/split":
        start_response("200 OK", [("X", "a\r\nX-Evil: 1")])
        return [b"x"]
    if path == "/long":
        start_response("200 OK", [TEXT, ("Content-Length", "2")])
        return iter([b"12345"])
    if path == "/hop":
        start_response("200 OK", [TEXT, ("Connection", "close")])
        return [b"hop"]
    if path == "/read":
        start_response("200 OK", [TEXT])
        return [b"read " + request["wsgi.input"].read()]
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    return [b"body"]


@pytest.mark.server
@pytest.mark.parametrize("server", ["wsgiref", "waitress"])
def test_servers_look_alike(services: Any, server: str) -> None:
    """What differs between servers on the wire is the same behind the edge."""
    logging.disable(logging.ERROR)
    try:
        with getattr(services, server)(EdgeMiddleware(_bad_app)) as port:
            _look_at(port)
    finally:
        logging.disable(logging.NOTSET)


def _look_at(port: int) -> None:
    def ask(line: str, more: str = "") -> tuple[bytes, bytes]:
        raw = _talk(port, f"{line} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{more}\r\n".encode("latin-1"))
        head, _, body = raw.partition(b"\r\n\r\n")
        return head.split(b" ")[1], body

    assert ask("GET /raises") == (b"500", b"Internal Server Error\n")
    assert ask("GET /split") == (b"500", b"Internal Server Error\n")
    assert ask("GET /long") == (b"200", b"12")
    assert ask("GET /hop")[0] == b"200"
    assert ask("HEAD /") == (b"200", b"")
    assert ask("GET /read") == (b"200", b"read ") or ask("GET /read")[1].endswith(b"read \r\n0\r\n\r\n")
    assert ask("GET http://b.example/read")[0] == b"200"
    assert ask("GET /", "Upgrade: websocket\r\n")[0] == b"426"
    assert ask("GET /%ff")[0] == b"400"
