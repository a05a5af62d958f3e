"""Users and their passwords: checked without telling who exists."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, urandom
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from .auth import is_user_name, marks_of, normalized
from .errors import ConfigError
from .hashes import check_hash, hash_password, verify_password
from .htpasswd import HtpasswdFile, parse_htpasswd
from .keys import Identity
from .late import late_pattern
from .options import FilePath, Secret, file_path, reference, strings

__all__ = ["Users", "UsersValue", "check_hash", "hash_password", "parse_htpasswd", "verify_password"]

#: What the option ``users`` takes: a path, a table of hashes, a callable or its ``"module:attribute"``.
UsersValue: TypeAlias = FilePath | Mapping[str, str] | Callable[[str, str], object]

_REFERENCE = late_pattern(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Users:
    """The users that an auth layer knows, from its option ``users``.

    Args:
        option: Name of the option, for errors.
        value: See :data:`UsersValue`.
        scheme: ``Identity.scheme`` of those it finds.
        roles: The users of each role.
        allow_weak: Take ``$apr1$`` and ``{SHA}`` too.
        cache_seconds: How long a right password need not be hashed again; 0 for never.

    Raises:
        ConfigError: The file cannot be read, a hash is of no accepted kind, a name is none.
    """

    __slots__ = ("_cache", "_callable", "_load", "_roles", "_scheme", "recall")

    def __init__(
        self,
        option: str,
        value: UsersValue,
        *,
        scheme: str,
        roles: Mapping[str, Iterable[str]] | None = None,
        allow_weak: bool = False,
        cache_seconds: float = 0,
    ) -> None:
        self._scheme = scheme
        self._roles = _roles_by_user(roles)
        self._cache = _Recent(cache_seconds)
        self._callable: Callable[[str, str], object] | None = None
        self._load: Callable[[], Mapping[str, str]] = dict
        #: Returns the marks of whom a whole header field proved to be asking a moment ago; None where :meth:`check`
        #: must tell. Reading the credentials out of it anew would take three times as long.
        self.recall: Callable[[str], dict[str, Any] | None] = _nobody
        if isinstance(value, Mapping):
            table = _checked_table(option, value, allow_weak)
            self._load = lambda: table
            self.recall = self._cache.recaller(table, None)
            return
        found = _resolve(option, value)
        if isinstance(found, Path):
            file = HtpasswdFile(option, found, allow_weak)
            self._load = file.users
            self.recall = self._cache.recaller({}, file.users_lately)
        else:
            self._callable = found

    def check(self, user: str, password: str, field: str = "") -> Identity | None:
        """Return the identity of *user*, or None where user or password is wrong.

        An unknown user costs what a known one with a wrong password does: the password is checked
        against the hash of somebody else, chosen by the name, and the result is thrown away.

        Args:
            user: The name, as it was sent.
            password: As it was sent.
            field: The header field that both were read from, for :attr:`recall`.
        """
        user = normalized(user)
        if not is_user_name(user):
            return None
        if self._callable is not None:
            return self._from_callable(user, self._callable(user, password))
        users = self._load()
        hashed = users.get(user)
        if hashed is None:
            verify_password(_decoy(users, user), password)
            return None
        key = self._cache.key(user, password, hashed)
        if not self._cache.has(key):
            if not verify_password(hashed, password):
                return None
            self._cache.add(key)
        identity = Identity(user, self._scheme, MappingProxyType({}), self._roles.get(user, frozenset()))
        until = self._cache.until(key)
        if field and until:
            self._cache.remember(field, (until, users, user, hashed, marks_of(identity)))
        return identity

    def roles(self, user: str) -> frozenset[str]:
        """Return the roles that the option ``roles`` gives *user*."""
        return self._roles.get(user, frozenset())

    def stamp(self, user: str) -> str | None:
        """Return what changes with the password of *user*, or None where there is no such user.

        Of users behind a callable nothing is known: it is empty.
        """
        if self._callable is not None:
            return ""
        hashed = self._load().get(user)
        if hashed is None:
            return None
        return hashlib.sha256(f"{len(user)}:{user}:{hashed}".encode()).hexdigest()[:32]

    def _from_callable(self, user: str, result: object) -> Identity | None:
        """Read what the user's own callable returned: true or false, or an Identity."""
        if isinstance(result, Identity):
            if not is_user_name(result.user):
                return None
            return result._replace(scheme=self._scheme, roles=result.roles | self.roles(result.user))
        return Identity(user, self._scheme, {}, self.roles(user)) if result else None

    def __repr__(self) -> str:
        return "Users(***)"


def _resolve(option: str, value: object) -> Path | Callable[[str, str], object]:
    """The path of a file, or the callable: an object, or ``module:attribute`` where no such file is."""
    if isinstance(value, (str, PathLike)):
        path = file_path(option, value)
        if ":" not in path.name or not _REFERENCE.fullmatch(path.name) or path.exists():
            return path
        value = reference(option, path.name)
    if not callable(value):
        raise ConfigError(option, value, "an htpasswd file, a table of hashes, or a callable (user, password)")
    return value


