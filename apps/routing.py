"""Patterns of paths, and the tree that finds the one a path matches. No WSGI in here.

A pattern is a path with variables: ``/notes/<int:id>``. The tree has one level per segment, so
what a match costs depends on the path, not on how many rules there are. A literal goes before
a variable, a narrow converter before a wide one, from left to right; two rules between which
that does not decide are refused when the second is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from lamella.stack.kernel.errors import ConfigError, LamellaError
from lamella.stack.kernel.http import is_token, parse_host
from lamella.stack.kernel.paths import AmbiguousPathError, check_path

if TYPE_CHECKING:
    from types import EllipsisType
    from uuid import UUID

__all__ = [
    "AmbiguousRouteError",
    "AnyConverter",
    "Converter",
    "FloatConverter",
    "HostPattern",
    "IntConverter",
    "Part",
    "PathConverter",
    "Pattern",
    "PatternCompiler",
    "StrConverter",
    "Tree",
    "UrlError",
    "UuidConverter",
    "check_methods",
]

#: RFC 3986 section 3.3: what a segment may hold as it is.
_SEGMENT_SAFE = "!$&'()*+,;=:@-._~"
# Text that can be read in one way only, whatever the encoding: no canonical path differs from it.
_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_~.-]*")
_VARIABLE = re.compile(r"<(?:([A-Za-z_][A-Za-z0-9_]*)(?:\(([^()<>]*)\))?:)?([A-Za-z_][A-Za-z0-9_]*)>")
# An identifier with more digits is nobody's; int() of thousands of digits raises or takes long.
_MOST_DIGITS = 100
# The longest float that repr() can make, 5e-324, has 326 characters when written out.
_MOST_FLOAT_DIGITS = 400
# Names that the view is called with, or that url_for() takes for itself.
_RESERVED_NAMES = frozenset({"request", "self", "external", "scheme", "anchor"})


class UrlError(LamellaError, LookupError):
    """No URL can be made: no rule has that name, or none takes these values."""


class AmbiguousRouteError(ConfigError):
    """Two rules match the same request and nothing says which goes first.

    Args:
        rule: The rule that was to be added.
        other: The rule that is there already.
    """

    def __init__(self, rule: object, other: object) -> None:
        super().__init__("rule", rule, f"a rule that cannot match what {other} matches")
        self.rule = rule
        self.other = other

    def __str__(self) -> str:
        return (
            f"ambiguous: {self.rule} and {self.other} match the same requests; change a path, a method, "
            "or the weight of a converter"
        )


class Converter:
    """Turns one segment of a path into a value, and a value into a segment.

    Subclass it for a type of your own, and give the class to the router's ``converters``. Its
    ``__init__`` takes what stands in parentheses: ``<date(min=2020):day>``.
    """

    #: Matched against the whole segment.
    pattern: str = r"[^/]+"
    #: Of two variables at one place, the one with the lower weight is tried first.
    weight: int = 50
    #: Whether the value may hold slashes; such a variable stands for one or more whole segments.
    multi_segment: bool = False

    def to_python(self, text: str) -> Any:
        """Return the value.

        Raises:
            ValueError: *text* is none, so the rule does not match.
        """
        return text

    def to_url(self, value: Any) -> str:
        """Return the text for *value*; what *pattern* does not match is refused afterwards."""
        return str(value)


class StrConverter(Converter):
    """Any text without a slash.

    Args:
        minlength: Fewest characters.
        maxlength: Most characters.
        length: Exactly so many.
    """

    weight = 90

    def __init__(self, minlength: int = 1, maxlength: int | None = None, length: int | None = None) -> None:
        if length is not None:
            minlength = maxlength = length
        if minlength < 1 or (maxlength is not None and maxlength < minlength):
            raise ValueError("lengths from 1, the smallest first")
        if (minlength, maxlength) != (1, None):
            self.pattern = rf"[^/]{{{minlength},{'' if maxlength is None else maxlength}}}"
            self.weight = 85


class IntConverter(Converter):
    """A decimal number in ASCII digits: no sign, no underscore, at most 100 digits.

    Args:
        min: The smallest value.
        max: The largest value.
        digits: Exactly so many digits, zeros in front.
        signed: Whether a minus may stand in front.
    """

    weight = 30

    def __init__(
        self, min: int | None = None, max: int | None = None, digits: int | None = None, signed: bool = False
    ) -> None:
        if digits is not None and not 1 <= digits <= _MOST_DIGITS:
            raise ValueError(f"1 to {_MOST_DIGITS} digits")
        self.pattern = ("-?" if signed else "") + (f"[0-9]{{{digits or f'1,{_MOST_DIGITS}'}}}")
        self._min = min
        self._max = max
        self._digits = digits or 0

    def to_python(self, text: str) -> int:
        value = int(text)
        if (self._min is not None and value < self._min) or (self._max is not None and value > self._max):
            raise ValueError("out of range")
        return value

    def to_url(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:0{self._digits + (value < 0)}d}"
        return str(value)


class FloatConverter(Converter):
    """A decimal number with a point, digits on both sides of it.

    Args:
        min: The smallest value.
        max: The largest value.
        signed: Whether a minus may stand in front.
    """

    weight = 40

    def __init__(self, min: float | None = None, max: float | None = None, signed: bool = False) -> None:
        self.pattern = ("-?" if signed else "") + rf"[0-9]{{1,{_MOST_FLOAT_DIGITS}}}\.[0-9]{{1,{_MOST_FLOAT_DIGITS}}}"
        self._min = min
        self._max = max

    def to_python(self, text: str) -> float:
        value = float(text)
        low = self._min is not None and value < self._min
        if low or (self._max is not None and value > self._max) or value in (float("inf"), float("-inf")):
            raise ValueError("out of range")
        return value

    def to_url(self, value: Any) -> str:
        text = repr(value) if isinstance(value, float) else str(value)
        if "e" in text and isinstance(value, float):
            from decimal import Decimal

            text = f"{Decimal(text):f}"
        return text if "." in text or not text.lstrip("-").isdigit() else text + ".0"


class PathConverter(Converter):
    """One or more whole segments, slashes included."""

    weight = 100
    multi_segment = True
    pattern = r".+"


class UuidConverter(Converter):
    """A UUID, written with its dashes; the value is a :class:`uuid.UUID`."""

    weight = 20
    pattern = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

    def __init__(self) -> None:
        from uuid import UUID

        self._uuid = UUID

    def to_python(self, text: str) -> UUID:
        return self._uuid(text)


class AnyConverter(Converter):
    """One of the given words: ``<any(summer,winter):season>``."""

    weight = 10

    def __init__(self, *words: str) -> None:
        if not words or not all(isinstance(word, str) and word for word in words):
            raise ValueError("one or more words")
        self.words = frozenset(words)
        self.pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


#: What every router knows.
BUILTIN: Mapping[str, type[Converter]] = {
    "str": StrConverter,
    "int": IntConverter,
    "float": FloatConverter,
    "path": PathConverter,
    "uuid": UuidConverter,
    "any": AnyConverter,
}


def _regex_converter(regex: str) -> type[Converter]:
    """Make a converter of a regular expression."""
    return type("RegexConverter", (Converter,), {"pattern": regex})


class Part:
    """One segment of a pattern that has variables: ``<id>``, ``v<int:major>.<int:minor>``.

    Attributes:
        source: As written.
        names: Names of its variables.
        key: Equal for parts that match the same segments in the same way.
        rank: The smaller goes first.
        multi: Whether it stands for several segments.
        fast: Returns the value of a segment that surely is canonical and matches, else None.
    """

    __slots__ = ("_converters", "_literals", "_regex", "_single", "fast", "key", "multi", "names", "rank", "source")

    def __init__(
        self, source: str, literals: list[str], converters: list[tuple[tuple[object, ...], Converter]], names: list[str]
    ) -> None:
        self.source = source
        self.names = tuple(names)
        self._literals = literals
        self._converters = [converter for _, converter in converters]
        self._single = self._converters[0] if len(converters) == 1 and literals == ["", ""] else None
        self.multi = any(converter.multi_segment for converter in self._converters)
        self.key: tuple[object, ...] = (tuple(literals), tuple(key for key, _ in converters))
        if self._single is not None:
            self.rank = (self._single.weight, 0)
        else:
            self.rank = (min(45, *(converter.weight for converter in self._converters)), -sum(map(len, literals)))
        self._regex = re.compile(self._expression(), re.DOTALL)
        self.fast = self._fast()

    def _expression(self) -> str:
        """The regular expression of the segment.

        Where several variables share a segment, all but the first stop before the text in front of
        them occurs again: ``<name>.<ext>`` takes the last dot, and no segment costs more than linear time.
        """
        pieces = [re.escape(self._literals[0])]
        for number, converter in enumerate(self._converters):
            before = self._literals[number]
            pattern = converter.pattern
            if number and type(converter) is StrConverter and converter.pattern == Converter.pattern:
                pattern = f"(?:(?!{re.escape(before)})[^/])+"
            pieces.append(f"({pattern})" + re.escape(self._literals[number + 1]))
        return "".join(pieces)

    def _fast(self) -> Callable[[str], Any]:
        single = self._single
        if type(single) is StrConverter and single.pattern == Converter.pattern:
            return _plain_text
        if type(single) is IntConverter and self.key == (("", ""), (("int",),)):
            return _plain_int
        if type(single) is AnyConverter:
            return {word: word for word in single.words if _PLAIN.fullmatch(word)}.get
        if single is None or self.multi:
            return _never
        match = self.match

        def fast(text: str) -> Any:
            if _PLAIN.fullmatch(text) is None:
                return None
            values = match(text)
            return None if values is None else values[0]

        return fast

    def match(self, text: str) -> tuple[Any, ...] | None:
        """Return the values in *text*, or None where it does not match."""
        found = self._regex.fullmatch(text)
        if found is None:
            return None
        groups = found.groups() if self._single is None else (text,)
        try:
            return tuple(converter.to_python(group) for converter, group in zip(self._converters, groups, strict=True))
        except ValueError:
            return None

    def build(self, values: Mapping[str, Any]) -> str:
        """Return the text, percent-encoded.

        Raises:
            UrlError: The text for these values would not be matched again.
        """
        pieces = [self._literals[0]]
        for number, (name, converter) in enumerate(zip(self.names, self._converters, strict=True)):
            try:
                pieces.append(converter.to_url(values[name]))
            except (TypeError, ValueError, AttributeError) as error:
                raise UrlError(f"{name}: {error}") from None
            pieces.append(self._literals[number + 1])
        text = "".join(pieces)
        again = self.match(text) if _is_canonical(text) else None
        if again is None:
            raise UrlError(f"{', '.join(self.names)}: no value that {self.source} matches")
        if self._single is None and [c.to_url(v) for c, v in zip(self._converters, again, strict=True)] != pieces[1::2]:
            raise UrlError(f"{', '.join(self.names)}: {self.source} would be read back as other values")
        return quote(text, safe=_SEGMENT_SAFE + ("/" if self.multi else ""))

    def overlaps(self, other: Part) -> bool:
        """Tell whether some text may match both; True where that cannot be told."""
        first, second = self._single, other._single
        if isinstance(first, AnyConverter) and isinstance(second, AnyConverter):
            return bool(first.words & second.words)
        a, b = self._literals[0], other._literals[0]
        if not (a.startswith(b) or b.startswith(a)):
            return False
        a, b = self._literals[-1], other._literals[-1]
        return a.endswith(b) or b.endswith(a)


def _never(text: str) -> None:
    return None


def _plain_text(text: str) -> str | None:
    # str methods first: 0.08 instead of 0.27 microseconds, and most values are words or numbers.
    if text.isalnum() and text.isascii():
        return text
    return text if _PLAIN.fullmatch(text) is not None else None


def _plain_int(text: str) -> int | None:
    return int(text) if text.isdigit() and text.isascii() and len(text) <= _MOST_DIGITS else None


def _is_canonical(text: str) -> bool:
    """Tell whether a request for *text*, percent-encoded, would not be refused."""
    if _PLAIN.fullmatch(text) is not None:
        return True
    try:
        return check_path("/" + text.encode().decode("latin-1")) == "/" + text
    except (AmbiguousPathError, UnicodeError):
        return False


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
            "/" + (quote(segment, safe=_SEGMENT_SAFE) if isinstance(segment, str) else segment.build(values))
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
            converter = _regex_converter(converter)
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
        parts = self._parts
        segments = []
        names: tuple[str, ...] = ()
        pieces = source[1:].split("/")
        last = len(pieces) - 1
        for number, text in enumerate(pieces):
            segment: Segment
            if "<" in text or ">" in text:
                part = parts.get(text)
                if part is None:
                    part = parts[text] = self._part(source, text)
                names = names + part.names if names else part.names
                segment = part
            elif _PLAIN.fullmatch(text) is not None:
                segment = text
            elif not text and number != last:
                raise ConfigError("pattern", source, "no empty segments")
            elif text and not _is_canonical(text):
                raise ConfigError("pattern", source, "a path as it is decoded, with nothing that could be read twice")
            else:
                segment = text
            segments.append(segment)
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
        for found in _VARIABLE.finditer(text):
            if names and found.start() == at:
                raise ConfigError("pattern", source, "some text between two variables")
            literals.append(text[at : found.start()])
            at = found.end()
            kind, arguments, name = found.groups()
            if name in _RESERVED_NAMES:
                raise ConfigError("pattern", source, f"another name than {name!r}, which is reserved")
            converters.append(self._converter(source, kind or "str", arguments))
            names.append(name)
        literals.append(text[at:])
        rest = "".join(literals)
        if not names or "<" in rest or ">" in rest:
            raise ConfigError("pattern", source, "variables such as <name>, <int:name>, <any(a,b):name>")
        if rest and not _is_canonical("x" + rest):
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
            bad = [word for word in converter.words if "/" in word or not _is_canonical(word)]
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


_EMPTY: dict[str, Any] = {}


class Node:
    """One place in the tree.

    Attributes:
        literals: What a literal segment leads to.
        fast: Quick matcher of the first edge, or one that never matches.
        child: Where the first edge leads.
        edges: Parts and where they lead, by rank.
        tails: Parts that take several segments, what follows them, and where they lead; by rank.
        methods: The rules that end here, by method.
        allow: The Allow field for them.
    """

    __slots__ = ("allow", "child", "edges", "fast", "literals", "methods", "tails")

    def __init__(self) -> None:
        # Shared and empty until there is something: most of ten thousand nodes are leaves.
        self.literals: dict[str, Node] = _EMPTY
        self.fast: Callable[[str], Any] = _never
        self.child: Node | None = None
        self.edges: tuple[tuple[Part, Node], ...] = ()
        self.tails: tuple[tuple[Part, tuple[Segment, ...], Node], ...] = ()
        self.methods: dict[str, Any] = _EMPTY
        self.allow = ""


class Tree:
    """Rules by path and method; a rule is whatever the caller keeps, with ``methods``.

    Attributes:
        root: Where paths begin, after their first slash.
        top: Where ``path.split("/")`` begins.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.top = Node()
        self.top.literals = {"": self.root}

    def conflict(self, pattern: Pattern, methods: tuple[str, ...]) -> Any | None:
        """Return a rule that matches what *pattern* with *methods* matches, with the same rank; or None."""
        first = pattern.segments[0] if pattern.segments else ""
        if first.__class__ is str and first not in self.root.literals:
            return None
        for node in _rivals(self.root, pattern.segments or ("",), 0):
            for method in methods:
                other = node.methods.get(method)
                if other is not None and method in other.methods:
                    return other
        return None

    def add(self, pattern: Pattern, methods: tuple[str, ...], rule: Any) -> Node:
        """Add *rule*; call :meth:`conflict` before.

        Returns:
            Where it ends.
        """
        node = self.root
        segments = pattern.segments or ("",)
        for number, segment in enumerate(segments):
            if segment.__class__ is str:
                child = node.literals.get(segment)
                if child is None:
                    child = Node()
                    if node.literals is _EMPTY:
                        node.literals = {}
                    node.literals[segment] = child
                node = child
            elif segment.multi:  # type: ignore[union-attr]
                node = _tail(node, segment, segments[number + 1 :])  # type: ignore[arg-type]
                break
            else:
                node = _edge(node, segment)  # type: ignore[arg-type]
        if node.methods is _EMPTY:
            node.methods = {}
        for method in methods:
            node.methods[method] = rule
        if "GET" in methods:
            node.methods.setdefault("HEAD", rule)
        node.allow = ""
        return node

    def only(self, path: str) -> Node | None | EllipsisType:
        """Find the one place where a canonical *path* can end, where that is told without a search.

        Returns:
            The place; None where nothing matches, with or without a slash at the end; ``...`` where
            a search must tell.
        """
        node = self.top
        for segment in path.split("/"):
            child = node.literals.get(segment)
            if node.tails:
                return ...
            if child is None:
                edges = node.edges
                if not edges:
                    return None if segment else ...
                if len(edges) > 1 or node.fast(segment) is None:
                    return ...
                child = node.child
            elif node.edges:
                return ...
            node = child  # type: ignore[assignment]
        return node if node.methods else ...

    def find(self, path: str) -> Iterator[tuple[Node, tuple[Any, ...]]]:
        """Yield the places where a canonical *path* ends, best first, each with the values of its variables."""
        return _find(self.root, path[1:].split("/"), 0, ())


