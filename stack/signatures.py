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
from typing import Annotated, Any, get_args, get_origin

from lamella.stack.kernel.options import Kind
from lamella.stack.references import PasteApp, PasteFilter

__all__ = ["REQUIRED", "Parameter", "Signature", "is_typed_dict", "marks", "signature", "typed_dict"]

#: The default of an option that has none.
REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED", "__slots__": ()})()

# How others name what must not be shown; what may not stand in the file either.
_LITERAL_REFUSED = re.compile(
    r"(?:.*_)?(?:secrets?|secret_?key|passw(?:or)?d|passphrase|(?:api|private|signing|encryption)_?key)", re.IGNORECASE
)
_MASKED = re.compile(_LITERAL_REFUSED.pattern + r"|(?:.*_)?(?:tokens?|credentials?)", re.IGNORECASE)


class Parameter:
    """One option of a factory.

    Args:
        name: The option.
        hint: Its annotation, resolved; ``Any`` where it has none.
        default: Its default, or :data:`REQUIRED`.
        is_marked: The author knows the marks: what has none is no secret, whatever its name.
    """

    __slots__ = ("default", "hint", "is_marked", "kinds", "name")

    def __init__(self, name: str, hint: Any, default: Any, *, is_marked: bool = False) -> None:
        self.name = name
        self.hint = hint
        self.default = default
        #: Names of the marks anywhere in the annotation.
        self.kinds = frozenset(marks(hint))
        self.is_marked = is_marked or bool(self.kinds) or hint in (bool, int, float)

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
        hint = _resolve(hints.get(name, Any), function.__globals__)
        parameters[name] = Parameter(name, hint, defaults.get(name, REQUIRED), is_marked=ours)
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
            hint = Any if one.annotation is one.empty else _resolve(one.annotation, namespace)
            parameters[one.name] = Parameter(one.name, hint, REQUIRED if one.default is one.empty else one.default)
    if seen < leading:
        raise ValueError("it does not take an app as its first argument")
    return Signature(parameters, takes_any)


class _Names(dict[str, Any]):
    """Globals of a module, in which a name imported for type checkers only means ``Any``."""

    def __missing__(self, name: str) -> Any:
        try:
            return getattr(builtins, name)
        except AttributeError:
            return Any


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
