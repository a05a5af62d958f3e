"""Redirect http to https, and tell browsers to stay there.

Sets ``Strict-Transport-Security`` on answers over https.

.. code-block:: toml

    [[layer]]
    use  = "https"
    hsts = "365d"

Place it inside ``proxy`` and ``hosts``: the first knows whether the client used https, the second that the host
is yours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.options import Duration, choice, duration, flag, strings, whole_number
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import is_path_pattern, path_matcher
from lamella.stack.kernel.response import answer, edit_headers, refuse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = ["HTTPSMiddleware"]

_HSTS_KEYS = ("max_age", "subdomains", "preload")
#: What the browsers' preload list asks for: one year, and all subdomains.
_PRELOAD_SECONDS: Final = 31_536_000
_FIELD = "strict-transport-security"


class HTTPSMiddleware:
    """Serve https only.

    Args:
        app: The application inside.
        hsts: How long browsers shall use https only (``Strict-Transport-Security``): a duration such as ``"365d"``, or
            a table with ``max_age``, ``subdomains`` and ``preload``. None sends no such header; ``0`` makes
            browsers forget it. Begin with minutes: it cannot be taken back before it ends.
        other: What a request over http gets whose method is neither GET nor HEAD: ``"redirect"`` (308, the client
            sends it again), or ``"refuse"`` (403: what it sent was readable on the way, and its author should know).
        exclude: Path patterns that are served over http too, such as ``"/healthz"`` or
            ``"/.well-known/acme-challenge/*"``.
        port: Port of the https server, where it is not 443.

    Raises:
        ConfigError: *hsts* is malformed, asks for preloading with less than the browsers' list wants, or another
            option is wrong.
    """

    provides = ()
    requires = ()
    order = (
        Inside("proxy", "L105", "behind a proxy every request looks like http, which makes a redirect loop"),
        Inside("hosts", "L119", "a redirect must not be built from a host that is not allowed"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        hsts: Duration | Mapping[str, Any] | None = None,
        other: str = "redirect",
        exclude: Iterable[str] = (),
        port: int = 443,
    ) -> None:
        field = None if hsts is None else ("Strict-Transport-Security", _hsts(hsts))
        refuses = choice("other", other, ("redirect", "refuse")) == "refuse"
        excluded = path_matcher(strings("exclude", exclude, is_path_pattern, 'path patterns such as "/healthz"'))
        whole_number("port", port, 1, 65535, "a port")
        authority_port = "" if port == 443 else f":{port}"
        inner = direct(app)

        def add(headers: Headers) -> Headers:
            # RFC 6797 section 8.1: a browser takes the first field only; the app's own, where it has one, stays.
            if field is None or any(name.lower() == _FIELD for name, _ in headers):
                return headers
            return [*headers, field]

        def remove(headers: Headers) -> Headers:
            # RFC 6797 section 7.2: never over http.
            return [item for item in headers if item[0].lower() != _FIELD]

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["wsgi.url_scheme"] == "https":
                return inner(environ, start_response if field is None else edit_headers(start_response, add))
            try:
                if excluded(canonical_path(environ)):
                    return inner(environ, edit_headers(start_response, remove))
                if refuses and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                    raise BadRequestError("this address is served over https only", "403 Forbidden")
                location = _location(environ, authority_port)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            return answer(environ, start_response, "308 Permanent Redirect", b"", [("Location", location)])

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _hsts(value: Duration | Mapping[str, Any]) -> str:
    """Write the header's value (RFC 6797 section 6.1).

    Raises:
        ConfigError: See :class:`HTTPSMiddleware`.
    """
    if not isinstance(value, Mapping):
        return f"max-age={int(duration('hsts', value))}"
    for key in value:
        if key not in _HSTS_KEYS:
            raise ConfigError(f"hsts.{key}", value[key], "only the keys " + ", ".join(_HSTS_KEYS))
    if "max_age" not in value:
        raise ConfigError("hsts", dict(value), "a table with the key max_age")
    seconds = int(duration("hsts.max_age", value["max_age"]))
    subdomains = flag("hsts.subdomains", value.get("subdomains", False))
    preload = flag("hsts.preload", value.get("preload", False))
    if preload and (seconds < _PRELOAD_SECONDS or not subdomains):
        raise ConfigError("hsts.preload", preload, 'max_age of "365d" or more and subdomains = true with it')
    return f"max-age={seconds}" + ("; includeSubDomains" if subdomains else "") + ("; preload" if preload else "")


def _location(environ: WSGIEnvironment, port: str) -> str:
    """The same address over https.

    Raises:
        BadRequestError: There is no well-formed host to send the client to.
    """
    host = parse_host(environ.get("HTTP_HOST", ""))
    if host is None:
        raise BadRequestError("the Host is missing or malformed")
    # Checked by canonical_path(): it starts with one slash, so that nothing of it becomes part of the host.
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(path.encode("latin-1", "replace"), safe="/!$&'()*+,;=:@-._~") or "/"
    query: str = environ.get("QUERY_STRING", "")
    if query:
        target += "?" + quote(query.encode("latin-1", "replace"), safe="!$&'()*+,;=:@/?-._~%[]{}|^")
    return f"https://{host.host}{port}{target}"
