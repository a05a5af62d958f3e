"""Send the headers by which browsers protect a page: CSP with a nonce, nosniff, framing, referrer, isolation.

Sets ``lamella.csp_nonce`` where the policy has a nonce. They stand on every answer: pages,
errors, redirects, files. Where the app inside sends one of them, the stricter value holds.

.. code-block:: toml

    [[layer]]
    use = "security_headers"
    csp = { default-src = ["self"], script-src = ["self", "nonce"], img-src = ["self", "data:"] }

Place it outside everything that can answer, ``errors`` and ``static`` among it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.keys import CSP_NONCE
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import read_policies
from lamella.stack.kernel.response import ExcInfo, Headers, name_test, refuse

from ._security_policy import (
    NONCE,
    STRICTNESS,
    CspOption,
    build_csp,
    build_endpoints,
    build_permissions,
    merge,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SecurityHeadersMiddleware"]

#: OWASP's recommendation for a site that loads only its own things.
_DEFAULT_CSP: CspOption = {
    "default-src": ("self",),
    "base-uri": ("self",),
    "form-action": ("self",),
    "frame-ancestors": ("self",),
    "object-src": ("none",),
}
_POLICY_KEYS = ("csp", "csp_report_only", "nosniff", "frame", "referrer", "permissions", "coop", "corp", "coep")
#: CSP Level 3 section 7.1 asks for at least 128 random bits.
_NONCE_BYTES = 16


class SecurityHeadersMiddleware:
    """Send security headers with every answer.

    Args:
        app: The application inside.
        csp: ``Content-Security-Policy``: text, or a table from directive to sources; keywords need no
            quotes, ``"nonce"`` stands for the nonce of the answer; false for none.
        csp_report_only: A second policy that is only reported on, in the same forms.
        reporting_endpoints: Names for ``report-to``, with their addresses.
        nosniff: Send ``X-Content-Type-Options: nosniff``.
        frame: ``X-Frame-Options``: ``"SAMEORIGIN"``, ``"DENY"``, or false.
        referrer: ``Referrer-Policy``, or false. ``no-referrer`` makes browsers send ``Origin: null``
            with forms, which Django's and our own CSRF checks refuse.
        permissions: ``Permissions-Policy``: a table from feature to its allow-list, or false.
        coop: ``Cross-Origin-Opener-Policy``, or false.
        corp: ``Cross-Origin-Resource-Policy``, or false.
        coep: ``Cross-Origin-Embedder-Policy``, or false.
        policies: Other values for some paths: tables with ``paths`` and any of the options above but
            *reporting_endpoints*. The most specific pattern wins.

    Raises:
        ConfigError: An option is malformed.
    """

    provides = (CSP_NONCE,)
    requires = ()
    order = (
        Outside("errors", "L119", "error pages would have no security headers"),
        Outside("static", "L109", "files would have no security headers"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        csp: CspOption = _DEFAULT_CSP,
        csp_report_only: CspOption = False,
        reporting_endpoints: Mapping[str, str] | None = None,
        nosniff: bool = True,
        frame: str | Literal[False] = "SAMEORIGIN",
        referrer: str | Literal[False] = "strict-origin-when-cross-origin",
        permissions: Mapping[str, Any] | Literal[False] = False,
        coop: str | Literal[False] = "same-origin",
        corp: str | Literal[False] = "same-origin",
        coep: str | Literal[False] = False,
        policies: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        endpoints = build_endpoints("reporting_endpoints", {} if reporting_endpoints is None else reporting_endpoints)
        values = (csp, csp_report_only, nosniff, frame, referrer, permissions, coop, corp, coep)
        general = dict(zip(_POLICY_KEYS, values, strict=True))
        more: Headers = [("Reporting-Endpoints", endpoints)] if endpoints else []
        default = _policy(general, more)
        special = read_policies("policies", policies, _POLICY_KEYS, lambda table: _policy({**general, **table}, more))
        inner = direct(app)

        if not special and not default.with_nonce:
            self.wsgi_closure = _with_fixed(inner, default)
            return
        ways = {id(policy): _with_fixed(inner, policy) for policy in (default, *(other for _, other in special))}

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            policy = default
            if special:
                try:
                    path = canonical_path(environ)
                except BadRequestError as error:
                    return refuse(environ, start_response, error, default.fixed)
                policy = next((other for matches, other in special if matches(path)), default)
            if policy.with_nonce:
                return _with_nonce(inner, environ, start_response, policy)
            return ways[id(policy)](environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


class _Policy(NamedTuple):
    """The fields for one set of paths."""

    #: Fields that are the same on every answer.
    fixed: Headers
    #: Fields that hold the nonce.
    with_nonce: Headers
    #: Names that are none of either, and what looks closer.
    others: Set[str]
    is_ours: Callable[[str], bool]


def _policy(options: Mapping[str, Any], more: Headers) -> _Policy:
    """Check one set of options and prepare its fields."""
    fields: Headers = []
    for option, name in (
        ("csp", "Content-Security-Policy"),
        ("csp_report_only", "Content-Security-Policy-Report-Only"),
    ):
        policy = build_csp(option, options[option])
        if policy is not None:
            fields.append((name, policy))
    if not isinstance(options["nosniff"], bool):
        raise ConfigError("nosniff", options["nosniff"], "true or false")
    if options["nosniff"]:
        fields.append(("X-Content-Type-Options", "nosniff"))
    for option, name in (
        ("frame", "X-Frame-Options"),
        ("referrer", "Referrer-Policy"),
        ("coop", "Cross-Origin-Opener-Policy"),
        ("corp", "Cross-Origin-Resource-Policy"),
        ("coep", "Cross-Origin-Embedder-Policy"),
    ):
        value = options[option]
        allowed = STRICTNESS[name.lower()]
        if value is not False:
            if not isinstance(value, str) or value.lower() not in allowed:
                raise ConfigError(option, value, f"one of {', '.join(allowed)}, or false")
            fields.append((name, value.upper() if option == "frame" else value.lower()))
    permissions = build_permissions("permissions", options["permissions"])
    if permissions is not None:
        fields.append(("Permissions-Policy", permissions))
    fixed = [*(field for field in fields if NONCE not in field[1]), *more]
    return _Policy(
        fixed, [field for field in fields if NONCE in field[1]], *name_test(name for name, _ in fields + more)
    )


def _with_fixed(inner: WSGIApplication, policy: _Policy) -> WSGIApplication:
    """Return what calls the app and adds the same fields to each answer."""
    fixed, _, others, is_ours = policy

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
            for name, _ in headers:
                if name not in others and is_ours(name):
                    headers = merge(headers, fixed)
                    break
            else:
                headers = headers + fixed
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        return inner(environ, start)

    return wsgi_closure


def _with_nonce(
    inner: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse, policy: _Policy
) -> Iterable[bytes]:
    """Call the app with a nonce of its own, and send the policy that names it."""
    key = CSP_NONCE.name
    nonce = environ.get(key)
    if nonce is None:
        nonce = environ[key] = secrets.token_urlsafe(_NONCE_BYTES)
    named = [(name, value.replace(NONCE, nonce)) for name, value in policy.with_nonce]

    def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        # A 304 renews the headers of a page that the browser has kept, whose nonce is another one.
        ours = policy.fixed if status.startswith("304") else named + policy.fixed
        is_sent = any(name not in policy.others and policy.is_ours(name) for name, _ in headers)
        headers = merge(headers, ours) if is_sent else headers + ours
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return inner(environ, start)
