"""Let code that is handed no request find it: helpers, models, and every log record.

Runs the app, each step of its body and its ``close()`` in one copied context, in which
``lamella.stack.kernel.context.current()`` gives the environ. Threads, greenlets and tasks each see
their own request; what the app itself keeps in context variables lives as long as its body.

.. code-block:: toml

    [[layer]]
    use = "context"

Place it inside ``request_id``, outside ``errors`` and everything that logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.context import ENVIRON, stamp_log_records
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.options import flag
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.response import close

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ContextMiddleware"]


class ContextMiddleware:
    """Make the request known for as long as it is served.

    Args:
        app: The application inside.
        log_records: Put ``request_id`` and ``trace_id`` on every log record of the process, for formatters to
            show as ``%(request_id)s``; ``-`` outside of a request. A record that has them already keeps its own.

    Raises:
        ConfigError: *log_records* is no truth value.
    """

    provides = ()
    requires = ()
    order = (
        Inside("request_id", "L117", "log records have no identifier before it is known"),
        Outside("errors", "L102", "what errors logs would have no identifier"),
    )
    streams = True

    def __init__(self, app: WSGIApplication, *, log_records: bool = True) -> None:
        flag("log_records", log_records)
        if log_records:
            stamp_log_records()
        inner = direct(app)
        set_current = ENVIRON.set

        def enter(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            set_current(environ)
            return inner(environ, start_response)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            context = copy_context()
            body = context.run(enter, environ, start_response)
            # Nothing of the app runs while a list is iterated.
            kind = type(body)
            if kind is list or kind is tuple:
                return body
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(body, wrapper) and _close_inside(body, context):
                return body
            return _ContextBody(body, context)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


class _ContextBody:
    """A body whose steps run in the request's context, in whatever thread the server asks for them."""

    __slots__ = ("_body", "_closed", "_next", "_run")

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._run: Callable[..., Any] = context.run
        self._next: Callable[[], bytes] | None = None
        self._closed = False

    def __iter__(self) -> _ContextBody:
        return self

    def __next__(self) -> bytes:
        step = self._next
        if step is None:
            iterator: Iterator[bytes] = self._run(iter, self._body)
            step = self._next = iterator.__next__
        block: bytes = self._run(step)
        return block

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._run(close, self._body)


def _close_inside(body: Any, context: Context) -> bool:
    """Let the server's own file wrapper close the file in the context; False where it takes no attributes."""
    inner = getattr(body, "close", None)
    if inner is None:
        return True

    def closing() -> None:
        context.run(inner)

    try:
        body.close = closing
    except AttributeError:
        return False
    return True
