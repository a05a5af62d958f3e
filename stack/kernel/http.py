"""The grammar of HTTP, once: tokens, lists, parameters, q-values, dates, ETags, hosts, origins.

Pure functions on native strings. Every parser is linear in its input and never raises
on what the network sent: what is malformed is None, an empty list, or left out, as each
docstring says. References are to RFC 9110 (HTTP semantics) unless they say otherwise.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from ipaddress import IPv6Address
from itertools import islice

from .late import late_pattern
from .records import Record

__all__ = [
    "HOP_BY_HOP",
    "ETag",
    "HostPort",
    "Origin",
    "Weighted",
    "accepted_codings",
    "accepts",
    "etag_matches",
    "format_date",
    "is_field_value",
    "is_token",
    "parse_date",
    "parse_etags",
    "parse_host",
    "parse_list",
    "parse_origin",
    "parse_parameters",
    "parse_qvalue",
    "parse_weighted",
    "quote_string",
    "split_quoted",
    "unquote_string",
]

# Section 5.6.2: token = 1*tchar
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Section 5.5: field-value = *( VCHAR / obs-text / SP / HTAB ), here as latin-1 characters.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What stands between separators: anything else, and whole quoted-strings (section 5.6.4).
_PIECES = {mark: late_pattern(rf'(?:[^"{mark}]+|"(?:[^"\\]|\\.)*")*', re.DOTALL) for mark in ",;"}
# As many elements as fit into the 8 KiB that nginx and gunicorn take of one header line.
_MOST_PIECES = 4096
# Section 12.4.2: qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )
_QVALUE = late_pattern(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
# Section 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
# One list element; a malformed one matches without groups. Its alternatives never fail, so it is linear.
_ETAG_ELEMENT = late_pattern(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*|[^,]*)(?:,|$)')
# RFC 3986 section 3.2.2: reg-name without sub-delims and percent-encoding, which no browser sends in Host.
_REG_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_HEX_NUMBER = re.compile(r"0x[0-9a-f]*")

# Browsers send at most a dozen; Rack was stopped by 1,000 (CVE-2026-34230).
_MOST_WEIGHTED = 256

#: Section 7.6.1: fields that speak of one connection; an application must not send them (PEP 3333).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)


def is_token(text: str) -> bool:
    """Tell whether *text* is a token: a header name, a method, a cookie name (section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(text: str) -> bool:
    """Tell whether *text* may stand in a header: latin-1, no control characters (section 5.5)."""
    return _FIELD_VALUE.fullmatch(text) is not None


def quote_string(text: str) -> str:
    """Write *text* as a quoted-string (section 5.6.4).

    Raises:
        ValueError: *text* holds a character that no quoted-string can.
    """
    if not is_field_value(text):
        raise ValueError("a quoted-string holds no control characters and nothing outside latin-1")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def split_quoted(text: str, separator: str) -> list[str] | None:
    """Split *text* at each *separator* (comma or semicolon) outside quoted-strings; strip white space.

    Returns:
        The pieces, empty ones included, or None where a quoted-string is not closed, or where there
        are quoted-strings and over 4096 pieces.
    """
    if '"' not in text:
        return [piece.strip(" \t") for piece in text.split(separator)]
    piece = _PIECES[separator]
    pieces: list[str] = []
    at = 0
    while len(pieces) < _MOST_PIECES:
        match = piece.match(text, at)
        end = match.end() if match is not None else at
        pieces.append(text[at:end].strip(" \t"))
        if end == len(text):
            return pieces
        if text[end] != separator:  # an opening quote without its closing one
            return None
        at = end + 1
    return None


def parse_list(text: str) -> list[str]:
    """Read a comma-separated list; empty elements are left out (section 5.6.1.2).

    An unclosed quoted-string makes the whole list empty.
    """
    return [piece for piece in split_quoted(text, ",") or () if piece]


def unquote_string(text: str) -> str | None:
    """Read a quoted-string or token; None where it is neither (section 5.6.4)."""
    if not text.startswith('"'):
        return text if is_token(text) else None
    if len(text) < 2 or not text.endswith('"'):
        return None
    inner = text[1:-1]
    if "\\" not in inner:
        return None if '"' in inner else inner
    result = []
    characters = iter(inner)
    for character in characters:
        if character == '"':
            return None
        if character == "\\":
            following = next(characters, None)
            if following is None:
                return None
            character = following
        result.append(character)
    return "".join(result)


def parse_parameters(text: str) -> tuple[str, dict[str, str]] | None:
    """Read ``value; name=value; name="value"`` (section 5.6.6).

    Names come in lower case; the first of two equal names wins.

    Returns:
        The value before the first semicolon and the parameters, or None where a
        parameter is malformed.
    """
    pieces = split_quoted(text, ";")
    if pieces is None:
        return None
    parameters: dict[str, str] = {}
    for piece in pieces[1:]:
        if not piece:  # parameters = *( OWS ";" OWS [ parameter ] )
            continue
        name, equals, raw = piece.partition("=")
        value = unquote_string(raw)
        if not equals or not is_token(name) or value is None:
            return None
        parameters.setdefault(name.lower(), value)
    return pieces[0], parameters


class Weighted(Record):
    """One element of Accept, Accept-Encoding, Accept-Language."""

    #: The value in lower case.
    value: str
    #: The weight, in thousandths: 0 means "not acceptable".
    q: int
    #: Other parameters, such as those of a media range.
    parameters: dict[str, str]


def parse_weighted(text: str) -> list[Weighted]:
    """Read a list with weights (section 12.4.2), in the order of the field.

    A malformed element is left out, as if the client had not sent it; so is all after
    the first 256 elements, which no client sends.
    """
    result = []
    for element in parse_list(text)[:_MOST_WEIGHTED]:
        parsed = parse_parameters(element)
        if parsed is None or not parsed[0]:
            continue
        value, parameters = parsed
        q = parse_qvalue(parameters.pop("q", "1"))
        if q is not None:
            result.append(Weighted(value.lower(), q, parameters))
    return result


def parse_qvalue(text: str) -> int | None:
    """Read a weight as thousandths (section 12.4.2); None where it is malformed."""
    if _QVALUE.fullmatch(text) is None:
        return None
    whole, _, fraction = text.partition(".")
    return int(whole) * 1000 + int((fraction + "000")[:3])


def accepts(accept: str, media_types: tuple[str, ...]) -> str | None:
    """Choose the media type the client likes best (section 12.5.1).

    Args:
        accept: The Accept field; empty means that everything will do.
        media_types: What can be sent, the server's favourite first.

    Returns:
        One of *media_types*, or None where the client refuses all.
    """
    ranges = parse_weighted(accept)
    if not ranges:
        return media_types[0]
    best, best_q = None, 0
    for media_type in media_types:
        q = _quality(media_type, ranges)
        if q > best_q:
            best, best_q = media_type, q
    return best


def _quality(media_type: str, ranges: list[Weighted]) -> int:
    """Weight of *media_type*: that of the most specific range that matches it."""
    wildcard = media_type.partition("/")[0] + "/*"
    specific = {media_type: 3, wildcard: 2, "*/*": 1}
    rank, q = 0, 0
    for item in ranges:
        found = 0 if item.parameters else specific.get(item.value, 0)
        if found > rank:
            rank, q = found, item.q
    return q


def accepted_codings(accept_encoding: str | None, available: tuple[str, ...]) -> list[str]:
    """Order the content codings by what the client likes best (section 12.5.3).

    Args:
        accept_encoding: The Accept-Encoding field; None where the client sent none.
        available: The codings at hand, the server's favourite first, without ``identity``.

    Returns:
        The acceptable ones, best first, ``identity`` among them where it is acceptable. Empty
        where the client refuses them all: section 15.5.7 has a 406 for it.
    """
    if accept_encoding is None:
        return ["identity"]
    weights: dict[str, int] = {}
    for item in parse_weighted(accept_encoding):
        coding = _CODING_ALIASES.get(item.value, item.value)
        weights[coding] = max(item.q, weights.get(coding, 0))
    rest = weights.get("*")
    # Identity needs no mention: only "identity;q=0", or "*;q=0" without it, excludes it. Unmentioned, it comes last.
    unmentioned = 0 if rest == 0 else 1
    ranked = [(weights.get(coding, rest or 0), coding) for coding in available]
    ranked.append((weights.get("identity", unmentioned), "identity"))
    return [coding for q, coding in sorted(ranked, key=lambda pair: -pair[0]) if q]


# Section 8.4.1: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"", and x-compress likewise.
_CODING_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "(" + "|".join(_MONTHS) + ")"
_CLOCK = r"([0-9]{2}):([0-9]{2}):([0-9]{2})"
# Section 5.6.7: IMF-fixdate, the obsolete RFC 850 form, and asctime; a recipient must take all three.
_IMF_DATE = late_pattern(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_CLOCK} GMT")
_RFC850_DATE = late_pattern(
    rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_CLOCK} GMT"
)
_ASCTIME_DATE = late_pattern(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} ([ 0-9][0-9]) {_CLOCK} ([0-9]{{4}})")


