"""Order rules about a way through the stack: what is required, repeated, mounted and held back on it."""

from __future__ import annotations

from collections.abc import Iterator

from lamella.stack.kernel.keys import CSRF, IDENTITY
from lamella.stack.kernel.order import Inside
from lamella.stack.order_pairs import AUTH, check_pairs
from lamella.stack.places import Finding, Place, apart, index_names, is_mounted, may_meet, mounts_of, move
from lamella.stack.references import short_name

__all__ = ["check_chain"]

# Standing twice in one chain is on purpose for these: other roots, mounts, limits, users.
_MAY_REPEAT = frozenset({"dispatch", "static", "rate_limit", "body_limit", "access", *AUTH, "health"})
_ONCE = frozenset({"access_log", "errors", "compress", "conditional", "cors", "edge", "proxy", "hosts", "https"})


def check_chain(chain: list[Place], workers: int) -> Iterator[Finding]:
    index = index_names(chain)
    yield from check_pairs(chain, index)
    yield from _required(chain)
    yield from _repeated(chain)
    yield from _buffers(chain)
    yield from _limits_by_user(chain)
    yield from _same_token(chain)
    yield from _unreachable(chain)
    if workers > 1:
        yield from _in_memory(chain, workers)


def _required(chain: list[Place]) -> Iterator[Finding]:
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
                cure = f"which {inner.layer.id} provides only for what is inside it. {move(place, inner, 'below')}"
                others: tuple[str, ...] = (name, inner.layer.id)
            else:
                add = f"Add the layer {layer}" if layer else "Add a layer that provides it"
                cure = f"which no layer outside provides. {add}" + (
                    f" above line {place.line}." if place.line else " outside it."
                )
                others = (name,)
            yield Finding("L101", place, f"{name} requires {key}, {cure}", others)
        provided.update(place.provides)


def _repeated(chain: list[Place]) -> Iterator[Finding]:
    """L113."""
    for at, place in enumerate(chain):
        if place.names & _MAY_REPEAT or not (place.provides or place.names & _ONCE):
            continue
        for other in chain[:at]:
            if other.layer is place.layer or other.layer.factory is not place.layer.factory or apart(place, other):
                continue
            where = f" (line {other.line})" if other.line else ""
            kind = short_name(place.layer.factory)
            what = f"the second {kind} around the same app{where}"
            message = f"{place.layer.id} is {what}. Remove one, or give each a `when` of its own."
            yield Finding("L113", place, message, (place.layer.id, other.layer.id))
            break


def _buffers(chain: list[Place]) -> Iterator[Finding]:
    """L108."""
    for at, place in enumerate(chain):
        streaming = [prefix for prefix, mount in mounts_of(place) if isinstance(mount, dict) and mount.get("stream")]
        for outer in chain[:at] if streaming else ():
            if outer.streams is False or (type(outer.streams) is int and outer.streams > 0):
                held = "whole bodies" if outer.streams is False else f"up to {outer.streams} bytes"
                message = (
                    f"{outer.layer.id} holds {held} back outside the mount {streaming[0]!r}, which streams. "
                    f"Move it into the mounts that do not, or leave {streaming[0]} out with `when.except`."
                )
                if not _leaves_out(outer, streaming[0]):
                    yield Finding("L108", outer, message, (outer.layer.id, place.layer.id))


def _limits_by_user(chain: list[Place]) -> Iterator[Finding]:
    """L111, second half."""
    for at, place in enumerate(chain):
        counts = str(place.layer.options.get("key", place.layer.options.get("by", "")))
        if "rate_limit" not in place.names or not any(word in counts for word in ("user", "identity")):
            continue
        if not any(IDENTITY.name in other.provides for other in chain[:at]):
            inner = next((other for other in chain[at + 1 :] if IDENTITY.name in other.provides), None)
            cure = move(place, inner, "below") if inner is not None else "Add a layer that says who is asking."
            message = f"{place.layer.id} counts users and no layer outside says who is asking. {cure}"
            yield Finding("L111", place, message, (place.layer.id,))


def _same_token(chain: list[Place]) -> Iterator[Finding]:
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
                yield Finding("L112", place, message, (place.layer.id, inner.layer.id), warning=True)


def _unreachable(chain: list[Place]) -> Iterator[Finding]:
    """L116."""
    for at, place in enumerate(chain):
        if place.layer.when is not None:
            continue
        prefixes = [prefix for prefix, _ in mounts_of(place)]
        if not prefixes:
            continue
        where = f" at line {place.line}" if place.line else ""
        for inner in chain[at + 1 :]:
            if inner.layer.line and place.layer.file == inner.layer.file and is_mounted(place, inner):
                continue
            for prefix, _ in mounts_of(inner):
                if is_mounted(place, inner):
                    break
                shadow = next((one for one in prefixes if prefix == one or prefix.startswith(one + "/")), None)
                if shadow is not None:
                    message = (
                        f"the mount {prefix or '/'!r} of {inner.layer.id} is never reached: {place.layer.id}{where} "
                        f"mounts {shadow or '/'!r} outside it. Put both into one dispatch."
                    )
                    yield Finding("L116", inner, message, (inner.layer.id, place.layer.id))
            paths = inner.layer.when.paths if inner.layer.when is not None else ()
            if paths and not is_mounted(place, inner) and all(_below(path, prefixes) for path in paths):
                message = (
                    f"{inner.layer.id} is never reached: its paths are mounted by {place.layer.id}{where}, outside it. "
                    f"{move(inner, place, 'above')}"
                )
                yield Finding("L116", inner, message, (inner.layer.id, place.layer.id))


_MEMORY_OPTIONS = ("store", "storage", "storage_uri", "backend", "cache")


def _in_memory(chain: list[Place], workers: int) -> Iterator[Finding]:
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
                yield Finding("L115", place, message, (place.layer.id,))


def _leaves_out(place: Place, prefix: str) -> bool:
    """Tell whether the layer's scope leaves a mount out."""
    when = place.layer.when
    if when is None:
        return False
    if any(pattern in (f"{prefix}/*", f"{prefix}/**") for pattern in when.excluded):
        return True
    return bool(when.paths) and not any(may_meet(pattern, f"{prefix}/*") for pattern in when.paths)


def _below(pattern: str, prefixes: list[str]) -> bool:
    head = pattern.partition("*")[0]
    return any(head.rstrip("/") == one or head.startswith(one + "/") for one in prefixes)
