"""StaticMiddleware: what is served, how it is described, and what goes to the app inside."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication
from wsgiref.util import FileWrapper

import pytest

from lamella.apps.static import StaticApp, StaticUrls, static_url
from lamella.middleware._static_files import Loader
from lamella.middleware._static_rules import Rules
from lamella.middleware.static import StaticMiddleware
from lamella.stack.kernel.errors import ConfigError, MissingLayerError
from lamella.stack.kernel.http import format_date
from lamella.stack.testing import RecordingApp, Response, call, environ, lint

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
OLD = 1_700_000_000
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"

Get = Callable[..., Response]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a bit of everything, long unchanged."""
    folder = tmp_path / "root"
    for name, content in {
        "letters.txt": LETTERS,
        "empty.txt": b"",
        "css/app.css": b"body { color: red }" * 20,
        "css/app.css.gz": gzip.compress(b"body { color: red }" * 20, mtime=0),
        "css/app.css.br": b"pretend brotli",
        "js/main.0123456789ab.js": b"1",
        "docs/index.html": b"<h1>docs</h1>",
        "docs/about.html": b"<h1>about</h1>",
        "index.html": b"<h1>home</h1>",
        "404.html": b"<h1>not here</h1>",
        "café.txt": b"coffee",
        "sp ace.txt": b"space",
        "data.bin": bytes(range(256)) * 1200,
        "LICENSE": b"free",
        "img/pixel.png": b"png",
        ".env": b"SECRET",
        ".well-known/security.txt": b"Contact: us",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (OLD, OLD))
    return folder


@pytest.fixture(params=["live", "immutable"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both modes answer alike."""
    chosen: str = request.param
    return chosen


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    return lint(StaticMiddleware(lint(app), **options))


def missing() -> RecordingApp:
    """An app that has nothing."""
    return RecordingApp(status="404 Not Found", body=[b"inner 404"])


@pytest.fixture
def get(root: Path, mode: str) -> Get:
    """Makes one request; options of the layer begin with an underscore."""

    def request(path: str, method: str = "GET", app: RecordingApp | None = None, **given: Any) -> Response:
        options = {name[1:]: value for name, value in given.items() if name.startswith("_")}
        headers = {name: value for name, value in given.items() if not name.startswith("_")}
        options.setdefault("root", root)
        return call(layer(app or missing(), mode=mode, **options), environ(method, path, **headers))

    return request


# --- ordinary answers ---------------------------------------------------------------------------


def test_serves_a_file(get: Get) -> None:
    """Content, type, length, validators, and no guessing by the browser."""
    response = get("/letters.txt")

    assert (response.status, response.body) == ("200 OK", LETTERS)
    assert response.header("Content-Type") == "text/plain; charset=utf-8"
    assert response.header("Content-Length") == "26"
    assert response.header("Last-Modified") == format_date(OLD)
    assert (response.header("ETag") or "").startswith('"')
    assert response.header("Accept-Ranges") == "bytes"
    assert response.header("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("path", ["/caf%C3%A9.txt", "/sp%20ace.txt", "/empty.txt", "/LICENSE"])
def test_serves_any_ordinary_name(get: Get, path: str) -> None:
    """Spaces, letters outside ASCII, no content, no extension."""
    assert get(path).status == "200 OK"


def test_passes_a_miss_on(get: Get) -> None:
    """What is no file is the inner app's, untouched."""
    app = RecordingApp()

    response = get("/nothing.txt", app=app)

    assert (response.code, response.body, app.called) == (200, b"hello", 1)


def test_head_is_get_without_content(get: Get) -> None:
    """The same headers, and ranges do not count (RFC 9110 section 14.2)."""
    got = get("/letters.txt")

    head = get("/letters.txt", "HEAD", range="bytes=0-4")

    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.parametrize("path", ["/letters.txt", "/data.bin", "/docs/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"])
def test_refuses_other_methods_for_a_file(get: Get, path: str, method: str) -> None:
    """405 says what is allowed, and the inner app is not asked."""
    app = RecordingApp()

    response = get(path, method, app=app)

    assert (response.code, response.header("Allow"), app.called) == (405, "GET, HEAD", 0)


def test_passes_other_methods_on_where_there_is_no_file(get: Get) -> None:
    """A form of the app inside works below the same prefix."""
    app = RecordingApp()

    assert get("/form", "POST", app=app).code == 200
    assert app.called == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.CSS", "text/css; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("Makefile", "application/octet-stream"),
    ],
)
def test_types_come_from_a_fixed_table(get: Get, root: Path, name: str, expected: str) -> None:
    """The host's mime.types changes nothing."""
    (root / name).write_bytes(b"x")

    assert get("/" + name).header("Content-Type") == expected


