"""The tree that finds the rule whose pattern a path matches.

It has one level per segment, so what a match costs depends on the path, not on how many rules
there are. A literal goes before a variable, a narrow converter before a wide one, from left to
right; two rules between which that does not decide are refused when the second is added.

A rule that is alone below a node waits there: the nodes further down are made when a second rule
comes, or a request. So ten thousand rules are built in half the time, and no request pays for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from .nodes import Node, child_of, following, link, may_meet, tail_rank

if TYPE_CHECKING:
    from .patterns import Segment
    from .rules import Rule

    Found: TypeAlias = tuple[Node, tuple[Any, ...]]

__all__ = ["Tree"]

_SLASH: tuple[Segment, ...] = ("",)


class Tree:
    """Rules by path and method.

    Attributes:
        root: Where paths begin, after their first slash.
        literal: Where paths without variables end: one lookup instead of a walk. Only those in ASCII.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.root.sole = True
        self.literal: dict[str, Node] = {}
        self._settling = Lock()

    def conflict(self, rule: Rule) -> Rule | None:
        """Return a rule that matches what *rule* matches, with the same rank; or None."""
        segments = rule.compiled.segments or _SLASH
        first = segments[0]
        if first.__class__ is str and first not in self.root.literals:
            return None
        for node in self._rivals(self.root, segments, 0):
            for method in rule.methods:
                other = node.methods.get(method)
                if other is not None and method in other.methods:
                    return other
        return None

    def add(self, rule: Rule) -> None:
        """Add *rule*; call :meth:`conflict` before."""
        is_literal = not rule.compiled.names and rule.pattern.isascii()
        if is_literal and rule.pattern in self.literal:
            self.literal[rule.pattern].take(rule)
            return
        segments = rule.compiled.segments or _SLASH
        node, at = self.root, 0
        while at < len(segments):
            if node.waiting is not None:
                self._settle(node)
            child = child_of(node, segments, at)
            if child is None:
                if is_literal:
                    self.literal[rule.pattern] = end = Node()
                    end.take(rule)
                self._attach(node, rule, at)
                return
            node, at = child, following(segments, at)
        node.take(rule)
        if is_literal:
            self.literal[rule.pattern] = node

    def find(self, path: str) -> Iterator[Found]:
        """Yield the places where a canonical *path* ends, best first, each with the values of its variables."""
        return self._find(self.root, path[1:].split("/"), 0, ())

    def _settle(self, node: Node) -> None:
        """Make the node in which the rule that waits here ends, or waits next."""
        if node.waiting is None:
            return
        with self._settling:  # two requests may come at the same time
            rule = node.waiting
            if rule is not None:
                self._attach(node, rule, node.at)
                node.waiting = None

    def _attach(self, node: Node, rule: Rule, at: int) -> None:
        """Make the child of *node* that the next segment of *rule* leads to."""
        segments = rule.compiled.segments or _SLASH
        after = following(segments, at)
        if after < len(segments):
            child = Node()
            child.waiting = rule
            child.at = after
        else:
            child = self.literal.get(rule.pattern) or Node()
            if not child.methods:
                child.take(rule)
        link(node, segments, at, child)

    def _rivals(self, node: Node, segments: tuple[Segment, ...], at: int) -> Iterator[Node]:
        """Yield the ends of what may match the same paths with the same rank."""
        if at == len(segments):
            yield node
            return
        self._settle(node)
        segment = segments[at]
        if isinstance(segment, str):
            child = node.literals.get(segment)
            if child is not None:
                yield from self._rivals(child, segments, at + 1)
        elif segment.multi:
            after = segments[at + 1 :]
            rank = tail_rank(segment, after)
            for part, rest, child in node.tails:
                if tail_rank(part, rest) == rank and all(map(may_meet, after, rest)):
                    yield child
        else:
            for part, child in node.edges:
                if part.key == segment.key or (part.rank == segment.rank and part.overlaps(segment)):
                    yield from self._rivals(child, segments, at + 1)

    def _find(self, node: Node, segments: list[str], at: int, values: tuple[Any, ...]) -> Iterator[Found]:
        """Search depth first. Each node is looked at once at most, so hostile paths cost no more than the tree."""
        if at == len(segments):
            if node.methods:
                yield node, values
            return
        self._settle(node)
        segment = segments[at]
        child = node.literals.get(segment)
        if child is not None:
            yield from self._find(child, segments, at + 1, values)
        if segment:
            for part, child in node.edges:
                found = part.match(segment)
                if found is not None:
                    yield from self._find(child, segments, at + 1, values + found)
        for part, after, child in node.tails:
            end = len(segments) - len(after)
            if end <= at:
                continue
            found = part.match("/".join(segments[at:end])) if segment else None
            for expected, actual in zip(after, segments[end:], strict=True):
                if found is None:
                    break
                if isinstance(expected, str):
                    found = found if expected == actual else None
                else:
                    more = expected.match(actual) if actual else None
                    found = None if more is None else found + more
            if found is not None:
                yield child, values + found
