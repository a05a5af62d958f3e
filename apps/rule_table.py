"""The rules of one router: those that clash are refused, the others are found by host and path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.http import parse_host

from .errors import AmbiguousRouteError
from .tree import Tree

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from .host_patterns import HostPattern
    from .rules import Rule

__all__ = ["RuleTable"]


class RuleTable:
    """The rules of one router.

    Attributes:
        rules: In the order they were added.
        names: By endpoint.
        tree: Those without a host.
        hosted: The others, by host, the most specific first.
    """

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.names: dict[str, list[Rule]] = {}
        self.tree = Tree()
        self.hosted: list[tuple[HostPattern, Tree]] = []

    def check(self, rule: Rule, check_names: bool) -> None:
        """Refuse *rule* where it clashes with one that is there.

        Raises:
            AmbiguousRouteError: Another rule matches the same requests.
            ConfigError: A parameter is there twice, or the name belongs to another view.
        """
        tree = self.tree if rule.host_pattern is None else self._tree_of(rule.host_pattern)
        other = tree.conflict(rule) if tree is not None else None
        if other is not None:
            raise AmbiguousRouteError(rule, other)
        if rule.host_pattern is not None and len(set(rule.names)) != len(rule.names):
            raise ConfigError("pattern", repr(rule), "each name once, in host and path")
        if check_names and rule.is_named:
            for namesake in self.names.get(rule.endpoint, ()):
                if namesake.is_named and namesake.view is not rule.view:
                    raise ConfigError("name", rule.endpoint, f"a name of its own for {rule}; {namesake} has it")

    def add(self, rule: Rule) -> None:
        """Add a rule that was checked."""
        host = rule.host_pattern
        tree = self.tree if host is None else self._tree_of(host)
        if tree is None:
            tree = Tree()
            self.hosted.append((cast("HostPattern", host), tree))
            self.hosted.sort(key=lambda pair: pair[0].rank)
        tree.add(rule)
        self.rules.append(rule)
        named = self.names.get(rule.endpoint)
        if named is None:
            self.names[rule.endpoint] = [rule]
        else:
            named.append(rule)

    def _tree_of(self, host: HostPattern) -> Tree | None:
        return next((tree for other, tree in self.hosted if other.key == host.key), None)

    def trees(self, environ: WSGIEnvironment) -> tuple[tuple[Tree, tuple[Any, ...]], ...]:
        """Return the trees for the request's host, best first, each with the values of its variables.

        Raises:
            BadRequestError: There are rules with hosts, and the request's is malformed.
        """
        if not self.hosted:
            return ((self.tree, ()),)
        host = parse_host(environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""))
        if host is None:
            raise BadRequestError("the host is malformed")
        found = [(tree, pattern.match(host.host)) for pattern, tree in self.hosted]
        return (*((tree, values) for tree, values in found if values is not None), (self.tree, ()))