def test_takes_own_types(get: Get) -> None:
    """By whole name, by extension, with another charset or none."""
    types = {"LICENSE": "text/plain", ".png": "image/x-own"}

    assert get("/LICENSE", _types=types).header("Content-Type") == "text/plain; charset=utf-8"
    assert get("/img/pixel.png", _types=types).header("Content-Type") == "image/x-own"
    assert get("/letters.txt", _charset="").header("Content-Type") == "text/plain"


# --- prefixes and roots -------------------------------------------------------------------------


def test_serves_below_a_prefix_only(get: Get) -> None:
    """On a segment border; the rest is the inner app's."""
    assert get("/static/letters.txt", _prefix="/static").body == LETTERS
    for path in ("/letters.txt", "/staticletters.txt", "/static2/letters.txt"):
        assert get(path, _prefix="/static/").body == b"inner 404"


def test_works_mounted_and_with_a_prefix_of_any_letters(get: Get) -> None:
    """SCRIPT_NAME and PATH_INFO are bytes in disguise (PEP 3333)."""
    response = get("/caf%C3%A9/docs?a=b", _prefix="/café", SCRIPT_NAME="/m\xc3\xbc")

    assert (response.code, response.header("Location")) == (301, "/m%C3%BC/caf%C3%A9/docs/?a=b")
    assert get("/caf%C3%A9/letters.txt", _prefix="/café", SCRIPT_NAME="/m\xc3\xbc").body == LETTERS


def test_the_first_root_that_has_the_file_wins(get: Get, root: Path, tmp_path: Path) -> None:
    """Roots are looked through in order."""
    theme = tmp_path / "theme"
    (theme / "css").mkdir(parents=True)
    (theme / "css" / "app.css").write_bytes(b"mine")

    assert get("/css/app.css", _root=[theme, root]).body == b"mine"
    assert get("/letters.txt", _root=[theme, root]).body == LETTERS


def test_serves_the_data_of_a_package(get: Get) -> None:
    """``package:`` finds the folder wherever the package is installed, also behind a resolved path."""
    assert b"def get_header" in get("/response.py", _root="package:lamella.stack/kernel").body
    assert get("/response.py", _root="/srv/stack/package:lamella.stack/kernel").code == 200


def test_an_absent_path_info_is_an_empty_one(root: Path, mode: str) -> None:
    """PEP 3333 lets a server leave empty variables out."""
    request = environ("GET", "/", SCRIPT_NAME="/mount")
    del request["PATH_INFO"]

    response = call(StaticMiddleware(missing(), root=root, mode=mode), request)

    assert (response.code, response.header("Location")) == (301, "/mount/")


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_is_its_index(get: Get) -> None:
    """With the slash the index, without it a redirect that keeps the query."""
    assert get("/docs/").body == b"<h1>docs</h1>"
    redirect = get("/docs?x=%41&y")
    assert (redirect.code, redirect.header("Location")) == (301, "/docs/?x=%41&y")


def test_a_folder_without_index_is_no_file(get: Get) -> None:
    """Neither listed nor redirected to, unless asked for."""
    for path in ("/css/", "/css", "/letters.txt/"):
        assert get(path).body == b"inner 404"
    assert get("/docs/", _index="").body == b"inner 404"
    assert get("/docs/", _index=["default.htm", "about.html"]).body == b"<h1>about</h1>"


