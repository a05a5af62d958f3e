"""Texts as they stand in a line of the access log: escaped so that nothing can be forged, secrets hidden."""

from __future__ import annotations

import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Final, TypeAlias
from urllib.parse import quote

from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.redact import REDACTED, redact_query, redact_url

__all__ = [
    "Escape",
    "Hiding",
    "Memo",
    "bare",
    "hiding",
    "json_text",
    "logfmt_text",
    "path_text",
    "query_text",
    "quoted",
    "remember",
]

Escape: TypeAlias = Callable[[str], str]

# Characters of RFC 3986 that need no encoding in a path: unreserved, sub-delims, ":" "@" "/".
_PATH_SAFE: Final = "/:@!$&'()*+,;=~"
# In a query, what browsers send besides; and "%", because a query is logged as it was sent.
_QUERY_SAFE: Final = _PATH_SAFE + "%?|[]{}^`<>#"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9\-._~/:@!$&'()*+,;=]*")
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9\-._~/:@!$&'()*+,;=%?|\[\]{}^`<>#]*")
_PLAIN_QUOTED = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")
_PLAIN_BARE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_LOGFMT_BARE = late_pattern(r"[\x21\x23-\x3c\x3e-\x5b\x5d-\x7e]+")
_UNSAFE_QUOTED = late_pattern(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_UNSAFE_BARE = late_pattern(r"[^\x21\x23-\x5b\x5d-\x7e]")
# Most requests share browser, host and path.
_MEMO_ENTRIES: Final = 1024
_MEMO_LENGTH: Final = 512


def remember(known: dict[str, str], text: str, found: str) -> str:
    """Keep in *known* what *text* is escaped to, within bounds; not where something was hidden in it."""
    if len(text) <= _MEMO_LENGTH and REDACTED not in found:
        if len(known) >= _MEMO_ENTRIES:
            known.clear()
        known[text] = found
    return found


class Memo(dict[str, str]):
    """Escaped texts, made at the first use: a request costs one look-up in C for each field."""

    __slots__ = ("_escape",)

    def __init__(self, escape: Escape) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, text: str) -> str:
        return remember(self, text, self._escape(text))


class Hiding(Record):
    """Queries and addresses as they may be shown: the values of secret parameters hidden."""

    query: Escape
    referer: Escape


def hiding(hides: Callable[[str], bool]) -> Hiding:
    """Return what hides the parameters that *hides* names."""

    def query(text: str) -> str:
        return redact_query(text, hides)

    def referer(text: str) -> str:
        return redact_url(text, hides) if "=" in text or "@" in text else text

    return Hiding(query, referer)


def _hexadecimal(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """Escape what stands between quotes in a CLF line."""
    if _PLAIN_QUOTED.fullmatch(text) is None:
        return _UNSAFE_QUOTED.sub(_hexadecimal, text)
    return ("\\x2d" if text == "-" else text) or "-"


def bare(text: str) -> str:
    """Escape what stands between spaces in a CLF line."""
    if text in ("", "-"):
        return "\\x2d" if text else "-"
    return text if _PLAIN_BARE.fullmatch(text) is not None else _UNSAFE_BARE.sub(_hexadecimal, text)


def path_text(text: str) -> str:
    """Percent-encode the bytes of a path, as a client has to (RFC 3986 section 2.1)."""
    if _PLAIN_PATH.fullmatch(text) is not None:
        return text
    return quote(_octets(text), safe=_PATH_SAFE)


def query_text(text: str) -> str:
    """Percent-encode what no query may have; existing escapes stay."""
    if _PLAIN_QUERY.fullmatch(text) is not None:
        return text
    return quote(_octets(text), safe=_QUERY_SAFE)


def _octets(text: str) -> bytes:
    """The bytes that a WSGI string stands for."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # no server's environ has that; a log must take it anyway
        return text.encode("utf-8", "surrogatepass")


def json_text(text: str) -> str:
    """Write a JSON string in which DEL is escaped too, which the standard library leaves as it is."""
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def logfmt_text(text: str) -> str:
    """Write a logfmt value: bare where it may be, else a JSON string."""
    return text if _LOGFMT_BARE.fullmatch(text) is not None else json_text(text)
