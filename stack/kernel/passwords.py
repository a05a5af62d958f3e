"""Users and their passwords: htpasswd files, hashes, and checking without telling who exists.

Kinds of hash: bcrypt (``$2y$``), argon2id, SHA-crypt (``$5$``, ``$6$``), as ``htpasswd``, ``argon2``
and ``openssl passwd`` write them. Weak ones (``$apr1$``, ``{SHA}``) are taken only where
the caller says so; DES crypt and plain text never.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from .auth import is_user_name
from .errors import ConfigError, import_extra
from .keys import Identity
from .options import FilePath, Secret, file_path, reference, strings

__all__ = ["Users", "UsersValue", "check_hash", "hash_password", "parse_htpasswd", "verify_password"]

#: What the option ``users`` takes: a path, a table of hashes, a callable or its ``"module:attribute"``.
UsersValue: TypeAlias = FilePath | Mapping[str, str] | Callable[[str, str], object]

_LOG = logging.getLogger("lamella.passwords")
_CRYPT64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# Octets. Longer ones are wrong passwords: SHA-crypt's work grows with the length, and no person types more.
_MAX_PASSWORD = 1024
# bcrypt reads 72 octets and ignores the rest; the library refuses more, Apache cuts.
_BCRYPT_OCTETS = 72
# Bounds on the work one request can cause: about a second each on one core.
_MAX_BCRYPT_COST = 16
_MAX_SHA_ROUNDS = 1_000_000
_MAX_ARGON2_KIB = 2**20

_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(r"\$argon2id\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,4}),p=([0-9]{1,3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
_SHA_CRYPT = re.compile(r"\$([56])\$(?:rounds=([0-9]{1,9})\$)?([^$:\n]{0,16})\$([./A-Za-z0-9]{43}|[./A-Za-z0-9]{86})")
_APR1 = re.compile(r"\$apr1\$([^$:\n]{1,8})\$([./A-Za-z0-9]{22})")
_SHA1 = re.compile(r"\{SHA\}([A-Za-z0-9+/]{27}=)")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


# --- hashes -------------------------------------------------------------------------------------


def check_hash(text: str, *, allow_weak: bool = False) -> str | None:
    """Return why *text* cannot be used as a password hash, or None where it can.

    Raises:
        MissingExtraError: The hash needs a package that is not installed.
    """
    if match := _BCRYPT.fullmatch(text):
        import_extra("bcrypt", "argon2")
        return None if 4 <= int(match[1]) <= _MAX_BCRYPT_COST else f"bcrypt's cost must be 4 to {_MAX_BCRYPT_COST}"
    if match := _ARGON2.fullmatch(text):
        import_extra("argon2", "argon2")
        within = 8 <= int(match[1]) <= _MAX_ARGON2_KIB and 1 <= int(match[2]) <= 64 and 1 <= int(match[3]) <= 64
        return None if within else "argon2id's memory must be at most 1 GiB, its passes and lanes at most 64"
    if match := _SHA_CRYPT.fullmatch(text):
        rounds = 5000 if match[2] is None else int(match[2])
        if len(match[4]) != (43 if match[1] == "5" else 86):
            return "the SHA-crypt hash is cut off"
        return None if 1000 <= rounds <= _MAX_SHA_ROUNDS else f"SHA-crypt needs 1000 to {_MAX_SHA_ROUNDS} rounds"
    if _APR1.fullmatch(text) or _SHA1.fullmatch(text):
        kind = "apr1 (MD5)" if text.startswith("$") else "unsalted SHA-1"
        return None if allow_weak else f"{kind} is weak; hash it again with `lamella passwd`, or set allow_weak = true"
    return "it is no bcrypt, argon2id or SHA-crypt hash; write it with `lamella passwd`"


def verify_password(text: str, password: str) -> bool:
    """Tell whether *password* is the one behind the hash *text*; constant time in the password."""
    octets = _octets(password)
    if octets is None:
        return False
    try:
        if text.startswith("$2"):
            bcrypt: Any = import_extra("bcrypt", "argon2")
            return bool(bcrypt.checkpw(octets[:_BCRYPT_OCTETS], text.encode()))
        if text.startswith("$argon2id$"):
            low_level: Any = import_extra("argon2.low_level", "argon2")
            return bool(low_level.verify_secret(text.encode(), octets, low_level.Type.ID))
    except ImportError:
        raise
    except Exception:  # noqa: BLE001 - each library has its own ways to say no: mismatch, NUL octet, bad salt
        return False
    if match := _SHA_CRYPT.fullmatch(text):
        rounds = 5000 if match[2] is None else int(match[2])
        digest = _sha_crypt(octets, match[3].encode(), rounds, match[1])
        return hmac.compare_digest(digest, match[4])
    if match := _APR1.fullmatch(text):
        return hmac.compare_digest(_apr1(octets, match[1].encode()), match[2])
    if match := _SHA1.fullmatch(text):
        digest = base64.b64encode(hashlib.sha1(octets, usedforsecurity=False).digest()).decode()
        return hmac.compare_digest(digest, match[1])
    return False


def hash_password(password: str, scheme: str = "argon2id") -> str:
    """Return a new hash of *password*.

    Args:
        password: Up to 1024 octets of UTF-8; 72 for bcrypt.
        scheme: ``argon2id``, ``bcrypt`` (the one that Apache and nginx read too), or ``sha512``, which needs no extra.

    Raises:
        ValueError: The password is empty or too long, has a control character, or *scheme* is unknown.
        MissingExtraError: The package for *scheme* is not installed.
    """
    octets = _octets(password)
    if not octets or any(unicodedata.category(character) == "Cc" for character in password):
        raise ValueError(f"a password has 1 to {_MAX_PASSWORD} octets and no control characters")
    if scheme == "argon2id":
        argon2: Any = import_extra("argon2", "argon2")
        return str(argon2.PasswordHasher().hash(octets))
    if scheme == "bcrypt":
        if len(octets) > _BCRYPT_OCTETS:
            raise ValueError(f"bcrypt reads {_BCRYPT_OCTETS} octets of a password, this one has {len(octets)}")
        bcrypt: Any = import_extra("bcrypt", "argon2")
        hashed: str = bcrypt.hashpw(octets, bcrypt.gensalt(rounds=12)).decode()
        return "$2y$" + hashed[4:]  # the prefix that Apache writes; the algorithm is that of $2b$
    if scheme == "sha512":
        salt = "".join(secrets.choice(_CRYPT64) for _ in range(16))
        rounds = 100_000
        return f"$6$rounds={rounds}${salt}${_sha_crypt(octets, salt.encode(), rounds, '6')}"
    raise ValueError(f"no such kind of hash: {scheme!r}; take argon2id, bcrypt or sha512")


def _octets(password: str) -> bytes | None:
    """The password as NFC and UTF-8 (RFC 7617 section 2.1, RFC 8265 section 4.2.2), None where it is too long."""
    try:
        octets = password.encode() if password.isascii() else unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None
    return octets if len(octets) <= _MAX_PASSWORD else None


def _sha_crypt(password: bytes, salt: bytes, rounds: int, kind: str) -> str:
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


def _apr1(password: bytes, salt: bytes) -> str:
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
        text += _CRYPT64[value & 63]
        value >>= 6
    return text


# --- users --------------------------------------------------------------------------------------


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
        name = unicodedata.normalize("NFC", name)
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

    __slots__ = ("_cache", "_callable", "_fields", "_load", "_roles", "_scheme")

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
        self._fields: OrderedDict[bytes, tuple[float, str, Identity]] = OrderedDict()
        self._callable: Callable[[str, str], object] | None = None
        self._load: Callable[[], Mapping[str, str]] = dict
        if isinstance(value, Mapping):
            table = _checked_table(option, value, allow_weak)
            self._load = lambda: table
            return
        found = _resolve(option, value)
        if isinstance(found, Path):
            self._load = _HtpasswdFile(option, found, allow_weak).users
        else:
            self._callable = found

    def recall(self, field: str) -> Identity | None:
        """Return whom a whole header field proved to be asking a moment ago; None where :meth:`check` must tell.

        Reading the credentials out of it anew would take seven of the eight microseconds. Kept is a
        keyed digest; the user's hash is compared, so that a changed password counts at once.
        """
        found = self._fields.get(self._cache.digest(field.encode("utf-8", "surrogatepass"))) if self._fields else None
        if found is None:
            return None
        until, hashed, identity = found
        return identity if time.monotonic() < until and self._load().get(identity.user) == hashed else None

    def check(self, user: str, password: str, field: str = "") -> Identity | None:
        """Return the identity of *user*, or None where user or password is wrong.

        An unknown user costs what a known one with a wrong password does: the password is checked
        against the hash of somebody else, chosen by the name, and the result is thrown away.

        Args:
            user: The name, as it was sent.
            password: As it was sent.
            field: The header field that both were read from, for :meth:`recall`.
        """
        user = user if user.isascii() else unicodedata.normalize("NFC", user)
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
            self._remember(field, (until, hashed, identity))
        return identity

    def _remember(self, field: str, entry: tuple[float, str, Identity]) -> None:
        key = self._cache.digest(field.encode("utf-8", "surrogatepass"))
        with self._cache.lock:
            self._fields[key] = entry
            self._fields.move_to_end(key)
            while len(self._fields) > self._cache.limit:
                self._fields.popitem(last=False)

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
        if not _REFERENCE.fullmatch(path.name) or path.exists():
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
        table[unicodedata.normalize("NFC", user)] = text
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
            by_user.setdefault(unicodedata.normalize("NFC", user), set()).add(role)
    return {user: frozenset(found) for user, found in by_user.items()}


def _decoy(users: Mapping[str, str], user: str) -> str:
    """Somebody else's hash, always the same one for one name, so that costs are spread as those of real users."""
    if not users:
        return _NOBODY
    hashes = list(users.values())
    draw = hashlib.blake2b(user.encode(), key=_DECOY_KEY, digest_size=8).digest()
    return hashes[int.from_bytes(draw, "big") % len(hashes)]


