"""Take a token from the ``Authorization`` header (RFC 6750): a JWT, an opaque token, an API key.

Sets ``lamella.identity``, ``REMOTE_USER`` and ``AUTH_TYPE``; adds ``WWW-Authenticate`` to a 401 from inside.

.. code-block:: toml

    [[layer]]
    use = "bearer_auth"
    algorithms = ["RS256"]
    jwks_url = "https://login.example/.well-known/jwks.json"
    issuer = "https://login.example"
    audience = "shop"
    required = false

Place it inside ``cors`` (a preflight carries no credentials) and outside ``access``. The token is read from that header
only: one in a query or a form ends up in logs and histories.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from lamella.stack.kernel.auth import (
    UNAUTHORIZED,
    challenging,
    establish,
    is_user_name,
    parse_authorization,
    realm_parameter,
    unauthorized_headers,
)
from lamella.stack.kernel.environ import direct, remove_identity_headers
from lamella.stack.kernel.errors import ConfigError, import_extra
from lamella.stack.kernel.http import quote_string
from lamella.stack.kernel.keys import IDENTITY, Identity
from lamella.stack.kernel.options import Duration, SecretValue, duration, flag, one_line, reference, strings
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.response import answer

from ._jwk import ALGORITHMS, Key, encryption_keys, read_keys
from ._jwks import KeysUnavailableError, RemoteKeys, check_url
from ._jwt import Claims, TokenError, check_claims, decrypt, is_compact, verify_jws

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["BearerAuthMiddleware"]

# RFC 6750 section 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
# Key encryption (RFC 7518 section 4): no RSA1_5 (Bleichenbacher), no PBES2 (the sender chooses the work).
_DECRYPTION = (
    *("RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"),
    *("A128KW", "A256KW", "A128GCMKW", "A256GCMKW", "dir"),
)
_CONTENT = ("A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
# Seconds a client may wait before it asks again where no keys can be had.
_RETRY = "5"


class _Refusal(NamedTuple):
    """Why a request is not let in (RFC 6750 section 3.1)."""

    status: str
    error: str
    description: str


_MALFORMED = _Refusal("400 Bad Request", "invalid_request", "the Authorization header is malformed")
_UNKNOWN = _Refusal(UNAUTHORIZED, "invalid_token", "the token is not known")
_UNNAMED = _Refusal(UNAUTHORIZED, "invalid_token", "the token names no user")


class BearerAuthMiddleware:
    """Authenticate by a bearer token.

    Args:
        app: The application inside.
        algorithms: Those that may sign a JWT, such as ``["RS256"]``; a key is used only for those that fit it. Empty
            where only opaque *tokens* are taken.
        keys: Keys that verify: PEM or JWK of public keys, or secrets (HS256 and kin, at least as long as the hash);
            one, a list, or a table from ``kid`` to key.
        jwks_url: Where the provider publishes its keys. Fetched when first needed, again after *jwks_refresh* and
            for a new ``kid``; kept while the provider does not answer.
        issuer: What ``iss`` must be, exactly; or a list of them.
        audience: What ``aud`` must name, or a list of which it must name one. Without it a token that has an
            ``aud`` is refused: it is for somebody else.
        leeway: How far clocks may differ when ``exp``, ``nbf`` and ``iat`` are compared.
        required: Refuse a request without a valid token. Off, it goes on anonymously, whatever it carried; what
            is inside decides, and a 401 from there is answered with our challenge.
        realm: What the challenge names.
        consume: Remove the ``Authorization`` header once it has served. Turn it off for an app inside that passes
            the token on.
        tokens: Opaque tokens and API keys: a table from the SHA-256 of the token, in hexadecimal, to a user or to
            ``{ user = "ci", roles = ["deploy"] }``; or a callable that takes a token and returns a user, an
            :class:`~lamella.stack.kernel.keys.Identity`, or None.
        scopes: Scopes that every token must have in ``scope`` or ``scp``; otherwise 403.
        required_claims: Claims that every JWT must have.
        user_claim: The claim that names the user.
        roles_claim: The claim that lists the roles, a list or words; ``a.b`` is ``b`` inside ``a``.
        token_type: What ``typ`` in the header must be, such as ``"at+jwt"`` (RFC 9068), so that an ID token is no
            access token. Without it: none, ``JWT`` or ``at+jwt``.
        jwks_refresh: How long keys of *jwks_url* are used before they are fetched again.
        jwks_pause: Least time between two fetches, whatever tokens are sent.
        insecure_http: Take an ``http`` *jwks_url* of this machine, for tests.
        decryption_keys: Private keys or secrets for encrypted tokens (JWE); what is inside must be signed all the same.
        decryption_algorithms: Those that may encrypt a token's key, such as ``["RSA-OAEP-256"]``.

    Raises:
        ConfigError: An algorithm is unknown, a key short or for no configured algorithm, nothing is there to verify
            with, *jwks_url* is not https, or a value has the wrong type.
        MissingExtraError: joserfc is not installed.
    """

    provides = (IDENTITY,)
    requires = ()
    order = (
        Inside("cors", "L104", "A preflight carries no credentials and would be refused."),
        Outside("access", "L119", "Rules on roles need to know who is asking."),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        algorithms: Sequence[str],
        keys: SecretValue | Mapping[str, Any] | Sequence[SecretValue | Mapping[str, Any]] | None = None,
        jwks_url: str | None = None,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        leeway: Duration = "0s",
        required: bool = True,
        realm: str = "restricted",
        consume: bool = True,
        tokens: Mapping[str, Any] | Callable[[str], object] | None = None,
        scopes: Sequence[str] = (),
        required_claims: Sequence[str] = ("exp",),
        user_claim: str = "sub",
        roles_claim: str = "roles",
        token_type: str | None = None,
        jwks_refresh: Duration = "10m",
        jwks_pause: Duration = "30s",
        insecure_http: bool = False,
        decryption_keys: SecretValue | Mapping[str, Any] | Sequence[SecretValue | Mapping[str, Any]] | None = None,
        decryption_algorithms: Sequence[str] = (),
    ) -> None:
        for option, value in (("required", required), ("consume", consume), ("insecure_http", insecure_http)):
            flag(option, value)
        for option, name in (("user_claim", user_claim), ("roles_claim", roles_claim)):
            one_line(option, name, "the name of a claim")
        if token_type is not None:
            one_line("token_type", token_type, 'a type such as "at+jwt",')
        scopes = strings("scopes", scopes, _is_scope, "scopes: visible ASCII without quotes")
        wanted = Claims(
            frozenset(_one_or_more("issuer", issuer)),
            frozenset(_one_or_more("audience", audience)),
            duration("leeway", leeway),
            strings("required_claims", required_claims, _is_plain, "names of claims"),
            None if token_type is None else token_type.lower().removeprefix("application/"),
        )
        accepted = _algorithms("algorithms", algorithms, ALGORITHMS)
        find = _key_source(
            accepted,
            keys,
            jwks_url,
            seconds=duration("jwks_refresh", jwks_refresh),
            pause=duration("jwks_pause", jwks_pause),
            insecure_http=insecure_http,
            has_tokens=tokens is not None,
        )
        unwrap = _decryption(decryption_keys, decryption_algorithms, has_keys=find is not None)
        known, ask = _opaque(tokens)

        def read_jwt(token: str) -> Identity | _Refusal:
            """Identity from a JWT."""
            if find is None:
                return _UNKNOWN
            try:
                if unwrap is not None and token.count(".") == 4:
                    token = unwrap(token)
                header, payload = verify_jws(token, accepted, find)
                claims = check_claims(header, payload, wanted, time.time())
            except TokenError as error:
                return _Refusal(UNAUTHORIZED, "invalid_token", str(error))
            except KeysUnavailableError:
                return _Refusal("503 Service Unavailable", "temporarily_unavailable", "the keys cannot be fetched")
            user = claims.get(user_claim)
            if not isinstance(user, str) or not is_user_name(user):
                return _UNNAMED
            if not _scopes(claims).issuperset(scopes):
                return _Refusal("403 Forbidden", "insufficient_scope", "the token has too few scopes")
            return Identity(user, "bearer", claims, _words(_claim(claims, roles_claim)))

        def authenticate(field: str) -> Identity | _Refusal | None:
            """Identity, a reason, or None where no bearer token was sent."""
            credentials = parse_authorization(field) if field else None
            if credentials is None or credentials.scheme != "bearer":
                return None if not field or credentials is not None else _MALFORMED
            token = credentials.value
            if _B64TOKEN.fullmatch(token) is None:
                return _MALFORMED
            found = known.get(sha256(token.encode()).hexdigest()) if known else None
            if found is not None:
                return _scoped(found, scopes)
            if ask is not None and not (find is not None and is_compact(token)):
                return _scoped(_identity(ask(token)), scopes)
            return read_jwt(token)

        inner, key = direct(app), IDENTITY.name
        plain = _challenge(realm)
        start = challenging(plain)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            remove_identity_headers(environ)
            text = plain
            if key not in environ:
                found = authenticate(environ.get("HTTP_AUTHORIZATION", ""))
                if isinstance(found, Identity):
                    establish(environ, found, "bearer_auth")
                    if consume:
                        del environ["HTTP_AUTHORIZATION"]
                elif found is not None:
                    text = _describe(plain, found, scopes)
                    if required or found.status.startswith("503"):
                        return _refuse(environ, start_response, found, text)
                elif required:
                    return answer(
                        environ, start_response, UNAUTHORIZED, b"A token is needed.\n", unauthorized_headers(plain)
                    )
            return inner(environ, MethodType(start if text is plain else challenging(text), start_response))

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


# --- options ------------------------------------------------------------------------------------


def _is_scope(text: str) -> bool:
    """Tell whether text is a scope-token (RFC 6749 section 3.3): it stands in the challenge."""
    return _SCOPE.fullmatch(text) is not None


def _is_plain(text: str) -> bool:
    """Tell whether text has one line, and something on it."""
    return bool(text) and text.isprintable()


def _one_or_more(option: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    items = strings(option, (value,) if isinstance(value, str) else value, _is_plain, "text on one line, not empty")
    if not items:
        raise ConfigError(option, [], "at least one, or none at all")
    return items


def _algorithms(option: str, value: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    expected = "a list of " + ", ".join(known)
    return tuple(dict.fromkeys(strings(option, value, known.__contains__, expected.removeprefix("a list of "))))


def _key_source(
    algorithms: Sequence[str],
    keys: object,
    jwks_url: str | None,
    *,
    seconds: float,
    pause: float,
    insecure_http: bool,
    has_tokens: bool,
) -> Callable[[str | None], Sequence[Key]] | None:
    """Return what finds the keys for a ``kid``, None where only opaque tokens are taken."""
    if keys is not None and jwks_url is not None:
        raise ConfigError("jwks_url", jwks_url, "either keys or jwks_url, not both")
    if keys is None and jwks_url is None:
        if algorithms or not has_tokens:
            raise ConfigError("keys", None, "keys, jwks_url, or tokens with no algorithms: something to verify with")
        return None
    if not algorithms:
        raise ConfigError("algorithms", [], "the algorithms that may sign, such as RS256")
    import_extra("joserfc", "jwt")
    if jwks_url is not None:
        if all(name.startswith("HS") for name in algorithms):
            raise ConfigError(
                "algorithms", list(algorithms), "algorithms with public keys: a secret is never published"
            )
        url = check_url("jwks_url", jwks_url, insecure_http=insecure_http)
        return RemoteKeys(url, algorithms, seconds=seconds, pause=pause).keys
    static = read_keys("keys", keys, algorithms)
    return lambda kid: static


def _decryption(keys: object, algorithms: Sequence[str], *, has_keys: bool) -> Callable[[str], str] | None:
    """Return what decrypts a JWE, None where none is taken."""
    accepted = _algorithms("decryption_algorithms", algorithms, _DECRYPTION)
    if keys is None and not accepted:
        return None
    if keys is None or not accepted or not has_keys:
        expected = "decryption_keys, decryption_algorithms and the keys that sign what is inside, all three"
        raise ConfigError("decryption_algorithms", list(accepted), expected)
    private = encryption_keys("decryption_keys", keys)
    return lambda token: decrypt(token, accepted, _CONTENT, private)


def _opaque(tokens: object) -> tuple[dict[str, Identity], Callable[[str], object] | None]:
    """Split the option *tokens* into a table of identities and a callable."""
    if tokens is None:
        return {}, None
    if not isinstance(tokens, Mapping):
        ask = reference("tokens", tokens)
        if not callable(ask):
            raise ConfigError("tokens", ask, "a table from SHA-256 to user, or a callable")
        return {}, ask
    known = {}
    for digest, value in tokens.items():
        match = _SHA256.fullmatch(digest.lower()) if isinstance(digest, str) else None
        if match is None:  # it may be the token itself
            raise ConfigError("tokens", "***", "the SHA-256 of each token, 64 hexadecimal digits, not the token")
        table = value if isinstance(value, Mapping) else {"user": value}
        user, roles = table.get("user"), table.get("roles", ())
        if not isinstance(user, str) or not is_user_name(user) or not set(table) <= {"user", "roles"}:
            raise ConfigError("tokens", value, 'a user, or { user = "ci", roles = ["deploy"] }')
        known[match[1]] = Identity(user, "bearer", {}, frozenset(strings("tokens.roles", roles)))
    return known, None


def _challenge(realm: str) -> str:
    return f"Bearer realm={realm_parameter(realm)}"


# --- requests -----------------------------------------------------------------------------------


def _identity(found: object) -> Identity | None:
    """What a callable returned: a name, an Identity, or nothing."""
    if isinstance(found, str):
        found = Identity(found, "bearer")
    if not isinstance(found, Identity) or not is_user_name(found.user):
        return None
    return found._replace(scheme="bearer")


def _scoped(found: Identity | None, scopes: Sequence[str]) -> Identity | _Refusal:
    """An opaque token has the scopes that its claims name."""
    if found is None:
        return _UNKNOWN
    if not _scopes(found.claims).issuperset(scopes):
        return _Refusal("403 Forbidden", "insufficient_scope", "the token has too few scopes")
    return found


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    return _words(claims.get("scope")) | _words(claims.get("scp"))


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """The claim called *name*; where there is none, the one that the dots lead to."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _words(value: object) -> frozenset[str]:
    """A list of text, or words (RFC 8693 section 4.2); anything else is none."""
    items = value.split() if isinstance(value, str) else value
    return frozenset(item for item in items if isinstance(item, str)) if isinstance(items, list) else frozenset()


def _describe(plain: str, refusal: _Refusal, scopes: Sequence[str]) -> str:
    """The challenge that tells the client what was wrong (RFC 6750 section 3)."""
    text = f'{plain}, error="{refusal.error}", error_description="{refusal.description}"'
    return f"{text}, scope={quote_string(' '.join(scopes))}" if refusal.error == "insufficient_scope" else text


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, refusal: _Refusal, text: str) -> Iterable[bytes]:
    headers = unauthorized_headers(text)
    if refusal.status.startswith("503"):
        headers = [("Retry-After", _RETRY), *headers[1:]]
    return answer(environ, start_response, refusal.status, f"{refusal.description}\n".encode(), headers)
