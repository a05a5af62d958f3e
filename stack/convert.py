"""Typed options: values of a stack file made to fit the annotations of a layer.

The structure of an annotation is walked here, because the marks of
:mod:`lamella.stack.kernel.options` may stand anywhere in it; what is no structure and no
mark is left to msgspec, which converts and refuses.
"""

from __future__ import annotations

import collections.abc
import os
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from lamella.stack.hints import (
    MAPPINGS,
    SEQUENCES,
    SETS,
    WORDS,
    describe,
    members,
    rank,
    takes_secret,
    takes_table,
    toml_text,
)
from lamella.stack.kernel import options as kinds
from lamella.stack.kernel.asgi import as_wsgi
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Kind, Secret
from lamella.stack.outside import EXTERNAL, SOURCES, Text, is_external, number, read_source, read_text, shown
from lamella.stack.problems import UnresolvedError, did_you_mean
from lamella.stack.references import import_attribute, is_reference
from lamella.stack.signatures import Parameter, is_typed_dict, marks, typed_dict

__all__ = ["BAD", "Converter"]

#: What a refused value is converted to; its problem has been reported.
BAD: Any = type("Bad", (), {"__repr__": lambda self: "BAD", "__slots__": ()})()


# --- values -------------------------------------------------------------------------------------


Report = Callable[["tuple[str | int, ...]", str, str, bool], None]


