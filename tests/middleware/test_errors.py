"""ErrorsMiddleware: what becomes an error page, for whom, and what is never touched."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.util import FileWrapper

import pytest

from lamella.middleware.errors import ErrorsMiddleware
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.keys import CLIENT, EXCEPTION, REQUEST_ID, Client, record
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
BOOM = RuntimeError("the <secret> plan")


def also(keys: dict[str, Any]) -> dict[str, Any]:
    """Environ keys whose names are no Python names."""
    return keys


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter outside."""
    return lint(ErrorsMiddleware(app, **options))


def failing(app: Any = None, path: str = "/", *, debug: bool = False, **headers: Any) -> Response:
    """The answer where the app inside raises."""
    return call(layer(app or RecordingApp(raises=BOOM), debug=debug), environ("GET", path, **headers))


def test_turns_an_exception_into_a_problem() -> None:
    """A program that names no type gets RFC 9457, without a word of the exception."""
    response = failing(**also({"lamella.request_id": "r-1"}))

    assert response.status == "500 Internal Server Error"
    assert response.header("Content-Type") == "application/problem+json"
    assert json.loads(response.body) == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "request_id": "r-1",
    }
    assert response.header("Cache-Control") == "no-store"
    assert response.header("X-Content-Type-Options") == "nosniff"
    assert response.header("Vary") == "Accept"


def test_turns_an_exception_into_a_page() -> None:
    """A browser gets a page that may run and load nothing, with the identifier on it."""
    response = failing(accept=HTML, **also({"lamella.request_id": "<r-1>"}))

    assert response.header("Content-Type") == "text/html; charset=utf-8"
    assert "&lt;r-1&gt;" in response.text
    assert "secret" not in response.text
    assert (response.header("Content-Security-Policy") or "").startswith("default-src 'none'")


