"""Views: what a rule calls, out of a function or a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import CodeType, MethodType
from typing import TYPE_CHECKING, Any, TypeAlias

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_token

if TYPE_CHECKING:
    from .requests import Request
    from .rules import Rule

__all__ = ["View", "check_methods", "check_parameters", "parameters_of", "read_view"]

View: TypeAlias = Callable[..., Any]

_VIEW_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace", "query")
# inspect.CO_VARKEYWORDS, CO_COROUTINE and CO_ASYNC_GENERATOR; importing inspect costs more than the router.
_CO_VARKEYWORDS, _CO_ASYNC = 0x08, 0x80 | 0x200


def read_view(view: Any, methods: Iterable[str] | None) -> tuple[View, tuple[str, ...]]:
    """Return what to call, and the methods."""
    if isinstance(view, type):
        return _class_view(view, methods)
    if not callable(view):
        raise ConfigError("view", view, "a callable that takes the request")
    code = getattr(view, "__code__", None)
    if code is not None and code.co_flags & _CO_ASYNC:
        raise ConfigError("view", view, "a plain function; an async one runs under ASGI")
    return view, ("GET",) if methods is None else check_methods(methods)


def _class_view(view: type, methods: Iterable[str] | None) -> tuple[View, tuple[str, ...]]:
    """Return a function that calls the method of a new instance, and the methods there are."""
    if methods is None:
        methods = [name for name in _VIEW_METHODS if callable(getattr(view, name, None))]
        if not methods:
            raise ConfigError("view", view, "a class with methods such as get() and post()")
    names = check_methods(methods)
    for name in names:
        if not callable(getattr(view, name.lower(), None)):
            raise ConfigError("view", view, f"a class with the method {name.lower()}()")
    attributes = {name: name.lower() for name in names}
    if "GET" in attributes:
        attributes.setdefault("HEAD", "get")

    def call(request: Request, **parameters: Any) -> Any:
        return getattr(view(), attributes[request.environ["REQUEST_METHOD"]])(request, **parameters)

    return call, names


def check_methods(methods: object) -> tuple[str, ...]:
    """Return the methods in upper case.

    Raises:
        ConfigError: Not a collection of tokens.
    """
    if isinstance(methods, str) or not isinstance(methods, (list, tuple, set, frozenset)) or not methods:
        raise ConfigError("methods", methods, 'a collection such as ["GET", "POST"]')
    for method in methods:
        if not isinstance(method, str) or not is_token(method):
            raise ConfigError("methods", method, "HTTP methods")
    return tuple(dict.fromkeys(method.upper() for method in methods))


def parameters_of(view: Any) -> tuple[tuple[str, ...] | None, str]:
    """Return the parameters that *view* takes besides the request, and which it takes first by position.

    Returns:
        The names, None where it takes any or they are unknown; and a name, ``""`` where there is none.
    """
    code = getattr(view, "__code__", None)
    if type(code) is not CodeType:
        return None, ""
    skip = 2 if type(view) is MethodType else 1  # the request, and self of a bound method
    names, count, unnamed = code.co_varnames, code.co_argcount, code.co_posonlyargcount
    first = names[skip] if count > skip >= unnamed else ""
    if code.co_flags & _CO_VARKEYWORDS:
        return None, first
    return names[unnamed if unnamed > skip else skip : count + code.co_kwonlyargcount], first


def check_parameters(rule: Rule) -> None:
    """Refuse a view that does not take what its rule gives. What it lacks, a prefix may still bring."""
    if rule.takes is None or rule.positional >= 0:
        return
    for name in (*rule.names, *rule.defaults) if rule.defaults else rule.names:
        if name not in rule.takes and not hasattr(rule.view, "__wrapped__"):
            raise ConfigError("view", rule.endpoint, f"a view that takes {name!r} by name, for {rule.pattern}")
