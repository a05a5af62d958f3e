"""What ``lamella passwd`` does: write an htpasswd file that the auth layers read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from lamella.stack.kernel.auth import is_user_name
from lamella.stack.kernel.errors import ConfigError, MissingExtraError
from lamella.stack.kernel.hashes import hash_password

__all__ = ["delete_user", "list_users", "new_token", "set_password", "sign_out"]


def set_password(file: str | os.PathLike[str], user: str, password: str, *, scheme: str | None = None) -> bool:
    """Set the password of *user* in an htpasswd file, which is made where it is missing.

    The file is replaced as a whole, so that a server never reads half of it; comments, other users and
    their order stay. A new file is for its owner only (mode 0600), an old one keeps mode and owner, but never
    lets everybody read.

    Args:
        file: The htpasswd file.
        user: Without a colon and without control characters.
        password: Up to 1024 octets of UTF-8.
        scheme: ``argon2id``, ``bcrypt`` (for a file that Apache or nginx reads too) or ``sha512``; by default the
            first of them that is installed.

    Returns:
        Whether the user is new.

    Raises:
        ConfigError: The name or the password cannot be used, or the file cannot be read or written.
    """
    user = _checked(user)
    hashed = _hash(password, scheme)
    found = False

    def change(line: str) -> str | None:
        nonlocal found
        if _user_of(line) != user:
            return line
        if found:  # a second line of the same user would be a mistake that waits
            return None
        found = True
        return f"{user}:{hashed}"

    with _locked(Path(file)) as path:
        lines = [kept for line in _read(path) if (kept := change(line)) is not None]
        _write(path, lines if found else [*lines, f"{user}:{hashed}"])
    return not found


def delete_user(file: str | os.PathLike[str], user: str) -> bool:
    """Remove *user* from an htpasswd file; return whether it was there.

    Raises:
        ConfigError: The name is none, or the file cannot be read or written.
    """
    user = _checked(user)
    with _locked(Path(file)) as path:
        lines = _read(path)
        kept = [line for line in lines if _user_of(line) != user]
        if len(kept) == len(lines):
            return False
        _write(path, kept)
    return True


def list_users(file: str | os.PathLike[str]) -> list[str]:
    """Return the users of an htpasswd file, in its order.

    Raises:
        ConfigError: The file cannot be read.
    """
    return [user for line in _read(Path(file)) if (user := _user_of(line)) is not None]


def new_token() -> tuple[str, str]:
    """Return a new API key, and its SHA-256 for the option ``tokens`` of ``bearer_auth``."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def sign_out(remember_file: str | os.PathLike[str], user: str) -> int:
    """Revoke every remembered login of *user*; return how many there were.

    Args:
        remember_file: That of the layer ``login``.
        user: As the user signs in.

    Raises:
        ConfigError: The file cannot be opened.
    """
    from lamella.middleware._remember import RememberStore

    return RememberStore(Path(remember_file).absolute()).revoke_user(unicodedata.normalize("NFC", user))


def _checked(user: str) -> str:
    user = unicodedata.normalize("NFC", user)
    if not is_user_name(user) or ":" in user or user.startswith("#"):
        raise ConfigError("user", user, "1 to 255 printable characters without a colon, not beginning with #")
    return user


def _hash(password: str, scheme: str | None) -> str:
    try:
        if scheme is not None:
            return hash_password(password, scheme)
        for installed in ("argon2id", "bcrypt"):
            with contextlib.suppress(MissingExtraError):
                return hash_password(password, installed)
        return hash_password(password, "sha512")
    except ValueError as error:
        raise ConfigError("password", "***", f"one that can be hashed ({error})") from None


def _user_of(line: str) -> str | None:
    """The user of a line; None for a comment or a blank one."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    return unicodedata.normalize("NFC", text.partition(":")[0])


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("file", str(path), f"an htpasswd file in UTF-8 ({type(error).__name__})") from None


def _write(path: Path, lines: list[str]) -> None:
    """Write beside the file, then move over it: whoever reads has the old one or the new one."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
                _keep_owner(path, descriptor)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError("file", str(path), f"a file that can be written ({error.strerror})") from None


def _keep_owner(path: Path, descriptor: int) -> None:
    """Give the new file owner and mode of the old one, as far as we may; without access for everybody."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError, AttributeError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    with contextlib.suppress(OSError, AttributeError):
        os.fchmod(descriptor, old.st_mode & 0o660 | 0o600)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Keep two writers apart, by a lock on the folder; yield the file behind a symbolic link."""
    path = path.resolve()
    unlock: Callable[[], object] = lambda: None  # noqa: E731
    try:
        import fcntl

        descriptor = os.open(path.parent, os.O_RDONLY)
    except ImportError:  # not on Windows
        pass
    except OSError as error:
        raise ConfigError("file", str(path), f"a file in a folder that is there ({error.strerror})") from None
    else:
        unlock = lambda: os.close(descriptor)  # noqa: E731
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        unlock()
