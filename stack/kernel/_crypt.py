"""SHA-crypt and Apache's MD5-crypt, for Pythons without the module crypt."""

from __future__ import annotations

import hashlib

__all__ = ["ALPHABET", "apr1", "sha_crypt"]

#: The digits of crypt's base 64.
ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def sha_crypt(password: bytes, salt: bytes, rounds: int, kind: str) -> str:
    """SHA-crypt as Ulrich Drepper specified it ("Unix crypt using SHA-256 and SHA-512", version 0.6)."""
    new = hashlib.sha256 if kind == "5" else hashlib.sha512
    size = 32 if kind == "5" else 64
    length = len(password)
    b = new(password + salt + password).digest()
    a = new(password + salt + (b * (length // size + 1))[:length])
    bits = length
    while bits:
        a.update(b if bits & 1 else password)
        bits >>= 1
    digest = a.digest()
    p = (new(password * length).digest() * (length // size + 1))[:length]
    s = (new(salt * (16 + digest[0])).digest() * (len(salt) // size + 1))[: len(salt)]
    for i in range(rounds):
        data = p if i & 1 else digest
        if i % 3:
            data += s
        if i % 7:
            data += p
        digest = new(data + (digest if i & 1 else p)).digest()
    if kind == "5":
        order = [(0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14)]
        order += [(15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29)]
        return "".join(_encode24(digest[x], digest[y], digest[z], 4) for x, y, z in order) + _encode24(
            0, digest[31], digest[30], 3
        )
    triple, text = (0, 21, 42), ""
    for _ in range(21):
        x, y, z = triple
        text += _encode24(digest[x], digest[y], digest[z], 4)
        triple = (y + 1, z + 1, x + 1)
    return text + _encode24(0, 0, digest[63], 2)


def apr1(password: bytes, salt: bytes) -> str:
    """Apache's variant of MD5-crypt: 1000 rounds, with its own magic word."""

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    length = len(password)
    mixed = md5(password + salt + password)
    data = password + b"$apr1$" + salt + (mixed * (length // 16 + 1))[:length]
    bits = length
    while bits:
        data += b"\0" if bits & 1 else password[:1]
        bits >>= 1
    digest = md5(data)
    for i in range(1000):
        data = password if i & 1 else digest
        if i % 3:
            data += salt
        if i % 7:
            data += password
        digest = md5(data + (digest if i & 1 else password))
    order = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)]
    text = "".join(_encode24(digest[x], digest[y], digest[z], 4) for x, y, z in order)
    return text + _encode24(0, 0, digest[11], 2)


def _encode24(high: int, middle: int, low: int, characters: int) -> str:
    """Three octets in crypt's own base 64, lowest bits first."""
    value, text = high << 16 | middle << 8 | low, ""
    for _ in range(characters):
        text += ALPHABET[value & 63]
        value >>= 6
    return text
