"""The request half of ``edge``: what is unusual about a request is looked at here, repaired or refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import is_token, parse_host
from lamella.stack.kernel.late import late_logger
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.response import answer, refuse

from ._edge import (
    EmptyBody,
    frame_body,
    leaked_keys,
    normal_path,
    remove_leaks,
    split_cookies,
    strip_authority,
    wants_websocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["EMPTY", "METHODS", "Checks", "refuse_request"]

_LOGGER = late_logger("lamella.edge")
#: Holds what was rewritten: environ key to the server's value.
ORIGINAL = "lamella.edge.original"
#: Methods that need no look.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
#: The ``wsgi.input`` of every request that has no body.
EMPTY: Final = EmptyBody()
# How many host names are remembered as good; a client that sends others is checked each time.
_MEMO_SIZE = 512


class Checks:
    """What ``edge`` asks of a request, as its options want it.

    Args:
        websocket: Whether a client that asks for a websocket gets a 426.
        paths: The policy for ambiguous paths.
        bad_utf8: Whether a path that is not UTF-8 gets a 400 where *paths* is ``"pass"``.
        trust_remote_user: Whether the server's own ``REMOTE_USER`` stays.
    """

    __slots__ = ("_bad_utf8", "_leaks", "_paths", "_trust_remote_user", "_websocket", "hosts", "probe")

    def __init__(self, *, websocket: bool, paths: str, bad_utf8: bool, trust_remote_user: bool) -> None:
        self._websocket = websocket
        self._paths = paths
        self._bad_utf8 = bad_utf8
        self._trust_remote_user = trust_remote_user
        self._leaks = leaked_keys(os.environ)
        #: A variable of the process; an environ has it only where the server copies them all.
        self.probe = next((key for key in ("PATH", "HOME", "PWD", *self._leaks) if key in self._leaks), "")
        #: Hosts that were found well formed.
        self.hosts: set[str] = set()

    def look(self, environ: WSGIEnvironment) -> WSGIApplication | None:
        """Check and repair a request that is in some way unusual; return what answers it instead of the app.

        Raises:
            BadRequestError: It is malformed.
        """
        method = environ["REQUEST_METHOD"]
        if method not in METHODS and (len(method) > 64 or not is_token(method)):
            # Not echoed by anything: an app inside never sees it.
            raise BadRequestError("the method is malformed")
        self._check_host(environ)
        if not self._trust_remote_user:
            environ.pop("REMOTE_USER", None)
            environ.pop("AUTH_TYPE", None)
        if self.probe in environ:
            remove_leaks(environ, self._leaks)
        cookie = environ.get("HTTP_COOKIE", "")
        if "," in cookie and (split := split_cookies(cookie)) != cookie:
            _rewrite(environ, "HTTP_COOKIE", split)
        frame_body(environ, EMPTY)
        if self._websocket and "HTTP_UPGRADE" in environ and wants_websocket(environ):
            return _no_websocket
        return self.check_target(environ)

    def _check_host(self, environ: WSGIEnvironment) -> None:
        host = environ.get("HTTP_HOST")
        if host is None:
            # RFC 9112 section 3.2: a request without Host is refused, but HTTP/1.0 had none.
            if environ.get("SERVER_PROTOCOL", "HTTP/1.1") not in ("HTTP/1.0", "HTTP/0.9"):
                raise BadRequestError("the request has no Host")
        elif host not in self.hosts:
            if parse_host(host) is None:
                raise BadRequestError("the Host is malformed")
            if len(self.hosts) < _MEMO_SIZE:
                self.hosts.add(host)

    def check_target(self, environ: WSGIEnvironment) -> WSGIApplication | None:
        """Check and repair path and script name; return what answers instead of the app.

        Raises:
            BadRequestError: They are malformed, or can be read in two ways and are not to be redirected.
        """
        if environ.get("PATH_INFO", "")[:1] != "/" or environ.get("SCRIPT_NAME", "/")[-1:] == "/":
            other = _repair_target(environ)
            if other is not None:
                return other
        try:
            canonical_path(environ)
        except AmbiguousPathError as error:
            return self._settle_path(environ, error)
        return None

    def _settle_path(self, environ: WSGIEnvironment, error: AmbiguousPathError) -> WSGIApplication | None:
        path: str = environ.get("PATH_INFO", "")
        if self._paths == "redirect" and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            target = normal_path(environ)
            if target is not None:
                return _redirect(target)
        if self._paths != "pass" or (path and not path.startswith("/")):
            raise error
        if self._bad_utf8:
            try:
                (environ.get("SCRIPT_NAME", "") + path).encode("latin-1").decode("utf-8")
            except UnicodeError:
                raise BadRequestError("the path is not UTF-8") from None
        return None


def _repair_target(environ: WSGIEnvironment) -> WSGIApplication | None:
    """Bring ``SCRIPT_NAME`` and ``PATH_INFO`` into the form that PEP 3333 gives them."""
    path = environ.setdefault("PATH_INFO", "")
    script_name = environ.setdefault("SCRIPT_NAME", "")
    environ.setdefault("QUERY_STRING", "")
    if path == "*" and environ["REQUEST_METHOD"] == "OPTIONS" and not script_name:
        return _asterisk
    absolute = strip_authority(path)
    if absolute is not None:
        # RFC 9112 section 3.2.2: the target's host replaces the field.
        _rewrite(environ, "HTTP_HOST", absolute[0])
        _rewrite(environ, "PATH_INFO", absolute[1] or "/")
    if script_name.endswith("/") and environ.get("PATH_INFO", "").startswith("/"):
        _rewrite(environ, "SCRIPT_NAME", script_name.rstrip("/"))
    if not environ.get("PATH_INFO") and not environ["SCRIPT_NAME"]:
        environ["PATH_INFO"] = "/"  # RFC 9110 section 4.2.3: an empty path is "/"
    return None


def _rewrite(environ: WSGIEnvironment, key: str, value: str) -> None:
    """Set *key*, and keep what the server had there."""
    environ.setdefault(ORIGINAL, {}).setdefault(key, environ.get(key))
    environ[key] = value


# --- what answers instead of the app ------------------------------------------------------------


def refuse_request(environ: WSGIEnvironment, start_response: StartResponse, error: BadRequestError) -> list[bytes]:
    """Refuse a request, and log it: no layer inside will ever hear of it."""
    _log_request(_LOGGER.warning, environ, "refused", error.status, error.reason)
    return refuse(environ, start_response, error)


def _no_websocket(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    return refuse_request(
        environ, start_response, BadRequestError("there are no websockets at this address", "426 Upgrade Required")
    )


def _asterisk(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """``OPTIONS *`` asks about the server, not about a resource (RFC 9110 section 9.3.7)."""
    _log_request(_LOGGER.info, environ, "answered", "204 No Content", "it asks about the server")
    return answer(environ, start_response, "204 No Content", b"", [("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS")])


def _redirect(target: str) -> WSGIApplication:
    def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        _log_request(_LOGGER.info, environ, "redirected", "308 Permanent Redirect", "the path is not the plain one")
        return answer(environ, start_response, "308 Permanent Redirect", b"", [("Location", target)])

    return redirect


def _log_request(log: Callable[..., None], environ: WSGIEnvironment, what: str, status: str, why: str) -> None:
    """Log what was answered here, in one line; ``%a`` escapes whatever a client may have put into it."""
    log(
        "%a %a from %a was %s with %s: %s",
        environ["REQUEST_METHOD"][:64],
        (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))[:200],
        environ.get("REMOTE_ADDR", "")[:64],
        what,
        status,
        why,
    )
