"""The order rules: what must stand outside what, and why; run by ``lamella check``.

A layer states ``provides``, ``requires`` and ``order`` on its class; a third-party one is
described in the stack file (``[describe."module:Class"]``) or by an entry point of the group
``lamella.descriptions`` (named like its ``use``, an object with the same attributes). On top of
what layers state there are the rules below, which look at options, mounts and scopes.

Nothing is ever re-sorted. A rule that does not apply is silenced in the file, with the reason::

    [[silence]]
    rule   = "L109"
    layer  = "static"
    reason = "the assets are public and cached by a CDN that adds the headers"
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lamella.stack.kernel.keys import CSRF, IDENTITY, SESSION, EnvironKey
from lamella.stack.kernel.order import Inside, OrderRule, Outside
from lamella.stack.problems import Problem
from lamella.stack.references import short_name

if TYPE_CHECKING:
    from lamella.stack.build import Layer, Stack

__all__ = ["RULES", "check_order", "legal", "sort_layers"]

#: Every rule by its code: one sentence of what it is for. ``docs/order-rules.md`` says more of each.
RULES = {
    "L101": "What a layer requires is provided by a layer outside it.",
    "L102": "access_log and errors are outside everything that can answer or fail.",
    "L103": "cors is outside errors, so that a script can read an error.",
    "L104": "cors is outside auth, csrf and rate limits, which a preflight cannot pass.",
    "L105": "proxy is outside every layer that reads the client's address, host or scheme.",
    "L106": "A response cache is inside auth and session, so that nobody gets another's page.",
    "L107": "conditional is inside compress, so that a tag belongs to one encoding.",
    "L108": "No layer that holds bodies back is outside a mount that streams.",
    "L109": "static is inside security_headers, so that files have the headers too.",
    "L110": "static is outside session, so that files cost no session and get no cookie.",
    "L111": "rate_limit is outside auth; where it counts users, it is inside.",
    "L112": "compress is not outside a token that stays the same while input is reflected (BREACH).",
    "L113": "A layer that provides something stands once.",
    "L114": "A method override is inside csrf, which must see the real method.",
    "L115": "State in memory is for one process.",
    "L116": "Every mount and every layer can be reached.",
    "L117": "request_id is outside what names the request.",
    "L118": "What answers HEAD is inside what computes headers from the body.",
    "L119": "A layer covers what it is there for: edge everything, identity the rules that ask for it.",
    "L120": "A stack that decides on paths, hosts or users has edge outermost.",
    "L121": "Every silence silences something.",
}

_AUTH = ("basic_auth", "bearer_auth", "login", "oidc")
_BEFORE_PREFLIGHT = (*_AUTH, "access", "csrf", "rate_limit")
_READS_CLIENT = (
    "access_log", "rate_limit", "hosts", "https", "session", "security_headers", "access", "login", "oidc", "csrf",
    "dispatch", "metrics", "tracing", "context", "health",
)  # fmt: skip
_CACHES = ("cache", "http_cache", "response_cache", "page_cache")
_OVERRIDES = ("method_override", "override_method")

# (layer, rule): what is so for any layer of that name, ours or not. Said before what the classes state.
_GENERAL: tuple[tuple[str, OrderRule], ...] = (
    *(("cors", Outside(name, "L104", "preflights will get 401")) for name in (*_AUTH, "access")),
    ("cors", Outside("csrf", "L104", "preflights will get 403")),
    ("cors", Outside("rate_limit", "L104", "preflights use up the limit, and refusals have no CORS headers")),
    ("cors", Outside("errors", "L103", "scripts cannot read error answers, which have no CORS headers")),
    *(("proxy", Outside(name, "L105", "it sees the proxy instead of the client")) for name in _READS_CLIENT),
    *(
        (cache, Inside(name, "L106", "it hands one user's page to another"))
        for cache in _CACHES
        for name in (*_AUTH, "session", "access")
    ),
    *((name, Inside("csrf", "L114", "a forged form names a method that is not checked")) for name in _OVERRIDES),
    *(
        ("head", Inside(name, "L118", "HEAD has other headers than GET"))
        for name in ("compress", "conditional")
    ),
)  # fmt: skip
# Standing twice in one chain is on purpose for these: other roots, mounts, limits, users.
_MAY_REPEAT = frozenset({"dispatch", "static", "rate_limit", "body_limit", "access", *_AUTH, "health"})
_ONCE = frozenset({"access_log", "errors", "compress", "conditional", "cors", "edge", "proxy", "hosts", "https"})
# Who has one of these meets clients that cannot be trusted: edge is missing, not left out.
_FACES_CLIENTS = frozenset({"proxy", "hosts", "https", "security_headers", "access", "csrf", *_AUTH})


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


class _Found(NamedTuple):
    """One broken rule."""

    code: str
    place: Place
    message: str
    others: tuple[str, ...]
    warning: bool = False


# --- entry points of this module ----------------------------------------------------------------


def check_order(stack: Stack, *, workers: int | None = None) -> list[Problem]:
    """Return what the order rules have to say of a stack, by place.

    Args:
        stack: Described or built; no app is imported and nothing is called.
        workers: How many processes will serve it; ``WEB_CONCURRENCY`` by default.
    """
    if workers is None:
        text = os.environ.get("WEB_CONCURRENCY", "")
        workers = int(text) if text.isascii() and text.isdigit() else 1
    describe = _Describer(stack)
    found: list[_Found] = []
    for chain in _chains(stack, describe):
        found += _check_chain(chain, workers)
    found += _edge_is_outermost(stack, describe)
    return _silenced(stack, found)


def legal(outer: Any, inner: Any) -> bool:
    """Tell whether the rules allow the layer *outer* right outside *inner*; both are factories."""
    a, b = _of_factory(outer), _of_factory(inner)
    return next(_pairs([a, b], _index([a, b])), None) is None


def sort_layers(factories: Iterable[Any]) -> list[Any]:
    """Return layers in an order that the rules allow, close to the given one.

    Raises:
        ValueError: There is none.
    """
    rest = list(factories)
    result = []
    while rest:
        for factory in rest:
            if all(other is factory or legal(factory, other) for other in rest):
                break
        else:
            names = ", ".join(short_name(factory) for factory in rest)
            raise ValueError(f"the rules allow no order of {names}")
        rest.remove(factory)
        result.append(factory)
    return result


# --- reading what layers say --------------------------------------------------------------------


class _Describer:
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


def _of_factory(factory: Any) -> Place:
    name = short_name(factory)
    return _place(_Bare(factory, name, name, options={}), frozenset({name}), factory)


def _chains(stack: Stack, describe: _Describer) -> Iterator[list[Place]]:
    """Yield every way through the stack, from the outermost layer to an innermost application."""
    from lamella.stack.build import _stacks_in

    def follow(one: Stack, outside: list[Place], seen: tuple[int, ...]) -> Iterator[list[Place]]:
        if id(one) in seen:
            return
        seen = (*seen, id(one))
        chain = list(outside)
        for layer in one.layers:
            chain.append(describe(layer))
            for value in layer.options.values():
                for inner in _stacks_in(value):
                    yield from follow(inner, chain, seen)
        inner_stacks = list(_stacks_in(one.application.target))
        for inner in inner_stacks:
            yield from follow(inner, chain, seen)
        if not inner_stacks:
            yield chain

    yield from follow(stack, [], ())


def _index(chain: Sequence[Place]) -> dict[str, list[int]]:
    """Positions in the chain by name."""
    index: dict[str, list[int]] = {}
    for at, place in enumerate(chain):
        for name in place.names:
            index.setdefault(name, []).append(at)
    return index


# --- the rules ----------------------------------------------------------------------------------


def _check_chain(chain: list[Place], workers: int) -> Iterator[_Found]:
    index = _index(chain)
    yield from _pairs(chain, index)
    yield from _required(chain)
    yield from _repeated(chain)
    yield from _buffers(chain)
    yield from _limits_by_user(chain)
    yield from _same_token(chain)
    yield from _unreachable(chain)
    if workers > 1:
        yield from _in_memory(chain, workers)


def _pairs(chain: Sequence[Place], index: dict[str, list[int]]) -> Iterator[_Found]:
    """What must stand outside or inside of what."""
    said: set[tuple[int, int]] = set()
    for at, place, rule in _rules_of(chain, index):
        for other_at in index.get(rule.layer, ()):
            outward = isinstance(rule, Outside)
            if other_at == at or (other_at > at) == outward or _apart(place, chain[other_at]):
                continue
            pair = (min(at, other_at), max(at, other_at))
            if pair not in said:
                said.add(pair)
                yield _misplaced(place, chain[other_at], rule, outward)


def _rules_of(chain: Sequence[Place], index: dict[str, list[int]]) -> Iterator[tuple[int, Place, OrderRule]]:
    """The general rules first, then what the layers state: "outside" before "inside"."""
    for name, rule in _GENERAL:
        for at in index.get(name, ()):
            yield at, chain[at], rule
    for kind in (Outside, Inside):
        for at, place in enumerate(chain):
            for rule in place.order:
                if isinstance(rule, kind):
                    yield at, place, rule


def _misplaced(place: Place, other: Place, rule: OrderRule, outward: bool) -> _Found:
    where, wants = ("inside", "above") if outward else ("outside", "below")
    why = (rule.why or "it belongs there").rstrip(".")
    why = why[:1].lower() + why[1:] if why[1:2].islower() else why
    name, other_name = place.layer.id, other.layer.id
    message = f"{name} is {where} {other_name}: {why}. {_move(place, other, wants)}"
    return _Found(rule.code or "L119", place, message, (name, other_name))


def _move(place: Place, other: Place, wants: str) -> str:
    """Say where the layer is to go."""
    if not other.line:
        return f"Move it {'outside' if wants == 'above' else 'inside'} {other.layer.id}."
    file = "" if other.layer.file == place.layer.file else f" of {other.layer.file}"
    return f"Move it {wants} line {other.line}{file}."


def _apart(a: Place, b: Place) -> bool:
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
    return not any(_meet(x, y) for x in one.paths for y in two.paths)


def _meet(a: str, b: str) -> bool:
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


def _required(chain: list[Place]) -> Iterator[_Found]:
    """L101."""
    provided: set[str] = set()
    for at, place in enumerate(chain):
        for key, layer in place.requires:
            if key in provided:
                continue
            inner = next((other for other in chain[at + 1 :] if key in other.provides), None)
            if inner is not None and any(
                isinstance(rule, Inside) and rule.code == "L101" and rule.layer in inner.names for rule in place.order
            ):
                continue  # the layer says so itself
            name = place.layer.id
            if inner is not None:
                cure = f"which {inner.layer.id} provides only for what is inside it. {_move(place, inner, 'below')}"
                others: tuple[str, ...] = (name, inner.layer.id)
            else:
                add = f"Add the layer {layer}" if layer else "Add a layer that provides it"
                cure = f"which no layer outside provides. {add}" + (
                    f" above line {place.line}." if place.line else " outside it."
                )
                others = (name,)
            yield _Found("L101", place, f"{name} requires {key}, {cure}", others)
        provided.update(place.provides)


def _repeated(chain: list[Place]) -> Iterator[_Found]:
    """L113."""
    for at, place in enumerate(chain):
        if place.names & _MAY_REPEAT or not (place.provides or place.names & _ONCE):
            continue
        for other in chain[:at]:
            if other.layer is place.layer or other.layer.factory is not place.layer.factory or _apart(place, other):
                continue
            where = f" (line {other.line})" if other.line else ""
            kind = short_name(place.layer.factory)
            what = f"the second {kind} around the same app{where}"
            message = f"{place.layer.id} is {what}. Remove one, or give each a `when` of its own."
            yield _Found("L113", place, message, (place.layer.id, other.layer.id))
            break


def _buffers(chain: list[Place]) -> Iterator[_Found]:
    """L108."""
    for at, place in enumerate(chain):
        streaming = [prefix for prefix, mount in _mounts(place) if isinstance(mount, dict) and mount.get("stream")]
        for outer in chain[:at] if streaming else ():
            if outer.streams is False or (type(outer.streams) is int and outer.streams > 0):
                held = "whole bodies" if outer.streams is False else f"up to {outer.streams} bytes"
                message = (
                    f"{outer.layer.id} holds {held} back outside the mount {streaming[0]!r}, which streams. "
                    f"Move it into the mounts that do not, or leave {streaming[0]} out with `when.except`."
                )
                if not _leaves_out(outer, streaming[0]):
                    yield _Found("L108", outer, message, (outer.layer.id, place.layer.id))


def _leaves_out(place: Place, prefix: str) -> bool:
    """Tell whether the layer's scope leaves a mount out."""
    when = place.layer.when
    if when is None:
        return False
    if any(pattern in (f"{prefix}/*", f"{prefix}/**") for pattern in when.excluded):
        return True
    return bool(when.paths) and not any(_meet(pattern, f"{prefix}/*") for pattern in when.paths)


