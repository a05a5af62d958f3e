"""Every exception that lamella raises on purpose, as one ladder.

Catch at the width you want: :class:`LamellaError` for all, a builtin
(``ValueError``, ``LookupError``, ``ImportError``) for the kind, a leaf for the cause.
Messages are one line and say what to do.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = [
    "BadRequestError",
    "ConfigError",
    "LamellaError",
    "MissingExtraError",
    "MissingLayerError",
    "import_extra",
]


class LamellaError(Exception):
    """Base of every error of lamella's own."""


class ConfigError(LamellaError, ValueError):
    """An option of a layer is wrong; raised when the stack is built, never by a request.

    Args:
        option: Name of the option, as written in Python and in the stack file.
        value: The refused value. A :class:`~lamella.stack.kernel.options.Secret` shows as ``***``.
        expected: What is accepted, as the end of "expected …".
    """

    def __init__(self, option: str, value: object, expected: str) -> None:
        super().__init__(option, value, expected)
        self.option = option
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        # The name may hold a key of the user's table, and a repr of the user's own class may be anything.
        return _one_line(f"{self.option}: expected {self.expected}, not {_short(self.value)}")


class MissingLayerError(LamellaError, LookupError):
    """An environ key is needed that no layer outside has set.

    Args:
        key: The environ key, such as ``lamella.session``.
        layer: Short names of the layers that set it; empty where only the user's own can.
    """

    def __init__(self, key: str, layer: str = "") -> None:
        super().__init__(key, layer)
        self.key = key
        self.layer = layer

    def __str__(self) -> str:
        cure = f"add the layer {self.layer!r} outside this one" if self.layer else "add the layer that sets it"
        return f"no layer outside provides {self.key}; {cure}"


class MissingExtraError(LamellaError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"needs the package {module!r}: pip install 'lamella[{extra}]'")
        self.extra = extra


class BadRequestError(LamellaError, ValueError):
    """The client sent something that HTTP does not allow.

    Args:
        reason: Why, in words that are safe to show (never the client's bytes).
        status: The status line to answer with.
    """

    def __init__(self, reason: str, status: str = "400 Bad Request") -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def import_extra(module: str, extra: str) -> ModuleType:
    """Import *module*, which the extra *extra* brings.

    Raises:
        MissingExtraError: *module* is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise MissingExtraError(module.partition(".")[0], extra) from None


def _short(value: object, limit: int = 80) -> str:
    """Show *value* in at most *limit* characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a message about a wrong value must not fail because of the value
        text = f"an object of {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _one_line(text: str) -> str:
    """Write the characters that would end the line, or that cannot be written at all, as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
