"""Where log lines go: one ``write(2)`` a line, so that no two lines mix.

A file is opened with ``O_APPEND``: the kernel puts each write at the end as a whole, from any
thread and process. A line is never longer than ``PIPE_BUF`` (see ``_access_format``), so the same
holds for a pipe.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol, TypeAlias

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import file_path

__all__ = ["Write", "complainer", "open_output"]

#: Takes one line, its newline included; raises where it cannot be written.
Write: TypeAlias = Callable[[str], None]

# So many lines a second look whether the file was moved away: with little traffic each of them, under load
# stat(2) would cost nearly as much as the line itself.
_LOOKS: Final = 20
# Seconds between two complaints about a log that cannot be written.
_COMPLAINT: Final = 60.0
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class _Stream(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


def open_output(option: str, value: object) -> Write:
    """Return the function that writes a line to *value*.

    Args:
        option: Name of the option, for the error.
        value: ``"-"``, ``"stderr"``, a path, or an open text stream.

    Raises:
        ConfigError: It is none of them, or the file cannot be opened.
    """
    if value == "-":
        return _standard("stdout")
    if value == "stderr":
        return _standard("stderr")
    if isinstance(value, (str, os.PathLike)):
        return _file(option, value)
    if callable(getattr(value, "write", None)):
        return _to_stream(value)  # type: ignore[arg-type]
    raise ConfigError(option, value, '"-" (standard output), "stderr", a path, or an open text stream')


def complainer() -> Callable[[Exception], None]:
    """Return a function that tells standard error of lost lines, once a minute."""
    told = 0.0

    def complain(error: Exception) -> None:
        nonlocal told
        now = time.monotonic()
        if not told or now - told > _COMPLAINT:
            told = now
            try:
                sys.stderr.write(f"lamella.access_log: lines are lost: {type(error).__name__}: {error}\n")
            except Exception:  # noqa: BLE001, S110  nobody is left to tell
                pass

    return complain


def _put(descriptor: int, line: bytes) -> bool:
    """Write *line*; False where only a part of it went out."""
    written = os.write(descriptor, line)
    if written < len(line):
        written += os.write(descriptor, line[written:])
    return written == len(line)


def _standard(name: str) -> Write:
    """Write to ``sys.stdout`` or ``sys.stderr`` as it is at that moment: a test or a server may replace it."""
    known: object = None
    descriptor: int | None = None

    def write(line: str) -> None:
        nonlocal known, descriptor
        stream = getattr(sys, name)
        if stream is not known:
            descriptor = _descriptor(stream)
            known = stream
        if stream is None:
            return
        if descriptor is None:
            stream.write(line)
            stream.flush()
        else:
            _put(descriptor, line.encode())

    return write


def _descriptor(stream: object) -> int | None:
    """The file descriptor behind a stream; None where it has none."""
    try:
        found = stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None
    return found if isinstance(found, int) else None


def _to_stream(stream: _Stream) -> Write:
    def write(line: str) -> None:
        stream.write(line)
        flush = getattr(stream, "flush", None)
        if flush is not None:
            flush()

    return write


def _file(option: str, value: str | os.PathLike[str]) -> Write:
    """Write to a file that is opened again where it was renamed or removed (logrotate)."""
    path = os.fspath(file_path(option, value))
    try:
        descriptor, identity = _open(path)
    except OSError as error:
        raise ConfigError(option, os.fspath(value), f"a file that can be written ({error.strerror})") from None
    looks, until, torn = 0, 0.0, False

    def write(line: str) -> None:
        nonlocal looks, until, torn
        now = perf_counter()
        if now >= until:
            until, looks = now + 1, _LOOKS
        if looks > 0:  # below, where threads met
            looks -= 1
            follow()
        data = line.encode()
        if torn:  # the disk was full in the middle of a line: end that one first
            data = b"\n" + data
            torn = False
        written = os.write(descriptor, data)
        if written != len(data):
            torn = True
            torn = written + os.write(descriptor, data[written:]) != len(data)

    def follow() -> None:
        """Open the file again where the path now leads elsewhere; keep the old one where that fails."""
        nonlocal identity
        try:
            found = os.stat(path)
        except FileNotFoundError:
            pass
        else:
            if (found.st_dev, found.st_ino) == identity:
                return
        try:
            fresh, fresh_identity = _open(path)
        except OSError:
            return
        # The new file takes the old one's number: a thread that is about to write never meets a closed one.
        os.dup2(fresh, descriptor, inheritable=False)
        os.close(fresh)
        identity = fresh_identity

    return write


def _open(path: str) -> tuple[int, tuple[int, int]]:
    """Return the descriptor of the file, and what tells it from another."""
    descriptor = os.open(path, _FLAGS, 0o640)
    found = os.fstat(descriptor)
    return descriptor, (found.st_dev, found.st_ino)