def _checked_table(option: str, value: Mapping[str, str], allow_weak: bool) -> dict[str, str]:
    """The table, copied; a value that is no hash is not shown."""
    table: dict[str, str] = {}
    for user, hashed in value.items():
        if not isinstance(user, str) or not is_user_name(user):
            raise ConfigError(option, user, "user names without control characters")
        # From Python a hash may also come wrapped.
        given: object = hashed
        text = given.reveal().decode("utf-8", "replace").strip() if isinstance(given, Secret) else given
        if not isinstance(text, str):
            raise ConfigError(f"{option}.{user}", Secret(b""), "a password hash")
        reason = check_hash(text, allow_weak=allow_weak)
        if reason is not None:
            raise ConfigError(f"{option}.{user}", Secret(b""), f"a password hash ({reason})")
        table[normalized(user)] = text
    return table


def _roles_by_user(roles: Mapping[str, Iterable[str]] | None) -> dict[str, frozenset[str]]:
    """Turn ``role = [users]`` around."""
    if roles is None:
        return {}
    if not isinstance(roles, Mapping):
        raise ConfigError("roles", roles, 'a table such as { admin = ["alice"] }')
    by_user: dict[str, set[str]] = {}
    for role, users in roles.items():
        if not isinstance(role, str) or not role or not role.isprintable():
            raise ConfigError("roles", role, "names of roles, each with a list of users")
        for user in strings(f"roles.{role}", users, is_user_name, "user names without control characters"):
            by_user.setdefault(normalized(user), set()).add(role)
    return {user: frozenset(found) for user, found in by_user.items()}


def _decoy(users: Mapping[str, str], user: str) -> str:
    """Somebody else's hash, always the same one for one name, so that costs are spread as those of real users."""
    if not users:
        return _NOBODY
    hashes = list(users.values())
    draw = hashlib.blake2b(user.encode(), key=_DECOY_KEY, digest_size=8).digest()
    return hashes[int.from_bytes(draw, "big") % len(hashes)]


_DECOY_KEY = urandom(32)
# The hash of nobody's password, for a file without users.
_NOBODY = "$5$rounds=5000$nobodysnobodysno$" + "." * 43


def _nobody(field: str) -> None:
    """What remembers nothing."""


#: Until when, in which users, who with which hash, and the marks of their identity.
_Entry: TypeAlias = tuple[float, Mapping[str, str], str, str, dict[str, Any]]


class _Recent:
    """Passwords found right a moment ago, as keyed digests: bounded in number and time, worthless elsewhere."""

    __slots__ = ("_empty", "_entries", "_fields", "_seconds", "limit", "lock")

    def __init__(self, seconds: float, limit: int = 1024) -> None:
        self._seconds = seconds
        self.limit = limit
        self.lock = threading.Lock()
        # Copied for each digest. The key is the beginning of the data: BLAKE2's own keys fill a block, which doubles
        # the price, and it needs no HMAC, because nothing can be added behind what it has digested.
        self._empty = hashlib.blake2b(urandom(32), digest_size=32)
        self._entries: OrderedDict[bytes, float] = OrderedDict()
        self._fields: OrderedDict[bytes, _Entry] = OrderedDict()

    def key(self, user: str, password: str, hashed: str) -> bytes:
        """Bound to the stored hash too: a changed password is asked for at once."""
        octets = [text.encode("utf-8", "surrogatepass") for text in (user, password, hashed)]
        data = b"".join(len(part).to_bytes(4, "big") + part for part in octets)
        return self.digest(data)

    def digest(self, data: bytes) -> bytes:
        """Return the keyed digest of *data*."""
        hashing = self._empty.copy()
        hashing.update(data)
        return hashing.digest()

    def until(self, key: bytes) -> float:
        """Return until when *key* is kept; 0 where it is not."""
        return self._entries.get(key, 0.0)

    def has(self, key: bytes) -> bool:
        until = self._entries.get(key)
        return until is not None and time.monotonic() < until

    def add(self, key: bytes) -> None:
        if self._seconds > 0:
            with self.lock:
                _put(self._entries, key, time.monotonic() + self._seconds, self.limit)

    def remember(self, field: str, entry: _Entry) -> None:
        """Keep what a header field proved, as a digest."""
        key = self.digest(field.encode("utf-8", "surrogatepass"))
        with self.lock:
            _put(self._fields, key, entry, self.limit)

    def recaller(
        self, table: Mapping[str, str], load: Callable[[], Mapping[str, str]] | None
    ) -> Callable[[str], dict[str, Any] | None]:
        """Return what finds it again, while the user still has the same hash: in *table*, or in what *load* returns."""
        copy, find = self._empty.copy, self._fields.get

        def recall(field: str) -> dict[str, Any] | None:
            if not field:
                return None
            hashing = copy()
            try:
                hashing.update(field.encode())
            except UnicodeEncodeError:  # no server's environ has lone surrogates
                return None
            found = find(hashing.digest())
            if found is None:
                return None
            until, users, user, hashed, marks = found
            now_users = table if load is None else load()
            if time.monotonic() < until and (now_users is users or now_users.get(user) == hashed):
                return marks
            return None

        return recall


_V = TypeVar("_V")


def _put(kept: OrderedDict[bytes, _V], key: bytes, value: _V, limit: int) -> None:
    """Add a value, and drop the oldest beyond *limit*."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)
