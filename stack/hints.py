"""Annotations of options: their structure, and in words what they accept in a stack file."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lamella.stack.kernel.options import Kind
from lamella.stack.signatures import is_typed_dict, marks

__all__ = [
    "MAPPINGS",
    "SEQUENCES",
    "SETS",
    "WORDS",
    "describe",
    "members",
    "rank",
    "takes_secret",
    "takes_table",
    "toml_text",
]

SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Container,
)
SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

WORDS = {
    "duration": 'a duration such as "30m"',
    "size": 'a size such as "10 MiB"',
    "cidr": 'a network such as "10.0.0.0/8"',
    "regex": "a regular expression",
    "path": "a path",
    "output": '"-" (standard output), "stderr" or a path',
    "secret": '{ env = "NAME" } or { file = "path" }',
    "reference": 'a reference such as "package.module:attribute"',
    "app": 'an app ("module:attribute" or "@sub-stack")',
}
_PLAIN = {str: "text", bytes: "text", bool: "true or false", int: "a whole number", float: "a number"}


def describe(hint: Any) -> str:
    """Return what *hint* accepts in a stack file, as the end of "expected …"."""
    words = list(dict.fromkeys(_describe(hint)))
    return " or ".join(words) or "nothing that a stack file can say"


def _describe(hint: Any) -> Iterator[str]:
    origin = get_origin(hint)
    if origin is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Kind):
                yield WORDS.get(mark.name, mark.name)
                return
        yield from _describe(hint.__origin__)
    elif origin in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _describe(member)
    elif origin is Literal:
        yield "one of " + ", ".join(toml_text(value) for value in get_args(hint) if value is not None)
    elif origin is tuple and Ellipsis not in get_args(hint):
        yield f"a list of {len(get_args(hint))} values"
    elif origin in SEQUENCES or origin in SETS or origin is tuple:
        inner = [member for member in get_args(hint) if member is not Ellipsis]
        yield f"a list of {_plural(inner[0])}" if inner and inner[0] is not Any else "a list"
    elif hint in SEQUENCES or hint in SETS or hint is tuple:
        yield "a list"
    elif origin in MAPPINGS or hint in MAPPINGS or is_typed_dict(hint):
        yield "a table"
    elif hint in _PLAIN:
        yield _PLAIN[hint]
    elif hint is type(None) or hint is None:
        return
    elif origin is collections.abc.Callable or hint is collections.abc.Callable:
        yield WORDS["reference"]
    elif hint is Any or hint is object:
        yield "any value"
    else:
        yield f"a value of type {getattr(hint, '__name__', hint)}"


def _plural(hint: Any) -> str:
    if "secret" in marks(hint):
        return "them"
    return {str: "text", int: "whole numbers", float: "numbers"}.get(hint) or describe(hint)


def toml_text(value: object) -> str:
    """Show a value as a stack file would have it, on one short line."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, list):
        text = "[" + ", ".join(map(toml_text, value)) + "]"
    elif isinstance(value, dict):
        text = "{ " + ", ".join(f"{key} = {toml_text(inner)}" for key, inner in value.items()) + " }" if value else "{}"
    else:
        text = str(value)
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= 60 else text[:59] + "…"


def members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def takes_secret(hint: Any) -> bool:
    """Tell whether one secret, not only a list of them, fits."""
    return any(
        get_origin(member) is Annotated and any(isinstance(m, Kind) and m.name == "secret" for m in member.__metadata__)
        for member in members(hint)
    )


def takes_table(hint: Any) -> bool:
    return any(
        member in (Any, object) or get_origin(member) in MAPPINGS or member in MAPPINGS or is_typed_dict(member)
        for member in members(hint)
    )


def rank(hint: Any) -> int:
    """Order in which the members of a union are tried: the narrow ones first."""
    if get_origin(hint) is Annotated:
        marks = [mark.name for mark in hint.__metadata__ if isinstance(mark, Kind)]
        return 1 if marks and marks[0] not in ("reference",) else 2
    if get_origin(hint) is Literal:
        return 0
    return 9 if hint in (Any, object) else 3
