"""htpasswd files: a user and a hash a line, read again when they change."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .auth import is_user_name, normalized
from .errors import ConfigError
from .hashes import check_hash

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["HtpasswdFile", "parse_htpasswd"]

# So many times a second HtpasswdFile.users_lately() asks the file system.
_LOOKS: Final = 20


def parse_htpasswd(text: str, *, allow_weak: bool = False) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Read an htpasswd file: ``user:hash`` a line, ``#`` comments.

    Returns:
        The hashes by user, and (line, reason) of what cannot be used. No reason quotes the file.
    """
    users: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        name = normalized(name)
        hashed = rest.partition(":")[0].strip()
        if not colon or not is_user_name(name):
            problems.append((number, "a line is user:hash, the user without control characters"))
        elif name in users:
            problems.append((number, "the user is there twice"))
        elif (reason := check_hash(hashed, allow_weak=allow_weak)) is not None:
            problems.append((number, reason))
        else:
            users[name] = hashed
    return users, problems


class HtpasswdFile:
    """An htpasswd file, read again when it changed.

    A line that has become unusable leaves its user out and is logged; so does a file that has gone.
    """

    __slots__ = ("_allow_weak", "_looks", "_path", "_state", "_until")

    def __init__(self, option: str, path: Path, allow_weak: bool) -> None:
        self._path = path
        self._allow_weak = allow_weak
        self._looks = 0
        self._until = 0.0
        try:
            signature, text = self._read()
        except OSError as error:
            raise ConfigError(option, str(path), f"a readable htpasswd file ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(option, str(path), "an htpasswd file in UTF-8") from None
        users, problems = parse_htpasswd(text, allow_weak=allow_weak)
        if problems:
            reasons = "; ".join(f"line {number}: {reason}" for number, reason in problems[:5])
            raise ConfigError(option, str(path), f"an htpasswd file in which every line can be used ({reasons})")
        if allow_weak:
            self._warn_of_weak(users)
        #: (signature or None where it must be read again, users)
        self._state: tuple[object, dict[str, str]] = (signature, users)

    def users(self) -> Mapping[str, str]:
        """Return the hashes by user, as the file has them now."""
        signature, users = self._state
        try:
            if signature is not None and signature == _signature(os.stat(self._path)):
                return users
            fresh, text = self._read()
        except (OSError, UnicodeDecodeError) as error:
            if users or signature is not None:
                _log().error("%s cannot be read, so nobody can log in: %s", self._path, type(error).__name__)
            self._state = (None, {})
            return {}
        users, problems = parse_htpasswd(text, allow_weak=self._allow_weak)
        for number, reason in problems:
            _log().error("%s:%d: %s; this user cannot log in", self._path, number, reason)
        self._state = (fresh, users)
        return users

    def users_lately(self) -> Mapping[str, str]:
        """The same, but under load the file is looked at only twenty times a second: that costs as much as all else."""
        now = time.monotonic()
        if now >= self._until:
            self._until, self._looks = now + 1, _LOOKS
        if self._looks > 0:
            self._looks -= 1
            return self.users()
        return self._state[1]

    def _read(self) -> tuple[object, str]:
        """Signature and text; no signature where the file may change again within one tick of its clock."""
        before = os.stat(self._path)
        text = self._path.read_text(encoding="utf-8")
        settled = abs(time.time() - before.st_mtime) > 0.1
        return (_signature(before) if settled else None), text

    def _warn_of_weak(self, users: Mapping[str, str]) -> None:
        weak = sum(check_hash(hashed) is not None for hashed in users.values())
        if weak:
            message = "%s: %d of %d hashes are weak (apr1, SHA-1); run `lamella passwd`"
            _log().warning(message, self._path, weak, len(users))


def _log() -> Logger:
    """Return the logger, imported with the first line: no right file has one."""
    from logging import getLogger

    return getLogger("lamella.passwords")


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino
