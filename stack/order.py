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
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamella.stack.order_chains import check_chain
from lamella.stack.order_pairs import AUTH, check_pairs
from lamella.stack.places import Describer, Finding, chains, index_names, of_factory
from lamella.stack.problems import Problem
from lamella.stack.references import short_name

if TYPE_CHECKING:
    from lamella.stack.build import Stack

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

# Who has one of these meets clients that cannot be trusted: edge is missing, not left out.
_FACES_CLIENTS = frozenset({"proxy", "hosts", "https", "security_headers", "access", "csrf", *AUTH})


def check_order(stack: Stack, *, workers: int | None = None) -> list[Problem]:
    """Return what the order rules have to say of a stack, by place.

    Args:
        stack: Described or built; no app is imported and nothing is called.
        workers: How many processes will serve it; ``WEB_CONCURRENCY`` by default.
    """
    if workers is None:
        text = os.environ.get("WEB_CONCURRENCY", "")
        workers = int(text) if text.isascii() and text.isdigit() else 1
    describe = Describer(stack)
    found: list[Finding] = []
    for chain in chains(stack, describe):
        found += check_chain(chain, workers)
    found += edge_is_outermost(stack, describe)
    return _silenced(stack, found)


def legal(outer: Any, inner: Any) -> bool:
    """Tell whether the rules allow the layer *outer* right outside *inner*; both are factories."""
    a, b = of_factory(outer), of_factory(inner)
    return next(check_pairs([a, b], index_names([a, b])), None) is None


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


def edge_is_outermost(stack: Stack, describe: Describer) -> Iterator[Finding]:
    """L120, for a stack file: in Python and in tests a stack is rarely the outermost thing."""
    if not stack.file or stack.name or not stack.layers:
        return
    first = describe(stack.layers[0])
    names = frozenset().union(*(describe(layer).names for layer in stack.layers))
    if names & _FACES_CLIENTS and "edge" not in names:
        message = 'there is no edge layer: servers differ in what they let through. Put `use = "edge"` first.'
        yield Finding("L120", first, message, ("edge",), warning=True)


def _silenced(stack: Stack, found: Iterable[Finding]) -> list[Problem]:
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


def _applies(silence: Any, one: Finding) -> bool:
    if silence.rule != one.code:
        return False
    return not silence.layer or silence.layer in (*one.others, one.place.layer.full_id)