@pytest.mark.parametrize("query", ["\r\nX: y", "<script>"])
def test_a_redirect_holds_no_foreign_characters(root: Path, mode: str, query: str) -> None:
    """A query that no header may hold is left out, the rest is encoded."""
    request = environ("GET", "/docs", QUERY_STRING=query)

    response = call(lint(StaticMiddleware(missing(), root=root, mode=mode)), request)

    assert response.header("Location") in ("/docs/", "/docs/?%3Cscript%3E")


def test_lists_a_folder_for_people(get: Get, root: Path) -> None:
    """Escaped, without dotfiles, folders first, with a policy that allows no script."""
    evil = "javascript:alert(1)<img src=x>.txt"
    (root / "css" / evil).write_bytes(b"x")
    (root / "css" / "deep").mkdir()
    (root / "css" / ".hidden").write_bytes(b"x")

    page = get("/css/", _listing=True, accept=HTML)

    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in (page.header("Content-Security-Policy") or "")
    assert 'href="./javascript%3Aalert%281%29%3Cimg%20src%3Dx%3E.txt"' in page.text
    assert "<img" not in page.text
    assert ".hidden" not in page.text
    assert page.text.index("deep/") < page.text.index("app.css")


def test_lists_a_folder_for_programs(get: Get) -> None:
    """JSON where the client prefers it, in the order asked for."""
    response = get("/css/?sort=size&order=desc", _listing=True, accept="application/json")

    listed = json.loads(response.body)
    assert [item["name"] for item in listed] == ["app.css", "app.css.gz", "app.css.br"]
    assert listed[0] == {"name": "app.css", "type": "file", "size": 380, "modified": format_date(OLD)}
    assert response.header("Vary") == "Accept"


def test_a_listing_is_only_read(get: Get) -> None:
    """POST to a listed folder is 405; without the slash comes the redirect."""
    assert get("/css/", "POST", _listing=True).code == 405
    assert get("/css", _listing=True).header("Location") == "/css/"


def test_clean_urls_have_one_form(get: Get) -> None:
    """The short form answers, the long ones lead to it."""
    assert get("/docs/about", _clean_urls=True).body == b"<h1>about</h1>"
    assert get("/docs/about.html", _clean_urls=True).header("Location") == "/docs/about"
    assert get("/docs/index.html", _clean_urls=True).header("Location") == "/docs/"
    assert get("/docs/about").body == b"inner 404"


# --- what answers a miss ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "accept", "code"),
    [
        pytest.param("/cart/42", HTML, 200, id="navigation"),
        pytest.param("/user/jane.doe", HTML, 200, id="navigation with a dot"),
        pytest.param("/cart/42", "*/*", 200, id="anything goes"),
        pytest.param("/missing.js", "*/*", 404, id="a script"),
        pytest.param("/missing.png", "image/avif,image/webp", 404, id="an image"),
    ],
)
def test_a_navigation_falls_back_to_the_app_page(get: Get, path: str, accept: str, code: int) -> None:
    """A single-page app gets its page; a missing script stays missing."""
    response = get(path, _fallback="index.html", accept=accept)

    assert response.code == code
    assert (response.body == b"<h1>home</h1>") is (code == 200)


def test_the_fallback_leaves_other_answers_alone(get: Get) -> None:
    """An API's own 404 in JSON, its successes, and other methods stay."""
    json_404 = RecordingApp(
        status="404 Not Found", headers=[("Content-Type", "application/problem+json")], body=[b"{}"]
    )

    assert get("/api/1", _fallback="index.html", app=json_404, accept="*/*").body == b"{}"
    assert get("/api/1", _fallback="index.html", app=RecordingApp(), accept=HTML).body == b"hello"
    assert get("/api/1", "POST", _fallback="index.html", accept=HTML).body == b"inner 404"
    assert json_404.closed == 1


def test_a_miss_gets_the_custom_404(get: Get) -> None:
    """Below the prefix, with the status of the truth."""
    response = get("/static/gone", _not_found="404.html", _prefix="/static", accept=HTML)

    assert (response.status, response.body) == ("404 Not Found", b"<h1>not here</h1>")
    assert response.header("ETag") is None
    assert get("/elsewhere", _not_found="404.html", _prefix="/static", accept=HTML).body == b"inner 404"
    assert get("/static/gone", "HEAD", _not_found="404.html", _prefix="/static", accept=HTML).body == b""


