"""Compose layers into one WSGI application: from Python, or from a stack file.

The names below are imported on first use, so that a layer that needs only
``lamella.stack.kernel`` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.stack.build import Layer as Layer
    from lamella.stack.build import Stack as Stack
    from lamella.stack.build import load as load
    from lamella.stack.problems import StackFileError as StackFileError

__all__ = ["Layer", "Stack", "StackFileError", "load"]

_HOMES = {
    "Layer": "lamella.stack.build",
    "Stack": "lamella.stack.build",
    "StackFileError": "lamella.stack.problems",
    "load": "lamella.stack.build",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