def _edge(node: Node, part: Part) -> Node:
    """Return where *part* leads from *node*."""
    for other, child in node.edges:
        if other.key == part.key:
            return child
    child = Node()
    edge = (part, child)
    node.edges = tuple(sorted((*node.edges, edge), key=lambda edge: edge[0].rank)) if node.edges else (edge,)
    first, node.child = node.edges[0]
    node.fast = first.fast
    return child


def _tail(node: Node, part: Part, after: tuple[Segment, ...]) -> Node:
    """Return where *part* and what stands after it lead from *node*."""
    key = _tail_key(part, after)
    for other, rest, child in node.tails:
        if _tail_key(other, rest) == key:
            return child
    child = Node()
    node.tails = tuple(sorted((*node.tails, (part, after, child)), key=lambda tail: _tail_rank(tail[0], tail[1])))
    return child


def _tail_key(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    return (part.key, *(segment if isinstance(segment, str) else segment.key for segment in after))


def _tail_rank(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    """More segments after it go first, then literals, then narrow parts."""
    ranks = tuple((-1, 0) if isinstance(segment, str) else segment.rank for segment in after)
    return (-len(after), ranks, part.rank)


def _may_meet(first: Segment, second: Segment) -> bool:
    """Tell whether some segment may match both."""
    if isinstance(first, str):
        return first == second if isinstance(second, str) else second.match(first) is not None
    if isinstance(second, str):
        return first.match(second) is not None
    return first.key == second.key or first.overlaps(second)


def _rivals(node: Node, segments: tuple[Segment, ...], at: int) -> Iterator[Node]:
    """Yield the ends of what may match the same paths with the same rank."""
    if at == len(segments):
        yield node
        return
    segment = segments[at]
    if isinstance(segment, str):
        child = node.literals.get(segment)
        if child is not None:
            yield from _rivals(child, segments, at + 1)
    elif segment.multi:
        after = segments[at + 1 :]
        rank = _tail_rank(segment, after)
        for part, rest, child in node.tails:
            if _tail_rank(part, rest) == rank and all(map(_may_meet, after, rest)):
                yield child
    else:
        for part, child in node.edges:
            if part.key == segment.key or (part.rank == segment.rank and part.overlaps(segment)):
                yield from _rivals(child, segments, at + 1)


def _find(node: Node, segments: list[str], at: int, values: tuple[Any, ...]) -> Iterator[tuple[Node, tuple[Any, ...]]]:
    """Search depth first. Each node is looked at once at most, so hostile paths cost no more than the tree."""
    if at == len(segments):
        if node.methods:
            yield node, values
        return
    segment = segments[at]
    child = node.literals.get(segment)
    if child is not None:
        yield from _find(child, segments, at + 1, values)
    if segment:
        for part, child in node.edges:
            found = part.match(segment)
            if found is not None:
                yield from _find(child, segments, at + 1, values + found)
    for part, after, child in node.tails:
        end = len(segments) - len(after)
        if end <= at:
            continue
        found = part.match("/".join(segments[at:end])) if segment else None
        for expected, actual in zip(after, segments[end:], strict=True):
            if found is None:
                break
            if isinstance(expected, str):
                found = found if expected == actual else None
            else:
                more = expected.match(actual) if actual else None
                found = None if more is None else found + more
        if found is not None:
            yield child, values + found


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


class HostPattern:
    """A host with variables: ``example.com``, ``<tenant>.example.com``, ``*.example.com``.

    A variable stands for one label, the star for one or more. A port of the request is not looked at.

    Attributes:
        source: As written, in lower case.
        names: Names of the variables.
        key: Equal for patterns that match the same hosts.
        rank: The smaller goes first.

    Raises:
        ConfigError: Not a host.
    """

    __slots__ = ("_labels", "_regex", "key", "names", "rank", "source")

    def __init__(self, source: str) -> None:
        expected = 'a host such as "example.com", "<name>.example.com" or "*.example.com", without a port'
        if not isinstance(source, str):
            raise ConfigError("host", source, expected)
        labels = source.removesuffix(".").split(".") if not source.startswith("[") else [source]
        names, literal, pieces, key = [], [], [], []
        for number, label in enumerate(labels):
            if label == "*" and number == 0 and len(labels) > 1:
                pieces.append(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
                key.append("*")
            elif found := _VARIABLE.fullmatch(label):
                if found[1] is not None or found[3] in _RESERVED_NAMES:
                    raise ConfigError("host", source, expected)
                names.append(found[3])
                pieces.append("([a-z0-9_-]+)")
                key.append("<>")
            else:
                literal.append(label.lower())
                pieces.append(re.escape(label.lower()))
                key.append(label.lower())
        probe = parse_host(".".join(label if label not in ("*", "<>") else "x" for label in key))
        if probe is None or probe.port is not None or len(set(names)) != len(names):
            raise ConfigError("host", source, expected)
        self._labels = labels
        self.source = source
        self.names = tuple(names)
        self.key = ".".join(key)
        self.rank = (key[0] == "*", -len(literal), tuple(label == "<>" for label in reversed(key)), self.key)
        self._regex = re.compile(r"\.".join(pieces))

    def match(self, host: str) -> tuple[str, ...] | None:
        """Return the values in *host*, which is in lower case and without a port; None where it does not match."""
        found = self._regex.fullmatch(host.removesuffix("."))
        return None if found is None else found.groups()

    def build(self, values: Mapping[str, Any]) -> str:
        """Return the host for *values*.

        Raises:
            UrlError: A value is no label, or there is a star.
        """
        text = ".".join(
            str(values[label[1:-1]]).lower() if label.startswith("<") else label.lower() for label in self._labels
        )
        if "*" in text or parse_host(text) is None or self.match(text) is None:
            raise UrlError(f"no host that {self.source} matches can be made of these values")
        return text