def test_pages_are_found_whatever_their_clean_form(get: Get) -> None:
    """The fallback is a file, not an address."""
    assert get("/route", _fallback="index.html", _clean_urls=True, accept=HTML).body == b"<h1>home</h1>"


def test_a_large_page_is_sent_from_disk(get: Get, root: Path) -> None:
    """In blocks, whole, also for a 404."""
    (root / "404.html").write_bytes(b"p" * 100_000)

    response = get("/gone", _not_found="404.html", accept=HTML)

    assert (response.code, len(response.body), response.header("Content-Length")) == (404, 100_000, "100000")


def test_misses_and_redirects_take_no_memory(root: Path) -> None:
    """What is not kept is not counted: the files that are asked for still find room."""
    app = StaticMiddleware(missing(), root=root, mode="immutable", not_found="404.html", memory=60)
    for _ in range(20):
        call(app, environ("GET", "/gone", accept=HTML))
    call(app, environ("GET", "/docs"))
    call(app, environ("GET", "/letters.txt"))

    (root / "letters.txt").unlink()

    assert call(app, environ("GET", "/letters.txt")).body == LETTERS


# --- conditions and codings ---------------------------------------------------------------------


def test_answers_304_to_the_tag_it_gave(get: Get) -> None:
    """With the fields that a cache needs, and no content."""
    etag = get("/letters.txt").header("ETag")

    response = get("/letters.txt", if_none_match=etag)

    assert (response.code, response.body) == (304, b"")
    assert response.header("ETag") == etag
    assert response.header("Content-Length") is None
    assert response.header("Cache-Control") is not None


def test_sends_the_sibling_the_client_likes_best(get: Get) -> None:
    """By weights; each with its own tag; the same type."""
    responses = {
        sent: get("/css/app.css", accept_encoding=sent)
        for sent in (
            "gzip",
            "gzip, br",
            "br;q=0.1, gzip",
            "gzip;q=0",
            "",
            "x-gzip",
            "*",
            "zstd",
            "gzip;q=0.5, identity",
        )
    }

    assert {sent: response.header("Content-Encoding") for sent, response in responses.items()} == {
        "gzip": "gzip",
        "gzip, br": "br",
        "br;q=0.1, gzip": "gzip",
        "gzip;q=0": None,
        "": None,
        "x-gzip": "gzip",
        "*": "br",
        "zstd": None,
        "gzip;q=0.5, identity": None,
    }
    assert {response.header("Vary") for response in responses.values()} == {"Accept-Encoding"}
    assert {response.header("Content-Type") for response in responses.values()} == {"text/css; charset=utf-8"}
    assert len({response.header("ETag") for response in responses.values()}) == 3
    assert gzip.decompress(responses["gzip"].body) == responses[""].body


def test_refuses_a_client_that_refuses_everything(get: Get) -> None:
    """``identity;q=0`` without a coding at hand is 406; with one it is not."""
    assert get("/letters.txt", accept_encoding="identity;q=0").code == 406
    assert get("/letters.txt", accept_encoding="*;q=0").code == 406
    assert get("/css/app.css", accept_encoding="identity;q=0, gzip").header("Content-Encoding") == "gzip"


def test_a_304_is_per_coding(get: Get) -> None:
    """The tag of one coding does not match the other."""
    plain = get("/css/app.css").header("ETag")

    assert get("/css/app.css", if_none_match=plain).code == 304
    assert get("/css/app.css", if_none_match=plain, accept_encoding="gzip").code == 200


def test_a_sibling_of_the_same_size_and_time_has_its_own_tag(get: Get, root: Path) -> None:
    """Two codings are never one representation."""
    (root / "letters.txt.gz").write_bytes(LETTERS[::-1])
    os.utime(root / "letters.txt.gz", (OLD, OLD))

    assert get("/letters.txt").header("ETag") != get("/letters.txt", accept_encoding="gzip").header("ETag")


