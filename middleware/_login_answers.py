"""The answers of ``login``: its pages, redirects, and the refusal of other methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.keys import CSP_NONCE
from lamella.stack.kernel.response import answer

from ._login_page import LOGIN, LOGOUT, Template

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["not_allowed", "redirect", "send_page"]


def send_page(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: str,
    page: Template,
    values: dict[str, str],
    headers: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """Send a page that no other may frame and no cache keeps; it needs no script and nothing from elsewhere."""
    nonce = CSP_NONCE.get(environ)
    if nonce is not None:
        values["nonce"] = f' nonce="{nonce}"'
    style = f" 'sha256-{page.style_hash}'" if page.style_hash else ""
    policy = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    if page in (LOGIN, LOGOUT):
        policy = f"default-src 'none'; style-src{style}; {policy}"
    more = [
        *headers,
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        # Not no-referrer: browsers would send "Origin: null" with the form.
        ("Referrer-Policy", "same-origin"),
    ]
    return answer(environ, start_response, status, page.render(values), more, content_type="text/html; charset=utf-8")


def redirect(location: str, headers: Sequence[tuple[str, str]]) -> WSGIApplication:
    """303: what follows is a GET, whatever this was (RFC 9110 section 15.4.4)."""

    def redirecting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        more = [("Location", location), ("Cache-Control", "no-store"), *headers]
        return answer(environ, start_response, "303 See Other", b"", more)

    return redirecting


def not_allowed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return answer(
        environ, start_response, "405 Method Not Allowed", b"GET or POST, please.\n", [("Allow", "GET, HEAD, POST")]
    )
