"""The linter: every deliberate violation is caught, by its rule, with the right culprit."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from lamella.stack.testing import LintError, RecordingApp, call, environ, lint
from lamella.stack.testing.lint import RULES

PLAIN = [("Content-Type", "text/plain")]
HTML = ("Content-Type", "text/html")


class Sized:
    """A body whose ``len()`` lies."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"a", b"b"])


def says(
    status: Any = "200 OK", headers: Any = (), body: Any = (b"hello",), exc_info: tuple[Any, ...] = ()
) -> Callable[..., Any]:
    """An app that answers exactly this."""

    def app(request: Any, start_response: Any) -> Any:
        start_response(status, PLAIN if headers == () else headers, *exc_info)
        return body

    return app


def reads(use: Callable[[Any], object]) -> Callable[..., Any]:
    """An app that does something with its environ first."""

    def app(request: Any, start_response: Any) -> Any:
        use(request)
        start_response("200 OK", PLAIN)
        return [b"hello"]

    return app


def no_start(request: Any, start_response: Any) -> Any:
    return [b"hello"]


def no_start_empty(request: Any, start_response: Any) -> Any:
    return []


def late_start(request: Any, start_response: Any) -> Any:
    yield b""
    start_response("200 OK", PLAIN)
    yield b"hello"


def twice(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)
    return [b"hello"]