def _limits_by_user(chain: list[Place]) -> Iterator[_Found]:
    """L111, second half."""
    for at, place in enumerate(chain):
        counts = str(place.layer.options.get("key", place.layer.options.get("by", "")))
        if "rate_limit" not in place.names or not any(word in counts for word in ("user", "identity")):
            continue
        if not any(IDENTITY.name in other.provides for other in chain[:at]):
            inner = next((other for other in chain[at + 1 :] if IDENTITY.name in other.provides), None)
            cure = _move(place, inner, "below") if inner is not None else "Add a layer that says who is asking."
            message = f"{place.layer.id} counts users and no layer outside says who is asking. {cure}"
            yield _Found("L111", place, message, (place.layer.id,))


def _same_token(chain: list[Place]) -> Iterator[_Found]:
    """L112: our own csrf masks its token anew for each answer, so only others are meant."""
    for at, place in enumerate(chain):
        if "compress" not in place.names:
            continue
        for inner in chain[at + 1 :]:
            module = getattr(inner.layer.factory, "__module__", "") or ""
            if CSRF.name in inner.provides and not module.startswith("lamella."):
                message = (
                    f"{place.layer.id} compresses pages with the token of {inner.layer.id}: its length tells the token "
                    "(BREACH) unless it is masked anew for each answer. Leave such pages out with `when.except`."
                )
                yield _Found("L112", place, message, (place.layer.id, inner.layer.id), warning=True)


