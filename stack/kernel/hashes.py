"""Hashes of passwords: which can be used, whether one fits, and new ones.

Kinds of hash: bcrypt (``$2y$``), argon2id, SHA-crypt (``$5$``, ``$6$``), as ``htpasswd``, ``argon2``
and ``openssl passwd`` write them. Weak ones (``$apr1$``, ``{SHA}``) are taken only where
the caller says so; DES crypt and plain text never.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from .auth import has_controls, normalized
from .errors import import_extra
from .late import late_pattern

__all__ = ["check_hash", "hash_password", "verify_password"]

# Octets. Longer ones are wrong passwords: SHA-crypt's work grows with the length, and no person types more.
_MAX_PASSWORD = 1024
# bcrypt reads 72 octets and ignores the rest; the library refuses more, Apache cuts.
_BCRYPT_OCTETS = 72
# Bounds on the work one request can cause: about a second each on one core.
_MAX_BCRYPT_COST = 16
_MAX_SHA_ROUNDS = 1_000_000
_MAX_ARGON2_KIB = 2**20

_BCRYPT = late_pattern(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2 = late_pattern(
    r"\$argon2id\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,4}),p=([0-9]{1,3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)
_SHA_CRYPT = late_pattern(r"\$([56])\$(?:rounds=([0-9]{1,9})\$)?([^$:\n]{0,16})\$([./A-Za-z0-9]{43}|[./A-Za-z0-9]{86})")
_APR1 = late_pattern(r"\$apr1\$([^$:\n]{1,8})\$([./A-Za-z0-9]{22})")
_SHA1 = late_pattern(r"\{SHA\}([A-Za-z0-9+/]{27}=)")


def check_hash(text: str, *, allow_weak: bool = False) -> str | None:
    """Return why *text* cannot be used as a password hash, or None where it can.

    Raises:
        MissingExtraError: The hash needs a package that is not installed.
    """
    if match := _BCRYPT.fullmatch(text):
        import_extra("bcrypt", "argon2")
        return None if 4 <= int(match[1]) <= _MAX_BCRYPT_COST else f"bcrypt's cost must be 4 to {_MAX_BCRYPT_COST}"
    if match := _ARGON2.fullmatch(text):
        import_extra("argon2", "argon2")
        within = 8 <= int(match[1]) <= _MAX_ARGON2_KIB and 1 <= int(match[2]) <= 64 and 1 <= int(match[3]) <= 64
        return None if within else "argon2id's memory must be at most 1 GiB, its passes and lanes at most 64"
    if match := _SHA_CRYPT.fullmatch(text):
        rounds = 5000 if match[2] is None else int(match[2])
        if len(match[4]) != (43 if match[1] == "5" else 86):
            return "the SHA-crypt hash is cut off"
        return None if 1000 <= rounds <= _MAX_SHA_ROUNDS else f"SHA-crypt needs 1000 to {_MAX_SHA_ROUNDS} rounds"
    if _APR1.fullmatch(text) or _SHA1.fullmatch(text):
        kind = "apr1 (MD5)" if text.startswith("$") else "unsalted SHA-1"
        return None if allow_weak else f"{kind} is weak; hash it again with `lamella passwd`, or set allow_weak = true"
    return "it is no bcrypt, argon2id or SHA-crypt hash; write it with `lamella passwd`"


def verify_password(text: str, password: str) -> bool:
    """Tell whether *password* is the one behind the hash *text*; constant time in the password."""
    octets = _octets(password)
    if octets is None:
        return False
    try:
        if text.startswith("$2"):
            bcrypt: Any = import_extra("bcrypt", "argon2")
            return bool(bcrypt.checkpw(octets[:_BCRYPT_OCTETS], text.encode()))
        if text.startswith("$argon2id$"):
            low_level: Any = import_extra("argon2.low_level", "argon2")
            return bool(low_level.verify_secret(text.encode(), octets, low_level.Type.ID))
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - each library has its own ways to say no: mismatch, NUL octet, bad salt
        return False
    from ._crypt import apr1, sha_crypt  # for files written without bcrypt and argon2

    if match := _SHA_CRYPT.fullmatch(text):
        rounds = 5000 if match[2] is None else int(match[2])
        digest = sha_crypt(octets, match[3].encode(), rounds, match[1])
        return hmac.compare_digest(digest, match[4])
    if match := _APR1.fullmatch(text):
        return hmac.compare_digest(apr1(octets, match[1].encode()), match[2])
    if match := _SHA1.fullmatch(text):
        digest = base64.b64encode(hashlib.sha1(octets, usedforsecurity=False).digest()).decode()
        return hmac.compare_digest(digest, match[1])
    return False


def hash_password(password: str, scheme: str = "argon2id") -> str:
    """Return a new hash of *password*.

    Args:
        password: Up to 1024 octets of UTF-8; 72 for bcrypt.
        scheme: ``argon2id``, ``bcrypt`` (the one that Apache and nginx read too), or ``sha512``, which needs no extra.

    Raises:
        ValueError: The password is empty or too long, has a control character, or *scheme* is unknown.
        MissingExtraError: The package for *scheme* is not installed.
    """
    octets = _octets(password)
    if not octets or has_controls(password):
        raise ValueError(f"a password has 1 to {_MAX_PASSWORD} octets and no control characters")
    if scheme == "argon2id":
        argon2: Any = import_extra("argon2", "argon2")
        return str(argon2.PasswordHasher().hash(octets))
    if scheme == "bcrypt":
        if len(octets) > _BCRYPT_OCTETS:
            raise ValueError(f"bcrypt reads {_BCRYPT_OCTETS} octets of a password, this one has {len(octets)}")
        bcrypt: Any = import_extra("bcrypt", "argon2")
        hashed: str = bcrypt.hashpw(octets, bcrypt.gensalt(rounds=12)).decode()
        return "$2y$" + hashed[4:]  # the prefix that Apache writes; the algorithm is that of $2b$
    if scheme == "sha512":
        import secrets

        from ._crypt import ALPHABET, sha_crypt

        salt = "".join(secrets.choice(ALPHABET) for _ in range(16))
        rounds = 100_000
        return f"$6$rounds={rounds}${salt}${sha_crypt(octets, salt.encode(), rounds, '6')}"
    raise ValueError(f"no such kind of hash: {scheme!r}; take argon2id, bcrypt or sha512")


def _octets(password: str) -> bytes | None:
    """The password as NFC and UTF-8 (RFC 7617 section 2.1, RFC 8265 section 4.2.2), None where it is too long."""
    try:
        octets = normalized(password).encode()
    except UnicodeEncodeError:
        return None
    return octets if len(octets) <= _MAX_PASSWORD else None