def test_sends_the_whole_where_the_parts_would_cost_more(get: Get) -> None:
    """Six single bytes of a tiny file need more headers than the file has letters."""
    response = get("/letters.txt", range="bytes=0-0,2-2,4-4,6-6,8-8,10-10")

    assert (response.code, response.body, response.header("Content-Range")) == (200, LETTERS, None)


def test_ranges_are_of_the_coded_content(get: Get) -> None:
    """RFC 9110 section 14.1: a range counts in the selected representation."""
    whole = get("/css/app.css", accept_encoding="gzip").body

    part = get("/css/app.css", accept_encoding="gzip", range="bytes=2-5")

    assert (part.code, part.body, part.header("Content-Encoding")) == (206, whole[2:6], "gzip")
    assert part.header("Content-Range") == f"bytes 2-5/{len(whole)}"


@pytest.mark.parametrize("options", [{}, {"_memory": 0}], ids=["in memory", "from disk"])
@pytest.mark.parametrize("path", ["/letters.txt", "/data.bin"])
def test_sends_several_ranges_as_multipart(get: Get, root: Path, path: str, options: dict[str, Any]) -> None:
    """Read back by a MIME parser, each part is the slice that its Content-Range says."""
    from email import message_from_bytes

    content = (root / path[1:]).read_bytes()

    response = get(path, range="bytes=1-3,20-22", **options)

    assert response.code == 206
    kind = response.header("Content-Type") or ""
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + response.body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    sliced = [part.get_payload(decode=True) for part in parts]  # type: ignore[union-attr]
    assert sliced == [content[1:4], content[20:23]]
    ranges = [part["Content-Range"] for part in parts]  # type: ignore[index]
    assert ranges == [f"bytes {bounds}/{len(content)}" for bounds in ("1-3", "20-22")]


@pytest.mark.parametrize("options", [{}, {"_memory": 0}], ids=["in memory", "from disk"])
def test_sends_one_range_of_a_large_file(get: Get, root: Path, options: dict[str, Any]) -> None:
    """Across the borders of blocks, from the disk."""
    content = (root / "data.bin").read_bytes()

    response = get("/data.bin", range="bytes=100-290000", **options)

    assert response.body == content[100:290001]
    assert get("/letters.txt", range="bytes=-1", **options).body == b"z"


@pytest.mark.timing
@pytest.mark.parametrize(
    "hostile",
    [
        "bytes=" + ",".join(f"{n}-" for n in range(1300)),
        "bytes=" + "0-0," * 1000,
        "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(0, 3000, 2)),
        "bytes=" + ",".join(f"0-{n}" for n in range(200)),
        "bytes=" + "1" * 60_000 + "-",
        "bytes=0-" + "," * 50_000,
    ],
    ids=["open ends", "the same byte", "staircase", "growing", "digits", "commas"],
)
def test_hostile_ranges_cost_little(get: Get, root: Path, hostile: str) -> None:
    """At most twice the file, in less than 100 ms."""
    started = time.thread_time()

    response = get("/data.bin", range=hostile)

    assert time.thread_time() - started < 0.3
    assert len(response.body) <= 2 * (root / "data.bin").stat().st_size


# --- caching and headers ------------------------------------------------------------------------


def test_caching_by_mode_and_option(get: Get, mode: str) -> None:
    """Live files are asked for each time; a duration may be given; nothing is public by itself."""
    assert get("/letters.txt").header("Cache-Control") == ("no-cache" if mode == "live" else "max-age=60")
    assert get("/letters.txt", _max_age="1h").header("Cache-Control") == "max-age=3600"
    assert get("/letters.txt", _max_age=0).header("Cache-Control") == "no-cache"


@pytest.mark.parametrize(
    "immutable",
    [True, r"[^/]+\.[0-9a-f]{12}\.js", r"js/.*", lambda path: path == "js/main.0123456789ab.js"],
    ids=["usual names", "name", "path", "callable"],
)
def test_hashed_names_are_kept_for_ever(get: Get, immutable: Any) -> None:
    """A name that changes with its content never needs to be asked for again."""
    hashed = get("/js/main.0123456789ab.js", _immutable=immutable)

    assert hashed.header("Cache-Control") == "public, max-age=31536000, immutable"
    assert "immutable" not in (get("/css/app.css", _immutable=immutable).header("Cache-Control") or "")


