"""Access rules: who may ask for what. Pure: the layer ``access`` enforces them, ``lamella audit`` lists them.

The first rule that matches decides; where none does, nobody may. The pattern of a path is one of
:mod:`lamella.stack.kernel.patterns`; ``/admin`` is for ``/admin/`` too, because most apps take one for the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple, Required, TypedDict

from .errors import ConfigError
from .http import HostPort, is_token, parse_host
from .keys import Identity
from .patterns import compile_paths, is_host_pattern, is_path_pattern

__all__ = ["ANONYMOUS", "AUTHENTICATED", "Rule", "RuleTable", "bare_host", "first_match", "parse_rules"]

#: In ``allow``: everybody, whether known or not.
ANONYMOUS = "anonymous"
#: In ``allow``: everybody whom an auth layer outside knows.
AUTHENTICATED = "authenticated"

_KEYS = ("path", "methods", "hosts", "scheme", "allow")
_BAD_ROLE = re.compile(r"[\x00-\x1f\x7f]")


class RuleTable(TypedDict, total=False):
    """One rule, as it is written in a stack file."""

    path: str
    methods: Sequence[str]
    hosts: Sequence[str]
    scheme: str | Sequence[str]
    allow: Required[str | Sequence[str]]


class Rule(NamedTuple):
    """One rule, checked."""

    #: As written.
    path: str
    #: Methods in capitals, ``HEAD`` beside ``GET``; None for all.
    methods: frozenset[str] | None
    #: Host names, or ``.example`` for all below ``example``; None for all.
    hosts: tuple[str, ...] | None
    #: ``http`` or ``https``; None for both.
    url_schemes: frozenset[str] | None
    #: Auth schemes such as ``bearer``; None for any, also for nobody.
    auth_schemes: frozenset[str] | None
    #: ``anonymous``, ``authenticated``, roles; empty for nobody.
    allow: frozenset[str]
    #: Matches the canonical path.
    pattern: re.Pattern[str]
    #: Whether letters match in either case.
    ignore_case: bool

    def admits(self, identity: Identity | None) -> bool:
        """Tell whether the rule lets in whom *identity* describes, None for anonymous."""
        allow = self.allow
        if ANONYMOUS in allow:
            return True
        return identity is not None and (AUTHENTICATED in allow or not allow.isdisjoint(identity.roles))

    def describe(self) -> str:
        """Return who may, in words."""
        return ", ".join(sorted(self.allow)) or "nobody"


def parse_rules(option: str, rules: Sequence[Mapping[str, object]], *, ignore_case: bool = False) -> tuple[Rule, ...]:
    """Check rules as they are written.

    Raises:
        ConfigError: A rule is malformed, or an earlier one leaves it nothing to match.
    """
    if isinstance(rules, (str, bytes, Mapping)) or not isinstance(rules, Sequence):
        raise ConfigError(option, rules, 'a list of tables such as { path = "/admin/*", allow = ["admin"] }')
    parsed: list[Rule] = []
    for number, table in enumerate(rules):
        where = f"{option}[{number}]"
        rule = _parse(where, table, ignore_case)
        for earlier, other in enumerate(parsed):
            if _covers(other, rule):
                expected = f"a rule that can match; {option}[{earlier}] takes all of it before"
                raise ConfigError(where, dict(table), expected)
        parsed.append(rule)
    return tuple(parsed)


def first_match(
    rules: Sequence[Rule], path: str, method: str, host: str | None, url_scheme: str, identity: Identity | None
) -> Rule | None:
    """Return the rule that decides, None where there is none.

    Args:
        rules: In their order.
        path: The canonical path; empty for the mount itself.
        method: As sent; compared in capitals, as apps do.
        host: In lower case, without a port and without a dot at its end; None where the client sent none.
        url_scheme: ``http`` or ``https``.
        identity: Who is asking; None for anonymous.
    """
    path = path or "/"
    method = method.upper()
    for rule in rules:
        if (
            (rule.methods is None or method in rule.methods)
            and rule.pattern.fullmatch(path) is not None
            and (rule.hosts is None or _host_matches(rule.hosts, host))
            and (rule.url_schemes is None or url_scheme in rule.url_schemes)
            and (rule.auth_schemes is None or (identity is not None and identity.scheme in rule.auth_schemes))
        ):
            return rule
    return None


def bare_host(host: HostPort) -> str:
    """Return the name alone, as rules compare it."""
    return host.host.removesuffix(".")


def _host_matches(hosts: tuple[str, ...], host: str | None) -> bool:
    return host is not None and any(host.endswith(known) if known.startswith(".") else host == known for known in hosts)


# --- reading ------------------------------------------------------------------------------------


def _parse(where: str, table: Mapping[str, object], ignore_case: bool) -> Rule:
    if not isinstance(table, Mapping):
        raise ConfigError(where, table, 'a table such as { path = "/admin/*", allow = ["admin"] }')
    for key in table:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, 1)
            raise ConfigError(where, key, f"the key `{near[0]}`" if near else "one of the keys " + ", ".join(_KEYS))
    if "allow" not in table:
        raise ConfigError(where, dict(table), 'a rule with allow = "anonymous", "authenticated" or roles')
    path = table.get("path", "/*")
    if not isinstance(path, str) or not is_path_pattern(path) or ";" in path:
        expected = (
            'a decoded path such as "/admin/*", that begins with one slash and has no ";", "?", "#" or dot segment'
        )
        raise ConfigError(f"{where}.path", path, expected)
    url_schemes, auth_schemes = _schemes(f"{where}.scheme", table.get("scheme"))
    return Rule(
        path,
        _methods(f"{where}.methods", table.get("methods")),
        _hosts(f"{where}.hosts", table.get("hosts")),
        url_schemes,
        auth_schemes,
        _allow(f"{where}.allow", table["allow"]),
        compile_paths([path], either_slash=True, ignore_case=ignore_case),
        ignore_case,
    )


def _list(where: str, value: object, expected: str) -> list[str]:
    """A list of text; one text alone is a list of one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) and not isinstance(items, (set, frozenset)):
        raise ConfigError(where, value, expected)
    for item in items:
        if not isinstance(item, str) or not item:
            raise ConfigError(where, item, expected)
    return [str(item) for item in items]


