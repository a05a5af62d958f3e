"""Write one true line for each request, at the very end of its body.

The line is written by ``close()``: with the bytes that were really handed out, the time to the first
and the last of them, also when the app raised or the client left. What layers and routers inside
establish (``lamella.identity``, ``lamella.mount``, ``lamella.route``, ``lamella.request_id``) is in it.
Reads nothing of the request's content and changes nothing; a ``wsgi.file_wrapper`` stays what it is.

.. code-block:: toml

    [[layer]]
    use     = "access_log"
    format  = "json"
    exclude = ["/healthz", "/static/*"]

Place it outside everything that can answer, inside ``request_id`` and ``proxy``.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from lamella.middleware._access_body import Blocks, Body, hook_file
from lamella.middleware._access_format import FORMATS, LONGEST, Entry, Format, make_format
from lamella.middleware._log_writer import Write, complainer, open_output
from lamella.stack.kernel.environ import direct, header_key
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token
from lamella.stack.kernel.options import Output, choice, one_line, strings
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.redact import REDACTED, secret_names
from lamella.stack.kernel.response import Headers

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None

__all__ = ["AccessLogMiddleware"]

_ANSWERS = "it answers by itself, and such an answer would not be logged"
# Iterating a list calls nothing of the app: its end is read from the iterator, without a step in between.
_SEQUENCES: Final = (list, tuple)
# Status lines whose code is remembered; apps use few.
_STATUSES: Final = 256
# RFC 9110 section 6.4.1: no content, whatever the app yields; the server or `edge` drops it.
_BODILESS: Final = frozenset({"100", "101", "102", "103", "204", "304"})


class AccessLogMiddleware:
    """Log each request, truly.

    Args:
        app: The application inside.
        format: ``"common"``, ``"combined"``, ``"json"`` or ``"logfmt"``.
        output: ``"-"`` for standard output, ``"stderr"``, or the path of a file, which is opened again when it
            was rotated away; in Python also an open text stream.
        logger: A logger, or the name of one; each line is then one record of level INFO instead.
        exclude: Paths that are not logged unless they fail (a status of 500 and above, or an exception); ``*``
            stands for any characters.
        sample: Share of the requests that is logged, 0 to 1; those that fail always are.
        redact: More names of query parameters and headers whose values are hidden.
        headers: Request headers to log besides; only in ``"json"`` and ``"logfmt"``.

    Raises:
        ConfigError: An unknown format, a file that cannot be opened, a share outside 0 to 1, a header name that
            is none, *headers* with a format that has no room for them, or both *logger* and *output*.
    """

    provides = ()
    requires = ()
    order = (
        Inside("request_id", "L117", "the line has the identifier only where it is known on the way in"),
        Inside("proxy", "L105", "the line would name the proxy instead of the client"),
        Inside("edge", "L102", "edge repairs what the server made of the request"),
        *(
            Outside(layer, "L102", _ANSWERS)
            for layer in (
                *("errors", "cors", "static", "dispatch", "health", "hosts", "https", "csrf", "access", "rate_limit"),
                *("body_limit", "basic_auth", "bearer_auth", "login", "oidc", "conditional", "compress"),
            )
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        format: str = "combined",
        output: Output = "-",
        logger: str | logging.Logger | None = None,
        exclude: Iterable[str] = (),
        sample: float = 1.0,
        redact: Iterable[str] = (),
        headers: Iterable[str] = (),
    ) -> None:
        choice("format", format, FORMATS)
        if isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0 <= sample <= 1:
            raise ConfigError("sample", sample, "a share of the requests, 0 to 1")
        hides = secret_names(strings("redact", redact, lambda name: name.strip().isprintable() and bool(name), "names"))
        shown = _header_readers(headers, hides)
        if shown and format in ("common", "combined"):
            raise ConfigError("headers", headers, 'a format with room for them, "json" or "logfmt"')
        if logger is not None and output != "-":
            raise ConfigError("output", output, "no output, because there is a logger")
        write = open_output("output", output) if logger is None else _log_to(logger)
        lines = make_format(format, hides, sample)
        self.wsgi_closure = _closure(direct(app), lines, write, _excluded(exclude), float(sample), shown)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _closure(
    inner: WSGIApplication,
    lines: tuple[Format, Format],
    write: Write,
    excluded: Callable[[WSGIEnvironment], bool] | None,
    sample: float,
    shown: tuple[tuple[str, str, bool], ...],
) -> WSGIApplication:
    """Return the layer's work: a closure, because it runs for each request."""
    clock, wall, make = time.perf_counter, time.time, tuple.__new__
    keep_all = excluded is None and sample >= 1
    (line, shorter), complain = lines, complainer()
    codes: dict[str, str] = {"": ""}

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = clock()
        # The app may change its environ, or clear it: what the line needs is read on the way in.
        get = environ.get
        record: dict[str, Any] | None = get("lamella.record")
        if record is None:
            record = environ["lamella.record"] = {}
        method = get("REQUEST_METHOD", "")
        asked = (
            wall(),
            get("REMOTE_ADDR", ""),
            method,
            get("SCRIPT_NAME", "") + get("PATH_INFO", "") or "/",
            get("QUERY_STRING", ""),
            get("SERVER_PROTOCOL", ""),
            get("HTTP_REFERER", ""),
            get("HTTP_USER_AGENT", ""),
            get("HTTP_HOST", ""),
            get("lamella.request_id", ""),
            _shown_headers(environ, shown) if shown else (),
        )
        skipped = excluded is not None and excluded(environ)
        status = ""
        fields: Headers = []
        written, first = 0, 0.0

        def start(
            status_line: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /
        ) -> Callable[[bytes], object]:
            nonlocal status, fields
            if exc_info is None:
                put = start_response(status_line, headers)
            else:
                put = start_response(status_line, headers, exc_info)
            status, fields = status_line, headers

            def counted(data: bytes, /) -> object:
                nonlocal written, first
                result = put(data)
                if data:
                    written += len(data)
                    first = first or clock()
                return result

            return counted

        def finish(sent: int | None, ended: bool, at: float, error: BaseException | None) -> None:
            # Whatever goes wrong in here is the log's fault, and no reason to fail a request.
            try:
                code = codes.get(status)
                if code is None:
                    code = status[:3] if status[:3].isdigit() and status[:3].isascii() else ""
                    if len(codes) < _STATUSES:
                        codes[status] = code
                if sent is not None:
                    sent += written
                if error is None:
                    exception = record.get("lamella.exception", "") if record else ""
                else:
                    exception = _name(error)
                    if not ended and not sent:
                        # Nothing is out yet: the server answers in the app's place, and that is no abort.
                        code, ended = "500", True
                if (
                    not keep_all
                    and not exception
                    and code < "500"
                    and (skipped or (sample < 1 and random.random() >= sample))
                ):
                    return
                if method == "HEAD" or code in _BODILESS:
                    sent, ended = 0, ended or error is None
                last = clock()
                first_ms, last_ms = ((first or at or last) - begun) * 1000, (last - begun) * 1000
                result = (code, sent, first_ms, last_ms, not ended, exception, record, environ)
                entry = make(Entry, asked + result)
                text = line(entry)
                write(text if len(text) <= LONGEST else shorter(entry), last)
            except Exception as failure:  # noqa: BLE001
                complain(failure)

        try:
            body = inner(environ, start)
        except BaseException as error:
            finish(0, False, 0.0, error)
            raise
        kind = type(body)
        if kind in _SEQUENCES:
            return Blocks(body, finish, clock)  # type: ignore[arg-type]  # just tested
        wrapper = get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and hook_file(body, finish, clock, lambda: fields):
            return body
        return Body(body, finish, clock)

    return wsgi_closure


