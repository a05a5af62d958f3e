"""Patterns of paths: ``/notes/<int:id>``, compiled to literals and parts, one per segment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from lamella.stack.kernel.errors import ConfigError

from .converters import BUILTIN, AnyConverter, Converter, regex_converter
from .segments import SEGMENT_SAFE, Part, is_canonical

__all__ = ["RESERVED_NAMES", "VARIABLE", "Pattern", "PatternCompiler", "Segment"]

#: A variable, with its converter and the arguments of that, as they are written.
VARIABLE = re.compile(r"<(?:([A-Za-z_][A-Za-z0-9_]*)(?:\(([^()<>]*)\))?:)?([A-Za-z_][A-Za-z0-9_]*)>")
#: Names that the view is called with, or that url_for() takes for itself.
RESERVED_NAMES = frozenset({"request", "self", "external", "scheme", "anchor"})

Segment: TypeAlias = "str | Part"


class Pattern:
    """One compiled pattern.

    Attributes:
        source: As written.
        segments: Literals and parts, one per segment; the last is ``""`` after a final slash.
        names: Names of the variables, from left to right.
    """

    __slots__ = ("names", "segments", "source")

    def __init__(self, source: str, segments: tuple[Segment, ...], names: tuple[str, ...]) -> None:
        self.source = source
        self.segments = segments
        self.names = names

    def under(self, prefix: Pattern) -> Pattern:
        """Return this pattern with *prefix* in front.

        Raises:
            ConfigError: A name stands in both.
        """
        joined = Pattern(prefix.source + self.source, prefix.segments + self.segments, prefix.names + self.names)
        joined.check()
        return joined

    def check(self) -> None:
        """Check what holds for a pattern as a whole.

        Raises:
            ConfigError: A name twice, or two variables that take slashes.
        """
        if len(set(self.names)) != len(self.names):
            raise ConfigError("pattern", self.source, "each name once")
        if sum(1 for segment in self.segments if isinstance(segment, Part) and segment.multi) > 1:
            raise ConfigError("pattern", self.source, "at most one variable that takes slashes")

    def build(self, values: Mapping[str, Any]) -> str:
        """Return the path for *values*, percent-encoded.

        Raises:
            UrlError: A value does not fit its variable.
        """
        return "".join(
            "/" + (quote(segment, safe=SEGMENT_SAFE) if isinstance(segment, str) else segment.build(values))
            for segment in self.segments
        )


class PatternCompiler:
    """Compiles patterns, with the converters of one router.

    Args:
        converters: Name to class, or to a regular expression; added to the built-in ones.

    Raises:
        ConfigError: Not a converter.
    """

    def __init__(self, converters: Mapping[str, type[Converter] | str] | None = None) -> None:
        self._converters: dict[str, type[Converter]] = dict(BUILTIN)
        self._parts: dict[str, Part] = {}
        for name, converter in (converters or {}).items():
            self.register(name, converter)

    def register(self, name: str, converter: type[Converter] | str) -> None:
        """Add a converter, for the patterns compiled from now on."""
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError("converters", name, "names that are identifiers")
        if isinstance(converter, str):
            try:
                re.compile(converter)
            except re.error as error:
                raise ConfigError("converters", converter, f"a regular expression ({error})") from None
            converter = regex_converter(converter)
        if not (isinstance(converter, type) and issubclass(converter, Converter)):
            raise ConfigError("converters", converter, "subclasses of Converter, or regular expressions")
        self._converters[name] = converter
        self._parts.clear()

    def compile(self, source: str) -> Pattern:
        """Compile one pattern.

        Raises:
            ConfigError: Malformed, an unknown converter, or a path that no request can have.
        """
        if source == "":  # of a sub-router: the prefix itself
            return Pattern("", (), ())
        if not isinstance(source, str) or not source.startswith("/"):
            raise ConfigError("pattern", source, 'a path that starts with "/"')
        segments: list[Segment] = []
        names: tuple[str, ...] = ()
        is_ascii = source.isascii()
        for text in source[1:].split("/"):
            if is_ascii and text.isalnum():  # most literals, and nothing that could be read twice
                segments.append(text)
            elif "<" in text or ">" in text:
                part = self._parts.get(text)
                if part is None:
                    part = self._parts[text] = self._part(source, text)
                segments.append(part)
                names += part.names
            elif not text and "//" in source:
                raise ConfigError("pattern", source, "no empty segments")
            elif not text or is_canonical(text):
                segments.append(text)
            else:
                raise ConfigError("pattern", source, "a path as it is decoded, with nothing that could be read twice")
        pattern = Pattern(source, tuple(segments), names)
        if len(names) > 1:
            pattern.check()
        return pattern

    def _part(self, source: str, text: str) -> Part:
        """Compile one segment that has variables."""
        literals: list[str] = []
        converters: list[tuple[tuple[object, ...], Converter]] = []
        names: list[str] = []
        at = 0
        for found in VARIABLE.finditer(text):
            if names and found.start() == at:
                raise ConfigError("pattern", source, "some text between two variables")
            literals.append(text[at : found.start()])
            at = found.end()
            kind, arguments, name = found.groups()
            if name in RESERVED_NAMES:
                raise ConfigError("pattern", source, f"another name than {name!r}, which is reserved")
            converters.append(self._converter(source, kind or "str", arguments))
            names.append(name)
        literals.append(text[at:])
        rest = "".join(literals)
        if not names or "<" in rest or ">" in rest:
            raise ConfigError("pattern", source, "variables such as <name>, <int:name>, <any(a,b):name>")
        if rest and not is_canonical("x" + rest):
            raise ConfigError("pattern", source, "a path as it is decoded, with nothing that could be read twice")
        part = Part(text, literals, converters, names)
        if part.multi and part._single is None:
            raise ConfigError("pattern", source, "a variable that takes slashes to be its whole segment")
        return part

    def _converter(self, source: str, kind: str, arguments: str | None) -> tuple[tuple[object, ...], Converter]:
        """Make one converter, and the key that tells it from others."""
        factory = self._converters.get(kind)
        if factory is None:
            known = ", ".join(sorted(self._converters))
            raise ConfigError("pattern", source, f"a known converter ({known}) instead of {kind!r}")
        positional, named = _arguments(arguments or "")
        try:
            converter = factory(*positional, **named)
        except (TypeError, ValueError) as error:
            raise ConfigError("pattern", source, f"arguments that {kind} takes ({error})") from None
        try:
            groups = re.compile(converter.pattern).groups
        except re.error as error:
            raise ConfigError("pattern", source, f"a regular expression in {kind} ({error})") from None
        if groups:
            raise ConfigError("pattern", source, f"no groups in the expression of {kind}; write (?:…)")
        if isinstance(converter, AnyConverter):
            bad = [word for word in converter.words if "/" in word or not is_canonical(word)]
            if bad:
                raise ConfigError("pattern", source, f"words that can stand in a path instead of {bad[0]!r}")
            return (kind, frozenset(positional)), converter
        return (kind, *positional, *sorted(named.items())), converter


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Read ``a,b`` or ``min=1,signed=true``."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for piece in text.split(",") if text.strip() else ():
        name, equals, value = piece.partition("=")
        if equals:
            named[name.strip()] = _literal(value.strip())
        else:
            positional.append(piece.strip())
    return positional, named


def _literal(text: str) -> Any:
    """Read a number, a truth value or a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text.strip("'\"")