def twice_caught(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    try:
        start_response("200 OK", PLAIN)
    except AssertionError:
        pass
    return [b"hello"]


def named_arguments(request: Any, start_response: Any) -> Any:
    start_response(status="200 OK", headers=PLAIN)
    return [b"hello"]


def trapped(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    yield b"begun"
    try:
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Internal Server Error", PLAIN, sys.exc_info())
    except ValueError:
        yield b" and went on"


def trapped_at_the_end(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    yield b"begun"
    try:
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Internal Server Error", PLAIN, sys.exc_info())
    except ValueError:
        pass


def starts_at_the_end(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    body = Closing([b"a"])
    body.on_close = lambda: start_response("200 OK", PLAIN)
    return body


class Closing:
    """A body with a ``close()`` that does something."""

    def __init__(self, blocks: list[bytes]) -> None:
        self.blocks = blocks
        self.on_close: Callable[[], object] = lambda: None

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)

    def close(self) -> None:
        self.on_close()


def writes_while_iterated(request: Any, start_response: Any) -> Any:
    write = start_response("200 OK", PLAIN)

    def body() -> Iterator[bytes]:
        write(b"written")
        yield b"yielded"

    return body()


def writes(data: Any) -> Callable[..., Any]:
    def app(request: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN)(data)
        return []

    return app


def wraps_file_unstarted(request: Any, start_response: Any) -> Any:
    return request["wsgi.file_wrapper"](io.BytesIO(b"file"))


# Each line is one violation by an app: the rule and the app, and how the request is changed.
APPS = [
    pytest.param("W11", reads(lambda e: e["wsgi.input"].read()), {"body": b"abc"}, id="reads without a size"),
    pytest.param("W11", reads(lambda e: e["wsgi.input"].read(-1)), {"body": b"abc"}, id="reads everything"),
    pytest.param("W11", reads(lambda e: e["wsgi.input"].readline()), {"body": b"abc"}, id="reads an endless line"),
    pytest.param("W12", reads(lambda e: e["wsgi.input"].read(9)), {"body": b"abc"}, id="reads past the end"),
    pytest.param("W12", reads(lambda e: e["wsgi.input"].read(1)), {}, id="reads where there is no body"),
    pytest.param("W13", reads(lambda e: e["wsgi.input"].close()), {}, id="closes the input"),
    pytest.param("W13", reads(lambda e: e["wsgi.errors"].close()), {}, id="closes the error stream"),
    pytest.param("W14", reads(lambda e: e["wsgi.errors"].write(b"x")), {}, id="logs bytes"),
    pytest.param("W14", reads(lambda e: e["wsgi.errors"].writelines([b"x"])), {}, id="logs lines of bytes"),
    pytest.param("W21", named_arguments, {}, id="names the arguments"),
    pytest.param("W21", says(exc_info=(None, None)), {}, id="four arguments"),
    pytest.param("W22", twice, {}, id="starts twice"),
    pytest.param("W22", twice_caught, {}, id="starts twice and catches the error"),
    pytest.param("W23", says(b"200 OK"), {}, id="status of bytes"),
    pytest.param("W23", says(200), {}, id="status is a number"),
    pytest.param("W23", says("200"), {}, id="status without a reason"),
    pytest.param("W23", says("200 "), {}, id="status with an empty reason"),
    pytest.param("W23", says("20 OK"), {}, id="status of two digits"),
    pytest.param("W23", says("OK 200"), {}, id="status turned round"),
    pytest.param("W23", says("099 OK"), {}, id="status below 100"),
    pytest.param("W23", says("600 OK"), {}, id="status above 599"),
    pytest.param("W23", says("200 OK\r\nX: y"), {}, id="CRLF in the status"),
    pytest.param("W23", says("200 OK "), {}, id="space after the status"),
    pytest.param("W23", says("200  OK"), {}, id="two spaces in the status"),
    pytest.param("W23", says("200 €"), {}, id="status outside latin-1"),
    pytest.param("W24", says(headers=tuple(PLAIN)), {}, id="headers are a tuple"),
    pytest.param("W24", says(headers={"Content-Type": "text/plain"}), {}, id="headers are a dict"),
    pytest.param("W24", says(headers=iter(PLAIN)), {}, id="headers are an iterator"),
    pytest.param("W24", says(headers=[["Content-Type", "text/plain"]]), {}, id="a header is a list"),
    pytest.param("W24", says(headers=[("Content-Type", "text/plain", "x")]), {}, id="a header of three"),
    pytest.param("W25", says(headers=[*PLAIN, (b"X", "y")]), {}, id="header name of bytes"),
    pytest.param("W25", says(headers=[*PLAIN, ("X Y", "y")]), {}, id="space in a header name"),
    pytest.param("W25", says(headers=[*PLAIN, ("X:", "y")]), {}, id="colon in a header name"),
    pytest.param("W25", says(headers=[*PLAIN, ("X\n", "y")]), {}, id="newline in a header name"),
    pytest.param("W25", says(headers=[*PLAIN, ("", "y")]), {}, id="empty header name"),
    pytest.param("W25", says(headers=[*PLAIN, ("X-", "y")]), {}, id="header name ends with a dash"),
    pytest.param("W25", says(headers=[*PLAIN, ("Status", "200")]), {}, id="a header called Status"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", b"y")]), {}, id="header value of bytes"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", 1)]), {}, id="header value is a number"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", None)]), {}, id="header value is None"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", "a\r\nb: c")]), {}, id="CRLF in a header value"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", "a\0")]), {}, id="NUL in a header value"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", "a\x7f")]), {}, id="DEL in a header value"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", "€")]), {}, id="header value outside latin-1"),
    pytest.param("W26", says(headers=[*PLAIN, ("X", " a")]), {}, id="space before a header value"),
    pytest.param("W27", says(headers=[*PLAIN, ("Connection", "close")]), {}, id="Connection"),
    pytest.param("W27", says(headers=[*PLAIN, ("Keep-Alive", "timeout=5")]), {}, id="Keep-Alive"),
    pytest.param("W27", says(headers=[*PLAIN, ("Transfer-Encoding", "chunked")]), {}, id="Transfer-Encoding"),
    pytest.param("W28", says(headers=[*PLAIN, *[("Content-Length", "5")] * 2]), {}, id="two Content-Lengths"),
    pytest.param("W28", says(headers=[*PLAIN, ("Content-Length", "five")]), {}, id="Content-Length in words"),
    pytest.param("W28", says(headers=[*PLAIN, ("Content-Length", "-5")]), {}, id="negative Content-Length"),
    pytest.param("W28", says("204 No Content", [("Content-Length", "0")], []), {}, id="Content-Length with 204"),
    pytest.param("W28", says("304 Not Modified", [("Content-Length", "5")], []), {}, id="Content-Length with 304"),
    pytest.param("W29", says(headers=[]), {}, id="body without Content-Type"),
    pytest.param("W29", says(headers=[HTML, HTML]), {}, id="two Content-Types"),
    pytest.param("W29", says("204 No Content", PLAIN, []), {}, id="Content-Type with 204"),
    pytest.param("W29", says("304 Not Modified", PLAIN, []), {}, id="Content-Type with 304"),
    pytest.param("W29", says("304 Not Modified", [("Content-Encoding", "gzip")], []), {}, id="coding with 304"),
    pytest.param("W30", says(exc_info=(ValueError("x"),)), {}, id="exc_info is an exception"),
    pytest.param("W30", says(exc_info=((None, None, None),)), {}, id="exc_info outside an except clause"),
    pytest.param("W31", says(headers=[*PLAIN, ("ETag", "abc")]), {}, id="ETag without quotes"),
    pytest.param("W31", says(headers=[*PLAIN, ("ETag", 'w/"abc"')]), {}, id="weak ETag in lower case"),
    pytest.param("W33", trapped, {}, id="traps the late error"),
    pytest.param("W33", trapped_at_the_end, {}, id="traps the late error and ends"),
    pytest.param("W34", starts_at_the_end, {}, id="starts in close()"),
    pytest.param("W41", says(body="hello"), {}, id="returns text"),
    pytest.param("W41", says(body=b"hello"), {}, id="returns bytes"),
    pytest.param("W41", says(body=None), {}, id="returns None"),
    pytest.param("W41", says(body=5), {}, id="returns a number"),
    pytest.param("W42", says(body=["hello"]), {}, id="yields text"),
    pytest.param("W42", says(body=[bytearray(b"hello")]), {}, id="yields a bytearray"),
    pytest.param("W42", says(body=[None]), {}, id="yields None"),
    pytest.param("W42", writes("hello"), {}, id="writes text"),
    pytest.param("W43", no_start, {}, id="never starts"),
    pytest.param("W43", late_start, {}, id="starts after the first block"),
    pytest.param("W44", no_start_empty, {}, id="never starts and has no body"),
    pytest.param("W44", wraps_file_unstarted, {"wsgi.file_wrapper": FileWrapper}, id="a file without a start"),
    pytest.param("W45", says(headers=[*PLAIN, ("Content-Length", "4")]), {}, id="Content-Length too small"),
    pytest.param("W45", says(headers=[*PLAIN, ("Content-Length", "6")]), {}, id="Content-Length too big"),
    pytest.param("W45", says(headers=[*PLAIN, ("Content-Length", "6")], body=[]), {}, id="empty body"),
    pytest.param("W46", says(), {"method": "HEAD"}, id="HEAD with a body"),
    pytest.param("W46", says("204 No Content", []), {}, id="204 with a body"),
    pytest.param("W46", says("304 Not Modified", []), {}, id="304 with a body"),
    pytest.param("W47", says(body=Sized(1)), {}, id="len() too small"),
    pytest.param("W47", says(body=Sized(3)), {}, id="len() too big"),
    pytest.param("W48", writes_while_iterated, {}, id="writes from the iterable"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "app", "request_options"), APPS)