def test_header_rules_apply_by_pattern(get: Get) -> None:
    """Later rules win; a pattern looks at the decoded path."""
    rules = {
        "*.css": {"Access-Control-Allow-Origin": "*", "X-A": "1"},
        "/css/**": {"X-A": "2", "Cache-Control": "max-age=5"},
        "/docs/*.html": {"X-B": "3"},
    }

    css = get("/css/a%70p.css", _headers=rules)

    assert css.header("Access-Control-Allow-Origin") == "*"
    assert (css.header("X-A"), css.header("Cache-Control")) == ("2", "max-age=5")
    assert get("/docs/about.html", _headers=rules).header("X-B") == "3"
    assert get("/letters.txt", _headers=rules).header("X-A") is None
    assert get("/css/app.css", _headers=rules, range="bytes=0-1").header("X-A") == "2"


# --- hand-over ----------------------------------------------------------------------------------


def test_hands_a_large_file_to_the_server(root: Path, mode: str) -> None:
    """As the server's own wrapper, at the beginning of the file; closed with it."""
    app = StaticMiddleware(missing(), root=root, mode=mode)

    body = app({**environ("GET", "/data.bin"), "wsgi.file_wrapper": FileWrapper}, lambda *_: lambda data: None)

    assert type(body) is FileWrapper
    assert body.filelike.fileno() > 0
    assert b"".join(body) == (root / "data.bin").read_bytes()
    body.close()
    assert body.filelike.closed


def test_sends_a_small_file_as_bytes(root: Path, mode: str) -> None:
    """Two packets for a small file cost 44 ms behind uWSGI."""
    app = StaticMiddleware(missing(), root=root, mode=mode, memory=0)

    body = app({**environ("GET", "/letters.txt"), "wsgi.file_wrapper": FileWrapper}, lambda *_: lambda data: None)

    assert body == [LETTERS]


def test_sends_large_blocks_without_a_wrapper(get: Get) -> None:
    """256 KiB at a time."""
    assert [len(block) for block in get("/data.bin").blocks] == [262144, 300 * 1024 - 262144]


def test_leaves_the_sending_to_nginx(get: Get, root: Path) -> None:
    """X-Accel-Redirect names the internal address; conditions and ranges are nginx's."""
    options = {"_sendfile": "x-accel-redirect", "_sendfile_map": {str(root): "/internal/"}}

    response = get("/sp%20ace.txt", range="bytes=0-1", x_sendfile_type="X-Sendfile", **options)

    assert (response.code, response.body) == (200, b"")
    assert response.header("X-Accel-Redirect") == "/internal/sp%20ace.txt"
    assert response.header("Content-Length") == "0"
    assert response.header("ETag") is None


def test_leaves_the_sending_to_apache(get: Get, root: Path) -> None:
    """X-Sendfile names the file."""
    assert get("/letters.txt", _sendfile="x-sendfile").header("X-Sendfile") == f"{root}/letters.txt"


# --- the modes ----------------------------------------------------------------------------------


def test_live_mode_sees_every_change(root: Path) -> None:
    """New, changed, replaced, precompressed and removed files, without waiting."""
    app = StaticMiddleware(missing(), root=root)

    def body(name: str, **headers: Any) -> bytes:
        return call(app, environ("GET", name, **headers)).body

    for content in (b"one", b"two", b"six"):
        (root / "new.txt").write_bytes(content)
        assert body("/new.txt") == content
    assert body("/letters.txt", accept_encoding="gzip") == LETTERS
    (root / "letters.txt.gz").write_bytes(b"zipped")
    assert body("/letters.txt", accept_encoding="gzip") == b"zipped"
    (root / "letters.txt.gz").write_bytes(b"ZIPPED")
    assert body("/letters.txt", accept_encoding="gzip") == b"ZIPPED"
    (root / "letters.txt.gz").unlink()
    assert body("/letters.txt", accept_encoding="gzip") == LETTERS
    (root / "letters.txt").unlink()
    assert body("/letters.txt") == b"inner 404"


