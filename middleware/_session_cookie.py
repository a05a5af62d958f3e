"""The session inside its cookie: signed or encrypted, dated, cut into several cookies when it is long.

The cookie is ``<payload>.<signature>``: base64url of ``[created, refreshed, permanent, data]`` in
JSON, times in milliseconds. The signature covers the *text* of the payload, so that no second
spelling of it is accepted. Encrypted, it is base64url of nonce and ciphertext (AES-256-GCM; the
key is derived anew from half of a 24-byte nonce, so that random nonces never run out).
"""

from __future__ import annotations

import hmac
import os
import re
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lamella.stack.kernel.cookies import MAX_LINE, CookieFormat, cookie_finder
from lamella.stack.kernel.errors import import_extra
from lamella.stack.kernel.signing import (
    decode_base64url,
    derive_key,
    encode_base64url,
    signer,
)

from ._session_errors import SessionTooLargeError
from ._session_json import encode, scan
from ._session_mapping import SessionMapping

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["MAX_CHUNKS", "CookieBackend", "Lifetime", "Sealing", "encrypting", "signing"]

#: Most cookies that one session is cut into.
MAX_CHUNKS: Final = 10
# Set-Cookie: "; Max-Age=" and up to 10 digits.
_MAX_AGE_LENGTH = 20
_CHUNKED = re.compile(r"(10|[2-9])~([A-Za-z0-9._-]+)")
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


class Sealing(NamedTuple):
    """Protects a text, and opens what it protected."""

    #: Text to cookie value.
    seal: Callable[[str], str]
    #: Cookie value to text and the number of the key that made it; None for anything else.
    unseal: Callable[[str], tuple[str, int] | None]


def signing(secrets: Sequence[bytes], name: str) -> Sealing:
    """Sign with HMAC-SHA256: the content can be read, not changed."""
    sign, verify = signer(secrets, "session", name, "cookie")

    def seal(text: str) -> str:
        payload = b2a_base64(text.encode(), newline=False).translate(_TO_URL).rstrip(b"=")
        return (payload + b"." + sign(payload)).decode()

    def unseal(value: str) -> tuple[str, int] | None:
        if not value.isascii():
            return None
        payload, dot, signature = value.encode().rpartition(b".")
        if not dot or (number := verify(payload, signature)) < 0:
            return None
        try:
            return a2b_base64(payload.translate(_FROM_URL) + b"==").decode(), number
        except (Base64Error, UnicodeDecodeError):  # signed by us, in a format we do not know
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

    def seal(text: str) -> str:
        nonce = os.urandom(24)
        return encode_base64url(nonce + message_key(keys[0], nonce).encrypt(nonce[12:], text.encode(), None))

    def unseal(value: str) -> tuple[str, int] | None:
        octets = decode_base64url(value)
        if octets is None or len(octets) < 40:
            return None
        nonce, sealed = octets[:24], octets[24:]
        for number, key in enumerate(keys):
            try:
                return message_key(key, nonce).decrypt(nonce[12:], sealed, None).decode(), number
            except refused:
                continue
            except UnicodeDecodeError:
                return None
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
        self._find_chunk = [cookie_finder(name) for name in self._names]
        # Room for the value in one line; the names of the chunks are two characters longer.
        self._room = MAX_LINE - len(cookie.name) - 1 - len(cookie.attributes) - _MAX_AGE_LENGTH
        self._tail = cookie.attributes
        self._head = cookie.name + "="

    # --- reading --------------------------------------------------------------------------------

    def open(self, session: SessionMapping) -> dict[str, JSON]:
        """Read the first cookie that holds."""
        now = self._clock()
        header = session.header
        for value in self._find(header) if header else ():
            opened = self._unseal(value if "~" not in value else self._join(header, value))
            if opened is None:
                continue
            text, key_number = opened
            try:
                content, end = scan(text, 0)
                created, used, permanent, data = content
                age = now * 1000 - used
                if age >= self._idle or now * 1000 - created >= self._absolute or end != len(text):
                    continue
            except (ValueError, TypeError, StopIteration):  # a format of another version
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

    def _join(self, header: str, value: str) -> str:
        """Put the chunks together; empty where one is missing."""
        match = _CHUNKED.fullmatch(value)
        if match is None:
            return ""
        chunks = [match[2]]
        for number in range(1, int(match[1])):
            found = self._find_chunk[number](header)
            if not found:
                return ""
            chunks.append(found[0])
        return "".join(chunks)

    # --- writing --------------------------------------------------------------------------------

    def commit(self, session: SessionMapping) -> list[str]:
        """Send the session anew, where it changed, was asked to, or would end too soon."""
        changed = session.changed()
        if not (
            changed
            or session.stale
            or session.rotated
            or session.invalidated
            or session._permanent is not session.was_permanent
        ):
            return []
        if not session.data:
            return self._forget(session.header, 0)
        now = self._clock()
        created = session._created
        permanent = "1" if session._permanent else "0"
        token = self._seal(f"[{int(created * 1000 + 0.5)},{int(now * 1000)},{permanent},{encode(session.data)}]")
        tail = self._tail
        if session._permanent:
            tail += f"; Max-Age={max(1, int(self._lifetime.end(created, now) - now))}"
        if len(token) <= self._room and len(token) <= self._max_bytes:
            lines = [self._head + token + tail]
        else:
            lines = self._cut(token, tail)
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
        return [
            self._cookie.expired(name)
            for name, find in zip(self._names[keep:], self._find_chunk[keep:], strict=True)
            if name in header and find(header)
        ]
