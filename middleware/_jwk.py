"""Keys for tokens: read, checked, and bound to the algorithms they may be used with.

The algorithm comes from the key and the configuration, never from the token: a token's ``alg`` can only
choose among what its key allows (RFC 8725 section 3.1).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lamella.stack.kernel.errors import ConfigError, import_extra
from lamella.stack.kernel.options import Secret
from lamella.stack.kernel.signing import decode_base64url, encode_base64url

__all__ = ["ALGORITHMS", "InvalidKeyError", "Key", "candidates", "encryption_keys", "read_jwks", "read_keys"]

#: Signature algorithms that can be configured. ``none`` is not one.
ALGORITHMS = (
    *("HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448"),
)
# RFC 7518 section 3.2: "A key of the same size as the hash output or larger MUST be used".
_HMAC_OCTETS = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("EC", "secp256k1"): frozenset({"ES256K"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
    ("OKP", "Ed448"): frozenset({"EdDSA", "Ed448"}),
}
# RFC 7518 section 3.3: 2048 bits or larger; the upper bound keeps a hostile key set from costing seconds.
_RSA_BITS = range(2048, 8193)
_MAX_KEYS = 64
# Primes of the ROCA fingerprint (CVE-2017-15361): a modulus of the flawed library is a power of 65537 for each.
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_ROCA = {p: frozenset(pow(65537, i, p) for i in range(p)) for p in _ROCA_PRIMES}


class InvalidKeyError(ValueError):
    """A key cannot be used; the message never shows it."""


class Key(NamedTuple):
    """One key, fit for use."""

    #: Its identifier, None where it has none.
    kid: str | None
    #: The configured algorithms that it may be used with; never empty.
    algorithms: frozenset[str]
    #: ``oct``, ``RSA``, ``EC``, ``OKP``.
    kty: str
    #: The library's key.
    native: Any

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r}, algorithms={sorted(self.algorithms)!r})"


def candidates(keys: Sequence[Key], kid: str | None, algorithm: str) -> list[Key]:
    """Return the keys that a token with this header may be signed with.

    A named key must be the one of that name; only where no key is called so, those without a name are tried.
    """
    named = [key for key in keys if kid is not None and key.kid == kid]
    pool = named or [key for key in keys if kid is None or key.kid is None]
    return [key for key in pool if algorithm in key.algorithms]


def read_keys(option: str, value: object, algorithms: Sequence[str]) -> tuple[Key, ...]:
    """Read the keys of a stack file.

    Args:
        option: Name of the option.
        value: A key or a list of keys: PEM, JWK, JWK set, or the secret of an HMAC; as text, bytes,
            :class:`~lamella.stack.kernel.options.Secret`, table; or a table from identifier to key.
        algorithms: Those configured.

    Raises:
        ConfigError: A key is malformed, too short, fits no configured algorithm, shares its identifier with another,
            or secrets and public keys are mixed.
    """
    keys: list[Key] = []
    try:
        for jwk in _tables(value):
            keys.append(make_key(jwk, algorithms))
        _check_set(keys)
    except InvalidKeyError as error:
        raise ConfigError(option, Secret(b""), str(error)) from None
    if not keys:
        raise ConfigError(option, [], "at least one key")
    return tuple(keys)


def encryption_keys(option: str, value: object) -> tuple[Any, ...]:
    """Return the private keys and secrets that decrypt, as the library has them.

    Raises:
        ConfigError: One is malformed, public, or there is none.
    """
    joserfc_jwk: Any = import_extra("joserfc.jwk", "jwt")
    found = []
    try:
        for jwk in _tables(value, private=True):
            if jwk.get("kty") != "oct" and "d" not in jwk:
                raise InvalidKeyError("private keys: a public one decrypts nothing")
            if jwk.get("use") not in (None, "enc"):
                raise InvalidKeyError("keys for encryption (`use` is another)")
            found.append(joserfc_jwk.import_key(dict(jwk)))
    except InvalidKeyError as error:
        raise ConfigError(option, Secret(b""), str(error)) from None
    except Exception:  # noqa: BLE001 - joserfc, cryptography and binascii each raise their own
        raise ConfigError(option, Secret(b""), "well-formed private keys") from None
    if not found:
        raise ConfigError(option, [], "at least one key")
    return tuple(found)


def read_jwks(text: bytes, algorithms: Sequence[str]) -> tuple[tuple[Key, ...], list[str]]:
    """Read a key set that came over the network.

    Returns:
        The usable keys, and why others are not: one bad key does not void the set. Symmetric
        and private keys have no business there and are left out, as are keys that share an identifier.

    Raises:
        InvalidKeyError: It is no key set at all.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidKeyError("the key set is no JSON") from None
    tables = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(tables, list):
        raise InvalidKeyError("the key set has no list of keys")
    keys, problems = [], []
    for number, table in enumerate(tables[:_MAX_KEYS]):
        try:
            if not isinstance(table, dict):
                raise InvalidKeyError("is no object")
            if table.get("kty") == "oct" or "d" in table:
                raise InvalidKeyError("is a secret, published")
            keys.append(make_key(table, algorithms))
        except InvalidKeyError as error:
            problems.append(f"key {number}: {error}")
    counts = Counter(key.kid for key in keys if key.kid is not None)
    doubled = {kid for kid, count in counts.items() if count > 1}
    if doubled:
        problems.append("keys that share an identifier are not used")
    return tuple(key for key in keys if key.kid not in doubled), problems


