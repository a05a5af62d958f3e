"""JSON Web Tokens, read strictly: what two readers could read differently is no token.

Cryptography is joserfc's; the grammar is here. Stricter than the RFCs, on purpose: see ``docs/layers/bearer_auth.md``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lamella.stack.kernel.errors import import_extra
from lamella.stack.kernel.signing import decode_base64url

from ._jwk import Key, candidates

__all__ = ["Claims", "TokenError", "UnknownKeyError", "check_claims", "decrypt", "is_compact", "verify_jws"]

#: Characters. Servers take about 8 KiB of one header line; a token never needs more than twice that.
MAX_TOKEN = 16_384
_MAX_DEPTH = 16
# Seconds: the end of year 9999, the last that Python's and most databases' dates can hold.
_LAST_TIME = 253_402_300_799
_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+")
_JWE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# A string, closed or not (so that no position is read twice), or a bracket.
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
# Types of token that are none for access, though signed by the same issuer (RFC 8725 section 3.11).
_TYPES = frozenset({"jwt", "at+jwt"})


class TokenError(ValueError):
    """The token proves nothing. The message is safe to show: it holds nothing of the token."""


class UnknownKeyError(TokenError):
    """No known key is called what the token says; it may be a new one."""


class Claims(NamedTuple):
    """What a token must say.

    Each is checked as RFC 7519 section 4.1 has it, with *leeway* seconds for clocks that differ.
    """

    issuers: frozenset[str]
    audiences: frozenset[str]
    leeway: float
    required: tuple[str, ...]
    token_type: str | None


def is_compact(token: str) -> bool:
    """Tell whether *token* has the shape of a JWS or a JWE."""
    return token.count(".") in (2, 4)


def verify_jws(
    token: str, algorithms: Sequence[str], keys: Callable[[str | None], Sequence[Key]]
) -> tuple[dict[str, Any], bytes]:
    """Return header and payload of a JWS in compact form, once its signature is right.

    Args:
        token: As sent.
        algorithms: Those configured.
        keys: Returns the known keys, for an identifier that may be new.

    Raises:
        TokenError: It is malformed, says something that must be understood and is not, or is not signed by any key.
    """
    if len(token) > MAX_TOKEN or _JWS.fullmatch(token) is None:
        raise TokenError("the token is malformed")
    message, _, last = token.rpartition(".")
    first, _, middle = message.partition(".")
    header = _json(_octets(first))
    payload, signature = _octets(middle), _octets(last)
    algorithm, kid = _header(header, algorithms)
    found = candidates(keys(kid), kid, algorithm)
    if not found:
        raise UnknownKeyError("the token is signed with an unknown key")
    jws: Any = import_extra("joserfc.jws", "jwt")
    model = jws.JWSRegistry.algorithms[algorithm]
    for key in found:
        try:
            if model.verify(message.encode(), signature, key.native):
                return header, payload
        except Exception:  # noqa: BLE001, S112 - whatever the libraries choke on is no signature
            continue
    raise TokenError("the signature is wrong")


def _header(header: dict[str, Any], algorithms: Sequence[str]) -> tuple[str, str | None]:
    """Check the JOSE header; jku, jwk, x5u and x5c are never looked at (RFC 8725 section 3.10)."""
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenError("the token's algorithm is not accepted")
    # RFC 7515 section 4.1.11: extensions that are not understood must be refused. We understand none; b64 (RFC 7797)
    # and zip would change what the payload is.
    if "crit" in header or "b64" in header or "zip" in header:
        raise TokenError("the token needs an extension that is not accepted")
    if "kid" in header and not isinstance(kid, str):  # RFC 7515 section 4.1.4: null is none either
        raise TokenError("the token is malformed")
    return algorithm, kid


def check_claims(header: dict[str, Any], payload: bytes, wanted: Claims, now: float) -> dict[str, Any]:
    """Return the claims of a verified token.

    Raises:
        TokenError: One is missing, malformed, or not as *wanted*.
    """
    _check_type(header, wanted.token_type)
    claims = _json(payload)
    for name in wanted.required:
        if claims.get(name) in (None, "", []):
            raise TokenError(f"the token lacks the claim {name}")
    times = {name: _time(claims, name) for name in ("exp", "nbf", "iat")}
    # RFC 7519 section 4.1.4: "on or after which the JWT MUST NOT be accepted".
    if times["exp"] is not None and now >= times["exp"] + wanted.leeway:
        raise TokenError("the token has expired")
    if times["nbf"] is not None and now < times["nbf"] - wanted.leeway:
        raise TokenError("the token is not valid yet")
    if times["iat"] is not None and now < times["iat"] - wanted.leeway:
        raise TokenError("the token was issued in the future")
    issuer = claims.get("iss")
    if wanted.issuers and not (isinstance(issuer, str) and issuer in wanted.issuers):
        raise TokenError("the token is of another issuer")
    _check_audience(claims.get("aud"), wanted.audiences)
    return claims


def _check_type(header: dict[str, Any], token_type: str | None) -> None:
    kind = header.get("typ")
    if "typ" in header and not isinstance(kind, str):
        raise TokenError("the token is malformed")
    short = None if kind is None else kind.lower().removeprefix("application/")
    if token_type is not None and short != token_type:
        raise TokenError("the token is of another type")
    if token_type is None and short is not None and short not in _TYPES:
        raise TokenError("the token is of another type")
    if header.get("cty") is not None:
        raise TokenError("the token holds another one")


def _check_audience(audience: object, accepted: frozenset[str]) -> None:
    """RFC 7519 section 4.1.3: one who is not named in a present ``aud`` must refuse the token."""
    if audience is None:
        if accepted:
            raise TokenError("the token is for another audience")
        return
    names = [audience] if isinstance(audience, str) else audience
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TokenError("the token is malformed")
    if accepted.isdisjoint(names):
        raise TokenError("the token is for another audience")


def _time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2): a number, neither text nor truth value, in the years 1970 to 9999."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_TIME:
        raise TokenError(f"the claim {name} is no time")
    return float(value)


def decrypt(token: str, algorithms: Sequence[str], encryptions: Sequence[str], keys: Sequence[Any]) -> str:
    """Return the signed token inside a JWE in compact form (RFC 7516, RFC 7519 section 5.2).

    Raises:
        TokenError: It is malformed, made with something not configured, or for none of the keys.
    """
    if len(token) > MAX_TOKEN or _JWE.fullmatch(token) is None:
        raise TokenError("the token is malformed")
    header = _json(_octets(token.partition(".")[0]))
    if header.get("alg") not in algorithms or header.get("enc") not in encryptions:
        raise TokenError("the token's encryption is not accepted")
    if "crit" in header or "zip" in header:
        raise TokenError("the token needs an extension that is not accepted")
    jwe: Any = import_extra("joserfc.jwe", "jwt")
    for key in keys:
        try:
            inner = jwe.decrypt_compact(token, key, algorithms=[header["alg"], header["enc"]]).plaintext
            return str(inner.decode("ascii"))
        except Exception:  # noqa: BLE001, S112 - all that cannot be decrypted is alike, also to the clock of an attacker
            continue
    raise TokenError("the token cannot be decrypted")


# --- strict JSON --------------------------------------------------------------------------------


def _octets(text: str) -> bytes:
    octets = decode_base64url(text)
    if octets is None:
        raise TokenError("the token is malformed")
    return octets


def _json(octets: bytes) -> dict[str, Any]:
    """Read an object: UTF-8 without a mark, no name twice (RFC 7515 section 4), finite numbers, little depth."""
    try:
        text = octets.decode("utf-8")
        # Nothing is deeper than it has brackets: hardly a token is looked at more closely.
        if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
            raise TokenError("the token is malformed")
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise TokenError("the token is malformed") from None
    if not isinstance(value, dict):
        raise TokenError("the token is malformed")
    return value


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _NESTING.finditer(text):
        symbol = match[0]
        if symbol in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif symbol in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("too many digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
