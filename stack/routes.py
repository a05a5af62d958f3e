"""The routes of every router in a stack, with the mounts that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lamella.stack.build import Stack
from lamella.stack.kernel.options import reference

__all__ = ["RouteRow", "app_routes", "mounted_apps", "routes"]


class RouteRow(NamedTuple):
    """One line of the table."""

    #: The whole pattern, mounts included; ``…`` at its end where the app routes by itself.
    pattern: str
    #: Methods; empty where the app does not tell.
    methods: tuple[str, ...]
    #: Name of the view.
    endpoint: str
    #: Host, where the route or the mount is bound to one.
    host: str
    #: Where the app comes from.
    app: str


def routes(stack: Stack) -> list[RouteRow]:
    """Return the routes of the app and of every mounted app, in the order of the stack file.

    Routers of lamella, Flask, Quart, Starlette and FastAPI tell their rules; any other app is one line.

    Raises:
        ConfigError: A mounted app cannot be imported.
    """
    return list(_of_stack(stack, "", ""))


def mounted_apps(stack: Stack) -> Iterator[tuple[str, str, Any]]:
    """Yield (prefix, host, app) of each app that a layer of *stack* mounts, as the options have it."""
    for layer in stack.layers:
        for name in ("mounts", "hosts"):
            table = layer.options.get(name)
            if isinstance(table, Mapping):
                for key, value in table.items():
                    app = value["app"] if isinstance(value, Mapping) else value
                    yield (key, "", app) if name == "mounts" else ("", key, app)


def _of_stack(stack: Stack, prefix: str, host: str) -> Iterator[RouteRow]:
    for below, other_host, app in mounted_apps(stack):
        yield from app_routes(app, prefix + below, other_host or host)
    yield from app_routes(stack.app, prefix, host, stack.application.use)


def app_routes(app: Any, prefix: str, host: str, use: str = "") -> Iterator[RouteRow]:
    """Yield the routes of one app below *prefix*; one line where it does not tell."""
    if isinstance(app, Stack):
        yield from _of_stack(app, prefix, host)
        return
    use = use or (app if isinstance(app, str) else "")
    app = reference("mounts", app)
    if type(app).__module__ == "lamella.apps.asgi":
        app = app.app  # the bridge has no routes of its own
    use = use or f"{getattr(app, '__module__', '')}:{getattr(app, '__qualname__', type(app).__qualname__)}"
    rules = getattr(app, "routes", None)
    if isinstance(rules, tuple) and all(hasattr(rule, "pattern") for rule in rules):
        for rule in rules:
            yield RouteRow(prefix + rule.pattern, tuple(rule.methods), rule.endpoint, rule.host or host, use)
        return
    url_map = getattr(app, "url_map", None)
    if url_map is not None and hasattr(url_map, "iter_rules"):
        for rule in url_map.iter_rules():
            methods = tuple(sorted(set(rule.methods or ()) - {"HEAD", "OPTIONS"}))
            yield RouteRow(prefix + rule.rule, methods, rule.endpoint, rule.host or host, use)
        return
    if isinstance(rules, list) and rules and all(hasattr(rule, "path") and hasattr(rule, "name") for rule in rules):
        for rule in rules:  # Starlette and FastAPI; a mount or a websocket tells no methods
            methods = tuple(sorted({*(getattr(rule, "methods", None) or ())} - {"HEAD", "OPTIONS"}))
            below = "" if hasattr(rule, "methods") else "/…"
            yield RouteRow(prefix + rule.path + below, methods, rule.name or "", host, use)
        return
    yield RouteRow(f"{prefix}/…", (), "", host, use)
