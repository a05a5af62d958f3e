"""What a ``use`` means: a short name, ``module:attribute``, ``egg:Dist#name``.

Our own short names are found by importing ``lamella.middleware.<name>``; only a name that
is none of ours asks :mod:`importlib.metadata`, which is slow to import.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lamella.stack.kernel.options import reference_parts
from lamella.stack.problems import UnresolvedError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


__all__ = [
    "PasteApp",
    "PasteFilter",
    "default_id",
    "find_app",
    "find_layer",
    "import_attribute",
    "is_reference",
    "layer_class",
    "layer_names",
    "one_line",
    "short_name",
]

_GROUP = "lamella.layers"
_SHORT = re.compile(r"[a-z][a-z0-9_]*")


def is_reference(text: str) -> bool:
    """Tell whether *text* has the form ``module:attribute``, with ``()`` after it or not."""
    return reference_parts(text) is not None


def default_id(use: str) -> str:
    """Return the id of a layer that has none of its own: the name in its ``use``."""
    name = use.rpartition("#")[2] if use.startswith("egg:") and "#" in use else use.rpartition(":")[2]
    return name.removesuffix("()").rpartition(".")[2]


def short_name(factory: object) -> str:
    """Return the name of a layer that was given as a class or a function."""
    module: str = getattr(factory, "__module__", None) or ""
    name: str = getattr(factory, "__name__", None) or type(factory).__name__
    if module.startswith("lamella.middleware."):
        return module.rpartition(".")[2]
    return name


def layer_names() -> list[str]:
    """Return the short names of all layers: ours, and those of installed distributions."""
    names = set(_own_names())
    names.update(point.name for point in _entry_points(_GROUP))
    return sorted(names)


def _own_names() -> list[str]:
    import lamella.middleware

    folders = map(Path, lamella.middleware.__path__)
    return [path.stem for folder in folders for path in folder.glob("*.py") if not path.stem.startswith("_")]


def _entry_points(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points

    return entry_points(group=group)


def layer_class(name: str) -> type | None:
    """Return the class of our own layer *name*, or None where there is no such module.

    Raises:
        UnresolvedError: The module is there and cannot be imported.
    """
    if _SHORT.fullmatch(name) is None:
        return None
    module_name = f"lamella.middleware.{name}"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            return None
        raise UnresolvedError(_import_failure(module_name, error)) from error
    except Exception as error:
        raise UnresolvedError(_import_failure(module_name, error)) from error
    for public in getattr(module, "__all__", ()):
        if public.endswith("Middleware"):
            found: type = getattr(module, public)
            return found
    return None


def find_layer(use: str) -> Callable[..., Any]:
    """Return the factory that *use* names.

    Raises:
        UnresolvedError: There is none; the message says what there is.
    """
    if use.startswith("egg:"):
        egg: Callable[..., Any] = _find_egg(use, PasteFilter, "filter")
        return egg
    if use.startswith("@"):
        raise UnresolvedError(f"{use} is a sub-stack, which is an app: mount it, or make it the app")
    if ":" in use:
        named: Callable[..., Any] = _callable(use, import_attribute(use), "a layer")
        return named
    found = layer_class(use)
    if found is not None:
        return found
    for point in _entry_points(_GROUP):
        if point.name == use:
            loaded: Callable[..., Any] = _callable(use, import_attribute(f"{point.module}:{point.attr}"), "a layer")
            return loaded
    hint = did_you_mean(use, layer_names())
    raise UnresolvedError(f"no layer is called `{use}`{hint or '; a layer of your own is written module:attribute'}")


def find_app(use: str) -> Any:
    """Return what *use* names: an application, or a :class:`PasteApp` that makes one.

    ``module:attribute()`` calls the attribute, as gunicorn does.

    Raises:
        UnresolvedError: It cannot be found, or is not callable.
    """
    if use.startswith("egg:"):
        return _find_egg(use, PasteApp, "application")
    if use.startswith("@"):
        raise UnresolvedError(f"no sub-stack is called `{use[1:]}`")
    if not is_reference(use):
        raise UnresolvedError(f"`{use}` is not an app; write module:attribute, egg:Dist#name or @sub-stack")
    found = import_attribute(use)
    if not use.endswith("()"):
        return _callable(use, found, "an app")
    try:
        made = _callable(use, found, "a function")()
    except (Exception, SystemExit) as error:
        raise UnresolvedError(f"{use} raised {one_line(error)}") from error
    return _callable(use, made, "an app")


def _callable(use: str, found: Any, what: str) -> Any:
    if not callable(found):
        raise UnresolvedError(f"{use} is {what} only if it can be called; it is of type {type(found).__name__}")
    return found


def import_attribute(use: str) -> Any:
    """Import what ``module:attribute`` names; a ``()`` at the end is left alone.

    Raises:
        UnresolvedError: No such module or attribute, or the module fails to import.
    """
    parts = reference_parts(use)
    if parts is None:
        raise UnresolvedError(f"`{use}` is no reference; write package.module:attribute")
    module_name, path = parts
    try:
        found: Any = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UnresolvedError(_import_failure(module_name, error)) from error
    for attribute in path:
        try:
            found = getattr(found, attribute)
        except AttributeError:
            hint = did_you_mean(attribute, (name for name in dir(found) if not name.startswith("__")))
            owner = getattr(found, "__name__", module_name)
            raise UnresolvedError(f"{owner} has no attribute `{attribute}`{hint}") from None
    return found


def _import_failure(module_name: str, error: BaseException) -> str:
    """Say in one line why an import failed."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if (module_name + ".").startswith(error.name + "."):
            parent, _, name = error.name.rpartition(".")
            hint = did_you_mean(name, _siblings(parent), 0.75)
            return f"no module named `{error.name}`{hint or _where(parent)}"
        return f"importing {module_name} failed: no module named `{error.name}`"
    return f"importing {module_name} raised {one_line(error)}"


