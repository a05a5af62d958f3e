"""Layers where they stand in a stack, and what is said of each: by the stack file, its class, an entry point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lamella.stack.kernel.keys import CSRF, IDENTITY, SESSION, EnvironKey
from lamella.stack.kernel.order import OrderRule
from lamella.stack.references import short_name

if TYPE_CHECKING:
    from lamella.stack.build import Layer, Stack

__all__ = [
    "Describer",
    "Finding",
    "Place",
    "apart",
    "chains",
    "index_names",
    "is_mounted",
    "may_meet",
    "mounts_of",
    "move",
    "of_factory",
]


class Place(NamedTuple):
    """One layer where it stands, with what is said of it."""

    layer: Layer
    #: How rules call it.
    names: frozenset[str]
    provides: tuple[str, ...]
    requires: tuple[tuple[str, str], ...]
    order: tuple[OrderRule, ...]
    streams: Any

    @property
    def line(self) -> int:
        """Line in the stack file; 0 for a layer made in Python."""
        return self.layer.line


class Finding(NamedTuple):
    """One broken rule."""

    code: str
    place: Place
    message: str
    others: tuple[str, ...]
    warning: bool = False


class Describer:
    """Finds what is said of a layer: by the stack file, by its class, by an entry point."""

    def __init__(self, stack: Stack) -> None:
        self._described = {use: said for one in stack.walk() for use, said in one.describe.items()}
        self._places: dict[int, Place] = {}
        self._points: dict[str, Any] | None = None

    def __call__(self, layer: Layer) -> Place:
        place = self._places.get(id(layer))
        if place is None:
            place = self._places[id(layer)] = self._place(layer)
        return place

    def _place(self, layer: Layer) -> Place:
        said: Any = self._described.get(layer.use)
        if said is None:
            said = layer.factory if hasattr(layer.factory, "order") else self._point(layer.use)
        names = frozenset({short_name(layer.factory), layer.use, layer.id})
        return _place(layer, names, said)

    def _point(self, use: str) -> Any:
        if self._points is None:
            from importlib.metadata import entry_points

            self._points = {point.name: point for point in entry_points(group="lamella.descriptions")}
        point = self._points.get(use)
        return point.load() if point is not None else None


def _place(layer: Any, names: frozenset[str], said: Any) -> Place:
    requires = tuple(
        (key.name, key.layer) if isinstance(key, EnvironKey) else (key, _PROVIDERS.get(key, ""))
        for key in getattr(said, "requires", ())
    )
    provides = tuple(key.name if isinstance(key, EnvironKey) else key for key in getattr(said, "provides", ()))
    return Place(layer, names, provides, requires, tuple(getattr(said, "order", ())), getattr(said, "streams", None))


_PROVIDERS = {key.name: key.layer for key in (SESSION, IDENTITY, CSRF)}


class _Bare(NamedTuple):
    """A layer outside of any stack."""

    factory: Any
    id: str = ""
    use: str = ""
    line: int = 0
    column: int = 0
    file: str = ""
    when: Any = None
    options: Any = None


def of_factory(factory: Any) -> Place:
    name = short_name(factory)
    return _place(_Bare(factory, name, name, options={}), frozenset({name}), factory)


def chains(stack: Stack, describe: Describer) -> Iterator[list[Place]]:
    """Yield every way through the stack, from the outermost layer to an innermost application."""
    from lamella.stack.build import stacks_in

    def follow(one: Stack, outside: list[Place], seen: tuple[int, ...]) -> Iterator[list[Place]]:
        if id(one) in seen:
            return
        seen = (*seen, id(one))
        chain = list(outside)
        for layer in one.layers:
            chain.append(describe(layer))
            for value in layer.options.values():
                for inner in stacks_in(value):
                    yield from follow(inner, chain, seen)
        inner_stacks = list(stacks_in(one.application.target))
        for inner in inner_stacks:
            yield from follow(inner, chain, seen)
        if not inner_stacks:
            yield chain

    yield from follow(stack, [], ())


def index_names(chain: Sequence[Place]) -> dict[str, list[int]]:
    """Positions in the chain by name."""
    index: dict[str, list[int]] = {}
    for at, place in enumerate(chain):
        for name in place.names:
            index.setdefault(name, []).append(at)
    return index


def apart(a: Place, b: Place) -> bool:
    """Tell whether two scopes have no request in common."""
    one, two = a.layer.when, b.layer.when
    if one is None or two is None:
        return False
    if one.methods and two.methods and not set(one.methods) & set(two.methods):
        return True
    literal = not any("*" in host for host in (*one.hosts, *two.hosts))
    if literal and one.hosts and two.hosts and not set(one.hosts) & set(two.hosts):
        return True
    if not (one.paths and two.paths):
        return False
    return not any(may_meet(x, y) for x in one.paths for y in two.paths)


def may_meet(a: str, b: str) -> bool:
    """Tell whether two path patterns may match one path, by what stands before their first ``*``."""
    head_a, star_a, _ = a.partition("*")
    head_b, star_b, _ = b.partition("*")
    if not star_a and not star_b:
        return a == b
    if not star_a:
        return (a + "/").startswith(head_b)
    if not star_b:
        return (b + "/").startswith(head_a)
    return head_a.startswith(head_b) or head_b.startswith(head_a)


def mounts_of(place: Place) -> list[tuple[str, Any]]:
    """The mounts of a dispatch layer: prefix and what is there."""
    mounts = place.layer.options.get("mounts") if "dispatch" in place.names else None
    return [(str(prefix).rstrip("/"), mount) for prefix, mount in mounts.items()] if isinstance(mounts, dict) else []


def is_mounted(outer: Place, inner: Place) -> bool:
    """Tell whether *inner* is in a sub-stack that *outer* mounts, where paths begin anew."""
    from lamella.stack.build import stacks_in

    seen: set[int] = set()
    pending = [stack for value in outer.layer.options.values() for stack in stacks_in(value)]
    while pending:
        stack = pending.pop()
        if id(stack) in seen:
            continue
        seen.add(id(stack))
        if any(layer is inner.layer for layer in stack.layers):
            return True
        pending.extend(other for other in stack._direct_stacks())
    return False


def move(place: Place, other: Place, wants: str) -> str:
    """Say where the layer is to go."""
    if not other.line:
        return f"Move it {'outside' if wants == 'above' else 'inside'} {other.layer.id}."
    file = "" if other.layer.file == place.layer.file else f" of {other.layer.file}"
    return f"Move it {wants} line {other.line}{file}."
