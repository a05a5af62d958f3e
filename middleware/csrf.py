"""Refuse requests that another site made a browser send.

Sets ``lamella.csrf``. A request that may change something (not GET, HEAD, OPTIONS, TRACE) must
come from this site: by ``Sec-Fetch-Site`` and ``Origin``, which every current browser sends,
or by a token in the form or in a header, for those that send neither.

.. code-block:: toml

    [[layer]]
    use = "csrf"
    trusted_origins = ["https://accounts.example"]

Place it inside ``session``, which keeps the token's secret, inside ``login``, which has a check of its
own, and outside whatever else changes something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamella.stack.kernel.auth import parse_authorization
from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.environ import direct, header_key
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import is_token, parse_origin
from lamella.stack.kernel.keys import CSRF, IDENTITY, SESSION
from lamella.stack.kernel.options import choice, header_name, strings
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import is_path_pattern, path_matcher
from lamella.stack.kernel.response import answer, refuse
from lamella.stack.kernel.targets import own_origin

from ._csrf_token import FORM_BYTES, Replayed, find_field, is_valid, make_token

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["CSRFMiddleware"]

#: RFC 9110 section 9.2.1.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: Fetch Metadata, "Sec-Fetch-Site": from our own pages, or by the user's own hand.
_OWN_SITES = frozenset({"same-origin", "none"})


class CSRFMiddleware:
    """Refuse cross-site requests with 403, before the app sees them.

    Args:
        app: The application inside.
        trusted_origins: Other origins whose pages may send requests, such as ``"https://accounts.example"``.
        token: ``"fallback"``: a token is needed where the browser sends neither ``Sec-Fetch-Site`` nor
            ``Origin``; ``"always"``: it is needed besides them; ``"never"``: such a request is refused.
        field: Name of the form field that carries the token, within the first 64 KiB of the body.
        header: Name of the header that carries it instead.
        exempt: Path patterns that are not guarded, for callers that are no browsers (webhooks).

    Raises:
        ConfigError: An option is malformed.
    """

    provides = (CSRF,)
    requires = (SESSION,)
    order = (
        Inside("session", "L101", "the token's secret is kept in the session"),
        *(
            Inside(layer, "L119", "a token is bound to who is signed in, which must be known before it is checked")
            for layer in ("login", "oidc", "basic_auth")
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        trusted_origins: Iterable[str] = (),
        token: str = "fallback",
        field: str = "csrf_token",
        header: str = "X-CSRF-Token",
        exempt: Iterable[str] = (),
    ) -> None:
        trusted = frozenset(map(_read_origin, strings("trusted_origins", trusted_origins)))
        choice("token", token, ("fallback", "always", "never"))
        if not isinstance(field, str) or not is_token(field):
            raise ConfigError("field", field, "the name of a form field")
        header_name("header", header)
        patterns = strings("exempt", exempt, is_path_pattern, 'path patterns such as "/hooks/*"')
        is_exempt = path_matcher(patterns) if patterns else None
        header_in_environ, key, inner = header_key(header), CSRF.name, direct(app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if key not in environ:
                source = environ[key] = _Token()
                source._environ, source.field, source.header = environ, field, header
            if environ["REQUEST_METHOD"] in _SAFE_METHODS:
                return inner(environ, start_response)
            try:
                if is_exempt is not None and is_exempt(canonical_path(environ)):
                    return inner(environ, start_response)
                why = _fault(environ, trusted, token)
                if why == _UNPROVEN:
                    why = _token_fault(environ, header_in_environ, field)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            if why:
                return _forbid(environ, start_response, why)
            return inner(environ, start_response)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


class _Token:
    """What ``lamella.csrf`` holds; the session is read when a token is asked for."""

    __slots__ = ("_environ", "field", "header")

    # Set by the layer for each request: an __init__ would be a third of all that it does for a GET.
    _environ: WSGIEnvironment
    field: str
    header: str

    def token(self) -> str:
        """Return a token for this session, masked anew at each call.

        Raises:
            MissingLayerError: There is no ``session`` layer outside.
        """
        return make_token(SESSION.require(self._environ), _user(self._environ))

    def input(self) -> str:
        """Return the hidden ``<input>`` of a form."""
        return f'<input type="hidden" name="{self.field}" value="{self.token()}">'

    def __html__(self) -> str:
        return self.input()


#: Nothing tells where the request comes from: the token decides.
_UNPROVEN = "?"


def _fault(environ: WSGIEnvironment, trusted: frozenset[str], token: str) -> str:
    """Tell why the request's headers refuse it; empty where they prove that it is ours."""
    origin = environ.get("HTTP_ORIGIN")
    site = environ.get("HTTP_SEC_FETCH_SITE")
    site_origin = own_origin(environ)
    own = str(site_origin) if site_origin is not None else None
    if origin is not None and origin != own and origin not in trusted:
        return "it was sent from another origin"
    if site is not None and site not in _OWN_SITES and not (origin is not None and origin in trusted):
        return "it was sent from another site"
    if _has_bearer_token(environ):
        return ""
    if origin is None and site is None:
        referer = environ.get("HTTP_REFERER")
        if referer is not None and not _is_from(referer, own, trusted):
            return "it was sent from a page of another origin"
        return "the browser does not tell where it was sent from" if token == "never" else _UNPROVEN
    return _UNPROVEN if token == "always" else ""


