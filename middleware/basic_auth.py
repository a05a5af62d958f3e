"""Ask for user and password with HTTP's own dialog (RFC 7617), and tell the app who it is.

Sets ``lamella.identity``, ``REMOTE_USER`` and ``AUTH_TYPE``; adds ``WWW-Authenticate`` to a 401 from inside.

.. code-block:: toml

    [[layer]]
    use = "basic_auth"
    users = "staff.htpasswd"

Place it inside ``cors`` (a preflight carries no credentials) and outside ``access``. Not without TLS: the
password is in every request, readable by all who carry it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.auth import (
    UNAUTHORIZED,
    challenging,
    credentials_of,
    has_controls,
    is_user_name,
    keep_original,
    marks_of,
    realm_parameter,
    unauthorized_headers,
)
from lamella.stack.kernel.environ import direct, remove_identity_headers
from lamella.stack.kernel.keys import IDENTITY, RECORD, Identity
from lamella.stack.kernel.options import Duration, duration, flag
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.passwords import Users, UsersValue
from lamella.stack.kernel.response import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["BasicAuthMiddleware"]


class BasicAuthMiddleware:
    """Authenticate by user and password in the ``Authorization`` header.

    Args:
        app: The application inside.
        users: An htpasswd file, read again whenever it changes; a table of user and hash; or a callable
            ``(user, password)`` that returns true, false, or an :class:`~lamella.stack.kernel.keys.Identity`
            (``"module:attribute"`` in a stack file). Hashes are bcrypt, argon2id or SHA-crypt; see ``lamella passwd``.
        realm: What the browser's dialog names.
        required: Refuse a request without valid credentials. Off, it goes on anonymously, whatever it carried; what
            is inside decides, and a 401 from there is answered with our challenge.
        consume: Remove the ``Authorization`` header once it has served, so that an app inside does not
            try the same credentials on its own users.
        roles: The users of each role, for the rules of ``access``.
        cache: How long a right password is not hashed again; 0 for never. Kept is a digest
            under a random key of the process. A changed password counts at once, under load within a second.
        allow_weak: Take Apache's ``$apr1$`` (MD5) and ``{SHA}`` hashes too.

    Raises:
        ConfigError: *users* has something that is no hash, *realm* cannot stand in a header, or a value has the wrong
            type.
    """

    provides = (IDENTITY,)
    requires = ()
    order = (
        Inside("cors", "L104", "A preflight carries no credentials and would be refused."),
        Inside("rate_limit", "L111", "Guessing passwords must cost attempts before it costs hashing."),
        Outside("access", "L119", "Rules on roles need to know who is asking."),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        users: UsersValue,
        realm: str = "restricted",
        required: bool = True,
        consume: bool = True,
        roles: Mapping[str, Iterable[str]] | None = None,
        cache: Duration = "5m",
        allow_weak: bool = False,
    ) -> None:
        for option, value in (("required", required), ("consume", consume), ("allow_weak", allow_weak)):
            flag(option, value)
        challenge_text = _challenge(realm)
        known = Users(
            "users",
            users,
            scheme="basic",
            roles=roles,
            allow_weak=allow_weak,
            cache_seconds=duration("cache", cache),
        )
        inner, key, check, recall = direct(app), IDENTITY.name, known.check, known.recall
        refusal, start = unauthorized_headers(challenge_text), challenging(challenge_text)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            remove_identity_headers(environ)
            if key not in environ:
                field = environ.get("HTTP_AUTHORIZATION", "")
                marks = recall(field) or _authenticate(field, check)
                if marks is not None:
                    # As mark() does, without its call.
                    if "REMOTE_USER" in environ or "AUTH_TYPE" in environ:
                        keep_original(environ, "basic_auth")
                    environ |= marks
                    if RECORD in environ:
                        environ[RECORD][key] = marks[key]
                    if consume:
                        del environ["HTTP_AUTHORIZATION"]
                elif required:
                    return answer(environ, start_response, UNAUTHORIZED, b"Please sign in.\n", refusal)
            return inner(environ, MethodType(start, start_response))

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        closure = self.wsgi_closure  # a call of an attribute costs more
        return closure(environ, start_response)


def _challenge(realm: str) -> str:
    """RFC 7617 section 2 and 2.1: the realm is a quoted-string, the charset tells clients to send UTF-8."""
    return f'Basic realm={realm_parameter(realm)}, charset="UTF-8"'


def _authenticate(field: str, check: Callable[[str, str, str], Identity | None]) -> dict[str, Any] | None:
    """Return the marks of whom the ``Authorization`` field proves to be asking, None where it proves nobody."""
    value = credentials_of(field, "basic")
    pair = decode_credentials(value) if value else None
    identity = None if pair is None else check(*pair, field)
    return None if identity is None else marks_of(identity)


def decode_credentials(value: str) -> tuple[str, str] | None:
    """Read ``user-pass`` (RFC 7617 section 2): strict base64 of UTF-8 ``user:password``.

    Returns:
        User and password, or None where anything is malformed or either has a control character.
    """
    try:
        octets = binascii.a2b_base64(value, strict_mode=True)
        if binascii.b2a_base64(octets, newline=False).decode() != value:  # RFC 4648 section 3.5: one text for one value
            return None
        user, colon, password = octets.decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or not is_user_name(user) or has_controls(password):
        return None
    return user, password
