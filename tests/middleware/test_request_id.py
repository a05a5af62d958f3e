"""RequestIdMiddleware: who chooses the identifier, and where it appears."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import types
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware._identifiers import pooled, snowflake, uuid4, uuid7
from lamella.middleware._trace_context import begin_trace, continue_trace, parse_tracestate
from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import REQUEST_ID, TRACE, record
from lamella.stack.testing import RecordingApp, call, environ, lint

GENERATED = "generated-identifier"
#: Where the packages are found, for a process of its own.
PATH = os.pathsep.join(path for path in sys.path if path)
SENT = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("generator", lambda: GENERATED)
    return lint(RequestIdMiddleware(lint(app), **options))


def test_generates_an_identifier_when_the_client_sent_none() -> None:
    """Inside and on the answer stands the same new identifier."""
    app = RecordingApp()

    response = call(layer(app), environ("GET", "/"))

    assert response.header("X-Request-ID") == GENERATED
    assert REQUEST_ID.require(app.environ) == GENERATED


def test_ignores_the_client_unless_told_to_trust_it() -> None:
    """What the client calls the request means nothing by default."""
    response = call(layer(RecordingApp()), environ("GET", "/", x_request_id=SENT))

    assert response.header("X-Request-ID") == GENERATED


def test_keeps_a_well_formed_identifier_of_a_trusted_client() -> None:
    """Behind a proxy that names requests, the name is kept."""
    response = call(layer(RecordingApp(), trust_client=True), environ("GET", "/", x_request_id=SENT))

    assert response.header("X-Request-ID") == SENT


@pytest.mark.parametrize("sent", ["short", "x" * 201, "sixteen characters", "a" * 20 + "\x00", "ünïcode-identifier"])
def test_replaces_an_ill_formed_identifier(sent: str) -> None:
    """Too short, too long, or unsafe in a log: as if none was sent."""
    app = RequestIdMiddleware(RecordingApp(), trust_client=True, generator=lambda: GENERATED)

    response = call(app, environ("GET", "/", x_request_id=sent))

    assert response.header("X-Request-ID") == GENERATED


def test_refuses_a_bad_header_name() -> None:
    """A configuration error is told when the stack is built."""
    with pytest.raises(ConfigError, match="header: expected a header name"):
        RequestIdMiddleware(RecordingApp(), header="X Request")


def test_the_app_reads_the_same_header() -> None:
    """An app that looks at the header itself finds our identifier; the client's is kept aside."""
    app = RecordingApp()

    call(layer(app), environ("GET", "/", x_request_id=SENT))

    assert app.environ["HTTP_X_REQUEST_ID"] == GENERATED
    assert app.environ["lamella.request_id.original"] == {"HTTP_X_REQUEST_ID": SENT}


def test_the_answer_has_one_identifier() -> None:
    """One that the app set itself is replaced, in any spelling, and never doubled."""
    app = RecordingApp(headers=[("x-request-id", "mine"), ("TraceParent", "mine"), ("Content-Type", "text/x")])

    response = call(layer(app), environ("GET", "/"))

    assert response.header_list("X-Request-ID") == [GENERATED]
    assert len(response.header_list("traceparent")) == 1
    assert response.header("Content-Type") == "text/x"


def test_keeps_what_a_layer_outside_set() -> None:
    """Two of them, as in a stack within a stack, agree."""
    app = RecordingApp()

    outer = RequestIdMiddleware(RequestIdMiddleware(app), generator=lambda: GENERATED)
    response = call(outer, environ("GET", "/"))

    assert REQUEST_ID.require(app.environ) == GENERATED
    assert response.header_list("X-Request-ID") == [GENERATED]
    assert response.header_list("traceparent") == [TRACE.require(app.environ).traceparent]


