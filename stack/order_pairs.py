"""Order rules about two layers: what must stand outside or inside of what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lamella.stack.kernel.order import Inside, OrderRule, Outside
from lamella.stack.places import Finding, Place, apart, move

__all__ = ["AUTH", "check_pairs"]

AUTH = ("basic_auth", "bearer_auth", "login", "oidc")
_BEFORE_PREFLIGHT = (*AUTH, "access", "csrf", "rate_limit")
_READS_CLIENT = (
    "access_log", "rate_limit", "hosts", "https", "session", "security_headers", "access", "login", "oidc", "csrf",
    "dispatch", "metrics", "tracing", "context", "health",
)  # fmt: skip
_CACHES = ("cache", "http_cache", "response_cache", "page_cache")
_OVERRIDES = ("method_override", "override_method")

# (layer, rule): what is so for any layer of that name, ours or not. Said before what the classes state.
_GENERAL: tuple[tuple[str, OrderRule], ...] = (
    *(("cors", Outside(name, "L104", "preflights will get 401")) for name in (*AUTH, "access")),
    ("cors", Outside("csrf", "L104", "preflights will get 403")),
    ("cors", Outside("rate_limit", "L104", "preflights use up the limit, and refusals have no CORS headers")),
    ("cors", Outside("errors", "L103", "scripts cannot read error answers, which have no CORS headers")),
    *(("proxy", Outside(name, "L105", "it sees the proxy instead of the client")) for name in _READS_CLIENT),
    *(
        (cache, Inside(name, "L106", "it hands one user's page to another"))
        for cache in _CACHES
        for name in (*AUTH, "session", "access")
    ),
    *((name, Inside("csrf", "L114", "a forged form names a method that is not checked")) for name in _OVERRIDES),
    *(
        ("head", Inside(name, "L118", "HEAD has other headers than GET"))
        for name in ("compress", "conditional")
    ),
)  # fmt: skip


def check_pairs(chain: Sequence[Place], index: dict[str, list[int]]) -> Iterator[Finding]:
    """What must stand outside or inside of what."""
    said: set[tuple[int, int]] = set()
    for at, place, rule in _rules_of(chain, index):
        for other_at in index.get(rule.layer, ()):
            outward = isinstance(rule, Outside)
            if other_at == at or (other_at > at) == outward or apart(place, chain[other_at]):
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


def _misplaced(place: Place, other: Place, rule: OrderRule, outward: bool) -> Finding:
    where, wants = ("inside", "above") if outward else ("outside", "below")
    why = (rule.why or "it belongs there").rstrip(".")
    why = why[:1].lower() + why[1:] if why[1:2].islower() else why
    name, other_name = place.layer.id, other.layer.id
    message = f"{name} is {where} {other_name}: {why}. {move(place, other, wants)}"
    return Finding(rule.code or "L119", place, message, (name, other_name))