def test_live_mode_sees_changes_of_settled_files(root: Path) -> None:
    """Also of files it holds in memory, by their timestamps."""
    app = StaticMiddleware(missing(), root=root)
    time.sleep(0.15)
    for content in (b"A" * 26, b"B" * 26):
        call(app, environ("GET", "/letters.txt"))
        call(app, environ("GET", "/letters.txt", accept_encoding="gzip"))
        (root / "letters.txt").write_bytes(content)
        assert call(app, environ("GET", "/letters.txt")).body == content
        time.sleep(0.15)
    call(app, environ("GET", "/letters.txt"))
    (root / "letters.txt.gz").write_bytes(b"new sibling")
    assert call(app, environ("GET", "/letters.txt", accept_encoding="gzip")).body == b"new sibling"


def test_a_file_that_has_just_changed_is_not_believed_yet(root: Path) -> None:
    """Within a tick of the file system's clock a second change may leave the same timestamp."""
    loader = Loader("inside", ("gzip",), Rules({}, "", "no-cache", None, ()))
    (root / "new.txt").write_bytes(b"x")

    fresh = loader.load(str(root), "/new.txt")
    time.sleep(0.15)
    settled = loader.load(str(root), "/new.txt")

    assert fresh is not None
    assert settled is not None
    assert (fresh.settled, settled.settled) == (False, True)


def test_live_mode_holds_no_more_than_told(root: Path) -> None:
    """The oldest entries make room; a file over the limit is simply read."""
    app = StaticMiddleware(missing(), root=root, memory=40)
    time.sleep(0.15)

    for _ in range(2):
        for path, content in (
            ("/letters.txt", LETTERS),
            ("/docs/", b"<h1>docs</h1>"),
            ("/docs/about.html", b"<h1>about</h1>"),
        ):
            assert call(app, environ("GET", path)).body == content
        assert len(call(app, environ("GET", "/css/app.css")).body) == 380


def test_immutable_mode_knows_its_files_from_the_start(root: Path) -> None:
    """What comes later is not there; what was read stays."""
    app = StaticMiddleware(missing(), root=root, mode="immutable")
    assert call(app, environ("GET", "/letters.txt")).body == LETTERS

    (root / "later.txt").write_bytes(b"x")
    (root / "letters.txt").unlink()
    (root / "LICENSE").unlink()

    assert call(app, environ("GET", "/later.txt")).body == b"inner 404"
    assert call(app, environ("GET", "/letters.txt")).body == LETTERS
    assert call(app, environ("GET", "/LICENSE")).body == b"inner 404"


def test_a_large_file_that_changes_is_read_anew(root: Path, mode: str) -> None:
    """Never the old length with the new content."""
    app = lint(StaticMiddleware(missing(), root=root, mode=mode))
    call(app, environ("GET", "/data.bin"))

    for size in (200_000, 400_000, 10):
        (root / "data.bin").write_bytes(b"n" * size)
        response = call(app, environ("GET", "/data.bin"))
        assert (response.header("Content-Length"), len(response.body)) == (str(size), size)


# --- addresses ----------------------------------------------------------------------------------


def test_gives_addresses_to_the_apps_inside(root: Path, mode: str) -> None:
    """Below the mount that the layer saw, with the hash that the manifest has."""
    (root / "manifest.json").write_text(json.dumps({"version": 1, "files": {"css/app.css": "css/app.12.css"}}))
    seen = []

    def remember(request: dict[str, Any]) -> None:
        request["SCRIPT_NAME"] += "/deeper"
        seen.append(static_url(request, "css/app.css"))

    app = StaticMiddleware(
        RecordingApp(before=remember), root=root, prefix="/s", mode=mode, manifest=root / "manifest.json"
    )
    call(app, environ("GET", "/x", SCRIPT_NAME="/m"))

    assert seen == ["/m/s/css/app.12.css"]
    with pytest.raises(MissingLayerError, match=r"lamella\.static"):
        static_url(environ("GET", "/"), "css/app.css")