def test_turns_an_exception_into_text() -> None:
    """Who asks for plain text gets it."""
    response = failing(accept="text/plain", **also({"lamella.request_id": "r-1"}))

    assert response.body == b"500 Internal Server Error\nrequest r-1\n"


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/json", "application/*", "text/html;q=0.1, application/json"]
)
def test_prefers_json_for_programs(accept: str) -> None:
    """By weight, and JSON where nothing decides."""
    assert failing(accept=accept).header("Content-Type") == "application/problem+json"


def test_logs_the_traceback_with_the_identifier(caplog: pytest.LogCaptureFixture) -> None:
    """One record of level ERROR, the path escaped."""
    failing(path="/a%0Ab", **also({"lamella.request_id": "r-1"}))

    (made,) = [item for item in caplog.records if item.name == "lamella.errors"]
    assert made.getMessage() == "GET /a%0Ab failed (request r-1)"
    assert made.levelno == logging.ERROR
    assert made.exc_info is not None
    assert made.exc_info[1] is BOOM
    assert made.request_id == "r-1"  # type: ignore[attr-defined]


def test_leaves_the_class_for_the_access_log() -> None:
    """Also where the error happened behind a copied environ."""
    outer = environ("GET", "/")
    record(outer)

    call(ErrorsMiddleware(RecordingApp(raises=BOOM)), outer.copy())

    assert EXCEPTION.seen(outer) == "RuntimeError"


def test_answers_a_bad_request_as_what_it_is() -> None:
    """What a layer or app refuses is the client's fault, with its reason."""
    response = failing(RecordingApp(raises=BadRequestError("no slash", "421 Misdirected Request")))

    assert response.status == "421 Misdirected Request"
    assert json.loads(response.body)["detail"] == "no slash"


def test_replaces_an_answer_that_was_only_begun() -> None:
    """Started, not sent: the error still gets through, by ``exc_info``, and the body is closed once."""
    app = RecordingApp(body=[b"", b""], raises_after=BOOM)

    response = failing(app)

    assert response.code == 500
    assert json.loads(response.body)["status"] == 500
    assert app.closed == 1


def test_raises_again_what_comes_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """With content on the wire only the server can act: it gets the same exception; the log has it."""
    app = RecordingApp(body=[b"part"], raises_after=BOOM)

    response = call(layer(app), environ("GET", "/"), keep_error=True)

    assert (response.error, response.body, app.closed) == (BOOM, b"part", 1)
    assert [item.name for item in caplog.records] == ["lamella.errors"]


def test_raises_again_on_a_server_that_forgives_everything() -> None:
    """Some servers take a second ``start_response`` after content without a word: no page is glued to a half answer."""
    started: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        started.append(status)
        return lambda data: None

    app = ErrorsMiddleware(RecordingApp(body=[b"part"], raises_after=BOOM))
    body = iter(app(environ("GET", "/"), start_response))

    assert next(body) == b"part"
    with pytest.raises(RuntimeError):
        next(body)
    assert started == ["200 OK"]


def test_raises_again_after_write() -> None:
    """The same where the content went through ``write()``."""

    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"part")
        raise BOOM

    response = call(ErrorsMiddleware(app), environ("GET", "/"), keep_error=True)

    assert (response.error, response.body) == (BOOM, b"part")


@pytest.mark.parametrize("late", [False, True])
def test_catches_what_a_generator_raises(late: bool) -> None:
    """An app that runs in its first ``next()`` is caught as well."""
    response = failing(RecordingApp(late=late, body=[], raises_after=BOOM))

    assert response.code == 500


def test_catches_an_error_while_closing_for_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is complete; the exception goes on to the server."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            raise BOOM

    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body()

    response = call(ErrorsMiddleware(app), environ("GET", "/"), keep_error=True)

    assert (response.error, response.body) == (BOOM, b"x")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_lets_the_end_of_the_worker_through(error: BaseException) -> None:
    """What is no ``Exception`` is not for a page."""
    with pytest.raises(type(error)):
        call(ErrorsMiddleware(RecordingApp(raises=error)), environ("GET", "/"))
    with pytest.raises(type(error)):
        call(ErrorsMiddleware(RecordingApp(raises_after=error)), environ("GET", "/"))


def test_an_error_on_head_has_no_content() -> None:
    """The headers are those of GET."""
    app = layer(RecordingApp(raises=BOOM))

    head, get = call(app, environ("HEAD", "/")), call(app, environ("GET", "/"))

    assert head.body == b""
    assert head.header("Content-Length") == get.header("Content-Length") == str(len(get.body))


# --- error answers of the app ---------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_gives_an_empty_error_a_content(late: bool) -> None:
    """A bare 404 gets its page; the app's other headers stay."""
    headers = [("X-Mine", "1"), ("Content-Type", "text/html"), ("ETag", '"x"')]
    app = RecordingApp(status="404 Not Found", headers=headers, body=[], late=late)

    response = call(lint(ErrorsMiddleware(lint(app))), environ("GET", "/"))

    assert (response.status, response.header("X-Mine"), response.header("ETag")) == ("404 Not Found", "1", None)
    assert json.loads(response.body)["title"] == "Not Found"
    assert response.header_list("Content-Type") == ["application/problem+json"]
    assert app.closed == 1


@pytest.mark.parametrize("body", [[], [b""], [b"", b""], (b"",)])
def test_gives_an_empty_list_a_content(body: Any) -> None:
    """A list of nothing is nothing, however many."""

    def app(request: Any, start_response: Any) -> Any:
        start_response("403 Forbidden", [("Content-Type", "text/html")])
        return body

    assert json.loads(call(layer(app), environ("GET", "/")).body)["status"] == 403


def test_gives_an_error_that_says_it_is_empty_a_content() -> None:
    """``Content-Length: 0`` is as empty, and is replaced."""
    app = RecordingApp(
        status="401 Unauthorized", headers=[("Content-Length", "0"), ("WWW-Authenticate", "Basic")], body=[b""]
    )

    response = call(layer(app), environ("GET", "/", accept=HTML))

    assert "sign in" in response.text
    assert response.header("WWW-Authenticate") == "Basic"
    assert response.header_list("Content-Length") == [str(len(response.body))]


@pytest.mark.parametrize("options", [{}, {"render": "plain"}])
def test_never_replaces_what_the_app_wrote(options: dict[str, Any]) -> None:
    """A page or a JSON answer of the app's own goes through as it is, also with an empty block first."""
    for headers in ([("Content-Type", "text/html")], [("Content-Type", "application/json"), ("Content-Length", "4")]):
        app = RecordingApp(status="404 Not Found", headers=headers, body=[b"", b"mi", b"ne"])

        response = call(lint(ErrorsMiddleware(lint(app), **options)), environ("GET", "/"))

        assert (response.body, response.headers) == (b"mine", headers)


def test_never_replaces_what_the_app_wrote_through_write() -> None:
    """``write()`` is content too."""
    response = call(layer(RecordingApp(status="404 Not Found", write=[b"mine"], body=[])), environ("GET", "/"))

    assert response.body == b"mine"


def test_leaves_an_error_on_head_alone() -> None:
    """Nobody knows what GET would have had."""
    app = RecordingApp(status="404 Not Found", headers=[("Content-Type", "text/html")], body=[])

    response = call(layer(app), environ("HEAD", "/"))

    assert response.headers == [("Content-Type", "text/html")]


def test_takes_plain_text_as_the_detail_when_told() -> None:
    """With ``render="plain"`` the page has the app's words."""
    app = RecordingApp(status="409 Conflict", body=[b"two <b> at once", b", and more"])

    shown = call(layer(app, render="plain"), environ("GET", "/", accept=HTML))
    kept = call(layer(app), environ("GET", "/", accept=HTML))

    assert "two &lt;b&gt; at once" in shown.text
    assert kept.body == b"two <b> at once, and more"


def test_only_exceptions_when_told() -> None:
    """With ``render="exceptions"`` a bare status stays bare."""
    response = call(layer(RecordingApp(status="404 Not Found", body=[]), render="exceptions"), environ("GET", "/"))

    assert response.body == b""


def test_keeps_a_file_of_an_error_page() -> None:
    """An error page that the app sends from a file stays a file for the server."""
    given: list[FileWrapper] = []

    def app(request: Any, start_response: Any) -> Any:
        start_response("404 Not Found", [("Content-Type", "text/html")])
        given.append(FileWrapper(io.BytesIO(b"page")))
        return given[0]

    response = Response()
    request = environ("GET", "/", **also({"wsgi.file_wrapper": FileWrapper}))
    body: Any = ErrorsMiddleware(app)(request, lambda status, headers, *_: setattr(response, "status", status))  # type: ignore[arg-type]
    body.close()

    assert body is given[0]
    assert response.status == "404 Not Found"


def test_hands_an_error_page_of_the_app_on() -> None:
    """An app that answers its own exception with ``exc_info`` is left alone."""

    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise BOOM
        except RuntimeError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"own page"]

    response = call(layer(app), environ("GET", "/"))

    assert (response.code, response.body) == (500, b"own page")


# --- own pages ------------------------------------------------------------------------------------


def test_shows_the_site_s_own_pages(tmp_path: Path) -> None:
    """By status, by class, by default; what is filled in is escaped."""
    for name in ("404", "5xx", "default"):
        (tmp_path / name).write_text(f"{name}: $status $reason $detail [$request_id] $$1 $other ä", encoding="utf-8")
    pages = {name: tmp_path / name for name in ("404", "5xx", "default")}

    def shown(status: str) -> str:
        app = layer(RecordingApp(status=status, body=[]), pages=pages)
        return call(app, environ("GET", "/", accept=HTML, **also({"lamella.request_id": "<r>"}))).text

    assert shown("404 Not Found") == "404: 404 Not Found  [&lt;r&gt;] $1 $other ä"
    assert shown("503 Busy").startswith("5xx: 503 Busy")
    assert shown("418 Tea").startswith("default: 418 Tea")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"debug": "yes"}, "debug: expected true or false"),
        ({"render": "all"}, "render: expected one of"),
        ({"pages": {"200": "x"}}, "pages: expected a status"),
        ({"pages": {"404": "/no/such/page.html"}}, "pages.404: expected a file"),
        ({"pages": "404.html"}, "pages: expected a table"),
    ],
)
def test_refuses_wrong_options(options: dict[str, Any], message: str) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        ErrorsMiddleware(RecordingApp(), **options)


# --- the debug page -------------------------------------------------------------------------------


def _raise(request: Any, start_response: Any) -> Any:
    try:
        raise KeyError("<script>alert(1)</script>")
    except KeyError as error:
        raise ValueError("outer & <b>") from error


def test_shows_the_developer_everything() -> None:
    """Class, message, source line, cause and environ, all escaped, in a page that can run nothing."""
    response = failing(_raise, "/x?q=<b>", debug=True, accept=HTML, user_agent="<i>agent")

    text = response.text
    assert response.code == 500
    for part in ("ValueError", "outer &amp; &lt;b&gt;", "raise KeyError(", "Caused by KeyError", "&lt;i&gt;agent"):
        assert part in text
    assert 'class="failed">' in text
    assert "<script" not in text
    assert "<b>&quot" not in text
    assert "script-src" not in (response.header("Content-Security-Policy") or "")
    assert (response.header("Content-Security-Policy") or "").startswith("default-src 'none'")
    assert response.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("accept", [HTML, "application/json", "text/plain"])
def test_masks_secrets(accept: str) -> None:
    """Credentials, cookies, sessions and whatever is called a secret never show."""
    hidden: dict[str, Any] = {
        "authorization": "Basic S3CRET",
        "cookie": "session=S3CRET",
        "x_api_key": "S3CRET",
        "referer": "https://x.example/?token=S3CRET",
        "QUERY_STRING": "password=S3CRET",
        "DATABASE_URL": "postgresql://u:S3CRET@db/x",
        "SHOP_SECRET": "S3CRET",
        "lamella.session": {"a": "S3CRET"},
        "lamella.request_id.original": {"x": "S3CRET"},
        "some.object": type("Odd", (), {"__repr__": lambda self: "S3CRET"})(),
    }

    response = failing(debug=True, accept=accept, **hidden)

    assert "S3CRET" not in response.text
    assert "the" in response.text


def test_names_the_layers_on_the_way() -> None:
    """Outer layers from the calls that lead here, inner ones from the traceback."""

    def user_layer(app: Any) -> Any:
        def wrapped(request: Any, start_response: Any) -> Any:
            return app(request, start_response)

        return wrapped

    app = user_layer(ErrorsMiddleware(user_layer(_raise), debug=True))

    text = call(app, environ("GET", "/", accept=HTML)).text

    names = re.findall(r"<li[^>]*>([^<]*)</li>", text)
    assert [name.rpartition(":")[2].rpartition(".")[2] for name in names][-4:] == [
        "wrapped",
        "errors",
        "wrapped",
        "_raise",
    ]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"REMOTE_ADDR": "203.0.113.9"}, id="another machine"),
        pytest.param({"REMOTE_ADDR": "10.0.0.1"}, id="the local network"),
        pytest.param({"REMOTE_ADDR": ""}, id="a unix socket"),
        pytest.param({"host": "evil.example"}, id="DNS rebinding"),
        pytest.param({"host": "localhost.evil.example"}, id="a look-alike"),
        pytest.param({"host": "localhost, evil"}, id="two hosts"),
        pytest.param({"x_forwarded_for": "203.0.113.9"}, id="a proxy on this machine"),
        pytest.param({"forwarded": "for=1.2.3.4"}, id="a proxy on this machine, RFC 7239"),
        pytest.param({"lamella.client": Client("https", "localhost", "203.0.113.9")}, id="a trusted proxy"),
    ],
)
def test_shows_others_nothing(headers: dict[str, Any]) -> None:
    """The debug page is for a browser on this machine, by this machine's name, and for no other."""
    response = failing(debug=True, accept=HTML, **headers)

    assert response.code == 500
    assert "RuntimeError" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "headers",
    [
        {"REMOTE_ADDR": "::1", "host": "[::1]:8000"},
        {"REMOTE_ADDR": "127.8.8.8", "host": "127.0.0.1:8000"},
        {"REMOTE_ADDR": "::ffff:127.0.0.1", "host": "app.localhost"},
        {"lamella.client": Client("http", "localhost:80", "127.0.0.1"), "x_forwarded_for": "127.0.0.1"},
    ],
)
def test_shows_the_developer_by_any_local_name(headers: dict[str, Any]) -> None:
    """Both families, mapped addresses, and subdomains of localhost."""
    assert "RuntimeError" in failing(debug=True, accept=HTML, **headers).text


def test_is_silent_without_debug() -> None:
    """The default shows nothing to anybody, and does not even load the page."""
    assert "RuntimeError" not in failing(accept=HTML).text


def test_survives_an_exception_that_cannot_be_shown() -> None:
    """A message that raises, an endless recursion, and a chain that bites its tail."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def deep(request: Any, start_response: Any) -> Any:
        return deep(request, start_response)

    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    logging.getLogger("lamella.errors").disabled = True
    try:
        for app in (RecordingApp(raises=Odd()), deep, RecordingApp(raises=first)):
            assert failing(app, debug=True, accept=HTML).code == 500
    finally:
        logging.getLogger("lamella.errors").disabled = False


def test_a_broken_log_costs_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """A handler that raises is told to standard error; the client still gets its 500."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    handler = Broken()
    logging.getLogger("lamella.errors").addHandler(handler)
    try:
        response = failing()
    finally:
        logging.getLogger("lamella.errors").removeHandler(handler)

    assert response.code == 500
    assert "the log failed: OSError" in capsys.readouterr().err


def test_hostile_headers_stay_out_of_the_answer(corpus: Any) -> None:
    """Nothing of the request reaches a header of an error answer."""
    for text in corpus("header_injection")["cases"]:
        for key in ("PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "REQUEST_METHOD"):
            response = call(ErrorsMiddleware(RecordingApp(raises=BOOM), debug=True), {**environ("GET", "/"), key: text})
            assert response.code == 500
            assert all("\r" not in value and "\n" not in value for pair in response.headers for value in pair)


def test_request_id_set_behind_a_copy_is_shown() -> None:
    """With a record, also an identifier from further inside gets onto the page."""

    def app(request: Any, start_response: Any) -> Any:
        REQUEST_ID.set(request.copy(), "deep")
        CLIENT.get(request)
        raise BOOM

    outer = environ("GET", "/")
    record(outer)

    assert json.loads(call(layer(app), outer).body)["request_id"] == "deep"


@pytest.mark.parametrize("status", [["200 OK"], 200, b"200 OK", None, "200", "2000 OK", "OK"])
def test_a_status_that_is_none_is_told_each_time(status: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Also after a good one was seen, and where it has no hash."""

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK" if request["PATH_INFO"] == "/good" else status, [("Content-Type", "text/plain")])
        return [b"x"]

    layer = ErrorsMiddleware(app)
    for _ in range(2):
        assert call(layer, environ("GET", "/good")).code == 200
        assert call(layer, environ("GET", "/bad")).code == (200 if status == "200" else 500)
