"""Refuse requests for hosts that are not ours.

.. code-block:: toml

    [[layer]]
    use   = "hosts"
    allow = ["shop.example", "*.shop.example", "localhost"]

Place it inside ``proxy``, which knows the host the client asked for, and outside everything that builds a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import HostPort, parse_host
from lamella.stack.kernel.options import strings
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.response import refuse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["HostsMiddleware"]

# Host fields that are remembered as allowed; one that is refused is looked at each time.
_MEMO_SIZE = 1024
_EXPECTED = 'hosts such as "shop.example", "shop.example:8443", "*.shop.example" or ".shop.example"'


class HostsMiddleware:
    """Answer 400 to a ``Host`` that is malformed or not allowed.

    A link in a mail, a redirect, a cache entry are built from the host a client names; this layer makes sure
    that it is one of yours.

    Args:
        app: The application inside.
        allow: Hosts: ``"shop.example"`` on any port, ``"shop.example:8443"`` on that port, ``"*.shop.example"`` for
            every name below it, ``".shop.example"`` for both.

    Raises:
        ConfigError: *allow* is empty, or one of its hosts is malformed or stands for all.
    """

    provides = ()
    requires = ()
    order = (
        Inside("proxy", "L105", "the host a client asked for is known only after the trusted proxies were heard"),
        Outside("https", "L119", "a redirect must not be built from a host that is not allowed"),
        Outside("dispatch", "L119", "an app that builds URLs must not see a host that is not allowed"),
    )
    streams = True

    def __init__(self, app: WSGIApplication, *, allow: Iterable[str]) -> None:
        allowed = _matcher(strings("allow", allow, of=_EXPECTED))
        inner = direct(app)
        memo: set[str] = set()

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            host = environ.get("HTTP_HOST")
            if host not in memo:
                try:
                    _check(environ, host, allowed)
                except BadRequestError as error:
                    return refuse(environ, start_response, error)
                if host is not None and len(memo) < _MEMO_SIZE:
                    memo.add(host)
            return inner(environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _matcher(patterns: tuple[str, ...]) -> Callable[[HostPort], bool]:
    """Return a predicate on hosts.

    Raises:
        ConfigError: See :class:`HostsMiddleware`.
    """
    if not patterns:
        raise ConfigError("allow", [], "at least one host")
    exact: set[tuple[str, int | None]] = set()
    suffixes: set[tuple[str, int | None]] = set()
    for pattern in patterns:
        name = pattern.removeprefix("*.") if pattern.startswith("*.") else pattern.removeprefix(".")
        parsed = parse_host(name)
        is_suffix = name != pattern
        if parsed is None or (is_suffix and (parsed.host.startswith("[") or parsed.host.rpartition(".")[2].isdigit())):
            raise ConfigError("allow", pattern, _EXPECTED)
        host = parsed.host.removesuffix(".")
        if is_suffix:
            suffixes.add(("." + host, parsed.port))
        if not pattern.startswith("*"):
            exact.add((host, parsed.port))

    def allowed(asked: HostPort) -> bool:
        host = asked.host.removesuffix(".")
        ports = (None, asked.port)
        if any((host, port) in exact for port in ports):
            return True
        at = host.find(".") if suffixes else -1
        while at >= 0:
            if any((host[at:], port) in suffixes for port in ports):
                return True
            at = host.find(".", at + 1)
        return False

    return allowed


def _check(environ: WSGIEnvironment, host: str | None, allowed: Callable[[HostPort], bool]) -> None:
    """Look at the host of a request.

    Raises:
        BadRequestError: It is missing, malformed, or not allowed. The field's bytes are not repeated.
    """
    if host is None:
        # RFC 9112 section 3.2: only HTTP/1.0 may leave it out; then URLs are built from the server's own name.
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
            raise BadRequestError("the request has no Host")
        host = f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '80')}"
    asked = parse_host(host)
    if asked is None:
        raise BadRequestError("the Host is malformed")
    if not allowed(asked):
        raise BadRequestError("the Host is not served here")
