"""Keys from a JWK set URL: cached, fetched again for a new name, and kept through an outage.

Nothing is fetched when the stack is built: the provider may start later than we do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.redact import redact_url

from ._jwk import InvalidKeyError, Key, read_jwks

__all__ = ["KeysUnavailableError", "RemoteKeys", "check_url", "fetch"]

_LOG = logging.getLogger("lamella.bearer_auth")
# Octets; the sets of large providers are below 10 kB.
_MAX_SET = 262_144
# Seconds for a whole fetch: a request is waiting for it.
_TIMEOUT = 5.0
# Seconds that a request with an unknown name waits for a fetch that is under way: made-up names must hold no threads.
_NEW_KEY_WAIT = 1.0
# Seconds between tries while no key is known at all.
_COLD_PAUSE = 5.0


class KeysUnavailableError(LookupError):
    """No key is known, and the provider does not answer."""


class RemoteKeys:
    """The keys behind a URL.

    Args:
        url: Checked by :func:`check_url`.
        algorithms: Those configured.
        seconds: How long a set is used before it is fetched again.
        pause: Least seconds between two fetches, whatever tokens are sent.
        get: Returns the octets behind a URL.
    """

    def __init__(
        self,
        url: str,
        algorithms: Sequence[str],
        *,
        seconds: float,
        pause: float,
        get: Callable[[str], bytes] | None = None,
    ) -> None:
        self._url = url
        self._algorithms = tuple(algorithms)
        self._seconds = seconds
        self._pause = pause
        self._get = get or fetch
        self._lock = threading.Lock()
        self._keys: tuple[Key, ...] = ()
        self._fetched = float("-inf")
        self._tried = float("-inf")

    def keys(self, kid: str | None) -> Sequence[Key]:
        """Return the keys, fetched anew where they are old or none is called *kid*.

        While one thread fetches old keys anew, the others go on with them.

        Raises:
            KeysUnavailableError: There are none, and none can be had now.
        """
        now = time.monotonic()
        old = now - self._fetched > self._seconds
        missing = kid is not None and all(key.kid != kid for key in self._keys)
        if not self._keys:
            self._refresh_once(now, min(self._pause, _COLD_PAUSE), wait=2 * _TIMEOUT)
        elif missing:
            self._refresh_once(now, self._pause, wait=_NEW_KEY_WAIT)
        elif old:
            self._refresh_once(now, self._pause, wait=0)
        if not self._keys:
            raise KeysUnavailableError(self._url)
        return self._keys

    def _refresh_once(self, asked: float, pause: float, wait: float) -> None:
        """Fetch, unless it was tried a moment ago; where another thread is at it, wait for that instead."""
        if not self._lock.acquire(timeout=wait) if wait else not self._lock.acquire(blocking=False):
            return
        try:
            if self._tried < asked and asked - self._tried >= pause:
                self._refresh()
        finally:
            self._lock.release()

    def _refresh(self) -> None:
        self._tried = time.monotonic()
        try:
            keys, problems = read_jwks(self._get(self._url), self._algorithms)
        except (OSError, ValueError, InvalidKeyError) as error:
            _LOG.warning("%s: keys not fetched, %d kept: %s", self._url, len(self._keys), _reason(error))
            return
        for problem in problems:
            _LOG.warning("%s: %s", self._url, problem)
        if keys:
            self._keys = keys
            self._fetched = time.monotonic()
        else:
            _LOG.warning("%s: no usable key in the set, %d kept", self._url, len(self._keys))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidKeyError) else type(error).__name__


def check_url(option: str, url: str, *, insecure_http: bool) -> str:
    """Return *url*: https, or http to this machine where that is allowed.

    Raises:
        ConfigError: It is anything else, or carries a password.
    """
    expected = 'an address such as "https://login.example/.well-known/jwks.json"'
    if isinstance(url, str) and "@" in url:
        raise ConfigError(option, redact_url(url), expected + ", without user and password")
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(option, url, expected)
    try:
        parts = urlsplit(url)
        host = parse_host(parts.netloc)
    except ValueError:
        raise ConfigError(option, url, expected) from None
    if host is None or parts.scheme not in ("http", "https") or parts.fragment:
        raise ConfigError(option, url, expected)
    if parts.scheme == "http" and not (insecure_http and _is_loopback(host.host)):
        raise ConfigError(option, url, expected + "; http only to this machine, with insecure_http = true")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def fetch(url: str) -> bytes:
    """Return what is behind *url*: at once, not large, and not from elsewhere.

    Raises:
        OSError: It cannot be had: a redirect, another status than 200, over 256 KiB, over 5 seconds.
    """
    import http.client
    import urllib.error
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        """A redirect would let whoever controls the answer choose the keys."""

        def redirect_request(self, *arguments: object) -> None:
            return None

    deadline = time.monotonic() + _TIMEOUT
    headers = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "lamella"}
    request = Request(url, headers=headers)  # noqa: S310 - the scheme was checked at build
    blocks: list[bytes] = []
    try:
        with build_opener(Stay()).open(request, timeout=_TIMEOUT) as response:
            if response.status != 200:
                raise OSError(f"status {response.status}")
            while block := response.read1(65_536):
                blocks.append(block)
                if sum(map(len, blocks)) > _MAX_SET or time.monotonic() > deadline:
                    raise OSError("too large or too slow")
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"status {error.code}") from None
    except http.client.HTTPException as error:
        raise OSError(type(error).__name__) from None
    return b"".join(blocks)
