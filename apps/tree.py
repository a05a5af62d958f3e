"""The tree that finds the rule whose pattern a path matches.

It has one level per segment, so what a match costs depends on the path, not on how many rules
there are. A literal goes before a variable, a narrow converter before a wide one, from left to
right; two rules between which that does not decide are refused when the second is added.

A rule that is alone below a node waits there: the nodes further down are made when a second rule
comes, or a request. So ten thousand rules are built in half the time, and no request pays for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from .segments import never

if TYPE_CHECKING:
    from .patterns import Segment
    from .rules import Rule
    from .segments import Part

    Tail: TypeAlias = tuple[Part, tuple[Segment, ...], "Node"]
    Found: TypeAlias = tuple["Node", tuple[Any, ...]]

__all__ = ["Node", "Tree"]

_EMPTY: dict[str, Any] = {}
_SLASH: tuple[Segment, ...] = ("",)


class Node:
    """One place in the tree.

    Attributes:
        literals: What a literal segment leads to.
        fast: Quick matcher of the first edge, or one that never matches.
        child: Where the first edge leads.
        edges: Parts and where they lead, by rank.
        tails: Parts that take several segments, what follows them, and where they lead; by rank.
        methods: The rules that end here, by method.
        allow: The Allow field for them, once it was needed.
        sole: Whether a path that leads here can lead nowhere else.
        waiting: The one rule below that has no nodes yet; there is nothing else below then.
        at: Which of its segments is the next.
    """

    __slots__ = ("allow", "at", "child", "edges", "fast", "literals", "methods", "sole", "tails", "waiting")

    def __init__(self) -> None:
        # Shared and empty until there is something: most of ten thousand nodes are leaves.
        self.literals: dict[str, Node] = _EMPTY
        self.fast: Callable[[str], Any] = never
        self.child: Node | None = None
        self.edges: tuple[tuple[Part, Node], ...] = ()
        self.tails: tuple[Tail, ...] = ()
        self.methods: dict[str, Rule] = _EMPTY
        self.allow = ""
        self.sole = False
        self.waiting: Rule | None = None
        self.at = 0

    def take(self, rule: Rule) -> None:
        """Let *rule* end here."""
        methods = {**self.methods, **dict.fromkeys(rule.methods, rule)}
        if "GET" in rule.methods:
            methods.setdefault("HEAD", rule)
        self.methods = methods
        self.allow = ""

    def share(self) -> None:
        """Note that paths which lead here or below may lead elsewhere, too."""
        if self.sole:
            self.sole = False
            self.share_children()

    def share_children(self) -> None:
        for child in self.literals.values():
            child.share()
        for _, child in self.edges:
            child.share()


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
            child = _child(node, segments, at)
            if child is None:
                if is_literal:
                    self.literal[rule.pattern] = end = Node()
                    end.take(rule)
                self._attach(node, rule, at)
                return
            node, at = child, _next(segments, at)
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
        after = _next(segments, at)
        if after < len(segments):
            child = Node()
            child.waiting = rule
            child.at = after
        else:
            child = self.literal.get(rule.pattern) or Node()
            if not child.methods:
                child.take(rule)
        _link(node, segments, at, child)

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
            rank = _tail_rank(segment, after)
            for part, rest, child in node.tails:
                if _tail_rank(part, rest) == rank and all(map(_may_meet, after, rest)):
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


def _next(segments: tuple[Segment, ...], at: int) -> int:
    """Return where the child goes on: a part that takes several segments leads to the end at once."""
    segment = segments[at]
    return at + 1 if isinstance(segment, str) or not segment.multi else len(segments)


def _child(node: Node, segments: tuple[Segment, ...], at: int) -> Node | None:
    """Return what the segment leads to; None where there is nothing yet."""
    segment = segments[at]
    if isinstance(segment, str):
        return node.literals.get(segment)
    if segment.multi:
        key = _tail_key(segment, segments[at + 1 :])
        return next((child for part, after, child in node.tails if _tail_key(part, after) == key), None)
    return next((child for part, child in node.edges if part.key == segment.key), None)


def _link(node: Node, segments: tuple[Segment, ...], at: int, child: Node) -> None:
    """Let the segment lead from *node* to *child*, and note which paths may lead elsewhere now."""
    segment = segments[at]
    if isinstance(segment, str):
        child.sole = node.sole and not node.edges and not node.tails
        if node.literals is _EMPTY:
            node.literals = {segment: child}
        else:
            node.literals[segment] = child
        return
    node.share_children()
    if segment.multi:
        tails = (*node.tails, (segment, segments[at + 1 :], child))
        node.tails = tuple(sorted(tails, key=lambda tail: _tail_rank(tail[0], tail[1])))
        return
    child.sole = node.sole and not node.edges and not node.tails
    edges = tuple(sorted((*node.edges, (segment, child)), key=lambda edge: edge[0].rank))
    # A request may come in between: what is looked at first is set last.
    node.edges = edges
    node.child = edges[0][1]
    node.fast = edges[0][0].fast


def _tail_key(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    return (part.key, *(segment if isinstance(segment, str) else segment.key for segment in after))


def _tail_rank(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    """More segments after it go first, then literals, then narrow parts."""
    ranks = tuple((-1, 0) if isinstance(segment, str) else segment.rank for segment in after)
    return (-len(after), ranks, part.rank)


def _may_meet(first: Segment, second: Segment) -> bool:
    """Tell whether some segment may match both."""
    if isinstance(first, str):
        return first == second if isinstance(second, str) else second.match(first) is not None
    if isinstance(second, str):
        return first.match(second) is not None
    return first.key == second.key or first.overlaps(second)
