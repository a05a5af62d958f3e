"""Give each request an identifier and a place in a trace: in the environ, inside, and on the answer.

Sets ``lamella.request_id`` and ``lamella.trace``; the request headers ``X-Request-ID``, ``traceparent`` and
``tracestate`` that the app inside reads; and the response headers ``X-Request-ID`` and ``traceparent``. What the
client sent is kept under ``lamella.request_id.original`` and means nothing unless it is trusted.

.. code-block:: toml

    [[layer]]
    use = "request_id"

Place it outside ``access_log``, ``context`` and ``errors``, so that all know the identifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lamella.middleware._identifiers import GENERATORS
from lamella.middleware._trace_context import begin_trace, continue_trace, parse_tracestate
from lamella.stack.kernel.environ import direct, header_key
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import RECORD, REQUEST_ID, TRACE
from lamella.stack.kernel.options import Reference, flag, header_name, reference
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.response import name_test

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["RequestIdMiddleware"]

# What we take from a client that is trusted to name its requests: long enough to be unique, safe in logs.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._~+/=:-]{16,200}")
# What a generator of the user's own may return: it goes into a header and into logs.
_SENDABLE = re.compile(r"[\x21-\x7e]{1,200}")
_TRACEPARENT, _TRACESTATE = "HTTP_TRACEPARENT", "HTTP_TRACESTATE"
_WHY = "it is to know the identifier"


class RequestIdMiddleware:
    """Identify each request, and place it in its trace.

    Args:
        app: The application inside.
        header: Name of the request and response header.
        trust_client: Keep an identifier the client sent, where it is well formed (16 to 200 characters of base64,
            UUIDs and the like), and continue its W3C trace. Only behind a proxy that sets these itself.
        generator: ``"uuid4"`` (random), ``"uuid7"`` (sorts by time), ``"snowflake"`` (19 digits, sorts by time), or a
            callable without arguments that returns a new identifier, or where to import it from.
        trace_context: Read, hand on and answer with ``traceparent`` and ``tracestate`` (W3C Trace Context). Turn it
            off where another layer reports spans of its own.

    Raises:
        ConfigError: *header* is not a header name, or *generator* is unknown.
    """

    provides = (REQUEST_ID, TRACE)
    requires = ()
    order = (
        Outside("access_log", "L117", _WHY),
        Outside("errors", "L117", _WHY),
        Outside("context", "L117", _WHY),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        header: str = "X-Request-ID",
        trust_client: bool = False,
        generator: Reference = "uuid4",
        trace_context: bool = True,
    ) -> None:
        header = header_name("header", header)
        flag("trust_client", trust_client)
        flag("trace_context", trace_context)
        if header.lower() in ("traceparent", "tracestate"):
            raise ConfigError("header", header, "a header of its own, not the trace's")
        generate, inner = _generator(generator), direct(app)
        environ_key, key, trace_key = header_key(header), REQUEST_ID.name, TRACE.name
        others, is_ours = name_test([header, "traceparent"] if trace_context else [header])

        def enter(environ: WSGIEnvironment) -> tuple[str, str | None]:
            """Settle identifier and trace where the client or a layer outside has said something."""
            _keep_original(environ, environ_key)
            request_id = REQUEST_ID.get(environ)
            if request_id is None:
                request_id = (_from_client(environ, environ_key) if trust_client else None) or generate()
                REQUEST_ID.set(environ, request_id)
            environ[environ_key] = request_id  # never a client's invention
            return request_id, _enter_trace(environ, trust_client) if trace_context else None

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            traceparent = None
            if (
                environ_key in environ
                or key in environ
                or _TRACEPARENT in environ
                or _TRACESTATE in environ
                or trace_key in environ
                or RECORD in environ
            ):
                request_id, traceparent = enter(environ)
            else:
                # Nobody has said anything yet. An app that looks for the headers itself finds the same.
                request_id = environ[key] = environ[environ_key] = generate()
                if trace_context:
                    environ[trace_key], traceparent = begin_trace()
                    environ[_TRACEPARENT] = traceparent
            fields = [(header, request_id)]
            if traceparent is not None:
                fields.append(("traceparent", traceparent))

            def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
                for name, _ in headers:
                    if name not in others and is_ours(name):
                        headers = [field for field in headers if not is_ours(field[0])]
                        break
                if exc_info is None:
                    return start_response(status, headers + fields)
                return start_response(status, headers + fields, exc_info)

            return inner(environ, start)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _generator(value: Any) -> Callable[[], str]:
    """Return the generator that the option names."""
    expected = "one of " + ", ".join(map(repr, GENERATORS)) + ", or a callable"
    if isinstance(value, str) and ":" not in value:
        if value not in GENERATORS:
            raise ConfigError("generator", value, expected)
        return GENERATORS[value]()
    own = reference("generator", value)
    if not callable(own):
        raise ConfigError("generator", value, expected)

    def checked() -> str:
        made = own()
        if not isinstance(made, str) or _SENDABLE.fullmatch(made) is None:
            raise ValueError("the generator of request_id returned no identifier: 1 to 200 visible ASCII characters")
        return made

    return checked


def _from_client(environ: WSGIEnvironment, key: str) -> str | None:
    """The identifier that the client sent, if it is well formed."""
    sent: str = environ.get(key, "")
    return sent if _WELL_FORMED.fullmatch(sent) else None


def _enter_trace(environ: WSGIEnvironment, trusted: bool) -> str:
    """Continue the caller's trace or begin one, let the app inside see it in its headers, and return the header."""
    trace = TRACE.get(environ)
    if trace is not None:
        return trace.traceparent
    trace = continue_trace(environ.get(_TRACEPARENT, "")) if trusted else None
    # W3C Trace Context section 4.3: with a new trace-id, or an invalid traceparent, the tracestate is dropped.
    state = parse_tracestate(environ.get(_TRACESTATE, "")) if trace is not None else None
    if trace is None:
        trace, _ = begin_trace()
    TRACE.set(environ, trace)
    environ[_TRACEPARENT] = trace.traceparent
    if state is not None:
        environ[_TRACESTATE] = state
    elif _TRACESTATE in environ:
        del environ[_TRACESTATE]
    return trace.traceparent


def _keep_original(environ: WSGIEnvironment, environ_key: str) -> None:
    """Keep what the client sent."""
    sent = {name: environ[name] for name in (environ_key, _TRACEPARENT, _TRACESTATE) if name in environ}
    if sent:
        environ.setdefault("lamella.request_id.original", sent)