def format_date(seconds: float) -> str:
    """Write a time as IMF-fixdate (section 5.6.7), such as ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    t = time.gmtime(int(seconds))
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )


def parse_date(text: str, now: float | None = None) -> int | None:
    """Read an HTTP date in any of the three forms (section 5.6.7).

    Args:
        text: The field value.
        now: The present, for the two-digit years of the RFC 850 form.

    Returns:
        Seconds since the epoch, or None where it is no date.
    """
    if match := _IMF_DATE.fullmatch(text):
        day, month, year, *clock = match.groups()
    elif match := _RFC850_DATE.fullmatch(text):
        day, month, year, *clock = match.groups()
        year = str(_century(int(year), now))
    elif match := _ASCTIME_DATE.fullmatch(text):
        month, day, *clock, year = match.groups()
    else:
        return None
    hour, minute, second = map(int, clock)
    if hour > 23 or minute > 59 or second > 60 or not _is_day(int(year), _MONTHS.index(month) + 1, int(day)):
        return None
    return timegm((int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second))


def _is_day(year: int, month: int, day: int) -> bool:
    """Tell whether the calendar has that day."""
    if year < 1 or day < 1:
        return False
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return day <= (29 if leap else 28)
    return day <= (30 if month in (4, 6, 9, 11) else 31)


def _century(year: int, now: float | None) -> int:
    """Place a two-digit year: one that seems over 50 years ahead was in the past (section 5.6.7)."""
    this_year = time.gmtime(now).tm_year
    year += this_year - this_year % 100
    return year - 100 if year > this_year + 50 else year


class ETag(Record):
    """An entity-tag (section 8.8.3)."""

    #: What stands between the quotes.
    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'


def parse_etags(text: str) -> list[ETag] | None:
    """Read a list of entity-tags, as in If-None-Match (section 13.1.2).

    Returns:
        The tags; malformed elements are left out, and all after the 4096th. None for ``*``, which matches any.
    """
    if text.strip(" \t") == "*":
        return None
    elements = islice(_ETAG_ELEMENT.finditer(text), _MOST_PIECES)
    return [ETag(opaque, weak is not None) for weak, opaque in (e.groups() for e in elements) if opaque is not None]


def etag_matches(tags: list[ETag] | None, current: ETag | None, *, weak: bool) -> bool:
    """Compare a client's list with the current tag (section 8.8.3.2).

    Args:
        tags: From :func:`parse_etags`; None stands for ``*``.
        current: The tag of the selected representation, None where there is none.
        weak: Weak comparison (If-None-Match); strong otherwise (If-Match, If-Range).
    """
    if current is None:
        return False
    if tags is None:
        return True
    if weak:
        return any(tag.opaque == current.opaque for tag in tags)
    return not current.weak and any(tag.opaque == current.opaque and not tag.weak for tag in tags)


class HostPort(Record):
    """A host in lower case, and its port where one was written."""

    host: str
    port: int | None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def parse_host(text: str) -> HostPort | None:
    """Read ``host [ ":" port ]`` (section 7.2; RFC 3986 section 3.2.2), strictly.

    The host comes in lower case, an IPv6 address in brackets. A trailing dot stays.

    Returns:
        Host and port, or None where it is malformed (empty, user information, a path,
        a comma, a port outside 1 to 65535, a label over 63 or a name over 253 characters).
    """
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        try:
            host = f"[{IPv6Address(host[1:]).compressed}]"
        except ValueError:
            return None
        if "%" in host:
            return None
        port_text = rest[1:] if rest else None
    else:
        host, colon, after = text.lower().partition(":")
        port_text = after if colon else None
        if len(host) > 254 or _REG_NAME.fullmatch(host) is None or _is_bad_ipv4(host):
            return None
    if port_text is None:
        return HostPort(host, None)
    if _PORT.fullmatch(port_text) is None or not 1 <= int(port_text) <= 65535:
        return None
    return HostPort(host, int(port_text))


def _is_bad_ipv4(host: str) -> bool:
    """Tell whether *host* ends in a number but is no IPv4 address (URL standard, "ends in a number")."""
    labels = host.removesuffix(".").split(".")
    if not labels[-1].isdigit():
        # A last label such as 0x7f000001 is a number to a browser too, and would be 127.0.0.1.
        return _HEX_NUMBER.fullmatch(labels[-1]) is not None
    if len(labels) != 4:
        return True
    return any(not x.isdigit() or len(x) > 3 or int(x) > 255 or (len(x) > 1 and x[0] == "0") for x in labels)


class Origin(Record):
    """A tuple origin (HTML standard, "origin"): scheme, host, port, the default port filled in."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        default = self.port == {"http": 80, "https": 443}.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if default else f":{self.port}")


def parse_origin(text: str) -> Origin | None:
    """Read a serialized http or https origin, such as ``https://shop.example`` (RFC 6454 section 6.2).

    Returns:
        The origin, or None for ``null``, other schemes, and anything malformed.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("http", "https"):
        return None
    host = parse_host(rest)
    if host is None:
        return None
    return Origin(scheme, host.host, host.port or (443 if scheme == "https" else 80))
