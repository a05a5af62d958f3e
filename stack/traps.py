"""What goes wrong between a mounted framework and the stack around it; run by ``lamella check``.

Each of these was seen in a real stack: two apps with one cookie name log each other out, Django without a
``static`` layer shows its admin without style, a random key ends all sessions with every second worker. Apps are
looked at, none is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from lamella.stack.kernel.mounts import fault_of_mount, innermost, is_a, patched_modules
from lamella.stack.kernel.paths import is_under
from lamella.stack.problems import Problem, StackFileError, UnresolvedError
from lamella.stack.random_keys import random_key
from lamella.stack.references import import_attribute, short_name

if TYPE_CHECKING:
    from lamella.stack.build import Layer, Stack

__all__ = ["check_secrets", "check_traps"]

# What stands for gevent in the import lists of applications, and patches the process on import.
_PATCHERS = ("grequests",)


class Mounted(NamedTuple):
    """One app and where it is."""

    #: The app itself, without stacks and bridges around it.
    app: Any
    #: As it is named in the stack file.
    use: str
    #: All prefixes outside of it, one after the other; empty at the root.
    prefix: str
    #: Of the layers that a request passes on the way to it.
    outside: tuple[Layer, ...]
    #: ``cookies = "scope"``.
    scoped: bool
    place: tuple[str, int, int]

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"the mount `{self.prefix}` ({self.use})" if self.prefix else f"the app {self.use}"

    def problem(self, message: str, *, warning: bool = True) -> Problem:
        """Return a problem at the line of the mount."""
        return Problem(*self.place, f"{self.label}: {message}", phase="build", warning=warning)


def check_traps(stack: Stack, *, workers: int | None = None) -> list[Problem]:
    """Return what mounted apps and the layers around them do to each other, by place.

    Args:
        stack: Described or built, its apps imported.
        workers: How many processes will serve it; ``WEB_CONCURRENCY`` by default.
    """
    found = list(_walk(stack, "", ()))
    problems = check_secrets(stack, workers=workers)
    djangos: dict[str, Mounted] = {}
    for one in found:
        fault = fault_of_mount(one.app, one.prefix) if one.prefix else None
        if fault is not None:
            problems.append(one.problem(f"expected {fault.expected}, not {fault.value}", warning=False))
        if is_a(one.app, "django.core.handlers.wsgi", "WSGIHandler"):
            first = djangos.setdefault("django", one)
            if first.prefix != one.prefix:
                message = f"Django is at `{first.prefix or '/'}` already; a process has one set of its settings"
                problems.append(one.problem(message, warning=False))
            problems += [one.problem(message) for message in _django(one)]
    problems += _cookies(found)
    problems += _patched(found)
    return problems


def check_secrets(stack: Stack, *, workers: int | None = None) -> list[Problem]:
    """Return the apps whose secret key is another one in each process.

    The sources are read; an app that is not imported yet stays so.

    Args:
        stack: Described or built.
        workers: With more than one it is an error, with one a warning.
    """
    if workers is None:
        text = os.environ.get("WEB_CONCURRENCY", "")
        workers = int(text) if text.isascii() and text.isdigit() else 1
    problems = []
    for one in _walk(stack, "", (), imports=False):
        for module_name in _modules(one):
            random = random_key(module_name)
            if random is None:
                continue
            what = f"{random.name} is made by {random.call}() anew in each process ({random.file}, line {random.line})"
            harm = (
                f"a session that one of the {workers} workers signed is none to the others"
                if workers > 1
                else "every restart ends all sessions, and more than one worker cannot run"
            )
            cure = f'make one key and keep it: {random.name} = os.environ["SECRET_KEY"], or a file of `lamella secret`'
            problems.append(one.problem(f"{what}: {harm}; {cure}", warning=workers <= 1))
            break
    return problems


# --- which apps there are -----------------------------------------------------------------------


def _walk(
    stack: Stack, prefix: str, outside: tuple[Layer, ...], scoped: bool = False, imports: bool = True
) -> Iterator[Mounted]:
    """Yield every app of a stack: those of its mounts and hosts, and the one inside."""
    for layer in stack.layers:
        if short_name(layer.factory) == "dispatch":
            for option, at in (("mounts", True), ("hosts", False)):
                table = layer.options.get(option)
                for key, target in table.items() if isinstance(table, Mapping) else ():
                    place = _place_of(layer, option, key)
                    below = prefix + key if at else prefix
                    yield from _mounted(target, below, (*outside, layer), place, imports)
        outside = (*outside, layer)
    application = stack.application
    if is_a(application.target, "lamella.stack.build", "Stack"):
        yield from _walk(application.target, prefix, outside, scoped, imports)
        return
    place = (application.file or stack.file or "stack", application.line, application.column)
    yield Mounted(innermost(application.target), application.use, prefix, outside, scoped, place)


def _mounted(
    target: Any, prefix: str, outside: tuple[Layer, ...], place: tuple[str, int, int], imports: bool
) -> Iterator[Mounted]:
    """Yield what one mount leads to."""
    scoped = isinstance(target, Mapping) and target.get("cookies") == "scope"
    if isinstance(target, Mapping):
        target = target.get("app")
    if is_a(target, "lamella.stack.build", "Stack"):
        yield from _walk(target, prefix, outside, scoped, imports)
        return
    use = target if isinstance(target, str) else type(target).__qualname__
    if isinstance(target, str) and imports:
        try:
            target = import_attribute(target)
        except UnresolvedError:
            return  # told by the loader
    yield Mounted(innermost(target), use, prefix, outside, scoped, place)


def _place_of(layer: Layer, option: str, key: str) -> tuple[str, int, int]:
    """Find the line of one mount; where that fails, the line of the layer."""
    from lamella.stack.document import read

    origin = layer.origins.get(option)
    file = (origin.file if origin is not None else "") or layer.file
    here = (file or "stack", origin.line, origin.column) if origin is not None else (file, layer.line, layer.column)
    if not file:
        return here
    try:
        document = read(file)
    except StackFileError:
        return here
    where = ("stack", layer.stack) if layer.stack else ()
    tables = document.data
    for name in where:
        tables = tables.get(name, {})
    for kind in ("layer", "insert"):
        for index, table in enumerate(tables.get(kind, ())):
            path = (*where, kind, index)
            if key in table.get(option, ()) and document.key(path) == (layer.line, layer.column):
                return (file, *document.key((*path, option, key)))
    return here


# --- keys ---------------------------------------------------------------------------------------


def _modules(one: Mounted) -> list[str]:
    """Names of the modules in which the app's key may be made."""
    names = []
    if is_a(one.app, "flask.app", "Flask"):
        names.append(one.app.import_name)
    if is_a(one.app, "django.core.handlers.wsgi", "WSGIHandler"):
        names.append(_setting("SETTINGS_MODULE") or "")
    module, colon, _ = one.use.partition(":")
    if colon:
        names.append(module)
    return list(dict.fromkeys(filter(None, names)))


