"""Where each key and each element of a TOML document stands.

:mod:`tomllib` checks a document and gives its values, but no positions. This scanner walks
over a document that ``tomllib`` has accepted and gives the positions, and nothing else.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import TypeAlias

from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.records import Record

__all__ = ["Path", "Place", "scan"]

#: From the root of the document: keys, and indexes of arrays.
Path: TypeAlias = "tuple[str | int, ...]"


class Place(Record):
    """Where a key stands and where its value begins; lines and columns count from 1."""

    line: int
    column: int
    value_line: int
    value_column: int


_SPACE = re.compile(r"[ \t]*")
# Whatever may stand between statements and between the elements of an array.
_GAP = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
# At most two quotes may stand right before the closing three: TOML 1.0, "String".
_LONG_BASIC = late_pattern(r'"""(?:[^"\\]|\\.|"(?!""))*"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL = late_pattern(r"'''(?:[^']|'(?!''))*'''(?:'{0,2})", re.DOTALL)
# Numbers, booleans, dates; a date and its time may be parted by one space.
_SCALAR = re.compile(r"[^\s,\]}#]+(?: [0-9]{2}:[^\s,\]}#]*)?")


def scan(text: str) -> dict[Path, Place]:
    """Return the place of every key, table and array element of *text*.

    Args:
        text: A document that ``tomllib.loads`` accepts; a byte order mark is passed over.
    """
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        # tomllib reads line ends the same way, so its columns and ours agree.
        self._text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        self._lines = [0, *(found.end() for found in re.finditer("\n", self._text))]
        self._places: dict[Path, Place] = {}
        self._tables: dict[Path, int] = {}  # arrays of tables, and how many they have

    def document(self) -> dict[Path, Place]:
        text, table = self._text, _ROOT
        i = self._skip(_GAP, 0)
        while i < len(text):
            if text[i] == "[":
                table, i = self._header(i)
            else:
                i = self._pair(i, table)
            i = self._skip(_GAP, i)
        return self._places

    def _skip(self, pattern: re.Pattern[str], i: int) -> int:
        found = pattern.match(self._text, i)
        return i if found is None else found.end()

    def _at(self, i: int) -> tuple[int, int]:
        line = bisect_right(self._lines, i)
        return line, i - self._lines[line - 1] + 1

    def _note(self, path: Path, key: int, value: int) -> None:
        self._places[path] = Place(*self._at(key), *self._at(value))

    def _header(self, start: int) -> tuple[Path, int]:
        """``[a.b]`` or ``[[a.b]]``: return the path that it opens."""
        is_array = self._text.startswith("[[", start)
        keys, i = self._dotted(start + 1 + is_array)
        path = _ROOT
        for key, _ in keys[:-1]:
            path = (*path, key)
            if path not in self._places:
                self._note(path, start, start)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = (*path, keys[-1][0])
        if is_array:
            index = self._tables.get(path, 0)
            self._tables[path] = index + 1
            if index == 0:
                self._note(path, start, start)
            path = (*path, index)
        self._note(path, start, start)
        return path, i + 1 + is_array

    def _pair(self, i: int, table: Path) -> int:
        """``a.b = value``."""
        keys, i = self._dotted(i)
        i = self._skip(_SPACE, i + 1)
        path = table
        for key, start in keys[:-1]:
            path = (*path, key)
            if path not in self._places:
                self._note(path, start, start)
        key, start = keys[-1]
        path = (*path, key)
        self._note(path, start, i)
        return self._value(i, path)

    def _dotted(self, i: int) -> tuple[list[tuple[str, int]], int]:
        """Return the parts of a dotted key, each with its start, and the end."""
        keys = []
        while True:
            i = self._skip(_SPACE, i)
            key, end = self._key(i)
            keys.append((key, i))
            i = self._skip(_SPACE, end)
            if self._text[i : i + 1] != ".":
                return keys, i
            i += 1

    def _key(self, i: int) -> tuple[str, int]:
        for pattern in (_BARE, _LITERAL, _BASIC):
            found = pattern.match(self._text, i)
            if found is not None:
                break
        else:
            raise ValueError(f"no key at {self._at(i)}")
        key = found[0]
        if pattern is _LITERAL:
            key = key[1:-1]
        elif pattern is _BASIC:
            key = tomllib.loads(f"k={key}")["k"] if "\\" in key else key[1:-1]
        return key, found.end()

    def _value(self, i: int, path: Path) -> int:
        """Return where the value at *i* ends; note what is inside."""
        first = self._text[i : i + 1]
        if first == "[":
            return self._array(i, path)
        if first == "{":
            return self._inline(i, path)
        if first == '"':
            return self._skip(_LONG_BASIC if self._text.startswith('"""', i) else _BASIC, i)
        if first == "'":
            return self._skip(_LONG_LITERAL if self._text.startswith("'''", i) else _LITERAL, i)
        end = self._skip(_SCALAR, i)
        if end == i:
            raise ValueError(f"no value at {self._at(i)}")
        return end

    def _array(self, i: int, path: Path) -> int:
        index = 0
        i = self._skip(_GAP, i + 1)
        while self._text[i] != "]":
            self._note((*path, index), i, i)
            i = self._skip(_GAP, self._value(i, (*path, index)))
            if self._text[i] == ",":
                i = self._skip(_GAP, i + 1)
            index += 1
        return i + 1

    def _inline(self, i: int, path: Path) -> int:
        i = self._skip(_GAP, i + 1)
        while self._text[i] != "}":
            i = self._skip(_GAP, self._pair(i, path))
            if self._text[i] == ",":
                i = self._skip(_GAP, i + 1)
        return i + 1


_ROOT: Path = ()