def test_no_hostile_header_gets_through(corpus: Any) -> None:
    """Whatever a trusted client sends, the answer has one clean identifier, and the app reads the same."""
    for text in corpus("header_injection")["cases"]:
        app = RecordingApp()
        request = {**environ("GET", "/"), "HTTP_X_REQUEST_ID": text, "HTTP_TRACEPARENT": text, "HTTP_TRACESTATE": text}

        response = call(RequestIdMiddleware(app, trust_client=True), request)

        value = response.header("X-Request-ID") or ""
        assert re.fullmatch(r"[A-Za-z0-9._~+/=:-]{16,200}", value)
        assert app.environ["HTTP_X_REQUEST_ID"] == value
        assert "HTTP_TRACESTATE" not in app.environ


def test_tells_a_layer_outside_that_keeps_a_record() -> None:
    """A log outside knows identifier and trace, though the app may clear the environ."""
    request = environ("GET", "/")
    kept = record(request)

    response = call(RequestIdMiddleware(RecordingApp()), request)

    assert kept[REQUEST_ID.name] == response.header("X-Request-ID")
    assert kept[TRACE.name].traceparent == response.header("traceparent")


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("sent", ["X_REQUEST_ID", "TRACEPARENT", "TRACESTATE"])
def test_one_header_sent_makes_nothing_else_stale(trust: bool, sent: str) -> None:
    """Identifier and trace are there, alike inside and on the answer, whichever of the headers a client sends alone."""
    app = RecordingApp()
    value = {"X_REQUEST_ID": SENT, "TRACEPARENT": PARENT, "TRACESTATE": "a=b"}[sent]

    response = call(lint(RequestIdMiddleware(app, trust_client=trust)), {**environ("GET", "/"), f"HTTP_{sent}": value})

    assert response.header("X-Request-ID") == REQUEST_ID.get(app.environ) == app.environ["HTTP_X_REQUEST_ID"]
    assert response.header("traceparent") == TRACE.require(app.environ).traceparent == app.environ["HTTP_TRACEPARENT"]
    assert (response.header("X-Request-ID") == SENT) == (trust and sent == "X_REQUEST_ID")
    assert (PARENT[3:35] in str(response.header("traceparent"))) == (trust and sent == "TRACEPARENT")
    assert "HTTP_TRACESTATE" not in app.environ


# --- generators -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "version"), [("uuid4", 4), ("uuid7", 7)])
def test_generates_uuids(name: str, version: int) -> None:
    """Canonical, of the right version and variant, never twice."""
    app = RequestIdMiddleware(RecordingApp(), generator=name)
    made = {call(app, environ("GET", "/")).header("X-Request-ID") or "" for _ in range(500)}

    assert len(made) == 500
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, version, uuid.RFC_4122)