# --- Django -------------------------------------------------------------------------------------


def _setting(name: str) -> Any:
    """One setting as it is written: ``STATIC_URL`` itself would get a prefix, for good, when it is looked at."""
    settings: Any = getattr(sys.modules.get("django.conf"), "settings", None)
    wrapped = getattr(settings, "_wrapped", None)
    return getattr(wrapped if wrapped is not None else settings, name, None)


def _django(one: Mounted) -> Iterator[str]:
    middleware = tuple(_setting("MIDDLEWARE") or ())
    url = _setting("STATIC_URL")
    apps = tuple(_setting("INSTALLED_APPS") or ())
    if isinstance(url, str) and any(app.startswith("django.contrib.staticfiles") for app in apps):
        if one.prefix and not url.startswith(("/", "http:", "https:")):
            yield (
                f"STATIC_URL = {url!r} takes the prefix of the process's first request and keeps it; write"
                f' STATIC_URL = "{one.prefix}/{url}"'
            )
            url = f"{one.prefix}/{url}"
        whitenoise = any("whitenoise" in name for name in middleware)
        if url.startswith("/") and not whitenoise and not _serves(one, url):
            yield (
                f'nothing serves {url} (Django does so under runserver only): add a layer outside, use = "static",'
                f' prefix = "{url.rstrip("/")}", root = the STATIC_ROOT that collectstatic fills'
            )
    if "django.contrib.auth.middleware.RemoteUserMiddleware" in middleware and not _always_signed_in(one.outside):
        yield (
            "RemoteUserMiddleware logs out whoever comes without a user, and not every path asks for one:"
            " take PersistentRemoteUserMiddleware"
        )
    if "django.contrib.auth.backends.RemoteUserBackend" in tuple(_setting("AUTHENTICATION_BACKENDS") or ()):
        yield (
            "RemoteUserBackend makes a user of everybody who signs in outside: take a subclass of it with"
            " create_unknown_user = False, where only known users may come in"
        )
    for layer in one.outside:
        if short_name(layer.factory) == "security_headers" and layer.options.get("referrer") == "no-referrer":
            yield (
                f'the layer {layer.full_id} sends Referrer-Policy: no-referrer; browsers then send "Origin: null" with'
                ' forms, which Django refuses: take referrer = "same-origin"'
            )


