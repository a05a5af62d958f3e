"""Telling an ASGI application from a WSGI one, and letting it take the place of one.

Wherever lamella takes an application (a stack, a mount, a host), an ASGI one may stand, too:
:func:`as_wsgi` puts the bridge ``lamella.apps.asgi`` around it. Nothing is guessed: what is
neither is refused, with a sentence that says what it is.
"""

from __future__ import annotations

from importlib import import_module
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, cast

from .errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["as_wsgi", "is_asgi"]

_NAMES: Final = ("scope", "receive", "send")
# CO_COROUTINE, CO_ITERABLE_COROUTINE and CO_ASYNC_GENERATOR of ``inspect``, which is slow to import.
_ASYNC: Final = 0x80 | 0x100 | 0x200


def is_asgi(app: object) -> bool:
    """Tell whether *app* is called as ``await app(scope, receive, send)``.

    It is an ``async def`` of three arguments, an object whose ``__call__`` is one, or a callable
    whose three arguments have exactly these names (it returns something to be awaited).
    """
    is_async, arguments = _look(app)
    return arguments == _NAMES or (is_async and len(arguments) == 3)


def as_wsgi(option: str, app: object) -> WSGIApplication:
    """Return a WSGI application as it is, an ASGI application in its bridge.

    Args:
        option: Name of the option, for errors.
        app: A callable.

    Raises:
        ConfigError: It is ``async`` without being an ASGI application.
    """
    is_async, arguments = _look(app)
    if arguments == _NAMES or (is_async and len(arguments) == 3):
        # Late and by name: the kernel knows nothing of the apps, and asyncio is slow to import.
        made: WSGIApplication = import_module("lamella.apps.asgi").ASGIApp(app)
        return made
    if is_async:
        expected = "a WSGI application, or an ASGI one: an async callable that takes (scope, receive, send)"
        raise ConfigError(option, app, expected)
    return cast("WSGIApplication", app)


def _look(app: Any) -> tuple[bool, tuple[str, ...]]:
    """Tell whether calling *app* makes something to be awaited, and which arguments it needs."""
    function, bound = app, 0
    if not isinstance(app, (FunctionType, MethodType, type)):
        function = getattr(type(app), "__call__", None)  # noqa: B004  (where a call looks it up)
        bound = 1
    if isinstance(function, MethodType):
        function, bound = function.__func__, 1
    code = getattr(function, "__code__", None)
    if isinstance(function, FunctionType) and isinstance(code, CodeType) and not hasattr(function, "__wrapped__"):
        needed = code.co_varnames[bound : code.co_argcount - len(function.__defaults__ or ())]
        return bool(code.co_flags & _ASYNC), needed
    return _inspect(app)


def _inspect(app: Any) -> tuple[bool, tuple[str, ...]]:
    """The same for a class, a ``functools.partial``, a decorated function, something made in C."""
    import inspect

    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False, ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = tuple(one.name for one in parameters if one.kind in kinds and one.default is inspect.Parameter.empty)
    inner = inspect.unwrap(app)
    is_async = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
    return is_async and not inspect.isclass(app), needed
