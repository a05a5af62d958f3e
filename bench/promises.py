"""What must hold, as ratios within one run; the page shows which do, and what was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from driver import Result, Results

__all__ = ["Verdict", "promises"]

Groups = Mapping[str, Results]
#: Microseconds are those of a machine on which a bare application takes so long, as in the budgets of a stack file.
BARE = 0.17


class Verdict(NamedTuple):
    """One line of the page; *holds* is None where the run did not measure it."""

    text: str
    measured: str
    holds: bool | None


class Promise(Protocol):
    """What one line promises."""

    @property
    def group(self) -> str:
        """The group that measures it."""
        ...

    def judge(self, groups: Groups) -> Verdict:
        """Compare it with what was found."""
        ...


def _cell(groups: Groups, group: str, row: str, column: str) -> Result | None:
    return groups.get(group, {}).get(row, {}).get(column)


def _bare(groups: Groups, group: str, column: str) -> float:
    """What the bare application takes in the same group; 0 where there is none."""
    cells = groups.get(group, {}).get("bare", {})
    found = cells.get(column) or next(iter(cells.values()), None)
    return found.median if found is not None else 0.0


def _clock(groups: Groups, group: str, column: str) -> float | None:
    """What the bare application takes in that very column; None where it is not in there."""
    found = _cell(groups, group, "bare", column) or _cell(groups, group, "bare application", column)
    return found.median if found is not None else None


def _holds(measured: float, comparison: str, bound: float) -> bool:
    return measured >= bound if comparison == ">=" else measured <= bound


_WORDS = {">=": "at least", "<=": "at most"}


class Ratio(NamedTuple):
    """*slow* takes at least (``>=``), or at most (``<=``), *bound* times as long as *fast*; of a layer, over bare.

    Of several in *slow*, separated by ``|``, the fastest counts. *memory* compares megabytes.
    """

    text: str
    group: str
    slow: tuple[str, str]
    fast: tuple[str, str]
    comparison: str
    bound: float
    memory: bool = False

    def judge(self, groups: Groups) -> Verdict:
        """Divide."""
        text = f"{self.text}, {_WORDS[self.comparison]} {self.bound:g} times"
        rows, column = self.slow
        peers = [found for row in rows.split("|") if (found := _cell(groups, self.group, row, column)) is not None]
        fast = _cell(groups, self.group, *self.fast)
        if not peers or fast is None:
            return Verdict(text, "not measured", None)
        # A layer alone is compared by what it adds: the bare application is in both.
        floor = 0.0 if self.memory else _bare(groups, self.group, column)
        above = min(peer.megabytes if self.memory else peer.median for peer in peers) - floor
        # What takes less than a page of memory takes one.
        below = max(fast.megabytes, 0.01) if self.memory else fast.median - _bare(groups, self.group, self.fast[1])
        before, after = _clock(groups, self.group, column), _clock(groups, self.group, self.fast[1])
        if column != self.fast[1] and before and after:  # columns are measured one after the other: by their own bare
            above, below = above / before, below / after
        ratio = above / below if below > 0 else float("inf")
        return Verdict(text, f"{ratio:.2f}", _holds(ratio, self.comparison, self.bound))


class OverBare(NamedTuple):
    """What a layer adds to the bare application, in microseconds of the reference machine; *share* of them all."""

    text: str
    group: str
    row: str
    column: str
    bound: float
    share: int = 1

    def judge(self, groups: Groups) -> Verdict:
        """Subtract, and scale."""
        text = f"{self.text}, at most {self.bound:g} µs over bare"
        found, bare = _cell(groups, self.group, self.row, self.column), _bare(groups, self.group, self.column)
        if found is None or not bare:
            return Verdict(text, "not measured", None)
        over = (found.median - bare) / self.share / bare * BARE
        return Verdict(text, f"{over:.2f} µs", _holds(over, "<=", self.bound))


class Most(NamedTuple):
    """A time or a size that is not exceeded."""

    text: str
    group: str
    row: str
    column: str
    bound: float
    unit: str

    def judge(self, groups: Groups) -> Verdict:
        """Look."""
        text = f"{self.text}, at most {self.bound:g} {self.unit}"
        found = _cell(groups, self.group, self.row, self.column)
        if found is None:
            return Verdict(text, "not measured", None)
        value = found.megabytes if self.unit == "MB" else found.median
        return Verdict(text, f"{value:.1f} {self.unit}", _holds(value, "<=", self.bound))


class Instructions(NamedTuple):
    """Instructions of one request, from ``instructions.json``: counted, not timed."""

    text: str
    group: str
    case: str
    bound: int

    def judge(self, groups: Groups) -> Verdict:
        """Look up what is stored for CPython 3.11."""
        text = f"{self.text}, at most {self.bound:,} instructions"
        stored = json.loads(Path(__file__).with_name("instructions.json").read_text())
        count = stored.get("3.11", {}).get("instructions", {}).get(self.case)
        return Verdict(text, f"{count:,}" if count else "not measured", count <= self.bound if count else None)


WEBOB = "lamella, view returns webob.Response"
TEXT = "lamella, view returns text"
FALCON = "Falcon + itsdangerous + urlmap"
FLASK = "Flask + flask-cors + flask-httpauth"


def _full() -> Iterator[Promise]:
    for column, falcon, flask, text, most in (
        ("untouched", 1.6, 15, 1.9, 130_000),
        ("read", 2.8, 13, 3, 180_000),
        ("write", 3.2, 13, 3.4, 225_000),
    ):
        what = f"full stack, session {column}"
        yield Ratio(f"{what}: Falcon", "full", (FALCON, column), (WEBOB, column), ">=", falcon)
        yield Ratio(f"{what}: Flask", "full", (FLASK, column), (WEBOB, column), ">=", flask)
        yield Ratio("the same, view returns text: Falcon", "full", (FALCON, column), (TEXT, column), ">=", text)
        yield Instructions(what, "full", f"full, {column}", most)


def _router() -> Iterator[Promise]:
    yield Ratio("parameter among 200 routes: Falcon", "router", ("Falcon", "200"), (WEBOB, "200"), ">=", 1.1)
    yield Ratio("parameter among 2,000 routes: Falcon", "router", ("Falcon", "2,000"), (WEBOB, "2,000"), ">=", 2.3)
    yield Ratio("10,000 routes: 10 routes", "router", (WEBOB, "10,000"), (WEBOB, "10"), "<=", 1.1)
    yield Ratio("404: Falcon", "refusal", ("Falcon", "404"), (WEBOB, "404"), ">=", 8)
    yield Ratio("405: Falcon", "refusal", ("Falcon", "405"), (WEBOB, "405"), ">=", 8)
    yield Most("10,000 routes built, and one answer", "building", WEBOB, "10,000", 100, "ms")


def _layers(groups: Groups) -> Iterator[Promise]:
    ours = "lamella"
    yield OverBare("session untouched", "session", ours, "untouched", 0.8)
    for column, bound, beaker in (("read", 3, 18), ("write", 3.5, 10)):
        peer = "itsdangerous, lazy, by hand"
        yield Ratio(f"session {column}: lazy itsdangerous", "session", (peer, column), (ours, column), ">=", bound)
        yield Ratio(f"session {column}: Beaker", "session", ("Beaker, cookie", column), (ours, column), ">=", beaker)
    for column in ("actual", "preflight"):
        yield Ratio(f"CORS, {column}: wsgicors", "cors", ("wsgicors", column), (ours, column), ">=", 2.2)
    yield Ratio("mount: Werkzeug", "mounts", ("Werkzeug", "1 mount"), (ours, "1 mount"), ">=", 1.2)
    yield Ratio("1,000 mounts: 1 mount", "mounts", (ours, "1000 mounts"), (ours, "1 mount"), "<=", 1.1)
    yield Ratio("access log: TransLogger", "log", ("Paste TransLogger", "to a file"), (ours, "to a file"), ">=", 3)
    for row in [name for name in groups.get("idle", {}) if name != "bare"] or ["every layer"]:
        yield OverBare(f"nothing to do: {row}", "idle", row, "hello", 0.3)
    yield OverBare("nothing to do: each of 30 layers out of scope", "scopes", ours, "30", 0.3, 30)
    headers = "lamella, adds a header"
    yield Ratio("30 layers that change headers: 15 layers", "layers", (headers, "30"), (headers, "15"), "<=", 2.1)


def _static() -> Iterator[Promise]:
    live, immutable, white = "lamella, live", "lamella, immutable", "WhiteNoise"
    refresh, many = "WhiteNoise, autorefresh", "100,000 files"
    yield Ratio("file, live: WhiteNoise", "static", (white, "hit"), (live, "hit"), ">=", 1.3)
    yield Ratio("file, immutable: WhiteNoise", "static", (white, "hit"), (immutable, "hit"), ">=", 6)
    yield Ratio("304, immutable: WhiteNoise", "static", (white, "304"), (immutable, "304"), ">=", 1.05)
    yield Ratio("range, immutable: WhiteNoise", "static", (white, "range"), (immutable, "range"), ">=", 4)
    yield Ratio("file, live: WhiteNoise with autorefresh", "static", (refresh, "hit"), (live, "hit"), ">=", 6)
    yield Ratio("miss: WhiteNoise", "miss", (white, "miss"), ("lamella", "miss"), ">=", 1.4)
    for mode, memory in (("time", False), ("memory", True)):
        text = f"{many}, immutable, {mode}: WhiteNoise"
        yield Ratio(text, "files", (white, many), (immutable, many), ">=", 1, memory)
    for bound, unit in ((5, "ms"), (5, "MB")):
        yield Most(f"{many}, live", "files", live, many, bound, unit)


def _startup() -> Iterator[Promise]:
    ours, column = "lamella, six layers from a stack file", "ms (MB)"
    yield Ratio("a fresh process: import webob", "startup", (ours, column), ("import webob", column), "<=", 1.7)
    yield Ratio("a fresh process: Flask", "startup", (FLASK, column), (ours, column), ">=", 1.4)


def _served() -> Iterator[Promise]:
    ours, bare, flask = "lamella", "bare application", "Flask"
    yield Ratio("granian, session read: bare", "served", (ours, "granian"), (bare, "granian"), "<=", 1.4)
    yield Ratio("granian, session read: Flask", "served", (flask, "granian"), (ours, "granian"), ">=", 7)
    yield Ratio("gunicorn, session read: bare", "served", (ours, "gunicorn"), (bare, "gunicorn"), "<=", 1.35)
    peers = "WhiteNoise|WebOb DirectoryApp|Werkzeug SharedData"
    for server in ("granian", "gunicorn", "waitress"):
        column = f"{server}, 10 MB"
        yield Ratio(f"10 MB, {server}: the best peer", "served-files", (peers, column), (ours, column), ">=", 0.9)
    column = "granian, 10 MB"
    yield Ratio(
        "10 MB, granian (no file wrapper): WhiteNoise", "served-files", ("WhiteNoise", column), (ours, column), ">=", 3
    )
    yield Most("1 KB on a connection that uWSGI keeps", "keep-alive", ours, "1 KB", 10, "ms")


def promises(groups: Groups, everything: bool = False) -> list[Verdict]:
    """Judge what this run measured.

    Args:
        groups: The results by group.
        everything: Also name what it did not measure.
    """
    found = []
    for promise in (*_full(), *_router(), *_layers(groups), *_static(), *_startup(), *_served()):
        verdict = promise.judge(groups)
        if everything or (promise.group in groups and verdict.holds is not None):
            found.append(verdict)
    return found
