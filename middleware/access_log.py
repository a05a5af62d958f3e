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

import random
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from lamella.middleware._access_exchange import Exchange, Finish, Stream, TimedExchange, hook_file
from lamella.middleware._access_format import (
    FORMATS,
    LONGEST,
    NO_MORE,
    Format,
    More,
    make_format,
    read_loosely,
    read_request,
)
from lamella.middleware._log_writer import Write, complainer, open_output
from lamella.stack.kernel.environ import direct, header_key
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token
from lamella.stack.kernel.options import Output, choice, one_line, strings
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.redact import REDACTED, secret_names

if TYPE_CHECKING:
    import logging
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["AccessLogMiddleware"]

_ANSWERS = "it answers by itself, and such an answer would not be logged"
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
        timed = format in ("json", "logfmt")
        finish = _finisher(lines, write, float(sample), timed)
        self.wsgi_closure = _closure(
            direct(app),
            finish,
            _finisher(lines, write, 0.0, timed),
            TimedExchange if timed else Exchange,
            _excluded(exclude),
            _more_reader(shown),
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        closure = self.wsgi_closure  # a call of an attribute costs more
        return closure(environ, start_response)


def _closure(
    inner: WSGIApplication,
    finish: Finish,
    finish_excluded: Finish,
    kind: type[Exchange],
    excluded: Callable[[WSGIEnvironment], bool] | None,
    more: Callable[[WSGIEnvironment], More],
) -> WSGIApplication:
    """Return the layer's work: a closure, because it runs for each request."""
    clock, read, timed = time.perf_counter, read_request, kind is TimedExchange

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = clock()
        try:
            request = read(environ)
        except KeyError:
            request = read_loosely(environ)
        exchange = kind()
        exchange.start_response = start_response
        # The app may change its environ, or clear it: what the line needs is read on the way in.
        exchange.asked = (
            begun,
            request,
            environ["HTTP_REFERER"] if "HTTP_REFERER" in environ else "",  # noqa: SIM401  half the price of get()
            more(environ) if timed else NO_MORE,
            environ.setdefault("lamella.record", {}),
            environ,
        )
        exchange.finish = finish if excluded is None or not excluded(environ) else finish_excluded
        exchange.status, exchange.written, exchange.first = "", 0, 0.0
        try:
            body = inner(environ, exchange.start)
        except BaseException as error:
            exchange.finish(exchange, 0, False, error)
            raise
        # Iterating a list calls nothing of the app: its end is read from the iterator, without a step in between.
        body_type = type(body)
        if body_type is list or body_type is tuple:
            exchange.blocks = body  # type: ignore[assignment]  # just tested
            exchange.iterator = iter(body)
            return exchange
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and hook_file(exchange, body):
            return body
        return Stream(exchange, body)

    return wsgi_closure


def _finisher(lines: tuple[Format, Format], write: Write, share: float, timed: bool) -> Finish:
    """Return what writes the line of an exchange, at its end.

    Args:
        lines: What makes a line, and what makes a shorter one.
        write: Where it goes.
        share: How many of the requests that did not fail get a line, 0 to 1.
        timed: Whether the line tells when the first and the last byte were.
    """
    (line, shorter), complain, clock, every = lines, complainer(), time.perf_counter, share >= 1
    codes: dict[str, tuple[str, bool]] = {}

    def code_of(status: str) -> tuple[str, bool]:
        """The code of a status line, and whether such an answer has no content."""
        code = status[:3] if status[:3].isdigit() and status[:3].isascii() else ""
        if len(codes) < _STATUSES:
            codes[status] = code, code in _BODILESS
        return code, code in _BODILESS

    def finish(exchange: Exchange, sent: int | None, ended: bool, error: BaseException | None) -> None:
        # Whatever goes wrong in here is the log's fault, and no reason to fail a request.
        try:
            try:
                code, bodiless = codes[exchange.status]
            except KeyError:
                code, bodiless = code_of(exchange.status)
            asked, exception, first, last = exchange.asked, "", 0.0, 0.0
            _, request, _, _, record, _ = asked
            del exchange.asked  # holds the environ, which may hold this exchange: nothing waits for the collector
            if sent is not None:
                sent += exchange.written
            if error is not None:
                exception = _name(error)
                if not ended and not sent:
                    # Nothing is out yet: the server answers in the app's place, and that is no abort.
                    code, ended = "500", True
            elif record:
                exception = record.get("lamella.exception", "")
            if not every and not exception and code < "500" and random.random() >= share:
                return
            if bodiless or request[1] == "HEAD":
                sent, ended = 0, ended or error is None
            if timed:
                last = clock()
                first = exchange.first or last
            text = line(asked, code, sent, first, last, ended, exception)
            if len(text) > LONGEST:
                text = shorter(asked, code, sent, first, last, ended, exception)
            write(text)
        except Exception as failure:  # noqa: BLE001
            complain(failure)

    return finish


# --- what the line says of the request ----------------------------------------------------------


def _more_reader(shown: tuple[tuple[str, str, bool], ...]) -> Callable[[WSGIEnvironment], More]:
    """Return what reads the rest for structured formats; of the headers *shown* those that were sent."""

    def more(environ: WSGIEnvironment) -> More:
        headers = [(name, REDACTED if secret else environ[key]) for name, key, secret in shown if key in environ]
        return environ.get("HTTP_HOST", ""), environ.get("lamella.request_id", ""), tuple(headers)

    return more


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
    import logging  # takes as long as the rest of the layer, and no file or stream needs it

    if isinstance(logger, str):
        logger = logging.getLogger(one_line("logger", logger, "the name of a logger"))
    if not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        raise ConfigError("logger", logger, "a logger or the name of one")
    info = logger.info

    def write(line: str) -> None:
        info("%s", line[:-1])

    return write
