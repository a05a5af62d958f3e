"""A stack as plain data, for showing: as a tree, as JSON, as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.tree import Tree

    from lamella.stack.build import Layer, Stack

__all__ = ["describe", "mounts", "tree"]


def describe(stack: Stack) -> dict[str, Any]:
    """Return the stack as JSON-ready data; secrets are masked.

    Returns:
        ``name``, ``file``, ``profile``, ``layers`` (outermost first; each with ``id``, ``use``,
        ``when``, ``at``, ``options``) and ``app``. An option that mounts a sub-stack has it as ``stack``.
    """
    inside = _stack_of(stack.app)
    return {
        "name": stack.name,
        "file": stack.file,
        "profile": stack.profile,
        "layers": [_describe_layer(layer) for layer in stack.layers],
        "app": {"use": stack.application.use, "stack": describe(inside) if inside is not None else None},
    }


def _describe_layer(layer: Layer) -> dict[str, Any]:
    return {
        "id": layer.id,
        "use": layer.use,
        "at": f"{layer.file}:{layer.line}" if layer.file else "",
        "when": layer.when.as_dict() if layer.when is not None else None,
        "options": [
            {
                "name": setting.name,
                "value": setting.shown if setting.is_secret else _plain(setting.value),
                "origin": str(setting.origin),
                "is_default": setting.origin.kind == "default",
            }
            for setting in layer.settings
        ],
        "mounts": {prefix: describe(sub_stack) for prefix, sub_stack in mounts(layer)},
    }


def mounts(layer: Layer) -> Iterator[tuple[str, Stack]]:
    """Yield the sub-stacks that a layer's options hold, each with the prefix or option that holds it."""
    for name, value in layer.options.items():
        if isinstance(value, Mapping):
            for prefix, item in value.items():
                found = _stack_of(item) or (_stack_of(item.get("app")) if isinstance(item, Mapping) else None)
                if found is not None:
                    yield str(prefix), found
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                if (found := _stack_of(item)) is not None:
                    yield f"{name}[{number}]", found
        elif (found := _stack_of(value)) is not None:
            yield name, found


def _stack_of(value: object) -> Stack | None:
    """*value* itself, where it is a stack."""
    from lamella.stack.build import Stack

    return value if isinstance(value, Stack) else None


def _plain(value: Any) -> Any:
    """A value as JSON has it; what has no such form is shown as Python shows it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    sub_stack = _stack_of(value)
    if sub_stack is not None:
        return f"@{sub_stack.name}"
    return getattr(value, "__qualname__", None) or str(value)


def tree(stack: Stack, *, defaults: bool = False) -> Tree:
    """Draw the stack: outermost at the top, each option with its origin.

    Args:
        stack: The stack.
        defaults: Show also the options that were left at their defaults.
    """
    from rich.text import Text
    from rich.tree import Tree

    data = describe(stack)
    title = Text(data["file"] or "stack", style="bold")
    if data["profile"]:
        title.append(f"  profile {data['profile']}", style="magenta")
    root = Tree(title, guide_style="dim")
    _grow(root, data, defaults)
    return root


def _grow(branch: Tree, data: dict[str, Any], defaults: bool) -> None:
    from rich.text import Text

    for layer in data["layers"]:
        head = Text(layer["id"], style="bold cyan")
        if layer["use"] != layer["id"]:
            head.append(f"  {layer['use']}", style="cyan")
        if layer["when"]:
            head.append("  when " + "; ".join(f"{k} {' '.join(v)}" for k, v in layer["when"].items()), style="yellow")
        if layer["at"]:
            head.append(f"  {layer['at']}", style="dim")
        node = branch.add(head)
        shown = [option for option in layer["options"] if defaults or not option["is_default"]]
        width = max((len(option["name"]) for option in shown), default=0)
        for option in shown:
            line = Text(f"{option['name']:<{width}} = ", style="dim" if option["is_default"] else "")
            line.append(_written(option["value"]), style="dim" if option["is_default"] else "green")
            line.append(f"  {option['origin']}", style="dim")
            node.add(line)
        for prefix, sub_stack in layer["mounts"].items():
            inside = node.add(Text.assemble((prefix, "bold"), (f" → @{sub_stack['name']}", "magenta")))
            _grow(inside, sub_stack, defaults)
    if data["app"]["stack"] is not None:
        _grow(branch.add(Text(f"@{data['app']['stack']['name']}", style="magenta")), data["app"]["stack"], defaults)
    else:
        branch.add(Text.assemble((data["app"]["use"], "bold green"), ("  the app inside", "dim")))


def _written(value: Any) -> str:
    """A value as the stack file would have it, shortened."""
    import json

    text = value if value == "***" else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
