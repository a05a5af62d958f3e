"""Patterns for paths and hosts, as scopes, CORS policies and access rules are written.

A path pattern starts with a slash. ``*`` stands for anything within one segment; ``/*`` at
the end for the path itself and everything below it; ``**`` for any number of segments. It is
compared with the canonical path, on segment borders:

=============  ==================================================================
``/admin/*``   ``/admin``, ``/admin/`` and everything below, not ``/adminx``
``/*/edit``    ``*`` stands for anything within one segment: ``/notes/edit``
``/*.css``     also for a part of one: ``/site.css``, not ``/theme/site.css``
``/**/edit``   ``**`` stands for any number of segments: ``/edit``, ``/a/b/edit``
``/*``         everything
=============  ==================================================================

A host pattern is a host, or ``*.`` and a host for all below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .errors import ConfigError
from .http import parse_host
from .late import late_pattern
from .options import strings

__all__ = [
    "compile_paths",
    "host_matcher",
    "is_host_pattern",
    "is_path_pattern",
    "path_matcher",
    "read_policies",
    "specificity",
]

T = TypeVar("T")

# What the canonical path never has, so that a pattern with it would never match; and what looks like a query.
_IMPOSSIBLE = late_pattern(r"//|/\.{1,2}(?=/|\Z)|[\\?#\x00-\x1f\x7f-\x9f]|%[0-9A-Fa-f]{2}|\*\*\*")
_WILDCARD = late_pattern(r"(/\*\*(?=/|\Z)|\*+)")


def is_path_pattern(text: str) -> bool:
    """Tell whether *text* is a path pattern."""
    return text.startswith("/") and _IMPOSSIBLE.search(text) is None


def path_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate on canonical paths.

    Args:
        patterns: Any number of path patterns; one of them must match. The mount itself,
            whose canonical path is empty, counts as ``/``.
    """
    match = compile_paths(patterns).fullmatch

    def matches(path: str) -> bool:
        return match(path or "/") is not None

    return matches


def compile_paths(patterns: Iterable[str], *, either_slash: bool = False, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile path patterns to one expression; no part of it backtracks over another, so it is linear.

    Args:
        patterns: Any number of them; one must match the whole path.
        either_slash: ``/admin`` and ``/admin/`` are the same.
        ignore_case: Letters match in either case.
    """
    expressions = [_expression(pattern, either_slash) for pattern in patterns]
    return re.compile("|".join(expressions) or r"(?!)", re.DOTALL | re.IGNORECASE if ignore_case else re.DOTALL)


def specificity(pattern: str) -> tuple[int, int]:
    """Return a key by which the more specific of two path patterns is greater."""
    literal = _WILDCARD.split(pattern, maxsplit=1)[0]
    return (1 if literal == pattern else 0, len(literal))


def _expression(text: str, either_slash: bool) -> str:
    if text in ("/*", "/**"):
        return ".*"
    below = text.endswith(("/*", "/**"))
    end = "(?:/.*)?" if below else "/?" if either_slash else ""
    body = text[: text.rindex("/")] if below else text.rstrip("/") if either_slash else text
    parts = []
    for piece in _WILDCARD.split(body):
        if piece == "/**":
            parts.append("(?:/[^/]+)*")
        elif piece.startswith("*"):
            parts.append("[^/]*")
        else:
            parts.append(re.escape(piece))
    return "".join(parts) + end


def read_policies(
    option: str, tables: Iterable[Mapping[str, Any]], keys: Iterable[str], make: Callable[[Mapping[str, Any]], T]
) -> list[tuple[Callable[[str], bool], T]]:
    """Read an option that holds other rules for some paths.

    Args:
        option: Its name.
        tables: Each with ``paths`` (path patterns) and any of *keys*.
        keys: What a table may hold besides ``paths``.
        make: Makes the rules of one table, without its ``paths``.

    Returns:
        A predicate on canonical paths and the rules, for each pattern; the most specific first.

    Raises:
        ConfigError: A table has no paths, an unknown key, or a pattern that another one has.
    """
    if isinstance(tables, (str, bytes, Mapping)) or not isinstance(tables, Iterable):
        raise ConfigError(option, tables, "a list of tables, each with paths")
    known = ("paths", *keys)
    found: dict[str, T] = {}
    for number, table in enumerate(tables):
        name = f"{option}[{number}]"
        if not isinstance(table, Mapping) or "paths" not in table:
            raise ConfigError(name, table, "a table with paths")
        for key in table:
            if key not in known:
                raise ConfigError(name, key, "the keys " + ", ".join(known))
        paths = strings(f"{name}.paths", table["paths"], is_path_pattern, 'path patterns such as "/api/*"')
        if not paths:
            raise ConfigError(f"{name}.paths", [], "at least one path pattern")
        rules = make({key: value for key, value in table.items() if key != "paths"})
        for path in paths:
            if path in found:
                raise ConfigError(f"{name}.paths", path, "each path pattern once")
            found[path] = rules
    ordered = sorted(found, key=specificity, reverse=True)
    return [(path_matcher([path]), found[path]) for path in ordered]


def is_host_pattern(text: str) -> bool:
    """Tell whether *text* is a host without port, or ``*.`` and a host."""
    name = text.removeprefix("*.")
    host = parse_host(name)
    return host is not None and host.port is None and "*" not in name


def host_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate on hosts as :func:`~lamella.stack.kernel.http.parse_host` gives them.

    A trailing dot means nothing.
    """
    names = [pattern.lower().removesuffix(".") for pattern in patterns]
    exact = frozenset(name for name in names if not name.startswith("*."))
    suffixes = tuple(name[1:] for name in names if name.startswith("*."))

    def matches(host: str) -> bool:
        host = host.removesuffix(".")
        return host in exact or (bool(suffixes) and host.endswith(suffixes))

    return matches
