"""Counting failed logins by user, by address and by both, in bounded memory.

Counters are of one process: with four workers a guesser has up to four times the attempts.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

__all__ = ["Throttle"]

# One address may try several users (an office behind one), one user may be tried from several addresses.
_PER_ADDRESS, _PER_USER = 4, 10


class Throttle:
    """Allow *attempts* failures of one user from one address in *seconds*; four times that of one address, ten
    times that of one user.

    Args:
        attempts: See above.
        seconds: Length of the window, which begins with the first failure.
        entries: Most counters kept; the oldest are forgotten first.
    """

    def __init__(self, attempts: int, seconds: float, entries: int = 30_000) -> None:
        self._attempts = attempts
        self._seconds = seconds
        self._entries = entries
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        #: Digest of what is counted to (failures, end of the window). No name and no address is kept.
        self._counters: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def begin(self, user: str, address: str) -> float:
        """Count an attempt before it is made, so that parallel ones count too.

        Returns:
            0 where it may be made, else the seconds to wait.
        """
        now = time.monotonic()
        with self._lock:
            limits = self._limits(user, address)
            waits = [self._counters[key][1] - now for key, most in limits if self._count(key, now) >= most]
            if waits:
                return max(1.0, *waits)
            for key, _ in limits:
                count, end = self._counters.get(key, (0, now + self._seconds))
                fresh = end <= now
                self._counters[key] = (1, now + self._seconds) if fresh else (count + 1, end)
                self._counters.move_to_end(key)
            while len(self._counters) > self._entries:
                self._counters.popitem(last=False)
        return 0.0

    def succeeded(self, user: str, address: str) -> None:
        """Take the attempt back: only failures count."""
        with self._lock:
            pair, *others = (key for key, _ in self._limits(user, address))
            self._counters.pop(pair, None)
            for key in others:
                if key in self._counters:
                    count, end = self._counters[key]
                    self._counters[key] = (max(0, count - 1), end)

    def _count(self, key: bytes, now: float) -> int:
        count, end = self._counters.get(key, (0, 0.0))
        return count if end > now else 0

    def _limits(self, user: str, address: str) -> list[tuple[bytes, int]]:
        place = _network(address)
        return [
            (self._digest("both", user, place), self._attempts),
            (self._digest("address", place), self._attempts * _PER_ADDRESS),
            (self._digest("user", user), self._attempts * _PER_USER),
        ]

    def _digest(self, *parts: str) -> bytes:
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        data = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hashlib.blake2b(data, key=self._key, digest_size=16).digest()


def _network(address: str) -> str:
    """An IPv6 client has a whole /64 to itself; anything else is one address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(int(parsed) >> 64)
    return str(parsed)
