"""What ``lamella audit`` does: mount × route × rule, and what is reachable without a login.

Read from the stack as it is built: nothing is requested. Routes of lamella's router and of Flask are known; any
other app is opaque, and is listed by the patterns of the rules in front of it, and all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lamella.stack.build import Layer, Stack
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.keys import IDENTITY, Identity
from lamella.stack.kernel.rules import ANONYMOUS, AUTHENTICATED, Rule, first_match, parse_rules
from lamella.stack.routes import RouteRow, app_routes

__all__ = ["Audit", "AuditRow", "audit"]

#: The concerns that are reported, and the layers that see to them.
CONCERNS = {
    "csrf": ("csrf",),
    "rate_limit": ("rate_limit",),
    "security_headers": ("security_headers",),
    "log": ("access_log",),
}
_SCHEMES = ("basic", "bearer", "session", "oidc")
_PARAMETER = re.compile(r"<[^>]*>|\{[^}]*\}")
_METHODS = ("GET", "POST")


class AuditRow(NamedTuple):
    """Who may ask for one route, with one set of methods."""

    #: The mount, as the options have it; empty for the app itself.
    mount: str
    #: The whole pattern; ``…`` at its end for all that no other row names.
    pattern: str
    #: Methods that are treated alike.
    methods: tuple[str, ...]
    #: Host, where mount, route or rule is bound to one.
    host: str
    #: Ids of the auth layers in front, from the outermost.
    auth: tuple[str, ...]
    #: The rule that decides, such as ``access[2] /admin/*``; empty where there is none.
    rule: str
    #: ``anonymous``, ``authenticated``, roles, or ``nobody``.
    allow: str
    #: Whether somebody without a login gets through to the app.
    is_open: bool
    #: By concern: the id of the layer that covers the route, or empty.
    covered: dict[str, str]
    #: The app behind.
    app: str


class Audit(NamedTuple):
    """All rows, in the order of the stack."""

    rows: tuple[AuditRow, ...]

    @property
    def open(self) -> tuple[AuditRow, ...]:
        """What is reachable without a login."""
        return tuple(row for row in self.rows if row.is_open)


class _Placed(NamedTuple):
    """A layer, and the prefix below which it stands."""

    layer: Layer
    base: str


def audit(stack: Stack) -> Audit:
    """Return who may ask for what in *stack*.

    Raises:
        ConfigError: A mounted app cannot be imported, or rules of ``access`` are wrong.
    """
    rows: list[AuditRow] = []
    for chain, mount, route in _walk(stack, (), "", "", ""):
        rows += _rows(chain, mount, route)
    return Audit(tuple(rows))


def _walk(
    stack: Stack, chain: tuple[_Placed, ...], prefix: str, host: str, mount: str
) -> Iterator[tuple[tuple[_Placed, ...], str, RouteRow]]:
    """Yield each route with the layers in front of it, from the outermost."""
    for layer in stack.layers:
        chain = (*chain, _Placed(layer, prefix))
        for name in ("mounts", "hosts"):
            for key, value in dict(layer.options.get(name) or {}).items() if _is_table(layer, name) else ():
                app = value["app"] if isinstance(value, dict) else value
                below, other = (prefix + key, host) if name == "mounts" else (prefix, key)
                yield from _of_app(app, chain, below, other, key)
    yield from _of_app(stack.app, chain, prefix, host, mount, stack.application.use)


def _is_table(layer: Layer, name: str) -> bool:
    return _kind(layer) == "dispatch" and hasattr(layer.options.get(name), "items")


def _of_app(
    app: Any, chain: tuple[_Placed, ...], prefix: str, host: str, mount: str, use: str = ""
) -> Iterator[tuple[tuple[_Placed, ...], str, RouteRow]]:
    if isinstance(app, Stack):
        yield from _walk(app, chain, prefix, host, mount)
        return
    for route in app_routes(app, prefix, host, use):
        yield chain, mount, route


# --- one route ----------------------------------------------------------------------------------


def _rows(chain: Sequence[_Placed], mount: str, route: RouteRow) -> Iterator[AuditRow]:
    """The rows of one route: one for each way in which its paths, hosts and methods are treated."""
    rules = [(placed, number, rule) for placed in chain for number, rule in _rules(placed.layer)]
    for pattern in _patterns(route.pattern, rules):
        for host in _hosts(route.host, [rule for _, _, rule in rules]):
            alike: dict[tuple[Any, ...], tuple[AuditRow, list[str]]] = {}
            for method in route.methods or _methods([rule for _, _, rule in rules]):
                row = _row(chain, mount, route, pattern, host, method)
                key = (row.auth, row.rule, row.allow, row.is_open, tuple(row.covered.items()))
                alike.setdefault(key, (row, []))[1].append(method)
            for row, methods in alike.values():
                every = len(alike) == 1 and not route.methods
                yield row._replace(methods=() if every else tuple(methods))


def _row(chain: Sequence[_Placed], mount: str, route: RouteRow, pattern: str, host: str, method: str) -> AuditRow:
    path = _sample(pattern)
    auth: list[str] = []
    covered = dict.fromkeys(CONCERNS, "")
    open_so_far, decided, allow = True, "", ANONYMOUS
    for placed in chain:
        layer, relative = placed.layer, path[len(placed.base) :]
        if not _in_scope(layer, relative, method, host):
            continue
        kind = _kind(layer)
        for concern, kinds in CONCERNS.items():
            if kind in kinds and not covered[concern]:
                covered[concern] = layer.full_id
        if kind == "access":
            rule, who, is_open = _decide(layer, relative, method, host)
            decided, allow = f"{layer.full_id}{rule}", who if allow in (ANONYMOUS, AUTHENTICATED) else allow
            open_so_far = open_so_far and is_open
        elif IDENTITY in getattr(layer.factory, "provides", ()):
            auth.append(layer.full_id)
            if _option(layer, "required") is True:
                open_so_far = False
                allow = AUTHENTICATED if allow == ANONYMOUS else allow
    if allow == ANONYMOUS and not open_so_far:
        allow = AUTHENTICATED
    return AuditRow(
        mount, pattern, (), host, tuple(auth), decided, allow, open_so_far and allow != "nobody", covered, route.app
    )


def _decide(layer: Layer, path: str, method: str, host: str) -> tuple[str, str, bool]:
    """The rule that decides, who may, and whether that is everybody; the more open of http and https counts."""
    numbered = _rules(layer)
    rules = [rule for _, rule in numbered]
    name = _sample_host(host) or None
    for url_scheme in ("https", "http"):
        rule = first_match(rules, path, method, name, url_scheme, None)
        if rule is not None and rule.admits(None):
            return f"[{rules.index(rule)}] {rule.path}", ANONYMOUS, True
    found: dict[str, int] = {}
    for scheme in _SCHEMES:
        for url_scheme in ("https", "http"):
            rule = first_match(rules, path, method, name, url_scheme, Identity("x", scheme))
            if rule is not None and rule.allow:
                found.setdefault(rule.describe(), rules.index(rule))
    if not found:
        rule = first_match(rules, path, method, name, "https", None)
        return ("" if rule is None else f"[{rules.index(rule)}] {rule.path}"), "nobody", False
    number = min(found.values())
    return f"[{number}] {rules[number].path}", "; ".join(found), False


def _rules(layer: Layer) -> list[tuple[int, Rule]]:
    if _kind(layer) != "access":
        return []
    ignore_case = layer.options.get("ignore_case") is True
    return list(enumerate(parse_rules("rules", layer.options["rules"], ignore_case=ignore_case)))


def _kind(layer: Layer) -> str:
    """Module of the layer, if it is one of ours."""
    package, _, module = getattr(layer.factory, "__module__", "").rpartition(".")
    return module if package == "lamella.middleware" else ""


def _option(layer: Layer, name: str) -> object:
    """The value of an option, or its default."""
    if name in layer.options:
        return layer.options[name]
    signature = layer.signature
    parameter = None if signature is None else signature.parameters.get(name)
    return None if parameter is None else parameter.default


def _in_scope(layer: Layer, path: str, method: str, host: str) -> bool:
    if layer.when is None:
        return True
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "SERVER_NAME": "localhost",
        "HTTP_HOST": _sample_host(host) or "localhost",
    }
    try:
        return layer.when.matches(environ)
    except BadRequestError:
        return True


# --- samples ------------------------------------------------------------------------------------


def _patterns(pattern: str, rules: Sequence[tuple[_Placed, int, Rule]]) -> Iterator[str]:
    """The pattern itself; of an opaque app also those of the rules below it."""
    if pattern.endswith("…"):
        prefix = pattern.removesuffix("…").rstrip("/")
        known = dict.fromkeys(placed.base + rule.path for placed, _, rule in rules)
        yield from (path for path in known if path.startswith(prefix + "/") and path != f"{prefix}/*")
    yield pattern


def _sample(pattern: str) -> str:
    """A path that the pattern matches, and that hardly another one does."""
    path = _PARAMETER.sub("0", pattern)
    return path.replace("/**", "/0").replace("*", "0").replace("…", "0")


def _sample_host(host: str) -> str:
    return host.replace("*", "0")


def _hosts(host: str, rules: Sequence[Rule]) -> list[str]:
    """The host of the route; where it has none, every other one that rules tell apart too."""
    if host:
        return [host]
    told = dict.fromkeys(name for rule in rules for name in rule.hosts or ())
    return [*(f"*{name}" if name.startswith(".") else name for name in told), ""]


def _methods(rules: Sequence[Rule]) -> list[str]:
    told = {method for rule in rules for method in rule.methods or ()} - {"HEAD"}
    return sorted(told | set(_METHODS))
