"""Which file a path means, and whether it may be served: the safe half of ``static``.

A path reaches this module canonical: decoded, without dot segments, empty segments,
backslashes or control characters. What is left to decide is which names are hidden and where
the file system leads: the file is opened first, and it is the open descriptor that is asked
what it is and where it lies. So nothing can be exchanged between the check and the use.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from functools import lru_cache

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.options import file_path
from lamella.stack.kernel.paths import AmbiguousPathError, check_path

__all__ = ["Roots", "is_hidden", "open_again", "open_beneath", "opens_inside", "roots_of", "scan"]

# Windows opens a device under these names in every folder, with any extension, stream or trailing
# space (NUL, con.txt, COM¹, NUL::$DATA). Refused everywhere, so that a stack behaves alike on every
# system; Werkzeug needed four advisories for the list. A trailing dot or space is dropped by
# Windows, so "secret.txt." would be another name of "secret.txt".
_HIDDEN = late_pattern(
    r"(?P<dot>/\.)"
    r"|[. ](?:/|\Z)"
    r"|/(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$|clock\$) *(?:[.:/]|\Z)"
    + (r"|:" if os.name == "nt" else ""),
    re.IGNORECASE,
)
# Nearly every name: starts with a letter, digit, "_" or "-", and is not hidden unless it is a device.
_PLAIN_NAME = late_pattern(
    r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z))[A-Za-z0-9_-](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
)
_DOT_SEGMENT = late_pattern(r"/(\.[^/]*)")

# O_NONBLOCK: opening a FIFO must not wait for its writer. O_NOCTTY: a terminal must not become ours.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_PLATFORM: str = sys.platform
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
# Not "there is no such file" but "not now": answered with 503 instead of passing the request on.
_BUSY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ENOBUFS, errno.ESTALE})

_MOST_LINKS = 3

Roots = tuple[str, ...]


def roots_of(option: str, value: object) -> Roots:
    """Return the folders to serve from, the first of which wins.

    Args:
        option: Name of the option, for the error.
        value: One folder or several; ``package:name.of.package/folder`` is a package's own data.

    Raises:
        ConfigError: No such folder, or no such package.
    """
    items = [value] if isinstance(value, (str, os.PathLike)) else value
    if isinstance(items, (bytes, dict)) or not hasattr(items, "__iter__"):
        raise ConfigError(option, value, "a folder or a list of folders")
    found: list[str] = []
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise ConfigError(option, item, "a folder or a list of folders")
        text = os.fspath(item)
        file_path(option, text)
        if os.path.realpath(text) == os.path.realpath(os.sep):
            raise ConfigError(option, item, "a folder of its own: this one holds all files of the machine")
        # A loader that resolves paths relative to the stack file puts its folder before the word.
        _, marker, package = ("/" + text.replace(os.sep, "/")).rpartition("/package:")
        if marker:
            found.extend(_package_folders(option, text, package))
            continue
        if not os.path.isdir(text):
            raise ConfigError(option, text, "a folder that exists")
        found.append(os.path.abspath(text))
    if not found:
        raise ConfigError(option, value, "at least one folder")
    return tuple(found)


def _package_folders(option: str, value: str, text: str) -> list[str]:
    """Return the folders that hold a package's data: several where it is a namespace package."""
    from importlib.util import find_spec

    package, _, folder = text.partition("/")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError(option, value, f"a package that can be imported ({package!r} is none)")
    places = [os.path.join(place, *folder.split("/")) for place in spec.submodule_search_locations]
    found = [os.path.abspath(place) for place in places if os.path.isdir(place)]
    if not found or ".." in folder.split("/"):
        raise ConfigError(option, value, f"a folder in the package {package} (installed as files, not as a zip)")
    return found


def is_hidden(path: str, visible: frozenset[str] | None) -> bool:
    """Tell whether a canonical path names something that is never served.

    Args:
        path: Starts with a slash.
        visible: Dotfiles and dot folders that may be served; None for all of them.
    """
    match = _HIDDEN.search(path)
    if match is None:
        return False
    if match["dot"] is None:
        return True
    if visible is not None and any(name not in visible for name in _DOT_SEGMENT.findall(path)):
        return True
    # The dots are allowed: look for the other reasons behind them.
    return is_hidden(path.replace("/.", "/_"), visible)


def open_beneath(root: str, relative: str, symlinks: str, *, folder: bool = False) -> int | None:
    """Open a regular file (or a folder) of *root* for reading; None where there is none to be served.

    Args:
        root: A folder, absolute.
        relative: Canonical, starts with a slash.
        symlinks: ``none``, ``inside`` or ``all``.
        folder: Open a folder instead of a regular file.

    Raises:
        OSError: The system cannot open it now (no descriptor left, an I/O error).
    """
    path = root + relative
    is_kind = stat.S_ISDIR if folder else stat.S_ISREG
    descriptor = -1
    try:
        # First without opening: to open a device or a FIFO may already do something.
        if not is_kind(os.stat(path).st_mode):
            return None
        descriptor = os.open(path, _FLAGS | (_DIRECTORY if folder else 0))
        if is_kind(os.fstat(descriptor).st_mode) and (
            symlinks == "all" or opens_inside(descriptor, root, relative, symlinks)
        ):
            result, descriptor = descriptor, -1
            return result
        return None
    except OSError as error:
        if error.errno in _BUSY:
            raise
        return None
    except ValueError:  # a name that the file system's encoding cannot hold
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def open_again(path: str) -> int | None:
    """Open a file that has been open before; None where it is gone. The caller compares the two.

    Raises:
        OSError: The system cannot open it now.
    """
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _BUSY:
            raise
        return None


