"""The pure half of ``dispatch``: what a prefix and a host may be, and the repairs of an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.paths import is_under

if TYPE_CHECKING:
    from collections.abc import Mapping
    from wsgiref.types import WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = [
    "encode_path",
    "fault_of_host",
    "fault_of_prefix",
    "find_host",
    "redirect_target",
    "relocated",
    "repair",
    "scoped_cookie",
]

# RFC 3986 section 3.3: pchar without "%" and ";": what is written is what every reader of the path sees.
_SEGMENT = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,=:@]+")
# Kept as they are in a Location; everything else of a query is percent-encoded, so no CR or LF goes out.
_QUERY_SAFE = "!$&'()*+,;=:@/?-._~%[]{}|^"
_PATH_SAFE = "/!$&'()*+,=:@-._~"


def fault_of_prefix(prefix: object) -> str | None:
    """Say what a mount prefix should be where *prefix* is none, as the end of "expected …"."""
    if not isinstance(prefix, str):
        return 'a prefix such as "/admin"'
    if not prefix.isascii():
        # Bottle encodes a non-ASCII SCRIPT_NAME twice.
        return "a prefix of ASCII characters only"
    if prefix in ("", "/"):
        return 'a prefix such as "/admin"; for everything else, give the app of the layer itself'
    if not prefix.startswith("/"):
        return "a prefix that starts with a slash"
    if prefix.endswith("/"):
        return "a prefix without a slash at its end"
    segments = prefix[1:].split("/")
    if "" in segments:
        return "a prefix without an empty segment"
    if "." in segments or ".." in segments:
        return "a prefix without dot segments"
    if not all(map(_SEGMENT.fullmatch, segments)):
        return "a prefix of letters, digits and -._~!$&'()*+,=:@, not percent-encoded"
    return None


def fault_of_host(pattern: object) -> str | None:
    """Say what a host should be where *pattern* is none, as the end of "expected …"."""
    expected = 'a host such as "shop.example", "shop.example:8080" or "*.shop.example"'
    if not isinstance(pattern, str) or not pattern.isascii():
        return expected
    parsed = parse_host(pattern.removeprefix("*."))
    if parsed is None or parsed.host.endswith("."):
        return expected
    if pattern.startswith("*.") and (parsed.port is not None or parsed.host.startswith("[")):
        return expected
    return None


def find_host(hosts: Mapping[str, object], host: str, port: int | None) -> str | None:
    """Return the key of *hosts* that fits best: host and port, host, then the longest wildcard.

    Args:
        hosts: Keys in lower case; ``*.a.example`` stands for every name below ``a.example``.
        host: In lower case; a trailing dot is not looked at.
        port: As written, or None.
    """
    host = host.removesuffix(".")
    if port is not None and (key := f"{host}:{port}") in hosts:
        return key
    if host in hosts:
        return host
    at = host.find(".")
    while at >= 0:
        if (key := "*" + host[at:]) in hosts:
            return key
        at = host.find(".", at + 1)
    return None


def encode_path(path: str) -> str:
    """Write a WSGI path (latin-1 characters that stand for bytes) as it goes on the wire."""
    return quote(path.encode("latin-1", "replace"), safe=_PATH_SAFE)


def redirect_target(environ: WSGIEnvironment) -> str:
    """Return where the mount's root is, whose environ this is: an absolute path, with the query the client sent."""
    target = encode_path(environ.get("SCRIPT_NAME", "")) + "/"
    query: str = environ.get("QUERY_STRING", "")
    return f"{target}?{quote(query.encode('latin-1', 'replace'), safe=_QUERY_SAFE)}" if query else target


def scoped_cookie(cookie: str, mount: str, at_root: bool) -> str:
    """Return a ``Set-Cookie`` value whose path is *mount* or below it.

    A cookie named ``__Host-…`` stays: browsers take it with ``Path=/`` only (RFC 6265bis
    section 4.1.3.2). So does one without a path, which the browser puts below the mount itself.

    Args:
        cookie: The field value.
        mount: Percent-encoded path of the mount.
        at_root: The request was for the mount without a slash, whose default path is outside of it.
    """
    if cookie.lstrip(" \t").lower().startswith("__host-"):
        return cookie
    pieces = cookie.split(";")
    found = False
    for index, piece in enumerate(pieces[1:], 1):
        name, _, value = piece.partition("=")
        path = value.strip(" \t")
        if name.strip(" \t").lower() != "path" or not path.startswith("/"):
            continue
        found = True
        if not is_under(path, mount):
            pieces[index] = f"{name}={mount}" + ("" if path == "/" else path)
    if not found and at_root:
        pieces.append(f" Path={mount}")
    return ";".join(pieces)


def relocated(location: str, mount: str, environ: WSGIEnvironment) -> str:
    """Return a ``Location`` that points into the mount, where the app forgot its prefix.

    Only an absolute path, or an absolute URL of the very host the client asked, is repaired.

    Args:
        location: The field value.
        mount: Percent-encoded path of the mount.
        environ: The request, for its host.
    """
    start = 0
    if not location.startswith("/") or location.startswith("//"):
        scheme, slashes, rest = location.partition("//")
        if not slashes or scheme.lower() not in ("", "http:", "https:"):
            return location
        authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
        if not _is_own_host(authority, environ):
            return location
        start = len(scheme) + len(slashes) + len(authority)
    path = re.split(r"[?#]", location[start:], maxsplit=1)[0]
    if path.startswith(("//", "/\\", "\\")) or is_under(path, mount):
        return location
    return location[:start] + mount + (location[start:] if path else "/" + location[start:])


def _is_own_host(authority: str, environ: WSGIEnvironment) -> bool:
    """Tell whether *authority* is the host of this request; default ports do not matter."""
    asked = parse_host(environ.get("HTTP_HOST", "") or environ.get("SERVER_NAME", ""))
    named = parse_host(authority)
    if asked is None or named is None:
        return False
    return named.host == asked.host and _without_default(named.port) == _without_default(asked.port)


def _without_default(port: int | None) -> int | None:
    return None if port in (80, 443) else port


def repair(headers: Headers, mount: str, environ: WSGIEnvironment, *, cookies: bool, relocate: bool) -> Headers:
    """Return *headers* with cookies scoped to the mount and locations inside of it."""
    at_root = not environ.get("PATH_INFO")
    repaired: Headers = []
    for name, value in headers:
        lower = name.lower()
        if cookies and lower == "set-cookie":
            value = scoped_cookie(value, mount, at_root)
        elif relocate and lower == "location":
            value = relocated(value, mount, environ)
        repaired.append((name, value))
    return repaired
