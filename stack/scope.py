"""``when``: the requests that a layer is for; all others pass it by.

The patterns of ``paths``, ``except`` and ``hosts`` are those of :mod:`lamella.stack.kernel.patterns`,
compared with the canonical path, relative to where the stack is mounted. A path that can be read
in two ways is answered with 400.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import is_token, parse_host
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import compile_paths, host_matcher, is_host_pattern, is_path_pattern
from lamella.stack.kernel.response import refuse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["When"]

_KEYS = ("paths", "except", "methods", "hosts")


class When:
    """The scope of one layer, checked.

    Args:
        **scope: ``paths``, ``except``, ``methods``, ``hosts``: each a list of text.

    Raises:
        ConfigError: Nothing is given, a list is empty, or an element is not understood.
    """

    __slots__ = ("excluded", "hosts", "methods", "paths")

    def __init__(self, **scope: Iterable[str]) -> None:
        for name in scope:
            if name not in _KEYS:
                raise ConfigError("when", name, "the keys " + ", ".join(_KEYS))
        if not scope:
            raise ConfigError("when", {}, "at least one of " + ", ".join(_KEYS))
        self.paths = _list(scope, "paths", is_path_pattern, 'a list of paths such as "/api/*"')
        self.excluded = _list(scope, "except", is_path_pattern, 'a list of paths such as "/api/*"')
        self.methods = _list(scope, "methods", _is_method, 'a list of methods in capitals, such as "GET"')
        self.hosts = _list(
            scope, "hosts", is_host_pattern, 'a list of hosts such as "shop.example" or "*.shop.example"'
        )

    def as_dict(self) -> dict[str, list[str]]:
        """Return the scope as it is written."""
        lists = zip(_KEYS, (self.paths, self.excluded, self.methods, self.hosts), strict=True)
        return {name: list(items) for name, items in lists if items}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, When) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.paths, self.excluded, self.methods, self.hosts))

    def __repr__(self) -> str:
        return f"When({self.as_dict()})"

    def matches(self, environ: WSGIEnvironment) -> bool:
        """Tell whether the request is in scope.

        Raises:
            BadRequestError: Its path, or its host, is needed and cannot be read.
        """
        return all(test(environ) for test in self.tests())

    def tests(self) -> list[Callable[[WSGIEnvironment], bool]]:
        """Return one predicate for each part that is given."""
        found: list[Callable[[WSGIEnvironment], bool]] = []
        if self.methods:
            found.append(_method_test(self.methods))
        if self.paths or self.excluded:
            found.append(_path_test(self.paths, self.excluded))
        if self.hosts:
            found.append(_host_test(self.hosts))
        return found

    def wrap(self, layer: WSGIApplication, inner: WSGIApplication) -> WSGIApplication:
        """Return an application that calls *layer* in scope and *inner* out of it.

        Args:
            layer: The layer, around *inner*.
            inner: What the layer wraps.
        """
        inside, outside = direct(layer), direct(inner)
        if self.paths and not (self.excluded or self.methods or self.hosts):
            exact, below = _plain(self.paths)
            if exact:
                return _by_prefix(inside, outside, exact, below)
        tests = self.tests()
        first = tests[0]
        rest = tuple(tests[1:])

        def scoped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            try:
                chosen = inside if first(environ) else outside
                if rest and chosen is inside:
                    for test in rest:
                        if not test(environ):
                            chosen = outside
                            break
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            return chosen(environ, start_response)

        return scoped


def _plain(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return exact paths and beginnings, if nothing else is in the patterns; else nothing."""
    names = {pattern.removesuffix("/*") for pattern in patterns}
    if any("*" in name or not name for name in names):
        return frozenset(), ()
    exact = names | ({""} if "/" in patterns else set())
    return frozenset(exact), tuple(pattern[:-1] for pattern in patterns if pattern.endswith("/*"))


def _by_prefix(
    inside: WSGIApplication, outside: WSGIApplication, exact: frozenset[str], below: tuple[str, ...]
) -> WSGIApplication:
    """The common scope, some paths and what is below them, at half the cost of the general one."""

    def scoped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = canonical_path(environ)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        if path in exact or path.startswith(below):
            return inside(environ, start_response)
        return outside(environ, start_response)

    return scoped


def _list(scope: dict[str, Any], name: str, check: Callable[[str], bool], expected: str) -> tuple[str, ...]:
    """Return one part of the scope, checked."""
    if name not in scope:
        return ()
    value = scope[name]
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence | set | frozenset):
        raise ConfigError(f"when.{name}", value, expected)
    items = tuple(value)
    if not items:
        raise ConfigError(f"when.{name}", [], expected + " (with an empty one the layer would never run)")
    for item in items:
        if not isinstance(item, str) or not check(item):
            raise ConfigError(f"when.{name}", item, expected)
    return items


def _is_method(text: str) -> bool:
    return is_token(text) and text == text.upper()


def _method_test(methods: tuple[str, ...]) -> Callable[[WSGIEnvironment], bool]:
    # HEAD is GET without the content (RFC 9110 section 9.3.2): what guards the one guards the other.
    allowed = frozenset(methods) | ({"HEAD"} if "GET" in methods else set())

    def in_methods(environ: WSGIEnvironment) -> bool:
        return environ.get("REQUEST_METHOD") in allowed

    return in_methods


def _path_test(paths: tuple[str, ...], excluded: tuple[str, ...]) -> Callable[[WSGIEnvironment], bool]:
    wanted = compile_paths(paths).fullmatch if paths else None
    unwanted = compile_paths(excluded).fullmatch if excluded else None

    def in_paths(environ: WSGIEnvironment) -> bool:
        # The mount itself has an empty path: for a pattern it is "/", as a server would send it.
        path = canonical_path(environ) or "/"
        if wanted is not None and wanted(path) is None:
            return False
        return unwanted is None or unwanted(path) is None

    return in_paths


def _host_test(hosts: tuple[str, ...]) -> Callable[[WSGIEnvironment], bool]:
    is_ours = host_matcher(hosts)

    def in_hosts(environ: WSGIEnvironment) -> bool:
        text: str = environ.get("HTTP_HOST", "")
        parsed = parse_host(text or environ.get("SERVER_NAME", ""))
        if parsed is None:
            if text:
                raise BadRequestError("the Host header is not a host")
            return False
        return is_ours(parsed.host)

    return in_hosts
