"""What a trace holds: steps, changes, and how both are shown, with their secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.keys import Client, Identity
from lamella.stack.kernel.redact import REDACTED, is_secret, redact_query, redact_url

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from rich.tree import Tree

__all__ = ["Change", "Step", "Trace", "named_error", "server_timing"]

#: Private caches of the kernel: no layer's doing.
_PRIVATE = frozenset({"lamella.path"})
#: Their names sound secret, what they hold is not.
_PUBLIC = frozenset({"www-authenticate", "proxy-authenticate", "access-control-allow-credentials", "vary"})
_NONCE = re.compile(r"'nonce-[^']*'")


class Change:
    """One environ key or header that a layer added, changed or removed.

    Args:
        kind: ``added``, ``changed`` or ``removed``.
        name: The key or header.
        before: As it was; empty where it was added.
        after: As it is; empty where it was removed.
    """

    __slots__ = ("after", "before", "kind", "name")

    def __init__(self, kind: str, name: str, before: str = "", after: str = "") -> None:
        self.kind = kind
        self.name = name
        self.before = before
        self.after = after

    def as_dict(self) -> dict[str, str]:
        """Return the change as JSON values."""
        return {"kind": self.kind, "name": self.name, "before": self.before, "after": self.after}

    def __str__(self) -> str:
        if self.kind == "removed":
            return f"- {self.name}"
        if self.kind == "added":
            return f"+ {self.name} = {self.after}"
        return f"~ {self.name} = {self.after} (was {self.before})"

    def __repr__(self) -> str:
        return f"<Change {self}>"


class Step:
    """What one layer, or the app, did in one request.

    Attributes:
        id: The layer's id, ``sub-stack/id`` in a sub-stack, or ``app``.
        use: The ``use`` of the layer.
        line: Where it stands in the stack file; 0 for one made in Python.
        children: What it called.
        status: The status line that it passed outwards; empty where it never started.
        read: Bytes of the request's body that it read itself.
        blocks: Blocks that it yielded or wrote.
        bytes: Bytes that it yielded or wrote.
        blocks_in: Blocks that it got from inside.
        own: Seconds spent in the layer itself.
        first_byte: Seconds from the request's start to its first byte; None where none came.
        closes: How often its body was closed.
        error: What it raised, as ``Type: message``; empty where nothing.
    """

    status: str = ""
    read: int = 0
    blocks: int = 0
    bytes: int = 0
    first_byte: float | None = None
    closes: int = 0
    error: str = ""
    has_close: bool = False
    _own: int = 0
    _raw: Sequence[tuple[str, str]] = ()
    #: What it called is calling start_response right now.
    _inner_starts: bool = False
    #: Its answer is that of what it called.
    _forwards: bool = False

    def __init__(self, id: str, use: str, line: int, environ: WSGIEnvironment) -> None:
        self.id = id
        self.use = use
        self.line = line
        self.children: list[Step] = []
        self._seen: dict[str, Any] = environ.copy()

    @property
    def own(self) -> float:
        """Seconds spent in this layer itself."""
        return self._own / 1e9

    @property
    def total(self) -> float:
        """Seconds spent in this layer and in all that it called."""
        return self.own + sum(child.total for child in self.children)

    @property
    def blocks_in(self) -> int:
        """Blocks that it got from inside."""
        return sum(child.blocks for child in self.children)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Its header list, masked."""
        return [(name, _shown_header(name, value)) for name, value in self._raw]

    @property
    def environ(self) -> list[Change]:
        """What it changed in the environ, for what it called last."""
        return _environ_changes(self._seen, self.children[-1]._seen) if self.children else []

    @property
    def header_changes(self) -> list[Change]:
        """What it changed in the headers of what it called last."""
        inner = next((child for child in reversed(self.children) if child.status), None)
        return _header_changes(inner._raw if inner is not None else (), self._raw)

    def walk(self) -> Iterator[Step]:
        """Yield this step and all inside it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {
            "id": self.id,
            "use": self.use,
            "line": self.line,
            "status": self.status,
            "environ": [change.as_dict() for change in self.environ],
            "headers": [change.as_dict() for change in self.header_changes],
            "read": self.read,
            "blocks_in": self.blocks_in,
            "blocks": self.blocks,
            "bytes": self.bytes,
            "own": round(self.own, 9),
            "total": round(self.total, 9),
            "first_byte": self.first_byte,
            "closes": self.closes,
            "error": self.error,
            "children": [child.to_dict() for child in self.children],
        }

    def __repr__(self) -> str:
        return f"<Step {self.id} {self.status or self.error or 'never started'}>"


class Trace:
    """One request through a stack.

    Attributes:
        method: Of the request.
        target: Path and query of the request, masked.
        root: The outermost layer.
        total: Seconds from the call to the end of ``close()``.
        error: The exception that reached the server, or None.
    """

    def __init__(self, method: str, target: str, root: Step, total: float, error: BaseException | None) -> None:
        self.method = method
        self.target = target
        self.root = root
        self.total = total
        self.error = error

    @property
    def status(self) -> str:
        """The status line that the server got."""
        return self.root.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that the server got, masked."""
        return self.root.headers

    @property
    def steps(self) -> list[Step]:
        """Every step, the outer before the inner."""
        return list(self.root.walk())

    def walk(self) -> Iterator[Step]:
        """Yield every step, the outer before the inner."""
        return self.root.walk()

    @property
    def answered_by(self) -> str:
        """Id of the layer whose answer the server got; empty where nobody answered."""
        step = self.root
        while True:
            # A layer that holds its start back passes the same status on later.
            inner = [child for child in step.children if child.status and child.status == step.status]
            if step._forwards:
                inner = inner or [child for child in step.children if child.status]
            if not inner:
                return step.id if step.status else ""
            step = inner[-1]

    @property
    def raised_by(self) -> list[str]:
        """Ids of the steps that an exception passed, from where it was raised outwards."""
        return [step.id for step in reversed(self.steps) if step.error]

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as JSON values; times are seconds."""
        return {
            "method": self.method,
            "target": self.target,
            "status": self.status,
            "answered_by": self.answered_by,
            "raised_by": self.raised_by,
            "total": round(self.total, 9),
            "error": named_error(self.error) if self.error is not None else "",
            "root": self.root.to_dict(),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the trace as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def tree(self) -> Tree:
        """Return the trace as a tree for the terminal (rich)."""
        from lamella.stack.trace_view import tree

        return tree(self)

    def text(self) -> str:
        """Return the trace as plain text."""
        from lamella.stack.trace_view import text

        return text(self)

    def html(self) -> str:
        """Return the trace as a page that needs nothing else."""
        from lamella.stack.trace_view import html

        return html(self)

    def server_timing(self) -> str:
        """Return the layers' own times as the value of a ``Server-Timing`` header."""
        return server_timing(self.root)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Trace {self.method} {self.target}: {self.status or self.error!r}>"