class Converter:
    """Makes values of a stack file fit the annotations of one layer's options.

    Args:
        report: Called for each mistake with its path below the option, message and phase, and
            whether the key is wrong rather than the value.
        folder: What relative paths are relative to.
        sub_stack: Returns the sub-stack of a name; None where it has mistakes of its own; text
            that says why it cannot stand here.
        names: Names of all sub-stacks, for suggestions.
        resolve: False to check only: no variable, file or module is looked at.
        check_apps: Import the apps that are written as ``module:attribute``.
        notice: Called with the source (such as ``env NAME``) of each value from outside.
        keep_secret: Called with the text of each secret, so that errors can hide it.
    """

    def __init__(
        self,
        report: Report,
        *,
        folder: str = "",
        sub_stack: Callable[[str], Any] = lambda name: None,
        names: Callable[[], list[str]] = list,
        resolve: bool = True,
        check_apps: bool = False,
        notice: Callable[[str], None] = lambda source: None,
        keep_secret: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._report = report
        self._folder = folder
        self._sub_stack = sub_stack
        self._names = names
        self._resolve = resolve
        self._check_apps = check_apps
        self._notice = notice
        self._keep_secret = keep_secret

    def option(self, parameter: Parameter, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        """Return *value* for *parameter*, or :data:`BAD` once its mistakes are reported."""
        if parameter.refuses_literals and isinstance(value, str) and value and not isinstance(value, Text):
            return self._literal_secret(path)
        return self.convert(value, parameter.hint, path, secret=parameter.is_secret)

    def convert(self, value: Any, hint: Any, path: tuple[str | int, ...], *, secret: bool = False) -> Any:
        """Return *value* as *hint* wants it, or :data:`BAD` once its mistakes are reported."""
        if isinstance(value, dict) and self._means_external(value, hint):
            return self._external(value, hint, path, secret)
        origin = get_origin(hint)
        if hint is Any or hint is object:
            return self._untyped(value, path, secret)
        if origin is Annotated:
            for mark in hint.__metadata__:
                if isinstance(mark, Kind):
                    return self._marked(value, mark.name, hint, path)
            return self._leaf(value, hint, path)
        if origin in (Union, types.UnionType):
            return self._union(value, get_args(hint), hint, path, secret)
        if origin is Literal:
            return self._literal(value, hint, path)
        if origin in SEQUENCES or hint in SEQUENCES:
            return self._list(value, hint, get_args(hint)[:1] or (Any,), path, secret)
        if origin in SETS or hint in SETS:
            made = self._list(value, hint, get_args(hint)[:1] or (Any,), path, secret)
            return made if made is BAD else (set(made) if set in (origin, hint) else frozenset(made))
        if origin is tuple or hint is tuple:
            return self._tuple(value, hint, path, secret)
        if origin in MAPPINGS or hint in MAPPINGS:
            return self._mapping(value, hint, path, secret)
        if is_typed_dict(hint):
            return self._table(value, hint, path, secret)
        if origin is collections.abc.Callable or hint is collections.abc.Callable:
            if isinstance(value, str) and not is_reference(value):
                return self._refuse(value, hint, path)
            return self._reference(value, path)
        return self._leaf(value, hint, path)

    # -- mistakes --

    def _bad(self, path: tuple[str | int, ...], message: str, phase: str = "types", *, key: bool = False) -> Any:
        self._report(path, message, phase, key)
        return BAD

    def _refuse(self, value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:
        hint_text = ""
        if isinstance(value, dict):
            hint_text = next(filter(None, (did_you_mean(name, ("env", "file", "insecure")) for name in value)), "")
        if "secret" in marks(hint):
            return self._bad(path, f"expected {describe(hint)}{hint_text}")
        return self._bad(path, f"expected {describe(hint)}, not {shown(value)}{hint_text}")

    def _literal_secret(self, path: tuple[str | int, ...]) -> Any:
        return self._bad(
            path, 'a secret does not stand in the file: write { env = "NAME" } or { file = "path" }'
            ', or { insecure = "…" } where nothing is at stake'
        )  # fmt: skip

    # -- values from outside --

    def _means_external(self, value: dict[str, Any], hint: Any) -> bool:
        """Tell a value from outside, also a misspelt one, from a table that the option takes."""
        if is_external(value):
            return True
        if not value.keys() & SOURCES:
            return False
        return not takes_table(hint)

    def _external(self, value: dict[str, Any], hint: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        for name in value.keys() - EXTERNAL:
            self._bad(
                (*path, name), f"a value from outside has no key `{name}`{did_you_mean(name, EXTERNAL)}", key=True
            )
        sources = sorted(value.keys() & SOURCES)
        if len(sources) > 1:
            return self._bad(path, "one of env, file and insecure, not several: " + ", ".join(sources))
        if value.keys() - EXTERNAL:
            return BAD
        source = sources[0]
        secret = secret or "secret" in marks(hint)
        named = value[source]
        if not isinstance(named, str) or (not named and source != "insecure") or "\0" in named:
            return self._bad((*path, source), f"expected text, not {toml_text(named)}")
        if secret and "default" in value:
            return self._bad((*path, "default"), "a secret has no default", key=True)
        if source == "insecure" and not secret:
            return self._bad((*path, source), "insecure is for secrets; write the value itself", key=True)
        if not self._resolve:
            return BAD
        text = self._read(source, named, (*path, source), "default" in value)
        if text is BAD:
            return BAD
        if text is None:
            return self.convert(value["default"], hint, (*path, "default"), secret=secret)
        origin = "insecure" if source == "insecure" else f"{source} {named}"
        self._notice(origin)
        if secret:
            self._keep_secret(text)
        if "secret" in marks(hint):
            return self._secret(text, hint, origin, path)
        return self.convert(Text.of(text, origin), hint, path, secret=secret)

    def _read(self, source: str, named: str, path: tuple[str | int, ...], has_default: bool) -> Any:
        """Return the text, None where it is absent and there is a default."""
        try:
            text = read_source(source, named, self._folder)
        except UnresolvedError as error:
            return self._bad(path, str(error), "references")
        if text is None and not has_default:
            missing = f"the environment variable {named} is not set" if source == "env" else f"there is no file {named}"
            return self._bad(path, missing, "references")
        return text

    def _secret(self, text: str, hint: Any, source: str, path: tuple[str | int, ...]) -> Any:
        """Wrap a secret; where the option takes only a list of them, in a list."""
        made = Secret(text, source)
        if takes_secret(hint):
            return made
        if any(get_origin(one) in (*SEQUENCES, tuple) for one in members(hint)):
            return [made]
        return self.convert(Text.of(text, source), hint, path, secret=True)

    # -- structure --

    def _untyped(self, value: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        """A value without annotation goes as it is; values from outside are looked for in it."""
        if isinstance(value, dict):
            made = {key: self.convert(inner, Any, (*path, key), secret=secret) for key, inner in value.items()}
            return BAD if any(inner is BAD for inner in made.values()) else made
        if isinstance(value, list):
            items = [self.convert(inner, Any, (*path, i), secret=secret) for i, inner in enumerate(value)]
            return BAD if any(inner is BAD for inner in items) else items
        if isinstance(value, Text):
            return str(value)
        return value

    def _union(self, value: Any, members: tuple[Any, ...], hint: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        """The first member that takes the value, those with a mark first."""
        attempts = []
        first = is_typed_dict if isinstance(value, dict) else lambda hint: False
        for member in sorted(members, key=lambda one: -1 if first(one) else rank(one)):
            if member is type(None):
                continue
            mistakes: list[tuple[tuple[str | int, ...], str, str, bool]] = []
            report, self._report = self._report, lambda *one, to=mistakes: to.append(one)
            try:
                made = self.convert(value, member, path, secret=secret)
            finally:
                self._report = report
            if made is not BAD:
                return made
            if not mistakes:  # checked only, not resolved
                return BAD
            attempts.append((member, mistakes))
            if first(member) or ("secret" in marks(member) and type(value) is str):
                break
        # The mistakes of a member that took the value's shape say more than a list of all shapes.
        for member, mistakes in attempts:
            if len(attempts) == 1 or _is_definite(member, value, mistakes, path):
                for mistake in mistakes:
                    self._report(*mistake)
                return BAD
        return self._refuse(value, hint, path)

    def _literal(self, value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:
        choices = get_args(hint)
        for choice in choices:
            if choice == value and (type(choice) is type(value) or isinstance(value, Text)):
                return choice
            if isinstance(value, Text) and not isinstance(choice, str) and str(choice).lower() == value.lower():
                return choice
        near = did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        return self._bad(path, f"expected {describe(hint)}, not {shown(value)}{near}")

    def _list(self, value: Any, hint: Any, of: tuple[Any, ...], path: tuple[str | int, ...], secret: bool) -> Any:
        if not isinstance(value, list):
            return self._refuse(value, hint, path)
        items = [self.convert(inner, of[0], (*path, i), secret=secret) for i, inner in enumerate(value)]
        return BAD if any(inner is BAD for inner in items) else items

    def _tuple(self, value: Any, hint: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        members = get_args(hint)
        if not members or (len(members) == 2 and members[1] is Ellipsis):
            made = self._list(value, hint, members[:1] or (Any,), path, secret)
            return made if made is BAD else tuple(made)
        if not isinstance(value, list) or len(value) != len(members):
            return self._bad(path, f"expected a list of {len(members)} values, not {shown(value)}")
        pairs = enumerate(zip(value, members, strict=True))
        items = [self.convert(inner, member, (*path, i), secret=secret) for i, (inner, member) in pairs]
        return BAD if any(inner is BAD for inner in items) else tuple(items)

    def _mapping(self, value: Any, hint: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        if not isinstance(value, dict):
            return self._refuse(value, hint, path)
        key_hint, value_hint = get_args(hint) or (Any, Any)
        made = {}
        for key, inner in value.items():
            new_key = key
            if key_hint not in (str, Any):
                new_key = self.convert(Text(key), key_hint, (*path, key))
            new = self.convert(inner, value_hint, (*path, key), secret=secret)
            made[new_key if new_key is not BAD else key] = BAD if new_key is BAD else new
        return BAD if any(inner is BAD for inner in made.values()) else made

    def _table(self, value: Any, hint: Any, path: tuple[str | int, ...], secret: bool) -> Any:
        """A TypedDict: its keys, no others, and all that it requires."""
        if not isinstance(value, dict):
            return self._refuse(value, hint, path)
        hints = typed_dict(hint)
        made: dict[str, Any] = {}
        for key, inner in value.items():
            if key not in hints:
                known = did_you_mean(key, hints) or "; there are " + ", ".join(f"`{name}`" for name in hints)
                made[key] = self._bad((*path, key), f"no key `{key}` here{known}", key=True)
            else:
                made[key] = self.convert(inner, hints[key], (*path, key), secret=secret)
        missing = sorted(hint.__required_keys__ - value.keys())
        if missing:
            return self._bad(path, "lacks " + ", ".join(f"`{name}`" for name in missing))
        return BAD if any(inner is BAD for inner in made.values()) else made

    # -- marks --

    def _marked(self, value: Any, kind: str, hint: Any, path: tuple[str | int, ...]) -> Any:
        if kind == "secret":
            if isinstance(value, str) and not isinstance(value, Text):
                return self._literal_secret(path)
            return self._refuse(value, hint, path)
        if kind == "reference":
            return self._reference(value, path)
        if kind == "app":
            return self._app(value, hint, path)
        if kind in ("path", "output"):
            if not isinstance(value, str) or not value or "\0" in value:
                return self._refuse(value, hint, path)
            # "-" is standard output; "stderr" is a stream where lines are meant, and a file's name elsewhere.
            if value == "-" or (kind == "output" and value == "stderr"):
                return str(value)
            return os.path.normpath(os.path.join(self._folder, value))
        check: Callable[[str, Any], Any] | None = getattr(kinds, kind, None)
        if kind not in ("duration", "size", "cidr", "regex") or check is None:
            return self.convert(value, hint.__origin__, path)
        if isinstance(value, Text):
            plain: str | int = number(str(value)) if kind in ("duration", "size") else str(value)
        else:
            plain = value
        try:
            check("", plain)
        except ConfigError as error:
            return self._bad(path, f"expected {error.expected}, not {shown(value)}")
        return plain

    def _reference(self, value: Any, path: tuple[str | int, ...]) -> Any:
        if not isinstance(value, str):
            return self._bad(path, f"expected {WORDS['reference']}, not {shown(value)}")
        if ":" not in value:  # a word that the layer knows, such as "uuid4"
            return str(value)
        if not is_reference(value):
            return self._bad(path, f"expected {WORDS['reference']}, not {shown(value)}")
        if not self._resolve:
            return BAD
        try:
            return import_attribute(str(value))
        except UnresolvedError as error:
            return self._bad(path, str(error), "references")

    def _app(self, value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, dict) and "app" in value:
            # An app with what the layer does for it; the layer knows the other keys.
            made = {key: self._untyped(inner, (*path, key), False) for key, inner in value.items() if key != "app"}
            made["app"] = self._app(value["app"], hint, (*path, "app"))
            return BAD if any(inner is BAD for inner in made.values()) else made
        if isinstance(value, dict):
            return self._bad(
                path,
                "lacks `app`, the app that is meant"
                + next(filter(None, (did_you_mean(key, ["app"]) for key in value)), ""),
            )
        if not isinstance(value, str) or not (value.startswith("@") or is_reference(value)):
            return self._bad(path, f"expected {WORDS['app']}, not {shown(value)}")
        if value.startswith("@"):
            if value[1:] not in self._names():
                hint_text = did_you_mean(value[1:], self._names())
                return self._bad(path, f"no sub-stack is called `{value[1:]}`{hint_text}", "references")
            found = self._sub_stack(value[1:])
            if isinstance(found, str):
                return self._bad(path, found, "references")
            return BAD if found is None else found
        if self._check_apps and self._resolve:
            try:
                found = import_attribute(str(value))
            except UnresolvedError as error:
                return self._bad(path, str(error), "references")
            if not callable(found):
                return self._bad(path, f"{value} is not an app: it cannot be called", "references")
            try:
                as_wsgi(str(value), found)
            except ConfigError as error:
                return self._bad(path, f"{value} is not an app: expected {error.expected}", "references")
        return str(value)

    # -- leaves --

    def _leaf(self, value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, Text):
            value = read_text(value, hint)
        if hint is str or hint is bytes:
            if isinstance(value, str):
                return str(value) if hint is str else value.encode()
            return self._refuse(value, hint, path)
        if hint is bool:
            return value if isinstance(value, bool) else self._refuse(value, hint, path)
        if hint is int:
            return value if isinstance(value, int) and not isinstance(value, bool) else self._refuse(value, hint, path)
        if hint is float:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return float(value) if is_number else self._refuse(value, hint, path)
        if hint is type(None):
            return self._refuse(value, hint, path)
        return self._foreign(value, hint, path)

    def _foreign(self, value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:
        """Types of others: msgspec converts what it knows; of the rest an instance can be imported."""
        import msgspec

        bare = hint.__origin__ if get_origin(hint) is Annotated else hint
        if isinstance(bare, type) and isinstance(value, bare):
            return value
        try:
            return msgspec.convert(value, hint, strict=not isinstance(value, Text))
        except msgspec.ValidationError as error:
            message, _, at = str(error).partition(" - at `$")
            inner = tuple(int(i) if i else name for name, i in re.findall(r"\.([^.\[`]+)|\[(\d+)\]", at))
            return self._bad((*path, *inner), message[:1].lower() + message[1:].replace("`", ""))
        except (TypeError, NotImplementedError):
            pass
        if isinstance(value, str) and is_reference(value):
            found = self._reference(value, path)
            if found is BAD or not isinstance(bare, type) or isinstance(found, bare):
                return found
        return self._bad(
            path,
            f"expected a reference to an object of type {getattr(bare, '__name__', bare)}"
            f' ("package.module:attribute"), not {shown(value)}',
        )


def _is_definite(member: Any, value: Any, mistakes: list[Any], path: tuple[str | int, ...]) -> bool:
    """Tell whether *member* took the shape of the value and only its contents are wrong."""
    if any(len(where) > len(path) or phase != "types" for where, _, phase, _ in mistakes):
        return True
    if "lacks" in mistakes[0][1] and isinstance(value, dict):
        return True
    return "secret" in marks(member) and isinstance(value, str)