_DECOY_KEY = secrets.token_bytes(32)
# The hash of nobody's password, for a file without users.
_NOBODY = "$5$rounds=5000$nobodysnobodysno$" + "." * 43


class _HtpasswdFile:
    """An htpasswd file, read again when it changed.

    A line that has become unusable leaves its user out and is logged; so does a file that has gone.
    """

    __slots__ = ("_allow_weak", "_path", "_state")

    def __init__(self, option: str, path: Path, allow_weak: bool) -> None:
        self._path = path
        self._allow_weak = allow_weak
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
                _LOG.error("%s cannot be read, so nobody can log in: %s", self._path, type(error).__name__)
            self._state = (None, {})
            return {}
        users, problems = parse_htpasswd(text, allow_weak=self._allow_weak)
        for number, reason in problems:
            _LOG.error("%s:%d: %s; this user cannot log in", self._path, number, reason)
        self._state = (fresh, users)
        return users

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
            _LOG.warning(message, self._path, weak, len(users))


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


class _Recent:
    """Passwords found right a moment ago, as keyed digests: bounded in number and time, worthless elsewhere."""

    __slots__ = ("_empty", "_entries", "_seconds", "limit", "lock")

    def __init__(self, seconds: float, limit: int = 1024) -> None:
        self._seconds = seconds
        self.limit = limit
        self.lock = threading.Lock()
        # Copied for each digest: half the price of keying a new one.
        self._empty = hashlib.blake2b(key=secrets.token_bytes(32), digest_size=32)
        self._entries: OrderedDict[bytes, float] = OrderedDict()

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
        if self._seconds <= 0:
            return
        with self.lock:
            self._entries[key] = time.monotonic() + self._seconds
            self._entries.move_to_end(key)
            while len(self._entries) > self.limit:
                self._entries.popitem(last=False)