def _where(parent: str) -> str:
    return "" if parent else "; is its folder on PYTHONPATH?"


@cache
def _siblings(parent: str) -> list[str]:
    """Names of the modules beside the one that was not found."""
    from pkgutil import iter_modules

    if parent:
        return [module.name for module in iter_modules(getattr(sys.modules.get(parent), "__path__", []))]
    return [module.name for module in iter_modules() if not module.name.startswith("_")]


def one_line(error: BaseException) -> str:
    """Return an exception as one line, with the innermost place in its traceback."""
    from lamella.stack.kernel.errors import LamellaError

    text = " ".join(str(error).split())
    if isinstance(error, LamellaError):
        return text
    shown = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return shown
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename.startswith("<"):
        return shown
    return f"{shown} ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"


# --- PasteDeploy --------------------------------------------------------------------------------


class PasteFilter:
    """A PasteDeploy filter factory, called as a layer is: ``factory(app, **options)``.

    Args:
        factory: What the entry point names.
        group: ``paste.filter_factory`` or ``paste.filter_app_factory``.
    """

    __slots__ = ("factory", "group")

    #: The signature of *factory* begins with ``global_conf``, or with an app and ``global_conf``.
    leading: Final = {"paste.filter_app_factory": 2, "paste.filter_factory": 1}

    def __init__(self, factory: Callable[..., Any], group: str) -> None:
        self.factory = factory
        self.group = group

    @property
    def __name__(self) -> str:
        name: str = getattr(self.factory, "__name__", "filter")
        return name

    def __call__(self, app: Any, **options: Any) -> Any:
        local = {name: ini_text(name, value) for name, value in options.items()}
        if self.group == "paste.filter_app_factory":
            return self.factory(app, {}, **local)
        return self.factory({}, **local)(app)


class PasteApp:
    """A PasteDeploy app factory, called without an app: ``factory(**options)``."""

    __slots__ = ("factory", "group")

    #: The signature of *factory* begins with ``global_conf``.
    leading: Final = {"paste.app_factory": 1}

    def __init__(self, factory: Callable[..., Any], group: str) -> None:
        self.factory = factory
        self.group = group

    def __call__(self, **options: Any) -> Any:
        return self.factory({}, **{name: ini_text(name, value) for name, value in options.items()})


def ini_text(option: str, value: object) -> str:
    """Return a value as an ini file would have it: what PasteDeploy's own factories expect.

    Raises:
        ConfigError: A table, or a list of something else than single values.
    """
    from lamella.stack.kernel.errors import ConfigError

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, bool, int, float)) for item in value):
        return "\n".join(ini_text(option, item) for item in value)
    raise ConfigError(option, value, "text, a number, true or false, or a list of them, for a PasteDeploy factory")


def _find_egg(use: str, wrap: type[PasteFilter] | type[PasteApp], what: str) -> Any:
    """Load ``egg:Dist#name`` from the first group of *wrap* that has it."""
    from importlib.metadata import PackageNotFoundError, distribution, distributions

    name = use.removeprefix("egg:")
    project, _, point_name = name.partition("#")
    point_name = point_name or "main"
    if project.lower() == "lamella" and wrap is PasteFilter:
        found = layer_class(point_name)  # also in a checkout, which is not installed
        if found is not None:
            return found
    try:
        points = distribution(project.strip()).entry_points
    except (PackageNotFoundError, ValueError):
        hint = did_you_mean(project, (str(one.metadata["Name"]) for one in distributions()))
        raise UnresolvedError(f"no distribution `{project}` is installed{hint}") from None
    for group in wrap.leading:
        for point in points:
            if point.group != group or point.name != point_name:
                continue
            factory = import_attribute(f"{point.module}:{point.attr}")
            ours = getattr(factory, "lamella_layer", None)
            return _callable(use, ours if ours is not None else wrap(factory, group), "a factory")
    known = [point.name for point in points if point.group in wrap.leading]
    listed = ", ".join(f"`{one}`" for one in sorted(set(known))) or "none"
    hint = did_you_mean(point_name, known) or f"; it has {listed}"
    raise UnresolvedError(f"{project} has no PasteDeploy {what} `{point_name}` in {' or '.join(wrap.leading)}{hint}")
