"""JSON values of a session: checked, written and read by the C halves of :mod:`json`.

``json.dumps`` and ``json.loads`` prepare an encoder for each call and cost three times as much.
Text is ASCII, so that it fits any store and a cookie.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import decoder, encoder, scanner
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["SCALARS", "check", "decode", "encode", "scan"]

#: Values that cannot change in place, nor hold what is no JSON.
SCALARS: Final = frozenset({str, bool, type(None)})
# Deeper than any real value, and far from the limit of the recursive reader.
_MAX_DEPTH: Final = 100


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _make_encoder() -> Callable[[object], str]:
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C half
        return json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_refuse).encode
    write = make(None, _refuse, encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    join = "".join

    def encode(value: object) -> str:
        return join(write(value, 0))

    return encode


#: Write a checked value.
encode: Final = _make_encoder()
_make_scanner: Any = scanner.make_scanner
#: Read one value at a position; return it and where it ends. StopIteration and ValueError where there is none.
scan: Final[Callable[[str, int], tuple[Any, int]]] = _make_scanner(decoder.JSONDecoder())


def decode(text: str) -> JSON:
    """Read what :data:`encode` wrote.

    Raises:
        ValueError: It is no JSON, or more follows.
    """
    try:
        value, end = scan(text, 0)
    except (StopIteration, RecursionError):
        raise ValueError("no JSON") from None
    if end != len(text):
        raise ValueError("more follows the JSON value")
    return cast("JSON", value)


def check(value: object, depth: int = 0) -> None:
    """Refuse what would not come back as it is.

    Tuples are taken, and come back as lists: Flask keeps its flashed messages in them.

    Raises:
        TypeError: Not a JSON value; NaN and infinity, keys that are no text, deeper than 100.
    """
    kind = type(value)
    if kind in SCALARS:
        return
    if isinstance(value, int):
        if value.bit_length() > 4096:  # the reader refuses over 4300 digits
            raise TypeError("it is a number of over 1200 digits")
        return
    if depth > _MAX_DEPTH:
        raise TypeError("it is nested more than 100 deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a dict is no text")
            check(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check(item, depth + 1)
    elif isinstance(value, float):
        if value - value != 0:
            raise TypeError("NaN and infinity are no JSON values")
    elif not isinstance(value, str):
        raise TypeError(f"{kind.__name__} is no JSON value")
