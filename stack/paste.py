"""Our layers as PasteDeploy filters: ``lamella.stack.paste:cors`` is a ``paste.filter_app_factory``.

.. code-block:: ini

    [filter:cors]
    use = egg:lamella#cors
    origins = https://shop.example https://admin.example
    max_age = 10m

An ini file has text only, which is converted by the annotations of the layer: a list is
parted by white space or commas, a table has a line ``key = value`` for each entry or is
written as JSON, a secret may be ``env:NAME`` or ``file:path``, a relative path is relative to
the ini file.
"""

from __future__ import annotations

import collections.abc
import os
import re
from collections.abc import Callable
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from lamella.stack.convert import BAD, Converter
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Secret
from lamella.stack.outside import Text
from lamella.stack.problems import UnresolvedError, did_you_mean
from lamella.stack.references import layer_class
from lamella.stack.signatures import REQUIRED, Parameter, signature

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

Factory = Callable[..., "WSGIApplication"]


def __getattr__(name: str) -> Factory:
    try:
        found = None if name.startswith("_") else layer_class(name)
    except UnresolvedError as error:
        raise ImportError(str(error)) from error
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = _factory(name, found)
    globals()[name] = made
    return made


def _factory(name: str, layer: type) -> Factory:
    """Return the ``paste.filter_app_factory`` of one layer."""

    def factory(app: WSGIApplication, global_conf: dict[str, str] | None, **local_conf: str) -> WSGIApplication:
        known = signature(layer)
        folder = (global_conf or {}).get("here", "")
        options = {}
        for option, text in local_conf.items():
            if option not in known.parameters:
                hint = did_you_mean(option, known.parameters) or ": " + ", ".join(known.parameters)
                raise ConfigError(name, option, f"one of its options{hint}")
            options[option] = from_text(known.parameters[option], text, folder)
        for option, one in known.parameters.items():
            if one.default is REQUIRED and option not in options:
                raise ConfigError(option, None, f"a value: {name} cannot do without it")
        made: WSGIApplication = layer(app, **options)
        return made

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = f"Make a ``{name}`` layer from an ini section."
    # `use = "egg:lamella#cors"` in a stack file then means the layer itself, with typed options.
    factory.lamella_layer = layer  # type: ignore[attr-defined]
    return factory


_TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_SOURCE = re.compile(r"(env|file|insecure):(.*)", re.DOTALL)


def from_text(parameter: Parameter, text: object, folder: str = "") -> Any:
    """Convert the text of an ini file for one option.

    Args:
        parameter: The option.
        text: Its text; what is none is returned as it is.
        folder: What relative paths are relative to; empty for the working directory.

    Raises:
        ConfigError: The text does not fit the annotation.
    """
    if not isinstance(text, str):
        return text
    mistakes: list[str] = []
    for value in _readings(text.strip(), parameter):
        if value is None:
            return None
        found: list[str] = []
        converter = Converter(
            lambda path, message, phase, key, to=found: to.append(message),  # type: ignore[misc]
            folder=os.path.abspath(folder),
        )
        made = converter.convert(value, parameter.hint, (), secret=parameter.is_secret)
        if made is not BAD:
            return made
        mistakes = mistakes or found
    hidden: object = Secret(b"") if parameter.is_secret else text
    raise ConfigError(parameter.name, hidden, mistakes[0].removeprefix("expected ").partition(", not ")[0])


def _readings(text: str, parameter: Parameter) -> list[Any]:
    """Return what the text may mean, the likeliest first; the first that fits is taken."""
    hints = _flat(parameter.hint)
    if not text and type(None) in hints:
        return [None]
    if "secret" in parameter.kinds:
        return [_secrets(text)]
    readings: list[Any] = []
    if text[:1] in ("[", "{"):
        import json

        try:
            readings.append(json.loads(text))
        except ValueError:
            pass
    is_list = any(get_origin(hint) in _LISTS or hint in _LISTS for hint in hints)
    items: list[Any] = [Text(item) for item in re.split(r"[\s,]+", text) if item]
    table = _table(text)
    if bool in hints and text.lower() in _TRUTH:
        readings.append(_TRUTH[text.lower()])
    if is_list and len(items) > 1:
        readings.append(items)
    if table is not None:
        readings.append(table)
    readings.append(Text(text))
    if is_list:
        readings.append(items)
    return readings


_LISTS = (
    list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection,
    collections.abc.Set,
)  # fmt: skip


def _flat(hint: Any) -> list[Any]:
    """Return the members of a union; of anything else, itself."""
    if get_origin(hint) in (Union, UnionType):
        return [inner for member in get_args(hint) for inner in _flat(member)]
    return [hint]


def _secrets(text: str) -> Any:
    """``env:NAME``, ``file:path``, several of them, or the secret itself."""
    parts = text.split()
    if len(parts) > 1 and all(_SOURCE.fullmatch(part) for part in parts):
        return [_secret(part) for part in parts]
    return _secret(text)


def _secret(text: str) -> dict[str, str]:
    found = _SOURCE.fullmatch(text)
    return {"insecure": text} if found is None else {found[1]: found[2].strip()}


def _table(text: str) -> dict[str, Any] | None:
    """Lines ``key = value``; None where the text has another form."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [line.partition("=") for line in lines]
    if not pairs or not all(equals and key.strip() and value.strip() for key, equals, value in pairs):
        return None
    return {key.strip(): Text(value.strip()) for key, _, value in pairs}
