"""The JSON Schema of a stack file, with every installed layer and its options: for editors."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from lamella.stack.kernel.options import Kind
from lamella.stack.references import find_layer, layer_names
from lamella.stack.signatures import REQUIRED, Signature, is_typed_dict, signature, typed_dict

__all__ = ["schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXTS = {"type": "array", "items": {"type": "string"}}
_FIELDS = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION = {
    "type": ["number", "string"],
    "pattern": r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d|w))+$",
    "description": 'Seconds, or text such as "30m".',
}
_KINDS: dict[str, dict[str, Any]] = {
    "duration": _DURATION,
    "size": {
        "type": ["integer", "string"],
        "pattern": r"^[0-9]+(\.[0-9]+)? ?([kKMGT]i?B|B)$",
        "description": 'Bytes, or text such as "10 MiB".',
    },
    "cidr": {"type": "string", "description": "A network such as 10.0.0.0/8."},
    "regex": {"type": "string", "format": "regex", "description": "Matched as a whole."},
    "path": {"type": "string", "description": "A path, relative to this file."},
    "output": {"type": "string", "description": '"-" for standard output, "stderr", or a path relative to this file.'},
    "reference": {"type": "string", "description": "module:attribute, or a word that the layer knows."},
    "secret": {"$ref": "#/$defs/secret"},
    "app": {"$ref": "#/$defs/app"},
}
_SEQUENCES = (list, tuple, set, frozenset, Sequence, Iterable)


def schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of a stack file.

    Every layer that can be named shortly, ours and those of installed packages, has its options with
    types, defaults and descriptions; the options of others are not described.
    """
    names = sorted(layer_names())
    signatures = {name: found for name in names if (found := _signature(name)) is not None}
    use = {
        "description": "A short name, module:attribute, or egg:Distribution#name.",
        "anyOf": [{"enum": names}, {"type": "string", "pattern": "^(egg:.+|.+:.+)$"}],
    }
    layer = {
        "type": "object",
        "anyOf": [{"required": ["use"]}, {"required": ["id"]}],  # by its id alone, it changes a layer of the parent
        "properties": {"use": use, "id": {"$ref": "#/$defs/id"}, "when": {"$ref": "#/$defs/when"}},
        "allOf": [_conditional(name, found) for name, found in signatures.items()],
    }
    return {
        "$schema": _DIALECT,
        "title": "lamella stack file",
        "type": "object",
        "required": ["lamella"],
        "additionalProperties": False,
        "properties": {
            "lamella": {"const": 1, "description": "The version of the format."},
            "extends": {"type": "string", "description": "A parent, relative to this file."},
            "app": {"$ref": "#/$defs/application"},
            "layer": {"$ref": "#/$defs/layers"},
            "insert": {"$ref": "#/$defs/inserts"},
            "disable": _TEXTS,
            "stack": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "app": {"$ref": "#/$defs/application"},
                        "layer": {"$ref": "#/$defs/layers"},
                        "insert": {"$ref": "#/$defs/inserts"},
                        "disable": _TEXTS,
                    },
                },
            },
            "profile": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"disable": _TEXTS, "insert": {"$ref": "#/$defs/inserts"}},
                },
            },
            "expect": {"type": "array", "items": _EXPECT},
            "silence": {"type": "array", "items": _SILENCE},
            "describe": {"type": "object", "additionalProperties": _DESCRIBE},
            "budget": {"type": "object", "additionalProperties": _DURATION},
        },
        "$defs": {
            "id": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"},
            "when": _WHEN,
            "outside": _OUTSIDE,
            "secret": _SECRET,
            "app": _APP,
            "application": {
                "description": "The application inside; options go to a factory.",
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "required": ["use"], "properties": {"use": {"type": "string"}}},
                ],
            },
            "layer": layer,
            "layers": {"type": "array", "items": {"$ref": "#/$defs/layer"}},
            "inserts": {
                "type": "array",
                "items": {
                    "allOf": [{"$ref": "#/$defs/layer"}],
                    "oneOf": [{"required": ["before"]}, {"required": ["after"]}],
                },
            },
        },
    }


