"""The tree that finds the rule whose pattern a path matches.

It has one level per segment, so what a match costs depends on the path, not on how many rules
there are. A literal goes before a variable, a narrow converter before a wide one, from left to
right; two rules between which that does not decide are refused when the second is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .segments import never

if TYPE_CHECKING:
    from types import EllipsisType

    from .patterns import Pattern, Segment
    from .segments import Part

__all__ = ["Node", "Tree"]

_EMPTY: dict[str, Any] = {}


class Node:
    """One place in the tree.

    Attributes:
        literals: What a literal segment leads to.
        fast: Quick matcher of the first edge, or one that never matches.
        child: Where the first edge leads.
        edges: Parts and where they lead, by rank.
        tails: Parts that take several segments, what follows them, and where they lead; by rank.
        methods: The rules that end here, by method.
        allow: The Allow field for them.
    """

    __slots__ = ("allow", "child", "edges", "fast", "literals", "methods", "tails")

    def __init__(self) -> None:
        # Shared and empty until there is something: most of ten thousand nodes are leaves.
        self.literals: dict[str, Node] = _EMPTY
        self.fast: Callable[[str], Any] = never
        self.child: Node | None = None
        self.edges: tuple[tuple[Part, Node], ...] = ()
        self.tails: tuple[tuple[Part, tuple[Segment, ...], Node], ...] = ()
        self.methods: dict[str, Any] = _EMPTY
        self.allow = ""


class Tree:
    """Rules by path and method; a rule is whatever the caller keeps, with ``methods``.

    Attributes:
        root: Where paths begin, after their first slash.
        top: Where ``path.split("/")`` begins.
    """

    def __init__(self) -> None:
        self.root = Node()
        self.top = Node()
        self.top.literals = {"": self.root}

    def conflict(self, pattern: Pattern, methods: tuple[str, ...]) -> Any | None:
        """Return a rule that matches what *pattern* with *methods* matches, with the same rank; or None."""
        first = pattern.segments[0] if pattern.segments else ""
        if first.__class__ is str and first not in self.root.literals:
            return None
        for node in _rivals(self.root, pattern.segments or ("",), 0):
            for method in methods:
                other = node.methods.get(method)
                if other is not None and method in other.methods:
                    return other
        return None

    def add(self, pattern: Pattern, methods: tuple[str, ...], rule: Any) -> Node:
        """Add *rule*; call :meth:`conflict` before.

        Returns:
            Where it ends.
        """
        node = self.root
        segments = pattern.segments or ("",)
        for number, segment in enumerate(segments):
            if segment.__class__ is str:
                child = node.literals.get(segment)
                if child is None:
                    child = Node()
                    if node.literals is _EMPTY:
                        node.literals = {}
                    node.literals[segment] = child
                node = child
            elif segment.multi:  # type: ignore[union-attr]
                node = _tail(node, segment, segments[number + 1 :])  # type: ignore[arg-type]
                break
            else:
                node = _edge(node, segment)  # type: ignore[arg-type]
        if node.methods is _EMPTY:
            node.methods = {}
        for method in methods:
            node.methods[method] = rule
        if "GET" in methods:
            node.methods.setdefault("HEAD", rule)
        node.allow = ""
        return node

    def only(self, path: str) -> Node | None | EllipsisType:
        """Find the one place where a canonical *path* can end, where that is told without a search.

        Returns:
            The place; None where nothing matches, with or without a slash at the end; ``...`` where
            a search must tell.
        """
        node = self.top
        for segment in path.split("/"):
            child = node.literals.get(segment)
            if node.tails:
                return ...
            if child is None:
                edges = node.edges
                if not edges:
                    return None if segment else ...
                if len(edges) > 1 or node.fast(segment) is None:
                    return ...
                child = node.child
            elif node.edges:
                return ...
            node = child  # type: ignore[assignment]
        return node if node.methods else ...

    def find(self, path: str) -> Iterator[tuple[Node, tuple[Any, ...]]]:
        """Yield the places where a canonical *path* ends, best first, each with the values of its variables."""
        return _find(self.root, path[1:].split("/"), 0, ())


def _edge(node: Node, part: Part) -> Node:
    """Return where *part* leads from *node*."""
    for other, child in node.edges:
        if other.key == part.key:
            return child
    child = Node()
    edge = (part, child)
    node.edges = tuple(sorted((*node.edges, edge), key=lambda edge: edge[0].rank)) if node.edges else (edge,)
    first, node.child = node.edges[0]
    node.fast = first.fast
    return child


def _tail(node: Node, part: Part, after: tuple[Segment, ...]) -> Node:
    """Return where *part* and what stands after it lead from *node*."""
    key = _tail_key(part, after)
    for other, rest, child in node.tails:
        if _tail_key(other, rest) == key:
            return child
    child = Node()
    node.tails = tuple(sorted((*node.tails, (part, after, child)), key=lambda tail: _tail_rank(tail[0], tail[1])))
    return child


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


def _rivals(node: Node, segments: tuple[Segment, ...], at: int) -> Iterator[Node]:
    """Yield the ends of what may match the same paths with the same rank."""
    if at == len(segments):
        yield node
        return
    segment = segments[at]
    if isinstance(segment, str):
        child = node.literals.get(segment)
        if child is not None:
            yield from _rivals(child, segments, at + 1)
    elif segment.multi:
        after = segments[at + 1 :]
        rank = _tail_rank(segment, after)
        for part, rest, child in node.tails:
            if _tail_rank(part, rest) == rank and all(map(_may_meet, after, rest)):
                yield child
    else:
        for part, child in node.edges:
            if part.key == segment.key or (part.rank == segment.rank and part.overlaps(segment)):
                yield from _rivals(child, segments, at + 1)


def _find(node: Node, segments: list[str], at: int, values: tuple[Any, ...]) -> Iterator[tuple[Node, tuple[Any, ...]]]:
    """Search depth first. Each node is looked at once at most, so hostile paths cost no more than the tree."""
    if at == len(segments):
        if node.methods:
            yield node, values
        return
    segment = segments[at]
    child = node.literals.get(segment)
    if child is not None:
        yield from _find(child, segments, at + 1, values)
    if segment:
        for part, child in node.edges:
            found = part.match(segment)
            if found is not None:
                yield from _find(child, segments, at + 1, values + found)
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