def test_addresses_without_a_layer(root: Path) -> None:
    """Plain names, encoding, a query behind them, another host, and strictness."""
    assert StaticUrls("/static")("a b.css?v=1#x") == "/static/a%20b.css?v=1#x"
    assert StaticUrls("https://cdn.example/")("/a.css") == "https://cdn.example/a.css"
    assert StaticUrls("/s", {"a.css": "a.1.css"})("a.css", environ("GET", "/", SCRIPT_NAME="/m")) == "/m/s/a.1.css"
    with pytest.raises(KeyError, match="lamella static build"):
        StaticUrls("/s", {}, strict=True)("a.css")


def test_a_manifest_may_come_later_in_live_mode_only(root: Path) -> None:
    """Development begins without a build; production does not."""
    manifest = root / "manifest.json"
    with pytest.raises(ConfigError, match="manifest"):
        StaticMiddleware(missing(), root=root, mode="immutable", manifest=manifest)
    urls = StaticUrls("/", manifest, reload=True)
    assert urls("a.css") == "/a.css"

    manifest.write_text('{"files": {"a.css": "a.1.css"}}')

    assert urls.at("/m")("a.css") == "/m/a.1.css"


# --- as an app, and its configuration -----------------------------------------------------------


def test_is_an_app_to_mount(root: Path) -> None:
    """404 where there is no file, 400 where the path has two readings."""
    app = lint(StaticApp(root=root))

    assert call(app, environ("GET", "/letters.txt")).body == LETTERS
    assert call(app, environ("GET", "/no")).code == 404
    assert call(app, environ("GET", "/a%2f%2fb")).code == 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "no/such/folder"}, "root: expected a folder that exists"),
        ({"root": []}, "root: expected at least one folder"),
        ({"root": 5}, "root: expected a folder or a list"),
        ({"root": "package:no.such.package/x"}, "package that can be imported"),
        ({"root": "package:lamella.stack/../.."}, "a folder in the package"),
        ({"prefix": "static"}, "prefix: expected a path"),
        ({"prefix": "/a/../b"}, "prefix"),
        ({"mode": "fast"}, "mode: expected one of 'live', 'immutable'"),
        ({"symlinks": "yes"}, "symlinks: expected one of"),
        ({"index": "a/b"}, "index: expected a file name"),
        ({"dotfiles": ["env"]}, "dotfiles"),
        ({"encodings": "gzip"}, "encodings: expected a list"),
        ({"encodings": ["deflate"]}, "encodings: expected a list of zstd, br, gzip"),
        ({"immutable": "("}, "immutable: expected a regular expression"),
        ({"immutable": 3}, "immutable"),
        ({"fallback": "../x"}, "fallback: expected the path"),
        ({"fallback": "none.html", "mode": "immutable"}, "fallback: expected a file in the root"),
        ({"headers": {"*": {"ETag": "x"}}}, "headers: expected a header that the layer does not set"),
        ({"headers": {"*": {"X": "a\r\nb"}}}, "headers: expected a header name and its value"),
        ({"headers": {"*": "X"}}, "headers"),
        ({"types": {".x": "nonsense"}}, "types: expected a media type"),
        ({"charset": "utf 8"}, "charset"),
        ({"max_age": "soon"}, "max_age: expected seconds"),
        ({"memory": "lots"}, "memory: expected bytes"),
        ({"max_ranges": 0}, "max_ranges"),
        ({"listing": "no"}, "listing"),
        ({"sendfile": "nginx"}, "sendfile: expected one of"),
        ({"sendfile": "x-accel-redirect"}, "sendfile_map: expected the internal address"),
        ({"sendfile_map": {"/a": "/b"}}, "sendfile_map: expected sendfile"),
    ],
)
def test_refuses_a_wrong_option(root: Path, options: dict[str, Any], message: str) -> None:
    """When the stack is built, in one line."""
    with pytest.raises(ConfigError, match=message):
        StaticMiddleware(missing(), **{"root": root, **options})
