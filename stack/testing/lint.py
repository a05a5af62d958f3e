"""A linter for both sides of a layer: every rule of PEP 3333 that can be seen from outside.

Wrap the app inside and the layer itself, ``lint(Layer(lint(app)))``: one linter sees what an
app and its server say to each other, two of them also what the layer between makes of it: blocks
joined, ``write()`` dropped, a body never closed. A broken rule raises :class:`LintError`, and
raises it again at the next step where a layer caught it.

What is checked is PEP 3333, RFC 9110 where it speaks of messages, and all that ``wsgiref.validate``,
``werkzeug.middleware.lint`` and ``paste.lint`` find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from lamella.stack.kernel.http import HOP_BY_HOP, is_field_value, is_token, parse_etags
from lamella.stack.kernel.response import has_body

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RULES", "LintError", "Rule", "lint"]


class Rule(NamedTuple):
    """One rule of the linter."""

    #: What must hold.
    says: str
    #: What to do where it does not.
    cure: str


#: Every rule by its code: W0 the environ, W1 input and errors, W2 and W3 the start, W4 and W5 the body.
RULES = {
    "W01": Rule("environ is a builtin dict", "copy with environ.copy(), never subclass dict"),
    "W02": Rule("environ has every required key", "set it as PEP 3333 lists it"),
    "W03": Rule("CGI variables are native strings of latin-1 characters", "decode bytes as latin-1"),
    "W04": Rule("SCRIPT_NAME is empty or starts with a slash and does not end with one; PATH_INFO is empty "
                "or starts with a slash", "move whole segments from PATH_INFO to SCRIPT_NAME"),
    "W05": Rule("Content-Type and Content-Length have no HTTP_ in the environ", "use CONTENT_TYPE and CONTENT_LENGTH"),
    "W06": Rule("each wsgi.* key holds what PEP 3333 says", "keep what the server set"),
    "W07": Rule("CGI variables are well formed", "refuse such a request before the app"),
    "W08": Rule("an app is called with exactly two positional arguments", "call app(environ, start_response)"),
    "W11": Rule("reads of wsgi.input are bounded", "read at most CONTENT_LENGTH bytes, in pieces of a known size"),
    "W12": Rule("nothing is read past CONTENT_LENGTH", "count what is left and ask for no more"),
    "W13": Rule("wsgi.input and wsgi.errors are the server's to close", "do not close them"),
    "W14": Rule("wsgi.errors takes native strings", "write text, not bytes"),
    "W15": Rule("wsgi.input gives bytes", "return bytes from read() and readline()"),
    "W16": Rule("the request body reaches the app whole", "put a fresh stream into environ after reading"),
    "W21": Rule("start_response takes two or three positional arguments", "call start_response(status, headers)"),
    "W22": Rule("start_response is called once, or again with exc_info", "pass sys.exc_info() the second time"),
    "W23": Rule("a status is three digits from 100 to 599, one space, a reason", 'write it like "200 OK"'),
    "W24": Rule("headers are a list of tuples of two strings", "pass a list, not a tuple, dict or iterator"),
    "W25": Rule("a header name is a token, starts with a letter, ends with a letter or digit, and is not Status",
                "check names with lamella.stack.kernel.response.check_header"),
    "W26": Rule("a header value is latin-1 without control characters and without space around it",
                "check values with lamella.stack.kernel.response.check_header"),
    "W27": Rule("hop-by-hop headers are the server's", "do not send it"),
    "W28": Rule("Content-Length stands at most once, is a number, and not there with 1xx, 204 and 304",
                "replace it with set_header, remove it where there is no body"),
    "W29": Rule("an answer with content names its Content-Type once, one without has none",
                "set Content-Type with the body, remove it with the body"),
    "W30": Rule("exc_info is what sys.exc_info() gives inside an except clause", "pass sys.exc_info()"),
    "W31": Rule("an ETag is a quoted string, with W/ before it where weak", 'write it like W/"abc"'),
    "W32": Rule("a layer hands exc_info on", "pass the third argument of start_response outwards"),
    "W33": Rule("what start_response re-raises is not trapped", "let the exception through"),
    "W34": Rule("start_response comes before the body ends", "call it before the last block"),
    "W35": Rule("start_response returns the write() callable", "return what the outer start_response returned"),
    "W41": Rule("an app returns an iterable of blocks", "return [body]"),
    "W42": Rule("each block is bytes", "encode text"),
    "W43": Rule("start_response comes before the first block", "call it before the first block"),
    "W44": Rule("an app calls start_response", "call start_response"),
    "W45": Rule("the body has as many bytes as Content-Length says", "count bytes, not characters; remove the "
                "header where the body is changed"),
    "W46": Rule("HEAD, 1xx, 204 and 304 have no content", "send no bytes there"),
    "W47": Rule("len() of the body is its number of blocks", "leave __len__ out"),
    "W48": Rule("write() is not called from within the iterable", "yield the block"),
    "W49": Rule("a layer uses write() only for what the app wrote", "yield what the app yielded"),
    "W50": Rule("what the app wrote arrives, before what it yields", "return the outer write() from start_response"),
    "W51": Rule("a layer yields at least once for each block of the app and reads none ahead",
                'yield b"" where nothing can be sent yet'),
    "W52": Rule("a body is iterated once, through iter()", "call iter() once and next() on its result"),
    "W53": Rule("nothing is read after close()", "close last"),
    "W54": Rule("close() is called once", "forget the body when it is closed"),
    "W55": Rule("close() is called at the end, also after an error or when the client leaves",
                "close the app's iterable in your own close()"),
}  # fmt: skip

#: Set where a test does on purpose what no good server or app would: the linter does not blame it.
HOSTILE = "lamella.testing.hostile"
# RFC 9110 section 15.4.5: a 304 has no representation metadata but what a cache needs.
_NOT_WITH_304 = ("content-encoding", "content-range", "content-md5")
# How many bytes of a body are remembered, to compare what went in with what came out.
_REMEMBERED = 65536

_OPEN: ContextVar[_Exchange | None] = ContextVar("lamella.testing.lint", default=None)


class LintError(AssertionError):
    """A rule is broken.

    Attributes:
        code: The rule's code, a key of :data:`RULES`.
        culprit: Name of the app or layer that broke it.
        seen: What was seen.
    """

    def __init__(self, code: str, culprit: str, seen: str) -> None:
        rule = RULES[code]
        super().__init__(f"{code} {culprit}: {seen}. {rule.says}. To cure it: {rule.cure}.")
        self.code = code
        self.culprit = culprit
        self.seen = seen


def lint(app: WSGIApplication) -> WSGIApplication:
    """Wrap *app* so that a broken rule of PEP 3333 raises :class:`LintError`, on either side of it."""
    name = name_of(app)

    def linted(*arguments: Any, **named: Any) -> Iterable[bytes]:
        parent = _OPEN.get()
        if parent is not None and parent.closed:
            parent = None
        exchange = _Exchange(name, parent)
        if named or len(arguments) != 2:
            exchange.outside("W08", f"called with {len(arguments)} positional and {len(named)} named arguments")
        environ, start_response = arguments
        _check_environ(environ, exchange)
        exchange.begin(environ, start_response)
        return _returned(exchange, environ, _run(exchange, app, environ, exchange.start))

    linted.__name__ = linted.__qualname__ = f"lint({name})"
    linted.__wrapped__ = app  # type: ignore[attr-defined]
    return linted


def name_of(app: object) -> str:
    """Return what people call *app*: the name of its function or class."""
    app = getattr(app, "func", app)  # functools.partial
    app = getattr(app, "__wrapped__", app)
    return getattr(app, "__qualname__", None) or type(app).__qualname__


def _run(exchange: _Exchange, call: Callable[..., Any], *arguments: Any) -> Any:
    """Call into the app; what was broken meanwhile is raised even where the app caught it."""
    token = _OPEN.set(exchange)
    try:
        result = call(*arguments)
    except LintError:
        raise
    except Exception as error:
        if exchange.failed is not None and not isinstance(error, StopIteration):
            raise exchange.failed from error
        raise
    finally:
        _OPEN.reset(token)
    exchange.again()
    return result


def _returned(exchange: _Exchange, environ: WSGIEnvironment, body: Any) -> Iterable[bytes]:
    """Check what the app returned and wrap it."""
    if body is None or isinstance(body, (str, bytes, bytearray, memoryview)):
        exchange.inside("W41", f"returned {type(body).__name__}")
    if not hasattr(body, "__iter__") and not hasattr(body, "__getitem__"):
        exchange.inside("W41", f"returned {type(body).__name__}, which cannot be iterated")
    exchange.not_trapped()
    exchange.returned = True
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        if not exchange.status:
            exchange.inside("W44", "returned a wsgi.file_wrapper before it called start_response")
        _watch_close(exchange, body)
        return cast("Iterable[bytes]", body)
    try:
        length = len(body)
    except TypeError:
        return _Body(body, exchange)
    return _SizedBody(body, exchange, length)


def _watch_close(exchange: _Exchange, body: Any) -> None:
    """Learn of the ``close()`` of a file wrapper, which must stay the object that it is."""
    inner = getattr(body, "close", None)

    def close() -> None:
        exchange.close(inner)

    try:
        body.close = close
    except AttributeError:
        exchange.closed = True


# --- the environ --------------------------------------------------------------------------------

_REQUIRED = (
    "REQUEST_METHOD", "SERVER_NAME", "SERVER_PORT", "wsgi.version", "wsgi.url_scheme", "wsgi.input", "wsgi.errors",
    "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once",
)  # fmt: skip


def _check_environ(environ: Any, exchange: _Exchange) -> None:
    bad = exchange.outside
    if type(environ) is not dict:
        bad("W01", f"environ is a {type(environ).__name__}")
    for key in _REQUIRED:
        if key not in environ:
            bad("W02", f"environ lacks {key}")
    for key, value in environ.items():
        if not isinstance(key, str):
            bad("W03", f"the environ key {key!r} is no str")
        elif "." not in key:
            if type(value) is not str:
                bad("W03", f"environ[{key!r}] is {type(value).__name__}, not str")
            if not value.isascii() and max(value) > "\xff":
                bad("W03", f"environ[{key!r}] has a character outside latin-1")
    for key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        if key in environ:
            bad("W05", f"environ has {key}")
    _check_extensions(environ, bad)
    _check_request_line(environ, bad)


def _check_extensions(environ: dict[str, Any], bad: Callable[[str, str], NoReturn]) -> None:
    version = environ["wsgi.version"]
    if type(version) is not tuple or len(version) != 2:
        bad("W06", f"wsgi.version is {version!r}, not (1, 0)")
    if environ["wsgi.url_scheme"] not in ("http", "https"):
        bad("W06", f"wsgi.url_scheme is {environ['wsgi.url_scheme']!r}, not http or https")
    for key, names in (
        ("wsgi.input", ("read", "readline", "readlines", "__iter__")),
        ("wsgi.errors", ("flush", "write", "writelines")),
    ):
        for name in names:
            if not hasattr(environ[key], name):
                bad("W06", f"{key} has no {name}")
    if not callable(environ.get("wsgi.file_wrapper", callable)):
        bad("W06", "wsgi.file_wrapper is not callable")


def _check_request_line(environ: dict[str, Any], bad: Callable[[str, str], NoReturn]) -> None:
    script_name = environ.get("SCRIPT_NAME", "")
    if script_name.endswith("/") or (script_name and not script_name.startswith("/")):
        bad("W04", f"SCRIPT_NAME is {script_name!r}")
    if not is_token(environ["REQUEST_METHOD"]):
        bad("W07", f"REQUEST_METHOD is {environ['REQUEST_METHOD']!r}")
    for key in ("SERVER_NAME", "SERVER_PORT"):
        if not environ[key]:
            bad("W07", f"{key} is empty")
    if environ.get(HOSTILE):
        return
    path_info = environ.get("PATH_INFO", "")
    if path_info and not path_info.startswith("/") and path_info != "*":
        bad("W04", f"PATH_INFO is {path_info!r}")
    if not script_name and "PATH_INFO" not in environ:
        bad("W02", "environ lacks both SCRIPT_NAME and PATH_INFO")
    length = environ.get("CONTENT_LENGTH", "")
    if length and not (length.isascii() and length.isdigit()):
        bad("W07", f"CONTENT_LENGTH is {length!r}")


class _Input:
    """``wsgi.input`` as an app may use it."""

    def __init__(self, stream: Any, exchange: _Exchange, limit: int | None) -> None:
        self.stream = stream
        self.exchange = exchange
        self.consumed = 0
        self._limit = limit

    def _bound(self, method: str, size: tuple[Any, ...]) -> None:
        if self._limit is None:
            return
        if not size or size[0] is None or not isinstance(size[0], int) or size[0] < 0:
            self.exchange.inside("W11", f"called wsgi.input.{method}() without a size")
        left = self._limit - self.consumed
        if method == "read" and size[0] > max(left, 0):
            self.exchange.inside("W12", f"asked wsgi.input for {size[0]} bytes where {max(left, 0)} are left")

    def _given(self, data: Any) -> Any:
        if type(data) is not bytes:
            self.exchange.outside("W15", f"wsgi.input gave {type(data).__name__}")
        self.consumed += len(data)
        return data

    def read(self, *size: Any) -> Any:
        self._bound("read", size)
        return self._given(self.stream.read(*size))

    def readline(self, *size: Any) -> Any:
        self._bound("readline", size)
        return self._given(self.stream.readline(*size))

    def readlines(self, *hint: Any) -> Any:
        return [self._given(line) for line in self.stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        for line in self.stream:
            yield self._given(line)

    def close(self) -> NoReturn:
        self.exchange.inside("W13", "closed wsgi.input")

    def seek(self, *position: Any) -> Any:
        self.consumed = self.stream.seek(*position) or 0
        return self.consumed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Errors:
    """``wsgi.errors`` as an app may use it."""

    def __init__(self, stream: Any, exchange: _Exchange) -> None:
        self.stream = stream
        self.exchange = exchange

    def write(self, text: Any) -> Any:
        if not isinstance(text, str):
            self.exchange.inside("W14", f"wrote {type(text).__name__} to wsgi.errors")
        return self.stream.write(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def close(self) -> NoReturn:
        self.exchange.inside("W13", "closed wsgi.errors")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


# --- one request --------------------------------------------------------------------------------


class _Exchange:
    """What one app and its caller said to each other in one request."""

    def __init__(self, name: str, parent: _Exchange | None) -> None:
        self.name = name
        self.parent = parent
        self.children: list[_Exchange] = []
        self.failed: LintError | None = None
        self.status = ""
        self.written = b""
        self.sent = b""
        self.asked = 0  # how often the caller asked for a block
        self.pulled = 0  # how many blocks the app gave
        self.returned = self.finished = self.closed = False
        self._base = 0 if parent is None else max(parent.asked - 1, 0)
        self._counted = 0
        self._length: int | None = None
        self._typed = False
        self.iterating = False
        self._child_error = ""  # status of an error answer that the app inside is just handing out
        self._child_writes = False
        self._reraised: BaseException | None = None
        if parent is not None:
            parent.children.append(self)

    # -- raising

    def inside(self, code: str, seen: str) -> NoReturn:
        """The app broke *code*."""
        self._fail(LintError(code, self.name, seen))

    def outside(self, code: str, seen: str) -> NoReturn:
        """What called the app broke *code*."""
        culprit = self.parent.name if self.parent is not None else f"the caller of {self.name}"
        self._fail(LintError(code, culprit, seen))

    def _fail(self, error: LintError) -> NoReturn:
        exchange: _Exchange | None = self
        while exchange is not None:
            exchange.failed = exchange.failed or error
            exchange = exchange.parent
        raise error

    def again(self) -> None:
        """Raise once more what somebody caught."""
        if self.failed is not None:
            raise self.failed

    def not_trapped(self) -> None:
        if self._reraised is not None:
            self.inside("W33", f"went on after start_response had raised {type(self._reraised).__name__} again")

    # -- the request

    def begin(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.method = environ["REQUEST_METHOD"]
        self._environ = environ
        self._start_response = start_response
        stream, errors = environ["wsgi.input"], environ["wsgi.errors"]
        ours = isinstance(stream, _Input) and self.parent is not None and stream.exchange.root() is self.root()
        if ours and stream.consumed:
            self.outside("W16", f"read {stream.consumed} bytes of wsgi.input and left the rest to the app")
        length = environ.get("CONTENT_LENGTH", "0") or "0"
        known = length.isascii() and length.isdigit() and not environ.get("wsgi.input_terminated")
        environ["wsgi.input"] = _Input(stream, self, int(length) if known else None)
        environ["wsgi.errors"] = _Errors(errors, self)
        self._restore = {"wsgi.input": (environ["wsgi.input"], stream), "wsgi.errors": (environ["wsgi.errors"], errors)}

    def root(self) -> _Exchange:
        return self if self.parent is None else self.parent.root()

    def end(self) -> None:
        """The body came to its end."""
        self.not_trapped()
        if not self.status:
            self.inside("W44", "the body ended and start_response was never called")
        if self._length is not None and self._has_content() and self._counted != self._length:
            self.inside("W45", f"Content-Length says {self._length}, the body has {self._counted} bytes")
        self.finished = True
        if len(self.children) == 1:
            self._compare(self.children[0])

    def _compare(self, child: _Exchange) -> None:
        """Find what the app wrote by ``write()`` in what left this layer."""
        wrote, gave, sent = child.written, child.sent, self.sent
        if not wrote or not child.finished or self.status != child.status or not self._has_content():
            return
        if max(child._counted, self._counted) > _REMEMBERED:
            return
        if sent == gave[len(wrote) :]:
            self.inside("W50", f"dropped the {len(wrote)} bytes that {child.name} sent by write()")
        if sent == gave[len(wrote) :] + wrote != gave:
            self.inside("W50", f"sent what {child.name} wrote after what it yielded")

    def close(self, inner: Callable[[], object] | None) -> None:
        if self.closed:
            self.outside("W54", "close() was called twice")
        self.closed = True
        try:
            if inner is not None:
                _run(self, inner)
        finally:
            for key, (ours, original) in self._restore.items():
                if self._environ.get(key) is ours:
                    self._environ[key] = original
        self._children_closed()

    def _children_closed(self) -> None:
        for child in self.children:
            if child.returned and not child.closed:
                child.closed = True  # say it once, here
                self.inside("W55", f"never closed the body of {child.name}")

    # -- start_response

    def start(self, *arguments: Any, **named: Any) -> Callable[[bytes], object]:
        if named or not 2 <= len(arguments) <= 3:
            self.inside("W21", f"called start_response with {len(arguments)} positional and {len(named)} named")
        status, headers, exc_info = (*arguments, None)[:3]
        self.again()
        self.not_trapped()
        if self.finished or self.closed:
            self.inside("W34", "called start_response after the body had ended")
        if exc_info is None:
            if self.status:
                self.inside("W22", f"called start_response({status!r}) after start_response({self.status!r})")
            if self._child_error == status:
                self.inside("W32", f"dropped the exc_info of start_response({status!r})")
        elif type(exc_info) is not tuple or len(exc_info) != 3 or not isinstance(exc_info[1], BaseException):
            self.inside("W30", f"passed {exc_info!r} as exc_info")
        self._check_status(status)
        self._check_headers(status, headers)
        self.status = status
        return self._hand_out(arguments, exc_info)

    def _hand_out(self, arguments: tuple[Any, ...], exc_info: Any) -> Callable[[bytes], object]:
        parent = self.parent
        if parent is not None and exc_info is not None:
            parent._child_error = self.status
        try:
            write = self._start_response(*arguments)
        except BaseException as error:
            if exc_info is not None and error is exc_info[1]:
                self._reraised = error
            raise
        finally:
            if parent is not None:
                parent._child_error = ""
        if not callable(write):
            self.outside("W35", f"start_response returned {write!r}")

        def checked_write(*data: Any, **named: Any) -> object:
            return self._write(write, data, named)

        return checked_write

    def _check_status(self, status: Any) -> None:
        if type(status) is not str:
            self.inside("W23", f"the status is {type(status).__name__}, not str")
        code, _, reason = status.partition(" ")
        well_formed = len(code) == 3 and code.isascii() and code.isdigit() and "100" <= code <= "599" and reason
        if not well_formed or reason != reason.strip() or not _is_plain(status):
            self.inside("W23", f"the status is {status!r}")

    def _check_headers(self, status: str, headers: Any) -> None:
        if type(headers) is not list:
            self.inside("W24", f"the headers are a {type(headers).__name__}, not a list")
        seen: dict[str, list[str]] = {}
        for item in headers:
            if type(item) is not tuple or len(item) != 2:
                self.inside("W24", f"a header is {item!r}, not a tuple of two strings")
            name, value = item
            self._check_header(name, value)
            seen.setdefault(name.lower(), []).append(value)
        lengths, types = seen.get("content-length", []), seen.get("content-type", [])
        bodiless = not has_body(status)
        if len(lengths) > 1:
            self.inside("W28", f"there are {len(lengths)} Content-Length headers")
        if lengths and not (lengths[0].isascii() and lengths[0].isdigit()):
            self.inside("W28", f"the Content-Length is {lengths[0]!r}")
        if lengths and bodiless:
            self.inside("W28", f"{status} has a Content-Length")
        if len(types) > 1 or (types and bodiless):
            self.inside("W29", f"{status} has {len(types)} Content-Type")
        if status.startswith("304"):
            for name in _NOT_WITH_304:
                if name in seen:
                    self.inside("W29", f"{status} has {name}")
        for value in seen.get("etag", ()):
            if value == "*" or len(parse_etags(value) or ()) != 1:
                self.inside("W31", f"the ETag is {value!r}")
        self._length = int(lengths[0]) if lengths else None
        self._typed = bool(types)

    def _check_header(self, name: Any, value: Any) -> None:
        if type(name) is not str or not is_token(name) or name.lower() == "status":
            self.inside("W25", f"a header is called {name!r}")
        if not name[0].isalpha() or name[-1] in "-_":
            self.inside("W25", f"a header is called {name!r}")
        if type(value) is not str:
            self.inside("W26", f"the value of {name} is {type(value).__name__}, not str")
        if not _is_plain(value) or value != value.strip():
            self.inside("W26", f"the value of {name} is {value!r}")
        if name.lower() in HOP_BY_HOP:
            self.inside("W27", f"it sends {name}")

    # -- blocks

    def _write(self, write: Callable[[bytes], object], data: tuple[Any, ...], named: dict[str, Any]) -> object:
        if named or len(data) != 1:
            self.inside("W42", "called write() with other than one positional argument")
        if self.iterating and not self._child_writes and not self._environ.get(HOSTILE):
            self.inside("W48", "called write() from within its iterable")
        if self.finished or self.closed:
            self.inside("W48", "called write() after the body had ended")
        self.block(data[0])
        if data[0] and self.children and not any(child.written for child in self.children):
            self.inside("W49", "sent by write() what no app inside had written")
        if len(self.written) <= _REMEMBERED:
            self.written += data[0]
        if self.parent is not None:
            self.parent._child_writes = True
        try:
            result = write(data[0])
        finally:
            if self.parent is not None:
                self.parent._child_writes = False
        self.again()
        return result

    def block(self, block: Any) -> None:
        """One block came, by ``write()`` or from the body."""
        self.not_trapped()
        if type(block) is not bytes:
            self.inside("W42", f"a block is {type(block).__name__}, not bytes")
        if not self.status:
            self.inside("W43", "a block came before start_response")
        if not block:
            return
        if not self._has_content():
            self.inside("W46", f"{len(block)} bytes of body with {self.method} and {self.status}")
        if not self._typed:
            self.inside("W29", f"{self.status} has a body and no Content-Type")
        self._counted += len(block)
        if self._length is not None and self._counted > self._length:
            self.inside("W45", f"Content-Length says {self._length}, the body has {self._counted} bytes or more")
        if len(self.sent) <= _REMEMBERED:
            self.sent += block

    def pull(self, block: Any) -> None:
        """The caller got one block of the body."""
        self.block(block)
        self.pulled += 1
        parent = self.parent
        if parent is not None and not parent.closed and self.pulled > max(parent.asked - self._base, 1):
            self.outside(
                "W51", f"took block {self.pulled} of {self.name} before it had given block {parent.asked or 1} away"
            )

    def _has_content(self) -> bool:
        return has_body(self.status, self.method)


def _is_plain(text: str) -> bool:
    """PEP 3333: no control characters at all, so no tab either."""
    return is_field_value(text) and "\t" not in text


class _Body:
    """The body of a linted app."""

    def __init__(self, body: Any, exchange: _Exchange, length: int | None = None) -> None:
        self._body = body
        self._exchange = exchange
        self._iterated = False
        self._announced = length

    def __iter__(self) -> Iterator[bytes]:
        if self._iterated:
            self._exchange.outside("W52", "the body was iterated twice")
        self._iterated = True
        return _Blocks(_run(self._exchange, iter, self._body), self._exchange, self._announced)

    def __next__(self) -> bytes:
        self._exchange.outside("W52", "next() was called on the body itself")

    def close(self) -> None:
        self._exchange.close(getattr(self._body, "close", None))

    def __del__(self) -> None:
        exchange = self._exchange
        if exchange.closed or exchange.failed is not None or exchange.parent is not None:
            return  # a linter outside has said it, or will
        if hasattr(self._body, "close"):
            raise LintError("W55", f"the caller of {exchange.name}", "the body was thrown away and never closed")


class _SizedBody(_Body):
    """The body of a linted app, where ``len()`` of it works: PEP 3333 lets a server rely on it."""

    def __len__(self) -> int:
        return len(self._body)


class _Blocks:
    """The iterator over the body of a linted app. Only the body itself has a ``close()``."""

    def __init__(self, iterator: Iterator[bytes], exchange: _Exchange, announced: int | None) -> None:
        self._iterator = iterator
        self._exchange = exchange
        self._announced = announced

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        if exchange.closed:
            exchange.outside("W53", "the body was read after close()")
        exchange.again()
        exchange.asked += 1
        exchange.iterating = True
        try:
            block: bytes = _run(exchange, next, self._iterator)
        except StopIteration:
            exchange.again()
            self._check_length(exchange.pulled)
            exchange.end()
            raise
        finally:
            exchange.iterating = False
        exchange.pull(block)
        if self._announced is not None and exchange.pulled > self._announced:
            self._check_length(exchange.pulled)
        return block

    def _check_length(self, blocks: int) -> None:
        if self._announced is not None and blocks != self._announced:
            self._exchange.inside("W47", f"len() of the body is {self._announced}, it has {blocks} blocks")
