"""What must hold, as ratios within one run; the page shows which do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from driver import Results


class Promise(NamedTuple):
    """*slow* takes at least (``>=``), or at most (``<=``), *bound* times as long as *fast*; of a layer, over bare."""

    text: str
    group: str
    slow: tuple[str, str]
    fast: tuple[str, str]
    comparison: str
    bound: float


WEBOB = "lamella, view returns webob.Response"
TEXT = "lamella, view returns text"
FALCON = "Falcon + itsdangerous + urlmap"
FLASK = "Flask + flask-cors + flask-httpauth"


def _full() -> Iterator[Promise]:
    for column, falcon, flask, text in (("untouched", 1.6, 15, 1.9), ("read", 2.8, 13, 3), ("write", 3.2, 13, 3.4)):
        yield Promise(f"full stack, session {column}: Falcon", "full", (FALCON, column), (WEBOB, column), ">=", falcon)
        yield Promise(f"full stack, session {column}: Flask", "full", (FLASK, column), (WEBOB, column), ">=", flask)
        yield Promise("the same, view returns text: Falcon", "full", (FALCON, column), (TEXT, column), ">=", text)


def _router() -> Iterator[Promise]:
    yield Promise("parameter among 200 routes: Falcon", "router", ("Falcon", "200"), (WEBOB, "200"), ">=", 1.1)
    yield Promise("parameter among 2,000 routes: Falcon", "router", ("Falcon", "2,000"), (WEBOB, "2,000"), ">=", 2.3)
    yield Promise("10,000 routes: 10 routes", "router", (WEBOB, "10,000"), (WEBOB, "10"), "<=", 1.1)
    yield Promise("404: Falcon", "refusal", ("Falcon", "404"), (WEBOB, "404"), ">=", 8)
    yield Promise("405: Falcon", "refusal", ("Falcon", "405"), (WEBOB, "405"), ">=", 8)


def _layers() -> Iterator[Promise]:
    ours = "lamella"
    for column, bound, beaker in (("read", 3, 18), ("write", 3.5, 10)):
        peer = "itsdangerous, lazy, by hand"
        yield Promise(f"session {column}: lazy itsdangerous", "session", (peer, column), (ours, column), ">=", bound)
        yield Promise(f"session {column}: Beaker", "session", ("Beaker, cookie", column), (ours, column), ">=", beaker)
    for column in ("actual", "preflight"):
        yield Promise(f"CORS, {column}: wsgicors", "cors", ("wsgicors", column), (ours, column), ">=", 2.2)
    yield Promise("mount: Werkzeug", "mounts", ("Werkzeug", "1 mount"), (ours, "1 mount"), ">=", 1.2)
    yield Promise("1,000 mounts: 1 mount", "mounts", (ours, "1000 mounts"), (ours, "1 mount"), "<=", 1.1)
    yield Promise("access log: TransLogger", "log", ("Paste TransLogger", "to a file"), (ours, "to a file"), ">=", 3)
    headers = "lamella, adds a header"
    yield Promise("40 layers that change headers: 20 layers", "layers", (headers, "40"), (headers, "20"), "<=", 2.1)


def _static() -> Iterator[Promise]:
    live, immutable, white = "lamella, live", "lamella, immutable", "WhiteNoise"
    refresh = "WhiteNoise, autorefresh"
    yield Promise("file, live: WhiteNoise", "static", (white, "hit"), (live, "hit"), ">=", 1.3)
    yield Promise("file, immutable: WhiteNoise", "static", (white, "hit"), (immutable, "hit"), ">=", 6)
    yield Promise("304, immutable: WhiteNoise", "static", (white, "304"), (immutable, "304"), ">=", 1.05)
    yield Promise("range, immutable: WhiteNoise", "static", (white, "range"), (immutable, "range"), ">=", 4)
    yield Promise("file, live: WhiteNoise with autorefresh", "static", (refresh, "hit"), (live, "hit"), ">=", 6)
    yield Promise("miss: WhiteNoise", "miss", (white, "miss"), ("lamella", "miss"), ">=", 1.4)
    yield Promise(
        "100,000 files, immutable: WhiteNoise", "files", (white, "100,000 files"), (immutable, "100,000 files"), ">=", 1
    )


def _startup() -> Iterator[Promise]:
    ours, column = "lamella, six layers from a stack file", "ms (MB)"
    yield Promise("a fresh process: import webob", "startup", (ours, column), ("import webob", column), "<=", 1.7)
    yield Promise("a fresh process: Flask", "startup", (FLASK, column), (ours, column), ">=", 1.4)


def _served() -> Iterator[Promise]:
    ours, bare, flask = "lamella", "bare application", "Flask"
    yield Promise("granian, session read: bare", "served", (ours, "granian"), (bare, "granian"), "<=", 1.4)
    yield Promise("granian, session read: Flask", "served", (flask, "granian"), (ours, "granian"), ">=", 7)
    yield Promise("gunicorn, session read: bare", "served", (ours, "gunicorn"), (bare, "gunicorn"), "<=", 1.35)


def promises(groups: dict[str, Results]) -> list[tuple[str, str, bool]]:
    """Return text, measured value and verdict of what this run can tell."""
    found = []
    for promise in (*_full(), *_router(), *_layers(), *_static(), *_startup(), *_served()):
        results = groups.get(promise.group, {})
        slow = results.get(promise.slow[0], {}).get(promise.slow[1])
        fast = results.get(promise.fast[0], {}).get(promise.fast[1])
        if slow is None or fast is None or not fast.median:
            continue
        # A layer alone is compared by what it adds: the bare application is in both.
        bare = results.get("bare", {}).get(promise.slow[1]) or next(iter(results.get("bare", {}).values()), None)
        floor = bare.median if bare is not None else 0.0
        ratio = (slow.median - floor) / (fast.median - floor)
        holds = ratio >= promise.bound if promise.comparison == ">=" else ratio <= promise.bound
        sign = "at least" if promise.comparison == ">=" else "at most"
        found.append((f"{promise.text}, {sign} {promise.bound:g} times", f"{ratio:.2f}", holds))
    for column, bound in (("untouched", 0.8),):
        results = groups.get("session", {})
        if "lamella" in results:
            over = results["lamella"][column].median - results["bare"][column].median
            found.append((f"session {column}, over bare, at most {bound} µs", f"{over:.2f} µs", over <= bound))
    for column, bound in (("ms", 5.0), ("MB", 5.0)):
        result = groups.get("files", {}).get("lamella, live", {}).get("100,000 files")
        if result is not None:
            value = result.median if column == "ms" else result.megabytes
            found.append((f"100,000 files, live: at most {bound:g} {column}", f"{value:.1f} {column}", value <= bound))
    return found
