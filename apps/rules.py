"""Rules of a router: a pattern, its methods, and the view that answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.records import Record

from .views import parameters_of

if TYPE_CHECKING:
    from .hooks import Scope
    from .host_patterns import HostPattern
    from .patterns import Pattern
    from .router import Router
    from .views import View

__all__ = ["Inclusion", "Rule", "included", "slash_policy"]

_SLASHES = ("redirect", "strict", "ignore")


class Rule:
    """One rule: what it matches, and the view that answers.

    Attributes:
        pattern: As written, prefixes of sub-routers included.
        methods: The methods, without the automatic HEAD and OPTIONS.
        endpoint: Name of the view, for ``url_for``.
        view: The view.
        host: The host it is bound to, or None.
        defaults: Values of parameters that the pattern does not have.
        slashes: The slash policy.
        takes: Names that the view takes; None where it takes any, or they are unknown.
        positional: How many parameters it gets by position, which costs a quarter of what names cost:
            0, or 1 where its first is the only one that the rule gives; -1 where it gets all by name.
    """

    __slots__ = (
        "call",
        "compiled",
        "defaults",
        "endpoint",
        "has_hooks",
        "host",
        "host_pattern",
        "is_named",
        "methods",
        "names",
        "pattern",
        "positional",
        "scopes",
        "slashes",
        "takes",
        "view",
    )

    def __init__(
        self,
        compiled: Pattern,
        methods: tuple[str, ...],
        endpoint: str,
        is_named: bool,
        view: View,
        call: View,
        host_pattern: HostPattern | None,
        defaults: Mapping[str, Any],
        slashes: str,
        scopes: tuple[Scope, ...],
    ) -> None:
        self.compiled = compiled
        self.pattern = compiled.source or "/"
        self.methods = methods
        self.endpoint = endpoint
        self.is_named = is_named
        self.view = view
        self.call = call
        self.host_pattern = host_pattern
        self.host = host_pattern.source if host_pattern is not None else None
        self.defaults = defaults
        self.slashes = slashes
        self.scopes = scopes
        self.has_hooks = False
        for scope in scopes:
            if scope.before or scope.after or scope.teardown:
                self.has_hooks = True
        self.names = names = compiled.names if host_pattern is None else host_pattern.names + compiled.names
        self.takes: tuple[str, ...] | None = None
        self.positional = 0
        if names or defaults:
            self.takes, first = parameters_of(view)
            self.positional = 1 if names == (first,) and not defaults else -1

    @property
    def name(self) -> str:
        """Same as :attr:`endpoint`."""
        return self.endpoint

    def __repr__(self) -> str:
        where = f"{self.host or ''}{self.pattern}"
        return f"{','.join(self.methods)} {where} ({self.endpoint})"


class Inclusion(Record):
    """Where a sub-router is included."""

    parent: Router
    prefix: Pattern
    host: HostPattern | None
    name: str


def included(rule: Rule, inclusion: Inclusion) -> Rule:
    """Return the rule as the including router has it."""
    parent, prefix, host, name = inclusion
    return Rule(
        rule.compiled.under(prefix),
        rule.methods,
        f"{name}.{rule.endpoint}" if name else rule.endpoint,
        rule.is_named,
        rule.view,
        rule.call,
        rule.host_pattern or host,
        rule.defaults,
        rule.slashes,
        (parent._scope, *rule.scopes),
    )


def slash_policy(value: str) -> str:
    if value not in _SLASHES:
        raise ConfigError("slashes", value, '"redirect", "strict" or "ignore"')
    return value
