"""The statements of a stack file beside its layers: expectations, silences, descriptions, budgets.

They are read and checked here; ``lamella check`` uses them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lamella.stack.document import Document, shown
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_field_value, is_token
from lamella.stack.kernel.options import duration
from lamella.stack.kernel.order import Inside, OrderRule, Outside
from lamella.stack.problems import did_you_mean
from lamella.stack.scanner import Path

__all__ = [
    "Description",
    "Expectation",
    "Silence",
    "check_ids",
    "read_budget",
    "read_describe",
    "read_expects",
    "read_silences",
]

_REQUEST = re.compile(r"([!#$%&'*+.^_`|~0-9A-Z-]+) ((?:https?://[^/\s]+)?/\S*|\*)")
_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")
_RULE = re.compile(r"[A-Z][0-9]{3}")


class _Statement:
    """One table of a stack file, and where it stands.

    Args:
        file: The stack file.
        line: Counted from 1.
        column: Counted from 1.
    """

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str, line: int, column: int) -> None:
        self.file = file
        self.line = line
        self.column = column


class Expectation(_Statement):
    """One ``[[expect]]``: a request, and what must hold of its answer."""

    __slots__ = (
        "absent", "body", "contains", "header", "headers", "json", "method", "name", "present", "status", "target",
    )  # fmt: skip

    #: Shown instead of the request, where given.
    name: str
    method: str
    #: Path and query, or a whole URL.
    target: str
    #: Header fields of the request.
    headers: Mapping[str, str]
    #: Content of the request.
    body: str
    #: Codes or classes (``"2xx"``) of which the answer has one; empty for any below 500.
    status: tuple[str, ...]
    #: Header fields that the answer has.
    present: tuple[str, ...]
    #: Header fields that the answer lacks.
    absent: tuple[str, ...]
    #: Header fields of the answer, with their values.
    header: Mapping[str, str]
    #: Pieces of text in the answer's content.
    contains: tuple[str, ...]
    #: What the content is as JSON; ``...`` where nothing is said of it.
    json: Any


_EXPECT_KEYS = (
    "request", "name", "headers", "body", "status", "present", "absent", "header", "contains", "json",
)  # fmt: skip


class Silence(_Statement):
    """One ``[[silence]]``: an order rule that does not apply to a layer, and why."""

    __slots__ = ("layer", "reason", "rule")

    #: Code of the rule.
    rule: str
    #: Id of the layer; empty for all.
    layer: str
    reason: str


class Description(_Statement):
    """One ``[describe."use"]``: what a third-party layer would say of itself as a class of ours does."""

    __slots__ = ("order", "provides", "requires", "streams")

    provides: tuple[str, ...]
    requires: tuple[str, ...]
    order: tuple[OrderRule, ...]
    #: True, a number of bytes it may hold back, or None where nothing is said.
    streams: bool | int | None


def read_expects(document: Document, value: Any) -> list[Expectation]:
    """Read every ``[[expect]]``; what is wrong is noted in the document."""
    return [_expect(document, ("expect", i), table) for i, table in enumerate(document.tables(("expect",), value))]


def _expect(document: Document, path: Path, table: dict[str, Any]) -> Expectation:
    document.known_keys(path, table, _EXPECT_KEYS, "[[expect]]")
    made = Expectation(document.file, *document.key(path))
    made.name = document.text((*path, "name"), table["name"]) if "name" in table else ""
    made.method, made.target = "GET", "/"
    if "request" not in table:
        document.refuse_key(path, '[[expect]] needs `request`, such as "GET /"')
    else:
        request = table["request"]
        found = _REQUEST.fullmatch(request) if isinstance(request, str) else None
        if found is None:
            document.refuse((*path, "request"), f'expected a method and a path such as "GET /", not {shown(request)}')
        else:
            made.method, made.target = found[1], found[2]
    made.headers = _fields(document, (*path, "headers"), table.get("headers", {}))
    made.header = _fields(document, (*path, "header"), table.get("header", {}))
    made.body = ""
    if "body" in table:
        if isinstance(table["body"], str):
            made.body = table["body"]
        else:
            document.refuse((*path, "body"), f"expected text, not {shown(table['body'])}")
    made.status = _status(document, (*path, "status"), table["status"]) if "status" in table else ()
    made.present = _field_names(document, (*path, "present"), table.get("present", []))
    made.absent = _field_names(document, (*path, "absent"), table.get("absent", []))
    contains = table.get("contains", [])
    if isinstance(contains, str):
        contains = [contains]
    if not isinstance(contains, list) or not all(isinstance(item, str) and item for item in contains):
        document.refuse((*path, "contains"), f"expected text or a list of text, not {shown(contains)}")
        contains = []
    made.contains = tuple(contains)
    made.json = table.get("json", ...)
    return made


def _fields(document: Document, path: Path, value: Any) -> dict[str, str]:
    """Header fields with their values."""
    fields = {}
    for name, text in document.table(path, value).items():
        if not is_token(name):
            document.refuse_key((*path, name), f"`{name}` is no header name")
        elif not isinstance(text, str) or not is_field_value(text):
            document.refuse((*path, name), f"expected the text of a header, not {shown(text)}")
        else:
            fields[name] = text
    return fields


def _field_names(document: Document, path: Path, value: Any) -> tuple[str, ...]:
    names = document.texts(path, value, "a list of header names")
    for name in names:
        if not is_token(name):
            document.refuse((*path, value.index(name)), f"`{name}` is no header name")
    return tuple(names)


def _status(document: Document, path: Path, value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    codes = [str(item).lower() for item in items if isinstance(item, (int, str)) and not isinstance(item, bool)]
    if not items or len(codes) != len(items) or not all(_STATUS.fullmatch(code) for code in codes):
        document.refuse(path, f'expected a status such as 200 or "2xx", or a list of them, not {shown(value)}')
        return ()
    return tuple(codes)


def read_silences(document: Document, value: Any) -> list[Silence]:
    """Read every ``[[silence]]``; what is wrong is noted in the document."""
    made = []
    for i, table in enumerate(document.tables(("silence",), value)):
        path: Path = ("silence", i)
        document.known_keys(path, table, ("rule", "layer", "reason"), "[[silence]]")
        silence = Silence(document.file, *document.key(path))
        silence.rule = silence.layer = silence.reason = ""
        for name in ("rule", "reason"):
            if name not in table:
                document.refuse_key(path, f"[[silence]] needs `{name}`")
        if "rule" in table:
            silence.rule = document.text((*path, "rule"), table["rule"], "the code of a rule")
            if silence.rule and _RULE.fullmatch(silence.rule) is None:
                message = f'expected the code of a rule such as "L104", not {shown(silence.rule)}'
                document.refuse((*path, "rule"), message)
        if "reason" in table:
            silence.reason = document.text((*path, "reason"), table["reason"], "a reason, in words")
        if "layer" in table:
            silence.layer = document.text((*path, "layer"), table["layer"], "the id of a layer")
        made.append(silence)
    return made


def read_describe(document: Document, value: Any) -> dict[str, Description]:
    """Read ``[describe."use"]``; what is wrong is noted in the document."""
    made = {}
    for use, inner in document.table(("describe",), value).items():
        path: Path = ("describe", use)
        table = document.table(path, inner)
        document.known_keys(path, table, ("provides", "requires", "order", "streams"), f'[describe."{use}"]')
        found = made[use] = Description(document.file, *document.key(path))
        found.provides = tuple(document.texts((*path, "provides"), table.get("provides", [])))
        found.requires = tuple(document.texts((*path, "requires"), table.get("requires", [])))
        rules = enumerate(document.tables((*path, "order"), table.get("order", [])))
        found.order = tuple(rule for i, one in rules if (rule := _rule(document, (*path, "order", i), one)) is not None)
        found.streams = table.get("streams")
        if found.streams is not None and (not isinstance(found.streams, int) or found.streams < 0):
            document.refuse((*path, "streams"), f"expected true or a number of bytes, not {shown(found.streams)}")
            found.streams = None
    return made


def _rule(document: Document, path: Path, table: dict[str, Any]) -> OrderRule | None:
    """``{ inside = "session", why = "…" }``."""
    document.known_keys(path, table, ("inside", "outside", "code", "why"), "an order rule")
    places = [name for name in ("inside", "outside") if name in table]
    if len(places) != 1:
        document.refuse_key(path, "an order rule needs one of `inside` and `outside`")
        return None
    texts = {name: document.text((*path, name), table[name]) for name in (*places, "code", "why") if name in table}
    kind: type[Inside] | type[Outside] = Inside if places == ["inside"] else Outside
    return kind(texts[places[0]], texts.get("code", ""), texts.get("why", ""))


def read_budget(document: Document, value: Any) -> dict[str, float]:
    """Read ``[budget]``: the id of a layer, and how long it may take."""
    made = {}
    for name, text in document.table(("budget",), value).items():
        try:
            made[name] = duration("budget", text)
        except ConfigError:
            document.refuse(("budget", name), f'expected a duration such as "5us", not {shown(text)}')
    return made


def check_ids(document: Document, known: list[str]) -> None:
    """Refuse silences and budgets for layers that do not exist."""
    silences = document.data.get("silence")
    for i, table in enumerate(silences if isinstance(silences, list) else ()):
        if isinstance(table, dict) and isinstance(table.get("layer"), str) and table["layer"] not in known:
            document.refuse(("silence", i, "layer"), _no_layer(table["layer"], known))
    budget = document.data.get("budget")
    for name in budget if isinstance(budget, dict) else ():
        if name not in known:
            document.refuse_key(("budget", name), _no_layer(name, known))


def _no_layer(name: str, known: list[str]) -> str:
    return f"no layer has the id `{name}`{did_you_mean(name, known)}"
