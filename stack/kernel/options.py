"""Types of options, for annotations, and the functions that check them in ``__init__``.

A layer annotates an option with one of the aliases (``Duration``, ``Size``, ``Regex`` …) and
calls the function of the same name in lower case; so the option takes the same values from
Python and from the stack file, and the loader knows what it is: it resolves a ``FilePath``
relative to the stack file, masks a ``SecretValue``, imports a ``Reference``.

Each function takes the option's name first and raises
:class:`~lamella.stack.kernel.errors.ConfigError` with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_network
from os import PathLike, fsencode, fspath
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from .errors import ConfigError
from .http import is_token

__all__ = [
    "App",
    "Cidr",
    "Duration",
    "FilePath",
    "Kind",
    "Output",
    "Reference",
    "Regex",
    "Secret",
    "SecretValue",
    "Size",
    "choice",
    "cidr",
    "duration",
    "file_path",
    "flag",
    "header_name",
    "one_line",
    "reference",
    "reference_parts",
    "regex",
    "secret",
    "size",
    "strings",
    "whole_number",
]

T = TypeVar("T")


class Kind:
    """Marks an annotation, so that the loader knows how a value of the stack file is meant.

    Args:
        name: ``duration``, ``size``, ``cidr``, ``regex``, ``path``, ``output``, ``secret``, ``reference``, ``app``.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"