def _serves(one: Mounted, url: str) -> bool:
    """Tell whether a static layer outside of the app, or a route of its own, has the address."""
    path = url.rstrip("/")
    shift = ""
    for layer in one.outside:
        name = short_name(layer.factory)
        if name == "static":
            prefix = shift + str(layer.options.get("prefix", "/")).rstrip("/")
            if is_under(path, prefix or "/") or is_under(prefix, path):
                return True
        elif name == "dispatch":
            shift += next((key for key in layer.options.get("mounts", ()) if is_under(one.prefix, shift + key)), "")
    try:
        urls: Any = import_module("django.urls")
        urls.resolve(path.removeprefix(one.prefix) + "/x.css")
    except Exception:  # noqa: BLE001  no such route, or a URLconf that fails: Django says so itself
        return False
    return True


def _always_signed_in(outside: Iterable[Layer]) -> bool:
    """Tell whether a layer outside lets nobody in without a user."""
    for layer in outside:
        name = short_name(layer.factory)
        required = layer.options.get("required", name in ("basic_auth", "bearer_auth"))
        if name in ("basic_auth", "bearer_auth", "login", "oidc") and required and layer.when is None:
            return True
        if name == "access" and all(rule.get("allow") != "anonymous" for rule in layer.options.get("rules", ())):
            return True
    return False


# --- cookies ------------------------------------------------------------------------------------


def _cookies(found: Iterable[Mounted]) -> list[Problem]:
    """Two that set one cookie: each takes the other's for a forgery, and replaces it."""
    problems = []
    taken: dict[str, Mounted] = {}
    for one in found:
        sessions = {
            str(layer.options.get("cookie_name", "session")): layer
            for layer in one.outside
            if short_name(layer.factory) == "session"
        }
        for name, path, cure in _own_cookies(one.app):
            if name in sessions:
                problems.append(
                    one.problem(
                        f"its cookie `{name}` is that of the layer {sessions[name].full_id} too, and each ends the"
                        f" other's session: give the layer another cookie_name, such as \"site_{name}\", or"
                        f" the app {cure}",
                        warning=False,
                    )
                )  # fmt: skip
            elif path == "/" and not one.scoped:
                other = taken.setdefault(name, one)
                if other is not one:
                    problems.append(
                        one.problem(
                            f"its cookie `{name}` is for the whole host, and so is that of {other.label}: each ends the"
                            f' other\'s session; mount both with cookies = "scope", or give one {cure}'
                        )
                    )
    return problems


def _own_cookies(app: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name and path of the cookies by which an app knows its users, and how to rename each."""
    if is_a(app, "dash.dash", "Dash"):
        app = getattr(app, "server", app)
    if is_a(app, "flask.app", "Flask"):
        keeps = type(app.session_interface).__module__ == "flask.sessions" and bool(app.secret_key)
        if keeps:
            path = app.config.get("SESSION_COOKIE_PATH") or app.config.get("APPLICATION_ROOT") or "/"
            yield str(app.config["SESSION_COOKIE_NAME"]), str(path), "another SESSION_COOKIE_NAME"
    elif is_a(app, "django.core.handlers.wsgi", "WSGIHandler"):
        middleware = tuple(_setting("MIDDLEWARE") or ())
        shares = _setting("SESSION_ENGINE") == "lamella.apps.django_session"
        if "django.contrib.sessions.middleware.SessionMiddleware" in middleware and not shares:
            yield _setting("SESSION_COOKIE_NAME"), _setting("SESSION_COOKIE_PATH"), "another SESSION_COOKIE_NAME"
        if "django.middleware.csrf.CsrfViewMiddleware" in middleware:
            yield _setting("CSRF_COOKIE_NAME"), _setting("CSRF_COOKIE_PATH"), "another CSRF_COOKIE_NAME"


# --- the process --------------------------------------------------------------------------------


def _patched(found: list[Mounted]) -> list[Problem]:
    """An import that makes every thread of the server a greenlet."""
    patched = sorted(patched_modules())
    if not patched or not found:
        return []
    names = [name for name in _PATCHERS if name in sys.modules]
    guilty = next((one for one in found if _imports(one, (*names, "gevent.monkey"))), found[-1])
    by = f"imports {names[0]}, which" if names else "(or a module that it imports)"
    message = (
        f"{by} patches {', '.join(patched)} for the whole process (gevent.monkey): serve all of it with a gevent"
        " server, or that app in a process of its own"
    )
    return [guilty.problem(message)]


def _imports(one: Mounted, names: Iterable[str]) -> bool:
    """Tell whether the app's own module has one of *names*, or a part of it, among its globals."""
    modules = [sys.modules[name] for name in names if name in sys.modules]
    module = sys.modules.get(one.use.partition(":")[0])
    return any(any(value is other for other in modules) for value in vars(module or object).values())