def make_key(jwk: Mapping[str, Any], algorithms: Iterable[str]) -> Key:
    """Check one JWK (RFC 7517) and bind it to its algorithms.

    Raises:
        InvalidKeyError: See :func:`read_keys`.
    """
    kty, kid, use, operations = jwk.get("kty"), jwk.get("kid"), jwk.get("use"), jwk.get("key_ops")
    if kid is not None and not isinstance(kid, str):
        raise InvalidKeyError("a key whose `kid` is text")
    if use not in (None, "sig"):
        raise InvalidKeyError("a key for signatures (its `use` is another)")
    if operations is not None and (
        not isinstance(operations, list) or not {"verify", "sign"} & {*map(str, operations)}
    ):
        raise InvalidKeyError("a key for signatures (its `key_ops` are others)")
    if kty == "oct":
        fits, public = _symmetric(jwk)
    elif kty == "RSA":
        fits, public = _rsa(jwk)
    elif (kty, jwk.get("crv")) in _CURVES:
        members = ("kty", "crv", "x", "y") if kty == "EC" else ("kty", "crv", "x")
        fits, public = _CURVES[str(kty), jwk["crv"]], {name: jwk.get(name) for name in members}
    else:
        raise InvalidKeyError("a key of type oct, RSA, EC or OKP, on a known curve")
    declared = jwk.get("alg")
    bound = frozenset(algorithms) & fits
    if declared is not None:
        bound &= {declared} if isinstance(declared, str) else frozenset()
    if not bound:
        wanted = ", ".join(algorithms) or "none"
        raise InvalidKeyError(f"a key that fits the algorithms {wanted} and is long enough for them")
    joserfc_jwk: Any = import_extra("joserfc.jwk", "jwt")
    try:
        native = joserfc_jwk.import_key(public)
        native.get_op_key("verify")  # now, so that a point off its curve fails here
    except Exception:  # noqa: BLE001 - joserfc, cryptography and binascii each raise their own
        raise InvalidKeyError("a well-formed key") from None
    return Key(kid, bound, str(kty), native)


def _symmetric(jwk: Mapping[str, Any]) -> tuple[frozenset[str], dict[str, Any]]:
    octets = _number(jwk, "k")
    fits = frozenset(name for name, least in _HMAC_OCTETS.items() if len(octets) >= least)
    return fits, {"kty": "oct", "k": jwk["k"]}