# --- what the line says of the request ----------------------------------------------------------


def _shown_headers(environ: WSGIEnvironment, shown: tuple[tuple[str, str, bool], ...]) -> tuple[tuple[str, str], ...]:
    """The headers to log that the client sent, secret ones hidden."""
    return tuple([(name, REDACTED if secret else environ[key]) for name, key, secret in shown if key in environ])


def _name(error: BaseException) -> str:
    """The class of an exception, with its module where that is not builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# --- options ------------------------------------------------------------------------------------


def _excluded(patterns: Iterable[str]) -> Callable[[WSGIEnvironment], bool] | None:
    """Return the test for paths that are not logged; None where all are."""
    items = strings(
        "exclude",
        patterns,
        lambda item: item.startswith(("/", "*")) and item.isprintable(),
        'paths that start with "/"',
    )
    if not items:
        return None
    plain = frozenset(item for item in items if "*" not in item)
    starred = [".*".join(map(re.escape, item.split("*"))) for item in items if "*" in item]
    matches = re.compile("|".join(starred), re.S).fullmatch if starred else None

    def excluded(environ: WSGIEnvironment) -> bool:
        try:
            path = canonical_path(environ)
        except AmbiguousPathError:  # whoever decides on the path refuses it; that is worth a line
            return False
        return path in plain or (matches is not None and matches(path) is not None)

    return excluded


def _header_readers(names: Iterable[str], hides: Callable[[str], bool]) -> tuple[tuple[str, str, bool], ...]:
    """Return (name, environ key, whether it is hidden) for each header to log."""
    wanted = strings("headers", names, is_token, "header names")
    return tuple((name.lower(), header_key(name), hides(name)) for name in wanted)


def _log_to(logger: str | logging.Logger) -> Write:
    """Return the function that hands a line to *logger*."""
    if isinstance(logger, str):
        logger = logging.getLogger(one_line("logger", logger, "the name of a logger"))
    if not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        raise ConfigError("logger", logger, "a logger or the name of one")
    info = logger.info

    def write(line: str, now: float) -> None:
        info("%s", line[:-1])

    return write