def opens_inside(descriptor: int, root: str, relative: str, symlinks: str) -> bool:
    """Tell whether an open file lies where the policy lets it lie.

    ``inside``: in *root*, however its links lead there. ``none``: under its own name, without a
    link anywhere below *root*.
    """
    real = _descriptor_path(descriptor)
    if real is None:
        return _walk_finds(descriptor, root, relative, symlinks)
    if _lies_in(real, _real_root(root), relative, symlinks):
        return True
    # The root may itself be a link that a deployment has switched.
    _real_root.cache_clear()
    return _lies_in(real, _real_root(root), relative, symlinks)


def _lies_in(real: str, real_root: str, relative: str, symlinks: str) -> bool:
    base = real_root.rstrip("/")
    if symlinks == "none":
        return real == ((base + relative).rstrip("/") or "/")
    return real == real_root or real.startswith(base + "/")


@lru_cache(maxsize=64)
def _real_root(root: str) -> str:
    return os.path.realpath(root)


def _descriptor_path(descriptor: int) -> str | None:
    """Ask the kernel for the path of an open file; None where it does not tell."""
    if _PLATFORM == "linux":
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError as error:
            if error.errno in _BUSY:
                raise
            return None
    if _PLATFORM == "darwin":  # pragma: no cover
        import fcntl

        get_path: int = getattr(fcntl, "F_GETPATH")  # noqa: B009
        return os.fsdecode(fcntl.fcntl(descriptor, get_path, b"\0" * 1024).rstrip(b"\0"))
    return None  # pragma: no cover


def _walk_finds(descriptor: int, root: str, relative: str, symlinks: str) -> bool:
    """Do the same without the kernel's help: walk to the resolved place, following no link, and compare."""
    real_root = os.path.realpath(root)
    real = os.path.realpath(root + relative)
    if not _lies_in(real, real_root, relative, symlinks):
        return False
    if os.open not in os.supports_dir_fd:  # pragma: no cover
        return os.path.samestat(os.stat(real), os.fstat(descriptor))
    names = [name for name in real[len(real_root) :].split("/") if name]
    at = os.open(real_root, _FLAGS | _DIRECTORY)
    try:
        for name in names[:-1]:
            below = os.open(name, _FLAGS | _DIRECTORY | _NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        last = os.stat(names[-1], dir_fd=at, follow_symlinks=False) if names else os.fstat(at)
        return os.path.samestat(last, os.fstat(descriptor))
    finally:
        os.close(at)


def scan(root: str, symlinks: str, visible: frozenset[str] | None) -> Iterator[tuple[str, bool]]:
    """List everything below *root* that a path can name.

    A link to a folder that it lies in is not followed, nor one behind three others: links among
    folders can name the same few files in more ways than there are atoms.

    Yields:
        The path in WSGI form (latin-1 characters that stand for UTF-8 bytes), starting with a
        slash, and whether it is a folder.
    """
    real_root = os.path.realpath(root)
    # Folder, its path in WSGI form, its real path, the real paths where links were followed on the way.
    pending: list[tuple[str, str, str, tuple[str, ...]]] = [(root, "", real_root, ())]
    while pending:
        folder, above, real, chain = pending.pop()
        try:
            entries = os.scandir(folder)
        except OSError:
            continue
        with entries:
            for entry in entries:
                name = entry.name
                if _PLAIN_NAME.fullmatch(name) is None:
                    wsgi_name = _wsgi_name(name, visible)
                    if wsgi_name is None:
                        continue
                    path = f"{above}/{wsgi_name}"
                else:
                    path = f"{above}/{name}"
                if entry.is_symlink():
                    if symlinks == "none":
                        continue
                    target = os.path.realpath(entry.path)
                    if symlinks == "inside" and not _lies_in(target, real_root, "", symlinks):
                        continue
                    trail = (*chain, real)
                    if os.path.isfile(target):
                        yield path, False
                    elif (
                        len(trail) <= _MOST_LINKS
                        and os.path.isdir(target)
                        and not any((place + "/").startswith(target.rstrip("/") + "/") for place in trail)
                    ):
                        yield path, True
                        pending.append((entry.path, path, target, trail))
                elif entry.is_dir(follow_symlinks=False):
                    yield path, True
                    pending.append((entry.path, path, f"{real}/{name}", chain))
                elif entry.is_file(follow_symlinks=False):
                    yield path, False


def _wsgi_name(name: str, visible: frozenset[str] | None) -> str | None:
    """Return *name* as a server puts it into the environ; None where no canonical path can hold it."""
    try:
        wsgi_name = name.encode("utf-8").decode("latin-1")
        check_path("/" + wsgi_name)
    except (UnicodeEncodeError, AmbiguousPathError):
        return None
    return None if is_hidden("/" + name, visible) else wsgi_name
