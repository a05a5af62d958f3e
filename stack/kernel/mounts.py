"""What frameworks settle when they are made, and which a mount under a prefix must agree with.

Nothing is imported here: an app of a framework brings the framework's modules with it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Fault", "fault_of_mount", "innermost", "is_a", "patched_modules"]


class Fault(Record):
    """Why an app cannot work under its prefix.

    Args:
        value: What it has.
        expected: What it must have, as the end of "expected …".
    """

    value: str
    expected: str


def is_a(app: object, module: str, name: str) -> bool:
    """Tell whether *app* is of a class, by its name, so that the class need not be imported."""
    return any((one.__module__, one.__name__) == (module, name) for one in type(app).__mro__)


def innermost(app: Any) -> Any:
    """Return the app inside of stacks and bridges."""
    seen = 0
    while (is_a(app, "lamella.stack.build", "Stack") or is_a(app, "lamella.apps.asgi", "ASGIApp")) and seen < 32:
        app, seen = app.app, seen + 1
    return app


def fault_of_mount(app: object, prefix: str) -> Fault | None:
    """Say why *app* cannot work under *prefix*; None where nothing is known against it.

    Args:
        app: An application, maybe in a stack of its own or in the bridge for ASGI.
        prefix: Where it is mounted. What stands outside of the mount may shift it further, so that
            only the end of what an app was told is compared.
    """
    app = innermost(app)
    for dash in _dashes(app):
        fault = _fault_of_dash(dash, prefix)
        if fault is not None:
            return fault
    if is_a(app, "django.core.handlers.wsgi", "WSGIHandler"):
        return _fault_of_django(prefix)
    root: object = getattr(app, "root_path", None) if is_a(app, "fastapi.applications", "FastAPI") else None
    if isinstance(root, str) and root.strip("/") and not root.rstrip("/").endswith(prefix):
        return Fault(f"root_path={root!r}", "a FastAPI without root_path: it gets its prefix with each request")
    return None


def _dashes(app: object) -> Iterator[Any]:
    """Yield the Dash apps behind *app*: itself, or those that a Flask app serves."""
    if is_a(app, "dash.dash", "Dash"):
        yield app
    elif is_a(app, "flask.app", "Flask"):
        seen = set()
        for view in getattr(app, "view_functions", {}).values():
            owner = getattr(view, "__self__", None)
            if is_a(owner, "dash.dash", "Dash") and id(owner) not in seen:
                seen.add(id(owner))
                yield owner


def _fault_of_dash(dash: Any, prefix: str) -> Fault | None:
    """Dash reads no SCRIPT_NAME: its addresses are those it was made with."""
    requests: str = dash.config.requests_pathname_prefix
    routes: str = dash.config.routes_pathname_prefix
    if requests.endswith(prefix + routes):
        return None
    if routes == requests and routes.endswith(prefix + "/"):  # url_base_pathname: right without a mount
        routes = routes[: -len(prefix) - 1] + "/"
    return Fault(
        f"requests_pathname_prefix={requests!r}",
        f'a Dash made with requests_pathname_prefix="{prefix}{routes}", routes_pathname_prefix="{routes}" and no'
        " url_base_pathname, because it writes its addresses when it is made",
    )


def _fault_of_django(prefix: str) -> Fault | None:
    """``FORCE_SCRIPT_NAME`` replaces the prefix in every address that Django writes, and routes nothing."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    forced = getattr(settings, "FORCE_SCRIPT_NAME", None)
    if not isinstance(forced, str) or forced.rstrip("/").endswith(prefix):
        return None
    return Fault(f"FORCE_SCRIPT_NAME={forced!r}", "FORCE_SCRIPT_NAME = None: Django gets its prefix with each request")


def patched_modules() -> frozenset[str]:
    """Return the names of the modules that gevent has patched for the whole process."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return frozenset()
    return frozenset(name for name in ("socket", "threading", "time", "ssl") if monkey.is_module_patched(name))
