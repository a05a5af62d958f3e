"""The session inside its cookie: signed or encrypted, dated, cut into several cookies when it is long.

The cookie is ``<payload>.<signature>``: base64url of ``[created, refreshed, permanent, data]`` in
JSON, times in milliseconds. The signature covers the *text* of the payload, so that no second
spelling of it is accepted. Encrypted, it is base64url of nonce and ciphertext (AES-256-GCM; the
key is derived anew from half of a 24-byte nonce, so that random nonces never run out).
"""

from __future__ import annotations

import hmac
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from lamella.stack.kernel.cookies import MAX_LINE, CookieFormat, cookie_finder
from lamella.stack.kernel.errors import import_extra
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.signing import (
    decode_base64url,
    derive_key,
    encode_base64url,
    signer,
)

from ._session_errors import SessionTooLargeError
from ._session_json import read, write
from ._session_mapping import SessionMapping

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["MAX_CHUNKS", "CookieBackend", "Lifetime", "Sealing", "encrypting", "signing"]

#: Most cookies that one session is cut into.
MAX_CHUNKS: Final = 10
# Set-Cookie: "; Max-Age=" and up to 10 digits.
_MAX_AGE_LENGTH = 20
# How a chunked value may begin, before its tilde: the numbers of the cookies that the others are in.
_OTHERS = {str(count): [str(number) for number in range(1, count)] for count in range(2, MAX_CHUNKS + 1)}
_NUMBERS = _OTHERS[str(MAX_CHUNKS)]
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


class Lifetime:
    """How long a session lives.

    Args:
        idle: Seconds without use, None for no such limit.
        absolute: Seconds altogether, None for no such limit.
    """

    __slots__ = ("absolute", "idle", "refresh")

    #: Where neither limit is given: nothing lives forever.
    DEFAULT_IDLE: Final = 14 * 86400.0

    def __init__(self, idle: float | None, absolute: float | None) -> None:
        if idle is None:
            idle = self.DEFAULT_IDLE if absolute is None else absolute
        self.idle = idle
        self.absolute = absolute
        #: Use is noted at most this often: twenty times in an idle period.
        self.refresh = idle / 20

    def end(self, created: float, used: float) -> float:
        """Return when a session ends."""
        end = used + self.idle
        return end if self.absolute is None else min(end, created + self.absolute)


class Sealing(Record):
    """Protects a content, and opens what it protected."""

    #: Content to cookie value.
    seal: Callable[[bytes], str]
    #: Cookie value to content and the number of the key that made it; None for anything else.
    unseal: Callable[[str], tuple[bytes, int] | None]


def signing(secrets: Sequence[bytes], name: str) -> Sealing:
    """Sign with HMAC-SHA256: the content can be read, not changed."""
    sign, verify = signer(secrets, "session", name, "cookie")

    # To look for the two characters costs a third of translating them, and JSON in ASCII has them at > ? ~ only.
    def seal(content: bytes) -> str:
        payload = b2a_base64(content, newline=False).rstrip(b"=")
        text = payload.decode()
        if "+" in text or "/" in text:
            payload = payload.translate(_TO_URL)
            text = payload.decode()
        return f"{text}.{sign(payload).decode()}"

    def unseal(value: str) -> tuple[bytes, int] | None:
        text, dot, signature = value.partition(".")
        if not dot or not value.isascii():
            return None
        payload = text.encode()
        number = verify(payload, signature.encode())
        if number < 0:
            return None
        if "-" in text or "_" in text:
            payload = payload.translate(_FROM_URL)
        try:
            return a2b_base64(payload + b"=="), number
        except Base64Error:  # signed by us, in a format we do not know
            return None

    return Sealing(seal, unseal)


def encrypting(secrets: Sequence[bytes], name: str) -> Sealing:
    """Encrypt with AES-256-GCM: the content can be neither read nor changed. Needs the extra ``crypto``."""
    aead: Any = import_extra("cryptography.hazmat.primitives.ciphers.aead", "crypto")
    refused: Any = import_extra("cryptography.exceptions", "crypto").InvalidTag
    keys = [derive_key(secret, "session", name, "encryption") for secret in secrets]
    cipher = aead.AESGCM

    def message_key(key: bytes, nonce: bytes) -> Any:
        return cipher(hmac.digest(key, nonce[:12], "sha256"))

    def seal(content: bytes) -> str:
        nonce = os.urandom(24)
        return encode_base64url(nonce + message_key(keys[0], nonce).encrypt(nonce[12:], content, None))

    def unseal(value: str) -> tuple[bytes, int] | None:
        octets = decode_base64url(value)
        if octets is None or len(octets) < 40:
            return None
        nonce, sealed = octets[:24], octets[24:]
        for number, key in enumerate(keys):
            try:
                return message_key(key, nonce).decrypt(nonce[12:], sealed, None), number
            except refused:
                continue
        return None

    return Sealing(seal, unseal)


