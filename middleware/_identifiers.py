"""Generators of identifiers: random, by time, and short ones by time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Lock
from typing import Final

__all__ = ["GENERATORS", "snowflake", "uuid4", "uuid7"]

# Twitter's epoch in milliseconds: tools that take a snowflake apart expect it.
_EPOCH: Final = 1288834974657


def uuid4() -> str:
    """Return a random UUID (RFC 9562 section 5.4); like ``str(uuid.uuid4())``, in a third of its time."""
    number = int.from_bytes(os.urandom(16), "big")
    return _uuid(number & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62)


def _uuid(number: int) -> str:
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7(clock: Callable[[], float] = time.time) -> Callable[[], str]:
    """Return a generator of UUIDs that sort by time (RFC 9562 section 5.7), also within a millisecond."""
    lock = Lock()
    last = 0

    def generate() -> str:
        nonlocal last
        entropy = int.from_bytes(os.urandom(10), "big") & (1 << 74) - 1
        fresh = int(clock() * 1000) << 74 | entropy
        with lock:
            # Section 6.2, method 2: where time stands still or goes back, count on by a random step.
            last = fresh if fresh >> 74 > last >> 74 else last + 1 + (entropy & 0xFFFFFFFF)
            number = last
        millisecond, high, low = number >> 74 & (1 << 48) - 1, number >> 62 & 0xFFF, number & (1 << 62) - 1
        return _uuid(millisecond << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low)

    return generate


def snowflake(clock: Callable[[], float] = time.time) -> Callable[[], str]:
    """Return a generator of 64-bit numbers that sort by time: 41 bits milliseconds, 10 process, 12 counter.

    The process's number is drawn at random, anew after a fork.
    """
    lock = Lock()
    last = process = owner = 0

    def generate() -> str:
        nonlocal last, process, owner
        with lock:
            if owner != (pid := os.getpid()):
                owner, process = pid, int.from_bytes(os.urandom(2), "big") & 0x3FF
            # More than 4096 in a millisecond borrow from the next one; a clock set back counts on.
            last = max(last + 1, int(clock() * 1000) - _EPOCH << 12)
            moment, count = last >> 12, last & 0xFFF
        return str(moment << 22 | process << 12 | count)

    return generate


#: By name: makes a generator, with its own state.
GENERATORS: Final[dict[str, Callable[[], Callable[[], str]]]] = {
    "uuid4": lambda: uuid4,
    "uuid7": uuid7,
    "snowflake": snowflake,
}
