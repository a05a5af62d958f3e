"""Who is asking: reading credentials, establishing an identity, asking for credentials.

What the auth layers share, so that each sets the same keys and challenges the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .environ import prefers_html
from .errors import ConfigError
from .http import is_token, quote_string
from .keys import CLIENT, IDENTITY, RECORD, Identity
from .records import Record
from .response import ExcInfo, Headers

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = [
    "UNAUTHORIZED",
    "Credentials",
    "challenging",
    "client_address",
    "credentials_of",
    "establish",
    "has_controls",
    "is_browser",
    "is_user_name",
    "keep_original",
    "mark",
    "marks_of",
    "normalized",
    "parse_authorization",
    "realm_parameter",
    "unauthorized_headers",
]

#: The status line that every auth layer answers with (RFC 9110 section 15.5.2).
UNAUTHORIZED = "401 Unauthorized"

_IDENTITY: Final = IDENTITY.name
# Characters; nginx takes 8 KiB of one header line, gunicorn 8190, and no credential of ours is longer than this.
_MAX_AUTHORIZATION = 32_768
# Characters; OpenID Connect Core section 2 allows a subject 255.
_MAX_USER_NAME = 255
_MAX_REALM = 256
# Categories that no user name may hold: controls, format characters (bidi overrides, zero width), lone
# surrogates, unassigned and private code points, line and paragraph separators. They forge log lines and look-alikes.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


class Credentials(Record):
    """What an ``Authorization`` field says (RFC 9110 section 11.4)."""

    #: In lower case; schemes are compared without case.
    scheme: str
    #: All that follows the first space, unread.
    value: str

    def __repr__(self) -> str:
        return f"Credentials(scheme={self.scheme!r}, value=***)"


def parse_authorization(field: str) -> Credentials | None:
    """Read ``auth-scheme [ 1*SP ... ]`` (RFC 9110 section 11.6.2).

    Returns:
        Scheme and the rest, or None where the field is empty, too long, or begins with no token.
    """
    if not field or len(field) > _MAX_AUTHORIZATION:
        return None
    scheme, _, value = field.strip(" \t").partition(" ")
    if not is_token(scheme):
        return None
    return Credentials(scheme.lower(), value)


def credentials_of(field: str, scheme: str) -> str | None:
    """Return what an ``Authorization`` field has behind *scheme* (in lower case); None where it has another one."""
    if len(field) > _MAX_AUTHORIZATION:
        return None
    found, _, value = field.strip(" \t").partition(" ")
    return value.lstrip(" ") if found.lower() == scheme else None


def is_user_name(text: str) -> bool:
    """Tell whether *text* may name a user: 1 to 255 printable characters, no white space around them."""
    if text.isascii():
        return 0 < len(text) <= _MAX_USER_NAME and text.isprintable() and text == text.strip(" ")
    if len(text) > _MAX_USER_NAME or text != text.strip():
        return False
    from unicodedata import category

    return not any(category(character) in _UNPRINTABLE for character in text)


def normalized(text: str) -> str:
    """Return *text* in Unicode's normalization form C, in which equal names are equal (RFC 8265 section 3.3)."""
    if text.isascii():
        return text
    from unicodedata import normalize  # a megabyte that names in ASCII do without

    return normalize("NFC", text)


def has_controls(text: str) -> bool:
    """Tell whether *text* holds a control character: all of Unicode's category Cc, in U+0000 to U+009F."""
    return not text.isprintable() and any(x < " " or "\x7f" <= x <= "\x9f" for x in text)


def marks_of(identity: Identity) -> dict[str, Any]:
    """Return the environ keys that make *identity* known to everything inside.

    ``REMOTE_USER`` is a WSGI string: the UTF-8 bytes of the name as latin-1 characters (PEP 3333,
    "Unicode Issues"), as Apache and mod_wsgi give it.

    Args:
        identity: Its ``user`` has passed :func:`is_user_name`.
    """
    user = identity.user if identity.user.isascii() else identity.user.encode().decode("latin-1")
    return {_IDENTITY: identity, "REMOTE_USER": user, "AUTH_TYPE": identity.scheme}


def keep_original(environ: WSGIEnvironment, layer: str) -> None:
    """Keep what the server says of the user in ``lamella.<layer>.original``."""
    environ[f"lamella.{layer}.original"] = {key: environ[key] for key in ("REMOTE_USER", "AUTH_TYPE") if key in environ}


def mark(environ: WSGIEnvironment, marks: dict[str, Any], layer: str) -> None:
    """Set *marks* (:func:`marks_of`), in place; what the server had there is kept."""
    if "REMOTE_USER" in environ or "AUTH_TYPE" in environ:
        keep_original(environ, layer)
    environ |= marks
    if RECORD in environ:  # as IDENTITY.set() does
        environ[RECORD][_IDENTITY] = marks[_IDENTITY]


def establish(environ: WSGIEnvironment, identity: Identity, layer: str) -> None:
    """Make *identity* known to everything inside; in place.

    Args:
        environ: The request.
        identity: Its ``user`` has passed :func:`is_user_name`.
        layer: Short name of the layer.
    """
    mark(environ, marks_of(identity), layer)


def challenging(value: str) -> Callable[..., Callable[[bytes], object]]:
    """Return what adds ``WWW-Authenticate`` to a 401 from inside: bind it to a ``start_response``.

    A 401 must carry a challenge (RFC 9110 section 15.5.2); the app's own stay, each in its own field.
    Bound as a method is, ``MethodType(start, start_response)``: a closure for each request would cost
    half as much again.
    """

    def start(
        start_response: StartResponse, status: str, headers: Headers, exc_info: ExcInfo = None, /
    ) -> Callable[[bytes], object]:
        # The comparison costs a fifth of startswith().
        if status != "200 OK" and status.startswith("401") and not _has_challenge(headers, value):
            headers = [*headers, ("WWW-Authenticate", value)]
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start


def _has_challenge(headers: Headers, value: str) -> bool:
    return any(field == value and name.lower() == "www-authenticate" for name, field in headers)


def unauthorized_headers(value: str) -> Headers:
    """Return the headers of a refusal of our own, with its challenge."""
    return [("WWW-Authenticate", value), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]


def realm_parameter(realm: str) -> str:
    """Return the option *realm* as the quoted-string of a challenge (RFC 9110 section 11.5).

    Raises:
        ConfigError: It is not text that every client can show.
    """
    if not isinstance(realm, str) or len(realm) > _MAX_REALM or not (realm.isascii() and realm.isprintable()):
        raise ConfigError("realm", realm, f"at most {_MAX_REALM} characters of ASCII text")
    return quote_string(realm)


def is_browser(environ: WSGIEnvironment) -> bool:
    """Tell whether a person navigates: a page is wanted, not data (Fetch metadata, section 2.2)."""
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    if mode is not None and mode != "navigate":
        return False
    return prefers_html(environ) and environ.get("HTTP_X_REQUESTED_WITH", "").lower() != "xmlhttprequest"


def client_address(environ: WSGIEnvironment) -> str:
    """Return the address that asks: that of the trusted proxies' client, or of the peer."""
    client = CLIENT.get(environ)
    address: str = environ.get("REMOTE_ADDR", "") if client is None else client.address
    return address
