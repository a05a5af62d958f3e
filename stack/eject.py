"""The same stack as plain nested Python: no stack file, no loader, only the layers' classes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePath
from typing import Any

from lamella.stack.build import Layer, Stack
from lamella.stack.kernel.errors import LamellaError
from lamella.stack.kernel.options import Secret
from lamella.stack.references import PasteApp, PasteFilter

__all__ = ["EjectError", "eject"]

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_WIDTH = 120
#: Names that the written module uses itself.
_TAKEN = frozenset({"app", "application", "inner"})


class EjectError(LamellaError, ValueError):
    """A value of the stack has no form as Python source."""


def eject(stack: Stack) -> str:
    """Return a Python module whose ``application`` answers as *stack* does.

    A secret from the environment or a file is read there when the module is imported; one that
    stands in the stack file (``insecure``) stands in the module.

    Raises:
        EjectError: An option holds an object that no import leads to.
    """
    return _Writer().module(stack)


class _Writer:
    """Collects imports while it writes."""

    def __init__(self) -> None:
        self._imports: dict[str, set[str]] = {"wsgiref.types": {"WSGIApplication"}}
        self._modules: set[str] = set()
        self._functions: dict[int, str] = {}

    def module(self, stack: Stack) -> str:
        functions = []
        # Inner stacks first, so that each function stands before its first use.
        for sub_stack in reversed([one for one in stack.walk() if one is not stack]):
            name = _identifier(f"make_{sub_stack.name}")
            self._functions[id(sub_stack)] = name
            functions.append(self._function(name, sub_stack))
        functions.append(self._function("make_application", stack))
        head = f'"""The stack of {stack.file or "this project"} as plain Python: the outermost layer stands last."""'
        parts = [head, "", "from __future__ import annotations", "", *self._import_lines(), "", ""]
        parts += ["\n\n\n".join(functions), "", "", "application = make_application()", ""]
        return "\n".join(parts)

    def _import_lines(self) -> list[str]:
        plain = [f"import {name}" for name in sorted(self._modules)]
        froms = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self._imports.items())]
        return [*plain, *froms]

    def _function(self, name: str, stack: Stack) -> str:
        lines = [f"def {name}() -> WSGIApplication:"]
        if stack.name:  # mounted twice, it is still one
            self._imports.setdefault("functools", set()).add("cache")
            lines.insert(0, "@cache")
        described = f"The sub-stack @{stack.name}." if stack.name else "The whole stack, from the inside out."
        lines.append(f'    """{described}"""')
        lines.append(f"    app: WSGIApplication = {self._value(stack.app, stack.application.use)}")
        for layer in reversed(stack.layers):
            lines += self._layer(layer)
        lines.append("    return app")
        return "\n".join(lines)

    def _layer(self, layer: Layer) -> list[str]:
        factory = self._factory(layer)
        inner = "app"
        lines = []
        if layer.when is not None:
            self._imports.setdefault("lamella.stack.scope", set()).add("When")
            inner = "inner"
            lines.append("    inner = app")
        arguments = [inner]
        more = []
        for option, value in layer.options.items():
            text = self._option(layer, option, value)
            if option.isidentifier():
                arguments.append(f"{option}={text}")
            else:
                more.append(f"{option!r}: {text}")
        if more:
            arguments.append(f"**{{{', '.join(more)}}}")
        lines += _call(factory, arguments)
        if layer.when is not None:
            scope = self._value(layer.when.as_dict())
            lines.append(f"    app = When(**{scope}).wrap(app, inner)")
        return lines

    def _factory(self, layer: Layer) -> str:
        if isinstance(layer.factory, (PasteFilter, PasteApp)):
            self._imports.setdefault("lamella.stack.references", set()).add("find_layer")
            return f"find_layer({layer.use!r})"
        return self._object(layer.factory, layer.use)

    def _option(self, layer: Layer, option: str, value: Any) -> str:
        origin = layer.origins.get(option)
        if isinstance(value, str) and origin is not None and origin.kind == "env" and origin.detail:
            return self._environ(origin.detail)
        return self._value(value)

    def _environ(self, name: str) -> str:
        self._modules.add("os")
        return f"os.environ[{_quoted(name)}]"

    def _value(self, value: Any, use: str = "") -> str:
        """One value as source."""
        if isinstance(value, Secret):
            return self._secret(value)
        if isinstance(value, str):
            return _quoted(str(value))
        if value is None or type(value) in (bool, int, float, bytes):
            return repr(value)
        if isinstance(value, Stack):
            return f"{self._functions[id(value)]}()"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{self._value(key)}: {self._value(item)}" for key, item in value.items()) + "}"
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._collection(value)
        if isinstance(value, re.Pattern):
            self._modules.add("re")
            return f"re.compile({value.pattern!r}, {int(value.flags)})"
        if isinstance(value, (IPv4Network, IPv6Network)):
            return _quoted(str(value))
        if isinstance(value, PurePath):
            return _quoted(str(value))
        if isinstance(value, timedelta):
            return repr(value.total_seconds())
        return self._object(value, use)

    def _collection(self, value: Iterable[Any]) -> str:
        items = ", ".join(map(self._value, value))
        if isinstance(value, list):
            return f"[{items}]"
        if isinstance(value, tuple):
            return f"({items},)" if items else "()"
        return f"frozenset([{items}])" if isinstance(value, frozenset) else f"set([{items}])"

    def _secret(self, secret: Secret) -> str:
        kind, _, detail = secret.source.partition(" ")
        if kind == "env":
            return self._environ(detail)
        if kind == "file":
            self._imports.setdefault("pathlib", set()).add("Path")
            return f'Path({_quoted(detail)}).read_text(encoding="utf-8").removesuffix("\\n")'
        # It stands in the stack file, declared insecure; so it does here.
        return _quoted(secret.reveal().decode("utf-8", "surrogateescape"))

    def _object(self, value: Any, use: str) -> str:
        """An object that an import leads to: its class or function, or the name it was found under."""
        module, _, attribute = use.partition(":")
        call = attribute.endswith("()")
        attribute = attribute.removesuffix("()")
        if not attribute or not _MODULE.fullmatch(module):
            module, attribute = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        if not module or not attribute or "<" in attribute:
            raise EjectError(f"{value!r} has no name that can be imported; give it one in a module of yours")
        first = attribute.partition(".")[0]
        self._imports.setdefault(module, set()).add(first)
        others = [name for name, names in self._imports.items() if first in names and name != module]
        if others or first in _TAKEN:
            self._imports[module].discard(first)
            if not self._imports[module]:
                del self._imports[module]
            self._modules.add(module)
            attribute = f"{module}.{attribute}"
        return attribute + ("()" if call else "")


def _call(factory: str, arguments: list[str]) -> list[str]:
    """One assignment, on several lines where it is long."""
    line = f"    app = {factory}({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return [line]
    written = []
    for argument in arguments:
        line = f"        {argument},"
        written += [line] if len(line) <= _WIDTH else _broken(argument)
    return [f"    app = {factory}(", *written, "    )"]


def _broken(argument: str) -> list[str]:
    """An argument whose dictionary or list is too long for a line: one item on each."""
    start = next((at for at, mark in enumerate(argument) if mark in "{["), None)
    if start is None:
        return [f"        {argument},"]
    items, depth, begin, quote = [], 0, start + 1, False
    for at in range(start, len(argument)):
        mark = argument[at]
        if mark == '"' and argument[at - 1] != "\\":
            quote = not quote
        if quote:
            continue
        depth += (mark in "{[(") - (mark in "}])")
        if (depth == 1 and mark == ",") or depth == 0:
            items.append(argument[begin:at].strip())
            begin = at + 1
    body = [f"            {item}," for item in items if item]
    return [f"        {argument[: start + 1]}", *body, f"        {argument[-1]},"]


def _quoted(text: str) -> str:
    """Text as source, in double quotes."""
    return json.dumps(text, ensure_ascii=True)


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)