@pytest.mark.parametrize("make", [uuid7, snowflake])
def test_identifiers_by_time_sort_by_time(make: Any) -> None:
    """Also within a millisecond, and where the clock is set back."""
    clock = [1_700_000_000.0]
    generate = make(lambda: clock[0])
    made = []
    for step in (0.0, 0.0005, 1.0, -3600.0):
        clock[0] += step
        made += [generate() for _ in range(5000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_the_time_is_in_the_identifier() -> None:
    """A UUID of version 7 begins with the milliseconds; a snowflake counts them from Twitter's epoch."""
    assert int(uuid7(lambda: 1_700_000_000.123)().replace("-", "")[:12], 16) == 1_700_000_000_123
    assert (int(snowflake(lambda: 1_700_000_000.123)()) >> 22) + 1288834974657 == 1_700_000_000_123
    assert len(snowflake(time.time)()) == 19


@pytest.mark.parametrize("generate", [uuid4, uuid7(), snowflake(), lambda: begin_trace()[1]])
def test_threads_never_get_the_same_identifier(generate: Any) -> None:
    """Four threads, two thousand each."""
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([generate() for _ in range(2000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == len(made) == 8000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_draws_its_own_number() -> None:
    """Snowflakes of two processes differ in the process's ten bits, but for one chance in a thousand each."""
    generate = snowflake()
    mine = int(generate()) >> 12 & 0x3FF
    others = set()
    for _ in range(4):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover  (measured in the parent only)
            os.write(writer, generate().encode())
            os._exit(0)
        os.waitpid(child, 0)
        others.add(int(os.read(reader, 32)) >> 12 & 0x3FF)
        os.close(reader)
        os.close(writer)

    assert others != {mine}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("generate", [uuid4, lambda: begin_trace()[1]])
def test_a_forked_worker_shares_no_pool(generate: Any) -> None:
    """Identifiers are made many at a time; what is left of them in the parent is never handed out by a child."""
    made = {generate()}
    for _ in range(3):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover  (measured in the parent only)
            os.write(writer, "\n".join(generate() for _ in range(20)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        made.update(os.read(reader, 4096).decode().split("\n"))
        os.close(reader)
        os.close(writer)
    made.update(generate() for _ in range(300))

    assert len(made) == 1 + 3 * 20 + 300


def test_nothing_is_pooled_under_uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """It forks without telling Python, so that every worker would begin with the same identifiers."""
    asked: list[int] = []

    def make(count: int) -> list[int]:
        asked.append(count)
        return list(range(count))

    take = pooled(make)
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    for _ in range(3):
        take()
    assert asked == [1, 1, 1]

    monkeypatch.delitem(sys.modules, "uwsgi")
    drawn = {take() for _ in range(200)}
    assert asked[3:] == [256]
    assert len(drawn) == 200


UWSGI_APP = f"""
import sys
sys.path[:0] = {PATH.split(os.pathsep)!r}
from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack.testing import call, environ
def app(request, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(request["lamella.request_id"] + " " + request["lamella.trace"].trace_id).encode()]
application = RequestIdMiddleware(app)
call(application, environ("GET", "/"))  # a request before the fork: what a pool is filled at
"""


@pytest.mark.server
def test_the_workers_of_uwsgi_share_nothing(services: Any, tmp_path: Path) -> None:
    """They are forked by the master, which has served a request while the app was loaded."""
    program = services.program("uwsgi", str(Path(sys.executable).parent))
    (tmp_path / "app.py").write_text(UWSGI_APP)
    port = services.free_port()
    command = [
        program,
        "--http-socket",
        f"127.0.0.1:{port}",
        "--master",
        "--processes",
        "3",
        "--need-app",
        "--die-on-term",
    ]
    command += ["--wsgi-file", str(tmp_path / "app.py")]
    made: list[str] = []

    def ask(_: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            made.extend(answer.read().decode().split())

    with services.running(command, port), ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))

    assert len(set(made)) == len(made) == 80


def test_greenlets_never_get_the_same_identifier() -> None:
    """Also where they give way to each other between any two of them."""
    pytest.importorskip("gevent")
    program = """
from gevent import joinall, monkey, sleep, spawn
monkey.patch_all()
from lamella.middleware._identifiers import uuid4
from lamella.middleware._trace_context import begin_trace
made = []
def work():
    for _ in range(40):
        made.append(uuid4()); sleep(0); made.append(begin_trace()[1]); sleep(0)
joinall([spawn(work) for _ in range(25)])
print(len(made), len(set(made)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": PATH},
    )

    assert done.stdout.split() == ["2000", "2000"]


@pytest.mark.parametrize("made", ["a\r\nX-Evil: 1", "", "ü", "a b", 3, None])
def test_refuses_what_a_bad_generator_makes(made: Any) -> None:
    """A callable of the user's own cannot put a line break into a header."""
    with pytest.raises(ValueError, match="generator of request_id"):
        call(RequestIdMiddleware(RecordingApp(), generator=lambda: made), environ("GET", "/"))


def test_imports_a_generator_by_reference() -> None:
    """As a stack file names it."""
    app = RequestIdMiddleware(RecordingApp(), generator="secrets:token_urlsafe")

    assert len(call(app, environ("GET", "/")).header("X-Request-ID") or "") == 43


@pytest.mark.parametrize("options", [{"generator": "uuid5"}, {"generator": 3}, {"header": "traceparent"}])
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When the stack is built."""
    with pytest.raises(ConfigError):
        RequestIdMiddleware(RecordingApp(), **options)


# --- trace context --------------------------------------------------------------------------------

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_continues_the_trace_of_a_trusted_client() -> None:
    """The same trace, a new span; the app and the answer have the new header, the state is handed on."""
    app = RecordingApp()

    request = environ("GET", "/", traceparent=PARENT, tracestate="congo=t61rcWkgMzE , rojo=00f0")
    response = call(layer(app, trust_client=True), request)

    trace = TRACE.require(app.environ)
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (PARENT[3:35], PARENT[36:52], True)
    assert trace.span_id != trace.parent_id
    assert app.environ["HTTP_TRACEPARENT"] == response.header("traceparent") == trace.traceparent
    assert app.environ["HTTP_TRACESTATE"] == "congo=t61rcWkgMzE,rojo=00f0"
    assert app.environ["lamella.request_id.original"]["HTTP_TRACEPARENT"] == PARENT


def test_begins_a_trace_where_the_client_is_not_trusted() -> None:
    """Nothing of a stranger's trace remains, its state neither."""
    app = RecordingApp()

    call(layer(app), environ("GET", "/", traceparent=PARENT, tracestate="a=b"))

    trace = TRACE.require(app.environ)
    assert trace.trace_id != PARENT[3:35]
    assert trace.parent_id == ""
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", app.environ["HTTP_TRACEPARENT"])
    assert "HTTP_TRACESTATE" not in app.environ


def test_no_trace_where_none_is_wanted() -> None:
    """With ``trace_context=False`` the headers are the app's own business."""
    app = RecordingApp()

    response = call(layer(app, trace_context=False), environ("GET", "/", traceparent=PARENT))

    assert app.environ["HTTP_TRACEPARENT"] == PARENT
    assert response.header("traceparent") is None
    assert TRACE.get(app.environ) is None


@pytest.mark.parametrize(
    "sent",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-more",
        "ff" + PARENT[2:],
        "0" + PARENT[2:],
        PARENT.replace("-", "_"),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        f"{PARENT},{PARENT}",
        f" {PARENT}",
        f"{PARENT}\n",
        "01" + PARENT[2:] + ".more",
    ],
)
def test_refuses_an_invalid_traceparent(sent: str) -> None:
    """As the specification has it; the request begins a trace of its own."""
    assert continue_trace(sent) is None

    app = RecordingApp()
    call(RequestIdMiddleware(app, trust_client=True), environ("GET", "/", traceparent=sent, tracestate="a=b"))
    assert TRACE.require(app.environ).parent_id == ""
    assert "HTTP_TRACESTATE" not in app.environ


@pytest.mark.parametrize(
    ("sent", "sampled"),
    [
        (PARENT, True),
        (PARENT[:-2] + "00", False),
        (PARENT[:-2] + "ff", True),
        (PARENT[:-2] + "02", False),
        ("01" + PARENT[2:], True),
        ("cc" + PARENT[2:] + "-what-the-future-brings", True),
    ],
)
def test_reads_the_flags_and_later_versions(sent: str, sampled: bool) -> None:
    """Only the first flag is known; a later version is read as far as it is known, and answered with version 00."""
    trace = continue_trace(sent)

    assert trace is not None
    assert trace.sampled is sampled
    assert trace.traceparent.endswith("-01" if sampled else "-00")
    assert trace.traceparent.startswith("00-" + PARENT[3:35])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a=1", "a=1"),
        ("a=1,,b=2, ", "a=1,b=2"),
        ("fw529a3039@dt=FfFfFf", "fw529a3039@dt=FfFfFf"),
        ("a*/_-=!~", "a*/_-=!~"),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a=", None),
        ("a=b=c", None),
        ("a=ü", None),
        ("a=1\x00", None),
        ("", None),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), None),
        ("a=" + "x" * 256, "a=" + "x" * 256),
        ("a=" + "x" * 257, None),
        ("a" * 257 + "=1", None),
        ("a=b" + ",a" * 50000, None),
    ],
)
def test_checks_the_tracestate(sent: str, kept: str | None) -> None:
    """A list that is wrong in one member is dropped as a whole."""
    assert parse_tracestate(sent) == kept
