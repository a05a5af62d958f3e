"""Cookies: reading the ``Cookie`` field, writing ``Set-Cookie`` (RFC 6265, and its revision "6265bis").

Reading is linear, decodes nothing and never raises: the pieces between semicolons, the first
of two equal names wins (browsers send the most specific path first, section 5.4). There is no
RFC 2965 mode and no quoted-string: a quote never hides a semicolon ("cookie sandwich"), and
a name is never decoded ("cookie tossing" with ``__%48ost-``). Not ``http.cookies``: its
unquoting is quadratic, and it drops all that follows a name it does not like.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .errors import ConfigError
from .http import format_date, is_token
from .late import late_pattern

__all__ = [
    "MAX_LINE",
    "MAX_VERIFIED",
    "CookieFormat",
    "cookie_finder",
    "decode_value",
    "encode_value",
    "find_cookie",
    "parse_cookies",
    "set_cookie",
]

#: Longest ``Set-Cookie`` value that every browser keeps (RFC 6265 section 6.1: 4096 bytes, attributes included).
MAX_LINE: Final = 4096
#: Most cookies of one name that are worth verifying: a field of 100 kB holds 8,000, each of which costs a hash.
MAX_VERIFIED: Final = 64
# A name leaves room for the value; browsers drop an attribute over 1024 octets (RFC 6265bis section 5.6).
_MAX_NAME: Final = 256
_MAX_ATTRIBUTE: Final = 1024

# What may stand in no cookie: a control character shows a broken or hostile sender.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Section 4.1.1: cookie-octet = %x21 / %x23-2B / %x2D-3A / %x3C-5B / %x5D-7E
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
# As cookie-octet, without the percent sign, so that decoding is the exact inverse.
_PLAIN = frozenset(set(range(0x21, 0x7F)) - set(b'"%,;\\'))
# Section 4.1.1: path-value = any CHAR except CTLs or ";"; browsers ignore one that does not begin with a slash.
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_DOMAIN = late_pattern(r"\.?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*", re.I)
_PERCENT = late_pattern(r"%([0-9A-Fa-f]{2})")
_SAME_SITE: Final = {"strict": "Strict", "lax": "Lax", "none": "None"}


# --- reading ------------------------------------------------------------------------------------


def parse_cookies(header: str) -> dict[str, str]:
    """Read a ``Cookie`` field.

    Args:
        header: The field value, as ``HTTP_COOKIE`` has it.

    Returns:
        Names and values as they were sent, the first of equal names. Left out is what has no
        ``=``, an empty name (browsers may send ``=__Host-x=1``), or a control character.
    """
    cookies: dict[str, str] = {}
    clean = _CONTROL.search(header) is None
    for piece in header.split(";"):
        name, equals, value = piece.partition("=")
        name = name.strip(" \t")
        if equals and name and name not in cookies and (clean or _CONTROL.search(piece) is None):
            cookies[name] = value.strip(" \t")
    return cookies


def cookie_finder(name: str, *, verified: bool = False) -> Callable[[str], list[str]]:
    """Return a function that finds every cookie called *name* in a ``Cookie`` field, in its order.

    It reads the field as :func:`parse_cookies` does, thirty times faster: most fields hold the
    name once, or not at all.

    Args:
        name: Of the cookie.
        verified: The caller verifies values by a signature, so that control characters need no look, and
            no more than the first ``MAX_VERIFIED`` are returned: browsers send few of one name.
    """
    mark = f"; {name}="
    # One of these is in the field where another cookie of the name is; "name-1" is not one.
    twins = (f"{name}=", f"{name} ", f"{name}\t")

    def alone(behind: str) -> bool:
        return twins[0] not in behind and twins[1] not in behind and twins[2] not in behind

    def find(header: str) -> list[str]:
        # What browsers send: the name right behind "; " and before "=", and no other like it anywhere.
        before, found, rest = f"; {header}".partition(mark)
        if found and name not in before:
            value, more, behind = rest.partition(";")
            if (not more or name not in behind or alone(behind)) and (verified or value.isprintable()):
                return [value.strip(" \t")]
        return _all_named(header, name, verified) if name in header else []

    return find


def find_cookie(header: str, name: str) -> str | None:
    """Return the value of the first cookie called *name*, or None."""
    values = cookie_finder(name)(header)
    return values[0] if values else None


def _all_named(header: str, name: str, verified: bool) -> list[str]:
    """The values of every cookie called *name*, by the grammar alone."""
    values = []
    for piece in header.split(";"):
        key, equals, value = piece.partition("=")
        if equals and key.strip(" \t") == name and (verified or _CONTROL.search(piece) is None):
            values.append(value.strip(" \t"))
            if verified and len(values) == MAX_VERIFIED:
                break
    return values


# --- values -------------------------------------------------------------------------------------


def encode_value(text: str) -> str:
    """Write any text as a cookie value: percent-encoded UTF-8 of what a value cannot hold, and of ``%``."""
    if _COOKIE_VALUE.fullmatch(text) is not None and "%" not in text:
        return text
    octets = text.encode("utf-8", "surrogatepass")
    return "".join(chr(octet) if octet in _PLAIN else f"%{octet:02X}" for octet in octets)


def decode_value(value: str) -> str:
    """Read what :func:`encode_value` wrote; anything else comes back unharmed."""
    if "%" not in value:
        return value
    octets = _PERCENT.sub(lambda match: chr(int(match[1], 16)), value)
    try:
        return octets.encode("latin-1").decode("utf-8", "surrogatepass")
    except UnicodeError:
        return value


# --- writing ------------------------------------------------------------------------------------


class CookieFormat:
    """How one cookie is sent: its name and attributes, checked once.

    Args:
        name: A token. The prefixes ``__Host-`` and ``__Secure-`` bind: browsers drop a cookie
            that does not keep their rules (6265bis section 4.1.3), so it is refused here.
        path: Where the browser sends it.
        domain: Also to subdomains of this; None for the host alone.
        secure: Over TLS only.
        http_only: Out of reach of scripts.
        same_site: ``"Strict"``, ``"Lax"``, ``"None"``, or None to leave the attribute out.
        partitioned: Kept apart for each embedding site (CHIPS).

    Raises:
        ConfigError: An attribute that browsers refuse, alone or in combination.
    """

    __slots__ = ("attributes", "domain", "name", "path")

    def __init__(
        self,
        name: str,
        *,
        path: str = "/",
        domain: str | None = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: str | None = "Lax",
        partitioned: bool = False,
    ) -> None:
        if not isinstance(name, str) or not is_token(name) or len(name) > _MAX_NAME:
            raise ConfigError("cookie_name", name, "a cookie name: letters, digits and !#$%&'*+-.^_`|~")
        if not isinstance(path, str) or _PATH.fullmatch(path) is None or len(path) > _MAX_ATTRIBUTE:
            raise ConfigError("path", path, "a path that begins with a slash, without semicolons or control characters")
        if domain is not None and (
            not isinstance(domain, str) or len(domain) > 254 or _DOMAIN.fullmatch(domain) is None
        ):
            raise ConfigError("domain", domain, "a domain name, or none for the host alone")
        for option, value in (("secure", secure), ("http_only", http_only), ("partitioned", partitioned)):
            if not isinstance(value, bool):
                raise ConfigError(option, value, "true or false")
        same_site = _same_site(same_site)
        if same_site == "None" and not secure:
            raise ConfigError(
                "same_site", same_site, '"Lax" or "Strict" where secure is false: browsers drop the cookie'
            )
        if partitioned and not secure:
            raise ConfigError("partitioned", partitioned, "false where secure is false: browsers drop the cookie")
        _check_prefix(name, path, domain, secure)
        self.name = name
        self.path = path
        self.domain = domain
        self.attributes = f"; Path={path}" + "".join(
            text
            for given, text in (
                (domain is not None, f"; Domain={domain}"),
                (secure, "; Secure"),
                (http_only, "; HttpOnly"),
                (same_site is not None, f"; SameSite={same_site}"),
                (partitioned, "; Partitioned"),
            )
            if given
        )

    def line(self, value: str, max_age: int | None = None, *, expires: float | None = None) -> str:
        """Return the value of a ``Set-Cookie`` field.

        Args:
            value: Cookie octets; see :func:`encode_value` for any other text.
            max_age: Seconds until the browser forgets it; 0 or less is at once; None with the browser session.
            expires: The same as a time, in seconds since the epoch, for clients that know no ``Max-Age``.

        Raises:
            ValueError: *value* has a character that no cookie can, or the line is over 4096 bytes.
        """
        if _COOKIE_VALUE.fullmatch(value) is None:
            raise ValueError(
                "a cookie value has no control characters, spaces, quotes, commas, semicolons, backslashes"
            )
        line = f"{self.name}={value}{self.attributes}"
        if max_age is not None:
            line += f"; Max-Age={max_age:d}"
        if expires is not None:
            line += f"; Expires={format_date(expires)}"
        if len(line) > MAX_LINE:
            raise ValueError(f"the cookie {self.name} is {len(line)} bytes long; browsers drop one over {MAX_LINE}")
        return line

    def expired(self, name: str | None = None) -> str:
        """Return the line that makes the browser forget this cookie, or one called *name* like it."""
        return f"{name or self.name}={self.attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def set_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    expires: float | None = None,
    path: str = "/",
    domain: str | None = None,
    secure: bool = True,
    http_only: bool = True,
    same_site: str | None = "Lax",
    partitioned: bool = False,
) -> str:
    """Return the value of a ``Set-Cookie`` field; *value* is encoded by :func:`encode_value`.

    Raises:
        ValueError: A name, an attribute or a combination that browsers refuse, or over 4096 bytes.
    """
    if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int)):
        raise ConfigError("max_age", max_age, "a number of seconds")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, (int, float))):
        raise ConfigError("expires", expires, "seconds since the epoch")
    kind = CookieFormat(
        name,
        path=path,
        domain=domain,
        secure=secure,
        http_only=http_only,
        same_site=same_site,
        partitioned=partitioned,
    )
    return kind.line(encode_value(value), max_age, expires=expires)


def _same_site(value: str | None) -> str | None:
    """Return the attribute as it is written."""
    if value is None:
        return None
    known = _SAME_SITE.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise ConfigError("same_site", value, '"Lax", "Strict" or "None"')
    return known


def _check_prefix(name: str, path: str, domain: str | None, secure: bool) -> None:
    """Enforce the name prefixes; browsers compare them without case (6265bis section 4.1.3)."""
    prefix = name.lower()
    if prefix.startswith(("__host-", "__secure-", "__http-", "__host-http-")) and not secure:
        raise ConfigError("secure", secure, f"true for a cookie called {name}: browsers drop it otherwise")
    if prefix.startswith("__host-"):
        if path != "/":
            raise ConfigError("path", path, f'"/" for a cookie called {name}: browsers drop it otherwise')
        if domain is not None:
            raise ConfigError("domain", domain, f"none for a cookie called {name}: browsers drop it otherwise")
