"""Generators of identifiers: random, by time, and short ones by time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

__all__ = ["GENERATORS", "pooled", "snowflake", "uuid4", "uuid7"]

T = TypeVar("T")
# How many are made together, in a twentieth of a millisecond; of 64, each costs twice as much.
_POOL: Final = 256
# A UUID of version 4: x is any digit; y begins with the bits of the variant, 1 and 0.
_FORM: Final = b"xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx "
_PLACES: Final = tuple(place for place, letter in enumerate(_FORM) if letter == ord("x"))
_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)

# Twitter's epoch in milliseconds: tools that take a snowflake apart expect it.
_EPOCH: Final = 1288834974657


def pooled(make: Callable[[int], list[T]]) -> Callable[[], T]:
    """Return what hands out, one by one, what *make* makes many of.

    One system call for random bytes costs as much as the rest of the layer. A pool is never shared with a forked
    process: it begins with an empty one. uWSGI forks without telling Python, so that there nothing is pooled.
    Taking one and adding many are atomic for threads and greenlets.

    Args:
        make: Returns a list of as many as it is asked for.
    """
    pool: list[T] = []
    pop = pool.pop
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=pool.clear)

    def take() -> T:
        try:
            return pop()
        except IndexError:
            made = make(1 if "uwsgi" in sys.modules else _POOL)
            mine = made.pop()
            pool.extend(made)
            return mine

    return take


def _uuids(count: int) -> list[str]:
    """Return *count* random UUIDs (RFC 9562 section 5.4): the digits of all of them are put in place together."""
    digits = os.urandom(16 * count).hex().encode()
    text = bytearray(_FORM * count)
    for number, place in enumerate(_PLACES):
        text[place :: len(_FORM)] = digits[number::32]
    text[_FORM.index(b"y") :: len(_FORM)] = digits[31::32].translate(_VARIANT)
    return text.decode().split()


#: Returns a random UUID, like ``str(uuid.uuid4())``.
uuid4: Final = pooled(_uuids)


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
