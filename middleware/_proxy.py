"""The pure half of ``proxy``: what the forwarding headers say, read from the trusted end."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, NamedTuple

from lamella.stack.kernel.http import is_token, parse_host, split_quoted, unquote_string
from lamella.stack.kernel.paths import AmbiguousPathError, check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from wsgiref.types import WSGIEnvironment

__all__ = ["Claims", "is_unix", "parse_address", "parse_node", "parse_prefix", "read_forwarded", "read_x_forwarded"]

_Address = IPv4Address | IPv6Address


class Claims(NamedTuple):
    """What the trusted proxies say of a request; None where they say nothing, or nothing well formed."""

    address: str | None = None
    #: The client's own port.
    port: str | None = None
    scheme: str | None = None
    host: str | None = None
    #: The port the client connected to.
    server_port: str | None = None
    prefix: str | None = None


def parse_address(text: str) -> _Address | None:
    """Read an IP address; an IPv4 address mapped into IPv6 comes as IPv4. A zone is refused."""
    if not text.isascii() or "%" in text or len(text) > 45:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_unix(peer: str) -> bool:
    """Tell whether ``REMOTE_ADDR`` is what servers put there for a unix socket.

    gunicorn and uWSGI leave it empty, waitress says ``localhost``, others give the path.
    """
    return peer in ("", "localhost", "unix") or peer.startswith(("unix:", "/", "@"))


def parse_node(text: str) -> tuple[_Address, str | None] | None:
    """Read an address with an optional port: ``1.2.3.4``, ``1.2.3.4:80``, ``2001:db8::1``, ``[2001:db8::1]:80``.

    RFC 7239 section 6; a bare IPv6 address occurs in X-Forwarded-For. ``unknown`` and ``_hidden`` are no address.
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return None
        port = rest[1:]
        if rest and not port:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            return None
    if port and parse_port(port) is None and not port.startswith("_"):
        return None
    address = parse_address(host)
    return None if address is None else (address, parse_port(port))


def parse_port(text: str) -> str | None:
    """Read a port from 1 to 65535."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return str(int(text))
    return None


def parse_prefix(text: str) -> str | None:
    """Read a path prefix without a slash at its end; None where it could lead to another host or out of itself."""
    prefix = text.rstrip("/") if text != "/" else ""
    if not text.startswith("/") or not text.isascii() or text.startswith("//"):
        return None
    try:
        check_path(prefix)
    except AmbiguousPathError:
        return None
    return prefix if prefix.isprintable() and not set(prefix) & set(" \"'<>?#;,") else None


def parse_scheme(text: str) -> str | None:
    """Read ``http`` or ``https``; ``wsgi.url_scheme`` has no third."""
    scheme = text.lower()
    return scheme if scheme in ("http", "https") else None


def _well_formed_host(text: str) -> str | None:
    return None if parse_host(text) is None else text


def _values(environ: WSGIEnvironment, key: str) -> list[str]:
    text: str = environ.get(key, "")
    return [value.strip(" \t") for value in text.split(",")] if text else []


def _nearest(values: Sequence[str], hops: int) -> str:
    """The value that the outermost of *hops* proxies gave; the nearest one's, where some gave none.

    The value further left might be the client's.
    """
    if not values:
        return ""
    return values[-hops] if len(values) >= hops else values[-1]


def read_x_forwarded(environ: WSGIEnvironment, trusted: Callable[[_Address], bool], hops: int | None) -> Claims | None:
    """Read the X-Forwarded fields of a trusted peer.

    Args:
        environ: The request.
        trusted: Tells whether an address is a proxy of ours.
        hops: How many proxies there are, where that is known.

    Returns:
        The claims, or None where there are fewer entries than proxies: one of them did not add its own.
    """
    nodes = _values(environ, "HTTP_X_FORWARDED_FOR")
    if hops is not None and nodes and len(nodes) < hops:
        return None
    address = port = None
    walked = 0
    for text in reversed(nodes):
        node = parse_node(text)
        if node is None:
            break
        walked += 1
        address, port = str(node[0]), node[1]
        if walked == hops or not trusted(node[0]):
            break
    passed = max(walked, 1)
    return Claims(
        address,
        port,
        parse_scheme(_nearest(_values(environ, "HTTP_X_FORWARDED_PROTO"), passed)),
        _well_formed_host(_nearest(_values(environ, "HTTP_X_FORWARDED_HOST"), passed)),
        parse_port(_nearest(_values(environ, "HTTP_X_FORWARDED_PORT"), passed)),
        parse_prefix(_nearest(_values(environ, "HTTP_X_FORWARDED_PREFIX"), passed)),
    )


def _forwarded_pairs(element: str) -> dict[str, str] | None:
    """Read one element of Forwarded (RFC 7239 section 4); None where it is malformed."""
    pairs: dict[str, str] = {}
    for piece in split_quoted(element, ";") or ():
        name, _, raw = piece.partition("=")
        value = unquote_string(raw)
        if not is_token(name) or value is None or name.lower() in pairs:
            return None
        pairs[name.lower()] = value
    return pairs or None


def read_forwarded(environ: WSGIEnvironment, trusted: Callable[[_Address], bool], hops: int | None) -> Claims | None:
    """Read the Forwarded field of a trusted peer (RFC 7239); see :func:`read_x_forwarded`.

    Scheme and host are those of the outermost trusted element that has them.
    """
    text: str = environ.get("HTTP_FORWARDED", "")
    elements = (split_quoted(text, ",") or []) if text else []
    if hops is not None and elements and len(elements) < hops:
        return None
    claims = Claims()
    for walked, element in enumerate(reversed(elements), 1):
        pairs = _forwarded_pairs(element)
        if pairs is None:
            break
        claims = claims._replace(
            scheme=parse_scheme(pairs.get("proto", "")) or claims.scheme,
            host=_well_formed_host(pairs.get("host", "")) or claims.host,
        )
        node = parse_node(pairs.get("for", ""))
        if node is None:
            break
        claims = claims._replace(address=str(node[0]), port=node[1])
        if walked == hops or not trusted(node[0]):
            break
    return claims
