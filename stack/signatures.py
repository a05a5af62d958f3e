"""What a factory takes: its options with their annotations, resolved as far as they can be.

Nothing is imported for it that a stack of our own layers does not need: :mod:`inspect` reads
only what is no plain function and no plain class.
"""

from __future__ import annotations

import builtins
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

from lamella.stack.kernel.late import late_pattern
from lamella.stack.kernel.options import Kind
from lamella.stack.references import PasteApp, PasteFilter

__all__ = ["REQUIRED", "Parameter", "Signature", "is_typed_dict", "marks", "signature", "typed_dict"]

#: The default of an option that has none.
REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED", "__slots__": ()})()

# How others name what must not be shown; what may not stand in the file either.
_SECRET_NAMES = r"(?:.*_)?(?:secrets?|secret_?key|passw(?:or)?d|passphrase|(?:api|private|signing|encryption)_?key)"
_LITERAL_REFUSED = late_pattern(_SECRET_NAMES, re.IGNORECASE)
_MASKED = late_pattern(_SECRET_NAMES + r"|(?:.*_)?(?:tokens?|credentials?)", re.IGNORECASE)


class Parameter:
    """One option of a factory.

    Args:
        name: The option.
        hint: Its annotation; ``Any`` where it has none.
        default: Its default, or :data:`REQUIRED`.
        is_marked: The author knows the marks: what has none is no secret, whatever its name.
        namespace: Where the names in *hint* are looked up.
    """

    __slots__ = ("_hint", "_is_marked", "_kinds", "_namespace", "default", "name")

    def __init__(
        self, name: str, hint: Any, default: Any, *, is_marked: bool = False, namespace: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.default = default
        # Both wait until they are asked for: a file sets one option in five, and only those are looked into.
        self._hint = hint
        self._kinds: frozenset[str] | None = None
        self._is_marked = is_marked
        self._namespace = namespace

    @property
    def hint(self) -> Any:
        """The annotation, resolved."""
        namespace = self._namespace
        if namespace is not None:
            self._hint, self._namespace = _resolve(self._hint, namespace), None
        return self._hint

    @property
    def kinds(self) -> frozenset[str]:
        """Names of the marks anywhere in the annotation."""
        if self._kinds is None:
            self._kinds = frozenset(marks(self.hint))
        return self._kinds

    @property
    def is_marked(self) -> bool:
        """Tell whether the annotation says all: a secret would be marked."""
        return self._is_marked or bool(self.kinds) or self.hint in (bool, int, float)

    @property
    def is_secret(self) -> bool:
        """Tell whether the value is masked: by its mark, or where it has none by its name."""
        return "secret" in self.kinds or (not self.is_marked and _MASKED.fullmatch(self.name) is not None)

    @property
    def refuses_literals(self) -> bool:
        """Tell whether text for it may not stand in a stack file, though it is not marked."""
        return not self.is_marked and _LITERAL_REFUSED.fullmatch(self.name) is not None


class Signature:
    """The options that a factory takes.

    Args:
        parameters: By name, in order, without the app.
        takes_any: There is a ``**kw``: names cannot be checked.
    """

    __slots__ = ("parameters", "takes_any")

    def __init__(self, parameters: dict[str, Parameter], takes_any: bool) -> None:
        self.parameters = parameters
        self.takes_any = takes_any

    def get(self, name: str) -> Parameter:
        """Return the option, an untyped one where ``**kw`` takes it."""
        found = self.parameters.get(name)
        return found if found is not None else Parameter(name, Any, REQUIRED)


def marks(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Annotated:
        for mark in hint.__metadata__:
            if isinstance(mark, Kind):
                yield mark.name
    if is_typed_dict(hint):
        for inner in typed_dict(hint).values():
            yield from marks(inner)
    for inner in get_args(hint):
        if not isinstance(inner, (str, int, bytes)):
            yield from marks(inner)


# --- signatures ---------------------------------------------------------------------------------


def signature(factory: Any, leading: int = 1) -> Signature:
    """Return the options of *factory*.

    Args:
        factory: Class or function of a layer, or of an app.
        leading: How many of its first parameters are no options: 1 for the app.

    Raises:
        ValueError: It does not tell (written in C), or cannot be called with an app first.
    """
    if isinstance(factory, (PasteFilter, PasteApp)):
        leading = factory.leading[factory.group]
        factory = factory.factory
    function, leading = _function(factory, leading)
    if function is None:
        return _inspected(factory, leading)
    code = function.__code__
    names = code.co_varnames
    positional = list(names[: code.co_argcount])
    has_more = bool(code.co_flags & 0x04)
    takes_any = bool(code.co_flags & 0x08)
    if len(positional) < leading and not has_more:
        raise ValueError("it does not take an app as its first argument")
    defaults: dict[str, Any] = dict(function.__kwdefaults__ or {})
    tail = function.__defaults__ or ()
    defaults.update(zip(positional[len(positional) - len(tail) :], tail, strict=True))
    keywords = names[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    chosen = [*positional[max(leading, code.co_posonlyargcount) :], *keywords]
    hints, ours = function.__annotations__, function.__module__.startswith("lamella.")
    parameters = {}
    for name in chosen:
        hint, default = hints.get(name, Any), defaults.get(name, REQUIRED)
        parameters[name] = Parameter(name, hint, default, is_marked=ours, namespace=function.__globals__)
    return Signature(parameters, takes_any)


def _function(factory: Any, leading: int) -> tuple[types.FunctionType | None, int]:
    """Return the Python function behind a plain class or function; None where only inspect can tell."""
    if isinstance(factory, types.FunctionType) and not hasattr(factory, "__wrapped__"):
        return factory, leading
    if type(factory) is type and "__new__" not in _names(factory) and not hasattr(factory, "__signature__"):
        init: Any = type.__getattribute__(factory, "__init__")
        if isinstance(init, types.FunctionType) and not hasattr(init, "__wrapped__"):
            return init, leading + 1
    return None, leading


def _names(cls: type) -> set[str]:
    """Names that the class and its bases, other than ``object``, define."""
    return {name for base in cls.__mro__[:-1] for name in vars(base)}


def _inspected(factory: Any, leading: int) -> Signature:
    import inspect

    try:
        found = inspect.signature(factory)
    except TypeError as error:
        raise ValueError(str(error)) from None
    namespace = getattr(inspect.unwrap(factory), "__globals__", None) or vars(
        sys.modules.get(getattr(factory, "__module__", None) or "builtins", builtins)
    )
    parameters = {}
    takes_any = False
    seen = 0
    for one in found.parameters.values():
        if one.kind is one.VAR_KEYWORD:
            takes_any = True
        elif one.kind is one.VAR_POSITIONAL:
            seen = max(seen, leading)
        elif seen < leading and one.kind is not one.KEYWORD_ONLY:
            seen += 1
        elif one.kind is not one.POSITIONAL_ONLY:
            hint = Any if one.annotation is one.empty else one.annotation
            default = REQUIRED if one.default is one.empty else one.default
            parameters[one.name] = Parameter(one.name, hint, default, namespace=namespace)
    if seen < leading:
        raise ValueError("it does not take an app as its first argument")
    return Signature(parameters, takes_any)


class _Names(dict[str, Any]):
    """Globals of a module; of what is imported for type checkers only, modules of the standard library are found.

    Any other name that is not there means ``Any``.
    """

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        return import_module(name) if name in sys.stdlib_module_names else Any


def _resolve(hint: Any, namespace: Mapping[str, Any]) -> Any:
    """Evaluate an annotation as far as it can be; what cannot is ``Any``."""
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        try:
            # The globals proper stay empty, so that each name passes through _Names.
            hint = eval(hint, {"__builtins__": {}}, _Names(namespace))  # noqa: S307 - source of an imported module
        except Exception:  # noqa: BLE001 - whatever an annotation does, the option is merely untyped
            return Any
    return Any if hint is None else hint


def is_typed_dict(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__required_keys__")


def typed_dict(hint: Any) -> dict[str, Any]:
    """Return the keys of a TypedDict and their annotations, without ``Required`` and ``NotRequired``."""
    namespace = vars(sys.modules.get(hint.__module__, builtins))
    found = {}
    for key, inner in hint.__annotations__.items():
        inner = _resolve(inner, {**vars(typing), **namespace})
        if get_origin(inner) in (typing.Required, typing.NotRequired):
            inner = get_args(inner)[0]
        found[key] = inner
    return found
