"""Access rules: what a pattern matches, which rule decides, and which can never."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import Identity
from lamella.stack.kernel.rules import first_match, parse_rules


def matches(pattern: str, path: str, **options: Any) -> bool:
    """Whether one rule with that pattern matches a path."""
    rules = parse_rules("rules", [{"path": pattern, "allow": "anonymous"}], **options)
    return first_match(rules, path, "GET", None, "http", None) is not None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/admin", ["/admin", "/admin/"], ["/adminx", "/admin/x", "/Admin", "/", "", "/x/admin"]),
        ("/admin/", ["/admin", "/admin/"], ["/admin/x"]),
        ("/admin/*", ["/admin", "/admin/", "/admin/x", "/admin/x/y.css"], ["/adminx", "/admin-x", "/admin.json", "/"]),
        ("/admin/**", ["/admin", "/admin/x/y"], ["/adminx"]),
        ("/*", ["", "/", "/x", "/x/y", "/ä\n"], []),
        ("/", ["", "/"], ["/x"]),
        ("/*/edit", ["/a/edit", "/a/edit/"], ["/edit", "/a/b/edit", "/a/editor"]),
        ("/**/edit", ["/edit", "/a/edit", "/a/b/edit"], ["/a/editor", "/a/edit/b"]),
        ("/*.css", ["/a.css", "/.css"], ["/a/b.css", "/a.css.js"]),
        ("/v*/x/*", ["/v1/x", "/v12/x/y"], ["/1/x", "/v1/y"]),
        ("/caf\u00e9/*", ["/caf\u00e9/x"], ["/cafe/x"]),
        ("/a.b/*", ["/a.b/c"], ["/aXb/c"]),
    ],
)
def test_a_pattern_matches_on_segment_borders(pattern: str, yes: list[str], no: list[str]) -> None:
    """The table of the module, and its neighbours."""
    assert [path for path in yes if not matches(pattern, path)] == []
    assert [path for path in no if matches(pattern, path)] == []


def test_case_matters_unless_told() -> None:
    """Apps that do not tell cases apart need rules that do not either."""
    assert not matches("/admin/*", "/ADMIN/x")
    assert matches("/admin/*", "/aDmIn/x", ignore_case=True)


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({"methods": ["GET"]}, [{"method": "GET"}, {"method": "HEAD"}, {"method": "get"}], [{"method": "POST"}]),
        ({"methods": ["POST"]}, [{"method": "POST"}, {"method": "post"}], [{"method": "GET"}, {"method": "HEAD"}]),
        ({"methods": ["HEAD"]}, [{"method": "HEAD"}], [{"method": "GET"}]),
        ({"hosts": ["a.example"]}, [{"host": "a.example"}], [{"host": "b.a.example"}, {"host": None}]),
        ({"hosts": ["*.example"]}, [{"host": "a.example"}, {"host": "b.a.example"}], [{"host": "example"}]),
        ({"hosts": ["A.Example."]}, [{"host": "a.example"}], [{"host": "aXexample"}]),
        ({"hosts": ["[::1]"]}, [{"host": "[::1]"}], [{"host": "::1"}]),
        ({"scheme": "https"}, [{"scheme": "https"}], [{"scheme": "http"}]),
        ({"scheme": "bearer"}, [{"who": Identity("a", "bearer")}], [{"who": Identity("a", "session")}, {"who": None}]),
        (
            {"scheme": ["https", "basic", "bearer"]},
            [{"scheme": "https", "who": Identity("a", "basic")}],
            [{"scheme": "http", "who": Identity("a", "basic")}, {"scheme": "https", "who": None}],
        ),
    ],
)
def test_a_condition_narrows_a_rule(rule: dict[str, Any], yes: list[Any], no: list[Any]) -> None:
    """Methods, hosts and schemes must all match."""
    rules = parse_rules("rules", [{**rule, "allow": "anonymous"}])

    def found(method: str = "GET", host: str | None = None, scheme: str = "http", who: Any = None) -> bool:
        return first_match(rules, "/", method, host, scheme, who) is not None

    assert [case for case in yes if not found(**case)] == []
    assert [case for case in no if found(**case)] == []


@pytest.mark.parametrize(
    ("allow", "anonymous", "known", "editor"),
    [
        ("anonymous", True, True, True),
        ("authenticated", False, True, True),
        ("editor", False, False, True),
        (["admin", "editor"], False, False, True),
        (["admin"], False, False, False),
        ([], False, False, False),
    ],
)
def test_admits(allow: Any, anonymous: bool, known: bool, editor: bool) -> None:
    """Everybody, everybody known, those with one of the roles, nobody."""
    (rule,) = parse_rules("rules", [{"allow": allow}])

    assert rule.admits(None) is anonymous
    assert rule.admits(Identity("a", "basic")) is known
    assert rule.admits(Identity("a", "basic", {}, frozenset({"editor"}))) is editor


def test_a_claimed_role_is_no_keyword() -> None:
    """Someone whose roles are called like our words gets nothing by it."""
    (rule,) = parse_rules("rules", [{"allow": ["admin"]}])

    assert not rule.admits(Identity("a", "bearer", {}, frozenset({"anonymous", "authenticated"})))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, "allow"),
        ({"path": "/x"}, "allow"),
        ({"allow": "anonymous", "pth": "/x"}, "`path`"),
        ({"allow": "anonymous", "roles": []}, "one of the keys"),
        ({"allow": "anonymous", "path": "admin"}, "path"),
        ({"allow": "anonymous", "path": "//admin"}, "path"),
        ({"allow": "anonymous", "path": "/a/../b"}, "path"),
        ({"allow": "anonymous", "path": "/a;b"}, "path"),
        ({"allow": "anonymous", "path": "/a?b"}, "path"),
        ({"allow": "anonymous", "path": "/a%2fb"}, "decoded"),
        ({"allow": "anonymous", "path": 5}, "path"),
        ({"allow": "anonymous", "methods": ["get"]}, "capitals"),
        ({"allow": "anonymous", "methods": []}, "capitals"),
        ({"allow": "anonymous", "hosts": ["a:80"]}, "hosts"),
        ({"allow": "anonymous", "hosts": ["http://a"]}, "hosts"),
        ({"allow": "anonymous", "hosts": []}, "hosts"),
        ({"allow": "anonymous", "scheme": "HTTPS"}, "scheme"),
        ({"allow": "anonymous", "scheme": []}, "scheme"),
        ({"allow": "anonymus"}, '"anonymous"'),
        ({"allow": ["Authenticated"]}, '"authenticated"'),
        ({"allow": "*"}, '"anonymous"'),
        ({"allow": 5}, "allow"),
        ({"allow": [""]}, "allow"),
        ({"allow": ["a\n"]}, "allow"),
        ("anonymous", "table"),
    ],
)
def test_refuses_a_rule_that_says_nothing(rule: Any, expected: str) -> None:
    """Every mistake names its place and the cure."""
    with pytest.raises(ConfigError, match=expected) as caught:
        parse_rules("rules", [rule])

    assert caught.value.option.startswith("rules[0]")


@pytest.mark.parametrize("rules", ["x", {"allow": "anonymous"}, 5])
def test_rules_are_a_list(rules: Any) -> None:
    """One rule alone is no list of rules."""
    with pytest.raises(ConfigError, match="list of tables"):
        parse_rules("rules", rules)


ANY = {"allow": "anonymous"}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (ANY, {"path": "/admin/*", "allow": "admin"}),
        ({"path": "/a/*", **ANY}, {"path": "/a/b", "allow": "admin"}),
        ({"path": "/a/*", **ANY}, {"path": "/a", "allow": "admin"}),
        ({"path": "/a", **ANY}, {"path": "/a/", "allow": "admin"}),
        ({"path": "/*/b", **ANY}, {"path": "/a/b", "allow": "admin"}),
        ({"path": "/*.css", **ANY}, {"path": "/a.css", "allow": "admin"}),
        ({"path": "/a/*", "methods": ["GET"], **ANY}, {"path": "/a/b/*", "methods": ["HEAD"], "allow": "admin"}),
        ({"hosts": ["*.example"], **ANY}, {"hosts": ["a.example"], "allow": "admin"}),
        ({"scheme": ["https"], **ANY}, {"scheme": ["https", "bearer"], "allow": "admin"}),
    ],
)
def test_refuses_a_rule_that_is_never_reached(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    """A rule behind one that takes all its requests is a mistake, and told with both places."""
    with pytest.raises(ConfigError, match=r"rules\[1\]: .*rules\[0\] takes all of it"):
        parse_rules("rules", [earlier, later])


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"path": "/a/b", **ANY}, {"path": "/a/*", "allow": "admin"}),
        ({"path": "/a/*", **ANY}, {"path": "/ab/*", "allow": "admin"}),
        ({"path": "/A/*", **ANY}, {"path": "/a/*", "allow": "admin"}),
        ({"methods": ["GET"], **ANY}, {"allow": "admin"}),
        ({"hosts": ["a.example"], **ANY}, {"hosts": ["b.example"], "allow": "admin"}),
        ({"scheme": "bearer", **ANY}, {"scheme": "https", "allow": "admin"}),
        ({"path": "/*.css", **ANY}, {"path": "/*", "allow": "admin"}),
        ({"path": "/a", **ANY}, {"path": "/a/*", "allow": "admin"}),
        ({"path": "/**/a", **ANY}, {"path": "/b/*", "allow": "admin"}),
    ],
)
def test_keeps_a_rule_that_can_still_match(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    """No false alarm for a rule that has something left."""
    assert len(parse_rules("rules", [earlier, later])) == 2


PIECES = st.sampled_from(["a", "b", "*", "a*", "**", "*.c"])
PATTERNS = st.lists(PIECES, max_size=3).map(lambda pieces: "/" + "/".join(pieces))
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "x.c"]), max_size=4).map(lambda pieces: "/" + "/".join(pieces))


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATTERNS, PATHS)
def test_a_rule_called_unreachable_is(first: str, second: str, path: str) -> None:
    """Where the check says so, no path matches the second pattern and not the first."""
    try:
        parse_rules("rules", [{"path": first, **ANY}, {"path": second, **ANY}])
    except ConfigError:
        assert matches(first, path) or not matches(second, path)