class Secret:
    """A value that is never shown: ``repr`` and ``str`` give ``***``.

    Args:
        value: The secret; text is encoded as UTF-8.
        source: Where it came from, such as ``env SHOP_KEY``; may be shown.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str | bytes, source: str = "") -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)
        self.source = source

    def reveal(self) -> bytes:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


#: Seconds, or text such as ``"30m"``, ``"1h30m"``, ``"500ms"``, ``"5us"``.
Duration: TypeAlias = Annotated[float | str | timedelta, Kind("duration")]
#: Bytes, or text such as ``"500 B"``, ``"64 KiB"``, ``"10 MB"``.
Size: TypeAlias = Annotated[int | str, Kind("size")]
#: A network such as ``"10.0.0.0/8"`` or a single address.
Cidr: TypeAlias = Annotated[str | IPv4Network | IPv6Network, Kind("cidr")]
#: A regular expression, always matched as a whole.
Regex: TypeAlias = Annotated[str | re.Pattern[str], Kind("regex")]
#: A path; in a stack file relative to that file.
FilePath: TypeAlias = Annotated[str | PathLike[str], Kind("path")]
#: Where lines go: ``"-"`` for standard output, ``"stderr"``, else a path (in a stack file relative to
#: that file); in Python also an open text stream.
Output: TypeAlias = Annotated[Any, Kind("output")]
#: A secret; in a stack file ``{ env = "NAME" }``, ``{ file = "path" }`` or ``{ insecure = "text" }``.
SecretValue: TypeAlias = Annotated[str | bytes | Secret, Kind("secret")]
#: A WSGI application, or where it is: ``"module:attribute"``, in a stack file also ``"@name"``.
App: TypeAlias = Annotated[Any, Kind("app")]
#: An object, or where to import it from: ``"module:attribute"``.
Reference: TypeAlias = Annotated[Any, Kind("reference")]

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d|w)")
# What no name has.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECONDS: Final = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# No file and no memory is larger.
_MOST_BYTES: Final = 2**63
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKMGT]i?B|B)")
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "kiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def duration(option: str, value: Duration) -> float:
    """Return *value* in seconds, finite and not negative."""
    expected = 'seconds or a duration such as "30m", "1h30m", "500ms"'
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        parts = _DURATION_PART.findall(value)
        if not parts or value != "".join(number + unit for number, unit in parts):
            raise ConfigError(option, value, expected)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise ConfigError(option, value, expected)
    if not 0 <= seconds < 1e11:  # also refuses NaN
        raise ConfigError(option, value, expected)
    return seconds


def size(option: str, value: Size) -> int:
    """Return *value* in bytes, not negative. ``kB`` is 1000 bytes, ``KiB`` is 1024."""
    expected = 'bytes or a size such as "500 B", "64 KiB", "10 MB"'
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ConfigError(option, value, expected)
        octets = float(match[1]) * _BYTES[match[2]]
        if not octets < _MOST_BYTES:
            raise ConfigError(option, value, expected + ", less than 8 EiB")
        return int(octets)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_BYTES:
        raise ConfigError(option, value, expected)
    return value


def cidr(option: str, value: Cidr) -> IPv4Network | IPv6Network:
    """Return *value* as a network; a single address is a network of one."""
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if isinstance(value, str):
        try:
            return ip_network(value)
        except ValueError:
            pass
    raise ConfigError(option, value, 'a network such as "10.0.0.0/8", with no bits set after the mask')


def regex(option: str, value: Regex) -> re.Pattern[str]:
    """Return *value* compiled; use its ``fullmatch`` only."""
    if isinstance(value, re.Pattern):
        return value
    if isinstance(value, str):
        try:
            return re.compile(value)
        except re.error as error:
            raise ConfigError(option, value, f"a regular expression ({error})") from None
    raise ConfigError(option, value, "a regular expression")


def file_path(option: str, value: FilePath) -> Path:
    """Return *value* as an absolute path; nothing is opened."""
    text = fspath(value) if isinstance(value, (str, PathLike)) else ""
    if not isinstance(text, str) or not text or _CONTROL.search(text) is not None or not _is_encodable(text):
        raise ConfigError(option, value, "a path")
    return Path(text).absolute()


def _is_encodable(text: str) -> bool:
    """Tell whether the file system can have such a name; a surrogate may stand for an octet of it."""
    try:
        fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def secret(option: str, value: SecretValue, *, at_least: int = 32) -> bytes:
    """Return the bytes of a secret.

    Args:
        option: Name of the option.
        value: The secret; never shown, also not in the error.
        at_least: Fewest bytes accepted; 32 are the output of HMAC-SHA256 (RFC 2104 section 3).
    """
    hidden = Secret(b"")
    if not isinstance(value, (str, bytes, Secret)):
        raise ConfigError(option, hidden, "text or bytes")
    try:
        octets = (value if isinstance(value, Secret) else Secret(value)).reveal()
    except UnicodeEncodeError:  # the error would quote the secret
        raise ConfigError(option, hidden, "text that has a form in UTF-8, or bytes") from None
    if len(octets) < at_least:
        raise ConfigError(option, hidden, f"at least {at_least} bytes of secret (it has {len(octets)})")
    if len(set(octets)) < min(at_least, 8) // 2:
        raise ConfigError(option, hidden, "a random secret (this one repeats a few characters)")
    return octets


def reference_parts(text: str) -> tuple[str, list[str]] | None:
    """Split ``module:attribute`` or ``module:attribute()``; None where *text* has another form.

    Returns:
        The module, and the names that lead from it to the attribute.
    """
    module, _, attribute = text.removesuffix("()").partition(":")
    names = attribute.split(".")
    return (module, names) if all(name.isidentifier() for name in (*module.split("."), *names)) else None


def reference(option: str, value: object) -> Any:
    """Return the object that ``"module:attribute"`` names, or *value* itself where it is no text.

    Raises:
        ConfigError: The module cannot be imported, or has no such attribute.
    """
    if not isinstance(value, str):
        return value
    module_name, colon, attributes = value.partition(":")
    if not (colon and module_name and attributes) or module_name.startswith("."):
        raise ConfigError(option, value, 'a reference such as "package.module:attribute"')
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ConfigError(option, value, f"a module that can be imported (no module named {error.name!r})") from None
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ConfigError(option, value, f"an attribute of {module_name} ({attribute!r} is none)") from None
    return found


def choice(option: str, value: T, allowed: Iterable[T]) -> T:
    """Return *value*, one of *allowed*."""
    choices = tuple(allowed)
    if value not in choices:
        raise ConfigError(option, value, "one of " + ", ".join(map(repr, choices)))
    return value


def strings(
    option: str, value: Iterable[str], check: Callable[[str], bool] | None = None, of: str = "text"
) -> tuple[str, ...]:
    """Return a collection of strings as a tuple.

    A lone ``str`` is refused, it would iterate letter by letter; so is a table, whose values would be lost.

    Args:
        option: Name of the option.
        value: The collection; copied.
        check: Accepts one element.
        of: What *check* accepts, for the error.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigError(option, value, f"a list of {of}")
    items = tuple(value)
    for item in items:
        if not isinstance(item, str) or (check is not None and not check(item)):
            raise ConfigError(option, item, f"a list of {of}")
    return items


def flag(option: str, value: bool) -> bool:
    """Return *value*, true or false and nothing that merely counts as one: ``"false"`` would be true."""
    if not isinstance(value, bool):
        raise ConfigError(option, value, "true or false")
    return value


def whole_number(option: str, value: int, least: int, most: int, of: str = "a number") -> int:
    """Return *value*, a whole number from *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(option, value, f"{of} from {least} to {most}")
    return value


def one_line(option: str, value: str, of: str = "text") -> str:
    """Return *value*, text on one line: not empty, and without control characters."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigError(option, value, f"{of} on one line, not empty")
    return value


def header_name(option: str, value: str) -> str:
    """Return *value*, the name of a header."""
    if not isinstance(value, str) or not is_token(value) or len(value) > 256:
        raise ConfigError(option, value, "a header name")
    return value