def test_catches_what_an_app_does_wrong(code: str, app: Any, request_options: dict[str, Any]) -> None:
    """Each violation by an app raises its rule, names the app, and says how to cure it."""
    options = dict(request_options)
    request = environ(options.pop("method", "GET"), "/", **options)

    with pytest.raises(LintError) as caught:
        call(lint(app), request)

    assert (caught.value.code, caught.value.culprit) == (code, app.__qualname__)
    assert RULES[code].cure in str(caught.value)


def changed(**keys: Any) -> dict[str, Any]:
    """A request of a server that has these keys wrong; None removes one."""
    request = {**environ("GET", "/"), **keys}
    return {key: value for key, value in request.items() if value is not None}


class Environ(dict[str, Any]):
    """Not a builtin dict."""


class Bare:
    """A stream without methods."""


# Each line is one violation by a server: the rule and the request.
SERVERS = [
    pytest.param("W01", Environ(environ("GET", "/")), id="a dict subclass"),
    pytest.param("W02", changed(REQUEST_METHOD=None), id="no REQUEST_METHOD"),
    pytest.param("W02", changed(**{"wsgi.input": None}), id="no wsgi.input"),
    pytest.param("W02", changed(**{"wsgi.version": None}), id="no wsgi.version"),
    pytest.param("W02", changed(SCRIPT_NAME="", PATH_INFO=None), id="no path at all"),
    pytest.param("W03", changed(PATH_INFO=b"/"), id="path of bytes"),
    pytest.param("W03", changed(PATH_INFO="/€"), id="path outside latin-1"),
    pytest.param("W03", changed(SERVER_PORT=80), id="port is a number"),
    pytest.param("W04", changed(SCRIPT_NAME="/"), id="SCRIPT_NAME is a slash"),
    pytest.param("W04", changed(SCRIPT_NAME="/a/"), id="SCRIPT_NAME ends with a slash"),
    pytest.param("W04", changed(SCRIPT_NAME="a"), id="SCRIPT_NAME without a slash"),
    pytest.param("W04", changed(PATH_INFO="a"), id="PATH_INFO without a slash"),
    pytest.param("W05", changed(HTTP_CONTENT_TYPE="text/plain"), id="HTTP_CONTENT_TYPE"),
    pytest.param("W05", changed(HTTP_CONTENT_LENGTH="0"), id="HTTP_CONTENT_LENGTH"),
    pytest.param("W06", changed(**{"wsgi.version": "1.0"}), id="version in words"),
    pytest.param("W06", changed(**{"wsgi.url_scheme": "javascript"}), id="unknown scheme"),
    pytest.param("W06", changed(**{"wsgi.input": Bare()}), id="input without methods"),
    pytest.param("W06", changed(**{"wsgi.errors": Bare()}), id="errors without methods"),
    pytest.param("W06", changed(**{"wsgi.file_wrapper": 5}), id="file_wrapper is a number"),
    pytest.param("W07", changed(REQUEST_METHOD="G T"), id="method with a space"),
    pytest.param("W07", changed(SERVER_NAME=""), id="empty SERVER_NAME"),
    pytest.param("W07", changed(CONTENT_LENGTH="-1"), id="negative CONTENT_LENGTH"),
]


