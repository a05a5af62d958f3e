"""Run an ASGI app (FastAPI, Starlette, Quart, Django's ASGI handler, Litestar) as a WSGI application.

.. code-block:: toml

    [app]
    use = "shop.api:app"                             # an ASGI app: the bridge is put around it

    [[layer]]
    use = "dispatch"
    mounts = { "/live" = "shop.live:app" }           # here, too

With options, name the bridge itself: ``use = "lamella.apps.asgi:ASGIApp"``, ``app = "shop.api:app"``,
``lifespan = "off"``; or wrap the app in Python.

All ASGI apps of a process run in one event loop, in one thread, opened with the first request. Not for
websockets: a WSGI server has none, and a client that asks for one gets a 426.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.options import App, Duration, Size, choice, duration, reference, size
from lamella.stack.kernel.response import refuse

from ._asgi_exchange import ClientDisconnectedError, Exchange
from ._asgi_loop import LifespanError, current_loop, shown
from ._asgi_scope import http_scope, wants_websocket

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from ._asgi_loop import ASGIApplication

__all__ = ["ASGIApp", "ClientDisconnectedError", "LifespanError"]


class ASGIApp:
    """An ASGI app, callable as a WSGI application.

    Bodies stream both ways: the app's ``receive()`` reads what the client sends as it comes, and each
    part that it sends is a block of the answer. ``close()`` tells the app that the client has gone, and
    cancels it where it does not end by itself. What it does after the end of its answer holds nobody up.

    Args:
        app: The ASGI app, or ``"module:attribute"``.
        lifespan: ``"auto"`` (the app's startup runs before its first request in a process; an app that
            raises at it has none), ``"on"`` (that is an error), or ``"off"``.
        startup_timeout: How long the startup may take.
        buffer: How much of an answer may wait for the client before the app's ``send()`` waits.

    Raises:
        ConfigError: *app* is no ASGI app, or an option is none of its values.
    """

    def __init__(
        self,
        app: App,
        *,
        lifespan: str = "auto",
        startup_timeout: Duration = "60s",
        buffer: Size = "64 KiB",
    ) -> None:
        from lamella.stack.kernel.asgi import is_asgi

        found: Any = reference("app", app) if isinstance(app, str) else app
        if not is_asgi(found):
            raise ConfigError("app", app, "an ASGI app: an async callable that takes (scope, receive, send)")
        self.app: ASGIApplication = found
        self._lifespan = choice("lifespan", lifespan, ("auto", "on", "off"))
        self._startup_seconds = duration("startup_timeout", startup_timeout)
        if self._startup_seconds <= 0:
            raise ConfigError("startup_timeout", startup_timeout, 'a duration over zero, such as "60s"')
        self._buffer_bytes = size("buffer", buffer)

    def start(self) -> None:
        """Start the app now, in this process, instead of with its first request.

        For a server's hook that runs in each worker process. A second call does nothing.

        Raises:
            LifespanError: The app's startup failed.
        """
        current_loop().lifespan(self.app, self._lifespan, self._startup_seconds).start()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            if wants_websocket(environ):
                raise BadRequestError("there are no websockets at this address", "426 Upgrade Required")
            loop = current_loop()
            lifespan = loop.lifespan(self.app, self._lifespan, self._startup_seconds)
            lifespan.start()
            scope = http_scope(environ, lifespan.state)
            exchange = Exchange(loop, self.app, scope, environ, self._buffer_bytes)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        try:
            exchange.begin()
            exchange.wait_for_answer()
            if not exchange.has_begun:
                if exchange.was_cut_short:
                    exchange.close()
                    return refuse(environ, start_response, BadRequestError("the request's body ended early"))
                raise exchange.failure or ClientDisconnectedError("the client has disconnected")
            if exchange.failure is not None and len(exchange.blocks) == 0:
                raise exchange.failure
            start_response(exchange.status, exchange.headers)
        except BaseException:
            exchange.close()
            raise
        if exchange.is_bodiless:
            return _Body(exchange)
        if exchange.is_whole and len(exchange.blocks) <= 1:
            whole = [*exchange.blocks]
            exchange.close()
            return whole
        return _Body(exchange)

    def __repr__(self) -> str:
        return f"<ASGI app {shown(self.app)}>"


class _Body:
    """The blocks of an answer, as they come."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Exchange | None = exchange

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        if exchange is None or exchange.is_bodiless:
            raise StopIteration
        block = exchange.next_block()
        if block is not None:
            return block
        if exchange.is_whole:
            raise StopIteration
        # The server cuts the connection: what was sent must not look like the whole answer.
        raise exchange.failure or ClientDisconnectedError("the client has disconnected")

    def close(self) -> None:
        """Tell the app that nobody takes its answer any more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
