"""What an app gets wrong with WSGI itself: told with the app's name, the fault, and the cure.

``edge`` and ``errors`` use it where an answer cannot go out. Nothing here runs for a right answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .errors import LamellaError
from .keys import MOUNT

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["BrokenAppError", "app_name", "fault_of_body", "fault_of_status", "note_app"]

#: Layers, and the closures behind them, with the name of the app that they are wrapped around.
_NAMES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class BrokenAppError(LamellaError, TypeError):
    """An app returned what no server can send.

    Args:
        app: Its name, as :func:`app_name` has it.
        fault: What is wrong, and what to write instead.
    """

    def __init__(self, app: str, fault: str) -> None:
        super().__init__(f"{app} {fault}")
        self.app = app
        self.fault = fault


def note_app(layer: object, name: str) -> None:
    """Remember that the app inside of *layer* is called *name*, as in the stack file."""
    for key in (layer, getattr(layer, "wsgi_closure", None)):
        if key is not None:
            try:
                _NAMES[key] = name
            except TypeError:  # it has no weak references, or no hash
                continue


def app_name(layer: object, environ: WSGIEnvironment) -> str:
    """Return what to call the app that answered: by its mount, by its name in the stack, by its own.

    Args:
        layer: What is called inside: a layer, or the app itself.
        environ: The request, after the app has had it.
    """
    try:
        name: str = _NAMES.get(layer, "")
    except TypeError:
        name = ""
    mount = MOUNT.get(environ)
    if isinstance(mount, str):
        return f"the app at {mount}"
    if not name:
        found = layer if hasattr(layer, "__qualname__") else type(layer)
        module: str = getattr(found, "__module__", None) or ""
        if not module.startswith("lamella."):
            name = f"{module}:{found.__qualname__}"
    return f"the app {name}" if name else "the app"


def fault_of_body(body: object, block: object = b"") -> str | None:
    """Say what is wrong with a body, or with one block of it; None where it can go out.

    Args:
        body: What the app returned.
        block: One of the items that it is made of.
    """
    if body is None:
        return 'returned nothing: end it with return [b"…"], a list of bytes'
    if isinstance(body, str):
        return 'returned text as its body: write return [body.encode("utf-8")], a list of bytes'
    if isinstance(body, (bytes, bytearray)):
        return "returned bare bytes as its body, which are sent one number at a time: write return [body], a list"
    if isinstance(block, str):
        return 'has text in its body: encode each part, as in [text.encode("utf-8")]'
    if not isinstance(block, bytes):
        return f"has an object of type {type(block).__name__} in its body: each part must be bytes"
    if not hasattr(body, "__iter__") and not hasattr(body, "__getitem__"):
        return f'returned an object of type {type(body).__name__}: write return [b"…"], a list of bytes'
    return None


def fault_of_status(status: object) -> str | None:
    """Say what is wrong with a status line; None where servers take it."""
    right = 'write three digits, a space and words, such as "200 OK"'
    if not isinstance(status, str):
        return f"gave the status as {type(status).__name__}, {status!r:.60}: {right}"
    if not (status[:3].isascii() and status[:3].isdigit() and status[:3] >= "100" and status[3:4] in ("", " ")):
        return f"gave the status {status!r:.60}, which is none: {right}"
    return None
