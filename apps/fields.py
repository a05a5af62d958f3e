"""Statuses and header fields, checked before they leave: WebOb stores CR and LF without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.errors import LamellaError
from lamella.stack.kernel.http import HOP_BY_HOP, is_field_value, is_token
from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.response import Headers

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

__all__ = [
    "STATUSES",
    "ResponseError",
    "check_headers",
    "check_status",
    "checking",
    "header_list",
    "known_fields",
    "status_line",
]

#: Status lines by code.
STATUSES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_LINES = frozenset(line for line in STATUSES.values() if line[0] != "1")
_STATUS = late_pattern(r"[2-5][0-9]{2} [\x20-\x7e]*")
# Most (name, value) pairs to remember as checked; an app has a few dozen that recur.
_MOST_KNOWN = 1024
#: The pairs that were found good, so that a response that has only these needs no check.
known_fields = {
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Type", "text/html; charset=UTF-8"),
    ("Content-Type", "application/json"),
}


class ResponseError(LamellaError, ValueError):
    """A view returned what cannot be sent; the message names the view."""


def status_line(status: Any, view: str) -> str:
    """Return the status line for a number or a line."""
    if isinstance(status, int) and 200 <= status <= 599:
        code = int(status)
        return STATUSES.get(code, f"{code} Unknown")
    if isinstance(status, str):
        if status.isascii() and status.isdigit() and len(status) == 3:
            return status_line(int(status), view)
        check_status(status, view)
        return status
    raise ResponseError(f"the view {view} returned the status {status!r}; expected 200 to 599")


def check_status(status: str, view: str) -> None:
    if status not in _LINES and _STATUS.fullmatch(status) is None:
        raise ResponseError(f"the view {view} returned the status {status!r}; expected such as '200 OK'")


def check_headers(headers: Iterable[Any], view: str) -> None:
    """Check names and values; remember what recurs.

    Raises:
        ResponseError: Not a token, a control character, something outside latin-1, or a hop-by-hop field.
    """
    for item in headers:
        if type(item) is not tuple or len(item) != 2 or type(item[0]) is not str or type(item[1]) is not str:
            raise ResponseError(f"the view {view} set the header {item!r}; expected a pair of str")
        if item in known_fields:
            continue
        name, value = item
        if not is_token(name):
            raise ResponseError(f"the view {view} set a header whose name is no token: {name!r}")
        if name.lower() in HOP_BY_HOP:
            raise ResponseError(f"the view {view} set the header {name}, which is the server's (PEP 3333)")
        if not is_field_value(value) or value != value.strip(" \t"):
            raise ResponseError(f"the view {view} set the header {name} to a value with forbidden characters")
        if len(value) < 200:
            if len(known_fields) >= _MOST_KNOWN:  # begin anew: lengths that never come back must not fill it for good
                known_fields.clear()
            known_fields.add(item)


def header_list(headers: Any, view: str) -> Headers:
    """Return checked pairs from a mapping or a list of pairs; numbers become text."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    result: Headers = []
    try:
        for name, values in pairs:
            for value in values if isinstance(values, (list, tuple)) else (values,):
                result.append((name, str(value) if isinstance(value, int) else value))
    except (TypeError, ValueError):
        raise ResponseError(f"the view {view} returned headers that are no pairs: {headers!r}") from None
    check_headers(result, view)
    return result


def checking(start_response: StartResponse, view: str) -> StartResponse:
    """Return a ``start_response`` that checks what an application sends."""

    def start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        check_headers(headers, view)
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start
