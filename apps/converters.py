"""Converters: what a variable of a pattern matches, and the value it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "BUILTIN",
    "MOST_DIGITS",
    "AnyConverter",
    "Converter",
    "FloatConverter",
    "IntConverter",
    "PathConverter",
    "StrConverter",
    "UuidConverter",
    "regex_converter",
]

#: An identifier with more digits is nobody's; int() of thousands of digits raises or takes long.
MOST_DIGITS = 100
# The longest float that repr() can make, 5e-324, has 326 characters when written out.
_MOST_FLOAT_DIGITS = 400


class Converter:
    """Turns one segment of a path into a value, and a value into a segment.

    Subclass it for a type of your own, and give the class to the router's ``converters``. Its
    ``__init__`` takes what stands in parentheses: ``<date(min=2020):day>``.
    """

    #: Matched against the whole segment.
    pattern: str = r"[^/]+"
    #: Of two variables at one place, the one with the lower weight is tried first.
    weight: int = 50
    #: Whether the value may hold slashes; such a variable stands for one or more whole segments.
    multi_segment: bool = False

    def to_python(self, text: str) -> Any:
        """Return the value.

        Raises:
            ValueError: *text* is none, so the rule does not match.
        """
        return text

    def to_url(self, value: Any) -> str:
        """Return the text for *value*; what *pattern* does not match is refused afterwards."""
        return str(value)


class StrConverter(Converter):
    """Any text without a slash.

    Args:
        minlength: Fewest characters.
        maxlength: Most characters.
        length: Exactly so many.
    """

    weight = 90

    def __init__(self, minlength: int = 1, maxlength: int | None = None, length: int | None = None) -> None:
        if length is not None:
            minlength = maxlength = length
        if minlength < 1 or (maxlength is not None and maxlength < minlength):
            raise ValueError("lengths from 1, the smallest first")
        if (minlength, maxlength) != (1, None):
            self.pattern = rf"[^/]{{{minlength},{'' if maxlength is None else maxlength}}}"
            self.weight = 85


class IntConverter(Converter):
    """A decimal number in ASCII digits: no sign, no underscore, at most 100 digits.

    Args:
        min: The smallest value.
        max: The largest value.
        digits: Exactly so many digits, zeros in front.
        signed: Whether a minus may stand in front.
    """

    weight = 30

    def __init__(
        self, min: int | None = None, max: int | None = None, digits: int | None = None, signed: bool = False
    ) -> None:
        if digits is not None and not 1 <= digits <= MOST_DIGITS:
            raise ValueError(f"1 to {MOST_DIGITS} digits")
        self.pattern = ("-?" if signed else "") + (f"[0-9]{{{digits or f'1,{MOST_DIGITS}'}}}")
        self._min = min
        self._max = max
        self._digits = digits or 0

    def to_python(self, text: str) -> int:
        value = int(text)
        if (self._min is not None and value < self._min) or (self._max is not None and value > self._max):
            raise ValueError("out of range")
        return value

    def to_url(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:0{self._digits + (value < 0)}d}"
        return str(value)


class FloatConverter(Converter):
    """A decimal number with a point, digits on both sides of it.

    Args:
        min: The smallest value.
        max: The largest value.
        signed: Whether a minus may stand in front.
    """

    weight = 40

    def __init__(self, min: float | None = None, max: float | None = None, signed: bool = False) -> None:
        self.pattern = ("-?" if signed else "") + rf"[0-9]{{1,{_MOST_FLOAT_DIGITS}}}\.[0-9]{{1,{_MOST_FLOAT_DIGITS}}}"
        self._min = min
        self._max = max

    def to_python(self, text: str) -> float:
        value = float(text)
        low = self._min is not None and value < self._min
        if low or (self._max is not None and value > self._max) or value in (float("inf"), float("-inf")):
            raise ValueError("out of range")
        return value

    def to_url(self, value: Any) -> str:
        text = repr(value) if isinstance(value, float) else str(value)
        if "e" in text and isinstance(value, float):
            from decimal import Decimal

            text = f"{Decimal(text):f}"
        return text if "." in text or not text.lstrip("-").isdigit() else text + ".0"


class PathConverter(Converter):
    """One or more whole segments, slashes included."""

    weight = 100
    multi_segment = True
    pattern = r".+"


class UuidConverter(Converter):
    """A UUID, written with its dashes; the value is a :class:`uuid.UUID`."""

    weight = 20
    pattern = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

    def __init__(self) -> None:
        from uuid import UUID

        self._uuid = UUID

    def to_python(self, text: str) -> UUID:
        return self._uuid(text)


class AnyConverter(Converter):
    """One of the given words: ``<any(summer,winter):season>``."""

    weight = 10

    def __init__(self, *words: str) -> None:
        if not words or not all(isinstance(word, str) and word for word in words):
            raise ValueError("one or more words")
        self.words = frozenset(words)
        self.pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


#: What every router knows.
BUILTIN: Mapping[str, type[Converter]] = {
    "str": StrConverter,
    "int": IntConverter,
    "float": FloatConverter,
    "path": PathConverter,
    "uuid": UuidConverter,
    "any": AnyConverter,
}


def regex_converter(regex: str) -> type[Converter]:
    """Make a converter of a regular expression."""
    return type("RegexConverter", (Converter,), {"pattern": regex})