@pytest.mark.parametrize(("code", "request_"), SERVERS)
def test_catches_what_a_server_sets_wrong(code: str, request_: dict[str, Any]) -> None:
    """Each wrong environ is the caller's fault."""
    with pytest.raises(LintError) as caught:
        call(lint(RecordingApp()), request_)

    assert (caught.value.code, caught.value.culprit) == (code, "the caller of RecordingApp")


def test_wants_exactly_two_positional_arguments() -> None:
    """A server that names the arguments, or passes a third, is wrong."""
    app: Any = lint(RecordingApp())

    for arguments, named in (((environ("GET", "/"),), {"start_response": print}), ((1, 2, 3), {})):
        with pytest.raises(LintError, match="W08"):
            app(*arguments, **named)


def test_wants_the_write_callable_back() -> None:
    """A ``start_response`` that returns nothing is the caller's fault."""
    with pytest.raises(LintError, match="W35"):
        lint(RecordingApp())(environ("GET", "/"), no_write)


def test_wants_bytes_from_the_input() -> None:
    """A server whose input gives text is wrong."""
    request = changed(CONTENT_LENGTH="3", **{"wsgi.input": io.StringIO("abc")})

    with pytest.raises(LintError, match="W15"):
        call(lint(RecordingApp(read=-1)), request)


def test_wants_the_body_iterated_and_closed_once() -> None:
    """Two iterations, next() without iter(), reads after close() and a second close() are the caller's fault."""
    for code, steps in (
        ("W52", [iter, iter]),
        ("W52", [next]),
        (
            "W53",
            [
                lambda body: setattr(body, "blocks", iter(body)),
                lambda body: body.close(),
                lambda body: next(body.blocks),
            ],
        ),
        ("W54", [lambda body: body.close(), lambda body: body.close()]),
    ):
        body: Any = lint(RecordingApp())(environ("GET", "/"), ignore)
        with pytest.raises(LintError, match=code):
            for step in steps:
                step(body)
        body._exchange.closed = True


def test_notices_a_body_that_was_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that nobody closed is reported when it is collected, as ``wsgiref.validate`` does."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: seen.append(hook.exc_value))

    lint(RecordingApp())(environ("GET", "/"), ignore)
    gc.collect()

    assert [error.code for error in seen] == ["W55"]


