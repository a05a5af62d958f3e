"""Find a secret key that a module makes at random, by reading its source; the module is not imported."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["RandomKey", "random_key"]


class RandomKey(NamedTuple):
    """A key made at random: its name, the function that makes it, and where."""

    name: str
    call: str
    file: str
    line: int


_RANDOM = frozenset(
    ("urandom", "token_bytes", "token_hex", "token_urlsafe", "uuid4", "uuid1", "get_random_secret_key", "randbytes",
     "getrandbits", "generate_key")
)  # fmt: skip


def random_key(module_name: str) -> RandomKey | None:
    """Find a secret key that the source of a module makes at random.

    What is only the fallback of a configured key does not count.
    """
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if not file:
        try:
            spec = find_spec(module_name)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec is not None else None
    if not file or not file.endswith(".py"):
        return None
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        for name, value in _assigned(node):
            if not name.lower().endswith(("secret_key", "secretkey")):
                continue
            functions = [one.func for one in ast.walk(value) if isinstance(one, ast.Call)]
            calls = [getattr(function, "attr", getattr(function, "id", "")) for function in functions]
            random = next((call for call in calls if call in _RANDOM), None)
            # `os.environ.get("KEY") or os.urandom(24)`: what is configured counts, the rest is for development.
            chosen = any(isinstance(one, (ast.BoolOp, ast.IfExp)) for one in ast.walk(value))
            if random is not None and not chosen and not {"get", "getenv", "setdefault"} & set(calls):
                return RandomKey(name, random, os.path.basename(file), value.lineno)
    return None


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a piece of source gives a value, and the values."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value), node.value
            else:
                yield getattr(target, "attr", getattr(target, "id", "")), node.value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value
