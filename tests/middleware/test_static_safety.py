"""StaticMiddleware: nothing outside the roots, whatever is asked, linked, exchanged or cut short."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lamella.middleware._static_lookup as lookup
from lamella.apps.static import StaticApp
from lamella.middleware.static import StaticMiddleware
from lamella.stack.kernel.http import parse_date
from lamella.stack.testing import Response, call, environ, lint

MARKER = b"S3CR3T-MARKER"
LETTERS = b"abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The layout that the corpora are meant for: a root, and secrets beside it."""
    root = tmp_path / "root"
    for name in ("css", "sub", ".git"):
        (root / name).mkdir(parents=True)
    for name, content in {
        "root/f.txt": b"plain",
        "root/css/s.css": b"x",
        "root/sub/index.html": b"hi",
        "root/.env": MARKER,
        "root/.git/config": MARKER,
        "root/sp ace.txt": b"a",
        "root/café.txt": b"b",
        "root/letters": LETTERS,
        "root/empty": b"",
        "root/big.bin": b"z" * 300_000,
        "root_private/secret.txt": MARKER,
        "rootsecret.txt": MARKER,
        "secret.txt": MARKER,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for name in ("letters", "empty"):
        os.utime(root / name, (1_700_000_000, 1_700_000_000))
    (root / "link_out").symlink_to("../secret.txt")
    (root / "linkdir_out").symlink_to("..")
    (root / "link_in").symlink_to("f.txt")
    (root / "linkdir_in").symlink_to("sub")
    (root / "loop").symlink_to("loop")
    (root / "sub" / "up").symlink_to("..")
    return tmp_path


@pytest.fixture(params=["live", "immutable"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both modes are as safe."""
    chosen: str = request.param
    return chosen


def raw(path_info: str, method: str = "GET", **headers: Any) -> dict[str, Any]:
    """A request with PATH_INFO as it is."""
    return {**environ(method, "/", **headers), "PATH_INFO": path_info}


def leaks(response: Response) -> bool:
    """Whether a secret came out."""
    return MARKER in response.body or b"root:x:" in response.body


# --- the corpora --------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["", "/mounted"])
def test_no_traversal_leaks(base: Path, mode: str, mount: str, corpus: Any) -> None:
    """Thousands of targets: no secret, no exception, no 5xx; what must be served is."""
    cases = corpus("path_traversal")
    targets = [case["path_info"] for case in cases["cases"]]
    for target in [*corpus("path_traversal_bulk")["raw"], *(case["raw"] for case in cases["cases"])]:
        targets.append(unquote_to_bytes(target.partition("?")[0]).decode("latin-1"))
    app = StaticApp(root=base / "root", mode=mode, listing=True, clean_urls=True)

    for target in targets:
        response = call(app, {**raw(target), "SCRIPT_NAME": mount})
        assert not leaks(response), target
        assert response.code < 500, target
    for target, status in cases["must_serve"].items():
        assert call(app, environ("GET", target, SCRIPT_NAME=mount)).code == int(status)


def fill(value: str, etag: str, modified: int) -> str:
    """Put the validators into a value of the corpus."""
    shape = time.gmtime(modified)
    dates = {
        "$LM850": time.strftime("%A, %d-%b-%y %H:%M:%S GMT", shape),
        "$LMASC": time.strftime("%a %b ", shape) + f"{shape.tm_mday:2d}" + time.strftime(" %H:%M:%S %Y", shape),
        "$LM-1": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(modified - 1)),
        "$LM+1": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(modified + 1)),
        "$LM": time.strftime("%a, %d %b %Y %H:%M:%S GMT", shape),
    }
    value = value.replace("$ETAGRAW", etag.strip('"')).replace("$ETAG", etag)
    for name, text in dates.items():
        value = value.replace(name, text)
    return value


def sent(headers: dict[str, str], etag: str) -> dict[str, Any]:
    """The headers of a case as keywords."""
    return {name.replace("-", "_").lower(): fill(value, etag, 1_700_000_000) for name, value in headers.items()}


@pytest.mark.timing
@pytest.mark.parametrize("mount", ["", "/mounted"])
def test_ranges_by_the_corpus(base: Path, mode: str, mount: str, corpus: Any) -> None:
    """Status, body and Content-Range as RFC 9110 has them."""
    app = lint(StaticApp(root=base / "root", mode=mode))
    for case in corpus("range_cases")["cases"]:
        path = "/letters" if case["length"] else "/empty"
        whole = call(app, environ("GET", path, SCRIPT_NAME=mount))
        headers = sent(case["headers"], whole.header("ETag") or "")
        if case["range"] is not None:
            headers["range"] = case["range"]

        started = time.thread_time()
        response = call(app, environ(case["method"], path, SCRIPT_NAME=mount, **headers))

        assert time.thread_time() - started < 0.3, case["name"]
        assert response.code in case["status"], case["name"]
        assert len(response.body) <= 2 * case["length"] + 400, case["name"]
        if response.code == 206 and case["method"] == "GET" and case["body_if_206"] is not None:
            assert response.text == case["body_if_206"], case["name"]
            assert response.header("Content-Range") == case["content_range_if_206"]
        if response.code == 206:
            for name in ("ETag", "Last-Modified", "Cache-Control", "Vary"):
                assert response.header(name) == whole.header(name)
        if response.code == 416:
            assert response.header("Content-Range") == f"bytes */{case['length']}"


def test_conditions_by_the_corpus(base: Path, mode: str, corpus: Any) -> None:
    """The cross product of all preconditions, in the order of section 13.2.2."""
    app = StaticApp(root=base / "root", mode=mode)
    etag = call(app, environ("GET", "/letters")).header("ETag") or ""

    for row in corpus("conditional_table")["rows"]:
        response = call(app, environ(row["method"], "/letters", **sent(row["headers"], etag)))
        assert response.code == row["expect"], row["key"]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(alphabet="/.\\%\x00 ~:;fxt", max_size=20),
        st.lists(
            st.sampled_from(["", "..", ".", "sub", "up", "linkdir_out", "secret.txt", "%2e%2e", "f.txt", ".env", "é"])
        ).map("/".join),
        st.binary(max_size=12).map(lambda octets: octets.decode("latin-1")),
    )
)
def test_no_path_leaks(base: Path, path: str) -> None:
    """Whatever the path: no secret, no exception, no 5xx, and both modes agree on what is a file."""
    answers = []
    for chosen in ("live", "immutable"):
        app = StaticApp(root=base / "root", mode=chosen, symlinks="none")
        response = call(app, raw(path.encode("utf-8").decode("latin-1")))
        assert not leaks(response)
        assert response.code < 500
        answers.append(response.body if response.code == 200 else None)
    assert answers[0] == answers[1]


# --- hidden names -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/.env", "/.git/config", "/sub/.x", "/%2eenv", "/.git/"])
def test_hides_dotfiles(base: Path, mode: str, path: str) -> None:
    """As if they were not there."""
    (base / "root" / "sub" / ".x").write_bytes(MARKER)

    assert call(StaticApp(root=base / "root", mode=mode), environ("GET", path)).code == 404


def test_shows_the_dotfiles_it_is_told_to(base: Path, mode: str) -> None:
    """By name, with what lies below them; or all."""
    well_known = base / "root" / ".well-known"
    well_known.mkdir()
    (well_known / "security.txt").write_bytes(b"us")
    (well_known / ".env").write_bytes(MARKER)
    app = StaticApp(root=base / "root", mode=mode, dotfiles=[".well-known"])

    assert call(app, environ("GET", "/.well-known/security.txt")).body == b"us"
    assert [call(app, environ("GET", path)).code for path in ("/.env", "/.well-known/.env")] == [404, 404]
    assert call(StaticApp(root=base / "root", mode=mode, dotfiles=True), environ("GET", "/.env")).body == MARKER


@pytest.mark.parametrize(
    "name", ["NUL", "con.txt", "COM1", "LPT9.css", "COM¹", "aux ", "NUL::$DATA", "conin$", "f.txt.", "x "]
)
def test_refuses_names_that_windows_reads_otherwise(base: Path, mode: str, name: str) -> None:
    """On every system, also where such a file exists."""
    (base / "root" / name).write_bytes(b"device")

    response = call(StaticApp(root=base / "root", mode=mode, dotfiles=True), raw("/" + name.encode().decode("latin-1")))

    assert response.code == 404


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/" + "x/" * 3000, "/f.txt/x", "/\xff\xfe", "/\xed\xa0\x80"])
def test_names_that_no_file_can_have_are_no_files(base: Path, mode: str, path: str) -> None:
    """Too long, below a file, not UTF-8, a surrogate: 404 or 400."""
    assert call(StaticApp(root=base / "root", mode=mode), raw(path)).code in (400, 404)


# --- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("none", set()),
        ("inside", {"/link_in", "/linkdir_in/index.html", "/sub/up/f.txt"}),
        ("all", {"/link_in", "/linkdir_in/index.html", "/sub/up/f.txt", "/link_out", "/linkdir_out/secret.txt"}),
    ],
)
def test_follows_links_by_policy(base: Path, mode: str, policy: str, served: set[str]) -> None:
    """None, those that stay inside, or all; a loop is never followed."""
    app = StaticApp(root=base / "root", mode=mode, symlinks=policy)
    paths = ["/link_in", "/linkdir_in/index.html", "/sub/up/f.txt", "/link_out", "/linkdir_out/secret.txt", "/loop"]
    if mode == "immutable":  # the scan follows no link to a folder that it lies in
        served = served - {"/sub/up/f.txt", "/linkdir_out/secret.txt"}

    assert {path for path in paths if call(app, environ("GET", path)).code == 200} == served
    assert call(app, environ("GET", "/f.txt")).code == 200


def test_lists_no_link_that_leads_out(base: Path) -> None:
    """A listing names only what would be served."""
    app = StaticApp(root=base / "root", listing=True)

    page = call(app, environ("GET", "/", accept="application/json")).text

    assert "link_in" in page
    assert "link_out" not in page
    assert "loop" not in page


def test_the_root_may_be_a_link_that_is_switched(base: Path, tmp_path: Path) -> None:
    """A deployment that exchanges the link is followed at once."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "v.txt").write_bytes(release.encode())
    current = tmp_path / "current"
    current.symlink_to("one")
    app = StaticApp(root=current, symlinks="none")
    assert call(app, environ("GET", "/v.txt")).body == b"one"

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)

    assert call(app, environ("GET", "/v.txt")).body == b"two"


def test_a_link_that_appears_after_the_check_gains_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is exchanged for a link between looking and opening: the open descriptor is what counts."""
    victim = base / "root" / "f.txt"
    real_open = os.open

    def exchange_then_open(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path) == str(victim):
            victim.unlink(missing_ok=True)
            victim.symlink_to(base / "secret.txt")
        return real_open(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", exchange_then_open)

    response = call(StaticApp(root=base / "root"), environ("GET", "/f.txt"))

    assert (response.code, leaks(response)) == (404, False)


def test_a_racing_link_never_leaks(base: Path) -> None:
    """A folder that becomes a link to the outside and back, as fast as possible, while it is read."""
    root = base / "root"
    (root / "race").mkdir()
    (root / "race" / "secret.txt").write_bytes(b"public")
    (base / "evil").symlink_to(base / "root_private")
    app = StaticApp(root=root, memory=0)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "race").rename(root / "aside")
            (base / "evil").rename(root / "race")
            (root / "race").rename(base / "evil")
            (root / "aside").rename(root / "race")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            response = call(app, environ("GET", "/race/secret.txt"))
            assert response.code in (200, 404)
            assert not leaks(response)
    finally:
        stop.set()
        thread.join()


def test_is_as_strict_without_the_kernel_s_help(base: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not tell an open file's path, a walk without links finds it out."""
    monkeypatch.setattr(lookup, "_descriptor_path", lambda descriptor: None)
    app = StaticApp(root=base / "root", mode=mode)

    codes = {path: call(app, environ("GET", path)).code for path in ("/f.txt", "/link_in", "/link_out", "/sub/")}
    strict = StaticApp(root=base / "root", mode=mode, symlinks="none")

    assert codes == {"/f.txt": 200, "/link_in": 200, "/link_out": 404, "/sub/": 200}
    assert call(strict, environ("GET", "/link_in")).code == 404
    assert call(strict, environ("GET", "/css/s.css")).code == 200


# --- what is no file, and files that change ------------------------------------------------------


def test_refuses_what_is_no_regular_file(base: Path, mode: str) -> None:
    """A FIFO without a writer blocks nobody; sockets and devices are not opened."""
    os.mkfifo(base / "root" / "pipe")
    (base / "root" / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(base / "root")  # a socket's path is at most 107 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        app = StaticApp(root=base / "root", mode=mode, symlinks="all")
        started = time.monotonic()

        codes = [call(app, environ("GET", path)).code for path in ("/pipe", "/socket", "/null")]

    assert codes == [404, 404, 404]
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-299998"}, {"range": "bytes=0-1,20-280000"}])
def test_a_file_that_shrinks_breaks_the_connection(base: Path, mode: str, headers: dict[str, Any]) -> None:
    """Fewer bytes than were promised must not look like a whole answer, nor loop for ever."""
    app = StaticMiddleware(lambda *_: [], root=base / "root", mode=mode)
    body = app(environ("GET", "/big.bin", **headers), lambda *_: lambda data: None)
    blocks = iter(body)
    next(blocks)

    os.truncate(base / "root" / "big.bin", 10)

    with pytest.raises(ConnectionResetError, match="became shorter"):
        list(blocks)
    close_body(body)


def close_body(body: Any) -> None:
    """Close it as a server does."""
    body.close()


def test_a_file_that_is_removed_while_it_is_sent_is_sent(base: Path, mode: str) -> None:
    """The open descriptor keeps it."""
    app = StaticMiddleware(lambda *_: [], root=base / "root", mode=mode)
    blocks: Iterator[bytes] = iter(app(environ("GET", "/big.bin"), lambda *_: lambda data: None))
    first = next(blocks)

    (base / "root" / "big.bin").unlink()

    assert len(first + b"".join(blocks)) == 300_000


def test_leaves_no_descriptor_open(base: Path, mode: str) -> None:
    """Hits, ranges, misses, HEAD, refused links, clients that leave."""
    app = StaticApp(root=base / "root", mode=mode, listing=True, memory=0)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    for _ in range(3):
        for path in ("/f.txt", "/big.bin", "/none", "/link_out", "/sub", "/", "/css/"):
            call(app, environ("GET", path))
            call(app, environ("HEAD", path))
            call(app, environ("GET", path, range="bytes=1-2,5-9"))
            call(app, environ("GET", path, range="bytes=0-280000"), blocks=1)

    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


@pytest.mark.parametrize("path", ["/f.txt", "/big.bin"])
def test_answers_503_when_the_system_is_busy(base: Path, mode: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor left is not "no such file", and no traceback."""
    app = lint(StaticApp(root=base / "root", mode=mode))
    monkeypatch.setattr(os, "open", _no_descriptors)

    response = call(app, environ("GET", path))

    assert (response.code, response.header("Retry-After")) == (503, "1")


def _no_descriptors(*arguments: Any, **named: Any) -> int:
    raise OSError(24, "Too many open files")


def test_a_future_date_is_not_told(base: Path, mode: str) -> None:
    """RFC 9110 section 8.8.2.1: Last-Modified is never later than now."""
    ahead = time.time() + 86400
    os.utime(base / "root" / "f.txt", (ahead, ahead))

    response = call(StaticApp(root=base / "root", mode=mode), environ("GET", "/f.txt"))

    assert 0 < (parse_date(response.header("Last-Modified") or "") or 0) <= time.time()