_WHEN: dict[str, Any] = {
    "description": "The requests that the layer is for.",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        name: {"type": "array", "minItems": 1, "items": {"type": "string"}}
        for name in ("paths", "except", "methods", "hosts")
    },
}
_OUTSIDE: dict[str, Any] = {
    "description": "A value from outside: an environment variable or a file.",
    "type": "object",
    "additionalProperties": False,
    "properties": {"env": {"type": "string"}, "file": {"type": "string"}, "default": {}},
    "oneOf": [{"required": ["env"]}, {"required": ["file"]}],
}
_SECRET: dict[str, Any] = {
    "description": "A secret: never written here but where it is declared insecure.",
    "type": "object",
    "additionalProperties": False,
    "properties": {name: {"type": "string"} for name in ("env", "file", "insecure")},
    "minProperties": 1,
    "maxProperties": 1,
}
_APP: dict[str, Any] = {
    "description": "module:attribute, @name of a sub-stack, or a table with app and what the layer does for it.",
    "anyOf": [{"type": "string"}, {"type": "object", "required": ["app"]}],
}
_EXPECT: dict[str, Any] = {
    "type": "object",
    "required": ["request"],
    "additionalProperties": False,
    "properties": {
        "request": {"type": "string", "description": 'Such as "GET /".'},
        "name": {"type": "string"},
        "headers": _FIELDS,
        "body": {"type": "string"},
        "status": {"type": ["integer", "string", "array"]},
        "present": _TEXTS,
        "absent": _TEXTS,
        "header": _FIELDS,
        "contains": {"type": ["string", "array"]},
        "json": {},
    },
}
_SILENCE: dict[str, Any] = {
    "type": "object",
    "required": ["rule", "reason"],
    "additionalProperties": False,
    "properties": {"rule": {"type": "string"}, "layer": {"type": "string"}, "reason": {"type": "string"}},
}
_DESCRIBE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"provides": _TEXTS, "requires": _TEXTS, "order": {}, "streams": {"type": ["boolean", "integer"]}},
}


def _signature(name: str) -> Signature | None:
    """The options of a layer; None where it does not tell, or cannot be imported here."""
    try:
        return signature(find_layer(name))
    except (LookupError, ValueError, ImportError):
        return None


def _conditional(name: str, known: Signature) -> dict[str, Any]:
    """What holds of a layer whose ``use`` is *name*."""
    texts = _arguments(name)
    properties: dict[str, Any] = {}
    for option, parameter in known.parameters.items():
        described = _of(parameter.hint)
        if option in texts:
            described = {**described, "description": texts[option]}
        if parameter.default is not REQUIRED and isinstance(parameter.default, (bool, int, float, str)):
            described = {**described, "default": parameter.default}
        if "secret" not in parameter.kinds:
            described = {"anyOf": [described, {"$ref": "#/$defs/outside"}]}
        properties[option] = described
    required = [option for option, parameter in known.parameters.items() if parameter.default is REQUIRED]
    then: dict[str, Any] = {"properties": properties, **({"required": required} if required else {})}
    if not known.takes_any:
        then["additionalProperties"] = False
        then["properties"] = {"use": {}, "id": {}, "when": {}, "before": {}, "after": {}, **properties}
    return {"if": {"required": ["use"], "properties": {"use": {"const": name}}}, "then": then}


def _arguments(name: str) -> dict[str, str]:
    """The ``Args:`` of a layer's docstring, each on one line."""
    text = inspect.cleandoc(find_layer(name).__doc__ or "")
    _, _, section = text.partition("\nArgs:\n")
    found: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        option, colon, meaning = line.strip().partition(": ")
        if colon and option.isidentifier() and not line.startswith("     "):
            current = option
            found[current] = meaning
        elif current:
            found[current] += " " + line.strip()
    return found


def _of(hint: Any) -> dict[str, Any]:
    """The schema of a value, from the annotation of its option."""
    origin = get_origin(hint)
    if origin is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Kind) and mark.name in _KINDS:
                return _KINDS[mark.name]
        return _of(hint.__origin__)
    if origin in (typing.Union, types.UnionType):
        members = [_of(member) for member in get_args(hint) if member is not type(None)]
        unique = [member for at, member in enumerate(members) if member not in members[:at]]
        return {} if {} in unique else unique[0] if len(unique) == 1 else {"anyOf": unique}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if is_typed_dict(hint):
        return {"type": "object", "properties": {name: _of(inner) for name, inner in typed_dict(hint).items()}}
    if origin in _SEQUENCES or hint in _SEQUENCES:
        inner = [argument for argument in get_args(hint) if argument is not ...]
        return {"type": "array", **({"items": _of(inner[0])} if inner else {})}
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        arguments = get_args(hint)
        return {"type": "object", **({"additionalProperties": _of(arguments[1])} if len(arguments) == 2 else {})}
    simple = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": simple[hint]} if hint in simple else {}
