"""The tree of rules: whatever the order and the way, the same rule answers, and the same refusal."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.apps.router import Request, Router
from lamella.apps.serving import Serving
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import ROUTE
from lamella.stack.testing import call, environ, lint

METHODS = ("GET", "DELETE")
LITERALS = ["a", "a", "a", "b", "b", "c", "é"]
VARIABLES = ["<int:{}>", "<{}>", "<{}>", "<any(a,x):{}>", "v<int:{}>", "<path:{}>"]
SEGMENTS = st.sampled_from([*LITERALS, *VARIABLES])
PATTERNS = st.builds(
    lambda segments, slash: "/" + "/".join(part.format(f"x{at}") for at, part in enumerate(segments)) + slash,
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "", "/"]),
)
RULES = st.lists(st.tuples(PATTERNS, st.sampled_from(METHODS)), min_size=3, max_size=12)
VARIABLE = re.compile("v?<[^>]*>")
VALUES = ("7", "a", "b", "x", "v7", "z-z", "%C3%A9", "a b", ".")
ENDS = ("", "", "/", "/z", "/a")

Outcome = tuple[int, bytes, str | None, str | None]


def echo(request: Request, **parameters: Any) -> dict[str, Any]:
    """Tell which rule matched."""
    return {"rule": ROUTE.require(request.environ).pattern, **parameters}


def router_of(rules: list[tuple[str, str]]) -> tuple[Router, list[tuple[str, str]]]:
    """A router with those of *rules* that it takes, and these."""
    router = Router()
    taken = []
    for pattern, method in rules:
        try:
            router.add(pattern, echo, methods=[method])
        except ConfigError:
            continue
        taken.append((pattern, method))
    return router, taken


def outcome(router: Router, method: str, path: str) -> Outcome:
    """What is answered."""
    answer = call(router, environ(method, path))
    return answer.code, answer.body, answer.header("Allow"), answer.header("Location")


@settings(max_examples=150, deadline=None)
@given(rules=RULES, random=st.randoms(use_true_random=False))
def test_the_quick_way_the_search_and_any_order_agree(rules: list[tuple[str, str]], random: Any) -> None:
    """At first, when nodes are made, and again; where every request is searched for; with rules in another order."""
    quick, taken = router_of(rules)
    searched, _ = router_of(taken)
    searched.add("/", echo, host="another.example", methods=["GET"])  # with hosts there is no quick way
    other = list(taken)
    random.shuffle(other)
    reordered, again = router_of(other)

    assert sorted(again) == sorted(taken)
    for pattern, _ in taken:
        path = VARIABLE.sub(lambda _: random.choice(VALUES), pattern) + random.choice(ENDS)
        for method in METHODS:
            first = outcome(quick, method, path)
            assert outcome(quick, method, path) == first
            assert outcome(searched, method, path) == first
            assert outcome(reordered, method, path) == first


def test_a_rule_that_waits_is_found_by_what_it_shares() -> None:
    """Rules with one beginning, added from the longest to the shortest and back, literal and not."""
    patterns = ["/a/b/c/d", "/a/b/c", "/a/b", "/a", "/a/b/<x>/e", "/a/b/<x>", "/a/<path:x>"]
    paths = ["/a/b/c/d", "/a/b/c", "/a/b", "/a", "/a/b/z/e", "/a/b/z", "/a/y/z"]
    for rules in (patterns, patterns[::-1]):
        router = Router()
        for pattern in rules:
            router.add(pattern, echo)

        found = [call(lint(router), environ("GET", path)).body.decode() for path in paths]

        assert [f'"rule":"{pattern}"' in body for pattern, body in zip(patterns, found, strict=True)] == [True] * 7


def test_a_refusal_is_forgotten_when_a_rule_comes() -> None:
    """A 404 and a 405 were told without a search; rules that are added then are found all the same."""
    router = Router()
    router.add("/a/b", echo)
    router.add("/a/c", echo)
    assert [outcome(router, *asked)[::2] for asked in (("DELETE", "/a/b"), ("GET", "/a/z"), ("GET", "/z"))] == [
        (405, "GET, HEAD, OPTIONS"),
        (404, None),
        (404, None),
    ]

    router.add("/a/<x>", echo, methods=["DELETE"])
    router.add("/<path:x>", echo, methods=["POST"])

    assert outcome(router, "DELETE", "/a/b")[0] == 200
    assert outcome(router, "PUT", "/a/b")[::2] == (405, "DELETE, GET, HEAD, OPTIONS, POST")
    assert outcome(router, "GET", "/a/z")[::2] == (405, "DELETE, OPTIONS, POST")
    assert outcome(router, "POST", "/z")[0] == 200

    router.add("/a/b", echo, methods=["PUT"])

    assert outcome(router, "PUT", "/a/b")[0] == 200
    assert outcome(router, "PATCH", "/a/b")[::2] == (405, "DELETE, GET, HEAD, OPTIONS, POST, PUT")


@pytest.mark.parametrize("path", ["/zz//b", "/zz/../a", "/zz/%2e%2e/a", "/zz/%252e/a", "/zz/a%5Cb", "/zz/a%00b"])
def test_a_path_that_can_be_read_twice_is_a_400_before_it_is_a_404(path: str) -> None:
    """Also where its first segment tells that there is nothing."""
    router = Router()
    router.add("/a", echo)

    assert outcome(router, "GET", "/zz/b")[0] == 404
    assert outcome(router, "GET", path)[0] == 400


def test_requests_that_come_at_once_find_rules_that_wait() -> None:
    """Eight threads ask a new router for the same rules first; nobody sees one half made."""
    patterns = [f"/{first}/<x>/{second}/<int:y>/z" for first in "abc" for second in "defg"]
    wrong: list[Any] = []

    def ask(router: Router, barrier: threading.Barrier) -> None:
        barrier.wait()
        for pattern in patterns:
            asked = pattern.replace("<x>", "u").replace("<int:y>", "7")
            answer = call(router, environ("GET", asked))
            if answer.code != 200:
                wrong.append((asked, answer.status))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(12):
            router = Router()
            for pattern in patterns:
                router.add(pattern, echo)
            barrier = threading.Barrier(8)
            threads = [threading.Thread(target=ask, args=(router, barrier)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert wrong == []


def test_a_request_that_came_a_moment_early_is_no_404() -> None:
    """It found nothing where a rule waited, and meanwhile another request made what it looked for."""
    router = Router()
    router.add("/a/b", echo)
    router.add("/a/c", echo)
    serving = Serving(router, router._table, router._scope)
    root = router._table.tree.root

    answer = call(lambda *request: serving._miss(root, "a", *request), environ("GET", "/a/b"))

    assert (answer.code, answer.body) == (200, b'{"rule":"/a/b"}')


def test_many_rules_take_few_objects_until_they_are_asked_for() -> None:
    """A thousand rules with nothing in common have one node each, and the one that is asked for gets its others."""
    router = Router()
    for number in range(1000):
        router.add(f"/s{number}/item/<x>/part", echo)

    def nodes(node: Any) -> int:
        below = [*node.literals.values(), *(child for _, child in node.edges)]
        return 1 + sum(nodes(child) for child in below)

    root = router._table.tree.root
    assert nodes(root) == 1001
    assert outcome(router, "GET", "/s5/item/u/part")[0] == 200
    assert nodes(root) == 1004
