"""Patterns for paths and hosts, as scopes, CORS policies and access rules are written.

A path pattern starts with a slash. ``*`` stands for anything within one segment; ``/*`` at
the end for the path itself and everything below it; ``**`` for any number of segments. It is
compared with the canonical path. A host pattern is a host, or ``*.`` and a host for all
below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .http import parse_host

__all__ = ["host_matcher", "is_host_pattern", "is_path_pattern", "path_matcher", "specificity"]

_UNCLEAR = re.compile(r"//|/\.{1,2}(?=/|\Z)|[\\\x00-\x1f\x7f?#]|\*\*\*")
_WILDCARD = re.compile(r"(/\*\*(?=/|\Z)|\*+)")


def is_path_pattern(text: str) -> bool:
    """Tell whether *text* is a path pattern."""
    return text.startswith("/") and _UNCLEAR.search(text) is None


def path_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a predicate on canonical paths.

    Args:
        patterns: Any number of path patterns; one of them must match. The mount itself,
            whose canonical path is empty, counts as ``/``.
    """
    # One expression; no part of it backtracks over another, so it is linear.
    match = re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL).fullmatch

    def matches(path: str) -> bool:
        return match(path or "/") is not None

    return matches


def specificity(pattern: str) -> tuple[int, int]:
    """Return a key by which the more specific of two path patterns is greater."""
    literal = _WILDCARD.split(pattern, maxsplit=1)[0]
    return (1 if literal == pattern else 0, len(literal))


def _expression(text: str) -> str:
    if text in ("/*", "/**"):
        return ".*"
    below = text.endswith(("/*", "/**"))
    body = text[: text.rindex("/")] if below else text
    parts = []
    for piece in _WILDCARD.split(body):
        if piece == "/**":
            parts.append("(?:/[^/]+)*")
        elif piece.startswith("*"):
            parts.append("[^/]*")
        else:
            parts.append(re.escape(piece))
    return "".join(parts) + ("(?:/.*)?" if below else "")


def is_host_pattern(text: str) -> bool:
    """Tell whether *text* is a host without port, or ``*.`` and a host."""
    host = parse_host(text.removeprefix("*."))
    return host is not None and host.port is None


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
