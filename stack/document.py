"""One stack file as read: its values, and where each stands."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from lamella.stack.kernel.late import late_pattern
from lamella.stack.problems import Problem, StackFileError, did_you_mean
from lamella.stack.scanner import Path, Place, scan

__all__ = ["Document", "Raw", "read"]

_AT = late_pattern(r" \(at line (\d+), column (\d+)\)\Z")
# No option is a tenth as deep; Python's own stack ends at some hundreds.
_DEPTH = 64
_AT_END = " (at end of document)"


class Document:
    """A stack file.

    Args:
        file: Its path, as it was given.
        data: What ``tomllib`` made of it.
        places: What the scanner found in it.
    """

    __slots__ = ("data", "file", "folder", "places", "problems")

    def __init__(self, file: str, data: dict[str, Any], places: dict[Path, Place]) -> None:
        self.file = file
        self.folder = os.path.dirname(os.path.abspath(file))
        self.data = data
        self.places = places
        #: What has been found wrong, warnings included.
        self.problems: list[Problem] = []

    def key(self, path: Path) -> tuple[int, int]:
        """Return line and column of the key at *path*, or of what is nearest to it."""
        while path and path not in self.places:
            path = path[:-1]
        place = self.places.get(path)
        return (place.line, place.column) if place is not None else (1, 1)

    def value(self, path: Path) -> tuple[int, int]:
        """Return line and column of the value at *path*, or of what is nearest to it."""
        while path and path not in self.places:
            path = path[:-1]
        place = self.places.get(path)
        return (place.value_line, place.value_column) if place is not None else (1, 1)

    def refuse_key(self, path: Path, message: str, phase: str = "types", *, warning: bool = False) -> None:
        """Note a mistake at the key of *path*."""
        self.problems.append(Problem(self.file, *self.key(path), message, phase=phase, warning=warning))

    def refuse(self, path: Path, message: str, phase: str = "types") -> None:
        """Note a mistake at the value of *path*."""
        self.problems.append(Problem(self.file, *self.value(path), message, phase=phase))

    # -- shapes --

    def known_keys(self, path: Path, table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        """Refuse every key of *table* that is not one of *known*."""
        known = tuple(known)
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known) or "; there are " + ", ".join(f"`{name}`" for name in known)
                self.refuse_key((*path, key), f"{where} has no key `{key}`{hint}")

    def table(self, path: Path, value: Any) -> dict[str, Any]:
        """Return *value*, or an empty table once it is refused."""
        if isinstance(value, dict):
            return value
        self.refuse(path, f"expected a table, not {shown(value)}")
        return {}

    def tables(self, path: Path, value: Any) -> list[dict[str, Any]]:
        """Return *value*, an array of tables; what is none is refused."""
        name = path[-1]
        if not isinstance(value, list):
            self.refuse(path, f"expected an array of tables: write [[{name}]], not {shown(value)}")
            return []
        return [self.table((*path, i), item) for i, item in enumerate(value)]

    def text(self, path: Path, value: Any, what: str = "text") -> str:
        """Return *value*, or nothing once it is refused."""
        if isinstance(value, str) and value and value.isprintable():
            return value
        self.refuse(path, f"expected {what}, not {shown(value)}")
        return ""

    def texts(self, path: Path, value: Any, what: str = "a list of text") -> list[str]:
        """Return the text in the list *value*; the rest is refused."""
        if not isinstance(value, list):
            self.refuse(path, f"expected {what}, not {shown(value)}")
            return []
        return [text for i, item in enumerate(value) if (text := self.text((*path, i), item))]


class Raw:
    """A value that stands in a stack file, not converted yet.

    Args:
        document: The file.
        path: Where in it.
        value: What ``tomllib`` made of it.
        profile: Name of the profile that sets it; empty outside of profiles.
    """

    __slots__ = ("document", "path", "profile", "value")

    def __init__(self, document: Document, path: Path, value: Any, profile: str = "") -> None:
        self.document = document
        self.path = path
        self.value = value
        self.profile = profile


def shown(value: Any) -> str:
    """Show a value of the file on one short line."""
    from lamella.stack.hints import toml_text

    return toml_text(value)


def read(file: str) -> Document:
    """Read and parse one file.

    Raises:
        StackFileError: It cannot be read, or is no TOML.
    """
    try:
        with open(file, "rb") as stream:
            octets = stream.read()
    except IsADirectoryError:
        raise _failed(file, 1, 1, "this is a folder; name the stack file in it") from None
    except OSError as error:
        raise _failed(file, 1, 1, f"the stack file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _failed(file, 1, 1, f"this is no path: {error}") from None
    try:
        text = octets.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = octets[: error.start].decode("utf-8", "replace").removeprefix("\ufeff")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        octet = octets[error.start]
        raise _failed(file, line, column, f"the file is not UTF-8: byte 0x{octet:02x} cannot stand here") from None
    try:
        data = tomllib.loads(text)
        places = scan(text)
    except tomllib.TOMLDecodeError as error:
        raise _failed(file, *_syntax(str(error), text)) from None
    except RecursionError:
        raise _failed(file, 1, 1, "the values are nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits, a date that does not exist
        raise _failed(file, 1, 1, f"a value cannot be read: {error}") from None
    if max(map(len, places), default=0) > _DEPTH:
        deepest = min(place for path, place in places.items() if len(path) > _DEPTH)
        raise _failed(file, deepest.line, deepest.column, "the values are nested too deeply")
    return Document(file, data, places)


def _failed(file: str, line: int, column: int, message: str) -> StackFileError:
    return StackFileError([Problem(file, line, column, message, phase="syntax")])


def _syntax(message: str, text: str) -> tuple[int, int, str]:
    """Return the place in ``tomllib``'s message, and the rest of it."""
    found = _AT.search(message)
    if found is not None:
        line, column, message = int(found[1]), int(found[2]), message[: found.start()]
    else:
        lines = text.replace("\r\n", "\n").split("\n")
        line, column = len(lines), len(lines[-1]) + 1
        message = message.removesuffix(_AT_END) + " at the end of the file"
    return line, column, f"not TOML: {message[:1].lower()}{message[1:]}"
