"""Redirects of views, and whether a target that came with a request is one of this site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import webob

from lamella.stack.kernel import targets

from .fields import STATUSES

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["encode_location", "redirect", "safe_target"]

# WebOb has no annotations.
_Webob: Any = webob.Response

#: Everything a URL may hold as it is (RFC 3986 section 2), and the percent sign of what is encoded already.
_URL_SAFE = "%!#$&'()*+,/:;=?@[]~-._"


def redirect(location: str, status: int = 302) -> Any:
    """Return a redirect.

    Control characters, spaces, quotes, backslashes and everything outside ASCII are percent-encoded,
    and ``//host`` becomes a path: it never leads to another host by accident. For a target that
    comes from the request, see :func:`safe_target`.

    Args:
        location: A path, or an absolute URL.
        status: 301, 302, 303, 307 or 308. Only the last two keep the method.

    Raises:
        ValueError: *status* is no redirect.
    """
    if status not in (301, 302, 303, 307, 308):
        raise ValueError(f"no redirect status: {status}")
    response = _Webob(status=STATUSES[status], headerlist=[("Location", encode_location(location))])
    response.body = b""
    return response


def encode_location(location: str) -> str:
    """Return *location* as it can stand in a header; see :func:`redirect`."""
    location = location.strip(" \t").encode("utf-8", "replace").decode()
    encoded = quote(location, safe=_URL_SAFE)
    # A browser takes "/\" for "//" (URL standard, "relative slash state"); encoded, the backslash is one of the path.
    if encoded.startswith("//"):
        encoded = "/%2F" + encoded[2:]
    return encoded or "."


def safe_target(target: str | None, environ: WSGIEnvironment, default: str = "/") -> str:
    """Return *target* if a browser would stay on this site, else *default*.

    Args:
        target: Such as ``request.GET.get("next")``.
        environ: The request, for its own origin: ``request.environ``.
        default: A target of yours.
    """
    if target is None or targets.safe_target(target, targets.own_origin(environ), "/") is None:
        return default
    return target