def _origin_of(text: str) -> str | None:
    parsed = parse_origin(text)
    return str(parsed) if parsed is not None else None


def _read_origin(text: str) -> str:
    origin = _origin_of(text)
    if origin is None:
        raise ConfigError("trusted_origins", text, 'origins such as "https://accounts.example"')
    return origin


def _is_from(referer: str, own: str | None, trusted: frozenset[str]) -> bool:
    """Tell whether the page that the Referer names is ours or trusted (RFC 9110 section 10.1.3)."""
    scheme, separator, rest = referer.partition("://")
    end = next((at for at, mark in enumerate(rest) if mark in "/?#"), len(rest))
    origin = _origin_of(f"{scheme}://{rest[:end]}") if separator else None
    return origin is not None and (origin == own or origin in trusted)


def _has_bearer_token(environ: WSGIEnvironment) -> bool:
    """Tell whether the request carries a bearer token, which no browser adds by itself.

    A page of another origin can set the header only after a preflight that ``cors`` allowed.
    """
    field = environ.get("HTTP_AUTHORIZATION")
    credentials = parse_authorization(field) if field else None
    return credentials is not None and credentials.scheme == "bearer" and bool(credentials.value)


def _user(environ: WSGIEnvironment) -> str:
    identity = IDENTITY.get(environ)
    return identity.user if identity is not None else ""


def _token_fault(environ: WSGIEnvironment, header: str, field: str) -> str:
    """Tell why the request's token refuses it; empty where it is good."""
    session = SESSION.get(environ)
    if session is None:
        return "it has no session"
    sent = environ.get(header)
    if sent is None:
        sent = _token_of_form(environ, field)
    if not sent:
        return "its token is missing"
    return "" if is_valid(session, _user(environ), sent) else "its token is not that of this session"


def _token_of_form(environ: WSGIEnvironment, field: str) -> str | None:
    """Look for the token in the beginning of a form; the app inside reads the form as if it was untouched."""
    content_type = environ.get("CONTENT_TYPE", "")
    if not content_type.lower().startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return None
    length = body_length(environ)
    stream = BodyReader(environ["wsgi.input"], length)
    start = b""
    while len(start) < FORM_BYTES and (block := stream.read(FORM_BYTES - len(start))):
        start += block
    environ["wsgi.input"] = BodyReader(Replayed(start, stream), length)
    return find_field(content_type, start, field)


def _forbid(environ: WSGIEnvironment, start_response: StartResponse, why: str) -> list[bytes]:
    """Answer 403; the body stays unread unless a form's token was looked for."""
    text = f"The request was refused, because {why}. Reload the page and send it again.\n"
    return answer(environ, start_response, "403 Forbidden", text.encode(), [("Cache-Control", "no-store")])
