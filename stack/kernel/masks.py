"""Tokens that hide a secret differently each time they are shown, so that compression tells nothing of it (BREACH)."""

from __future__ import annotations

import secrets

from .signing import decode_base64url, encode_base64url

__all__ = ["mask", "unmask"]


def mask(secret: bytes) -> str:
    """Return *secret* under a new mask, as base64url text of twice its length."""
    key = secrets.token_bytes(len(secret))
    return encode_base64url(key + _xor(key, secret))


def unmask(token: str, size: int) -> bytes | None:
    """Return the secret in *token*, or None where it is no token of a secret of *size* octets."""
    octets = decode_base64url(token)
    if octets is None or len(octets) != 2 * size:
        return None
    return _xor(octets[:size], octets[size:])


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))
