"""Patterns and the tree: against an independent model, and there and back."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.apps.router import AmbiguousRouteError, Router
from lamella.stack.kernel.keys import ROUTE
from lamella.stack.testing import call, environ

# The model: what each kind of segment matches, and which goes first at one place.
KINDS = {
    "<any(a,b):{}>": ("(?:a|b)", 1),
    "<int:{}>": ("[0-9]+", 2),
    "<float:{}>": (r"[0-9]+\.[0-9]+", 3),
    "<{}>": ("[^/]+", 4),
    "<path:{}>": (".+", 5),
}
WORDS = ["a", "b", "ab", "7", "7.5", "x-1"]
segments = st.sampled_from(["a", "b", "ab", *KINDS])
rules = st.lists(st.lists(segments, min_size=1, max_size=3), min_size=1, max_size=8)
paths = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)


def pattern_of(kinds: list[str]) -> str:
    """Write a pattern, its variables called v0, v1 …."""
    return "/" + "/".join(kind.format(f"v{number}") for number, kind in enumerate(kinds))


def model(patterns: list[list[str]], path: str) -> list[str] | None:
    """Choose the way a person would: try all, compare segment by segment."""
    found = []
    for kinds in patterns:
        expression = "/" + "/".join(KINDS[kind][0] if kind in KINDS else re.escape(kind) for kind in kinds)
        if re.fullmatch(expression, path):
            found.append(kinds)
    return min(found, key=rank, default=None)


def rank(kinds: list[str]) -> tuple[Any, ...]:
    """Literals first, from left to right; of two that take slashes here, the one with more after it."""
    result: list[Any] = []
    for number, kind in enumerate(kinds):
        weight = KINDS[kind][1] if kind in KINDS else 0
        if weight == 5:
            after = tuple(KINDS[rest][1] if rest in KINDS else 0 for rest in kinds[number + 1 :])
            return (*result, (5, -len(after), after))
        result.append((weight, 0, ()))
    return tuple(result)


def endpoint(request: Any, **parameters: Any) -> str:
    """Tell the pattern."""
    return ROUTE.require(request.environ).pattern


@settings(max_examples=300, deadline=None)
@given(rules, st.lists(paths, min_size=1, max_size=6))
def test_agrees_with_a_naive_model(patterns: list[list[str]], asked: list[list[str]]) -> None:
    """For any set of rules that is not refused, and any path, the same rule is chosen."""
    router = Router(slashes="strict")
    added = []
    for kinds in patterns:
        if sum(kind.startswith("<path") for kind in kinds) > 1:
            continue
        try:
            router.add(pattern_of(kinds), endpoint)
        except AmbiguousRouteError:
            continue
        added.append(kinds)

    for words in asked:
        path = "/" + "/".join(words)
        expected = model(added, path)
        answer = call(router, environ("GET", path))
        assert (answer.text if answer.code == 200 else None) == (None if expected is None else pattern_of(expected))


values = st.fixed_dictionaries(
    {
        "s": st.text(min_size=1).filter(
            lambda s: not set(s) & set("/\\%") and s.isprintable() and s not in (".", "..")
        ),
        "i": st.integers(min_value=0, max_value=10**99),
        "f": st.floats(min_value=0, allow_nan=False, allow_infinity=False),
        "u": st.uuids(),
        "a": st.sampled_from(["x y", "ü"]),
    }
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_a_url_leads_back_to_its_values(given_values: dict[str, Any]) -> None:
    """``url_for`` and matching are inverse to each other, for every converter."""
    seen: dict[str, Any] = {}
    router = Router()
    router.add("/<s>/<int:i>/<float:f>/<uuid:u>/<any(x y,ü):a>", lambda request, **found: seen.update(found), name="v")
    if any(part in given_values["s"] for part in ("/.", ";")):
        return

    url = router.url_for("v", **given_values)

    assert url.isascii()
    assert call(router, environ("GET", url)).code == 204
    assert seen == given_values


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_what_a_segment_of_two_variables_cannot_hold_is_refused(name: str, ext: str) -> None:
    """The URL leads back to the same two values, or is never made."""
    seen: dict[str, Any] = {}
    router = Router()
    router.add("/<name>.<ext>", lambda request, **found: seen.update(found), name="v")
    try:
        url = router.url_for("v", name=name, ext=ext)
    except LookupError:
        return

    assert call(router, environ("GET", url)).code == 204
    assert seen == {"name": name, "ext": ext}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="abc é.~-", min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_path_leads_back(pieces: list[str]) -> None:
    """A variable that takes slashes keeps them."""
    seen: dict[str, Any] = {}
    router = Router()
    router.add("/f/<path:p>/end", lambda request, **found: seen.update(found), name="v")
    path = "/".join(pieces)
    try:
        url = router.url_for("v", p=path)
    except LookupError:
        assert {".", ".."} & set(pieces)
        return

    assert unquote(url) == f"/f/{path}/end"
    assert call(router, environ("GET", url)).code == 204
    assert seen == {"p": path}


def test_uuid_values() -> None:
    """A UUID object, whatever the case of its digits."""
    seen: list[Any] = []
    router = Router()
    router.add("/<uuid:u>", lambda request, u: seen.append(u))
    value = uuid.UUID("6f6a8c1e-52f3-4c89-9f6b-0d0b6f0a2f11")

    call(router, environ("GET", "/" + str(value).upper()))

    assert seen == [value]
    assert call(router, environ("GET", "/" + value.hex)).code == 404


@pytest.mark.timing
@pytest.mark.parametrize(
    "path", ["/m/" + "-" * 100_000 + ".y", "/m/" + "a-" * 50_000, "/p/" + "a/" * 50_000 + "x", "/i/" + "9" * 100_000]
)
def test_hostile_paths_cost_linear_time(path: str) -> None:
    """100 kB of near misses take milliseconds."""
    router = Router(slashes="strict")
    router.add("/m/<a>-<b>-<c>.x", lambda request, **found: "")
    router.add("/p/<path:a>/<b>/<int:c>", lambda request, **found: "")
    router.add("/i/v<int:a>.<int:b>", lambda request, **found: "")
    request = environ("GET", path)

    started = time.thread_time()
    answer = call(router, request)

    assert answer.code == 404
    assert time.thread_time() - started < 0.25


def test_ten_thousand_rules_cost_what_ten_cost() -> None:
    """The walk looks at as many nodes as the path has segments."""
    router = Router()
    for number in range(10_000):
        router.add(f"/things{number}/<name>", endpoint)

    assert call(router, environ("GET", "/things9999/bob")).text == "/things9999/<name>"
    assert call(router, environ("GET", "/things10000/bob")).code == 404