def _mounts(place: Place) -> list[tuple[str, Any]]:
    """The mounts of a dispatch layer: prefix and what is there."""
    mounts = place.layer.options.get("mounts") if "dispatch" in place.names else None
    return [(str(prefix).rstrip("/"), mount) for prefix, mount in mounts.items()] if isinstance(mounts, dict) else []


def _unreachable(chain: list[Place]) -> Iterator[_Found]:
    """L116."""
    for at, place in enumerate(chain):
        if place.layer.when is not None:
            continue
        prefixes = [prefix for prefix, _ in _mounts(place)]
        if not prefixes:
            continue
        where = f" at line {place.line}" if place.line else ""
        for inner in chain[at + 1 :]:
            if inner.layer.line and place.layer.file == inner.layer.file and _is_mounted(place, inner):
                continue
            for prefix, _ in _mounts(inner):
                if _is_mounted(place, inner):
                    break
                shadow = next((one for one in prefixes if prefix == one or prefix.startswith(one + "/")), None)
                if shadow is not None:
                    message = (
                        f"the mount {prefix or '/'!r} of {inner.layer.id} is never reached: {place.layer.id}{where} "
                        f"mounts {shadow or '/'!r} outside it. Put both into one dispatch."
                    )
                    yield _Found("L116", inner, message, (inner.layer.id, place.layer.id))
            paths = inner.layer.when.paths if inner.layer.when is not None else ()
            if paths and not _is_mounted(place, inner) and all(_below(path, prefixes) for path in paths):
                message = (
                    f"{inner.layer.id} is never reached: its paths are mounted by {place.layer.id}{where}, outside it. "
                    f"{_move(inner, place, 'above')}"
                )
                yield _Found("L116", inner, message, (inner.layer.id, place.layer.id))


