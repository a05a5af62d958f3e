"""The stack of ``LAMELLA_STACK`` for servers that take ``module:attribute`` and no arguments.

``application`` is the stack, ``asgi`` is the same for an ASGI server (needs the extra ``asgi``). Both are made
when they are first asked for, from the variables ``LAMELLA_STACK`` (default ``stack.toml``), ``LAMELLA_PROFILE``
and ``LAMELLA_THREADS`` (of ``asgi``: how many requests at a time).

.. code-block:: console

    $ LAMELLA_STACK=stack.toml granian --interface wsgi lamella.stack.wsgi:application
    $ LAMELLA_STACK=stack.toml uvicorn lamella.stack.wsgi:asgi
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamella.stack.build import Stack

__all__ = ["application", "asgi", "load_application"]

application: Stack
asgi: Any


def __getattr__(name: str) -> object:
    if name not in ("application", "asgi"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()["application"] = globals().get("application") or load_application()
    if name == "asgi":
        made = globals()["asgi"] = _for_asgi(made)
    return made


def _for_asgi(stack: Stack) -> Any:
    """Return the stack as an ASGI application."""
    from lamella.stack.kernel.errors import import_extra

    inner = import_extra("a2wsgi", "asgi").WSGIMiddleware(stack, workers=int(os.environ.get("LAMELLA_THREADS", "8")))

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await inner(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await _shut_down()
            await send({"type": "lifespan.shutdown.complete"})
        else:  # a websocket: there are none, and ASGI refuses one by closing it
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    return asgi


async def _shut_down() -> None:
    """End the ASGI apps that are mounted: uvicorn leaves by a signal, and Python calls nothing at such an exit."""
    import asyncio

    bridge = sys.modules.get("lamella.apps._asgi_loop")
    if bridge is not None:
        await asyncio.to_thread(bridge.close_loop)


def load_application() -> Stack:
    """Load the stack file; what is beside it can be imported. For uWSGI, which asks no module for a name."""
    from lamella.stack.build import load

    path = Path(os.environ.get("LAMELLA_STACK") or "stack.toml")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return load(path, profile=os.environ.get("LAMELLA_PROFILE") or None)