def _rsa(jwk: Mapping[str, Any]) -> tuple[frozenset[str], dict[str, Any]]:
    modulus = int.from_bytes(_number(jwk, "n"), "big")
    exponent = int.from_bytes(_number(jwk, "e"), "big")
    if modulus.bit_length() not in _RSA_BITS:
        raise InvalidKeyError("an RSA key of 2048 to 8192 bits")
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise InvalidKeyError("an RSA key with an odd public exponent from 3")
    if all(modulus % prime in powers for prime, powers in _ROCA.items()):
        raise InvalidKeyError("an RSA key that was not made by the library with the ROCA flaw (CVE-2017-15361)")
    return _RSA, {"kty": "RSA", "n": jwk["n"], "e": jwk["e"]}


def _number(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    octets = decode_base64url(text) if isinstance(text, str) else None
    if octets is None:
        raise InvalidKeyError(f"a key whose `{name}` is base64url")
    return octets


def _check_set(keys: Sequence[Key]) -> None:
    """RFC 8725 section 3.1: what verifies with a secret never shares a set with what verifies with public keys."""
    if len({key.kty == "oct" for key in keys}) > 1:
        raise InvalidKeyError("either secrets or public keys, not both: use two layers")
    named = [key.kid for key in keys if key.kid is not None]
    if len(named) != len(set(named)):
        raise InvalidKeyError("keys that do not share an identifier (`kid`)")


# --- the ways to write a key --------------------------------------------------------------------


def _tables(value: object, *, private: bool = False) -> Iterable[Mapping[str, Any]]:
    """Each key as a JWK."""
    if isinstance(value, Mapping):
        if "kty" in value:
            yield value
        elif isinstance(value.get("keys"), (list, tuple)):
            yield from _each(value["keys"])
        else:
            for kid, inner in value.items():
                for jwk in _tables(inner, private=private):
                    yield {**jwk, "kid": kid}
    elif isinstance(value, (str, bytes, Secret)):
        try:
            secret = value if isinstance(value, Secret) else Secret(value)
        except UnicodeEncodeError:  # the error would quote the key
            raise InvalidKeyError("text that has a form in UTF-8") from None
        yield from _from_text(secret, private=private)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tables(item, private=private)
    elif hasattr(value, "as_dict"):  # a key of joserfc
        yield value.as_dict(private=private or getattr(value, "key_type", "") == "oct")
    else:
        raise InvalidKeyError("PEM, a JWK, or the secret of an HMAC")


def _each(items: Iterable[object]) -> Iterable[Mapping[str, Any]]:
    for item in items:
        if not isinstance(item, Mapping):
            raise InvalidKeyError("a JWK set whose keys are objects")
        yield item


def _from_text(secret: Secret, *, private: bool) -> Iterable[Mapping[str, Any]]:
    octets = secret.reveal()
    text = octets.strip()
    if text.startswith(b"-----BEGIN "):
        yield _from_pem(text, private=private)
    elif text.startswith((b"{", b"[")):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidKeyError("a JWK or a JWK set in JSON") from None
        yield from _tables(document, private=private)
    elif b"-----BEGIN" in octets or octets.startswith((b"\x30\x82", b"\x30\x59", b"ssh-", b"\xef\xbb\xbf", b"MII")):
        # A public key as the secret of an HMAC is known to everybody (CVE-2017-11424, CVE-2022-29217).
        raise InvalidKeyError("a secret that is no key file: a public key must be PEM, from its first line")
    else:
        yield {"kty": "oct", "k": encode_base64url(octets)}


def _from_pem(text: bytes, *, private: bool) -> Mapping[str, Any]:
    joserfc_jwk: Any = import_extra("joserfc.jwk", "jwt")
    for kind in ("RSAKey", "ECKey", "OKPKey"):
        try:
            return dict(getattr(joserfc_jwk, kind).import_key(text).as_dict(private=private))
        except Exception:  # noqa: BLE001, S112 - wrong kind of key: each library has its own words for it
            continue
    raise InvalidKeyError("a PEM key of RSA, EC or Ed25519/Ed448, without a password")
