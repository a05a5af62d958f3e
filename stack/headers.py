"""Which layer sets which header on which kind of answer: the matrix of ``lamella headers``.

The app of the stack is replaced by one that gives each kind of answer in turn; what the layers
make of it is compared, so that a change of the stack shows in a diff of two matrices.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

    from lamella.stack.build import Stack
    from lamella.stack.trace import Trace

__all__ = ["CASES", "Case", "Matrix", "header_matrix"]

_TEXT = ("Content-Type", "text/plain; charset=utf-8")


class Case(NamedTuple):
    """One kind of answer."""

    #: Heading of its column.
    name: str
    #: The request method.
    method: str = "GET"
    #: The status line of the app.
    status: str = "200 OK"
    #: Its headers.
    headers: tuple[tuple[str, str], ...] = (_TEXT, ("Content-Length", "5"))
    #: Its body.
    blocks: tuple[bytes, ...] = (b"hello",)
    #: Raise instead.
    raises: bool = False


#: The kinds of answers that are tried, in the order of the columns.
CASES = (
    Case("200"),
    Case("204", "DELETE", "204 No Content", (), ()),
    Case("304", "GET", "304 Not Modified", (("ETag", '"a"'),), ()),
    Case("404", "GET", "404 Not Found"),
    Case("405", "PUT", "405 Method Not Allowed", (_TEXT, ("Allow", "GET, HEAD"), ("Content-Length", "5"))),
    Case("500", raises=True),
    Case("redirect", "GET", "302 Found", (_TEXT, ("Location", "/there"), ("Content-Length", "0")), ()),
    Case("HEAD", "HEAD", blocks=()),
    Case("OPTIONS", "OPTIONS", "204 No Content", (("Allow", "GET, HEAD, OPTIONS"),), ()),
    Case("static", "GET", "200 OK", (
        ("Content-Type", "text/css"), ("ETag", '"a"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("Cache-Control", "public, max-age=3600"), ("Content-Length", "5"))),
    Case("range", "GET", "206 Partial Content", (
        ("Content-Type", "text/css"), ("ETag", '"a"'), ("Content-Range", "bytes 0-4/10"), ("Content-Length", "5"))),
    Case("stream", "GET", "200 OK", (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")), (
        b"data: 1\n\n", b"data: 2\n\n")),
)  # fmt: skip


class Matrix:
    """Layers and headers against kinds of answers.

    Attributes:
        cases: Names of the columns.
        cells: By layer and header: one mark for each column: ``+`` set, ``~`` changed, ``-`` removed,
            empty where the layer left it alone.
        statuses: What the server got, by column: the status code, or ``!`` for an exception.
    """

    def __init__(self, traces: Iterable[tuple[Case, Trace]]) -> None:
        made = list(traces)
        self.cases = [case.name for case, _ in made]
        self.statuses = {case.name: traced.status[:3] or "!" for case, traced in made}
        self.cells: dict[tuple[str, str], list[str]] = {}
        for at, (_, traced) in enumerate(made):
            for step in traced.walk():
                for change in step.header_changes:
                    row = self.cells.setdefault((step.id, change.name.lower()), [""] * len(made))
                    row[at] = {"added": "+", "changed": "~", "removed": "-"}[change.kind]

    def rows(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield layer, header and marks, in an order that does not depend on the answers."""
        for (layer, header), marks in sorted(self.cells.items()):
            yield layer, header, marks

    def to_dict(self) -> dict[str, Any]:
        """Return the matrix as JSON values."""
        rows = [
            {"layer": layer, "header": header, "cases": {c: m for c, m in zip(self.cases, marks, strict=True) if m}}
            for layer, header, marks in self.rows()
        ]
        return {"cases": self.cases, "statuses": self.statuses, "rows": rows}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the matrix as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def table(self) -> Table:
        """Return the matrix as a table for the terminal (rich)."""
        from rich.table import Table
        from rich.text import Text

        table = Table("layer", "header", *self.cases, pad_edge=False)
        table.add_row("", "status", *(self.statuses[name] for name in self.cases))
        for layer, header, marks in self.rows():
            table.add_row(Text(layer), Text(header), *(Text(mark) for mark in marks))
        return table

    def text(self) -> str:
        """Return the matrix as plain text, one line a row, for a diff."""
        lines = ["\t".join(["layer", "header", *self.cases])]
        lines.append("\t".join(["", "status", *(self.statuses[name] for name in self.cases)]))
        lines += ["\t".join([layer, header, *(mark or "." for mark in marks)]) for layer, header, marks in self.rows()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def header_matrix(stack: Stack, *, path: str = "/", headers: dict[str, str] | None = None) -> Matrix:
    """Try every kind of answer on *stack*, with its app replaced.

    Args:
        stack: The stack.
        path: Request target that reaches the app.
        headers: Request headers, as for :func:`lamella.stack.testing.environ`.
    """
    from lamella.stack.testing import environ
    from lamella.stack.trace import trace

    def traces() -> Iterator[tuple[Case, Trace]]:
        for case in CASES:
            request = environ(case.method, path, **(headers or {}))  # type: ignore[arg-type]
            yield case, trace(stack.with_app(_answers(case)), request)

    return Matrix(traces())


def _answers(case: Case) -> Any:
    """An app that gives one kind of answer."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if case.raises:
            raise RuntimeError("raised on purpose, to see what becomes of it")
        start_response(case.status, list(case.headers))
        return iter(case.blocks) if case.name == "stream" else list(case.blocks)

    return app