class CookieBackend:
    """Keeps the session in the browser.

    Args:
        cookie: Name and attributes.
        sealing: Signs or encrypts.
        lifetime: Both limits are inside what is sealed.
        max_bytes: Longest value, over all chunks.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, cookie: CookieFormat, sealing: Sealing, lifetime: Lifetime, max_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._cookie = cookie
        self._seal, self._unseal = sealing
        self._lifetime = lifetime
        # In milliseconds, as in the cookie.
        self._idle = lifetime.idle * 1000
        self._absolute = float("inf") if lifetime.absolute is None else lifetime.absolute * 1000
        self._refresh = lifetime.refresh * 1000
        self._max_bytes = max_bytes
        self._clock = clock
        self._find = cookie_finder(cookie.name, verified=True)
        self._names = [cookie.name, *(f"{cookie.name}-{number}" for number in range(1, MAX_CHUNKS))]
        self._second = self._names[1]
        # Room for the value in one line; the names of the chunks are two characters longer.
        self._room = MAX_LINE - len(cookie.name) - 1 - len(cookie.attributes) - _MAX_AGE_LENGTH
        self._uncut = min(self._room, max_bytes)
        self._tail = cookie.attributes
        self._head = cookie.name + "="

    # --- reading --------------------------------------------------------------------------------

    def open(self, session: SessionMapping) -> dict[str, JSON]:
        """Read the first cookie that holds."""
        now = self._clock()
        moment = now * 1000
        chunks: dict[str, str] | None = None
        for value in self._find(session.header) if session.header else ():
            if "~" in value:
                chunks = self._chunks(session.header) if chunks is None else chunks
                value = _joined(value, chunks)
            opened = self._unseal(value)
            if opened is None:
                continue
            content, key_number = opened
            try:
                created, used, permanent, data = read(content)
                age = moment - used
                if age >= self._idle or moment - created >= self._absolute:
                    continue
            except (ValueError, TypeError):  # a format of another version
                continue
            session._created = created / 1000
            session.new = False
            if permanent:
                session._permanent = session.was_permanent = True
            if key_number or age > self._refresh:
                session.stale = session.attention = True
            loaded: dict[str, JSON] = data
            return loaded
        session._created = now
        return {}

    def _chunks(self, header: str) -> dict[str, str]:
        """The values of the cookies that chunks are in, by number, the first of equal names; in one pass."""
        chunks: dict[str, str] = {}
        for before, behind in pairwise(f";{header}".split(f"{self._names[0]}-")):
            number, equals, rest = behind.partition("=")
            number = number.rstrip(" \t")
            # As the grammar has it: between a semicolon and "=", with spaces around.
            if equals and number in _NUMBERS and number not in chunks and before.rstrip(" \t").endswith(";"):
                chunks[number] = rest.partition(";")[0].strip(" \t")
        return chunks

    # --- writing --------------------------------------------------------------------------------

    def commit(self, session: SessionMapping) -> list[str]:
        """Send the session anew, where it changed, was asked to, or would end too soon."""
        permanent = session._permanent
        if not (
            session.changed()
            or session.stale
            or session.rotated
            or session.invalidated
            or permanent is not session.was_permanent
        ):
            return []
        data = session._data
        if not data:
            return self._forget(session.header, 0)
        now = self._clock()
        created = session._created
        content = [int(created * 1000 + 0.5), int(now * 1000), 1 if permanent else 0, data]
        token = self._seal(write(content))
        tail = self._tail
        if permanent:
            tail += f"; Max-Age={max(1, int(self._lifetime.end(created, now) - now))}"
        lines = [self._head + token + tail] if len(token) <= self._uncut else self._cut(token, tail)
        if self._second in session.header:
            lines += self._forget(session.header, len(lines))
        return lines

    def _cut(self, token: str, tail: str) -> list[str]:
        """Cut *token* into chunks, the first of which says how many there are."""
        size = self._room - 3
        chunks = [token[at : at + size] for at in range(0, len(token), size)]
        if len(token) > self._max_bytes or len(chunks) > MAX_CHUNKS:
            raise SessionTooLargeError(
                f"the session takes {len(token)} bytes of cookie, and {self._max_bytes} are allowed (max_bytes); "
                "keep less in it, or choose a server-side store"
            )
        chunks[0] = f"{len(chunks)}~{chunks[0]}"
        return [f"{name}={chunk}{tail}" for name, chunk in zip(self._names, chunks, strict=False)]

    def _forget(self, header: str, keep: int) -> list[str]:
        """Expire the cookies that the request brought, but the first *keep*."""
        names = [self._names[0]] if keep == 0 and self._find(header) else []
        names += [f"{self._names[0]}-{number}" for number in sorted(self._chunks(header)) if int(number) >= keep]
        return [self._cookie.expired(name) for name in names]


def _joined(value: str, chunks: dict[str, str]) -> str:
    """Put the chunks together, of which *value* is the first; empty where one is missing."""
    count, _, first = value.partition("~")
    try:
        return "".join([first, *[chunks[number] for number in _OTHERS[count]]])
    except KeyError:
        return ""
