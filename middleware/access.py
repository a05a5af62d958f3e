"""Say who may ask for what, in one list of rules: the first that matches decides, and what none matches is refused.

Reads ``lamella.identity``; answers 401 to who is unknown and 403 to who is known but may not. Removes
``X-HTTP-Method-Override`` and its kin where a rule looks at methods.

.. code-block:: toml

    [[layer]]
    use = "access"
    rules = [
        { path = "/",         allow = "anonymous" },
        { path = "/assets/*", methods = ["GET"], allow = "anonymous" },
        { path = "/admin/*",  allow = ["admin"] },
        { path = "/api/*",    scheme = "bearer", allow = ["client"] },
        { path = "/*",        allow = "authenticated" },
    ]

Place it inside the auth layers, which also turn its 401 into a challenge, and outside what it protects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from lamella.stack.kernel.auth import UNAUTHORIZED
from lamella.stack.kernel.environ import direct, remove_identity_headers
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import is_token, parse_host
from lamella.stack.kernel.keys import CLIENT, IDENTITY
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.paths import canonical_path, has_path_parameters
from lamella.stack.kernel.response import answer, refuse
from lamella.stack.kernel.rules import RuleTable, bare_host, first_match, parse_rules

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["AccessMiddleware"]

# What apps and method-override middleware take for the method instead of the one that the rules saw.
_OVERRIDES = ("HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD")
_WHY = "Rules on roles need to know who is asking, and only an auth layer outside turns the 401 into a challenge."


class AccessMiddleware:
    """Refuse what no rule allows.

    Args:
        app: The application inside.
        rules: Tables with ``path`` (a pattern on the canonical path, relative to where the layer is mounted),
            ``methods``, ``hosts``, ``scheme`` (``"https"``; or how the user is known: ``"basic"``, ``"bearer"``,
            ``"session"``, ``"oidc"``) and ``allow``: ``"anonymous"``, ``"authenticated"``, or roles. All but ``allow``
            may be left out and then match everything. The first rule that matches decides; without one, nobody may.
        ignore_case: Compare paths without case, for an app inside that does not tell ``/ADMIN`` from ``/admin``.

    Raises:
        ConfigError: A rule has an unknown key, a pattern that no path can match, or can never be reached.
    """

    provides = ()
    requires = ()
    order = (
        Inside("basic_auth", "L119", _WHY),
        Inside("bearer_auth", "L119", _WHY),
        Inside("login", "L119", _WHY),
        Inside("oidc", "L119", _WHY),
        Inside("cors", "L104", "A preflight carries no credentials and would be refused."),
    )
    streams = True

    def __init__(self, app: WSGIApplication, *, rules: Sequence[RuleTable], ignore_case: bool = False) -> None:
        if not isinstance(ignore_case, bool):
            raise ConfigError("ignore_case", ignore_case, "true or false")
        parsed = parse_rules("rules", rules, ignore_case=ignore_case)
        needs_host = any(rule.hosts is not None for rule in parsed)
        looks_at_methods = any(rule.methods is not None for rule in parsed)
        inner, identity_key, client_key = direct(app), IDENTITY.name, CLIENT.name

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            remove_identity_headers(environ)
            client = environ.get(client_key)
            try:
                path = canonical_path(environ)
                host = _host(environ.get("HTTP_HOST") if client is None else client.host, needs_host)
                _check(path, environ["REQUEST_METHOD"])
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            scheme = environ["wsgi.url_scheme"] if client is None else client.scheme
            identity = environ.get(identity_key)
            rule = first_match(parsed, path, environ["REQUEST_METHOD"], host, scheme, identity)
            if rule is None or not rule.admits(identity):
                nobody = rule is not None and not rule.allow
                return _refuse(environ, start_response, known=identity is not None or nobody)
            if looks_at_methods:
                for name in _OVERRIDES:
                    environ.pop(name, None)
            return inner(environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _check(path: str, method: str) -> None:
    """Refuse what an app inside might read in another way than the rules do."""
    if has_path_parameters(path):
        raise BadRequestError("the path has parameters after a semicolon")
    if not is_token(method):
        raise BadRequestError("the method is not a token")


def _host(text: str | None, needed: bool) -> str | None:
    """The host that the rules compare. One that is malformed could move the path of an app that rebuilds its URL."""
    if text is None:
        if needed:
            raise BadRequestError("the request has no Host header")
        return None
    host = _bare_host(text)
    if host is None:
        raise BadRequestError("the Host header is not a host")
    return host


@lru_cache(maxsize=256)
def _bare_host(text: str) -> str | None:
    """The name alone, None where it is malformed. Requests name few hosts: remembered, a dozen times faster."""
    parsed = parse_host(text)
    return None if parsed is None else bare_host(parsed)


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, *, known: bool) -> Iterable[bytes]:
    """403 to whom we know: asking again as the same user is no use (RFC 9110 sections 15.5.2 and 15.5.4)."""
    headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    if known:
        return answer(environ, start_response, "403 Forbidden", b"You may not do this.\n", headers)
    return answer(environ, start_response, UNAUTHORIZED, b"Please sign in.\n", headers)