def _environ_changes(before: dict[str, Any], after: WSGIEnvironment) -> list[Change]:
    """What a layer did to the environ, by key; private caches of the kernel are left out."""
    changes = []
    for key in sorted({*before, *after} - _PRIVATE, key=str):
        if key not in before:
            changes.append(Change("added", key, "", _shown(key, after[key])))
        elif key not in after:
            changes.append(Change("removed", key, _shown(key, before[key])))
        elif before[key] is not after[key] and not _equal(before[key], after[key]):
            changes.append(Change("changed", key, _shown(key, before[key]), _shown(key, after[key])))
    return changes


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (str, int, bool, bytes, tuple)) and bool(a == b)


def _shown(key: str, value: Any, limit: int = 80) -> str:
    """Show an environ value: text masked where its name or its contents are secret, objects by type."""
    if isinstance(value, str):
        if key in ("QUERY_STRING",):
            value = redact_query(value)
        elif key in ("HTTP_REFERER", "REQUEST_URI", "RAW_URI", "HTTP_X_FORWARDED_URI"):
            value = redact_url(value)
        elif is_secret(key.removeprefix("HTTP_")) and key != "AUTH_TYPE":
            return REDACTED
        text = repr(value)
    elif value is None or isinstance(value, (bool, int, float)):
        text = repr(value)
    elif isinstance(value, (Client, Identity)):
        text = repr(value)  # both show no secrets
    else:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shown_header(name: str, value: str, limit: int = 120) -> str:
    """Show a header value, masked."""
    lower = name.lower()
    if lower == "set-cookie":
        pair, semicolon, attributes = value.partition(";")
        value = f"{pair.partition('=')[0]}={REDACTED}{semicolon}{attributes}"
    elif lower in ("location", "content-location", "refresh"):
        value = redact_url(value)
    elif lower in ("content-security-policy", "content-security-policy-report-only"):
        value = _NONCE.sub(f"'nonce-{REDACTED}'", value)
    elif lower not in _PUBLIC and is_secret(name):
        value = REDACTED
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _header_changes(before: Sequence[tuple[str, str]], after: Sequence[tuple[str, str]]) -> list[Change]:
    """What a layer did to the headers of what it called, by name."""
    old, new = _by_name(before), _by_name(after)
    changes = []
    for lower in [*new, *(name for name in old if name not in new)]:
        name = (new.get(lower) or old[lower])[0][0]
        was = ", ".join(_shown_header(*pair) for pair in old.get(lower, ()))
        now = ", ".join(_shown_header(*pair) for pair in new.get(lower, ()))
        if lower not in old:
            changes.append(Change("added", name, "", now))
        elif lower not in new:
            changes.append(Change("removed", name, was))
        elif [value for _, value in old[lower]] != [value for _, value in new[lower]]:
            changes.append(Change("changed", name, was, now))
    return changes


def _by_name(headers: Sequence[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    fields: dict[str, list[tuple[str, str]]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append((name, value))
    return fields


def server_timing(root: Step) -> str:
    """``session;dur=0.123``: milliseconds, names as tokens."""
    return ", ".join(f"{step.id.replace('/', '.')};dur={step.own * 1e3:.3f}" for step in root.walk())


def named_error(error: BaseException) -> str:
    """Name an exception; its text is shown on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
