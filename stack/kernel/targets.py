"""Targets of redirects: on this site, or none. Written against how browsers read addresses (WHATWG URL)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from .http import Origin, parse_host, parse_origin
from .keys import CLIENT
from .late import late_pattern

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["encode_target", "own_origin", "safe_target"]

# Characters; browsers and servers take about 8 KiB of address, which ours goes into twice.
_MAX_TARGET = 2048
# Browsers drop tab and line ends anywhere, strip other controls and spaces at the ends, and read "\" as "/".
_NEVER = late_pattern(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029\ud800-\udfff]|\A\s|\s\Z")
_SCHEME = late_pattern(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_ABSOLUTE = late_pattern(r"(https?://[^/?#]*)([/?#].*)?", re.IGNORECASE | re.DOTALL)


def own_origin(environ: WSGIEnvironment) -> Origin | None:
    """Return where the client thinks this site is, as trusted proxies tell it; None where the host is malformed."""
    client = CLIENT.get(environ)
    scheme: str = client.scheme if client is not None else environ.get("wsgi.url_scheme", "http")
    text: str = client.host if client is not None else environ.get("HTTP_HOST", "")
    host = parse_host(text or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}")
    if host is None:
        return None
    return Origin(scheme, host.host, host.port or (443 if scheme == "https" else 80))


def safe_target(target: str, own: Origin | None, page: str) -> str | None:
    """Return *target* as a path on this site, percent-encoded, or None where a browser might leave.

    Args:
        target: What the client sent: a path, a relative reference, or an absolute address of this site.
        own: Our origin; None where the request does not tell it.
        page: Path of the page it is relative to, percent-encoded.
    """
    if not target or len(target) > _MAX_TARGET or _NEVER.search(target) is not None:
        return None
    if _SCHEME.match(target) is not None:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or own is None or parse_origin(absolute[1]) != own:
            return None
        rest = absolute[2] or "/"
        path = rest if rest.startswith("/") else "/" + rest
    elif target.startswith("/"):
        path = target
    elif target.startswith(("?", "#")):
        path = page + target
    else:
        path = page[: page.rindex("/") + 1] + target
    return None if _leaves(path) else encode_target(path)


def _leaves(path: str) -> bool:
    """Tell whether the path begins with "//" once dot segments are gone: whoever tidies it up makes a host of it."""
    if path.startswith("//"):
        return True
    kept: list[str] = []
    for segment in re.split("[?#]", path, maxsplit=1)[0].split("/")[1:]:
        dots = segment.lower().replace("%2e", ".")
        if dots == "..":
            kept = kept[:-1]
        elif dots != ".":
            kept.append(segment)
    return len(kept) > 1 and not kept[0]


def encode_target(path: str) -> str:
    """Write *path* so that it can stand in ``Location``: ASCII, without controls, quotes and brackets."""
    return quote(path, safe="/?#!$&'()*+,;=:@%~-._[]", encoding="utf-8", errors="replace")