def _below(pattern: str, prefixes: list[str]) -> bool:
    head = pattern.partition("*")[0]
    return any(head.rstrip("/") == one or head.startswith(one + "/") for one in prefixes)


def _is_mounted(outer: Place, inner: Place) -> bool:
    """Tell whether *inner* is in a sub-stack that *outer* mounts, where paths begin anew."""
    from lamella.stack.build import _stacks_in

    seen: set[int] = set()
    pending = [stack for value in outer.layer.options.values() for stack in _stacks_in(value)]
    while pending:
        stack = pending.pop()
        if id(stack) in seen:
            continue
        seen.add(id(stack))
        if any(layer is inner.layer for layer in stack.layers):
            return True
        pending.extend(other for other in stack._direct_stacks())
    return False


_MEMORY_OPTIONS = ("store", "storage", "storage_uri", "backend", "cache")


def _in_memory(chain: list[Place], workers: int) -> Iterator[_Found]:
    """L115."""
    for place in chain:
        for name in _MEMORY_OPTIONS:
            value = place.layer.options.get(name)
            if value is None and "rate_limit" in place.names and name == "store":
                value = "memory:"  # its default
            if isinstance(value, str) and value.partition(":")[0] in ("memory", "async+memory"):
                message = (
                    f"{place.layer.id} keeps its state in memory ({name} = {value!r}), and {workers} processes serve "
                    "the stack: each has its own. Use a store that they share."
                )
                yield _Found("L115", place, message, (place.layer.id,))


