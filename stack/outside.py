"""Values from outside the stack file: ``{ env = … }``, ``{ file = … }``, ``{ insecure = … }``, and the text in them."""

from __future__ import annotations

import os
from typing import Any

from lamella.stack.hints import toml_text
from lamella.stack.problems import UnresolvedError

__all__ = ["EXTERNAL", "SOURCES", "Text", "is_external", "number", "read_source", "read_text", "shown"]

#: The keys of a value from outside.
EXTERNAL = frozenset({"env", "file", "insecure", "default"})
#: Those of them of which one must be there.
SOURCES = EXTERNAL - {"default"}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def is_external(value: object) -> bool:
    """Tell whether *value* is ``{ env = … }``, ``{ file = … }`` or ``{ insecure = … }``."""
    return isinstance(value, dict) and value.keys() <= EXTERNAL and len(value.keys() - {"default"}) > 0


class Text(str):
    """Text from outside the file: a number or a truth value may be written in it."""

    #: Where it comes from, such as ``env PORT``; then it is not shown.
    source = ""

    @classmethod
    def of(cls, text: str, source: str) -> Text:
        """Return *text* from *source*."""
        made = cls(text)
        made.source = source
        return made


def read_source(source: str, named: str, folder: str) -> str | None:
    """Return the text of a variable or a file; None where there is no such one.

    Args:
        source: ``env``, ``file`` or ``insecure``, which is the text itself.
        named: The variable, or the file relative to *folder*.
        folder: Where the stack file is.

    Raises:
        UnresolvedError: The file cannot be read.
    """
    if source == "insecure":
        return named
    if source == "env":
        return os.environ.get(named)
    try:
        with open(os.path.join(folder, named), encoding="utf-8", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UnresolvedError(f"the file {named} is not UTF-8") from None
    except OSError as error:
        raise UnresolvedError(f"the file {named} cannot be read: {error.strerror}") from None
    # The line end that an editor or `echo` leaves is no part of the value.
    return text.removesuffix("\n").removesuffix("\r")


def shown(value: Any) -> str:
    """Show a value on one line; what comes from outside the file by its source."""
    if isinstance(value, Text) and value.source:
        return f"the text of {value.source}"
    return toml_text(value)


def number(text: str) -> str | int:
    """Text from outside that is all digits is a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text


def read_text(text: Text, hint: Any) -> Any:
    """Read a number or a truth value out of text from outside."""
    if hint is bool:
        return _TRUTH.get(text.lower(), text)
    if hint in (int, float):
        try:
            return hint(str(text))
        except ValueError:
            return text
    return text