def no_write(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    """A ``start_response`` that returns nothing."""


def ignore(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    """A ``start_response`` that takes anything."""
    return lambda data: None


# --- layers -------------------------------------------------------------------------------------


def joins(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, start_response)
        try:
            return [b"".join(body)]
        finally:
            body.close()

    return layer


def joins_lazily(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, start_response)
        yield b"".join(body)
        body.close()

    return layer


def reads_ahead(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, start_response)
        blocks = iter(body)
        try:
            current = next(blocks)
            for following in blocks:
                yield current
                current = following
            yield current
        finally:
            body.close()

    return layer


def closes_twice(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, start_response)
        try:
            yield from body
        finally:
            body.close()
            body.close()

    return layer


def never_closes(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        yield from iter(app(request, start_response))

    return layer


def forgets_the_body(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        app(request, ignore)
        start_response("200 OK", PLAIN)
        return [b"mine"]

    return layer


def drops_write(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        def start(*arguments: Any) -> Any:
            start_response(*arguments)
            return lambda data: None

        return app(request, start)

    return layer


def writes_last(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        kept: list[bytes] = []

        def start(*arguments: Any) -> Any:
            start_response(*arguments)
            return kept.append

        body = app(request, start)
        try:
            yield from body
            yield from kept
        finally:
            body.close()

    return layer


def yields_by_write(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        writers: list[Any] = []

        def start(*arguments: Any) -> Any:
            writers.append(start_response(*arguments))
            return writers[-1]

        body = app(request, start)
        for block in body:
            writers[-1](block)
            break
        body.close()
        return []

    return layer


def drops_exc_info(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        return app(request, lambda status, headers, exc_info=None: start_response(status, headers))

    return layer


def consumes_input(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        request["wsgi.input"].read(2)
        return app(request, start_response)

    return layer


def claims_one_block(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        body = app(request, start_response)
        body.close()
        return Sized(1)

    return layer


def adds_hop_by_hop(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, *rest: Any) -> Any:
            return start_response(status, [*headers, ("Connection", "close")], *rest)

        return app(request, start)

    return layer


def breaks_the_path(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        return app({**request, "PATH_INFO": request["PATH_INFO"].lstrip("/")}, start_response)

    return layer


def swallows(app: Any) -> Any:
    """Catches everything, also what the linter inside says."""

    def layer(request: Any, start_response: Any) -> Any:
        try:
            return app(request, start_response)
        except Exception:
            start_response("500 Internal Server Error", PLAIN)
            return [b"sorry"]

    return layer


def fails_at_once(request: Any, start_response: Any) -> Any:
    try:
        raise ValueError("broken")
    except ValueError:
        start_response("500 Internal Server Error", PLAIN, sys.exc_info())
    return [b"error page"]


THREE: dict[str, Any] = {"body": [b"a", b"b", b"c"]}
WRITES: dict[str, Any] = {"write": [b"written "], "body": [b"yielded"]}
# Each line is one violation by a layer between two linters: the rule, the layer, the app inside.
LAYERS = [
    pytest.param("W51", joins, RecordingApp(**THREE), id="joins the blocks"),
    pytest.param("W51", joins_lazily, RecordingApp(**THREE), id="joins the blocks when asked"),
    pytest.param("W51", reads_ahead, RecordingApp(**THREE), id="reads one block ahead"),
    pytest.param("W54", closes_twice, RecordingApp(), id="closes twice"),
    pytest.param("W55", never_closes, RecordingApp(), id="never closes"),
    pytest.param("W55", forgets_the_body, RecordingApp(), id="answers itself and never closes"),
    pytest.param("W50", drops_write, RecordingApp(**WRITES), id="drops what was written"),
    pytest.param("W50", writes_last, RecordingApp(**WRITES), id="sends what was written last"),
    pytest.param("W49", yields_by_write, RecordingApp(), id="writes what was yielded"),
    pytest.param("W32", drops_exc_info, fails_at_once, id="drops exc_info"),
    pytest.param("W16", consumes_input, RecordingApp(read=-1), id="consumes the input"),
    pytest.param("W47", claims_one_block, RecordingApp(), id="lies about len()"),
    pytest.param("W27", adds_hop_by_hop, RecordingApp(), id="adds a hop-by-hop header"),
    pytest.param("W04", breaks_the_path, RecordingApp(), id="breaks the path"),
    pytest.param("W22", swallows, twice, id="swallows what the linter says"),
]


@pytest.mark.parametrize(("code", "layer", "app"), LAYERS)
def test_catches_what_a_layer_does_wrong(code: str, layer: Any, app: Any) -> None:
    """With a linter on both sides, what a layer makes of the app's answer is seen too."""
    with pytest.raises(LintError) as caught:
        call(lint(layer(lint(app))), environ("POST", "/path", body=b"input"))

    assert caught.value.code == code
    assert code == "W22" or layer.__name__ in caught.value.culprit


def test_every_rule_has_its_violation() -> None:
    """No rule of the linter is without a test that breaks it."""
    tested = {parameter.values[0] for parameter in (*APPS, *SERVERS, *LAYERS)}

    assert set(RULES) - tested == {"W08", "W15", "W35", "W52", "W53"}


# --- what is allowed ----------------------------------------------------------------------------


def generator(request: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    yield b""
    yield b"hello"


def passes(app: Any) -> Any:
    def layer(request: Any, start_response: Any) -> Any:
        return app(request, start_response)

    return layer


@pytest.mark.parametrize(
    "app",
    [
        RecordingApp(),
        RecordingApp(late=True),
        RecordingApp(write=[b"a"], body=[b"b"]),
        RecordingApp(late=True, write=[b"a"]),
        RecordingApp(body=[]),
        RecordingApp(body=[b"", b"a", b""]),
        RecordingApp(read=-1),
        generator,
        says(body=(b"a", b"b")),
        says(body=[b"a"]),
        says("302 Found", [("Location", "/")], []),
        says(headers=[*PLAIN, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "caf\xe9")]),
        fails_at_once,
        reads(lambda e: e["wsgi.errors"].write("fine")),
        reads(lambda e: list(e["wsgi.input"])),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_lets_good_apps_pass(app: Any, method: str) -> None:
    """What is right stays silent, also beside the validator of the standard library and nested three deep."""
    bare = call(app, environ(method, "/", body=b"in" if method == "POST" else b""))

    nested = call(lint(passes(lint(lint(app)))), environ(method, "/", body=b"in" if method == "POST" else b""))

    assert (nested.status, nested.headers, nested.blocks) == (bare.status, bare.headers, bare.blocks)


def test_keeps_len_and_the_file_wrapper() -> None:
    """The linter hides neither ``len()`` nor a ``wsgi.file_wrapper`` (wsgiref.validate hides both)."""
    sized: Any = lint(says(body=[b"a"]))(environ("GET", "/"), ignore)
    assert len(sized) == 1

    given = FileWrapper(io.BytesIO(b"file"))
    body = lint(says(body=given))(changed(**{"wsgi.file_wrapper": FileWrapper}), ignore)

    assert body is given
    body.close()
    assert given.filelike.closed


def test_notices_a_file_that_was_never_closed() -> None:
    """A file wrapper counts like any body: the layer must close it."""
    given = FileWrapper(io.BytesIO(b"file"))
    request = changed(**{"wsgi.file_wrapper": FileWrapper})

    with pytest.raises(LintError, match="W55"):
        call(lint(forgets_the_body(lint(says(body=given)))), request)


def test_lets_the_app_s_exception_pass() -> None:
    """What the app raises is no violation and stays the exception that it is."""
    for app in (RecordingApp(raises=KeyError("k")), RecordingApp(raises_after=KeyError("k"))):
        with pytest.raises(KeyError):
            call(lint(passes(lint(app))), environ("GET", "/"))


def test_gives_the_streams_back() -> None:
    """After the request, the environ holds the server's own streams again."""
    request = environ("POST", "/", body=b"abc")
    before = (request["wsgi.input"], request["wsgi.errors"])

    call(lint(RecordingApp(read=-1)), request)

    assert (request["wsgi.input"], request["wsgi.errors"]) == before


def test_works_beside_the_standard_validator() -> None:
    """Both linters can stand around the same app."""
    app: Any = validator(lint(RecordingApp()))

    assert call(app, environ("GET", "/")).body == b"hello"
