"""The rules of the conformance suite: each a scripted app, a client, and what must come of it."""

from __future__ import annotations

import contextvars
import gc
import io
import sys
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .apps import RecordingApp
from .client import environ
from .lint import LintError, lint

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["RULES", "Answer", "NotReachedError", "Rule", "Trial", "ViolationError", "serve"]

TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
PEP = "PEP 3333"


class ViolationError(AssertionError):
    """The middleware broke the rule under test; the text says what was seen."""


class NotReachedError(Exception):
    """The middleware answered itself, so the rule could not be tried."""


class Rule(NamedTuple):
    """One rule of the suite."""

    #: Such as ``C4``.
    code: str
    #: What must hold, in a few words.
    says: str
    #: Where it comes from.
    source: str
    #: The sentence there.
    sentence: str
    #: ``must``, or ``should`` where the middleware only loses something.
    level: str
    #: Runs the scenario; raises :class:`ViolationError`.
    check: Callable[[Trial], None]


RULES: dict[str, Rule] = {}


def rule(
    code: str, says: str, source: str, sentence: str, *, level: str = "must"
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Register the scenario below."""

    def register(check: Callable[[Trial], None]) -> Callable[[Trial], None]:
        RULES[code] = Rule(code, says, source, sentence, level, check)
        return check

    return register


# --- the server ---------------------------------------------------------------------------------


class Answer:
    """What the server saw of one request; whatever was raised is in ``error``."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.blocks: list[bytes] = []
        self.error: BaseException | None = None
        self.body: Any = ()
        self.sent = False

    @property
    def raw(self) -> bytes:
        """All blocks."""
        return b"".join(self.blocks)

    @property
    def content(self) -> bytes:
        """All blocks, without the content coding that a compressing middleware chose."""
        if self.values("content-encoding") == ["gzip"]:
            try:
                return zlib.decompress(self.raw, wbits=31)
            except zlib.error:
                return self.raw
        return self.raw

    def values(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


def serve(app: WSGIApplication, request: dict[str, Any], *, blocks: int | None = None, refuses: bool = False) -> Answer:
    """Serve one request as the example gateway of PEP 3333 does.

    Args:
        app: The application.
        request: Its environ.
        blocks: Leave after so many blocks; 0 never iterates.
        refuses: ``start_response`` raises, as where a server finds a bad header.
    """
    answer = Answer()

    def write(data: bytes) -> None:
        answer.sent = True
        answer.blocks.append(data)

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        try:
            if refuses:
                raise RefusedError("the server refuses these headers")
            if exc_info:
                if answer.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            elif answer.status:
                raise AssertionError("start_response was called twice without exc_info")
            answer.status, answer.headers = status, headers
        finally:
            exc_info = None
        return write

    try:
        try:
            answer.body = app(request, start_response)
            if blocks != 0:
                for block in answer.body:
                    if block and not answer.status:
                        raise AssertionError("a block came before start_response")
                    answer.sent = answer.sent or bool(block)
                    answer.blocks.append(block)
                    if blocks is not None and len(answer.blocks) >= blocks:
                        break
                else:
                    if not answer.status:
                        raise AssertionError("start_response was never called")
        finally:
            if hasattr(answer.body, "close"):
                answer.body.close()
    except BaseException as error:  # noqa: BLE001 - the suite judges what was raised
        answer.error = error
    return answer


class RefusedError(ValueError):
    """Raised by a server's ``start_response``."""


class Trial:
    """One middleware under one rule.

    Args:
        build: Wraps an app in the middleware.
        path: Request target that reaches the app inside.
        headers: Request headers, as for :func:`lamella.stack.testing.environ`.
    """

    def __init__(self, build: Callable[[WSGIApplication], WSGIApplication], path: str, headers: dict[str, Any]) -> None:
        self.build = build
        self.path = path
        self.headers = headers

    def request(self, method: str = "GET", body: bytes = b"", /, **keys: Any) -> dict[str, Any]:
        """Build a request; a key that is None is left out."""
        made = environ(method, self.path, body=body, **{**self.headers, "wsgi.errors": io.StringIO(), **keys})
        return {key: value for key, value in made.items() if value is not None}

    def serve(self, app: Any, request: dict[str, Any] | None = None, **options: Any) -> Answer:
        """Wrap *app* and serve one request."""
        return serve(self.build(app), request or self.request(), **options)

    def good(self, app: Any, request: dict[str, Any] | None = None, **options: Any) -> Answer:
        """Serve a request that nothing may be raised by, and that reaches the app."""
        answer = self.serve(app, request, **options)
        unharmed(answer)
        reached(app)
        return answer


def expect(holds: object, seen: str) -> None:
    """Raise :class:`ViolationError` where the rule does not hold."""
    if not holds:
        raise ViolationError(seen)


def unharmed(answer: Answer) -> None:
    """Nothing was raised."""
    if answer.error is not None:
        raise ViolationError(f"raised {type(answer.error).__name__}: {answer.error}") from answer.error


def reached(app: Any) -> None:
    """The app inside was called."""
    if not getattr(app, "called", True):
        raise NotReachedError


def once(app: RecordingApp) -> None:
    """The app's body was closed once for each call."""
    expect(app.closed == app.called, f"close() of the app's body came {app.closed} times in {app.called} request(s)")


class App:
    """An app made of one function; counts its calls."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function
        self.called = 0
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.called += 1
        self.environ = dict(environ)
        return self.function(environ, start_response)


def raised(error: BaseException) -> Any:
    """Return the ``exc_info`` of *error*, with a traceback."""
    try:
        raise error
    except BaseException:  # noqa: BLE001
        return sys.exc_info()


# --- A: the environ -----------------------------------------------------------------------------


@rule(
    "A1",
    "environ is a builtin dict, passed by position",
    PEP,
    "This object must be a builtin Python dictionary (not a subclass, UserDict or other dictionary emulation).",
)
def a1(trial: Trial) -> None:
    def app(*arguments: Any, **named: Any) -> list[bytes]:
        seen.append((arguments, named))
        start_response = arguments[1] if len(arguments) > 1 else named["start_response"]
        start_response("200 OK", list(TEXT))
        return [b"hello"]

    seen: list[Any] = []
    unharmed(trial.serve(app))
    if not seen:
        raise NotReachedError
    arguments, named = seen[0]
    expect(not named and len(arguments) == 2, f"called the app with {len(arguments)} arguments by position")
    expect(type(arguments[0]) is dict, f"environ is a {type(arguments[0]).__name__}")


@rule(
    "A2",
    "CGI variables are native latin-1 strings",
    PEP,
    "It is a violation of this specification for any CGI variable's value to be of any type other than str.",
)
def a2(trial: Trial) -> None:
    app = RecordingApp()
    trial.good(app, trial.request(HTTP_X_PROBE="caf\xe9"))
    for key, value in app.environ.items():
        if "." not in key:
            expect(type(value) is str, f"environ[{key!r}] is {type(value).__name__}")
            expect(value.isascii() or max(value) <= "\xff", f"environ[{key!r}] has a character outside latin-1")


@rule(
    "A3",
    "the request body reaches the app whole",
    PEP,
    "wsgi.input: an input stream from which the HTTP request body bytes can be read.",
)
def a3(trial: Trial) -> None:
    body = b"name=value&other=2"
    for content_type in ("application/x-www-form-urlencoded", "application/json", None):
        app = RecordingApp(read=-1)
        trial.good(app, trial.request("POST", body, CONTENT_TYPE=content_type))
        expect(app.input == body, f"the app read {app.input!r} of {body!r}")


@rule(
    "A4",
    "every method reaches the app as it is, with its body",
    "RFC 9110 section 9.1",
    "The method token is case-sensitive; additional methods have been specified for use in HTTP.",
)
def a4(trial: Trial) -> None:
    tried = 0
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"):
        app = RecordingApp(read=-1)
        unharmed(trial.serve(app, trial.request(method, b"payload")))
        if app.called:
            tried += 1
            expect(app.environ["REQUEST_METHOD"] == method, f"{method} became {app.environ['REQUEST_METHOD']}")
            expect(app.input == b"payload", f"{method}: the app read {app.input!r} of b'payload'")
    if not tried:
        raise NotReachedError


@rule(
    "A5",
    "variables that may be absent may be absent",
    PEP,
    "The following variables must be present, unless their value would be an empty string, in which case they may be "
    "omitted.",
)
def a5(trial: Trial) -> None:
    for key in ("SCRIPT_NAME", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_HOST", "REMOTE_ADDR"):
        answer = trial.serve(RecordingApp(), trial.request(**{key: None}))
        if answer.error is not None:
            raise ViolationError(f"without {key}: {answer.error!r}") from answer.error
    answer = trial.serve(RecordingApp(), trial.request(SCRIPT_NAME="/mounted", PATH_INFO=None))
    if answer.error is not None:
        raise ViolationError(f"without PATH_INFO: {answer.error!r}") from answer.error


@rule(
    "A6",
    "a path that is not UTF-8 is no error",
    PEP,
    "The content of native strings must still be translatable to bytes via the Latin-1 encoding.",
)
def a6(trial: Trial) -> None:
    app = RecordingApp()
    path = "/\xff\xfe"
    unharmed(trial.serve(app, trial.request(PATH_INFO=path)))
    if app.called:
        got = app.environ.get("SCRIPT_NAME", "") + app.environ.get("PATH_INFO", "")
        expect(got == path, f"the path {path!r} became {got!r}")


@rule(
    "A7",
    "the app may do to environ what it wants",
    PEP,
    "The application is allowed to modify the dictionary in any way it desires.",
)
def a7(trial: Trial) -> None:
    def clears(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", list(TEXT))
        environ.clear()
        return [b"hello"]

    answer = trial.good(App(clears))
    expect(answer.content == b"hello", f"the body became {answer.content!r}")


@rule(
    "A8",
    "what is rewritten for the app stays inside",
    PEP,
    "Routing a request to different application objects based on the target URL, after rewriting the environ "
    "accordingly.",
    level="should",
)
def a8(trial: Trial) -> None:
    app = RecordingApp()
    request = trial.request(SCRIPT_NAME="/mounted", QUERY_STRING="q=1")
    before = dict(request)
    trial.good(app, request)
    for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD"):
        expect(request.get(key) == before[key], f"outside, {key} changed from {before[key]!r} to {request.get(key)!r}")


@rule(
    "A9",
    "it works mounted under a prefix",
    PEP,
    "SCRIPT_NAME: the initial portion of the request URL's path that corresponds to the application object, so that "
    "the application knows its virtual location.",
)
def a9(trial: Trial) -> None:
    plain, mounted = RecordingApp(), RecordingApp()
    trial.good(plain)
    unharmed(trial.serve(mounted, trial.request(SCRIPT_NAME="/mounted/here")))
    expect(mounted.called, "mounted under /mounted/here, the request no longer reaches the app")
    want = "/mounted/here" + plain.environ.get("SCRIPT_NAME", "") + plain.environ.get("PATH_INFO", "")
    got = mounted.environ.get("SCRIPT_NAME", "") + mounted.environ.get("PATH_INFO", "")
    expect(got == want, f"SCRIPT_NAME + PATH_INFO is {got!r}, not {want!r}")


class _Strict(io.BytesIO):
    """The input of a connection that stays open: reading past the body would hang."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.length = len(body)
        self.overread = ""

    def read(self, size: Any = -1, /) -> bytes:
        if size is None or size < 0 or size > self.length - self.tell():
            self.overread = f"read({size}) with {self.length - self.tell()} bytes left"
        return super().read(size)


@rule(
    "A10",
    "reads of the request body are bounded",
    PEP,
    "The application should not attempt to read more data than is specified by the CONTENT_LENGTH variable.",
)
def a10(trial: Trial) -> None:
    for method, body in (("POST", b"input"), ("GET", b"")):
        stream = _Strict(body)
        app = RecordingApp(read=-1 if body else 0)
        trial.good(app, trial.request(method, body, **{"wsgi.input": stream}))
        expect(not stream.overread, f"called wsgi.input.{stream.overread}: a real connection would hang")


# --- B: start_response --------------------------------------------------------------------------


@rule(
    "B1",
    "start_response takes exc_info as its third argument",
    PEP,
    "The second parameter passed to the application object is a callable of the form start_response(status, "
    "response_headers, exc_info=None).",
)
def b1(trial: Trial) -> None:
    def three(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", list(TEXT), None)
        return [b"hello"]

    answer = trial.good(App(three))
    expect(answer.content == b"hello", f"the body became {answer.content!r}")


@rule("B2", "what the app writes arrives, before what it yields", PEP, "It must return a write(body_data) callable.")
def b2(trial: Trial) -> None:
    def writes(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", list(TEXT))
        expect(callable(write), f"start_response returned {write!r}")
        write(b"wr")
        write(b"itten ")
        return [b"yielded"]

    answer = trial.good(App(writes))
    expect(answer.content == b"written yielded", f"the body became {answer.content!r}")


@rule(
    "B3",
    "headers arrive each for itself, in order",
    "RFC 9110 section 5.3",
    "The order in which field lines with the same name are received is significant; Set-Cookie cannot be combined.",
)
def b3(trial: Trial) -> None:
    mine = [("Set-Cookie", "a=1"), ("X-Probe", "caf\xe9"), ("Set-Cookie", "b=2"), ("X-Probe", "two")]
    answer = trial.good(RecordingApp(headers=[*TEXT, *mine]))
    for name in ("set-cookie", "x-probe"):
        want = [value for key, value in mine if key.lower() == name]
        got = [value for value in answer.values(name) if value in want or name == "x-probe"]
        expect(got == want, f"{name}: {want!r} became {got!r}")


@rule(
    "B4",
    "the status arrives word for word",
    PEP,
    'The status parameter is a status string of the form "999 Message here".',
)
def b4(trial: Trial) -> None:
    answer = trial.good(RecordingApp(status="299 Quite All Right"))
    expect(answer.status == "299 Quite All Right", f"the status became {answer.status!r}")


@rule(
    "B5",
    "no hop-by-hop header is sent",
    PEP,
    "Applications and middleware are forbidden from using HTTP/1.1 hop-by-hop features or headers.",
)
def b5(trial: Trial) -> None:
    from lamella.stack.kernel.http import HOP_BY_HOP

    for protocol in ("HTTP/1.1", "HTTP/1.0"):
        answer = trial.good(RecordingApp(), trial.request(SERVER_PROTOCOL=protocol))
        for name, value in answer.headers:
            expect(name.lower() not in HOP_BY_HOP, f"it sends {name}: {value}")


def _changes_its_mind(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", list(TEXT))
    try:
        raise KeyError("changed my mind")
    except KeyError:
        start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
    return [b"error page"]


@rule(
    "B6",
    "exc_info replaces an answer that was not sent",
    PEP,
    "If exc_info is supplied, and no HTTP headers have been output yet, start_response should replace the "
    "currently-stored HTTP response headers with the newly-supplied ones.",
)
def b6(trial: Trial) -> None:
    answer = trial.good(App(_changes_its_mind))
    expect(answer.status.startswith("500"), f"the status is {answer.status!r}, not that of the app's error page")


@rule(
    "B7",
    "exc_info after the first block raises again, through every layer",
    PEP,
    "If exc_info is provided, and the HTTP headers have already been sent, start_response must raise an error. The "
    "application must not trap any exceptions raised by start_response.",
)
def b7(trial: Trial) -> None:
    error = KeyError("too late")

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        yield b"begun"
        try:
            raise error
        except KeyError:
            start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
        yield b"never"

    app = App(late)
    answer = trial.serve(app)
    reached(app)
    expect(answer.error is not None, "the app's late error vanished; the client takes the answer for complete")
    expect(answer.error is error, f"{answer.error!r} came out instead of the app's own error")


@rule(
    "B8",
    "a second start_response without exc_info is an error",
    PEP,
    "It is a fatal error to call start_response without the exc_info argument if start_response has already been "
    "called within the current invocation of the application.",
)
def b8(trial: Trial) -> None:
    noticed: list[BaseException] = []

    def twice(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", list(TEXT))
        try:
            start_response("201 Created", list(TEXT))
        except BaseException as error:
            noticed.append(error)
            raise
        return [b"hello"]

    app = App(twice)
    answer = trial.serve(app)
    reached(app)
    expect(noticed or answer.error is not None, "a second start_response without exc_info was accepted")


class _MarkedError(Exception):
    """An error that can be looked for."""


@rule(
    "B9",
    "no reference to exc_info is kept",
    PEP,
    "Middleware implementing start_response should ensure that no reference is held to the exc_info parameter beyond "
    "the duration of the function's execution.",
    level="should",
)
def b9(trial: Trial) -> None:
    kept: list[weakref.ref[BaseException]] = []

    def fails(environ: Any, start_response: Any) -> list[bytes]:
        try:
            raise _MarkedError
        except _MarkedError as error:
            kept.append(weakref.ref(error))
            start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
        return [b"error page"]

    layer = trial.build(App(fails))
    serve(layer, trial.request())
    gc.collect()
    if not kept:
        raise NotReachedError
    expect(kept[0]() is None, "the exception is still referred to after the request")
    del layer


@rule(
    "B10",
    "the app's header list is not changed in place",
    PEP,
    "It must be a Python list, and the server may change its contents: one that the app keeps would grow with each "
    "request.",
    level="should",
)
def b10(trial: Trial) -> None:
    mine = [*TEXT, ("X-Probe", "1")]

    def keeps(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", mine)
        return [b"hello"]

    trial.good(App(keeps))
    expect(mine == [*TEXT, ("X-Probe", "1")], f"the app's own list became {mine!r}")


# --- C: the body --------------------------------------------------------------------------------


@rule(
    "C1",
    "start_response may come inside the first next()",
    PEP,
    "This invocation may be performed by the iterable's first iteration, so servers must not assume that "
    "start_response() has been called before they begin iterating over the iterable.",
)
def c1(trial: Trial) -> None:
    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        yield b"hello"

    answer = trial.good(App(late))
    expect(answer.status == "200 OK", f"the status became {answer.status!r}")
    expect(answer.content == b"hello", f"the body became {answer.content!r}")


@rule(
    "C2",
    "start_response may come late and no block after it",
    PEP,
    "The application object must always return an iterable yielding zero or more bytestrings.",
)
def c2(trial: Trial) -> None:
    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        yield from ()

    answer = trial.good(App(late))
    expect(answer.status == "200 OK", f"the status became {answer.status!r}")
    expect(answer.content == b"", f"the body became {answer.content!r}")


_CLOSE = (
    "If the iterable returned by the application has a close() method, the server or gateway must call that method "
    "upon completion of the current request, whether the request was completed normally, or terminated early due to an "
    "application error during iteration or an early disconnect of the browser."
)


@rule("C3", "close() comes once, at the end", PEP, _CLOSE)
def c3(trial: Trial) -> None:
    for late in (False, True):
        app = RecordingApp(body=[b"a", b"b"], late=late)
        trial.good(app)
        once(app)


@rule("C4", "close() comes once when the client leaves", PEP, _CLOSE)
def c4(trial: Trial) -> None:
    for late in (False, True):
        app = RecordingApp(body=[b"a", b"b", b"c"], late=late)
        trial.good(app, blocks=1)
        once(app)


@rule("C5", "close() comes once when nothing was asked for", PEP, _CLOSE)
def c5(trial: Trial) -> None:
    app = RecordingApp(body=[b"a", b"b", b"c"])
    unharmed(trial.serve(app, blocks=0))
    once(app)


@rule("C6", "close() comes once when the body raises", PEP, _CLOSE)
def c6(trial: Trial) -> None:
    for late in (False, True):
        app = RecordingApp(body=[b"a"], raises_after=ValueError("in the body"), late=late)
        trial.serve(app)
        reached(app)
        once(app)


@rule(
    "C7",
    "a generator's finally runs at close()",
    PEP,
    "The close() method requirement is to support resource release by the application.",
)
def c7(trial: Trial) -> None:
    released: list[bool] = []
    bodies: list[Any] = []  # kept, so that only close() can end them

    def generator(start_response: Any) -> Iterator[bytes]:
        try:
            start_response("200 OK", list(TEXT))
            yield b"a"
            yield b"b"
        finally:
            released.append(True)

    def app(environ: Any, start_response: Any) -> Any:
        bodies.append(generator(start_response))
        return bodies[-1]

    unharmed(trial.serve(app, blocks=1))
    expect(len(released) == len(bodies), "the generator was not closed when the client left")
    if not bodies:
        raise NotReachedError


_BLOCK = (
    "A middleware component must yield at least one value each time its underlying application yields a value. If the "
    "middleware cannot yield any other value, it must yield an empty bytestring."
)


def _in_step(trial: Trial, app: Any, given: list[bytes]) -> None:
    """Ask block for block, and compare with what the app has given."""
    request = trial.request()
    body = trial.build(app)(request, lambda status, headers, exc_info=None: _ignore)
    try:
        for asked, _ in enumerate(body, 1):
            expect(len(given) <= asked, f"the app had given {len(given)} blocks when block {asked} came out")
    finally:
        getattr(body, "close", _ignore)()
    reached(app)


def _ignore(*data: bytes) -> None:
    """A ``write()``."""


@rule(
    "C8",
    "blocks are neither joined nor read ahead",
    PEP,
    "Middleware components must not block iteration waiting for multiple values from an application iterable.",
)
def c8(trial: Trial) -> None:
    class Steps:
        def __iter__(self) -> Iterator[bytes]:
            for block in (b"one ", b"two ", b"three"):
                given.append(block)
                yield block

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(TEXT))
        return Steps()

    given: list[bytes] = []
    _in_step(trial, App(app), given)


@rule(
    "C8b",
    "blocks of a generator are neither joined nor read ahead",
    PEP,
    "Middleware components must not block iteration waiting for multiple values from an application iterable.",
)
def c8b(trial: Trial) -> None:
    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(TEXT))
        for block in (b"one ", b"two ", b"three"):
            given.append(block)
            yield block

    given: list[bytes] = []
    _in_step(trial, App(generator), given)


@rule("C9", "a block comes out for each that goes in, empty ones too", PEP, _BLOCK)
def c9(trial: Trial) -> None:
    blocks = [b"a", b"", b"b", b"", b"c"]
    answer = trial.good(RecordingApp(body=blocks))
    expect(len(answer.blocks) >= len(blocks), f"{len(blocks)} blocks went in, {len(answer.blocks)} came out")


@rule(
    "C10",
    "it returns as soon as the app does",
    PEP,
    "Middleware must return an iterable as soon as its underlying application returns an iterable.",
)
def c10(trial: Trial) -> None:
    app = RecordingApp(body=[b"a", b"b"])
    body = trial.build(app)(trial.request(), lambda status, headers, exc_info=None: _ignore)
    taken = app.yielded
    getattr(body, "close", _ignore)()
    expect(not taken, f"it took {taken} blocks before it returned")


@rule(
    "C11",
    "a body may be empty",
    PEP,
    "The application object must always return an iterable yielding zero or more bytestrings.",
)
def c11(trial: Trial) -> None:
    for name, body in (("[]", list), ("()", tuple), ("iter(())", lambda: iter(()))):

        def app(environ: Any, start_response: Any, body: Any = body) -> Any:
            start_response("200 OK", list(TEXT))
            return body()

        answer = trial.serve(app)
        if answer.error is not None:
            raise ViolationError(f"an empty body, {name}: raised {answer.error!r}") from answer.error
        expect(answer.content == b"" or answer.status != "200 OK", f"{name} became {answer.content!r}")


class _Again:
    """Can be iterated many times, and has nothing else."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        yield b"b"


class _Items:
    """Iterable by index only, the oldest protocol."""

    def __getitem__(self, index: int) -> bytes:
        return (b"a", b"b")[index]


@rule(
    "C12",
    "any iterable is a body",
    PEP,
    "Or by the application being a class whose instances are iterable. Regardless of how it is accomplished, the "
    "application object must always return an iterable yielding zero or more bytestrings.",
)
def c12(trial: Trial) -> None:
    for body in ((b"a", b"b"), _Again(), _Items(), {b"a": 1, b"b": 2}):

        def app(environ: Any, start_response: Any, body: Any = body) -> Any:
            start_response("200 OK", list(TEXT))
            return body

        name = type(body).__name__
        answer = trial.serve(app)
        if answer.error is not None:
            raise ViolationError(f"a body of type {name}: raised {answer.error!r}") from answer.error
        expect(answer.content == b"ab" or answer.status != "200 OK", f"a {name} of a, b became {answer.content!r}")


@rule(
    "C13",
    "len() of the body is its number of blocks",
    PEP,
    "If the iterable returned by the application provides a working __len__() method, it must return an accurate "
    "result.",
)
def c13(trial: Trial) -> None:
    for blocks in ([b"a"], [b"a", b"b", b"c"]):

        def app(environ: Any, start_response: Any, blocks: Any = blocks) -> Any:
            start_response("200 OK", list(TEXT))
            return list(blocks)

        body: Any = trial.build(app)(trial.request(), lambda status, headers, exc_info=None: _ignore)
        try:
            length = len(body)
        except TypeError:
            length = None
        count = len(list(body))
        getattr(body, "close", _ignore)()
        expect(length is None or length == count, f"len() says {length}, {count} blocks came")


class _File:
    """A server's file wrapper."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file, self.size = file, size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.size), b"")

    def close(self) -> None:
        self.file.close()


@rule(
    "C14",
    "a wsgi.file_wrapper reaches the server as it is",
    PEP,
    "If the iterable is an instance of the file wrapper, the server may use platform-specific means to transmit it.",
    level="should",
)
def c14(trial: Trial) -> None:
    files: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", "4")])
        files.append(environ["wsgi.file_wrapper"](io.BytesIO(b"file")))
        return files[-1]

    answer = trial.serve(app, trial.request(**{"wsgi.file_wrapper": _File}))
    if not files:
        unharmed(answer)
        raise NotReachedError
    expect(answer.body is files[0], f"the file wrapper became a {type(answer.body).__name__}: no sendfile")


# --- D: HTTP ------------------------------------------------------------------------------------


@rule(
    "D1",
    "Content-Length is the number of bytes",
    "RFC 9110 section 8.6",
    "A server MUST NOT send a Content-Length header field with a value known to be incorrect.",
)
def d1(trial: Trial) -> None:
    for headers in ([("Content-Length", "5")], []):
        answer = trial.good(RecordingApp(headers=[*TEXT, *headers]))
        lengths = answer.values("content-length")
        expect(len(lengths) <= 1, f"Content-Length stands there {len(lengths)} times")
        expect(
            not lengths or lengths[0] == str(len(answer.raw)),
            f"Content-Length is {lengths}, the body has {len(answer.raw)} bytes",
        )


@rule(
    "D2",
    "HEAD has no content and the headers of GET",
    "RFC 9110 section 9.3.2",
    "The HEAD method is identical to GET except that the server MUST NOT send content in the response.",
)
def d2(trial: Trial) -> None:
    length = ("Content-Length", "5")
    get = trial.good(RecordingApp(headers=[*TEXT, length]))
    head = trial.good(RecordingApp(headers=[*TEXT, length], body=[]), trial.request("HEAD"))
    expect(head.raw == b"", f"HEAD was answered with {len(head.raw)} bytes")
    lengths = head.values("content-length")
    want = get.values("content-length")
    expect(not lengths or lengths == want, f"Content-Length is {lengths} with HEAD and {want} with GET")


@rule(
    "D3",
    "204 and 304 have no content",
    "RFC 9110 section 6.4.1",
    "All 1xx, 204, and 304 responses do not include content. A server MUST NOT send a Content-Length header field in "
    "any response with a status code of 1xx or 204 (section 8.6).",
)
def d3(trial: Trial) -> None:
    for status in ("204 No Content", "304 Not Modified"):
        answer = trial.good(RecordingApp(status=status, headers=[("ETag", '"probe"')], body=[]))
        expect(answer.status[:3] == status[:3], f"{status} became {answer.status}")
        expect(answer.raw == b"", f"{status} was given {len(answer.raw)} bytes of content")
        for name in ("content-length", "content-type", "content-encoding"):
            expect(not answer.values(name), f"{status} was given {name}: {answer.values(name)}")
        expect(answer.values("etag"), f"{status} lost its ETag")


# --- E: errors ----------------------------------------------------------------------------------


@rule(
    "E1",
    "what the app raises reaches the server, or a whole error page does",
    PEP,
    "In general, applications should try to trap their own, internal errors; otherwise the server gets them.",
)
def e1(trial: Trial) -> None:
    error = ValueError("the app's own")
    app = RecordingApp(raises=error)
    answer = trial.serve(app)
    reached(app)
    replaced = answer.error is None and answer.status.startswith("5")
    expect(answer.error is error or replaced, f"the app's error became {answer.error or answer.status!r}")
    begun = RecordingApp(body=[b"begun"], raises_after=error)
    answer = trial.serve(begun)
    expect(answer.error is not None, "an error in the middle of the body vanished: the client takes it for complete")


class _Stop(BaseException):
    """As KeyboardInterrupt, SystemExit and GreenletExit: no Exception."""


@rule(
    "E2",
    "what is no Exception passes through",
    "Python, KeyboardInterrupt and SystemExit",
    "The exception inherits from BaseException so as to not be accidentally caught by code that catches Exception.",
)
def e2(trial: Trial) -> None:
    for options in ({"raises": _Stop()}, {"body": [b"a"], "raises_after": _Stop()}):
        app = RecordingApp(**options)
        answer = trial.serve(app)
        reached(app)
        expect(isinstance(answer.error, _Stop), f"SystemExit and its like became {answer.error or answer.status!r}")


@rule(
    "E3",
    "an error of the server's start_response passes through and closes the body",
    PEP,
    "Servers should check for errors in the headers at the time start_response is called, so that an error can be "
    "raised while the application is still running.",
)
def e3(trial: Trial) -> None:
    for late in (False, True):
        app = _Bodies(late)
        answer = trial.serve(app, refuses=True)
        reached(app)
        expect(answer.error is not None, "the server's refusal vanished")
        expect(isinstance(answer.error, RefusedError), f"the server's refusal became {answer.error!r}")
        closed = [body.closed for body in app.bodies]
        expect(closed == [1] * len(closed), f"close() came {closed} times after the server's refusal")


class _Bodies(RecordingApp):
    """Keeps the bodies that it returned: where ``start_response`` raises at once, there is none."""

    def __init__(self, late: bool) -> None:
        super().__init__(late=late)
        self.bodies: list[_CountsClose] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.bodies.append(_CountsClose(super().__call__(environ, start_response)))
        return self.bodies[-1]


class _CountsClose:
    """A body that counts its ``close()``."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self.body = body
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        self.closed += 1


# --- F: threads and contexts --------------------------------------------------------------------

_THREADS = 4


@rule(
    "F1",
    "requests in other threads are not mixed up",
    PEP,
    "wsgi.multithread should evaluate true if the application object may be simultaneously invoked by another thread "
    "in the same process.",
)
def f1(trial: Trial) -> None:
    meeting = threading.Barrier(_THREADS)

    def together() -> None:
        try:
            meeting.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            pass  # a layer that serves one at a time mixes up nothing

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        name = environ.get("QUERY_STRING", "")
        together()
        start_response("200 OK", [*TEXT, ("X-Probe", name)])
        together()
        return [name.encode()]

    def ask(name: str) -> None:
        answers[name] = serve(layer, trial.request(QUERY_STRING=name))

    layer = trial.build(app)
    answers: dict[str, Answer] = {}
    threads = [threading.Thread(target=ask, args=(f"n={number}",)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, answer in sorted(answers.items()):
        unharmed(answer)
        if answer.status == "200 OK":
            expect(answer.values("x-probe") == [name], f"request {name} got the headers of {answer.values('x-probe')}")
            expect(answer.content == name.encode(), f"request {name} got the body of {answer.content!r}")


_OUTSIDE: contextvars.ContextVar[str] = contextvars.ContextVar("lamella.conformance.outside", default="unset")
_WITHIN: contextvars.ContextVar[str] = contextvars.ContextVar("lamella.conformance.within", default="unset")


@rule(
    "F2",
    "app and body run in the context of the request",
    "PEP 567",
    "Context variables set by the server are seen by the app, and those set by the app by its body.",
)
def f2(trial: Trial) -> None:
    seen: dict[str, str] = {}

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            seen["body"] = _WITHIN.get()
            seen["body, from outside"] = _OUTSIDE.get()
            yield b"hello"

        def close(self) -> None:
            seen["close()"] = _WITHIN.get()

    def app(environ: Any, start_response: Any) -> Body:
        seen["app"] = _OUTSIDE.get()
        _WITHIN.set("set")
        start_response("200 OK", list(TEXT))
        return Body()

    def run() -> None:
        _OUTSIDE.set("set")
        unharmed(trial.serve(app))

    contextvars.copy_context().run(run)
    if not seen:
        raise NotReachedError
    for where, value in seen.items():
        expect(value == "set", f"a context variable is {value} in the {where}")


# --- G: all together ----------------------------------------------------------------------------


@rule(
    "G1",
    "the linter finds nothing on either side",
    "lamella.stack.testing.lint",
    "Middleware components must conform to the restrictions and requirements of both the server and application "
    "sides of WSGI.",
)
def g1(trial: Trial) -> None:
    scripts: list[tuple[str, dict[str, Any]]] = [
        ("GET", {}),
        ("GET", {"late": True, "body": [b"", b"a", b"b"]}),
        ("GET", {"write": [b"w"], "body": [b"y"]}),
        ("POST", {"read": -1}),
        ("HEAD", {"body": [], "headers": [*TEXT, ("Content-Length", "5")]}),
        ("GET", {"status": "204 No Content", "headers": [], "body": []}),
        ("GET", {"status": "304 Not Modified", "headers": [("ETag", 'W/"1"')], "body": []}),
        ("GET", {"status": "302 Found", "headers": [("Location", "/")], "body": []}),
        ("GET", {"body": [b"hello"], "headers": [*TEXT, ("Content-Length", "5")]}),
    ]
    for method, options in scripts:
        request = trial.request(method, b"input" if method == "POST" else b"")
        answer = serve(lint(trial.build(lint(RecordingApp(**options)))), request)
        if isinstance(answer.error, LintError):
            raise ViolationError(str(answer.error))
        unharmed(answer)


@rule(
    "G2",
    "it stacks on itself",
    PEP,
    "The application that the middleware wraps may in fact be another middleware component wrapping another "
    "application, and so on.",
)
def g2(trial: Trial) -> None:
    app = RecordingApp(body=[b"he", b"llo"])
    answer = serve(trial.build(trial.build(app)), trial.request())
    unharmed(answer)
    reached(app)
    expect(answer.status == "200 OK", f"wrapped twice, 200 OK became {answer.status}")
    expect(answer.content == b"hello", f"wrapped twice, b'hello' became {answer.content!r}")
