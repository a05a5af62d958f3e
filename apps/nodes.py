"""One place in the tree of the rules, and how segments lead from one to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .segments import never

if TYPE_CHECKING:
    from .patterns import Segment
    from .rules import Rule
    from .segments import Part

    Tail: TypeAlias = tuple[Part, tuple[Segment, ...], "Node"]

__all__ = ["Node", "child_of", "following", "link", "may_meet", "tail_rank"]

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


def following(segments: tuple[Segment, ...], at: int) -> int:
    """Return where the child goes on: a part that takes several segments leads to the end at once."""
    segment = segments[at]
    return at + 1 if isinstance(segment, str) or not segment.multi else len(segments)


def child_of(node: Node, segments: tuple[Segment, ...], at: int) -> Node | None:
    """Return what the segment leads to; None where there is nothing yet."""
    segment = segments[at]
    if isinstance(segment, str):
        return node.literals.get(segment)
    if segment.multi:
        key = _tail_key(segment, segments[at + 1 :])
        return next((child for part, after, child in node.tails if _tail_key(part, after) == key), None)
    return next((child for part, child in node.edges if part.key == segment.key), None)


def link(node: Node, segments: tuple[Segment, ...], at: int, child: Node) -> None:
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
        node.tails = tuple(sorted(tails, key=lambda tail: tail_rank(tail[0], tail[1])))
        return
    child.sole = node.sole and not node.edges and not node.tails
    edges = tuple(sorted((*node.edges, (segment, child)), key=lambda edge: edge[0].rank))
    # A request may come in between: what is looked at first is set last.
    node.edges = edges
    node.child = edges[0][1]
    node.fast = edges[0][0].fast


def _tail_key(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    return (part.key, *(segment if isinstance(segment, str) else segment.key for segment in after))


def tail_rank(part: Part, after: tuple[Segment, ...]) -> tuple[object, ...]:
    """More segments after it go first, then literals, then narrow parts."""
    ranks = tuple((-1, 0) if isinstance(segment, str) else segment.rank for segment in after)
    return (-len(after), ranks, part.rank)


def may_meet(first: Segment, second: Segment) -> bool:
    """Tell whether some segment may match both."""
    if isinstance(first, str):
        return first == second if isinstance(second, str) else second.match(first) is not None
    if isinstance(second, str):
        return first.match(second) is not None
    return first.key == second.key or first.overlaps(second)
