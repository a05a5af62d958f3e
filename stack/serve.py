"""Serve an application with waitress, and stop without cutting off a request."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .kernel.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["listen", "serve", "shown_address"]

#: Requests in flight may take this long to finish after a signal to stop; gunicorn's graceful_timeout is the same.
GRACE_SECONDS = 30.0
#: As waitress and gunicorn: enough for a burst; wsgiref's 5 makes clients wait a second (SYN retry).
_BACKLOG = 1024
#: A connection made right before the signal to stop is waited for so long; its request is on the way.
_FIRST_REQUEST_SECONDS = 2.0


def listen(bind: str) -> socket.socket:
    """Open a listening socket.

    Args:
        bind: ``host:port``, ``[::1]:port``, ``:port`` (loopback), ``unix:/path`` or ``fd://N`` (inherited).

    Raises:
        ConfigError: Not such a text, or the address is not to be had.
    """
    if bind.startswith("fd://") and bind[5:].isdigit():
        return socket.socket(fileno=os.dup(int(bind[5:])))
    if bind.startswith("unix:"):
        return _listen_unix(bind[5:])
    host, colon, port = bind.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError("bind", bind, '"host:port", "unix:/path" or "fd://N"')
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigError("bind", bind, f"an address to listen on ({error.strerror or error})") from None
    listening.listen(_BACKLOG)
    return listening


def _listen_unix(path: str) -> socket.socket:
    """Listen on a unix socket; one that nobody listens on any more is replaced."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass
        finally:
            probe.close()
        listening.bind(path)
    except OSError as error:
        listening.close()
        raise ConfigError("bind", f"unix:{path}", f"a path to listen on ({error.strerror})") from None
    listening.listen(_BACKLOG)
    return listening


def shown_address(listening: socket.socket) -> str:
    """Return what a person types into a browser, or the path of a unix socket."""
    name = listening.getsockname()
    if isinstance(name, (str, bytes)):
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}/"


def serve(
    app: WSGIApplication,
    sockets: Iterable[socket.socket],
    *,
    threads: int = 8,
    ready: Callable[[], object] = lambda: None,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight finish.

    Args:
        app: The application.
        sockets: Listening sockets; closed at the end.
        threads: How many requests are handled at a time.
        ready: Called once connections are accepted.
        grace_seconds: How long requests in flight may take after the signal.
    """
    from waitress import wasyncore
    from waitress.server import create_server

    sockets = list(sockets)
    server = create_server(app, sockets=sockets, threads=threads, ident=None, clear_untrusted_proxy_headers=False)
    network: dict[int, Any] = server._map if hasattr(server, "_map") else server.map
    stopping: list[float] = []
    handlers = {
        number: signal.signal(number, lambda *_: stopping.append(time.monotonic()))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        ready()
        while not stopping:
            wasyncore.loop(timeout=0.5, map=network, count=1)
        _stop_listening(network)
        # A second signal, or the end of the grace, cuts off what is still going on.
        while len(stopping) < 2 and time.monotonic() - stopping[0] < grace_seconds and _is_busy(network):
            wasyncore.loop(timeout=0.05, map=network, count=1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        dispatcher = getattr(server, "task_dispatcher", None)
        if dispatcher is not None:
            dispatcher.shutdown(cancel_pending=True, timeout=0.1)
        wasyncore.close_all(network)
        for listening in sockets:
            listening.close()


def _stop_listening(network: dict[int, Any]) -> None:
    """Take the listening sockets out of the loop; connections stay."""
    for item in list(network.values()):
        if getattr(item, "accepting", False):
            item.del_channel(network)
            item.socket.close()


def _is_busy(network: dict[int, Any]) -> bool:
    """Tell whether a connection has a request in work, an answer not yet sent, or was made but a moment ago."""
    return any(
        getattr(item, "requests", None)
        or getattr(item, "total_outbufs_len", 0)
        or getattr(item, "request", None)
        or _is_fresh(item)
        for item in list(network.values())
    )


def _is_fresh(item: Any) -> bool:
    """Tell whether a client has connected whose first request is still on its way."""
    created: float | None = getattr(item, "creation_time", None)
    return created is not None and item.last_activity == created and time.time() - created < _FIRST_REQUEST_SECONDS