def _methods(where: str, value: object) -> frozenset[str] | None:
    if value is None:
        return None
    expected = 'a list of methods in capitals, such as ["GET", "POST"]'
    methods = set(_list(where, value, expected))
    if not methods or any(not is_token(method) or method != method.upper() for method in methods):
        raise ConfigError(where, value, expected)
    # HEAD is GET without the content (RFC 9110 section 9.3.2): what guards the one guards the other.
    return frozenset(methods | {"HEAD"} if "GET" in methods else methods)


def _hosts(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    expected = 'a list of hosts without ports, such as ["shop.example", "*.shop.example"]'
    hosts = []
    for item in _list(where, value, expected):
        parsed = parse_host(item.removeprefix("*."))
        if parsed is None or not is_host_pattern(item):
            raise ConfigError(where, item, expected)
        hosts.append(("." if item.startswith("*.") else "") + bare_host(parsed))
    if not hosts:
        raise ConfigError(where, value, expected)
    return tuple(hosts)


def _schemes(where: str, value: object) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """Split what the URL has (http, https) from how the user was found (basic, bearer, session, oidc)."""
    if value is None:
        return None, None
    expected = '"https", or how the user is known: "basic", "bearer", "session", "oidc"'
    names = set(_list(where, value, expected))
    if not names or any(not is_token(name) or name != name.lower() for name in names):
        raise ConfigError(where, value, expected)
    url = names & {"http", "https"}
    return frozenset(url) or None, frozenset(names - url) or None


def _allow(where: str, value: object) -> frozenset[str]:
    expected = '"anonymous", "authenticated", or a list of roles; an empty list for nobody'
    names = _list(where, value, expected)
    for name in names:
        if _BAD_ROLE.search(name) is not None or name != name.strip():
            raise ConfigError(where, name, expected)
        near = [ANONYMOUS] if name == "*" else get_close_matches(name.lower(), (ANONYMOUS, AUTHENTICATED), 1, 0.85)
        if near and near[0] != name:
            raise ConfigError(where, name, f'"{near[0]}", if that is meant')
    return frozenset(names)


# --- rules that can never match -----------------------------------------------------------------


def _covers(earlier: Rule, later: Rule) -> bool:
    """Tell whether each request that *later* matches is taken by *earlier*; False where that is not plain."""
    return (
        _within(earlier.methods, later.methods)
        and _within(earlier.url_schemes, later.url_schemes)
        and _within(earlier.auth_schemes, later.auth_schemes)
        and _covers_hosts(earlier.hosts, later.hosts)
        and _covers_path(earlier.path, later.path, earlier.ignore_case)
    )


def _within(earlier: frozenset[str] | None, later: frozenset[str] | None) -> bool:
    return earlier is None or (later is not None and later <= earlier)


def _covers_hosts(earlier: tuple[str, ...] | None, later: tuple[str, ...] | None) -> bool:
    if earlier is None or later is None:
        return earlier is None
    return all(any(one == host or (one.startswith(".") and host.endswith(one)) for one in earlier) for host in later)


def _covers_path(earlier: str, later: str, ignore_case: bool) -> bool:
    if ignore_case:
        earlier, later = earlier.lower(), later.lower()
    wide, wide_below = _segments(earlier)
    narrow, narrow_below = _segments(later)
    if wide == narrow:
        return wide_below or not narrow_below
    if "**" in wide or "**" in narrow[: len(wide)]:
        return False
    if len(narrow) < len(wide) or (not wide_below and (narrow_below or len(narrow) != len(wide))):
        return False
    return all(_covers_segment(one, other) for one, other in zip(wide, narrow, strict=False))


def _segments(path: str) -> tuple[list[str], bool]:
    """The segments, and whether everything below them belongs to the pattern."""
    segments = path.strip("/").split("/") if path.strip("/") else []
    below = bool(segments) and segments[-1] in ("*", "**")
    return (segments[:-1] if below else segments), below


def _covers_segment(wide: str, narrow: str) -> bool:
    if wide == narrow or wide == "*":
        return True
    if "*" in narrow:
        return False
    return re.fullmatch("[^/]*".join(map(re.escape, wide.split("*"))), narrow) is not None
