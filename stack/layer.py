"""``Layer``: one layer of a stack as data, and ``Application``, what is inside all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.asgi import as_wsgi
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.problems import UnresolvedError, did_you_mean
from lamella.stack.references import PasteApp, default_id, find_app, find_layer, short_name
from lamella.stack.settings import Origin, Setting, holds_secret

if TYPE_CHECKING:
    from lamella.stack.scope import When
    from lamella.stack.signatures import Signature

__all__ = ["ID", "Application", "Frozen", "Layer", "as_scope", "make_application"]

#: The ids of layers, and the names of stacks.
ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def as_scope(when: When | Mapping[str, Iterable[str]] | None) -> When | None:
    """Return the scope that *when* means; None for no scope, as most layers have it."""
    if when is None:
        return None
    from lamella.stack.scope import When

    return when if isinstance(when, When) else When(**when)


class Frozen:
    """Attributes are set once, by :meth:`_set`."""

    __slots__ = ()

    def _set(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change; its methods return another one")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)


class Layer(Frozen):
    """One layer of a stack: what makes it, its options, its scope.

    Args:
        use: The class or function, or its name: ``"cors"``, ``"module:attribute"``, ``"egg:Dist#name"``.
        id: Unique in the stack; the name in *use* by default.
        when: The scope: ``paths``, ``except``, ``methods``, ``hosts``, each a list.
        **options: Handed to the factory as they are.

    Raises:
        ConfigError: *use* cannot be found, *when* is empty or wrong, or an option is unknown.
    """

    __slots__ = (
        "_signature", "column", "factory", "file", "id", "line", "options", "origins", "stack", "use", "when",
    )  # fmt: skip

    use: str
    id: str
    factory: Callable[..., Any]
    when: When | None
    #: What the factory is called with, besides the app.
    options: Mapping[str, Any]
    #: Where each of *options* comes from.
    origins: Mapping[str, Origin]
    #: Name of the sub-stack that it is in; empty in the main one.
    stack: str
    #: Where it stands in a stack file; empty and 0 for one made in Python.
    file: str
    line: int
    column: int

    def __init__(
        self,
        use: str | Callable[..., Any],
        /,
        *,
        id: str | None = None,
        when: When | Mapping[str, Iterable[str]] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(use, str):
            try:
                factory = find_layer(use)
            except UnresolvedError as error:
                raise ConfigError("use", use, f"a layer: {error}") from error
            name = default_id(use)
        elif callable(use):
            factory, name = use, short_name(use)
        else:
            raise ConfigError("use", use, "a layer's name, class or function")
        if id is not None and (not isinstance(id, str) or ID.fullmatch(id) is None):
            raise ConfigError("id", id, "letters, digits, _ and -, beginning with a letter or _")
        shown = use if isinstance(use, str) else qualified(use)
        origins = dict.fromkeys(options, Origin("python"))
        self._fill(shown, id or name, factory, as_scope(when), options, origins)
        self._check_names()

    @classmethod
    def _make(cls, *parts: Any, **more: Any) -> Layer:
        """Make a layer out of parts that have been checked; takes what :meth:`_fill` takes."""
        made = cls.__new__(cls)
        made._fill(*parts, **more)
        return made

    def _fill(
        self,
        use: str,
        id: str,
        factory: Callable[..., Any],
        when: When | None,
        options: Mapping[str, Any],
        origins: Mapping[str, Origin],
        signature: Signature | None = None,
        stack: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        self._set(
            use=use, id=id, factory=factory, when=when, stack=stack, file=file, line=line, column=column,
            options=MappingProxyType(dict(options)), origins=MappingProxyType(dict(origins)), _signature=signature,
        )  # fmt: skip

    def _changed(self, **parts: Any) -> Layer:
        kept = {name: getattr(self, name) for name in self.__slots__ if name != "_signature"}
        kept.update(parts)
        return Layer._make(signature=self._signature, **kept)

    @property
    def full_id(self) -> str:
        """The id as a profile addresses it: ``id``, or ``sub-stack/id``."""
        return f"{self.stack}/{self.id}" if self.stack else self.id

    @property
    def signature(self) -> Signature | None:
        """The options that the factory takes; None where it does not tell."""
        if self._signature is None:
            from lamella.stack.signatures import signature

            try:
                self._set(_signature=signature(self.factory))
            except ValueError:
                return None
        return self._signature

    _signature: Signature | None

    def _check_names(self) -> None:
        known = self.signature
        if known is None or known.takes_any:
            return
        for name in self.options:
            if name not in known.parameters:
                hint = did_you_mean(name, known.parameters) or ": " + ", ".join(known.parameters)
                raise ConfigError(self.id, name, f"one of its options{hint}")

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every option with its value and origin, those left at their defaults included."""
        from lamella.stack.signatures import REQUIRED

        known = self.signature
        parameters = dict(known.parameters) if known is not None else {}
        found = []
        for name in [*parameters, *(name for name in self.options if name not in parameters)]:
            is_secret = known.get(name).is_secret if known is not None else False
            if name in self.options:
                value = self.options[name]
                secret = is_secret or holds_secret(value)
                found.append(Setting(name, value, self.origins[name], secret))
            elif parameters[name].default is not REQUIRED:
                found.append(Setting(name, parameters[name].default, Origin("default"), is_secret))
        return tuple(found)

    def __repr__(self) -> str:
        shown = [f"{one.name}={one.shown}" for one in self.settings if one.name in self.options]
        parts = [repr(self.use), f"id={self.id!r}", *shown]
        if self.when is not None:
            parts.append(f"when={self.when.as_dict()}")
        return f"Layer({', '.join(parts)})"


class Application(Frozen):
    """The innermost application of a stack.

    Args:
        use: How it is named; a Python path for an object.
        target: The WSGI application itself.
        stack: Name of the sub-stack that it is in; empty in the main one.
        file: The stack file, where it stands in one.
        line: Counted from 1.
        column: Counted from 1.
    """

    __slots__ = ("column", "file", "line", "stack", "target", "use")

    id = "app"
    use: str
    target: Any
    stack: str
    file: str
    line: int
    column: int

    def __init__(
        self, use: str, target: Any, *, stack: str = "", file: str = "", line: int = 0, column: int = 0
    ) -> None:
        self._set(use=use, target=target, stack=stack, file=file, line=line, column=column)

    def _changed(self, **parts: Any) -> Application:
        kept = {name: getattr(self, name) for name in self.__slots__}
        kept.update(parts)
        return Application(**kept)

    def __repr__(self) -> str:
        return f"Application({self.use!r})"


def make_application(app: Any, stack: str) -> Application:
    """Find the app that was given in Python."""
    if not isinstance(app, str):
        if not callable(app):
            raise ConfigError("app", app, 'a WSGI application, or its name "module:attribute"')
        return Application(qualified(app), as_wsgi("app", app), stack=stack)
    try:
        found = find_app(app)
    except UnresolvedError as error:
        raise ConfigError("app", app, f"an application: {error}") from error
    return Application(app, as_wsgi("app", found() if isinstance(found, PasteApp) else found), stack=stack)


def qualified(factory: Any) -> str:
    name = getattr(factory, "__qualname__", None) or type(factory).__qualname__
    module = getattr(factory, "__module__", None) or type(factory).__module__
    return f"{module}:{name}"