def _edge_is_outermost(stack: Stack, describe: _Describer) -> Iterator[_Found]:
    """L120, for a stack file: in Python and in tests a stack is rarely the outermost thing."""
    if not stack.file or stack.name or not stack.layers:
        return
    first = describe(stack.layers[0])
    names = frozenset().union(*(describe(layer).names for layer in stack.layers))
    if names & _FACES_CLIENTS and "edge" not in names:
        message = 'there is no edge layer: servers differ in what they let through. Put `use = "edge"` first.'
        yield _Found("L120", first, message, ("edge",), warning=True)


# --- silences -----------------------------------------------------------------------------------


def _silenced(stack: Stack, found: Iterable[_Found]) -> list[Problem]:
    """Drop what the file silences; say which silence did nothing."""
    used: set[int] = set()
    silences = [silence for one in stack.walk() for silence in one.silences] if stack.silences else []
    problems: dict[tuple[Any, ...], Problem] = {}
    for one in found:
        silence = next((each for each in silences if _applies(each, one)), None)
        if silence is not None:
            used.add(id(silence))
            continue
        layer = one.place.layer
        file = layer.file or stack.file or "<python>"
        problem = Problem(
            file, layer.line, layer.column, f"{one.code} {one.message}", phase="order", warning=one.warning,
            rule=one.code,
        )  # fmt: skip
        problems[(file, layer.line, layer.column, problem.message)] = problem
    for silence in stack.silences:
        if id(silence) not in used:
            at = f" at {silence.layer}" if silence.layer else ""
            message = f"L121 nothing breaks {silence.rule}{at}: remove this [[silence]]."
            key = (silence.file, silence.line, silence.column, message)
            problems[key] = Problem(
                silence.file, silence.line, silence.column, message, phase="order", warning=True, rule="L121"
            )
    return sorted(problems.values(), key=lambda one: (one.file, one.line, one.column, one.message))


def _applies(silence: Any, one: _Found) -> bool:
    if silence.rule != one.code:
        return False
    return not silence.layer or silence.layer in (*one.others, one.place.layer.full_id)
