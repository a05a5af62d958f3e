"""Header fields by the name of a file: type, caching, and the user's own rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import HOP_BY_HOP
from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.options import regex
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.response import Headers, check_header, set_header

from ._static_types import type_of

__all__ = ["Rules", "header_rules", "immutable_test"]

#: RFC 9111 section 5.2.2 and RFC 8246; a year is what every cache takes for "for ever".
FOREVER = "public, max-age=31536000, immutable"

# What `lamella static build`, webpack, Vite, esbuild and Rollup put between name and extension.
_HASHED = late_pattern(r"(?:.*/)?[^/]+[.-](?=[0-9A-Za-z_-]*[0-9])[0-9A-Za-z_-]{8,64}\.[^/]+")

# What the layer itself must say truly.
_OWN = HOP_BY_HOP | {
    "content-length",
    "content-encoding",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
    "vary",
    "date",
}


class Rules(Record):
    """What decides the fields of a file, besides its size and dates."""

    types: Mapping[str, str]
    charset: str
    cache_control: str
    is_immutable: Callable[[str], bool] | None
    headers: tuple[tuple[re.Pattern[str], Headers], ...]

    def __call__(self, relative: str) -> Headers:
        """Return the fields of the file *relative* (which starts with a slash), its type first."""
        name = relative.rpartition("/")[2]
        fields: Headers = [("Content-Type", type_of(name, self.types, self.charset))]
        forever = self.is_immutable is not None and self.is_immutable(relative[1:])
        fields.append(("Cache-Control", FOREVER if forever else self.cache_control))
        fields.append(("X-Content-Type-Options", "nosniff"))
        for pattern, own in self.headers:
            if pattern.fullmatch(relative) is not None:
                for field, value in own:
                    fields = set_header(fields, field, value)
        fields.sort(key=lambda header: header[0].lower() != "content-type")
        return fields


def immutable_test(option: str, value: object) -> Callable[[str], bool] | None:
    """Return the function that recognises hashed names by the path below the prefix.

    Args:
        option: Name of the option, for the error.
        value: A callable; a regular expression, which must match the whole path or the whole
            name; True for the names that ``lamella static build`` and the bundlers give.

    Raises:
        ConfigError: It is none of these.
    """
    if value is None or value is False:
        return None
    if value is True:
        return lambda path: _HASHED.fullmatch(path) is not None
    if callable(value):
        return cast("Callable[[str], bool]", value)
    if not isinstance(value, (str, re.Pattern)):
        raise ConfigError(option, value, "true, a regular expression, or a callable that takes the path")
    pattern = regex(option, value)

    def matches(path: str) -> bool:
        name = path.rpartition("/")[2]
        return any(pattern.fullmatch(text) is not None for text in (name, path, "/" + path))

    return matches


def header_rules(option: str, value: object) -> tuple[tuple[re.Pattern[str], Headers], ...]:
    """Return patterns and their fields, in the order in which they are applied.

    Args:
        option: Name of the option, for the error.
        value: Pattern to fields. ``*`` stands for any characters but a slash, ``**`` for any at
            all, ``?`` for one. A pattern without a slash is for names in every folder.

    Raises:
        ConfigError: Malformed, or a field that the layer itself must set.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(option, value, 'a mapping such as { "*.woff2" = { Access-Control-Allow-Origin = "*" } }')
    rules = []
    for pattern, fields in value.items():
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(option, pattern, "a pattern such as '*.woff2' or '/fonts/**'")
        if not isinstance(fields, Mapping):
            raise ConfigError(option, fields, f"the header fields for {pattern!r}")
        own: Headers = []
        for name, text in fields.items():
            try:
                own.append(check_header(name, text))
            except (ValueError, TypeError):
                raise ConfigError(option, {name: text}, "a header name and its value") from None
            if name.lower() in _OWN:
                raise ConfigError(option, name, "a header that the layer does not set itself")
        rules.append((_glob(pattern), own))
    return tuple(rules)


def _glob(pattern: str) -> re.Pattern[str]:
    """Compile a pattern for the path below the prefix, which starts with a slash."""
    if "/" not in pattern:
        pattern = "/**" + pattern if pattern.startswith("*") else "/**/" + pattern
    elif not pattern.startswith("/"):
        pattern = "/" + pattern
    parts = []
    for piece in re.split(r"(/\*\*/|\*\*|\*|\?)", pattern):
        parts.append({"/**/": "/(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece) or re.escape(piece))
    return re.compile("".join(parts))
