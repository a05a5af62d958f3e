"""The token of a form, without WSGI: secret and mask, where it stands in a body, and giving the body back."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import MutableMapping
from hmac import compare_digest
from io import BytesIO
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from lamella.stack.kernel.http import parse_parameters
from lamella.stack.kernel.masks import mask, unmask
from lamella.stack.kernel.signing import decode_base64url, encode_base64url

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["FORM_BYTES", "Replayed", "find_field", "is_valid", "make_token"]

#: The session's own key for the secret.
SESSION_KEY = "_csrf"
#: A form must have its token within this many bytes; WordPress and Django forms have it first.
FORM_BYTES = 64 * 1024
_SECRET_BYTES = 32
_TOKEN_LENGTH = 86  # base64url of mask and masked secret
#: A form opened just before its reader logged in may still be sent for so long.
GRACE_SECONDS = 600.0
_NAME = re.compile(rb'(?:\A|;)[ \t]*name="([^"\r\n]*)"', re.IGNORECASE)


def make_token(session: MutableMapping[str, JSON], user: str, now: float | None = None) -> str:
    """Return a token of the session's secret, masked anew (so that compression tells nothing of it: BREACH).

    Args:
        session: Where the secret is kept; made where there is none for *user*.
        user: Who is logged in, or ``""``. At login the secret changes.
        now: The time, for the grace of the old secret.
    """
    kept = _kept(session)
    if kept is None or kept["user"] != user:
        new: dict[str, JSON] = {"user": user, "secret": encode_base64url(secrets.token_bytes(_SECRET_BYTES))}
        if kept is not None and kept["user"] == "":
            new["old"] = kept["secret"]
            new["until"] = (time.time() if now is None else now) + GRACE_SECONDS
        session[SESSION_KEY] = new
        kept = new
    return mask(decode_base64url(str(kept["secret"])) or b"")


def is_valid(session: MutableMapping[str, JSON], user: str, token: str, now: float | None = None) -> bool:
    """Tell whether *token* was made for this session and this user; in constant time."""
    unmasked = unmask(token, _SECRET_BYTES) if len(token) == _TOKEN_LENGTH else None
    kept = _kept(session)
    if unmasked is None or kept is None:
        return False
    if kept["user"] == user and _same(unmasked, kept["secret"]):
        return True
    now = time.time() if now is None else now
    if kept["user"] == "" and user:  # logged in since, and no token was made yet
        return _same(unmasked, kept["secret"])
    until = kept.get("until")
    in_grace = isinstance(until, (int, float)) and now < until
    return in_grace and kept["user"] == user and _same(unmasked, kept.get("old"))


def _kept(session: MutableMapping[str, JSON]) -> dict[str, JSON] | None:
    kept = session.get(SESSION_KEY)
    if isinstance(kept, dict) and isinstance(kept.get("secret"), str) and isinstance(kept.get("user"), str):
        return kept
    return None


def _same(unmasked: bytes, secret: JSON) -> bool:
    expected = decode_base64url(secret) if isinstance(secret, str) else None
    return expected is not None and len(expected) == _SECRET_BYTES and compare_digest(unmasked, expected)


def find_field(content_type: str, start: bytes, field: str) -> str | None:
    """Find a form field in the first bytes of a body.

    Args:
        content_type: The request's Content-Type.
        start: The beginning of the body.
        field: Name of the field.

    Returns:
        Its value, or None where it is absent, cut off, or there twice.
    """
    parsed = parse_parameters(content_type)
    if parsed is None:
        return None
    media_type, parameters = parsed[0].lower(), parsed[1]
    if media_type == "application/x-www-form-urlencoded":
        values = _urlencoded(start, field.encode())
    elif media_type == "multipart/form-data" and 0 < len(parameters.get("boundary", "")) <= 70:
        values = _multipart(start, parameters["boundary"].encode("latin-1"), field.encode())
    else:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else None


def _urlencoded(start: bytes, field: bytes) -> list[bytes]:
    """URL standard, "application/x-www-form-urlencoded parsing", for one name."""
    found = []
    for pair in start.split(b"&"):
        name, equals, value = pair.partition(b"=")
        if equals and (name == field or unquote_to_bytes(name.replace(b"+", b" ")) == field):
            found.append(unquote_to_bytes(value.replace(b"+", b" ")))
    return found


def _multipart(start: bytes, boundary: bytes, field: bytes) -> list[bytes]:
    """RFC 7578, for one name; a part whose end is not in *start* does not count."""
    found = []
    for part in (b"\r\n" + start).split(b"\r\n--" + boundary)[1:-1]:
        head, blank, value = part.partition(b"\r\n\r\n")
        disposition = next(
            (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposition:")), b""
        )
        name = _NAME.search(disposition.partition(b";")[2])
        if blank and name is not None and name[1] == field:
            found.append(value)
    return found


class _Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...

    def readline(self, size: int = ..., /) -> bytes: ...


class Replayed:
    """A stream of which the beginning was read and is given out again first.

    Args:
        start: What was read.
        rest: The stream it was read from.
    """

    __slots__ = ("_rest", "_start")

    def __init__(self, start: bytes, rest: _Readable) -> None:
        self._start = BytesIO(start)
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        """Read at most *size* bytes."""
        data = self._start.read(size)
        if len(data) == size:
            return data
        return data + self._rest.read(size - len(data) if size >= 0 else size)

    def readline(self, size: int = -1, /) -> bytes:
        """Read to the end of the line, or at most *size* bytes of it."""
        line = self._start.readline(size)
        if line.endswith(b"\n") or len(line) == size:
            return line
        return line + self._rest.readline(size - len(line) if size >= 0 else size)
